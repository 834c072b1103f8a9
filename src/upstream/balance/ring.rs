//! A circle of hashes on which every backend has many points; a request belongs to the next one.
//!
//! Karger et al., "Consistent Hashing and Random Trees" (1997), as ketama made it common. A backend's points depend on nothing
//! but its own name and weight: what comes or goes moves only the requests that it gets or had, and one whose weight grows only
//! takes. With `v` points each, shares are off by about `1 / sqrt(v)`.

use super::{PROBES, Share, hash};

/// Points of a backend of weight 1. Shares are off by a twelfth or so.
const POINTS: u64 = 160;

/// The most points of one circle: 3.5 MiB, made in some 10 ms.
const MOST_POINTS: u64 = 1 << 18;

#[derive(Debug)]
pub(super) struct Ring {
    points: Box<[u64]>,
    owners: Box<[u16]>,
    // Where the points of each of `2^bits` equal parts of the circle begin: about one in each, so that there is nothing to search.
    starts: Box<[u32]>,
    bits: u32,
}

impl Ring {
    /// The circle of those that are eligible. `whole` is the weight of everybody, eligible or not: it says how fine the circle can be,
    /// so that one that goes out for a while changes nothing for the others.
    pub(super) fn new(shares: &[Share<'_>], whole: u64) -> Self {
        let fineness = fineness(whole);
        let points_of = |share: &Share<'_>| ((u64::from(share.weight) * POINTS / WEIGHT_OF_ONE) >> fineness).max(1);
        // By name, so that of two on one spot the same is always the first.
        let mut by_name: Vec<&Share<'_>> = shares.iter().collect();
        by_name.sort_by_key(|share| share.name);
        let mut placed: Vec<(u64, u16)> = Vec::new();
        for (share, rank) in by_name.iter().zip(0..) {
            placed.extend((0..points_of(share)).map(|number| (hash::place_of(share.name, number), rank)));
        }
        placed.sort_unstable();
        let owner = |rank: u16| by_name.get(usize::from(rank)).map_or(0, |share| share.index);
        let owners = placed.iter().map(|(_, rank)| owner(*rank)).collect();
        let points: Box<[u64]> = placed.iter().map(|(point, _)| *point).collect();
        let bits = points.len().max(2).ilog2();
        Self { starts: starts(&points, bits), points, owners, bits }
    }

    /// The first acceptable one from the request's place on, if it is not far.
    pub(super) fn find(&self, key: u64, is_accepted: impl Fn(usize) -> bool) -> Option<usize> {
        let part = usize::try_from(key >> (64 - self.bits)).ok()?;
        let start = self.starts.get(part).and_then(|start| usize::try_from(*start).ok())?;
        let before = self.points.iter().skip(start).take_while(|point| **point < key).count();
        let from_there = self.owners.iter().skip(start + before).chain(&self.owners);
        let mut owners = from_there.take(PROBES.min(self.owners.len())).map(|owner| usize::from(*owner));
        owners.find(|owner| is_accepted(*owner))
    }
}

fn starts(points: &[u64], bits: u32) -> Box<[u32]> {
    let mut at = 0;
    let parts = 0..1_u64 << bits;
    let starts = parts.map(|part| {
        at += points.iter().skip(at).take_while(|point| **point >> (64 - bits) < part).count();
        u32::try_from(at).unwrap_or(u32::MAX)
    });
    starts.collect()
}

/// How often the number of points is halved.
fn fineness(whole: u64) -> u32 {
    (0..64).find(|fineness| (whole.saturating_mul(POINTS) / WEIGHT_OF_ONE) >> fineness <= MOST_POINTS).unwrap_or(63)
}

// Weights come in percent of one.
const WEIGHT_OF_ONE: u64 = 100;
