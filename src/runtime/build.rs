//! From a plan to a snapshot and the registry that goes with it. Pure: dropped, it is as if it had never been.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU32},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    Action, Api, Listener, ListenerId, Mirror, Registry, Route, Served, Side, Snapshot, Upstream, UpstreamId,
    api::ApiCounts,
    registry::{KeptListener, KeptRoute, KeptUpstream, ListenerKey},
};
use crate::{
    base::{Name, Percent, Timestamp},
    config::{Sha, plan},
    layers::{Authenticator, Pipeline, RateLimiter},
    net::Address,
    route::{Pattern, Table},
    telemetry::metrics::{ListenerMetrics, RouteMetrics, UpstreamMetrics},
    tls,
    upstream::{self, Backend, Dial, Eligible, Limits, Member, Secured, Verdict},
};

/// What DNS says of the names in a plan: addresses, or why there are none.
pub type Resolved = BTreeMap<(Name, u16), Result<Vec<SocketAddr>, Unresolved>>;

/// A name without addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unresolved {
    /// Since when.
    pub since: Timestamp,
    /// Why, in words, with the name.
    pub why: String,
}

/// Which edit a snapshot is.
#[derive(Clone, Copy, Debug)]
pub struct Edition {
    /// Counts the edits that went live, from 1.
    pub generation: u64,
    /// The start of the SHA-256 of the file.
    pub sha: Sha,
    /// When it went live.
    pub since: Timestamp,
}

impl Edition {
    /// One that goes live now.
    #[must_use]
    pub fn new(generation: u64, sha: Sha) -> Self {
        Self { generation, sha, since: Timestamp::now() }
    }
}

/// A plan made ready to go live. Nothing of it has had an effect yet.
#[derive(Debug)]
pub struct Built {
    /// What requests will use.
    pub snapshot: Snapshot,
    /// What will have the memory.
    pub registry: Registry,
    /// Which upstream each name is.
    pub upstreams: BTreeMap<Name, UpstreamId>,
}

/// The names that a plan's backends are to be looked up by.
#[must_use]
pub fn names(plan: &plan::Plan) -> Vec<(Name, u16)> {
    let backends = plan.upstreams.values().flat_map(|upstream| &upstream.backends);
    let named = backends.filter_map(|backend| match &backend.host {
        plan::Host::Dns(name) => Some((name.clone(), backend.port)),
        plan::Host::Ip(_) | plan::Host::Unix(_) => None,
    });
    named.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// Builds the snapshot of a plan, and the registry that takes over from `old` what the plan keeps.
#[must_use]
pub fn build(old: &Registry, plan: &Arc<plan::Plan>, edition: Edition, resolved: &Resolved) -> Built {
    let mut building = Building { old, next: old.successor(), same: old.same_upstreams(plan) };
    let listeners: BTreeMap<Name, Arc<Listener>> =
        plan.listeners.iter().map(|(name, listener)| (name.clone(), building.listener(listener))).collect();
    let (mut upstreams, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for (name, upstream) in &plan.upstreams {
        let (id, upstream) = building.upstream(upstream, resolved);
        upstreams.insert(name.clone(), Arc::new(upstream));
        ids.insert(name.clone(), id);
    }
    let apis: BTreeMap<Name, Arc<Api>> =
        plan.apis.iter().map(|(name, api)| (name.clone(), building.api(api, plan))).collect();
    let mut routes = BTreeMap::new();
    for (name, route) in &plan.routes {
        let action = action(&route.action, &upstreams);
        let api = route.api.as_ref().and_then(|api| apis.get(api));
        routes.insert(name.clone(), Arc::new(building.route(route, action, api)));
    }
    let by_id = by_id(&listeners, &routes);
    let Edition { generation, sha, since } = edition;
    let identity_headers = identity_headers(plan);
    let plan = Arc::clone(plan);
    let snapshot =
        Snapshot { generation, sha, since, plan, listeners, routes, upstreams, apis, identity_headers, by_id };
    Built { snapshot, registry: building.next, upstreams: ids }
}

fn action(plan: &plan::Action, upstreams: &BTreeMap<Name, Arc<Upstream>>) -> Action {
    match plan {
        plan::Action::Forward(forward) => {
            let upstream = |name: &Name| Arc::clone(upstreams.get(name).expect("the check resolved every reference"));
            let side = |side: &plan::Side| Side { upstream: upstream(&side.upstream), weight: side.weight };
            let mirror = |plan: &plan::Mirror| {
                Arc::new(Mirror { plan: plan.clone(), upstream: upstream(&plan.to), under_way: AtomicU32::new(0) })
            };
            Action::Forward {
                sides: forward.sides.iter().map(side).collect(),
                mirror: forward.mirror.as_ref().map(mirror),
            }
        }
        plan::Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
        plan::Action::Respond(respond) => {
            Action::Respond(respond.clone(), Bytes::copy_from_slice(respond.body.as_bytes()))
        }
    }
}

/// Headers by which backends learn who a client is, of whatever listener: nobody may bring one along.
fn identity_headers(plan: &plan::Plan) -> Vec<HeaderName> {
    let tls = plan.listeners.values().filter_map(|listener| listener.tls.as_ref());
    tls.filter_map(|tls| tls.client_subject.clone()).collect()
}

fn by_id(listeners: &BTreeMap<Name, Arc<Listener>>, routes: &BTreeMap<Name, Arc<Route>>) -> Vec<Option<Served>> {
    let places = listeners.values().map(|listener| listener.id.0 + 1).max().unwrap_or_default();
    let mut by_id: Vec<Option<Served>> = (0..places).map(|_| None).collect();
    for listener in listeners.values() {
        // A listener that sends its clients elsewhere serves what names it.
        let serves_all = listener.plan.redirect_to.is_none();
        let serves = |route: &Route| {
            route.plan.listeners.as_ref().map_or(serves_all, |listeners| listeners.contains(&listener.plan.name))
        };
        let served = routes.values().filter(|route| serves(route));
        let table = Table::new(served.map(|route| Pattern {
            hosts: &route.plan.hosts,
            path: &route.plan.path,
            conditions: &route.plan.conditions,
            to: Arc::clone(route),
        }));
        if let Some(place) = by_id.get_mut(listener.id.0) {
            *place = Some(Served { listener: Arc::clone(listener), table });
        }
    }
    by_id
}

struct Building<'a> {
    old: &'a Registry,
    next: Registry,
    // Which kept upstream each planned one is.
    same: BTreeMap<Name, UpstreamId>,
}

impl Building<'_> {
    fn listener(&mut self, plan: &Arc<plan::Listener>) -> Arc<Listener> {
        let next = &mut self.next;
        let kept = next.listeners.entry(ListenerKey::of(plan)).or_insert_with(|| {
            let id = ListenerId(next.next_listener);
            next.next_listener += 1;
            let metrics = Arc::new(ListenerMetrics::new(next.workers, next.tokens.closes));
            KeptListener { id, metrics, connections: Arc::default(), tls: None }
        });
        let same = |acceptor: &&Arc<tls::Acceptor>| plan.tls.as_ref().is_some_and(|tls| *acceptor.shown() == tls.shown);
        let tls = match (&plan.tls, kept.tls.as_ref().filter(same)) {
            (None, _) => None,
            // Sessions of clients that come back are known to this one alone.
            (Some(_), Some(kept)) => Some(Arc::clone(kept)),
            (Some(tls), None) => {
                let acceptor = tls::Acceptor::new(&tls.shown).expect("the check has tried it");
                Some(Arc::new(acceptor))
            }
        };
        kept.tls.clone_from(&tls);
        Arc::new(Listener {
            id: kept.id,
            plan: Arc::clone(plan),
            tls,
            metrics: Arc::clone(&kept.metrics),
            connections: Arc::clone(&kept.connections),
        })
    }

    fn upstream(&mut self, plan: &Arc<plan::Upstream>, resolved: &Resolved) -> (UpstreamId, Upstream) {
        let same = self.same.get(&plan.name).copied();
        let kept = same.and_then(|id| self.old.upstreams.get(&id));
        let id = same.unwrap_or_else(|| {
            self.next.next_upstream += 1;
            UpstreamId(self.next.next_upstream)
        });

        let connector = self.connector(plan, kept);
        // By hash: ten thousand backends are no hundred million comparisons.
        let known = kept.map(KeptUpstream::by_address).unwrap_or_default();
        let mut reached: HashMap<Address, Name> = HashMap::new();
        let mut members: Vec<Member> = Vec::new();
        let (mut unresolved, mut aliases) = (Vec::new(), Vec::new());
        for backend in &plan.backends {
            let addresses = match addresses(backend, resolved) {
                Ok(addresses) => addresses,
                Err(why) => {
                    unresolved.push((backend.name.clone(), why));
                    continue;
                }
            };
            for (address, name) in addresses {
                // Two names may lead to one address: it is one backend, under the first of them.
                if let Some(first) = reached.get(&address) {
                    aliases.push((name, first.clone()));
                    continue;
                }
                reached.insert(address.clone(), name.clone());
                let there = known.get(&address);
                let dial = dial(plan, backend, address, connector.as_ref());
                let known = there.into_iter().flatten().find(|backend| *backend.dial() == dial);
                let shared = known.map_or_else(|| self.backend(plan, dial), Arc::clone);
                members.push(member(backend, name, shared));
            }
        }
        let workers = self.next.workers;
        let whole = |_: &Member| Percent::whole(100);
        let first_slice =
            || upstream::Upstream::new(Eligible::among(&members, &plan.health, &plan.balance, whole), workers);
        let kept = KeptUpstream {
            plan: Arc::clone(plan),
            departed: kept.map(|kept| kept.departed(&members)).unwrap_or_default(),
            live: kept.map_or_else(|| Arc::new(first_slice()), |kept| Arc::clone(&kept.live)),
            metrics: kept.map_or_else(|| Arc::new(UpstreamMetrics::new(workers)), |kept| Arc::clone(&kept.metrics)),
            members,
            unresolved: unresolved.iter().map(|(name, _)| name.clone()).collect(),
            connector,
        };
        let upstream = Upstream {
            plan: Arc::clone(plan),
            live: Arc::clone(&kept.live),
            members: kept.members.clone(),
            unresolved,
            aliases,
            limits: Limits::from(&**plan),
            metrics: Arc::clone(&kept.metrics),
        };
        self.next.upstreams.insert(id, kept);
        (id, upstream)
    }

    /// What shakes hands with its backends: the same as before where they are recognised as before, which knows their sessions.
    fn connector(&self, plan: &plan::Upstream, kept: Option<&KeptUpstream>) -> Option<Arc<tls::Connector>> {
        let trust = &plan.tls.as_ref()?.trust;
        let kept = kept.and_then(|kept| kept.connector.as_ref()).filter(|kept| kept.trust() == trust);
        let make = || Arc::new(tls::Connector::new(trust).expect("the check has tried it"));
        Some(kept.cloned().unwrap_or_else(make))
    }

    fn backend(&mut self, plan: &plan::Upstream, dial: Dial) -> Arc<Backend> {
        let verdict = if plan.health.is_checked() { Verdict::Checking } else { Verdict::Unchecked };
        let workers = self.next.workers;
        self.next.allot(|slot| Backend::new(slot, dial, verdict, workers))
    }

    fn api(&mut self, plan: &Arc<plan::Api>, whole: &plan::Plan) -> Arc<Api> {
        let key = (plan.name.clone(), plan.version.clone());
        let counts = ApiCounts::of(plan, whole, self.old.apis.get(&key), self.next.workers);
        self.next.apis.insert(key, counts.clone());
        Arc::new(Api::new(plan, whole, counts))
    }

    fn route(&mut self, plan: &Arc<plan::Route>, action: Action, api: Option<&Arc<Api>>) -> Route {
        let kept = self.old.routes.get(&plan.name);
        let has_same_layers = |kept: &&KeptRoute| kept.plan.auth == plan.auth && kept.plan.limits == plan.limits;
        let layers = match kept.filter(has_same_layers) {
            Some(kept) => {
                // Its limiters and authenticators are in use by way of the pipeline: the registry keeps them, too.
                plan.limits.iter().for_each(|limit| drop(self.limiter(limit)));
                plan.auth.iter().for_each(|auth| drop(self.authenticator(auth)));
                Arc::clone(&kept.layers)
            }
            None => {
                let limits = plan.limits.iter().map(|limit| self.limiter(limit)).collect();
                let auths = plan.auth.iter().map(|auth| self.authenticator(auth)).collect();
                Arc::new(Pipeline::new(limits, auths, self.next.workers))
            }
        };
        let (workers, faults) = (self.next.workers, self.next.tokens.faults);
        let metrics = kept.map(|kept| Arc::clone(&kept.metrics));
        let metrics = metrics.unwrap_or_else(|| Arc::new(RouteMetrics::new(workers, faults)));
        let kept = KeptRoute { plan: Arc::clone(plan), layers: Arc::clone(&layers), metrics: Arc::clone(&metrics) };
        self.next.routes.insert(plan.name.clone(), kept);
        Route { plan: Arc::clone(plan), api: api.cloned(), layers, action, metrics }
    }

    fn limiter(&mut self, limit: &Arc<plan::Limit>) -> Arc<RateLimiter> {
        let make = || self.old.limiters.get(limit).cloned().unwrap_or_else(|| Arc::new(RateLimiter::new(limit)));
        Arc::clone(self.next.limiters.entry(Arc::clone(limit)).or_insert_with(make))
    }

    fn authenticator(&mut self, auth: &Arc<plan::Auth>) -> Arc<Authenticator> {
        let passwords = &self.old.passwords;
        let make = || {
            let kept = self.old.authenticators.get(auth).cloned();
            kept.unwrap_or_else(|| Arc::new(Authenticator::new(auth, passwords)))
        };
        Arc::clone(self.next.authenticators.entry(Arc::clone(auth)).or_insert_with(make))
    }
}

fn addresses(backend: &plan::Backend, resolved: &Resolved) -> Result<Vec<(Address, Name)>, Unresolved> {
    match &backend.host {
        plan::Host::Ip(ip) => Ok(vec![(SocketAddr::new(*ip, backend.port).into(), backend.name.clone())]),
        plan::Host::Unix(path) => Ok(vec![(Address::Unix(Arc::clone(path)), backend.name.clone())]),
        plan::Host::Dns(host) => {
            let found = resolved.get(&(host.clone(), backend.port));
            let unasked = || Unresolved { since: Timestamp::now(), why: format!("{host} was not looked up") };
            let addresses = found.cloned().unwrap_or_else(|| Err(unasked()))?;
            let named = |address: SocketAddr| Name::derived(format!("{}@{}", backend.name, address.ip()));
            Ok(addresses.into_iter().map(|address| (address.into(), named(address))).collect())
        }
    }
}

fn dial(
    upstream: &plan::Upstream,
    backend: &plan::Backend,
    address: Address,
    connector: Option<&Arc<tls::Connector>>,
) -> Dial {
    let tls = upstream.tls.as_ref().zip(connector).map(|(tls, connector)| {
        let own = || tls::PeerName::parse(&backend.host.to_string()).expect("a host is a name or an address");
        Secured { connector: Arc::clone(connector), name: tls.name.clone().unwrap_or_else(own) }
    });
    Dial { address, tls, protocol: upstream.protocol }
}

fn member(plan: &plan::Backend, name: Name, backend: Arc<Backend>) -> Member {
    let authority = HeaderValue::from_str(&plan.authority()).expect("an authority is visible ASCII");
    Member { backend, name, authority, weight: plan.weight, tier: plan.tier }
}
