//! One replica and what is known about it: written by its health task (verdict) and by all workers (counts), in atomics.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicU8, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use super::{Dial, balance::Latency};
use crate::{
    base::Timestamp,
    net::Address,
    telemetry::{cells::WorkerId, metrics::BackendMetrics},
};

/// A small number that a backend has for life: the index of a worker's pool for it. Reused after the backend is gone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u32);

/// What the health checks say of a backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Verdict {
    /// No probe has answered yet.
    Checking = 0,
    /// Fit.
    Up = 1,
    /// Fit, and says itself that something is wrong.
    Degraded = 2,
    /// Not fit.
    Down = 3,
    /// Nobody asks.
    Unchecked = 4,
}

impl Verdict {
    /// The word that YAML, logs, metrics and the status show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Up => "up",
        }
    }

    const fn unpack(packed: u8) -> Self {
        match packed {
            0 => Self::Checking,
            1 => Self::Up,
            2 => Self::Degraded,
            3 => Self::Down,
            _ => Self::Unchecked,
        }
    }

    /// Whether it allows traffic: `up`, `degraded` or `unchecked`.
    #[must_use]
    pub const fn is_fit(self) -> bool {
        matches!(self, Self::Up | Self::Degraded | Self::Unchecked)
    }
}

/// What is known of a backend at one moment: the verdict, and the facts that are kept apart from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Condition {
    /// What the checks say.
    pub verdict: Verdict,
    /// Live traffic speaks against it.
    pub is_ejected: bool,
    /// An operator drains it, or it asked for that itself.
    pub is_drained: bool,
    /// It is in the configuration no more.
    pub is_removed: bool,
    /// Connections to it end now, the tunnels on them too.
    pub is_cut: bool,
}

impl Condition {
    const EJECTED: u8 = 1 << 3;
    const DRAINED: u8 = 1 << 4;
    const REMOVED: u8 = 1 << 5;
    const CUT: u8 = 1 << 6;

    /// A verdict and nothing beside it.
    #[must_use]
    pub const fn new(verdict: Verdict) -> Self {
        Self { verdict, is_ejected: false, is_drained: false, is_removed: false, is_cut: false }
    }

    /// Whether it finishes its requests and gets no new ones.
    #[must_use]
    pub const fn is_draining(self) -> bool {
        self.is_drained || self.is_removed
    }

    /// Whether no fact speaks against it; whether its verdict does is another question.
    #[must_use]
    pub const fn is_free(self) -> bool {
        !self.is_draining() && !self.is_ejected
    }

    /// Whether it may get traffic: its verdict allows that, and no fact speaks against it.
    #[must_use]
    pub const fn is_eligible(self) -> bool {
        self.is_free() && self.verdict.is_fit()
    }

    /// The one word to show: draining, else ejected, else the verdict.
    #[must_use]
    pub const fn shown(self) -> &'static str {
        match (self.is_draining(), self.is_ejected) {
            (true, _) => "draining",
            (false, true) => "ejected",
            (false, false) => self.verdict.as_str(),
        }
    }

    const fn pack(self) -> u8 {
        self.verdict as u8
            | if self.is_ejected { Self::EJECTED } else { 0 }
            | if self.is_drained { Self::DRAINED } else { 0 }
            | if self.is_removed { Self::REMOVED } else { 0 }
            | if self.is_cut { Self::CUT } else { 0 }
    }

    const fn unpack(packed: u8) -> Self {
        Self {
            verdict: Verdict::unpack(packed & 0b111),
            is_ejected: packed & Self::EJECTED != 0,
            is_drained: packed & Self::DRAINED != 0,
            is_removed: packed & Self::REMOVED != 0,
            is_cut: packed & Self::CUT != 0,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One replica: an address and what is known about it. Shared by all workers and the control plane, so atomics only.
///
/// Its name and weight are not here: they belong to the plan and may change while the backend stays what it is.
#[derive(Debug)]
pub struct Backend {
    slot: Slot,
    dial: Dial,
    state: State,
    load: Load,
    // By worker, since when the oldest of its requests is under way, in microseconds; 0 is none. Written about once a second while
    // the backend is to be left.
    oldest: Box<[AtomicU64]>,
    metrics: BackendMetrics,
}

// Written by the upstream's health task alone, read by every worker.
#[derive(Debug)]
struct State {
    condition: AtomicU8,
    since: AtomicU64,
}

// Written by every worker on every request: on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load {
    in_flight: AtomicU32,
    connections: AtomicU32,
    waiting: AtomicU32,
    tunnels: AtomicU32,
    failures: AtomicU32,
    latency: Latency,
}

impl Backend {
    /// A backend of which this verdict is known, for this many workers.
    #[must_use]
    pub fn new(slot: Slot, dial: Dial, verdict: Verdict, workers: usize) -> Self {
        let state = State {
            condition: AtomicU8::new(Condition::new(verdict).pack()),
            since: AtomicU64::new(Timestamp::now().as_micros()),
        };
        let oldest = (0..workers).map(|_| AtomicU64::default()).collect();
        Self { slot, dial, state, load: Load::default(), oldest, metrics: BackendMetrics::new(workers) }
    }

    /// Its small number.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.dial.address
    }

    /// How it is reached.
    #[must_use]
    pub const fn dial(&self) -> &Dial {
        &self.dial
    }

    /// What is counted of it.
    #[must_use]
    pub const fn metrics(&self) -> &BackendMetrics {
        &self.metrics
    }

    /// What is known of it.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition::unpack(self.state.condition.load(Acquire))
    }

    /// What the checks say.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.condition().verdict
    }

    /// Whether it finishes its requests and gets no new ones.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.condition().is_draining()
    }

    /// The one word to show: draining, else ejected, else the verdict.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        self.condition().shown()
    }

    /// When what is shown last changed.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        Timestamp::from_micros(self.state.since.load(Acquire))
    }

    /// Records what is known of it now. Called by the upstream's health task alone.
    pub fn set_condition(&self, condition: Condition) {
        let before = Condition::unpack(self.state.condition.swap(condition.pack(), AcqRel));
        if before.shown() != condition.shown() {
            self.state.since.store(Timestamp::now().as_micros(), Release);
        }
    }

    /// Requests that use it now, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Relaxed)
    }

    /// Open connections, over all workers.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.load.connections.load(Relaxed)
    }

    /// Requests that wait for a connection, over all workers.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.load.waiting.load(SeqCst)
    }

    /// How long the oldest of them has been under way, tunnels left out, as of about a second ago. Known of one that is to be left: that is
    /// draining, or out with `when_out: close`.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        let since = self.oldest.iter().map(|since| since.load(Relaxed)).filter(|since| *since > 0).min()?;
        let known = self.condition();
        let is_known = (known.is_draining() || known.is_cut) && self.in_flight() > self.tunnels();
        is_known.then(|| Duration::from_micros(Timestamp::now().as_micros().saturating_sub(since)))
    }

    pub(super) fn set_oldest(&self, worker: usize, since: Option<Instant>) {
        let Some(place) = self.oldest.get(worker) else { return };
        let now = Timestamp::now().as_micros();
        let age = since.map(|since| u64::try_from(since.elapsed().as_micros()).unwrap_or(now));
        place.store(age.map_or(0, |age| now.saturating_sub(age).max(1)), Relaxed);
    }

    /// Tunnels among them, over all workers.
    #[must_use]
    pub fn tunnels(&self) -> u32 {
        self.load.tunnels.load(Relaxed)
    }

    /// One of its requests becomes a tunnel, until what is returned is dropped.
    #[must_use]
    pub fn open_tunnel(self: &Arc<Self>) -> OpenTunnel {
        self.load.tunnels.fetch_add(1, Relaxed);
        OpenTunnel(Arc::clone(self))
    }

    /// Requests in a row that have failed by its doing, over all workers.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.load.failures.load(Relaxed)
    }

    /// A request went well. Costs a load where the one before did, too.
    pub fn succeeded(&self) {
        if self.load.failures.load(Relaxed) != 0 {
            self.load.failures.store(0, Relaxed);
        }
    }

    /// A request failed by its doing.
    pub fn failed(&self, worker: WorkerId, is_answered: bool) {
        self.load.failures.fetch_add(1, Relaxed);
        self.metrics.failed(worker, is_answered);
    }

    /// Notes how long it took to answer, or to fail. Where nobody asks for it, it need not be noted.
    pub fn took(&self, took: Duration, is_failure: bool) {
        match is_failure {
            true => self.load.latency.failed(took, Instant::now()),
            false => self.load.latency.answered(took, Instant::now()),
        }
    }

    #[cfg(test)]
    pub(super) const fn load_latency(&self) -> &Latency {
        &self.load.latency
    }

    /// How long it takes to answer, as of late, in microseconds; `None` if it has not answered yet.
    pub(super) fn latency(&self, now: Instant) -> Option<f32> {
        self.load.latency.at(now)
    }

    /// Takes a place among its requests in flight unless `max` are taken; given back by [`Backend::end`].
    pub(super) fn begin(&self, max: Option<u32>) -> bool {
        take_below(&self.load.in_flight, max)
    }

    pub(super) fn end(&self) {
        self.load.in_flight.fetch_sub(1, AcqRel);
    }

    /// Takes a place among its open connections unless `max` are taken; given back by [`Backend::disconnected`].
    pub(super) fn connect(&self, max: Option<u32>) -> bool {
        take_below(&self.load.connections, max)
    }

    pub(super) fn disconnected(&self) {
        // Ordered against `waiting`: whoever frees the last place sees the one who waits for it, or is seen by it.
        self.load.connections.fetch_sub(1, SeqCst);
    }

    pub(super) fn begin_waiting(&self) {
        self.load.waiting.fetch_add(1, SeqCst);
    }

    pub(super) fn end_waiting(&self) {
        self.load.waiting.fetch_sub(1, SeqCst);
    }
}

/// A tunnel to a backend, counted.
#[derive(Debug)]
pub struct OpenTunnel(Arc<Backend>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.load.tunnels.fetch_sub(1, Relaxed);
    }
}

// One atomic addition where there is no limit; a compare-exchange loop where there is, so that the limit is never passed.
fn take_below(count: &AtomicU32, max: Option<u32>) -> bool {
    match max {
        None => {
            count.fetch_add(1, AcqRel);
            true
        }
        Some(max) => count.fetch_update(AcqRel, Acquire, |n| (n < max).then_some(n + 1)).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn backend(verdict: Verdict) -> Backend {
        Backend::new(Slot(7), SocketAddr::from(([127, 0, 0, 1], 9001)).into(), verdict, 1)
    }

    #[test]
    fn a_condition_is_read_as_it_was_written() {
        let backend = backend(Verdict::Checking);
        for verdict in [Verdict::Up, Verdict::Degraded, Verdict::Down, Verdict::Unchecked, Verdict::Checking] {
            for bits in 0..16 {
                let [is_ejected, is_drained, is_removed, is_cut] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                let condition = Condition { verdict, is_ejected, is_drained, is_removed, is_cut };
                backend.set_condition(condition);
                assert_eq!(backend.condition(), condition);
            }
        }
    }

    #[test]
    fn draining_is_shown_before_ejected_and_that_before_the_verdict() {
        let up = Condition::new(Verdict::Up);
        let ejected = Condition { is_ejected: true, ..up };
        let drained = Condition { is_drained: true, ..ejected };
        let removed = Condition { is_removed: true, ..ejected };
        let shown = [up, ejected, drained, removed].map(Condition::shown);
        assert_eq!(shown, ["up", "ejected", "draining", "draining"]);
    }

    #[test]
    fn since_moves_only_with_what_is_shown() {
        let backend = backend(Verdict::Up);
        let since = backend.since();
        while Timestamp::now() == since {}
        backend.set_condition(Condition::new(Verdict::Up));
        assert_eq!(backend.since(), since);
        let drained = Condition { is_drained: true, ..Condition::new(Verdict::Up) };
        backend.set_condition(drained);
        let drained_since = backend.since();
        assert!(drained_since > since);
        while Timestamp::now() == drained_since {}
        backend.set_condition(Condition { is_ejected: true, verdict: Verdict::Down, ..drained });
        assert_eq!(backend.since(), drained_since);
    }

    #[test]
    fn a_limit_holds_under_contention() {
        let backend = backend(Verdict::Up);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..2_000 {
                        let has_begun = backend.begin(Some(3));
                        assert!(backend.in_flight() <= 3);
                        if has_begun {
                            backend.end();
                        }
                    }
                });
            }
        });
        assert_eq!(backend.in_flight(), 0);
    }

    #[test]
    fn connections_are_counted_up_to_their_limit() {
        let backend = backend(Verdict::Up);
        assert!(backend.connect(Some(1)));
        assert!(!backend.connect(Some(1)));
        assert_eq!(backend.connections(), 1);
        backend.disconnected();
        assert!(backend.connect(None));
    }
}
