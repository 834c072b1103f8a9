//! The gate of an edit, `reload.min_healthy`: whether enough backends are fit for it to go live.
//!
//! It looks only at upstreams of which the edit adds, removes or re-probes a backend: nobody's outage is in the way of an edit
//! of something else. What is known already is not asked again. An upstream that has too few passes all the same where that is no worse
//! than what is in force: an edit must be able to mend an outage.
//!
//! The start of the process has no gate: nothing is in force then that would be better.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{
    base::{Name, Percent, duration::Written},
    config::{Code, Diagnostic},
    health::{Kind, Monitor, Outcome, Record, Round},
    runtime::{self, Built, Carried, CarryOver, Fate, Registry, UpstreamId},
    upstream::{Member, Slot, Verdict},
};

/// An edit does not wait longer for the answers of its backends than that.
const LIMIT: Duration = Duration::from_secs(10);

/// The most backends that a finding names.
const NAMED: usize = 3;

/// What is in force, and what is to be.
pub(super) struct Gate<'a> {
    pub(super) before: &'a Registry,
    pub(super) monitors: &'a BTreeMap<UpstreamId, Arc<Monitor>>,
    pub(super) built: &'a Built,
    pub(super) carried: &'a CarryOver,
}

/// An upstream that would have too few fit backends.
#[derive(Debug)]
pub(super) struct Shortage {
    pub(super) upstream: Name,
    share: Share,
    // Those that are not fit, and why.
    unfit: Vec<(Name, String)>,
}

/// How many backends are fit, of those that count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Share {
    fit: usize,
    all: usize,
}

/// An upstream of which the edit adds, removes or re-probes a backend. Those that somebody drains count for nothing.
struct Touched<'a> {
    live: &'a runtime::Upstream,
    asked: Vec<&'a Member>,
    known: Vec<&'a Member>,
}

impl<'a> Gate<'a> {
    /// Asks the backends of which not enough is known, and returns the upstreams that keep the edit from going live.
    pub(super) async fn shortages(&self, min: Percent) -> Vec<Shortage> {
        if min == Percent::whole(0) {
            return Vec::new();
        }
        let touched = self.touched();
        let mut round = Round::default();
        for Touched { live, asked, .. } in &touched {
            round.add(asked.iter().copied(), &live.plan.health.checks);
        }
        let mut outcomes = round.ask(LIMIT).await.into_iter();
        let judged = touched.iter().map(|touched| self.judge(touched, &mut outcomes)).collect::<Vec<_>>();
        judged.into_iter().filter(|found| found.share.is_below(min) && self.is_worse(found)).collect()
    }

    fn touched(&self) -> Vec<Touched<'a>> {
        // One that goes may be called like one that comes, and stands behind it.
        let mut fates: HashMap<&Name, HashMap<&Name, Fate>> = HashMap::new();
        for Carried { upstream, backend, fate } in self.carried {
            fates.entry(upstream).or_default().entry(backend).or_insert(*fate);
        }
        let of_one = |(name, live): (&Name, &'a Arc<runtime::Upstream>)| {
            let fates = fates.get(name).filter(|fates| fates.values().any(|fate| *fate != Fate::Kept))?;
            let counted = live.members.iter().filter(|member| !member.backend.condition().is_drained);
            let is_asked = |member: &&Member| {
                fates.get(&member.name) != Some(&Fate::Kept) || member.backend.verdict() == Verdict::Checking
            };
            let (asked, known) = counted.partition(is_asked);
            Some(Touched { live, asked, known })
        };
        self.built.snapshot.upstreams.iter().filter_map(of_one).collect()
    }

    /// Takes the outcomes that are its own.
    fn judge(&self, touched: &Touched<'_>, outcomes: &mut impl Iterator<Item = Option<Outcome>>) -> Shortage {
        let Touched { live, asked, known } = touched;
        let mut found = Shortage { upstream: live.plan.name.clone(), share: Share::default(), unfit: Vec::new() };
        for (name, unresolved) in &live.unresolved {
            found.count(name, Some(unresolved.why.clone()));
        }
        for member in asked {
            let answers: Vec<_> = outcomes.by_ref().take(live.plan.health.checks.len()).collect();
            found.count(&member.name, objection(member, &answers));
        }
        let said = self.last_words(&live.plan.name);
        for member in known {
            let said = || said.get(&member.backend.slot()).map_or("down", |record| &record.detail).to_owned();
            let is_fit = member.backend.verdict().is_fit();
            found.count(&member.name, (!is_fit).then(said));
        }
        found
    }

    /// What the probes of an upstream that is in force have said last.
    fn last_words(&self, upstream: &Name) -> HashMap<Slot, Arc<Record>> {
        let monitor = self.built.upstreams.get(upstream).and_then(|id| self.monitors.get(id));
        let backends = monitor.map(|monitor| monitor.view().backends).unwrap_or_default();
        backends.into_iter().map(|view| (view.backend.slot(), view.record)).collect()
    }

    /// Whether the upstream has a smaller share than it has now; a new one has none now.
    fn is_worse(&self, found: &Shortage) -> bool {
        let now = self.built.upstreams.get(&found.upstream).and_then(|id| self.before.upstream(*id));
        now.is_none_or(|(members, unresolved)| {
            let counted = members.iter().map(|member| member.backend.condition()).filter(|known| !known.is_drained);
            let mut share = Share { fit: 0, all: unresolved.len() };
            counted.for_each(|known| share.count(known.verdict.is_fit()));
            found.share.is_smaller_than(share)
        })
    }
}

/// Why a backend is not fit by what it has answered to each of its checks.
fn objection(member: &Member, answers: &[Option<Outcome>]) -> Option<String> {
    answers.iter().find_map(|answer| match answer {
        None => Some(format!("no answer within {}", Written(LIMIT))),
        Some(outcome) if outcome.kind.is_fit() => None,
        // We were late: what was known before holds.
        Some(outcome) if outcome.kind == Kind::Inconclusive && member.backend.verdict().is_fit() => None,
        Some(outcome) => Some(outcome.detail.clone()),
    })
}

impl Share {
    fn count(&mut self, is_fit: bool) {
        self.fit += usize::from(is_fit);
        self.all += 1;
    }

    const fn is_below(self, min: Percent) -> bool {
        let whole = Percent::whole(100).basis_points() as usize;
        self.fit * whole < self.all * min.basis_points() as usize
    }

    const fn is_smaller_than(self, other: Self) -> bool {
        self.fit * other.all < other.fit * self.all
    }
}

impl Shortage {
    fn count(&mut self, backend: &Name, objection: Option<String>) {
        self.share.count(objection.is_none());
        self.unfit.extend(objection.map(|why| (backend.clone(), why)));
    }

    /// As an operator is told.
    pub(super) fn finding(&self, min: Percent) -> Diagnostic {
        let Self { upstream, share: Share { fit, all }, unfit } = self;
        let mut told: Vec<String> = unfit.iter().take(NAMED).map(|(name, why)| format!("`{name}` {why}")).collect();
        if unfit.len() > NAMED {
            told.push(format!("{} more", unfit.len() - NAMED));
        }
        let message = format!(
            "upstream `{upstream}` would have {fit} of {all} backends fit, and reload.min_healthy is {min} ({})",
            told.join("; ")
        );
        Diagnostic::new(Code::TooFewFit, 0..0, message)
            .label("it is tried again until they are fit; a lower reload.min_healthy lets it pass")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn share(fit: usize, all: usize) -> Share {
        Share { fit, all }
    }

    #[test]
    fn a_share_is_compared_without_rounding() {
        let third = Percent::parse("33.33%").unwrap();
        assert!(!share(1, 3).is_below(third));
        assert!(share(1, 3).is_below(Percent::parse("33.34%").unwrap()));
        assert!(!share(2, 4).is_below(Percent::whole(50)));
        assert!(share(99, 100).is_below(Percent::whole(100)));
        assert!(!share(0, 0).is_below(Percent::whole(100)), "nobody counts, so nobody is missing");
        assert!(share(1, 3).is_smaller_than(share(2, 4)));
        assert!(!share(1, 2).is_smaller_than(share(2, 4)));
        assert!(!share(0, 5).is_smaller_than(share(0, 1)), "an outage does not get worse");
        assert!(!share(0, 5).is_smaller_than(share(0, 0)));
    }

    #[test]
    fn a_finding_names_a_few_and_counts_the_rest() {
        let unfit = (1..=5).map(|n| (Name::derived(format!("b{n}")), "connect refused".to_owned())).collect();
        let shortage = Shortage { upstream: Name::derived("orders"), share: share(1, 6), unfit };
        assert_eq!(
            shortage.finding(Percent::whole(50)).message,
            "upstream `orders` would have 1 of 6 backends fit, and reload.min_healthy is 50% \
             (`b1` connect refused; `b2` connect refused; `b3` connect refused; 2 more)"
        );
    }
}
