//! Connections in HTTP/2 that many requests share: what one of them may cost the others, and what becomes of those that a
//! backend gives back.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use tidegate::{
    config::plan::Protocol,
    upstream::{self, Bells, Dial, Limits, Pools, Reuse, Slot, Verdict},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::{LocalSet, spawn_local},
    time::Instant,
};

use crate::support::{
    Act, Backend, Client, Gateway, Http2Backend, at_rest, eventually,
    frames::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, block, frame, request},
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

#[test]
fn a_connection_that_leads_nowhere_is_not_used_again() {
    let mute_at_first = by_hand(|connection, peer| {
        greet(peer, &[]);
        while let Some(got) = peer.frame() {
            if got.kind == HEADERS && connection > 0 {
                answer(peer, got.stream, b"hello");
            }
        }
    });
    let gateway = Gateway::start(to(&[mute_at_first], "timeouts: { response_header: 2100ms }"));
    assert_eq!(gateway.send(POST).fault(), (504, "response_timeout".to_owned()));
    assert_eq!(gateway.send(POST).text(), "hello");
}

#[test]
fn a_late_answer_says_nothing_against_a_connection_on_which_others_come() {
    let backend = Http2Backend::start(100, |seen| match seen.head.uri().path() {
        "/late" => Act::Hold,
        _ => Act::Answer(ok("hello"), HeaderMap::new()),
    });
    let gateway = Gateway::start(to(&[backend.address()], "timeouts: { response_header: 2100ms }"));
    let mut late = gateway.connect();
    late.send("GET /late HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("it is held", || backend.under_way() == 1);
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(late.response().fault(), (504, "response_timeout".to_owned()));
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(backend.connections(), 1);
}

/// Servers of gRPC take a third PING within five minutes for an attack, where they have sent nothing meanwhile.
#[tokio::test(start_paused = true)]
async fn a_silent_call_is_asked_after_no_more_often_than_grpc_servers_allow() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dial = Dial { protocol: Protocol::Http2, ..listener.local_addr().unwrap().into() };
    let backend = Arc::new(upstream::Backend::new(Slot(0), dial, Verdict::Unchecked, 1));
    let calling = async move {
        let pools = Pools::<Empty<Bytes>>::new(0, Arc::new(Bells::new(1)));
        let limits = Limits { max_connections: None, max_idle: 1, idle: Duration::ZERO, max_age: Duration::ZERO };
        let mut connection = pools.checkout(&backend, limits, Reuse::Allowed).await.unwrap();
        let _never = connection.send(Request::new(Empty::new())).await;
    };
    let asked = async {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(&frame(SETTINGS, 0, 0, [])).await.unwrap();
        peer.read_exact(&mut [0; 24]).await.unwrap();
        let mut times = Vec::new();
        while times.len() < 3 {
            let mut head = [0; 9];
            peer.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            peer.read_exact(&mut payload).await.unwrap();
            if head[3] == PING && head[4] & ACK == 0 {
                times.push(Instant::now());
                peer.write_all(&frame(PING, ACK, 0, &payload)).await.unwrap();
            }
        }
        times
    };
    let began = Instant::now();
    let times = LocalSet::new()
        .run_until(async move {
            spawn_local(calling);
            asked.await
        })
        .await;
    let mut last = began;
    for time in times {
        assert!(time - last > Duration::from_secs(5 * 60), "after {:?}", time - last);
        last = time;
    }
}
