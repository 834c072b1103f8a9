//! Which route takes a request.

use crate::support::{Backend, Client, Gateway, Program, eventually, route};

fn ask(gateway: &Gateway, host: &str, path: &str) -> String {
    let response = gateway.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    match response.status() {
        200 => response.text().to_owned(),
        _ => response.problem()["reason"].as_str().unwrap().to_owned(),
    }
}

#[test]
fn the_most_specific_route_takes_a_request() {
    let [any, wildcard, exact, exact_path, below] =
        ["any", "wildcard", "exact", "exact path", "below"].map(Backend::named);
    let gateway = Gateway::start(format!(
        r#"
routes:
  - {{ host: api.example.com, path: /*, to: "{}", health: none }}
  - {{ host: "*.example.com", path: /*, to: "{}", health: none }}
  - {{ path: /*, to: "{}", health: none }}
  - {{ path: /status, to: "{}", health: none }}
  - {{ path: /api/*, to: "{}", health: none }}
"#,
        exact.address(),
        wildcard.address(),
        any.address(),
        exact_path.address(),
        below.address(),
    ));
    let ask = |host, path| ask(&gateway, host, path);
    assert_eq!(ask("api.example.com", "/"), "exact");
    assert_eq!(ask("API.example.com:8080", "/status"), "exact");
    assert_eq!(ask("www.example.com", "/api/x"), "wildcard");
    assert_eq!(ask("example.com", "/"), "any");
    assert_eq!(ask("other.test", "/status"), "exact path");
    assert_eq!(ask("other.test", "/status/"), "any");
    assert_eq!(ask("other.test", "/statuses"), "any");
    assert_eq!(ask("other.test", "/api"), "below");
    assert_eq!(ask("other.test", "/api/"), "below");
    assert_eq!(ask("other.test", "/api/orders?x=1"), "below");
    assert_eq!(ask("other.test", "/apis"), "any");
}

#[test]
fn no_route_is_a_problem_document_with_the_request_id() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("routes: [{{ path: /a, to: \"{}\", health: none }}]", backend.address()));
    let response = gateway.get("/b");
    assert_eq!(response.fault(), (404, "no_route".to_owned()));
    let problem = response.problem();
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["request_id"].as_str(), response.header("x-request-id"));
    assert_eq!(response.header("x-request-id").unwrap().len(), 32);
    assert_eq!(response.header("proxy-status"), Some("tidegate; error=destination_not_found"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(backend.hits(), 0);
}

#[test]
fn a_route_serves_only_its_listeners() {
    let [everywhere, inside] = ["everywhere", "inside"].map(Backend::named);
    let gateway = Gateway::start(format!(
        "listeners: {{ main: {{ bind: \"127.0.0.1:0\" }}, internal: {{ bind: \"127.0.0.1:0\" }} }}
routes:
  - {{ path: /*, to: \"{}\", health: none }}
  - {{ path: /inside/*, listeners: [internal], to: \"{}\", health: none }}\n",
        everywhere.address(),
        inside.address()
    ));
    assert_eq!(gateway.get("/inside/x").text(), "everywhere");
    assert_eq!(Client::connect(gateway.listener("internal")).get("/inside/x").text(), "inside");
    assert_eq!(Client::connect(gateway.listener("internal")).get("/").text(), "everywhere");
}

#[test]
fn clients_above_the_limit_of_a_listener_are_closed() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "workers: 2\nlisteners: {{ main: {{ bind: \"127.0.0.1:0\", max_connections: 1 }} }}\n{}",
        route(&[backend.address()], "")
    ));
    let mut only = gateway.connect();
    assert_eq!(only.get("/").text(), "hello");
    assert_eq!(gateway.connect().rest(), "");
    assert_eq!(only.get("/").text(), "hello");
    drop(only);
    let ask = || gateway.connect().send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").rest();
    eventually("its place is free", || ask().contains("hello"));
}

#[test]
fn a_path_is_matched_and_forwarded_in_one_form() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!("routes: [{{ path: /a/*, to: \"{}\", health: none }}]", backend.address()));
    for (written, seen) in [
        ("/a//b", "/a/b"),
        ("/x/../a/./b?q=../x", "/a/b?q=../x"),
        ("/%61/b", "/a/b"),
        ("/a/%7Eb", "/a/~b"),
        ("/a/b#/../../c", "/a/b"),
    ] {
        assert_eq!(gateway.get(written).status(), 200, "{written}");
        assert_eq!(backend.requests().last().unwrap().target(), seen, "{written}");
    }
    assert_eq!(gateway.get("/a/../../etc/passwd").fault(), (400, "bad_request".to_owned()));
    // Is it a slash or is it not? Whoever comes after us may think otherwise.
    assert_eq!(gateway.get("/a/b%2Fc").fault(), (400, "bad_request".to_owned()));
    assert_eq!(gateway.get("/a/%2e%2e/b").fault(), (404, "no_route".to_owned()));
}

/// Requests, and whose they are: by the gateway, and by what it says of them beforehand.
#[test]
fn a_request_is_whose_the_gateway_says_that_it_is() {
    let names = ["all", "users", "user", "user-posts", "user-prod", "user-v2", "versions", "inside"];
    let backends = names.map(Backend::named);
    let [all, users, user, posts, prod, v2, versions, inside] = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(format!(
        r#"
admin: {{ bind: "127.0.0.1:0" }}
routes:
  - {{ name: all, path: /*, to: "{all}", health: none }}
  - {{ name: users, path: /users/*, to: "{users}", health: none }}
  - {{ name: user, path: "/users/{{id}}", to: "{user}", health: none }}
  - {{ name: user-posts, path: "/users/{{id}}", methods: [POST], to: "{posts}", health: none }}
  - {{ name: user-prod, path: "/users/{{id}}", headers: {{ x-env: "~ ^prod" }}, to: "{prod}", health: none }}
  - {{ name: user-v2, path: "/users/{{id}}", query: {{ v: "2" }}, to: "{v2}", health: none }}
  - {{ name: versions, path: "~ /v[0-9]+/", to: "{versions}", health: none }}
  - {{ name: inside, host: "*.inside.test", path: "~ ^/v[0-9]+/x$", to: "{inside}", health: none }}
"#
    ));
    for (method, host, target, field, whose) in [
        ("GET", "a.test", "/users/7", "", "user"),
        ("GET", "a.test", "/users/7/", "", "users"),
        ("GET", "a.test", "/users", "", "users"),
        ("POST", "a.test", "/users/7?v=2", "x-env: production", "user-posts"),
        ("GET", "a.test", "/users/7?v=2", "X-Env: production", "user-prod"),
        ("GET", "a.test", "/users/7?v=2&v=3", "x-env: test", "user-v2"),
        ("GET", "a.test", "/users/7?v=3&v=2", "", "user"),
        ("GET", "a.test", "/v12/x", "", "versions"),
        ("GET", "b.inside.test", "/v12/x", "", "inside"),
        ("GET", "b.inside.test", "/v12/x/y", "", "versions"),
        ("GET", "a.test", "/x/v12/x", "", "all"),
        ("GET", "a.test", "/users/%37", "", "user"),
    ] {
        let fields = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
        let body = if method == "POST" { "content-length: 0\r\n" } else { "" };
        let response = gateway.send(format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}{body}\r\n"));
        assert_eq!(response.text(), whose, "{method} {host}{target}");
        let explain = Program::new(env!("CARGO_BIN_EXE_tidegate")).args(["explain", method]);
        let explain = explain.args([&format!("http://{host}{target}"), "--admin", &gateway.admin().to_string()]);
        let explain = if field.is_empty() { explain } else { explain.args(["-H", field]) };
        let said = explain.succeed().text();
        assert!(said.starts_with(&format!("route `{whose}`\n")), "{said}");
        assert!(said.contains("\nnow    ") && said.contains("unchecked"), "{said}");
    }
    let nobody = Program::new(env!("CARGO_BIN_EXE_tidegate")).args(["explain", "GET", "/%2f", "--admin"]);
    let nobody = nobody.args([gateway.admin().to_string()]).run();
    assert_eq!((nobody.code, nobody.text().contains("is refused: the path has an encoded slash")), (Some(1), true));
}
