//! Programs that ask much, and programs that ask as slowly as they can.

use std::{thread, time::Duration};

use super::{Stage, app, path};
use crate::support::{Backend, Load, Program, Server, at_rest, eventually, route};

/// Runs h2load on a listener with these arguments: every request must get a 200.
#[track_caller]
fn h2load(stage: &Stage, listener: &str, protocol: &str, requests: u32, arguments: &[&str]) {
    let url = stage.url(listener) + "/";
    let said = Program::new("h2load").args(["-n", &requests.to_string()]).args(arguments).args([url]).succeed();
    assert_eq!(
        said.line("requests:"),
        format!(
            "{requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout"
        )
    );
    assert_eq!(said.line("status codes:"), format!("{requests} 2xx, 0 3xx, 0 4xx, 0 5xx"));
    assert_eq!(said.line("Application protocol:"), protocol);
}

#[test]
fn h2load_gets_all_that_it_asks_for() {
    let nginx = Server::nginx("nginx");
    let stage = Stage::set(&route(&[nginx.address()], ""));
    let multiplexed = ["-c", "8", "-m", "32"];
    h2load(&stage, "main", "h2", 4_000, &multiplexed);
    h2load(&stage, "rsa", "h2", 1_000, &multiplexed);
    h2load(&stage, "plain", "h2c", 4_000, &multiplexed);
    h2load(&stage, "plain", "http/1.1", 2_000, &["--h1", "-c", "16"]);
    h2load(&stage, "main", "http/1.1", 2_000, &["--h1", "-c", "16"]);
    stage.assert_no_fault_seen();
}

#[test]
fn h2load_uploads() {
    let backend = Backend::scripted(|peer, _| peer.respond("200 OK", "read"));
    let stage = Stage::set(&route(&[backend.address()], ""));
    let file = path(&stage.file("body", super::bytes(100_000)));
    for (listener, protocol) in [("main", "h2"), ("plain", "h2c")] {
        h2load(&stage, listener, protocol, 400, &["-c", "4", "-m", "16", "-d", &file]);
    }
    assert_eq!(backend.hits(), 800);
    assert!(backend.requests().iter().all(|request| request.body == super::bytes(100_000)));
    stage.assert_no_fault_seen();
}

#[test]
fn nghttp_sends_and_gets_trailers() {
    let (_app, mirror, routes) = app();
    let stage = Stage::set(&routes);
    let file = path(&stage.file("body", "hi"));
    for listener in ["plain", "main"] {
        let url = stage.url(listener) + "/trailers";
        let said = Program::new("nghttp")
            .args([
                "--verbose",
                "--no-verify-peer",
                "--no-content-length",
                "--header",
                "te: trailers",
                "--trailer",
                "x-sum: 7",
            ])
            .args(["--data", &file, &url])
            .succeed();
        assert!(said.text().contains(") x-sum: 7\n") || said.text().contains("x-sum: 7\n"), "{}", said.text());
    }
    assert_eq!(mirror.hits(), 2);
    stage.assert_no_fault_seen();
}

/// So many connections does a slow client open.
const SLOW: usize = 100;

/// What each of them may cost in memory. With TLS, what waits is held once more, in records.
fn room(listener: &str) -> u64 {
    if listener == "plain" { 320 << 10 } else { 480 << 10 }
}

/// Runs slowhttptest with these arguments until it has no connection left, or for long enough, while others go on.
#[track_caller]
fn assert_nobody_notices(stage: &Stage, listener: &str, arguments: &[&str]) {
    let others = Load::steady(4, 100).get(stage.gateway.listener("plain"), "/");
    others.goes_on_for(20);
    let before = at_rest("memory", || stage.gateway.resident() >> 20) << 20;
    let url = stage.url(listener) + "/slow";
    let slow = Program::new("slowhttptest")
        .args(["-c", &SLOW.to_string(), "-r", "200", "-l", "10", "-u", &url])
        .args(arguments);
    let (said, most) = thread::scope(|threads| {
        let slow = threads.spawn(|| slow.run());
        let mut most = 0;
        while !slow.is_finished() {
            most = most.max(stage.gateway.resident());
            thread::sleep(Duration::from_millis(20));
        }
        (slow.join().unwrap(), most)
    });
    assert_eq!(said.code, Some(0), "{}{}", said.text(), said.err);
    others.goes_on_for(20);
    others.stop().assert_flawless();
    assert!(most < before + SLOW as u64 * room(listener), "{} MiB more", (most - before) >> 20);
}

/// Where slow clients come to: slowhttptest speaks HTTP/1.1, with TLS and without. (Slow clients in HTTP/2 are in `floods`.)
const LISTENERS: [&str; 2] = ["plain", "main"];

/// Lines of the log about requests on a listener that ended for this reason.
fn faults(stage: &Stage, listener: &str, reason: &str) -> usize {
    let log = stage.gateway.access_log();
    log.iter().filter(|line| line["listener"] == listener && line["reason"] == reason).count()
}

/// Lets clients be slow for two seconds.
fn impatient(backend: &Backend) -> Stage {
    let to = format!("to: \"{}\", health: none", backend.address());
    Stage::set(&format!(
        "defaults: {{ timeouts: {{ client_header: 2s }} }}\n\
         routes: [{{ path: /slow, {to}, timeouts: {{ client_body: 2s, request: 3s }} }}, {{ path: /*, {to} }}]\n"
    ))
}

#[test]
fn slow_heads() {
    let backend = Backend::start();
    for listener in LISTENERS {
        let stage = impatient(&backend);
        assert_nobody_notices(&stage, listener, &["-H", "-i", "1"]);
        eventually("all are counted", || stage.closed_as(listener, "header_timeout") >= SLOW);
    }
}

#[test]
fn slow_bodies() {
    let backend = Backend::start();
    for listener in LISTENERS {
        let stage = impatient(&backend);
        assert_nobody_notices(&stage, listener, &["-B", "-i", "3"]);
        eventually("all are in the log", || faults(&stage, listener, "client_timeout") >= SLOW);
    }
}

#[test]
fn slow_readers() {
    let backend = Backend::scripted(|peer, received| {
        if received.target() != "/slow" {
            return peer.respond("200 OK", "hello");
        }
        peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20))?;
        let piece = vec![b'x'; 64 * 1024];
        (0..1024).try_for_each(|_| peer.write(&piece))
    });
    for listener in LISTENERS {
        let stage = impatient(&backend);
        let arguments = ["-X", "-w", "512", "-y", "1024", "-n", "2", "-z", "32", "-k", "1"];
        assert_nobody_notices(&stage, listener, &arguments);
        // It does not notice that it was cut, or does not say so.
        eventually("all are in the log", || faults(&stage, listener, "response_timeout") >= SLOW);
        eventually("all are cut", || stage.closed_as(listener, "cut") >= SLOW);
    }
}
