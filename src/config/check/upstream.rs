//! Upstreams, their backends, and how their health is asked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

use super::{Check, Placed, Upstreams, address::is_dns_name};
use crate::{
    base::{Name, Percent},
    config::{
        diagnostics::Code,
        plan::{
            Backend, Balance, Expect, HealthCheck, Host, HostHeader, HttpProbe, ProbeKind, Protocol, StatusRange,
            Upstream, WhenAllDown,
        },
        spec::{
            self, ActiveSpec, Address, BackendSpec, HealthShort, HealthSpec, List, Named, OneOrMany, ShortOr, Spec,
            Status, UpstreamSpec, Written,
        },
        yaml::At,
    },
};

pub(super) const DAY: Duration = Duration::from_secs(86_400);
const BALANCES: &[(&str, Balance)] = &[("round_robin", Balance::RoundRobin)];

/// Health as a whole: the check, and what happens when all are down.
pub(super) type Health = (Option<HealthCheck>, WhenAllDown);

impl<'a> Check<'a> {
    pub(super) fn upstreams(&mut self, spec: &Spec, at: At<'a>) -> Upstreams<'a> {
        let block = at.key("upstreams");
        let mut upstreams = vec![];
        for (name, written) in spec.upstreams.iter().flat_map(|named| &named.0) {
            let at = block.key(name);
            let name = self.name(at, name, "an upstream", true).unwrap_or_else(|| Name::derived(name.as_str()));
            let value = Arc::new(self.upstream(at, name, written));
            upstreams.push(Placed { value, at });
        }
        upstreams
    }

    fn upstream(&mut self, at: At<'a>, name: Name, written: &UpstreamSpec) -> Upstream {
        let backends = match &written.backends {
            Some(backends) => self.backends(at, &name, backends),
            None => {
                self.missing(at, "backends", &format!("upstream `{name}`"), "add backends: [HOST:PORT]");
                vec![]
            }
        };
        let protocol = self.protocol(at, written);
        let tls = self.upstream_tls(at, &name, written.tls.as_ref(), &backends, protocol);
        let (health, when_all_down) = self.health(at, &format!("upstream `{name}`"), written.health.as_ref());
        let age = Duration::ZERO..=DAY * 30;
        let max_in_flight = self.count(at, "max_in_flight", written.max_in_flight.as_ref(), 1..=1_000_000);
        let max_connections = self.count(at, "max_connections", written.max_connections.as_ref(), 1..=1_000_000);
        let max_idle = self.count(at, "max_idle_connections", written.max_idle_connections.as_ref(), 0..=100_000);
        let max_age = self.duration(at, "max_connection_age", written.max_connection_age.as_ref(), age);
        Upstream {
            name,
            backends,
            balance: self.balance(at, written.balance.as_ref()),
            host: self.host_header(at, written),
            tls,
            protocol,
            health,
            when_all_down,
            max_in_flight,
            max_connections,
            max_idle_connections: max_idle.unwrap_or(256),
            max_connection_age: max_age.unwrap_or(Duration::from_secs(3_600)),
            ..self.plain_upstream(false)
        }
    }

    /// An upstream with nothing but defaults.
    fn plain_upstream(&mut self, anonymous: bool) -> Upstream {
        Upstream {
            name: Name::derived(""),
            anonymous,
            backends: vec![],
            balance: Balance::default(),
            host: HostHeader::default(),
            tls: None,
            protocol: Protocol::default(),
            health: None,
            when_all_down: WhenAllDown::default(),
            max_in_flight: None,
            max_connections: None,
            max_idle_connections: 256,
            idle: self.idle(),
            max_connection_age: Duration::from_secs(3_600),
        }
    }

    /// The upstream of addresses that are written inside a route.
    pub(super) fn anonymous_upstream(
        &mut self,
        name: Name,
        backends: Vec<Backend>,
        health: Health,
        balance: Balance,
    ) -> Upstream {
        let (health, when_all_down) = health;
        let tls = self.upstream_tls(self.root, &name, None, &backends, Protocol::default());
        Upstream { name, backends, balance, tls, health, when_all_down, ..self.plain_upstream(true) }
    }

    /// `defaults.timeouts.idle`; what is wrong with it is reported once, by the routes' section.
    fn idle(&self) -> Duration {
        let written = self.defaults.and_then(|defaults| defaults.timeouts.as_ref()?.idle.as_ref());
        let parsed = written.and_then(|written| crate::base::duration::parse(&written.text).ok());
        parsed.unwrap_or(Duration::from_secs(60))
    }

    fn protocol(&mut self, at: At<'a>, written: &UpstreamSpec) -> Protocol {
        let choices = [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];
        self.choice(at, "protocol", written.protocol.as_ref(), "a protocol", &choices).unwrap_or_default()
    }

    pub(super) fn balance(&mut self, at: At<'a>, written: Option<&Written<spec::Balance>>) -> Balance {
        self.choice(at, "balance", written, "a balance mode", BALANCES).unwrap_or_default()
    }

    fn backends(&mut self, at: At<'a>, upstream: &Name, list: &List<ShortOr<Address, BackendSpec>>) -> Vec<Backend> {
        let list_at = at.key("backends");
        if list.0.is_empty() {
            let finding = self.finding(Code::Missing, list_at, format!("upstream `{upstream}` has no backends"));
            self.report(finding.label("add one: HOST:PORT"));
        }
        let mut backends = vec![];
        for (i, written) in list.0.iter().enumerate() {
            let at = list_at.item(i);
            match written {
                None => self.empty_item(at),
                Some(ShortOr::Short(address)) => {
                    backends.extend(self.plain_backend(at, &address.text).map(|b| (b, at)));
                }
                Some(ShortOr::Fields(fields)) => backends.extend(self.backend(at, fields).map(|b| (b, at))),
            }
        }
        self.distinct(upstream, backends)
    }

    /// A backend that is only an address.
    pub(super) fn plain_backend(&mut self, at: At<'a>, text: &str) -> Option<Backend> {
        let (host, port, tls) = self.address(at, text)?;
        let backend = Backend { name: Name::derived(""), host, port, tls, weight: 1, backup: false };
        let name = match &backend.host {
            Host::Unix(_) => Name::derived(text),
            Host::Dns(_) | Host::Ip(_) => Name::derived(backend.authority()),
        };
        Some(Backend { name, ..backend })
    }

    fn backend(&mut self, at: At<'a>, written: &BackendSpec) -> Option<Backend> {
        let name = written.name.as_ref().and_then(|name| self.name(at.key("name"), &name.text, "a backend", false));
        let weight = self.count(at, "weight", written.weight.as_ref(), 1..=1_000);
        let backup = self.flag(at, "backup", written.backup.as_ref());
        let Some(url) = &written.url else {
            self.missing(at, "url", "this backend", "add url: http://HOST:PORT");
            return None;
        };
        let plain = self.plain_backend(at.key("url"), &url.text)?;
        Some(Backend {
            name: name.unwrap_or_else(|| plain.name.clone()),
            weight: weight.and_then(|weight| u16::try_from(weight).ok()).unwrap_or(1),
            backup: backup.unwrap_or(false),
            ..plain
        })
    }

    /// Without those whose name is taken, which are reported.
    pub(super) fn distinct(&mut self, upstream: &Name, backends: Vec<(Backend, At<'a>)>) -> Vec<Backend> {
        let mut seen: HashMap<Name, At<'a>> = HashMap::new();
        let mut distinct = vec![];
        for (backend, at) in backends {
            if let Some(first) = seen.get(&backend.name) {
                let message = format!("two backends of one upstream are `{}`", backend.name);
                let finding = self.finding(Code::SameName, at, message);
                let finding = finding.label("delete one, raise its weight, or give it a `name`");
                self.report(finding.related(first.span(), "first here"));
                continue;
            }
            seen.insert(backend.name.clone(), at);
            self.backend_places.insert((upstream.clone(), backend.name.clone()), at);
            distinct.push(backend);
        }
        distinct
    }

    fn host_header(&mut self, at: At<'a>, written: &UpstreamSpec) -> HostHeader {
        let Some(host) = &written.host else { return HostHeader::Preserve };
        let at = at.key("host");
        match host.text.as_str() {
            "preserve" => return HostHeader::Preserve,
            "backend" => return HostHeader::Backend,
            _ => {}
        }
        let (name, port) = host.text.rsplit_once(':').unwrap_or((&host.text, "80"));
        let is_host = (is_dns_name(name) || is_ipv6(name)) && port.parse::<u16>().is_ok();
        match HeaderValue::from_str(&host.text) {
            Ok(value) if is_host => HostHeader::Literal(value),
            _ => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` is not a host", at.shown()));
                self.report(finding.label("write preserve, backend, or a host like orders.internal"));
                HostHeader::Preserve
            }
        }
    }

    /// The health of an upstream or of the addresses of a route. `whose` names it with its kind.
    pub(super) fn health(
        &mut self,
        at: At<'a>,
        whose: &str,
        written: Option<&ShortOr<HealthShort, HealthSpec>>,
    ) -> Health {
        let health_at = at.key("health");
        let no_check = (None, WhenAllDown::Fail);
        let fields = match written {
            None if at.has("health") => return no_check,
            None => {
                self.no_health(at, whose);
                return no_check;
            }
            Some(ShortOr::Short(short)) => return self.short_health(health_at, &short.text),
            Some(ShortOr::Fields(fields)) => fields,
        };
        let modes = [("fail", WhenAllDown::Fail), ("try_all", WhenAllDown::TryAll)];
        let what = "a mode for when all are down";
        let when =
            self.choice(health_at, "when_all_down", fields.when_all_down.as_ref(), what, &modes).unwrap_or_default();
        match &fields.active {
            Some(active) => (self.active(health_at.key("active"), active), when),
            None => {
                // A field that belongs in `active` was found misplaced: that is one mistake, not two.
                if health_at.keys().iter().all(|key| &**key == "when_all_down") {
                    self.no_health(health_at, whose);
                }
                (None, when)
            }
        }
    }

    fn no_health(&mut self, at: At<'a>, whose: &str) {
        if self.has_stray_field(at) {
            return;
        }
        let finding = self.finding(Code::NoHealth, at, format!("{whose} has no health check"));
        self.report(finding.label("add `health: /healthz`, or `health: none` if this is meant"));
    }

    fn short_health(&mut self, at: At<'a>, text: &str) -> Health {
        let path = match text {
            "none" => return (None, WhenAllDown::Fail),
            "tcp" => return (Some(check_of(ProbeKind::Tcp)), WhenAllDown::Fail),
            path if path.starts_with('/') => self.probe_path(at, path),
            _ => {
                let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not a health check", at.shown()));
                self.report(finding.label("write a path like /healthz, or tcp, or none"));
                return (None, WhenAllDown::Fail);
            }
        };
        let check = path.map(|path| check_of(ProbeKind::Http(HttpProbe { path, ..plain_probe() })));
        (check, WhenAllDown::Fail)
    }

    fn active(&mut self, at: At<'a>, written: &ActiveSpec) -> Option<HealthCheck> {
        let kinds = [("http", true), ("tcp", false)];
        let is_http = self.choice(at, "type", written.kind.as_ref(), "a kind of probe", &kinds).unwrap_or(true);
        let kind = match is_http {
            true => ProbeKind::Http(self.http_probe(at, written)),
            false => {
                for field in ["path", "method", "headers", "expect"].into_iter().filter(|field| at.has(field)) {
                    let message = format!("`{field}` does not belong in a tcp check");
                    let mut finding = self.finding(Code::Misplaced, at.key(field), message);
                    finding.span = at.key(field).key_span();
                    self.report(finding.label("a tcp check only connects: delete it, or write type: http"));
                }
                ProbeKind::Tcp
            }
        };
        let plain = check_of(kind);
        let least = Duration::from_millis(10);
        let interval = self.duration(at, "interval", written.interval.as_ref(), least..=DAY);
        let interval = interval.unwrap_or(plain.interval);
        let changing = self.duration(at, "interval_changing", written.interval_changing.as_ref(), least..=DAY);
        let timeout = self.duration(at, "timeout", written.timeout.as_ref(), Duration::from_millis(1)..=DAY);
        self.probe_order(at, interval, changing, timeout);
        let count = |value: Option<u32>, default| value.and_then(|value| u16::try_from(value).ok()).unwrap_or(default);
        let healthy_after = self.count(at, "healthy_after", written.healthy_after.as_ref(), 1..=1_000);
        let unhealthy_after = self.count(at, "unhealthy_after", written.unhealthy_after.as_ref(), 1..=1_000);
        Some(HealthCheck {
            port: self.count(at, "port", written.port.as_ref(), 1..=65_535).and_then(|port| u16::try_from(port).ok()),
            interval,
            interval_changing: changing.unwrap_or(plain.interval_changing.min(interval)),
            timeout: timeout.unwrap_or(if plain.timeout < interval { plain.timeout } else { interval / 2 }),
            healthy_after: count(healthy_after, plain.healthy_after),
            unhealthy_after: count(unhealthy_after, plain.unhealthy_after),
            jitter: self.percent(at, "jitter", written.jitter.as_ref(), Percent::whole(50)).unwrap_or(plain.jitter),
            ..plain
        })
    }

    fn probe_order(&mut self, at: At<'a>, interval: Duration, changing: Option<Duration>, timeout: Option<Duration>) {
        let written = crate::base::duration::Written;
        if let Some(timeout) = timeout.filter(|timeout| *timeout >= interval) {
            let message = format!(
                "health timeout ({}) is not shorter than its interval ({})",
                written(timeout),
                written(interval)
            );
            let finding = self.finding(Code::Contradiction, at.key("timeout"), message).label("probes would overlap");
            self.report(finding);
        }
        if let Some(changing) = changing.filter(|changing| *changing > interval) {
            let message =
                format!("interval_changing ({}) is longer than interval ({})", written(changing), written(interval));
            let finding = self.finding(Code::Contradiction, at.key("interval_changing"), message);
            self.report(finding.label("probes are meant to be faster while a verdict is pending"));
        }
    }

    fn http_probe(&mut self, at: At<'a>, written: &ActiveSpec) -> HttpProbe {
        let plain = plain_probe();
        let path = written.path.as_ref().and_then(|path| self.probe_path(at.key("path"), &path.text));
        let method = written.method.as_ref().and_then(|method| self.method(at.key("method"), &method.text));
        let method = method.unwrap_or(plain.method);
        let headers = written.headers.as_ref().map(|headers| self.probe_headers(at.key("headers"), headers));
        let expect_at = at.key("expect");
        let expect = written.expect.as_ref();
        let status = expect.and_then(|expect| expect.status.as_ref());
        let body = expect.and_then(|expect| expect.body.as_ref()).map(|body| body.text.clone());
        if body.is_some() && method == Method::HEAD {
            let finding =
                self.finding(Code::Contradiction, expect_at.key("body"), "the answer to HEAD has no body to match");
            self.report(finding.label("probe with GET"));
        }
        if body.as_deref() == Some("") {
            let finding = self.finding(Code::Invalid, expect_at.key("body"), "every body holds the empty text");
            self.report(finding.label("write what the body must hold, or delete it"));
        }
        let status = status.map(|status| self.statuses(expect_at.key("status"), status)).filter(|s| !s.is_empty());
        let expect = Expect { status: status.unwrap_or(plain.expect.status), body };
        HttpProbe { path: path.unwrap_or(plain.path), method, headers: headers.unwrap_or_default(), expect }
    }

    fn probe_path(&mut self, at: At<'a>, path: &str) -> Option<String> {
        let parses = path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == path);
        if path.starts_with('/') && parses {
            return Some(path.to_owned());
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a path to probe", at.shown()));
        self.report(finding.label("write it like /healthz or /healthz?full=1"));
        None
    }

    /// A method; `CONNECT` and unknown ones are refused, as nothing here can send or route them.
    pub(super) fn method(&mut self, at: At<'a>, text: &str) -> Option<Method> {
        let known = [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::TRACE,
        ];
        let custom = || text.bytes().all(|byte| byte.is_ascii_uppercase()) && !text.is_empty() && text != "CONNECT";
        if let Some(method) = known.iter().find(|method| method.as_str() == text) {
            return Some(method.clone());
        }
        if custom()
            && let Ok(method) = Method::from_bytes(text.as_bytes())
        {
            return Some(method);
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a method", at.shown()));
        let upper = text.to_ascii_uppercase();
        let finding = match known.iter().any(|method| method.as_str() == upper) {
            true => finding.label(format!("write {upper}")).fix(upper),
            false => finding.label("write it like GET"),
        };
        self.report(finding);
        None
    }

    fn probe_headers(&mut self, at: At<'a>, headers: &Named<Written<spec::Any>>) -> Vec<(HeaderName, HeaderValue)> {
        const FRAMING: &[&str] = &["connection", "content-length", "te", "trailer", "transfer-encoding", "upgrade"];
        const SECRET: &[&str] = &["authorization", "cookie", "proxy-authorization", "x-api-key"];
        let mut checked = vec![];
        for (name, value) in &headers.0 {
            let at = at.key(name);
            let lower = name.to_ascii_lowercase();
            if SECRET.contains(&lower.as_str()) && !at.is_expanded() {
                self.mask(at);
                let finding = self.finding(Code::PlainSecret, at, format!("`{name}` is written in plain text"));
                self.report(finding.label("write ${NAME} or ${file:PATH}"));
            }
            let finding = match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value.text)) {
                (Ok(header), _) if FRAMING.contains(&header.as_str()) => {
                    self.finding(Code::Invalid, at, format!("`{name}` cannot be set on a probe")).label("delete it")
                }
                (Ok(header), Ok(value)) => {
                    checked.push((header, value));
                    continue;
                }
                (Err(_), _) => {
                    // It may be a misspelt one that carries a secret.
                    self.mask(at);
                    let mut finding = self.finding(Code::Invalid, at, format!("`{name}` is not the name of a header"));
                    finding.span = at.key_span();
                    finding
                }
                (_, Err(_)) => self
                    .finding(Code::Invalid, at, format!("the value of `{name}` cannot be sent in a header"))
                    .label("printable ASCII only"),
            };
            self.report(finding);
        }
        checked.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        checked
    }

    fn statuses(&mut self, at: At<'a>, written: &OneOrMany<Status>) -> Vec<StatusRange> {
        let mut ranges: Vec<StatusRange> = match written {
            OneOrMany::One(status) => self.status(at, &status.text).into_iter().collect(),
            OneOrMany::Many(list) => {
                if list.0.is_empty() {
                    let finding = self.finding(Code::Missing, at, "no status would pass");
                    self.report(finding.label("write one, like 200-399"));
                }
                let mut ranges = vec![];
                for (i, status) in list.0.iter().enumerate() {
                    match status {
                        Some(status) => ranges.extend(self.status(at.item(i), &status.text)),
                        None => self.empty_item(at.item(i)),
                    }
                }
                ranges
            }
        };
        ranges.sort_by_key(|range| (range.first, range.last));
        ranges.dedup();
        ranges
    }

    fn status(&mut self, at: At<'a>, text: &str) -> Option<StatusRange> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let parse =
            |text: &str| text.parse::<u16>().ok().filter(|status| text.len() == 3 && (200..=599).contains(status));
        match (parse(first), parse(last)) {
            (Some(first), Some(last)) if first <= last => Some(StatusRange { first, last }),
            _ => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` is not a status", at.shown()));
                self.report(finding.label("write one from 200 to 599, or a range like 200-399"));
                None
            }
        }
    }
}

fn check_of(kind: ProbeKind) -> HealthCheck {
    HealthCheck {
        kind,
        port: None,
        interval: Duration::from_secs(10),
        interval_changing: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        healthy_after: 2,
        unhealthy_after: 3,
        jitter: Percent::whole(10),
    }
}

fn plain_probe() -> HttpProbe {
    let status = vec![StatusRange { first: 200, last: 399 }];
    let expect = Expect { status, body: None };
    HttpProbe { path: "/healthz".to_owned(), method: Method::GET, headers: vec![], expect }
}

fn is_ipv6(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
}
