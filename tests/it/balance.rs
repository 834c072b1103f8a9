//! Who gets how much.

use std::time::Duration;

use crate::support::{Authority, Backend, Gateway, Launch, Response, eventually, route, upstream};

#[test]
fn weights_are_shares_to_the_request() {
    let [heavy, one, other] = ["heavy", "one", "other"].map(Backend::named);
    let gateway = Gateway::start(format!(
        "workers: 1
upstreams:
  up:
    health: none
    backends:
      - {{ url: \"http://{}\", weight: 5 }}
      - \"{}\"
      - \"{}\"
routes: [{{ path: /*, to: up }}]
",
        heavy.address(),
        one.address(),
        other.address()
    ));
    let mut client = gateway.connect();
    for _ in 0..700 {
        client.get("/");
    }
    assert_eq!([heavy.hits(), one.hits(), other.hits()], [500, 100, 100]);
}

#[test]
fn each_worker_spreads_on_its_own_and_no_backend_is_forgotten() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(format!("workers: 4\n{}", route(&addresses, "")));
    for _ in 0..120 {
        gateway.get("/");
    }
    let hits = backends.each_ref().map(Backend::hits);
    assert_eq!(hits.iter().sum::<usize>(), 120);
    // Each of four workers may be one off.
    assert!(hits.iter().all(|hits| hits.abs_diff(40) <= 4), "{hits:?}");
}

#[test]
fn two_routes_to_one_upstream_share_its_turns() {
    let backends = ["a", "b"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(format!(
        "workers: 1\n{}",
        upstream(&addresses, "").replace("routes: [", "routes: [{ path: /other, to: up }, ")
    ));
    let mut client = gateway.connect();
    for _ in 0..10 {
        client.get("/");
        client.get("/other");
    }
    assert_eq!(backends.each_ref().map(Backend::hits), [10, 10]);
}

/// A request for `/` of which this much is said.
fn ask(gateway: &Gateway, target: &str, fields: &str) -> Response {
    gateway.send(format!("GET {target} HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\n{fields}\r\n"))
}

const USERS: [&str; 24] = [
    "amy", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ian", "jay", "kim", "leo", "mia", "ned", "oda", "pia",
    "quy", "ray", "sue", "tom", "una", "vic", "wes", "zoe",
];

/// Where each of the users is sent.
fn homes(gateway: &Gateway, ask_as: impl Fn(&Gateway, &str) -> Response) -> Vec<String> {
    USERS.iter().map(|user| ask_as(gateway, user).text().to_owned()).collect()
}

type Ask = fn(&Gateway, &str) -> Response;

#[test]
fn who_says_the_same_is_sent_to_the_same_backend() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let ways: [(&str, Ask); 4] = [
        ("hash header X-User", |gateway, user| ask(gateway, "/", &format!("x-user: {user}\r\n"))),
        ("hash cookie user", |gateway, user| ask(gateway, "/", &format!("cookie: a=1; user={user}\r\n"))),
        ("hash query user", |gateway, user| ask(gateway, &format!("/?a=1&user={user}"), "")),
        ("{ mode: hash header x-user, algorithm: maglev }", |gateway, user| {
            ask(gateway, "/", &format!("x-user: {user}\r\n"))
        }),
    ];
    for (balance, way) in ways {
        let config = format!("workers: 2\n{}", upstream(&addresses, &format!("balance: {balance}")));
        let gateway = Gateway::start(&config);
        let first = homes(&gateway, way);
        let all: std::collections::BTreeSet<&String> = first.iter().collect();
        assert_eq!(all.len(), 3, "{balance}: {first:?}");
        assert_eq!(homes(&gateway, way), first, "{balance}");
        // Another process, and another order in the file.
        let [a, b, c] = addresses;
        let other = Gateway::start(upstream(&[c, a, b], &format!("balance: {balance}")));
        assert_eq!(homes(&other, way), first, "{balance}");
    }
}

#[test]
fn who_says_nothing_is_sent_in_turn() {
    let backends = ["a", "b"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(format!("workers: 1\n{}", upstream(&addresses, "balance: hash header x-user")));
    for fields in ["", "x-user:\r\n"] {
        for _ in 0..5 {
            ask(&gateway, "/", fields);
        }
    }
    assert_eq!(backends.each_ref().map(Backend::hits), [5, 5]);
}

#[test]
fn a_client_is_known_by_its_address_behind_a_trusted_proxy_too() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let listeners = "listeners: { main: { bind: \"127.0.0.1:0\", trusted_proxies: [127.0.0.1] } }\n";
    let gateway = Gateway::start(format!("{listeners}{}", upstream(&addresses, "balance: hash ip")));
    let from = |n: usize| ask(&gateway, "/", &format!("x-forwarded-for: 10.0.0.{n}\r\n")).text().to_owned();
    let first: Vec<String> = (1..20).map(from).collect();
    assert_eq!((1..20).map(from).collect::<Vec<_>>(), first);
    assert!(backends.iter().all(|backend| backend.hits() > 0), "{first:?}");
}

#[test]
fn only_those_of_a_backend_that_goes_move_and_they_come_back_with_it() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let health =
        "{ active: { path: /healthz, interval: 100ms, interval_changing: 50ms, interval_down: 100ms, timeout: 90ms } }";
    let gateway = Gateway::start(upstream(&addresses, &format!("balance: hash header x-user, health: {health}")));
    addresses.iter().for_each(|address| drop(gateway.await_backend(*address, "up")));
    let way: Ask = |gateway, user| ask(gateway, "/", &format!("x-user: {user}\r\n"));
    let before = homes(&gateway, way);
    backends[1].feel(false);
    gateway.await_backend(addresses[1], "down");
    let after = homes(&gateway, way);
    for (before, after) in before.iter().zip(&after) {
        assert!(after != "b" && (before == "b" || before == after), "{before} {after}");
    }
    backends[1].feel(true);
    eventually("everybody is back", || homes(&gateway, way) == before);
}

#[test]
fn a_request_that_fails_goes_to_the_next_one_every_time() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(upstream(&addresses, "balance: hash header x-user, health: { passive: none }"));
    let way: Ask = |gateway, user| ask(gateway, "/", &format!("x-user: {user}\r\n"));
    let before = homes(&gateway, way);
    backends[0].stop();
    let after = homes(&gateway, way);
    assert!(before.iter().zip(&after).all(|(before, after)| after != "a" && (before == "a" || before == after)));
    assert_eq!(homes(&gateway, way), after);
}

/// A backend that answers after a while.
fn slow(name: &'static str, after: Duration) -> Backend {
    Backend::scripted(move |peer, _| {
        std::thread::sleep(after);
        peer.respond("200 OK", name)
    })
}

/// Loads a slow backend and two fast ones, and returns who was asked how often.
fn with_one_slow(balance: &str) -> [usize; 3] {
    let backends =
        [slow("slow", Duration::from_millis(60)), Backend::named("fast"), slow("so-so", Duration::from_millis(2))];
    let addresses = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(format!("workers: 2\n{}", upstream(&addresses, &format!("balance: {balance}"))));
    std::thread::scope(|threads| {
        for _ in 0..6 {
            threads.spawn(|| {
                let mut client = gateway.connect();
                (0..60).for_each(|_| assert_eq!(client.get("/").status(), 200));
            });
        }
    });
    backends.each_ref().map(Backend::hits)
}

#[test]
fn a_slow_backend_gets_fewer_where_loads_count() {
    let [slow, ..] = with_one_slow("random");
    for balance in ["least_requests", "p2c"] {
        let [less, fast, so_so] = with_one_slow(balance);
        assert_eq!(less + fast + so_so, 360);
        assert!(less * 2 < slow && less * 2 < fast, "{balance}: {less} of 360, at random {slow}");
    }
}

#[test]
fn a_bounded_backend_shares_its_favourites() {
    let hot = |bound: &str| {
        let backends = ["a", "b", "c"].map(|name| slow(name, Duration::from_millis(20)));
        let addresses = backends.each_ref().map(Backend::address);
        let balance = format!("balance: {{ mode: hash header x-user{bound} }}");
        let gateway = Gateway::start(format!("workers: 2\n{}", upstream(&addresses, &balance)));
        std::thread::scope(|threads| {
            for _ in 0..12 {
                threads.spawn(|| {
                    (0..5).for_each(|_| assert_eq!(ask(&gateway, "/", "x-user: amy\r\n").status(), 200));
                });
            }
        });
        backends.iter().map(Backend::hits).filter(|hits| *hits > 0).count()
    };
    assert_eq!(hot(""), 1);
    assert_eq!(hot(", bounded_load: 125%"), 3);
}

/// The cookie that a response sets: `NAME=VALUE` and its attributes.
fn set_cookie(response: &Response) -> (String, String) {
    let cookie = response.header("set-cookie").expect("a cookie");
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    (pair.to_owned(), attributes.to_owned())
}

fn with(gateway: &Gateway, cookies: &str) -> Response {
    ask(gateway, "/", &format!("cookie: {cookies}\r\n"))
}

#[test]
fn a_client_stays_where_its_cookie_says_and_backends_never_see_it() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let config = upstream(&addresses, "balance: { sticky: { cookie: tg, key: \"${file:key}\", ttl: 1h } }");
    let start = || Launch::default().file("key", "0123456789abcdef0123456789abcdef\n").start(&config);
    let gateway = start();
    let first = ask(&gateway, "/", "");
    let (cookie, attributes) = set_cookie(&first);
    assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
    assert_eq!(first.header("cache-control"), Some("private"));
    for gateway in [gateway, start()] {
        for _ in 0..6 {
            let again = with(&gateway, &format!("a=1; {cookie}; b=2"));
            assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
            assert_eq!(again.header("cache-control"), None);
        }
    }
    let own = backends.iter().find(|backend| backend.hits() > 6).expect("the client's own");
    assert_eq!(own.requests().last().unwrap().header("cookie"), Some("a=1; b=2"));
}

#[test]
fn a_cookie_that_is_forged_or_of_another_key_is_as_good_as_none() {
    let backends = ["a", "b"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let sticky = |fields: &str| upstream(&addresses, &format!("balance: {{ sticky: {{ cookie: tg{fields} }} }}"));
    let gateway = Gateway::start(sticky(", on_failure: fail"));
    let (good, _) = set_cookie(&ask(&gateway, "/", ""));
    let other = Launch::default().file("key", "fedcba9876543210").start(sticky(", key: \"${file:key}\""));
    let (foreign, _) = set_cookie(&ask(&other, "/", ""));
    let last = if good.ends_with('A') { 'Q' } else { 'A' };
    let forged = format!("{}{last}", &good[..good.len() - 1]);
    for cookie in ["tg=a", "tg=", &foreign, &forged] {
        let response = with(&gateway, cookie);
        assert_eq!(response.status(), 200, "{cookie}");
        set_cookie(&response);
    }
    assert_eq!(with(&gateway, &good).header("set-cookie"), None);
}

#[test]
fn a_client_whose_backend_is_down_gets_another_or_is_refused() {
    for (policy, is_refused) in [("another", false), ("fail", true)] {
        let backends = ["a", "b"].map(Backend::named);
        let addresses = backends.each_ref().map(Backend::address);
        let health = "{ active: { path: /healthz, interval: 100ms, interval_changing: 50ms, interval_down: 100ms, timeout: 90ms } }";
        let balance = format!("balance: {{ sticky: {{ cookie: tg, on_failure: {policy} }} }}, health: {health}");
        let gateway = Gateway::start(upstream(&addresses, &balance));
        addresses.iter().for_each(|address| drop(gateway.await_backend(*address, "up")));
        let first = ask(&gateway, "/", "");
        let (cookie, _) = set_cookie(&first);
        let own = if first.text() == "a" { 0 } else { 1 };
        backends[own].feel(false);
        gateway.await_backend(addresses[own], "down");
        let response = with(&gateway, &cookie);
        if is_refused {
            assert_eq!(response.fault(), (503, "no_healthy_backend".to_owned()));
            assert_eq!(ask(&gateway, "/", "").status(), 200, "others are served");
            backends[own].feel(true);
            eventually("it is back", || with(&gateway, &cookie).status() == 200);
            assert_eq!(with(&gateway, &cookie).text(), first.text());
        } else {
            assert_ne!(response.text(), first.text());
            let (moved, _) = set_cookie(&response);
            assert_ne!(moved, cookie);
            backends[own].feel(true);
            gateway.await_backend(addresses[own], "up");
            assert_eq!(with(&gateway, &moved).text(), response.text(), "it stays with the new one");
        }
    }
}

#[test]
fn a_cookie_that_is_given_over_tls_is_for_tls() {
    let backend = Backend::start();
    let authority = Authority::new("authority");
    let pair = authority.server(&["shop.test"], 1);
    let config = "listeners: { main: { bind: \"127.0.0.1:0\", tls: { certs: [{ cert: c.pem, key: c.key }] } } }\n";
    let config = format!("{config}{}", route(&[backend.address()], "balance: { sticky: { cookie: tg } }"));
    let gateway = Launch::default().file("c.pem", &pair.cert).file("c.key", &pair.key).start(config);
    let mut client = authority.trusting().connect(gateway.address(), "shop.test").unwrap();
    let response = client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").response();
    assert_eq!(set_cookie(&response).1, "Path=/; HttpOnly; Secure; SameSite=Lax");
}

#[test]
fn a_mode_may_change_while_requests_come() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let config = |balance: &str| upstream(&addresses, &format!("balance: {balance}"));
    let gateway = Gateway::start(config("round_robin"));
    for balance in
        ["hash header x-user", "{ mode: hash header x-user, bounded_load: 150% }", "p2c", "least_requests", "random"]
    {
        gateway.edit(config(balance));
        USERS.iter().for_each(|user| assert_eq!(ask(&gateway, "/", &format!("x-user: {user}\r\n")).status(), 200));
    }
}
