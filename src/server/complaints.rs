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

/// Listeners come and go with edits: past so many entries, those that have had their pause are forgotten. Where there are as many
/// all the same, details make no difference any more.
const MANY: usize = 256;

/// When what was said last, by listener, reason and detail.
#[derive(Debug, Default)]
pub(super) struct Complaints(RefCell<HashMap<(ListenerId, Closed, String), Last>>);

#[derive(Debug)]
struct Last {
    said: Instant,
    unsaid: u64,
}

impl Complaints {
    /// Whether to say now that another connection ended so: with the number of those of which that was not said, or `None`.
    pub(super) fn due(&self, listener: ListenerId, reason: Closed, detail: &str, now: Instant) -> Option<u64> {
        let mut all = self.0.borrow_mut();
        let has_paused = |last: &Last| now.saturating_duration_since(last.said) >= PAUSE;
        if all.len() >= MANY {
            all.retain(|_, last| !has_paused(last));
        }
        let detail = if all.len() < MANY { detail } else { "" };
        let key = (listener, reason, detail.to_owned());
        if let Some(last) = all.get_mut(&key) {
            if !has_paused(last) {
                last.unsaid += 1;
                return None;
            }
            last.said = now;
            return Some(std::mem::take(&mut last.unsaid));
        }
        all.insert(key, Last { said: now, unsaid: 0 });
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
        let due = |listener, reason, why, after| {
            complaints.due(ListenerId(listener), reason, why, start + PAUSE * after / 10)
        };
        assert_eq!(due(1, Closed::BadRequest, "a", 0), Some(0));
        assert_eq!(due(1, Closed::BadRequest, "a", 1), None);
        assert_eq!(due(1, Closed::BadRequest, "b", 1), Some(0));
        assert_eq!(due(1, Closed::TlsHandshake, "a", 1), Some(0));
        assert_eq!(due(2, Closed::BadRequest, "a", 1), Some(0));
        assert_eq!(due(1, Closed::BadRequest, "a", 9), None);
        assert_eq!(due(1, Closed::BadRequest, "a", 10), Some(2));
        assert_eq!(due(1, Closed::BadRequest, "a", 20), Some(0));
    }

    #[test]
    fn it_remembers_no_more_than_it_must() {
        let complaints = Complaints::default();
        let start = Instant::now();
        for number in 0..10_000_usize {
            complaints.due(ListenerId(1), Closed::BadRequest, &number.to_string(), start);
            complaints.due(ListenerId(number), Closed::BadRequest, "", start + PAUSE * number as u32);
        }
        assert!(complaints.0.borrow().len() <= MANY + 1);
    }
}
