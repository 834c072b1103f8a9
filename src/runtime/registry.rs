use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Weak, atomic::AtomicU32},
};

use super::ListenerId;
use crate::{
    base::Name,
    config::plan,
    layers::{Authenticator, PasswordPool, Pipeline, RateLimiter},
    telemetry::metrics::{ListenerMetrics, RouteMetrics, UpstreamMetrics},
    upstream::{self, Backend, Member, Slot},
};

/// Owns what has a memory, keyed by the part of the plan that defines it: an equal part keeps its object across a reload, a
/// changed one gets a new object.
///
/// A reload does not change the registry; it builds the next one, which takes over what stays, and drops it again where a
/// later step of the reload fails.
#[derive(Debug)]
pub struct Registry {
    pub(super) workers: usize,
    pub(super) tokens: Tokens,
    pub(super) passwords: PasswordPool,
    pub(super) next_upstream: u64,
    pub(super) upstreams: BTreeMap<UpstreamId, KeptUpstream>,
    pub(super) limiters: HashMap<Arc<plan::Limit>, Arc<RateLimiter>>,
    pub(super) authenticators: HashMap<Arc<plan::Auth>, Arc<Authenticator>>,
    pub(super) routes: BTreeMap<Name, KeptRoute>,
    pub(super) listeners: HashMap<ListenerKey, KeptListener>,
    pub(super) next_listener: usize,
    pub(super) slots: Vec<Weak<Backend>>,
}

/// The fixed lists of tokens that metrics are counted by, from the floors that define them.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Reasons of faults.
    pub faults: &'static [&'static str],
    /// Reasons why a client's connection ended.
    pub closes: &'static [&'static str],
}

/// Which upstream it is, whatever it is called: an anonymous one is called after its route, and stays itself when the route
/// gets another path.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UpstreamId(pub(super) u64);

#[derive(Clone, Debug)]
pub(super) struct KeptUpstream {
    pub(super) plan: Arc<plan::Upstream>,
    pub(super) live: Arc<upstream::Upstream>,
    pub(super) members: Vec<Member>,
    pub(super) metrics: Arc<UpstreamMetrics>,
}

#[derive(Clone, Debug)]
pub(super) struct KeptRoute {
    pub(super) plan: Arc<plan::Route>,
    pub(super) layers: Arc<Pipeline>,
    pub(super) metrics: Arc<RouteMetrics>,
}

#[derive(Clone, Debug)]
pub(super) struct KeptListener {
    pub(super) id: ListenerId,
    pub(super) metrics: Arc<ListenerMetrics>,
    pub(super) connections: Arc<AtomicU32>,
}

/// A listener is its address; one that asks the system for a port is its name as well.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct ListenerKey(SocketAddr, Option<Name>);

impl ListenerKey {
    pub(super) fn of(plan: &plan::Listener) -> Self {
        Self(plan.bind, (plan.bind.port() == 0).then(|| plan.name.clone()))
    }
}

impl Registry {
    /// Nothing yet, for as many workers.
    #[must_use]
    pub fn new(workers: usize, tokens: Tokens, passwords: PasswordPool) -> Self {
        Self {
            workers,
            tokens,
            passwords,
            next_upstream: 0,
            upstreams: BTreeMap::default(),
            limiters: HashMap::default(),
            authenticators: HashMap::default(),
            routes: BTreeMap::default(),
            listeners: HashMap::default(),
            next_listener: 0,
            slots: Vec::default(),
        }
    }

    /// Each rate limiter that is in use, for the sweep.
    pub fn limiters(&self) -> impl Iterator<Item = &Arc<RateLimiter>> {
        self.limiters.values()
    }

    /// A registry that keeps nothing of this one but what every one has.
    pub(super) fn successor(&self) -> Self {
        Self {
            next_upstream: self.next_upstream,
            // A listening address never gets another number, so a connection can always tell whose it was.
            listeners: self.listeners.clone(),
            next_listener: self.next_listener,
            slots: self.slots.clone(),
            ..Self::new(self.workers, self.tokens, self.passwords.clone())
        }
    }

    /// Which kept upstream the planned one is: that of its name, or, for an anonymous one, that of its backends.
    pub(super) fn upstream_like(&self, plan: &plan::Upstream, taken: &[UpstreamId]) -> Option<UpstreamId> {
        let mut free = self.upstreams.iter().filter(|(id, _)| !taken.contains(id));
        let is_same = |kept: &KeptUpstream| kept.plan.name == plan.name && kept.plan.anonymous == plan.anonymous;
        let has_same_backends =
            |kept: &KeptUpstream| kept.plan.anonymous && plan.anonymous && kept.plan.backends == plan.backends;
        let same = free.clone().find(|(_, kept)| is_same(kept));
        same.or_else(|| free.find(|(_, kept)| has_same_backends(kept))).map(|(id, _)| *id)
    }

    /// The lowest slot that no backend has, not even one that was removed and still finishes requests.
    pub(super) fn allot(&mut self, make: impl FnOnce(Slot) -> Backend) -> Arc<Backend> {
        let free = self.slots.iter().position(|backend| backend.strong_count() == 0);
        let index = free.unwrap_or(self.slots.len());
        let backend = Arc::new(make(Slot(u32::try_from(index).expect("fewer than 2^32 backends"))));
        match self.slots.get_mut(index) {
            Some(place) => *place = Arc::downgrade(&backend),
            None => self.slots.push(Arc::downgrade(&backend)),
        }
        backend
    }
}
