//! A circle of hashes on which every backend has many points; a request belongs to the next one.
//!
//! Karger et al., "Consistent Hashing and Random Trees" (1997), as ketama made it common. A backend's points depend on nothing
//! but its own name and weight: what comes or goes moves only the requests that it gets or had, and one whose weight grows only
//! takes. With `v` points each, shares are off by about `1 / sqrt(v)`.

use super::{PROBES, Share, hash};

/// Points of a backend of weight 1. Shares are off by a twelfth or so.
const POINTS: u64 = 160;

/// The most points of one circle: 2.5 MiB, sorted in some tens of milliseconds.
const MOST_POINTS: u64 = 1 << 18;

#[derive(Debug)]
pub(super) struct Ring {
    points: Box<[u64]>,
    owners: Box<[u16]>,
}

impl Ring {
    /// The circle of those that are eligible. `whole` is the weight of everybody, eligible or not: it says how fine the circle can be,
    /// so that one that goes out for a while changes nothing for the others.
    pub(super) fn new(shares: &[Share<'_>], whole: u64) -> Self {
        let fineness = fineness(whole);
        let points_of = |share: &Share<'_>| ((u64::from(share.weight) * POINTS / WEIGHT_OF_ONE) >> fineness).max(1);
        let mut points: Vec<(u64, &str, u16)> = Vec::new();
        for share in shares {
            points.extend((0..points_of(share)).map(|n| (hash::place_of(share.name, n), share.name, share.index)));
        }
        // Of two on one spot, the same is always the first.
        points.sort_unstable();
        let owners = points.iter().map(|(_, _, owner)| *owner).collect();
        Self { points: points.into_iter().map(|(point, ..)| point).collect(), owners }
    }

    /// The first acceptable one from the request's place on, if it is not far.
    pub(super) fn find(&self, key: u64, is_accepted: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.points.partition_point(|point| *point < key);
        let from_there = self.owners.iter().skip(start).chain(&self.owners).take(PROBES.min(self.owners.len()));
        from_there.map(|owner| usize::from(*owner)).find(|owner| is_accepted(*owner))
    }
}

/// How often the number of points is halved.
fn fineness(whole: u64) -> u32 {
    (0..64).find(|fineness| (whole.saturating_mul(POINTS) / WEIGHT_OF_ONE) >> fineness <= MOST_POINTS).unwrap_or(63)
}

// Weights come in percent of one.
const WEIGHT_OF_ONE: u64 = 100;
