//! Every metric the gateway has: name, type, labels, help. The one place that holds a metric's name.
//!
//! Names are a contract with dashboards and alert rules (`docs` and the shipped rules quote them). A definition's type says
//! which values it takes and how many labels, so a sample of the wrong shape does not compile. The unit is the name's ending,
//! as Prometheus has it: `_seconds`, `_bytes`. This file knows nothing about where the values come from.

use std::marker::PhantomData;

use super::exposition::{Counter, Gauge, Histogram, Info, Kind};

/// The definition of a metric of type `K` with `N` labels.
#[derive(Debug)]
pub struct Metric<K, const N: usize> {
    /// Its full name as a query uses it, with unit and `_total` where they belong.
    pub name: &'static str,
    /// What it means, in one sentence for operators.
    pub help: &'static str,
    /// Its labels, in the order in which samples give their values.
    pub labels: [&'static str; N],
    kind: PhantomData<K>,
}

/// A definition without its types: a row of the reference page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// The full name.
    pub name: &'static str,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// `seconds`, `bytes`, or nothing for a plain number.
    pub unit: Option<&'static str>,
    /// The labels.
    pub labels: &'static [&'static str],
    /// The meaning.
    pub help: &'static str,
}

impl<K: Kind, const N: usize> Metric<K, N> {
    const fn new(name: &'static str, labels: [&'static str; N], help: &'static str) -> Self {
        Self { name, help, labels, kind: PhantomData }
    }

    fn row(&'static self) -> Row {
        Row { name: self.name, kind: K::NAME, unit: unit(self.name), labels: &self.labels, help: self.help }
    }
}

/// The unit that ends a metric's name.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit))
}

const fn count<const N: usize>(_: &[&str; N]) -> usize {
    N
}

macro_rules! catalogue {
    ($($id:ident: $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Metric<$kind, { count(&[$($label),*]) }> =
                Metric::new($name, [$($label),*], $help);
        )*

        /// Every definition, in the order of this file.
        #[must_use]
        pub fn all() -> Vec<Row> {
            vec![$($id.row()),*]
        }
    };
}

catalogue! {
    // Clients.
    CONNECTIONS_ACCEPTED: Counter "tidegate_connections_accepted_total" ["listener"] "Connections accepted from clients.";
    CONNECTIONS_CLOSED: Counter "tidegate_connections_closed_total" ["listener" "reason"] "Client connections that ended, by reason.";
    CONNECTIONS_OPEN: Gauge "tidegate_connections_open" ["listener"] "Client connections that are open now.";
    TLS_CERTIFICATE_NOT_AFTER: Gauge "tidegate_tls_certificate_not_after_timestamp_seconds" ["listener" "name"] "When a certificate of a listener expires.";
    HTTP_REQUESTS: Counter "tidegate_http_requests_total" ["listener" "route" "method" "code"] "Requests answered, by status code; unknown methods are `other`.";
    HTTP_REQUEST_DURATION: Histogram "tidegate_http_request_duration_seconds" ["route"] "From the head of a request to the end of its response's body.";
    HTTP_REQUESTS_IN_FLIGHT: Gauge "tidegate_http_requests_in_flight" ["listener"] "Requests that are being answered now.";
    HTTP_REQUEST_BODY_BYTES: Counter "tidegate_http_request_body_bytes_total" ["route"] "Bytes of request bodies, and through tunnels, received from clients.";
    HTTP_RESPONSE_BODY_BYTES: Counter "tidegate_http_response_body_bytes_total" ["route"] "Bytes of response bodies, and through tunnels, sent to clients.";
    TUNNELS: Counter "tidegate_tunnels_total" ["listener"] "Tunnels opened: requests that became WebSockets or another protocol.";
    TUNNELS_OPEN: Gauge "tidegate_tunnels_open" ["listener"] "Tunnels that are open now.";
    GATEWAY_ERRORS: Counter "tidegate_gateway_errors_total" ["route" "reason"] "Requests that the gateway answered or cut by itself, by reason.";
    MIRRORED: Counter "tidegate_mirrored_total" ["route" "result"] "Copies of requests to the upstream of a `mirror`, by result.";

    // Upstreams.
    UPSTREAM_REQUESTS: Counter "tidegate_upstream_requests_total" ["upstream" "backend" "code"] "Responses of backends, by status code.";
    UPSTREAM_REQUEST_DURATION: Histogram "tidegate_upstream_request_duration_seconds" ["upstream" "backend"] "From sending a request to a backend to the end of its response's body.";
    UPSTREAM_ATTEMPTS: Counter "tidegate_upstream_attempts_total" ["upstream" "outcome"] "Attempts to have a backend answer, first ones and retries.";
    UPSTREAM_RETRIES: Counter "tidegate_upstream_retries_total" ["upstream" "result"] "Failures that `retries` names: sent again, hedged (sent to a second backend as well), budget_spent, gave_up (no attempt, time or backend was left).";
    UPSTREAM_INTERIM_RESPONSES: Counter "tidegate_upstream_interim_responses_total" ["upstream"] "Interim responses (1xx) of backends that speak HTTP/1.1. They end here.";
    UPSTREAM_CONNECTIONS: Gauge "tidegate_upstream_connections" ["upstream" "backend" "state"] "Open connections to a backend: active carry a request, idle wait for one.";
    UPSTREAM_BACKENDS: Gauge "tidegate_upstream_backends" ["upstream" "state"] "Backends of an upstream, by state.";

    // Health.
    BACKEND_UP: Gauge "tidegate_backend_up" ["upstream" "backend"] "1 while a backend is eligible, 0 while it is not.";
    BACKEND_STATE: Gauge "tidegate_backend_state" ["upstream" "backend" "state"] "1 for the state that a backend is in, 0 for the others.";
    BACKEND_STATE_SINCE: Gauge "tidegate_backend_state_since_timestamp_seconds" ["upstream" "backend"] "When a backend's state last changed.";
    BACKEND_TRANSITIONS: Counter "tidegate_backend_transitions_total" ["upstream" "backend" "to" "reason"] "Changes of a backend's state, by new state and reason.";
    BACKEND_FAILURES: Counter "tidegate_backend_failures_total" ["upstream" "backend"] "Requests that failed by a backend's doing, as passive health counts them.";
    HEALTH_PROBES: Counter "tidegate_health_probes_total" ["upstream" "backend" "result" "reason"] "Probes of a backend, by outcome and reason.";
    HEALTH_PROBE_DURATION: Histogram "tidegate_health_probe_duration_seconds" ["upstream"] "How long probes took, failed ones among them.";
    HEALTH_PROBES_WAITING: Gauge "tidegate_health_probes_waiting" ["upstream"] "Probes that are due and wait until others have ended: `max_probes` are under way, or a quarter of them for this upstream.";
    HEALTH_CHECK_SUSPECT: Gauge "tidegate_health_check_suspect" ["upstream"] "1 while a health check is suspect: all fail it since it was edited, or began to at once while traffic went well.";

    // Names.
    DNS_LOOKUPS: Counter "tidegate_dns_lookups_total" ["name" "result"] "Look-ups of a backend's name, by result.";
    DNS_ADDRESSES: Gauge "tidegate_dns_addresses" ["name"] "Addresses of a backend's name that are in use, whether or not DNS could confirm them.";

    // Layers.
    LIMIT_DECISIONS: Counter "tidegate_limit_decisions_total" ["route" "limit" "decision"] "Decisions of rate limits.";
    AUTH_DECISIONS: Counter "tidegate_auth_decisions_total" ["route" "auth" "decision" "reason"] "Decisions of authentication.";

    // APIs.
    API_REQUESTS: Counter "tidegate_api_requests_total" ["api" "version" "stage"] "Requests of an API that its layers admitted, by the stage that it was in.";
    API_CALLER_REQUESTS: Counter "tidegate_api_caller_requests_total" ["api" "version" "consumer"] "Requests of an API by who sent them: 1000 consumers of its auths by name, `other` and `anonymous`.";
    API_STAGE: Gauge "tidegate_api_stage" ["api" "version" "stage"] "1 for the stage that an API is in, 0 for the others.";
    API_SUNSET: Gauge "tidegate_api_sunset_timestamp_seconds" ["api" "version"] "When an API is retired.";

    // Config.
    CONFIG_GENERATION: Gauge "tidegate_config_generation" [] "The generation that is live.";
    CONFIG_INFO: Info "tidegate_config_info" ["sha" "source"] "The config that is live.";
    CONFIG_RELOADS: Counter "tidegate_config_reloads_total" ["result"] "Reloads asked for, by result.";
    CONFIG_LAST_RELOAD_SUCCESSFUL: Gauge "tidegate_config_last_reload_successful" [] "1 if the last edit went live, 0 if it was refused.";
    CONFIG_LAST_RELOAD_SUCCESS: Gauge "tidegate_config_last_reload_success_timestamp_seconds" [] "When an edit, or the first config, last went live.";

    // The gateway itself.
    BUILD_INFO: Info "tidegate_build_info" ["version" "commit"] "The running build.";
    ACCESS_LOG_LINES: Counter "tidegate_access_log_lines_total" [] "Lines of the access log that were written.";
    ACCESS_LOG_DROPPED: Counter "tidegate_access_log_dropped_total" [] "Lines of the access log that were lost: its destination was too slow or failed.";
    WEBHOOK_EVENTS: Counter "tidegate_webhook_events_total" ["webhook" "result"] "Events for webhooks: delivered, failed (every attempt), lost (500 others came first).";
    EVENTS_LOST: Counter "tidegate_events_lost_total" [] "Events that were lost: standard error was too slow.";
    PANICS: Counter "tidegate_panics_total" [] "Panics that were caught; each cost one connection.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" [] "CPU time used, user and system.";
    PROCESS_RESIDENT_MEMORY: Gauge "process_resident_memory_bytes" [] "Resident memory.";
    PROCESS_VIRTUAL_MEMORY: Gauge "process_virtual_memory_bytes" [] "Virtual memory.";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" [] "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" [] "The most file descriptors that may be open.";
    PROCESS_START_TIME: Gauge "process_start_time_seconds" [] "When the process started.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_follow_the_conventions() {
        for row in all() {
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(plain(row.name), "{}", row.name);
            assert!(row.labels.iter().all(|label| plain(label) && *label != "le"), "{}", row.name);
            assert_eq!(row.kind == "counter", row.name.ends_with("_total"), "{}", row.name);
            assert_eq!(row.kind == "info", row.name.ends_with("_info"), "{}", row.name);
            assert!(row.help.ends_with('.') && !row.help.contains(['\\', '\n']), "{}", row.name);
            assert_eq!(all().iter().filter(|other| other.name == row.name).count(), 1, "{} twice", row.name);
        }
    }

    #[test]
    fn the_catalogue_reads_as_a_table() {
        let rows: Vec<_> = all()
            .iter()
            .map(|row| format!("{:<9} {}{{{}}} {}", row.kind, row.name, row.labels.join(","), row.unit.unwrap_or("-")))
            .collect();
        insta::assert_snapshot!(rows.join("\n"));
    }
}
