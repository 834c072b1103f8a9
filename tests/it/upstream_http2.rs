//! Connections in HTTP/2 that many requests share: what one of them may cost the others, and what becomes of those that a
//! backend gives back.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use tidegate::{
    config::plan::Protocol,
    upstream::{self, Bells, Dial, Limits, Pools, Slot, Verdict},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::{LocalSet, spawn_local},
    time::Instant,
};

use crate::support::{
    Act, Backend, Client, Gate, Gateway, Http2Backend, Load, at_rest, eventually,
    frames::{
        ACK, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
        frame, request,
    },
    ok,
};

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";

/// The code of a stream that was not begun.
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

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
fn what_an_operator_cuts_ends_for_all_that_share_the_connection() {
    let backend =
        Http2Backend::start(100, |seen| if seen.head.uri().path() == "/begun" { Act::Cut } else { Act::Hold });
    let config = "admin: { bind: \"127.0.0.1:0\" }\n".to_owned() + &to(&[backend.address()], "");
    let gateway = Gateway::start(config);
    let mut clients: Vec<Client> = (0..2).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|client| {
        client.send(POST);
    });
    let mut reads = gateway.connect();
    reads.send("GET /begun HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(reads.chunk(), b"half");
    eventually("all are under way", || backend.under_way() == 3);
    assert_eq!(backend.connections(), 1);
    let path = format!("/api/v1/upstreams/up/backends/{}", backend.address());
    let known = |field: &str| gateway.ask_admin(&path).json()[field].clone();
    let drain = |order: &str| {
        let (host, length) = (gateway.admin(), order.len());
        let request = format!(
            "POST {path}/drain HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{order}"
        );
        assert_eq!(Client::connect(host).send(request).response().status(), 200);
    };
    drain("{}");
    eventually("the oldest is known", || known("oldest_s").as_u64() >= Some(1));
    drain(r#"{ "deadline": "200ms" }"#);
    clients.iter_mut().for_each(|client| assert_eq!(client.response().fault(), (503, "draining".to_owned())));
    assert_eq!(reads.rest(), "", "no last chunk: what was cut does not look whole");
    eventually("the connection is closed", || known("connections") == 0 && known("oldest_s").is_null());
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

/// Refuses the first stream of its first connection, after it has read the whole request.
fn refusing_once() -> Http2Backend {
    Http2Backend::start(100, |seen| match (seen.connection, seen.stream) {
        (0, 0) => Act::Refuse,
        _ => Act::Answer(ok("hello"), HeaderMap::new()),
    })
}

#[test]
fn a_small_request_that_was_refused_is_sent_again_with_its_body() {
    let chunked = "PATCH / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                   2\r\nbo\r\n2\r\ndy\r\n0\r\nx-sum: 7\r\n\r\n";
    for (request, sum) in [(POST, None), (chunked, Some("7"))] {
        let backend = refusing_once();
        let gateway = Gateway::start(to(&[backend.address()], ""));
        assert_eq!(gateway.send(request).text(), "hello");
        let seen = backend.seen();
        assert_eq!(seen.len(), 2);
        for seen in seen {
            let trailers = seen.trailers.unwrap_or_default();
            assert_eq!((&seen.body[..], trailers.get("x-sum").map(|sum| sum.to_str().unwrap())), (&b"body"[..], sum));
        }
    }
}

#[test]
fn what_one_backend_refuses_goes_to_another() {
    let refusing = Http2Backend::start(100, |_| Act::Refuse);
    let good = hello();
    // Three turns of four are the refusing one's: what it refuses is not for whoever is next.
    let weighty = format!("{{ url: \"{}\", weight: 3 }}", refusing.address());
    let config = to(&[refusing.address(), good.address()], "");
    let gateway = Gateway::start(config.replace(&format!("\"{}\"", refusing.address()), &weighty));
    for _ in 0..20 {
        assert_eq!(gateway.send(POST).text(), "hello");
    }
    assert_eq!((good.seen().len(), refusing.seen().len()), (20, 15));
    // A few times, where there is no other.
    let gateway = Gateway::start(to(&[refusing.address()], ""));
    let before = refusing.seen().len();
    assert_eq!(gateway.send(POST).fault(), (502, "reset_before_headers".to_owned()));
    assert_eq!(refusing.seen().len() - before, 4);
}

#[tokio::test]
async fn what_is_large_or_still_comes_is_not_sent_again() {
    const LARGE: usize = 65 * 1024;
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let backend = by_hand(move |_, peer| {
        // SETTINGS_INITIAL_WINDOW_SIZE of 1 MiB, and the same for the connection.
        greet(peer, &[0, 4, 0, 16, 0, 0]);
        peer.send(frame(WINDOW_UPDATE, 0, 0, [0, 16, 0, 0]));
        while let Some(got) = peer.frame() {
            // The first two are refused as they begin, the third when all of it is there.
            let is_due = match got.kind {
                HEADERS => seen.fetch_add(1, SeqCst) < 2,
                DATA => got.flags & END_STREAM != 0,
                _ => false,
            };
            if is_due {
                peer.send(frame(RST_STREAM, 0, got.stream, REFUSED_STREAM));
            }
        }
    });
    let gateway = Gateway::start(to(&[backend], ""));
    let refused = (502, "reset_before_headers".to_owned());
    let mut half = gateway.connect();
    half.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo");
    assert_eq!(half.response().fault(), refused);
    assert_eq!(requests.load(SeqCst), 1);
    // The same in words of gRPC.
    let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let call = Request::post("http://a/s/m").header("content-type", "application/grpc").body(()).unwrap();
    let (response, _sending) = client.ready().await.unwrap().send_request(call, false).unwrap();
    assert_eq!(response.await.unwrap().headers()["grpc-status"], "14");
    assert_eq!(requests.load(SeqCst), 2);
    let large = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n{}", "x".repeat(LARGE));
    assert_eq!(gateway.send(large).fault(), refused);
    assert_eq!(requests.load(SeqCst), 3);
}

#[test]
fn a_request_that_a_connection_gives_back_as_it_goes_is_sent_on_another() {
    let backend = by_hand(|connection, peer| {
        greet(peer, &[]);
        while let Some(got) = peer.frame() {
            if got.kind == DATA && connection == 0 {
                // Nothing was begun, and nothing will be.
                peer.send(frame(GOAWAY, 0, 0, [0; 8]));
            } else if got.kind == DATA {
                answer(peer, got.stream, &got.payload);
            }
        }
    });
    let gateway = Gateway::start(to(&[backend], ""));
    assert_eq!(gateway.send(POST).text(), "body");
}

#[test]
fn connections_that_go_away_under_load_cost_no_post() {
    post_while_connections_go_away(1_000);
}

#[test]
fn connections_that_go_away_when_they_are_full_cost_no_post() {
    post_while_connections_go_away(10);
}

/// Asks more at once than a connection takes, and as each connection goes away after some requests, nothing is lost by that.
#[track_caller]
fn post_while_connections_go_away(max_streams: u32) {
    const REQUESTS: u32 = 100;
    let connections = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&connections);
    let backend = by_hand(move |_, peer| {
        opened.fetch_add(1, SeqCst);
        // SETTINGS_MAX_CONCURRENT_STREAMS
        greet(peer, &[[0, 3].as_slice(), &max_streams.to_be_bytes()].concat());
        let mut answered = 0;
        while let Some(got) = peer.frame() {
            if got.kind != DATA || got.flags & END_STREAM == 0 || answered == REQUESTS {
                continue;
            }
            answered += 1;
            if answered == REQUESTS {
                // What came after this one is not looked at.
                peer.send(frame(GOAWAY, 0, 0, [got.stream.to_be_bytes(), [0; 4]].concat()));
            }
            answer(peer, got.stream, b"hello");
        }
    });
    let gateway = Gateway::start(to(&[backend], ""));
    Load::of(6_000, 24).start(gateway.address(), |_| POST.to_owned()).finish().assert_flawless();
    assert!(connections.load(SeqCst) >= 60, "{connections:?}");
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
        let mut connection = pools.checkout(&backend, limits).await.unwrap();
        let (head, body) = Request::new(Empty::new()).into_parts();
        let _never = connection.send(&head.into(), body).await;
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

#[test]
fn requests_under_way_end_on_a_connection_that_goes_away() {
    let (held, gate) = (Arc::new(AtomicUsize::new(0)), Gate::default());
    let (holds, opens) = (Arc::clone(&held), gate.clone());
    let backend = by_hand(move |connection, peer| {
        greet(peer, &[]);
        while let Some(got) = peer.frame() {
            match (got.kind, connection) {
                (HEADERS, 0) => {
                    peer.send(frame(GOAWAY, 0, 0, [got.stream.to_be_bytes(), [0; 4]].concat()));
                    holds.fetch_add(1, SeqCst);
                    opens.wait().unwrap();
                    answer(peer, got.stream, b"late");
                }
                (HEADERS, _) => answer(peer, got.stream, b"hello"),
                _ => {}
            }
        }
    });
    let gateway = Gateway::start(to(&[backend], ""));
    let mut late = gateway.connect();
    late.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("it is held", || held.load(SeqCst) == 1);
    for _ in 0..3 {
        assert_eq!(gateway.send(POST).text(), "hello");
    }
    gate.open();
    assert_eq!(late.response().text(), "late");
}

#[test]
fn a_connection_that_comes_free_is_left_to_a_worker_that_waits_for_it() {
    let backend = Http2Backend::start(100, |seen| match seen.head.uri().path() {
        "/held" => Act::Hold,
        _ => Act::Answer(ok("hello"), HeaderMap::new()),
    });
    let config = to(&[backend.address()], "").replace("workers: 1", "workers: 4");
    let gateway = Gateway::start(config.replace("protocol: http2", "protocol: http2, max_connections: 1"));
    let mut held = gateway.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("it is held", || backend.under_way() == 1);
    // Most of these are on other workers, which are allowed no connection while that one is open.
    let mut clients: Vec<_> = (0..16).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    let answered = at_rest("requests", || backend.seen().len());
    assert!(answered < 16, "all are on one worker");
    backend.go_on();
    assert_eq!(held.response().text(), "late");
    for client in &mut clients {
        assert_eq!(client.response().text(), "hello");
    }
}

#[test]
fn a_request_that_outlives_its_response_keeps_its_stream() {
    let backend = by_hand(|connection, peer| {
        // SETTINGS_MAX_CONCURRENT_STREAMS: one.
        greet(peer, &[0, 3, 0, 0, 0, 1]);
        while let Some(got) = peer.frame() {
            if got.kind == HEADERS {
                answer(peer, got.stream, if connection == 0 { b"early" } else { b"hello" });
            }
        }
    });
    let gateway = Gateway::start(to(&[backend], "timeouts: { response_header: 5s }"));
    let mut client = Client::http2(gateway.address());
    let post: [(&str, &[u8]); 4] = [(":method", b"POST"), (":scheme", b"http"), (":authority", b"a"), (":path", b"/")];
    client.send(request(1, &post, false));
    assert_eq!(client.frames_of(1).unwrap().pop().unwrap().payload, b"early");
    assert_eq!(gateway.get("/").text(), "hello");
}

/// A reset without an error ends a response only where the backend has said the end (RFC 9113, section 8.1).
#[test]
fn a_response_that_is_given_up_does_not_look_whole() {
    for goodbye in [RST_STREAM, GOAWAY] {
        let backend = by_hand(move |_, peer| {
            greet(peer, &[]);
            while let Some(got) = peer.frame() {
                if got.kind == HEADERS {
                    peer.send(frame(HEADERS, END_HEADERS, got.stream, block(&[(":status", b"200")])));
                    peer.send(frame(DATA, 0, got.stream, b"half"));
                    match goodbye {
                        RST_STREAM => peer.send(frame(RST_STREAM, 0, got.stream, [0; 4])),
                        _ => peer.send(frame(GOAWAY, 0, 0, [0; 8])),
                    };
                }
            }
        });
        let gateway = Gateway::start(to(&[backend], ""));
        let response = gateway.get("/");
        assert_eq!((&response.body[..], response.is_whole), (&b"half"[..], false), "{goodbye}");
        let mut client = Client::http2(gateway.address());
        client.send(request(1, &GET, true));
        let frames = client.frames_of(1).expect("the connection goes on");
        assert_eq!(frames.last().map(|frame| frame.kind), Some(RST_STREAM), "{goodbye}");
    }
}

/// A backend that has answered may say that it does not want the rest of the request.
#[test]
fn a_whole_response_to_half_a_request_is_whole() {
    let backend = by_hand(|_, peer| {
        greet(peer, &[]);
        while let Some(got) = peer.frame() {
            if got.kind == HEADERS {
                answer(peer, got.stream, b"enough");
                peer.send(frame(RST_STREAM, 0, got.stream, [0; 4]));
            }
        }
    });
    let gateway = Gateway::start(to(&[backend], ""));
    for _ in 0..20 {
        let response = gateway.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nhalf");
        assert_eq!((response.text(), response.is_whole), ("enough", true));
    }
}

#[test]
fn a_backend_that_never_comes_to_the_point_is_cut() {
    // Interim responses, pings, settings.
    let says: [fn(u32) -> Vec<u8>; 3] = [
        |stream| frame(HEADERS, END_HEADERS, stream, block(&[(":status", b"103")])),
        |_| frame(PING, 0, 0, *b"areyou??"),
        |_| frame(SETTINGS, 0, 0, []),
    ];
    for says in says {
        let backend = by_hand(move |_, peer| {
            greet(peer, &[]);
            let stream = loop {
                match peer.frame() {
                    Some(got) if got.kind == HEADERS => break got.stream,
                    Some(_) => {}
                    None => return,
                }
            };
            let mut reader = peer.stream().try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            let many = says(stream).repeat(1_000);
            while peer.stream().write_all(&many).is_ok() {}
        });
        let gateway = Gateway::start(to(&[backend], "timeouts: { request: 0s }"));
        let (status, reason) = gateway.get("/").fault();
        assert_eq!((status, &reason[..]), (502, "bad_response"));
    }
}

/// h2 ends a connection on which too many small frames wait for their reader.
#[test]
fn small_messages_that_nobody_reads_cost_nobody_else_a_call() {
    const SLOW: usize = 20;
    const MESSAGES: usize = 5_000;
    let messages = frame(DATA, 0, 1, [b'x'; 25]);
    let said = Arc::<AtomicUsize>::default();
    let says = Arc::clone(&said);
    let backend = by_hand(move |_, peer| {
        greet(peer, &[]);
        while let Some(got) = peer.frame() {
            match (got.kind, got.payload.first()) {
                // `:method: POST` in HPACK (RFC 7541, appendix A), and first.
                (HEADERS, Some(0x83)) => {
                    peer.send(frame(HEADERS, END_HEADERS, got.stream, block(&[(":status", b"200")])));
                    let mut message = messages.clone();
                    message[5..9].copy_from_slice(&got.stream.to_be_bytes());
                    peer.send(message.repeat(MESSAGES));
                    says.fetch_add(1, SeqCst);
                }
                (HEADERS, _) => answer(peer, got.stream, b"hello"),
                _ => {}
            }
        }
    });
    let gateway = Gateway::start(to(&[backend], ""));
    // SETTINGS_INITIAL_WINDOW_SIZE: none.
    let mut slow = Client::http2(gateway.address());
    slow.send(frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]));
    let post: [(&str, &[u8]); 4] = [(":method", b"POST"), (":scheme", b"http"), (":authority", b"a"), (":path", b"/")];
    for stream in (1..).step_by(2).take(SLOW) {
        slow.send(request(stream, &post, true));
    }
    eventually("all has been said", || said.load(SeqCst) == SLOW);
    for _ in 0..50 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    slow.send(frame(PING, 0, 0, *b"ask-me!!"));
    let ends = |kind| matches!(kind, RST_STREAM | GOAWAY);
    while let Some(got) = slow.frame() {
        assert!(!ends(got.kind), "{got:?}");
        if got.kind == PING && got.payload == b"ask-me!!" {
            break;
        }
    }
}

/// The same, the other way round: one call that streams to a backend which has stopped reading.
#[test]
fn small_messages_to_a_slow_backend_end_no_connection() {
    let gate = Gate::default();
    let opens = gate.clone();
    let slow = by_hand(move |_, peer| {
        greet(peer, &[]);
        opens.wait().unwrap();
        let mut got = 0;
        while let Some(frame) = peer.frame() {
            got += if frame.kind == DATA { frame.payload.len() } else { 0 };
            if got == 125_000 {
                return answer(peer, 1, b"all");
            }
            if frame.kind == DATA && got % 25_000 < 25 {
                peer.send(more(0)).send(more(1));
            }
        }
    });
    let gateway = Gateway::start(to(&[slow], ""));
    let mut client = Client::http2(gateway.address());
    let post: [(&str, &[u8]); 4] = [(":method", b"POST"), (":scheme", b"http"), (":authority", b"a"), (":path", b"/")];
    client.send(request(1, &post, false)).send(frame(DATA, 0, 1, [b'x'; 25]).repeat(4_999));
    client.send(frame(DATA, END_STREAM, 1, [b'x'; 25]));
    thread::sleep(Duration::from_millis(200));
    gate.open();
    assert_eq!(client.frames_of(1).expect("the connection goes on").pop().unwrap().payload, b"all");
}

fn more(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, 1_000_000_u32.to_be_bytes())
}
