use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Any, Blocks, Count, DocumentUse, Duration, Ip, Method, Name, Named, OneOrMany, Percent, ProbeTlsShort, ProbeType,
    Protocol, ShortOr, Status, UpstreamTlsSpec, Wanted, WhenAllDown, Written,
};

/// How backends' health is asked, and what happens when none is left.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of health")]
#[schemars(rename = "Health")]
pub(in crate::config) struct HealthSpec {
    /// Probes in the background: one check, or a list of up to 8, of which each must pass.
    pub(in crate::config) active: Option<Blocks<ActiveSpec>>,
    /// While no backend is up: `fail` (503 at once) or `try_all`. Default `fail`.
    pub(in crate::config) when_all_down: Option<Written<WhenAllDown>>,
}

/// A health check: what is asked in the background, and how often.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of active")]
#[schemars(rename = "ActiveHealth")]
pub(in crate::config) struct ActiveSpec {
    /// Its name in status, logs and metrics. Default: what it asks, like `http /healthz` or `tcp :9000`.
    pub(in crate::config) name: Option<Written<Name>>,
    /// `http` (a request), `tcp` (a connection is enough), `tls` (a handshake, and how long the certificate is valid) or `grpc` (the
    /// health protocol of gRPC, version 1). Default `http`.
    #[serde(rename = "type")]
    pub(in crate::config) kind: Option<Written<ProbeType>>,
    /// Of `http`: the path to ask, with a query if needed. Default `/healthz`.
    pub(in crate::config) path: Option<Written<Any>>,
    /// Of `http`: the method to ask with. Default `GET`.
    pub(in crate::config) method: Option<Written<Method>>,
    /// The port to ask. Default: the backend's.
    pub(in crate::config) port: Option<Written<Count>>,
    /// The IP address to ask instead of the backend's own, as of an agent that speaks for all of them.
    pub(in crate::config) address: Option<Written<Ip>>,
    /// Of `http`: headers of the probe. `host` replaces the backend's own.
    pub(in crate::config) headers: Option<Named<Written<Any>>>,
    /// Of `http`: the body to send, with POST, PUT, PATCH, DELETE or OPTIONS. Its `content-type` is written in `headers`.
    pub(in crate::config) body: Option<Written<Any>>,
    /// Of `tcp`: the text to send on the connection, like `"PING\r\n"`. Default: nothing is sent.
    pub(in crate::config) send: Option<Written<Any>>,
    /// Of `grpc`: the service to ask for. Default: the server as a whole.
    pub(in crate::config) service: Option<Written<Any>>,
    /// Of `http`: what the probe speaks, `http1`, `http2` or `auto`. Default: what the upstream does.
    pub(in crate::config) protocol: Option<Written<Protocol>>,
    /// TLS of the probe alone: fields like the upstream's `tls`, or `none`. Default: as the backend is reached, but a `tcp`
    /// check that neither sends nor expects anything only connects.
    pub(in crate::config) tls: Option<ShortOr<ProbeTlsShort, UpstreamTlsSpec>>,
    /// What passes. All of it must hold.
    pub(in crate::config) expect: Option<ExpectSpec>,
    /// Time between probes in steady state, `10ms` to `1d`. Default `10s`.
    pub(in crate::config) interval: Option<Written<Duration>>,
    /// Time between probes while the backend is down, `10ms` to `1d`. Default: `interval`.
    pub(in crate::config) interval_down: Option<Written<Duration>>,
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

/// What a probe expects. A text that is written `"~ REGEX"` is a regular expression that matches anywhere.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of expect")]
#[schemars(rename = "Expect")]
pub(in crate::config) struct ExpectSpec {
    /// Of `http`: statuses that pass: `204`, `200-399`, or a list of them. Default `200-399`.
    pub(in crate::config) status: Option<OneOrMany<Status>>,
    /// Of `http`: statuses that say that the backend is degraded, but can take traffic. Default: none.
    pub(in crate::config) degraded_status: Option<OneOrMany<Status>>,
    /// Of `http`: header fields of the answer, and what each must be: `x-ready: "yes"`.
    pub(in crate::config) headers: Option<Named<Written<Wanted>>>,
    /// Of `http` and `tcp`: text that the first 64 KiB of the answer must hold. Default: any.
    pub(in crate::config) body: Option<Written<Wanted>>,
    /// Of `http`: fields of a JSON body of up to 64 KiB, and what each must be: `checks.db.0.status: ok`, or with a JSON Pointer
    /// `/checks/db/0/status: ok`. Numbers, `"true"`, `"false"` and `"null"` are compared by their text.
    pub(in crate::config) json: Option<Named<Written<Wanted>>>,
    /// Of `http`: whether a health document in the body decides (`read`), even where the status passes, or not (`ignore`): JSON as
    /// Spring Boot, ASP.NET, MicroProfile and application/health+json have it, or `{ status, checks }`. Default `read`.
    pub(in crate::config) document: Option<Written<DocumentUse>>,
    /// Of `tls`: how long the certificate must be valid from now on, or the backend is degraded; up to `365d`. Default `7d`.
    pub(in crate::config) valid_for: Option<Written<Duration>>,
}
