//! One replica and what is known about it: written by its health task (verdict) and by all workers (counts), in atomics.

use std::{
    fmt,
    sync::atomic::{
        AtomicU8, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    },
};

use super::Dial;
use crate::{base::Timestamp, net::Address, telemetry::metrics::BackendMetrics};

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

    /// Whether it allows traffic: `up`, `degraded` or `unchecked`.
    #[must_use]
    pub const fn is_fit(self) -> bool {
        matches!(self, Self::Up | Self::Degraded | Self::Unchecked)
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
    metrics: BackendMetrics,
}

// Written by the upstream's health task alone, read by every worker.
#[derive(Debug)]
struct State {
    verdict: AtomicU8,
    draining: AtomicU8,
    since: AtomicU64,
}

// Written by every worker on every request: on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load {
    in_flight: AtomicU32,
    connections: AtomicU32,
    waiting: AtomicU32,
}

impl Backend {
    /// A backend of which this verdict is known, for this many workers.
    #[must_use]
    pub fn new(slot: Slot, dial: Dial, verdict: Verdict, workers: usize) -> Self {
        let state = State {
            verdict: AtomicU8::new(verdict as u8),
            draining: AtomicU8::new(0),
            since: AtomicU64::new(Timestamp::now().as_micros()),
        };
        Self { slot, dial, state, load: Load::default(), metrics: BackendMetrics::new(workers) }
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

    /// What the checks say.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.state.verdict.load(Acquire) {
            0 => Verdict::Checking,
            1 => Verdict::Up,
            2 => Verdict::Degraded,
            3 => Verdict::Down,
            _ => Verdict::Unchecked,
        }
    }

    /// Whether it was removed or an operator drains it.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.state.draining.load(Acquire) != 0
    }

    /// The one word to show: draining, else the verdict.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        if self.is_draining() { "draining" } else { self.verdict().as_str() }
    }

    /// When what is shown last changed.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        Timestamp::from_micros(self.state.since.load(Acquire))
    }

    /// Records a new verdict. Called by the upstream's health task alone.
    pub fn set_verdict(&self, verdict: Verdict) {
        if self.state.verdict.swap(verdict as u8, AcqRel) != verdict as u8 {
            self.state.since.store(Timestamp::now().as_micros(), Release);
        }
    }

    /// Records that it was removed, or came back. Called by the upstream's health task alone.
    pub fn set_draining(&self, draining: bool) {
        if self.state.draining.swap(u8::from(draining), AcqRel) != u8::from(draining) {
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
    fn a_verdict_is_read_as_it_was_written() {
        let backend = backend(Verdict::Checking);
        for verdict in [Verdict::Up, Verdict::Degraded, Verdict::Down, Verdict::Unchecked, Verdict::Checking] {
            backend.set_verdict(verdict);
            assert_eq!(backend.verdict(), verdict);
            assert_eq!(backend.shown(), verdict.as_str());
        }
    }

    #[test]
    fn draining_is_shown_before_the_verdict_and_keeps_it() {
        let backend = backend(Verdict::Up);
        backend.set_draining(true);
        assert_eq!((backend.shown(), backend.verdict()), ("draining", Verdict::Up));
        backend.set_draining(false);
        assert_eq!(backend.shown(), "up");
    }

    #[test]
    fn since_moves_only_with_a_change() {
        let backend = backend(Verdict::Up);
        let since = backend.since();
        while Timestamp::now() == since {}
        backend.set_verdict(Verdict::Up);
        backend.set_draining(false);
        assert_eq!(backend.since(), since);
        backend.set_verdict(Verdict::Down);
        assert!(backend.since() > since);
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
