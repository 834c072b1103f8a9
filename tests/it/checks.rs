//! What health checks can ask, against real servers.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use serde_json::Value;

use crate::{
    backends::server_config,
    support::{Act, Authority, Backend, Gateway, Http2Backend, Launch, Server, eventually, ok, upstream},
};

/// A check with these fields; its first probe decides.
fn check(fields: &str) -> String {
    format!("health: {{ active: {{ interval: 5s, interval_changing: 50ms, timeout: 4s, {fields} }} }}")
}

/// What the first probe of a check makes of a backend: the new state, the reason and the words.
fn first(backend: SocketAddr, fields: &str) -> (String, String, String) {
    found(&Gateway::start(upstream(&[backend], fields)), backend)
}

fn found(gateway: &Gateway, backend: SocketAddr) -> (String, String, String) {
    let event = gateway.await_event("the first probe has decided", |event| {
        event["event"] == "backend" && event["backend"] == backend.to_string()
    });
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    (text("to"), text("reason"), text("detail"))
}

#[test]
fn a_server_of_grpc_says_which_services_it_serves() {
    let server = Server::python("grpc_server.py", &["=1", "sick.Service=2"]);
    let (state, _, detail) = first(server.address(), &check("type: grpc"));
    assert!(state == "up" && detail.starts_with("probe SERVING in "), "{state}: {detail}");
    for (service, reason, detail) in [
        ("sick.Service", "not_serving", "NOT_SERVING"),
        ("other.Service", "grpc_status", "NOT_FOUND: the server does not know service `other.Service`"),
    ] {
        let found = first(server.address(), &check(&format!("type: grpc, service: {service}")));
        assert_eq!(found, ("down".to_owned(), reason.to_owned(), detail.to_owned()));
    }
    let (.., detail) = first(server.address(), &check("path: /healthz"));
    assert_eq!(detail, "answers in HTTP/2: write protocol: http2, or type: grpc");
}

#[test]
fn a_server_of_grpc_without_the_health_protocol_is_told_by_it() {
    let server = Server::python("grpc_server.py", &[]);
    let (.., detail) = first(server.address(), &check("type: grpc"));
    assert_eq!(detail, "UNIMPLEMENTED: the server does not implement grpc.health.v1");
}

#[test]
fn grpc_over_tls_is_asked_in_http2_whatever_requests_speak() {
    let authority = Authority::new("authority");
    let pair = authority.server(&["orders.internal"], 1);
    let backend = Http2Backend::secured(server_config(&pair, None, &["h2", "http/1.1"]), 100, |seen| {
        assert_eq!(seen.head.uri().path(), "/grpc.health.v1.Health/Check");
        let mut answer = ok("\0\0\0\0\x02\x08\x01");
        answer.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
        Act::Answer(answer, trailers)
    });
    let gateway = secured(&authority, backend.address(), "sni: orders.internal", &check("type: grpc"));
    assert_eq!(found(&gateway, backend.address()).0, "up");
}

/// A gateway with one upstream of one backend in TLS, whose authority it trusts.
fn secured(authority: &Authority, backend: SocketAddr, tls: &str, health: &str) -> Gateway {
    Launch::default().file("ca.pem", authority.pem()).start(format!(
        "upstreams: {{ up: {{ backends: [\"https://{backend}\"], tls: {{ ca: ca.pem, {tls} }}, {health} }} }}\n\
         routes: [{{ path: /*, to: up }}]\n"
    ))
}

#[test]
fn a_certificate_that_ends_soon_degrades_and_an_expired_one_fails() {
    let authority = Authority::new("authority");
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let backend = |not_after| {
        let pair = authority.server_until(&["orders.internal"], not_after);
        Http2Backend::secured(server_config(&pair, None, &["http/1.1"]), 100, |_| Act::Hold)
    };
    let (soon, expired) = (backend(now + day * 3 + day / 2), backend(now - day * 3 - day / 2));
    let ask = |backend: &Http2Backend, tls: &str, fields: &str| {
        let gateway = secured(&authority, backend.address(), tls, &check(&format!("type: tls, {fields}")));
        found(&gateway, backend.address())
    };
    let said = |state: &str, reason: &str, detail: &str| (state.to_owned(), reason.to_owned(), detail.to_owned());
    assert_eq!(
        ask(&soon, "sni: orders.internal", ""),
        said("degraded", "certificate", "probe certificate of orders.internal expires in 3d")
    );
    let (state, ..) = ask(&soon, "sni: orders.internal", "expect: { valid_for: 1d }");
    assert_eq!(state, "up");
    assert_eq!(ask(&expired, "sni: orders.internal", ""), said("down", "tls", "TLS: its certificate has expired"));
    let unverified = ask(&expired, "sni: orders.internal", "tls: { verify: false }");
    assert_eq!(unverified, said("down", "certificate", "certificate of orders.internal expired 3d ago"));
    // The check asks for another name than requests do.
    let (.., detail) = ask(&soon, "sni: orders.internal", "tls: { ca: ca.pem, sni: other.internal }");
    assert_eq!(detail, "TLS: its certificate is not for other.internal, but for orders.internal");
}

/// A server that answers each line as Redis does.
fn redis() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let answer: &[u8] = if line == "PING" { b"+PONG\r\n" } else { b"-ERR unknown command\r\n" };
                    if writer.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn words_are_sent_and_expected_over_tcp() {
    let address = redis();
    let (state, _, detail) = first(address, &check(r#"type: tcp, send: "PING\r\n", expect: { body: "~ ^\\+PONG" }"#));
    assert!(state == "up" && detail.starts_with("probe answered in "), "{state}: {detail}");
    let late =
        check(r#"type: tcp, send: "HELO\r\n", expect: { body: +PONG }"#).replace("timeout: 4s", "timeout: 200ms");
    assert_eq!(first(address, &late).2, "no `+PONG` within 200ms");
}

/// A backend whose `/ready` answers with this status and this document.
fn saying(status: &'static str, media: &'static str, document: &Value) -> Backend {
    let document = document.to_string();
    Backend::scripted(move |peer, _| {
        let length = document.len();
        peer.write(format!("HTTP/1.1 {status}\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\r\n{document}"))
    })
}

#[test]
fn a_field_of_json_decides() {
    let document = serde_json::json!({ "ready": true, "checks": [{ "status": "connected" }] });
    let backend = saying("200 OK", "application/json", &document);
    let ask = |json: &str| first(backend.address(), &check(&format!("path: /ready, expect: {{ json: {{ {json} }} }}")));
    assert_eq!(ask("ready: true, checks.0.status: \"~ ^connect\"").0, "up");
    let (state, reason, detail) = ask("checks.0.status: ok");
    assert_eq!((state.as_str(), reason.as_str()), ("down", "json"));
    assert_eq!(detail, "`checks.0.status` is `connected`, expected `ok`");
}

#[test]
fn an_actuator_that_is_down_takes_its_backend_out() {
    const ACTUATOR: &str = "application/vnd.spring-boot.actuator.v3+json";
    let down = serde_json::json!({
        "status": "DOWN",
        "components": { "db": { "status": "DOWN", "details": { "error": "refused" } }, "ping": { "status": "UP" } },
    });
    let backend = saying("200 OK", ACTUATOR, &down);
    let found = first(backend.address(), &check("path: /ready"));
    assert_eq!(found, ("down".to_owned(), "document".to_owned(), "status DOWN (db: DOWN)".to_owned()));
    assert_eq!(first(backend.address(), &check("path: /ready, expect: { document: ignore }")).0, "up");
    let backend = saying("503 Service Unavailable", ACTUATOR, &down);
    assert_eq!(first(backend.address(), &check("path: /ready")).2, "status 503, expected 200-399 (db: DOWN)");
}

#[test]
fn a_degraded_backend_gets_traffic() {
    let backend = saying("200 OK", "application/json", &serde_json::json!({ "status": "warn" }));
    let gateway = Gateway::start(upstream(&[backend.address()], &check("path: /ready")));
    gateway.await_backend(backend.address(), "degraded");
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn another_address_may_be_asked_about_a_backend() {
    let (backend, agent) = (Backend::named("backend"), Backend::named("agent"));
    let fields = format!("path: /about, address: 127.0.0.1, port: {}", agent.address().port());
    let gateway = Gateway::start(upstream(&[backend.address()], &check(&fields)));
    gateway.await_backend(backend.address(), "up");
    assert_eq!(gateway.get("/").text(), "backend");
    eventually("the agent was asked", || agent.requests().iter().any(|request| request.target() == "/about"));
}
