//! The path that backends see. What Gateway API's conformance asks of rewrites is here, too.

use crate::support::{Backend, Gateway, Response};

/// A gateway with these routes, all to one backend, and what that sees of a target.
struct Rewriting {
    backend: Backend,
    gateway: Gateway,
}

impl Rewriting {
    fn new(routes: &[&str]) -> Self {
        let backend = Backend::start();
        let to = format!("to: \"{}\", health: none", backend.address());
        let routes: String = routes.iter().map(|route| format!("  - {{ {route}, {to} }}\n")).collect();
        let gateway = Gateway::start(format!("telemetry: {{ access_log: {{}} }}\nroutes:\n{routes}"));
        Self { backend, gateway }
    }

    fn ask(&self, target: &str) -> Response {
        self.gateway.send(format!("GET {target} HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-prefix: /evil\r\n\r\n"))
    }

    #[track_caller]
    fn seen(&self, target: &str) -> String {
        assert_eq!(self.ask(target).status(), 200, "{target}");
        self.backend.requests().last().unwrap().target().to_owned()
    }
}

#[test]
fn a_prefix_is_replaced_or_taken_off() {
    let rewriting = Rewriting::new(&[
        "path: /prefix/one/*, rewrite: { replace_prefix: /one }",
        "path: /slash/*, rewrite: { replace_prefix: /one/ }",
        "path: /base/*, rewrite: { replace_prefix: / }",
        "path: /orders/*, rewrite: { strip_prefix: /orders }",
        "path: /exact, rewrite: { strip_prefix: /exact }",
        "path: \"/shops/{shop}/*\", rewrite: { replace_prefix: \"/s-{shop}\" }",
    ]);
    for (target, seen) in [
        ("/prefix/one/two", "/one/two"),
        ("/prefix/one", "/one"),
        ("/prefix/one/", "/one/"),
        ("/prefix/one/two?a=/prefix/one", "/one/two?a=/prefix/one"),
        ("/slash/two", "/one/two"),
        ("/base/two", "/two"),
        ("/base", "/"),
        ("/base/", "/"),
        ("/orders/7", "/7"),
        ("/orders", "/"),
        ("/orders//7/./", "/7/"),
        ("/orders?x=1", "/?x=1"),
        ("/exact", "/"),
        ("/shops/a%2Cb/x", "/s-a%2Cb/x"),
    ] {
        assert_eq!(rewriting.seen(target), seen, "{target}");
    }
}

#[test]
fn a_path_is_made_of_captures_and_groups() {
    let rewriting = Rewriting::new(&[
        "path: \"/u/{id}/orders/{order}\", rewrite: { path: \"/orders/{order}/of/{id}\" }",
        "path: \"~ ^/v(?<version>[0-9]+)/(?<rest>.*)\", rewrite: { path: \"/{rest}/{version}\" }",
        "path: /full/*, rewrite: { path: /one }",
        "path: /api/*, rewrite: { regex: { match: \"/v(?<v>[0-9]+)\", to: \"/version-{v}\" } }",
    ]);
    for (target, seen) in [
        ("/u/amy/orders/7?q", "/orders/7/of/amy?q"),
        ("/u/a%20b/orders/7;x=1", "/orders/7;x=1/of/a%20b"),
        ("/v2/a/b", "/a/b/2"),
        ("/full/path/of/any/length", "/one"),
        ("/api/v1/x/v2", "/api/version-1/x/version-2"),
        ("/api/x", "/api/x"),
    ] {
        assert_eq!(rewriting.seen(target), seen, "{target}");
    }
}

#[test]
fn what_comes_out_is_as_sane_as_what_goes_in() {
    let rewriting = Rewriting::new(&[
        "path: \"~ ^/glue/(?<a>[^x]*)x(?<b>.*)\", rewrite: { path: \"/files/{a}{b}\" }",
        "path: /cut/*, rewrite: { regex: { match: C3, to: \"\" } }",
    ]);
    for target in ["/glue/.x./etc/passwd", "/glue/x..%2e", "/glue/.x.", "/cut/%C3%20"] {
        let response = rewriting.ask(target);
        let has_dots = |target: &str| target.split('/').any(|segment| [".", ".."].contains(&segment));
        let is_normal = response.status() == 200 && !has_dots(rewriting.backend.requests().last().unwrap().target());
        assert!(is_normal || response.fault() == (400, "bad_request".to_owned()), "{target}");
    }
    assert_eq!(rewriting.ask("/glue/.x./etc/passwd").fault(), (400, "bad_request".to_owned()));
    assert_eq!(rewriting.ask("/cut/%C3%A9").fault(), (400, "bad_request".to_owned()), "half an escape");
    assert_eq!(rewriting.seen("/glue/ax//b"), "/files/a/b");
}

#[test]
fn a_backend_learns_what_was_taken_off_and_from_nobody_else() {
    let rewriting = Rewriting::new(&[
        "path: /a/*, rewrite: { strip_prefix: /a }",
        "path: /b/*, rewrite: { replace_prefix: /c }",
        "path: /d/*",
    ]);
    for (target, prefix) in [("/a/x", Some("/a")), ("/b/x", None), ("/d/x", None)] {
        rewriting.seen(target);
        let requests = rewriting.backend.requests();
        assert_eq!(requests.last().unwrap().header("x-forwarded-prefix"), prefix, "{target}");
    }
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "listeners: {{ main: {{ bind: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8] }} }}
routes: [{{ path: /b/*, to: \"{}\", health: none, rewrite: {{ strip_prefix: /b }} }}]\n",
        backend.address()
    ));
    gateway.send("GET /b/c HTTP/1.1\r\nhost: a\r\nx-forwarded-prefix: /a/\r\n\r\n");
    assert_eq!(backend.request().header("x-forwarded-prefix"), Some("/a/b"));
}

#[test]
fn the_log_has_the_path_that_the_client_asked_for() {
    let rewriting = Rewriting::new(&["path: /a/*, rewrite: { strip_prefix: /a }"]);
    assert_eq!(rewriting.seen("/a/x?q=1"), "/x?q=1");
    assert_eq!(rewriting.gateway.await_access_log(1)[0]["path"], "/a/x");
}
