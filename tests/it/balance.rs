//! Who gets how much.

use crate::support::{Backend, Gateway, route, upstream};

#[test]
fn weights_are_shares_to_the_request() {
    let [heavy, one, other] = ["heavy", "one", "other"].map(Backend::named);
    let gateway = Gateway::start(format!(
        "workers: 1
upstreams:
  up:
    health: none
    backends:
      - {{ url: \"http://{}\", weight: 5 }}
      - \"{}\"
      - \"{}\"
routes: [{{ path: /*, to: up }}]
",
        heavy.address(),
        one.address(),
        other.address()
    ));
    let mut client = gateway.connect();
    for _ in 0..700 {
        client.get("/");
    }
    assert_eq!([heavy.hits(), one.hits(), other.hits()], [500, 100, 100]);
}

#[test]
fn each_worker_spreads_on_its_own_and_no_backend_is_forgotten() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(format!("workers: 4\n{}", route(&addresses, "")));
    for _ in 0..120 {
        gateway.get("/");
    }
    let hits = backends.each_ref().map(Backend::hits);
    assert_eq!(hits.iter().sum::<usize>(), 120);
    // Each of four workers may be one off.
    assert!(hits.iter().all(|hits| hits.abs_diff(40) <= 4), "{hits:?}");
}

#[test]
fn two_routes_to_one_upstream_share_its_turns() {
    let backends = ["a", "b"].map(Backend::named);
    let addresses = backends.each_ref().map(Backend::address);
    let gateway = Gateway::start(format!(
        "workers: 1\n{}",
        upstream(&addresses, "").replace("routes: [", "routes: [{ path: /other, to: up }, ")
    ));
    let mut client = gateway.connect();
    for _ in 0..10 {
        client.get("/");
        client.get("/other");
    }
    assert_eq!(backends.each_ref().map(Backend::hits), [10, 10]);
}
