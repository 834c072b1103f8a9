use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Address, Any, Balance, BalanceSpec, Count, Duration, Flag, HealthShort, HealthSpec, HostHeader, List, Name,
    Protocol, ShortOr, Written,
};

/// A named group of interchangeable backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of an upstream")]
#[schemars(rename = "Upstream")]
pub(in crate::config) struct UpstreamSpec {
    /// Required. Its replicas: addresses (`10.0.1.11:9001`, `https://orders.internal`, `unix:/run/app.sock`), or fields. At least one.
    pub(in crate::config) backends: Option<List<ShortOr<Address, BackendSpec>>>,
    /// How a backend is chosen: `round_robin`, `random`, `least_requests`, `p2c`, `hash header NAME`, `hash cookie NAME`,
    /// `hash query NAME`, `hash ip`, or fields. Default `round_robin`.
    pub(in crate::config) balance: Option<ShortOr<Balance, BalanceSpec>>,
    /// The `Host` that backends see: `preserve` (the client's), `backend` (its own address) or a host. Default `preserve`.
    pub(in crate::config) host: Option<Written<HostHeader>>,
    /// TLS to its backends, which are written with `https://`. Default: their names are verified, and whom the system trusts is trusted.
    pub(in crate::config) tls: Option<UpstreamTlsSpec>,
    /// What its backends speak: `http1`, `http2`, or `auto`, which takes HTTP/2 where the handshake of TLS agrees on it. gRPC needs
    /// `http2`, which without TLS is spoken unasked. Default `http1`.
    pub(in crate::config) protocol: Option<Written<Protocol>>,
    /// Requests in flight per backend, 1 to 1000000. Default: no limit.
    pub(in crate::config) max_in_flight: Option<Written<Count>>,
    /// Open connections per backend, 1 to 1000000; a request waits for a free one up to its connect timeout. Those in HTTP/2 are
    /// shared by the requests of a worker: no fewer than `workers` should be allowed. Default: no limit.
    pub(in crate::config) max_connections: Option<Written<Count>>,
    /// Idle connections kept per backend and worker, 0 to 100000. Default `256`.
    pub(in crate::config) max_idle_connections: Option<Written<Count>>,
    /// Age at which a connection is no longer used again, up to `30d`; `0s` is never. Default `1h`.
    pub(in crate::config) max_connection_age: Option<Written<Duration>>,
    /// How long a backend that comes back, or joins, takes to get its whole share, up to `1h`; `0s` is at once. Never at the start of
    /// the process. Default `0s`.
    pub(in crate::config) slow_start: Option<Written<Duration>>,
    /// How its backends' health is asked. Short: `/path`, `tcp`, or `none` to say that nobody asks.
    pub(in crate::config) health: Option<ShortOr<HealthShort, HealthSpec>>,
}

/// TLS to backends. Files are from the folder of this file, and watched.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of tls")]
#[schemars(rename = "UpstreamTls")]
pub(in crate::config) struct UpstreamTlsSpec {
    /// Whether backends must prove who they are. Without it, whoever is in between can be them. Default `true`.
    pub(in crate::config) verify: Option<Written<Flag>>,
    /// A PEM file of the authorities that are trusted, and no others. Default: whom the system trusts.
    pub(in crate::config) ca: Option<Written<Any>>,
    /// The name that is asked for and must be in the certificate. Default: the host of the backend's address.
    pub(in crate::config) sni: Option<Written<Any>>,
    /// A PEM file of the certificate that backends are shown when they ask for one. Default: none.
    pub(in crate::config) cert: Option<Written<Any>>,
    /// The PEM file of its key; it may be the same.
    pub(in crate::config) key: Option<Written<Any>>,
}

/// One replica.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a backend")]
#[schemars(rename = "Backend")]
pub(in crate::config) struct BackendSpec {
    /// Required. Where it is: `10.0.1.12:9001`, `http://…`, `https://…` or `unix:PATH`. A name is looked up in DNS; each address is a backend.
    pub(in crate::config) url: Option<Written<Address>>,
    /// Its name in status, logs and metrics. Default: its address.
    pub(in crate::config) name: Option<Written<Name>>,
    /// Its share of traffic relative to its peers, 1 to 1000. Default `1`.
    pub(in crate::config) weight: Option<Written<Count>>,
    /// Whether it is used only while the primaries cannot carry the traffic. Default `false`.
    pub(in crate::config) backup: Option<Written<Flag>>,
    /// Backups of a higher tier are used only while those below cannot carry the traffic, 1 to 9. Default of a backup: `1`.
    pub(in crate::config) tier: Option<Written<Count>>,
}
