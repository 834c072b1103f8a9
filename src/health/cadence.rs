//! When the next probe goes out. Pure but for the dice.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{base::Percent, config::plan::HealthCheck, upstream::Backend};

/// Where a backend stands in its schedule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pace {
    /// The last probe was inconclusive: ask again.
    AtOnce,
    /// A verdict is pending.
    Changing,
    /// The verdict is new and no steady probe was sent yet: step out of line with the peers that started together.
    Scatter,
    /// It is down.
    Down,
    /// As configured.
    Steady,
}

/// How long from the start of a probe to the start of the next.
pub(super) fn next(check: &HealthCheck, pace: Pace) -> Duration {
    match pace {
        Pace::AtOnce => Duration::ZERO,
        Pace::Changing => jittered(check.interval_changing, check.jitter),
        Pace::Scatter => between(check.interval_changing.min(check.interval), check.interval),
        Pace::Down => jittered(check.interval_down, check.jitter),
        Pace::Steady => jittered(check.interval, check.jitter),
    }
}

/// Live traffic that speaks for a backend: while all of its requests go well, it is asked less often.
#[derive(Debug)]
pub(super) struct Vouching {
    backend: Arc<Backend>,
    interval: Duration,
    longest: Instant,
    seen: (u64, u64),
}

impl Vouching {
    /// From now on, and never for longer than until `longest`.
    pub(super) fn new(backend: &Arc<Backend>, interval: Duration, longest: Instant) -> Self {
        Self { backend: Arc::clone(backend), interval, longest, seen: Self::look(backend) }
    }

    /// When to look again instead of asking now; `None` where traffic says nothing, or nothing good.
    pub(super) fn postpone(&mut self, now: Instant) -> Option<Instant> {
        let (responses, failures) = std::mem::replace(&mut self.seen, Self::look(&self.backend));
        let is_vouched = self.seen.0 > responses && self.seen.1 == failures;
        (is_vouched && now < self.longest).then(|| self.longest.min(now + self.interval))
    }

    fn look(backend: &Backend) -> (u64, u64) {
        (backend.metrics().requests(), backend.metrics().failures())
    }
}

/// How long until the first probe of one of `peers` backends that start together: two are asked within a millisecond, a
/// thousand within half a second, any number within half of the shorter of the interval and 1 s.
pub(super) fn first(check: &HealthCheck, peers: usize) -> Duration {
    let evenly = SPACING.saturating_mul(u32::try_from(peers).unwrap_or(u32::MAX));
    between(Duration::ZERO, evenly.min(check.interval.min(Duration::from_secs(1)) / 2))
}

const SPACING: Duration = Duration::from_micros(500);

fn jittered(interval: Duration, jitter: Percent) -> Duration {
    interval.mul_f64(1.0 + jitter.factor() * (2.0 * fastrand::f64() - 1.0))
}

fn between(shortest: Duration, longest: Duration) -> Duration {
    shortest + longest.saturating_sub(shortest).mul_f64(fastrand::f64())
}
