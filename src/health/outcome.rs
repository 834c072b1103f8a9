//! What one probe has found: the answer as a kind, a reason and words, with timings and the first bytes of the body.

use std::{fmt, time::Duration};

use crate::base::Timestamp;

/// What an outcome says of the backend.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Fit.
    Pass,
    /// Fit, and says itself that something is wrong.
    Degraded,
    /// Not fit.
    Fail,
    /// Nothing: it was our own fault (we were late, or out of file descriptors). Moves no verdict.
    Inconclusive,
}

impl Kind {
    /// The word that metrics and the admin API show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Pass => "pass",
        }
    }

    /// Whether it says that the backend can take traffic.
    #[must_use]
    pub const fn is_fit(self) -> bool {
        matches!(self, Self::Pass | Self::Degraded)
    }
}

/// The outcome of one probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// What it says of the backend.
    pub kind: Kind,
    /// Why, as a token. `passed`. Of the answer: `status`, `header`, `body` (also of an answer in TCP), `json`, `document` (what a
    /// health document says); `grpc_status`, `not_serving`; `certificate` (how long it is valid). Of the way to it:
    /// `connect_refused`, `connect_timeout`, `connect_failed`, `unreachable`, `tls`, `tls_timeout`, `timeout`, `reset`, `closed`,
    /// `bad_response`, `protocol` (another HTTP is spoken), `bad_request`. Our own: `late`, `descriptors`, `panic`.
    pub reason: &'static str,
    /// Why, in words: `200 in 3 ms`, `connect refused`, `status 503, expected 200-399`.
    pub detail: String,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// From the start to the open connection.
    pub connect: Option<Duration>,
    /// From the start to the end of the handshake, where TLS is spoken.
    pub tls: Option<Duration>,
    /// From the start to the head of the answer.
    pub first_byte: Option<Duration>,
    /// From the start to the end.
    pub total: Duration,
    /// The first 200 bytes of the body, where it was read. From the backend, not trusted: control characters are escaped.
    pub body: Option<String>,
    /// When the probe began.
    pub at: Timestamp,
}

impl Outcome {
    /// The outcome of a probe that panicked: a fault of ours.
    pub(super) fn panicked() -> Self {
        Self {
            kind: Kind::Inconclusive,
            reason: "panic",
            detail: "the probe panicked".to_owned(),
            status: None,
            connect: None,
            tls: None,
            first_byte: None,
            total: Duration::ZERO,
            body: None,
            at: Timestamp::now(),
        }
    }
}

/// Bytes of a body that are kept to be shown.
pub(super) const SNIPPET_LEN: usize = 200;

/// The first bytes of a body as printable text.
pub(super) fn snippet(body: &[u8]) -> String {
    printable(&String::from_utf8_lossy(body.get(..SNIPPET_LEN).unwrap_or(body)))
}

/// What a backend has said, as it fits into a sentence: printable, and no longer than `longest` characters.
pub(super) fn quoted(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((cut, _)) => format!("{}…", printable(text.get(..cut).unwrap_or_default())),
        None => printable(text),
    }
}

fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => printable.extend(c.escape_default()),
            false => printable.push(c),
        }
    }
    printable
}

/// Prints a short duration in milliseconds, with one decimal below 1 ms: `3 ms`, `0.4 ms`.
pub(super) struct Millis(pub(super) Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1_000.0;
        match millis < 1.0 {
            true => write!(f, "{millis:.1} ms"),
            false => write!(f, "{millis:.0} ms"),
        }
    }
}
