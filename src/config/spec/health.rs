use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Any, Blocks, Count, DocumentUse, Duration, Flag, Ip, Method, Name, Named, OneOrMany, PassiveShort, Percent,
    ProbeTlsShort, ProbeType, Protocol, ShortOr, Status, SuspectCheck, UpstreamTlsSpec, Wanted, WhenAllDown, WhenOut,
    Written,
};

/// How backends' health is asked, and what happens when none is left.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of health")]
#[schemars(rename = "Health")]
pub(in crate::config) struct HealthSpec {
    /// Probes in the background: one check, or a list of up to 8, of which each must pass.
    pub(in crate::config) active: Option<Blocks<ActiveSpec>>,
    /// What live traffic says, or `none`. Default: five failures in a row take a backend out for a while.
    pub(in crate::config) passive: Option<ShortOr<PassiveShort, PassiveSpec>>,
    /// While no backend is eligible, or too few for `min_capacity`: `fail` (503 at once) or `try_all`. Default `fail`.
    pub(in crate::config) when_all_down: Option<Written<WhenAllDown>>,
    /// The part of the primaries, by weight, that must be eligible for them to carry the traffic alone. Below it backups join, and
    /// where that is not enough, `when_all_down` says what happens. Default `0%`: the last one carries all.
    pub(in crate::config) min_capacity: Option<Written<Percent>>,
    /// The part of its share that a degraded backend gets while others are up, 1% to 100%. Default `50%`.
    pub(in crate::config) degraded_weight: Option<Written<Percent>>,
    /// While every backend fails a check since it was edited, or all have begun to fail it at once, although live traffic succeeds:
    /// `hold` (nobody is taken out) or `eject`. Default `hold`.
    pub(in crate::config) suspect_check: Option<Written<SuspectCheck>>,
    /// What becomes of connections to a backend that is down or ejected: `keep`, or `close`: all are ended, with the requests and tunnels on them.
    /// Requests on their way are finished. Default `keep`.
    pub(in crate::config) when_out: Option<Written<WhenOut>>,
}

/// What live traffic says of backends. It never takes the last eligible one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of passive")]
#[schemars(rename = "PassiveHealth")]
pub(in crate::config) struct PassiveSpec {
    /// Failures in a row that eject a backend, 1 to 1000: connections that fail, resets, responses that do not come in time, and the
    /// statuses below. Default `5`.
    pub(in crate::config) failures: Option<Written<Count>>,
    /// Statuses that are failures. Default `[502, 503, 504]`.
    pub(in crate::config) status: Option<OneOrMany<Status>>,
    /// A response whose head takes longer is a failure, `1ms` to `1h`. Default: however long it takes.
    pub(in crate::config) slower_than: Option<Written<Duration>>,
    /// The part of its requests in `window` that must fail for a backend to be ejected, 1% to 100%. Default: only failures in a row count.
    pub(in crate::config) failure_ratio: Option<Written<Percent>>,
    /// The time over which the ratio is taken, `1s` to `5m`. Default `10s`.
    pub(in crate::config) window: Option<Written<Duration>>,
    /// Requests in the window below which the ratio says nothing, 1 to 1000000. Default `20`.
    pub(in crate::config) min_requests: Option<Written<Count>>,
    /// How long a backend is out the first time, `1ms` to `1d`; twice as long each time that it fails again soon. Default `10s`.
    pub(in crate::config) eject_for: Option<Written<Duration>>,
    /// The longest that it is out. Default `5m`.
    pub(in crate::config) max_eject_for: Option<Written<Duration>>,
    /// The part of the backends that live traffic may take out at once; what checks take out does not count. Default `50%`.
    pub(in crate::config) max_ejected: Option<Written<Percent>>,
    /// Whether a backend that says `Retry-After` with a failure stays out for as long as it says, up to `max_eject_for`. Default `true`.
    pub(in crate::config) retry_after: Option<Written<Flag>>,
    /// A field of responses by which a backend asks to be drained; its value is for how long, like `60s`, from `1s` to `1d`. Clients do not see it.
    /// Default: none.
    pub(in crate::config) drain_header: Option<Written<Any>>,
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
    /// Time between probes while a verdict is pending, never above `interval`. Default `1s`.
    pub(in crate::config) interval_changing: Option<Written<Duration>>,
    /// Time between probes while the backend is down, `10ms` to `1d`. Default: `interval`.
    pub(in crate::config) interval_down: Option<Written<Duration>>,
    /// Time between probes at the most while live traffic to the backend goes well, from `interval` to `1d`. Default: traffic changes
    /// nothing.
    pub(in crate::config) interval_with_traffic: Option<Written<Duration>>,
    /// Whether a request that failed is a reason to probe at once, though not more often than every `interval_changing`. Default `true`.
    pub(in crate::config) probe_on_doubt: Option<Written<Flag>>,
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
