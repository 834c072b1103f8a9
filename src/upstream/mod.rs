//! Where requests go: backends and what is known of them, which of them are eligible, connections to them.
//!
//! A [`Backend`] is one address with the state that survives reloads: verdict, counts, slot. An [`Upstream`] is a group of
//! them as the data plane sees it: one swapped [`Eligible`] slice, written by the upstream's health task alone. Nothing here
//! knows routes, layers or probes.

mod backend;
mod eligible;
mod pool;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

pub use backend::{Backend, Lease, Slot, Verdict};
pub use eligible::{Eligible, Member, Tier};
pub use pool::{Bells, Connection, Limits, Pools, Reuse};

/// A group of interchangeable backends, live. Survives reloads that keep its name (or, for an anonymous one, its backends).
#[derive(Debug)]
pub struct Upstream {
    eligible: ArcSwap<Eligible>,
}

impl Upstream {
    /// A group with its first slice.
    #[must_use]
    pub fn new(eligible: Eligible) -> Self {
        Self { eligible: ArcSwap::from_pointee(eligible) }
    }

    /// The backends that may get a request now. Not to be held across an await.
    #[must_use]
    pub fn eligible(&self) -> Guard<Arc<Eligible>> {
        self.eligible.load()
    }

    /// Replaces the slice. Called by the group's one writer.
    pub fn publish(&self, eligible: Eligible) {
        self.eligible.store(Arc::new(eligible));
    }
}
