//! What the gateway knows of itself, published for whoever asks.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{NameRecord, Told};
use crate::{
    base::{Name, Timestamp},
    config::Report,
    health::Monitor,
    runtime::{CarryOver, Live},
    telemetry::{AccessLog, Counter, EventLog, Events, metrics::RouteMetrics},
};

/// What the gateway knows of itself, for whoever asks: admin, metrics, signals. Read without a lock.
#[derive(Debug)]
pub struct Status {
    /// When the process started.
    pub started: Timestamp,
    /// The config file, as it was named.
    pub file: PathBuf,
    /// The snapshot in force.
    pub live: Arc<Live>,
    /// The health task of each upstream, by name.
    pub monitors: ArcSwap<BTreeMap<Name, Arc<Monitor>>>,
    /// The names of backends that are looked up.
    pub names: ArcSwap<BTreeMap<Name, Arc<NameRecord>>>,
    /// What became of the events, by webhook.
    pub webhooks: ArcSwap<BTreeMap<Name, Arc<Told>>>,
    /// The last attempt to load the file; the first one succeeded.
    pub last_attempt: ArcSwap<Attempt>,
    /// Attempts that went live, the first one included.
    pub reloads_ok: AtomicU64,
    /// Attempts that were refused.
    pub reloads_refused: AtomicU64,
    /// Data-plane threads.
    pub workers: usize,
    /// Requests that no route took.
    pub unrouted: Arc<RouteMetrics>,
    /// Connections that ended in a panic.
    pub panics: Arc<Counter>,
    /// The access log, while it is on.
    pub access_log: ArcSwapOption<AccessLog>,
    /// Where events are said.
    pub events: Events,
    /// The last events.
    pub event_log: Arc<EventLog>,
    /// Whether traffic should come here.
    pub readiness: Readiness,
}

/// An attempt to load the file.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// Who asked: `start`, `file watch`, `SIGHUP`, ...
    pub by: &'static str,
    /// What was found: warnings of one that went live, errors of one that was refused.
    pub findings: Arc<Report>,
    /// Whether it went live.
    pub is_live: bool,
    /// What an edit that went live has made of every backend.
    pub backends: Arc<CarryOver>,
}

impl Attempt {
    /// One that was refused now.
    #[must_use]
    pub fn refused(findings: Report, by: &'static str) -> Self {
        Self { at: Timestamp::now(), by, findings: Arc::new(findings), is_live: false, backends: Arc::default() }
    }
}

/// Whether traffic should come here.
#[derive(Debug, Default)]
pub struct Readiness {
    is_started: AtomicBool,
    is_draining: AtomicBool,
}

impl Readiness {
    /// Listeners are open and the first round of probes is over, or has taken too long.
    pub fn started(&self) {
        self.is_started.store(true, Release);
    }

    /// The process is about to stop.
    pub fn draining(&self) {
        self.is_draining.store(true, Release);
    }

    /// `Ok`, or the reason as a token: `starting`, `draining`.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(&self) -> Result<(), &'static str> {
        match (self.is_draining.load(Acquire), self.is_started.load(Acquire)) {
            (true, _) => Err("draining"),
            (false, false) => Err("starting"),
            (false, true) => Ok(()),
        }
    }
}
