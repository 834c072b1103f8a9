//! What outlives a snapshot: backends, buckets, password caches, counters, and by which part of the plan each is found again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Weak, atomic::AtomicU32},
};

use super::{ListenerId, api::ApiCounts};
use crate::{
    base::Name,
    config::plan,
    layers::{Authenticator, PasswordPool, Pipeline, RateLimiter},
    net::Address,
    telemetry::metrics::{ListenerMetrics, RouteMetrics, UpstreamMetrics},
    tls,
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
    // By name and version.
    pub(super) apis: HashMap<(Name, String), ApiCounts>,
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
    // Backends whose name does not resolve.
    pub(super) unresolved: Vec<Name>,
    // Backends that it had and that still finish requests: one that comes back is the same one.
    pub(super) departed: Vec<Weak<Backend>>,
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) connector: Option<Arc<tls::Connector>>,
}

impl KeptUpstream {
    /// The backends that it reaches, or reached, by their addresses. One address may be reached in several ways.
    pub(super) fn by_address(&self) -> HashMap<Address, Vec<Arc<Backend>>> {
        let present = self.members.iter().map(|member| Arc::clone(&member.backend));
        let departed = self.departed.iter().filter_map(Weak::upgrade);
        present.chain(departed).fold(HashMap::new(), |mut all, backend| {
            all.entry(backend.address().clone()).or_insert_with(Vec::new).push(backend);
            all
        })
    }

    /// The backends that it had and that are not among these any more, as far as they still live.
    pub(super) fn departed(&self, members: &[Member]) -> Vec<Weak<Backend>> {
        let present = self.members.iter().map(|member| Arc::downgrade(&member.backend));
        let had = present.chain(self.departed.iter().cloned());
        let has: HashSet<*const Backend> = members.iter().map(|member| Arc::as_ptr(&member.backend)).collect();
        let is_gone = |backend: &Arc<Backend>| !has.contains(&Arc::as_ptr(backend));
        had.filter(|backend| backend.upgrade().as_ref().is_some_and(is_gone)).collect()
    }
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
    pub(super) tls: Option<Arc<tls::Acceptor>>,
}

/// A listener is its address; one that asks the system for a port is its name as well.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum ListenerKey {
    Tcp(SocketAddr),
    TcpAnyPort(SocketAddr, Name),
    Unix(PathBuf),
}

impl ListenerKey {
    pub(super) fn of(plan: &plan::Listener) -> Self {
        match &plan.bind {
            plan::Bind::Tcp(address) if address.port() == 0 => Self::TcpAnyPort(*address, plan.name.clone()),
            plan::Bind::Tcp(address) => Self::Tcp(*address),
            plan::Bind::Unix { path, .. } => Self::Unix(path.clone()),
        }
    }
}

impl Registry {
    /// Nothing yet, for this many workers.
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
            apis: HashMap::default(),
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

    /// The backends of an upstream, and the names of those without an address.
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> Option<(&[Member], &[Name])> {
        self.upstreams.get(&id).map(|kept| (kept.members.as_slice(), kept.unresolved.as_slice()))
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

    /// Which kept upstream each planned one is: a named one that of its name; an anonymous one that of its backends, whatever
    /// its route is called now, and where there is none, that of its name.
    pub(super) fn same_upstreams(&self, plan: &plan::Plan) -> BTreeMap<Name, UpstreamId> {
        let mut by_name: HashMap<(&Name, bool), UpstreamId> = HashMap::new();
        let mut by_backends: HashMap<&[plan::Backend], Vec<UpstreamId>> = HashMap::new();
        for (id, kept) in &self.upstreams {
            by_name.insert((&kept.plan.name, kept.plan.anonymous), *id);
            if kept.plan.anonymous {
                by_backends.entry(&kept.plan.backends).or_default().push(*id);
            }
        }
        let (mut same, mut taken) = (BTreeMap::new(), HashSet::new());
        let is_itself = |upstream: &plan::Upstream, id: &UpstreamId| {
            self.upstreams.get(id).is_some_and(|kept| kept.plan.name == upstream.name)
        };
        for (name, upstream) in &plan.upstreams {
            let id = match by_backends.get_mut(upstream.backends.as_slice()).filter(|_| upstream.anonymous) {
                // Of several with the same backends, the one that is called so, if it is there.
                Some(ids) => {
                    let own = ids.iter().position(|id| is_itself(upstream, id));
                    own.map(|own| ids.swap_remove(own)).or_else(|| ids.pop())
                }
                None if upstream.anonymous => None,
                None => by_name.get(&(name, false)).copied(),
            };
            if let Some(id) = id {
                taken.insert(id);
                same.insert(name.clone(), id);
            }
        }
        for (name, upstream) in plan.upstreams.iter().filter(|(_, upstream)| upstream.anonymous) {
            if let Some(id) =
                by_name.get(&(&upstream.name, true)).filter(|id| !same.contains_key(name) && taken.insert(**id))
            {
                same.insert(name.clone(), *id);
            }
        }
        same
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
