//! A rate limit: how often may this client come?
//!
//! The algorithm is GCRA, from `governor`: a bucket is one atomic time stamp, so a decision is a look-up and one
//! compare-and-swap. Called by [`Pipeline`](super::Pipeline) for every request of a route; knows no routes itself.
//!
//! Keys are chosen by clients, so their number is bounded and their hash is keyed. Above `max_keys` a new key uses one
//! bucket shared with every other such key: an active key is never evicted and nothing is let through for want of room.
//! The invariant, also under load and across [`sweep`](RateLimiter::sweep): in any stretch of time `t`, a key is admitted at
//! most `burst + rate * t` times. Therefore a key that gets a bucket of its own starts where the shared one stands,
//! because it may have drawn from it.

use std::{
    fmt,
    fmt::Write as _,
    hash::{BuildHasher, Hasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use governor::{
    Quota,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore, keyed::ShrinkableKeyedStateStore},
};
use http::HeaderMap;

use crate::{
    base::{Name, Rate},
    config::plan::{Limit, LimitKey},
};

/// A rate limit and all its buckets. Shared by the workers, and kept across reloads while its plan is equal.
pub struct RateLimiter<C: Clock = DefaultClock> {
    name: Name,
    by: LimitKey,
    gcra: governor::RateLimiter<BucketKey, Store, C, StateInformationMiddleware>,
    buckets: Arc<Buckets>,
    fingerprint: Fingerprint,
    quoted: String,
    policy: String,
    interval_s: u32,
}

/// What a [`RateLimiter`] says to one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It may pass, and has spent one token.
    Admit {
        /// Requests that would pass right now.
        remaining: u32,
        /// Seconds within which there will be one more, at least 1.
        reset_s: u32,
    },
    /// It may not, and has spent nothing.
    Refuse {
        /// Seconds until a request may pass, rounded up, at least 1.
        retry_after_s: u32,
    },
}

impl RateLimiter {
    /// A limiter whose buckets are all full.
    #[must_use]
    pub fn new(limit: &Limit) -> Self {
        Self::with_clock(limit, DefaultClock::default())
    }
}

impl<C: Clock> RateLimiter<C> {
    /// A limiter that reads the time from `clock`.
    #[must_use]
    pub fn with_clock(limit: &Limit, clock: C) -> Self {
        let quota = quota(limit.rate, limit.burst);
        let buckets = Arc::new(Buckets::new(limit.max_keys as usize));
        let quoted = quoted(&limit.name);
        Self {
            name: limit.name.clone(),
            by: limit.by.clone(),
            gcra: governor::RateLimiter::new(quota, Store(Arc::clone(&buckets)), clock),
            buckets,
            fingerprint: Fingerprint::default(),
            policy: policy(&quoted, limit.rate, quota.burst_size()),
            quoted,
            interval_s: whole_seconds(quota.replenish_interval()),
        }
    }

    /// Decides on one request, and spends one token if it may pass.
    ///
    /// `client` and `consumer` are trusted; what the headers hold is the client's.
    pub fn check(&self, client: IpAddr, headers: &HeaderMap, consumer: Option<&Name>) -> Decision {
        match self.gcra.check_key(&self.key(client, headers, consumer)) {
            Ok(state) => Decision::Admit { remaining: state.remaining_burst_capacity(), reset_s: self.interval_s },
            Err(until) => {
                Decision::Refuse { retry_after_s: whole_seconds(until.wait_time_from(self.gcra.clock().now())) }
            }
        }
    }

    /// Forgets the keys whose buckets are full again. Takes milliseconds at 100,000 keys: for the control plane, every
    /// few seconds.
    pub fn sweep(&self) {
        self.gcra.retain_recent();
        self.gcra.shrink_to_fit();
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Who shares a bucket.
    #[must_use]
    pub fn by(&self) -> &LimitKey {
        &self.by
    }

    /// Keys that have a bucket of their own, at most `max_keys`.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.buckets.len.load(Relaxed)
    }

    /// Requests so far that found no room for a bucket of their own and used the shared one.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.buckets.overflows.load(Relaxed)
    }

    /// Its item of `RateLimit-Policy`: the rate as written, and the burst where it differs.
    pub(super) fn policy(&self) -> &str {
        &self.policy
    }

    /// Its item of `RateLimit` for a decision.
    pub(super) fn status(&self, decision: Decision) -> String {
        let mut item = String::with_capacity(self.quoted.len() + 28);
        let (remaining, reset_s) = (decision.remaining(), decision.reset_s());
        write!(item, "{};r={remaining};t={reset_s}", self.quoted).expect("a String takes any text");
        item
    }

    fn key(&self, client: IpAddr, headers: &HeaderMap, consumer: Option<&Name>) -> BucketKey {
        match &self.by {
            LimitKey::Global => None,
            LimitKey::Ip => Some(match client.to_canonical() {
                IpAddr::V4(ip) => self.fingerprint.of([ip.octets().as_slice()]),
                // A /64 is one customer: it costs nothing to use all its 2^64 addresses.
                IpAddr::V6(ip) => self.fingerprint.of([&ip.octets()[..8]]),
            }),
            LimitKey::Header(name) => Some(self.fingerprint.of(headers.get_all(name).iter().map(AsRef::as_ref))),
            LimitKey::Key => Some(self.fingerprint.of(consumer.iter().map(|name| name.as_bytes()))),
        }
    }
}

impl<C: Clock> fmt::Debug for RateLimiter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("policy", &self.policy).field("buckets", &self.buckets).finish()
    }
}

impl Decision {
    /// Requests that would pass right now; zero on a refusal.
    #[must_use]
    pub fn remaining(self) -> u32 {
        match self {
            Self::Admit { remaining, .. } => remaining,
            Self::Refuse { .. } => 0,
        }
    }

    /// Seconds until there is one more token, at least 1.
    #[must_use]
    pub fn reset_s(self) -> u32 {
        match self {
            Self::Admit { reset_s, .. } => reset_s,
            Self::Refuse { retry_after_s } => retry_after_s,
        }
    }
}

/// `None` is the shared bucket: that of everybody in a global limit, of the keys without room in the others.
type BucketKey = Option<u128>;

struct Buckets {
    // Keys are keyed hashes already, so the map's own hash only has to be fast.
    own: DashMap<u128, InMemoryState, foldhash::fast::RandomState>,
    shared: InMemoryState,
    // Counted apart from the map, whose `len` visits every shard.
    len: AtomicUsize,
    max: usize,
    overflows: AtomicU64,
}

impl Buckets {
    fn new(max: usize) -> Self {
        Self {
            own: DashMap::default(),
            shared: InMemoryState::default(),
            len: AtomicUsize::new(0),
            max,
            overflows: AtomicU64::new(0),
        }
    }

    fn reserve(&self) -> bool {
        self.len.fetch_update(Relaxed, Relaxed, |len| (len < self.max).then_some(len + 1)).is_ok()
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").field("len", &self.len).field("max", &self.max).finish_non_exhaustive()
    }
}

// `governor` keeps its store to itself: a newtype over a shared one, so that we can count it.
#[derive(Debug)]
struct Store(Arc<Buckets>);

impl StateStore for Store {
    type Key = BucketKey;

    fn measure_and_replace<T, F, E>(&self, key: &BucketKey, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let buckets = &*self.0;
        let Some(key) = key else { return measure(&buckets.shared, f) };
        if let Some(bucket) = buckets.own.get(key) {
            return measure(&bucket, f);
        }
        // The shard stays locked until the shared bucket is charged: nobody may give this key a bucket in between, which
        // would not know of that charge.
        match buckets.own.entry(*key) {
            Entry::Occupied(entry) => measure(entry.get(), f),
            Entry::Vacant(entry) if buckets.reserve() => {
                let bucket = entry.insert(InMemoryState::default());
                if let Some(arrival) = arrival(&buckets.shared) {
                    set(&bucket, arrival);
                }
                measure(&bucket, f)
            }
            Entry::Vacant(_held) => {
                buckets.overflows.fetch_add(1, Relaxed);
                measure(&buckets.shared, f)
            }
        }
    }
}

impl ShrinkableKeyedStateStore<BucketKey> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.own.retain(|_, bucket| {
            let recent = arrival(bucket).is_some_and(|arrival| arrival > drop_below);
            if !recent {
                self.0.len.fetch_sub(1, Relaxed);
            }
            recent
        });
    }

    fn shrink_to_fit(&self) {
        // Shrinking rehashes all keys: only where it gives most of the memory back.
        if self.0.own.capacity() > 4 * self.len() {
            self.0.own.shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.0.len.load(Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn measure<T, E>(bucket: &InMemoryState, f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>) -> Result<T, E> {
    bucket.measure_and_replace(&NotKeyed::NonKey, f)
}

/// The bucket's theoretical arrival time; `None` when it was never used. A measurement that fails changes nothing.
fn arrival(bucket: &InMemoryState) -> Option<Nanos> {
    measure(bucket, Err::<((), Nanos), _>).err().flatten()
}

fn set(bucket: &InMemoryState, arrival: Nanos) {
    measure(bucket, |_| Ok::<_, ()>(((), arrival))).expect("this measurement never fails");
}

/// A 128-bit hash under two random keys, so that clients cannot make two keys fall into one bucket.
#[derive(Default)]
struct Fingerprint([RandomState; 2]);

impl Fingerprint {
    /// Every part is preceded by its length: ["a", "b"], ["ab"] and [] differ.
    fn of<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
        let [mut high, mut low] = self.0.each_ref().map(BuildHasher::build_hasher);
        for part in parts {
            for half in [&mut high, &mut low] {
                half.write_usize(part.len());
                half.write(part);
            }
        }
        u128::from(high.finish()) << 64 | u128::from(low.finish())
    }
}

/// The interval is rounded up to whole nanoseconds, so the rate is never exceeded in the long run. A burst is cut where
/// its bucket would take more than 100 years to fill, beyond which `governor` overflows.
fn quota(rate: Rate, burst: u32) -> Quota {
    const CENTURY_NANOS: u64 = 100 * 365 * 86_400 * 1_000_000_000;
    let interval = (rate.per.duration().as_secs() * 1_000_000_000).div_ceil(u64::from(rate.count.get())).max(1);
    let most = u32::try_from(CENTURY_NANOS / interval).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst.clamp(1, most)).expect("clamped to at least 1");
    Quota::with_period(Duration::from_nanos(interval)).expect("an interval of at least 1 ns").allow_burst(burst)
}

fn policy(quoted: &str, rate: Rate, burst: NonZeroU32) -> String {
    let mut item = format!("{quoted};q={};w={}", rate.count, rate.per.duration().as_secs());
    if burst != rate.count {
        write!(item, ";tidegate-burst={burst}").expect("a String takes any text");
    }
    item
}

/// A name as a string of RFC 9651, section 3.3.3, which has no character outside printable ASCII: those of a derived name
/// are percent-encoded.
fn quoted(name: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => write!(quoted, "%{byte:02X}").expect("a String takes any text"),
        }
    }
    quoted.push('"');
    quoted
}

fn whole_seconds(wait: Duration) -> u32 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
