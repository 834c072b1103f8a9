//! What an answer must be, and kinds of checks other than a plain request.

use ::http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use bytes::Bytes;

use super::*;
use crate::{
    config::plan::{Document, GrpcProbe, JsonPath, Pattern, Protocol, TlsProbe, UpstreamTls},
    tls::{Acceptor, Certificate, PeerName, Tls, Trust, Version},
};

fn text(text: &str) -> Wanted {
    Wanted::Text(text.to_owned())
}

fn pattern(text: &str) -> Wanted {
    Wanted::Pattern(Pattern::parse(text).unwrap())
}

fn expecting(expect: Expect) -> HttpProbe {
    HttpProbe { expect, ..HttpProbe::default() }
}

async fn answering(head: &str, body: &str) -> Stub {
    Stub::answering(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await
}

/// A backend that says this to whatever it hears first, and then listens.
async fn blurting(said: &'static [u8]) -> Stub {
    Stub::new(move |mut stream| async move {
        stream.read_buf(&mut Vec::with_capacity(1_024)).await?;
        stream.write_all(said).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    })
    .await
}

const JSON: &str = "200 OK\r\ncontent-type: application/json";

#[tokio::test]
async fn a_header_must_be_what_is_expected() {
    let stub = answering("200 OK\r\nx-ready: no\r\nx-ready: v1.2", "").await;
    let expect = |wanted| {
        let headers = vec![(HeaderName::from_static("x-ready"), wanted)];
        expecting(Expect { headers, ..Expect::default() })
    };
    assert_eq!(stub.ask(expect(text("v1.2")), AMPLE).await.kind, Kind::Pass);
    assert_eq!(stub.ask(expect(pattern(r"^v\d")), AMPLE).await.kind, Kind::Pass);
    let outcome = stub.ask(expect(text("v1")), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "header"));
    assert_eq!(outcome.detail, "header `x-ready` is `no`, expected `v1`");
    let headers = vec![(HeaderName::from_static("x-other"), pattern("."))];
    let outcome = stub.ask(expecting(Expect { headers, ..Expect::default() }), AMPLE).await;
    assert_eq!(outcome.detail, "no header `x-other`, expected `~ .`");
}

#[tokio::test]
async fn fields_of_json_must_be_what_is_expected() {
    let body = r#"{"ready":true,"n":3,"none":null,"checks":[{"db":{"status":"slow\u001b"}}]}"#;
    let stub = answering("200 OK", body).await;
    let expect = |path: &str, wanted| {
        let json = vec![(JsonPath::parse(path).unwrap(), wanted)];
        expecting(Expect { json, ..Expect::default() })
    };
    for (path, value) in
        [("ready", "true"), ("n", "3"), ("none", "null"), ("/checks/0/db", "{\"status\":\"slow\\u001b\"}")]
    {
        let outcome = stub.ask(expect(path, text(value)), AMPLE).await;
        assert_eq!(outcome.kind, Kind::Pass, "{outcome:?}");
    }
    assert_eq!(stub.ask(expect("checks.0.db.status", pattern("^slow")), AMPLE).await.kind, Kind::Pass);
    let outcome = stub.ask(expect("checks.0.db.status", text("ok")), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "json"));
    assert_eq!(outcome.detail, "`checks.0.db.status` is `slow\\u{1b}`, expected `ok`");
    let outcome = stub.ask(expect("checks.1", text("ok")), AMPLE).await;
    assert_eq!(outcome.detail, "no `checks.1` in the body, expected `ok`");
    let outcome = answering("200 OK", "ready").await.ask(expect("a", text("b")), AMPLE).await;
    assert_eq!((outcome.reason, outcome.detail.as_str()), ("json", "the body is not JSON"));
    let outcome =
        answering("200 OK", &format!("[{}1]", "1,".repeat(40_000))).await.ask(expect("0", text("1")), AMPLE).await;
    assert_eq!(outcome.detail, "the body is longer than 64 KiB, and was not read as JSON");
}

#[tokio::test]
async fn a_status_may_say_degraded() {
    let degraded_status = vec![StatusRange { first: 429, last: 429 }];
    let probe = expecting(Expect { degraded_status, ..Expect::default() });
    let outcome = answering("429 Slow down", "").await.ask(probe, AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason, outcome.status), (Kind::Degraded, "status", Some(429)));
    assert_eq!(outcome.detail, "status 429 says degraded");
}

#[tokio::test]
async fn a_document_decides_where_the_status_passes() {
    let body = r#"{"status":"degraded","checks":{"db":"degraded"}}"#;
    let stub = answering(JSON, body).await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Degraded, "document"));
    assert_eq!(outcome.detail, "status degraded (db: degraded)");
    assert_eq!(outcome.body.as_deref(), Some(body));
    let ignoring = expecting(Expect { document: Document::Ignore, ..Expect::default() });
    assert_eq!(stub.ask(ignoring, AMPLE).await.kind, Kind::Pass);
    assert_eq!(answering("200 OK\r\ncontent-type: text/html", body).await.ask(get(None), AMPLE).await.kind, Kind::Pass);
    let outcome = answering(JSON, r#"{"status":"DOWN"}"#).await.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason, outcome.detail.as_str()), (Kind::Fail, "document", "status DOWN"));
    assert_eq!(answering(JSON, r#"{"status":"who knows"}"#).await.ask(get(None), AMPLE).await.kind, Kind::Pass);
}

#[tokio::test]
async fn a_document_names_what_failed_where_the_status_says_so() {
    let body = r#"{"status":"DOWN","components":{"db":{"status":"DOWN"},"disk":{"status":"UP"}}}"#;
    let outcome = answering(&JSON.replace("200 OK", "503 No"), body).await.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "status"));
    assert_eq!(outcome.detail, "status 503, expected 200-399 (db: DOWN)");
}

#[tokio::test]
async fn a_body_is_sent_with_the_request() {
    let stub = Stub::new(|mut stream| async move {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\nping") {
            stream.read_buf(&mut read).await?;
        }
        let head = String::from_utf8_lossy(&read);
        let well = head.starts_with("POST /healthz ") && head.contains("content-length: 4\r\n");
        stream.write_all(if well { b"HTTP/1.1 204 OK\r\n\r\n" } else { b"HTTP/1.1 400 No\r\n\r\n" }).await
    })
    .await;
    let probe = HttpProbe { method: ::http::Method::POST, body: Some("ping".to_owned()), ..HttpProbe::default() };
    assert_eq!(stub.ask(probe, AMPLE).await.status, Some(204));
}

#[tokio::test]
async fn another_protocol_is_told_by_its_first_bytes() {
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    let alert = b"\x15\x03\x01\x00\x02\x02\x16";
    for (said, detail) in [
        (&settings[..], "answers in HTTP/2: write protocol: http2, or type: grpc"),
        (&alert[..], "speaks TLS: write https:// or tls: {}"),
    ] {
        let outcome = blurting(said).await.ask(get(None), AMPLE).await;
        assert_eq!((outcome.kind, outcome.reason, outcome.detail.as_str()), (Kind::Fail, "protocol", detail));
    }
    let stub = blurting(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let kind = ProbeKind::Http(get(None));
    let check = HealthCheck { protocol: Some(Protocol::Http2), timeout: AMPLE, ..HealthCheck::new(kind) };
    let outcome = conclusive(&question_of(stub.address, &check)).await;
    assert_eq!(outcome.detail, "answers in HTTP/1.1: write protocol: http1, or type: http", "{outcome:?}");
}

fn talking(send: Option<&str>, expect: Option<Wanted>) -> ProbeKind {
    ProbeKind::Tcp(TcpProbe { send: send.map(str::to_owned), expect })
}

#[tokio::test]
async fn words_in_tcp_are_sent_and_expected() {
    let stub = Stub::new(|mut stream| async move {
        let mut read = [0; 6];
        stream.read_exact(&mut read).await?;
        for byte in b"-banner\r\n+PONG\r\n" {
            stream.write_all(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        match &read {
            // As Redis, which goes on listening.
            b"PING\r\n" => std::future::pending::<io::Result<()>>().await,
            _ => Ok(()),
        }
    })
    .await;
    let ask = |send, expect, timeout| async move {
        conclusive(&question(stub.address, talking(Some(send), Some(expect)), timeout)).await
    };
    let outcome = ask("PING\r\n", text("+PONG"), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Pass, "passed"), "{outcome:?}");
    assert!(outcome.detail.starts_with("answered in ") && outcome.first_byte.is_some(), "{outcome:?}");
    assert_eq!(ask("PING\r\n", pattern(r"(?m)^\+PO"), AMPLE).await.kind, Kind::Pass);
    let outcome = ask("HELLO\n", text("+OK"), AMPLE).await;
    assert_eq!((outcome.reason, outcome.detail.as_str()), ("body", "no `+OK` in `-banner\\r\\n+PONG\\r\\n`"));
    let outcome = ask("PING\r\n", text("+OK"), SHORT).await;
    assert_eq!((outcome.reason, outcome.detail.as_str()), ("timeout", "no `+OK` within 200ms"));
}

#[tokio::test]
async fn a_silent_end_and_an_endless_answer_in_tcp_fail() {
    let stub = Stub::new(|stream| async move { drop(stream) }).await;
    let outcome = conclusive(&question(stub.address, talking(None, Some(text("a"))), AMPLE)).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "closed"), "{outcome:?}");
    let stub = Stub::new(|mut stream| async move { while stream.write_all(&[b'x'; 1000]).await.is_ok() {} }).await;
    let outcome = conclusive(&question(stub.address, talking(None, Some(text("a"))), AMPLE)).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "body"), "{outcome:?}");
}

/// A server of gRPC that gives every call this answer: a body if any, and how it ended.
async fn grpc(body: &'static [u8], media: &'static str, ended: &'static [(&'static str, &'static str)]) -> Stub {
    Stub::new(move |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.uri().authority().unwrap().as_str(), "orders.internal:8000");
            assert_eq!(request.headers()["te"], "trailers");
            let trailers: HeaderMap = ended
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            let mut head = Response::new(());
            head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
            if body.is_empty() {
                head.headers_mut().extend(trailers);
                respond.send_response(head, true).unwrap();
                continue;
            }
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::from_static(body), false).unwrap();
            stream.send_trailers(trailers).unwrap();
        }
    })
    .await
}

async fn called(stub: Stub) -> Outcome {
    let kind = ProbeKind::Grpc(GrpcProbe { service: "my.Service".to_owned() });
    conclusive(&question(stub.address, kind, AMPLE)).await
}

const GRPC: &str = "application/grpc+proto";

#[tokio::test]
async fn a_service_that_serves_passes() {
    let outcome = called(grpc(&[0, 0, 0, 0, 2, 8, 1], GRPC, &[("grpc-status", "0")]).await).await;
    assert_eq!((outcome.kind, outcome.status), (Kind::Pass, Some(200)), "{outcome:?}");
    assert!(outcome.detail.starts_with("SERVING in "), "{outcome:?}");
}

#[tokio::test]
async fn what_does_not_serve_fails_with_its_reason() {
    let done: &[_] = &[("grpc-status", "0")];
    let refused: &[_] = &[("grpc-status", "7"), ("grpc-message", "not you%21")];
    for (body, media, ended, reason, detail) in [
        (&[0, 0, 0, 0, 2, 8, 2][..], GRPC, done, "not_serving", "NOT_SERVING"),
        (&[0, 0, 0, 0, 0], GRPC, done, "not_serving", "UNKNOWN"),
        (&[0, 0, 0, 0, 9, 8, 1], GRPC, done, "bad_response", "not an answer of grpc.health.v1"),
        (&[0, 0, 0, 0, 2, 8, 1], GRPC, &[], "bad_response", "an answer without a grpc-status"),
        (&[], GRPC, refused, "grpc_status", "PERMISSION_DENIED: not you!"),
        (&[], GRPC, &[("grpc-status", "5")], "grpc_status", "NOT_FOUND: the server does not know service `my.Service`"),
        (b"<html>", "text/html", done, "bad_response", "not an answer in gRPC, but `text/html`"),
    ] {
        let outcome = called(grpc(body, media, ended).await).await;
        assert_eq!((outcome.kind, outcome.reason, outcome.detail.as_str()), (Kind::Fail, reason, detail));
    }
    let outcome = called(blurting(b"HTTP/1.1 400 Bad Request\r\n\r\n").await).await;
    assert_eq!(outcome.reason, "protocol", "{outcome:?}");
}

/// A server of TLS whose certificate is valid from and to so many days from now, and that says `hello` first.
async fn secure(from: i64, to: i64) -> Stub {
    let mut params = rcgen::CertificateParams::new(["orders.internal".to_owned()]).unwrap();
    let now = std::time::SystemTime::now();
    let in_days = |days: i64| {
        let distance = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - distance } else { now + distance + Duration::from_secs(3_600) }
    };
    (params.not_before, params.not_after) = (in_days(from).into(), in_days(to).into());
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let certificate = Certificate::read(cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let shown = Tls { certificates: vec![certificate], min_version: Version::V12, client_auth: None, http2: false };
    let acceptor = Arc::new(Acceptor::new(&shown).unwrap());
    Stub::new(move |stream| {
        let acceptor = Arc::clone(&acceptor);
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.write_all(b"hello").await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

fn unverified(kind: ProbeKind) -> HealthCheck {
    let trust = Trust { verify: false, authorities: None, identity: None, offered: vec![] };
    let own = UpstreamTls { trust, name: PeerName::parse("orders.internal") };
    HealthCheck { tls: ProbeTls::Own(Box::new(own)), timeout: AMPLE, ..HealthCheck::new(kind) }
}

#[tokio::test]
async fn a_certificate_must_be_valid_for_a_while() {
    let week = ProbeKind::Tls(TlsProbe { valid_for: Duration::from_secs(7 * 86_400) });
    for (from, to, kind, reason, detail) in [
        (-10, 90, Kind::Pass, "passed", "certificate valid for 90d, checked in "),
        (-10, 3, Kind::Degraded, "certificate", "certificate of orders.internal expires in 3d"),
        (-10, -3, Kind::Fail, "certificate", "certificate of orders.internal expired 3d ago"),
        (2, 90, Kind::Fail, "certificate", "certificate of orders.internal is not valid for another 2d"),
    ] {
        let stub = secure(from, to).await;
        let outcome = conclusive(&question_of(stub.address, &unverified(week.clone()))).await;
        assert_eq!((outcome.kind, outcome.reason), (kind, reason), "{outcome:?}");
        assert!(outcome.detail.starts_with(detail), "{outcome:?}");
        assert!(outcome.connect.unwrap() <= outcome.tls.unwrap() && outcome.tls.unwrap() <= outcome.total);
    }
}

#[tokio::test]
async fn words_in_tcp_go_through_tls_where_the_check_speaks_it() {
    let stub = secure(-10, 90).await;
    let outcome = conclusive(&question_of(stub.address, &unverified(talking(None, Some(text("hello")))))).await;
    assert_eq!(outcome.kind, Kind::Pass, "{outcome:?}");
    let stub = blurting(b"no TLS here").await;
    let outcome = conclusive(&question_of(stub.address, &unverified(TCP))).await;
    assert_eq!((outcome.reason, outcome.tls), ("tls", None), "{outcome:?}");
}
