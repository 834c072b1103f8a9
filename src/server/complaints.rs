//! How often a worker says what goes wrong: at once, and then no more often than anybody wants to read.

use std::{
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::runtime::ListenerId;

/// How often the same is said of the same listener, or of all.
const PAUSE: Duration = Duration::from_secs(10);

/// Listeners come and go with edits: past so many entries, those that have had their pause are forgotten. Where there are as many
/// all the same, details make no difference any more.
const MANY: usize = 256;

/// When what was said last.
#[derive(Debug, Default)]
pub(super) struct Complaints(RefCell<HashMap<What, Last>>);

/// A listener, or the worker as a whole; a token; a detail.
type What = (Option<ListenerId>, &'static str, String);

#[derive(Debug)]
struct Last {
    said: Instant,
    unsaid: u64,
}

impl Complaints {
    /// Whether to say it now: with the number of times that it was not said before, or `None`.
    pub(super) fn due(
        &self,
        listener: Option<ListenerId>,
        token: &'static str,
        detail: &str,
        now: Instant,
    ) -> Option<u64> {
        let mut all = self.0.borrow_mut();
        let has_paused = |last: &Last| now.saturating_duration_since(last.said) >= PAUSE;
        if all.len() >= MANY {
            all.retain(|_, last| !has_paused(last));
        }
        let detail = if all.len() < MANY { detail } else { "" };
        let key = (listener, token, detail.to_owned());
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
        let due = |listener, token, why, after| {
            complaints.due(Some(ListenerId(listener)), token, why, start + PAUSE * after / 10)
        };
        assert_eq!(due(1, "bad_request", "a", 0), Some(0));
        assert_eq!(due(1, "bad_request", "a", 1), None);
        assert_eq!(due(1, "bad_request", "b", 1), Some(0));
        assert_eq!(due(1, "tls_handshake", "a", 1), Some(0));
        assert_eq!(due(2, "bad_request", "a", 1), Some(0));
        assert_eq!(due(1, "bad_request", "a", 9), None);
        assert_eq!(due(1, "bad_request", "a", 10), Some(2));
        assert_eq!(due(1, "bad_request", "a", 20), Some(0));
    }

    #[test]
    fn it_remembers_no_more_than_it_must() {
        let complaints = Complaints::default();
        let start = Instant::now();
        for number in 0..10_000_usize {
            complaints.due(None, "bad_request", &number.to_string(), start);
            complaints.due(Some(ListenerId(number)), "bad_request", "", start + PAUSE * number as u32);
        }
        assert!(complaints.0.borrow().len() <= MANY + 1);
    }
}
