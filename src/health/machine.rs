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

#[cfg(test)]
mod tests {
    use Kind::{Degraded, Fail, Inconclusive, Pass};
    use proptest::prelude::*;

    use super::*;

    fn machine(healthy_after: u16, unhealthy_after: u16, verdict: Verdict) -> Machine {
        Machine::new(Thresholds { healthy_after, unhealthy_after }, verdict)
    }

    fn verdicts(machine: &mut Machine, kinds: &[Kind]) -> Vec<Verdict> {
        let now = Instant::now();
        let mut see = |kind: &Kind| {
            machine.observe(now, *kind);
            machine.verdict()
        };
        kinds.iter().map(&mut see).collect()
    }

    #[test]
    fn the_first_conclusive_outcome_decides() {
        for (kind, verdict) in [(Pass, Verdict::Up), (Degraded, Verdict::Degraded), (Fail, Verdict::Down)] {
            for start in [Verdict::Checking, Verdict::Unchecked] {
                assert_eq!(verdicts(&mut machine(5, 5, start), &[Inconclusive, kind]), [start, verdict]);
            }
        }
    }

    #[test]
    fn three_failures_in_a_row_take_out_and_two_passes_bring_back() {
        let mut machine = machine(2, 3, Verdict::Up);
        let seen = verdicts(&mut machine, &[Fail, Fail, Pass, Fail, Fail, Inconclusive, Fail, Pass, Fail, Pass, Pass]);
        let (up, down) = (Verdict::Up, Verdict::Down);
        assert_eq!(seen, [up, up, up, up, up, up, down, down, down, down, up]);
    }

    #[test]
    fn a_transition_tells_the_streak_and_how_long_it_took() {
        let mut machine = machine(2, 3, Verdict::Up);
        let start = Instant::now();
        assert_eq!(machine.observe(start, Fail), None);
        assert_eq!(machine.observe(start + Duration::from_secs(1), Fail), None);
        let over = Duration::from_millis(1_900);
        let transition = Transition { from: Verdict::Up, to: Verdict::Down, streak: 3, over };
        assert_eq!(machine.observe(start + over, Fail), Some(transition));
    }

    #[test]
    fn a_verdict_is_pending_while_the_last_outcome_argues_against_it() {
        let mut machine = machine(2, 3, Verdict::Checking);
        let mut pending = |kind| {
            machine.observe(Instant::now(), kind);
            machine.is_pending()
        };
        let kinds = [Inconclusive, Pass, Fail, Inconclusive, Pass, Fail, Fail, Fail, Fail, Pass, Pass, Degraded];
        let expected = [true, false, true, true, false, true, true, false, false, true, false, true];
        assert_eq!(kinds.map(&mut pending), expected);
    }

    #[test]
    fn a_seeded_machine_keeps_its_verdict_and_starts_to_count() {
        let mut machine = machine(2, 3, Verdict::Down);
        assert!(!machine.is_pending());
        assert_eq!((machine.good(), machine.bad()), (0, 0));
        assert_eq!(verdicts(&mut machine, &[Pass, Degraded]), [Verdict::Down, Verdict::Degraded]);
    }

    // The same rules, told by looking back over the whole history.
    fn reference(history: &[Kind], before: Verdict, healthy_after: usize, unhealthy_after: usize) -> Verdict {
        let ending = |fits: fn(Kind) -> bool| history.iter().rev().take_while(|kind| fits(**kind)).count();
        let last = match history.last() {
            Some(Pass) => Verdict::Up,
            Some(Degraded) => Verdict::Degraded,
            _ => Verdict::Down,
        };
        let enough = match (before, last) {
            (Verdict::Checking, _) => true,
            (_, Verdict::Down) => ending(|kind| kind == Fail) >= unhealthy_after,
            (Verdict::Down, _) => ending(|kind| kind != Fail) >= healthy_after,
            (_, Verdict::Degraded) => ending(|kind| kind == Degraded) >= unhealthy_after,
            _ => ending(|kind| kind == Pass) >= healthy_after,
        };
        if enough { last } else { before }
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(
            kinds in prop::collection::vec(prop::sample::select(vec![Pass, Pass, Degraded, Fail, Fail, Inconclusive]), 0..60),
            healthy_after in 1_u16..5,
            unhealthy_after in 1_u16..5,
        ) {
            let mut machine = machine(healthy_after, unhealthy_after, Verdict::Checking);
            let (mut history, mut verdict) = (Vec::new(), Verdict::Checking);
            for kind in kinds {
                let before = verdict;
                if kind != Inconclusive {
                    history.push(kind);
                    verdict = reference(&history, before, healthy_after.into(), unhealthy_after.into());
                }
                let transition = machine.observe(Instant::now(), kind);
                prop_assert_eq!(machine.verdict(), verdict);
                prop_assert_eq!(transition.map(|t| (t.from, t.to)), (before != verdict).then_some((before, verdict)));
                let fails = history.iter().rev().take_while(|kind| **kind == Fail).count();
                prop_assert_eq!(machine.bad() as usize, fails);
                prop_assert!(machine.good() == 0 || machine.bad() == 0);
            }
        }
    }
}
