//! What a decision costs, alone: find the route, admit the request, pick the backend. `cargo bench --bench micro`.
//!
//! Each is measured in batches; printed is the median batch, in nanoseconds for one decision. What counts is how the figures of
//! one run compare: with ten routes and with ten thousand, with ten backends and with ten thousand.
#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::{
    fmt::Write as _,
    future::Future as _,
    hint::black_box,
    net::IpAddr,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{Request, request::Parts};
use tidegate::{
    base::Percent,
    config::{self, Source},
    layers::{Pass, PasswordPool},
    route::Ask,
    runtime::{self, Edition, Registry, Resolved, Snapshot, Tokens},
    telemetry::WorkerId,
    upstream::{self, Eligible, Ticket},
};

const WORKER: WorkerId = WorkerId(0);
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const KEY: &str = "0123456789abcdef0123456789abcdef";
const DIGEST: &str = "3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9";

const MODES: [&str; 8] = [
    "round_robin",
    "random",
    "least_requests",
    "p2c",
    "hash ip",
    "{ mode: hash ip, bounded_load: 125% }",
    "{ mode: hash ip, algorithm: maglev }",
    "{ sticky: { cookie: tg } }",
];

const BATCHES: usize = 101;
const DECISIONS: u32 = 10_000;

fn main() {
    for routes in [3, 250, 5_000] {
        find(routes);
    }
    admit("no layers", "");
    admit("an API key and a rate limit", ", auth: keys, limit: 1000000/s per key");
    for mode in MODES {
        for backends in [10, 10_000] {
            pick(mode, backends);
        }
    }
    for mode in MODES {
        publish(mode, 10_000);
    }
}

fn find(routes: usize) {
    let snapshot = snapshot(&(0..routes).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "  - {{ host: \"*.h{n}.example.com\", path: /a/b{n}/*, to: app }}");
        let _ = writeln!(text, "  - {{ path: /a/b{n}/c/*, to: app }}");
        let _ = writeln!(text, "  - {{ host: \"*.h{n}.example.com\", path: \"/a/b{n}/t/{{id}}/*\", to: app }}");
        let _ = writeln!(text, "  - {{ path: /a/b{n}, methods: [GET], headers: {{ x-env: prod }}, to: app }}");
        text
    }));
    let listener = snapshot.listeners.values().next().expect("a listener");
    let table = &snapshot.served(listener.id).expect("it is served").table;
    let head = head();
    let ask = |path| Ask {
        host: "x.h1.example.com",
        path,
        method: &head.method,
        headers: &head.headers,
        is_from_proxy: false,
        query: None,
    };
    for (what, path) in [("a prefix", "/a/b1/some/longer/path"), ("a template", "/a/b1/t/42/x"), ("nothing", "/b")] {
        report(&format!("find {what}, {} routes", 4 * routes), || {
            let route = table.find(&black_box(ask(path)));
            assert_eq!(black_box(route).is_some(), what != "nothing");
        });
    }
}

fn admit(what: &str, layers: &str) {
    let snapshot = snapshot(&format!("  - {{ path: /*, to: app{layers} }}\n"));
    let route = snapshot.routes.values().next().expect("a route");
    let mut head = head();
    report(&format!("admit, {what}"), || {
        let mut pass = Pass::default();
        {
            let admitted = pin!(route.layers.admit(WORKER, CLIENT, &mut head, &mut pass));
            let admitted = admitted.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(black_box(admitted), Poll::Ready(Ok(()))));
        }
        // The layer has taken it out.
        head.headers.insert("x-api-key", http::HeaderValue::from_static(KEY));
    });
}

fn pick(mode: &str, backends: usize) {
    let snapshot = balanced(mode, backends);
    let upstream = snapshot.upstreams.values().next().expect("an upstream");
    let mut client: u32 = 0;
    report(&format!("pick, {mode}, {backends} backends"), || {
        client = client.wrapping_add(1);
        let key = Some(upstream::place_ip(IpAddr::from(client.to_be_bytes())));
        let lease = upstream.live.lease(WORKER, Ticket { key, token: None }, &[], None).expect("somebody");
        // What `p2c` goes by, measured with it.
        if mode == "p2c" {
            lease.member().backend.took(Duration::from_micros(u64::from(client % 512)), false);
        }
        drop(black_box(lease));
    });
}

/// What the control plane does when the verdict of one backend changes.
fn publish(mode: &str, backends: usize) {
    let snapshot = balanced(mode, backends);
    let upstream = snapshot.upstreams.values().next().expect("an upstream");
    let mut times: Vec<f64> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let (health, balance) = (&upstream.plan.health, &upstream.plan.balance);
            drop(black_box(Eligible::among(&upstream.members, health, balance, |_| Percent::whole(100))));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{:64} {:8.1} ms", format!("publish, {mode}, {backends} backends"), times[times.len() / 2]);
}

fn balanced(mode: &str, backends: usize) -> Snapshot {
    let many = (0..backends).fold(String::new(), |mut text, n| {
        let _ = write!(text, "127.{}.{}.{}:9, ", 1 + n / 62_500, n / 250 % 250, 1 + n % 250);
        text
    });
    snapshot(&format!("  - {{ path: /*, to: [{many}], health: none, balance: {mode} }}\n"))
}

fn head() -> Parts {
    let request = Request::get("/a/b7").header("host", "x.h1.example.com").header("x-api-key", KEY).body(());
    request.expect("a request").into_parts().0
}

fn snapshot(routes: &str) -> Snapshot {
    let text = format!(
        "listen: 8080\n\
         upstreams: {{ app: {{ backends: [127.0.0.1:9001, 127.0.0.1:9002], health: none }} }}\n\
         auth: {{ keys: {{ api_key: {{ header: x-api-key, keys: {{ bench: sha256:{DIGEST} }} }} }} }}\n\
         routes:\n{routes}"
    );
    let loaded = config::load(&Source { path: "bench.yaml".into(), text }, &|_| None).expect("a good config");
    let registry = Registry::new(1, Tokens { faults: &[], closes: &[] }, PasswordPool::new(1, 1).expect("a thread"));
    runtime::build(&registry, &loaded.plan, Edition::new(1, loaded.sha), &Resolved::default()).snapshot
}

fn report(what: &str, mut decide: impl FnMut()) {
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            (0..DECISIONS).for_each(|_| decide());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    println!("{what:64} {:8.1} ns", batches[BATCHES / 2]);
}
