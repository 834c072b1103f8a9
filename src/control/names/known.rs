//! What one name stands for: which answer changes what, and when to ask again.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::{
    base::{Name, Timestamp},
    config::plan::{Dns, Family},
    health::{Answer, ResolveError},
    runtime::Unresolved,
};

/// Addresses of one name that are used, the lowest ones.
const MOST_ADDRESSES: usize = 256;

/// When a name is looked up again whose answer has no TTL, or is known in part.
const UNTOLD: Duration = Duration::from_secs(30);

/// When a name is looked up again after its first failure; the time doubles with each, up to the other.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// How late a look-up may be, as a share of its time, so that names of one TTL do not stay together.
const JITTER: f64 = 0.05;

/// A name that is not resolved as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// Since when.
    pub since: Timestamp,
    /// What came of the last look-up.
    pub why: ResolveError,
}

/// What is known of a name.
#[derive(Debug)]
pub(super) struct Known {
    // Sorted, each once. In use, whatever the trouble.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) trouble: Option<Trouble>,
    // Since when it has no addresses, if it has none.
    empty_since: Timestamp,
    failures: u32,
    // `None` while it is looked up.
    pub(super) due: Option<Instant>,
    pub(super) drop_at: Option<Instant>,
    pub(super) record: Arc<NameRecord>,
}

impl Known {
    pub(super) fn first(said: Result<Answer, ResolveError>, dns: &Dns) -> Self {
        let mut known = Self {
            addresses: vec![],
            trouble: None,
            empty_since: Timestamp::now(),
            failures: 0,
            due: None,
            drop_at: None,
            record: Arc::default(),
        };
        known.hear(Instant::now(), said, dns);
        known
    }

    /// Takes in what a look-up said, and says whether the name stands for something else now.
    pub(super) fn hear(&mut self, now: Instant, said: Result<Answer, ResolveError>, dns: &Dns) -> bool {
        self.record.count(&said);
        let is_other = match said {
            Ok(answer) => {
                self.due = Some(now + jittered(time_of(&answer, dns)));
                (self.trouble, self.drop_at, self.failures) = (None, None, 0);
                let addresses = self.with_what_is_unknown(&answer);
                std::mem::replace(&mut self.addresses, addresses) != self.addresses
            }
            Err(why) => {
                self.due = Some(now + jittered(retry_after(self.failures)));
                self.failures = self.failures.saturating_add(1);
                if why.is_certain() && !self.addresses.is_empty() {
                    self.drop_at.get_or_insert(now + dns.hold);
                }
                let since = self.trouble.as_ref().map_or_else(Timestamp::now, |trouble| trouble.since);
                let before = self.trouble.replace(Trouble { since, why: why.clone() });
                self.addresses.is_empty() && before.is_none_or(|before| before.why != why)
            }
        };
        self.publish();
        is_other
    }

    /// The addresses of an answer, and those known of a family that it could not say anything of.
    fn with_what_is_unknown(&self, answer: &Answer) -> Vec<IpAddr> {
        let is_unknown = |address: &&IpAddr| match answer.unknown {
            Some(Family::Any) => true,
            Some(Family::Ipv4) => address.is_ipv4(),
            Some(Family::Ipv6) => address.is_ipv6(),
            None => false,
        };
        let kept = self.addresses.iter().filter(is_unknown);
        let mut addresses: Vec<IpAddr> = answer.addresses.iter().chain(kept).copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        addresses
    }

    /// Drops addresses that were held for long enough, and says whether it did.
    pub(super) fn drop_overdue(&mut self, now: Instant) -> bool {
        let is_overdue = self.drop_at.take_if(|at| *at <= now).is_some();
        if is_overdue {
            self.addresses.clear();
            self.empty_since = Timestamp::now();
            self.publish();
        }
        is_overdue
    }

    fn publish(&self) {
        let now = NameNow { addresses: self.addresses.len(), trouble: self.trouble.clone() };
        self.record.show(now);
    }

    pub(super) fn on_port(&self, name: &Name, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        match &self.trouble {
            Some(trouble) if self.addresses.is_empty() => {
                Err(Unresolved { since: self.empty_since, why: format!("{name} {}", trouble.why) })
            }
            _ => Ok(self.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()),
        }
    }
}

/// For how long an answer is good.
fn time_of(answer: &Answer, dns: &Dns) -> Duration {
    let ttl = answer.ttl.unwrap_or(UNTOLD);
    let ttl = if answer.unknown.is_some() { ttl.min(UNTOLD) } else { ttl };
    ttl.clamp(dns.min_ttl, dns.max_ttl)
}

fn retry_after(failures: u32) -> Duration {
    RETRY.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_RETRY)
}

fn jittered(time: Duration) -> Duration {
    time + time.mul_f64(fastrand::f64() * JITTER)
}

/// What became of the look-ups of a name, for whoever asks.
#[derive(Debug, Default)]
pub struct NameRecord {
    ok: AtomicU64,
    no_such_name: AtomicU64,
    timeout: AtomicU64,
    failed: AtomicU64,
    now: ArcSwap<NameNow>,
}

/// What a name is at one moment.
#[derive(Clone, Debug, Default)]
pub struct NameNow {
    /// How many addresses of it are in use.
    pub addresses: usize,
    /// Why that may not be what DNS says now.
    pub trouble: Option<Trouble>,
}

impl NameRecord {
    /// Look-ups so far, by result.
    #[must_use]
    pub fn results(&self) -> [(&'static str, u64); 4] {
        let results = [
            ("ok", &self.ok),
            ("no_such_name", &self.no_such_name),
            ("timeout", &self.timeout),
            ("failed", &self.failed),
        ];
        results.map(|(result, count)| (result, count.load(Relaxed)))
    }

    /// What the name is now.
    #[must_use]
    pub fn now(&self) -> Arc<NameNow> {
        self.now.load_full()
    }

    /// What the name is from now on.
    pub(crate) fn show(&self, now: NameNow) {
        self.now.store(Arc::new(now));
    }

    /// Counts what came of a look-up.
    pub(crate) fn count(&self, said: &Result<Answer, ResolveError>) {
        let count = match said {
            Ok(_) => &self.ok,
            Err(ResolveError::NoAddress | ResolveError::NoSuchName) => &self.no_such_name,
            Err(ResolveError::Timeout(_)) => &self.timeout,
            Err(ResolveError::Failed(_)) => &self.failed,
        };
        count.fetch_add(1, Relaxed);
    }
}
