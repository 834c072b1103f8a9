//! What live traffic has to say of backends: counted where it happens, told to the upstream's health task.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc;

use super::Slot;

/// Something that traffic has seen of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// It asks for no more requests, in a response.
    AsksToDrain {
        /// The backend.
        slot: Slot,
        /// For how long.
        lasts: Duration,
    },
    /// A request has failed by its doing.
    Failed {
        /// The backend.
        slot: Slot,
        /// Why, as a token: that of a fault, or `status`, `slow`.
        reason: &'static str,
        /// The status of its response, where there was one.
        status: Option<u16>,
        /// When it wants to be asked again, if it says so.
        retry_after: Option<Duration>,
    },
}

impl Evidence {
    /// Whom it is about.
    #[must_use]
    pub const fn slot(self) -> Slot {
        match self {
            Self::AsksToDrain { slot, .. } | Self::Failed { slot, .. } => slot,
        }
    }
}

/// The way from the workers to the health task. A full one loses the message; what is counted is counted.
#[derive(Debug)]
pub(super) struct Channel {
    sender: mpsc::Sender<Evidence>,
    receiver: Mutex<Option<mpsc::Receiver<Evidence>>>,
}

/// More than the task takes in at once: the rest would say the same.
const QUEUE: usize = 256;

impl Default for Channel {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Channel {
    pub(super) fn report(&self, evidence: Evidence) {
        // A full queue is not an error: the task looks at counts, and is about to.
        let _ = self.sender.try_send(evidence);
    }

    pub(super) fn take(&self) -> Option<mpsc::Receiver<Evidence>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
