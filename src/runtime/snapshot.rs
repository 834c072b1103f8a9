//! A config as it is running: immutable, shared by all workers, replaced whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU32},
};

use bytes::Bytes;
use http::HeaderName;

use super::{Api, Unresolved};
use crate::{
    base::{Name, Timestamp},
    config::{Sha, plan},
    layers::Pipeline,
    route::Table,
    telemetry::metrics::{ListenerMetrics, RouteMetrics, UpstreamMetrics},
    tls,
    upstream::{self, Limits, Member},
};

/// A config as it is running. Immutable.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the edits that went live, from 1.
    pub generation: u64,
    /// The start of the SHA-256 of the file.
    pub sha: Sha,
    /// When it went live.
    pub since: Timestamp,
    /// What it was built from.
    pub plan: Arc<plan::Plan>,
    /// By name.
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    /// By name.
    pub routes: BTreeMap<Name, Arc<Route>>,
    /// By name.
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// By name.
    pub apis: BTreeMap<Name, Arc<Api>>,
    /// Headers that tell backends who a client is. What a client sends of them is removed.
    pub identity_headers: Vec<HeaderName>,
    pub(super) by_id: Vec<Option<Served>>,
}

/// A listener and its routes.
#[derive(Debug)]
pub struct Served {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its routes.
    pub table: Table<Arc<Route>>,
}

impl Snapshot {
    /// A listener and its routes, by its number; `None` where it has been removed.
    #[must_use]
    pub fn served(&self, listener: ListenerId) -> Option<&Served> {
        self.by_id.get(listener.0)?.as_ref()
    }
}

/// A small number that a listening address keeps for the life of the process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ListenerId(pub usize);

/// A listener, running.
#[derive(Debug)]
pub struct Listener {
    /// Its number.
    pub id: ListenerId,
    /// What it was built from.
    pub plan: Arc<plan::Listener>,
    /// What it shows its clients; `None` where it speaks plain HTTP.
    pub tls: Option<Arc<tls::Acceptor>>,
    /// What it counts.
    pub metrics: Arc<ListenerMetrics>,
    /// Its open connections, over all workers.
    pub connections: Arc<AtomicU32>,
}

/// A route, running.
#[derive(Debug)]
pub struct Route {
    /// What it was built from.
    pub plan: Arc<plan::Route>,
    /// The API that it belongs to.
    pub api: Option<Arc<Api>>,
    /// What may refuse a request.
    pub layers: Arc<Pipeline>,
    /// What it leads to.
    pub action: Action,
    /// What it counts.
    pub metrics: Arc<RouteMetrics>,
}

/// What a route leads to, running.
#[derive(Debug)]
pub enum Action {
    /// Backends.
    Forward {
        /// Upstreams, at least one.
        sides: Vec<Side>,
        /// Where copies go.
        mirror: Option<Arc<Mirror>>,
    },
    /// Another URL.
    Redirect(plan::Redirect),
    /// An answer that is always the same, with its body.
    Respond(plan::Respond, Bytes),
}

/// An upstream that gets copies of requests.
#[derive(Debug)]
pub struct Mirror {
    /// What it was built from.
    pub plan: plan::Mirror,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Copies under way now, over all workers.
    pub under_way: AtomicU32,
}

/// One of the upstreams of a route.
#[derive(Debug)]
pub struct Side {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Its part of the sum of all weights is its part of the requests.
    pub weight: u32,
}

/// An upstream, running.
#[derive(Debug)]
pub struct Upstream {
    /// What it was built from.
    pub plan: Arc<plan::Upstream>,
    /// Its eligible backends, now.
    pub live: Arc<upstream::Upstream>,
    /// Its backends: those of the plan, each DNS name replaced by its addresses.
    pub members: Vec<Member>,
    /// Backends whose name does not resolve, with the reason.
    pub unresolved: Vec<(Name, Unresolved)>,
    /// Names that lead to an address which a backend before them has, each with the name of that backend: it is one backend.
    pub aliases: Vec<(Name, Name)>,
    /// What bounds its connections.
    pub limits: Limits,
    /// What it counts.
    pub metrics: Arc<UpstreamMetrics>,
}
