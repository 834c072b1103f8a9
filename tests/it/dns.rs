//! Names of backends, with a real DNS server behind them.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use crate::support::{Backend, Gate, Gateway, Server, eventually, own_address, spare_address};

/// One route to `api.test`, whose probes are quick.
fn config(server: SocketAddr, dns: &str) -> String {
    config_of(&format!("\"{server}\""), dns)
}

fn config_of(servers: &str, dns: &str) -> String {
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}
dns: {{ servers: [{servers}], {dns} }}
upstreams:
  up:
    backends: [api.test:8080]
    health: {{ active: {{ path: /healthz, interval: 500ms, interval_changing: 20ms, timeout: 450ms }} }}
routes: [{{ path: /*, to: up }}]
"
    )
}

fn health(gateway: &Gateway) -> Value {
    serde_json::from_str(gateway.ask_admin("/health").text()).unwrap()
}

/// How often the address was announced in this state.
fn times(gateway: &Gateway, address: SocketAddr, state: &str) -> usize {
    let name = format!("api.test:8080@{}", address.ip());
    gateway.events(|event| event["event"] == "backend" && event["backend"] == name && event["to"] == state).len()
}

fn await_dns_event(gateway: &Gateway, says: &str) {
    gateway.await_event(says, |event| event["detail"].as_str().is_some_and(|detail| detail.contains(says)));
}

#[test]
fn traffic_follows_a_name_and_what_stays_is_not_judged_again() {
    let [a, b, c] = ["a", "b", "c"].map(|name| Backend::at(own_address(), name));
    let gate = Gate::default();
    let held = gate.clone();
    a.behave(move |peer, request| {
        if request.target() == "/slow" {
            held.wait()?;
        }
        peer.respond("200 OK", "a")
    });
    let dns = Server::dns();
    dns.name(&[("api.test", &[a.address(), b.address()])]);
    let gateway = Gateway::start(config(dns.address(), ""));
    eventually("both are up", || [&a, &b].iter().all(|backend| times(&gateway, backend.address(), "up") == 1));
    eventually("both get traffic", || {
        [&a, &b].iter().all(|backend| gateway.get("/").status() == 200 && backend.hits() > 0)
    });
    let mut slow = vec![];
    eventually("one that is removed holds a request", || {
        let mut client = gateway.connect();
        client.send("GET /slow HTTP/1.1\r\nhost: up\r\nconnection: close\r\n\r\n");
        slow.push(client);
        a.requests().iter().any(|request| request.target() == "/slow")
    });

    dns.name(&[("api.test", &[c.address(), b.address()])]);
    eventually("the new address gets traffic", || gateway.get("/").text() == "c");
    let before = a.hits();
    for _ in 0..20 {
        assert!(["b", "c"].contains(&gateway.get("/").text()));
    }
    assert_eq!(a.hits(), before);
    gate.open();
    let said: Vec<String> = slow.iter_mut().map(|client| client.response().text().to_owned()).collect();
    assert!(said.contains(&"a".to_owned()), "{said:?}");
    let states = |address| ["checking", "up", "down"].map(|state| times(&gateway, address, state));
    assert_eq!(states(b.address()), [0, 1, 0], "its verdict stays");
    assert_eq!(times(&gateway, c.address(), "up"), 1);
    let health = health(&gateway);
    assert_eq!(health["config"]["generation"], 1);
    assert_eq!(health["upstreams"]["up"]["total"], 2);
    assert_eq!(gateway.metric("tidegate_dns_addresses{name=\"api.test\"}"), 2);
}

#[test]
fn a_name_that_is_gone_is_held_then_down_then_back() {
    let a = Backend::at(own_address(), "a");
    let dns = Server::dns();
    dns.name(&[("api.test", &[a.address()])]);
    let gateway = Gateway::start(config(dns.address(), "hold: 2s"));
    eventually("it is up", || times(&gateway, a.address(), "up") == 1);

    dns.name(&[]);
    await_dns_event(&gateway, "api.test does not exist; its addresses (1) stay in use for 2s");
    assert_eq!(gateway.get("/").text(), "a");
    let held = health(&gateway);
    assert_eq!((&held["status"], &held["stale_names"]["api.test"]["addresses"]), (&"healthy".into(), &1.into()));

    eventually("it is down", || gateway.get("/").status() == 503);
    let down = health(&gateway);
    let rows = down["upstreams"]["up"]["backends"].as_array().unwrap();
    let row = rows.iter().find(|row| row["reason"] == "dns_error").expect("a row without an address");
    assert_eq!((&row["state"], &row["detail"]), (&"down".into(), &"api.test does not exist".into()));
    assert_eq!(gateway.metric("tidegate_dns_addresses{name=\"api.test\"}"), 0);
    assert!(gateway.metric("tidegate_dns_lookups_total{name=\"api.test\",result=\"no_such_name\"}") > 0);

    dns.name(&[("api.test", &[a.address()])]);
    eventually("it is back", || gateway.get("/").text() == "a");
    await_dns_event(&gateway, "api.test resolves again");
    eventually("it was probed before", || times(&gateway, a.address(), "up") == 2);
}

#[test]
fn addresses_stay_while_no_server_answers() {
    let [a, b] = ["a", "b"].map(|name| Backend::at(own_address(), name));
    let mut dns = Server::dns();
    dns.name(&[("api.test", &[a.address()])]);
    let gateway = Gateway::start(config(dns.address(), "hold: 0s"));
    eventually("it is up", || times(&gateway, a.address(), "up") == 1);

    dns.kill();
    await_dns_event(&gateway, "stay in use meanwhile");
    eventually("some look-ups have failed", || {
        gateway.metric("tidegate_dns_lookups_total{name=\"api.test\",result=\"failed\"}")
            + gateway.metric("tidegate_dns_lookups_total{name=\"api.test\",result=\"timeout\"}")
            > 1
    });
    assert_eq!(gateway.get("/").text(), "a");
    let stale = health(&gateway);
    assert_eq!((&stale["status"], &stale["stale_names"]["api.test"]["addresses"]), (&"healthy".into(), &1.into()));
    assert_eq!(stale["upstreams"]["up"]["status"], "up");

    dns.restart();
    dns.name(&[("api.test", &[b.address()])]);
    eventually("its new address gets traffic", || gateway.get("/").text() == "b");
    await_dns_event(&gateway, "api.test resolves again");
    assert!(health(&gateway).get("stale_names").is_none());
}

#[test]
fn an_edit_of_the_servers_counts_at_once() {
    let a = Backend::at(own_address(), "a");
    let dns = Server::dns();
    dns.name(&[("api.test", &[a.address()])]);
    let gateway = Gateway::start(config(spare_address(), "timeout: 500ms"));
    assert_eq!(gateway.get("/").status(), 503);
    let applied = gateway.edit(config(dns.address(), ""));
    assert_eq!((&applied["event"], &applied["detail"]), (&"reload".into(), &"~dns".into()));
    eventually("it is found", || gateway.get("/").text() == "a");
}

#[test]
fn addresses_of_one_family_may_be_wanted_alone() {
    let a = Backend::at(own_address(), "a");
    let six: SocketAddr = "[2001:db8::7]:8080".parse().unwrap();
    let dns = Server::dns();
    dns.name(&[("api.test", &[a.address(), six])]);
    let gateway = Gateway::start(config(dns.address(), ""));
    eventually("both are known", || gateway.metric("tidegate_dns_addresses{name=\"api.test\"}") == 2);
    gateway.edit(config(dns.address(), "family: ipv4"));
    eventually("one is left", || gateway.metric("tidegate_dns_addresses{name=\"api.test\"}") == 1);
    eventually("it gets traffic", || gateway.get("/").text() == "a");
}

#[test]
fn an_answer_too_large_for_a_packet_is_taken_whole_and_cut_to_the_lowest() {
    let many: Vec<SocketAddr> = (0..300u32).map(|i| SocketAddr::from((Ipv4Addr::from(0x7f09_0000 + i), 0))).collect();
    let dns = Server::dns();
    dns.name(&[("api.test", &many)]);
    let gateway = Gateway::start(config(dns.address(), ""));
    eventually("as many as may be", || gateway.metric("tidegate_dns_addresses{name=\"api.test\"}") == 256);
    let health = health(&gateway);
    let rows = health["upstreams"]["up"]["backends"].as_array().unwrap();
    let has = |address: &str| rows.iter().any(|row| row["name"] == format!("api.test:8080@{address}"));
    assert!(has("127.9.0.0") && has("127.9.0.255") && !has("127.9.1.0"));
}

#[test]
fn the_next_server_is_asked_where_one_fails() {
    let a = Backend::at(own_address(), "a");
    let [refusing, knowing] = [Server::dns(), Server::dns()];
    // Of names outside `.test` that it has no address for, dnsmasq says that it may not say anything, here of AAAA, too.
    knowing.name(&[("api.example", &[a.address()])]);
    let servers =
        [spare_address(), refusing.address(), knowing.address()].map(|server| format!("\"{server}\"")).join(", ");
    let gateway = Gateway::start(config_of(&servers, "").replace("api.test", "api.example"));
    eventually("it is found", || gateway.get("/").text() == "a");
    assert!(gateway.metric("tidegate_dns_lookups_total{name=\"api.example\",result=\"ok\"}") > 0);
}

#[test]
fn a_name_that_leads_to_a_written_address_is_that_backend_and_it_is_told() {
    let (a, b) = (Backend::at(own_address(), "a"), Backend::at(own_address(), "b"));
    let dns = Server::dns();
    dns.name(&[("api.test", &[b.address()])]);
    let written = format!("[{{ url: \"http://{}\", weight: 3 }}, api.test:8080]", a.address());
    let gateway = Gateway::start(config(dns.address(), "").replace("[api.test:8080]", &written));
    let up = || gateway.ask_admin("/api/v1/upstreams/up").json();
    eventually("both are there", || up()["backends"].as_array().unwrap().len() == 2);
    assert_eq!(up()["aliases"], serde_json::json!([]));

    dns.name(&[("api.test", &[a.address(), b.address()])]);
    let alias = format!("api.test:8080@{}", a.address().ip());
    await_dns_event(&gateway, &format!("{alias} of up has the address of {}: they are one backend", a.address()));
    let up = up();
    let names: Vec<&str> = up["backends"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, [a.address().to_string(), format!("api.test:8080@{}", b.address().ip())]);
    assert_eq!(up["backends"][0]["weight"], 3);
    assert_eq!(up["aliases"], serde_json::json!([{ "name": alias, "backend": a.address().to_string() }]));
    let one = gateway.ask_admin(&format!("/api/v1/upstreams/up/backends/{}", a.address())).json();
    assert_eq!(one["aliases"], serde_json::json!([alias]));
}
