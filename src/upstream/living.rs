//! What somebody else owns, for whoever has to reach all of it that is still there.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

/// Things that live as long as their owners like. Those that are gone are forgotten as room for new ones is wanted, so that to add
/// one costs the same however many there are.
#[derive(Debug)]
pub(super) struct Living<T>(RefCell<Vec<Weak<T>>>);

/// Room for the first of them.
const FIRST: usize = 8;

impl<T> Living<T> {
    /// One more.
    pub(super) fn add(&self, thing: &Rc<T>) {
        let mut things = self.0.borrow_mut();
        if things.len() == things.capacity() {
            things.retain(|thing| thing.strong_count() > 0);
            // Room for as many again: what was looked through here costs each of those that come until the next time the same.
            let living = things.len();
            things.reserve(living.max(FIRST));
        }
        things.push(Rc::downgrade(thing));
    }

    /// Those that are still there.
    pub(super) fn all(&self) -> Vec<Rc<T>> {
        self.0.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().iter().all(|thing| thing.strong_count() == 0)
    }
}

impl<T> Default for Living<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_gone_are_forgotten_in_the_end() {
        let living = Living::default();
        let mut kept = Vec::new();
        for n in 0..10_000 {
            let thing = Rc::new(n);
            living.add(&thing);
            if n % 1_000 == 0 {
                kept.push(thing);
            }
        }
        assert!(living.0.borrow().capacity() <= 4 * kept.len(), "{}", living.0.borrow().capacity());
        assert_eq!(living.all(), kept);
        kept.clear();
        assert!(living.is_empty() && living.all().is_empty());
    }
}
