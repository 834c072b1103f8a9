use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Address, Any, Balance, Count, Duration, Flag, HealthShort, HostHeader, List, Method, Name, Named, OneOrMany,
    Percent, ProbeType, Protocol, ShortOr, Status, WhenAllDown, Written,
};

/// A named group of interchangeable backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of an upstream")]
#[schemars(rename = "Upstream")]
pub(in crate::config) struct UpstreamSpec {
    /// Required. Its replicas: addresses (`10.0.1.11:9001`, `https://orders.internal`, `unix:/run/app.sock`), or fields. At least one.
    pub(in crate::config) backends: Option<List<ShortOr<Address, BackendSpec>>>,
    /// How a backend is chosen: `round_robin`, weighted. Default `round_robin`.
    pub(in crate::config) balance: Option<Written<Balance>>,
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
    /// Whether it is used only while no other is up. Default `false`.
    pub(in crate::config) backup: Option<Written<Flag>>,
}

/// How backends' health is asked, and what happens when none is left.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of health")]
#[schemars(rename = "Health")]
pub(in crate::config) struct HealthSpec {
    /// Probes in the background.
    pub(in crate::config) active: Option<ActiveSpec>,
    /// While no backend is up: `fail` (503 at once) or `try_all`. Default `fail`.
    pub(in crate::config) when_all_down: Option<Written<WhenAllDown>>,
}

/// Probes in the background.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of active")]
#[schemars(rename = "ActiveHealth")]
pub(in crate::config) struct ActiveSpec {
    /// `http` (a request) or `tcp` (a connection is enough). Default `http`.
    #[serde(rename = "type")]
    pub(in crate::config) kind: Option<Written<ProbeType>>,
    /// The path to ask, with a query if needed. Default `/healthz`.
    pub(in crate::config) path: Option<Written<Any>>,
    /// The method to ask with. Default `GET`.
    pub(in crate::config) method: Option<Written<Method>>,
    /// The port to ask. Default: the backend's.
    pub(in crate::config) port: Option<Written<Count>>,
    /// Headers of the probe. `host` replaces the backend's own.
    pub(in crate::config) headers: Option<Named<Written<Any>>>,
    /// What passes. All of it must hold.
    pub(in crate::config) expect: Option<ExpectSpec>,
    /// Time between probes in steady state, `10ms` to `1d`. Default `10s`.
    pub(in crate::config) interval: Option<Written<Duration>>,
    /// Time between probes while a verdict is pending, never above `interval`. Default `1s`.
    pub(in crate::config) interval_changing: Option<Written<Duration>>,
    /// The deadline of one probe, shorter than `interval`. Default `2s`, or half the interval where that is not shorter.
    pub(in crate::config) timeout: Option<Written<Duration>>,
    /// Passes in a row that bring a backend back, 1 to 1000. Default `2`.
    pub(in crate::config) healthy_after: Option<Written<Count>>,
    /// Failures in a row that take a backend out, 1 to 1000. Default `3`.
    pub(in crate::config) unhealthy_after: Option<Written<Count>>,
    /// Each interval is lengthened or shortened at random by up to this share, at most `50%`. Default `10%`.
    pub(in crate::config) jitter: Option<Written<Percent>>,
}

/// What a probe expects.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of expect")]
#[schemars(rename = "Expect")]
pub(in crate::config) struct ExpectSpec {
    /// Statuses that pass: `204`, `200-399`, or a list of them. Default `200-399`.
    pub(in crate::config) status: Option<OneOrMany<Status>>,
    /// Text that the first 64 KiB of the body must hold. Default: any body.
    pub(in crate::config) body: Option<Written<Any>>,
}
