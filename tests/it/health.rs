//! Probes decide who gets traffic.

use std::net::SocketAddr;

use crate::support::{Backend, Gateway, at_rest, eventually, route, upstream};

/// Quick, and with a deadline that a busy machine keeps.
const HEALTH: &str = "health: { active: { path: /healthz, interval: 500ms, interval_changing: 20ms, timeout: 450ms, \
                      healthy_after: 2, unhealthy_after: 2 }";

fn health(rest: &str) -> String {
    format!("{HEALTH} {rest} }}")
}

#[test]
fn a_backend_that_is_down_gets_no_traffic_until_it_is_back() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let gateway = Gateway::start(route(&[a.address(), b.address()], &health("")));
    gateway.await_backend(a.address(), "up");
    gateway.await_backend(b.address(), "up");
    a.feel(false);
    let down = gateway.await_backend(a.address(), "down");
    assert_eq!((&down["reason"], &down["eligible"], &down["total"]), (&"status".into(), &1.into(), &2.into()));
    let hits = a.hits();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "b");
    }
    assert_eq!(a.hits(), hits);
    a.feel(true);
    eventually("it is back", || {
        gateway.events(|event| event["to"] == "up" && event["backend"] == a.address().to_string()).len() == 2
    });
    eventually("it gets traffic", || gateway.get("/").text() == "a");
}

#[test]
fn a_backend_that_is_gone_is_down_and_comes_back() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let gateway = Gateway::start(route(&[a.address(), b.address()], &health("")));
    gateway.await_backend(a.address(), "up");
    a.stop();
    let down = gateway.await_backend(a.address(), "down");
    assert_eq!(down["reason"], "connect_refused");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "b");
    }
    a.restart();
    eventually("it gets traffic", || gateway.get("/").text() == "a");
}

#[test]
fn no_request_is_lost_while_a_backend_dies() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let gateway = Gateway::start(route(&[a.address(), b.address()], &health("")));
    gateway.await_backend(a.address(), "up");
    let mut client = gateway.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
    }
    a.stop();
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "b");
    }
}

fn with_backup(primary: SocketAddr, backup: SocketAddr) -> String {
    format!(
        "upstreams:
  up:
    {}
    backends:
      - \"{primary}\"
      - {{ url: \"http://{backup}\", backup: true }}
routes: [{{ path: /*, to: up }}]
",
        health("")
    )
}

#[test]
fn a_backup_serves_only_while_no_primary_is_up() {
    let [primary, backup] = ["primary", "backup"].map(Backend::named);
    let gateway = Gateway::start(with_backup(primary.address(), backup.address()));
    gateway.await_backend(primary.address(), "up");
    gateway.await_backend(backup.address(), "up");
    for _ in 0..6 {
        assert_eq!(gateway.get("/").text(), "primary");
    }
    primary.feel(false);
    gateway.await_backend(primary.address(), "down");
    for _ in 0..6 {
        assert_eq!(gateway.get("/").text(), "backup");
    }
    primary.feel(true);
    eventually("the primary is back", || gateway.get("/").text() == "primary");
    for _ in 0..6 {
        assert_eq!(gateway.get("/").text(), "primary");
    }
}

#[test]
fn when_all_are_down_requests_fail_at_once_and_say_why() {
    let backend = Backend::start();
    let gateway = Gateway::start(upstream(&[backend.address()], &health("")));
    gateway.await_backend(backend.address(), "up");
    backend.feel(false);
    gateway.await_backend(backend.address(), "down");
    let response = gateway.get("/");
    assert_eq!(response.fault(), (503, "no_healthy_backend".to_owned()));
    // The client is on this machine.
    let detail = format!("No backend of `up` is eligible: {} down.", backend.address());
    assert_eq!(response.problem()["detail"], detail);
    assert_eq!(backend.hits(), 0);
}

#[test]
fn below_the_capacity_that_is_needed_requests_fail_and_say_why() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let fields = health(", min_capacity: 60%, when_all_down: fail");
    let gateway = Gateway::start(upstream(&[a.address(), b.address()], &fields));
    gateway.await_backend(b.address(), "up");
    a.feel(false);
    gateway.await_backend(a.address(), "down");
    let response = gateway.get("/");
    assert_eq!(response.fault(), (503, "no_healthy_backend".to_owned()));
    let states = format!("{} down, {} up", a.address(), b.address());
    let detail = format!("The healthy backends of `up` are less than its min_capacity of 60%: {states}.");
    assert_eq!(response.problem()["detail"], detail);
}

#[test]
fn when_all_are_down_all_may_be_tried() {
    let backend = Backend::start();
    let gateway = Gateway::start(upstream(&[backend.address()], &health(", when_all_down: try_all")));
    gateway.await_backend(backend.address(), "up");
    backend.feel(false);
    gateway.await_backend(backend.address(), "down");
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn a_tcp_check_wants_no_more_than_a_connection() {
    let backend = Backend::start();
    backend.feel(false);
    let tcp = "health: { active: { type: tcp, interval: 500ms, interval_changing: 20ms, timeout: 450ms } }";
    let gateway = Gateway::start(upstream(&[backend.address()], tcp));
    gateway.await_backend(backend.address(), "up");
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(backend.probes(), 0);
    backend.stop();
    gateway.await_backend(backend.address(), "down");
    backend.restart();
    eventually("it is back", || gateway.get("/").status() == 200);
}

#[test]
fn a_new_backend_waits_for_its_first_pass_while_others_are_up() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let gateway = Gateway::start(upstream(&[old.address()], &health("")));
    gateway.await_backend(old.address(), "up");
    new.feel(false);
    gateway.edit(upstream(&[old.address(), new.address()], &health("")));
    eventually("the new one is probed", || new.probes() > 0);
    gateway.await_backend(new.address(), "down");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "old");
    }
    assert_eq!(new.hits(), 0);
    new.feel(true);
    eventually("the new one gets traffic", || gateway.get("/").text() == "new");
}

#[test]
fn nothing_is_refused_for_want_of_a_first_probe() {
    // Its first probe is never answered.
    let backend = Backend::start();
    let slow = "health: { active: { path: /never, interval: 1h, timeout: 30m } }";
    backend.behave(|peer, request| match request.target() {
        "/never" => peer.wait_for_close(),
        _ => peer.respond("200 OK", "hello"),
    });
    let gateway = Gateway::start(upstream(&[backend.address()], slow));
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn probes_end_with_their_upstream() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let gateway = Gateway::start(upstream(&[old.address()], &health("")));
    gateway.await_backend(old.address(), "up");
    gateway.edit(upstream(&[new.address()], &health("")));
    gateway.await_backend(new.address(), "up");
    at_rest("probing the one that was removed", || old.probes());
    let probes = old.probes();
    // The one that stays is asked on and on; the one that went, no more.
    let so_far = new.probes();
    eventually("the new one was probed twice more", || new.probes() >= so_far + 2);
    assert_eq!(old.probes(), probes);
}
