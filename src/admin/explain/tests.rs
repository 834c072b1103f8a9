use super::*;
use crate::config::{Source, load};

const CONFIG: &str = r#"
listeners:
  web: { bind: "0.0.0.0:8080" }
  secure: { bind: "0.0.0.0:8443" }
auth:
  keys: { api_key: { header: x-api-key, keys: { amy: "sha256:3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9" } } }
limits:
  per-client: { rate: 100/s, by: ip }
upstreams:
  orders: { backends: [127.0.0.1:9001], health: tcp }
routes:
  - name: orders
    host: [api.example.com, "*.example.com"]
    path: /orders/*
    headers: { x-env: prod }
    auth: keys
    limit: [per-client, 5/s per key]
    to: orders
  - { name: any-orders, path: /orders/*, to: orders }
  - { name: order, path: "/orders/{id}", methods: [DELETE], to: orders }
  - { name: web, host: "*.example.com", path: /*, to: orders, retries: { attempts: 0 } }
  - { name: canary, path: /v2/*, query: { v: "~ ^2" }, to: orders }
  - { name: inside, path: /inside, listeners: [secure], to: orders }
  - { name: hidden, path: "/a;b", to: orders }
"#;

fn explain(method: &str, url: &str, fields: &[(&str, &str)]) -> ExplainDocument {
    let loaded = load(&Source { path: "t.yaml".into(), text: CONFIG.to_owned() }, &|_| None).unwrap();
    let headers = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let order = ExplainOrder { method: method.to_owned(), url: url.to_owned(), headers, ..ExplainOrder::default() };
    ExplainDocument::of(&loaded.plan, Some(&loaded.places), &order).unwrap()
}

#[test]
fn the_whole_document() {
    let explained = explain("GET", "https://api.example.com/x/../orders/42?v=1", &[("x-env", "prod")]);
    insta::assert_json_snapshot!(explained);
}

#[test]
fn whose_it_is_and_why_it_is_not_the_others() {
    for (request, fields, route, other) in [
        ("DELETE /orders/7", &[][..], Some("order"), ("any-orders", "weaker path (prefix, 7 characters)")),
        ("GET a.example.com/orders/7", &[("x-env", "test")], Some("web"), ("any-orders", "weaker host (any)")),
        ("GET /v2/x?v=3", &[], None, ("canary", "parameter v is 3")),
        ("GET /v2/x", &[], None, ("canary", "parameter v is not there")),
        ("GET :8080/inside", &[], None, ("inside", "it does not serve this listener")),
        ("GET a.test:8443/inside", &[], Some("inside"), ("web", "host is a.test")),
        ("GET a.test/inside", &[], Some("inside"), ("order", "path is /inside")),
    ] {
        let (method, url) = request.split_once(' ').unwrap();
        let url = url.strip_prefix(':').map_or(url.to_owned(), |rest| format!("a.test:{rest}"));
        let explained = explain(method, &url, fields);
        assert_eq!(explained.route.as_ref().map(|route| route.name.as_str()), route, "{request}");
        let mut others = explained.beats.iter().chain(&explained.missed);
        assert_eq!(
            others.find(|found| found.name == other.0).map(|found| found.why.as_str()),
            Some(other.1),
            "{request}"
        );
    }
}

#[test]
fn what_the_gateway_would_refuse_is_refused_here() {
    for (request, why) in [
        ("GET /a/../../b", "the path leads above the root"),
        ("GET /a%2Fb", "the path has an encoded slash, a backslash, a NUL or a stray percent sign"),
        ("TRACE /", "TRACE is not served"),
        ("GET /a%3Bb", "the path may be read in two ways, which are two routes"),
        ("GET http://a..b/", "the host has an empty label"),
    ] {
        let (method, url) = request.split_once(' ').unwrap();
        let explained = explain(method, url, &[]);
        assert_eq!((explained.refused.as_deref(), explained.route), (Some(why), None), "{request}");
    }
}

#[test]
fn an_order_that_makes_no_sense_says_so() {
    let loaded = load(&Source { path: "t.yaml".into(), text: CONFIG.to_owned() }, &|_| None).unwrap();
    let why = |order: ExplainOrder| ExplainDocument::of(&loaded.plan, None, &order).unwrap_err();
    let order = |url: &str| ExplainOrder { url: url.to_owned(), ..ExplainOrder::default() };
    assert_eq!(why(order("")), "`` is not a URL: write https://HOST/PATH, or /PATH.");
    assert_eq!(why(order("http://a b/")), "`http://a b/` is not a URL: write https://HOST/PATH, or /PATH.");
    assert_eq!(why(ExplainOrder { method: "G T".to_owned(), ..order("/") }), "`G T` is not a method.");
    let fields = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into_iter().collect();
    assert_eq!(why(ExplainOrder { headers: fields("x y", "1"), ..order("/") }), "`x y` is not the name of a header.");
    let two = why(ExplainOrder { headers: fields("host", "b.test"), ..order("a.test/") });
    assert_eq!(two, "The URL names the host `a.test` and the field `Host` another: `b.test`.");
    let listener = why(ExplainOrder { listener: Some("wb".to_owned()), ..order("/") });
    assert_eq!(listener, "There is no listener `wb`. Listeners: secure, web.");
}

#[test]
fn a_field_may_be_there_again_and_its_first_value_counts() {
    let fields: Fields = serde_json::from_str(r#"{ "x-a": "1", "x-a": ["2", "3"], "x-a": "4" }"#).unwrap();
    let all: Vec<&str> = fields.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(all, ["1", "2", "3", "4"]);
    let written = serde_json::to_value(&fields).unwrap();
    assert_eq!(serde_json::from_value::<Fields>(written).unwrap(), fields);
    let route = |first, second| {
        let explained = explain("GET", "a.example.com/orders/7", &[("x-env", first), ("x-env", second)]);
        explained.route.map(|route| route.name)
    };
    assert_eq!((route("prod", "test").as_deref(), route("test", "prod").as_deref()), (Some("orders"), Some("web")));
}
