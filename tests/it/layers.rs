//! Who may come in, and how often.

use std::{io::Read, sync::OnceLock};

use crate::support::{Backend, Gateway, route};

/// The SHA-256 of `demo`.
const DEMO: &str = "sha256:2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea";

/// bcrypt of `secret`, at the lowest cost there is.
fn quick_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| bcrypt::hash("secret", 4).unwrap())
}

const AMY: &str = "Basic YW15OnNlY3JldA==";
const NOT_AMY: &str = "Basic YW15Ondyb25n";

#[test]
fn who_comes_too_often_is_told_when_to_come_again() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "limits: {{ calls: {{ rate: 1/h, burst: 2 }} }}\n{}",
        route(&[backend.address()], "limit: calls")
    ));
    let first = gateway.get("/");
    assert_eq!(first.status(), 200);
    assert_eq!(first.header("ratelimit"), Some("\"calls\";r=1;t=3600"));
    assert_eq!(first.header("ratelimit-policy"), Some("\"calls\";q=1;w=3600;tidegate-burst=2"));
    assert_eq!(gateway.get("/").status(), 200);
    let refused = gateway.get("/");
    assert_eq!(refused.fault(), (429, "rate_limited".to_owned()));
    assert!((3500..=3600).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"calls\";r=0;t=3"), "{refused:?}");
    assert_eq!(backend.hits(), 2);
}

#[test]
fn a_limit_counts_each_client_that_a_trusted_proxy_names() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "listeners: {{ main: {{ bind: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8] }} }}\n{}",
        route(&[backend.address()], "limit: 1/h per ip")
    ));
    let ask = |ip| gateway.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {ip}\r\n\r\n")).status();
    assert_eq!([ask("1.1.1.1"), ask("1.1.1.1"), ask("2.2.2.2"), ask("9.9.9.9, 1.1.1.1")], [200, 429, 200, 429]);
}

#[test]
fn an_api_key_lets_in_and_goes_no_further() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "auth: {{ partners: {{ api_key: {{ header: x-api-key, keys: {{ acme: {DEMO} }} }} }} }}
telemetry: {{ access_log: {{}} }}\n{}",
        route(&[backend.address()], "auth: partners")
    ));
    let none = gateway.get("/");
    assert_eq!(none.fault(), (401, "unauthorized".to_owned()));
    assert_eq!(none.header("www-authenticate"), Some("ApiKey realm=\"tidegate\", header=\"x-api-key\""));
    assert_eq!(gateway.send("GET / HTTP/1.1\r\nhost: a\r\nx-api-key: wrong\r\n\r\n").status(), 401);
    assert_eq!(backend.hits(), 0);
    assert_eq!(gateway.send("GET / HTTP/1.1\r\nhost: a\r\nx-api-key: demo\r\nx-kept: 1\r\n\r\n").text(), "hello");
    assert_eq!(backend.request().header("x-api-key"), None);
    assert_eq!(backend.request().header("x-kept"), Some("1"));
    let log = gateway.await_access_log(3);
    assert_eq!(log[2]["identity"], "acme");
    assert!(log[0].get("identity").is_none());
}

#[test]
fn an_api_key_in_the_query_is_not_forwarded_and_not_logged() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "auth: {{ partners: {{ api_key: {{ query: key, keys: {{ acme: {DEMO} }} }} }} }}
telemetry: {{ access_log: {{}} }}\n{}",
        route(&[backend.address()], "auth: partners")
    ));
    assert_eq!(gateway.get("/a?x=1&key=demo&y=2").text(), "hello");
    assert_eq!(backend.request().target(), "/a?x=1&y=2");
    assert_eq!(gateway.get("/a?key=sesame").status(), 401);
    assert_eq!(gateway.get("/a?x=1").status(), 401);
    let log = gateway.await_access_log(3);
    assert_eq!(log[0]["query"], "x=1&y=2");
    let all = format!("{log:?}");
    assert!(!all.contains("demo") && !all.contains("sesame"), "{all}");
}

fn basic(hash: &str) -> String {
    format!("auth: {{ ops: {{ basic: {{ realm: Ops, users: {{ amy: \"{hash}\" }} }} }} }}\n")
}

#[test]
fn a_password_lets_in_and_goes_no_further() {
    let backend = Backend::start();
    let gateway = Gateway::start(basic(quick_hash()) + &route(&[backend.address()], "auth: ops"));
    let none = gateway.get("/");
    assert_eq!(none.status(), 401);
    assert_eq!(none.header("www-authenticate"), Some("Basic realm=\"Ops\", charset=\"UTF-8\""));
    let ask = |credentials| gateway.send(format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: {credentials}\r\n\r\n"));
    assert_eq!(ask(NOT_AMY).status(), 401);
    assert_eq!(ask("Basic ????").status(), 401);
    assert_eq!(ask("Bearer YW15OnNlY3JldA==").status(), 401);
    assert_eq!(backend.hits(), 0);
    for _ in 0..3 {
        assert_eq!(ask(AMY).text(), "hello");
    }
    assert!(backend.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_password_that_takes_long_to_check_holds_up_nobody_else() {
    let backend = Backend::start();
    let hash = bcrypt::hash("secret", 13).unwrap();
    let gateway = Gateway::start(format!(
        "workers: 1\n{}routes:
  - {{ path: /*, to: \"{1}\", health: none }}
  - {{ path: /closed, to: \"{1}\", health: none, auth: ops }}\n",
        basic(&hash),
        backend.address()
    ));
    let mut slow = gateway.connect();
    slow.send(format!("GET /closed HTTP/1.1\r\nhost: a\r\nauthorization: {NOT_AMY}\r\n\r\n"));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    slow.stream().set_nonblocking(true).unwrap();
    let early = slow.stream().read(&mut [0]);
    assert!(early.is_err(), "the password was checked before three requests were served: nothing was shown");
    slow.stream().set_nonblocking(false).unwrap();
    assert_eq!(slow.response().status(), 401);
}

#[test]
fn any_of_a_routes_auths_lets_in_and_every_one_is_named_to_who_has_none() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "auth:
  ops: {{ basic: {{ users: {{ amy: \"{}\" }} }} }}
  partners: {{ api_key: {{ header: x-api-key, keys: {{ acme: {DEMO} }} }} }}\n{}",
        quick_hash(),
        route(&[backend.address()], "auth: [ops, partners]")
    ));
    assert_eq!(gateway.get("/").head.all("www-authenticate").len(), 2);
    let both = format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: {NOT_AMY}\r\nx-api-key: demo\r\n\r\n");
    assert_eq!(gateway.send(both).text(), "hello");
    let request = backend.request();
    assert_eq!((request.header("authorization"), request.header("x-api-key")), (None, None));
    assert_eq!(gateway.send(format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: {AMY}\r\n\r\n")).text(), "hello");
}
