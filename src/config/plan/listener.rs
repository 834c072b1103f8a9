use std::{net::SocketAddr, time::Duration};

use http::HeaderName;
use ipnet::IpNet;

use crate::{base::Name, tls};

/// An address that accepts clients.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Listener {
    /// Its name in routes, logs and metrics.
    pub name: Name,
    /// The address to listen on. Port 0 asks the system for a free one.
    pub bind: SocketAddr,
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
    /// The head of a request as a whole, in bytes. Default 64 KiB.
    pub header_size: u32,
    /// The target of a request, in bytes. Default 16 KiB.
    pub uri: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { requests: 10_000, headers: 100, header_size: 64 * 1024, uri: 16 * 1024 }
    }
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
        if let (Some(ours), Some(others)) = (&self.tls, &mut other.tls) {
            others.shown.certificates.clone_from(&ours.shown.certificates);
        }
        *self == other
    }
}
