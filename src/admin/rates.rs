//! What happened in the last minute: totals sampled every [`EVERY`], kept for [`KEPT`] samples, compared with those of now.
//!
//! The admin plane's server task samples; a status document reads. The rings know a backend by its slot and its identity, so
//! that another one that gets the slot starts anew. An idle backend's samples are one shared value.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::status::Recent;
use crate::{
    control::Status,
    proxy::{Blame, Fault},
    telemetry::{
        cells::{HistogramSum, LATENCY_BOUNDS},
        metrics::RouteMetrics,
    },
    upstream::{Backend, Slot},
};

/// Between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// Samples kept: the oldest is a minute old.
const KEPT: usize = 13;

/// Below this there is no rate to speak of.
const SHORTEST: Duration = Duration::from_secs(1);

/// The samples of everything.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    backends: HashMap<Slot, (Weak<Backend>, Ring)>,
    gateway: Ring,
}

/// What has been counted since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) latencies: HistogramSum,
}

#[derive(Debug, Default)]
struct Ring(VecDeque<(Instant, Arc<Totals>)>);

impl Totals {
    /// Of a backend: its responses, those of the class 5xx among them.
    pub(super) fn of_backend(backend: &Backend) -> Self {
        let responses = backend.metrics().responses();
        let failed = responses.iter().filter(|(code, _)| code.is_server_error());
        Self {
            requests: responses.values().sum(),
            errors: failed.map(|(_, sum)| sum).sum(),
            latencies: backend.metrics().duration(),
        }
    }

    /// Of the gateway: requests, and those it answered or cut itself although the client did nothing wrong.
    pub(super) fn of_gateway(status: &Status) -> Self {
        let snapshot = status.live.load();
        let routes = snapshot.routes.values().map(|route| &*route.metrics);
        routes.chain([&*status.unrouted]).fold(Self::default(), |sum, route| Self {
            requests: sum.requests + route.requests().values().sum::<u64>(),
            errors: sum.errors + own_errors(route),
            latencies: HistogramSum::default(),
        })
    }
}

fn own_errors(route: &RouteMetrics) -> u64 {
    let is_clients = |reason: &str| Fault::ALL.iter().any(|f| f.reason() == reason && f.blame() == Blame::Client);
    route.errors().filter(|(reason, _)| !is_clients(reason)).map(|(_, sum)| sum).sum()
}

impl Rates {
    /// Takes a sample of everything, and forgets what is gone.
    pub(super) fn sample(&self, now: Instant, status: &Status) {
        let snapshot = status.live.load();
        let members = snapshot.upstreams.values().flat_map(|upstream| &upstream.members);
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut rings.backends);
        for backend in members.map(|member| &member.backend) {
            let kept = before.remove(&backend.slot()).filter(|(of, _)| is_of(of, backend));
            let (of, mut ring) = kept.unwrap_or_else(|| (Arc::downgrade(backend), Ring::default()));
            ring.push(now, Totals::of_backend(backend));
            rings.backends.insert(backend.slot(), (of, ring));
        }
        rings.gateway.push(now, Totals::of_gateway(status));
    }

    /// The last minute of a backend that has these totals now; `None` where too little of it has passed.
    pub(super) fn of_backend(&self, now: Instant, backend: &Arc<Backend>, totals: &Totals) -> Option<Recent> {
        let rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, ring) = rings.backends.get(&backend.slot()).filter(|(of, _)| is_of(of, backend))?;
        ring.compare(now, totals)
    }

    /// The last minute of the gateway that has these totals now.
    pub(super) fn of_gateway(&self, now: Instant, totals: &Totals) -> Option<Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).gateway.compare(now, totals)
    }
}

fn is_of(known: &Weak<Backend>, backend: &Arc<Backend>) -> bool {
    std::ptr::eq(known.as_ptr(), Arc::as_ptr(backend))
}

impl Ring {
    fn push(&mut self, now: Instant, totals: Totals) {
        let newest = self.0.back().map(|(_, totals)| totals);
        let totals = newest.filter(|newest| ***newest == totals).map_or_else(|| Arc::new(totals), Arc::clone);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, totals));
    }

    fn compare(&self, now: Instant, totals: &Totals) -> Option<Recent> {
        let (at, before) = self.0.front()?;
        let passed = now.duration_since(*at);
        (passed >= SHORTEST).then(|| recent(passed, before, totals))
    }
}

// Totals only grow, but those of a removed route leave the sum: what seems negative is zero.
#[expect(clippy::cast_precision_loss, reason = "a rate is not exact")]
fn recent(passed: Duration, before: &Totals, now: &Totals) -> Recent {
    let requests = now.requests.saturating_sub(before.requests) as f64;
    let errors = now.errors.saturating_sub(before.errors) as f64;
    Recent {
        seconds: rounded(passed.as_secs_f64(), 1.0),
        requests_per_s: rounded(requests / passed.as_secs_f64(), 10.0),
        error_percent: (requests > 0.0).then(|| rounded(100.0 * (errors / requests).min(1.0), 10.0)),
        p95_ms: p95(&before.latencies, &now.latencies).map(|seconds| rounded(seconds * 1_000.0, 10.0)),
    }
}

fn rounded(number: f64, per_unit: f64) -> f64 {
    (number * per_unit).round() / per_unit
}

/// The latency in seconds that 95% of the difference stay below, as Prometheus estimates it: evenly spread within a bucket,
/// and nothing above the last bound.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn p95(before: &HistogramSum, now: &HistogramSum) -> Option<f64> {
    let counts: Vec<u64> = now.buckets.iter().zip(before.buckets).map(|(now, then)| now.saturating_sub(then)).collect();
    let rank = counts.iter().sum::<u64>() as f64 * 0.95;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, upper) in counts.iter().zip(LATENCY_BOUNDS) {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * (rank - below) / count);
        }
        (below, lower) = (below + count, upper);
    }
    (rank > 0.0).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::cells::Histogram;

    fn totals(requests: u64, errors: u64, millis: &[u64]) -> Totals {
        let histogram = Histogram::default();
        millis.iter().for_each(|ms| histogram.observe(Duration::from_millis(*ms)));
        let mut latencies = HistogramSum::default();
        histogram.add_to(&mut latencies);
        Totals { requests, errors, latencies }
    }

    #[test]
    fn compares_with_the_oldest_sample_of_the_last_minute() {
        let (start, mut ring) = (Instant::now(), Ring::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for tick in 0..20 {
            ring.push(at(tick * 5), totals(tick * 100, tick * 10, &[]));
        }
        assert_eq!(ring.0.len(), KEPT);
        let recent = ring.compare(at(95), &totals(1_900, 190, &[])).unwrap();
        assert_eq!(
            (recent.seconds, recent.requests_per_s, recent.error_percent, recent.p95_ms),
            (60.0, 20.0, Some(10.0), None)
        );
    }

    #[test]
    fn says_nothing_before_a_second_has_passed() {
        let (start, mut ring) = (Instant::now(), Ring::default());
        assert!(ring.compare(start, &totals(1, 0, &[])).is_none());
        ring.push(start, totals(0, 0, &[]));
        assert!(ring.compare(start + Duration::from_millis(999), &totals(1, 0, &[])).is_none());
        assert!(ring.compare(start + SHORTEST, &totals(1, 0, &[])).is_some());
    }

    #[test]
    fn totals_that_shrink_are_no_requests() {
        let (start, mut ring) = (Instant::now(), Ring::default());
        ring.push(start, totals(100, 5, &[]));
        let recent = ring.compare(start + EVERY, &totals(40, 5, &[])).unwrap();
        assert_eq!((recent.requests_per_s, recent.error_percent), (0.0, None));
    }

    #[test]
    fn idle_samples_are_one_value() {
        let (start, mut ring) = (Instant::now(), Ring::default());
        (0..3).for_each(|_| ring.push(start, totals(7, 0, &[3])));
        assert_eq!(Arc::strong_count(&ring.0[0].1), 3);
    }

    #[test]
    fn the_95th_percentile_lies_in_its_bucket() {
        let none = HistogramSum::default();
        assert_eq!(p95(&none, &none), None);
        // All in one bucket, 10 to 25 ms: 95% of the way through it.
        let seconds = p95(&none, &totals(0, 0, &[20; 100]).latencies).unwrap();
        assert!((seconds - 0.024_25).abs() < 1e-9, "{seconds}");
        // 90 fast ones and 10 slow ones: the slow bucket, 250 to 500 ms, half way.
        let mut mixed = vec![2; 90];
        mixed.extend([300; 10]);
        let seconds = p95(&none, &totals(0, 0, &mixed).latencies).unwrap();
        assert!((seconds - 0.375).abs() < 1e-9, "{seconds}");
        // Above the last bound nothing is known but that.
        assert_eq!(p95(&none, &totals(0, 0, &[100_000; 3]).latencies), Some(60.0));
        // Only what is new counts.
        let seconds = p95(&totals(0, 0, &[300; 50]).latencies, &totals(0, 0, &[300; 50]).latencies);
        assert_eq!(seconds, None);
    }
}
