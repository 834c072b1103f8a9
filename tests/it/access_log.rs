//! A line for each request, and no request waits for its line.

use crate::support::{Backend, Gateway, Launch, eventually, refusing, route};

const LOGGED: &str = "telemetry: { access_log: {} }\n";

#[test]
fn a_line_tells_the_whole_story_of_a_request() {
    let backend = Backend::start();
    let gateway = Gateway::start(LOGGED.to_owned() + &route(&[backend.address()], "name: shop"));
    let response = gateway.send(
        "POST /cart?x=1 HTTP/1.1\r\nhost: Shop.test\r\nuser-agent: a \"b\"\r\nreferer: /from\r\ncontent-length: 3\r\n\r\nabc",
    );
    let line = gateway.await_access_log(1).remove(0);
    let address = backend.address().to_string();
    for (field, value) in [
        ("request_id", response.header("x-request-id").unwrap()),
        ("listener", "main"),
        ("method", "POST"),
        ("host", "Shop.test"),
        ("path", "/cart"),
        ("query", "x=1"),
        ("protocol", "HTTP/1.1"),
        ("route", "shop"),
        ("backend", &address),
        ("user_agent", "a \"b\""),
        ("referer", "/from"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!((&line["status"], &line["bytes_in"], &line["bytes_out"]), (&200.into(), &3.into(), &5.into()));
    assert_eq!(line["attempts"][0]["outcome"], "ok");
    assert_eq!(line["attempts"][0]["backend"], address);
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(line["duration_ms"].as_f64().unwrap() >= line["first_byte_ms"].as_f64().unwrap());
    assert!(line.get("reason").is_none());
}

#[test]
fn a_line_tells_which_backends_were_tried() {
    let (dead, _socket) = refusing();
    let backend = Backend::start();
    let gateway = Gateway::start(format!("workers: 1\n{LOGGED}{}", route(&[dead, backend.address()], "")));
    gateway.get("/");
    gateway.get("/");
    let log = gateway.await_access_log(2);
    let tried = |line: &serde_json::Value| line["attempts"].as_array().unwrap().len();
    let line = log.iter().find(|line| tried(line) == 2).expect("one of two had the dead one first");
    assert_eq!(line["attempts"][0]["outcome"], "connect_refused");
    assert_eq!(line["attempts"][1]["outcome"], "ok");
    assert_eq!(line["backend"], backend.address().to_string());
}

#[test]
fn requests_that_failed_have_a_line_and_a_reason() {
    let backend = Backend::scripted(|peer, request| match request.target() {
        "/cut" => {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")?;
            peer.close()
        }
        _ => peer.wait_for_close(),
    });
    let gateway = Gateway::start(format!(
        "{LOGGED}routes: [{{ path: /a/*, to: \"{0}\", health: none }}, {{ path: /cut, to: \"{0}\", health: none }}]",
        backend.address()
    ));
    gateway.get("/none");
    gateway.send("GET /a HTTP/1.1\r\n\r\n");
    gateway.get("/cut");
    let mut gone = gateway.connect();
    gone.send("GET /a/gone HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 2);
    drop(gone);
    let mut log = gateway.await_access_log(4);
    log.sort_by_key(|line| line["reason"].to_string());
    let told: Vec<_> =
        log.iter().map(|line| (line["reason"].as_str().unwrap(), line["status"].as_u64().unwrap())).collect();
    assert_eq!(told, [("bad_request", 400), ("client_gone", 499), ("no_route", 404), ("response_cut", 200)]);
}

#[test]
fn what_a_client_sends_cannot_forge_a_line() {
    let backend = Backend::start();
    let gateway = Gateway::start(LOGGED.to_owned() + &route(&[backend.address()], ""));
    gateway.send(b"GET /a?%0a HTTP/1.1\r\nhost: a\r\nuser-agent: \xff\"}\t,\r\n\r\n");
    let status = gateway.get("/").status();
    assert_eq!(status, 200);
    let log = gateway.await_access_log(2);
    assert!(log.iter().all(|line| line["ts"].is_string()));
}

/// Lines as long as they get, so that the buffers are soon full.
fn long_request() -> String {
    let long = "x".repeat(2000);
    format!("GET /{long}?{long} HTTP/1.1\r\nhost: a\r\nuser-agent: {long}\r\nreferer: {long}\r\n\r\n")
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_request_and_every_lost_line_is_counted() {
    const REQUESTS: usize = 1500;
    let backend = Backend::start();
    let config = route(&[backend.address()], "");
    let mut gateway = Launch::default()
        .unread_stdout()
        .start(format!("workers: 1\nadmin: {{ bind: \"127.0.0.1:0\" }}\n{LOGGED}{config}"));
    let mut client = gateway.connect();
    let request = long_request();
    for _ in 0..REQUESTS {
        assert_eq!(client.send(&request).response().status(), 200);
    }
    let dropped = |gateway: &Gateway| gateway.metric("tidegate_access_log_dropped_total");
    eventually("lines are dropped", || dropped(&gateway) > 0);
    gateway.read_stdout();
    // All that was handed over is written or dropped; what is still in the worker's buffer comes within a second.
    eventually("lines and drops are all requests", || gateway.access_log().len() + dropped(&gateway) == REQUESTS);
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let backend = Backend::start();
    let gateway = Launch::default()
        .start(format!("telemetry: {{ access_log: {{ to: access.log }} }}\n{}", route(&[backend.address()], "")));
    let folder = gateway.folder().to_owned();
    for _ in 0..10 {
        gateway.get("/");
    }
    let copy = std::fs::File::open(folder.join("access.log")).unwrap();
    assert_eq!(gateway.stop(), 0);
    assert_eq!(std::io::read_to_string(copy).unwrap().lines().count(), 10);
}

#[test]
fn a_rotated_log_goes_on_in_a_new_file() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "telemetry: {{ access_log: {{ to: access.log }} }}\n{}",
        route(&[backend.address()], "")
    ));
    let lines = |name: &str| std::fs::read_to_string(gateway.folder().join(name)).unwrap_or_default().lines().count();
    gateway.get("/");
    eventually("the first line", || lines("access.log") == 1);
    std::fs::rename(gateway.folder().join("access.log"), gateway.folder().join("access.log.1")).unwrap();
    gateway.signal(rustix::process::Signal::USR1);
    eventually("a new file", || gateway.folder().join("access.log").exists());
    gateway.get("/");
    eventually("the second line", || lines("access.log") == 1);
    assert_eq!(lines("access.log.1"), 1);
}
