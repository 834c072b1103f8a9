//! One probe: one fresh connection, one deadline, one outcome.
//!
//! Every answer and every silence of a backend becomes an [`Outcome`]; nothing is an error. The deadline includes the
//! connect. Where the timer of that deadline fires much too late, the outcome says so instead of blaming the backend.

mod http;
mod tcp;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use ::http::HeaderValue;
use tokio::time::{Instant, timeout_at};

use super::{
    Kind, Outcome,
    outcome::{Millis, snippet},
};
use crate::{
    base::{Timestamp, duration::Written},
    config::plan::{HealthCheck, ProbeKind},
    net::{Address, Socket},
    upstream::{Dial, DialError, Member, Transport},
};

/// Whom to ask, and what.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    /// How the backend is reached, at the port of the check if that has one.
    pub(super) dial: Dial,
    /// The `Host` of the request unless the check names another.
    pub(super) authority: HeaderValue,
    /// The question itself.
    pub(super) check: HealthCheck,
}

impl Question {
    /// What a check asks a member.
    pub(super) fn new(member: &Member, check: &HealthCheck) -> Self {
        let mut dial = member.backend.dial().clone();
        if let Some(port) = check.port {
            dial.address = dial.address.at_port(port);
        }
        Self { dial, authority: member.authority.clone(), check: check.clone() }
    }
}

/// Asks a backend once, over a connection of its own.
pub(super) async fn ask(question: &Question) -> Outcome {
    let mut attempt = Attempt::begin(question.check.timeout);
    let result = match &question.check.kind {
        ProbeKind::Http(probe) => http::probe(&mut attempt, question, probe).await,
        ProbeKind::Tcp => tcp::probe(&mut attempt, question).await,
    };
    attempt.end(result)
}

/// A probe under way: its deadline and what it has seen so far.
struct Attempt {
    at: Timestamp,
    started: Instant,
    timeout: Duration,
    connect: Option<Duration>,
    first_byte: Option<Duration>,
    status: Option<u16>,
    body: Option<String>,
}

/// Why a probe did not pass.
#[derive(Debug, Eq, PartialEq)]
struct Failure {
    kind: Kind,
    reason: &'static str,
    detail: String,
}

impl Failure {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: Kind::Fail, reason, detail: detail.into() }
    }

    fn ours(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: Kind::Inconclusive, reason, detail: detail.into() }
    }
}

impl Attempt {
    fn begin(timeout: Duration) -> Self {
        let (at, started) = (Timestamp::now(), Instant::now());
        Self { at, started, timeout, connect: None, first_byte: None, status: None, body: None }
    }

    fn deadline(&self) -> Instant {
        self.started + self.timeout
    }

    /// Opens the connection.
    async fn connect(&mut self, address: &Address) -> Result<Socket, Failure> {
        let connected = self.within("connect_timeout", "connection", address.connect()).await?;
        let socket = connected.map_err(|error| not_connected(&error))?;
        self.connect = Some(self.started.elapsed());
        Ok(socket)
    }

    /// Opens the connection and shakes hands, where that is said.
    async fn dial(&mut self, dial: &Dial) -> Result<Transport, Failure> {
        let socket = self.connect(&dial.address).await?;
        let secured = self.within("tls_timeout", "TLS handshake", dial.secure(socket)).await?;
        secured.map_err(|error| match error {
            DialError::Tls(why) => Failure::new("tls", format!("TLS: {why}")),
            DialError::Connect(error) => not_connected(&error),
            DialError::Protocol => Failure::new("protocol", error.to_string()),
        })
    }

    /// Waits until the deadline. `timeout_at` asks the future first, so an answer that is there counts even when we are late.
    async fn within<T>(&self, reason: &'static str, what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.deadline(), future).await.map_err(|_elapsed| {
            let late = self.deadline().elapsed();
            match late > (self.timeout / 2).max(TOLERATED_LATENESS) {
                true => Failure::ours("late", format!("this gateway was {} late", Millis(late))),
                false => Failure::new(reason, format!("no {what} within {}", Written(self.timeout))),
            }
        })
    }

    /// Keeps the first bytes of the body.
    fn show(&mut self, body: &[u8]) {
        self.body = Some(snippet(body)).filter(|text| !text.is_empty());
    }

    fn end(self, result: Result<(), Failure>) -> Outcome {
        let total = self.started.elapsed();
        let (kind, reason, detail) = match (result, self.status) {
            (Err(failure), _) => (failure.kind, failure.reason, failure.detail),
            (Ok(()), Some(status)) => (Kind::Pass, "passed", format!("{status} in {}", Millis(total))),
            (Ok(()), None) => (Kind::Pass, "passed", format!("connected in {}", Millis(total))),
        };
        let Self { at, connect, first_byte, status, body, .. } = self;
        Outcome { kind, reason, detail, status, connect, first_byte, total, body, at }
    }
}

/// A deadline timer that fires later than this, and later than half the timeout, tells of our own load.
const TOLERATED_LATENESS: Duration = Duration::from_millis(500);

fn not_connected(error: &io::Error) -> Failure {
    match error.kind() {
        _ if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => {
            Failure::ours("descriptors", format!("no socket for the probe: {error}"))
        }
        io::ErrorKind::ConnectionRefused => Failure::new("connect_refused", "connect refused"),
        io::ErrorKind::TimedOut => Failure::new("connect_timeout", "connect timed out"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            Failure::new("reset", "connection reset while connecting")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
            Failure::new("unreachable", format!("unreachable: {error}"))
        }
        _ => Failure::new("connect_failed", format!("connect failed: {error}")),
    }
}

// The same numbers on Linux, the BSDs and macOS; `std::io::ErrorKind` has no stable names for them.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
