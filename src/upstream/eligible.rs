//! Who may get a request: the slice that an upstream's health task publishes and every worker chooses from.

use std::{collections::BTreeSet, sync::Arc};

use http::HeaderValue;

use super::{
    Backend, Condition, Crowd, Slot, Verdict,
    balance::{Chooser, Draw, Sessions, Token},
};
use crate::{
    base::{Name, Percent},
    config::plan::{Balance, Health, WhenAllDown},
};

/// A backend in its role within one upstream.
#[derive(Clone, Debug)]
pub struct Member {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Its name, for logs and metrics.
    pub name: Name,
    /// The `host:port` that it is addressed by where `host: backend` is set.
    pub authority: HeaderValue,
    /// Its share relative to its peers, from 1.
    pub weight: u16,
    /// 0 for a primary; the members of a higher tier are used only while those below it cannot carry the traffic.
    pub tier: u8,
}

/// One use of a backend, from the choice to the end of the response's body. Dropping it is the accounting.
#[derive(Debug)]
pub struct Lease {
    member: Arc<Member>,
    crowd: Option<Arc<Crowd>>,
}

impl Lease {
    /// Takes a place among the backend's requests in flight, or `None` when `max` are taken.
    #[must_use]
    pub fn take(member: &Arc<Member>, max: Option<u32>) -> Option<Self> {
        member.backend.begin(max).then(|| Self { member: Arc::clone(member), crowd: None })
    }

    /// Counted among the requests in flight at all of the upstream's backends, too.
    pub(super) fn in_crowd(mut self, crowd: &Arc<Crowd>) -> Self {
        crowd.join();
        self.crowd = Some(Arc::clone(crowd));
        self
    }

    /// The member in use.
    #[must_use]
    pub const fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.member.backend.end();
        if let Some(crowd) = &self.crowd {
            crowd.leave();
        }
    }
}

/// Which members an [`Eligible`] slice is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tier {
    /// Primaries that are fit or unchecked.
    Primary,
    /// Backups that are fit or unchecked, and what is left of the primaries, which cannot carry the traffic.
    Backup,
    /// Those that live traffic speaks against as well, because without them there are too few, or none.
    Ejected,
    /// Those that no probe has answered for yet, because none is fit.
    Checking,
    /// All of them although all are down, or too few are not: `when_all_down: try_all`.
    TryAll,
    /// Nobody: some are fit, and together they are less than `min_capacity`.
    TooFew,
    /// Nobody.
    Nobody,
}

/// Why nobody is chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoPlace {
    /// There is somebody, who has as many requests in flight as it may have.
    Full,
    /// There is nobody, or nobody who has not had the request already.
    Nobody,
}

/// The members that may get a request, and how one of them is chosen. Immutable; swapped whole.
#[derive(Debug)]
pub struct Eligible {
    tier: Tier,
    members: Box<[Arc<Member>]>,
    chooser: Chooser,
    sessions: Option<Sessions>,
}

impl Eligible {
    /// Chooses the members that may get traffic.
    ///
    /// The first of these sets that is not empty: fit members, tier by tier until they are `min_capacity` of the primaries; the same with
    /// those that are ejected; those still `checking`; and, where `when_all_down` says so, everybody. A draining backend is in
    /// none of them. `ramp` is the part of its weight that a member has while it starts slowly.
    #[must_use]
    pub fn among(members: &[Member], health: &Health, balance: &Balance, ramp: impl Fn(&Member) -> Percent) -> Self {
        let (tier, chosen) = choose(members, health);
        let weights: Vec<u32> =
            chosen.iter().map(|member| turns(member, health.degraded_weight, ramp(member))).collect();
        let chooser = Chooser::new(&balance.mode, &chosen, weights, members);
        let eligible: Box<[Arc<Member>]> = chosen.into_iter().cloned().map(Arc::new).collect();
        let sessions = balance.sticky.as_ref().map(|sticky| Sessions::new(sticky, &eligible, members));
        Self { tier, members: eligible, chooser, sessions }
    }

    /// Which members these are.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Each eligible member once.
    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// A member for a request: the one that its client stays with, or one by the mode of the upstream. Allocates nothing.
    ///
    /// # Errors
    /// [`NoPlace`] where there is none that has a place for it and has not had it already.
    pub fn pick(&self, draw: &Draw<'_>) -> Result<&Arc<Member>, NoPlace> {
        if let Some(stuck) = self.sessions.as_ref().and_then(|sessions| sessions.pick(draw)) {
            return stuck;
        }
        self.chooser.pick(&self.members, draw).ok_or_else(|| match self.members.iter().all(|m| draw.has_tried(m)) {
            true => NoPlace::Nobody,
            false => NoPlace::Full,
        })
    }

    /// Whether a choice has to know how many requests are in flight at all of the upstream's backends.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.chooser.is_bounded()
    }

    /// What the cookie of a backend says, where clients stay with their backends.
    #[must_use]
    pub fn token(&self, slot: Slot) -> Option<Token> {
        self.sessions.as_ref()?.token(slot)
    }
}

fn choose<'a>(members: &'a [Member], health: &Health) -> (Tier, Vec<&'a Member>) {
    let known: Vec<(&Member, Condition)> = members.iter().map(|member| (member, member.backend.condition())).collect();
    let those = |belongs: &dyn Fn(&Condition) -> bool| -> Vec<&Member> {
        known.iter().filter(|(_, condition)| belongs(condition)).map(|(member, _)| *member).collect()
    };
    let fit = those(&|known| known.is_eligible());
    // Whoever drains a backend wants to do without it.
    let decided = known.iter().filter(|(_, known)| !known.is_draining() && known.verdict != Verdict::Checking);
    let primaries = decided.filter(|(member, _)| member.tier == 0).map(|(member, _)| u64::from(member.weight));
    let needed = primaries.sum::<u64>() * u64::from(health.min_capacity.basis_points());
    let (carriers, capacity) = carriers_of(&fit, needed);
    if !carriers.is_empty() && capacity >= needed {
        let has_backups = carriers.iter().any(|member| member.tier > 0);
        return (if has_backups { Tier::Backup } else { Tier::Primary }, carriers);
    }
    let ejected = those(&|known| known.is_ejected && !known.is_draining() && known.verdict.is_fit());
    let checking = those(&|known| known.is_free() && known.verdict == Verdict::Checking);
    let everybody = those(&|known| !known.is_draining());
    // What live traffic says must not take what is needed: with those that it speaks against there may be enough.
    let with_ejected = those(&|known| !known.is_draining() && known.verdict.is_fit());
    let is_enough = carriers_of(&with_ejected, needed).1 >= needed;
    match (fit.is_empty(), health.when_all_down) {
        (_, _) if !ejected.is_empty() && is_enough => (Tier::Ejected, with_ejected),
        (true, _) if !ejected.is_empty() => (Tier::Ejected, ejected),
        (true, _) if !checking.is_empty() => (Tier::Checking, checking),
        (_, WhenAllDown::TryAll) if !everybody.is_empty() => (Tier::TryAll, everybody),
        (false, _) => (Tier::TooFew, Vec::new()),
        (true, _) => (Tier::Nobody, Vec::new()),
    }
}

/// Fit members, tier by tier until they have what is needed, in the order of the file, and what they have: weight in basis points.
fn carriers_of<'a>(fit: &[&'a Member], needed: u64) -> (Vec<&'a Member>, u64) {
    let (mut last, mut capacity) = (None, 0);
    for tier in fit.iter().map(|member| member.tier).collect::<BTreeSet<u8>>() {
        let weights = fit.iter().filter(|member| member.tier == tier).map(|member| u64::from(member.weight));
        capacity += weights.sum::<u64>() * u64::from(Percent::whole(100).basis_points());
        last = Some(tier);
        if capacity >= needed {
            break;
        }
    }
    (fit.iter().filter(|member| Some(member.tier) <= last).copied().collect(), capacity)
}

/// How many turns a member has of its own, relative to the others: its weight in percent of what that may count now.
fn turns(member: &Member, degraded: Percent, ramp: Percent) -> u32 {
    let standing = match member.backend.verdict() {
        Verdict::Degraded => degraded,
        _ => Percent::whole(100),
    };
    let share = u32::from(standing.basis_points()) * u32::from(ramp.basis_points()) / 1_000_000;
    u32::from(member.weight) * share.max(1)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn member(slot: usize, weight: u16, verdict: Verdict, tier: u8) -> Member {
        let slot = u32::try_from(slot).unwrap();
        let backend = Arc::new(Backend::new(Slot(slot), SocketAddr::from(([127, 0, 0, 1], 9000)).into(), verdict, 1));
        let name = Name::derived(format!("b{slot}"));
        Member { backend, name, authority: HeaderValue::from_static("b"), weight, tier }
    }

    fn pick<'a>(eligible: &'a Eligible, turn: usize, tried: &[Slot]) -> Option<&'a Arc<Member>> {
        eligible.pick(&Draw { turn, tried, ..Draw::default() }).ok()
    }

    fn weighted(weights: &[u16]) -> Eligible {
        let members: Vec<Member> =
            weights.iter().enumerate().map(|(i, weight)| member(i, *weight, Verdict::Up, 0)).collect();
        among(&members, &Health::default())
    }

    fn among(members: &[Member], health: &Health) -> Eligible {
        Eligible::among(members, health, &Balance::default(), |_| Percent::whole(100))
    }

    fn round(eligible: &Eligible) -> Vec<usize> {
        let turns = 0..eligible.chooser.round();
        turns.map(|turn| pick(eligible, turn, &[]).unwrap().backend.slot().0 as usize).collect()
    }

    fn shares(round: &[usize]) -> HashMap<usize, usize> {
        round.iter().fold(HashMap::new(), |mut shares, slot| {
            *shares.entry(*slot).or_default() += 1;
            shares
        })
    }

    fn slots(eligible: &Eligible) -> Vec<u32> {
        eligible.members().iter().map(|m| m.backend.slot().0).collect()
    }

    fn verdicts() -> impl Strategy<Value = Verdict> {
        let all = [Verdict::Checking, Verdict::Up, Verdict::Degraded, Verdict::Down, Verdict::Unchecked];
        prop::sample::select(all.to_vec())
    }

    #[test]
    fn nobody_is_picked_where_nobody_is_eligible() {
        let down = [member(0, 1, Verdict::Down, 0)];
        let eligible = among(&down, &Health::default());
        assert_eq!(eligible.tier(), Tier::Nobody);
        assert!(pick(&eligible, 7, &[]).is_none());
        let try_all = Health { when_all_down: WhenAllDown::TryAll, ..Health::default() };
        assert!(pick(&among(&[], &try_all), 0, &[]).is_none());
    }

    #[test]
    fn a_new_member_waits_while_another_is_fit() {
        let both = [member(0, 1, Verdict::Up, 0), member(1, 1, Verdict::Checking, 0)];
        assert_eq!(slots(&among(&both, &Health::default())), [0]);
    }

    #[test]
    fn a_degraded_member_gets_half_and_one_that_starts_slowly_its_part() {
        let members = [member(0, 1, Verdict::Up, 0), member(1, 1, Verdict::Degraded, 0)];
        assert_eq!(shares(&round(&among(&members, &Health::default()))), HashMap::from([(0, 2), (1, 1)]));
        let ramp = |member: &Member| Percent::whole(if member.backend.slot() == Slot(0) { 10 } else { 100 });
        let slow = Eligible::among(&members, &Health::default(), &Balance::default(), ramp);
        assert_eq!(shares(&round(&slow)), HashMap::from([(0, 1), (1, 5)]));
        let alone = Eligible::among(&members[..1], &Health::default(), &Balance::default(), ramp);
        assert_eq!(round(&alone), [0], "one that is alone gets everything");
    }

    #[test]
    fn too_little_capacity_is_helped_out_by_backups_tier_by_tier() {
        let verdicts = |ups: [bool; 4]| {
            let tiers = [0, 0, 1, 2];
            let of =
                |(i, (up, tier)): (usize, (bool, u8))| member(i, 1, if up { Verdict::Up } else { Verdict::Down }, tier);
            ups.into_iter().zip(tiers).enumerate().map(of).collect::<Vec<_>>()
        };
        let seen = |ups, min| {
            let health = Health { min_capacity: Percent::whole(min), ..Health::default() };
            let eligible = among(&verdicts(ups), &health);
            (eligible.tier(), slots(&eligible))
        };
        assert_eq!(seen([true, true, true, true], 100), (Tier::Primary, vec![0, 1]));
        assert_eq!(seen([true, false, true, true], 50), (Tier::Primary, vec![0]));
        assert_eq!(seen([true, false, true, true], 51), (Tier::Backup, vec![0, 2]));
        assert_eq!(seen([false, false, true, true], 51), (Tier::Backup, vec![2, 3]));
        assert_eq!(seen([false, false, true, true], 0), (Tier::Backup, vec![2]));
        assert_eq!(seen([true, false, false, false], 51), (Tier::TooFew, vec![]));

        let health = Health { min_capacity: Percent::whole(60), ..Health::default() };
        let both = verdicts([true, true, false, false]);
        let known = Condition::new(Verdict::Up);
        both[0].backend.set_condition(Condition { is_ejected: true, ..known });
        let eligible = among(&both, &health);
        assert_eq!(
            (eligible.tier(), slots(&eligible)),
            (Tier::Ejected, vec![0, 1]),
            "traffic takes nothing that is needed"
        );
        both[0].backend.set_condition(Condition { is_drained: true, ..known });
        let eligible = among(&both, &health);
        assert_eq!((eligible.tier(), slots(&eligible)), (Tier::Primary, vec![1]), "an operator may");
    }

    proptest! {
        #[test]
        fn a_tried_member_is_not_picked_again(
            weights in prop::collection::vec(1_u16..20, 1..10),
            turn in any::<usize>(),
        ) {
            let eligible = weighted(&weights);
            let mut tried = Vec::new();
            while let Some(member) = pick(&eligible, turn, &tried) {
                prop_assert!(!tried.contains(&member.backend.slot()));
                tried.push(member.backend.slot());
            }
            prop_assert_eq!(tried.len(), weights.len());
        }

        #[test]
        fn the_first_tier_that_is_not_empty_gets_the_traffic(
            members in prop::collection::vec((verdicts(), 0_u8..3, any::<[bool; 3]>()), 0..8),
            try_all in any::<bool>(),
        ) {
            let when_all_down = if try_all { WhenAllDown::TryAll } else { WhenAllDown::Fail };
            let members: Vec<Member> = members.iter().enumerate().map(|(i, (verdict, tier, facts))| {
                let member = member(i, 1, *verdict, *tier);
                let [is_ejected, is_drained, is_removed] = *facts;
                member.backend.set_condition(Condition { is_ejected, is_drained, is_removed, ..Condition::new(*verdict) });
                member
            }).collect();
            let eligible = among(&members, &Health { when_all_down, ..Health::default() });
            let present: Vec<&Member> = members.iter().filter(|m| !m.backend.is_draining()).collect();
            let of = |wanted: &dyn Fn(&Member) -> bool| -> Vec<u32> {
                present.iter().filter(|m| wanted(m)).map(|m| m.backend.slot().0).collect()
            };
            let known = |m: &Member| m.backend.condition();
            let fit = |m: &Member, tier| known(m).verdict.is_fit() && !known(m).is_ejected && m.tier == tier;
            let primaries = of(&|m| fit(m, 0));
            let backups = of(&|m| fit(m, 1));
            let backups = if backups.is_empty() { of(&|m| fit(m, 2)) } else { backups };
            let ejected = of(&|m| known(m).verdict.is_fit() && known(m).is_ejected);
            let checking = of(&|m| known(m).verdict == Verdict::Checking && !known(m).is_ejected);
            let everybody = of(&|_| try_all);
            let (tier, expected) = match () {
                () if !primaries.is_empty() => (Tier::Primary, primaries),
                () if !backups.is_empty() => (Tier::Backup, backups),
                () if !ejected.is_empty() => (Tier::Ejected, ejected),
                () if !checking.is_empty() => (Tier::Checking, checking),
                () if !everybody.is_empty() => (Tier::TryAll, everybody),
                () => (Tier::Nobody, Vec::new()),
            };
            prop_assert_eq!(eligible.tier(), tier);
            prop_assert_eq!(slots(&eligible), expected);
        }
    }
}
