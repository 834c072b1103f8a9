//! A table in which every backend has as many places as its weight is worth; a request belongs to the one at its place.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4, with weights as Envoy has
//! them. Shares are equal to within a place or two, better than on a ring; when a backend goes, some requests of others move too.

use super::{PROBES, Share, hash};

/// The sizes of tables, which are prime: one for as many backends as it has a hundred places each for, and one for more.
const SIZES: [usize; 2] = [65_537, 262_139];

#[derive(Debug)]
pub(super) struct Maglev {
    table: Box<[u16]>,
}

impl Maglev {
    /// The table of those that are eligible. `everybody` is how many there are, eligible or not: the size of the table may not change
    /// because one goes out, because that would move everyone.
    pub(super) fn new(shares: &[Share<'_>], everybody: usize) -> Self {
        let [small, large] = SIZES;
        Self::sized(shares, if everybody <= small / 100 { small } else { large })
    }

    pub(super) fn sized(shares: &[Share<'_>], size: usize) -> Self {
        // By name, so that the order of the file means nothing.
        let mut takers: Vec<Taker> = shares.iter().map(|share| Taker::new(share, size)).collect();
        takers.sort_by_key(|taker| (taker.rank, taker.index));
        let heaviest = shares.iter().map(|share| share.weight).max().unwrap_or_default();
        // Everybody's first turn is in the first round.
        takers.iter_mut().for_each(|taker| taker.credit = heaviest - taker.weight);
        let mut table: Vec<Option<u16>> = vec![None; if takers.is_empty() { 0 } else { size }];
        let mut free = table.len();
        while free > 0 {
            for taker in &mut takers {
                if free > 0 && taker.has_turn(heaviest) {
                    taker.take(&mut table);
                    free -= 1;
                }
            }
        }
        Self { table: table.into_iter().map(Option::unwrap_or_default).collect() }
    }

    /// The acceptable one at the request's place, or at one of the further places that it has. They are spread over the table, so
    /// that the requests of one that goes are spread over all.
    pub(super) fn find(&self, key: u64, is_accepted: impl Fn(usize) -> bool) -> Option<usize> {
        let size = self.table.len() as u64;
        let skip = 1 + (key.rotate_left(32) % (size.max(2) - 1));
        let mut place = key.checked_rem(size)?;
        for _ in 0..PROBES {
            let owner = usize::from(*self.table.get(usize::try_from(place).ok()?)?);
            if is_accepted(owner) {
                return Some(owner);
            }
            place = (place + skip) % size;
        }
        None
    }
}

// A backend while the table is filled.
struct Taker {
    index: u16,
    weight: u32,
    // Its place among all.
    rank: u64,
    credit: u32,
    // The next place that it wants, and how far it is to the one after that.
    wants: usize,
    skip: usize,
}

impl Taker {
    fn new(share: &Share<'_>, size: usize) -> Self {
        let [wants, skip] = [(0, size), (1, size - 1)].map(|(number, below)| {
            usize::try_from(hash::place_of(share.name, number) % below as u64).unwrap_or_default()
        });
        let rank = hash::place(share.name.as_bytes());
        Self { index: share.index, weight: share.weight, rank, credit: 0, wants, skip: skip + 1 }
    }

    /// Whether it may take in this round: always for the heaviest, else as often as its weight is worth.
    const fn has_turn(&mut self, heaviest: u32) -> bool {
        self.credit += self.weight;
        let has_turn = self.credit >= heaviest;
        if has_turn {
            self.credit -= heaviest;
        }
        has_turn
    }

    /// Takes the first free place that it wants. There is one: a prime size makes it want every place in turn.
    fn take(&mut self, table: &mut [Option<u16>]) {
        for _ in 0..table.len() {
            let place = self.wants;
            // No division: this is done millions of times.
            self.wants += self.skip;
            self.wants -= if self.wants < table.len() { 0 } else { table.len() };
            if let Some(place @ None) = table.get_mut(place) {
                *place = Some(self.index);
                return;
            }
        }
    }
}
