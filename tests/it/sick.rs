//! Backends that are sick in every way, checks that are wrong, and what is remembered of both.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::support::{
    Backend, Gateway, Load, Peer, Received, Server, at_rest, completed, eventually, full_backlog, refusing, replace,
    route,
};

const ADMIN: &str = "admin: { bind: \"127.0.0.1:0\" }\n";
const HEALTH: &str = "health: { active: { path: /probe, interval: 600ms, interval_changing: 50ms, timeout: 500ms, \
                      expect: { body: fine } } }";

/// What it says to a probe and to anything else.
fn sick(probed: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Backend {
    Backend::scripted(move |peer, request: &Received| match request.target() {
        "/probe" => probed(peer),
        _ => peer.respond("200 OK", "sick"),
    })
}

fn well() -> Backend {
    Backend::scripted(|peer, request| {
        peer.respond("200 OK", if request.target() == "/probe" { "fine" } else { "well" })
    })
}

/// A gateway before a sick backend and one that is well, once the sick one is out; returns why it is.
fn out(sick: SocketAddr) -> (Gateway, Backend, String) {
    let well = well();
    let gateway = Gateway::start(route(&[sick, well.address()], HEALTH));
    gateway.await_backend(well.address(), "up");
    let event = gateway.await_backend(sick, "down");
    for _ in 0..6 {
        assert_eq!(gateway.get("/").text(), "well");
    }
    (gateway, well, format!("{}: {}", event["reason"].as_str().unwrap(), event["detail"].as_str().unwrap()))
}

#[test]
fn a_backend_that_never_answers_is_out() {
    let hung = sick(Peer::wait_for_close);
    assert_eq!(out(hung.address()).2, "timeout: no answer within 500ms");
}

#[test]
fn a_backend_that_answers_too_late_is_out() {
    let slow = sick(|peer| {
        thread::sleep(Duration::from_millis(700));
        peer.respond("200 OK", "fine")
    });
    assert_eq!(out(slow.address()).2, "timeout: no answer within 500ms");
}

#[test]
fn a_backend_that_stops_in_the_middle_of_its_answer_is_out() {
    let stuck = sick(|peer| {
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfi")?;
        peer.wait_for_close()
    });
    assert_eq!(out(stuck.address()).2, "timeout: no end of the body within 500ms");
}

#[test]
fn a_backend_with_the_wrong_status_is_out() {
    let wrong = sick(|peer| peer.respond("404 Not Found", "fine"));
    assert_eq!(out(wrong.address()).2, "status: status 404, expected 200-399");
}

#[test]
fn a_backend_with_the_wrong_body_is_out() {
    let wrong = sick(|peer| peer.respond("200 OK", "sorry"));
    assert_eq!(out(wrong.address()).2, "body: status 200, no `fine` in the body");
}

#[test]
fn a_backend_that_closes_or_resets_is_out() {
    assert_eq!(out(sick(Peer::close).address()).2, "closed: connection closed without an answer");
    assert_eq!(out(sick(Peer::reset).address()).2, "reset: connection reset");
}

#[test]
fn a_backend_that_refuses_or_does_not_accept_is_out() {
    let (refused, _socket) = refusing();
    assert_eq!(out(refused).2, "connect_refused: connect refused");
    let (silent, _sockets) = full_backlog();
    assert_eq!(out(silent).2, "connect_timeout: no connection within 500ms");
}

/// A machine that is gone without a word: its kernel is not there to close anything. (A process that is stopped looks the same to
/// whoever waits for an answer of it.)
#[test]
fn a_backend_that_vanishes_without_a_word_is_out_and_comes_back() {
    let (nginx, well) = (Server::nginx("nginx"), well());
    let health = "health: { active: { path: /health, interval: 600ms, interval_changing: 50ms, timeout: 500ms } }";
    let gateway = Gateway::start(route(&[nginx.address()], health));
    gateway.await_backend(nginx.address(), "up");
    nginx.pause();
    let down = gateway.await_backend(nginx.address(), "down");
    assert_eq!(down["reason"], "timeout", "{down}");
    nginx.go_on();
    eventually("it is back", || gateway.events(|event| event["to"] == "up" && event["from"] == "down").len() == 1);
    drop(well);
}

#[test]
fn a_backend_that_flaps_faster_than_the_thresholds_stays() {
    let turn = Arc::new(AtomicUsize::new(0));
    let flaps = sick({
        let turn = Arc::clone(&turn);
        move |peer| match turn.fetch_add(1, SeqCst) % 3 {
            0 => peer.respond("200 OK", "fine"),
            _ => peer.respond("503 Service Unavailable", "no"),
        }
    });
    let gateway = Gateway::start(route(&[flaps.address()], HEALTH));
    gateway.await_backend(flaps.address(), "up");
    eventually("it was asked often", || turn.load(SeqCst) > 20);
    let changes = gateway.events(|event| event["event"] == "backend");
    assert_eq!(changes.len(), 1, "two failures in a row are not three: {changes:?}");
}

#[test]
fn equal_checks_of_two_upstreams_are_one_probe() {
    let counted = Backend::start();
    let address = counted.address();
    let health = "health: { active: { path: /healthz, interval: 400ms, timeout: 300ms, jitter: 0% } }";
    let two = format!(
        "{ADMIN}upstreams:
  a: {{ backends: [\"{address}\"], {health} }}
  b: {{ backends: [\"{address}\"], {health} }}
routes: [{{ path: /a, to: a }}, {{ path: /b, to: b }}]
"
    );
    let gateway = Gateway::start(&two);
    eventually("both know it", || gateway.events(|event| event["to"] == "up").len() == 2);
    let asked = |upstream: &str| {
        let metrics = gateway.ask_admin("/metrics");
        let name = format!("tidegate_health_probes_total{{upstream=\"{upstream}\"");
        let of = metrics.text().lines().filter(|line| line.starts_with(&name));
        of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
    };
    eventually("a dozen probes", || counted.probes() >= 12);
    // Each hears them all; the two first ones, at the start, may have been sent by each.
    for upstream in ["a", "b"] {
        let heard = asked(upstream);
        assert!(heard + 2 >= counted.probes(), "{heard} of {}", counted.probes());
    }
    counted.feel(false);
    eventually("both know it", || gateway.events(|event| event["to"] == "down").len() == 2);
}

#[test]
fn a_check_that_an_edit_broke_takes_nobody_out_while_traffic_goes_well() {
    let both = [well(), well()];
    let addresses = both.each_ref().map(Backend::address);
    let with = |health: &str| format!("{ADMIN}{}", route(&addresses, health));
    let gateway = Gateway::start(with(HEALTH));
    for address in addresses {
        gateway.await_backend(address, "up");
    }
    let load = Load::steady(2, 200).get(gateway.address(), "/");
    load.goes_on_for(20);
    // The probes' answers hold the word on another path only.
    gateway.edit(with(&HEALTH.replace("/probe", "/porbe")));
    gateway.await_event("suspicion", |event| event["reason"] == "suspect_check");
    load.goes_on_for(200);
    let health = gateway.ask_admin("/health").json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(health["upstreams"]["/*"]["tier"], "primary", "{health}");
    gateway.edit(with(HEALTH));
    eventually("all is well", || gateway.ask_admin("/health").json()["status"] == "healthy");
    load.stop().assert_flawless();
    assert!(gateway.events(|event| event["to"] == "down").is_empty());
}

#[test]
fn an_endpoint_that_breaks_everywhere_takes_nobody_out_while_traffic_goes_well() {
    let both = [Backend::start(), Backend::start()];
    let addresses = both.each_ref().map(Backend::address);
    let health = "health: { active: { path: /healthz, interval: 600ms, interval_changing: 200ms, timeout: 500ms } }";
    let gateway = Gateway::start(format!("{ADMIN}{}", route(&addresses, health)));
    for address in addresses {
        gateway.await_backend(address, "up");
    }
    let load = Load::steady(2, 200).get(gateway.address(), "/");
    load.goes_on_for(20);
    both.iter().for_each(|backend| backend.feel(false));
    let told = gateway.await_event("suspicion", |event| event["reason"] == "suspect_check");
    assert!(told["detail"].as_str().unwrap().contains("nothing was edited"), "{told}");
    load.goes_on_for(200);
    assert_eq!(gateway.ask_admin("/health").json()["upstreams"]["/*"]["tier"], "primary");
    both.iter().for_each(|backend| backend.feel(true));
    eventually("all is well", || gateway.ask_admin("/health").json()["status"] == "healthy");
    load.stop().assert_flawless();
    assert!(gateway.events(|event| event["to"] == "down").is_empty());
}

#[test]
fn no_verdict_is_lost_over_reloads() {
    let (reloads, witness) = (crate::drills::short_or_long(100, 1_000), Backend::named("witness"));
    let (alive, (dead, _socket), sick) =
        (well(), refusing(), sick(|peer| peer.respond("500 Internal Server Error", "no")));
    let addresses = [alive.address(), dead, sick.address()];
    let config = |edit: u64| {
        let other = format!("  - {{ path: /edit-{edit}, to: \"{}\", health: none }}\n", witness.address());
        format!("{}{other}", route(&addresses, HEALTH).replace("routes: [", "routes:\n  - ").replace("}]\n", "}\n"))
    };
    let gateway = Gateway::start(config(0));
    for (address, state) in addresses.into_iter().zip(["up", "down", "down"]) {
        gateway.await_backend(address, state);
    }
    let known = at_rest("verdicts", || gateway.events(|event| event["event"] == "backend").len());
    for edit in 1..=reloads {
        replace(&gateway.config(), &completed(&config(edit)));
        // The other route would answer, too, and says something else.
        eventually("the edit is live", || gateway.get(&format!("/edit-{edit}")).text() == "witness");
        assert_eq!(gateway.get("/").text(), "well");
    }
    let changes = gateway.events(|event| event["event"] == "backend" && event["upstream"] == "/*");
    assert_eq!(changes.len(), 3, "of {known}: {changes:?}");
    assert!(sick.requests().iter().all(|request| request.target() == "/probe"));
}

#[test]
fn a_path_that_nobody_knows_is_told_at_once() {
    let [a, b] = [(); 2].map(|()| sick(|peer| peer.respond("404 Not Found", "what?")));
    let gateway = Gateway::start(route(&[a.address(), b.address()], HEALTH));
    let told = gateway.await_event("doubt", |event| event["reason"] == "probe_path");
    let words = "every backend of `/*` answers its first probe with 404: is the path right?";
    assert_eq!(told["detail"], words);
}
