//! Responses that are read differently elsewhere, or that are not whole: none is passed on as if it were, over either protocol.

use crate::support::{
    Backend, Client, Gateway, eventually,
    frames::{DATA, END_STREAM, GET, HEADERS, RST_STREAM, request},
    route,
};

/// What a client gets for what a backend says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// 502 `bad_response`.
    Bad,
    /// 502 `reset_before_headers`.
    NoAnswer,
    /// A head, and a body that is visibly cut.
    Cut,
    /// A response with this body, whole.
    Whole(&'static str),
}

use Verdict::{Bad, Cut, NoAnswer, Whole};

/// What the backend does after it has said it.
#[derive(Clone, Copy, Debug)]
enum Then {
    Close,
    Wait,
}

use Then::{Close, Wait};

fn start(raw: Vec<u8>, then: Then) -> (Backend, Gateway) {
    let backend = Backend::scripted(move |peer, request| {
        if request.target() == "/next" {
            return peer.respond("200 OK", "next");
        }
        peer.read_body()?;
        peer.write(&raw)?;
        match then {
            Close => peer.close(),
            Wait => Ok(()),
        }
    });
    let fields = "retries: { attempts: 0 }, timeouts: { request: 10s }";
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], fields)));
    (backend, gateway)
}

/// What a client of HTTP/1.1 makes of it.
fn over_http1(gateway: &Gateway, method: &str) -> Verdict {
    let mut client = gateway.connect();
    client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"));
    if method == "HEAD" {
        return if client.head().status() == 502 { Bad } else { Whole("") };
    }
    // Where head and cut come at once, nothing was said yet.
    let Some(response) = client.response_if_any() else { return Cut };
    match response.status() {
        502 => refused(&response.body),
        _ if !response.is_whole => Cut,
        _ => Whole(Box::leak(response.text().to_owned().into_boxed_str())),
    }
}

/// What a client of HTTP/2 makes of it.
fn over_http2(gateway: &Gateway, method: &str) -> Verdict {
    let mut client = Client::http2(gateway.address());
    let mut fields = GET;
    fields[0].1 = method.as_bytes();
    client.send(request(1, &fields, true));
    let frames = client.frames_of(1).expect("the connection goes on");
    // As above: where head and cut come at once, the cut overtakes the head.
    if frames[0].kind == RST_STREAM {
        return Cut;
    }
    assert_eq!(frames[0].kind, HEADERS, "{frames:?}");
    let body: Vec<u8> = frames.iter().filter(|frame| frame.kind == DATA).flat_map(|f| f.payload.clone()).collect();
    let last = frames.last().expect("one");
    if last.kind == RST_STREAM {
        return Cut;
    }
    assert_ne!(last.flags & END_STREAM, 0);
    if body.starts_with(b"{\"type\"") {
        return refused(&body);
    }
    Whole(Box::leak(String::from_utf8(body).unwrap().into_boxed_str()))
}

fn refused(body: &[u8]) -> Verdict {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match problem["reason"].as_str() {
        Some("bad_response") | None => Bad,
        Some("reset_before_headers") => NoAnswer,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn judge_for(method: &str, raw: &[u8], then: Then, verdict: Verdict) {
    let shown = String::from_utf8_lossy(&raw[..raw.len().min(200)]);
    let (backend, gateway) = start(raw.to_vec(), then);
    assert_eq!(over_http1(&gateway, method), verdict, "HTTP/1.1: {method} {shown:?}");
    // Whatever it was, nothing of it answers the next request.
    assert_eq!(gateway.get("/next").text(), "next", "{shown:?}");
    assert_eq!(over_http2(&gateway, method), verdict, "HTTP/2: {method} {shown:?}");
    assert_eq!(gateway.get("/next").text(), "next", "{shown:?}");
    eventually("no connection with a rest is kept", || backend.open() <= 1);
}

#[track_caller]
fn judge(raw: impl AsRef<[u8]>, then: Then, verdict: Verdict) {
    judge_for("GET", raw.as_ref(), then, verdict);
}

#[test]
fn what_is_no_response_is_a_502() {
    for line in [
        "hello\r\n\r\n",
        "200 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        " HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        judge(line, Close, Bad);
    }
    judge("", Close, NoAnswer);
}

#[test]
fn a_head_that_is_read_differently_elsewhere_is_a_502() {
    for field in [
        "x y: z",
        "x : z",
        " x: y",
        ": y",
        "x",
        "x: a\0b",
        "x: a\rb",
        "x: a\r\n b",
        "x: a\u{7f}b",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: 0x5",
        "content-length: -5",
        "content-length: 5 5",
        "content-length:",
        "content-length: 18446744073709551621",
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked\u{b}",
        "transfer-encoding : chunked",
    ] {
        judge(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), Close, Bad);
    }
    judge("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Close, Bad);
}

#[test]
fn a_head_above_the_limits_is_a_502() {
    let fields = |count: usize, size: usize| format!("x: {}\r\n", "y".repeat(size)).repeat(count);
    judge(format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", fields(90, 10)), Wait, Whole("ok"));
    judge(format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", fields(101, 10)), Wait, Bad);
    judge(format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", fields(1, 500_000)), Wait, Bad);
    judge(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(600_000)), Wait, Bad);
}

#[test]
fn a_flood_of_interim_responses_is_a_502_and_some_of_them_are_not() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
    judge(interim.repeat(100) + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Wait, Whole("ok"));
    judge(interim.repeat(50_000), Wait, Bad);
    // A protocol that nobody asked for.
    judge("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello", Wait, Bad);
}

#[test]
fn a_body_that_is_cut_is_cut_for_the_client() {
    for rest in [
        "content-length: 10\r\n\r\nabc",
        "content-length: 10\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc",
        "transfer-encoding: chunked\r\n\r\n9\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n+0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nfffffffffffffffff\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n",
        "transfer-encoding: chunked\r\n\r\n3;x\ny\r\nabc\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx y: z\r\n\r\n",
    ] {
        judge(format!("HTTP/1.1 200 OK\r\n{rest}"), Close, Cut);
    }
}

#[test]
fn a_body_ends_where_it_says_and_what_comes_after_is_nothing() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for rest in [
        "content-length: 3\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3;ext=\"x\"\r\nabc\r\n0;last\r\nx-sum: 1\r\n\r\n",
        "content-length: 99\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        judge(format!("HTTP/1.1 200 OK\r\n{rest}"), Wait, Whole("abc"));
        judge(format!("HTTP/1.1 200 OK\r\n{rest}{evil}"), Wait, Whole("abc"));
    }
    judge("HTTP/1.1 200 OK\r\n\r\nabc", Close, Whole("abc"));
    judge("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc", Close, Whole("abc"));
    judge("HTTP/1.0 200 OK\r\n\r\nabc", Close, Whole("abc"));
    judge("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", Wait, Whole("abc"));
    judge("HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc", Wait, Whole("abc"));
    judge("HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nabc", Wait, Whole("abc"));
    judge("HTTP/1.1 200 OK\ncontent-length: 3\n\nabc", Wait, Whole("abc"));
}

#[test]
fn where_no_body_may_be_there_is_none() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for head in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\nabc",
    ] {
        for raw in [head.to_owned(), format!("{head}{evil}")] {
            let (backend, gateway) = start(raw.clone().into_bytes(), Wait);
            let mut client = gateway.connect();
            let response = client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").head();
            assert_ne!(response.status(), 200, "{raw:?}");
            assert_eq!(response.header("transfer-encoding"), None, "{raw:?}");
            assert_eq!(client.get("/next").text(), "next", "{raw:?}");
            assert_eq!(over_http2(&gateway, "GET"), Whole(""), "{raw:?}");
            assert_eq!(gateway.get("/next").text(), "next", "{raw:?}");
            eventually("no connection with a rest is kept", || backend.open() <= 1);
        }
    }
    for rest in [
        "content-length: 3\r\n\r\n",
        "content-length: 3\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let raw = format!("HTTP/1.1 200 OK\r\n{rest}");
        judge_for("HEAD", raw.as_bytes(), Wait, Whole(""));
        let (_backend, gateway) = start(raw.into_bytes(), Wait);
        let mut client = gateway.connect();
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head();
        assert_eq!(client.get("/next").text(), "next", "{rest:?}");
    }
}

/// Fields of one hop would be malformed in HTTP/2; trailers are no place to frame, or to route.
#[test]
fn trailers_reach_who_asked_for_them() {
    let raw = "HTTP/1.1 200 OK\r\ntrailer: x-sum, content-length, connection\r\ntransfer-encoding: chunked\r\n\r\n\
               2\r\nok\r\n0\r\nx-sum: 1\r\ncontent-length: 9\r\nconnection: close\r\ntransfer-encoding: gzip\r\n\r\n";
    let (_backend, gateway) = start(raw.as_bytes().to_vec(), Wait);
    let said =
        |te: &str| gateway.connect().send(format!("GET / HTTP/1.1\r\nhost: a\r\n{te}connection: close\r\n\r\n")).rest();
    let asked = said("te: trailers\r\n");
    assert!(asked.ends_with("2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"), "{asked}");
    let not_asked = said("");
    assert!(not_asked.ends_with("2\r\nok\r\n0\r\n\r\n"), "{not_asked}");
    let mut client = Client::http2(gateway.address());
    client.send(request(1, &GET, true));
    let frames = client.frames_of(1).expect("a response");
    let last = frames.last().expect("one");
    assert_eq!((last.kind, last.flags & END_STREAM), (HEADERS, END_STREAM), "{frames:?}");
    assert!(!last.payload.windows(5).any(|text| text == b"close" || text == b"gzip"), "{frames:?}");
}
