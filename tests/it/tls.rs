//! Listeners that speak TLS: which certificate, which protocol, whose clients, and what a renewed certificate costs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustls::version::{TLS12, TLS13};

use crate::support::{
    Authority, Backend, Client, Gateway, Launch, PATIENCE, Pair, eventually,
    frames::{DATA, END_HEADERS, END_STREAM, GET, HEADERS, block, frame, request},
    route,
};

/// A listener `main` with TLS and these certificates, named `0`, `1`, ..., and these fields of `tls`.
fn start(backend: &Backend, pairs: &[&Pair], fields: &str) -> Gateway {
    launch(backend, pairs, fields, Launch::default(), "")
}

fn launch(backend: &Backend, pairs: &[&Pair], fields: &str, launch: Launch, more: &str) -> Gateway {
    let launch = pairs.iter().enumerate().fold(launch, |launch, (number, pair)| {
        launch.file(&format!("{number}.pem"), &pair.cert).file(&format!("{number}.key"), &pair.key)
    });
    launch.start(config(backend, pairs.len(), fields, more))
}

fn config(backend: &Backend, pairs: usize, fields: &str, more: &str) -> String {
    let certs: Vec<String> = (0..pairs).map(|n| format!("{{ cert: {n}.pem, key: {n}.key }}")).collect();
    let tls = format!("tls: {{ certs: [{}], {fields} }}", certs.join(", "));
    format!("{more}listeners: {{ main: {{ bind: \"127.0.0.1:0\", {tls} }} }}\n{}", route(&[backend.address()], ""))
}

const PLAIN: &str = "admin: { bind: \"127.0.0.1:0\" }\n";

#[test]
fn the_certificate_is_that_of_the_name_that_was_asked_for() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pairs = [&["first.test"][..], &["exact.test", "other.test"], &["*.wild.test"]];
    let pairs = [0, 1, 2].map(|n| authority.server(pairs[n], n as u64 + 1));
    let gateway = start(&backend, &[&pairs[0], &pairs[1], &pairs[2]], "");
    let shown = |name: &str| {
        let mut client = authority.trusting().connect(gateway.address(), name).unwrap();
        assert_eq!(client.get("/").text(), "hello");
        client.shown()
    };
    assert_eq!(shown("first.test"), pairs[0].der());
    assert_eq!(shown("exact.test"), pairs[1].der());
    assert_eq!(shown("OTHER.test"), pairs[1].der());
    assert_eq!(shown("a.wild.test"), pairs[2].der());
    // Whoever has none of the names is shown the first, and may make of it what he likes.
    for unknown in ["wild.test", "a.b.wild.test", "nowhere.test", "127.0.0.1"] {
        let error = authority.trusting().connect(gateway.address(), unknown).map(drop).unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{unknown}: {error}");
    }
}

#[test]
fn a_connection_at_rest_is_told_of_its_end() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let gateway = start(&backend, &[&pair], "");
    let connect = || authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
    let (mut resting, mut busy) = (connect(), connect());
    for _ in 0..2 {
        assert_eq!(resting.get("/").text(), "hello");
        // A sweep lets it rest after half a second without a request.
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(busy.get("/").text(), "hello");
    assert_eq!(gateway.stop(), 0);
    assert!(resting.hears_goodbye());
    assert!(busy.hears_goodbye());
}

#[test]
fn the_protocol_is_agreed_on() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let agreed = |gateway: &Gateway, offered: &[&str]| {
        let client = authority.trusting().speaking(offered).connect(gateway.address(), "gateway.test");
        client.map(|client| client.protocol().map(str::to_owned))
    };
    let gateway = start(&backend, &[&pair], "");
    assert_eq!(agreed(&gateway, &["http/1.1", "h2"]).unwrap().as_deref(), Some("h2"));
    assert_eq!(agreed(&gateway, &["http/1.1"]).unwrap().as_deref(), Some("http/1.1"));
    assert_eq!(agreed(&gateway, &[]).unwrap(), None);
    assert!(agreed(&gateway, &["spdy/3"]).is_err(), "nothing in common");
    let listener = "main: { bind: \"127.0.0.1:0\",";
    let config = config(&backend, 1, "", "").replace(listener, &format!("{listener} http2: false,"));
    let launch = Launch::default().file("0.pem", &pair.cert).file("0.key", &pair.key);
    let gateway = launch.start(config);
    assert_eq!(agreed(&gateway, &["h2", "http/1.1"]).unwrap().as_deref(), Some("http/1.1"));
}

#[test]
fn old_versions_are_refused() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let ask = |gateway: &Gateway, version| {
        let client = authority.trusting().only(version).connect(gateway.address(), "gateway.test");
        client.map(|mut client| client.get("/").status())
    };
    let gateway = start(&backend, &[&pair], "");
    assert_eq!(ask(&gateway, &TLS12).unwrap(), 200);
    assert_eq!(ask(&gateway, &TLS13).unwrap(), 200);
    let gateway = start(&backend, &[&pair], "min_version: \"1.3\"");
    assert_eq!(ask(&gateway, &TLS13).unwrap(), 200);
    assert!(ask(&gateway, &TLS12).is_err());
}

/// Whether a request gets through: a refusal may come after the client believes to be connected.
fn is_let_in(client: std::io::Result<Client<crate::support::TlsStream>>) -> bool {
    let Ok(mut client) = client else { return false };
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    client.rest().starts_with("HTTP/1.1 200 ")
}

/// What the log says of the first client whose handshake failed.
fn why_no_handshake(gateway: &Gateway) -> String {
    let event = gateway.await_event("the log says why", |event| event["reason"] == "tls_handshake");
    assert_eq!(
        (&event["event"], &event["listener"], &event["client"]),
        (&"client".into(), &"main".into(), &"127.0.0.1".into())
    );
    event["detail"].as_str().unwrap().to_owned()
}

/// What a client cannot say of itself, the log says: each reason once, and how many more there were.
#[test]
fn the_log_says_why_a_handshake_failed() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let start = |fields: &str, launch_with: Launch| launch(&backend, &[&pair], fields, launch_with, PLAIN);

    let strangers = start("", Launch::default());
    assert!(Authority::new("stranger").trusting().connect(strangers.address(), "gateway.test").is_err());
    assert_eq!(why_no_handshake(&strangers), "it does not trust who signed our certificate");

    let modern = start("min_version: \"1.3\"", Launch::default());
    let ask = |version| {
        let client = authority.trusting().only(version).connect(modern.address(), "gateway.test");
        client.map(|mut client| client.get("/").status())
    };
    assert!(ask(&TLS12).is_err());
    assert_eq!(why_no_handshake(&modern), "it speaks no version of TLS that is accepted here");
    // Whoever only looks whether somebody listens is no news.
    drop(std::net::TcpStream::connect(modern.address()).unwrap());
    assert_eq!(ask(&TLS13).unwrap(), 200);
    assert_eq!(modern.events(|event| event["event"] == "client").len(), 1);
}

#[test]
fn clients_show_a_certificate_of_the_right_authority() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let pair = authority.server(&["gateway.test"], 1);
    let fields = "client_ca: ca.pem, client_subject: x-client-subject";
    let gateway = launch(&backend, &[&pair], fields, Launch::default().file("ca.pem", ours.pem()), PLAIN);
    let connect = |client: crate::support::TlsClient| client.connect(gateway.address(), "gateway.test");
    assert!(!is_let_in(connect(authority.trusting())), "without a certificate");
    assert_eq!(why_no_handshake(&gateway), "it shows no certificate, and must");
    assert!(!is_let_in(connect(authority.trusting().identified_by(theirs.client("mallory")))));
    let closed = "tidegate_connections_closed_total{listener=\"main\",reason=\"tls_handshake\"}";
    eventually("both are counted", || gateway.metric(closed) == 2);
    gateway.await_event("the other reason is told, too", |event| {
        event["detail"] == "its certificate was signed by nobody who is trusted here"
    });
    assert_eq!(backend.hits(), 0);
    let mut amy = connect(authority.trusting().identified_by(ours.client("amy"))).unwrap();
    let claim = "GET / HTTP/1.1\r\nhost: a\r\nX-Client-Subject: CN=root\r\nx_client_subject: CN=root\r\n\r\n";
    assert_eq!(amy.send(claim).response().status(), 200);
    assert_eq!(backend.request().head.all("x-client-subject"), ["O=Example,CN=amy"]);
    assert!(backend.request().head.all("x_client_subject").is_empty());
}

/// The header of the subject may have any name, also one that the gateway says something else in.
#[test]
fn the_subject_is_said_once_whatever_its_header_is_called() {
    let authority = Authority::new("authority");
    let pair = authority.server(&["gateway.test"], 1);
    for name in ["x-forwarded-for", "x-forwarded-proto", "user-agent"] {
        let backend = Backend::start();
        let fields = format!("client_ca: ca.pem, client_subject: {name}");
        let gateway = launch(&backend, &[&pair], &fields, Launch::default().file("ca.pem", authority.pem()), "");
        let amy = authority.trusting().identified_by(authority.client("amy"));
        let mut amy = amy.connect(gateway.address(), "gateway.test").unwrap();
        assert_eq!(amy.send("GET / HTTP/1.1\r\nhost: a\r\nuser-agent: u\r\n\r\n").response().status(), 200);
        assert_eq!(backend.request().head.all(name), ["O=Example,CN=amy"], "{name}");
    }
}

#[test]
fn without_a_certificate_there_is_no_subject_whatever_the_client_says() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let ours = Authority::new("ours");
    let pair = authority.server(&["gateway.test"], 1);
    let fields = "client_ca: ca.pem, client_auth: optional, client_subject: x-client-subject";
    let files = Launch::default().file("ca.pem", ours.pem()).file("0.pem", &pair.cert).file("0.key", &pair.key);
    let listeners = "listeners: { plain: { bind: \"127.0.0.1:0\" },";
    let gateway = files.start(config(&backend, 1, fields, "").replace("listeners: {", listeners));
    let claim = "GET / HTTP/1.1\r\nhost: a\r\nX-Client-Subject: CN=root\r\n\r\n";
    let mut anonymous = authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
    assert_eq!(anonymous.send(claim).response().status(), 200);
    assert_eq!(Client::connect(gateway.listener("plain")).send(claim).response().status(), 200);
    for request in backend.requests() {
        assert!(request.head.all("x-client-subject").is_empty(), "{request:?}");
    }
    assert_eq!(backend.hits(), 2);
}

/// Whoever is connected to a listener that an edit removes goes on to be routed as before, and may say no more than before.
#[test]
fn nobody_says_who_he_is_on_a_listener_that_was_removed() {
    let bodies = Arc::<Mutex<Vec<String>>>::default();
    let notes = Arc::clone(&bodies);
    let backend = Backend::scripted(move |peer, _| {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            raw.extend(peer.read_raw()?);
        }
        notes.lock().unwrap().push(String::from_utf8(raw).unwrap());
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    });
    let authority = Authority::new("authority");
    let pair = authority.server(&["gateway.test"], 1);
    let fields = "client_ca: ca.pem, client_auth: optional, client_subject: x-client-subject";
    let files = Launch::default().file("ca.pem", Authority::new("ours").pem());
    let gateway = launch(&backend, &[&pair], fields, files, PLAIN);
    let client = authority.trusting().speaking(&["h2"]).connect(gateway.address(), "gateway.test");
    let mut anonymous = client.unwrap().in_http2();
    let claim = ("x-client-subject", &b"CN=root"[..]);
    let head = [&GET[1..], &[(":method", b"POST"), ("trailer", b"x-client-subject, x-sum"), claim]].concat();
    let claims = |stream| {
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, block(&[claim, ("x-sum", b"1")]));
        [request(stream, &head, false), frame(DATA, 0, stream, b"hi"), trailers].concat()
    };
    anonymous.send(claims(1)).frames_of(1).expect("an answer");
    let listeners = "listeners: { other: { bind: \"127.0.0.1:0\" } }";
    assert_eq!(gateway.edit(format!("{PLAIN}{listeners}\n{}", route(&[backend.address()], "")))["event"], "reload");
    anonymous.send(claims(3));
    eventually("both are there", || bodies.lock().unwrap().len() == 2);
    for body in &*bodies.lock().unwrap() {
        assert_eq!(body, "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n");
    }
    for seen in backend.requests() {
        assert!(seen.head.all("x-client-subject").is_empty(), "{seen:?}");
    }
}

#[test]
fn a_renewed_certificate_costs_nobody_a_connection() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let serials = [1, 2].map(|serial| authority.server(&["gateway.test"], serial));
    let gateway = launch(&backend, &[&serials[0]], "", Launch::default(), PLAIN);
    let mut long = authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
    assert_eq!(long.get("/").status(), 200);

    let (is_over, shaken) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = || {
        while !is_over.load(Relaxed) {
            let mut client = authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
            assert_eq!(client.get("/").status(), 200);
            shaken.fetch_add(1, Relaxed);
        }
    };
    thread::scope(|threads| {
        let loads = [threads.spawn(load), threads.spawn(load)];
        let goes_on = || {
            let enough = shaken.load(Relaxed) + 20;
            eventually("the load goes on", || {
                shaken.load(Relaxed) > enough || loads.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        };
        goes_on();
        // The key first: for a moment the two do not match, and that is refused.
        let refused = gateway.after_edit(|| write(&gateway, "0.key", &serials[1].key));
        assert_eq!(refused["event"], "refused");
        assert!(refused["findings"].to_string().contains("0.pem does not match its key"), "{refused}");
        goes_on();
        let renewed = gateway.after_edit(|| write(&gateway, "0.pem", &serials[1].cert));
        assert_eq!(renewed["event"], "reload");
        let client = authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
        assert_eq!(client.shown(), serials[1].der());
        goes_on();
        is_over.store(true, Relaxed);
        loads.into_iter().for_each(|load| load.join().unwrap());
    });
    assert_eq!(long.get("/").status(), 200, "who was connected stays so");
    assert_eq!(gateway.metric("tidegate_connections_closed_total{listener=\"main\",reason=\"tls_handshake\"}"), 0);
}

fn write(gateway: &Gateway, file: &str, text: &str) {
    crate::support::replace(&gateway.folder().join(file), text);
}

#[test]
fn an_expired_certificate_is_not_taken_for_a_valid_one() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let gateway = start(&backend, &[&pair], "");
    let mut params = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::from_pem(&pair.key).unwrap();
    let expired = params.self_signed(&key).unwrap().pem();
    let refused = gateway.after_edit(|| write(&gateway, "0.pem", &expired));
    assert!(refused["findings"].to_string().contains("0.pem expired"), "{refused}");
    let client = authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
    assert_eq!(client.shown(), pair.der());
}

#[test]
fn kubernetes_renews_by_a_symlink() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let serials = [1, 2].map(|serial| authority.server(&["gateway.test"], serial));
    let launch = Launch::default();
    let folder = launch.folder().to_owned();
    for (name, pair) in ["..1", "..2"].into_iter().zip(&serials) {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("tls.crt"), &pair.cert).unwrap();
        fs::write(folder.join(name).join("tls.key"), &pair.key).unwrap();
    }
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, folder.join("..new")).unwrap();
        fs::rename(folder.join("..new"), folder.join(name)).unwrap();
    };
    link("..1", "..data");
    link("..data/tls.crt", "tls.crt");
    link("..data/tls.key", "tls.key");
    let config = config(&backend, 1, "", "").replace("0.pem", "tls.crt").replace("0.key", "tls.key");
    let gateway = launch.start(config);
    assert_eq!(gateway.after_edit(|| link("..2", "..data"))["event"], "reload");
    let client = authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
    assert_eq!(client.shown(), serials[1].der());
}

#[test]
fn a_handshake_that_does_not_come_is_cut() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let more = format!("{PLAIN}defaults: {{ timeouts: {{ client_header: 300ms }} }}\n");
    let gateway = launch(&backend, &[&pair], "", Launch::default(), &more);
    let mut silent = TcpStream::connect(gateway.address()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let mut half = TcpStream::connect(gateway.address()).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
    assert_eq!(half.read(&mut [0]).unwrap(), 0);
    let closed = "tidegate_connections_closed_total{listener=\"main\",reason=\"handshake_timeout\"}";
    eventually("both are counted", || gateway.metric(closed) == 2);
}

#[test]
fn what_is_not_tls_is_refused() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let gateway = launch(&backend, &[&pair], "", Launch::default(), PLAIN);
    Client::connect(gateway.address()).send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").rest();
    let closed = "tidegate_connections_closed_total{listener=\"main\",reason=\"tls_handshake\"}";
    eventually("it is counted", || gateway.metric(closed) == 1);
    assert_eq!(backend.hits(), 0);
    assert_eq!(why_no_handshake(&gateway), "it does not speak TLS");
}

#[test]
fn those_who_only_begin_handshakes_keep_nobody_out() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let more = format!("{PLAIN}workers: 1\n");
    let gateway = launch(&backend, &[&pair], "max_handshakes: 4", Launch::default(), &more);
    let silent: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    let mut client = authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
    assert_eq!(client.get("/").status(), 200);
    // Well before `client_header`, which is 10 s.
    let closed = "tidegate_connections_closed_total{listener=\"main\",reason=\"handshake_timeout\"}";
    eventually("the first were cut", || gateway.metric(closed) >= 8);
    drop(silent);
}

/// Whoever has still to say whose connection it is will shake hands as well.
#[test]
fn those_who_only_begin_the_proxy_header_keep_nobody_out_and_are_counted() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let files = Launch::default().file("0.pem", &pair.cert).file("0.key", &pair.key);
    let listener = "main: { bind: \"127.0.0.1:0\",";
    let fields = format!("{listener} proxy_protocol: v1, trusted_proxies: [127.0.0.1],");
    let more = format!("{PLAIN}workers: 1\ndefaults: {{ timeouts: {{ client_header: 1h }} }}\n");
    let gateway = files.start(config(&backend, 1, "max_handshakes: 4", &more).replace(listener, &fields));
    let silent: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(gateway.address()).unwrap()).collect();
    let closed = "tidegate_connections_closed_total{listener=\"main\",reason=\"proxy_header\"}";
    eventually("the first were cut", || gateway.metric(closed) >= 8);
    drop(silent);
}

#[test]
fn a_plain_listener_sends_its_clients_to_the_one_with_tls() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let pair = authority.server(&["gateway.test"], 1);
    let files = Launch::default().file("0.pem", &pair.cert).file("0.key", &pair.key);
    let own = format!("routes: [{{ path: /own/*, listeners: [plain], to: \"{}\", health: none }}, ", backend.address());
    let config = config(&backend, 1, "", "telemetry: { access_log: {} }\n")
        .replace(
            "listeners: { main: {",
            "listeners: { plain: { bind: \"127.0.0.1:0\" }, main: { redirect_from: plain, redirect_port: 8443,",
        )
        .replace("routes: [", &own);
    let gateway = files.start(config);
    let plain = gateway.listener("plain");
    let location = |request: &str| {
        let response = Client::connect(plain).send(request).response();
        (response.status(), response.header("location").map(str::to_owned))
    };
    let there = |url: &str| (308, Some(url.to_owned()));
    assert_eq!(
        location("GET /a/../b%41?x=1 HTTP/1.1\r\nhost: Shop.test:80\r\n\r\n"),
        there("https://shop.test:8443/bA?x=1")
    );
    assert_eq!(location("POST / HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 0\r\n\r\n"), there("https://[::1]:8443/"));
    // Neither a host that is none nor none at all is sent anywhere.
    assert_eq!(location("GET / HTTP/1.1\r\nhost: a b\r\n\r\n").0, 400);
    assert_eq!(location("GET / HTTP/1.0\r\n\r\n").0, 404);
    assert_eq!(backend.hits(), 0);
    assert_eq!(Client::connect(plain).get("/own/x").text(), "hello");
    let log = gateway.await_access_log(5);
    assert_eq!((&log[0]["status"], &log[0]["reason"]), (&308.into(), &serde_json::Value::Null));
    let config = fs::read_to_string(gateway.config()).unwrap();
    gateway.edit(config.replace("redirect_port: 8443,", "redirect_port: 443,"));
    assert_eq!(location("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), there("https://a/"));
}
