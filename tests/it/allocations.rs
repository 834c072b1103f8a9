//! What a request costs before a backend is chosen: nothing from the allocator.

use std::{net::IpAddr, sync::Arc, time::Duration};

use allocation_counter::measure;
use http::{HeaderMap, Method, Request};
use tidegate::{
    base::{Name, Timestamp},
    config::{self, Source},
    layers::{Identity, Pass, PasswordPool},
    route::Ask,
    runtime::{self, Action, Edition, Registry, Resolved, Route, Snapshot, Tokens, Upstream},
    telemetry::WorkerId,
    upstream::{self, Ticket, Token},
};

const WORKER: WorkerId = WorkerId(0);

fn snapshot(routes: usize) -> Snapshot {
    let mut text = String::new();
    for n in 0..routes {
        text += &format!(
            "  - {{ host: [\"h{n}.example.com\", \"*.w{n}.example.com\"], path: /a/b{n}/*, to: [127.0.0.1:9001, 127.0.0.1:9002], health: none }}\n  \
             - {{ path: \"/a/b{n}/{{id}}\", methods: [GET], query: {{ v: \"~ ^2\" }}, to: 127.0.0.1:9001, health: none }}\n"
        );
    }
    of_routes(&text)
}

fn of_routes(routes: &str) -> Snapshot {
    let source = Source { path: "t.yaml".into(), text: format!("listen: 8080\nroutes:\n{routes}") };
    let loaded = config::load(&source, &|_| None).expect("a good config");
    let passwords = PasswordPool::new(1, 1).expect("a thread");
    let registry = Registry::new(1, Tokens { faults: &[], closes: &[] }, passwords);
    runtime::build(&registry, &loaded.plan, Edition::new(1, loaded.sha), &Resolved::default()).snapshot
}

fn find<'a>(snapshot: &'a Snapshot, host: &str, path: &str) -> &'a Arc<Route> {
    let listener = snapshot.listeners.values().next().expect("a listener");
    let (method, headers) = (&Method::GET, &HeaderMap::new());
    let ask = Ask { host, path, method, headers, is_from_proxy: false, query: Some("v=2&w=1") };
    snapshot.served(listener.id).expect("it is served").table.find(&ask).expect("a route")
}

fn upstream(route: &Route) -> &Upstream {
    let Action::Forward { sides, .. } = &route.action else { panic!("it leads to an upstream") };
    &sides.first().expect("one").upstream
}

#[test]
fn finding_a_route_and_picking_a_backend_allocates_nothing() {
    for routes in [10, 2_000] {
        let snapshot = snapshot(routes);
        // A thread's first look at a swapped value makes its place in the list of readers.
        drop(upstream(find(&snapshot, "h7.example.com", "/a/b7")).live.eligible());
        // And its first use of an expression makes what that is worked out in.
        find(&snapshot, "", "/a/b7/1");
        let cost = measure(|| {
            let asked = [("h7.example.com", "/a/b7/some/path"), ("x.w7.example.com", "/a/b7"), ("", "/a/b7/1")];
            for (host, path) in asked {
                let route = find(&snapshot, host, path);
                drop(upstream(route).live.lease(WORKER, Ticket::default(), &[], Some(1)).expect("a place"));
            }
        });
        assert_eq!(cost.count_total, 0, "with {routes} routes");
    }
}

#[test]
fn no_mode_allocates_to_choose_a_backend() {
    for balance in [
        "random",
        "least_requests",
        "p2c",
        "hash ip",
        "{ mode: hash ip, bounded_load: 125% }",
        "{ mode: hash ip, algorithm: maglev }",
        "{ sticky: { cookie: tg } }",
    ] {
        let many: Vec<String> = (1..40).map(|n| format!("127.0.0.{n}:9001")).collect();
        let to = many.join(", ");
        let snapshot = of_routes(&format!("  - {{ path: /*, to: [{to}], health: none, balance: {balance} }}\n"));
        let upstream = upstream(snapshot.routes.values().next().expect("a route"));
        let slot = upstream.members[7].backend.slot();
        let cookie = upstream.live.eligible().token(slot).map(|token| token.to_string()).unwrap_or_default();
        let choose = || {
            let key = Some(upstream::place_ip(IpAddr::from([10, 0, 0, 1])));
            let token = Token::read(cookie.as_bytes());
            let ticket = Ticket { key, token };
            // One that was tried goes to another.
            let first = upstream.live.lease(WORKER, ticket, &[], Some(9)).expect("a place");
            drop(upstream.live.lease(WORKER, ticket, &[first.member().backend.slot()], Some(9)).expect("a place"));
            first.member().backend.took(Duration::from_millis(1), false);
        };
        // What a thread makes once: its place in the list of readers, its seed.
        choose();
        assert_eq!(measure(choose).count_total, 0, "{balance}");
    }
}

#[test]
fn counting_a_call_of_an_api_allocates_nothing() {
    let snapshot = of_routes(
        "  - { path: /*, to: 127.0.0.1:9001, health: none, api: a }
apis: { a: { version: 1, deprecated: 2026-01-01, sunset: 2999-01-01 } }
",
    );
    let api = &snapshot.apis["a"];
    let by = Identity { consumer: Name::derived("acme"), auth: Name::derived("partners") };
    // A caller's place in a worker is made once.
    let call = || api.called(WORKER, Timestamp::now(), Some(&by));
    call();
    assert_eq!(measure(|| _ = call()).count_total, 0);
}

#[test]
fn admitting_to_a_route_without_layers_allocates_nothing() {
    let snapshot = snapshot(1);
    let route = find(&snapshot, "h0.example.com", "/a/b0");
    let (mut head, ()) = Request::get("/a/b0").body(()).expect("a request").into_parts();
    let client = IpAddr::from([127, 0, 0, 1]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut pass = Pass::default();
        let mut admitted = std::pin::pin!(route.layers.admit(WORKER, client, &mut head, &mut pass));
        let cost = measure(|| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(admitted.as_mut().poll(&mut context).is_ready());
        });
        assert_eq!(cost.count_total, 0);
    });
}
