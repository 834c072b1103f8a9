//! The one swap: the snapshot in force, and a worker's cheap hold on it.
//!
//! The control plane replaces it ([`Live::replace`]), a request pins it once ([`Pins::pin`]) and looks at nothing newer.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use arc_swap::ArcSwap;

use super::Snapshot;

/// The snapshot in force.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    swaps: AtomicU64,
    // Those that were in force: whoever lets go of one last would free thousands of routes, and a worker has better things to do.
    retired: Mutex<Vec<Arc<Snapshot>>>,
}

impl Live {
    /// The first snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot: ArcSwap::from_pointee(snapshot), swaps: AtomicU64::new(0), retired: Mutex::default() }
    }

    /// The snapshot in force, for the control plane. A request pins one instead.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a snapshot in force. Called by the one task that applies edits.
    pub fn replace(&self, snapshot: Snapshot) {
        let retired = self.snapshot.swap(Arc::new(snapshot));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(retired);
        // After the snapshot: whoever sees the new number finds the new snapshot.
        self.swaps.fetch_add(1, Release);
    }

    /// Frees the snapshots that were in force and that nobody holds any more. Called now and then by the control plane.
    pub fn free_retired(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, free) =
            std::mem::take(&mut *retired).into_iter().partition(|snapshot| Arc::strong_count(snapshot) > 1);
        *retired = held;
        drop(retired);
        drop::<Vec<_>>(free);
    }
}

/// A worker's hold on the snapshot in force.
///
/// Requests share it by a count that no other thread touches; finding it still in force costs one load.
#[derive(Debug)]
pub struct Pins {
    live: Arc<Live>,
    pinned: RefCell<Rc<Pinned>>,
}

/// A snapshot that a request or a connection holds on to.
#[derive(Debug)]
pub struct Pinned {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    swaps: u64,
}

impl Pins {
    /// A worker's hold.
    #[must_use]
    pub fn new(live: Arc<Live>) -> Self {
        let pinned = RefCell::new(Rc::new(Pinned::of(&live)));
        Self { live, pinned }
    }

    /// The snapshot in force.
    pub fn pin(&self) -> Rc<Pinned> {
        if self.pinned.borrow().swaps != self.live.swaps.load(Acquire) {
            self.pinned.replace(Rc::new(Pinned::of(&self.live)));
        }
        Rc::clone(&self.pinned.borrow())
    }
}

impl Pinned {
    fn of(live: &Live) -> Self {
        // The number first: a swap in between is then noticed at the next pin.
        let swaps = live.swaps.load(Acquire);
        Self { snapshot: live.load(), swaps }
    }
}
