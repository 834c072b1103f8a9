//! Whoever has the fewest requests in flight, over all workers, for its weight.
//!
//! Among few, everybody is looked at, from whose turn it is on: equals take turns. Among many that would cost more with every one of
//! them, and the better of two at random is nearly as good (as in Envoy's `LEAST_REQUEST`).

use super::{Candidates, Turns, two};

/// As many are looked at one by one: a look is a load from a cache line that other workers write.
const FEW: usize = 16;

pub(super) fn pick(turns: &Turns, turn: usize, among: &Candidates<'_>) -> Option<usize> {
    let count = among.members.len();
    if count > FEW {
        return two::pick(turns, among, |first, second| (load(among, first), load(among, second)));
    }
    let from = turns.at(turn)?;
    let fitting = (from..count).chain(0..from).filter(|index| among.fits(*index));
    // The first of equals.
    fitting.min_by_key(|index| load(among, *index))
}

/// What it has to do, the next request counted, for its weight. Those that have nothing to do are equals whatever they weigh: their
/// turns say who is next (as in HAProxy's `leastconn`).
pub(super) fn load(among: &Candidates<'_>, index: usize) -> u64 {
    match among.in_flight(index) {
        0 => 0,
        busy => (u64::from(busy) + 1).saturating_mul(1 << 20) / u64::from(among.weight(index).max(1)),
    }
}
