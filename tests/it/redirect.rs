//! Answers that a route gives itself: redirects and fixed responses. What Gateway API's conformance asks of redirects is here, too.

use crate::support::{Backend, Gateway, Launch};

fn routes(routes: &[&str]) -> Gateway {
    let routes: String = routes.iter().map(|route| format!("  - {{ {route} }}\n")).collect();
    Gateway::start(format!("routes:\n{routes}"))
}

fn location(gateway: &Gateway, host: &str, target: &str) -> (u16, String) {
    let response = gateway.send(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    (response.status(), response.header("location").unwrap_or_default().to_owned())
}

#[test]
fn a_redirect_changes_what_it_names_and_keeps_the_rest() {
    for (redirect, host, target, status, expected) in [
        ("redirect: { host: example.org }", "example.com", "/a/b?q=1", 302, "http://example.org/a/b?q=1"),
        ("redirect: { host: example.org }", "example.com:8080", "/a", 302, "http://example.org:8080/a"),
        ("redirect: { host: example.org, port: 9 }", "example.com:8080", "/a", 302, "http://example.org:9/a"),
        ("redirect: { host: example.org, port: 80 }", "example.com", "/a", 302, "http://example.org/a"),
        ("redirect: { scheme: https }", "Example.com:8080", "/a?q", 302, "https://example.com/a?q"),
        ("redirect: { scheme: https, port: 8443 }", "example.com", "/a", 302, "https://example.com:8443/a"),
        ("redirect: { scheme: https, port: 443 }", "example.com", "/a", 302, "https://example.com/a"),
        ("redirect: { scheme: http, port: 443 }", "example.com", "/a", 302, "http://example.com:443/a"),
        ("redirect: { scheme: https, status: 301 }", "[::1]:80", "/a", 301, "https://[::1]/a"),
        ("redirect: { port: 8443, status: 307 }", "example.com", "/a", 307, "http://example.com:8443/a"),
        ("redirect: { path: /x, status: 303 }", "example.com", "/a/b?q=1", 303, "/x?q=1"),
        ("redirect: { replace_prefix: /x, status: 308 }", "example.com", "/a/b/c?q=1", 308, "/x/a/b/c?q=1"),
        ("redirect: { to: /x/y }", "example.com", "/a?q=1", 302, "/x/y?q=1"),
        ("redirect: { to: \"https://shop.test\" }", "example.com", "/a?q=1", 302, "https://shop.test/?q=1"),
        (
            "redirect: { to: \"https://shop.test:8443/b?c=d\" }",
            "example.com",
            "/a?q=1",
            302,
            "https://shop.test:8443/b?c=d",
        ),
    ] {
        let gateway = routes(&[&format!("path: /*, {redirect}")]);
        assert_eq!(location(&gateway, host, target), (status, expected.to_owned()), "{redirect} {host} {target}");
    }
}

#[test]
fn a_redirected_prefix_is_that_of_the_route() {
    let gateway = routes(&[
        "path: /original-prefix/*, redirect: { replace_prefix: /replacement-prefix }",
        "path: /base/*, redirect: { host: example.org, replace_prefix: / }",
        "path: \"/u/{id}/*\", redirect: { replace_prefix: \"/users/{id}\" }",
    ]);
    for (target, expected) in [
        ("/original-prefix/lemon", "/replacement-prefix/lemon"),
        ("/original-prefix", "/replacement-prefix"),
        ("/original-prefix/", "/replacement-prefix/"),
        ("/base/x", "http://example.org/x"),
        ("/base", "http://example.org/"),
        ("/u/a%20b/c?d", "/users/a%20b/c?d"),
    ] {
        assert_eq!(location(&gateway, "a", target), (302, expected.to_owned()), "{target}");
    }
}

#[test]
fn what_a_client_says_cannot_lead_others_elsewhere() {
    let gateway = routes(&[
        "path: \"/to/{place}\", redirect: { to: \"/{place}\" }",
        "path: \"~ ^/any(?<rest>.*)\", redirect: { path: \"/{rest}\" }",
        "path: \"~ ^/dot/(?<a>[^x]*)x(?<b>.*)\", redirect: { path: \"/{a}{b}\" }",
        "path: /tls, redirect: { scheme: https }",
    ]);
    // Two slashes at the start would be another host.
    assert_eq!(location(&gateway, "a", "/any//evil.test/"), (302, "/evil.test/".to_owned()));
    assert_eq!(location(&gateway, "a", "/any/%0d%0aset-cookie:%20a"), (302, "/%0D%0Aset-cookie:%20a".to_owned()));
    assert_eq!(location(&gateway, "a", "/to/https:%40evil.test"), (302, "/https:%40evil.test".to_owned()));
    let refused = |target: &str| gateway.get(target).fault();
    assert_eq!(refused("/to/%2Fevil.test"), (400, "bad_request".to_owned()));
    assert_eq!(refused("/dot/.x./y"), (400, "bad_request".to_owned()), "no dots are made of pieces");
    let spoofed = "GET /tls HTTP/1.1\r\nhost: a\r\nx-forwarded-host: evil.test\r\nx-forwarded-proto: http\r\n\r\n";
    assert_eq!(gateway.send(spoofed).header("location"), Some("https://a/tls"));
    assert_eq!(gateway.send("GET /tls HTTP/1.0\r\n\r\n").fault(), (400, "bad_request".to_owned()), "there is no host");
}

#[test]
fn a_trusted_proxy_says_which_scheme_the_client_uses() {
    let gateway = Gateway::start(
        "listeners: { main: { bind: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8] } }
routes: [{ path: /*, redirect: { host: example.org } }]\n",
    );
    let response = gateway.send("GET /a HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: https\r\n\r\n");
    assert_eq!(response.header("location"), Some("https://example.org/a"));
}

#[test]
fn a_fixed_response_is_what_the_route_says() {
    let gateway = routes(&[
        "path: /ping, respond: { body: \"pong\\n\" }",
        "path: /gone, respond: { status: 410 }",
        "path: /json, respond: { status: 503, body: '{\"a\": 1}', content_type: application/json }",
        "path: /none, respond: { status: 204 }",
    ]);
    let mut client = gateway.connect();
    let response = client.get("/ping");
    assert_eq!((response.status(), response.text()), (200, "pong\n"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.header("content-length"), Some("5"));
    assert_eq!(response.header("x-request-id").map(str::len), Some(32));
    let response = client.get("/gone");
    assert_eq!((response.status(), response.text(), response.header("content-type")), (410, "", None));
    let response = client.get("/json");
    assert_eq!((response.status(), response.header("content-type")), (503, Some("application/json")));
    assert_eq!(response.header("proxy-status"), None, "it is no fault");
    assert_eq!(client.get("/none").status(), 204);
    let head = client.send("HEAD /ping HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!((head.status(), head.header("content-length")), (200, Some("5")));
    assert_eq!(client.get("/ping").text(), "pong\n");
}

#[test]
fn a_body_that_nobody_reads_does_not_become_the_next_request() {
    let gateway = routes(&["path: /ping, respond: { body: pong }"]);
    let small = "POST /ping HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhiGET /ping HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = gateway.connect();
    assert_eq!(client.send(small).response().text(), "pong");
    let unsent =
        "POST /ping HTTP/1.1\r\nhost: a\r\ncontent-length: 90000\r\n\r\nGET /admin HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = gateway.connect();
    let response = client.send(unsent).response();
    assert_eq!((response.text(), response.header("connection")), ("pong", Some("close")));
}

#[test]
fn limits_come_before_and_the_log_has_no_fault() {
    let config = "telemetry: { access_log: {} }
admin: { bind: \"127.0.0.1:0\" }
routes:
  - { name: moved, path: /a, redirect: { to: /b }, limit: 1/h per ip, response_headers: { set: { strict-transport-security: max-age=60 } } }
  - { name: down, path: /b, respond: { status: 503 } }\n";
    let gateway = Gateway::start(config);
    let response = gateway.get("/a");
    assert_eq!((response.status(), response.header("strict-transport-security")), (302, Some("max-age=60")));
    assert!(response.header("ratelimit").is_some(), "what the limit says");
    let refused = gateway.get("/a");
    assert_eq!(refused.fault(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.header("strict-transport-security"), None, "faults are the gateway's own words");
    assert_eq!(gateway.get("/b").status(), 503);
    let log = gateway.await_access_log(3);
    assert_eq!((&log[0]["route"], &log[0]["status"], log[0].get("reason")), (&"moved".into(), &302.into(), None));
    assert_eq!((&log[2]["route"], &log[2]["status"], log[2].get("reason")), (&"down".into(), &503.into(), None));
    assert_eq!((log[2].get("upstream"), log[2].get("backend")), (None, None));
    let count = "tidegate_http_requests_total{listener=\"main\",route=\"down\",method=\"GET\",code=\"503\"}";
    assert_eq!(gateway.metric(count), 1);
    assert_eq!(gateway.metric("tidegate_gateway_errors_total{route=\"down\",reason=\"no_healthy_backend\"}"), 0);
}

#[test]
fn a_route_may_become_another_thing_while_it_serves() {
    let backend = Backend::named("backend");
    let gateway = Gateway::start("routes: [{ name: a, path: /*, respond: { status: 503, body: soon } }]\n");
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "soon");
    gateway.edit(format!("routes: [{{ name: a, path: /*, to: \"{}\", health: none }}]\n", backend.address()));
    assert_eq!(client.get("/").text(), "backend");
    gateway.edit("routes: [{ name: a, path: /*, redirect: { to: /x } }]\n");
    assert_eq!(client.get("/").status(), 302);
}

#[test]
fn an_upgrade_is_answered_as_a_plain_request() {
    let gateway = Launch::default().start("routes: [{ path: /*, respond: { body: no } }]\n");
    let asked = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(gateway.send(asked).text(), "no");
}
