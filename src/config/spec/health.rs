use schemars::JsonSchema;
use serde::Deserialize;

use super::{Any, Count, Duration, Method, Named, OneOrMany, Percent, ProbeType, Status, WhenAllDown, Written};

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
