//! Libraries that programs call services with.

use super::{Stage, app};
use crate::support::{Program, python};

#[test]
fn requests() {
    let (_app, _mirror, routes) = app();
    let stage = Stage::set(&routes);
    let said = python("requests_client.py", &[&stage.ca(), &stage.url("plain"), &stage.url("main")]);
    assert_eq!(said, "all answered\n");
    stage.assert_no_fault_seen();
}

#[test]
fn httpx() {
    let (_app, _mirror, routes) = app();
    let stage = Stage::set(&routes);
    let said = python("httpx_client.py", &[&stage.ca(), &stage.url("plain"), &stage.url("main")]);
    assert_eq!(said, "all answered\n");
    stage.assert_no_fault_seen();
}

#[test]
fn fetch_of_node() {
    let (_app, _mirror, routes) = app();
    let stage = Stage::set(&routes);
    let said = Program::new("node")
        .env("NODE_EXTRA_CA_CERTS", stage.ca())
        .args(["tests/apps/fetch_client.mjs", &stage.url("plain"), &stage.url("main")])
        .succeed();
    assert_eq!(said.text(), "all answered\n");
    stage.assert_no_fault_seen();
}

#[test]
fn http2_of_node() {
    let (_app, _mirror, routes) = app();
    let stage = Stage::set(&routes);
    let said = Program::new("node")
        .args(["tests/apps/http2_client.mjs", &stage.ca(), &stage.url("plain"), &stage.url("main")])
        .succeed();
    assert_eq!(said.text(), "all answered\n");
    stage.assert_no_fault_seen();
}
