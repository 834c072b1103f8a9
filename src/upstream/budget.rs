//! What was counted in the last ten seconds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECONDS: usize = 10;

/// Counts of the last ten seconds, the one under way among them: a cell for each, which says whose it is in its upper half.
#[derive(Debug, Default)]
pub(super) struct Window([AtomicU64; SECONDS]);

impl Window {
    /// Counts one in this second. Called by one thread alone.
    pub(super) fn add(&self, second: u32) {
        if let Some(cell) = self.cell(second) {
            cell.store(with_one_more(cell.load(Relaxed), second), Relaxed);
        }
    }

    /// The same, called by any thread.
    pub(super) fn add_shared(&self, second: u32) {
        if let Some(cell) = self.cell(second) {
            let _ = cell.fetch_update(Relaxed, Relaxed, |packed| Some(with_one_more(packed, second)));
        }
    }

    /// How many there were in the ten seconds that end with this one.
    pub(super) fn sum(&self, second: u32) -> u64 {
        let is_within = |of: u32| of <= second && second - of < SECONDS as u32;
        let counts = self.0.iter().map(|cell| unpacked(cell.load(Relaxed)));
        counts.filter(|(of, _)| is_within(*of)).map(|(_, count)| u64::from(count)).sum()
    }

    fn cell(&self, second: u32) -> Option<&AtomicU64> {
        self.0.get(second as usize % SECONDS)
    }
}

const fn with_one_more(packed: u64, second: u32) -> u64 {
    let (of, count) = unpacked(packed);
    let count = if of == second { count.saturating_add(1) } else { 1 };
    (second as u64) << 32 | count as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the halves of a number")]
const fn unpacked(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        base::Percent,
        config::plan::{Balance, Health},
        telemetry::WorkerId,
        upstream::{Eligible, Upstream},
    };

    fn upstream(workers: usize) -> Upstream {
        Upstream::new(Eligible::among(&[], &Health::default(), &Balance::default(), |_| Percent::whole(100)), workers)
    }

    proptest! {
        #[test]
        fn a_window_is_what_was_counted_in_ten_seconds(steps in prop::collection::vec((0u32..4, 0u32..5), 1..60)) {
            let (window, mut counted, mut second) = (Window::default(), BTreeMap::<u32, u64>::new(), 0);
            for (pause, count) in steps {
                second += pause;
                for _ in 0..count {
                    window.add(second);
                    *counted.entry(second).or_default() += 1;
                }
                let expected: u64 = counted.range(second.saturating_sub(9)..=second).map(|(_, count)| count).sum();
                prop_assert_eq!(window.sum(second), expected);
            }
        }

        /// Whatever comes: in any ten seconds no more retries than the share of the requests, or the minimum.
        #[test]
        fn a_budget_is_never_passed(
            steps in prop::collection::vec((0u64..3_000, 0u32..40, 0u32..40), 1..60),
            share in 0u8..=100,
            min in 0u32..20,
        ) {
            let (upstream, mut now) = (upstream(2), std::time::Instant::now());
            let share = Percent::whole(share);
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for (pause, asked, failed) in steps {
                now += Duration::from_millis(pause);
                for number in 0..asked {
                    upstream.count_request(WorkerId(number as usize % 2), now);
                    requests.push(now);
                }
                let since = |times: &[std::time::Instant], seconds| {
                    times.iter().filter(|time| now - **time <= Duration::from_secs(seconds)).count() as u64
                };
                let allowed = since(&requests, 10) * u64::from(share.basis_points()) / 10_000;
                for _ in 0..failed {
                    if upstream.spend_retry(share, min, now) {
                        retries.push(now);
                        // Seconds are counted whole: the window is one of nine to ten.
                        prop_assert!(since(&retries, 9) <= allowed.max(min.into()));
                    }
                }
            }
        }
    }

    #[test]
    fn a_budget_that_is_spent_comes_back_with_time() {
        let (upstream, start) = (upstream(1), std::time::Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        (0..100).for_each(|_| upstream.count_request(WorkerId(0), at(0)));
        let spent = |now| (0..100).filter(|_| upstream.spend_retry(Percent::whole(20), 3, now)).count();
        assert_eq!((spent(at(1)), spent(at(9))), (20, 0));
        assert_eq!((spent(at(20)), spent(at(25)), spent(at(31))), (3, 0, 3));
    }

    #[test]
    fn threads_together_pass_a_budget_by_no_more_than_one_each() {
        let (upstream, now) = (upstream(4), std::time::Instant::now());
        (0..1_000).for_each(|_| upstream.count_request(WorkerId(0), now));
        let spent: usize = std::thread::scope(|threads| {
            let spend = || (0..1_000).filter(|_| upstream.spend_retry(Percent::whole(10), 0, now)).count();
            let threads: Vec<_> = (0..4).map(|_| threads.spawn(spend)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!((100..=103).contains(&spent), "{spent}");
    }
}
