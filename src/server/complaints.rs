//! What a worker says of connections that end badly: at once, and then no more often than anybody wants to read.

use std::{
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

use super::connection::Closed;
use crate::runtime::ListenerId;

/// How often the same is said of the same listener.
const PAUSE: Duration = Duration::from_secs(10);

/// Listeners come and go with edits: past so many entries, those that have had their pause are forgotten.
const MANY: usize = 256;

/// When what was said last, by listener and reason.
#[derive(Debug, Default)]
pub(super) struct Complaints(RefCell<HashMap<(ListenerId, Closed), Last>>);

#[derive(Debug)]
struct Last {
    said: Instant,
    unsaid: u64,
}

impl Complaints {
    /// Whether to say now that another connection ended so: with the number of those of which that was not said, or `None`.
    pub(super) fn due(&self, listener: ListenerId, reason: Closed, now: Instant) -> Option<u64> {
        let mut all = self.0.borrow_mut();
        let has_paused = |last: &Last| now.saturating_duration_since(last.said) >= PAUSE;
        if let Some(last) = all.get_mut(&(listener, reason)) {
            if !has_paused(last) {
                last.unsaid += 1;
                return None;
            }
            last.said = now;
            return Some(std::mem::take(&mut last.unsaid));
        }
        if all.len() >= MANY {
            all.retain(|_, last| !has_paused(last));
        }
        all.insert((listener, reason), Last { said: now, unsaid: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while_and_the_rest_is_counted() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let due = |listener, reason, after| complaints.due(ListenerId(listener), reason, start + PAUSE * after / 10);
        assert_eq!(due(1, Closed::BadRequest, 0), Some(0));
        assert_eq!(due(1, Closed::BadRequest, 1), None);
        assert_eq!(due(1, Closed::TlsHandshake, 1), Some(0));
        assert_eq!(due(2, Closed::BadRequest, 1), Some(0));
        assert_eq!(due(1, Closed::BadRequest, 9), None);
        assert_eq!(due(1, Closed::BadRequest, 10), Some(2));
        assert_eq!(due(1, Closed::BadRequest, 20), Some(0));
    }

    #[test]
    fn listeners_that_are_gone_are_forgotten() {
        let complaints = Complaints::default();
        let start = Instant::now();
        for listener in 0..10_000 {
            complaints.due(ListenerId(listener), Closed::BadRequest, start + PAUSE * listener as u32);
        }
        assert!(complaints.0.borrow().len() <= MANY);
    }
}
