//! The end is orderly, and it comes.

use rustix::process::Signal;

use crate::support::{
    Backend, Client, Gate, Gateway, eventually,
    frames::{ACK, DATA, GET, GOAWAY, PING, frame, request},
    route,
};

fn held() -> (Backend, Gate) {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        hold.wait()?;
        peer.respond("200 OK", "late")
    });
    (backend, gate)
}

fn is_draining(gateway: &Gateway) -> bool {
    !gateway.events(|event| event["stage"] == "draining").is_empty()
}

#[test]
fn a_request_in_flight_is_finished() {
    let (backend, gate) = held();
    let mut gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 1);
    gateway.signal(Signal::TERM);
    eventually("nobody is let in", || std::net::TcpStream::connect(gateway.address()).is_err());
    gate.open();
    let response = client.response();
    assert_eq!(response.text(), "late");
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(client.rest(), "");
    assert_eq!(gateway.exit_code(), 0);
    gateway.await_event("it has stopped", |event| event["stage"] == "stopped");
}

/// A client of HTTP/2 that is told to go and does not hear it may open streams for as long as the last of them lasts.
#[test]
fn who_does_not_hear_that_it_is_to_go_is_served_no_more() {
    let (backend, _gate) = held();
    let quick = Backend::start();
    let to_quick = format!("routes: [{{ path: /quick, to: \"{}\", health: none }}, ", quick.address());
    let config = route(&[backend.address()], "").replace("routes: [", &to_quick);
    let gateway = Gateway::start(format!("shutdown: {{ timeout: 1h }}\n{config}"));
    let mut client = Client::http2(gateway.address());
    client.send(request(1, &GET, true));
    eventually("the backend has it", || backend.hits() == 1);
    gateway.signal(Signal::TERM);
    while client.frame().expect("a word of the end").kind != GOAWAY {}
    // Its ping is never answered.
    let mut another = GET;
    another[3].1 = b"/quick";
    let mut streams = (3..).step_by(2);
    eventually("it is refused", || {
        client.send(request(streams.next().unwrap(), &another, true));
        client.send(frame(PING, 0, 0, [7; 8]));
        let said = std::iter::from_fn(|| client.frame()).take_while(|said| said.kind != PING || said.flags & ACK == 0);
        said.into_iter().any(|said| said.kind == DATA && String::from_utf8_lossy(&said.payload).contains("draining"))
    });
}

#[test]
fn idle_connections_do_not_hold_it_up() {
    let backend = Backend::start();
    let mut gateway = Gateway::start(format!("shutdown: {{ timeout: 1h }}\n{}", route(&[backend.address()], "")));
    let mut idle = gateway.connect();
    idle.get("/");
    let mut silent = gateway.connect();
    gateway.signal(Signal::INT);
    assert_eq!(idle.rest(), "");
    assert_eq!(silent.rest(), "");
    assert_eq!(gateway.exit_code(), 0);
}

#[test]
fn what_is_open_at_the_deadline_is_cut_and_told() {
    let (backend, _gate) = held();
    let mut gateway = Gateway::start(format!("shutdown: {{ timeout: 200ms }}\n{}", route(&[backend.address()], "")));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 1);
    gateway.signal(Signal::TERM);
    assert_eq!(client.rest(), "");
    assert_eq!(gateway.exit_code(), 4);
    gateway.await_event("it says so", |event| event["stage"] == "cut");
}

#[test]
fn a_second_signal_ends_the_wait() {
    let (backend, _gate) = held();
    let mut gateway = Gateway::start(format!("shutdown: {{ timeout: 1h }}\n{}", route(&[backend.address()], "")));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 1);
    gateway.signal(Signal::TERM);
    eventually("it drains", || is_draining(&gateway));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(), 4);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_response_that_is_cut_at_the_deadline_does_not_look_whole() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")?;
        peer.wait_for_close()
    });
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut gateway =
            Gateway::start(format!("shutdown: {{ timeout: 200ms }}\n{}", route(&[backend.address()], "")));
        let hits = backend.hits();
        let mut client = gateway.connect();
        client.send(format!("GET / {version}\r\nhost: a\r\n\r\n"));
        eventually("the backend has it", || backend.hits() > hits);
        gateway.signal(Signal::TERM);
        assert!(!client.response().is_whole, "{version}");
        assert_eq!(gateway.exit_code(), 4);
    }
}

#[test]
fn a_config_that_is_wrong_does_not_start() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.yaml");
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["run", "-c"]).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run("routes: [{ path: /*, to: nowhere }]");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("E0301"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, said) = run(&format!("listen: {address}\nadmin: none\n{}", route(&[address], "").replace(":0", ":1")));
    assert_ne!(code, Some(0), "{said}");
}
