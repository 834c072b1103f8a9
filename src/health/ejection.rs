//! What live traffic says of a backend: when it is enough to take it out, and for how long. Pure: no clock, no dice, no task.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    base::Percent,
    config::plan::{FailureRatio, Passive},
};

/// The ejections of one backend.
///
/// Each is twice as long as the one before, up to a cap, unless the backend has been back for at least as long as it was out: then
/// the next one is as short as the first (Envoy's outlier detection counts down in the same spirit).
#[derive(Clone, Debug, Default)]
pub struct Ejector {
    times: u32,
    last: Option<Ejection>,
    is_out: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    until: Instant,
    lasted: Duration,
}

/// How much longer than its time an ejection may last, by chance: backends that fell together do not come back together.
const JITTER: f64 = 0.1;

impl Ejector {
    /// Takes the backend out; returns for how long. `asked` is what the backend itself has asked for, `chance` lies in 0.0..1.0.
    pub fn eject(&mut self, now: Instant, rules: &Passive, asked: Option<Duration>, chance: f64) -> Duration {
        let is_recovered = |last: Ejection| now.saturating_duration_since(last.until) >= last.lasted;
        if self.last.is_none_or(is_recovered) {
            self.times = 0;
        }
        let doubled = rules.eject_for.saturating_mul(1 << self.times.min(30));
        let scattered = doubled.min(rules.max_eject_for).mul_f64(1.0 + JITTER * chance);
        let lasts = scattered.max(asked.unwrap_or_default()).min(rules.max_eject_for);
        self.times += 1;
        self.last = Some(Ejection { until: now + lasts, lasted: lasts });
        self.is_out = true;
        lasts
    }

    /// Whether its time is over just now.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let is_over = self.is_out && self.last.is_none_or(|last| last.until <= now);
        self.is_out &= !is_over;
        is_over
    }

    /// Ends an ejection before its time.
    pub const fn pardon(&mut self) {
        self.is_out = false;
    }

    /// When it comes back, while it is out.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.last.filter(|_| self.is_out).map(|last| last.until)
    }

    /// Ejections in a row, each soon after the one before.
    #[must_use]
    pub const fn times(&self) -> u32 {
        self.times
    }
}

/// Why a backend stays although live traffic speaks against it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spared {
    /// Nobody else is eligible.
    LastOne,
    /// As many as may be out are out.
    Share,
}

/// Whether one more of `total` backends may be taken out, of which `ejected` are out already and `eligible` get traffic.
///
/// # Errors
/// Why not.
pub fn may_eject(total: usize, ejected: usize, eligible: usize, max: Percent) -> Result<(), Spared> {
    let most = total * usize::from(max.basis_points()) / 10_000;
    match () {
        () if eligible <= 1 => Err(Spared::LastOne),
        () if ejected >= most => Err(Spared::Share),
        () => Ok(()),
    }
}

/// Requests of one backend and how many of them failed, over a sliding time.
#[derive(Clone, Debug, Default)]
pub struct Window(VecDeque<(Instant, u64, u64)>);

impl Window {
    /// Takes in how many requests there were so far, and how many of them failed. Returns the failures and the requests within the
    /// window where they are too many.
    pub fn observe(&mut self, now: Instant, total: u64, failed: u64, rules: FailureRatio) -> Option<(u64, u64)> {
        // The last sample from before the window is where it starts.
        while self.0.get(1).is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= rules.window) {
            self.0.pop_front();
        }
        self.0.push_back((now, total, failed));
        let (_, first_total, first_failed) = self.0.front()?;
        let (requests, failures) = (total.saturating_sub(*first_total), failed.saturating_sub(*first_failed));
        let is_enough = requests >= u64::from(rules.min_requests);
        let is_much = failures * 10_000 >= requests * u64::from(rules.limit.basis_points());
        (is_enough && is_much).then_some((failures, requests))
    }

    /// Forgets what was: what a backend did before it was out says nothing of how it is when it is back.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Passive {
        Passive { eject_for: 10 * SECOND, max_eject_for: 60 * SECOND, ..Passive::default() }
    }

    #[test]
    fn ejections_soon_after_one_another_double_up_to_the_cap() {
        let (mut ejector, mut now) = (Ejector::default(), Instant::now());
        let lengths: Vec<u64> = (0..5)
            .map(|_| {
                let lasts = ejector.eject(now, &rules(), None, 0.0);
                assert!(!ejector.is_over(now + lasts - SECOND));
                now += lasts;
                assert!(ejector.is_over(now) && !ejector.is_over(now));
                now += SECOND;
                lasts.as_secs()
            })
            .collect();
        assert_eq!(lengths, [10, 20, 40, 60, 60]);
    }

    #[test]
    fn a_backend_that_was_well_for_as_long_as_it_was_out_begins_anew() {
        let (mut ejector, now) = (Ejector::default(), Instant::now());
        ejector.eject(now, &rules(), None, 0.0);
        ejector.eject(now + 11 * SECOND, &rules(), None, 0.0);
        assert_eq!(ejector.times(), 2);
        let back = now + 31 * SECOND;
        assert!(ejector.is_over(back));
        assert_eq!(ejector.eject(back + 20 * SECOND, &rules(), None, 0.0), 10 * SECOND);
        assert_eq!(ejector.times(), 1);
    }

    #[test]
    fn a_backend_that_asks_for_longer_gets_it_up_to_the_cap() {
        let now = Instant::now();
        let asking = |asked| Ejector::default().eject(now, &rules(), Some(asked), 0.0);
        assert_eq!([1, 30, 3_600].map(|asked| asking(asked * SECOND).as_secs()), [10, 30, 60]);
    }

    #[test]
    fn chance_lengthens_by_a_tenth_at_most_and_never_past_the_cap() {
        let now = Instant::now();
        assert_eq!(Ejector::default().eject(now, &rules(), None, 1.0), 11 * SECOND);
        let long = Passive { eject_for: 58 * SECOND, ..rules() };
        assert_eq!(Ejector::default().eject(now, &long, None, 1.0), 60 * SECOND);
    }

    #[test]
    fn two_backends_have_one_ejection_between_them_and_one_has_none() {
        let half = Percent::whole(50);
        assert_eq!(may_eject(2, 0, 2, half), Ok(()));
        assert_eq!(may_eject(2, 1, 1, half), Err(Spared::LastOne));
        assert_eq!(may_eject(1, 0, 1, Percent::whole(100)), Err(Spared::LastOne));
        assert_eq!(may_eject(10, 5, 5, half), Err(Spared::Share));
        // What checks have taken out does not count against the share.
        assert_eq!(may_eject(10, 4, 3, half), Ok(()));
        assert_eq!(may_eject(3, 0, 3, Percent::whole(10)), Err(Spared::Share));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_counting_anew(
            seconds in prop::collection::vec((0_u64..40, 0_u64..40), 1..60),
            limit in 1_u8..=100,
            min_requests in 1_u32..60,
        ) {
            let rules = FailureRatio { limit: Percent::whole(limit), window: 10 * SECOND, min_requests };
            let (start, mut window) = (Instant::now(), Window::default());
            let (mut total, mut failed) = (0, 0);
            window.observe(start, 0, 0, rules);
            for (i, (good, bad)) in seconds.iter().enumerate() {
                total += good + bad;
                failed += bad;
                let found = window.observe(start + SECOND * (i as u32 + 1), total, failed, rules);
                let last = &seconds[(i + 1).saturating_sub(10)..=i];
                let (requests, failures) = last.iter().fold((0, 0), |(r, f), (good, bad)| (r + good + bad, f + bad));
                let expected = requests >= u64::from(min_requests) && failures * 100 >= requests * u64::from(limit);
                prop_assert_eq!(found, expected.then_some((failures, requests)));
            }
        }
    }
}
