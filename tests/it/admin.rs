//! What the gateway says of itself.

use crate::support::{Backend, Client, Gateway, eventually, route, upstream};

const ADMIN: &str = "admin: { bind: \"127.0.0.1:0\" }\n";

#[test]
fn health_names_the_backend_that_is_down() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let health = "health: { active: { path: /healthz, interval: 500ms, interval_changing: 20ms, timeout: 450ms } }";
    let gateway = Gateway::start(ADMIN.to_owned() + &upstream(&[a.address(), b.address()], health));
    eventually("all are up", || gateway.ask_admin("/health").json()["status"] == "healthy");
    a.feel(false);
    eventually("one is down", || gateway.ask_admin("/health").json()["status"] == "degraded");
    assert_eq!(gateway.ask_admin("/health").status(), 200);
    b.feel(false);
    eventually("both are down", || gateway.ask_admin("/health").status() == 503);
    let document = gateway.ask_admin("/health").json();
    assert_eq!((&document["status"], &document["checks"]["up"]), (&"unhealthy".into(), &"down".into()));
}

#[test]
fn it_is_ready_after_the_first_probes_and_not_while_it_drains() {
    let backend = Backend::start();
    let gateway = Gateway::start(format!(
        "shutdown: {{ delay: 1h }}\n{ADMIN}{}",
        route(&[backend.address()], "health: /healthz")
    ));
    eventually("it is ready", || gateway.ask_admin("/readyz").status() == 200);
    gateway.signal(rustix::process::Signal::TERM);
    eventually("it is not ready any more", || gateway.ask_admin("/readyz").status() == 503);
    // Clients are still served: the load balancer has not noticed yet.
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn metrics_count_what_happened() {
    let backend = Backend::start();
    let gateway = Gateway::start(ADMIN.to_owned() + &route(&[backend.address()], "name: shop"));
    for _ in 0..3 {
        gateway.get("/");
    }
    let requests =
        || gateway.metric("tidegate_http_requests_total{listener=\"main\",route=\"shop\",method=\"GET\",code=\"200\"}");
    eventually("three requests are counted", || requests() == 3);
}

#[test]
fn the_admin_answers_only_to_names_of_this_machine() {
    let gateway = Gateway::start(ADMIN.to_owned() + &route(&[Backend::start().address()], ""));
    let ask = |host: &str| {
        let mut client = Client::connect(gateway.admin());
        client.send(format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).response().status()
    };
    assert_eq!(ask("localhost"), 200);
    assert!(ask("evil.test") >= 400);
}
