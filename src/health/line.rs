//! Equal questions of several upstreams, put once.
//!
//! Whoever wants to know something of a backend gets a [`Line`] from the [`Switchboard`]; those with the same question get the same
//! line. Each keeps its own schedule: the one whose time comes first asks, and all the others hear the answer as if they had.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{Mutex as Turn, watch},
    time::{Instant, sleep_until},
};

use super::{Outcome, cadence::Vouching, probe::Question};
use crate::net::Address;

/// When a probe began, and its outcome.
pub(super) type Reply = (Instant, Arc<Outcome>);

/// One question to one backend, and the last reply to it.
#[derive(Debug)]
pub(super) struct Line {
    question: Question,
    last: watch::Sender<Option<Reply>>,
    turn: Turn<()>,
}

impl Line {
    fn new(question: Question) -> Self {
        Self { question, last: watch::Sender::new(None), turn: Turn::default() }
    }

    /// What is asked.
    pub(super) const fn question(&self) -> &Question {
        &self.question
    }

    /// Waits for the next reply: asks when it is time, unless somebody else does before.
    pub(super) async fn reply<F: Future<Output = Reply>>(
        &self,
        mut due: Instant,
        mut vouching: Option<Vouching>,
        ask: impl FnOnce() -> F,
    ) -> Reply {
        let mut heard = self.last.subscribe();
        loop {
            tokio::select! {
                biased;
                reply = next(&mut heard) => return reply,
                () = sleep_until(due) => {}
            }
            match vouching.as_mut().and_then(|traffic| traffic.postpone(due)) {
                Some(later) => due = later,
                None => break,
            }
        }
        let _turn = self.turn.lock().await;
        // Whoever had the turn before has asked.
        if heard.has_changed().unwrap_or(false) {
            return next(&mut heard).await;
        }
        let reply = ask().await;
        self.last.send_replace(Some(reply.clone()));
        reply
    }
}

/// The next reply that somebody publishes.
async fn next(heard: &mut watch::Receiver<Option<Reply>>) -> Reply {
    loop {
        // The line that is waited on holds the sender, so the channel does not close.
        if heard.changed().await.is_ok()
            && let Some(reply) = heard.borrow_and_update().clone()
        {
            return reply;
        }
    }
}

/// All lines in use, by the address that they lead to.
#[derive(Debug, Default)]
pub(super) struct Switchboard(Mutex<HashMap<Address, Vec<Weak<Line>>>>);

impl Switchboard {
    /// The line of a question.
    pub(super) fn line(&self, question: Question) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = lines.entry(question.dial.address.clone()).or_default();
        there.retain(|line| line.strong_count() > 0);
        let same = there.iter().filter_map(Weak::upgrade).find(|line| line.question == question);
        let line = same.unwrap_or_else(|| Arc::new(Line::new(question)));
        if !there.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&line))) {
            there.push(Arc::downgrade(&line));
        }
        line
    }

    /// Forgets addresses to which no line leads any more.
    pub(super) fn sweep(&self) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, there| there.iter().any(|line| line.strong_count() > 0));
    }
}
