//! An edit costs nothing that it did not name, and a bad one changes nothing.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Backend, Client, Gate, Gateway, Launch, completed, eventually, own_address, replace, route, upstream,
};

const HEALTH: &str = "health: { active: { path: /healthz, interval: 500ms, interval_changing: 20ms, timeout: 450ms, unhealthy_after: 2 } }";

/// A config that differs from another in a route that nobody asks.
fn with_another_route(config: &str) -> String {
    config.replace("routes: [", "routes: [{ path: /added, to: \"127.0.0.1:9\", health: none }, ")
}

#[test]
fn verdicts_survive_an_edit() {
    let [sick, well] = ["sick", "well"].map(Backend::named);
    sick.feel(false);
    let config = upstream(&[sick.address(), well.address()], HEALTH);
    let gateway = Gateway::start(&config);
    gateway.await_backend(sick.address(), "down");
    gateway.await_backend(well.address(), "up");
    let events = gateway.events(|event| event["event"] == "backend").len();
    assert_eq!(gateway.edit(with_another_route(&config))["event"], "reload");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "well");
    }
    assert_eq!(gateway.events(|event| event["event"] == "backend").len(), events, "nothing was asked anew");
    assert_eq!(sick.hits(), 0);
}

#[test]
fn verdicts_survive_an_edit_of_their_own_upstream() {
    let [sick, well, new] = ["sick", "well", "new"].map(Backend::named);
    sick.feel(false);
    let gateway = Gateway::start(upstream(&[sick.address(), well.address()], HEALTH));
    gateway.await_backend(sick.address(), "down");
    gateway.await_backend(well.address(), "up");
    // One more backend, another limit, another check.
    let check = HEALTH.replace("unhealthy_after: 2", "unhealthy_after: 3");
    let all = [sick.address(), well.address(), new.address()];
    assert_eq!(gateway.edit(upstream(&all, &format!("{check}, max_in_flight: 7")))["event"], "reload");
    gateway.await_backend(new.address(), "up");
    for _ in 0..10 {
        assert_ne!(gateway.get("/").text(), "sick");
    }
    assert_eq!(sick.hits(), 0);
}

#[test]
fn an_edit_says_what_becomes_of_backends() {
    let [stays, goes, comes] = ["stays", "goes", "comes"].map(Backend::named);
    let config = |backends: &[&Backend], fields: &str| {
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address()).collect();
        format!("admin: {{ bind: \"127.0.0.1:0\" }}\n{}", upstream(&addresses, fields))
    };
    let gateway = Gateway::start(config(&[&stays, &goes], HEALTH));
    gateway.await_backend(stays.address(), "up");
    let event = gateway.edit(config(&[&comes, &stays], HEALTH));
    assert_eq!(event["detail"], "~1 upstream; backends: 1 kept, 1 new, 1 draining");
    let status = gateway.ask_admin("/api/v1/status").json();
    let named = |fate: &str, backend: &Backend| serde_json::json!({ "fate": fate, "count": 1, "names": [format!("up/{}", backend.address())] });
    let told = [named("kept", &stays), named("new", &comes), named("draining", &goes)];
    assert_eq!(status["config"]["last_attempt"]["backends"], serde_json::json!(told));
    // Nothing is said where nothing becomes of them.
    let event = gateway.edit(config(&[&comes, &stays], &format!("{HEALTH}, max_in_flight: 7")));
    assert_eq!(event["detail"], "~1 upstream");
    let check = HEALTH.replace("unhealthy_after: 2", "unhealthy_after: 3");
    let event = gateway.edit(config(&[&comes, &stays], &check));
    assert_eq!(event["detail"], "~1 upstream; backends: 2 re-probing");
}

#[test]
fn spent_buckets_survive_an_edit_and_a_changed_limit_starts_anew() {
    let backend = Backend::start();
    let config = |rate: &str| {
        format!("limits: {{ calls: {{ rate: {rate}, burst: 1 }} }}\n{}", route(&[backend.address()], "limit: calls"))
    };
    let gateway = Gateway::start(config("1/h"));
    assert_eq!(gateway.get("/").status(), 200);
    assert_eq!(gateway.get("/").status(), 429);
    gateway.edit(with_another_route(&config("1/h")));
    assert_eq!(gateway.get("/").status(), 429);
    gateway.edit(config("2/h"));
    assert_eq!(gateway.get("/").status(), 200);
}

#[test]
fn pooled_connections_survive_an_edit() {
    let backend = Backend::start();
    let config = format!("workers: 1\n{}", upstream(&[backend.address()], ""));
    let gateway = Gateway::start(&config);
    gateway.get("/");
    gateway.edit(with_another_route(&config));
    gateway.get("/");
    gateway.edit(config.replace("backends:", "max_in_flight: 9, backends:"));
    gateway.get("/");
    assert_eq!((backend.hits(), backend.connections()), (3, 1));
}

#[test]
fn clients_connections_survive_an_edit() {
    let backend = Backend::start();
    let config = route(&[backend.address()], "");
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect();
    assert_eq!(client.get("/added").text(), "hello");
    gateway.edit(with_another_route(&config));
    assert_eq!(client.get("/").text(), "hello");
    // The same connection, the new routes.
    assert_eq!(client.get("/added").status(), 502);
}

#[test]
fn a_request_in_flight_survives_the_removal_of_its_route() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        hold.wait()?;
        peer.respond("200 OK", "late")
    });
    let other = Backend::named("other");
    let gateway = Gateway::start(route(&[backend.address()], "name: old"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 1);
    gateway.edit(route(&[other.address()], "name: new"));
    assert_eq!(gateway.get("/").text(), "other");
    gate.open();
    assert_eq!(client.response().text(), "late");
    assert_eq!(client.get("/").text(), "other");
}

#[test]
fn no_request_fails_while_edits_come_and_go() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let gateway = Gateway::start(upstream(&[a.address(), b.address()], ""));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    assert_eq!(client.get("/").status(), 200);
                }
            });
        }
        for round in 1..=10 {
            let backends = if round % 2 == 0 { vec![a.address(), b.address()] } else { vec![b.address()] };
            assert_eq!(gateway.edit(upstream(&backends, &format!("max_in_flight: 10{round}")))["event"], "reload");
        }
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn a_bad_edit_changes_nothing_and_says_so() {
    let backend = Backend::start();
    let config = format!("workers: 1\n{}", route(&[backend.address()], ""));
    let gateway = Gateway::start(&config);
    gateway.get("/");
    let refused = gateway.edit(config.replace("path: /*", "path: /*, tp: x, timeouts: { request: 3 }"));
    assert_eq!(refused["event"], "refused");
    assert_eq!((&refused["generation"], &refused["errors"]), (&1.into(), &2.into()));
    assert!(refused["findings"].to_string().contains("tp"), "{refused}");
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(backend.connections(), 1);
    // And the next good one applies.
    assert_eq!(gateway.edit(with_another_route(&config))["generation"], 2);
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let refused = gateway.after_edit(|| fs::remove_file(gateway.config()).unwrap());
    assert_eq!(refused["event"], "refused");
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(gateway.edit(route(&[backend.address()], "name: back"))["event"], "reload");
}

#[test]
fn a_backend_that_was_removed_gets_nothing_once_the_edit_is_told() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let gateway = Gateway::start(upstream(&[old.address()], ""));
    for round in 0..20 {
        let (stays, goes) = if round % 2 == 0 { (&new, &old) } else { (&old, &new) };
        assert_eq!(gateway.edit(upstream(&[stays.address()], ""))["event"], "reload");
        let hits = goes.hits();
        gateway.get("/");
        assert_eq!(goes.hits(), hits, "round {round}");
    }
}

/// An edit must leave so many backends fit.
fn gated(min_healthy: &str, config: &str) -> String {
    let admin = "admin: { bind: \"127.0.0.1:0\" }\n";
    format!("{admin}reload: {{ debounce: 10ms, min_healthy: {min_healthy} }}\n{config}")
}

#[test]
fn an_edit_to_backends_that_are_not_fit_is_refused_and_goes_live_once_they_are() {
    let [old, new] = ["old", "new"].map(Backend::named);
    new.stop();
    let gateway = Gateway::start(gated("50%", &upstream(&[old.address()], HEALTH)));
    gateway.await_backend(old.address(), "up");
    let refused = gateway.edit(gated("50%", &upstream(&[new.address()], HEALTH)));
    assert_eq!((&refused["event"], &refused["generation"]), (&"refused".into(), &1.into()));
    let finding = refused["findings"][0].as_str().unwrap();
    let says = format!(
        "error[E0410]: upstream `up` would have 0 of 1 backends fit, and reload.min_healthy is 50% (`{}` connect refused)",
        new.address()
    );
    assert!(finding.starts_with(&says) && finding.ends_with("tidegate.yaml:4:1"), "{finding}");
    assert_eq!(gateway.get("/").text(), "old");
    assert_eq!(gateway.ask_admin("/health").json()["config"]["last_attempt"]["ok"], false);
    assert_eq!(gateway.metric("tidegate_config_last_reload_successful"), 0);
    let probes = old.probes();
    eventually("the old one is asked as before", || old.probes() > probes);
    new.restart();
    let live = gateway.await_event("the edit goes live", |event| event["event"] == "reload");
    assert_eq!((&live["by"], &live["generation"]), (&"retry".into(), &2.into()));
    eventually("the new one serves", || gateway.get("/").text() == "new");
    assert_eq!(gateway.events(|event| event["event"] == "refused").len(), 1, "told once");
    assert_eq!(gateway.metric("tidegate_config_reloads_total{result=\"refused\"}"), 1);
    assert_eq!(gateway.metric("tidegate_config_last_reload_successful"), 1);
}

#[test]
fn an_edit_that_its_backends_hold_up_can_be_taken_back() {
    let [old, new] = ["old", "new"].map(Backend::named);
    new.stop();
    let config = gated("50%", &upstream(&[old.address()], HEALTH));
    let gateway = Gateway::start(&config);
    gateway.await_backend(old.address(), "up");
    let edit = gated("50%", &upstream(&[new.address()], HEALTH));
    assert_eq!(gateway.edit(&edit)["event"], "refused");
    assert_eq!(gateway.edit(&config)["detail"], "nothing changed");
    // Who lowers the bar in the same edit is let through.
    assert_eq!(gateway.edit(edit.replace("50%", "0%"))["event"], "reload");
}

#[test]
fn the_gate_counts_verdicts_of_backends_that_stay_and_leaves_other_upstreams_alone() {
    let [sick, well, new, other] = ["sick", "well", "new", "other"].map(Backend::named);
    sick.feel(false);
    other.feel(false);
    let config = |backends: &[&Backend]| {
        let list: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.address())).collect();
        let (list, other) = (list.join(", "), other.address());
        let upstreams =
            format!("up: {{ backends: [{list}], {HEALTH} }}, other: {{ backends: [\"{other}\"], {HEALTH} }}");
        gated(
            "50%",
            &format!("upstreams: {{ {upstreams} }}\nroutes: [{{ path: /*, to: up }}, {{ path: /o, to: other }}]\n"),
        )
    };
    let gateway = Gateway::start(config(&[&sick, &well]));
    gateway.await_backend(sick.address(), "down");
    gateway.await_backend(well.address(), "up");
    gateway.await_backend(other.address(), "down");
    // Without the one that is well there is only the other one.
    let refused = gateway.edit(config(&[&sick]));
    let finding = refused["findings"][0].as_str().unwrap();
    assert!(finding.contains("would have 0 of 1 backends fit") && finding.contains("status 503"), "{finding}");
    // `other` is out of order as a whole, and in nobody's way.
    assert_eq!(gateway.edit(config(&[&sick, &well, &new]))["event"], "reload");
}

#[test]
fn an_edit_that_mends_an_outage_in_part_goes_live() {
    let [sick, well] = ["sick", "well"].map(Backend::named);
    sick.feel(false);
    let config = |backends: &[&Backend]| {
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address()).collect();
        gated("100%", &upstream(&addresses, HEALTH))
    };
    // And the start is not held up.
    let gateway = Gateway::start(config(&[&sick]));
    gateway.await_backend(sick.address(), "down");
    assert_eq!(gateway.edit(config(&[&sick, &well]))["event"], "reload");
}

#[test]
fn a_check_that_nobody_passes_is_refused() {
    let backend = Backend::start();
    let gateway = Gateway::start(gated("1%", &upstream(&[backend.address()], HEALTH)));
    gateway.await_backend(backend.address(), "up");
    let check = HEALTH.replace("path: /healthz", "path: /healthz, expect: { status: 201 }");
    let refused = gateway.edit(gated("1%", &upstream(&[backend.address()], &check)));
    let finding = refused["findings"][0].as_str().unwrap_or_default();
    assert!(finding.contains("status 200, expected 201"), "{refused}");
    let check = HEALTH.replace("unhealthy_after: 2", "unhealthy_after: 3");
    let applied = gateway.edit(gated("1%", &upstream(&[backend.address()], &check)));
    assert_eq!(applied["event"], "reload");
}

#[test]
fn no_request_fails_while_all_backends_are_exchanged_for_others_that_come_up_later() {
    let [old, new] = ["old", "new"].map(Backend::named);
    new.stop();
    let gateway = Gateway::start(upstream(&[old.address()], HEALTH));
    gateway.await_backend(old.address(), "up");
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = gateway.connect();
            let mut served = 0;
            loop {
                let response = client.get("/");
                assert_eq!(response.status(), 200, "after {served} requests: {response:?}");
                match response.text() {
                    "new" => return served,
                    _ => served += 1,
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        assert_eq!(gateway.edit(upstream(&[new.address()], HEALTH))["event"], "reload");
        gateway.await_backend(new.address(), "down");
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(!client.is_finished());
        new.restart();
        assert!(client.join().unwrap() > 0);
    });
    gateway.await_backend(old.address(), "draining");
    let hits = old.hits();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "new");
    }
    assert_eq!(old.hits(), hits);
}

#[test]
fn without_a_watch_an_edit_waits_for_the_signal() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let config = |backend: &Backend| format!("reload: {{ watch: false }}\n{}", route(&[backend.address()], ""));
    let gateway = Gateway::start(config(&old));
    replace(&gateway.config(), &completed(&config(&new)));
    assert_eq!(gateway.get("/").text(), "old");
    let event = gateway.after_edit(|| gateway.signal(Signal::HUP));
    assert_eq!((&event["event"], &event["by"]), (&"reload".into(), &"SIGHUP".into()));
    assert_eq!(gateway.get("/").text(), "new");
}

#[test]
fn a_symlink_that_is_swapped_as_kubernetes_does_it_is_an_edit() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let launch = Launch::default();
    let folder = launch.folder().to_owned();
    for (version, backend) in [("..v1", &old), ("..v2", &new)] {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("tidegate.yaml"), completed(&route(&[backend.address()], ""))).unwrap();
    }
    symlink("..v1", folder.join("..data")).unwrap();
    symlink("..data/tidegate.yaml", folder.join("tidegate.yaml")).unwrap();
    let gateway = launch.start_on_what_is_there();
    assert_eq!(gateway.get("/").text(), "old");
    let event = gateway.after_edit(|| {
        symlink("..v2", folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    });
    assert_eq!(event["event"], "reload");
    assert_eq!(gateway.get("/").text(), "new");
}

#[test]
fn a_file_that_is_written_in_place_is_an_edit() {
    let [old, new] = ["old", "new"].map(Backend::named);
    let gateway = Gateway::start(route(&[old.address()], ""));
    let event = gateway.after_edit(|| fs::write(gateway.config(), completed(&route(&[new.address()], ""))).unwrap());
    assert_eq!(event["event"], "reload");
    assert_eq!(gateway.get("/").text(), "new");
}

#[test]
fn listeners_come_and_go() {
    let backend = Backend::start();
    let extra = own_address();
    let config = |more: &str| {
        format!("listeners: {{ main: {{ bind: \"127.0.0.1:0\" }}{more} }}\n{}", route(&[backend.address()], ""))
    };
    let gateway = Gateway::start(config(""));
    let mut old = gateway.connect();
    assert_eq!(old.get("/").status(), 200);
    let with_extra = config(&format!(", extra: {{ bind: \"{extra}\" }}"));
    assert_eq!(gateway.edit(&with_extra)["event"], "reload");
    let mut client = Client::connect(extra);
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(old.get("/").status(), 200);
    // Renamed, it goes on to accept.
    assert_eq!(gateway.edit(with_extra.replace("extra", "other"))["event"], "reload");
    assert_eq!(Client::connect(extra).get("/").text(), "hello");
    assert_eq!(gateway.edit(config(""))["event"], "reload");
    eventually("it does not accept any more", || std::net::TcpStream::connect(extra).is_err());
    assert_eq!(client.rest(), "", "idle connections of a listener that went are closed");
    assert_eq!(old.get("/").status(), 200);
}

#[test]
fn a_request_in_flight_survives_the_removal_of_its_listener() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        hold.wait()?;
        peer.respond("200 OK", "late")
    });
    let extra = own_address();
    let config = |more: &str| {
        format!("listeners: {{ main: {{ bind: \"127.0.0.1:0\" }}{more} }}\n{}", route(&[backend.address()], ""))
    };
    let gateway = Gateway::start(config(&format!(", extra: {{ bind: \"{extra}\" }}")));
    let mut client = Client::connect(extra);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the backend has it", || backend.hits() == 1);
    assert_eq!(gateway.edit(config(""))["event"], "reload");
    gate.open();
    assert_eq!(client.response().text(), "late");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_edit() {
    let backend = Backend::start();
    let taken = own_address();
    let _holder = std::net::TcpListener::bind(taken).unwrap();
    let config = |more: &str| {
        format!("listeners: {{ main: {{ bind: \"127.0.0.1:0\" }}{more} }}\n{}", route(&[backend.address()], ""))
    };
    let gateway = Gateway::start(config(""));
    let refused = gateway.edit(config(&format!(", extra: {{ bind: \"{taken}\" }}")));
    assert_eq!(refused["event"], "refused");
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn a_change_of_a_listeners_settings_reaches_new_connections_and_ends_old_ones() {
    let backend = Backend::start();
    let config = |trusted: &str| {
        format!(
            "listeners: {{ main: {{ bind: \"{}\", trusted_proxies: [{trusted}] }} }}\n{}",
            "127.0.0.1:0",
            route(&[backend.address()], "")
        )
    };
    let gateway = Gateway::start(config("10.0.0.0/8"));
    let mut old = gateway.connect();
    let ask = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
    old.send(ask).response();
    assert_eq!(gateway.edit(config("127.0.0.0/8"))["event"], "reload");
    gateway.send(ask);
    let seen: Vec<_> =
        backend.requests().iter().map(|request| request.header("x-forwarded-for").unwrap().to_owned()).collect();
    assert_eq!(seen, ["127.0.0.1", "6.6.6.6, 127.0.0.1"]);
    assert_eq!(old.rest(), "");
}

#[test]
fn an_edit_of_a_file_of_keys_applies() {
    // Of `demo`, and of `other`.
    const DEMO: &str = "sha256:2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea";
    const OTHER: &str = "sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";
    let backend = Backend::start();
    let gateway = Launch::default().file("keys.yaml", format!("acme: {DEMO}\n")).start(format!(
        "auth: {{ partners: {{ api_key: {{ header: x-api-key, keys_file: keys.yaml }} }} }}\n{}",
        route(&[backend.address()], "auth: partners")
    ));
    let ask = |key: &str| gateway.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-api-key: {key}\r\n\r\n")).status();
    assert_eq!((ask("demo"), ask("other")), (200, 401));
    let event = gateway.after_edit(|| replace(&gateway.folder().join("keys.yaml"), &format!("acme: {OTHER}\n")));
    assert_eq!(event["event"], "reload");
    assert_eq!((ask("demo"), ask("other")), (401, 200));
    let event = gateway.after_edit(|| replace(&gateway.folder().join("keys.yaml"), "acme: nonsense\n"));
    assert_eq!(event["event"], "refused");
    assert_eq!((ask("demo"), ask("other")), (401, 200));
}

#[test]
fn a_log_can_be_switched_on_and_off() {
    let backend = Backend::start();
    let config = route(&[backend.address()], "");
    let gateway = Gateway::start(&config);
    gateway.get("/1");
    gateway.edit(format!("telemetry: {{ access_log: {{}} }}\n{config}"));
    gateway.get("/2");
    gateway.edit(&config);
    gateway.get("/3");
    assert_eq!(gateway.await_access_log(1)[0]["path"], "/2");
}

/// A log, for example, that somebody writes there all the time.
#[test]
fn files_beside_the_config_delay_no_edit() {
    let backend = Backend::start();
    let config = format!("reload: {{ debounce: 400ms }}\n{}", route(&[backend.address()], ""));
    let gateway = Gateway::start(&config);
    let (log, stop) = (gateway.folder().join("other.log"), &AtomicBool::new(false));
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        scope.spawn(move || {
            while !stop.load(Relaxed) {
                fs::write(&log, "x").unwrap();
                let _ = tell.send(());
                thread::sleep(Duration::from_millis(10));
            }
        });
        told.iter().take(10).for_each(drop);
        let began = Instant::now();
        let event = gateway.edit(with_another_route(&config));
        stop.store(true, Relaxed);
        assert_eq!(event["event"], "reload");
        // Twice the quiet time, and not ten times.
        assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    });
}

/// A pipe would hold up whoever opens it, and with it signals, probes and the admin listener.
#[test]
fn a_pipe_in_place_of_the_config_is_refused_and_holds_nothing_up() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let refused = gateway.after_edit(|| {
        std::fs::remove_file(gateway.config()).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, gateway.config(), rustix::fs::Mode::RWXU).unwrap();
    });
    assert_eq!(refused["event"], "refused", "{refused}");
    assert_eq!(gateway.get("/").status(), 200);
    assert_eq!(gateway.stop(), 0);
}
