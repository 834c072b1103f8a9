//! Failures that are retried, by which rules, and what retries may cost: `docs/retries.md`, row by row.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use http::{HeaderMap, Request};
use serde_json::Value;

use crate::support::{
    Act, Backend, Gateway, Http2Backend, Load, Peer, Received, eventually, full_backlog, ok, upstream,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";

/// One worker, one upstream of these, with these retries.
fn to(backends: &[SocketAddr], retries: &str) -> String {
    let log = "telemetry: { access_log: {} }\nadmin: { bind: \"127.0.0.1:0\" }\n";
    format!("workers: 1\n{log}defaults: {{ retries: {{ {retries} }} }}\n{}", upstream(backends, ""))
}

/// Two backends, of which the first does this, and the second answers `good`.
fn one_of_two(
    retries: &str,
    script: impl Fn(&mut Peer, &Received) -> io::Result<()> + Send + Sync + 'static,
) -> (Backend, Backend, Gateway) {
    let (bad, good) = (Backend::scripted(script), Backend::named("good"));
    let gateway = Gateway::start(to(&[bad.address(), good.address()], retries));
    (bad, good, gateway)
}

fn busy(peer: &mut Peer, _: &Received) -> io::Result<()> {
    peer.respond("503 Service Unavailable", "busy")
}

fn retries(gateway: &Gateway, result: &str) -> usize {
    gateway.metric(&format!("tidegate_upstream_retries_total{{upstream=\"up\",result=\"{result}\"}}"))
}

/// How the attempts of a line of the access log ended.
fn outcomes(line: &Value) -> Vec<(&str, &str)> {
    let text =
        |value: &'static str| move |attempt: &'_ Value| attempt[value].as_str().unwrap_or_default().to_owned().leak();
    let attempts = line["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| (&*text("outcome")(attempt), &*text("detail")(attempt))).collect()
}

#[test]
fn statuses_that_say_not_now_are_retried_elsewhere() {
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let (bad, good, gateway) = one_of_two("", move |peer, _| peer.respond(status, "not now"));
        for _ in 0..6 {
            assert_eq!(gateway.get("/").text(), "good", "{status}");
        }
        assert_eq!((bad.hits(), good.hits(), bad.connections()), (3, 6, 1), "{status}: its connection is used again");
        let log = gateway.await_access_log(6);
        let code = &status[..3];
        let tried: Vec<_> = log.iter().map(outcomes).filter(|attempts| attempts.len() > 1).collect();
        assert_eq!(tried, [[("status", code), ("ok", "")]].repeat(3).iter().map(|o| o.to_vec()).collect::<Vec<_>>());
        assert!(log.iter().all(|line| line["backend"] == good.address().to_string() && line["status"] == 200));
        assert_eq!(retries(&gateway, "sent"), 3);
        let answered = format!("{{upstream=\"up\",backend=\"{}\",code=\"{code}\"}}", bad.address());
        assert_eq!(gateway.metric(&format!("tidegate_upstream_requests_total{answered}")), 3);
    }
}

#[test]
fn other_statuses_are_answers_unless_they_are_named() {
    let broken = |peer: &mut Peer, _: &Received| peer.respond("500 Internal Server Error", "broken");
    let (bad, good, gateway) = one_of_two("", broken);
    let answers: Vec<u16> = (0..4).map(|_| gateway.get("/").status()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 500).count(), 2, "{answers:?}");
    assert_eq!((bad.hits(), good.hits()), (2, 2));
    let (_bad, good, gateway) = one_of_two("when: [429, 500-502]", broken);
    (0..4).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
    assert_eq!(good.hits(), 4);
    let (_bad, _good, gateway) = one_of_two("when: [connect, reset]", busy);
    assert!((0..4).any(|_| gateway.get("/").text() == "busy"));
}

#[test]
fn where_all_fail_the_last_answer_is_passed_on_as_it_is() {
    let answers = |name: &'static str| {
        Backend::scripted(move |peer, _| {
            peer.write(format!("HTTP/1.1 503 No\r\nx-from: {name}\r\ncontent-length: 1\r\n\r\n{name}"))
        })
    };
    let (a, b) = (answers("a"), answers("b"));
    let gateway = Gateway::start(to(&[a.address(), b.address()], ""));
    for count in 1..=4 {
        let answer = gateway.get("/");
        assert_eq!((answer.status(), answer.header("x-from")), (503, Some(answer.text())));
        assert_eq!((a.hits(), b.hits()), (count, count));
    }
    assert_eq!(retries(&gateway, "gave_up"), 4);
    let gateway = Gateway::start(to(&[a.address(), b.address()], "attempts: 3, backoff: 1ms"));
    assert_eq!(gateway.get("/").status(), 503);
    assert_eq!(a.hits() + b.hits(), 8 + 4);
}

#[test]
fn what_may_not_be_repeated_is_answered_as_the_backend_does() {
    let (bad, good, gateway) = one_of_two("", busy);
    // A POST, with a body or without, and a body that nobody asked to keep.
    for request in [POST, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", PUT] {
        let (before, well) = (bad.hits(), good.hits());
        let answers: Vec<String> = (0..4).map(|_| gateway.send(request).text().to_owned()).collect();
        assert_eq!(answers.iter().filter(|text| *text == "busy").count(), 2, "{answers:?}");
        assert_eq!((bad.hits() - before, good.hits() - well), (2, 2));
    }
}

#[test]
fn small_bodies_are_sent_again_where_the_route_says_so() {
    let chunked = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n";
    for ends in
        [busy as fn(&mut Peer, &Received) -> io::Result<()>, |peer, _| peer.read_body().and_then(|()| peer.close())]
    {
        let (bad, good, gateway) = one_of_two("body: 64KiB", ends);
        for request in [PUT, chunked, PUT, chunked] {
            assert_eq!(gateway.send(request).text(), "good");
        }
        assert!(good.requests().iter().all(|request| request.body == b"body"));
        assert_eq!((bad.hits(), good.hits()), (2, 4));
        assert!((0..2).any(|_| gateway.send(POST).text() != "good"), "not for a POST");
    }
    let (_bad, good, gateway) = one_of_two("body: 64KiB, methods: [POST]", busy);
    (0..4).for_each(|_| assert_eq!(gateway.send(POST).text(), "good"));
    assert_eq!(good.hits(), 4);
}

#[test]
fn a_body_that_is_large_or_still_comes_is_sent_once() {
    let (bad, good, gateway) = one_of_two("body: 1KiB", busy);
    let large = |method| format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n\r\n{}", "x".repeat(1025));
    let answers: Vec<String> = (0..4).map(|_| gateway.send(large("PUT")).text().to_owned()).collect();
    assert_eq!(answers.iter().filter(|text| *text == "busy").count(), 2, "{answers:?}");
    assert_eq!((bad.hits(), good.hits()), (2, 2));
    // Answered before the body was there: what comes of it later is for nobody else.
    bad.behave(|peer, _| {
        peer.write("HTTP/1.1 503 Early\r\ncontent-length: 0\r\n\r\n")?;
        peer.wait_for_close()
    });
    let well = good.hits();
    eventually("its turn", || {
        let mut client = gateway.connect();
        client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo");
        thread::sleep(Duration::from_millis(50));
        if bad.hits() == 2 {
            client.send("dy").response();
            return false;
        }
        assert_eq!(client.response().status(), 503);
        true
    });
    assert!(good.hits() <= well + 1);
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_for_another() {
    let hangs = |peer: &mut Peer, _: &Received| peer.wait_for_close();
    let (bad, good, gateway) = one_of_two("timeout: 100ms", hangs);
    for _ in 0..4 {
        let began = Instant::now();
        assert_eq!(gateway.get("/").text(), "good");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    assert_eq!((bad.hits(), good.hits()), (2, 4));
    let log = gateway.await_access_log(4);
    assert!(log.iter().any(|line| outcomes(line) == [("response_timeout", ""), ("ok", "")]), "{log:#?}");
    // Within the total, which is none of `timeout`'s business.
    let config = to(&[bad.address()], "timeout: 100ms, attempts: 10")
        .replace("defaults: {", "defaults: { timeouts: { request: 350ms },");
    let gateway = Gateway::start(config);
    let (began, before) = (Instant::now(), bad.hits());
    assert_eq!(gateway.get("/").fault(), (504, "response_timeout".to_owned()));
    assert!((300..1_500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert!((2..=4).contains(&(bad.hits() - before)), "{}", bad.hits() - before);
}

#[test]
fn a_head_that_is_late_is_retried_where_that_is_named() {
    let hangs = |peer: &mut Peer, _: &Received| peer.wait_for_close();
    let (_bad, good, gateway) = one_of_two("when: [timeout] }, timeouts: { response_header: 100ms", hangs);
    (0..4).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
    assert_eq!(good.hits(), 4);
    let (_bad, _good, gateway) = one_of_two("attempts: 1 }, timeouts: { response_header: 100ms", hangs);
    let answers: Vec<u16> = (0..4).map(|_| gateway.get("/").status()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 504).count(), 2, "{answers:?}");
}

#[test]
fn a_connection_that_takes_too_long_counts_in_the_attempt() {
    let ((full, _sockets), good) = (full_backlog(), Backend::named("good"));
    let gateway = Gateway::start(to(&[full, good.address()], "timeout: 100ms"));
    let began = Instant::now();
    (0..4).for_each(|_| assert_eq!(gateway.send(POST).text(), "good"));
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
}

/// A backend that says 503 with this `Retry-After` once, and is well from then on.
fn back_after(seconds: &'static str) -> (Backend, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let backend = Backend::scripted(move |peer, _| match counted.fetch_add(1, SeqCst) {
        0 => peer.write(format!("HTTP/1.1 503 No\r\nretry-after: {seconds}\r\ncontent-length: 2\r\n\r\nno")),
        _ => peer.respond("200 OK", "back"),
    });
    (backend, asked)
}

#[test]
fn who_says_when_to_come_back_is_asked_then_if_there_is_nobody_else() {
    let (backend, _) = back_after("1");
    let gateway = Gateway::start(to(&[backend.address()], ""));
    let began = Instant::now();
    assert_eq!(gateway.get("/").text(), "back");
    assert!((1_000..4_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    // Too long for us, for the exchange, or not in seconds: the client hears of it.
    for (says, fields) in
        [("60", ""), ("2", "attempts: 1 }, timeouts: { request: 1s"), ("Wed, 21 Oct 2026 07:28:00 GMT", "")]
    {
        let (backend, asked) = back_after(says);
        let gateway = Gateway::start(to(&[backend.address()], fields));
        let began = Instant::now();
        let answer = gateway.get("/");
        assert_eq!((answer.status(), answer.header("retry-after"), answer.text()), (503, Some(says), "no"));
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        assert_eq!(asked.load(SeqCst), 1);
    }
    // Somebody else need not wait.
    let ((backend, asked), good) = (back_after("60"), Backend::named("good"));
    let gateway = Gateway::start(to(&[backend.address(), good.address()], ""));
    (0..2).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
    assert_eq!(asked.load(SeqCst), 1);
}

#[test]
fn a_response_that_nobody_gets_costs_its_connection_where_it_does_not_end() {
    let (bad, _good, gateway) = one_of_two("", |peer, _| {
        peer.write("HTTP/1.1 503 No\r\ncontent-length: 1000000\r\n\r\nand so on")?;
        peer.wait_for_close()
    });
    (0..4).for_each(|_| assert_eq!(gateway.get("/").text(), "good"));
    eventually("it is let go", || bad.open() == 0);
    assert_eq!(bad.connections(), 2);
}

#[test]
fn a_retried_failure_counts_against_its_backend() {
    let (bad, good) = (Backend::scripted(busy), Backend::named("good"));
    let health = "health: { passive: { failures: 3, eject_for: 1m, max_ejected: 50% } }";
    let gateway = Gateway::start(format!("workers: 1\n{}", upstream(&[bad.address(), good.address()], health)));
    eventually("it is out", || {
        assert_eq!(gateway.get("/").text(), "good");
        !gateway.events(|event| event["to"] == "ejected").is_empty()
    });
    assert!((3..=5).contains(&bad.hits()), "{}", bad.hits());
}

/// A call of gRPC with a message, to two backends of which the first answers like this.
async fn call(retries: &str, answer: fn() -> Act) -> (String, usize, usize) {
    let first = Http2Backend::start(100, move |_| answer());
    let second = Http2Backend::start(100, |seen| {
        let whole = if seen.body == "message" { "0" } else { "3" };
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), whole.parse().unwrap())]);
        Act::Answer(ok("reply"), trailers)
    });
    let health = "protocol: http2, health: { passive: none }";
    let config = format!(
        "workers: 1\ndefaults: {{ retries: {{ {retries} }} }}\n{}",
        upstream(&[first.address(), second.address()], health)
    );
    let gateway = Gateway::start(config);
    let mut statuses = String::new();
    for _ in 0..2 {
        let socket = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/s/m").header("content-type", "application/grpc").header("te", "trailers");
        let (response, mut body) =
            client.ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data("message".into(), true).unwrap();
        let response = response.await.unwrap();
        let in_head = response.headers().get("grpc-status").cloned();
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data.unwrap().len()).unwrap();
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        let status = in_head.or_else(|| trailers.get("grpc-status").cloned()).unwrap();
        statuses.push_str(status.to_str().unwrap());
        statuses.push(' ');
    }
    (statuses, first.seen().len(), second.seen().len())
}

fn unavailable() -> Act {
    let mut response = ok("");
    response.headers_mut().insert("grpc-status", "14".parse().unwrap());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    Act::Answer(response, HeaderMap::new())
}

#[tokio::test]
async fn a_call_of_grpc_that_was_not_begun_is_made_again() {
    let retries = "when: [grpc_unavailable], methods: [POST], body: 64KiB";
    assert_eq!(call(retries, unavailable).await, ("0 0 ".to_owned(), 1, 2));
    // Not unless that is named, its method is, and its message was kept.
    for retries in [
        "methods: [POST], body: 64KiB",
        "when: [grpc_unavailable], body: 64KiB",
        "when: [grpc_unavailable], methods: [POST]",
    ] {
        let (statuses, first, second) = call(retries, unavailable).await;
        assert!(statuses.contains("14") && (first, second) == (1, 1), "{retries}: {statuses}");
    }
    // Nor after a message has come.
    let late = || {
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "14".parse().unwrap())]);
        Act::Answer(ok("half"), trailers)
    };
    let (statuses, first, second) = call(retries, late).await;
    assert!(statuses.contains("14") && (first, second) == (1, 1), "{statuses}");
}

#[test]
fn an_outage_is_made_no_worse_than_the_budget_says() {
    let backends = [(); 3].map(|()| Backend::scripted(busy));
    let addresses = backends.each_ref().map(Backend::address);
    let outage = |fields: &str| {
        let before: usize = backends.iter().map(Backend::hits).sum();
        let gateway = Gateway::start(to(&addresses, fields));
        let account = Load::of(500, 4).get(gateway.address(), "/").finish();
        assert_eq!(account.with(503), 500, "{account:#?}");
        (backends.iter().map(Backend::hits).sum::<usize>() - before, gateway)
    };
    let (sent, gateway) = outage("attempts: 3, backoff: 1ms, budget: 20%, min_retries: 0");
    // 500 requests, and a fifth of that.
    assert!((550..=600).contains(&sent), "{sent}");
    assert_eq!(retries(&gateway, "sent"), sent - 500);
    assert!(retries(&gateway, "budget_spent") >= 300, "{}", retries(&gateway, "budget_spent"));
    let log = gateway.await_access_log(500);
    let spent = log.iter().filter(|line| outcomes(line).contains(&("ok", "not sent again: the retry budget is spent")));
    assert_eq!(spent.count(), retries(&gateway, "budget_spent"));
    assert_eq!(outage("attempts: 3, backoff: 1ms, budget: 0%, min_retries: 7").0, 507);
    assert_eq!(outage("attempts: 3, backoff: 1ms, min_retries: 1000000").0, 2_000, "what the budget spares them");
    assert_eq!(outage("attempts: 0").0, 500);
}

/// Two backends, of which the first takes its time.
fn slow_and_quick(retries: &str) -> (Backend, Backend, Gateway) {
    one_of_two(retries, |peer, _| {
        thread::sleep(Duration::from_millis(600));
        peer.respond("200 OK", "slow")
    })
}

#[test]
fn a_second_backend_is_asked_where_the_first_takes_long() {
    let (slow, quick, gateway) = slow_and_quick("hedge_after: 50ms");
    for _ in 0..4 {
        let began = Instant::now();
        assert_eq!(gateway.get("/").text(), "good");
        assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    }
    assert_eq!((slow.hits(), quick.hits()), (2, 4));
    assert_eq!((retries(&gateway, "hedged"), retries(&gateway, "sent")), (2, 0));
    let log = gateway.await_access_log(4);
    assert_eq!(log.iter().filter(|line| outcomes(line) == [("overtaken", ""), ("ok", "")]).count(), 2, "{log:#?}");
    assert!(log.iter().all(|line| line["backend"] == quick.address().to_string()));
    let failures = format!("tidegate_backend_failures_total{{upstream=\"up\",backend=\"{}\"}}", slow.address());
    assert_eq!(gateway.metric(&failures), 0);
    assert_eq!(gateway.metric("tidegate_upstream_attempts_total{upstream=\"up\",outcome=\"overtaken\"}"), 2);
}

#[test]
fn only_what_reads_is_asked_twice_and_only_within_the_budget() {
    let (slow, quick, gateway) = slow_and_quick("hedge_after: 50ms, attempts: 0");
    let answers = [gateway.send(POST), gateway.send(POST)].map(|answer| answer.text().to_owned());
    assert!(answers.contains(&"slow".to_owned()), "{answers:?}");
    assert_eq!((slow.hits(), quick.hits()), (1, 1));
    let (_slow, _quick, gateway) = slow_and_quick("hedge_after: 50ms, budget: 0%, min_retries: 0");
    let answers = [gateway.send(GET), gateway.send(GET)].map(|answer| answer.text().to_owned());
    assert!(answers.contains(&"slow".to_owned()), "{answers:?}");
    assert_eq!(retries(&gateway, "budget_spent"), 1);
    let alone = Backend::scripted(|peer, _| {
        thread::sleep(Duration::from_millis(200));
        peer.respond("200 OK", "alone")
    });
    let gateway = Gateway::start(to(&[alone.address()], "hedge_after: 20ms"));
    assert_eq!((gateway.get("/").text(), alone.hits()), ("alone", 1));
}

#[test]
fn of_two_that_are_asked_the_one_that_does_not_fail_is_heard() {
    let (slow, bad) = (Backend::start(), Backend::scripted(busy));
    slow.behave(|peer, _| {
        thread::sleep(Duration::from_millis(200));
        peer.respond("200 OK", "slow")
    });
    let gateway = Gateway::start(to(&[slow.address(), bad.address()], "hedge_after: 50ms, attempts: 1"));
    for _ in 0..4 {
        assert_eq!(gateway.get("/").text(), "slow");
    }
    let log = gateway.await_access_log(4);
    assert!(log.iter().any(|line| outcomes(line) == [("ok", ""), ("status", "503")]), "{log:#?}");
    assert!(log.iter().all(|line| line["backend"] == slow.address().to_string()));
}
