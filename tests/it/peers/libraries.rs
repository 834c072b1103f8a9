//! Libraries that programs call services with.

use super::{Stage, app};
use crate::support::{Program, python};

/// A client in Python, and the gateway before the Flask app.
#[track_caller]
fn assert_all_answered(client: &str) {
    let (_app, _mirror, routes) = app();
    let stage = Stage::set(&routes);
    let said = python(client, &[&stage.ca(), &stage.url("plain"), &stage.url("main")]);
    assert_eq!(said, "all answered\n");
    stage.assert_no_fault_seen();
}

#[test]
fn requests() {
    assert_all_answered("requests_client.py");
}

#[test]
fn httpx() {
    assert_all_answered("httpx_client.py");
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
