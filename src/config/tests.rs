use std::path::Path;

use proptest::prelude::*;

use super::{Code, Loaded, Report, Source, Style, diff, load, plan::*, reference, schema};
use crate::base::{Name, Percent};

fn read(text: &str) -> Result<Loaded, Report> {
    let env = |name: &str| match name {
        "PORT" => Some("8080".to_owned()),
        "INJECT" => Some("x\nlisten: 1 # \"}".to_owned()),
        "LITERAL" => Some("${PORT}".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    load(&Source { path: "tidegate.yaml".into(), text: text.to_owned() }, &env)
}

fn loaded(text: &str) -> Loaded {
    read(text).unwrap_or_else(|report| panic!("{}", report.text(Style::Plain)))
}

fn plan(text: &str) -> Plan {
    (*loaded(text).plan).clone()
}

fn one_upstream(text: &str) -> Upstream {
    let plan = plan(text);
    (**plan.upstreams.values().next().unwrap()).clone()
}

const MINIMAL: &str = "listen: 8080
routes:
  - path: /*
    to: [127.0.0.1:9001, 127.0.0.1:9002]
    health: /healthz
";

#[test]
fn minimal_file_means_what_the_defaults_say() {
    insta::assert_debug_snapshot!(plan(MINIMAL));
}

/// A route that no warning is about.
const ONE: &str = "routes: [{ path: '/*', to: '127.0.0.1:9001', health: none }]\n";

#[test]
fn short_and_long_forms_mean_the_same() {
    let pairs = [
        ("listen: 8080", "listeners: { main: { bind: '0.0.0.0:8080' } }"),
        ("listen: '127.0.0.1:8080'", "listeners: { main: { bind: 'localhost:8080' } }"),
        (
            "listen: 'unix:a.sock'",
            "listeners: { main: { bind: 'unix:a.sock', socket_mode: '0660', proxy_protocol: none } }",
        ),
        ("admin: {}\nlisten: 1", "listen: 1\nadmin: { bind: '127.0.0.1:9901' }"),
    ];
    for (short, long) in pairs {
        assert_eq!(plan(&format!("{short}\n{ONE}")), plan(&format!("{long}\n{ONE}")), "{short}");
    }
    let long = "listen: 8080\nroutes: [{ path: '/*', to: ['http://localhost:9001', '127.0.0.1:9002'], health: { active: { path: /healthz } } }]";
    assert_eq!(plan(MINIMAL), plan(long));
    let route = |fields: &str| format!("{LIMITS}routes:\n  - {{ path: /x, to: '10.0.0.1:80', {fields} }}\n");
    let pairs = [
        ("health: tcp", "health: { active: { type: tcp } }"),
        (
            "health: /p",
            "health: { active: { type: http, path: /p, method: GET, expect: { status: 200-399 }, interval: 10s, interval_changing: 1s, timeout: 2s, healthy_after: 2, unhealthy_after: 3, jitter: 10% }, when_all_down: fail }",
        ),
        ("host: a.example, health: tcp", "host: [A.Example.], health: tcp"),
        ("auth: ops, health: tcp", "auth: [ops], health: tcp"),
        ("limit: slow, health: tcp", "limit: [slow], health: tcp"),
        ("limit: 10/s, health: tcp", "limit: [10/s per ip], health: tcp"),
        ("balance: p2c, health: tcp", "balance: { mode: p2c }, health: tcp"),
        ("balance: hash ip, health: tcp", "balance: { mode: hash ip, algorithm: ring }, health: tcp"),
        (
            "balance: { sticky: { cookie: tg } }, health: tcp",
            "balance: { mode: round_robin, sticky: { cookie: tg, path: /, same_site: lax, http_only: true, on_failure: another } }, health: tcp",
        ),
        (
            "health: tcp",
            "health: tcp, balance: round_robin, critical: false, max_body: 10MiB, timeouts: { connect: 2s, request: 30s, response_header: 0s, client_body: 30s }, retries: { attempts: 1, when: [504, reset, connect, 503, 502], methods: [PUT, GET, HEAD, OPTIONS, DELETE], timeout: 0s, body: none, backoff: 25ms, budget: 20%, min_retries: 100, hedge_after: 0s }",
        ),
    ];
    for (short, long) in pairs {
        assert_eq!(plan(&route(short)), plan(&route(long)), "{short}");
    }
}

const LIMITS: &str = "listen: 8080
limits: { slow: { rate: 1/s, burst: 5, by: global } }
auth: { ops: { basic: { users: { amy: $2y$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW } } } }
";

#[test]
fn defaults_reach_routes_listeners_and_upstreams() {
    let plan = plan(
        "listen: 8080
defaults:
  timeouts: { connect: 1s, idle: 5s, client_header: 3s, client_idle: 4s, request: 20s }
  retries: { attempts: 3, methods: [GET] }
  max_body: none
routes:
  - { path: /a, to: '10.0.0.1:80', health: tcp }
  - { path: /b, to: '10.0.0.1:80', health: tcp, timeouts: { request: 0s }, retries: { attempts: 0 }, max_body: 1kB }
",
    );
    let (a, b) = (&plan.routes["/a"], &plan.routes["/b"]);
    assert_eq!((a.timeouts.connect.as_secs(), a.timeouts.request.as_secs()), (1, 20));
    assert_eq!((b.timeouts.connect.as_secs(), b.timeouts.request.as_secs()), (1, 0));
    assert_eq!((a.retries.attempts, b.retries.attempts), (3, 0));
    assert_eq!(b.retries.methods, [http::Method::GET]);
    assert_eq!((a.max_body, b.max_body.map(|size| size.0)), (None, Some(1000)));
    let main = &plan.listeners["main"];
    assert_eq!((main.client_header.as_secs(), main.client_idle.as_secs()), (3, 4));
    assert_eq!(plan.upstreams["/a"].idle.as_secs(), 5);
}

#[test]
fn retries_say_what_they_are_for() {
    let plan = plan(
        "listen: 8080
defaults: { retries: { budget: 5%, body: 64KiB } }
routes:
  - { path: /a, to: '10.0.0.1:80', health: tcp, retries: { when: [reset, 503, 429, 503-504, grpc_unavailable] } }
  - { path: /b, to: '10.0.0.1:80', health: tcp, retries: { timeout: 1s, body: none } }
  - { path: /c, to: '10.0.0.1:80', health: tcp, retries: { timeout: 1s, when: [connect] } }
",
    );
    let retries = |path: &str| plan.routes[path].retries.clone();
    let shown = |path: &str| retries(path).status.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let (a, b, c) = (retries("/a"), retries("/b"), retries("/c"));
    assert_eq!(
        (shown("/a").as_str(), shown("/b").as_str(), shown("/c").as_str()),
        ("429 503 503-504", "502 503 504", "")
    );
    assert_eq!((a.when, a.grpc), ([RetryOn::Reset].into(), [14].into()));
    assert_eq!(b.when, [RetryOn::Connect, RetryOn::Reset, RetryOn::Timeout].into());
    assert_eq!(c.when, [RetryOn::Connect].into());
    assert_eq!((a.body, b.body, a.budget, a.min_retries), (65_536, 0, Percent::whole(5), 100));
}

#[test]
fn names_come_from_host_and_path() {
    let plan = plan(
        "listen: 8080
routes:
  - { host: ['*.Example.com', api.example.com], path: /orders/*, to: '10.0.0.1:80', health: tcp }
  - { path: /%7euser, to: 'orders.internal:80', health: tcp }
",
    );
    let names: Vec<&str> = plan.routes.keys().map(|name| &**name).collect();
    assert_eq!(names, ["*.example.com/orders/*", "/~user"]);
    assert_eq!(plan.routes["/~user"].action, Action::to(Name::derived("/~user")));
    let backend = &plan.upstreams["/~user"].backends[0];
    assert_eq!(
        (&*backend.name, backend.host.clone()),
        ("orders.internal:80", Host::Dns(Name::derived("orders.internal")))
    );
}

#[test]
fn a_short_interval_keeps_its_timeout_shorter() {
    let upstream =
        one_upstream("listen: 1\nroutes: [{ path: /, to: '10.0.0.1:80', health: { active: { interval: 100ms } } }]");
    let check = upstream.health.checks[0].clone();
    assert_eq!((check.interval_changing.as_millis(), check.timeout.as_millis()), (100, 50));
}

#[test]
fn checks_of_all_kinds_mean_what_they_say() {
    let upstream = one_upstream(
        "listen: 1
upstreams:
  api:
    backends: ['https://api.internal']
    tls: { verify: true, sni: api.test }
    protocol: auto
    health:
      active:
        - { path: /ready, method: POST, body: '{}', protocol: http1, tls: none, interval_down: 1m }
        - path: /live?x=1
          address: 10.0.0.9
          port: 81
          expect:
            status: 200
            degraded_status: [429, 503]
            headers: { x-ready: 'yes' }
            body: '~ ^ok'
            json: { checks.0.status: ok, /a~1b: '~ [0-9]' }
            document: ignore
        - { type: tcp, port: 9000, send: \"PING\\r\\n\", expect: { body: +PONG } }
        - { type: tls, expect: { valid_for: 14d } }
        - { type: grpc, service: my.Service }
        - { type: tcp, name: redis, tls: {} }
routes: [{ path: '/*', to: api }]
",
    );
    let names: Vec<&str> = upstream.health.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["http /ready", "http /live 10.0.0.9:81", "tcp :9000", "tls", "grpc my.Service", "redis"]);
    let [ready, live, ping, tls, grpc, redis] = &*upstream.health.checks else { panic!("six checks") };
    assert_eq!((ready.protocol, &ready.tls), (Some(Protocol::Http1), &ProbeTls::Plain));
    assert_eq!((ready.interval_down.as_secs(), live.interval_down.as_secs()), (60, 10));
    let ProbeKind::Http(probe) = &live.kind else { panic!("an http probe") };
    insta::assert_debug_snapshot!(probe.expect);
    let expect = Some(Wanted::Text("+PONG".to_owned()));
    assert_eq!(ping.kind, ProbeKind::Tcp(TcpProbe { send: Some("PING\r\n".to_owned()), expect }));
    assert_eq!((&ping.tls, &tls.tls), (&ProbeTls::AsBackend, &ProbeTls::AsBackend));
    let offered = |check: &HealthCheck| match &check.tls {
        ProbeTls::Own(own) => (own.trust.offered.clone(), own.name.clone()),
        other => panic!("{other:?}"),
    };
    // As the upstream, but for the one protocol that it takes.
    assert_eq!(offered(grpc), (vec![crate::tls::Protocol::Http2], crate::tls::PeerName::parse("api.test")));
    assert_eq!(offered(redis), (vec![], None));
}

#[test]
fn variables_are_expanded_once_and_add_no_structure() {
    let loaded = loaded(
        "listen: 80
routes:
  - path: /*
    to: '127.0.0.1:${PORT:-1}'
    health:
      active: { expect: { body: \"${INJECT}|${LITERAL}|$${PORT}|${EMPTY:-d}|${EMPTY}\" }, port: \"${PORT}\" }
",
    );
    assert_eq!(loaded.plan.listeners["main"].bind.port(), Some(80));
    let upstream = &loaded.plan.upstreams["/*"];
    assert_eq!(upstream.backends[0].authority(), "127.0.0.1:8080");
    let check = &upstream.health.checks[0];
    assert_eq!(check.port, Some(8080));
    let ProbeKind::Http(probe) = &check.kind else { panic!("an http probe") };
    let Some(Wanted::Text(body)) = &probe.expect.body else { panic!("a text") };
    assert_eq!(body, "x\nlisten: 1 # \"}|${PORT}|${PORT}|d|");
}

#[test]
fn listen_stands_beside_listeners() {
    let plan = plan(&format!("listen: ':8080'\nlisteners: {{ six: {{ bind: '[::1]:8081' }} }}\n{ONE}"));
    let binds: Vec<String> = plan.listeners.iter().map(|(name, l)| format!("{name} {}", l.bind)).collect();
    assert_eq!(binds, ["main 0.0.0.0:8080", "six [::1]:8081"]);
}

#[test]
fn aliases_stand_for_values() {
    let plan = plan(
        "x-nets: &nets [10.0.0.1/8, 192.0.2.7]
listeners:
  a: { bind: '0.0.0.0:1', trusted_proxies: *nets }
  b: { bind: '0.0.0.0:2', trusted_proxies: *nets }
routes: [{ path: '/*', to: '127.0.0.1:9001', health: none }]
",
    );
    let shown = |name: &str| plan.listeners[name].trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown("a"), ["10.0.0.0/8", "192.0.2.7/32"]);
    assert_eq!(shown("a"), shown("b"));
}

#[test]
fn keys_and_users_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (one, two) = ("0".repeat(64), "1".repeat(64));
    write("keys.yaml", &format!("# comment\nx-bob: sha256:{one}\namy: [sha256:{two}, sha256:{}]\n", "2".repeat(64)));
    write("users", "# comment\n\namy:$2y$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW\n");
    write("port", "8080\n");
    write(
        "tidegate.yaml",
        "listen: ${file:port}
auth:
  keys: { api_key: { query: key, keys_file: keys.yaml } }
  ops: { basic: { users_file: users } }
routes: [{ path: /*, to: '10.0.0.1:80', health: tcp, auth: [keys, ops], limit: 1/s per key }]
",
    );
    let source = Source::read(folder.path().join("tidegate.yaml")).unwrap();
    let loaded = load(&source, &|_| None).unwrap_or_else(|report| panic!("{}", report.text(Style::Plain)));
    let AuthMethod::ApiKey(keys) = &loaded.plan.routes["/*"].auth[0].method else { panic!("an api key") };
    let names: Vec<&str> = keys.consumers.iter().map(|consumer| &*consumer.name).collect();
    assert_eq!(names, ["amy", "amy", "x-bob"]);
    assert_eq!(keys.consumers[2].digest, [0; 32]);
    let AuthMethod::Basic(users) = &loaded.plan.routes["/*"].auth[1].method else { panic!("basic") };
    assert_eq!(users.users.len(), 1);
    let files: Vec<_> = loaded.files.iter().map(|file| file.strip_prefix(folder.path()).unwrap()).collect();
    assert_eq!(files, [Path::new("keys.yaml"), Path::new("port"), Path::new("users")]);
}

#[test]
fn wrong_lines_of_other_files_are_named_without_their_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("keys.yaml", "bob: hunter2\n");
    write("broken.yaml", "bob: {hunter2\n");
    write("users", "amy:hunter2\nhunter2\n");
    let text = "listen: 1
auth:
  a: { api_key: { header: x, keys_file: keys.yaml } }
  b: { api_key: { header: x, keys_file: broken.yaml } }
  c: { basic: { users_file: users } }
routes: [{ path: /*, to: '10.0.0.1:80', health: tcp, auth: [a, b, c] }]
";
    let source = Source { path: folder.path().join("t.yaml"), text: text.to_owned() };
    let report = load(&source, &|_| None).unwrap_err();
    let short = report.short().replace(&folder.path().display().to_string(), "");
    insta::assert_snapshot!(short);
    assert!(!report.text(Style::Plain).contains("hunter2"));
}

#[test]
fn places_are_lines() {
    let loaded = loaded(
        "# first\nlisten: 8080\nupstreams:\n  api: { backends: ['10.0.0.1:80'], health: tcp }\nroutes:\n  - path: /*\n    to: api\n",
    );
    let lines = (loaded.places.listeners["main"], loaded.places.upstreams["api"], loaded.places.routes["/*"]);
    assert_eq!(lines, (2, 4, 6));
}

#[test]
fn sha_is_that_of_the_text() {
    assert_eq!(super::Sha::of("").to_string(), "e3b0c44");
    assert_eq!(super::Sha::of("abc").to_string(), "ba7816b");
}

#[test]
fn a_byte_order_mark_moves_no_place() {
    let report = read("\u{feff}listne: 8080\nlimitz: []\n").unwrap_err();
    assert!(report.short().starts_with("tidegate.yaml:1:1: error[E0201]"), "{}", report.short());
    assert!(report.short().contains("tidegate.yaml:2:1: error[E0201]"), "{}", report.short());
}

#[test]
fn a_config_that_begins_with_a_byte_order_mark_is_the_same_config() {
    let marked = loaded(&format!("\u{feff}{MINIMAL}"));
    assert!(marked.warnings.is_empty());
    assert_eq!(*marked.plan, plan(MINIMAL));
    assert_eq!(marked.places.routes, loaded(MINIMAL).places.routes);
}

#[test]
fn diff_is_by_entity() {
    let old = plan(&format!(
        "{LIMITS}{}",
        "routes: [{ name: a, path: /a, to: '10.0.0.1:80', health: tcp }, { name: b, path: /b, to: '10.0.0.1:80', health: tcp }]"
    ));
    assert!(diff(&old, &old.clone()).is_empty());
    assert_eq!(diff(&old, &old).summary(), "no change");
    let new = plan(
        "listen: 8081
workers: 2
admin: none
dns: { hold: 5s }
shutdown: { timeout: 5s }
routes:
  - { name: a, path: /a, to: '10.0.0.2:80', health: tcp }
  - { name: c, path: /c, to: '10.0.0.1:80', health: tcp }
",
    );
    let changes = diff(&old, &new);
    assert_eq!(
        changes.summary(),
        "+1 upstream, +1 route, ~1 listener, ~1 upstream, -1 upstream, -1 route, ~dns, ~shutdown, ~workers, ~admin"
    );
    assert_eq!(changes.restart, ["workers", "admin"]);
    assert_eq!(changes.upstreams.changed, [Name::derived("a")]);
    assert_eq!(diff(&new, &old).routes.added, [Name::derived("b")]);
}

#[test]
fn a_bound_of_ttls_that_is_written_alone_moves_the_default_of_the_other() {
    let ttls = |dns: &str| {
        let dns = plan(&format!("{MINIMAL}dns: {{ {dns} }}\n")).dns;
        (dns.min_ttl.as_secs(), dns.max_ttl.as_secs())
    };
    assert_eq!(ttls(""), (1, 300));
    assert_eq!(ttls("min_ttl: 10m"), (600, 600));
    assert_eq!(ttls("max_ttl: 500ms"), (0, 0));
    assert_eq!(ttls("min_ttl: 5s, max_ttl: 7s"), (5, 7));
}

#[test]
fn examples_load_without_findings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files = vec![root.join("tidegate.yaml")];
    files.extend(std::fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path()));
    let files: Vec<_> = files.into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "yaml")).collect();
    assert!(files.len() > 8, "{files:?}");
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
    std::fs::create_dir(folder.path().join("certs")).unwrap();
    std::fs::write(folder.path().join("certs/shop.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("certs/shop.key"), made.signing_key.serialize_pem()).unwrap();
    for file in files {
        let text = Source::read(&file).unwrap().text;
        let source = Source { path: folder.path().join(file.file_name().unwrap()), text };
        let report = match load(&source, &|_| None) {
            Ok(loaded) => loaded.warnings,
            Err(report) => report,
        };
        assert!(report.is_empty(), "{}", report.text(Style::Plain));
    }
}

/// Compares a generated file with the committed one; `UPDATE_GENERATED=1` writes it instead.
fn is_fresh(name: &str, text: &str, command: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "config/{name} is stale: run `{command} > config/{name}`");
}

#[test]
fn schema_and_reference_are_fresh() {
    is_fresh("tidegate.schema.json", &schema(), "tidegate schema");
    is_fresh("reference.md", &reference(), "tidegate reference");
}

#[test]
fn every_field_has_a_description() {
    fn walk(path: &str, value: &serde_json::Value) {
        let properties = value.get("properties").and_then(|properties| properties.as_object());
        for (name, field) in properties.into_iter().flatten() {
            let described =
                field.get("description").and_then(|text| text.as_str()).is_some_and(|text| !text.is_empty());
            assert!(described, "{path}.{name}: {field}");
        }
        match value {
            serde_json::Value::Object(fields) => {
                fields.iter().for_each(|(key, value)| walk(&format!("{path}/{key}"), value));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(path, item)),
            _ => {}
        }
    }
    walk("", &super::schema::schema_value());
}

/// A pass that is quadratic in the number of routes or findings would take minutes here.
#[test]
fn thousands_of_routes_load() {
    let text = |to: &str| {
        let mut text = "listen: 8080\nroutes:\n".to_owned();
        for i in 0..5_000 {
            text.push_str(&format!(
                "  - path: /service-{i}/*\n    to: [{to}]\n    health: /healthz\n    timeouts: {{ request: 5s }}\n"
            ));
        }
        text
    };
    let loaded = loaded(&text("10.0.0.1:80"));
    assert_eq!((loaded.plan.routes.len(), loaded.plan.upstreams.len()), (5_000, 5_000));
    assert_eq!(loaded.places.routes["/service-4999/*"], 2 + 4 * 4_999 + 1);
    assert_eq!(read(&text("nowhere")).unwrap_err().errors(), Report::CAP);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_the_loader_panic(text in "[ -~\\n\\t\u{e4}\u{feff}]{0,200}") {
        let _ = read(&text).map_err(|report| (report.text(Style::Plain), report.json()));
    }

    #[test]
    fn no_edit_of_a_config_makes_the_loader_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..8, "[ -~\\n\\t\u{e4}*&!{}\\[\\]:]{0,6}"), 1..6),
    ) {
        let mut text = FULL.to_owned();
        for (at, cut, insert) in edits {
            let bounds: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
            let from = at.index(bounds.len());
            let to = bounds.get(from + cut).copied().unwrap_or(text.len());
            text.replace_range(bounds[from]..to, &insert);
        }
        match read(&text) {
            Ok(loaded) => drop(loaded.warnings.text(Style::Plain)),
            Err(report) => {
                prop_assert!(report.errors() > 0);
                for form in [report.text(Style::Plain), report.short(), report.json(), report.github()] {
                    prop_assert!(!form.is_empty());
                }
            }
        }
    }

    #[test]
    fn text_without_a_variable_is_left_alone(text in "[^$]{0,40}") {
        let sources = super::yaml::Sources { env: &|_| None, folder: Path::new("") };
        prop_assert_eq!(super::yaml::expand(&text, &sources, &mut vec![]), Ok(None));
    }

    #[test]
    fn a_variable_is_replaced_by_its_value_whatever_that_is(before in "[a-z$ ]{0,8}", value in ".{0,20}", after in "[a-z}$ ]{0,8}") {
        prop_assume!(!before.ends_with('$'));
        let env = |name: &str| (name == "X_1").then(|| value.clone());
        let sources = super::yaml::Sources { env: &env, folder: Path::new("") };
        let text = format!("{before}${{X_1}}{after}");
        prop_assert_eq!(super::yaml::expand(&text, &sources, &mut vec![]), Ok(Some(format!("{before}{value}{after}"))));
        let text = format!("{before}$${{X_1}}{after}");
        prop_assert_eq!(super::yaml::expand(&text, &sources, &mut vec![]), Ok(Some(format!("{before}${{X_1}}{after}"))));
    }
}

const FULL: &str = include_str!("../../config/tidegate.yaml");

#[test]
fn yaml_of_every_style_is_read() {
    let plain = plan("listen: 8080\nroutes:\n  - path: /*\n    to: 10.0.0.1:80\n    health: /healthz\n");
    let same = [
        "---\nlisten: 8080\nroutes:\n- path: /*\n  to: 10.0.0.1:80\n  health: /healthz\n...\n",
        "listen: 8080\r\nroutes:\r\n  - path: /*\r\n    to: 10.0.0.1:80\r\n    health: /healthz\r\n",
        "%YAML 1.2\n---\nlisten: 8080\nroutes: [{path: /*, to: \"10.0.0.1:80\", health: /healthz}]",
        "{ \"listen\": 8080, \"routes\": [ { \"path\": \"\\/*\", \"to\": [\"10.0.0.1:80\"], \"health\": \"\\x2fhealthz\" } ] }",
        "# c\nlisten: 8080 # c\n\nroutes:   # c\n  -   path: '/*'   # c\n      to: >-\n        10.0.0.1:80\n      health: |-\n        /healthz\n",
        "routes:\n  - health: /healthz\n    to:\n      - 10.0.0.1:80\n    path:\n      /*\nlisten:\n  8080\n",
        "x-a: &a [é, ü, {b: [1, 1.0, true, null, ~, 0x1F, 1e3, 2001-01-01, 0644]}]\nx-b: *a\nlisten: 8080\nroutes: &r\n  - &s { path: /*, to: &t 10.0.0.1:80, health: !!str /healthz }\n",
    ];
    for text in same {
        match read(text) {
            Ok(loaded) => assert_eq!(*loaded.plan, plain, "{text}"),
            Err(report) => assert!(text.contains("!!str"), "{}", report.text(Style::Plain)),
        }
    }
}

#[test]
fn bombs_are_refused() {
    let mut billion = "x-0: &x0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned();
    for i in 1..12 {
        let before = i - 1;
        billion.push_str(&format!("x-{i}: &x{i} [{}]\n", vec![format!("*x{before}"); 10].join(", ")));
    }
    for text in [
        billion,
        format!("a: {}", "[".repeat(20_000)),
        format!("{}b", "a: {".repeat(100)),
        (0..200).map(|i| format!("{}a:\n", "  ".repeat(i))).collect(),
        "a: &a [*a]".to_owned(),
        // A list that is small where it is named, and large by the time that others refer to it.
        format!("x-a: &x [1]\nx-a: [{}]\nx-b: [{}]\n", "1, ".repeat(100_000), "*x, ".repeat(10_000)),
        "a: x".repeat(2 << 20),
    ] {
        let report = read(&text).unwrap_err();
        assert!(report.errors() > 0);
        assert!(report.text(Style::Plain).len() < 1 << 20);
    }
}

/// The files are sound but for one line: whatever is said of other things in the file would be wrong.
#[test]
fn a_slip_that_is_not_yaml_is_blamed_on_nothing_else() {
    let examples = [
        include_str!("../../config/examples/api-keys.yaml"),
        include_str!("../../config/examples/rate-limits.yaml"),
        include_str!("../../config/examples/weights-and-backup.yaml"),
        include_str!("../../config/examples/several-listeners.yaml"),
    ];
    let slips: [fn(&str, &str) -> String; 6] = [
        |indentation, line| format!("{indentation} {line}"),
        |indentation, line| format!("{indentation}      {line}"),
        |indentation, line| format!("{}{line}", indentation.strip_prefix(' ').unwrap_or_default()),
        |indentation, line| format!("{indentation}{}", line.replacen(": ", ": \"", 1)),
        |indentation, line| format!("{indentation}{}", line.replacen(':', "", 1)),
        |indentation, line| format!("{indentation}@{line}"),
    ];
    let is_of_yaml = |code: Code| code.id() < "E0200";
    // Fields that a slip moves into another block are unknown there, and missing where they were.
    let is_moved = |code| matches!(code, Code::UnknownField | Code::Misplaced | Code::WrongType);
    let mut seen = 0;
    for example in examples {
        for (number, line) in example.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
            for slip in slips {
                let (indentation, rest) = line.split_at(line.len() - line.trim_start().len());
                let mut lines: Vec<String> = example.lines().map(str::to_owned).collect();
                lines[number] = slip(indentation, rest);
                let text = lines.join("\n");
                let Err(report) = read(&text) else { continue };
                let is_any = |is: &dyn Fn(Code) -> bool| report.iter().any(|found| is(found.code));
                if !is_any(&is_of_yaml) || is_any(&is_moved) {
                    continue;
                }
                seen += 1;
                let others: Vec<_> = report.iter().filter(|found| !is_of_yaml(found.code)).collect();
                assert!(others.is_empty(), "{text}\n\n{}", report.text(Style::Plain));
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn secrets_in_a_text_that_is_not_yaml_are_not_shown() {
    for text in [
        "auth:\n  a:\n    basic:\n      users:\n        bob: hunter2\n\t\tamy: hunter2\n",
        "auth: { a: { basic: { users: { bob: hunter2 } }\n",
        "auth:\n  a: { api_key: { header: x, keys: { bob: hunter2, bob: hunter2 } } }\n",
        "routes:\n  - health: { active: { headers: { Authorization: Bearer hunter2 } }\n",
        "auth:\n  a:\n    basic:\n      users:\n        hunter2\n        bob: hunter2: hunter2\n",
        "auth:\n  a:\n    basic:\n      users:\n        bob hunter2\n        amy: x\n",
        "auth:\n  a:\n    basic:\n      users:\n        bob:hunter2\n        amy: x\n",
    ] {
        let report = read(text).unwrap_err();
        for form in [report.text(Style::Plain), report.json(), report.short()] {
            assert!(!form.contains("hunter2"), "{form}");
        }
    }
}

/// Wherever a character too many makes a text no YAML, or a field unknown, what is said shows no secret; but a secret that it
/// makes a field's name, by standing right before it, is named as one.
#[test]
fn no_slip_of_a_finger_shows_a_secret() {
    const SECRET: &str = "s3cr3ts3cr3t";
    const AUTH: &str = "auth:
  ops:
    basic:
      users:
        amy: s3cr3ts3cr3t
        bob: s3cr3ts3cr3t
  partners:
    api_key: { header: x-key, keys: { one: s3cr3ts3cr3t, two: s3cr3ts3cr3t } }
";
    const ROUTES: &str = "routes:\n  - { path: /*, to: '127.0.0.1:9001', auth: ops }\n";
    for slip in ["\t", " ", "\n", "[", "{", "}", "]", "\"", "'", ":", "- ", "*", "@", "#", "&a ", "!t "] {
        for at in (0..AUTH.len()).filter(|at| !AUTH[*at..].trim_start().starts_with(SECRET)) {
            let text = format!("{}{slip}{}{ROUTES}", &AUTH[..at], &AUTH[at..]);
            let report = read(&text).unwrap_err();
            for form in [report.text(Style::Plain), report.json()] {
                assert!(!form.contains(SECRET), "{slip:?} at {at}:\n{form}");
            }
        }
    }
}

/// Every scalar of the full config in turn is a secret of many shapes; nothing that is said about it may show it.
#[test]
fn no_field_shows_what_a_variable_stands_for() {
    let (document, flaws) = super::yaml::Document::parse(FULL);
    assert!(flaws.is_empty(), "{flaws:?}");
    let mut spans = vec![];
    super::yaml::secret_scalars(document.index.root(), true, &mut spans);
    assert!(spans.len() > 80);
    let shapes = [
        "s3cr3t",
        "S3CR3T",
        "x:s3cr3t",
        "s3cr3t:80",
        "s3cr3t/s",
        "10/s per s3cr3t",
        "/s3cr3t*",
        "/s3cr3t//",
        "s3cr3t.example",
        "http://h/s3cr3t",
        "http://u:s3cr3t@h",
        "ftp://s3cr3t",
        "*.s3cr3t.*",
        "s3cr3t\nx",
        "header s3cr3t s3cr3t",
        "[s3cr3t]:1",
    ];
    for span in spans {
        let mut text = FULL.to_owned();
        text.replace_range(span.clone(), "\"${SECRET}\"");
        for shape in shapes {
            let env = |name: &str| (name == "SECRET").then(|| shape.to_owned());
            let report = match load(&Source { path: "tidegate.yaml".into(), text: text.clone() }, &env) {
                Ok(loaded) => loaded.warnings,
                Err(report) => report,
            };
            let shown = report.text(Style::Plain) + &report.json();
            assert!(!shown.to_lowercase().contains("s3cr3t"), "{shape} for {}: {shown}", &FULL[span.clone()]);
        }
    }
}
