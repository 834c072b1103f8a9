use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::HeaderName;
use ipnet::IpNet;

use crate::{base::Name, tls};

/// An address that accepts clients.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Listener {
    /// Its name in routes, logs and metrics.
    pub name: Name,
    /// Where it listens.
    pub bind: Bind,
    /// The PROXY header that every connection starts with; `None` expects none. Default none.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Connections open at once; those above are closed as they are accepted. Default 65,536.
    pub max_connections: u32,
    /// What one connection and one request may be.
    pub limits: ClientLimits,
    /// Whether clients may speak HTTP/2. Default yes.
    pub http2: bool,
    /// Requests at once on one HTTP/2 connection. Default 128.
    pub max_concurrent_streams: u32,
    /// Peers whose `X-Forwarded-*` is believed, sorted. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// What it shows its clients; `None` speaks plain HTTP.
    pub tls: Option<Tls>,
    /// The port that it sends its clients to, with `https`, where no route names it; `None` serves them.
    pub redirect_to: Option<u16>,
    /// From the first byte of a request to the end of its head. Default 10 s. Zero: no limit.
    pub client_header: Duration,
    /// How long a connection may be silent between requests. Default 75 s. Zero: no limit.
    pub client_idle: Duration,
}

/// What a client may ask of a listener.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ClientLimits {
    /// Requests on one connection, after which it ends in order. Default 10,000.
    pub requests: u32,
    /// Header fields of a request. Default 100.
    pub headers: u32,
    /// The head of a request as a whole, in bytes as its protocol counts them. Default 64 KiB.
    pub header_size: u32,
    /// The target of a request, in bytes. Default 16 KiB.
    pub uri: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { requests: 10_000, headers: 100, header_size: 64 * 1024, uri: 16 * 1024 }
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Bind {
    /// A TCP port. Port 0 asks the system for a free one; `[::]` takes IPv4 as well.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix {
        /// Where it is.
        path: PathBuf,
        /// Who may connect, as the permissions of a file. Default 0660.
        mode: u32,
    },
}

impl Bind {
    /// The TCP port, where there is one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix { .. } => None,
        }
    }

    /// Whether both are the same place, whoever may connect there.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => one == other,
            (Self::Unix { path: one, .. }, Self::Unix { path: other, .. }) => one == other,
            (Self::Tcp(_), Self::Unix { .. }) | (Self::Unix { .. }, Self::Tcp(_)) => false,
        }
    }

    /// Whether it takes every client that the other would take: it is at the same place, or stands for every address of the
    /// machine.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let (Self::Tcp(one), Self::Tcp(other)) = (self, other) else { return self.is_at(other) };
        let is_any = match one.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() && other.is_ipv4(),
            IpAddr::V6(ip) => ip == Ipv6Addr::UNSPECIFIED,
        };
        one.port() == other.port() && (is_any || one.ip() == other.ip())
    }
}

/// As it is written in the config: `0.0.0.0:8080`, `unix:/run/tidegate/http.sock`.
impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Versions of the PROXY protocol (HAProxy's `doc/proxy-protocol.txt`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProxyProtocol {
    /// Either.
    Any,
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// TLS on a listener.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Tls {
    /// Certificates, versions, what is asked of clients.
    pub shown: tls::Tls,
    /// The header that tells backends the subject of a client's certificate.
    pub client_subject: Option<HeaderName>,
    /// Handshakes under way at once in each worker. Default 1,024.
    pub max_handshakes: u32,
}

impl Listener {
    /// Whether connections of another plan of the same listener can go on as they are: what is shown in the handshake is
    /// nothing to those who have had theirs, as long as the same clients are let in.
    #[must_use]
    pub fn is_same_to_connected(&self, other: &Self) -> bool {
        let mut other = other.clone();
        // It is the same listener: at most, somebody else may connect from now on.
        other.bind.clone_from(&self.bind);
        if let (Some(ours), Some(others)) = (&self.tls, &mut other.tls) {
            others.shown.certificates.clone_from(&ours.shown.certificates);
        }
        *self == other
    }
}
