//! What a client may ask of a listener, and what it hears that asks for more.

use crate::support::{
    Backend, Client, Gateway, eventually,
    frames::{ACK, CONTINUATION, DATA, END_HEADERS, GET, GOAWAY, HEADERS, PING, block, frame, request},
    route,
};

/// A listener `main` with these fields.
fn start(backend: &Backend, fields: &str) -> Gateway {
    start_with(backend, fields, "")
}

fn start_with(backend: &Backend, fields: &str, more: &str) -> Gateway {
    let listener = format!("listeners: {{ main: {{ bind: \"127.0.0.1:0\", {fields} }} }}\n{more}");
    Gateway::start(format!("{listener}{}", route(&[backend.address()], "")))
}

/// A GET with so many fields, `host` among them.
fn with_fields(count: usize) -> String {
    let fields: String = (1..count).map(|number| format!("x-{number}: 1\r\n")).collect();
    format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")
}

/// The status of the answer to an HTTP/2 request, which the gateway writes as a literal or by its number in the static table.
fn http2_status(gateway: &Gateway, bytes: &[u8]) -> Option<String> {
    let mut client = Client::http2(gateway.address());
    client.send(bytes);
    let head = client.frames_of(1)?.into_iter().find(|frame| frame.kind == HEADERS)?;
    let text = String::from_utf8_lossy(&head.payload).into_owned();
    Some(match head.payload.first() {
        Some(0x88) => "200".to_owned(),
        Some(0x8c) => "400".to_owned(),
        // A literal with the name of the table, its value compressed or not.
        _ => text,
    })
}

#[test]
fn fields_are_counted() {
    let backend = Backend::start();
    let gateway = start(&backend, "max_headers: 5");
    assert_eq!(gateway.send(with_fields(5)).status(), 200);
    assert_eq!(gateway.send(with_fields(6)).fault(), (431, "header_too_large".to_owned()));
    let gateway = start(&backend, "");
    assert_eq!(gateway.send(with_fields(100)).status(), 200);
    assert_eq!(gateway.send(with_fields(101)).status(), 431);
    let gateway = start(&backend, "max_headers: 200");
    assert_eq!(gateway.send(with_fields(200)).status(), 200);
    assert_eq!(gateway.send(with_fields(201)).status(), 431);
    assert_eq!(backend.hits(), 3);
}

#[test]
fn heads_are_measured() {
    let backend = Backend::start();
    let of = |size: usize| {
        let start = "GET / HTTP/1.1\r\nhost: a\r\nx-long: ";
        format!("{start}{}\r\n\r\n", "a".repeat(size - start.len() - 4))
    };
    for (fields, most) in
        [("max_header_size: 2KiB", 2 * 1024), ("", 64 * 1024), ("max_header_size: 256KiB", 256 * 1024)]
    {
        let gateway = start(&backend, fields);
        assert_eq!(gateway.send(of(most)).status(), 200, "{fields}");
        assert_eq!(gateway.send(of(most + 1)).fault(), (431, "header_too_large".to_owned()), "{fields}");
    }
    assert_eq!(backend.hits(), 3);
}

/// Whoever is refused hears why and is in the log, as long as the head can be read; where it cannot, the connection counts.
#[test]
fn a_head_that_is_too_large_is_counted_either_way() {
    let backend = Backend::start();
    let more = "admin: { bind: \"127.0.0.1:0\" }\ntelemetry: { access_log: {} }\n";
    let gateway = start_with(&backend, "max_header_size: 2KiB", more);
    let of = |size: usize| format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "a".repeat(size));
    let errors = "tidegate_gateway_errors_total{route=\"-\",reason=\"header_too_large\"}";
    let closed = "tidegate_connections_closed_total{listener=\"main\",reason=\"header_too_large\"}";

    let mut client = gateway.connect();
    let refused = client.send(of(3_000)).response();
    assert_eq!(refused.problem()["detail"], "The head of the request is larger than is accepted here.");
    // Its end is known, so the next request is, too.
    assert_eq!(client.get("/").status(), 200);
    eventually("it is counted", || gateway.metric(errors) == 1);
    assert_eq!(gateway.await_access_log(2)[0]["reason"], "header_too_large");

    for (number, unread) in [of(20_000), with_fields(101)].iter().enumerate() {
        let mut client = gateway.connect();
        let response = client.send(unread).response();
        assert_eq!((response.status(), response.body.len()), (431, 0));
        assert_eq!(client.rest(), "");
        eventually("it is counted", || gateway.metric(closed) == number + 1);
    }
    assert_eq!((gateway.metric(errors), backend.hits()), (1, 1));
}

/// RFC 9113, section 6.5.2: each field counts for 32 bytes more than are in it.
#[test]
fn http2_heads_are_measured_as_http2_does() {
    let backend = Backend::start();
    let gateway = start(&backend, "max_header_size: 2KiB");
    let plain: usize = GET.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let ask = |size: usize| {
        let value = vec![b'a'; size - plain - 32 - "x-long".len()];
        let mut fields = GET.to_vec();
        fields.push(("x-long", &value));
        let mut client = Client::http2(gateway.address());
        let frames = client.send(request(1, &fields, true)).frames_of(1).expect("an answer");
        let body: Vec<u8> = frames.iter().filter(|frame| frame.kind == DATA).flat_map(|f| f.payload.clone()).collect();
        String::from_utf8(body).unwrap()
    };
    assert_eq!(ask(2 * 1024), "hello");
    assert!(ask(2 * 1024 + 1).contains("\"reason\":\"header_too_large\""));
    assert_eq!(ask(20 * 1024), "", "not read to its end");
    assert_eq!(backend.hits(), 1);
}

#[test]
fn targets_are_measured() {
    let backend = Backend::start();
    let gateway = start(&backend, "max_uri: 64B");
    let get = |length: usize| gateway.get(&format!("/{}", "a".repeat(length - 1)));
    assert_eq!(get(64).status(), 200);
    assert_eq!(get(65).fault(), (414, "uri_too_long".to_owned()));
    let gateway = start(&backend, "");
    let get = |length: usize| gateway.get(&format!("/{}", "a".repeat(length - 1)));
    assert_eq!(get(16 * 1024).status(), 200);
    assert_eq!(get(16 * 1024 + 1).fault(), (414, "uri_too_long".to_owned()));
}

/// The host is no part of what is measured, wherever it stands.
#[test]
fn targets_are_measured_alike_in_all_their_forms() {
    let backend = Backend::start();
    let gateway = start(&backend, "max_uri: 64B");
    for (length, is_served) in [(64, true), (65, false)] {
        let target = format!("/{}?b", "a".repeat(length - 3));
        let status = if is_served { 200 } else { 414 };
        assert_eq!(gateway.get(&target).status(), status, "{length}");
        let absolute = format!("GET http://shop.gateway.test:8080{target} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(gateway.send(absolute).status(), status, "{length}");
        let mut fields = GET.to_vec();
        fields[3].1 = target.as_bytes();
        let answer = http2_status(&gateway, &request(1, &fields, true)).expect("an answer");
        assert_eq!(answer == "200", is_served, "{length}: {answer}");
    }
    assert_eq!(backend.hits(), 3);
}

#[test]
fn http2_has_the_same_limits() {
    let backend = Backend::start();
    let gateway = start(&backend, "max_headers: 5, max_header_size: 2KiB, max_uri: 64B");
    assert_eq!(http2_status(&gateway, &request(1, &GET, true)).as_deref(), Some("200"));
    let mut many = GET.to_vec();
    many.extend([("x-1", &b"1"[..]), ("x-2", b"1"), ("x-3", b"1"), ("x-4", b"1"), ("x-5", b"1"), ("x-6", b"1")]);
    let path = [b"/".as_slice(), &[b'a'; 70]].concat();
    let mut long = GET.to_vec();
    long[3].1 = &path;
    let value = vec![b'a'; 3000];
    let mut large = GET.to_vec();
    large.push(("x-long", &value));
    for refused in [many, long, large] {
        let status = http2_status(&gateway, &request(1, &refused, true));
        assert!(status.is_none_or(|status| status != "200"), "{refused:?}");
    }
    let split = [frame(HEADERS, 1, 1, block(&GET)), frame(CONTINUATION, END_HEADERS, 1, block(&[("x-long", &value)]))];
    assert!(http2_status(&gateway, &split.concat()).is_none_or(|status| status != "200"));
    assert_eq!(backend.hits(), 1);
}

#[test]
fn a_connection_ends_in_order_after_its_last_request() {
    let backend = Backend::start();
    let gateway = start(&backend, "max_requests: 3");
    let mut client = gateway.connect();
    for last in [None, None, Some("close")] {
        let response = client.get("/");
        assert_eq!((response.text(), response.header("connection")), ("hello", last));
    }
    assert_eq!(client.rest(), "");
    // What is answered at once says so, too.
    let mut client = gateway.connect();
    for last in [None, None, Some("close")] {
        let response = client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").response();
        assert_eq!((response.status(), response.header("connection")), (404, last));
    }

    let mut client = Client::http2(gateway.address());
    for stream in [1, 3, 5] {
        client.send(request(stream, &GET, true));
    }
    let (mut ended, mut is_told) = (0, false);
    while let Some(frame) = client.frame() {
        is_told |= frame.kind == GOAWAY;
        ended += usize::from(frame.kind < 2 && frame.flags & 1 != 0);
        if frame.kind == PING && frame.flags & ACK == 0 {
            client.send(self::frame(PING, ACK, 0, frame.payload));
        }
    }
    assert_eq!((ended, is_told), (3, true));
    assert_eq!(backend.hits(), 6);
}

#[test]
fn a_slow_head_is_told_so_and_a_silent_client_is_not() {
    let backend = Backend::start();
    let gateway = start_with(&backend, "", "defaults: { timeouts: { client_header: 300ms } }\n");
    let response = gateway.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow");
    assert_eq!((response.status(), response.header("connection")), (408, Some("close")));
    let mut second = gateway.connect();
    assert_eq!(second.get("/").status(), 200);
    assert_eq!(second.send("GET / HT").response().status(), 408);
    assert_eq!(second.rest(), "");
    assert_eq!(gateway.connect().rest(), "");
    assert_eq!(backend.hits(), 1);
}

/// Servers of Java cut `;…` off each segment, and most servers decode; a route that asks for a key must not be passed by that.
#[test]
fn no_other_spelling_of_a_path_leads_around_a_route() {
    let backend = Backend::start();
    let to = backend.address();
    let gateway = Gateway::start(format!(
        "auth: {{ ops: {{ api_key: {{ header: x-key, keys: {{ amy: \"sha256:{}\" }} }} }} }}\n\
         routes:\n  - {{ path: /@me/*, to: \"{to}\", health: none, auth: ops }}\n  - {{ path: /admin/*, to: \"{to}\", health: none, auth: ops }}\n  - {{ path: /*, to: \"{to}\", health: none }}\n",
        "0".repeat(64)
    ));
    for path in [
        "/admin;x=1/users",
        "/;/admin/users",
        "/admin;",
        "/x/../admin;x",
        "/%61dmin;a/b",
        "/;a;b/admin",
        "/admin%3Bx/y",
        "/%40me/x",
        "/%40me",
        "/x/..%3Ba/admin",
    ] {
        assert_eq!(gateway.get(path).fault(), (400, "bad_request".to_owned()), "{path}");
    }
    assert_eq!(gateway.get("/admin/users;x=1").status(), 401);
    assert_eq!(gateway.get("/@me/%40").status(), 401);
    assert_eq!(backend.hits(), 0);
    assert_eq!(gateway.get("/shop/%40me").status(), 200);
    assert_eq!(gateway.get("/shop;v=2/item;id=7").status(), 200);
    let seen: Vec<_> = backend.requests().iter().map(|request| request.head.first_line().to_owned()).collect();
    assert_eq!(seen, ["GET /shop/%40me HTTP/1.1", "GET /shop;v=2/item;id=7 HTTP/1.1"]);
}
