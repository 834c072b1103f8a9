//! The documents from constructed states, the router without sockets, the server with them.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::{Router, body::Body};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::Instant,
};
use tower::ServiceExt as _;

use super::{
    health::{DraftHealth, Health},
    observed::Overall,
    router::{App, Audience, answer, router},
    *,
};
use crate::{
    base::{Name, Percent, Timestamp},
    config::{
        self, Report, Source,
        plan::{Bind, LogFormat, LogLevel},
    },
    control::{Attempt, NameNow, NameRecord, Readiness, Status, Trouble},
    health::{
        self, Answer, Change, Drain, Ejected, Kind, Monitor, Outcome, Probe, Probed, Prober, Record, ResolveError,
    },
    layers::{Identity, PasswordPool},
    proxy::Fault,
    runtime::{CarryOver, Edition, Live, Registry, Resolved, Tokens, Unresolved, build},
    server::{self, Closed},
    telemetry::{
        Counter, Event, EventLog, WorkerId,
        events::Sink,
        exposition::Format,
        metrics::{AttemptOutcome, RequestRecord, RouteMetrics},
    },
    upstream::{Condition, Eligible, Member, Tier, Verdict},
};
use Verdict::{Checking, Degraded, Down, Unchecked, Up};

const CONFIG: &str = "
auth:
  partners: { basic: { users: { ann: '$2b$04$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy' } } }
limits:
  per-client: { rate: 100/s, by: ip }
upstreams:
  orders:
    backends:
      - 10.0.1.11:9001
      - { name: big, url: http://10.0.1.12:9001, weight: 4 }
      - { url: http://10.0.2.10:9001, backup: true }
    health: /healthz
  web: { backends: [127.0.0.1:9010] }
routes:
  - { name: orders, path: /orders/*, to: orders, limit: [per-client], auth: [partners] }
  - { name: web, path: /*, to: web }
";

pub(crate) fn plan(yaml: &str) -> config::Loaded {
    let source = Source { path: "tidegate.yaml".into(), text: format!("listen: 127.0.0.1:8080\n{yaml}") };
    config::load(&source, &|_| None).unwrap_or_else(|report| panic!("{}", report.text(config::Style::Plain)))
}

/// A gateway of which only the control plane exists; no backend was asked yet.
pub(crate) fn gateway(yaml: &str) -> Arc<Status> {
    let loaded = plan(yaml);
    let tokens = Tokens { faults: &Fault::REASONS, closes: &Closed::TOKENS };
    let registry = Registry::new(1, tokens, PasswordPool::new(1, 16).unwrap());
    let unresolved = Unresolved { since: Timestamp::now(), why: "nowhere.test does not exist".to_owned() };
    let resolved: Resolved = [((Name::derived("nowhere.test"), 9001), Err(unresolved))].into();
    let built = build(&registry, &loaded.plan, Edition::new(7, loaded.sha), &resolved);
    let sink = Sink::writer(std::io::sink(), anstream::ColorChoice::Never);
    let (event_log, events) = EventLog::start(LogFormat::Json, LogLevel::Info, sink).unwrap();
    let attempt = Attempt {
        at: Timestamp::now(),
        by: "start",
        findings: Arc::new(loaded.warnings),
        is_live: true,
        backends: Arc::default(),
    };
    Arc::new(Status {
        started: Timestamp::from_micros(Timestamp::now().as_micros() - 273_600_000_000),
        file: PathBuf::from("tidegate.yaml"),
        live: Arc::new(Live::new(built.snapshot)),
        monitors: ArcSwap::from_pointee(BTreeMap::new()),
        names: ArcSwap::default(),
        webhooks: ArcSwap::default(),
        last_attempt: ArcSwap::from_pointee(attempt),
        reloads_ok: AtomicU64::new(7),
        reloads_refused: AtomicU64::new(1),
        workers: 1,
        unrouted: Arc::new(RouteMetrics::new(1, &Fault::REASONS)),
        panics: Arc::new(Counter::new(1)),
        access_log: ArcSwapOption::empty(),
        events,
        event_log: Arc::new(event_log),
        readiness: Readiness::default(),
    })
}

/// Gives the backends of an upstream their verdicts, as its health task would.
pub(crate) fn set(status: &Status, upstream: &str, verdicts: &[Verdict]) {
    let snapshot = status.live.load();
    let upstream = &snapshot.upstreams[upstream];
    assert_eq!(upstream.members.len(), verdicts.len());
    let tell = |(member, verdict): (&Member, &Verdict)| member.backend.set_condition(Condition::new(*verdict));
    upstream.members.iter().zip(verdicts).for_each(tell);
    let (health, balance) = (&upstream.plan.health, &upstream.plan.balance);
    upstream.live.publish(Eligible::among(&upstream.members, health, balance, |_| Percent::whole(100)));
}

pub(crate) fn refuse_an_edit(status: &Status) {
    let text = "listen: 127.0.0.1:8080".to_owned() + &CONFIG.replace("to: web }", "to: wbe }");
    let source = Source { path: "tidegate.yaml".into(), text };
    let findings: Report = config::load(&source, &|_| None).unwrap_err();
    let at = Timestamp::from_micros(1_795_349_140_000_000);
    status.last_attempt.store(Arc::new(Attempt {
        at,
        by: "file watch",
        findings: Arc::new(findings),
        is_live: false,
        backends: Arc::default(),
    }));
}

/// Has a name whose address stays in use although it could not be confirmed.
fn doubt_a_name(status: &Status) {
    let record = NameRecord::default();
    let why = ResolveError::Timeout(Duration::from_secs(2));
    record.count(&Ok(Answer { addresses: vec![Ipv4Addr::LOCALHOST.into()], ttl: None, unknown: None }));
    record.count(&Err(why.clone()));
    let since = Timestamp::from_micros(1_795_348_867_000_000);
    record.show(NameNow { addresses: 1, trouble: Some(Trouble { since, why }) });
    status.names.store(Arc::new([(Name::derived("stale.test"), Arc::new(record))].into()));
}

fn probe(kind: Kind, reason: &'static str, detail: &str, status: Option<u16>) -> Arc<Probe> {
    let at = Timestamp::now();
    let total = Duration::from_micros(3_240);
    let detail = detail.to_owned();
    let outcome =
        Outcome { kind, reason, detail, status, connect: None, tls: None, first_byte: None, total, body: None, at };
    Arc::new(Probe { check: Name::derived("http /healthz"), generation: 1, outcome: Arc::new(outcome) })
}

fn probed<const N: usize>(probes: [Arc<Probe>; N]) -> Vec<Arc<Probed>> {
    let last_failed = probes.iter().rfind(|probe| probe.outcome.kind == Kind::Fail).cloned();
    vec![Arc::new(Probed { check: Name::derived("http /healthz"), recent: probes.into(), last_failed })]
}

/// `orders` with `big` down for nine probes, as its health task would show it.
fn one_of_three_down(status: &Status) -> Now {
    set(status, "orders", &[Up, Down, Up]);
    let mut now = Now::look(status);
    let orders = now.upstreams.iter_mut().find(|observed| observed.name().as_str() == "orders").unwrap();
    let passed = probe(Kind::Pass, "passed", "200 in 3 ms", Some(200));
    let late = probe(Kind::Inconclusive, "late", "this gateway was 3000 ms late", None);
    let refused = probe(Kind::Fail, "connect_refused", "connect refused", None);
    let change = Change {
        at: Timestamp::from_micros(1_795_348_867_000_000),
        source: health::Source::Active,
        generation: 1,
        from: "checking",
        to: "down",
        reason: "connect_refused",
        detail: "connect refused".into(),
        check: Some(Name::derived("http /healthz")),
    };
    let up = |good| Record {
        good,
        reason: "passed",
        detail: "200 in 3 ms".into(),
        probed: probed([Arc::clone(&passed), Arc::clone(&late)]),
        probes: [((Kind::Pass, "passed"), u64::from(good)), ((Kind::Inconclusive, "late"), 1)].into(),
        transitions: [(("up", "passed"), 1)].into(),
        ..Record::default()
    };
    let down = Record {
        bad: 9,
        reason: "connect_refused",
        detail: "connect refused ×9".into(),
        probed: probed([refused]),
        changes: [Arc::new(change)].into(),
        probes: [((Kind::Fail, "connect_refused"), 9)].into(),
        transitions: [(("down", "connect_refused"), 1)].into(),
        ..Record::default()
    };
    let records = [up(5), down, up(2)];
    orders.view.backends.iter_mut().zip(records).for_each(|(backend, record)| backend.record = Arc::new(record));
    now
}

macro_rules! assert_document {
    ($document:expr) => {
        insta::assert_json_snapshot!($document, {
            ".timestamp" => "[time]",
            ".version" => "[version]",
            ".releaseId" => "[version]",
            ".started" => "[time]",
            ".config.sha" => "[sha]",
            ".config.since" => "[time]",
            ".config.last_attempt.at" => "[time]",
            ".upstreams.*.backends[].since" => "[time]",
            ".upstreams.*.backends[].last_probe.at" => "[time]",
            ".upstreams[].backends[].since" => "[time]",
            ".upstreams[].backends[].for_s" => "[seconds]",
            ".uptime_s" => "[seconds]",
            ".checks.*[].time" => "[time]",
            ".events[].ts" => "[time]",
        });
    };
}

#[test]
fn health_with_a_backend_down() {
    let status = gateway(CONFIG);
    doubt_a_name(&status);
    assert_document!(Health::of(&one_of_three_down(&status)));
}

#[test]
fn health_after_a_refused_edit() {
    let status = gateway("routes: [{ path: /*, to: 127.0.0.1:9001 }]");
    refuse_an_edit(&status);
    assert_document!(Health::of(&Now::look(&status)));
}

#[test]
fn health_while_all_are_tried_and_a_name_has_no_address() {
    let status = gateway(
        "upstreams: { web: { backends: [127.0.0.1:9001, nowhere.test:9001], health: { active: { path: / }, when_all_down: try_all } } }\n\
         routes: [{ path: /*, to: web }]",
    );
    set(&status, "web", &[Down]);
    assert_document!(Health::of(&Now::look(&status)));
}

#[test]
fn health_as_the_draft_has_it() {
    let status = gateway(CONFIG);
    refuse_an_edit(&status);
    assert_document!(DraftHealth::of(&one_of_three_down(&status)));
}

#[test]
fn the_status_names_what_an_edit_has_made_of_backends_up_to_a_hundred_of_a_kind() {
    let config = |ports: std::ops::Range<u16>| {
        let backends: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        plan(&format!("routes: [{{ path: /*, to: [{}], health: tcp }}]", backends.join(", ")))
    };
    let tokens = Tokens { faults: &Fault::REASONS, closes: &Closed::TOKENS };
    let registry = Registry::new(1, tokens, PasswordPool::new(1, 16).unwrap());
    let built = |registry: &Registry, loaded: &config::Loaded| {
        build(registry, &loaded.plan, Edition::new(1, loaded.sha), &Resolved::new()).registry
    };
    let before = built(&registry, &config(9001..9003));
    let after = built(&before, &config(9002..9123));
    let status = gateway(CONFIG);
    let backends = Arc::new(CarryOver::between(&before, &after));
    status.last_attempt.store(Arc::new(Attempt { backends, ..Attempt::clone(&status.last_attempt.load()) }));
    let document = StatusDocument::of(&Now::look(&status), &status, &Rates::default());
    let told = document.config.last_attempt.backends;
    let seen: Vec<_> = told.iter().map(|told| (told.fate.as_str(), told.count, told.names.len())).collect();
    assert_eq!(seen, [("kept", 1, 1), ("new", 120, 100), ("draining", 1, 1)]);
    assert_eq!(told[0].names, ["/*/127.0.0.1:9002"]);
}

#[test]
fn the_status_document() {
    let status = gateway(CONFIG);
    doubt_a_name(&status);
    let now = one_of_three_down(&status);
    let backend = &status.live.load().upstreams["web"].members[0].backend;
    backend.metrics().record(WorkerId(0), 200, Duration::from_millis(4));
    backend.metrics().record(WorkerId(0), 503, Duration::from_millis(4));
    assert_document!(StatusDocument::of(&now, &status, &Rates::default()));
}

#[test]
fn an_upstream_is_what_its_backends_are() {
    let config = |when_all_down: &str| {
        format!(
            "upstreams: {{ web: {{ backends: [127.0.0.1:1, 127.0.0.1:2, {{ url: http://127.0.0.1:3, backup: true }}], \
             health: {{ active: {{ path: / }}, when_all_down: {when_all_down} }} }} }}\nroutes: [{{ path: /*, to: web }}]"
        )
    };
    let cases = [
        ([Up, Up, Up], Standing::Up, "primary"),
        ([Unchecked, Unchecked, Unchecked], Standing::Up, "primary"),
        ([Up, Up, Down], Standing::Degraded, "primary"),
        ([Up, Degraded, Up], Standing::Degraded, "primary"),
        ([Up, Checking, Up], Standing::Degraded, "primary"),
        ([Down, Down, Up], Standing::Degraded, "backup"),
        ([Checking, Down, Down], Standing::Degraded, "checking"),
        ([Down, Down, Down], Standing::Down, "nobody"),
    ];
    let status = gateway(&config("fail"));
    for (verdicts, standing, tier) in cases {
        set(&status, "web", &verdicts);
        let observed = &Now::look(&status).upstreams[0];
        assert_eq!((observed.standing(), observed::tier(observed.view.tier)), (standing, tier), "{verdicts:?}");
    }
    let status = gateway(&config("try_all"));
    set(&status, "web", &[Down, Down, Down]);
    let observed = &Now::look(&status).upstreams[0];
    assert_eq!((observed.standing(), observed.view.tier), (Standing::Down, Tier::TryAll));
}

#[test]
fn a_draining_backend_counts_for_nothing() {
    let status = gateway(
        "upstreams: { web: { backends: [127.0.0.1:1, 127.0.0.1:2], health: / } }\nroutes: [{ path: /*, to: web }]",
    );
    set(&status, "web", &[Up, Down]);
    let drained = Condition { is_drained: true, ..Condition::new(Down) };
    status.live.load().upstreams["web"].members[1].backend.set_condition(drained);
    let observed = &Now::look(&status).upstreams[0];
    assert_eq!((observed.standing(), observed.up(), observed.total(), observed.eligible()), (Standing::Up, 1, 1, 1));
    let upstream = Arc::clone(&status.live.load().upstreams["web"]);
    upstream.members[0].backend.set_condition(drained);
    upstream.live.publish(Eligible::among(&upstream.members, &upstream.plan.health, &upstream.plan.balance, |_| {
        Percent::whole(100)
    }));
    let now = Now::look(&status);
    let draft = serde_json::to_value(DraftHealth::of(&now)).unwrap();
    assert_eq!(draft["checks"]["web"][0]["output"], "all of its backends are drained");
}

#[test]
fn the_whole_is_unhealthy_only_if_all_checked_or_a_critical_one_is_down() {
    let config = |critical: bool| {
        format!(
            "upstreams:\n  a: {{ backends: [127.0.0.1:1], health: / }}\n  b: {{ backends: [127.0.0.1:2], health: / }}\n  \
             c: {{ backends: [127.0.0.1:3] }}\nroutes:\n  - {{ path: /a, to: a, critical: {critical} }}\n  \
             - {{ path: /b, to: b }}\n  - {{ path: /c, to: c }}"
        )
    };
    let (critical, usual) = (gateway(&config(true)), gateway(&config(false)));
    let cases = [
        (&usual, [Up, Up], Overall::Healthy),
        (&usual, [Down, Up], Overall::Degraded),
        (&usual, [Up, Degraded], Overall::Degraded),
        (&usual, [Checking, Checking], Overall::Degraded),
        (&usual, [Down, Down], Overall::Unhealthy),
        (&critical, [Up, Up], Overall::Healthy),
        (&critical, [Down, Up], Overall::Unhealthy),
        (&critical, [Up, Down], Overall::Degraded),
    ];
    for (status, [a, b], overall) in cases {
        set(status, "a", &[a]);
        set(status, "b", &[b]);
        assert_eq!(Now::look(status).overall(), overall, "a {a}, b {b}");
    }
}

#[test]
fn a_certificate_that_expires_is_seen_before_and_after() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
    params.not_after = (std::time::SystemTime::now() + Duration::from_secs(20 * 86_400)).into();
    let cert = params.self_signed(&key).unwrap().pem();
    let status = gateway(&format!(
        "listeners: {{ secure: {{ bind: \"127.0.0.1:8443\", tls: {{ certs: [{{ cert: {cert:?}, key: {:?} }}] }} }} }}\n\
         routes: [{{ path: /*, to: 127.0.0.1:9001, health: none }}]",
        key.serialize_pem()
    ));
    let mut now = Now::look(&status);
    let started = now.at;
    let expected = [
        (0, "up", Overall::Healthy, "pass"),
        (14, "degraded", Overall::Degraded, "warn"),
        (21, "down", Overall::Degraded, "fail"),
    ];
    for (days, word, overall, draft) in expected {
        now.at = Timestamp::from_micros(started.as_micros() + days * 86_400_000_000);
        assert_eq!(now.overall(), overall);
        let health = serde_json::to_value(Health::of(&now)).unwrap();
        assert_eq!(health["checks"]["cert:secure"], word);
        let health = serde_json::to_value(DraftHealth::of(&now)).unwrap();
        assert_eq!(health["checks"]["cert:secure"][0]["status"], draft);
    }
    let scrape = metrics::scrape(&now, &status, Format::Text);
    let line = "tidegate_tls_certificate_not_after_timestamp_seconds{listener=\"secure\",name=\"shop.test\"} ";
    let ends = scrape.lines().find_map(|line_| line_.strip_prefix(line)?.parse::<f64>().ok()).unwrap();
    assert!((ends - started.as_micros() as f64 / 1e6 - 20.0 * 86_400.0).abs() < 5.0, "{ends}");
}

#[test]
fn without_a_health_check_nothing_is_unhealthy() {
    let status = gateway("routes: [{ path: /*, to: nowhere.test:9001 }]");
    let now = Now::look(&status);
    assert_eq!((now.upstreams[0].standing(), now.overall()), (Standing::Down, Overall::Degraded));
}

// What changes from run to run is left out, and buckets, which the exposition's own tests show.
fn stable(scrape: &str) -> String {
    let is_out = |line: &&str| ["process_", "build_info", "_bucket{"].iter().any(|part| line.contains(part));
    let lines = scrape.lines().filter(|line| !is_out(line));
    let stable = lines.map(|line| match line.rsplit_once(' ') {
        Some((series, _)) if !line.starts_with('#') && line.contains("_timestamp_seconds") => {
            format!("{series} [time]")
        }
        Some((_, value)) if line.starts_with("tidegate_config_info{") => format!("tidegate_config_info{{…}} {value}"),
        _ => line.to_owned(),
    });
    stable.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_scrape_has_every_family() {
    let status = gateway(CONFIG);
    doubt_a_name(&status);
    let now = one_of_three_down(&status);
    let snapshot = status.live.load();
    let (worker, web) = (WorkerId(0), &snapshot.upstreams["web"]);
    snapshot.routes["web"].metrics.record(
        worker,
        &RequestRecord {
            listener: 0,
            method: &Method::GET,
            status: 200,
            duration: Duration::from_millis(4),
            request_bytes: 0,
            response_bytes: 17,
            error: None,
        },
    );
    status.unrouted.record(
        worker,
        &RequestRecord {
            listener: 0,
            method: &Method::GET,
            status: 404,
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            error: Fault::ALL.iter().position(|fault| *fault == Fault::NoRoute),
        },
    );
    web.metrics.record(worker, AttemptOutcome::FirstOk);
    web.members[0].backend.metrics().record(worker, 200, Duration::from_millis(4));
    insta::assert_snapshot!(stable(&metrics::scrape(&now, &status, Format::OpenMetrics)));
}

#[test]
fn no_series_comes_twice_although_a_name_has_moved() {
    let status = gateway(CONFIG);
    let mut now = one_of_three_down(&status);
    let backends = &mut now.upstreams[0].view.backends;
    let former = backends[1].clone();
    backends.push(former);
    let scrape = metrics::scrape(&now, &status, Format::Text);
    let mut series: Vec<_> = scrape.lines().filter(|line| !line.starts_with('#')).map(|l| l.rsplit_once(' ')).collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup_by_key(|series| series.map(|(series, _)| series));
    assert_eq!(series.len(), all);
}

struct Client(Router);

impl Client {
    fn of(status: &Arc<Status>, audience: Audience) -> Self {
        Self(router(App { status: Arc::clone(status), rates: Arc::default(), streams: Arc::default() }, audience))
    }

    async fn send(&self, request: http::request::Builder) -> (Response<()>, String) {
        let request = request.body(Body::empty()).unwrap();
        let (head, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, content_type: &str, order: &str) -> (u16, serde_json::Value) {
        let request = Request::post(path).header(header::CONTENT_TYPE, content_type).body(Body::from(order.to_owned()));
        let (head, body) = self.0.clone().oneshot(request.unwrap()).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, path: &str) -> (Response<()>, String) {
        self.send(Request::get(path)).await
    }
}

fn field(response: &Response<()>, name: header::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn every_page_answers() {
    let client = Client::of(&gateway(CONFIG), Audience::Local);
    let pages = [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/livez", "text/plain; charset=utf-8", "ok\n"),
        ("/health", "application/json", "{\"status\":\"degraded\""),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "# HELP"),
        ("/api/v1/status", "application/json", "{\"version\":"),
    ];
    for (path, content_type, start) in pages {
        let (response, body) = client.get(path).await;
        assert_eq!(
            (response.status(), field(&response, header::CONTENT_TYPE)),
            (StatusCode::OK, content_type),
            "{path}"
        );
        assert!(body.starts_with(start), "{path}: {body}");
        assert_eq!(field(&response, header::CACHE_CONTROL), "no-store", "{path}");
        let (response, body) = client.send(Request::head(path)).await;
        assert_eq!((response.status(), body.as_str()), (StatusCode::OK, ""), "HEAD {path}");
    }
}

#[tokio::test]
async fn the_index_links_only_to_what_there_is() {
    let client = Client::of(&gateway(CONFIG), Audience::Local);
    let (_, page) = client.get("/").await;
    let links: Vec<_> = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), 8);
    for link in links {
        assert_ne!(client.get(link).await.0.status(), StatusCode::NOT_FOUND, "{link}");
    }
}

#[tokio::test]
async fn an_unhealthy_gateway_answers_503_in_both_forms() {
    let status = gateway(CONFIG);
    set(&status, "orders", &[Down, Down, Down]);
    let client = Client::of(&status, Audience::Local);
    assert_eq!(client.get("/health").await.0.status(), StatusCode::SERVICE_UNAVAILABLE);
    let draft = Request::get("/health").header(header::ACCEPT, "text/html, application/health+json;q=0.9");
    let (response, body) = client.send(draft).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, header::CONTENT_TYPE), "application/health+json");
    assert!(body.starts_with("{\"status\":\"fail\""), "{body}");
}

#[tokio::test]
async fn a_scraper_gets_the_format_it_asks_for() {
    let client = Client::of(&gateway(CONFIG), Audience::Local);
    let (response, body) =
        client.send(Request::get("/metrics").header(header::ACCEPT, "application/openmetrics-text")).await;
    assert_eq!(field(&response, header::CONTENT_TYPE), Format::OpenMetrics.content_type());
    assert!(body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn readiness_follows_the_stages_of_the_process() {
    let status = gateway(CONFIG);
    let client = Client::of(&status, Audience::Local);
    let ready = async |path: &str| {
        let (response, body) = client.get(path).await;
        (response.status().as_u16(), body)
    };
    assert_eq!(ready("/readyz").await, (503, "{\"ready\":false,\"reason\":\"starting\"}\n".to_owned()));
    status.readiness.started();
    assert_eq!(ready("/readyz").await, (200, "{\"ready\":true,\"reason\":null}\n".to_owned()));
    assert_eq!(ready("/readyz?min_healthy=orders").await.0, 200);
    set(&status, "orders", &[Down, Down, Down]);
    let needs_orders = ready("/readyz?min_healthy=orders").await;
    assert_eq!(needs_orders, (503, "{\"ready\":false,\"reason\":\"no_eligible_backend\"}\n".to_owned()));
    assert_eq!(ready("/readyz").await.0, 200);
    assert_eq!(ready("/readyz?min_healthy=other").await.0, 404);
    status.readiness.draining();
    assert_eq!(ready("/readyz").await, (503, "{\"ready\":false,\"reason\":\"draining\"}\n".to_owned()));
    assert_eq!(ready("/livez").await.0, 200);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_document() {
    let client = Client::of(&gateway(CONFIG), Audience::Local);
    let (response, body) = client.get("/nothing").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(field(&response, header::CONTENT_TYPE), "application/problem+json");
    assert!(body.contains("\"reason\":\"not_found\""), "{body}");
    let (response, body) = client.send(Request::post("/health")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(field(&response, header::ALLOW), "GET, HEAD");
    assert!(body.contains("\"reason\":\"method_not_allowed\""), "{body}");
}

#[tokio::test]
async fn only_names_that_dns_cannot_rebind_are_answered_on_loopback() {
    let status = gateway(CONFIG);
    let (local, network) = (Client::of(&status, Audience::Local), Client::of(&status, Audience::Network));
    let cases = [
        (&["127.0.0.1:9901"][..], "", 200),
        (&["[::1]:9901"], "", 200),
        (&["LocalHost"], "", 200),
        (&[], "", 200),
        (&["rebound.example:9901"], "", 403),
        (&["127.0.0.1.example"], "", 403),
        (&["localhost.example"], "", 403),
        (&["user@127.0.0.1"], "", 403),
        (&[""], "", 403),
        (&["127.0.0.1", "rebound.example"], "", 403),
        (&["127.0.0.1:9901"], "http://127.0.0.1:9901", 200),
        (&["127.0.0.1:9901"], "http://127.0.0.1:3000", 403),
        (&["127.0.0.1:9901"], "https://page.example", 403),
        (&["127.0.0.1:9901"], "null", 403),
    ];
    for (hosts, origin, expected) in cases {
        let request = || {
            let request =
                hosts.iter().fold(Request::get("/livez"), |request, host| request.header(header::HOST, *host));
            if origin.is_empty() { request } else { request.header(header::ORIGIN, origin) }
        };
        assert_eq!(local.send(request()).await.0.status(), expected, "{hosts:?} {origin}");
        assert_eq!(network.send(request()).await.0.status(), StatusCode::OK, "{hosts:?} {origin}");
    }
    assert_eq!(local.get("http://rebound.example/livez").await.0.status(), StatusCode::FORBIDDEN);
}

/// A running admin server; ends with `stop`.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) fn start(status: &Arc<Status>) -> Self {
        let sockets = server::bind(&Bind::Tcp((Ipv4Addr::LOCALHOST, 0).into()), 1, &[]).unwrap();
        let Bind::Tcp(address) = sockets.address else { panic!("not TCP") };
        let (stop, stopped) = oneshot::channel();
        let status = Arc::clone(status);
        let task = tokio::spawn(async move { serve(sockets, status, async { drop(stopped.await) }).await });
        Self { address, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

async fn response(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"ok\n") {
        assert_ne!(socket.read_buf(&mut text).await.unwrap(), 0, "{}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn stops_although_a_client_keeps_its_connection() {
    let server = Server::start(&gateway(CONFIG));
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.write_all(LIVEZ).await.unwrap();
        assert!(response(&mut client).await.starts_with("HTTP/1.1 200"));
    }
    server.stop().await;
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_half_a_head_is_cut() {
    let server = Server::start(&gateway(CONFIG));
    for said in [&b""[..], b"GET /livez HTTP/1.1\r\nHos"] {
        let (began, mut client) = (Instant::now(), server.connect().await);
        client.write_all(said).await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
        assert!(began.elapsed() <= Duration::from_secs(11), "{:?} after {said:?}", began.elapsed());
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_does_not_stay() {
    let server = Server::start(&gateway(CONFIG));
    let mut client = server.connect().await;
    client.write_all(LIVEZ).await.unwrap();
    response(&mut client).await;
    let began = Instant::now();
    let _ = client.read_to_end(&mut Vec::new()).await;
    assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_keep_nobody_waiting() {
    let server = Server::start(&gateway(CONFIG));
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(server.connect().await);
    }
    let (began, mut client) = (Instant::now(), server.connect().await);
    client.write_all(LIVEZ).await.unwrap();
    assert!(response(&mut client).await.starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // The oldest had to go.
    assert_eq!(idle[0].read(&mut [0]).await.unwrap(), 0);
    server.stop().await;
}

#[tokio::test]
async fn events_are_part_of_the_status() {
    let status = gateway(CONFIG);
    status.events.emit(Event::Process { stage: "ready", detail: "ready in 12 ms".into() });
    let client = Client::of(&status, Audience::Local);
    loop {
        let document: StatusDocument = serde_json::from_str(&client.get("/api/v1/status").await.1).unwrap();
        if let [event] = &document.events[..] {
            assert_eq!(event["detail"], "ready in 12 ms");
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_of_the_last_minute() {
    let (status, rates) = (gateway(CONFIG), Rates::default());
    rates.sample(Instant::now(), &status);
    let backend = &status.live.load().upstreams["web"].members[0].backend;
    (0..20).for_each(|_| backend.metrics().record(WorkerId(0), 502, Duration::from_millis(4)));
    tokio::time::advance(Duration::from_secs(10)).await;
    let document = StatusDocument::of(&Now::look(&status), &status, &rates);
    let recent = document.upstreams[1].backends[0].recent.unwrap();
    assert_eq!((recent.seconds, recent.requests_per_s, recent.error_percent), (10.0, 2.0, Some(100.0)));
    assert!(recent.p95_ms.is_some_and(|ms| (2.5..5.0).contains(&ms)), "{recent:?}");
}

#[tokio::test]
async fn another_backend_in_the_same_slot_starts_anew() {
    let (former, present, rates) = (gateway(CONFIG), gateway(CONFIG), Rates::default());
    let backend = |status: &Status| Arc::clone(&status.live.load().upstreams["web"].members[0].backend);
    let later = Instant::now() + Duration::from_secs(5);
    rates.sample(Instant::now(), &former);
    assert_eq!(backend(&former).slot(), backend(&present).slot());
    let recent = |of: &Status| rates.of_backend(later, &backend(of), &rates::Totals::default());
    assert!(recent(&former).is_some() && recent(&present).is_none());
    rates.sample(later, &present);
    assert!(recent(&former).is_none());
}

#[tokio::test]
async fn a_panic_is_one_answer_only() {
    let app = App { status: gateway(CONFIG), rates: Arc::default(), streams: Arc::default() };
    let response = answer(app.clone(), |_, _| panic!("a defect")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let client = Client(router(app, Audience::Local));
    assert_eq!(client.get("/health").await.0.status(), StatusCode::OK);
}

#[test]
fn everything_that_is_known_of_a_backend() {
    let status = gateway(CONFIG);
    let mut now = one_of_three_down(&status);
    let orders = now.upstreams.iter_mut().find(|observed| observed.name().as_str() == "orders").unwrap();
    let (at, until) = (now.at, now.at + Duration::from_secs(20));
    let backend = &mut orders.view.backends[1];
    backend.shown = "draining";
    let record = Arc::make_mut(&mut backend.record);
    let reason = "deploy".to_owned();
    record.drain =
        Some(Drain { by: "ann".into(), reason, since: at, lasts: Some(Duration::from_secs(20)), deadline: None });
    record.ejected = Some(Ejected { until, times: 2 });
    (record.is_held, record.spared) = (true, Some("5 failed requests in a row; it stays".into()));
    let drained = Change {
        at: Timestamp::from_micros(1_795_348_868_500_000),
        source: health::Source::Operator,
        generation: 2,
        from: "down",
        to: "draining",
        reason: "drained",
        detail: "drained by ann: deploy".into(),
        check: None,
    };
    record.changes.push_back(Arc::new(drained));
    orders.view.suspicion = Arc::new(Some("every backend of `orders` fails its health check".into()));
    backend_failures(&status, "orders", 1, 3);
    let orders = now.upstreams.iter().find(|observed| observed.name().as_str() == "orders").unwrap();
    let document = BackendDocument::of(orders.rows().nth(1).unwrap(), orders, &now);
    insta::assert_json_snapshot!(document, {
        ".since" => "[time]",
        ".for_s" => "[seconds]",
        ".drain.since" => "[time]",
        ".drain.until" => "[time]",
        ".ejected.until" => "[time]",
        ".probes[].at" => "[time]",
        ".checks[].last_failed.at" => "[time]",
    });

    let health = serde_json::to_value(Health::of(&now)).unwrap();
    assert_eq!(health["upstreams"]["orders"]["suspect_check"], "every backend of `orders` fails its health check");
    assert_eq!(health["upstreams"]["orders"]["backends"][1]["detail"], "drained by ann: deploy");
    let draft = serde_json::to_value(DraftHealth::of(&now)).unwrap();
    let output = draft["checks"]["orders"][0]["output"].as_str().unwrap();
    assert!(output.ends_with("; every backend of `orders` fails its health check"), "{output}");
    let document = serde_json::to_value(StatusDocument::of(&now, &status, &Rates::default())).unwrap();
    assert_eq!(document["upstreams"][0]["suspicion"], "every backend of `orders` fails its health check");
    let backend = &document["upstreams"][0]["backends"][1];
    assert_eq!((&backend["held"], &backend["draining"]["by"]), (&true.into(), &"ann".into()));
    assert!(backend["ejected_until"].is_string());
    let scrape = metrics::scrape(&now, &status, Format::Text);
    assert!(scrape.contains("\ntidegate_health_check_suspect{upstream=\"orders\"} 1\n"), "{scrape}");
    assert!(scrape.contains("\ntidegate_backend_failures_total{upstream=\"orders\",backend=\"big\"} 3\n"), "{scrape}");
}

fn backend_failures(status: &Status, upstream: &str, backend: usize, failures: u32) {
    let backend = &status.live.load().upstreams[upstream].members[backend].backend;
    (0..failures).for_each(|_| backend.failed(WorkerId(0), false));
}

#[tokio::test]
async fn a_backend_is_found_by_names_of_any_spelling() {
    let status = gateway("routes: [{ path: /*, to: [127.0.0.1:9001, nowhere.test:9001], health: / }]");
    let client = Client::of(&status, Audience::Local);
    let get = async |path: &str| {
        let (response, body) = client.get(path).await;
        (response.status().as_u16(), serde_json::from_str::<serde_json::Value>(&body).unwrap())
    };
    let (code, upstreams) = get("/api/v1/upstreams").await;
    assert_eq!((code, &upstreams[0]["name"]), (200, &"/*".into()));
    assert_eq!(get("/api/v1/upstreams/%2F%2A").await.1["backends"][0]["name"], "127.0.0.1:9001");
    let (code, backend) = get("/api/v1/upstreams/%2F*/backends/127.0.0.1%3A9001").await;
    assert_eq!((code, &backend["state"], &backend["probes"]), (200, &"checking".into(), &serde_json::json!([])));
    assert_eq!(backend["checks"][0]["asks"], "GET / every 10s, within 2s; down after 3, up after 2");
    let nowhere = "/api/v1/upstreams/%2F%2A/backends/nowhere.test:9001";
    let (code, backend) = get(nowhere).await;
    assert_eq!(
        (code, &backend["reason"], &backend["why"]),
        (200, &"dns_error".into(), &"nowhere.test does not exist".into())
    );
    assert_eq!(get(&format!("{nowhere}/probes")).await, (200, serde_json::json!([])));
    let (code, problem) = client.post(&format!("{nowhere}/drain"), "application/json", "").await;
    assert_eq!((code, &problem["reason"]), (409, &"no_address".into()));

    let wrong = [
        ("/api/v1/upstreams/%2F", "unknown_upstream", "There is no upstream `/`. Did you mean `/*`?"),
        (
            "/api/v1/upstreams/%2F%2A/backends/127.0.0.1:9002/probes",
            "unknown_backend",
            "Upstream `/*` has no backend `127.0.0.1:9002`. Did you mean `127.0.0.1:9001`?",
        ),
    ];
    for (path, reason, detail) in wrong {
        let (code, problem) = get(path).await;
        assert_eq!((code, &problem["reason"], &problem["detail"]), (404, &reason.into(), &detail.into()));
    }
    assert_eq!(get("/api/v1/upstreams/%ff").await.1["reason"], "bad_request");
}

/// Gives each upstream its health task, which asks nobody who answers.
fn watch(status: &Status) -> BTreeMap<Name, Arc<Monitor>> {
    let prober = Prober::new(status.events.clone(), 16);
    let snapshot = status.live.load();
    let monitors = snapshot.upstreams.iter().map(|(name, upstream)| {
        let (live, plan) = (Arc::clone(&upstream.live), Arc::clone(&upstream.plan));
        (name.clone(), Arc::new(Monitor::start(&prober, live, plan, upstream.members.clone(), 1)))
    });
    let monitors: BTreeMap<_, _> = monitors.collect();
    status.monitors.store(Arc::new(monitors.clone()));
    monitors
}

#[tokio::test]
async fn a_backend_is_drained_and_undrained() {
    let status =
        gateway("upstreams: { web: { backends: [127.0.0.1:1], health: none } }\nroutes: [{ path: /*, to: web }]");
    let monitors = watch(&status);
    let client = Client::of(&status, Audience::Local);
    let post = async |what: &str, order: &str| {
        client.post(&format!("/api/v1/upstreams/web/backends/127.0.0.1:1/{what}"), "application/json", order).await
    };
    let order = r#"{"by":"ann","reason":"deploy","for":"15m","deadline":"60s"}"#;
    let (code, backend) = post("drain", order).await;
    assert_eq!((code, &backend["state"], &backend["why"]), (200, &"draining".into(), &"drained by ann: deploy".into()));
    assert_eq!((&backend["drain"]["by"], &backend["source"]), (&"ann".into(), &"operator".into()));
    assert!(backend["drain"]["until"].is_string() && backend["drain"]["deadline"].is_string(), "{backend}");
    let (code, backend) = post("undrain", "").await;
    assert_eq!((code, &backend["state"], &backend["drain"]), (200, &"unchecked".into(), &serde_json::Value::Null));
    assert_eq!(backend["changes"][0]["detail"], "undrained by the admin API");

    let (_, backend) = post("drain", "{\"by\":\"a\u{200b}nn\",\"reason\":\"\u{202e}deploy\"}").await;
    assert_eq!(backend["why"], "drained by a\\u{200b}nn: \\u{202e}deploy");

    // Removed, and not yet gone: it finishes requests.
    let member = &status.live.load().upstreams["web"].members[0];
    member.backend.set_condition(Condition { is_removed: true, ..Condition::new(Up) });
    let (code, problem) = post("drain", "{}").await;
    assert_eq!((code, &problem["reason"]), (409, &"removed".into()));
    drop(monitors);
}

#[tokio::test]
async fn an_order_that_is_not_one_changes_nothing() {
    let status =
        gateway("upstreams: { web: { backends: [127.0.0.1:1], health: none } }\nroutes: [{ path: /*, to: web }]");
    let _monitors = watch(&status);
    let client = Client::of(&status, Audience::Local);
    let path = "/api/v1/upstreams/web/backends/127.0.0.1:1/drain";
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(201));
    let huge = format!(r#"{{"reason":"{}"}}"#, "x".repeat(5_000));
    let cases = [
        ("text/plain", "{}", 415, "not_json"),
        ("application/x-www-form-urlencoded", "for=1m", 415, "not_json"),
        ("application/json; charset=utf-8", r#"{"for":"15"}"#, 400, "`for: 15` has no unit; write 30s or 15m."),
        ("application/json", r#"{"deadline":"0s"}"#, 400, "is no time at all"),
        ("application/json", r#"{"reson":"x"}"#, 400, "unknown field `reson`"),
        ("application/json", r#"{"reason":"a\u001b[2J"}"#, 400, "control characters"),
        ("application/json", "[", 400, "The order: "),
        ("application/json", &long, 400, "longer than 200 characters"),
        ("application/json", &huge, 413, "4096 bytes"),
    ];
    for (content_type, order, code, says) in cases {
        let (status, problem) = client.post(path, content_type, order).await;
        assert_eq!(status, code, "{problem}");
        assert!(problem["reason"] == says || problem["detail"].as_str().unwrap().contains(says), "{says}: {problem}");
    }
    let (response, _) = client.get(path).await;
    assert_eq!((response.status().as_u16(), field(&response, header::ALLOW)), (405, "POST"));
    assert_eq!(status.live.load().upstreams["web"].members[0].backend.shown(), "unchecked");
}

#[tokio::test]
async fn events_are_listed_since_a_moment_and_up_to_a_number() {
    let status = gateway(CONFIG);
    let said = |n: usize| Event::Process { stage: "ready", detail: n.to_string() };
    (1..=5).for_each(|n| status.events.emit(said(n)));
    status.event_log.newest().wait_for(|newest| *newest == 5).await.unwrap();
    let client = Client::of(&status, Audience::Local);
    let details = async |query: &str| {
        let (response, body) = client.get(&format!("/api/v1/events{query}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{body}");
        let events: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        events.iter().map(|event| event["detail"].as_str().unwrap().to_owned()).collect::<Vec<_>>().concat()
    };
    assert_eq!(details("").await, "12345");
    assert_eq!(details("?limit=2").await, "45");
    assert_eq!(details("?since=1h&limit=1").await, "5");
    assert_eq!(details("?since=2200-01-01T00:00:00Z").await, "");
    let lines =
        client.send(Request::get("/api/v1/events?limit=2").header(header::ACCEPT, "application/x-ndjson")).await;
    assert_eq!(lines.1.lines().count(), 2, "{}", lines.1);
    for wrong in ["?since=yesterday", "?limit=-1", "?until=1h"] {
        assert_eq!(client.get(&format!("/api/v1/events{wrong}")).await.0.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

/// A stream of events as a client reads it.
struct Listener(Body);

impl Listener {
    async fn open(client: &Client, id: Option<&str>) -> Result<Self, StatusCode> {
        let request = Request::get("/api/v1/events").header(header::ACCEPT, "text/event-stream");
        let request = id.into_iter().fold(request, |request, id| request.header("last-event-id", id));
        let response = client.0.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        if response.status() == StatusCode::OK { Ok(Self(response.into_body())) } else { Err(response.status()) }
    }

    async fn hear(&mut self) -> Option<String> {
        let frame = self.0.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(frame.to_vec()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_where_its_client_has_stopped() {
    let status = gateway(CONFIG);
    let client = Client::of(&status, Audience::Local);
    let say = async |n: u64| {
        status.events.emit(Event::Process { stage: "ready", detail: format!("event {n}") });
        status.event_log.newest().wait_for(|newest| *newest == n).await.unwrap();
    };
    say(1).await;
    let mut listener = Listener::open(&client, None).await.unwrap();
    let heard = listener.hear().await.unwrap();
    let id = heard.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert!(id.ends_with("-1") && heard.contains("\"detail\":\"event 1\""), "{heard}");
    // Time passes while nothing happens.
    assert_eq!(listener.hear().await.unwrap(), ": \n\n");
    say(2).await;
    assert!(listener.hear().await.unwrap().contains("event 2"));
    say(3).await;
    let mut again = Listener::open(&client, Some(&id)).await.unwrap();
    assert!(again.hear().await.unwrap().contains("event 2"));
    assert!(again.hear().await.unwrap().contains("event 3"));
    // The numbers of another process say nothing here.
    let mut other = Listener::open(&client, Some("1-3")).await.unwrap();
    assert!(other.hear().await.unwrap().contains("event 1"));
}

#[tokio::test]
async fn a_client_that_the_ring_has_passed_by_is_cut() {
    let status = gateway(CONFIG);
    let client = Client::of(&status, Audience::Local);
    let mut listener = Listener::open(&client, None).await.unwrap();
    for n in 1..=600 {
        status.events.emit(Event::Process { stage: "ready", detail: String::new() });
        status.event_log.newest().wait_for(|newest| *newest == n).await.unwrap();
    }
    let heard = listener.hear().await.unwrap();
    assert_eq!(heard, ": too slow: events are lost, and the stream ends here\n\n");
    assert_eq!(listener.hear().await, None);
}

#[tokio::test]
async fn there_are_so_many_streams_and_no_more() {
    let status = gateway(CONFIG);
    let client = Client::of(&status, Audience::Local);
    let mut listeners = Vec::new();
    for _ in 0..64 {
        listeners.push(Listener::open(&client, None).await.unwrap());
    }
    assert_eq!(Listener::open(&client, None).await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    listeners.pop();
    assert!(Listener::open(&client, None).await.is_ok());
}

const STREAM: &[u8] = b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_other_connections_and_ends_with_the_process() {
    let server = Server::start(&gateway(CONFIG));
    let mut client = server.connect().await;
    client.write_all(STREAM).await.unwrap();
    let began = Instant::now();
    let mut heard = Vec::new();
    while began.elapsed() < Duration::from_secs(200) {
        assert_ne!(client.read_buf(&mut heard).await.unwrap(), 0, "{}", String::from_utf8_lossy(&heard));
    }
    let stopping = Instant::now();
    server.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(1), "{:?}", stopping.elapsed());
}

#[tokio::test]
async fn what_the_health_task_found_is_shown() {
    // Bound and not listened on: nobody else can have the port, and nobody answers.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let status = gateway(&format!("routes: [{{ name: web, path: /*, to: '{address}', health: / }}]"));
    let monitors = watch(&status);
    for monitor in monitors.values() {
        monitor.first_round().await;
    }
    let client = Client::of(&status, Audience::Local);
    let (response, body) = client.get("/health").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    let backend = &document["upstreams"]["web"]["backends"][0];
    assert_eq!((&backend["state"], &backend["reason"]), (&"down".into(), &"connect_refused".into()), "{body}");
    assert_eq!(backend["last_probe"]["ok"], false);
    let (_, scrape) = client.get("/metrics").await;
    let labels = format!("upstream=\"web\",backend=\"{address}\",result=\"fail\",reason=\"connect_refused\"");
    assert!(scrape.contains(&format!("\ntidegate_health_probes_total{{{labels}}} ")), "{scrape}");
}

#[test]
fn callers_of_an_api_beyond_a_thousand_are_one_series() {
    let keys: Vec<String> = (0..1_100).map(|n| format!("c{n:04}: \"sha256:{n:064x}\"")).collect();
    let status = gateway(&format!(
        "auth: {{ partners: {{ api_key: {{ header: x-api-key, keys: {{ {} }} }} }} }}
apis: {{ orders: {{ version: 2, sunset: 2999-01-01 }} }}
routes: [{{ path: /*, to: 127.0.0.1:9001, health: none, api: orders, auth: partners }}]\n",
        keys.join(", ")
    ));
    let api = Arc::clone(&status.live.load().apis["orders"]);
    for n in 990..1_100 {
        let identity = Identity { consumer: Name::derived(format!("c{n:04}")), auth: Name::derived("partners") };
        api.called(WorkerId(0), Timestamp::now(), Some(&identity));
    }
    let text = metrics::scrape(&Now::look(&status), &status, Format::Text);
    let callers: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("tidegate_api_caller_requests_total{")).collect();
    // `anonymous` is one of the thousand.
    assert_eq!(callers.len(), 10, "{callers:?}");
    assert_eq!(callers.first(), Some(&"api=\"orders\",version=\"2\",consumer=\"c0990\"} 1"));
    assert_eq!(callers.last(), Some(&"api=\"orders\",version=\"2\",consumer=\"other\"} 101"));
    assert!(text.contains("tidegate_api_stage{api=\"orders\",version=\"2\",stage=\"stable\"} 1"), "{text}");
    assert!(text.contains("tidegate_api_sunset_timestamp_seconds{api=\"orders\",version=\"2\"} 32472144000"), "{text}");
}
