//! Counts by status code and a small label, for one writer.
//!
//! Which codes and methods occur is not known before, so a fixed table is filled as they come: open addressing, linear
//! probing, no removal. The writer is one worker, a reader may be anybody: a slot's key is published after its count exists,
//! and never changes. What finds the table full is counted by the class of its code, so the sum stays exact and no client
//! or backend can grow it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::cells::Cell;

/// A status code, or only its class where there were too many to tell apart.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Code {
    /// One code, e.g. 204.
    Exact(u16),
    /// Any of a class, by its first digit.
    Class(u16),
}

impl Code {
    /// Whether it is of the class 5xx.
    #[must_use]
    pub const fn is_server_error(self) -> bool {
        matches!(self, Self::Exact(500..=599) | Self::Class(5))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(code) => write!(f, "{code}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

/// Counts by label and code. The label is the caller's, up to [`LABEL_MAX`].
#[derive(Debug)]
pub(super) struct Tally<const SLOTS: usize> {
    slots: [Slot; SLOTS],
    overflow: [Cell; CLASSES],
}

#[derive(Debug, Default)]
struct Slot {
    // 0: free. Else bit 31, 21 bits of label, 10 bits of code.
    key: AtomicU32,
    count: Cell,
}

/// The greatest label.
pub(super) const LABEL_MAX: u32 = (1 << 21) - 1;
const TAKEN: u32 = 1 << 31;
const CODE_BITS: u32 = 10;
const CODE_MAX: u16 = (1 << CODE_BITS) - 1;
// A status is 100 to 999; 0 stands for none at all.
const CLASSES: usize = 11;

impl<const SLOTS: usize> Default for Tally<SLOTS> {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), overflow: Default::default() }
    }
}

impl<const SLOTS: usize> Tally<SLOTS> {
    /// Counts one. Called by the tally's own writer only.
    pub(super) fn add(&self, label: u32, code: u16) {
        let code = code.min(CODE_MAX);
        let key = TAKEN | label.min(LABEL_MAX) << CODE_BITS | u32::from(code);
        match self.slot(key) {
            Some(slot) => {
                slot.count.add(1);
                slot.key.store(key, Release);
            }
            None => self.overflow[usize::from(code / 100)].add(1),
        }
    }

    // The key's slot, or the free one that it may have.
    fn slot(&self, key: u32) -> Option<&Slot> {
        let start = key.wrapping_mul(0x9E37_79B9) as usize >> 8;
        let probes = (0..SLOTS).map(|step| &self.slots[(start + step) % SLOTS]);
        probes.into_iter().find(|slot| matches!(slot.key.load(Relaxed), found if found == key || found == 0))
    }

    /// Adds what it holds to sums by label and code; what overflowed has no label.
    pub(super) fn add_to(&self, sums: &mut BTreeMap<(Option<u32>, Code), u64>) {
        for slot in &self.slots {
            let key = slot.key.load(Acquire);
            if key != 0 {
                let label = (key & !TAKEN) >> CODE_BITS;
                let code = u16::try_from(key & u32::from(CODE_MAX)).unwrap_or(CODE_MAX);
                *sums.entry((Some(label), Code::Exact(code))).or_default() += slot.count.get();
            }
        }
        for (class, cell) in (0..).zip(&self.overflow) {
            if cell.get() > 0 {
                *sums.entry((None, Code::Class(class))).or_default() += cell.get();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn loses_no_count(added in prop::collection::vec((0u32..40, 0u16..1100), 0..400)) {
            let tally = Tally::<32>::default();
            let mut expected: BTreeMap<(u32, u16), u64> = BTreeMap::new();
            for (label, code) in &added {
                tally.add(*label, *code);
                *expected.entry((*label, (*code).min(1023))).or_default() += 1;
            }
            let mut sums = BTreeMap::new();
            tally.add_to(&mut sums);
            prop_assert_eq!(sums.values().sum::<u64>(), added.len() as u64);
            for ((label, code), sum) in sums {
                if let (Some(label), Code::Exact(code)) = (label, code) {
                    prop_assert_eq!(expected[&(label, code)], sum);
                }
            }
        }
    }

    #[test]
    fn counts_what_finds_it_full_by_class() {
        let tally = Tally::<4>::default();
        (200..204).for_each(|code| tally.add(7, code));
        tally.add(7, 503);
        tally.add(7, 504);
        tally.add(7, 200);
        let mut sums = BTreeMap::new();
        tally.add_to(&mut sums);
        assert_eq!(sums[&(None, Code::Class(5))], 2);
        assert_eq!(sums[&(Some(7), Code::Exact(200))], 2);
        assert_eq!(sums.len(), 5);
        assert_eq!((Code::Class(5).to_string(), Code::Exact(204).to_string()), ("5xx".into(), "204".into()));
    }
}
