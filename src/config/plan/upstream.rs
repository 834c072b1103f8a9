use std::{fmt, net::IpAddr, path::Path, sync::Arc, time::Duration};

use http::HeaderValue;

use super::{Balance, Health};
use crate::{
    base::Name,
    tls::{PeerName, Trust},
};

/// A named group of interchangeable backends.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Upstream {
    /// As written, or for an anonymous one the name of its route.
    pub name: Name,
    /// Written inside a route (`to: ADDR`) rather than under `upstreams`.
    pub anonymous: bool,
    /// In the order of the file; at least one.
    pub backends: Vec<Backend>,
    /// How one of the eligible backends is chosen.
    pub balance: Balance,
    /// The `Host` that backends see.
    pub host: HostHeader,
    /// TLS to all of its backends, or to none.
    pub tls: Option<UpstreamTls>,
    /// What is spoken to its backends.
    pub protocol: Protocol,
    /// How its backends are judged.
    pub health: Health,
    /// How long a backend that comes back takes to get its whole share. Zero: no time.
    pub slow_start: Duration,
    /// Requests in flight per backend over all workers; `None` is unlimited.
    pub max_in_flight: Option<u32>,
    /// Open connections per backend over all workers; `None` is unlimited. A request waits for a free one up to its connect timeout.
    pub max_connections: Option<u32>,
    /// Idle connections kept per backend and worker. Default 256.
    pub max_idle_connections: u32,
    /// How long an idle connection is kept. Default 60 s.
    pub idle: Duration,
    /// Age at which a connection is no longer reused. Default 1 h. Zero: never too old.
    pub max_connection_age: Duration,
}

/// One replica, as written.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Backend {
    /// As written, else `host:port`.
    pub name: Name,
    /// Where it is.
    pub host: Host,
    /// Its port, 1 to 65,535; 0 on a Unix socket.
    pub port: u16,
    /// Whether TLS is spoken to it (`https://`). All backends of an upstream agree.
    pub tls: bool,
    /// Its share of traffic relative to its peers, 1 to 1,000. Default 1.
    pub weight: u16,
    /// 0 for a primary, 1 to 9 for a backup: used only while those of the tiers below cannot carry the traffic.
    pub tier: u8,
}

/// The host part of a backend's address.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// Looked up in DNS; each address is a backend of its own, named `name@address`. (`localhost` is 127.0.0.1, an `Ip`.)
    Dns(Name),
    /// An address.
    Ip(IpAddr),
    /// A Unix socket, which has no port.
    Unix(Arc<Path>),
}

/// TLS to backends.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct UpstreamTls {
    /// How they are recognised, and what they are shown.
    pub trust: Trust,
    /// The name in their certificates; `None` is that of each backend's own address.
    pub name: Option<PeerName>,
}

/// What is spoken to backends.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Protocol {
    /// Whatever the handshake of TLS agrees on.
    Auto,
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by prior knowledge, or as agreed in the handshake.
    Http2,
}

/// The `Host` header that backends see.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum HostHeader {
    /// The backend's own `host:port`.
    Backend,
    /// Always this one.
    Literal(HeaderValue),
    /// The client's.
    #[default]
    Preserve,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix(_) => f.write_str("localhost"),
        }
    }
}

impl Backend {
    /// `host:port`, IPv6 in brackets: what a `Host` header for it says.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.host {
            Host::Dns(name) => format!("{name}:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => format!("{ip}:{}", self.port),
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            Host::Unix(_) => "localhost".to_owned(),
        }
    }
}
