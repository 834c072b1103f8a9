//! The life of an API: what clients are told of its end, what is there after it, and who still calls.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::{Backend, Gateway, Response, eventually};

/// The SHA-256 of `demo`, and of `test`.
const DEMO: &str = "sha256:2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea";
const TEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A gateway with the API `orders-v1` under `/v1`, whose fields these are, and `orders-v2` under `/v2`.
fn config(backend: &Backend, fields: &str) -> String {
    let to = backend.address();
    format!(
        "admin: {{ bind: \"127.0.0.1:0\" }}
auth: {{ partners: {{ api_key: {{ header: x-api-key, keys: {{ acme: \"{DEMO}\", umbra: \"{TEST}\" }} }} }} }}
apis:
  orders-v1: {{ version: 1, {fields} }}
  orders-v2: {{ version: 2 }}
routes:
  - {{ path: /v1/*, to: \"{to}\", health: none, api: orders-v1 }}
  - {{ path: /v1/closed, to: \"{to}\", health: none, api: orders-v1, auth: partners }}
  - {{ path: /v2/*, to: \"{to}\", health: none, api: orders-v2 }}
  - {{ path: /other, to: \"{to}\", health: none }}
"
    )
}

fn get_as(gateway: &Gateway, key: &str) -> Response {
    gateway.send(format!("GET /v1/closed HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n"))
}

fn api(gateway: &Gateway) -> Value {
    gateway.ask_admin("/api/v1/apis/orders-v1").json()
}

/// Who has called, and how often, in the order of names.
fn callers(gateway: &Gateway) -> Vec<(String, u64)> {
    let api = api(gateway);
    let callers = api["callers"].as_array().unwrap().iter();
    let mut callers: Vec<_> =
        callers.map(|c| (c["consumer"].as_str().unwrap().to_owned(), c["requests"].as_u64().unwrap())).collect();
    callers.sort();
    callers
}

fn named(callers: &[(&str, u64)]) -> Vec<(String, u64)> {
    callers.iter().map(|(name, requests)| ((*name).to_owned(), *requests)).collect()
}

/// RFC 3339, so many milliseconds from now.
fn from_now(millis: u64) -> String {
    let at = SystemTime::now() + Duration::from_millis(millis);
    tidegate::base::Timestamp::from(at).to_string()
}

#[test]
fn responses_of_a_deprecated_api_say_until_when_it_lives() {
    let backend = Backend::scripted(|peer, _| {
        let head = "HTTP/1.1 200 OK\r\ndeprecation: @1\r\nlink: </own>; rel=\"self\"\r\ncontent-length: 2\r\n\r\n";
        peer.read_body()?;
        peer.write(format!("{head}ok"))
    });
    let fields =
        "deprecated: 2023-06-30T23:59:59Z, sunset: 2999-12-31, link: https://docs.example.com/m, successor: orders-v2";
    let gateway = Gateway::start(config(&backend, fields));
    let response = gateway.get("/v1/x");
    assert_eq!(response.status(), 200);
    assert_eq!(response.head.all("deprecation"), ["@1688169599"]);
    assert_eq!(response.header("sunset"), Some("Tue, 31 Dec 2999 00:00:00 GMT"));
    let links = "<https://docs.example.com/m>; rel=\"deprecation\", <https://docs.example.com/m>; rel=\"sunset\", \
                 </v2>; rel=\"successor-version\"";
    assert_eq!(response.head.all("link"), ["</own>; rel=\"self\"", links]);
    for other in ["/v2/x", "/other"] {
        assert_eq!(gateway.get(other).head.all("sunset"), [] as [&str; 0], "{other}");
    }
    assert_eq!(gateway.metric("tidegate_api_stage{api=\"orders-v1\",version=\"1\",stage=\"deprecated\"}"), 1);
}

#[test]
fn a_sunset_comes_without_an_edit() {
    let backend = Backend::start();
    let sunset = from_now(1_500);
    let fields =
        format!("deprecated: 2023-06-30, sunset: \"{sunset}\", link: https://d.example/m, successor: orders-v2");
    let gateway = Gateway::start(config(&backend, &fields));
    let before = SystemTime::now();
    let mut client = gateway.connect();
    let mut last = client.get("/v1/x");
    assert!(last.status() == 200 || from_now(0) >= sunset, "{last:?}");
    eventually("the API is retired", || {
        let asked = from_now(0);
        last = client.get("/v1/x");
        assert!(last.status() == 200 || from_now(0) >= sunset, "retired at {asked}, before {sunset}");
        assert!(last.status() != 200 || asked < sunset, "served at {asked}, after {sunset}");
        last.status() != 200
    });
    assert!(before.elapsed().unwrap() < Duration::from_secs(10));
    assert_eq!(last.fault(), (410, "retired".to_owned()));
    assert_eq!(
        last.problem()["detail"],
        "This API, orders-v1 version 1, is retired. Use orders-v2, version 2, at /v2 instead. See https://d.example/m"
    );
    assert!(last.header("sunset").unwrap().ends_with(" GMT"));
    assert!(last.header("link").unwrap().ends_with("</v2>; rel=\"successor-version\""));
    let event = gateway.await_event("the stage", |event| event["event"] == "api");
    assert_eq!(
        (&event["api"], &event["from"], &event["to"]),
        (&"orders-v1".into(), &"deprecated".into(), &"retired".into())
    );
    assert_eq!(event["level"], "warn");
    // Strangers are asked who they are first, and what is not of that API goes on.
    assert_eq!(gateway.get("/v1/closed").status(), 401);
    assert_eq!(get_as(&gateway, "demo").status(), 410);
    assert_eq!(gateway.get("/v2/x").status(), 200);
    assert_eq!(api(&gateway)["stage"], "retired");
    assert_eq!(callers(&gateway).first(), Some(&("acme".to_owned(), 1)));
    let retired = "tidegate_api_requests_total{api=\"orders-v1\",version=\"1\",stage=\"retired\"}";
    assert!(gateway.metric(retired) >= 2);
}

#[test]
fn who_calls_is_known_by_name_over_edits() {
    let backend = Backend::start();
    let gateway = Gateway::start(config(&backend, "stage: beta"));
    assert_eq!(get_as(&gateway, "demo").status(), 200);
    assert_eq!(get_as(&gateway, "demo").status(), 200);
    assert_eq!(get_as(&gateway, "wrong").status(), 401);
    assert_eq!(gateway.get("/v1/x").status(), 200);
    assert_eq!(gateway.get("/other").status(), 200);
    assert_eq!(callers(&gateway), named(&[("acme", 2), ("anonymous", 1)]));
    let document = api(&gateway);
    assert_eq!(
        (&document["stage"], &document["requests"], &document["callers_left_out"]),
        (&"beta".into(), &3.into(), &0.into())
    );
    assert_eq!(document["callers"][0]["consumer"], "anonymous", "whoever came last is first");

    let edit = gateway.edit(
        config(&backend, "deprecated: 2023-06-30")
            .replace("keys: {", &format!("keys: {{ aaa: \"{}\",", DEMO.replace("256:2", "256:3"))),
    );
    assert!(edit["detail"].as_str().unwrap().contains("~apis"), "{edit}");
    assert_eq!(get_as(&gateway, "test").header("deprecation"), Some("@1688083200"));
    assert_eq!(get_as(&gateway, "demo").status(), 200);
    assert_eq!(callers(&gateway), named(&[("acme", 3), ("anonymous", 1), ("umbra", 1)]));
    assert_eq!(
        gateway.metric("tidegate_api_caller_requests_total{api=\"orders-v1\",version=\"1\",consumer=\"acme\"}"),
        3
    );

    let list = gateway.ask_admin("/api/v1/apis").json();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|api| api["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["orders-v1", "orders-v2"]);
    let unknown = gateway.ask_admin("/api/v1/apis/orders-v3");
    assert_eq!(unknown.fault(), (404, "unknown_api".to_owned()));
    // Another version is another API.
    gateway.edit(config(&backend, "stage: beta").replace("version: 1,", "version: 3,"));
    assert_eq!(callers(&gateway), []);
}
