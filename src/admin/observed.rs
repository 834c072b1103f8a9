//! One look at everything that an answer is made of, and what it means.
//!
//! A look is taken once per request, so that an answer agrees with itself. The rules of `/health` are here: what makes an
//! upstream `up`, `degraded` or `down`, and the whole `healthy`, `degraded` or `unhealthy`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    base::{Name, Timestamp},
    control::{Attempt, NameRecord, Status, Trouble},
    health::{BackendView, Record, UpstreamView},
    net,
    runtime::{self, Snapshot, Unresolved},
    telemetry::cells::HistogramSum,
    tls::Certificate,
    upstream::{Tier, Verdict},
};

/// The gateway at one moment.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) at: Timestamp,
    pub(super) started: Timestamp,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) last_attempt: Arc<Attempt>,
    pub(super) upstreams: Vec<Observed>,
    pub(super) names: Arc<BTreeMap<Name, Arc<NameRecord>>>,
}

/// An upstream at one moment: as it runs, and as its health task sees it.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) upstream: Arc<runtime::Upstream>,
    pub(super) view: UpstreamView,
}

/// What an upstream is as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// Every backend is up, or nobody asks.
    Up,
    /// Some backend is not up, and others take traffic.
    Degraded,
    /// No backend is eligible, whether or not they are tried all the same.
    Down,
}

/// What the gateway is as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Overall {
    /// Nothing is wrong.
    Healthy,
    /// Something is wrong and traffic goes on.
    Degraded,
    /// Traffic should go elsewhere.
    Unhealthy,
}

impl Now {
    pub(super) fn look(status: &Status) -> Self {
        let snapshot = status.live.load();
        let monitors = status.monitors.load();
        let observe = |(name, upstream): (&Name, &Arc<runtime::Upstream>)| {
            let view = monitors.get(name).map_or_else(|| unwatched(upstream), |monitor| monitor.view());
            Observed { upstream: Arc::clone(upstream), view }
        };
        let upstreams = snapshot.upstreams.iter().map(observe).collect();
        let last_attempt = status.last_attempt.load_full();
        let names = status.names.load_full();
        Self { at: Timestamp::now(), started: status.started, snapshot, last_attempt, upstreams, names }
    }

    /// `unhealthy` only when every checked upstream is down, or one that a critical route uses.
    pub(super) fn overall(&self) -> Overall {
        let is_down = |observed: &Observed| observed.standing() == Standing::Down;
        let mut checked = self.upstreams.iter().filter(|observed| observed.is_checked()).peekable();
        let is_all_down = checked.peek().is_some() && checked.all(is_down);
        let is_critical_down =
            self.upstreams.iter().any(|observed| is_down(observed) && self.is_critical(observed.name()));
        let is_sound = || {
            let upstreams = self.upstreams.iter().map(Observed::standing);
            upstreams.chain(self.certificates().map(|shown| shown.standing())).all(|standing| standing == Standing::Up)
        };
        if is_all_down || is_critical_down {
            Overall::Unhealthy
        } else if !self.last_attempt.is_live || !is_sound() {
            Overall::Degraded
        } else {
            Overall::Healthy
        }
    }

    /// What each listener with TLS shows its clients.
    pub(super) fn certificates(&self) -> impl Iterator<Item = Shown<'_>> {
        self.snapshot.listeners.values().filter_map(|listener| {
            let certificates = &listener.plan.tls.as_ref()?.shown.certificates;
            let facts = certificates.iter().map(Certificate::facts).min_by_key(|facts| facts.not_after)?;
            let ends = Timestamp::from(facts.not_after);
            let left = ends.as_micros().checked_sub(self.at.as_micros()).map(Duration::from_micros);
            Some(Shown { listener: &listener.plan.name, name: facts.name(), ends, left })
        })
    }

    /// Names whose addresses stay in use although the last look-up did not confirm them. It changes no verdict: the backends may be well.
    pub(super) fn stale_names(&self) -> impl Iterator<Item = (&Name, usize, Trouble)> {
        self.names.iter().filter_map(|(name, record)| {
            let now = record.now();
            let trouble = now.trouble.clone().filter(|_| now.addresses > 0)?;
            Some((name, now.addresses, trouble))
        })
    }

    fn is_critical(&self, upstream: &Name) -> bool {
        let leads_there = |route: &runtime::Route| route.plan.action.upstreams().any(|name| name == upstream);
        self.snapshot.routes.values().any(|route| route.plan.critical && leads_there(route))
    }

    pub(super) fn uptime_s(&self) -> u64 {
        seconds_between(self.started, self.at)
    }
}

pub(super) fn seconds_between(earlier: Timestamp, later: Timestamp) -> u64 {
    later.as_micros().saturating_sub(earlier.as_micros()) / 1_000_000
}

/// An upstream whose health task does not run yet: between the swap of a reload and its start.
fn unwatched(upstream: &runtime::Upstream) -> UpstreamView {
    let backends = upstream.members.iter().map(|member| BackendView::of(member, &Arc::default()));
    UpstreamView {
        plan: Arc::clone(&upstream.plan),
        tier: upstream.live.eligible().tier(),
        first_round_done: false,
        suspicion: Arc::default(),
        probe_durations: HistogramSum::default(),
        probes_waiting: 0,
        backends: backends.collect(),
    }
}

/// A listener's certificates at one moment, which are as good as the one that expires first.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) listener: &'a Name,
    /// What to call the one that expires first.
    pub(super) name: &'a str,
    pub(super) ends: Timestamp,
    /// Until then; `None` once it has expired.
    pub(super) left: Option<Duration>,
}

impl Shown<'_> {
    /// `degraded` in the last week, `down` once it has expired.
    pub(super) fn standing(&self) -> Standing {
        match self.left {
            None => Standing::Down,
            Some(left) if left < Certificate::SOON => Standing::Degraded,
            Some(_) => Standing::Up,
        }
    }

    /// Its key in the health documents.
    pub(super) fn key(&self) -> String {
        format!("cert:{}", self.listener)
    }
}

impl Observed {
    pub(super) fn name(&self) -> &Name {
        &self.upstream.plan.name
    }

    /// Whether anybody asks its backends.
    pub(super) fn is_checked(&self) -> bool {
        self.view.plan.health.is_checked()
    }

    pub(super) fn standing(&self) -> Standing {
        match self.view.tier {
            Tier::Nobody | Tier::TooFew | Tier::TryAll => Standing::Down,
            Tier::Ejected => Standing::Degraded,
            Tier::Primary | Tier::Backup | Tier::Checking if self.is_impaired() => Standing::Degraded,
            Tier::Primary | Tier::Backup | Tier::Checking => Standing::Up,
        }
    }

    /// Whether some backend is not up, or its check is not to be trusted.
    fn is_impaired(&self) -> bool {
        self.up() < self.total() || self.view.suspicion.is_some()
    }

    /// What is said of its check, while that is suspect.
    pub(super) fn suspicion(&self) -> Option<String> {
        Option::clone(&self.view.suspicion)
    }

    /// Backends that are up or that nobody asks, draining ones left out.
    pub(super) fn up(&self) -> usize {
        self.staying().filter(|backend| matches!(backend.shown, "up" | "unchecked")).count()
    }

    /// Backends that may get traffic.
    pub(super) fn eligible(&self) -> usize {
        self.view.backends.iter().filter(|backend| backend.is_eligible).count()
    }

    /// All backends, those without an address too, draining ones left out.
    pub(super) fn total(&self) -> usize {
        self.staying().count() + self.upstream.unresolved.len()
    }

    /// Names that lead to the address of a backend of another name.
    pub(super) fn aliases_of(&self, backend: &Name) -> impl Iterator<Item = &Name> {
        self.upstream.aliases.iter().filter(move |(_, of)| of == backend).map(|(alias, _)| alias)
    }

    fn staying(&self) -> impl Iterator<Item = &BackendView> {
        self.view.backends.iter().filter(|backend| !is_draining(backend))
    }

    /// Its backends as they are shown, those without an address last.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let seen = self.view.backends.iter().map(Row::seen);
        seen.chain(self.upstream.unresolved.iter().map(|(name, unresolved)| self.unresolved(name, unresolved)))
    }

    fn unresolved<'a>(&'a self, name: &'a Name, unresolved: &'a Unresolved) -> Row<'a> {
        let plan = self.upstream.plan.backends.iter().find(|backend| backend.name == *name);
        Row {
            name,
            address: plan.map_or(Address::Written(String::new()), |plan| Address::Written(plan.authority())),
            state: Verdict::Down.as_str(),
            since: unresolved.since,
            reason: "dns_error",
            detail: &unresolved.why,
            weight: plan.map_or(1, |plan| plan.weight),
            tier: plan.map_or(0, |plan| plan.tier),
            is_eligible: false,
            view: None,
        }
    }
}

fn is_draining(backend: &BackendView) -> bool {
    backend.shown == "draining"
}

/// Why it is in the state that is shown: what its probes say, or, of a state that they do not explain, what led to it.
fn why(view: &BackendView) -> (&'static str, &str) {
    let is_explained = !matches!(view.shown, "draining" | "ejected");
    match view.record.changes.iter().rev().find(|change| change.to == view.shown) {
        Some(change) if !is_explained => (change.reason, &change.detail),
        _ => (view.record.reason, &view.record.detail),
    }
}

/// A backend as it is shown.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) name: &'a Name,
    pub(super) address: Address,
    pub(super) state: &'static str,
    pub(super) since: Timestamp,
    pub(super) reason: &'a str,
    pub(super) detail: &'a str,
    pub(super) weight: u16,
    /// 0 for a primary, else the tier of a backup.
    pub(super) tier: u8,
    pub(super) is_eligible: bool,
    /// What is known of it; `None` where its name has no address.
    pub(super) view: Option<&'a BackendView>,
}

/// Where a backend is.
#[derive(Debug)]
pub(super) enum Address {
    Found(net::Address),
    Written(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Found(address) => address.fmt(f),
            Self::Written(address) => f.write_str(address),
        }
    }
}

impl<'a> Row<'a> {
    fn seen(view: &'a BackendView) -> Self {
        let (reason, detail) = why(view);
        Self {
            name: &view.name,
            address: Address::Found(view.address.clone()),
            state: view.shown,
            since: view.since,
            reason,
            detail,
            weight: view.weight,
            tier: view.tier,
            is_eligible: view.is_eligible,
            view: Some(view),
        }
    }

    pub(super) const fn is_backup(&self) -> bool {
        self.tier > 0
    }

    pub(super) fn is_removed(&self) -> bool {
        self.view.is_some_and(|view| view.backend.condition().is_removed)
    }

    pub(super) fn record(&self) -> Arc<Record> {
        self.view.map(|view| Arc::clone(&view.record)).unwrap_or_default()
    }

    pub(super) fn oldest(&self) -> Option<Duration> {
        self.view.and_then(|view| view.backend.oldest())
    }

    pub(super) fn tunnels(&self) -> u32 {
        self.view.map_or(0, |view| view.backend.tunnels())
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.view.map_or(0, |view| view.backend.in_flight())
    }

    pub(super) fn connections(&self) -> u32 {
        self.view.map_or(0, |view| view.backend.connections())
    }
}

impl Standing {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

impl Overall {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The word for the members that get traffic.
pub(super) const fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Backup => "backup",
        Tier::Ejected => "ejected",
        Tier::TooFew => "too_few",
        Tier::Checking => "checking",
        Tier::Nobody => "nobody",
        Tier::Primary => "primary",
        Tier::TryAll => "try_all",
    }
}
