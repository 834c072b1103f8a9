//! The one swap: the snapshot in force, and a worker's cheap hold on it.
//!
//! The control plane replaces it ([`Live::replace`]), a request pins it once ([`Pins::pin`]) and looks at nothing newer.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
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
}

impl Live {
    /// The first snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot: ArcSwap::from_pointee(snapshot), swaps: AtomicU64::new(0) }
    }

    /// The snapshot in force, for the control plane. A request pins one instead.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a snapshot in force. Called by the one task that applies edits.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        // After the snapshot: whoever sees the new number finds the new snapshot.
        self.swaps.fetch_add(1, Release);
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

    /// The snapshot in force. Calls `changed` first where it is another one than at the last call.
    pub fn pin(&self, changed: impl FnOnce(&Snapshot)) -> Rc<Pinned> {
        if self.pinned.borrow().swaps != self.live.swaps.load(Acquire) {
            let pinned = Rc::new(Pinned::of(&self.live));
            changed(&pinned.snapshot);
            self.pinned.replace(pinned);
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
