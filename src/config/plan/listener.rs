use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use crate::base::Name;

/// An address that accepts clients.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Listener {
    /// Its name in routes, logs and metrics.
    pub name: Name,
    /// The address to listen on. Port 0 asks the system for a free one.
    pub bind: SocketAddr,
    /// Connections open at once; those above are closed as they are accepted. Default 65,536.
    pub max_connections: u32,
    /// Peers whose `X-Forwarded-*` is believed, sorted. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// From the first byte of a request to the end of its head. Default 10 s. Zero: no limit.
    pub client_header: Duration,
    /// How long a connection may be silent between requests. Default 75 s. Zero: no limit.
    pub client_idle: Duration,
}
