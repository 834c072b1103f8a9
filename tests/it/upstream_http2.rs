//! Connections in HTTP/2 that many requests share: what one of them may cost the others, and what becomes of those that a
//! backend gives back.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::support::{Act, Client, Gateway, Http2Backend, at_rest, eventually, frames::request, ok};

/// One upstream of these backends in HTTP/2, used by one worker, on a route without retries.
fn to(backends: &[SocketAddr], fields: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "workers: 1\nupstreams: {{ up: {{ backends: [{}], health: none, protocol: http2 }} }}\n\
         routes: [{{ path: /*, to: up, retries: {{ attempts: 0 }}, {fields} }}]\n",
        backends.join(", ")
    )
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
