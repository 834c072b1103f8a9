//! Fields that are right elsewhere: one level higher or lower, or in a later version.

const ACTIVE: &[&str] = &[
    "type",
    "path",
    "method",
    "port",
    "address",
    "headers",
    "send",
    "service",
    "expect",
    "interval",
    "interval_changing",
    "interval_down",
    "interval_with_traffic",
    "probe_on_doubt",
    "timeout",
    "healthy_after",
    "unhealthy_after",
    "jitter",
];

const PASSIVE: &[&str] = &[
    "failures",
    "slower_than",
    "failure_ratio",
    "window",
    "min_requests",
    "eject_for",
    "max_eject_for",
    "max_ejected",
    "retry_after",
    "drain_header",
];

const UPSTREAM: &[&str] =
    &["max_in_flight", "max_connections", "max_idle_connections", "max_connection_age", "slow_start"];

const HEALTH: &[&str] = &["when_all_down", "min_capacity", "degraded_weight", "suspect_check", "when_out", "passive"];

/// Block (the key of the map, or of the list or the named entries that it is in), its field, and where that goes.
const HOMES: &[(&str, &[&str], &str)] = &[
    ("health", ACTIVE, "health.active"),
    ("health", &["status", "body"], "health.active.expect"),
    ("health", PASSIVE, "health.passive"),
    ("health", &["slow_start"], "upstreams"),
    ("active", HEALTH, "health"),
    ("active", &["status", "degraded_status", "json", "document", "valid_for"], "health.active.expect"),
    ("active", PASSIVE, "health.passive"),
    ("active", &["verify", "ca", "sni", "cert", "key"], "health.active.tls"),
    ("passive", ACTIVE, "health.active"),
    ("passive", HEALTH, "health"),
    (
        "upstreams",
        &["interval", "interval_down", "interval_changing", "healthy_after", "unhealthy_after"],
        "health.active",
    ),
    ("upstreams", HEALTH, "health"),
    ("upstreams", PASSIVE, "health.passive"),
    ("upstreams", &["verify", "ca", "sni"], "tls"),
    ("backends", &["tls", "verify", "ca", "sni"], "the upstream's tls"),
    ("upstreams", &["algorithm", "bounded_load", "sticky"], "balance"),
    ("routes", &["algorithm", "bounded_load", "sticky"], "balance"),
    ("balance", &["hash"], "mode: hash …"),
    ("balance", &["cookie", "key", "ttl", "path", "same_site", "secure", "http_only", "on_failure"], "sticky"),
    ("sticky", &["mode", "algorithm", "bounded_load"], "balance"),
    ("routes", &["tls", "protocol"], "upstreams"),
    ("upstreams", &["weight", "backup", "tier", "url"], "a backend: { url: …, weight: … }"),
    ("upstreams", &["timeouts", "retries", "max_body"], "the route, or defaults"),
    ("routes", &["connect", "request", "response_header", "client_body", "tunnel"], "timeouts"),
    ("routes", &["attempts", "when", "budget", "backoff", "hedge_after"], "retries"),
    ("routes", &["version", "stage", "deprecated", "sunset", "successor"], "apis; a route has `api`"),
    ("routes", &["backends"], "upstreams; a route has `to`"),
    ("routes", &["strip_prefix", "replace_prefix"], "rewrite"),
    ("routes", &["body", "content_type"], "respond"),
    ("routes", &["sticky", "when_down"], "split"),
    ("routes", UPSTREAM, "upstreams"),
    ("timeouts", &["idle", "client_header", "client_idle"], "defaults.timeouts"),
    ("", &["timeouts", "retries", "max_body"], "defaults"),
    ("", &["path", "to", "redirect", "respond", "rewrite", "request_headers", "response_headers"], "routes"),
    ("", &["access_log", "log"], "telemetry"),
    ("", &["bind", "proxy_protocol", "socket_mode", "trusted_proxies"], "listeners"),
    ("", &["tls", "certs"], "listeners"),
    ("listeners", &["cert", "key", "certs", "min_version", "client_ca", "client_auth"], "tls"),
    ("tls", &["cert", "key"], "certs: [{ cert: …, key: … }]"),
    ("", &["backends"], "upstreams"),
    ("defaults", &["connect", "request", "idle", "client_header", "client_body", "tunnel"], "defaults.timeouts"),
    ("defaults", &["attempts", "when", "budget", "backoff", "hedge_after"], "defaults.retries"),
    ("auth", &["header", "query", "keys", "keys_file"], "api_key"),
    ("auth", &["realm", "users", "users_file"], "basic"),
];

/// Fields that later versions will have, in whatever block they are.
const PLANNED: &[&str] = &["cluster", "cors", "include", "tracing"];

/// Whether a later version will have a field.
pub(in crate::config) fn is_planned(field: &str) -> bool {
    PLANNED.contains(&field)
}

/// Where a field goes that its block does not have. `parents` are the keys above it.
pub(in crate::config) fn home(parents: &[&str], field: &str) -> Option<&'static str> {
    let block = match parents {
        [named @ ("auth" | "listeners" | "upstreams"), _] => named,
        [.., last] => last,
        [] => "",
    };
    HOMES.iter().find(|(within, fields, _)| *within == block && fields.contains(&field)).map(|(.., home)| *home)
}
