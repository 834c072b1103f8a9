//! How long it takes at worst: what a health check's times and thresholds come to.

use std::time::Duration;

use crate::config::plan::HealthCheck;

/// The longest times that a health check needs, if this gateway is not late itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Detection {
    /// From the moment that a backend stops to answer to the moment that it gets no traffic. What live traffic sees may be faster.
    pub out: Duration,
    /// From the moment that it answers again to the moment that it gets traffic.
    pub back: Duration,
}

impl Detection {
    /// What several checks of one backend come to: each may be the only one that sees what is wrong.
    #[must_use]
    pub fn of(checks: &[HealthCheck]) -> Option<Self> {
        let each = checks.iter().map(Self::of_one);
        each.reduce(|a, b| Self { out: a.out.max(b.out), back: a.back.max(b.back) })
    }

    /// The backend dies just after it has answered a probe, and hangs: each failure takes the whole `timeout`. It comes back just
    /// after it has let a probe hang.
    fn of_one(check: &HealthCheck) -> Self {
        let HealthCheck { timeout, healthy_after, unhealthy_after, .. } = *check;
        let longest = |interval: Duration| interval.mul_f64(1.0 + check.jitter.factor());
        let steady = longest(check.interval).max(check.interval_with_traffic.unwrap_or_default());
        // Probes of one backend do not overlap.
        let changing = longest(check.interval_changing).max(timeout);
        let down = longest(check.interval_down).max(timeout);
        let more = |needed: u16| changing * u32::from(needed.saturating_sub(1));
        Self { out: steady + more(unhealthy_after) + timeout, back: down + more(healthy_after) + timeout }
    }
}
