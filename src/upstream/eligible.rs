use std::sync::Arc;

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

/// nginx's smooth weighted round robin, run once for a whole round: at each turn everybody gains its weight, the richest is
/// chosen and pays the sum. Weights 5, 1, 1 give `a a b a c a a`, never five in a row.
fn smooth_order(weights: &[u16]) -> Box<[u16]> {
    let weights = scaled(weights);
    // Equal weights, the common case, take turns; a thousand backends are not worth a million steps.
    if weights.iter().all(|weight| *weight == 1) {
        return (0..u16::try_from(weights.len()).unwrap_or(u16::MAX)).collect();
    }
    let sum: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut order = Vec::with_capacity(usize::try_from(sum).unwrap_or_default());
    for _ in 0..sum {
        let mut richest = 0;
        for (i, weight) in weights.iter().enumerate() {
            credit[i] += weight;
            if credit[i] > credit[richest] {
                richest = i;
            }
        }
        credit[richest] -= sum;
        order.push(u16::try_from(richest).unwrap_or(u16::MAX));
    }
    order.into()
}

fn scaled(weights: &[u16]) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: usize = weights.iter().map(|w| usize::from(w / divisor)).sum();
    let shrink = |w: u16| match sum > LONGEST_ORDER {
        true => (i64::from(w / divisor) * LONGEST_ORDER as i64 / sum as i64).max(1),
        false => i64::from(w / divisor),
    };
    weights.iter().map(|w| shrink(*w)).collect()
}

const fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}
