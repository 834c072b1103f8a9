//! What operators do and ask while traffic goes on: drain, why, events.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Backend, Client, Gate, Gateway, Load, Program, Said, at_rest, eventually, refusing, spare_address, upstream,
};

const ADMIN: &str = "admin: { bind: \"127.0.0.1:0\" }\n";

/// A gateway whose upstream `up` has these backends.
fn gateway(backends: &[&Backend], fields: &str) -> Gateway {
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address()).collect();
    Gateway::start(ADMIN.to_owned() + &upstream(&addresses, fields))
}

/// Runs a command against a gateway, as ann.
fn ann(gateway: &Gateway, arguments: &[&str]) -> Said {
    at(gateway.admin(), arguments)
}

fn at(admin: SocketAddr, arguments: &[&str]) -> Said {
    let program = Program::new(env!("CARGO_BIN_EXE_tidegate")).env("USER", "ann");
    program.args(arguments).args(["--admin", &admin.to_string()]).run()
}

fn name(backend: &Backend) -> String {
    format!("up/{}", backend.address())
}

/// What the gateway knows of a backend.
fn known(gateway: &Gateway, backend: &Backend) -> Value {
    gateway.ask_admin(&format!("/api/v1/upstreams/up/backends/{}", backend.address())).json()
}

#[test]
fn a_drain_under_load_loses_no_request_and_no_new_one_arrives() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let gateway = gateway(&[&a, &b], "");
    let load = Load::steady(16, 400).get(gateway.address(), "/");
    load.goes_on_for(100);
    let said = ann(&gateway, &["drain", &name(&a), "--wait", "--timeout", "30s", "--reason", "deploy"]);
    assert_eq!(said.code, Some(0), "{}{}", said.text(), said.err);
    assert!(said.line(&format!("{} draining: no new requests; ", name(&a))).ends_with(" open"));
    assert!(said.line("drained in ").ends_with(&format!(" finished, 0 cut). Undo: tidegate undrain {}", name(&a))));
    at_rest("requests to the drained one", || a.hits());
    let hits = a.hits();
    load.goes_on_for(200);
    assert_eq!(a.hits(), hits);
    load.stop().assert_flawless();
    let drained = gateway.await_backend(a.address(), "draining");
    assert_eq!((&drained["source"], &drained["detail"]), (&"operator".into(), &"drained by ann: deploy".into()));
    let status = ann(&gateway, &["status"]).text();
    assert!(status.contains("draining") && status.contains("drained by ann: deploy"), "{status}");
}

#[test]
fn a_request_under_way_is_waited_for() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |peer, _| {
        held.wait()?;
        peer.respond("200 OK", "late")
    });
    let gateway = gateway(&[&backend], "");
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: gateway.test\r\n\r\n");
    eventually("the request is under way", || backend.hits() == 1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["drain", &name(&backend), "--wait", "--admin", &gateway.admin().to_string()]);
    let mut waiting = command.stdout(Stdio::piped()).spawn().unwrap();
    let said = gather(waiting.stdout.take().expect("it is piped"));
    // Not before: what it says first is how many requests there are.
    eventually("it waits", || said.lock().unwrap().ends_with("; 1 open\n"));
    eventually("the oldest is known", || known(&gateway, &backend)["oldest_s"].as_u64() >= Some(1));
    gate.open();
    assert_eq!(client.response().text(), "late");
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    eventually("it says so", || said.lock().unwrap().contains("(1 finished, 0 cut)"));
    assert_eq!(known(&gateway, &backend)["oldest_s"], Value::Null);
}

/// A backend that begins an answer to `/begun`, whose body ends when the connection does, and answers nothing else.
fn never_done() -> Backend {
    Backend::scripted(|peer, request| {
        if request.target() == "/begun" {
            peer.write("HTTP/1.1 200 OK\r\n\r\nhalf")?;
        }
        peer.wait_for_close()
    })
}

/// Asks and does not wait for the answer.
fn ask(gateway: &Gateway, method: &str, path: &str) -> Client {
    let mut client = gateway.connect();
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 0\r\n\r\n"));
    client
}

#[test]
fn what_is_left_at_the_deadline_of_a_drain_is_cut() {
    let backend = never_done();
    let gateway = gateway(&[&backend], "");
    let mut waits = ask(&gateway, "POST", "/");
    let mut reads = ask(&gateway, "GET", "/begun");
    assert_eq!(reads.head().status(), 200);
    assert_eq!(reads.chunk(), b"half");
    eventually("both are under way", || backend.hits() == 2);
    let said = ann(&gateway, &["drain", &name(&backend), "--wait", "--timeout", "300ms"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.text().contains("(0 finished, 2 cut)"), "{}", said.text());
    assert_eq!(waits.response().fault(), (503, "draining".to_owned()));
    assert_eq!(reads.rest(), "", "no last chunk: what was cut does not look whole");
    eventually("no connection is left", || backend.open() == 0 && known(&gateway, &backend)["connections"] == 0);
    assert_eq!(known(&gateway, &backend)["live"]["failures"], 0, "it is not the backend's doing");
}

#[test]
fn a_request_that_is_cut_goes_to_another_backend_where_it_may() {
    let (drained, stays) = (never_done(), Backend::start());
    let backends = upstream(&[drained.address(), stays.address()], "");
    let gateway = Gateway::start(format!("workers: 1\n{ADMIN}{backends}"));
    let mut asked: Vec<Client> = (0..2).map(|_| ask(&gateway, "GET", "/")).collect();
    eventually("one waits", || (drained.hits(), stays.hits()) == (1, 1));
    let said = ann(&gateway, &["drain", &name(&drained), "--wait", "--timeout", "200ms"]);
    assert!(said.text().contains("(0 finished, 1 cut)"), "{}", said.text());
    asked.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    assert_eq!(stays.hits(), 2);
}

#[test]
fn a_drain_survives_an_edit_of_the_file() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let gateway = gateway(&[&a, &b], "");
    assert_eq!(ann(&gateway, &["drain", &name(&a)]).code, Some(0));
    let both = [a.address(), b.address()];
    gateway.edit(format!("{ADMIN}limits: {{ ample: {{ rate: 1000000/s, by: global }} }}\n{}", upstream(&both, "")));
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "b");
    }
    let known = known(&gateway, &a);
    assert_eq!((&known["state"], &known["drain"]["by"]), (&"draining".into(), &"ann".into()));
    assert_eq!(a.hits(), 0);
}

#[test]
fn a_drain_for_a_time_ends_by_itself_and_any_other_by_undrain() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let gateway = gateway(&[&a, &b], "");
    let said = ann(&gateway, &["drain", &name(&a), "--for", "300ms"]);
    assert_eq!(said.code, Some(0));
    assert!(said.line("It ends by itself at ").ends_with(" UTC, in 300ms."), "{}", said.text());
    eventually("it gets requests again", || gateway.get("/").text() == "a");
    assert_eq!(known(&gateway, &a)["changes"][0]["detail"], "the time of its drain is over");

    // The name of the backend alone will do: only one has it.
    assert_eq!(ann(&gateway, &["drain", &a.address().to_string()]).code, Some(0));
    let hits = a.hits();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "b");
    }
    assert_eq!(a.hits(), hits);
    let said = ann(&gateway, &["undrain", &name(&a)]).text();
    assert_eq!(said, format!("{} unchecked: new requests go to it\n", name(&a)));
    eventually("it gets requests again", || gateway.get("/").text() == "a");
    let said = ann(&gateway, &["undrain", &name(&a)]).text();
    assert_eq!(said, format!("{} was not drained; it is unchecked: new requests go to it\n", name(&a)));
}

#[test]
fn without_its_only_backend_an_upstream_refuses() {
    let backend = Backend::start();
    let gateway = gateway(&[&backend], "");
    ann(&gateway, &["drain", &name(&backend)]);
    assert_eq!(gateway.get("/").fault(), (503, "no_healthy_backend".to_owned()));
    let status = ann(&gateway, &["status"]).text();
    assert!(status.contains("\nup: its only backend is drained: requests are refused."), "{status}");
    assert_eq!(backend.hits(), 0);
    ann(&gateway, &["undrain", &name(&backend)]);
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn a_page_of_another_site_cannot_drain() {
    let backend = Backend::start();
    let gateway = gateway(&[&backend], "");
    let order = |fields: &str| {
        let path = format!("/api/v1/upstreams/up/backends/{}/drain", backend.address());
        let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n{fields}\r\n{{}}");
        Client::connect(gateway.admin()).send(request).response()
    };
    assert_eq!(order("content-type: text/plain\r\n").fault(), (415, "not_json".to_owned()));
    let foreign = "content-type: application/json\r\norigin: https://page.example\r\n";
    assert_eq!(order(foreign).fault(), (403, "foreign_host".to_owned()));
    assert_eq!(known(&gateway, &backend)["state"], "unchecked");
    assert_eq!(order("content-type: application/json\r\n").json()["state"], "draining");
}

/// It ends, and meanwhile it is in nobody's way.
#[test]
fn an_order_that_comes_too_slowly_is_refused_and_holds_up_nobody() {
    let backend = Backend::start();
    let gateway = gateway(&[&backend], "");
    let mut slow = Client::connect(gateway.admin());
    let path = format!("/api/v1/upstreams/up/backends/{}/drain", backend.address());
    slow.send(format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{{\"by\""
    ));
    let began = Instant::now();
    assert_eq!(gateway.ask_admin("/livez").status(), 200);
    assert_eq!(known(&gateway, &backend)["state"], "unchecked");
    let said = ann(&gateway, &["drain", &name(&backend)]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    ann(&gateway, &["undrain", &name(&backend)]);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(slow.response().fault(), (408, "too_slow".to_owned()));
    assert!((1_900..20_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(known(&gateway, &backend)["state"], "unchecked");
}

#[test]
fn why_names_the_rule_that_failed_with_status_and_body() {
    let backend = Backend::scripted(|peer, request| match request.target() {
        "/deep" => peer.respond("503 Service Unavailable", r#"{"db":"down"}"#),
        _ => peer.respond("200 OK", "hello"),
    });
    let check = "health: { active: { path: /deep, interval: 500ms, interval_changing: 20ms, timeout: 450ms } }";
    let gateway = gateway(&[&backend], check);
    gateway.await_backend(backend.address(), "down");
    let said = ann(&gateway, &["why", &name(&backend)]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.text().starts_with(&format!("{} DOWN for ", name(&backend))), "{}", said.text());
    assert!(said.text().contains("status 503, expected 200-399"), "{}", said.text());
    assert!(said.text().contains(r#""{"db":"down"}""#), "{}", said.text());
    assert!(said.line("check ").starts_with("GET /deep every 500ms"));
    let document: Value = serde_json::from_str(&ann(&gateway, &["why", &name(&backend), "--json"]).text()).unwrap();
    let probe = &document["probes"][0];
    assert_eq!((&probe["status"], &probe["reason"]), (&503.into(), &"status".into()));
    assert_eq!((&document["changes"][0]["to"], &document["source"]), (&"down".into(), &"active".into()));
    let probes = format!("/api/v1/upstreams/up/backends/{}/probes", backend.address());
    assert_eq!(gateway.ask_admin(&probes).json()[0]["body"], r#"{"db":"down"}"#);
}

#[test]
fn a_wrong_name_is_a_no_and_a_gateway_that_is_not_there_is_trouble() {
    let backend = Backend::start();
    let gateway = gateway(&[&backend], "");
    let near = format!("upp/{}", backend.address());
    for command in ["why", "drain", "undrain"] {
        let said = ann(&gateway, &[command, &near]);
        assert_eq!((said.code, said.text().as_str()), (Some(1), ""));
        assert!(said.err.contains(&format!("Did you mean `{}`?", name(&backend))), "{}", said.err);
    }
    assert_eq!(ann(&gateway, &["drain", &name(&backend), "--reason", "\u{1b}"]).code, Some(2));
    assert_eq!(ann(&gateway, &["events", "--since", "yesterday"]).code, Some(2));
    let (nobody, _socket) = refusing();
    for arguments in [&["why", "a/b"][..], &["drain", "a/b"], &["events"], &["events", "--follow"]] {
        assert_eq!(at(nobody, arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn events_that_were_are_listed_in_the_words_of_the_log() {
    let backend = Backend::start();
    let gateway = gateway(&[&backend], "");
    ann(&gateway, &["drain", &name(&backend), "--reason", "deploy"]);
    let shown = || ann(&gateway, &["events", "--since", "1h"]).text();
    eventually("the drain is told of", || shown().contains("drain "));
    let line = shown().lines().find(|line| line.contains("  drain ")).unwrap().to_owned();
    assert!(line.contains(&format!("up  {}   drained by ann: deploy", backend.address())), "{line}");
    assert!(line.ends_with("0 of 1 left"), "{line}");
    let json = ann(&gateway, &["events", "--json"]).text();
    let last: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(last, *gateway.events(|event| event["event"] == "backend").last().unwrap());
}

/// `tidegate events --follow`, and what it has said so far. Ended when dropped.
struct Follower {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

impl Follower {
    fn start(admin: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["events", "--follow", "--json", "--admin", &admin.to_string()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = gather(child.stdout.take().expect("it is piped"));
        let err = gather(child.stderr.take().expect("it is piped"));
        Self { child, out, err }
    }

    fn has_heard(&self, is_meant: impl Fn(&Value) -> bool) -> usize {
        let out = self.out.lock().unwrap();
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(is_meant).count()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::<Mutex<String>>::default();
    let gathered = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            *gathered.lock().unwrap() += &(line + "\n");
        }
    });
    text
}

#[test]
fn events_are_followed_past_a_restart_and_each_is_heard_once() {
    let (backend, admin) = (Backend::start(), spare_address());
    let config = format!("admin: {{ bind: \"{admin}\" }}\n{}", upstream(&[backend.address()], ""));
    let gateway = Gateway::start(&config);
    let follower = Follower::start(admin);
    let is_ready = |event: &Value| event["stage"] == "ready";
    eventually("what was before is heard", || follower.has_heard(is_ready) == 1);
    let is_drained = |event: &Value| event["to"] == "draining";
    ann(&gateway, &["drain", &name(&backend)]);
    eventually("the drain is heard", || follower.has_heard(is_drained) == 1);
    gateway.stop();
    eventually("it says that it is gone", || follower.err.lock().unwrap().contains("has ended the stream"));
    let _again = Gateway::start(&config);
    eventually("the next process is heard", || follower.has_heard(is_ready) == 2);
    assert!(follower.err.lock().unwrap().contains("answers again"));
    assert_eq!(follower.has_heard(is_drained), 1);
}

#[test]
fn other_thresholds_are_tried_on_the_probes_on_record() {
    let backend = Backend::start();
    let health = "health: { active: { path: /healthz, interval: 100ms, interval_changing: 20ms, timeout: 90ms, unhealthy_after: 1 } }";
    let gateway = gateway(&[&backend], health);
    gateway.await_backend(backend.address(), "up");
    let seen = |state: &str| gateway.events(|event| event["to"] == state).len();
    for outage in 1..=3 {
        backend.feel(false);
        eventually("it is out", || seen("down") == outage);
        backend.feel(true);
        eventually("it is back", || seen("up") == outage + 1);
    }
    let tried = ann(&gateway, &["why", &name(&backend), "--try", "unhealthy_after=1000"]);
    assert_eq!(tried.code, Some(0));
    assert!(tried.text().starts_with("http /healthz: over "), "{}", tried.text());
    assert!(tried.text().contains("out never instead of 3 times"), "{}", tried.text());
    let refused = ann(&gateway, &["why", &name(&backend), "--try", "interval=5s"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("cannot be tried"), "{}", refused.err);
    let path = format!("/api/v1/upstreams/up/backends/{}/backtest?unhealthy_after=x", backend.address());
    assert_eq!(gateway.ask_admin(&path).fault(), (400, "bad_request".to_owned()));
}

#[test]
fn a_check_asks_every_backend_once_where_that_is_wanted() {
    let (alive, (dead, _socket)) = (Backend::start(), refusing());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.yaml");
    let health = "health: { active: [{ path: /healthz }, { type: tcp }] }";
    let check = |backends: &[SocketAddr], arguments: &[&str]| {
        std::fs::write(&file, format!("listen: 8080\n{}", upstream(backends, health))).unwrap();
        let program = Program::new(env!("CARGO_BIN_EXE_tidegate"));
        program.args(["check", file.to_str().unwrap()]).args(arguments).run()
    };
    let quiet = check(&[alive.address()], &[]);
    assert!(quiet.code == Some(0) && quiet.text().contains("nothing was contacted"), "{}", quiet.text());
    assert_eq!(alive.connections(), 0);
    let fit = check(&[alive.address()], &["--probe"]);
    assert!(fit.code == Some(0) && fit.text().ends_with("1 of 1 backend is fit\n"), "{}", fit.text());
    assert_eq!((alive.probes(), alive.connections()), (1, 2));
    let half = check(&[alive.address(), dead], &["--probe"]);
    assert!(half.code == Some(1) && half.text().ends_with("1 of 2 backends are fit\n"), "{}", half.text());
    assert!(half.text().contains("connect refused"), "{}", half.text());
    let json = check(&[dead], &["--probe", "--format", "json"]);
    let lines: Vec<Value> = json.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["verdict"], &lines[0]["reason"]), (&"down".into(), &"connect_refused".into()));
}
