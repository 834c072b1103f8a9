//! The better of two at random: nearly as good as the best of all, and no herd runs after whoever looked best to everybody.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).

use super::{Candidates, Turns};

/// Draws after which one that fits is looked for in turn, and after which the second is not another one. Weights keep their meaning
/// by it: one that has a hundredth of the turns is seldom the second either.
const DRAWS: usize = 3;

/// The one of two that costs less, of equals the first. Each is drawn as often as its weight says.
pub(super) fn pick<C: PartialOrd>(
    turns: &Turns,
    among: &Candidates<'_>,
    cost: impl Fn(usize, usize) -> (C, C),
) -> Option<usize> {
    let first = random(turns, among)?;
    let mut draws = (0..DRAWS).filter_map(|_| turns.at(fastrand::usize(..)));
    let Some(second) = draws.find(|second| *second != first && among.fits(*second)) else { return Some(first) };
    let (of_first, of_second) = cost(first, second);
    Some(if of_second < of_first { second } else { first })
}

/// One at random, as often as its weight says.
pub(super) fn random(turns: &Turns, among: &Candidates<'_>) -> Option<usize> {
    let mut draws = (0..DRAWS).filter_map(|_| turns.at(fastrand::usize(..)));
    draws.find(|index| among.fits(*index)).or_else(|| turns.pick(fastrand::usize(..), among))
}
