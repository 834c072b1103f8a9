//! Three replicas of a Flask app and an nginx behind a gateway, as somebody would run it.

use std::{collections::BTreeMap, net::SocketAddr, sync::MutexGuard};

use serde_json::Value;

use crate::support::{Account, Gateway, Load, Server, alone, eventually};

/// Bad probes that take a backend out.
const UNHEALTHY_AFTER: usize = 3;

struct Stage {
    flask: [Server; 3],
    nginx: Server,
    gateway: Gateway,
    _alone: MutexGuard<'static, ()>,
}

/// Every server with its weight, and the check that a team with such a `/health` would write.
fn config<'a>(backends: impl IntoIterator<Item = (&'a Server, u16)>) -> String {
    let backend = |(server, weight): (&Server, u16)| {
        format!("      - {{ url: \"http://{}\", weight: {weight} }}\n", server.address())
    };
    let backends: String = backends.into_iter().map(backend).collect();
    format!(
        r#"
upstreams:
  app:
    backends:
{backends}
    health:
      active:
        path: /health
        expect: {{ status: 200, body: '"status":"healthy"' }}
        interval: 3s
        interval_changing: 100ms
        timeout: 2s
        unhealthy_after: {UNHEALTHY_AFTER}
        healthy_after: 2
routes:
  - path: /*
    to: app
"#
    )
}

impl Stage {
    fn set() -> Self {
        let alone = alone();
        let flask = ["one", "two", "three"].map(Server::flask);
        let nginx = Server::nginx("nginx");
        let gateway = Gateway::start(config([(&flask[0], 3), (&flask[1], 2), (&flask[2], 1), (&nginx, 2)]));
        let stage = Self { flask, nginx, gateway, _alone: alone };
        stage.addresses().for_each(|address| drop(stage.gateway.await_backend(address, "up")));
        stage
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.flask.iter().chain([&self.nginx]).map(Server::address)
    }

    fn transitions(&self, backend: SocketAddr) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events =
            self.gateway.events(|event| event["event"] == "backend" && event["backend"] == backend.to_string());
        events.iter().map(|event| (text(&event["to"]), text(&event["detail"]))).collect()
    }

    /// Waits until a backend's last transition is to this state.
    #[track_caller]
    fn await_last(&self, backend: SocketAddr, state: &str) {
        let is_last = || self.transitions(backend).last().is_some_and(|(to, _)| to == state);
        eventually(&format!("{backend} is {state}"), is_last);
    }
}

/// How many answers each replica gave.
fn shares(account: &Account) -> BTreeMap<String, u64> {
    let replica = |body: &str| serde_json::from_str::<Value>(body).unwrap()["replica"].as_str().unwrap().to_owned();
    account.bodies.iter().map(|(body, count)| (replica(body), *count)).collect()
}

#[test]
fn real_servers_share_the_traffic_by_weight() {
    let stage = Stage::set();
    let account = Load::of(800, 4).get(stage.gateway.address(), "/").finish();
    account.assert_flawless();
    let shares = shares(&account);
    for (replica, expected) in [("one", 300), ("two", 200), ("three", 100), ("nginx", 200)] {
        // Exact per worker: the last turn of each of them may be unfinished.
        let count = shares.get(replica).copied().unwrap_or_default();
        assert!(count.abs_diff(expected) <= 12, "{replica} got {count} of 800, not {expected}: {shares:?}");
    }
}

#[test]
fn kill_9_of_a_replica_under_load_costs_no_request() {
    let mut stage = Stage::set();
    let load = Load::steady(8, 200).get(stage.gateway.address(), "/");
    load.goes_on_for(100);

    let victim = stage.flask[0].address();
    stage.flask[0].kill();
    stage.await_last(victim, "down");
    load.goes_on_for(100);

    stage.flask[0].restart();
    stage.await_last(victim, "up");
    load.goes_on_for(100);

    load.stop().assert_flawless();
    // Whether traffic or the probes are first to see it is chance.
    let (states, _): (Vec<_>, Vec<_>) = stage.transitions(victim).into_iter().unzip();
    assert!(states == ["up", "down", "up"] || states == ["up", "ejected", "down", "up"], "{states:?}");
}

#[test]
fn an_app_that_calls_itself_unhealthy_is_out_until_it_is_well() {
    let stage = Stage::set();
    let sick = stage.flask[1].address();
    stage.flask[1].post("/break");
    stage.await_last(sick, "down");
    let (_, detail) = stage.transitions(sick).pop().expect("it is down");
    assert!(detail.contains("503"), "{detail}");
    // It still answers, so only the check keeps traffic away from it.
    let meanwhile = Load::of(200, 4).get(stage.gateway.address(), "/").finish();
    meanwhile.assert_flawless();
    assert!(!shares(&meanwhile).contains_key("two"), "{:?}", shares(&meanwhile));

    stage.flask[1].post("/heal");
    stage.await_last(sick, "up");
    let after = Load::of(200, 4).get(stage.gateway.address(), "/").finish();
    after.assert_flawless();
    assert!(shares(&after).contains_key("two"), "{:?}", shares(&after));
}

#[test]
fn an_edit_under_load_costs_no_request_and_takes_effect() {
    let stage = Stage::set();
    let Stage { flask: [one, two, three], nginx, gateway, .. } = &stage;
    let load = Load::steady(8, 200).get(gateway.address(), "/");
    load.goes_on_for(50);

    let edits = [
        config([(one, 1), (two, 1), (three, 1), (nginx, 1)]),
        config([(one, 1), (two, 1), (three, 1)]),
        config([(one, 5), (two, 1), (three, 1), (nginx, 3)]).replace("interval: 3s", "interval: 4s"),
        config([(one, 1), (nginx, 1)]),
    ];
    for edit in edits {
        assert_eq!(gateway.edit(edit)["event"], "reload");
        load.goes_on_for(50);
    }
    load.stop().assert_flawless();

    let account = Load::of(200, 4).get(gateway.address(), "/").finish();
    account.assert_flawless();
    assert_eq!(shares(&account).into_keys().collect::<Vec<_>>(), ["nginx", "one"]);
    // No edit forgot what was known of the backend that stood in each of them.
    assert_eq!(stage.transitions(one.address()).len(), 1, "{:?}", stage.transitions(one.address()));
}

#[test]
fn a_bad_edit_under_load_changes_nothing() {
    let stage = Stage::set();
    let Stage { flask: [one, ..], gateway, .. } = &stage;
    let load = Load::steady(8, 200).get(gateway.address(), "/");
    load.goes_on_for(50);

    let typo = config([(one, 1)]).replace("    to: app", "    to: ap");
    let half = config([(one, 1)]).replace("routes:", "routes");
    for bad in [typo, half, String::new()] {
        let refused = gateway.edit(bad);
        assert_eq!(refused["event"], "refused");
        assert_eq!(refused["generation"], 1, "{refused}");
        load.goes_on_for(50);
    }
    let account = load.stop();
    account.assert_flawless();
    let shares = shares(&account);
    assert_eq!(shares.len(), 4, "all four replicas go on: {shares:?}");
    assert!(shares["one"] > shares["three"], "with the weights that they had: {shares:?}");
}
