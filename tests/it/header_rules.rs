//! What routes change of heads. What Gateway API's conformance asks of header filters is here, too.

use crate::support::{Backend, Gateway};

fn gateway(backend: &Backend, fields: &str) -> Gateway {
    let to = format!("to: \"{}\", health: none", backend.address());
    Gateway::start(format!("routes: [{{ name: orders, path: \"/u/{{id}}/*\", {to}, {fields} }}]\n"))
}

#[test]
fn fields_of_a_request_go_are_set_and_are_added() {
    let backend = Backend::start();
    let gateway = gateway(
        &backend,
        "request_headers: { set: { x-set: new }, add: { x-add: mine, x-new: only }, remove: [X-Gone, x-absent] }",
    );
    gateway.send(
        "GET /u/7/x HTTP/1.1\r\nhost: a\r\nX-Set: one\r\nx-set: two\r\nx-add: theirs\r\nx-gone: 1\r\nx-gone: 2\r\n\
         x-kept: 1\r\n\r\n",
    );
    let request = backend.request();
    let all = |name: &str| request.head.all(name).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all("x-set"), ["new"]);
    assert_eq!(all("x-add"), ["theirs", "mine"]);
    assert_eq!(all("x-new"), ["only"]);
    assert_eq!(all("x-kept"), ["1"]);
    assert!(all("x-gone").is_empty());
}

#[test]
fn values_are_made_of_captures_and_facts() {
    let backend = Backend::start();
    let gateway = gateway(
        &backend,
        "request_headers: { set: { x-who: \"{id}@{client_ip} {{{host}}} {route}\", x-id: \"{request_id}\" } },
         response_headers: { set: { x-user: \"{id}\" } }, rewrite: { strip_prefix: \"/u\" }",
    );
    let response = gateway.send("GET /u/a%0Db/x HTTP/1.1\r\nhost: Shop.test:81\r\nx-who: me\r\n\r\n");
    let request = backend.request();
    assert_eq!(request.target(), "/a%0Db/x");
    assert_eq!(request.header("x-who"), Some("a%0Db@127.0.0.1 {shop.test} orders"));
    assert_eq!(request.header("x-id"), response.header("x-request-id"));
    assert_eq!(response.header("x-user"), Some("a%0Db"), "of the path that was asked for");
}

#[test]
fn the_operators_word_on_where_a_request_came_from_is_the_last() {
    let backend = Backend::start();
    let gateway = gateway(
        &backend,
        "request_headers: { set: { x-forwarded-proto: https, x-real-ip: \"{client_ip}\" }, remove: [x-forwarded-host],
         add: { x-forwarded-for: 10.0.0.1 } }",
    );
    gateway.send("GET /u/1/x HTTP/1.1\r\nhost: a\r\nx-real-ip: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\n\r\n");
    let request = backend.request();
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.head.all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(request.head.all("x-forwarded-for"), ["127.0.0.1", "10.0.0.1"]);
    assert_eq!((request.header("x-forwarded-host"), request.header("x_real_ip")), (None, None));
}

#[test]
fn trailers_do_not_bring_back_what_a_route_has_said() {
    let backend = Backend::scripted(|peer, _| {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") || !raw.starts_with(b"0") && !raw.windows(5).any(|five| five == b"\r\n0\r\n")
        {
            raw.extend(peer.read_raw()?);
        }
        let seen = String::from_utf8_lossy(&raw).to_lowercase().contains("x-who");
        peer.write(format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n{seen:<5}"))?;
        peer.close()
    });
    let gateway = gateway(&backend, "request_headers: { set: { x-who: us } }");
    let response = gateway.send(
        "POST /u/1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-who\r\n\r\n2\r\nhi\r\n0\r\nx-who: me\r\n\
         x-sum: 1\r\n\r\n",
    );
    assert_eq!(response.text(), "false");
}

#[test]
fn fields_of_a_response_go_are_set_and_are_added() {
    let backend = Backend::scripted(|peer, _| {
        peer.read_body()?;
        peer.write(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: x\r\nx-set: 1\r\nx-set: 2\r\nx-add: theirs\r\nx-kept: 1\r\n\r\nok",
        )
    });
    let gateway = gateway(
        &backend,
        "response_headers: { set: { x-set: new, strict-transport-security: max-age=1 }, add: { x-add: ours }, remove: [server] }",
    );
    let response = gateway.get("/u/1/x");
    assert_eq!(response.head.all("x-set"), ["new"]);
    assert_eq!(response.head.all("x-add"), ["theirs", "ours"]);
    assert_eq!((response.header("server"), response.header("x-kept")), (None, Some("1")));
    assert_eq!(response.header("strict-transport-security"), Some("max-age=1"));
    backend.stop();
    let fault = gateway.get("/u/1/x");
    assert_eq!((fault.status(), fault.header("strict-transport-security")), (502, None), "{fault:?}");
}

#[test]
fn routes_start_from_the_defaults() {
    let backend = Backend::start();
    let to = format!("to: \"{}\", health: none", backend.address());
    let gateway = Gateway::start(format!(
        "defaults:
  request_headers: {{ set: {{ x-via: \"{{route}}\", x-tier: any }} }}
  response_headers: {{ set: {{ strict-transport-security: max-age=1 }}, remove: [server] }}
routes:
  - {{ name: plain, path: /a, {to} }}
  - {{ name: other, path: /b, {to}, request_headers: {{ set: {{ x-tier: gold }} }}, response_headers: {{ remove: [strict-transport-security] }} }}
  - {{ name: own, path: /c, respond: {{ body: c }} }}\n"
    ));
    let (mut client, hsts) = (gateway.connect(), "strict-transport-security");
    assert_eq!(client.get("/a").header(hsts), Some("max-age=1"));
    assert_eq!(client.get("/b").header(hsts), None);
    assert_eq!(client.get("/c").header(hsts), Some("max-age=1"));
    let seen: Vec<_> = backend
        .requests()
        .iter()
        .map(|r| [r.header("x-via"), r.header("x-tier")].map(|v| v.unwrap().to_owned()))
        .collect();
    assert_eq!(seen, [["plain", "any"], ["other", "gold"]]);
}
