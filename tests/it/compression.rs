//! Compressed responses: whole, as they come, and never for those who did not ask.

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use tokio::io::AsyncReadExt as _;

use crate::support::{
    Backend, Client, Gateway, Response,
    frames::{GET, HEADERS, RST_STREAM, request},
    route,
};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

/// What was compressed, and whether its coding has its end.
fn decoded(coding: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut out = Vec::new();
        let read = match coding {
            "gzip" => GzipDecoder::new(bytes).read_to_end(&mut out).await,
            "br" => BrotliDecoder::new(bytes).read_to_end(&mut out).await,
            "zstd" => ZstdDecoder::new(bytes).read_to_end(&mut out).await,
            other => panic!("{other}"),
        };
        (out, read.is_ok())
    })
}

/// Text that is worth it, and differs everywhere.
fn text(length: usize) -> Vec<u8> {
    let mut text: Vec<u8> = (0..length / 8 + 1).flat_map(|number| format!("{number:07} ").into_bytes()).collect();
    text.truncate(length);
    text
}

/// Answers with text of the length that the path names.
fn texts() -> Backend {
    Backend::scripted(|peer, received| {
        peer.read_body()?;
        let body = text(received.target().trim_start_matches('/').parse().unwrap());
        let length = body.len();
        peer.write(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\netag: \"x\"\r\ncontent-length: {length}\r\n\r\n"
        ))?;
        peer.write(body)
    })
}

fn ask(gateway: &Gateway, path: &str, accept: &str) -> Response {
    gateway.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept-encoding: {accept}\r\n\r\n"))
}

#[test]
fn what_comes_out_is_what_went_in() {
    let backend = texts();
    let gateway = Gateway::start(route(&[backend.address()], "compress: true, max_body: none"));
    for coding in CODINGS {
        for length in [1024, 1025, 65_536, 3_000_000] {
            let response = ask(&gateway, &format!("/{length}"), coding);
            assert_eq!(response.header("content-encoding"), Some(coding), "{length}");
            assert_eq!((response.header("content-length"), response.header("etag")), (None, Some("W/\"x\"")));
            assert_eq!(response.header("vary"), Some("accept-encoding"));
            assert!(response.is_whole);
            let (body, is_whole) = decoded(coding, &response.body);
            assert!(is_whole && body == text(length), "{coding} {length}");
            assert!(response.body.len() < length, "{coding} {length}: {}", response.body.len());
        }
    }
    for length in [0, 1, 1023] {
        let response = ask(&gateway, &format!("/{length}"), "gzip");
        assert_eq!((response.header("content-encoding"), response.header("vary")), (None, None), "{length}");
        assert_eq!(response.body, text(length));
    }
}

#[test]
fn who_does_not_ask_gets_it_as_it_is() {
    let backend = texts();
    let gateway = Gateway::start(route(&[backend.address()], "compress: true"));
    for accept in ["", "identity", "deflate", "gzip;q=0", "*;q=0"] {
        let response = ask(&gateway, "/5000", accept);
        assert_eq!(
            (response.header("content-encoding"), response.header("vary")),
            (None, Some("accept-encoding")),
            "{accept}"
        );
        assert_eq!((response.header("content-length"), &response.body), (Some("5000"), &text(5000)));
    }
    let gateway = Gateway::start(route(&[backend.address()], "compress: false"));
    assert_eq!(ask(&gateway, "/5000", "gzip").header("vary"), None);
    let gateway =
        Gateway::start(route(&[backend.address()], "compress: { codings: [gzip], min_size: 10KiB, types: text/html }"));
    assert_eq!(ask(&gateway, "/50000", "gzip").header("vary"), None, "another type");
}

#[test]
fn a_piece_does_not_wait_for_the_next() {
    for coding in CODINGS {
        let backend = Backend::scripted(|peer, received| {
            if received.target() == "/go" {
                return peer.respond("200 OK", "");
            }
            peer.write(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            )?;
            // Until the client has seen it.
            peer.wait_for_close()
        });
        let gateway = Gateway::start(route(&[backend.address()], "compress: true"));
        let mut client = gateway.connect();
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n"));
        assert_eq!(client.head().header("content-encoding"), Some(coding));
        let mut seen = Vec::new();
        while decoded(coding, &seen).0 != b"first" {
            seen.extend(client.chunk());
        }
    }
}

#[test]
fn half_a_body_does_not_look_whole() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100000\r\n\r\n")?;
        peer.write(text(50_000))?;
        peer.close()
    });
    let gateway = Gateway::start(route(&[backend.address()], "compress: true"));
    for coding in CODINGS {
        let response = ask(&gateway, "/", coding);
        assert!(!response.is_whole, "{coding}");
        assert!(!decoded(coding, &response.body).1, "{coding}: the coding has its end");
    }
    let mut client = Client::http2(gateway.address());
    let mut fields = GET.to_vec();
    fields.push(("accept-encoding", b"gzip"));
    client.send(request(1, &fields, true));
    let frames = client.frames_of(1).expect("the connection goes on");
    assert_eq!((frames[0].kind, frames.last().unwrap().kind), (HEADERS, RST_STREAM));
}

#[test]
fn what_a_backend_has_compressed_or_forbidden_is_left_alone() {
    let backend = Backend::scripted(|peer, received| {
        let field = match received.target() {
            "/coded" => "content-encoding: gzip",
            "/forbidden" => "cache-control: no-transform",
            "/part" => "content-range: bytes 0-1999/5000",
            "/same" => return peer.write("HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n"),
            _ => "x-plain: 1",
        };
        let body = String::from_utf8(text(2_000)).unwrap();
        let is_events = received.target() == "/events";
        let kind = if is_events { "text/event-stream" } else { "application/json" };
        let status = if received.target() == "/part" { "206 Partial Content" } else { "200 OK" };
        let length = if received.head.first_line().starts_with("HEAD") { "" } else { &body };
        peer.write(format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{field}\r\ncontent-length: 2000\r\n\r\n{length}"
        ))
    });
    let gateway = Gateway::start(route(&[backend.address()], "compress: true"));
    for path in ["/coded", "/forbidden", "/part", "/events"] {
        let response = ask(&gateway, path, "gzip");
        assert_eq!((response.header("vary"), &response.body), (None, &text(2_000)), "{path}");
    }
    assert_eq!(ask(&gateway, "/", "gzip").header("content-encoding"), Some("gzip"));
    let mut client = gateway.connect();
    let head = client.send("HEAD / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").head();
    assert_eq!((head.header("content-encoding"), head.header("content-length")), (None, Some("2000")));
    assert_eq!(head.header("vary"), Some("accept-encoding"));
    // A cache learns of a 304 what it would of the 200.
    let same = gateway.connect().send("GET /same HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").head();
    assert_eq!((same.header("vary"), same.header("content-encoding")), (Some("accept-encoding"), None));
}

#[test]
fn trailers_come_after_it_and_the_log_has_what_was_sent() {
    let backend = Backend::scripted(|peer, _| {
        let body = String::from_utf8(text(5_000)).unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/css\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
        peer.write(format!("{head}{:x}\r\n{body}\r\n0\r\nx-sum: 7\r\n\r\n", body.len()))
    });
    let gateway =
        Gateway::start(format!("telemetry: {{ access_log: {{}} }}\n{}", route(&[backend.address()], "compress: true")));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\naccept-encoding: gzip\r\n\r\n");
    let all = client.rest();
    assert!(all.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{all:?}");
    let line = gateway.await_access_log(1).remove(0);
    assert!(line["bytes_out"].as_u64().unwrap() < 4_000 && line.get("reason").is_none(), "{line}");
    // HTTP/1.0 knows no chunks: the end of the connection is that of the body.
    let response = gateway.send("GET / HTTP/1.0\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
    assert_eq!(decoded("gzip", &response.body), (text(5_000), true));
}

#[test]
fn a_client_that_takes_nothing_costs_a_window() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            let noise: Vec<u8> = (0..65_536).map(|_| fastrand::u8(b' '..b'~')).collect();
            peer.write("10000\r\n")?;
            peer.write(noise)?;
            peer.write("\r\n")?;
        }
    });
    let gateway = Gateway::start(route(&[backend.address()], "compress: true"));
    let before = gateway.resident();
    let clients: Vec<_> = (0..30)
        .map(|number| {
            let mut client = gateway.connect();
            let coding = CODINGS[number % 3];
            client.send(format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n")).head();
            client
        })
        .collect();
    let after = crate::support::at_rest("memory", || gateway.resident() >> 21) << 21;
    assert!(after < before + ((30 * 4) << 20), "{} MiB for 30 responses", (after - before) >> 20);
    drop(clients);
}
