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
    health::{self, Answer, Change, Kind, Monitor, Outcome, Probe, Prober, Record, ResolveError},
    layers::PasswordPool,
    proxy::Fault,
    runtime::{Edition, Live, Registry, Resolved, Tokens, Unresolved, build},
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
    let attempt = Attempt { at: Timestamp::now(), by: "start", findings: Arc::new(loaded.warnings), is_live: true };
    Arc::new(Status {
        started: Timestamp::from_micros(Timestamp::now().as_micros() - 273_600_000_000),
        file: PathBuf::from("tidegate.yaml"),
        live: Arc::new(Live::new(built.snapshot)),
        monitors: ArcSwap::from_pointee(BTreeMap::new()),
        names: ArcSwap::default(),
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
    upstream.live.publish(Eligible::among(&upstream.members, &upstream.plan.health, |_| Percent::whole(100)));
}

pub(crate) fn refuse_an_edit(status: &Status) {
    let text = "listen: 127.0.0.1:8080".to_owned() + &CONFIG.replace("to: web }", "to: wbe }");
    let source = Source { path: "tidegate.yaml".into(), text };
    let findings: Report = config::load(&source, &|_| None).unwrap_err();
    let at = Timestamp::from_micros(1_795_349_140_000_000);
    status.last_attempt.store(Arc::new(Attempt { at, by: "file watch", findings: Arc::new(findings), is_live: false }));
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
    };
    let up = |good| Record {
        good,
        reason: "passed",
        detail: "200 in 3 ms".into(),
        recent: [Arc::clone(&passed), Arc::clone(&late)].into(),
        probes: [((Kind::Pass, "passed"), u64::from(good)), ((Kind::Inconclusive, "late"), 1)].into(),
        transitions: [(("up", "passed"), 1)].into(),
        ..Record::default()
    };
    let down = Record {
        bad: 9,
        reason: "connect_refused",
        detail: "connect refused ×9".into(),
        recent: [refused].into(),
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
        Self(router(App { status: Arc::clone(status), rates: Arc::default() }, audience))
    }

    async fn send(&self, request: http::request::Builder) -> (Response<()>, String) {
        let request = request.body(Body::empty()).unwrap();
        let (head, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
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
    assert_eq!(links.len(), 5);
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
    let app = App { status: gateway(CONFIG), rates: Arc::default() };
    let response = answer(app.clone(), |_, _| panic!("a defect")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let client = Client(router(app, Audience::Local));
    assert_eq!(client.get("/health").await.0.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_the_health_task_found_is_shown() {
    // Bound and not listened on: nobody else can have the port, and nobody answers.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let status = gateway(&format!("routes: [{{ name: web, path: /*, to: '{address}', health: / }}]"));
    let prober = Prober::new(status.events.clone(), 16);
    let snapshot = status.live.load();
    let monitors = snapshot.upstreams.iter().map(|(name, upstream)| {
        let (live, plan) = (Arc::clone(&upstream.live), Arc::clone(&upstream.plan));
        (name.clone(), Arc::new(Monitor::start(&prober, live, plan, upstream.members.clone(), 1)))
    });
    let monitors: BTreeMap<_, _> = monitors.collect();
    status.monitors.store(Arc::new(monitors.clone()));
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
