//! Who may get a request, and in which order: the slice that an upstream's health task publishes and every worker walks.

use std::{cmp::Reverse, sync::Arc};

use http::HeaderValue;

use super::{Backend, Slot, Verdict};
use crate::{base::Name, config::plan::WhenAllDown};

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
    /// Used only while no primary is eligible.
    pub backup: bool,
}

/// One use of a backend, from the choice to the end of the response's body. Dropping it is the accounting.
#[derive(Debug)]
pub struct Lease(Arc<Member>);

impl Lease {
    /// Takes a place among the backend's requests in flight, or `None` when `max` are taken.
    #[must_use]
    pub fn take(member: &Arc<Member>, max: Option<u32>) -> Option<Self> {
        member.backend.begin(max).then(|| Self(Arc::clone(member)))
    }

    /// The member in use.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.backend.end();
    }
}

/// Which members an [`Eligible`] slice is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tier {
    /// Primaries that are fit or unchecked.
    Primary,
    /// Backups that are fit or unchecked, because no primary is.
    Backup,
    /// Those that no probe has answered for yet, because none is fit.
    Checking,
    /// All of them although all are down: `when_all_down: try_all`.
    TryAll,
    /// Nobody.
    Nobody,
}

impl Tier {
    fn takes(self, member: &Member, when_all_down: WhenAllDown) -> bool {
        let verdict = member.backend.verdict();
        match self {
            Self::Primary => verdict.is_fit() && !member.backup,
            Self::Backup => verdict.is_fit() && member.backup,
            Self::Checking => verdict == Verdict::Checking,
            Self::TryAll => when_all_down == WhenAllDown::TryAll,
            Self::Nobody => false,
        }
    }
}

/// The members that may get a request, in the order in which they get them. Immutable; swapped whole.
#[derive(Debug)]
pub struct Eligible {
    tier: Tier,
    members: Box<[Arc<Member>]>,
    order: Box<[u16]>,
}

/// The longest precomputed order. Weights whose sum is larger are scaled down to fit, each keeping at least one turn.
const LONGEST_ORDER: usize = 4_096;

impl Eligible {
    /// Chooses the members that may get traffic.
    ///
    /// The first of these sets that is not empty: fit primaries, fit backups, primaries and backups still `checking`, and,
    /// where `when_all_down` says so, everybody. A draining backend is in none of them.
    #[must_use]
    pub fn among(members: &[Member], when_all_down: WhenAllDown) -> Self {
        for tier in [Tier::Primary, Tier::Backup, Tier::Checking, Tier::TryAll] {
            let belongs = |m: &&Member| !m.backend.is_draining() && tier.takes(m, when_all_down);
            let chosen: Box<[Arc<Member>]> = members.iter().filter(belongs).cloned().map(Arc::new).collect();
            if !chosen.is_empty() {
                let order = smooth_order(&chosen.iter().map(|m| m.weight).collect::<Vec<_>>());
                return Self { tier, members: chosen, order };
            }
        }
        Self { tier: Tier::Nobody, members: Box::default(), order: Box::default() }
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

    /// The member whose turn it is, or the next one after it that was not tried yet. Allocates nothing.
    ///
    /// `turn` counts up forever; shares are exact over each full round of it.
    #[must_use]
    pub fn pick(&self, turn: usize, tried: &[Slot]) -> Option<&Arc<Member>> {
        let round = self.order.len();
        (0..round).map(|step| turn.wrapping_add(step) % round).find_map(|turn| {
            let member = self.members.get(usize::from(*self.order.get(turn)?))?;
            (!tried.contains(&member.backend.slot())).then_some(member)
        })
    }
}

/// The order of one round, in which everybody has as many turns as its weight, spread as evenly as can be.
///
/// Earliest deadline first: the `k`-th turn of a member of weight `w` in a round of `sum` falls within
/// `k * sum / w .. (k + 1) * sum / w`, and among those whose time has come the one that has to hurry most is next. Who had
/// the turn before steps back unless it owns more than half of them, so that nobody else is asked twice in a row, not
/// even where one round follows another; nginx's smooth round robin does that at `a b c a | a b c a`.
fn smooth_order(weights: &[u16]) -> Box<[u16]> {
    let mut shares = scaled(weights);
    let sum: usize = shares.iter().map(|share| share.weight).sum();
    // Equal weights, the common case, take turns; a thousand backends are not worth a million steps.
    if sum == shares.len() {
        return (0..u16::try_from(sum).unwrap_or(u16::MAX)).collect();
    }
    let mut last = None;
    let turns = (0..sum).filter_map(|turn| {
        let open = shares.iter_mut().enumerate().filter(|(_, share)| share.opens(sum) <= turn);
        let (next, share) = open.min_by_key(|(index, share)| {
            let had_the_last = last == Some(*index) && 2 * share.weight <= sum;
            (had_the_last, share.closes(sum), Reverse(share.weight))
        })?;
        share.taken += 1;
        last = Some(next);
        u16::try_from(next).ok()
    });
    turns.collect()
}

// A member's turns in a round, and how many of them it has had.
struct Share {
    weight: usize,
    taken: usize,
}

impl Share {
    const fn opens(&self, sum: usize) -> usize {
        self.taken * sum / self.weight
    }

    const fn closes(&self, sum: usize) -> usize {
        ((self.taken + 1) * sum).div_ceil(self.weight)
    }
}

fn scaled(weights: &[u16]) -> Vec<Share> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let turns = |weight: u16| usize::from(weight / divisor).max(1);
    let sum: usize = weights.iter().copied().map(turns).sum();
    let fitting = |weight| match sum > LONGEST_ORDER {
        true => (turns(weight) * LONGEST_ORDER / sum).max(1),
        false => turns(weight),
    };
    weights.iter().map(|weight| Share { weight: fitting(*weight), taken: 0 }).collect()
}

const fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn member(slot: usize, weight: u16, verdict: Verdict, backup: bool) -> Member {
        let slot = u32::try_from(slot).unwrap();
        let backend = Arc::new(Backend::new(Slot(slot), SocketAddr::from(([127, 0, 0, 1], 9000)).into(), verdict, 1));
        let name = Name::derived(format!("b{slot}"));
        Member { backend, name, authority: HeaderValue::from_static("b"), weight, backup }
    }

    fn weighted(weights: &[u16]) -> Eligible {
        let members: Vec<Member> =
            weights.iter().enumerate().map(|(i, weight)| member(i, *weight, Verdict::Up, false)).collect();
        Eligible::among(&members, WhenAllDown::Fail)
    }

    fn round(eligible: &Eligible) -> Vec<usize> {
        let turns = 0..eligible.order.len();
        turns.map(|turn| eligible.pick(turn, &[]).unwrap().backend.slot().0 as usize).collect()
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
    fn heavy_members_are_spread() {
        assert_eq!(round(&weighted(&[5, 1, 1])), [0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(round(&weighted(&[2, 1, 1])), [0, 1, 0, 2]);
        assert_eq!(round(&weighted(&[10, 10])), [0, 1]);
    }

    #[test]
    fn nobody_is_picked_where_nobody_is_eligible() {
        let down = [member(0, 1, Verdict::Down, false)];
        let eligible = Eligible::among(&down, WhenAllDown::Fail);
        assert_eq!(eligible.tier(), Tier::Nobody);
        assert!(eligible.pick(7, &[]).is_none());
        assert!(Eligible::among(&[], WhenAllDown::TryAll).pick(0, &[]).is_none());
    }

    #[test]
    fn a_new_member_waits_while_another_is_fit() {
        let both = [member(0, 1, Verdict::Up, false), member(1, 1, Verdict::Checking, false)];
        assert_eq!(slots(&Eligible::among(&both, WhenAllDown::Fail)), [0]);
    }

    proptest! {
        #[test]
        fn a_round_holds_exactly_the_weights(weights in prop::collection::vec(1_u16..60, 1..20)) {
            let round = round(&weighted(&weights));
            let shares = shares(&round);
            let divisor = weights.iter().copied().fold(0, gcd);
            for (slot, weight) in weights.iter().enumerate() {
                prop_assert_eq!(shares[&slot], usize::from(weight / divisor));
            }
        }

        #[test]
        fn every_turn_falls_into_its_part_of_the_round(weights in prop::collection::vec(1_u16..60, 1..20)) {
            let divisor = weights.iter().copied().fold(0, gcd);
            let round = round(&weighted(&weights));
            let mut taken = vec![0; weights.len()];
            for (turn, slot) in round.iter().enumerate() {
                let weight = usize::from(weights[*slot] / divisor);
                let part = taken[*slot] * round.len() / weight..((taken[*slot] + 1) * round.len()).div_ceil(weight);
                prop_assert!(part.contains(&turn));
                taken[*slot] += 1;
            }
        }

        #[test]
        fn nobody_who_owns_at_most_half_is_asked_twice_in_a_row(weights in prop::collection::vec(1_u16..60, 2..20)) {
            let round = round(&weighted(&weights));
            let shares = shares(&round);
            for (turn, slot) in round.iter().enumerate() {
                let next = round[(turn + 1) % round.len()];
                prop_assert!(next != *slot || 2 * shares[slot] > round.len());
            }
        }

        #[test]
        fn large_weights_are_scaled_and_everybody_keeps_a_turn(weights in prop::collection::vec(1_u16..=1_000, 1..60)) {
            let round = round(&weighted(&weights));
            prop_assert!(round.len() <= LONGEST_ORDER + weights.len());
            prop_assert_eq!(shares(&round).len(), weights.len());
        }

        #[test]
        fn a_tried_member_is_not_picked_again(
            weights in prop::collection::vec(1_u16..20, 1..10),
            turn in any::<usize>(),
        ) {
            let eligible = weighted(&weights);
            let mut tried = Vec::new();
            while let Some(member) = eligible.pick(turn, &tried) {
                prop_assert!(!tried.contains(&member.backend.slot()));
                tried.push(member.backend.slot());
            }
            prop_assert_eq!(tried.len(), weights.len());
        }

        #[test]
        fn the_first_tier_that_is_not_empty_gets_the_traffic(
            members in prop::collection::vec((verdicts(), any::<bool>(), any::<bool>()), 0..8),
            try_all in any::<bool>(),
        ) {
            let when_all_down = if try_all { WhenAllDown::TryAll } else { WhenAllDown::Fail };
            let members: Vec<Member> = members.iter().enumerate().map(|(i, (verdict, backup, draining))| {
                let member = member(i, 1, *verdict, *backup);
                member.backend.set_draining(*draining);
                member
            }).collect();
            let eligible = Eligible::among(&members, when_all_down);
            let present: Vec<&Member> = members.iter().filter(|m| !m.backend.is_draining()).collect();
            let of = |wanted: &dyn Fn(&Member) -> bool| -> Vec<u32> {
                present.iter().filter(|m| wanted(m)).map(|m| m.backend.slot().0).collect()
            };
            let primaries = of(&|m| m.backend.verdict().is_fit() && !m.backup);
            let backups = of(&|m| m.backend.verdict().is_fit() && m.backup);
            let checking = of(&|m| m.backend.verdict() == Verdict::Checking);
            let everybody = of(&|_| try_all);
            let (tier, expected) = match () {
                () if !primaries.is_empty() => (Tier::Primary, primaries),
                () if !backups.is_empty() => (Tier::Backup, backups),
                () if !checking.is_empty() => (Tier::Checking, checking),
                () if !everybody.is_empty() => (Tier::TryAll, everybody),
                () => (Tier::Nobody, Vec::new()),
            };
            prop_assert_eq!(eligible.tier(), tier);
            prop_assert_eq!(slots(&eligible), expected);
        }
    }
}
