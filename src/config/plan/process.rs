use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use super::Bind;
use crate::base::Percent;

/// Threads that carry traffic.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Workers {
    /// One per core that the process may use (affinity and cgroup quota).
    #[default]
    Auto,
    /// This many.
    Count(NonZeroU16),
}

/// Where the gateway answers for itself.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Admin {
    /// A loopback address or a Unix socket, until the admin API has auth of its own. Default 127.0.0.1:9901.
    pub bind: Bind,
}

/// One line of JSON per request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AccessLog {
    /// Where it goes.
    pub to: Destination,
}

/// Where a log goes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Destination {
    /// Appended to this file, reopened on USR1.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// What is said on the terminal.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Log {
    /// The least that is said.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// How important a log line is, least first.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LogLevel {
    /// For whoever debugs the gateway.
    Debug,
    /// Transitions that operators want to see.
    #[default]
    Info,
    /// Something is wrong and traffic goes on.
    Warn,
    /// Something failed.
    Error,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// How the process stops.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Shutdown {
    /// Between readiness failing and listeners closing, for load balancers to notice. Default 0 s.
    pub delay: Duration,
    /// For requests in flight to finish, then they are cut. Default 30 s.
    pub timeout: Duration,
}

/// How edits are picked up.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Reload {
    /// Whether the file is watched. Default true. SIGHUP reloads either way.
    pub watch: bool,
    /// Quiet time after a change before the file is read. Default 200 ms.
    pub debounce: Duration,
    /// The part of the backends of an upstream that must be fit for an edit of them to go live. Default 0%: none.
    pub min_healthy: Percent,
}

/// How the names of backends are looked up.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Dns {
    /// Who is asked; empty: the servers of the system.
    pub servers: Vec<SocketAddr>,
    /// For one look-up with all its questions. Default 2 s.
    pub timeout: Duration,
    /// What a shorter TTL counts as. Default 1 s.
    pub min_ttl: Duration,
    /// What a longer TTL counts as; at least `min_ttl`. Default 5 min.
    pub max_ttl: Duration,
    /// How long addresses outlive the word of DNS that the name has none. Default 30 s.
    pub hold: Duration,
    /// Which addresses are used.
    pub family: Family,
}

/// Kinds of addresses.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// A records alone.
    Ipv4,
    /// AAAA records alone.
    Ipv6,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: vec![],
            timeout: Duration::from_secs(2),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(300),
            hold: Duration::from_secs(30),
            family: Family::Any,
        }
    }
}
