//! Whether a health check is itself at fault: nobody passes it since it was edited, or all begin to fail it at once, and traffic goes
//! well all the same.
//!
//! Each check of the upstream is suspected by itself, and what it says is held back only while it is. The first outcome that is fit lays
//! the suspicion to rest. Where nothing was edited, traffic has to speak for the backends from the first failure on, so that an outage is
//! none the slower to be noticed; and the others are asked at once, so that neither is the end of one backend.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    base::duration::Took,
    config::plan::{self, HealthCheck, SuspectCheck},
    health::{Detection, Kind},
    telemetry::Event,
    upstream::Member,
};

/// What is suspected of the checks of one upstream.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    // By the number of the check. A check that was never suspect may be missing.
    raised: Vec<Option<Raised>>,
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Raised {
    cause: Cause,
    began: Instant,
    told: Option<String>,
    // Traffic went well while there was some, as of then.
    went_well: bool,
    over: Option<Over>,
    // The oldest is where the recent past starts.
    traffic: VecDeque<Counted>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    Edit,
    // Somebody who was fit has failed it, and nobody has passed it since.
    Failure {
        // When those that do not fail it yet do not belong to it any more.
        ends: Instant,
        others_are_asked: bool,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    Passed,
    // It is no suspicion: traffic fails, or not all do within the time.
    Unfounded,
}

/// Requests that went well and requests that failed, as of a moment.
#[derive(Clone, Copy, Debug)]
struct Counted {
    at: Instant,
    good: u64,
    bad: u64,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Minded {
    /// To be told.
    pub(super) warnings: Vec<Event>,
    /// What was held back because of a check that somebody has passed now is to be asked for again.
    pub(super) asks_again: bool,
    /// What was held back comes into force where nothing holds it any more.
    pub(super) releases: bool,
    /// Why the last one is laid to rest.
    pub(super) why: Option<&'static str>,
}

/// What counts as the recent past of traffic.
const RECENT: Duration = Duration::from_secs(10);

/// Failures within the last second or two that say by themselves that traffic does not go well, if they are most of it.
const SUDDEN: u64 = 5;

/// Requests that have to go well before they speak against a check that nobody has edited.
const ENOUGH: u64 = 3;

/// Backends whose counts are summed whenever one is heard of; those of more, no oftener than every moment.
const FEW: usize = 64;
const MOMENT: Duration = Duration::from_millis(100);

impl Suspicion {
    /// Takes an edit of the checks in: one that is new is suspect until somebody passes it, where somebody was fit before.
    pub(super) fn edit(&mut self, before: &[HealthCheck], after: &[HealthCheck], members: &[Member]) {
        if before == after {
            return;
        }
        let was_fit = members.iter().any(|member| member.backend.verdict().is_fit());
        let counted = self.count(members);
        let mut known = std::mem::take(&mut self.raised);
        let mut known = |check| known.get_mut(before.iter().position(|same| same == check)?).map(Option::take);
        let raised = |check| known(check).unwrap_or_else(|| was_fit.then(|| Raised::new(Cause::Edit, counted)));
        self.raised = after.iter().map(raised).collect();
    }

    /// Takes the failure of a backend in that was fit, as others are: where nobody passes the check from now on, it is suspect.
    pub(super) fn begin(&mut self, check: usize, plan: &plan::Upstream, members: &[Member]) {
        let Some(window) = plan.health.checks.get(check).and_then(|check| Detection::of(std::slice::from_ref(check)))
        else {
            return;
        };
        if self.raised.len() <= check {
            self.raised.resize_with(check + 1, || None);
        }
        if self.raised.get(check).is_some_and(Option::is_none) {
            let counted = self.count(members);
            let cause = Cause::Failure { ends: Instant::now() + window.out, others_are_asked: false };
            if let Some(raised) = self.raised.get_mut(check) {
                *raised = Some(Raised::new(cause, counted));
            }
        }
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised.iter().any(Option::is_some)
    }

    /// What was said of it, from then on until it is laid to rest.
    pub(super) fn told(&self) -> Option<String> {
        let told: Vec<&str> = self.raised.iter().flatten().filter_map(|raised| raised.told.as_deref()).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Takes an outcome in.
    pub(super) fn hear(&mut self, check: usize, kind: Kind) {
        if let Some(raised) = self.of(check).filter(|_| kind.is_fit()) {
            raised.over = Some(Over::Passed);
        }
    }

    /// Whether what the check says is held back: traffic speaks against it.
    pub(super) fn holds(&self, check: usize, mode: SuspectCheck) -> bool {
        let raised = self.raised.get(check).and_then(Option::as_ref);
        mode == SuspectCheck::Hold && raised.is_some_and(|raised| raised.over.is_none() && raised.went_well)
    }

    /// Whether to ask the others, because one backend is held back and it is not known what becomes of them. Once.
    pub(super) fn asks_others(&mut self, check: usize) -> bool {
        match self.of(check).map(|raised| &mut raised.cause) {
            Some(Cause::Failure { others_are_asked, .. }) => !std::mem::replace(others_are_asked, true),
            Some(Cause::Edit) | None => false,
        }
    }

    /// Looks at traffic, unless that would be too much: there may be thousands of backends, and a probe of each in a moment.
    pub(super) fn look(&mut self, members: &[Member]) {
        if self.is_raised() {
            let counted = self.count(members);
            self.raised.iter_mut().flatten().for_each(|raised| raised.look(counted));
        }
    }

    /// Says what is suspect where nobody is left who does not fail the check, and ends what is over.
    pub(super) fn mind(&mut self, plan: &plan::Upstream, do_all_fail: impl Fn(usize) -> bool) -> Minded {
        let mut minded = Minded::default();
        for (check, of_check) in self.raised.iter_mut().enumerate() {
            let Some(raised) = of_check else { continue };
            raised.doubt();
            if raised.told.is_none() && raised.over.is_none() && do_all_fail(check) {
                minded.warnings.extend(raised.tell(plan, check));
            }
            let is_told = raised.told.is_some();
            match raised.over {
                Some(Over::Passed) if is_told => (minded.asks_again, minded.why) = (true, Some("a backend passes it")),
                Some(Over::Unfounded) if is_told => {
                    (minded.releases, minded.why) = (true, Some("traffic fails as well"));
                }
                Some(_) => minded.releases = true,
                None => minded.releases |= !raised.went_well,
            }
            if raised.over.is_some() {
                *of_check = None;
            }
        }
        minded
    }

    fn of(&mut self, check: usize) -> Option<&mut Raised> {
        self.raised.get_mut(check)?.as_mut()
    }

    fn count(&mut self, members: &[Member]) -> Counted {
        let now = Instant::now();
        let is_fresh = |counted: &Counted| members.len() > FEW && now.duration_since(counted.at) < MOMENT;
        match self.counted.filter(is_fresh) {
            Some(counted) => counted,
            None => *self.counted.insert(Counted::now(members)),
        }
    }
}

impl Raised {
    fn new(cause: Cause, counted: Counted) -> Self {
        let traffic = [counted].into();
        Self { cause, began: Instant::now(), told: None, went_well: false, over: None, traffic }
    }

    fn look(&mut self, now: Counted) {
        self.went_well = self.goes_well(now);
        if self.traffic.back().is_some_and(|last| now.at.duration_since(last.at) < Duration::from_secs(1)) {
            return;
        }
        while self.traffic.get(1).is_some_and(|counted| now.at.duration_since(counted.at) >= RECENT) {
            self.traffic.pop_front();
        }
        self.traffic.push_back(now);
    }

    fn goes_well(&self, now: Counted) -> bool {
        let first = self.traffic.front().copied().unwrap_or(now);
        let (good, bad) = now.since(first);
        // Where there is none now, nothing speaks against what it said before.
        if good + bad == 0 {
            return self.went_well;
        }
        let lately = self.traffic.iter().rev().nth(1).copied().unwrap_or(first);
        let (good_lately, bad_lately) = now.since(lately);
        let enough = if self.went_well || self.cause == Cause::Edit { 1 } else { ENOUGH };
        good > bad && good >= enough && (bad_lately < SUDDEN || good_lately > bad_lately)
    }

    /// Where nothing was edited it is over when traffic fails as well, or when not all fail within the time.
    fn doubt(&mut self) {
        let Cause::Failure { ends, .. } = self.cause else { return };
        let is_unfounded = if self.told.is_some() { !self.went_well } else { ends <= Instant::now() };
        if is_unfounded && self.over.is_none() {
            self.over = Some(Over::Unfounded);
        }
    }

    /// All fail it. Returns what to say.
    fn tell(&mut self, plan: &plan::Upstream, check: usize) -> Option<Event> {
        if self.cause != Cause::Edit && !self.went_well {
            self.over = Some(Over::Unfounded);
            return None;
        }
        let upstream = &plan.name;
        let which = match plan.health.checks.get(check).filter(|_| plan.health.checks.len() > 1) {
            Some(check) => format!("its health check `{}`", check.name),
            None => "its health check".to_owned(),
        };
        let is_held = plan.health.suspect_check == SuspectCheck::Hold && self.went_well;
        let detail = match self.cause {
            Cause::Edit => {
                let consequence = if is_held { "; traffic goes well, so nobody is taken out" } else { "" };
                format!(
                    "every backend of `{upstream}` fails {which} since that was edited: is the check right?{consequence}"
                )
            }
            Cause::Failure { .. } => {
                let (within, consequence) =
                    (Took(self.began.elapsed()), if is_held { "; nobody more is taken out" } else { "" });
                format!(
                    "every backend of `{upstream}` that was up began to fail {which} within {within}, nothing was edited, and \
                     traffic goes well: is the check right?{consequence}"
                )
            }
        };
        self.told = Some(detail.clone());
        Some(Event::Warning { what: "suspect_check", detail })
    }
}

impl Counted {
    fn now(members: &[Member]) -> Self {
        let of = |member: &Member| {
            let metrics = member.backend.metrics();
            let served: u64 =
                metrics.responses().iter().filter(|(code, _)| !code.is_server_error()).map(|(_, n)| n).sum();
            (served, metrics.requests().saturating_sub(served))
        };
        let sum = |(good, bad): (u64, u64), (more_good, more_bad)| (good + more_good, bad + more_bad);
        let (good, bad) = members.iter().map(of).fold((0, 0), sum);
        Self { at: Instant::now(), good, bad }
    }

    fn since(&self, before: Self) -> (u64, u64) {
        (self.good.saturating_sub(before.good), self.bad.saturating_sub(before.bad))
    }
}
