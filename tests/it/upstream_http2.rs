//! Connections in HTTP/2 that many requests share: what one of them may cost the others, and what becomes of those that a
//! backend gives back.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::support::{
    Act, Backend, Client, Gateway, Http2Backend, at_rest, eventually,
    frames::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, block, frame, request},
    ok,
};

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";

/// One upstream of these backends in HTTP/2, used by one worker, on a route without retries.
fn to(backends: &[SocketAddr], fields: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "workers: 1\nupstreams: {{ up: {{ backends: [{}], health: none, protocol: http2 }} }}\n\
         routes: [{{ path: /*, to: up, retries: {{ attempts: 0 }}, {fields} }}]\n",
        backends.join(", ")
    )
}

/// A backend that does on each connection, by its number, what it likes.
fn by_hand(serve: impl Fn(usize, &mut Client) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                serve(number, &mut Client::over(stream));
            });
        }
    });
    address
}

/// Reads the preface and says the settings.
fn greet(peer: &mut Client, settings: &[u8]) {
    assert!(peer.read(24).starts_with(b"PRI "));
    peer.send(frame(SETTINGS, 0, 0, settings));
}

/// A whole response on a stream.
fn answer(peer: &mut Client, stream: u32, body: &[u8]) {
    peer.send(frame(HEADERS, END_HEADERS, stream, block(&[(":status", b"200")])));
    peer.send(frame(DATA, END_STREAM, stream, body));
}

fn hello() -> Http2Backend {
    Http2Backend::start(100, |_| Act::Answer(ok("hello"), HeaderMap::new()))
}

#[test]
fn who_does_not_speak_http2_is_given_no_request() {
    let old = Backend::named("never");
    let good = hello();
    let gateway = Gateway::start(to(&[old.address(), good.address()], ""));
    for _ in 0..6 {
        assert_eq!(gateway.send(POST).text(), "hello");
    }
    assert_eq!(good.seen().len(), 6);
    let gateway = Gateway::start(to(&[old.address()], ""));
    assert_eq!(gateway.send(POST).fault(), (502, "bad_response".to_owned()));
}

#[test]
fn who_says_nothing_is_given_no_request() {
    let silent = by_hand(|_, peer| drop(peer.rest()));
    let good = hello();
    let gateway = Gateway::start(to(&[silent, good.address()], "timeouts: { connect: 200ms }"));
    for _ in 0..4 {
        assert_eq!(gateway.send(POST).text(), "hello");
    }
    let gateway = Gateway::start(to(&[silent], "timeouts: { connect: 200ms }"));
    assert_eq!(gateway.send(POST).fault(), (504, "connect_timeout".to_owned()));
}

#[test]
fn a_connection_that_ends_before_it_has_begun_is_no_connection() {
    let gone = by_hand(|_, peer| drop(peer.read(24)));
    let good = hello();
    let gateway = Gateway::start(to(&[gone, good.address()], ""));
    for _ in 0..6 {
        assert_eq!(gateway.send(POST).text(), "hello");
    }
    let gateway = Gateway::start(to(&[gone], ""));
    assert_eq!(gateway.send(POST).fault(), (502, "connect_failed".to_owned()));
}

#[test]
fn requests_wait_until_a_backend_allows_them() {
    let late = by_hand(|_, peer| {
        // SETTINGS_MAX_CONCURRENT_STREAMS: none at first.
        greet(peer, &[0, 3, 0, 0, 0, 0]);
        let mut acknowledged = 0;
        while let Some(got) = peer.frame() {
            match got.kind {
                SETTINGS if got.flags & ACK != 0 => {
                    acknowledged += 1;
                    if acknowledged == 1 {
                        peer.send(frame(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 9]));
                    }
                }
                HEADERS => answer(peer, got.stream, if acknowledged == 2 { b"awaited" } else { b"too early" }),
                _ => {}
            }
        }
    });
    let gateway = Gateway::start(to(&[late], ""));
    assert_eq!(gateway.get("/").text(), "awaited");
}

#[test]
fn clients_that_do_not_read_stall_nobody_else() {
    const STALLED: usize = 127;
    let big = Bytes::from(vec![b'x'; 1024 * 1024]);
    let backend = Http2Backend::start(1_000, move |seen| match seen.head.uri().path() {
        "/big" => Act::Answer(Response::new(big.clone()), HeaderMap::new()),
        _ => Act::Answer(ok("hello"), HeaderMap::new()),
    });
    let gateway = Gateway::start(to(&[backend.address()], ""));
    assert_eq!(gateway.get("/").text(), "hello");
    let before = gateway.resident();
    // All that this client reads are the 64 KiB that it has granted its connection from the start.
    let mut client = Client::http2(gateway.address());
    let big: [(&str, &[u8]); 4] = [(":method", b"GET"), (":scheme", b"http"), (":authority", b"a"), (":path", b"/big")];
    for stream in (1..).step_by(2).take(STALLED) {
        client.send(request(stream, &big, true));
    }
    eventually("all were asked for", || backend.seen().len() == STALLED + 1);
    let held = at_rest("memory", || gateway.resident() / 65_536) * 65_536 - before;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    assert_eq!(backend.connections(), 1);
    assert!(held < 40 * 1024 * 1024, "{held} bytes are held for {STALLED} clients");
}
