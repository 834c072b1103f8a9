//! Whether a health check that was just edited is itself at fault: nobody has passed it since, and traffic goes well all the same.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    config::plan::{self, SuspectCheck},
    health::Kind,
    upstream::Member,
};

/// Raised by an edit of the check, laid to rest by the first outcome that is fit.
#[derive(Debug, Default)]
pub(super) struct Suspicion(Option<Raised>);

#[derive(Debug)]
struct Raised {
    told: Option<String>,
    // Traffic went well while there was some, as of then.
    went_well: bool,
    looked: Instant,
    // When, and how many requests had gone well and how many had failed by then; the oldest is where the recent past starts.
    traffic: VecDeque<(Instant, u64, u64)>,
}

/// What counts as the recent past of traffic.
const RECENT: Duration = Duration::from_secs(10);

/// Backends whose counts are summed whenever one is heard of; those of more, no oftener than every moment.
const FEW: usize = 64;
const MOMENT: Duration = Duration::from_millis(100);

impl Suspicion {
    /// The check was edited, and somebody was fit before.
    pub(super) fn raised(members: &[Member]) -> Self {
        let (good, bad) = count(members);
        let looked = Instant::now();
        Self(Some(Raised { told: None, went_well: false, looked, traffic: [(looked, good, bad)].into() }))
    }

    pub(super) const fn is_raised(&self) -> bool {
        self.0.is_some()
    }

    /// What was said of it, from then on until it is laid to rest.
    pub(super) fn told(&self) -> Option<&str> {
        self.0.as_ref()?.told.as_deref()
    }

    /// Takes an outcome in.
    pub(super) fn hear(&mut self, kind: Kind) {
        if kind.is_fit() {
            self.0 = None;
        }
    }

    /// Whether what the check says is held back: traffic speaks against it.
    pub(super) fn holds(&self, mode: SuspectCheck) -> bool {
        mode == SuspectCheck::Hold && self.0.as_ref().is_some_and(|raised| raised.went_well)
    }

    /// Looks at traffic, unless that would be too much: there may be thousands of backends, and a probe of each in a moment.
    pub(super) fn look(&mut self, members: &[Member]) {
        let Some(raised) = &mut self.0 else { return };
        let now = Instant::now();
        if members.len() <= FEW || now.duration_since(raised.looked) >= MOMENT {
            raised.went_well = raised.traffic_goes_well(members);
            raised.looked = now;
            raised.count(members);
        }
    }

    /// Returns what to say, once, when nobody is left who does not fail the check.
    pub(super) fn mind(&mut self, plan: &plan::Upstream, do_all_fail: bool) -> Option<String> {
        let raised = self.0.as_mut()?;
        if !do_all_fail || raised.told.is_some() {
            return None;
        }
        let is_held = plan.health.suspect_check == SuspectCheck::Hold && raised.went_well;
        let consequence = if is_held { "; traffic goes well, so nobody is taken out" } else { "" };
        let name = &plan.name;
        let detail =
            format!("every backend of `{name}` fails its health check since that was edited: is the check right?");
        Some(raised.told.insert(detail + consequence).clone())
    }
}

impl Raised {
    fn traffic_goes_well(&self, members: &[Member]) -> bool {
        let (good, bad) = count(members);
        let (_, first_good, first_bad) = self.traffic.front().copied().unwrap_or((Instant::now(), good, bad));
        let (good, bad) = (good.saturating_sub(first_good), bad.saturating_sub(first_bad));
        // Where there is none now, nothing speaks against what it said before.
        if good + bad == 0 { self.went_well } else { good > bad }
    }

    fn count(&mut self, members: &[Member]) {
        let now = Instant::now();
        if self.traffic.back().is_some_and(|(at, ..)| now.duration_since(*at) < Duration::from_secs(1)) {
            return;
        }
        while self.traffic.get(1).is_some_and(|(at, ..)| now.duration_since(*at) >= RECENT) {
            self.traffic.pop_front();
        }
        let (good, bad) = count(members);
        self.traffic.push_back((now, good, bad));
    }
}

/// Requests that went well and requests that failed, so far.
fn count(members: &[Member]) -> (u64, u64) {
    let of = |member: &Member| {
        let metrics = member.backend.metrics();
        let served: u64 = metrics.responses().iter().filter(|(code, _)| !code.is_server_error()).map(|(_, n)| n).sum();
        (served, metrics.requests() - served)
    };
    members.iter().map(of).fold((0, 0), |(good, bad), (more_good, more_bad)| (good + more_good, bad + more_bad))
}
