//! HTTP/2 clients that send much and ask for little: each is cut or bounded, and nobody beside them notices.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Backend, Client, Gateway, at_rest, eventually,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, GET, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
        frame, request,
    },
    route,
};

/// What any of them may cost in memory.
const MOST: u64 = 24 << 20;

/// More than any flood needs to be found out.
const PLENTY: usize = 64 << 20;

fn start(backend: &Backend) -> Gateway {
    Gateway::start(format!("admin: {{ bind: \"127.0.0.1:0\" }}\nworkers: 1\n{}", route(&[backend.address()], "")))
}

/// Writes what `next` makes, without reading, until the gateway has cut the connection; returns how many bytes that took.
fn flood(gateway: &Gateway, mut next: impl FnMut(u32) -> Vec<u8>) -> usize {
    let client = Client::http2(gateway.address());
    // Nothing is read: answers pile up, as far as somebody lets them.
    client.stream().set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut sent = 0;
    for number in 0.. {
        let bytes = next(number);
        // Neither taking more nor cutting is a bound as well: the socket's buffers are full.
        if (&mut client.stream()).write_all(&bytes).is_err() {
            break;
        }
        sent += bytes.len();
        assert!(sent < PLENTY, "it goes on and on");
    }
    sent
}

/// A flood is cut or bounded, costs little memory, and whoever asks meanwhile is answered.
#[track_caller]
fn assert_harmless(gateway: &Gateway, next: impl FnMut(u32) -> Vec<u8> + Send) -> usize {
    assert_eq!(gateway.get("/").status(), 200);
    let before = at_rest("memory", || gateway.resident() >> 20) << 20;
    let is_over = AtomicBool::new(false);
    let (sent, slowest) = thread::scope(|threads| {
        let bystander = threads.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !is_over.load(Relaxed) {
                // A connection has only so many requests.
                let mut client = gateway.connect();
                for _ in 0..500 {
                    let began = Instant::now();
                    assert_eq!(client.get("/").status(), 200);
                    slowest = slowest.max(began.elapsed());
                }
            }
            slowest
        });
        let sent = flood(gateway, next);
        is_over.store(true, Relaxed);
        (sent, bystander.join().unwrap())
    });
    let after = gateway.resident();
    eprintln!(
        "{sent} bytes sent, {} KiB of memory, bystander at most {slowest:?}",
        after.saturating_sub(before) / 1024
    );
    assert!(after < before + MOST, "{} MiB more", (after - before) >> 20);
    assert_eq!(gateway.get("/").status(), 200);
    sent
}

fn closed_as(gateway: &Gateway, reason: &str) -> usize {
    gateway.metric(&format!("tidegate_connections_closed_total{{listener=\"main\",reason=\"{reason}\"}}"))
}

#[test]
fn pings() {
    let backend = Backend::start();
    let gateway = start(&backend);
    assert_harmless(&gateway, |number| frame(PING, 0, 0, u64::from(number).to_be_bytes()).repeat(100));
}

#[test]
fn settings() {
    let backend = Backend::start();
    let gateway = start(&backend);
    assert_harmless(&gateway, |_| frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0xff, 0xff]).repeat(100));
}

#[test]
fn acknowledgements_and_frames_that_nobody_answers() {
    let backend = Backend::start();
    let gateway = start(&backend);
    assert_harmless(&gateway, |number| {
        let ping = frame(PING, ACK, 0, [0; 8]);
        let priority = frame(PRIORITY, 0, number * 2 + 1, [0, 0, 0, 0, 1]);
        let unknown = frame(0xfa, 0, 0, [0; 100]);
        [ping, priority, unknown].concat().repeat(50)
    });
    eventually("it is called what it is", || closed_as(&gateway, "flood") == 1);
}

/// CVE-2023-44487.
#[test]
fn rapid_resets() {
    let backend = Backend::start();
    let gateway = start(&backend);
    let sent = assert_harmless(&gateway, |number| {
        let stream = number * 2 + 1;
        [request(stream, &GET, true), frame(RST_STREAM, 0, stream, [0, 0, 0, 8])].concat()
    });
    assert!(sent < 2 << 20, "{sent} bytes");
}

/// Slower ones, each request on its way to a backend before it is given up.
#[test]
fn requests_that_are_asked_for_and_given_up() {
    let backend = Backend::scripted(|peer, _| peer.wait_for_close());
    let gateway = start(&backend);
    let mut client = Client::http2(gateway.address());
    for number in 0..400 {
        let stream = number * 2 + 1;
        let before = backend.hits();
        client.send(request(stream, &GET, true));
        if client.stream().take_error().unwrap().is_some() || before > 150 {
            break;
        }
        eventually("the backend has it, or the connection is cut", || {
            backend.hits() > before || closed_as(&gateway, "flood") == 1
        });
        client.send(frame(RST_STREAM, 0, stream, [0, 0, 0, 8]));
    }
    eventually("it is cut", || closed_as(&gateway, "flood") == 1);
    assert!(backend.hits() <= 110, "{}", backend.hits());
}

/// CVE-2025-8671: the client makes the gateway reset.
#[test]
fn resets_that_the_gateway_is_made_to_send() {
    let backend = Backend::scripted(|peer, _| peer.wait_for_close());
    let gateway = Gateway::start(format!("admin: {{ bind: \"127.0.0.1:0\" }}\n{}", route(&[backend.address()], "")));
    let mut client = Client::http2(gateway.address());
    client.stream().set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut ends = false;
    for number in 0..20_000u32 {
        let stream = number * 2 + 1;
        let bytes = [request(stream, &GET, true), frame(WINDOW_UPDATE, 0, stream, [0; 4])].concat();
        if (&mut client.stream()).write_all(&bytes).is_err() {
            ends = true;
            break;
        }
    }
    ends = ends || std::iter::from_fn(|| client.frame()).take(100_000).count() < 100_000;
    assert!(ends, "20,000 resets");
    assert!(backend.hits() < 400, "{}", backend.hits());
}

/// CVE-2024-27316.
#[test]
fn a_head_without_an_end() {
    let backend = Backend::start();
    let gateway = start(&backend);
    let sent = assert_harmless(&gateway, |number| match number {
        0 => frame(HEADERS, 0, 1, block(&GET)),
        _ => frame(CONTINUATION, 0, 1, block(&[("x-more", &[b'a'; 1000])])),
    });
    assert!(sent < 4 << 20, "{sent} bytes");
    assert_harmless(&gateway, |number| match number {
        0 => frame(HEADERS, 0, 1, block(&GET)),
        _ => frame(CONTINUATION, 0, 1, []).repeat(100),
    });
    assert_eq!(backend.requests().iter().filter(|request| !request.head.all("x-more").is_empty()).count(), 0);
}

#[test]
fn empty_pieces_of_a_body() {
    let backend = Backend::scripted(|peer, _| peer.respond("200 OK", "read"));
    let gateway = start(&backend);
    let fields = [(":method", &b"POST"[..]), (":scheme", b"http"), (":authority", b"a"), (":path", b"/post")];
    assert_harmless(&gateway, |number| match number {
        0 => request(1, &fields, false),
        _ => frame(DATA, 0, 1, []).repeat(200),
    });
}

#[test]
fn more_streams_than_are_allowed() {
    let backend = Backend::scripted(|peer, received| match received.target() {
        "/" => peer.respond("200 OK", "hello"),
        _ => peer.wait_for_close(),
    });
    let gateway = start(&backend);
    let held = [(":method", &b"GET"[..]), (":scheme", b"http"), (":authority", b"a"), (":path", b"/held")];
    let mut client = Client::http2(gateway.address());
    for stream in (1..2 * 150).step_by(2) {
        client.send(request(stream, &held, true));
    }
    eventually("as many as are allowed are held", || backend.hits() == 128);
    let refused = std::iter::from_fn(|| client.frame()).filter(|frame| frame.kind == RST_STREAM).take(22);
    assert!(refused.map(|frame| frame.code()).all(|code| code == 7), "REFUSED_STREAM");
    assert_eq!(backend.hits(), 128);
}

/// A client that opens no window is not an occasion to buffer.
#[test]
fn answers_that_nobody_takes() {
    let backend = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20))?;
        let piece = vec![b'x'; 64 * 1024];
        (0..1024).try_for_each(|_| peer.write(&piece))
    });
    let gateway = start(&backend);
    let before = at_rest("memory", || gateway.resident() >> 20) << 20;
    let mut client = Client::http2(gateway.address());
    client.send(frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]));
    for stream in (1..2 * 100).step_by(2) {
        client.send(request(stream, &GET, true));
    }
    eventually("all are asked for", || backend.hits() == 100);
    let after = at_rest("memory", || gateway.resident() >> 20) << 20;
    assert!(after < before + ((100 * 400) << 10), "{} MiB more for 100 answers", (after - before) >> 20);
}

#[test]
fn a_head_that_is_too_large() {
    let backend = Backend::start();
    let gateway = start(&backend);
    let value = vec![b'a'; 15_000];
    let mut client = Client::http2(gateway.address());
    client.send(frame(HEADERS, 1, 1, block(&GET)));
    for number in 0..5 {
        let flags = if number == 4 { END_HEADERS } else { 0 };
        client.send(frame(CONTINUATION, flags, 1, block(&[("x-more", &value)])));
    }
    let frames = client.frames_of(1);
    // 431 in HPACK: a literal status, or the connection is given up.
    assert!(frames.is_none_or(|frames| frames.iter().any(|frame| frame.kind == HEADERS || frame.kind == RST_STREAM)));
    assert_eq!(backend.hits(), 0);
}
