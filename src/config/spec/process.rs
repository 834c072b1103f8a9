use schemars::JsonSchema;
use serde::Deserialize;

use super::{AccessFormat, Any, Bind, Cidr, Count, Duration, Flag, List, LogFormat, LogLevel, Written};

/// An address that accepts clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a listener")]
#[schemars(rename = "Listener")]
pub(in crate::config) struct ListenerSpec {
    /// Required. The address to listen on: `0.0.0.0:8080`, `[::]:8080`, `127.0.0.1:8080`. Port 0 takes a free one.
    pub(in crate::config) bind: Option<Written<Bind>>,
    /// Connections open at once; those above are closed as they are accepted. 1 to 10000000. Default `65536`.
    pub(in crate::config) max_connections: Option<Written<Count>>,
    /// Networks or addresses of proxies whose `X-Forwarded-*` headers are believed. Default: nobody's.
    pub(in crate::config) trusted_proxies: Option<List<Written<Cidr>>>,
}

/// Where the gateway answers for itself: health, metrics, status.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of admin")]
#[schemars(rename = "Admin")]
pub(in crate::config) struct AdminSpec {
    /// A loopback address. Default `127.0.0.1:9901`.
    pub(in crate::config) bind: Option<Written<Bind>>,
}

/// Logs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of telemetry")]
#[schemars(rename = "Telemetry")]
pub(in crate::config) struct TelemetrySpec {
    /// One line per request. Absent: off. `{}`: JSON to standard output.
    pub(in crate::config) access_log: Option<AccessLogSpec>,
    /// What is said on the terminal.
    pub(in crate::config) log: Option<LogSpec>,
}

/// One line per request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of access_log")]
#[schemars(rename = "AccessLog")]
pub(in crate::config) struct AccessLogSpec {
    /// The form of a line. Default `json`.
    pub(in crate::config) format: Option<Written<AccessFormat>>,
    /// `stdout`, or a file to append to, from the folder of this file. Default `stdout`.
    pub(in crate::config) to: Option<Written<Any>>,
}

/// What is said on the terminal.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of log")]
#[schemars(rename = "Log")]
pub(in crate::config) struct LogSpec {
    /// The least that is said: `debug`, `info`, `warn` or `error`. Default `info`.
    pub(in crate::config) level: Option<Written<LogLevel>>,
    /// `auto` (text on a terminal, JSON elsewhere), `text` or `json`. Default `auto`.
    pub(in crate::config) format: Option<Written<LogFormat>>,
}

/// How the process stops.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of shutdown")]
#[schemars(rename = "Shutdown")]
pub(in crate::config) struct ShutdownSpec {
    /// Time between readiness failing and listeners closing, for load balancers to notice. Up to `1h`. Default `0s`.
    pub(in crate::config) delay: Option<Written<Duration>>,
    /// Time for requests in flight to finish; then they are cut. Up to `1d`. Default `30s`.
    pub(in crate::config) timeout: Option<Written<Duration>>,
}

/// How edits of this file are picked up.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of reload")]
#[schemars(rename = "Reload")]
pub(in crate::config) struct ReloadSpec {
    /// Whether edits apply as they are saved. SIGHUP reloads either way. Default `true`.
    pub(in crate::config) watch: Option<Written<Flag>>,
    /// Quiet time after a change before the file is read. `10ms` to `1m`. Default `200ms`.
    pub(in crate::config) debounce: Option<Written<Duration>>,
}
