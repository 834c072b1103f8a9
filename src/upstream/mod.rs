//! Where requests go: backends and what is known of them, which of them are eligible, connections to them.
//!
//! A [`Backend`] is one address with the state that survives reloads: verdict, counts, slot. An [`Upstream`] is a group of
//! them as the data plane sees it: one swapped [`Eligible`] slice, written by the upstream's health task alone. Nothing here
//! knows routes, layers or probes.

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod backend;
mod balance;
mod budget;
mod dial;
mod eligible;
mod evidence;
mod http1;
mod living;
mod pool;
mod stream;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::mpsc;

pub use backend::{Backend, Condition, Slot, Verdict};
pub use balance::{Draw, Ticket, Token, place, place_for, place_ip};
pub use dial::{Dial, DialError, Secured, Transport};
pub use eligible::{Eligible, Lease, Member, NoPlace, Tier};
pub use evidence::Evidence;
pub use http1::Garbage;
#[cfg(fuzzing)]
pub use http1::fuzzing;
pub use pool::{Bells, Connection, Limits, Pools, Reuse, Unsent};
pub use stream::BackendStream;
pub use wire::{Added, RequestHead, Sendable, Upgraded, WireError};

use self::budget::Window;
use crate::{base::Percent, telemetry::cells::WorkerId};

/// A group of interchangeable backends, live. Survives reloads that keep its name (or, for an anonymous one, its backends).
#[derive(Debug)]
pub struct Upstream {
    eligible: ArcSwap<Eligible>,
    evidence: evidence::Channel,
    turns: Box<[Turn]>,
    crowd: Arc<Crowd>,
    retries: Window,
    born: Instant,
}

// Where a worker is in the round, and what it has sent. Its own worker alone writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Turn {
    next: AtomicUsize,
    requests: Window,
}

// Requests in flight at all backends, over all workers. Counted only where loads are bounded.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Crowd(AtomicU32);

impl Crowd {
    fn join(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How often a backend is chosen anew because another worker was faster to take the place that was seen.
const HANDS: usize = 16;

impl Upstream {
    /// A group with its first slice, for this many workers. Each starts at a turn of its own.
    #[must_use]
    pub fn new(eligible: Eligible, workers: usize) -> Self {
        let turn = |_| Turn { next: AtomicUsize::new(fastrand::usize(..)), requests: Window::default() };
        Self {
            eligible: ArcSwap::from_pointee(eligible),
            evidence: evidence::Channel::default(),
            turns: (0..workers).map(turn).collect(),
            crowd: Arc::default(),
            retries: Window::default(),
            born: Instant::now(),
        }
    }

    /// The backends that may get a request now. Not to be held across an await.
    #[must_use]
    pub fn eligible(&self) -> Guard<Arc<Eligible>> {
        self.eligible.load()
    }

    /// Chooses one of the backends that were not tried yet, and takes a place among its requests in flight, of which there may be
    /// `max`.
    ///
    /// # Errors
    /// [`NoPlace`] where there is none that has a place.
    pub fn lease(&self, worker: WorkerId, ticket: Ticket, tried: &[Slot], max: Option<u32>) -> Result<Lease, NoPlace> {
        let eligible = self.eligible();
        // A second attempt takes nobody's turn: where every second backend fails, whoever was next would never get a first one.
        let turn = if tried.is_empty() { self.turn(worker) } else { fastrand::usize(..) };
        for _ in 0..HANDS {
            let crowd = if eligible.is_bounded() { self.crowd.0.load(Relaxed) } else { 0 };
            let member = eligible.pick(&Draw { ticket, turn, tried, max, crowd })?;
            if let Some(lease) = Lease::take(member, max) {
                return Ok(if eligible.is_bounded() { lease.in_crowd(&self.crowd) } else { lease });
            }
        }
        Err(NoPlace::Full)
    }

    /// The worker's next turn.
    fn turn(&self, worker: WorkerId) -> usize {
        let Some(Turn { next: turn, .. }) = self.turns.get(worker.0) else { return 0 };
        let now = turn.load(Relaxed);
        turn.store(now.wrapping_add(1), Relaxed);
        now
    }

    /// Counts a request, at its first attempt. Costs a load and a store on a line that [`Upstream::turn`] has written.
    pub fn count_request(&self, worker: WorkerId, now: Instant) {
        if let Some(turn) = self.turns.get(worker.0) {
            turn.requests.add(self.second(now));
        }
    }

    /// Takes one retry from the budget: `share` of the requests of the last ten seconds, or `min` where that is more. Returns
    /// whether there was one. Each worker looks before it takes, so that together they may take one more each.
    #[must_use]
    pub fn spend_retry(&self, share: Percent, min: u32, now: Instant) -> bool {
        let second = self.second(now);
        let requests: u64 = self.turns.iter().map(|turn| turn.requests.sum(second)).sum();
        let allowed = (requests * u64::from(share.basis_points()) / 10_000).max(min.into());
        let is_left = self.retries.sum(second) < allowed;
        if is_left {
            self.retries.add_shared(second);
        }
        is_left
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.born).as_secs()).unwrap_or(u32::MAX)
    }

    /// Tells the health task what traffic has seen. Never blocks.
    pub fn report(&self, evidence: Evidence) {
        self.evidence.report(evidence);
    }

    /// Where the health task hears of it. The first call has it; nobody else does.
    pub fn evidence(&self) -> Option<mpsc::Receiver<Evidence>> {
        self.evidence.take()
    }

    /// Replaces the slice. Called by the group's one writer.
    pub fn publish(&self, eligible: Eligible) {
        self.eligible.store(Arc::new(eligible));
    }
}
