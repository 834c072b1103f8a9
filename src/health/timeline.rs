//! What happened to one backend, for people and metrics: its last outcomes and changes, streaks and totals.
//!
//! Written by the upstream's health task alone; anybody reads a whole, consistent [`Record`] without a lock.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::{Kind, Machine, Outcome};
use crate::base::Timestamp;

/// How many outcomes, and how many changes, are kept.
const KEPT: usize = 20;

/// A change of what is shown of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// What was shown before: `checking`, `up`, ...
    pub from: &'static str,
    /// What is shown since.
    pub to: &'static str,
    /// Why, as a token: that of the deciding outcome, or `removed`, `returned`, `check_removed`.
    pub reason: &'static str,
    /// Why, in words: `3 bad probes in 1.9s (503)`.
    pub detail: String,
}

/// Everything that is remembered of one backend.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Fit outcomes in a row.
    pub good: u32,
    /// Failures in a row.
    pub bad: u32,
    /// Why it is in the state that is shown, as a token. Empty before the first outcome.
    pub reason: &'static str,
    /// Why it is in the state that is shown, in words: `200 in 3 ms`, `connect refused ×9`.
    pub detail: String,
    /// The last 20 outcomes of the present health check, the oldest first.
    pub outcomes: VecDeque<Arc<Outcome>>,
    /// The last 20 changes, the oldest first.
    pub changes: VecDeque<Arc<Change>>,
    /// Probes since the backend was first seen, by kind and reason.
    pub probes: BTreeMap<(Kind, &'static str), u64>,
    /// Changes since the backend was first seen, by what is shown since and reason.
    pub transitions: BTreeMap<(&'static str, &'static str), u64>,
}

/// The record of one backend, as a place to read it from.
#[derive(Debug, Default)]
pub struct Timeline(ArcSwap<Record>);

impl Timeline {
    /// What is remembered now.
    #[must_use]
    pub fn read(&self) -> Arc<Record> {
        self.0.load_full()
    }

    /// Remembers an outcome that the machine has taken in.
    pub(super) fn probed(&self, outcome: Arc<Outcome>, machine: &Machine) {
        self.write(|record| {
            (record.good, record.bad) = (machine.good(), machine.bad());
            if outcome.kind != Kind::Inconclusive && !machine.is_pending() {
                record.reason = outcome.reason;
                record.detail = match machine.bad() {
                    0 | 1 => outcome.detail.clone(),
                    bad => format!("{} ×{bad}", outcome.detail),
                };
            }
            *record.probes.entry((outcome.kind, outcome.reason)).or_default() += 1;
            push(&mut record.outcomes, outcome);
        });
    }

    /// Remembers a change that no outcome explains, or that it does.
    pub(super) fn changed(&self, change: Change) {
        self.write(|record| {
            *record.transitions.entry((change.to, change.reason)).or_default() += 1;
            push(&mut record.changes, Arc::new(change));
        });
    }

    /// Says why the backend is in the state that is shown, where no outcome does.
    pub(super) fn explain(&self, reason: &'static str, detail: &str) {
        self.write(|record| (record.reason, record.detail) = (reason, detail.to_owned()));
    }

    /// Forgets the outcomes of the former health check; what is shown, the changes and the totals stay.
    pub(super) fn new_check(&self) {
        self.write(|record| {
            (record.good, record.bad) = (0, 0);
            record.outcomes.clear();
        });
    }

    // One writer, so nothing is lost between the load and the store.
    fn write(&self, change: impl FnOnce(&mut Record)) {
        let mut record = Record::clone(&self.0.load());
        change(&mut record);
        self.0.store(Arc::new(record));
    }
}

fn push<T>(kept: &mut VecDeque<T>, newest: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(newest);
}
