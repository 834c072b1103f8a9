//! What a gateway goes through in months, in seconds. `make soak` runs the long forms and shows the figures.

use std::{
    collections::BTreeSet,
    env, fmt,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Account, Backend, Client, Gateway, Load, Response, Server, alone, completed, eventually, replace,
};

#[test]
fn reloads_under_load_fail_no_request() {
    let _alone = alone();
    let reloads = short_or_long(100, 1_000);
    let servers = ["one", "two", "three"].map(Server::nginx);
    let [one, two, three] = servers.each_ref().map(Server::address);
    // Each edit changes something of every kind, and moves a route by which it is seen to be live.
    let config = |edit: u64| {
        let (even, weight) = (edit.is_multiple_of(2), edit % 7 + 1);
        let sometimes = if even { format!("      - {three}\n") } else { String::new() };
        let interval = if even { 2 } else { 3 };
        format!(
            r#"
admin: {{ bind: "127.0.0.1:0" }}
limits:
  ample: {{ rate: {}/s, by: global }}
upstreams:
  app:
    backends:
      - {one}
      - {{ url: "http://{two}", weight: {weight} }}
{sometimes}
    health: {{ active: {{ path: /health, interval: {interval}s, timeout: 1500ms }} }}
routes:
  - {{ path: /, to: app, limit: ample }}
  - {{ path: /edit-{edit}, to: [{two}, {three}], health: /health }}
"#,
            1_000_000 + edit
        )
    };
    let gateway = Gateway::start(config(0));
    let load = match is_long() {
        true => Load::relentless(32),
        false => Load::steady(32, 1_000),
    };
    let load = load.get(gateway.address(), "/");
    let mut took = Vec::new();
    for edit in 1..=reloads {
        replace(&gateway.config(), &completed(&config(edit)));
        // Not before: on a busy disk the file system may take seconds to let go of the file that was replaced.
        let saved = Instant::now();
        eventually("the edit is live", || gateway.get(&format!("/edit-{edit}")).status() == 200);
        took.push(saved.elapsed());
        assert_eq!(gateway.get(&format!("/edit-{}", edit - 1)).status(), 404, "the edit before is gone");
    }
    let account = load.stop();
    took.sort_unstable();
    let (median, worst) = (ms(took[took.len() / 2]), ms(took[took.len() - 1]));
    tell(
        "reloads",
        &gateway,
        &account,
        format!("{reloads} edits, each live {median} (median), {worst} (worst) after it was saved"),
    );
    account.assert_flawless();
    assert_eq!(health(gateway.admin())["config"]["generation"], reloads + 1);
}

#[test]
fn a_backend_killed_and_restarted_under_load_fails_no_get() {
    let _alone = alone();
    let seconds = short_or_long(10, 60);
    let mut servers = ["one", "two", "three"].map(Server::nginx);
    let backends = servers.each_ref().map(|server| server.address().to_string()).join(", ");
    let gateway = Gateway::start(format!(
        r#"
routes:
  - path: /*
    to: [{backends}]
    health: {{ active: {{ path: /health, interval: 1s, interval_changing: 50ms, timeout: 900ms }} }}
"#
    ));
    let went = |to: &str, backend: SocketAddr| {
        let is_meant = |event: &Value| event["to"] == to && event["backend"] == backend.to_string();
        gateway.events(is_meant).len()
    };
    servers.iter().for_each(|server| drop(gateway.await_backend(server.address(), "up")));

    let load = Load::steady(32, 1_000).get(gateway.address(), "/");
    let mut kills = 0;
    while load.answered() < seconds * 1_000 {
        let victim = &mut servers[kills % 3];
        let (downs, ups) = (went("down", victim.address()), went("up", victim.address()));
        victim.kill();
        eventually("the killed one is down", || went("down", victim.address()) > downs);
        load.goes_on_for(200);
        victim.restart();
        eventually("it is up again", || went("up", victim.address()) > ups);
        load.goes_on_for(200);
        kills += 1;
    }
    let account = load.stop();
    tell("kills", &gateway, &account, format!("{kills} times killed and restarted"));
    account.assert_flawless();
}

#[test]
fn a_hundred_thousand_clients_are_each_limited_in_bounded_memory() {
    const BURST: u64 = 3;
    // Every tenth request is of a client that comes again and again, the others are of clients that come once.
    const REQUESTS: u64 = 110_000;
    const ONCE: u64 = REQUESTS / 10 * 9;
    const EAGER: u64 = 1_000;
    const KEYS: u64 = ONCE + EAGER;
    let _alone = alone();
    let backend = Server::nginx("one");
    let gateway = Gateway::start(format!(
        r#"
limits:
  per-client: {{ rate: 1/h, burst: {BURST}, by: header x-client, max_keys: {KEYS} }}
upstreams:
  app: {{ backends: [{}], health: none }}
routes:
  - {{ path: /, to: app }}
  - {{ path: /client, to: app, limit: per-client }}
"#,
        backend.address()
    ));
    let of = |client: String| format!("GET /client HTTP/1.1\r\nhost: gateway.test\r\nx-client: {client}\r\n\r\n");
    Load::of(5_000, 16).get(gateway.address(), "/").finish();
    let empty = gateway.resident();

    let client = |number: u64| match number % 10 {
        0 => format!("eager-{}", number / 10 % EAGER),
        _ => format!("once-{number}"),
    };
    let account = Load::of(REQUESTS, 16).start(gateway.address(), move |number| of(client(number))).finish();
    let full = gateway.resident();
    assert_eq!(account.with(200) + account.with(429), REQUESTS, "{account:#?}");
    let (eager, once): (Vec<_>, Vec<_>) = account.bodies.iter().partition(|(client, _)| client.starts_with("eager"));
    assert_eq!((eager.len() as u64, once.len() as u64), (EAGER, ONCE), "everybody's first request is admitted");
    assert!(eager.iter().all(|(_, admitted)| **admitted == BURST), "{eager:?}");
    assert!(once.iter().all(|(_, admitted)| **admitted == 1), "{once:?}");

    // There is no room for these: they share what one client may have, and take no memory.
    let late = short_or_long(20_000, 1_000_000);
    let strangers = Load::of(late, 16).start(gateway.address(), move |number| of(format!("late-{number}"))).finish();
    let after = gateway.resident();
    let (keys, more) = (full.saturating_sub(empty), after.saturating_sub(full));
    tell("keys", &gateway, &account, format!("{KEYS} keys take {}, {late} without room {}", mib(keys), mib(more)));
    assert_eq!((strangers.with(200), strangers.with(429)), (BURST, late - BURST), "{strangers:#?}");
    assert!(keys < 32 << 20, "{KEYS} keys take {}", mib(keys));
    assert!(more < 8 << 20, "{late} keys without room take {}", mib(more));
}

#[test]
fn a_log_that_nobody_reads_stops_no_request_and_every_line_is_accounted_for() {
    let _alone = alone();
    let requests = short_or_long(6_000, 200_000);
    let backend = Server::nginx("one");
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("access.log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // A pipe opens for writing once somebody may read.
    let both_ends = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let gateway = Gateway::start(format!(
        r#"
admin: {{ bind: "127.0.0.1:0" }}
telemetry: {{ access_log: {{ to: {} }} }}
routes:
  - {{ path: /*, to: {}, health: none }}
"#,
        pipe.display(),
        backend.address()
    ));
    let reader = File::open(&pipe).unwrap();
    drop(both_ends);

    // Long lines fill the queue soon.
    let agent = "a".repeat(1_900);
    let request = format!("GET / HTTP/1.1\r\nhost: gateway.test\r\nuser-agent: {agent}\r\n\r\n");
    let before = gateway.resident();
    let account = Load::of(requests, 16).start(gateway.address(), move |_| request.clone()).finish();
    let growth = gateway.resident().saturating_sub(before);
    account.assert_flawless();
    let lost = || sample(gateway.admin(), "tidegate_access_log_dropped_total");
    let written = || sample(gateway.admin(), "tidegate_access_log_lines_total");
    eventually("lines are lost, and counted", || lost() > 0);
    assert!(growth < 32 << 20, "what waits for the log takes {}", mib(growth));

    let read = thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).collect::<Vec<_>>());
    eventually("every request was logged or lost", || written() + lost() == requests);
    let (written, lost) = (written(), lost());
    tell("log", &gateway, &account, format!("{written} lines written, {lost} lost"));
    assert_eq!(gateway.stop(), 0);

    let lines = read.join().unwrap();
    assert_eq!(lines.len() as u64, written, "as many as were counted arrived");
    let id = |line: &String| serde_json::from_str::<Value>(line).unwrap()["request_id"].as_str().unwrap().to_owned();
    assert_eq!(lines.iter().map(id).collect::<BTreeSet<_>>().len(), lines.len(), "whole, and each once");
}

/// What retries do for clients, and to backends, where one of three is half broken, and where all are.
#[test]
fn retries_hide_what_is_half_broken_and_add_no_more_than_their_budget_to_an_outage() {
    let _alone = alone();
    let rate = short_or_long(300, 2_000);
    let requests = rate * short_or_long(3, 30);
    let (half, all) = (sick_backends(1, 2), sick_backends(3, 1));
    eprintln!(
        "{:<12} {:<10} {:>8} {:>7} {:>8} {:>8} {:>8}",
        "outage", "retries", "requests", "errors", "sent", "retried", "refused"
    );
    let drill = |outage: &str, backends: &[Backend; 3], named: &str, retries: &str| {
        let sent_before: usize = backends.iter().map(Backend::hits).sum();
        let [one, two, three] = backends.each_ref().map(Backend::address);
        let gateway = Gateway::start(format!(
            r#"
admin: {{ bind: "127.0.0.1:0" }}
defaults: {{ retries: {{ {retries} }} }}
upstreams: {{ app: {{ backends: ["{one}", "{two}", "{three}"], health: {{ passive: none }} }} }}
routes: [{{ path: /*, to: app }}]
"#
        ));
        let load = Load { total: Some(requests), ..Load::steady(32, u32::try_from(rate).unwrap()) };
        let account = load.get(gateway.address(), "/").finish();
        let count = |result| {
            gateway.metric(&format!("tidegate_upstream_retries_total{{upstream=\"app\",result=\"{result}\"}}"))
        };
        let sent = backends.iter().map(Backend::hits).sum::<usize>() as u64 - sent_before as u64;
        let errors = requests - account.with(200);
        let (retried, refused) = (count("sent") as u64, count("budget_spent"));
        eprintln!("{outage:<12} {named:<10} {requests:>8} {errors:>7} {sent:>8} {retried:>8} {refused:>8}");
        assert!(account.unanswered.is_empty(), "{account:#?}");
        assert_eq!(sent, requests + retried, "every retry is counted");
        (errors, sent)
    };
    let unbounded = "attempts: 3, budget: 100%, min_retries: 1000000";
    let (errors, sent) = drill("half of one", &half, "off", "attempts: 0");
    assert!((requests / 10..requests / 4).contains(&errors) && sent == requests, "a sixth: {errors}");
    let (errors, _) = drill("half of one", &half, "on", "min_retries: 30");
    assert_eq!(errors, 0);
    assert_eq!(drill("half of one", &half, "no budget", unbounded).0, 0);

    assert_eq!(drill("all", &all, "off", "attempts: 0"), (requests, requests));
    let (errors, sent) = drill("all", &all, "on", "attempts: 3, min_retries: 30");
    assert_eq!(errors, requests);
    assert!(sent <= requests * 6 / 5 + 30, "{sent}");
    assert_eq!(drill("all", &all, "no budget", unbounded).1, requests * 4);
}

/// What a second backend does for the slowest requests, where one of three is slow now and then.
#[test]
fn hedging_cuts_the_tail_of_a_backend_that_is_slow_now_and_then() {
    let _alone = alone();
    let rate = short_or_long(200, 1_000);
    let requests = rate * short_or_long(3, 30);
    let quick = || Backend::named("quick");
    let slow = Backend::named("slow");
    let asked = AtomicU64::new(0);
    slow.behave(move |peer, _| {
        if asked.fetch_add(1, Relaxed).is_multiple_of(5) {
            thread::sleep(Duration::from_millis(300));
        }
        peer.respond("200 OK", "slow")
    });
    let backends = [slow, quick(), quick()];
    let [one, two, three] = backends.each_ref().map(Backend::address);
    let drill = |retries: &str| {
        let sent_before: usize = backends.iter().map(Backend::hits).sum();
        let gateway = Gateway::start(format!(
            "routes: [{{ path: /*, to: [\"{one}\", \"{two}\", \"{three}\"], health: none, retries: {{ {retries} }} }}]\n"
        ));
        let load = Load { total: Some(requests), ..Load::steady(64, u32::try_from(rate).unwrap()) };
        let account = load.get(gateway.address(), "/").finish();
        let sent = backends.iter().map(Backend::hits).sum::<usize>() - sent_before;
        tell("hedging", &gateway, &account, format!("{{ {retries} }}: {sent} sent for {requests}"));
        account.assert_flawless();
        account.percentile(99)
    };
    let (without, with) = (drill("attempts: 1"), drill("hedge_after: 50ms"));
    assert!(without >= Duration::from_millis(250), "{without:?}");
    assert!(with < Duration::from_millis(250), "{with:?}");
}

/// Three backends, of which the first so many answer every so manieth request with 503.
fn sick_backends(sick: usize, every: u64) -> [Backend; 3] {
    [0, 1, 2].map(|number| {
        let asked = AtomicU64::new(0);
        Backend::scripted(move |peer, _| {
            let is_bad = number < sick && asked.fetch_add(1, Relaxed).is_multiple_of(every);
            let status = if is_bad { "503 Service Unavailable" } else { "200 OK" };
            peer.respond(status, "said")
        })
    })
}

pub fn is_long() -> bool {
    env::var_os("TIDEGATE_SOAK").is_some()
}

pub fn short_or_long(short: u64, long: u64) -> u64 {
    if is_long() { long } else { short }
}

/// One line of figures.
fn tell(drill: &str, gateway: &Gateway, account: &Account, what: impl fmt::Display) {
    let Account { requests, statuses, unanswered, .. } = account;
    let (p50, p99) = (ms(account.percentile(50)), ms(account.percentile(99)));
    let (unanswered, resident) = (unanswered.len(), mib(gateway.resident()));
    eprintln!("{drill}: {what}");
    eprintln!(
        "{drill}: {requests} requests, {statuses:?}, {unanswered} unanswered, p50 {p50}, p99 {p99}, {resident} resident"
    );
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn health(admin: SocketAddr) -> Value {
    serde_json::from_str(ask(admin, "/health").text()).unwrap()
}

/// The value of a metric that has no labels.
#[track_caller]
fn sample(admin: SocketAddr, metric: &str) -> u64 {
    let scrape = ask(admin, "/metrics");
    let value = scrape.text().lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {metric} in {}", scrape.text()))
}

fn ask(admin: SocketAddr, path: &str) -> Response {
    Client::connect(admin).send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).response()
}
