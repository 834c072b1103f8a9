//! Upstreams and their backends.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::HeaderValue;

use super::{Check, Placed, Upstreams, address::is_dns_name, health::Reached};
use crate::{
    base::Name,
    config::{
        diagnostics::Code,
        plan::{Backend, Balance, Health, Host, HostHeader, Protocol, Upstream, UpstreamTls},
        spec::{self, Address, BackendSpec, List, ShortOr, Spec, UpstreamSpec, Written},
        yaml::At,
    },
};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

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
        let protocol = self.protocol(at, written.protocol.as_ref()).unwrap_or_default();
        let tls = self.upstream_tls(at, &name, written.tls.as_ref(), &backends, protocol);
        let reached = Reached { backends: &backends, tls: tls.as_ref(), protocol };
        let health = self.health(at, &format!("upstream `{name}`"), written.health.as_ref(), reached);
        self.few_ejected(at, &health, &backends);
        self.no_backups(at, &health, &backends);
        let age = Duration::ZERO..=DAY * 30;
        let max_in_flight = self.count(at, "max_in_flight", written.max_in_flight.as_ref(), 1..=1_000_000);
        let max_connections = self.count(at, "max_connections", written.max_connections.as_ref(), 1..=1_000_000);
        let max_idle = self.count(at, "max_idle_connections", written.max_idle_connections.as_ref(), 0..=100_000);
        let max_age = self.duration(at, "max_connection_age", written.max_connection_age.as_ref(), age);
        let hour = Duration::ZERO..=Duration::from_secs(3_600);
        let slow_start = self.duration(at, "slow_start", written.slow_start.as_ref(), hour);
        Upstream {
            balance: self.balance(at, &name, written.balance.as_ref()),
            name,
            backends,
            host: self.host_header(at, written),
            tls,
            protocol,
            health,
            slow_start: slow_start.unwrap_or_default(),
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
            health: Health::default(),
            slow_start: Duration::ZERO,
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
        tls: Option<UpstreamTls>,
        health: Health,
        balance: Balance,
    ) -> Upstream {
        Upstream { name, backends, balance, tls, health, ..self.plain_upstream(true) }
    }

    /// `defaults.timeouts.idle`; what is wrong with it is reported once, by the routes' section.
    fn idle(&self) -> Duration {
        let written = self.defaults.and_then(|defaults| defaults.timeouts.as_ref()?.idle.as_ref());
        let parsed = written.and_then(|written| crate::base::duration::parse(&written.text).ok());
        parsed.unwrap_or(Duration::from_secs(60))
    }

    pub(super) fn protocol(&mut self, at: At<'a>, written: Option<&Written<spec::Protocol>>) -> Option<Protocol> {
        let choices = [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];
        self.choice(at, "protocol", written, "a protocol", &choices)
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
        let backend = Backend { name: Name::derived(""), host, port, tls, weight: 1, tier: 0 };
        let name = match &backend.host {
            Host::Unix(_) => Name::derived(text),
            Host::Dns(_) | Host::Ip(_) => Name::derived(backend.authority()),
        };
        Some(Backend { name, ..backend })
    }

    fn backend(&mut self, at: At<'a>, written: &BackendSpec) -> Option<Backend> {
        let name = written.name.as_ref().and_then(|name| self.name(at.key("name"), &name.text, "a backend", false));
        let weight = self.count(at, "weight", written.weight.as_ref(), 1..=1_000);
        let tier = self.tier(at, written);
        let Some(url) = &written.url else {
            self.missing(at, "url", "this backend", "add url: http://HOST:PORT");
            return None;
        };
        let plain = self.plain_backend(at.key("url"), &url.text)?;
        Some(Backend {
            name: name.unwrap_or_else(|| plain.name.clone()),
            weight: weight.and_then(|weight| u16::try_from(weight).ok()).unwrap_or(1),
            tier,
            ..plain
        })
    }

    /// `backup: true` is the first tier of backups.
    fn tier(&mut self, at: At<'a>, written: &BackendSpec) -> u8 {
        let backup = self.flag(at, "backup", written.backup.as_ref());
        let tier = self.count(at, "tier", written.tier.as_ref(), 1..=9).and_then(|tier| u8::try_from(tier).ok());
        if backup == Some(false) && tier.is_some() {
            let finding = self.finding(Code::Contradiction, at.key("tier"), "a tier is for backups");
            self.report(finding.label("delete it, or `backup: false`"));
        }
        tier.unwrap_or(u8::from(backup.unwrap_or(false)))
    }

    /// Without those whose name is taken, which are reported.
    pub(super) fn distinct(&mut self, upstream: &Name, backends: Vec<(Backend, At<'a>)>) -> Vec<Backend> {
        let mut seen: HashMap<Name, At<'a>> = HashMap::new();
        let mut addresses: HashMap<(Host, u16), (Name, At<'a>)> = HashMap::new();
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
            let (name, address) = (backend.name.clone(), (backend.host.clone(), backend.port));
            if let Some((first, first_at)) = addresses.get(&address) {
                let message = format!("backends `{first}` and `{name}` are the same address");
                let finding =
                    self.finding(Code::SameName, at, message).label("delete one, or raise the other's weight");
                self.report(finding.related(first_at.span(), "first here"));
                continue;
            }
            addresses.insert(address, (name, at));
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
        match HeaderValue::from_str(&host.text) {
            Ok(value) if is_host(&host.text) => HostHeader::Literal(value),
            _ => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` is not a host", at.shown()));
                self.report(finding.label("write preserve, backend, or a host like orders.internal"));
                HostHeader::Preserve
            }
        }
    }
}

/// Whether a text can be a `Host`.
pub(super) fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, "80"),
    };
    (is_dns_name(name) || is_ipv6(name)) && port.parse::<u16>().is_ok()
}

fn is_ipv6(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
}
