//! What each side sees of the other's headers.

use crate::support::{
    Backend, Client, Gateway,
    frames::{DATA, GET, request},
    route, upstream,
};

const TRUSTING: &str = "listeners: { main: { bind: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8] } }\n";

#[test]
fn hop_by_hop_headers_stay_on_their_hop_in_both_directions() {
    let backend = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.write(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, X-Private\r\nkeep-alive: timeout=5\r\n\
             x-private: 1\r\nproxy-authenticate: Basic\r\nx-kept: 1\r\n\r\nok",
        )
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let response = gateway.send(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, X-Secret\r\nconnection: x-other\r\nx-secret: 1\r\n\
         x-other: 1\r\nkeep-alive: 5\r\nte: trailers\r\nproxy-authorization: x\r\nproxy-connection: y\r\nx-kept: 1\r\n\
         upgrade: websocket\r\n\r\n",
    );
    assert_eq!(response.text(), "ok");
    assert_eq!(response.header("x-kept"), Some("1"));
    for name in ["x-private", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    let request = backend.request();
    assert_eq!(request.header("x-kept"), Some("1"));
    for name in ["x-secret", "x-other", "keep-alive", "te", "proxy-authorization", "proxy-connection", "upgrade"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("connection"), None);
}

#[test]
fn connection_cannot_name_away_what_routes_frames_or_authenticates() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let response = gateway.send(
        "POST / HTTP/1.1\r\nhost: a\r\nauthorization: me\r\ncontent-length: 2\r\n\
         connection: host, content-length, authorization, x-forwarded-for, x-request-id\r\n\r\nhi",
    );
    assert_eq!(response.text(), "hello");
    let request = backend.request();
    assert_eq!(request.body, b"hi");
    assert_eq!(request.header("host"), Some("a"));
    assert_eq!(request.header("authorization"), Some("me"));
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert!(request.header("x-request-id").is_some());
}

const SPOOFED: &str = "GET / HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\n\
     x-forwarded-host: evil\r\nx-forwarded-prefix: /admin\r\nx-real-ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\n\
     x-request-id: mine-1\r\n\r\n";

#[test]
fn an_untrusted_peer_cannot_say_where_a_request_came_from() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let response = gateway.send(SPOOFED);
    let request = backend.request();
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("shop.test"));
    for name in ["x-forwarded-prefix", "x-real-ip", "forwarded"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_ne!(request.header("x-request-id"), Some("mine-1"));
    assert_eq!(request.header("x-request-id"), response.header("x-request-id"));
}

#[test]
fn a_trusted_proxy_is_believed_and_appended() {
    let backend = Backend::start();
    let gateway = Gateway::start(TRUSTING.to_owned() + &route(&[backend.address()], ""));
    let response = gateway.send(SPOOFED);
    let request = backend.request();
    assert_eq!(request.header("x-forwarded-for"), Some("6.6.6.6, 127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-forwarded-host"), Some("evil"));
    assert_eq!(request.header("x-request-id"), Some("mine-1"));
    assert_eq!(response.header("x-request-id"), Some("mine-1"));
}

#[test]
fn a_request_id_that_is_not_safe_to_log_is_replaced() {
    let backend = Backend::start();
    let gateway = Gateway::start(TRUSTING.to_owned() + &route(&[backend.address()], ""));
    let response = gateway.send("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: a\" b\r\n\r\n");
    assert_eq!(response.header("x-request-id").unwrap().len(), 32);
    assert_eq!(backend.request().header("x-request-id"), response.header("x-request-id"));
}

#[test]
fn backends_see_the_host_that_the_upstream_says() {
    for (setting, seen) in
        [("preserve", Some("Shop.test:81")), ("backend", None), ("internal.test", Some("internal.test"))]
    {
        let backend = Backend::start();
        let gateway = Gateway::start(upstream(&[backend.address()], &format!("host: {setting}")));
        assert_eq!(gateway.send("GET / HTTP/1.1\r\nhost: Shop.test:81\r\n\r\n").status(), 200);
        let own = backend.address().to_string();
        assert_eq!(backend.request().header("host"), Some(seen.unwrap_or(&own)), "{setting}");
    }
}

#[test]
fn an_absolute_target_decides_the_host() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "routes: [{{ host: shop.test, path: /*, to: \"{}\", health: none }}]",
        backend.address()
    ));
    assert_eq!(gateway.send("GET http://shop.test/x?y=1 HTTP/1.1\r\nhost: other\r\n\r\n").status(), 200);
    assert_eq!(backend.request().target(), "/x?y=1");
    assert_eq!(backend.request().header("host"), Some("shop.test"));
}

#[test]
fn an_http_1_0_client_gets_a_response_that_it_can_read() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    let response = client.send("GET / HTTP/1.0\r\n\r\n").response();
    assert_eq!(response.text(), "abcde");
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(client.rest(), "");
    assert!(backend.request().head.first_line().ends_with("HTTP/1.1"));
}

/// RFC 9112, section 3.2: a request of HTTP/1.1 has a Host.
#[test]
fn who_names_no_host_means_the_backends() {
    for setting in ["preserve", "backend", "internal.test"] {
        let backend = Backend::start();
        let gateway = Gateway::start(upstream(&[backend.address()], &format!("host: {setting}")));
        assert_eq!(gateway.send("GET / HTTP/1.0\r\n\r\n").status(), 200);
        let own = backend.address().to_string();
        let seen = if setting == "internal.test" { setting } else { &own };
        assert_eq!(backend.request().header("host"), Some(seen), "{setting}");
        assert_eq!(backend.request().header("x-forwarded-host"), None, "{setting}");
    }
}

#[test]
fn an_http_1_0_client_may_keep_its_connection() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    for _ in 0..2 {
        let response = client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").response();
        assert_eq!(response.text(), "hello");
        assert_eq!(response.header("connection"), Some("keep-alive"));
    }
}

#[test]
fn responses_without_a_body_leave_the_connection_usable() {
    let backend = Backend::scripted(|peer, request| match request.target() {
        "/head" => peer.write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
        "/204" => peer.write("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => peer.write("HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: \"x\"\r\n\r\n"),
        _ => peer.respond("200 OK", "body"),
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    let mut client = gateway.connect();
    let head = client.send("HEAD /head HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(head.header("content-length"), Some("1000"));
    assert_eq!(client.send("GET /204 HTTP/1.1\r\nhost: a\r\n\r\n").head().status(), 204);
    let unchanged = client.send("GET /304 HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(unchanged.header("etag"), Some("\"x\""));
    assert_eq!(client.get("/").text(), "body");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_gateways_own_answer_to_head_has_no_body() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("routes: [{{ path: /a, to: \"{}\", health: none }}]", backend.address()));
    let mut client = gateway.connect();
    assert_eq!(client.send("HEAD /b HTTP/1.1\r\nhost: a\r\n\r\n").head().status(), 404);
    assert_eq!(client.get("/a").text(), "hello");
}

#[test]
fn who_expects_100_continue_is_told_to_go_on() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], "max_body: 10B"));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    assert_eq!(client.send("hi").response().text(), "hello");
    assert_eq!(backend.request().body, b"hi");
    assert_eq!(backend.request().header("expect"), None);
    // Who is refused is not.
    let refused = gateway
        .connect()
        .send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n")
        .head();
    assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")));
}

#[test]
fn who_expects_anything_else_is_told_so() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("telemetry: {{ access_log: {{}} }}\n{}", route(&[backend.address()], "")));
    let unknown = [
        "expect: 200-ok",
        "expect: 100-continue, x=y",
        "expect: 100-continue\r\nexpect: x",
        "expect: 100-continue;q=1",
    ];
    for expect in unknown {
        let mut client = gateway.connect();
        let response =
            client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{expect}\r\ncontent-length: 2\r\n\r\n")).response();
        assert_eq!(response.fault(), (417, "expectation_failed".to_owned()), "{expect}");
        assert_eq!(response.problem()["detail"], "The request expects something other than 100-continue.");
        assert_eq!(response.header("proxy-status"), Some("tidegate; error=http_request_error"));
        assert_eq!((response.header("connection"), client.rest().as_str()), (Some("close"), ""));
    }
    assert_eq!(backend.hits(), 0);
    assert!(gateway.await_access_log(4).iter().all(|line| line["reason"] == "expectation_failed"));
    // A list may be empty, or say the same twice.
    for expect in ["expect:", "expect: 100-Continue, 100-continue", "expect: ,"] {
        let response = gateway.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{expect}\r\ncontent-length: 2\r\n\r\nhi"));
        assert_eq!(response.text(), "hello", "{expect}");
    }
    let mut fields = GET.to_vec();
    fields.push(("expect", b"200-ok"));
    let mut client = Client::http2(gateway.address());
    let frames = client.send(request(1, &fields, true)).frames_of(1).expect("an answer");
    let problem = frames.iter().find(|frame| frame.kind == DATA).expect("a problem document");
    assert!(String::from_utf8_lossy(&problem.payload).contains("expectation_failed"));
    assert_eq!(backend.hits(), 3);
}

/// It would show its client what the gateway adds (RFC 9110, section 9.3.8).
#[test]
fn trace_goes_no_further() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    let response = client.send("TRACE / HTTP/1.1\r\nhost: a\r\ncookie: secret\r\n\r\n").response();
    assert_eq!(response.fault(), (405, "method_not_allowed".to_owned()));
    assert_eq!(response.header("allow"), Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
    assert!(!response.text().contains("secret"));
    assert_eq!((client.rest().as_str(), backend.hits()), ("", 0));
}

#[test]
fn max_forwards_are_counted_for_options_alone() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let ask = |method: &str, left: &str| {
        let request = format!("{method} / HTTP/1.1\r\nhost: a\r\nmax-forwards: {left}\r\n\r\n");
        (gateway.send(request), backend.requests().last().map(|seen| seen.head.all("max-forwards").join("|")))
    };
    for (left, passed_on) in [("1", "0"), ("010", "9"), ("99999999999", "4294967294"), ("-1", "-1"), ("x", "x")] {
        assert_eq!(ask("OPTIONS", left).1.as_deref(), Some(passed_on), "{left}");
    }
    assert_eq!(ask("GET", "0").1.as_deref(), Some("0"));
    let hits = backend.hits();
    let (response, _) = ask("OPTIONS", "0");
    assert_eq!((response.status(), response.header("allow").is_some(), backend.hits()), (204, true, hits));
}

#[test]
fn interim_responses_of_a_backend_do_not_confuse_the_final_one() {
    let backend = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")?;
        peer.respond("200 OK", "final")
    });
    let admin = "admin: { bind: \"127.0.0.1:0\" }";
    let gateway = Gateway::start(format!("{admin}\nworkers: 1\n{}", route(&[backend.address()], "")));
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "final");
    assert_eq!(client.get("/").text(), "final");
    assert_eq!(backend.connections(), 1);
    assert_eq!(gateway.metric("tidegate_upstream_interim_responses_total{upstream=\"/*\"}"), 4);
}

#[test]
fn set_cookie_lines_stay_apart_and_in_order() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\nset-cookie: a=1; path=/\r\nset-cookie: b=2, x\r\ncontent-length: 0\r\n\r\n")
    });
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let response = gateway.send("GET / HTTP/1.1\r\nhost: a\r\ncookie: x=1\r\ncookie: y=2\r\n\r\n");
    assert_eq!(response.head.all("set-cookie"), ["a=1; path=/", "b=2, x"]);
    assert_eq!(backend.request().head.all("cookie"), ["x=1", "y=2"]);
}
