//! Where requests go: backends and what is known of them, which of them are eligible, connections to them.
//!
//! A [`Backend`] is one address with the state that survives reloads: verdict, counts, slot. An [`Upstream`] is a group of
//! them as the data plane sees it: one swapped [`Eligible`] slice, written by the upstream's health task alone. Nothing here
//! knows routes, layers or probes.

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod backend;
mod dial;
mod eligible;
mod evidence;
mod http1;
mod pool;
mod stream;
mod wire;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::mpsc;

pub use backend::{Backend, Condition, Slot, Verdict};
pub use dial::{Dial, DialError, Secured, Transport};
pub use eligible::{Eligible, Lease, Member, Tier};
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
}

// Where a worker is in the round. Its own worker alone reads and writes it; an atomic only because the group is shared.
#[derive(Debug)]
#[repr(align(128))]
struct Turn(AtomicUsize);

impl Upstream {
    /// A group with its first slice, for this many workers. Each starts at a turn of its own.
    #[must_use]
    pub fn new(eligible: Eligible, workers: usize) -> Self {
        let turns = (0..workers).map(|_| Turn(AtomicUsize::new(fastrand::usize(..)))).collect();
        Self { eligible: ArcSwap::from_pointee(eligible), evidence: evidence::Channel::default(), turns }
    }

    /// The backends that may get a request now. Not to be held across an await.
    #[must_use]
    pub fn eligible(&self) -> Guard<Arc<Eligible>> {
        self.eligible.load()
    }

    /// The worker's next turn.
    #[must_use]
    pub fn turn(&self, worker: WorkerId) -> usize {
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
