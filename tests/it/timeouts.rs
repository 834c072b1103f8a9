//! Nobody waits forever, and who kept whom waiting is told.

use std::time::{Duration, Instant};

use crate::support::{Backend, Gate, Gateway, eventually, full_backlog, route};

#[test]
fn a_head_that_drips_is_cut() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "defaults: {{ timeouts: {{ client_header: 300ms }} }}\n{}",
        route(&[backend.address()], "")
    ));
    let mut client = gateway.connect();
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n");
    // Each byte is in time; the head is not.
    let mut dripping = gateway.connect();
    let drip = std::thread::spawn(move || {
        while began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
            if std::io::Write::write_all(&mut dripping.stream(), b"x-a: b\r\n").is_err() {
                return true;
            }
            dripping.send("");
        }
        false
    });
    assert_eq!(client.response().status(), 408);
    assert!(drip.join().unwrap(), "a client that drips is never cut");
    assert_eq!(backend.hits(), 0);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "defaults: {{ timeouts: {{ client_idle: 300ms, client_header: 1h }} }}\n{}",
        route(&[backend.address()], "")
    ));
    let mut client = gateway.connect();
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_body_that_stops_is_a_408() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { client_body: 200ms }"));
    let mut client = gateway.connect();
    let response = client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").response();
    assert_eq!(response.fault(), (408, "client_timeout".to_owned()));
    assert_eq!(client.rest(), "");
    eventually("the backend is let go", || backend.open() == 0);
}

#[test]
fn a_backend_that_does_not_accept_is_a_connect_timeout() {
    let (address, _sockets) = full_backlog();
    let gateway = Gateway::start(route(&[address], "timeouts: { connect: 300ms }, retries: { attempts: 0 }"));
    assert_eq!(gateway.get("/").fault(), (504, "connect_timeout".to_owned()));
}

#[test]
fn a_head_that_does_not_come_in_time_is_a_504() {
    let backend = Backend::scripted(|peer, _| peer.wait_for_close());
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { response_header: 200ms }"));
    let response = gateway.get("/");
    assert_eq!(response.fault(), (504, "response_timeout".to_owned()));
    // It may be working on it still: asked once, and told that nobody waits.
    eventually("the backend is let go", || backend.open() == 0);
    assert_eq!(backend.hits(), 1);
}

#[test]
fn the_wait_for_a_head_starts_at_the_end_of_the_request() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { response_header: 400ms }"));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na");
    eventually("the body is under way", || backend.requests().iter().any(|request| request.body == b"a"));
    // Longer than the limit: it is the upload that takes so long, not the backend.
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(client.send("b").response().text(), "hello");
}

#[test]
fn the_whole_exchange_has_a_deadline_before_the_head() {
    let backend = Backend::scripted(|peer, _| peer.wait_for_close());
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { request: 300ms }"));
    assert_eq!(gateway.get("/").fault(), (504, "response_timeout".to_owned()));
    eventually("the backend is let go", || backend.open() == 0);
}

#[test]
fn the_whole_exchange_has_a_deadline_in_the_middle_of_the_body() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")?;
        peer.wait_for_close()
    });
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { request: 400ms }"));
    let response = gateway.get("/");
    assert_eq!((response.status(), response.is_whole, &response.body[..]), (200, false, &b"abc"[..]));
    eventually("the backend is let go", || backend.open() == 0);
}

#[test]
fn a_deadline_holds_though_the_body_drips() {
    let gate = Gate::default();
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")?;
        loop {
            peer.write("x")?;
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { request: 400ms }"));
    let response = gateway.get("/");
    assert!(!response.is_whole);
    eventually("the backend is let go", || backend.open() == 0);
    gate.open();
}

#[test]
fn the_deadline_holds_though_the_client_reads_nothing() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            peer.write(format!("10000\r\n{}\r\n", "x".repeat(0x10000)))?;
        }
    });
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { request: 500ms }"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").head();
    eventually("the backend is let go", || backend.open() == 0);
}

#[test]
fn zero_switches_a_deadline_off() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        hold.wait()?;
        peer.respond("200 OK", "late")
    });
    let gateway =
        Gateway::start(route(&[backend.address()], "timeouts: { request: 0s, response_header: 0s, connect: 0s }"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 1);
    gate.open();
    assert_eq!(client.response().text(), "late");
}
