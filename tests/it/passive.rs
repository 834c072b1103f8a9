//! Live traffic takes backends out, and says why.

use std::time::{Duration, Instant};

use crate::support::{Backend, Gateway, Peer, Received, Server, eventually, route};

const GET: &str = "GET / HTTP/1.1\r\nhost: gateway.test\r\n\r\n";

fn passive(fields: &str) -> String {
    format!("health: {{ passive: {{ failures: 3, eject_for: 1s, {fields} }} }}")
}

/// Two backends, of which the first does what the script says, behind one worker that does not retry.
fn one_of_two(
    fields: &str,
    script: impl Fn(&mut Peer, &Received) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Backend, Backend, Gateway) {
    let (bad, good) = (Backend::scripted(script), Backend::named("good"));
    let fields = format!("{fields}, retries: {{ attempts: 0 }}");
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[bad.address(), good.address()], &fields)));
    (bad, good, gateway)
}

/// Asks until the first is out, and then some more; returns the reason.
fn until_ejected(bad: &Backend, gateway: &Gateway) -> String {
    let is_out = |event: &serde_json::Value| event["to"] == "ejected";
    eventually("it is out", || {
        drop(gateway.connect().send(GET).response_if_any());
        !gateway.events(is_out).is_empty()
    });
    let hits = bad.hits();
    for _ in 0..6 {
        assert_eq!(gateway.get("/").text(), "good");
    }
    assert_eq!(bad.hits(), hits);
    let event = gateway.events(is_out).remove(0);
    assert_eq!((&event["source"], &event["backend"]), (&"live_traffic".into(), &bad.address().to_string().into()));
    format!("{}: {}", event["reason"].as_str().unwrap(), event["detail"].as_str().unwrap())
}

#[test]
fn statuses_that_are_failures_eject_and_the_time_brings_back() {
    let (bad, _good, gateway) = one_of_two(&passive(""), |peer, _| peer.respond("503 Service Unavailable", "no"));
    let why = until_ejected(&bad, &gateway);
    assert!(why.starts_with("failures: 3 failed requests in a row (503), for 1."), "{why}");
    bad.behave(|peer, _| peer.respond("200 OK", "well"));
    gateway.await_event("it is back", |event| event["from"] == "ejected" && event["to"] == "unchecked");
    eventually("it gets traffic", || gateway.get("/").text() == "well");
}

#[test]
fn connections_that_end_without_an_answer_eject() {
    let (bad, _good, gateway) = one_of_two(&passive(""), |peer, _| peer.close());
    let why = until_ejected(&bad, &gateway);
    assert!(why.starts_with("failures: 3 failed requests in a row (reset before headers)"), "{why}");
}

#[test]
fn a_backend_that_refuses_connections_is_out() {
    let (bad, _good, gateway) = one_of_two(&passive(""), |peer, _| peer.respond("200 OK", "well"));
    bad.stop();
    let why = until_ejected(&bad, &gateway);
    assert!(why.starts_with("failures: 3 failed requests in a row (connect refused)"), "{why}");
}

#[test]
fn responses_that_are_cut_eject() {
    let (bad, _good, gateway) = one_of_two(&passive(""), |peer, _| {
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ntoo short")?;
        peer.close()
    });
    let why = until_ejected(&bad, &gateway);
    assert!(why.starts_with("failures: 3 failed requests in a row (response cut)"), "{why}");
}

#[test]
fn heads_that_take_too_long_eject() {
    let (bad, _good, gateway) = one_of_two(&passive("slower_than: 20ms"), |peer, _| {
        std::thread::sleep(Duration::from_millis(60));
        peer.respond("200 OK", "slow")
    });
    let why = until_ejected(&bad, &gateway);
    assert!(why.starts_with("failures: 3 failed requests in a row (slow)"), "{why}");
}

#[test]
fn too_large_a_part_of_failures_ejects() {
    let fields = "status: [500-599], failure_ratio: 30%, window: 5s, min_requests: 10";
    let (bad, _good, gateway) =
        one_of_two(&passive(fields).replace("failures: 3", "failures: 1000"), |peer, request| {
            match request.target().contains("odd") {
                true => peer.respond("500 Internal Server Error", "no"),
                false => peer.respond("200 OK", "well"),
            }
        });
    let mut turn = 0;
    eventually("it is out", || {
        turn += 1;
        // Two turns of the round, one for each: the first backend fails every second request of its own.
        drop(gateway.get(if turn / 2 % 2 == 0 { "/odd" } else { "/even" }));
        !gateway.events(|event| event["reason"] == "failure_ratio").is_empty()
    });
    assert!(bad.hits() >= 10);
}

#[test]
fn the_last_one_is_never_ejected() {
    let bad = Backend::scripted(|peer, _| peer.respond("503 Service Unavailable", "no"));
    let fields = format!("{}, retries: {{ attempts: 0 }}", passive(""));
    let gateway = Gateway::start(route(&[bad.address()], &fields));
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status(), 503);
    }
    assert_eq!(bad.hits(), 20);
    assert!(gateway.events(|event| event["to"] == "ejected").is_empty());
}

#[test]
fn a_backend_that_says_when_to_come_back_is_left_alone_until_then() {
    let (bad, _good, gateway) = one_of_two(&passive(""), |peer, _| {
        peer.write(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 240\r\ncontent-length: 0\r\n\r\n")
    });
    let why = until_ejected(&bad, &gateway);
    assert!(why.ends_with(", for 4m00s"), "{why}");
}

#[test]
fn a_backend_asks_to_be_drained_and_clients_do_not_hear_of_it() {
    let (bad, good, gateway) = one_of_two(&passive("drain_header: x-drain"), |peer, _| {
        peer.write(b"HTTP/1.1 200 OK\r\nx-drain: 2s\r\ncontent-length: 3\r\n\r\nbye")
    });
    let mut answers = [gateway.get("/"), gateway.get("/")];
    answers.sort_by_key(|answer| answer.text().to_owned());
    assert_eq!((answers[0].text(), answers[0].header("x-drain")), ("bye", None));
    let drained = gateway.await_backend(bad.address(), "draining");
    assert_eq!((&drained["source"], &drained["reason"]), (&"backend".into(), &"drained".into()));
    let hits = bad.hits();
    for _ in 0..6 {
        assert_eq!(gateway.get("/").text(), "good");
    }
    assert_eq!(bad.hits(), hits);
    bad.behave(|peer, _| peer.respond("200 OK", "again"));
    gateway.await_event("it is back", |event| event["reason"] == "undrained");
    eventually("it gets traffic", || gateway.get("/").text() == "again");
    drop(good);
}

/// A backend that asks with every response would have the slice of its upstream swapped, and an event written, for each of them.
#[test]
fn a_drain_that_a_backend_asks_for_lasts_a_second_at_least() {
    let (_bad, _good, gateway) = one_of_two(&passive("drain_header: x-drain"), |peer, _| {
        peer.write(b"HTTP/1.1 200 OK\r\nx-drain: 1ms\r\ncontent-length: 3\r\n\r\nbye")
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        drop(gateway.get("/"));
    }
    gateway.await_event("it is drained", |event| event["to"] == "draining");
    let drains = gateway.events(|event| event["to"] == "draining").len();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(drains <= seconds + 1, "{drains} in {seconds} s");
}

#[test]
fn without_passive_health_traffic_says_nothing() {
    let (bad, _good, gateway) =
        one_of_two("health: { passive: none }", |peer, _| peer.respond("503 Service Unavailable", "no"));
    for _ in 0..40 {
        drop(gateway.get("/"));
    }
    assert_eq!(bad.hits(), 20);
    assert!(gateway.events(|event| event["to"] == "ejected").is_empty());
}

#[test]
fn a_request_that_fails_has_the_backend_probed_at_once() {
    let (bad, good) = (Backend::named("a"), Backend::named("b"));
    let health = "health: { active: { path: /healthz, interval: 1h, interval_changing: 50ms, timeout: 10s } }";
    let gateway = Gateway::start(route(&[bad.address(), good.address()], health));
    gateway.await_backend(bad.address(), "up");
    bad.feel(false);
    bad.behave(|peer, _| peer.respond("503 Service Unavailable", "no"));
    eventually("a request reaches it", || {
        drop(gateway.get("/"));
        bad.hits() > 0
    });
    let down = gateway.await_backend(bad.address(), "down");
    assert_eq!((&down["reason"], &down["source"]), (&"status".into(), &"active".into()));
}

/// Of connections that are kept, too: their other end is gone without a word.
#[test]
fn a_backend_that_vanishes_with_open_connections_is_out() {
    let (nginx, good) = (Server::nginx("nginx"), Backend::named("good"));
    let fields = format!("{}, timeouts: {{ response_header: 200ms }}, retries: {{ attempts: 0 }}", passive(""));
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[nginx.address(), good.address()], &fields)));
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status(), 200);
    }
    nginx.pause();
    eventually("it is out", || {
        drop(gateway.get("/"));
        !gateway.events(|event| event["to"] == "ejected").is_empty()
    });
    let event = gateway.events(|event| event["to"] == "ejected").remove(0);
    assert!(event["detail"].as_str().unwrap().contains("in a row (response timeout)"), "{event}");
    nginx.go_on();
    eventually("it gets traffic", || gateway.get("/").text() != "good");
}
