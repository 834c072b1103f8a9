//! Whoever wants to know is told of events, in order, and a receiver that fails holds up nobody.

use serde_json::Value;

use crate::support::{Backend, Gateway, eventually, refusing};

fn config(hook: &str, fields: &str, backend: &Backend, health: &str) -> String {
    format!(
        "routes: [{{ path: /*, to: \"{}\", health: {{ active: {{ path: {health}, interval: 200ms, interval_changing: 20ms, timeout: 150ms }} }} }}]
telemetry: {{ webhooks: {{ pager: {{ url: \"http://{hook}/hook?token=1\", {fields} }} }} }}
admin: {{ bind: \"127.0.0.1:0\" }}
",
        backend.address()
    )
}

fn told(receiver: &Backend) -> Vec<Value> {
    receiver.requests().iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

fn counted(gateway: &Gateway, result: &str) -> usize {
    gateway.metric(&format!("tidegate_webhook_events_total{{webhook=\"pager\",result=\"{result}\"}}"))
}

#[test]
fn changes_of_backends_are_told_in_order() {
    let (receiver, backend) = (Backend::scripted(|peer, _| peer.respond("204 No Content", "")), Backend::start());
    let fields = "headers: { x-team: blue }";
    let gateway = Gateway::start(config(&receiver.address().to_string(), fields, &backend, "/healthz"));
    gateway.await_backend(backend.address(), "up");
    backend.feel(false);
    gateway.await_backend(backend.address(), "down");
    backend.feel(true);
    eventually("all three are told", || told(&receiver).len() == 3);
    let states: Vec<Value> = told(&receiver).iter().map(|event| event["to"].clone()).collect();
    assert_eq!(states, ["up", "down", "up"]);
    let request = &receiver.requests()[1];
    assert_eq!((request.method(), request.target()), ("POST", "/hook?token=1"));
    assert_eq!(
        (request.head.get("content-type"), request.head.get("x-team")),
        (Some("application/json"), Some("blue"))
    );
    assert_eq!(request.head.get("host"), Some(receiver.address().to_string().as_str()));
    // The same words as in the log.
    let logged = gateway.events(|event| event["to"] == "down").remove(0);
    assert_eq!(told(&receiver)[1], logged);
    eventually("they are counted", || counted(&gateway, "delivered") == 3);
}

#[test]
fn only_what_is_asked_for_is_told() {
    let (receiver, backend) = (Backend::start(), Backend::start());
    let with = |path: &str| config(&receiver.address().to_string(), "events: [reload, refused]", &backend, path);
    let gateway = Gateway::start(with("/healthz"));
    gateway.await_backend(backend.address(), "up");
    gateway.edit(with("/other"));
    assert_eq!(gateway.edit(with("/other") + "nonsense: 1\n")["event"], "refused");
    eventually("both are told", || told(&receiver).len() == 2);
    let kinds: Vec<Value> = told(&receiver).iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["reload", "refused"]);
}

#[test]
fn a_receiver_that_fails_is_tried_again() {
    let (receiver, backend) =
        (Backend::scripted(|peer, _| peer.respond("500 Internal Server Error", "")), Backend::start());
    let gateway = Gateway::start(config(&receiver.address().to_string(), "", &backend, "/healthz"));
    gateway.await_backend(backend.address(), "up");
    eventually("the first attempt", || receiver.hits() == 1);
    receiver.behave(|peer, _| peer.respond("200 OK", "thanks"));
    eventually("it is delivered", || counted(&gateway, "delivered") == 1);
    let [first, second] = &told(&receiver)[..] else { panic!("two attempts") };
    assert_eq!(first, second);
    assert_eq!(
        receiver.requests()[0].head.get("x-tidegate-sequence"),
        receiver.requests()[1].head.get("x-tidegate-sequence")
    );
}

#[test]
fn a_receiver_that_refuses_is_said_once_and_costs_nothing_else() {
    let ((gone, _socket), backend) = (refusing(), Backend::start());
    let gateway = Gateway::start(config(&gone.to_string(), "attempts: 1, timeout: 500ms", &backend, "/healthz"));
    gateway.await_backend(backend.address(), "up");
    gateway.await_event("it is said", |event| event["reason"] == "webhook");
    for (changes, well) in [(2, false), (3, true), (4, false)] {
        backend.feel(well);
        eventually("a change", || gateway.events(|event| event["event"] == "backend").len() == changes);
        assert!([200, 503].contains(&gateway.get("/").status()));
    }
    eventually("they are counted", || counted(&gateway, "failed") >= 3);
    assert_eq!(gateway.events(|event| event["reason"] == "webhook").len(), 1);
}

#[test]
fn a_webhook_that_an_edit_takes_away_is_told_no_more() {
    let (receiver, backend) = (Backend::start(), Backend::start());
    let gateway = Gateway::start(config(&receiver.address().to_string(), "", &backend, "/healthz"));
    gateway.await_backend(backend.address(), "up");
    eventually("it is told", || receiver.hits() == 1);
    let without = config("x:1", "", &backend, "/healthz");
    let without: String =
        without.lines().filter(|line| !line.starts_with("telemetry")).map(|line| format!("{line}\n")).collect();
    gateway.edit(without);
    backend.feel(false);
    gateway.await_backend(backend.address(), "down");
    assert_eq!(receiver.hits(), 1);
}
