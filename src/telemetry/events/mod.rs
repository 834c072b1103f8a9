//! What operators want to see as it happens: a backend that went down, a reload, a refused edit.
//!
//! Anything may emit an event, also a data-plane worker: emitting never blocks. One writer thread renders them, as text on
//! a terminal and as JSON lines elsewhere. What to say is decided where it happens; how it looks is decided here.

mod log;
mod render;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::SyncSender,
    },
    time::Duration,
};

pub use log::{EventLog, Recorded, Sink};
pub use render::{Line, TextRenderer};

use crate::{
    base::{Name, Timestamp},
    config::plan::LogLevel,
};

/// Something that an operator wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A backend's shown state changed.
    Backend {
        /// Its upstream.
        upstream: Name,
        /// The backend.
        backend: Name,
        /// The state before (`up`, `down`, `checking`, ...).
        from: &'static str,
        /// The state now.
        to: &'static str,
        /// Who changed it: `active`, `live_traffic`, `operator`, `backend`, `reload`.
        source: &'static str,
        /// The reason as a token, e.g. `connect_refused`, `status`, `timeout`, `passed`.
        reason: &'static str,
        /// The reason in words, e.g. `probe 200 in 3 ms`, `2 good probes`.
        detail: String,
        /// The health check that decided, where one did.
        check: Option<Name>,
        /// How long the state before had lasted, where there was one.
        lasted: Option<Duration>,
        /// Backends of the upstream that are eligible now.
        eligible: usize,
        /// All its backends.
        total: usize,
        /// The generation of the config that was live.
        generation: u64,
    },
    /// A date has changed the stage of an API.
    Api {
        /// The API.
        api: Name,
        /// Its version.
        version: String,
        /// The stage before.
        from: &'static str,
        /// The stage now.
        to: &'static str,
        /// Which date has come, and how many callers are known, in words.
        detail: String,
    },
    /// A client's connection ended before it brought a request, or in the middle of one's head: the access log has no line of it.
    Client {
        /// The listener.
        listener: Name,
        /// The client, or the proxy in front of it.
        peer: IpAddr,
        /// Why, as a token: `bad_request`, `tls_handshake`, ...
        reason: &'static str,
        /// Why, in words.
        detail: String,
        /// How many more ended so on this worker since that was said last.
        more: u64,
    },
    /// An edit went live.
    Reloaded {
        /// The new generation.
        generation: u64,
        /// What changed, e.g. `+1 route, ~1 upstream`.
        summary: String,
        /// Who asked, e.g. `file watch`, `SIGHUP`.
        by: &'static str,
    },
    /// An edit was refused; the generation before stays.
    Refused {
        /// The file.
        file: String,
        /// The generation that goes on.
        generation: u64,
        /// How many errors it has.
        errors: usize,
        /// The findings, one line each.
        findings: Vec<String>,
        /// Who asked.
        by: &'static str,
    },
    /// A stage of the process: started, draining, stopped, ...
    Process {
        /// One word: `ready`, `draining`, `drained`, `cut`, ...
        stage: &'static str,
        /// The rest of the sentence.
        detail: String,
    },
    /// Something is wrong and traffic goes on.
    Warning {
        /// A token, e.g. `accept_failed`, `panic`, `access_log`.
        what: &'static str,
        /// The rest of the sentence.
        detail: String,
    },
}

impl Event {
    /// How important it is: whether it is said at a level of the log.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        match self {
            Self::Backend { to: "down" | "degraded" | "ejected", .. }
            | Self::Api { to: "retired", .. }
            | Self::Process { stage: "cut", .. }
            | Self::Warning { .. } => LogLevel::Warn,
            Self::Api { .. }
            | Self::Backend { .. }
            | Self::Client { .. }
            | Self::Process { .. }
            | Self::Reloaded { .. } => LogLevel::Info,
            Self::Refused { .. } => LogLevel::Error,
        }
    }
}

/// A handle to emit events with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    queue: SyncSender<(Timestamp, Event)>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// Events go to the queue; one that finds it full is dropped and counted in `lost`.
    #[must_use]
    pub fn new(queue: SyncSender<(Timestamp, Event)>) -> Self {
        Self { queue, lost: Arc::default() }
    }

    /// Says what happened. Never blocks.
    pub fn emit(&self, event: Event) {
        if self.queue.try_send((Timestamp::now(), event)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Events that found the queue full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

#[cfg(test)]
mod tests;
