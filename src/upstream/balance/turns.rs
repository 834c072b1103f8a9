//! Smooth weighted round robin: an order that is made when the slice is, and walked by every worker.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Candidates;

/// One round: whose turn it is, by index.
#[derive(Debug)]
pub(super) struct Turns(Box<[u16]>);

impl Turns {
    pub(super) fn new(weights: &[u32]) -> Self {
        Self(smooth_order(weights))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whose turn it is. `turn` counts up forever; shares are exact over each full round of it.
    pub(super) fn at(&self, turn: usize) -> Option<usize> {
        let turn = turn.checked_rem(self.0.len())?;
        self.0.get(turn).map(|index| usize::from(*index))
    }

    /// The one whose turn it is, or the next one after it that fits.
    pub(super) fn pick(&self, turn: usize, among: &Candidates<'_>) -> Option<usize> {
        let round = 0..self.0.len();
        round.filter_map(|step| self.at(turn.wrapping_add(step))).find(|index| among.fits(*index))
    }
}

/// The longest precomputed order. Weights whose sum is larger are scaled down to fit, each keeping at least one turn.
const LONGEST_ORDER: usize = 4_096;

/// The order of one round, in which everybody has as many turns as its weight, spread as evenly as can be.
///
/// Earliest deadline first: the `k`-th turn of a member of weight `w` in a round of `sum` falls within
/// `k * sum / w .. (k + 1) * sum / w`, and among those whose time has come the one that has to hurry most is next. Who had
/// the turn before steps back unless it owns more than half of them, so that nobody else is asked twice in a row, not
/// even where one round follows another; nginx's smooth round robin does that at `a b c a | a b c a`.
fn smooth_order(weights: &[u32]) -> Box<[u16]> {
    let mut shares = scaled(weights);
    let sum: usize = shares.iter().map(|share| share.weight).sum();
    // Equal weights, the common case, take turns.
    if sum == shares.len() {
        return (0..u16::try_from(sum).unwrap_or(u16::MAX)).collect();
    }
    // Whose time has come, by how much it has to hurry; and the others, by when their time comes.
    let mut open: BinaryHeap<Reverse<(usize, Reverse<usize>, usize)>> = BinaryHeap::new();
    let mut closed: BinaryHeap<Reverse<(usize, usize)>> = (0..shares.len()).map(|index| Reverse((0, index))).collect();
    let mut last = None;
    let turns = (0..sum).filter_map(|turn| {
        while closed.peek().is_some_and(|Reverse((opens, _))| *opens <= turn) {
            let Reverse((_, index)) = closed.pop()?;
            let share = shares.get(index)?;
            open.push(Reverse((share.closes(sum), Reverse(share.weight), index)));
        }
        let first = open.pop()?;
        let Reverse((_, Reverse(weight), index)) = first;
        let had_the_last = last == Some(index) && 2 * weight <= sum;
        let second = if had_the_last { open.pop() } else { None };
        let next = second.map_or(index, |Reverse((.., second))| {
            open.push(first);
            second
        });
        let share = shares.get_mut(next)?;
        share.taken += 1;
        closed.push(Reverse((share.opens(sum), next)));
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

fn scaled(weights: &[u32]) -> Vec<Share> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let turns = |weight: u32| usize::try_from(weight / divisor).unwrap_or(1).max(1);
    let sum: usize = weights.iter().copied().map(turns).sum();
    let fitting = |weight| match sum > LONGEST_ORDER {
        true => (turns(weight) * LONGEST_ORDER / sum).max(1),
        false => turns(weight),
    };
    weights.iter().map(|weight| Share { weight: fitting(*weight), taken: 0 }).collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u16]) -> Turns {
        Turns::new(&weights.iter().copied().map(u32::from).collect::<Vec<_>>())
    }

    fn round(turns: &Turns) -> Vec<usize> {
        (0..turns.0.len()).map(|turn| turns.at(turn).unwrap()).collect()
    }

    fn shares(round: &[usize]) -> HashMap<usize, usize> {
        round.iter().fold(HashMap::new(), |mut shares, index| {
            *shares.entry(*index).or_default() += 1;
            shares
        })
    }

    /// The same order, found by looking at everybody at every turn.
    fn naive_order(weights: &[u32]) -> Vec<u16> {
        let mut shares = scaled(weights);
        let sum: usize = shares.iter().map(|share| share.weight).sum();
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

    #[test]
    fn heavy_members_are_spread() {
        assert_eq!(round(&turns(&[5, 1, 1])), [0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(round(&turns(&[2, 1, 1])), [0, 1, 0, 2]);
        assert_eq!(round(&turns(&[10, 10])), [0, 1]);
    }

    proptest! {
        #[test]
        fn a_round_holds_exactly_the_weights(weights in prop::collection::vec(1_u16..60, 1..20)) {
            let round = round(&turns(&weights));
            let shares = shares(&round);
            let divisor = weights.iter().copied().map(u32::from).fold(0, gcd);
            for (slot, weight) in weights.iter().enumerate() {
                prop_assert_eq!(shares[&slot], usize::from(*weight) / divisor as usize);
            }
        }

        #[test]
        fn the_order_is_that_of_looking_at_everybody(weights in prop::collection::vec(1_u32..60, 1..30)) {
            let order = smooth_order(&weights);
            if order.len() > weights.len() {
                prop_assert_eq!(order.to_vec(), naive_order(&weights));
            }
        }

        #[test]
        fn every_turn_falls_into_its_part_of_the_round(weights in prop::collection::vec(1_u16..60, 1..20)) {
            let divisor = weights.iter().copied().map(u32::from).fold(0, gcd);
            let round = round(&turns(&weights));
            let mut taken = vec![0; weights.len()];
            for (turn, slot) in round.iter().enumerate() {
                let weight = usize::from(weights[*slot]) / divisor as usize;
                let part = taken[*slot] * round.len() / weight..((taken[*slot] + 1) * round.len()).div_ceil(weight);
                prop_assert!(part.contains(&turn));
                taken[*slot] += 1;
            }
        }

        #[test]
        fn nobody_who_owns_at_most_half_is_asked_twice_in_a_row(weights in prop::collection::vec(1_u16..60, 2..20)) {
            let round = round(&turns(&weights));
            let shares = shares(&round);
            for (turn, slot) in round.iter().enumerate() {
                let next = round[(turn + 1) % round.len()];
                prop_assert!(next != *slot || 2 * shares[slot] > round.len());
            }
        }

        #[test]
        fn large_weights_are_scaled_and_everybody_keeps_a_turn(weights in prop::collection::vec(1_u16..=1_000, 1..60)) {
            let round = round(&turns(&weights));
            prop_assert!(round.len() <= LONGEST_ORDER + weights.len());
            prop_assert_eq!(shares(&round).len(), weights.len());
        }
    }
}
