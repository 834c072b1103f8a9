//! The pure state machine: outcomes in, a transition out when the verdict changes.
//!
//! It knows no clock, no task and no backend, only the thresholds and what it has seen. Every kind of failure counts the
//! same. The first conclusive outcome decides at once; the thresholds stand between one known verdict and another.

use std::time::{Duration, Instant};

use super::Kind;
use crate::{config::plan::HealthCheck, upstream::Verdict};

/// How many outcomes in a row change a known verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Thresholds {
    /// Fit ones that bring a backend back. At least 1; 0 acts as 1.
    pub healthy_after: u16,
    /// Failures that take a backend out. At least 1; 0 acts as 1.
    pub unhealthy_after: u16,
}

impl From<&HealthCheck> for Thresholds {
    fn from(check: &HealthCheck) -> Self {
        Self { healthy_after: check.healthy_after, unhealthy_after: check.unhealthy_after }
    }
}

/// A change of the verdict, and the streak that caused it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transition {
    /// The verdict before.
    pub from: Verdict,
    /// The verdict now.
    pub to: Verdict,
    /// Outcomes in a row that argue for it, from 1.
    pub streak: u32,
    /// Since the first outcome in a row of the same kind as the deciding one.
    pub over: Duration,
}

/// What the outcomes so far say of one backend.
#[derive(Clone, Debug)]
pub struct Machine {
    thresholds: Thresholds,
    verdict: Verdict,
    good: u32,
    bad: u32,
    row: Option<Row>,
}

// Outcomes in a row of one kind.
#[derive(Clone, Copy, Debug)]
struct Row {
    kind: Kind,
    length: u32,
    began: Instant,
}

impl Machine {
    /// A machine that starts from what is known: nothing (`checking`, `unchecked`) or the verdict of an earlier check.
    #[must_use]
    pub const fn new(thresholds: Thresholds, verdict: Verdict) -> Self {
        Self { thresholds, verdict, good: 0, bad: 0, row: None }
    }

    /// What it says now.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Fit outcomes (passed or degraded) in a row.
    #[must_use]
    pub const fn good(&self) -> u32 {
        self.good
    }

    /// Failures in a row.
    #[must_use]
    pub const fn bad(&self) -> u32 {
        self.bad
    }

    /// Whether nothing is known yet, or the last outcome argues against the verdict.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.is_decided() || self.row.is_some_and(|row| implied(row.kind) != Some(self.verdict))
    }

    /// Takes one outcome in, in the order of time.
    pub fn observe(&mut self, now: Instant, kind: Kind) -> Option<Transition> {
        let to = implied(kind)?;
        let row = self.count(now, kind);
        let Thresholds { healthy_after, unhealthy_after } = self.thresholds;
        let (streak, needed) = match (self.verdict, to) {
            (_, Verdict::Down) => (self.bad, unhealthy_after),
            (Verdict::Down, _) => (self.good, healthy_after),
            (_, Verdict::Degraded) => (row.length, unhealthy_after),
            (_, _) => (row.length, healthy_after),
        };
        let enough = !self.is_decided() || streak >= u32::from(needed);
        if to == self.verdict || !enough {
            return None;
        }
        let from = std::mem::replace(&mut self.verdict, to);
        Some(Transition { from, to, streak, over: now.saturating_duration_since(row.began) })
    }

    const fn is_decided(&self) -> bool {
        !matches!(self.verdict, Verdict::Checking | Verdict::Unchecked)
    }

    fn count(&mut self, now: Instant, kind: Kind) -> Row {
        (self.good, self.bad) = match kind {
            Kind::Fail => (0, self.bad.saturating_add(1)),
            _ => (self.good.saturating_add(1), 0),
        };
        let row = match self.row {
            Some(row) if row.kind == kind => Row { length: row.length.saturating_add(1), ..row },
            _ => Row { kind, length: 1, began: now },
        };
        *self.row.insert(row)
    }
}

/// The verdict that an outcome argues for.
const fn implied(kind: Kind) -> Option<Verdict> {
    match kind {
        Kind::Pass => Some(Verdict::Up),
        Kind::Degraded => Some(Verdict::Degraded),
        Kind::Fail => Some(Verdict::Down),
        Kind::Inconclusive => None,
    }
}
