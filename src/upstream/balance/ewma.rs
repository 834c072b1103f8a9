//! How long a backend takes to answer, as of late: an average that forgets, and jumps at what is worse.
//!
//! Finagle's peak EWMA (`com.twitter.finagle.loadbalancer.PeakEwma`), which linkerd and tower have as well: a time above the average
//! becomes the average at once, one below draws it down by `1 - exp(-t / 10 s)`, where `t` is the time since the last one; without
//! any it fades, so that one that was slow is asked again. The cost of a backend is that times what it has to do.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{Candidates, Turns, two};

/// After so long, what was seen before counts for a third.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure counts as, if it took less: who fails fast is not fast.
const FAILURE: Duration = Duration::from_secs(1);

/// The average of one backend. Written by all workers: of two at the same moment one may be lost, which an average can bear.
#[derive(Debug)]
pub(in crate::upstream) struct Latency {
    born: Instant,
    // The bits of an f32, in microseconds, above the milliseconds since `born` at which it was written; 0 is nothing yet.
    state: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { born: Instant::now(), state: AtomicU64::default() }
    }
}

impl Latency {
    pub(in crate::upstream) fn answered(&self, took: Duration, now: Instant) {
        let (took, now) = (took.as_secs_f32() * 1e6, self.clock(now));
        let average = match self.state() {
            Some((average, _)) if took >= average => took,
            Some((average, at)) => took + (average - took) * faded(now, at),
            None => took,
        };
        // Never 0, which would mean nothing yet.
        self.state.store(u64::from(average.max(1.0).to_bits()) << 32 | u64::from(now), Relaxed);
    }

    pub(in crate::upstream) fn failed(&self, took: Duration, now: Instant) {
        self.answered(took.max(FAILURE), now);
    }

    /// In microseconds; `None` if it has not answered yet.
    pub(in crate::upstream) fn at(&self, now: Instant) -> Option<f32> {
        self.state().map(|(average, at)| average * faded(self.clock(now), at))
    }

    fn state(&self) -> Option<(f32, u32)> {
        let state = self.state.load(Relaxed);
        (state != 0).then_some((f32::from_bits((state >> 32) as u32), state as u32))
    }

    // Comes around after 49 days, and then takes what is so old for new.
    fn clock(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.born).as_millis() as u32
    }
}

fn faded(now: u32, at: u32) -> f32 {
    // Another worker may have looked at the clock a little later.
    let age = now.wrapping_sub(at);
    let age = if age > u32::MAX / 2 { 0 } else { age };
    (-(age as f32) / (DECAY.as_millis() as f32)).exp()
}

/// The one of two that is likely to be done sooner. One that has not answered yet is taken to be as fast as the other.
pub(super) fn pick(turns: &Turns, now: Instant, among: &Candidates<'_>) -> Option<usize> {
    let cost = |first, second| {
        let latencies = (among.latency(first, now), among.latency(second, now));
        let (of_first, of_second) = match latencies {
            (Some(first), Some(second)) => (first, second),
            _ => (1.0, 1.0),
        };
        (of_first * among.relative_load(first), of_second * among.relative_load(second))
    };
    two::pick(turns, among, cost)
}
