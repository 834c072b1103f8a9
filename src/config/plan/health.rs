use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue, Method};

use crate::base::Percent;

/// How the backends of an upstream are judged, and what happens when none is left.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Health {
    /// How a backend is asked; a backend is fit where every check says so. None leaves every backend `unchecked`.
    pub checks: Vec<HealthCheck>,
    /// What happens to requests while no backend is eligible.
    pub when_all_down: WhenAllDown,
}

impl Health {
    /// Whether anybody asks the backends.
    #[must_use]
    pub const fn is_checked(&self) -> bool {
        !self.checks.is_empty()
    }
}

/// What happens to requests while no backend is eligible.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum WhenAllDown {
    /// 503 at once.
    #[default]
    Fail,
    /// Traffic goes to all of them as if all were up. Shown in `/health` while it is in force.
    TryAll,
}

/// How a backend's health is asked, and what the answers mean.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HealthCheck {
    /// The question.
    pub kind: ProbeKind,
    /// The port to ask; `None` is the backend's own.
    pub port: Option<u16>,
    /// Between probes in steady state. Default 10 s.
    pub interval: Duration,
    /// Between probes while a verdict is pending. Default 1 s, never above `interval`.
    pub interval_changing: Duration,
    /// The deadline of one probe, connect included. Default 2 s.
    pub timeout: Duration,
    /// Passes in a row that bring a backend back. Default 2.
    pub healthy_after: u16,
    /// Failures in a row that take a backend out. Default 3.
    pub unhealthy_after: u16,
    /// Each interval is lengthened or shortened at random by up to this share. Default 10%.
    pub jitter: Percent,
}

/// The question of a health check.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ProbeKind {
    /// An HTTP/1.1 request on a fresh connection.
    Http(HttpProbe),
    /// A TCP connect.
    Tcp,
}

/// An HTTP probe's request and what it expects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpProbe {
    /// Path and query, starting with `/`.
    pub path: String,
    /// Default `GET`.
    pub method: Method,
    /// Sent as they are; `host` here replaces the backend's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What passes.
    pub expect: Expect,
}

// `HeaderValue` has no `Hash` that its `Eq` would promise to agree with across versions: hash its bytes.
impl std::hash::Hash for HttpProbe {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.path.hash(state);
        self.method.hash(state);
        for (name, value) in &self.headers {
            name.as_str().hash(state);
            value.as_bytes().hash(state);
        }
        self.expect.hash(state);
    }
}

/// What an HTTP probe expects; all of it must hold.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Expect {
    /// Ranges of statuses that pass. Default 200-399. Redirects are not followed.
    pub status: Vec<StatusRange>,
    /// Text that the first 64 KiB of the body must hold; `None` does not read the body for it.
    pub body: Option<String>,
}

/// An inclusive range of statuses.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StatusRange {
    /// The lowest that passes.
    pub first: u16,
    /// The highest that passes.
    pub last: u16,
}

impl StatusRange {
    /// Whether the status lies within.
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}
