//! How backends' health is asked: which checks there are, and how often each of them asks.

mod expect;
mod passive;
mod probe;

use std::time::Duration;

use super::{Check, upstream::DAY};
use crate::{
    base::Percent,
    config::{
        diagnostics::Code,
        plan::{Backend, Health, HealthCheck, HttpProbe, ProbeKind, Protocol, TcpProbe, UpstreamTls},
        spec::{ActiveSpec, Blocks, HealthShort, HealthSpec, ShortOr},
        yaml::At,
    },
};

use passive::RULES;

/// Checks of one upstream.
const MOST_CHECKS: usize = 8;

/// The backends that are asked, and how requests reach them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached<'r> {
    pub(super) backends: &'r [Backend],
    pub(super) tls: Option<&'r UpstreamTls>,
    pub(super) protocol: Protocol,
}

impl<'a> Check<'a> {
    /// The health of an upstream or of the addresses of a route. `whose` names it with its kind.
    pub(super) fn health(
        &mut self,
        at: At<'a>,
        whose: &str,
        written: Option<&ShortOr<HealthShort, HealthSpec>>,
        reached: Reached<'_>,
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
            Some(active) => Health { checks: self.checks(health_at.key("active"), active, reached), ..health },
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

    fn no_health(&mut self, at: At<'a>, whose: &str) {
        if self.has_stray_field(at) {
            return;
        }
        let finding = self.finding(Code::NoHealth, at, format!("{whose} has no health check"));
        self.report(finding.label("add `health: /healthz`, or `health: none` if this is meant"));
    }

    fn short_health(&mut self, at: At<'a>, text: &str) -> Health {
        let kind = match text {
            "none" => return Health { passive: None, ..Health::default() },
            "tcp" => Some(ProbeKind::Tcp(TcpProbe::default())),
            path if path.starts_with('/') => {
                self.probe_path(at, path).map(|path| ProbeKind::Http(HttpProbe { path, ..HttpProbe::default() }))
            }
            _ => {
                let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not a health check", at.shown()));
                self.report(finding.label("write a path like /healthz, or tcp, or none"));
                None
            }
        };
        Health { checks: kind.map(HealthCheck::new).into_iter().collect(), ..Health::default() }
    }

    fn checks(&mut self, at: At<'a>, written: &Blocks<ActiveSpec>, reached: Reached<'_>) -> Vec<HealthCheck> {
        let list = match written {
            Blocks::One(one) => return vec![self.active(at, one, reached)],
            Blocks::Many(list) => &list.0,
        };
        if list.is_empty() {
            let finding = self.finding(Code::Missing, at, "`active` is empty");
            self.report(finding.label("add a check, or write health: none"));
        }
        if list.len() > MOST_CHECKS {
            let message = format!("an upstream has at most {MOST_CHECKS} health checks");
            let finding = self.finding(Code::OutOfRange, at.item(MOST_CHECKS), message);
            self.report(finding.label("one too many"));
        }
        let mut checks: Vec<(HealthCheck, At<'a>)> = vec![];
        for (i, written) in list.iter().enumerate().take(MOST_CHECKS) {
            let at = at.item(i);
            let Some(written) = written else {
                self.empty_item(at);
                continue;
            };
            let check = self.active(at, written, reached);
            self.is_another(&check, at, &checks);
            checks.push((check, at));
        }
        checks.into_iter().map(|(check, _)| check).collect()
    }

    /// Says where a check is the same as one before it, or has its name.
    fn is_another(&mut self, check: &HealthCheck, at: At<'a>, others: &[(HealthCheck, At<'a>)]) {
        let same = others.iter().find(|(other, _)| other.asks_the_same(check));
        let named = others.iter().find(|(other, _)| other.name == check.name);
        // The name may be made of what a variable stands for: it is not repeated.
        let (finding, first) = match (same, named) {
            (Some((_, first)), _) => {
                let finding = self.finding(Code::Contradiction, at, "two health checks of one upstream ask the same");
                (finding.label("delete one"), first)
            }
            (None, Some((_, first))) => {
                let finding = self.finding(Code::SameName, at, "two health checks of one upstream have the same name");
                (finding.label("give one of them a `name`"), first)
            }
            (None, None) => return,
        };
        self.report(finding.related(first.span(), "first here"));
    }

    fn active(&mut self, at: At<'a>, written: &ActiveSpec, reached: Reached<'_>) -> HealthCheck {
        let kind = self.probe(at, written);
        let (protocol, tls) = self.transport(at, &kind, written, reached);
        let plain = HealthCheck { protocol, tls, ..HealthCheck::new(kind) };
        let port = self.count(at, "port", written.port.as_ref(), 1..=65_535).and_then(|port| u16::try_from(port).ok());
        let address = written.address.as_ref().and_then(|address| self.probe_address(at, &address.text, reached));
        let asked = self.cadence(at, written, HealthCheck { port, address, ..plain });
        let name =
            written.name.as_ref().and_then(|name| self.name(at.key("name"), &name.text, "a health check", false));
        HealthCheck { name: name.unwrap_or_else(|| asked.derived_name()), ..asked }
    }

    /// How often a check asks, and how many answers it wants.
    fn cadence(&mut self, at: At<'a>, written: &ActiveSpec, plain: HealthCheck) -> HealthCheck {
        let least = Duration::from_millis(10);
        let interval = self.duration(at, "interval", written.interval.as_ref(), least..=DAY);
        let interval = interval.unwrap_or(plain.interval);
        let down = self.duration(at, "interval_down", written.interval_down.as_ref(), least..=DAY);
        let changing = self.duration(at, "interval_changing", written.interval_changing.as_ref(), least..=DAY);
        let with_traffic = written.interval_with_traffic.as_ref();
        let with_traffic = self.duration(at, "interval_with_traffic", with_traffic, interval..=DAY.max(interval));
        let on_doubt = self.flag(at, "probe_on_doubt", written.probe_on_doubt.as_ref());
        let timeout = self.duration(at, "timeout", written.timeout.as_ref(), Duration::from_millis(1)..=DAY);
        self.probe_order(at, interval, changing, timeout);
        let count = |value: Option<u32>, default| value.and_then(|value| u16::try_from(value).ok()).unwrap_or(default);
        let healthy_after = self.count(at, "healthy_after", written.healthy_after.as_ref(), 1..=1_000);
        let unhealthy_after = self.count(at, "unhealthy_after", written.unhealthy_after.as_ref(), 1..=1_000);
        HealthCheck {
            interval,
            interval_down: down.unwrap_or(interval),
            interval_with_traffic: with_traffic,
            probe_on_doubt: on_doubt.unwrap_or(plain.probe_on_doubt),
            interval_changing: changing.unwrap_or(plain.interval_changing.min(interval)),
            timeout: timeout.unwrap_or(if plain.timeout < interval { plain.timeout } else { interval / 2 }),
            healthy_after: count(healthy_after, plain.healthy_after),
            unhealthy_after: count(unhealthy_after, plain.unhealthy_after),
            jitter: self.percent(at, "jitter", written.jitter.as_ref(), Percent::whole(50)).unwrap_or(plain.jitter),
            ..plain
        }
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
}
