//! `/api/v1/status`: everything that `tidegate status` shows, in one document.
//!
//! The command line reads it back into the same structs, so both ends agree; fields that it does not know are ignored, and
//! moments are text (RFC 3339) with a number of seconds beside them where a program needs one.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    DrainStatus, Now, Observed, Rates, Row,
    observed::{Shown, seconds_between, tier},
    rates::Totals,
};
use crate::{
    base::Name,
    config::plan::HealthCheck,
    control::Status,
    health::Detection,
    runtime::{CarryOver, Fate},
    upstream::Tier,
};

/// The gateway, as its operator wants to see it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StatusDocument {
    /// The running version.
    pub version: String,
    /// The moment of the document.
    pub timestamp: String,
    /// When the process started.
    pub started: String,
    /// Seconds since then.
    pub uptime_s: u64,
    /// Whether traffic should come here.
    pub ready: bool,
    /// Why not, as a token: `starting`, `draining`.
    pub reason: Option<String>,
    /// `healthy`, `degraded` or `unhealthy`, as `/health` says it.
    pub status: String,
    /// What is in force, and what was tried last.
    pub config: ConfigStatus,
    /// By name.
    pub upstreams: Vec<UpstreamStatus>,
    /// Of each listener with TLS: the certificate that expires first.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// Names of backends whose addresses stay in use although they could not be confirmed.
    #[serde(default)]
    pub stale_names: Vec<StaleName>,
    /// All requests together.
    pub gateway: GatewayStatus,
    /// The last 50 events, oldest first, as the JSON log has them.
    pub events: Vec<serde_json::Value>,
}

/// The config.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ConfigStatus {
    /// The file, as it was named.
    pub file: String,
    /// The number of what is in force.
    pub generation: u64,
    /// The start of its SHA-256.
    pub sha: String,
    /// When it went live.
    pub since: String,
    /// The last attempt to load the file.
    pub last_attempt: AttemptStatus,
}

/// An attempt to load the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AttemptStatus {
    /// Whether it went live.
    pub ok: bool,
    /// When.
    pub at: String,
    /// Who asked.
    pub by: String,
    /// How many errors it has.
    pub errors: usize,
    /// How many warnings it has.
    pub warnings: usize,
    /// Errors and warnings, `file:line:col: error[E0201]: text` each.
    pub findings: Vec<String>,
    /// What an edit that went live has made of the backends, by what that is.
    #[serde(default)]
    pub backends: Vec<CarriedStatus>,
}

/// Backends of which an edit has made the same.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CarriedStatus {
    /// `kept`, `re-probing`, `new` or `draining`.
    pub fate: String,
    /// How many there are.
    pub count: usize,
    /// The first 100 of them, UPSTREAM/BACKEND each.
    pub names: Vec<String>,
}

/// The most backends of one fate that are named.
const NAMED: usize = 100;

impl CarriedStatus {
    fn of(carried: &CarryOver, fate: Fate) -> Self {
        let those = carried.iter().filter(|carried| carried.fate == fate);
        let named = those.take(NAMED).map(|carried| format!("{}/{}", carried.upstream, carried.backend));
        Self { fate: fate.as_str().to_owned(), count: carried.count(fate), names: named.collect() }
    }

    fn all(carried: &CarryOver) -> Vec<Self> {
        let all = Fate::ALL.iter().map(|fate| Self::of(carried, *fate));
        all.filter(|carried| carried.count > 0).collect()
    }
}

/// An upstream.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// `up`, `degraded` or `down`.
    pub status: String,
    /// Whether its backends are probed.
    pub checked: bool,
    /// Which backends get traffic: `primary`, `backup`, `checking`, `try_all`, `nobody`.
    pub tier: String,
    /// Backends that are up or unchecked, draining ones left out.
    pub up: usize,
    /// Backends that are eligible.
    pub eligible: usize,
    /// All backends, draining ones left out.
    pub total: usize,
    /// When a backend's state last changed, where one has since it was first seen.
    pub last_change: Option<String>,
    /// What is said of its health check, while every backend fails it since it was edited.
    #[serde(default)]
    pub suspicion: Option<String>,
    /// How long its health checks take at worst; null without checks.
    #[serde(default)]
    pub detection: Option<DetectionStatus>,
    /// Names that lead to the address of another backend: both are that one.
    #[serde(default)]
    pub aliases: Vec<AliasStatus>,
    /// Its backends in the order of the file, then those that were removed and finish their requests.
    pub backends: Vec<BackendStatus>,
}

/// A name that leads to the address of a backend which comes before it in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AliasStatus {
    /// The name.
    pub name: String,
    /// The backend, whose weight and role count.
    pub backend: String,
}

/// How long health checks take at worst.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct DetectionStatus {
    /// Until a backend that has died is out, in seconds.
    pub out_s: f64,
    /// Until one that is well again is back, in seconds.
    pub back_s: f64,
}

impl DetectionStatus {
    pub(super) fn of(checks: &[HealthCheck]) -> Option<Self> {
        let Detection { out, back } = Detection::of(checks)?;
        Some(Self { out_s: out.as_secs_f64(), back_s: back.as_secs_f64() })
    }
}

/// A backend.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// `checking`, `up`, `degraded`, `down`, `unchecked`, `ejected`, `draining`.
    pub state: String,
    /// Since when.
    pub since: String,
    /// For how many seconds.
    pub for_s: u64,
    /// Why, as a token; empty before the first outcome.
    pub reason: String,
    /// Why, in words.
    pub why: String,
    /// Whether it may get traffic.
    pub eligible: bool,
    /// Used only while no primary is eligible.
    pub backup: bool,
    /// Its share relative to its peers.
    pub weight: u16,
    /// 0 for a primary, else the tier of a backup.
    #[serde(default)]
    pub tier: u8,
    /// Who drains it, and why; null where nobody does, or where it was removed.
    #[serde(default)]
    pub draining: Option<DrainStatus>,
    /// Until when live traffic keeps it out.
    #[serde(default)]
    pub ejected_until: Option<String>,
    /// Its checks say that it is down, and are not believed: `suspicion` of the upstream says why.
    #[serde(default)]
    pub held: bool,
    /// Responses since it was first seen.
    pub requests: u64,
    /// Responses of the class 5xx among them.
    pub errors: u64,
    /// Requests that use it now.
    pub in_flight: u32,
    /// Open connections.
    pub connections: u32,
    /// The last minute; null where less than a second of it is known.
    pub recent: Option<Recent>,
}

/// What the last minute was like, or as much of it as is known.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Recent {
    /// Seconds that it is about, at most about 65.
    pub seconds: f64,
    /// Requests per second.
    pub requests_per_s: f64,
    /// Failed requests in percent; null without requests.
    pub error_percent: Option<f64>,
    /// The 95th percentile of latencies in milliseconds, estimated; null where unknown.
    pub p95_ms: Option<f64>,
}

/// What a listener shows its clients.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CertificateStatus {
    /// The listener.
    pub listener: String,
    /// The first name of the certificate.
    pub name: String,
    /// `up`, `degraded` in its last week, `down` once it has expired.
    pub status: String,
    /// Until when it is valid.
    pub not_after: String,
    /// Seconds until then; null once it has expired.
    pub left_s: Option<u64>,
}

/// A name whose addresses may not be what DNS says now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StaleName {
    /// The name.
    pub name: String,
    /// How many addresses of it are in use.
    pub addresses: usize,
    /// Since when they could not be confirmed.
    pub since: String,
    /// Why not, in words.
    pub why: String,
}

/// All requests together.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GatewayStatus {
    /// Requests on the routes in force, and those that no route took.
    pub requests: u64,
    /// Those that the gateway answered or cut itself although the client did nothing wrong.
    pub errors: u64,
    /// The last minute.
    pub recent: Option<Recent>,
}

/// The most events that the document holds.
const EVENTS: usize = 50;

impl StatusDocument {
    pub(super) fn of(now: &Now, status: &Status, rates: &Rates) -> Self {
        let readiness = status.readiness.check();
        let (attempt, instant) = (&now.last_attempt, Instant::now());
        let recorded = status.event_log.recent();
        let events = recorded.iter().skip(recorded.len().saturating_sub(EVENTS));
        let gateway = Totals::of_gateway(status);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            timestamp: now.at.to_string(),
            started: now.started.to_string(),
            uptime_s: now.uptime_s(),
            ready: readiness.is_ok(),
            reason: readiness.err().map(str::to_owned),
            status: now.overall().as_str().to_owned(),
            config: ConfigStatus {
                file: status.file.display().to_string(),
                generation: now.snapshot.generation,
                sha: now.snapshot.sha.to_string(),
                since: now.snapshot.since.to_string(),
                last_attempt: AttemptStatus {
                    ok: attempt.is_live,
                    at: attempt.at.to_string(),
                    by: attempt.by.to_owned(),
                    errors: attempt.findings.errors(),
                    warnings: attempt.findings.warnings(),
                    findings: attempt.findings.short().lines().map(str::to_owned).collect(),
                    backends: CarriedStatus::all(&attempt.backends),
                },
            },
            upstreams: now.upstreams.iter().map(|observed| UpstreamStatus::of(observed, now, rates)).collect(),
            certificates: now.certificates().map(|shown| CertificateStatus::of(&shown)).collect(),
            stale_names: now
                .stale_names()
                .map(|(name, addresses, trouble)| StaleName {
                    name: name.to_string(),
                    addresses,
                    since: trouble.since.to_string(),
                    why: trouble.why.to_string(),
                })
                .collect(),
            gateway: GatewayStatus {
                requests: gateway.requests,
                errors: gateway.errors,
                recent: rates.of_gateway(instant, &gateway),
            },
            events: events.filter_map(|event| serde_json::from_str(&event.json()).ok()).collect(),
        }
    }
}

impl UpstreamStatus {
    pub(super) fn of(observed: &Observed, now: &Now, rates: &Rates) -> Self {
        let instant = Instant::now();
        let changes = observed.view.backends.iter().filter_map(|backend| backend.record.changes.back());
        Self {
            name: observed.name().to_string(),
            status: observed.standing().as_str().to_owned(),
            checked: observed.is_checked(),
            tier: tier(observed.view.tier).to_owned(),
            up: observed.up(),
            eligible: observed.eligible(),
            total: observed.total(),
            last_change: changes.map(|change| change.at).max().map(|at| at.to_string()),
            suspicion: observed.suspicion(),
            detection: DetectionStatus::of(&observed.view.plan.health.checks),
            aliases: observed.upstream.aliases.iter().map(AliasStatus::of).collect(),
            backends: observed.rows().map(|row| BackendStatus::of(row, now, instant, rates)).collect(),
        }
    }

    /// Whether no backend is eligible, tried all the same or not.
    #[must_use]
    pub fn is_down(&self) -> bool {
        [Tier::Nobody, Tier::TooFew, Tier::TryAll].into_iter().any(|down| self.tier == tier(down))
    }
}

impl AliasStatus {
    fn of((name, backend): &(Name, Name)) -> Self {
        Self { name: name.to_string(), backend: backend.to_string() }
    }
}

impl CertificateStatus {
    fn of(shown: &Shown<'_>) -> Self {
        Self {
            listener: shown.listener.to_string(),
            name: shown.name.to_owned(),
            status: shown.standing().as_str().to_owned(),
            not_after: shown.ends.to_string(),
            left_s: shown.left.map(|left| left.as_secs()),
        }
    }
}

impl BackendStatus {
    #[expect(clippy::needless_pass_by_value, reason = "a row is made to be used up")]
    fn of(row: Row<'_>, now: &Now, instant: Instant, rates: &Rates) -> Self {
        let backend = row.view.map(|view| &view.backend);
        let record = row.record();
        let totals = backend.map(|backend| Totals::of_backend(backend)).unwrap_or_default();
        Self {
            name: row.name.to_string(),
            address: row.address.to_string(),
            state: row.state.to_owned(),
            since: row.since.to_string(),
            for_s: seconds_between(row.since, now.at),
            reason: row.reason.to_owned(),
            why: row.detail.to_owned(),
            eligible: row.is_eligible,
            backup: row.is_backup(),
            weight: row.weight,
            tier: row.tier,
            draining: record.drain.as_ref().map(DrainStatus::of),
            ejected_until: record.ejected.map(|ejected| ejected.until.to_string()),
            held: record.is_held,
            requests: totals.requests,
            errors: totals.errors,
            in_flight: row.in_flight(),
            connections: row.connections(),
            recent: backend.and_then(|backend| rates.of_backend(instant, backend, &totals)),
        }
    }
}
