//! What other thresholds would have made of the probes that are on record.
//!
//! Only outcomes are replayed. Other thresholds would have changed the pace of the probes a little, too, and that is not on record.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Kind, Machine, Thresholds};
use crate::upstream::Verdict;

/// The outcomes of one health check of one backend, the oldest first: eight bytes each, 512 of them at most. That is an hour and a
/// half at ten seconds.
#[derive(Clone, Debug)]
pub struct History {
    began: Instant,
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    // Milliseconds since `began`.
    at: u32,
    // Milliseconds, as many as fit.
    took: u16,
    kind: Kind,
}

/// How many outcomes are on record.
const KEPT: usize = 512;

/// Thresholds that might be, and a deadline, if it is shorter: what was not waited for is not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trial {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// Probes that took longer count as failures.
    pub timeout: Option<Duration>,
}

/// What a trial comes to, beside what has been.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backtest {
    /// The time on record.
    pub over: Duration,
    /// Outcomes on record that say something of the backend.
    pub probes: usize,
    /// How often the backend was taken out, by the present thresholds.
    pub present: Outs,
    /// How often it would have been.
    pub trial: Outs,
    /// The longest that the trial would have been behind the present in taking it out, where both do.
    pub delay: Duration,
}

/// How often a backend was out, and for how long altogether.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outs {
    /// Times.
    pub times: usize,
    /// Altogether, up to the end of the record.
    pub lasted: Duration,
}

// From when to when a backend was out, in milliseconds.
type Out = (u32, u32);

impl History {
    /// Nothing yet.
    #[must_use]
    pub const fn new(began: Instant) -> Self {
        Self { began, samples: VecDeque::new() }
    }

    /// Puts an outcome on record. One that says nothing of the backend is left out.
    pub fn record(&mut self, now: Instant, kind: Kind, took: Duration) {
        if kind == Kind::Inconclusive {
            return;
        }
        let Ok(at) = u32::try_from(now.saturating_duration_since(self.began).as_millis()) else {
            // After seven weeks the clock starts anew, and so does the record.
            (self.began, self.samples) = (now, VecDeque::new());
            return;
        };
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, took: u16::try_from(took.as_millis()).unwrap_or(u16::MAX), kind });
    }

    /// Replays the record.
    #[must_use]
    pub fn backtest(&self, present: Thresholds, trial: Trial) -> Backtest {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return Backtest::default() };
        let now = self.outs(Trial { thresholds: present, timeout: None });
        let then = self.outs(trial);
        let delay = |(start, _): &Out| {
            let same = now.iter().rev().find(|(out, back)| out <= start && start <= back)?;
            Some(start - same.0)
        };
        Backtest {
            over: millis(last.at - first.at),
            probes: self.samples.len(),
            present: Outs::of(&now),
            trial: Outs::of(&then),
            delay: millis(then.iter().filter_map(delay).max().unwrap_or(0)),
        }
    }

    fn outs(&self, trial: Trial) -> Vec<Out> {
        let mut machine = Machine::new(trial.thresholds, Verdict::Checking);
        let mut outs: Vec<Out> = Vec::new();
        let mut is_out = false;
        for sample in &self.samples {
            let is_late = trial.timeout.is_some_and(|timeout| u128::from(sample.took) > timeout.as_millis());
            let kind = if is_late { Kind::Fail } else { sample.kind };
            machine.observe(self.began + millis(sample.at), kind);
            let is_down = machine.verdict() == Verdict::Down;
            match outs.last_mut() {
                Some((_, until)) if is_out => *until = sample.at,
                _ if is_down => outs.push((sample.at, sample.at)),
                _ => {}
            }
            is_out = is_down;
        }
        outs
    }
}

impl Outs {
    fn of(outs: &[Out]) -> Self {
        let lasted = outs.iter().map(|(start, end)| u64::from(end - start)).sum();
        Self { times: outs.len(), lasted: Duration::from_millis(lasted) }
    }
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(u64::from(millis))
}

#[cfg(test)]
mod tests {
    use Kind::{Fail, Inconclusive, Pass};
    use proptest::prelude::*;

    use super::*;

    const fn thresholds(healthy_after: u16, unhealthy_after: u16) -> Thresholds {
        Thresholds { healthy_after, unhealthy_after }
    }

    fn history(kinds: &[Kind]) -> History {
        let began = Instant::now();
        let mut history = History::new(began);
        for (i, kind) in kinds.iter().enumerate() {
            history.record(began + Duration::from_secs(10 * i as u64), *kind, Duration::from_millis(3));
        }
        history
    }

    #[test]
    fn three_instead_of_one_cuts_nine_ejections_to_two_and_delays_them() {
        // Seven single misses, and two outages of five probes each.
        let mut kinds = vec![Pass; 3];
        for outage in [1, 1, 1, 5, 1, 1, 1, 5, 1] {
            kinds.extend(vec![Fail; outage]);
            kinds.extend(vec![Pass; 4]);
        }
        let found = history(&kinds).backtest(thresholds(1, 1), Trial { thresholds: thresholds(1, 3), timeout: None });
        assert_eq!((found.present.times, found.trial.times, found.delay), (9, 2, Duration::from_secs(20)));
        assert_eq!(found.present.lasted, Duration::from_secs(170));
        assert_eq!(found.trial.lasted, Duration::from_secs(60));
        assert_eq!((found.probes, found.over), (kinds.len(), Duration::from_secs(10 * (kinds.len() as u64 - 1))));
    }

    #[test]
    fn a_shorter_deadline_makes_slow_probes_fail() {
        let began = Instant::now();
        let mut history = History::new(began);
        for (i, took) in [3, 3, 900, 900, 900, 3, 3, 3].into_iter().enumerate() {
            history.record(began + Duration::from_secs(i as u64), Pass, Duration::from_millis(took));
        }
        let with = |timeout| {
            let trial = Trial { thresholds: thresholds(2, 3), timeout: Some(Duration::from_millis(timeout)) };
            history.backtest(thresholds(2, 3), trial).trial
        };
        assert_eq!(with(1_000), Outs::default());
        assert_eq!(with(500), Outs { times: 1, lasted: Duration::from_secs(2) });
    }

    #[test]
    fn an_outage_that_goes_on_lasts_until_now_and_nothing_is_nothing() {
        let found = history(&[Pass, Fail, Inconclusive, Fail, Fail])
            .backtest(thresholds(1, 2), Trial { thresholds: thresholds(1, 1), timeout: None });
        assert_eq!((found.present.lasted.as_secs(), found.trial.lasted.as_secs(), found.delay.as_secs()), (10, 30, 0));
        let trial = Trial { thresholds: thresholds(1, 1), timeout: None };
        assert_eq!(History::new(Instant::now()).backtest(thresholds(1, 1), trial), Backtest::default());
    }

    proptest! {
        #[test]
        fn the_same_thresholds_change_nothing_and_the_record_is_bounded(
            kinds in prop::collection::vec(prop::sample::select(vec![Pass, Pass, Fail, Inconclusive]), 0..1_500),
            healthy_after in 1_u16..5,
            unhealthy_after in 1_u16..5,
        ) {
            let history = history(&kinds);
            prop_assert!(history.samples.len() <= KEPT);
            let present = thresholds(healthy_after, unhealthy_after);
            let found = history.backtest(present, Trial { thresholds: present, timeout: None });
            prop_assert_eq!(found.present, found.trial);
            prop_assert_eq!(found.delay, Duration::ZERO);
        }

        #[test]
        fn more_patience_never_ejects_more_often(
            kinds in prop::collection::vec(prop::sample::select(vec![Pass, Pass, Fail]), 2..300),
            unhealthy_after in 1_u16..5,
        ) {
            // Without a first outcome that decides at once, which no threshold holds up.
            let kinds: Vec<Kind> = std::iter::once(Pass).chain(kinds).collect();
            let patient = Trial { thresholds: thresholds(1, unhealthy_after + 1), timeout: None };
            let found = history(&kinds).backtest(thresholds(1, unhealthy_after), patient);
            prop_assert!(found.trial.times <= found.present.times);
            prop_assert!(found.trial.lasted <= found.present.lasted);
        }
    }
}
