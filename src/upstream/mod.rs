//! Where requests go: backends and what is known of them, which of them are eligible, connections to them.
//!
//! A [`Backend`] is one address with the state that survives reloads: verdict, counts, slot. An [`Upstream`] is a group of
//! them as the data plane sees it: one swapped [`Eligible`] slice, written by the upstream's health task alone. Nothing here
//! knows routes, layers or probes.

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod backend;
mod balance;
mod dial;
mod eligible;
mod evidence;
mod http1;
mod living;
mod pool;
mod stream;
mod wire;

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::mpsc;

pub use backend::{Backend, Condition, Slot, Verdict};
pub use balance::{Draw, Ticket, Token, place, place_ip};
pub use dial::{Dial, DialError, Secured, Transport};
pub use eligible::{Eligible, Lease, Member, NoPlace, Tier};
pub use evidence::Evidence;
pub use http1::Garbage;
#[cfg(fuzzing)]
pub use http1::fuzzing;
pub use pool::{Bells, Connection, Limits, Pools, Reuse, Unsent};
pub use stream::BackendStream;
pub use wire::{Added, RequestHead, Sendable, Upgraded, WireError};

use crate::telemetry::cells::WorkerId;

/// A group of interchangeable backends, live. Survives reloads that keep its name (or, for an anonymous one, its backends).
#[derive(Debug)]
pub struct Upstream {
    eligible: ArcSwap<Eligible>,
    evidence: evidence::Channel,
    turns: Box<[Turn]>,
    crowd: Arc<Crowd>,
}

// Where a worker is in the round. Its own worker alone reads and writes it; an atomic only because the group is shared.
#[derive(Debug)]
#[repr(align(128))]
struct Turn(AtomicUsize);

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
        let turns = (0..workers).map(|_| Turn(AtomicUsize::new(fastrand::usize(..)))).collect();
        Self {
            eligible: ArcSwap::from_pointee(eligible),
            evidence: evidence::Channel::default(),
            turns,
            crowd: Arc::default(),
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
        let Some(Turn(turn)) = self.turns.get(worker.0) else { return 0 };
        let now = turn.load(Relaxed);
        turn.store(now.wrapping_add(1), Relaxed);
        now
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
