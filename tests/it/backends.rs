//! Backends that are reached otherwise than by HTTP/1.1 over TCP: TLS, HTTP/2, Unix sockets.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    sync::Arc,
    thread,
};

use h2::Reason;
use http::HeaderMap;
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs::default_provider, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::support::{
    Act, Authority, Backend, Client, Gateway, Http2Backend, Launch, Load, Pair, eventually,
    frames::{DATA, END_HEADERS, END_STREAM, GET, HEADERS, block, frame, request as request_of},
    ok, upstream,
};

pub fn server_config(pair: &Pair, clients: Option<&Authority>, alpn: &[&str]) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn hello() -> impl Fn(&crate::support::Seen) -> Act + Send + Sync {
    |_| Act::Answer(ok("hello"), HeaderMap::new())
}

/// One upstream `up` of one backend, with these fields.
fn to(url: &str, fields: &str) -> String {
    let health = if fields.contains("health:") { "" } else { "health: none," };
    format!("upstreams: {{ up: {{ backends: [\"{url}\"], {health} {fields} }} }}\nroutes: [{{ path: /*, to: up }}]\n")
}

#[test]
fn a_backend_proves_its_name() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let pair = ours.server(&["orders.internal"], 1);
    let backend = Http2Backend::secured(server_config(&pair, None, &["h2"]), 100, hello());
    let url = format!("https://{}", backend.address());
    let files = || Launch::default().file("ours.pem", ours.pem()).file("theirs.pem", theirs.pem());
    let ask = |tls: &str| {
        let gateway = files().start(to(&url, &format!("protocol: http2, tls: {{ {tls} }}")));
        let response = gateway.get("/");
        (response.status(), String::from_utf8(response.body).unwrap())
    };
    assert_eq!(ask("ca: ours.pem, sni: orders.internal"), (200, "hello".to_owned()));
    assert_eq!(ask("verify: false"), (200, "hello".to_owned()));
    for (why, tls) in [
        ("signed by another authority", "ca: theirs.pem, sni: orders.internal"),
        ("another name", "ca: ours.pem, sni: other.internal"),
        ("its address is not its name", "ca: ours.pem"),
        ("unknown to the system", "sni: orders.internal"),
    ] {
        let (status, body) = ask(tls);
        assert_eq!(status, 502, "{why}");
        assert!(body.contains("tls_error"), "{why}: {body}");
    }
}

#[test]
fn a_probe_says_why_tls_failed() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let pair = ours.server(&["orders.internal"], 1);
    let backend = Http2Backend::secured(server_config(&pair, None, &["h2"]), 100, hello());
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_address = plain.local_addr().unwrap();
    thread::spawn(move || {
        for mut socket in plain.incoming().map_while(Result::ok) {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let down = |address: std::net::SocketAddr, tls: &str| {
        let files = Launch::default().file("ours.pem", ours.pem()).file("theirs.pem", theirs.pem());
        let fields = format!("protocol: http2, health: /healthz, tls: {{ {tls} }}");
        let gateway = files.start(to(&format!("https://{address}"), &fields));
        let event = gateway.await_event("a verdict", |event| event["event"] == "backend" && event["to"] != "checking");
        (
            event["to"].as_str().unwrap().to_owned(),
            event["reason"].as_str().unwrap().to_owned(),
            event["detail"].to_string(),
        )
    };
    let (state, ..) = down(backend.address(), "ca: ours.pem, sni: orders.internal");
    assert_eq!(state, "up");
    let cases = [
        ("ca: theirs.pem, sni: orders.internal", backend.address(), "signed by nobody who is trusted here"),
        ("ca: ours.pem, sni: other.internal", backend.address(), "is not for other.internal, but for "),
        ("ca: ours.pem, sni: orders.internal", plain_address, "TLS: it does not speak TLS"),
    ];
    for (tls, address, why) in cases {
        let (state, reason, detail) = down(address, tls);
        assert_eq!((state.as_str(), reason.as_str()), ("down", "tls"), "{detail}");
        assert!(detail.contains(why), "{detail}");
    }
}

#[test]
fn the_gateway_shows_its_certificate_to_backends_that_ask() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let pair = servers.server(&["localhost"], 1);
    let config = server_config(&pair, Some(&clients), &["h2"]);
    let backend = Http2Backend::secured(config, 100, hello());
    let url = format!("https://{}", backend.address());
    let gateway_pair = clients.client("gateway");
    let start = |tls: &str| {
        let files = Launch::default().file("ca.pem", servers.pem());
        let files = files.file("gateway.pem", &gateway_pair.cert).file("gateway.key", &gateway_pair.key);
        files.start(to(&url, &format!("protocol: http2, tls: {{ ca: ca.pem, sni: localhost, {tls} }}")))
    };
    assert_eq!(start("cert: gateway.pem, key: gateway.key").get("/").text(), "hello");
    assert_eq!(start("").get("/").status(), 502);
}

#[test]
fn what_is_spoken_is_agreed_on() {
    let authority = Authority::new("authority");
    let pair = authority.server(&["localhost"], 1);
    let ca = || Launch::default().file("ca.pem", authority.pem());
    let http2 = Http2Backend::secured(server_config(&pair, None, &["h2", "http/1.1"]), 100, hello());
    let tls = "tls: { ca: ca.pem, sni: localhost }";
    let gateway = ca().start(to(&format!("https://{}", http2.address()), &format!("protocol: auto, {tls}")));
    assert_eq!(gateway.get("/").text(), "hello");
    let nginx = Tls1::start(server_config(&pair, None, &["http/1.1"]));
    let gateway = ca().start(to(&format!("https://{}", nginx.address), &format!("protocol: auto, {tls}")));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").text(), "http1");
    }
    let logged = format!("protocol: http2, {tls}");
    let gateway = ca()
        .start(format!("telemetry: {{ access_log: {{}} }}\n{}", to(&format!("https://{}", nginx.address), &logged)));
    assert_eq!(gateway.get("/").fault(), (502, "tls_error".to_owned()));
    assert_eq!(
        gateway.await_access_log(1)[0]["attempts"][0]["detail"],
        "it speaks no protocol that was offered (ALPN)"
    );
}

/// A server of HTTP/1.1 over TLS, which answers each request with `http1`.
struct Tls1 {
    address: std::net::SocketAddr,
}

impl Tls1 {
    fn start(config: ServerConfig) -> Self {
        let (listener, config) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                thread::spawn(move || {
                    let mut stream = rustls::StreamOwned::new(connection, socket);
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhttp1").is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address }
    }
}

#[test]
fn a_request_becomes_one_of_http2_and_its_answer_one_of_http1() {
    let backend = Http2Backend::start(100, |_| {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "7".parse().unwrap())]);
        Act::Answer(ok("hello"), trailers)
    });
    let gateway = Gateway::start(to(&format!("http://{}", backend.address()), "protocol: http2"));
    let request = "POST /a?b=c HTTP/1.1\r\nhost: shop.test\r\nte: trailers\r\nconnection: te, x-mine\r\nx-mine: 1\r\n\
                   transfer-encoding: chunked\r\ntrailer: x-check\r\n\r\n5\r\nquery\r\n0\r\nx-check: 9\r\n\r\n";
    let response = gateway.send(request);
    assert_eq!((response.status(), response.text()), (200, "hello"));
    let seen = backend.seen().remove(0);
    assert_eq!(seen.head.uri().to_string(), "http://shop.test/a?b=c");
    let headers = seen.head.headers();
    assert_eq!(
        (headers["te"].as_bytes(), headers["x-forwarded-for"].as_bytes()),
        (&b"trailers"[..], &b"127.0.0.1"[..])
    );
    for gone in ["host", "connection", "transfer-encoding", "x-mine"] {
        assert!(!headers.contains_key(gone), "{gone}: {headers:?}");
    }
    assert_eq!(seen.body, "query");
    assert_eq!(seen.trailers.unwrap()["x-check"], "9");
    // Here nothing is in the way of a length.
    let fields = [GET.to_vec(), vec![("content-length", &b"3"[..]), ("trailer", b"x-check")]].concat();
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&[("x-check", b"9")]));
    let mut client = Client::http2(gateway.address());
    client.send(request_of(1, &fields, false)).send(frame(DATA, 0, 1, "abc")).send(trailers);
    client.frames_of(1).expect("an answer");
    let seen = backend.seen().remove(1);
    assert_eq!((&seen.head.headers()["content-length"], &seen.body[..]), (&"3".parse().unwrap(), &b"abc"[..]));
    assert_eq!(seen.trailers.unwrap()["x-check"], "9");
    assert_eq!(gateway.send("GET /old HTTP/1.0\r\n\r\n").status(), 200);
    let seen = backend.seen().remove(2);
    assert_eq!(seen.head.uri().path(), "/old");
    assert!(!seen.head.headers().contains_key("te"));
}

#[test]
fn requests_share_connections_as_far_as_the_backend_allows() {
    let backend = Http2Backend::start(10, |_| Act::Hold);
    let config = format!("workers: 1\n{}", to(&format!("http://{}", backend.address()), "protocol: http2"));
    let gateway = Gateway::start(config);
    let mut clients: Vec<_> = (0..35).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    eventually("all are held", || backend.under_way() == 35);
    assert_eq!(backend.connections(), 4);
    backend.go_on();
    for client in &mut clients {
        assert_eq!(client.response().text(), "late");
    }
}

#[test]
fn a_cap_on_connections_makes_requests_wait_for_a_stream() {
    let backend = Http2Backend::start(2, |_| Act::Hold);
    let fields = "protocol: http2, max_connections: 1";
    let config = format!("workers: 1\n{}", to(&format!("http://{}", backend.address()), fields));
    let gateway = Gateway::start(config);
    let mut clients: Vec<_> = (0..6).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    for seen in [2, 4, 6] {
        eventually("two more are held", || backend.seen().len() == seen && backend.under_way() == 2);
        backend.go_on();
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "late");
    }
    assert_eq!((backend.connections(), backend.most_under_way()), (1, 2));
}

#[test]
fn a_refused_stream_is_sent_again_whatever_its_method() {
    let backend = Http2Backend::start(100, |seen| match seen.head.headers().get("x-refuse") {
        Some(_) if seen.stream == 0 => Act::Refuse,
        _ => Act::Answer(ok("hello"), HeaderMap::new()),
    });
    let config = to(&format!("http://{}", backend.address()), "protocol: http2");
    let gateway =
        Gateway::start(format!("workers: 1\n{}", config.replace("to: up", "to: up, retries: { attempts: 0 }")));
    let post = "POST / HTTP/1.1\r\nhost: a\r\nx-refuse: 1\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(gateway.send(post).text(), "hello");
    assert_eq!(backend.seen().len(), 2);
    // A reset that says nothing of whether it was begun is an answer that nobody got.
    let backend = Http2Backend::start(100, |_| Act::Reset(Reason::INTERNAL_ERROR));
    let gateway = Gateway::start(to(&format!("http://{}", backend.address()), "protocol: http2"));
    assert_eq!(gateway.send(post).fault(), (502, "reset_before_headers".to_owned()));
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn connections_that_go_away_cost_no_request() {
    let backend = Http2Backend::start(100, |seen| match seen.stream % 7 {
        6 => Act::AnswerAndGoAway(ok("hello")),
        _ => Act::Answer(ok("hello"), HeaderMap::new()),
    });
    let gateway = Gateway::start(to(&format!("http://{}", backend.address()), "protocol: http2"));
    Load::of(2_000, 16).get(gateway.address(), "/").finish().assert_flawless();
    assert!(backend.connections() > 20, "{}", backend.connections());
}

#[test]
fn half_an_answer_is_cut_for_the_client_too() {
    let backend = Http2Backend::start(100, |_| Act::Cut);
    let gateway = Gateway::start(to(&format!("http://{}", backend.address()), "protocol: http2"));
    let mut client = gateway.connect();
    assert_eq!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").head().status(), 200);
    assert_eq!(client.read(9), b"4\r\nhalf\r\n");
    backend.go_on();
    assert_eq!(client.rest(), "", "no last chunk");
}

#[test]
fn an_edit_of_tls_makes_new_connections_and_any_other_keeps_them() {
    let authority = Authority::new("authority");
    let pair = authority.server(&["localhost", "other"], 1);
    let backend = Http2Backend::secured(server_config(&pair, None, &["h2"]), 100, hello());
    let url = format!("https://{}", backend.address());
    let config = |fields: &str, sni: &str| {
        let fields = format!("protocol: http2, {fields} tls: {{ ca: ca.pem, sni: {sni} }}");
        format!("workers: 1\n{}", to(&url, &fields))
    };
    let gateway = Launch::default().file("ca.pem", authority.pem()).start(config("", "localhost"));
    gateway.get("/");
    gateway.edit(config("max_in_flight: 9,", "localhost"));
    gateway.get("/");
    assert_eq!(backend.connections(), 1);
    gateway.edit(config("max_in_flight: 9,", "other"));
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_unix_socket_is_a_backend_like_any_other() {
    let launch = Launch::default();
    let listener = UnixListener::bind(launch.folder().join("app.sock")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    let body = head.lines().find(|line| line.starts_with("host:")).unwrap_or_default();
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    let gateway = launch.start(to("unix:app.sock", "health: /healthz"));
    gateway.await_event("it is up", |event| event["backend"] == "unix:app.sock" && event["to"] == "up");
    assert_eq!(gateway.get("/").text(), "host: gateway.test");
    std::fs::remove_file(gateway.folder().join("app.sock")).unwrap();
    let gone = to("unix:gone.sock", "health: /healthz");
    gateway.edit(gone);
    gateway.await_event("another is down", |event| event["backend"] == "unix:gone.sock" && event["to"] == "down");
    // The one that is gone stands in for that one until its probes have noticed.
    eventually("nobody is left", || gateway.get("/").status() == 503);
}

#[test]
fn one_upstream_may_have_backends_of_every_kind() {
    let (plain, launch) = (Backend::named("plain"), Launch::default());
    let config = upstream(&[plain.address()], "").replace("backends: [", "backends: [\"unix:nobody.sock\", ");
    let gateway = launch.start(config);
    for _ in 0..4 {
        assert_eq!(gateway.get("/").text(), "plain", "what does not connect goes to the other");
    }
}
