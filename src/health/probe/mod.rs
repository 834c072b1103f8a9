//! One probe: one fresh connection, one deadline, one outcome.
//!
//! Every answer and every silence of a backend becomes an [`Outcome`]; nothing is an error. The deadline includes the
//! connect. Where the timer of that deadline fires much too late, the outcome says so instead of blaming the backend.

mod conversation;
mod document;
mod expect;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grpc;
mod http;
mod overheard;
mod tcp;
mod tls;
#[cfg(test)]
mod tests;

use std::{
    hash::{Hash, Hasher},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ::http::{HeaderValue, uri::Authority};
use tokio::time::{Instant, timeout_at};

use super::{
    Kind, Outcome,
    outcome::{Millis, quoted, snippet},
};
use crate::{
    base::{Timestamp, duration::Written},
    config::plan::{HealthCheck, ProbeKind, ProbeTls},
    net::{Address, Socket},
    tls::{Connector, PeerName},
    upstream::{Dial, DialError, Member, Secured, Transport},
};

/// A health check, and what all backends share that it asks.
#[derive(Debug)]
pub(super) struct Prepared {
    check: HealthCheck,
    /// Of a check with TLS of its own.
    connector: Option<Arc<Connector>>,
}

impl Prepared {
    /// Once for each check: a connector knows all authorities of the system.
    pub(super) fn new(check: &HealthCheck) -> Arc<Self> {
        let connector = match &check.tls {
            ProbeTls::AsBackend | ProbeTls::Plain => None,
            ProbeTls::Own(own) => Some(Connector::new(&own.trust).expect("the check of the config has made one")),
        };
        Arc::new(Self { check: check.clone(), connector: connector.map(Arc::new) })
    }

    /// What is asked, and how often.
    pub(super) const fn check(&self) -> &HealthCheck {
        &self.check
    }

    fn dial(&self, member: &Member) -> Dial {
        let dial = member.backend.dial();
        let address = match (self.check.address, self.check.port) {
            (None, None) => dial.address.clone(),
            (None, Some(port)) => dial.address.at_port(port),
            (Some(ip), port) => {
                let own = || dial.address.tcp().map_or(0, |address| address.port());
                SocketAddr::new(ip, port.unwrap_or_else(own)).into()
            }
        };
        let tls = match &self.check.tls {
            ProbeTls::AsBackend => dial.tls.clone(),
            ProbeTls::Plain => None,
            ProbeTls::Own(own) => self.connector.as_ref().map(|connector| {
                let backends = || dial.tls.as_ref().map_or_else(|| name_of(&member.authority), |tls| tls.name.clone());
                Secured { connector: Arc::clone(connector), name: own.name.clone().unwrap_or_else(backends) }
            }),
        };
        Dial { address, tls, protocol: self.check.protocol.unwrap_or(dial.protocol) }
    }
}

/// The name of a backend in its certificate, where nothing else is said.
fn name_of(authority: &HeaderValue) -> PeerName {
    let authority = Authority::try_from(authority.as_bytes()).ok();
    let host = authority.as_ref().map_or("", Authority::host).trim_matches(['[', ']']);
    PeerName::parse(host).expect("an authority has a name or an address")
}

/// Whom to ask, and what. Two are equal if the same is asked in the same way of the same address.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// How the backend is reached, as the check has it.
    pub(super) dial: Dial,
    /// The `Host` of the request unless the check names another.
    pub(super) authority: HeaderValue,
    /// The question itself.
    prepared: Arc<Prepared>,
}

impl Question {
    /// What a check asks a member.
    pub(super) fn new(member: &Member, prepared: &Arc<Prepared>) -> Self {
        let (dial, authority) = (prepared.dial(member), member.authority.clone());
        Self { dial, authority, prepared: Arc::clone(prepared) }
    }

    /// What is asked, and how often.
    pub(super) fn check(&self) -> &HealthCheck {
        self.prepared.check()
    }
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        let is_same_check = Arc::ptr_eq(&self.prepared, &other.prepared) || self.check() == other.check();
        is_same_check && self.dial == other.dial && self.authority == other.authority
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.check().hash(state);
        self.dial.hash(state);
        self.authority.as_bytes().hash(state);
    }
}

/// Asks a backend once, over a connection of its own.
pub(super) async fn ask(question: &Question) -> Outcome {
    let mut attempt = Attempt::begin(question.check().timeout);
    let result = match &question.check().kind {
        ProbeKind::Grpc(probe) => grpc::probe(&mut attempt, question, probe).await,
        ProbeKind::Http(probe) => http::probe(&mut attempt, question, probe).await,
        ProbeKind::Tcp(probe) => tcp::probe(&mut attempt, question, probe).await,
        ProbeKind::Tls(probe) => tls::probe(&mut attempt, question, probe).await,
    };
    attempt.end(result)
}

/// A probe under way: its deadline and what it has seen so far.
struct Attempt {
    at: Timestamp,
    started: Instant,
    timeout: Duration,
    connect: Option<Duration>,
    tls: Option<Duration>,
    first_byte: Option<Duration>,
    status: Option<u16>,
    /// What a probe that passes has found, in short.
    found: String,
    body: Option<String>,
}

/// Why a probe did not pass, or passes with a warning.
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

    fn degraded(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: Kind::Degraded, reason, detail: detail.into() }
    }

    fn ours(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: Kind::Inconclusive, reason, detail: detail.into() }
    }
}

impl Attempt {
    fn begin(timeout: Duration) -> Self {
        let (at, started) = (Timestamp::now(), Instant::now());
        let found = "connected".to_owned();
        Self { at, started, timeout, connect: None, tls: None, first_byte: None, status: None, found, body: None }
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
        let transport = secured.map_err(|error| match error {
            DialError::Tls(why) => Failure::new("tls", format!("TLS: {why}")),
            DialError::Connect(error) => not_connected(&error),
            DialError::Protocol => Failure::new("protocol", error.to_string()),
        })?;
        self.tls = dial.tls.is_some().then(|| self.started.elapsed());
        Ok(transport)
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
        let Self { at, connect, tls, first_byte, status, found, body, .. } = self;
        let Failure { kind, reason, detail } = result.err().unwrap_or_else(|| {
            let detail = format!("{found} in {}", Millis(total));
            Failure { kind: Kind::Pass, reason: "passed", detail }
        });
        Outcome { kind, reason, detail, status, connect, tls, first_byte, total, body, at }
    }
}

/// How much of a body, and how long a head, is read.
const READ_LIMIT: usize = 64 * 1024;

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
