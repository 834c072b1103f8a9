//! How backends' health is asked, and what counts as healthy.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

use super::{Check, upstream::DAY};
use crate::{
    base::{Name, Percent},
    config::{
        diagnostics::Code,
        plan::{
            Backend, Expect, FailureRatio, Health, HealthCheck, Host, HttpProbe, Passive, ProbeKind, StatusRange,
            SuspectCheck, WhenAllDown, WhenOut,
        },
        spec::{self, ActiveSpec, HealthShort, HealthSpec, Named, OneOrMany, PassiveSpec, ShortOr, Status, Written},
        yaml::At,
    },
};

/// Fields of `health` that ask nobody.
const RULES: &[&str] = &["degraded_weight", "min_capacity", "passive", "suspect_check", "when_all_down", "when_out"];

impl<'a> Check<'a> {
    /// The health of an upstream or of the addresses of a route. `whose` names it with its kind.
    pub(super) fn health(
        &mut self,
        at: At<'a>,
        whose: &str,
        written: Option<&ShortOr<HealthShort, HealthSpec>>,
    ) -> Health {
        let health_at = at.key("health");
        let fields = match written {
            None if at.has("health") => return Health::default(),
            None => {
                self.no_health(at, whose);
                return Health::default();
            }
            Some(ShortOr::Short(short)) => return self.short_health(health_at, &short.text),
            Some(ShortOr::Fields(fields)) => fields,
        };
        let health = self.rules(health_at, fields);
        match &fields.active {
            Some(active) => {
                let checks = self.active(health_at.key("active"), active).into_iter().collect();
                Health { checks, ..health }
            }
            None => {
                // A field that belongs in `active` was found misplaced: that is one mistake, not two. And whoever says what live
                // traffic says has chosen.
                let has_chosen = matches!(fields.passive, Some(ShortOr::Fields(_)));
                if !has_chosen && health_at.keys().iter().all(|key| RULES.contains(&&**key)) {
                    self.no_health(health_at, whose);
                }
                health
            }
        }
    }

    /// Everything beside the checks.
    fn rules(&mut self, at: At<'a>, written: &HealthSpec) -> Health {
        let plain = Health::default();
        let modes = [("fail", WhenAllDown::Fail), ("try_all", WhenAllDown::TryAll)];
        let what = "a mode for when all are down";
        let when_all_down = self.choice(at, "when_all_down", written.when_all_down.as_ref(), what, &modes);
        let modes = [("hold", SuspectCheck::Hold), ("eject", SuspectCheck::Eject)];
        let what = "a mode for a check that is suspect";
        let suspect_check = self.choice(at, "suspect_check", written.suspect_check.as_ref(), what, &modes);
        let modes = [("keep", WhenOut::Keep), ("close", WhenOut::Close)];
        let what = "a mode for connections to a backend that is out";
        let when_out = self.choice(at, "when_out", written.when_out.as_ref(), what, &modes);
        let whole = Percent::whole(100);
        let min_capacity = self.percent(at, "min_capacity", written.min_capacity.as_ref(), whole);
        let degraded = self.share(at, "degraded_weight", written.degraded_weight.as_ref());
        Health {
            checks: Vec::new(),
            when_all_down: when_all_down.unwrap_or_default(),
            passive: self.passive(at, written),
            min_capacity: min_capacity.unwrap_or(plain.min_capacity),
            degraded_weight: degraded.unwrap_or(plain.degraded_weight),
            suspect_check: suspect_check.unwrap_or_default(),
            when_out: when_out.unwrap_or_default(),
        }
    }

    /// What live traffic says.
    fn passive(&mut self, at: At<'a>, written: &HealthSpec) -> Option<Passive> {
        let at = at.key("passive");
        let written = match &written.passive {
            None => return Some(Passive::default()),
            Some(ShortOr::Short(short)) if short.text == "none" => return None,
            Some(ShortOr::Short(_)) => {
                let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not passive health", at.shown()));
                self.report(finding.label("write none, or fields like failures: 5"));
                return None;
            }
            Some(ShortOr::Fields(fields)) => fields,
        };
        let plain = Passive::default();
        let failures = self.count(at, "failures", written.failures.as_ref(), 1..=1_000);
        let status = written.status.as_ref().map(|status| self.statuses(at.key("status"), status));
        let moment = Duration::from_millis(1);
        let hour = moment..=Duration::from_secs(3_600);
        let slower_than = self.duration(at, "slower_than", written.slower_than.as_ref(), hour);
        let eject_for = self.duration(at, "eject_for", written.eject_for.as_ref(), moment..=DAY);
        let max_eject_for = self.duration(at, "max_eject_for", written.max_eject_for.as_ref(), moment..=DAY);
        let max_ejected = self.percent(at, "max_ejected", written.max_ejected.as_ref(), Percent::whole(100));
        let retry_after = self.flag(at, "retry_after", written.retry_after.as_ref());
        let (eject_for, max_eject_for) = self.ejection(at, eject_for, max_eject_for, &plain);
        Some(Passive {
            failures: failures.unwrap_or(plain.failures),
            status: status.unwrap_or(plain.status),
            slower_than,
            ratio: self.failure_ratio(at, written),
            eject_for,
            max_eject_for,
            max_ejected: max_ejected.unwrap_or(plain.max_ejected),
            retry_after: retry_after.unwrap_or(plain.retry_after),
            drain_header: written.drain_header.as_ref().and_then(|name| self.drain_header(at, &name.text)),
        })
    }

    /// The first ejection is not longer than the longest.
    fn ejection(
        &mut self,
        at: At<'a>,
        first: Option<Duration>,
        longest: Option<Duration>,
        plain: &Passive,
    ) -> (Duration, Duration) {
        if let (Some(first), Some(longest)) = (first, longest)
            && first > longest
        {
            let written = crate::base::duration::Written;
            let message = format!("eject_for ({}) is longer than max_eject_for ({})", written(first), written(longest));
            let finding = self.finding(Code::Contradiction, at.key("eject_for"), message);
            self.report(finding.label("a backend would be out for longer than the longest"));
        }
        let longest_or = longest.unwrap_or(plain.max_eject_for);
        let first = first.unwrap_or(plain.eject_for.min(longest_or));
        (first, longest.unwrap_or(plain.max_eject_for.max(first)))
    }

    /// A share of the backends that comes to nobody, or to one of two, where it is written.
    pub(super) fn few_ejected(&mut self, at: At<'a>, health: &Health, backends: &[Backend]) {
        let at = at.key("health").key("passive");
        // A name may have any number of addresses.
        let is_known = backends.iter().all(|backend| !matches!(backend.host, Host::Dns(_)));
        let Some(rules) = health.passive.as_ref().filter(|_| is_known && at.has("max_ejected")) else { return };
        let (all, share) = (backends.len(), rules.max_ejected);
        let (few, label) = match (all * usize::from(share.basis_points()) / 10_000, all) {
            (0, 2..) => ("none", "live traffic ejects nobody"),
            (1, 2) => ("one", "one ejection uses it up"),
            _ => return,
        };
        let message = format!("max_ejected: {share} of {all} backends is {few}");
        let finding = self.finding(Code::FewEjected, at.key("max_ejected"), message);
        self.report(finding.label(label));
    }

    fn failure_ratio(&mut self, at: At<'a>, written: &PassiveSpec) -> Option<FailureRatio> {
        let limit = self.share(at, "failure_ratio", written.failure_ratio.as_ref());
        let bounds = Duration::from_secs(1)..=Duration::from_secs(300);
        let window = self.duration(at, "window", written.window.as_ref(), bounds);
        let min_requests = self.count(at, "min_requests", written.min_requests.as_ref(), 1..=1_000_000);
        if written.failure_ratio.is_none() {
            for field in ["window", "min_requests"].into_iter().filter(|field| at.has(field)) {
                let message = format!("`{field}` says nothing without `failure_ratio`");
                let mut finding = self.finding(Code::Contradiction, at.key(field), message);
                finding.span = at.key(field).key_span();
                self.report(finding.label("add failure_ratio: 50%, or delete it"));
            }
        }
        let window = window.unwrap_or(Duration::from_secs(10));
        limit.map(|limit| FailureRatio { limit, window, min_requests: min_requests.unwrap_or(20) })
    }

    fn drain_header(&mut self, at: At<'a>, text: &str) -> Option<HeaderName> {
        const KEPT: &[&str] = &["connection", "content-length", "content-type", "date", "transfer-encoding", "upgrade"];
        let at = at.key("drain_header");
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !KEPT.contains(&name.as_str()) => Some(name),
            _ => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` cannot ask for a drain", at.shown()));
                self.report(finding.label("write the name of a header like x-drain"));
                None
            }
        }
    }

    /// A share that is not nothing.
    fn share(&mut self, at: At<'a>, field: &str, written: Option<&Written<spec::Percent>>) -> Option<Percent> {
        let share = self.percent(at, field, written, Percent::whole(100))?;
        if share >= Percent::whole(1) {
            return Some(share);
        }
        let at = at.key(field);
        let finding = self.finding(Code::OutOfRange, at, format!("`{field}: {}` is below 1%", at.shown()));
        self.report(finding.label("from 1% to 100%"));
        None
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
            "none" => return Health { passive: None, ..Health::default() },
            "tcp" => return of_one(Some(check_of(ProbeKind::Tcp))),
            path if path.starts_with('/') => self.probe_path(at, path),
            _ => {
                let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not a health check", at.shown()));
                self.report(finding.label("write a path like /healthz, or tcp, or none"));
                return Health::default();
            }
        };
        of_one(path.map(|path| check_of(ProbeKind::Http(HttpProbe { path, ..plain_probe() }))))
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
        let down = self.duration(at, "interval_down", written.interval_down.as_ref(), least..=DAY);
        let with_traffic = written.interval_with_traffic.as_ref();
        let with_traffic = self.duration(at, "interval_with_traffic", with_traffic, interval..=DAY.max(interval));
        let on_doubt = self.flag(at, "probe_on_doubt", written.probe_on_doubt.as_ref());
        Some(HealthCheck {
            interval_down: down.unwrap_or(interval),
            interval_with_traffic: with_traffic,
            probe_on_doubt: on_doubt.unwrap_or(plain.probe_on_doubt),
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

fn of_one(check: Option<HealthCheck>) -> Health {
    Health { checks: check.into_iter().collect(), ..Health::default() }
}

fn check_of(kind: ProbeKind) -> HealthCheck {
    HealthCheck {
        name: Name::derived(name_of(&kind)),
        kind,
        port: None,
        interval: Duration::from_secs(10),
        interval_changing: Duration::from_secs(1),
        interval_down: Duration::from_secs(10),
        interval_with_traffic: None,
        probe_on_doubt: true,
        timeout: Duration::from_secs(2),
        healthy_after: 2,
        unhealthy_after: 3,
        jitter: Percent::whole(10),
    }
}

fn name_of(kind: &ProbeKind) -> String {
    match kind {
        ProbeKind::Http(http) => format!("http {}", http.path),
        ProbeKind::Tcp => "tcp".to_owned(),
    }
}

fn plain_probe() -> HttpProbe {
    let status = vec![StatusRange { first: 200, last: 399 }];
    let expect = Expect { status, body: None };
    HttpProbe { path: "/healthz".to_owned(), method: Method::GET, headers: vec![], expect }
}
