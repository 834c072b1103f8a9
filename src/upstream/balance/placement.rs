//! Which backend a request belongs to by what it says, and which one is next where that cannot have it.

use super::{Candidates, Share, hash, maglev::Maglev, ring::Ring};
use crate::config::plan::{HashAlgorithm, Placing};

#[derive(Debug)]
pub(super) struct Placement {
    table: Table,
    // Of each eligible member, the hash of its name.
    names: Box<[u64]>,
    bound: Option<Bound>,
}

#[derive(Debug)]
enum Table {
    Maglev(Maglev),
    Ring(Ring),
}

impl Table {
    fn find(&self, key: u64, is_accepted: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Self::Maglev(maglev) => maglev.find(key, is_accepted),
            Self::Ring(ring) => ring.find(key, is_accepted),
        }
    }
}

/// Everybody, eligible or not: what must not change when somebody goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Everybody {
    pub(super) count: usize,
    /// In percent of one.
    pub(super) weight: u64,
}

impl Placement {
    pub(super) fn new(placing: &Placing, shares: &[Share<'_>], everybody: Everybody) -> Self {
        let table = match placing.algorithm {
            HashAlgorithm::Maglev => Table::Maglev(Maglev::new(shares, everybody.count)),
            HashAlgorithm::Ring => Table::Ring(Ring::new(shares, everybody.weight)),
        };
        let names = shares.iter().map(|share| hash::place(share.name.as_bytes())).collect();
        let weight = shares.iter().map(|share| u64::from(share.weight)).sum();
        let bound = placing.bounded_load.map(|percent| Bound { percent: percent.into(), weight });
        Self { table, names, bound }
    }

    pub(super) const fn is_bounded(&self) -> bool {
        self.bound.is_some()
    }

    /// The one that it belongs to; where that one cannot have it, or has too much to do, the next. Where all have too much to do,
    /// which cannot be for long, the bound is not looked at.
    pub(super) fn pick(&self, key: u64, crowd: u32, among: &Candidates<'_>) -> Option<usize> {
        let Some(bound) = self.bound else { return self.first(key, |index| among.fits(index), among) };
        let has_room = |index| among.fits(index) && bound.allows(among.in_flight(index), among.weight(index), crowd);
        self.first(key, has_room, among).or_else(|| self.first(key, |index| among.fits(index), among))
    }

    fn first(&self, key: u64, is_accepted: impl Fn(usize) -> bool, among: &Candidates<'_>) -> Option<usize> {
        self.table.find(key, &is_accepted).or_else(|| self.dearest(key, is_accepted, among))
    }

    /// Where few can have it and the table shows none of them soon: the highest of random weights, which is as stable as the table
    /// and looks at everybody once (Thaler and Ravishankar 1998; with weights, Schindelhauer and Schomaker 2005).
    fn dearest(&self, key: u64, is_accepted: impl Fn(usize) -> bool, among: &Candidates<'_>) -> Option<usize> {
        let accepted = self.names.iter().enumerate().filter(|(index, _)| is_accepted(*index));
        let score = |index: usize, name: u64| {
            // Between 0 and 1, and neither.
            let chance = ((hash::place_for(key, name) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            f64::from(among.weight(index)) / -chance.ln()
        };
        let scored = accepted.map(|(index, name)| (score(index, *name), index));
        scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, index)| index)
    }
}

/// How much more than its share of the requests in flight a backend may have: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing
/// with Bounded Loads" (SODA 2018); HAProxy's `hash-balance-factor`.
#[derive(Clone, Copy, Debug)]
struct Bound {
    percent: u64,
    // Of all that are eligible.
    weight: u64,
}

impl Bound {
    /// Whether one with so many in flight may have one more, where so many are in flight at all. Shares are rounded up, so that as
    /// long as nobody is over it somebody always may.
    fn allows(self, in_flight: u32, weight: u32, crowd: u32) -> bool {
        let all = u64::from(crowd) + 1;
        let most = (self.percent * all * u64::from(weight)).div_ceil((100 * self.weight).max(1));
        u64::from(in_flight) < most
    }
}
