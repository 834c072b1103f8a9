//! Bodies pass in pieces, as fast as the slower side takes them, and what was cut never looks whole.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use crate::support::{
    Backend, Client, Gate, Gateway, at_rest, eventually,
    frames::{ACK, DATA, END_STREAM, Frame, PING, RST_STREAM, frame, request},
    route,
};

#[test]
fn a_piece_reaches_the_client_before_the_next_is_sent() {
    let (gate, held) = (Gate::default(), Gate::default());
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        hold.wait()?;
        peer.write("6\r\nsecond\r\n0\r\n\r\n")
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(client.read(10), b"5\r\nfirst\r\n");
    gate.open();
    assert_eq!(client.read(16), b"6\r\nsecond\r\n0\r\n\r\n");
    held.open();
}

#[test]
fn a_piece_reaches_the_backend_before_the_next_is_sent() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nfirst");
    eventually("the backend has the first piece", || backend.requests().first().is_some_and(|r| r.body == b"first"));
    assert_eq!(client.send("after").response().text(), "hello");
    assert_eq!(backend.request().body, b"firstafter");
}

const GIB: u64 = 1 << 30;
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// What a body that waits may cost in memory.
const ROOM: u64 = 16 << 20;

#[test]
fn a_client_that_stops_reading_costs_no_memory() {
    let offered = Arc::new(AtomicU64::new(0));
    let sent = Arc::clone(&offered);
    let backend = Backend::scripted(move |peer, request| {
        if request.target() != "/big" {
            return peer.respond("200 OK", "hello");
        }
        peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"))?;
        for _ in 0..GIB / PIECE.len() as u64 {
            peer.write(PIECE)?;
            sent.fetch_add(PIECE.len() as u64, SeqCst);
        }
        Ok(())
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    assert_eq!(gateway.get("/").status(), 200);
    let idle = gateway.resident();
    let mut client = gateway.connect();
    client.send("GET /big HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend sends", || offered.load(SeqCst) > 0);
    let taken = at_rest("the backend", || offered.load(SeqCst));
    assert!(taken < GIB / 4, "{taken} bytes were taken from the backend for a client that reads nothing");
    assert!(gateway.resident() < idle + ROOM, "{idle} -> {}", gateway.resident());
    // It goes on where it stopped.
    client.head();
    let mut scrap = PIECE;
    while offered.load(SeqCst) < taken + (8 << 20) {
        client.stream().read_exact(&mut scrap).unwrap();
        assert!(scrap[..] == PIECE[..]);
    }
    assert!(gateway.resident() < idle + ROOM, "{idle} -> {}", gateway.resident());
}

#[test]
fn a_backend_that_stops_reading_costs_no_memory() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, request| {
        if request.method() == "POST" {
            hold.wait()?;
        }
        peer.respond("200 OK", "hello")
    });
    let gateway = Gateway::start(route(&[backend.address()], "max_body: none"));
    assert_eq!(gateway.get("/").status(), 200);
    let idle = gateway.resident();
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {GIB}\r\n\r\n"));
    client.stream().set_nonblocking(true).unwrap();
    let mut written = 0;
    let taken = at_rest("the client", || {
        while let Ok(count) = std::io::Write::write(&mut client.stream(), &PIECE) {
            written += count as u64;
        }
        written
    });
    assert!(taken < GIB / 4, "{taken} bytes were taken from the client for a backend that reads nothing");
    assert!(gateway.resident() < idle + ROOM, "{idle} -> {}", gateway.resident());
    gate.open();
}

#[test]
fn a_large_body_passes_whole_in_both_directions() {
    const SIZE: usize = 24 << 20;
    let backend = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for _ in 0..SIZE / PIECE.len() {
            peer.write(format!("{:x}\r\n", PIECE.len()))?;
            peer.write(PIECE)?;
            peer.write("\r\n")?;
        }
        peer.write("0\r\n\r\n")
    });
    let gateway = Gateway::start(route(&[backend.address()], "max_body: 1GiB"));
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n"));
    for _ in 0..SIZE / PIECE.len() {
        client.send(PIECE);
    }
    let response = client.response();
    assert!(response.is_whole);
    assert_eq!(response.body.len(), SIZE);
    assert_eq!(backend.request().body.len(), SIZE);
}

#[test]
fn a_body_that_announces_too_much_is_refused_unread() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], "max_body: 10B"));
    let mut client = gateway.connect();
    let response = client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\nhello world").response();
    assert_eq!(response.fault(), (413, "body_too_large".to_owned()));
    assert_eq!(backend.hits(), 0);
    assert_eq!(gateway.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello worl").status(), 200);
}

#[test]
fn a_chunked_body_that_grows_too_large_is_refused_and_never_whole_at_the_backend() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], "max_body: 10B"));
    let response = gateway.send(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nghijkl\r\n0\r\n\r\n",
    );
    assert_eq!(response.fault(), (413, "body_too_large".to_owned()));
    eventually("the backend's connection ends", || backend.open() == 0);
    assert!(backend.requests().iter().all(|request| request.body.len() <= 10));
    let fits = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n4\r\nghij\r\n0\r\n\r\n";
    assert_eq!(gateway.send(fits).text(), "hello");
    assert_eq!(backend.requests().last().unwrap().body, b"abcdefghij");
}

#[test]
fn a_response_that_is_cut_is_cut_for_the_client_too() {
    let backend = Backend::scripted(|peer, request| {
        match request.target() {
            "/length" => peer.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")?,
            "/chunked" => peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")?,
            "/in-a-chunk" => peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc")?,
            "/bad-chunk" => peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")?,
            _ => return peer.respond("200 OK", "hello"),
        }
        peer.close()
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    for path in ["/length", "/chunked", "/in-a-chunk", "/bad-chunk"] {
        let mut client = gateway.connect();
        let response = client.get(path);
        assert_eq!(response.status(), 200, "{path}");
        assert!(!response.is_whole, "{path} {response:?}");
        assert!(b"abc".starts_with(&response.body), "{path} {response:?}");
    }
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn a_cut_response_does_not_look_whole_where_only_the_close_ends_it() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")?;
        peer.close()
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let response = gateway.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(response.status(), 200);
    assert!(!response.is_whole, "{response:?}");
}

#[test]
fn a_response_that_ends_with_the_connection_is_framed_anew() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\n\r\nuntil the end")?;
        peer.close()
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "until the end");
    assert_eq!(client.get("/").text(), "until the end");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn trailers_do_not_disturb_the_messages_that_carry_them() {
    let backend = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n")
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    for _ in 0..2 {
        let request =
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 2\r\n\r\n";
        let response = gateway.send(request);
        assert_eq!((response.text(), response.header("connection")), ("ok", Some("close")));
    }
    assert_eq!(backend.requests().iter().map(|request| &request.body[..]).collect::<Vec<_>>(), [b"hi", b"hi"]);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn trailers_of_a_request_end_it() {
    // The wait for the head starts at the end of the request; the connection is free afterwards.
    let backend = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.wait_for_close()
    });
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { response_header: 200ms, request: 0s }"));
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 2\r\n\r\n";
    assert_eq!(gateway.send(request).fault(), (504, "response_timeout".to_owned()));
}

#[test]
fn an_upload_that_the_client_cuts_is_cut_for_the_backend_too() {
    for request in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let whole = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&whole);
        let backend = Backend::scripted(move |peer, _| {
            peer.read_body()?;
            count.fetch_add(1, SeqCst);
            peer.respond("200 OK", "")
        });
        let gateway = Gateway::start(route(&[backend.address()], ""));
        gateway.connect().send(request).finish().rest();
        eventually("the backend has got it and lost it", || backend.hits() == 1 && backend.open() == 0);
        assert_eq!(whole.load(SeqCst), 0, "{request}");
    }
}

#[test]
fn an_answer_before_the_end_of_a_request_says_that_the_connection_ends() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], "").replace("/*", "/here"));
    let mut client = gateway.connect();
    let response = client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").response();
    assert_eq!((response.status(), response.header("connection")), (404, Some("close")));
    assert_eq!(client.send("some more").rest(), "");
    let mut client = gateway.connect();
    // What is small and there is read, whoever answers.
    let response = client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok").response();
    assert_eq!((response.status(), response.header("connection")), (404, None));
    let response = client.send("POST /here HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok").response();
    assert_eq!((response.status(), response.header("connection")), (200, None));
    assert_eq!(client.get("/here").text(), "hello");
}

/// What has not come may come as a request, for all that the gateway knows.
#[test]
fn a_small_body_that_has_not_come_ends_the_connection_all_the_same() {
    let backend = Backend::start();
    let keys = format!(
        "auth: {{ ops: {{ api_key: {{ header: x-key, keys: {{ amy: \"sha256:{}\" }} }} }} }}\n",
        "0".repeat(64)
    );
    for (fields, status) in [("auth: ops", 401), ("max_body: 1B", 413)] {
        let gateway = Gateway::start(format!("{keys}{}", route(&[backend.address()], fields)));
        for (head, come) in [("", ""), ("", "o"), ("expect: 100-continue\r\n", ""), ("expect: 100-continue\r\n", "ok")]
        {
            let mut client = gateway.connect();
            let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}content-length: 2\r\n\r\n{come}");
            let response = client.send(request).response();
            assert_eq!((response.status(), response.header("connection")), (status, Some("close")), "{head}{come}");
            assert_eq!(client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").rest(), "");
        }
        let mut client = gateway.connect();
        for _ in 0..2 {
            let response = client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok").response();
            assert_eq!((response.status(), response.header("connection")), (status, None));
        }
    }
    assert_eq!(backend.hits(), 0);
}

/// The fields of an upload over HTTP/2, to here.
const UPLOAD: [(&str, &[u8]); 5] =
    [(":method", b"POST"), (":scheme", b"http"), (":authority", b"a"), (":path", b"/here"), ("content-length", b"5")];

/// What the gateway says of a stream from now on, but for windows.
fn said_of(client: &mut Client, stream: u32) -> Vec<Frame> {
    client.send(frame(PING, 0, 0, [7; 8]));
    let frames = std::iter::from_fn(|| client.frame());
    let answer = |frame: &Frame| frame.kind == PING && frame.flags == ACK;
    frames
        .take_while(|frame| !answer(frame))
        .filter(|frame| frame.stream == stream && frame.kind <= RST_STREAM)
        .collect()
}

/// As some clients do, the last piece and the end are said apart.
#[test]
fn the_end_of_an_upload_may_come_after_the_answer() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    let mut client = Client::http2(gateway.address());
    for stream in [1, 3, 5] {
        client.send(request(stream, &UPLOAD, false)).send(frame(DATA, 0, stream, b"hello"));
        let frames = client.frames_of(stream).expect("an answer");
        assert!(frames.iter().all(|frame| frame.kind != RST_STREAM), "{frames:?}");
        assert_eq!(said_of(&mut client, stream), []);
        client.send(frame(DATA, END_STREAM, stream, []));
        assert_eq!(said_of(&mut client, stream), []);
    }
    assert_eq!(backend.requests().iter().map(|request| &request.body[..]).collect::<Vec<_>>(), [b"hello"; 3]);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn uploads_that_are_refused_cost_no_connection() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], "").replace("/*", "/elsewhere"));
    let mut client = Client::http2(gateway.address());
    let fields = &UPLOAD[..4];
    for stream in (1..400).step_by(2) {
        client.send(request(stream, fields, false));
        let frames = client.frames_of(stream).expect("a refusal");
        assert!(frames.iter().all(|frame| frame.kind != RST_STREAM), "{frames:?}");
        let piece = vec![b'x'; 5_000];
        client.send(frame(DATA, 0, stream, &piece)).send(frame(DATA, END_STREAM, stream, &piece));
    }
    assert_eq!(said_of(&mut client, 399), []);
    // Whoever goes on and on is stopped, without a reproach (RFC 9113, section 8.1).
    client.send(request(401, fields, false));
    client.frames_of(401).expect("a refusal");
    let piece = vec![b'x'; 16_000];
    let stopped = (0..100).find_map(|_| {
        client.send(frame(DATA, 0, 401, &piece));
        said_of(&mut client, 401).pop()
    });
    assert_eq!(stopped.expect("a reset").code(), 0);
}

/// An orderly close would wait behind what the client does not take, and cost the system's memory for as long.
#[test]
fn a_client_that_takes_too_long_over_a_response_is_cut_at_once() {
    let backend = Backend::scripted(|peer, _| {
        peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"))?;
        (0..GIB / PIECE.len() as u64).try_for_each(|_| peer.write(PIECE))
    });
    let timeouts = "timeouts: { request: 300ms }";
    let gateway =
        Gateway::start(format!("admin: {{ bind: \"127.0.0.1:0\" }}\n{}", route(&[backend.address()], timeouts)));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let cut = "tidegate_connections_closed_total{listener=\"main\",reason=\"cut\"}";
    eventually("it is cut", || gateway.metric(cut) == 1);
    let ended = std::io::copy(&mut client.stream(), &mut std::io::sink());
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// As with nginx: whoever says that nothing more will come has left, and the backend is not kept busy for it.
#[test]
fn a_client_that_closes_its_half_has_left() {
    let backend = Backend::scripted(|peer, _| peer.wait_for_close());
    let gateway = Gateway::start(format!("telemetry: {{ access_log: {{}} }}\n{}", route(&[backend.address()], "")));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 1);
    assert_eq!(client.finish().rest(), "");
    eventually("the backend is let go", || backend.open() == 0);
    let line = gateway.await_access_log(1).remove(0);
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(499), Some("client_gone")));
}
