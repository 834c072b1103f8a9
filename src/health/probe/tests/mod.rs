//! Probes against real sockets whose owners misbehave.

mod kinds;

use std::net::SocketAddr;

use ::http::HeaderName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::{
    base::Name,
    config::plan::{self, Expect, HttpProbe, StatusRange, TcpProbe, Wanted},
    upstream::{Backend, Slot, Verdict},
};

const AMPLE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);
const TCP: ProbeKind = ProbeKind::Tcp(TcpProbe { send: None, expect: None });

fn question(address: SocketAddr, kind: ProbeKind, timeout: Duration) -> Question {
    question_of(address, &HealthCheck { timeout, ..HealthCheck::new(kind) })
}

fn question_of(address: SocketAddr, check: &HealthCheck) -> Question {
    Question::new(&member(address.into()), &Prepared::new(check))
}

fn member(dial: Dial) -> Member {
    let backend = Arc::new(Backend::new(Slot(0), dial, Verdict::Checking, 1));
    let authority = HeaderValue::from_static("orders.internal:8000");
    Member { backend, name: Name::derived("a"), authority, weight: 1, tier: 0 }
}

fn get(body: Option<&str>) -> HttpProbe {
    let body = body.map(|text| Wanted::Text(text.to_owned()));
    let expect = Expect { body, ..Expect::default() };
    HttpProbe { path: "/healthz?deep=1".to_owned(), expect, ..HttpProbe::default() }
}

/// A backend that does the same with every connection.
struct Stub {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Stub {
    async fn new<F: Future + Send + 'static>(behave: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F::Output: Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(behave(stream));
            }
        });
        Self { address, task }
    }

    /// Reads the request, answers with these bytes, and closes.
    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                // The probe may hang up before it has read everything.
                let _ = stream.write_all(&answer).await;
            }
        })
        .await
    }

    async fn ask(&self, probe: HttpProbe, timeout: Duration) -> Outcome {
        conclusive(&question(self.address, ProbeKind::Http(probe), timeout)).await
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8(request).unwrap()
}

/// Asks again where this machine was too busy to tell.
async fn conclusive(question: &Question) -> Outcome {
    loop {
        let outcome = ask(question).await;
        if outcome.kind != Kind::Inconclusive {
            return outcome;
        }
    }
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn reset(stream: TcpStream) {
    let stream = socket2::Socket::from(stream.into_std().unwrap());
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn a_good_answer_passes_with_its_timings() {
    let stub = Stub::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason, outcome.status), (Kind::Pass, "passed", Some(200)), "{outcome:?}");
    assert!(outcome.detail.starts_with("200 in ") && outcome.detail.ends_with(" ms"), "{}", outcome.detail);
    let (connect, first_byte) = (outcome.connect.unwrap(), outcome.first_byte.unwrap());
    assert!(connect <= first_byte && first_byte <= outcome.total);
    assert_eq!(outcome.body, None);
}

#[tokio::test]
async fn the_request_is_one_get_that_names_itself_and_its_host() {
    let (sent, seen) = oneshot::channel();
    let sent = std::sync::Mutex::new(Some(sent));
    let stub = Stub::new(move |mut stream| {
        let sent = sent.lock().unwrap().take();
        async move {
            let request = read_request(&mut stream).await;
            sent.unwrap().send(request).unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
        }
    })
    .await;
    assert_eq!(stub.ask(get(None), AMPLE).await.kind, Kind::Pass);
    let request = seen.await.unwrap();
    let mut lines: Vec<&str> = request.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let agent = format!("user-agent: tidegate/{} (health check)", env!("CARGO_PKG_VERSION"));
    assert_eq!(lines, ["GET /healthz?deep=1 HTTP/1.1", "connection: close", "host: orders.internal:8000", &agent]);
}

#[tokio::test]
async fn headers_of_the_check_replace_ours() {
    let question = question(free_address().await, TCP, AMPLE);
    let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let headers = vec![header("host", "shop.example"), header("x-token", "a"), header("x-token", "b")];
    let request = http::request(&question, &HttpProbe { headers, ..get(None) }).unwrap();
    let values = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(values("host"), ["shop.example"]);
    assert_eq!(values("x-token"), ["a", "b"]);
}

#[tokio::test]
async fn a_port_or_an_address_of_the_check_replaces_the_backends() {
    let member = member(SocketAddr::from(([127, 0, 0, 1], 9001)).into());
    let check = HealthCheck::new(TCP);
    let asked = |check: &HealthCheck| Question::new(&member, &Prepared::new(check)).dial.address.to_string();
    assert_eq!(asked(&check), "127.0.0.1:9001");
    assert_eq!(asked(&HealthCheck { port: Some(9902), ..check.clone() }), "127.0.0.1:9902");
    let elsewhere = HealthCheck { address: Some([10, 0, 0, 9].into()), ..check };
    assert_eq!(asked(&elsewhere), "10.0.0.9:9001");
    assert_eq!(asked(&HealthCheck { port: Some(9902), ..elsewhere }), "10.0.0.9:9902");
}

#[test]
fn questions_are_equal_by_what_is_asked() {
    let question = |check: &HealthCheck| question_of(SocketAddr::from(([127, 0, 0, 1], 9001)), check);
    let (check, seen) = (HealthCheck::new(TCP), &mut std::collections::HashSet::new());
    assert!(seen.insert(question(&check)) && !seen.insert(question(&check)));
    assert!(seen.insert(question(&HealthCheck { port: Some(1), ..check.clone() })));
    assert!(seen.insert(question(&HealthCheck { protocol: Some(plan::Protocol::Http2), ..check })));
}

#[tokio::test]
async fn refused() {
    for kind in [TCP, ProbeKind::Http(get(None))] {
        let outcome = conclusive(&question(free_address().await, kind, AMPLE)).await;
        assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "connect_refused"));
        assert_eq!((outcome.detail.as_str(), outcome.connect), ("connect refused", None));
    }
}

#[tokio::test]
async fn a_tcp_probe_passes_on_connect() {
    let stub = Stub::new(|stream| async move { drop(stream) }).await;
    let outcome = conclusive(&question(stub.address, TCP, AMPLE)).await;
    assert_eq!((outcome.kind, outcome.reason, outcome.status), (Kind::Pass, "passed", None));
    assert!(outcome.detail.starts_with("connected in "), "{}", outcome.detail);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let stub = Stub::new(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let outcome = stub.ask(get(None), SHORT).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "timeout"));
    assert_eq!(outcome.detail, "no answer within 200ms");
    assert!(outcome.connect.is_some() && outcome.first_byte.is_none());
}

#[tokio::test]
async fn a_head_that_drips_is_a_timeout() {
    let stub = Stub::new(|mut stream| async move {
        read_request(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\nx-padding: 1234567890123456789012345678901234567890\r\n\r\n" {
            stream.write_all(&[*byte]).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::io::Result::Ok(())
    })
    .await;
    assert_eq!(stub.ask(get(None), SHORT).await.reason, "timeout");
}

#[tokio::test]
async fn a_connection_closed_without_a_byte_fails() {
    let stub = Stub::answering("").await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "closed"), "{outcome:?}");
}

#[tokio::test]
async fn half_a_head_fails() {
    let stub = Stub::answering("HTTP/1.1 200 OK\r\ncontent-le").await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "closed"), "{outcome:?}");
}

#[tokio::test]
async fn a_reset_before_the_answer_fails() {
    let stub = Stub::new(|mut stream| async move {
        read_request(&mut stream).await;
        reset(stream);
    })
    .await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "reset"), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_http_1_1_is_a_bad_response() {
    let huge_head = format!("HTTP/1.1 200 OK\r\nx-padding: {}\r\n\r\n", "x".repeat(200_000));
    let answers: [&[u8]; 5] = [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"<html>HTTP/0.9 says hello</html>\r\n\r\n",
        b"HTTP/1.1 two hundred OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        huge_head.as_bytes(),
    ];
    for answer in answers {
        let outcome = Stub::answering(answer).await.ask(get(None), AMPLE).await;
        assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "bad_response"), "{outcome:?}");
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let stub = Stub::answering("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(stub.ask(get(None), AMPLE).await.status, Some(204));
}

#[tokio::test]
async fn interim_answers_without_end_are_a_timeout() {
    let stub = Stub::new(|mut stream| async move {
        read_request(&mut stream).await;
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(stub.ask(get(None), SHORT).await.reason, "timeout");
}

#[tokio::test]
async fn a_switch_of_protocols_is_a_status_that_is_not_expected() {
    let stub = Stub::answering("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.reason, outcome.status), ("status", Some(101)), "{outcome:?}");
}

#[tokio::test]
async fn another_status_fails_and_shows_the_body() {
    let stub = Stub::answering("HTTP/1.1 503 Busy\r\ncontent-length: 18\r\n\r\nno database\n\x1b[31m!").await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason, outcome.status), (Kind::Fail, "status", Some(503)));
    assert_eq!(outcome.detail, "status 503, expected 200-399");
    assert_eq!(outcome.body.as_deref(), Some("no database\\n\\u{1b}[31m!"));
}

#[tokio::test]
async fn a_failed_status_does_not_wait_for_an_endless_body() {
    let stub = Stub::new(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n4\r\noops\r\n").await?;
        std::future::pending::<std::io::Result<()>>().await
    })
    .await;
    let outcome = stub.ask(get(None), AMPLE).await;
    assert_eq!((outcome.reason, outcome.body.as_deref()), ("status", Some("oops")));
}

#[tokio::test]
async fn a_redirect_is_judged_and_not_followed() {
    let stub = Stub::answering("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n").await;
    assert_eq!(stub.ask(get(None), AMPLE).await.kind, Kind::Pass);
    let only_200 = Expect { status: vec![StatusRange { first: 200, last: 200 }], ..Expect::default() };
    let outcome = stub.ask(HttpProbe { expect: only_200, ..get(None) }, AMPLE).await;
    assert_eq!(outcome.detail, "status 302, expected 200");
}

#[tokio::test]
async fn the_body_must_hold_the_text() {
    let stub = Stub::answering("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"status\":\"up\"}").await;
    assert_eq!(stub.ask(get(Some("\"up\"")), AMPLE).await.kind, Kind::Pass);
    let outcome = stub.ask(get(Some("ready")), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "body"));
    assert_eq!(outcome.detail, "status 200, no `ready` in the body");
    assert_eq!(outcome.body.as_deref(), Some("{\"status\":\"up\"}"));
}

#[tokio::test]
async fn only_the_first_64_kib_of_a_body_are_read() {
    let body = |before: usize| format!("HTTP/1.1 200 OK\r\n\r\n{}ready{}", "x".repeat(before), "x".repeat(3_000_000));
    let outcome = Stub::answering(body(65_536 - 5)).await.ask(get(Some("ready")), AMPLE).await;
    assert_eq!(outcome.kind, Kind::Pass, "{outcome:?}");
    let outcome = Stub::answering(body(65_536 - 4)).await.ask(get(Some("ready")), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "body"));
    assert_eq!(outcome.body.unwrap().len(), 200);
}

#[tokio::test]
async fn a_body_cut_short_fails_even_where_the_text_came() {
    let stub = Stub::answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nready").await;
    let outcome = stub.ask(get(Some("ready")), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "bad_response"), "{outcome:?}");
    assert_eq!(stub.ask(get(None), AMPLE).await.kind, Kind::Pass);
}

#[tokio::test]
async fn a_reset_within_the_body_fails() {
    let stub = Stub::new(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nready").await.unwrap();
        reset(stream);
    })
    .await;
    let outcome = stub.ask(get(Some("ready")), AMPLE).await;
    assert_eq!((outcome.kind, outcome.reason), (Kind::Fail, "reset"), "{outcome:?}");
}

#[tokio::test]
async fn a_body_that_drips_is_a_timeout() {
    let stub = Stub::new(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let outcome = stub.ask(get(Some("ready")), SHORT).await;
    assert_eq!((outcome.reason, outcome.status), ("timeout", Some(200)));
    assert_eq!(outcome.detail, "no end of the body within 200ms");
    assert!(outcome.body.unwrap().starts_with('x'));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_unseen_blames_us() {
    let late = |by| async move {
        let attempt = Attempt::begin(Duration::from_secs(2));
        let waiting = attempt.within("timeout", "answer", std::future::pending::<()>());
        let busy = async {
            tokio::task::yield_now().await;
            tokio::time::advance(by).await;
        };
        tokio::join!(waiting, busy).0.unwrap_err()
    };
    let failure = late(Duration::from_millis(3_001)).await;
    assert_eq!((failure.kind, failure.reason), (Kind::Inconclusive, "late"));
    let failure = late(Duration::from_millis(2_900)).await;
    assert_eq!((failure.kind, failure.reason), (Kind::Fail, "timeout"));
}

#[test]
fn being_out_of_descriptors_is_our_own_fault() {
    assert_eq!(not_connected(&io::Error::from_raw_os_error(EMFILE)).kind, Kind::Inconclusive);
    assert_eq!(not_connected(&io::ErrorKind::AddrNotAvailable.into()).reason, "unreachable");
    assert_eq!(not_connected(&io::ErrorKind::TimedOut.into()).reason, "connect_timeout");
    assert_eq!(not_connected(&io::ErrorKind::PermissionDenied.into()).kind, Kind::Fail);
}
