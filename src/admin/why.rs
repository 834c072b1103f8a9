//! `/api/v1/upstreams/{u}/backends/{b}`: everything that is known of one backend, the evidence of its probes among it.
//!
//! The command line reads it back into the same structs, as it does with the status document.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{DetectionStatus, Now, Observed, Row, observed::seconds_between};
use crate::{
    base::{Timestamp, duration::Written},
    config::plan::{HealthCheck, ProbeKind},
    health::{Change, Drain, Probe, Record},
};

/// A backend, and why it is in the state that it is in.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BackendDocument {
    /// Its upstream.
    pub upstream: String,
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
    /// Who made the last change: `active`, `live_traffic`, `operator`, `backend`, `reload`.
    pub source: Option<String>,
    /// The generation that was live then.
    pub generation: Option<u64>,
    /// Its share relative to its peers.
    pub weight: u16,
    /// 0 for a primary, else the tier of a backup.
    pub tier: u8,
    /// Whether it may get traffic.
    pub eligible: bool,
    /// Requests that use it now, tunnels among them.
    pub in_flight: u32,
    /// Tunnels that are open to it: WebSockets and other upgrades.
    pub tunnels: u32,
    /// For how many seconds the oldest of the others has been under way, about a second ago; null where that is not looked at: it is
    /// while the backend drains.
    pub oldest_s: Option<u64>,
    /// Open connections.
    pub connections: u32,
    /// Names that lead to its address, too: they are this backend.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Why it is drained; null where it is not, or where it was removed.
    pub drain: Option<DrainStatus>,
    /// Its ejection by live traffic.
    pub ejected: Option<EjectedStatus>,
    /// Its checks say that it is down, and are not believed: see `suspicion`.
    pub held: bool,
    /// What is said of a check that is suspect: everybody fails it since it was edited, or began to at once.
    pub suspicion: Option<String>,
    /// Why live traffic last spoke against it in vain.
    pub spared: Option<String>,
    /// What its requests say.
    pub live: LiveStatus,
    /// How long its health checks take at worst; null without checks.
    #[serde(default)]
    pub detection: Option<DetectionStatus>,
    /// Its health checks.
    pub checks: Vec<CheckStatus>,
    /// The last 20 probes of each check, the newest first.
    pub probes: Vec<ProbeStatus>,
    /// Its last changes, the newest first.
    pub changes: Vec<ChangeStatus>,
}

/// Why a backend is drained.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DrainStatus {
    /// Who wants it.
    pub by: String,
    /// Why, as given; may be empty.
    pub reason: String,
    /// Since when.
    pub since: String,
    /// When it ends by itself.
    pub until: Option<String>,
    /// When tunnels that it still has are cut.
    pub deadline: Option<String>,
}

/// An ejection.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EjectedStatus {
    /// When it ends.
    pub until: String,
    /// The how manieth it is in a row.
    pub times: u32,
    /// Seconds until it ends; null once it is over.
    pub left_s: Option<u64>,
}

/// What live traffic says.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LiveStatus {
    /// Failed requests in a row, up to now.
    pub failures_in_row: u32,
    /// Failed requests since it was first seen.
    pub failures: u64,
    /// Requests since then.
    pub requests: u64,
}

/// A health check.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CheckStatus {
    /// What it is called.
    pub name: String,
    /// What is asked, in words.
    pub asks: String,
    /// Its last probe that failed, however long ago that was; null where none has since the backend was first seen, or the check was edited.
    #[serde(default)]
    pub last_failed: Option<ProbeStatus>,
}

/// A probe.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProbeStatus {
    /// When it began.
    pub at: String,
    /// The check that it was sent for.
    pub check: String,
    /// `pass`, `degraded`, `fail`, `inconclusive`.
    pub result: String,
    /// Why, as a token.
    pub reason: String,
    /// Why, in words.
    pub detail: String,
    /// The status of the answer.
    pub status: Option<u16>,
    /// Milliseconds until the connection was open.
    pub connect_ms: Option<f64>,
    /// Milliseconds until TLS was agreed on.
    #[serde(default)]
    pub tls_ms: Option<f64>,
    /// Milliseconds until the head of the answer.
    pub first_byte_ms: Option<f64>,
    /// Milliseconds until the end.
    pub total_ms: f64,
    /// The first 200 bytes of the body, control characters escaped.
    pub body: Option<String>,
    /// The generation that was live.
    pub generation: u64,
}

/// A change of the state.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ChangeStatus {
    /// When.
    pub at: String,
    /// The state before.
    pub from: String,
    /// The state since.
    pub to: String,
    /// Who.
    pub source: String,
    /// Why, as a token.
    pub reason: String,
    /// Why, in words.
    pub detail: String,
    /// The health check that decided; null where none did.
    #[serde(default)]
    pub check: Option<String>,
    /// The generation that was live.
    pub generation: u64,
    /// For how many seconds the state before had lasted, where the change before that is known.
    pub lasted_s: Option<f64>,
}

impl BackendDocument {
    #[expect(clippy::needless_pass_by_value, reason = "a row is made to be used up")]
    pub(super) fn of(row: Row<'_>, observed: &Observed, now: &Now) -> Self {
        let record = row.record();
        let last = record.changes.back();
        let health = &observed.view.plan.health;
        Self {
            upstream: observed.name().to_string(),
            name: row.name.to_string(),
            address: row.address.to_string(),
            state: row.state.to_owned(),
            since: row.since.to_string(),
            for_s: seconds_between(row.since, now.at),
            reason: row.reason.to_owned(),
            why: row.detail.to_owned(),
            source: last.map(|change| change.source.as_str().to_owned()),
            generation: last.map(|change| change.generation),
            weight: row.weight,
            tier: row.tier,
            eligible: row.is_eligible,
            in_flight: row.in_flight(),
            tunnels: row.tunnels(),
            oldest_s: row.oldest().map(|age| age.as_secs()),
            connections: row.connections(),
            aliases: observed.aliases_of(row.name).map(ToString::to_string).collect(),
            drain: record.drain.as_ref().map(DrainStatus::of),
            ejected: EjectedStatus::of(&record, now.at),
            held: record.is_held,
            suspicion: observed.suspicion(),
            spared: record.spared.clone(),
            live: LiveStatus::of(&row),
            detection: DetectionStatus::of(&observed.view.plan.health.checks),
            checks: health.checks.iter().map(|check| CheckStatus::of(check, &record)).collect(),
            probes: probes(&record),
            changes: changes(&record),
        }
    }
}

/// The last probes of each check, the newest first.
pub(super) fn probes(record: &Record) -> Vec<ProbeStatus> {
    record.recent().into_iter().rev().map(|probe| ProbeStatus::of(probe)).collect()
}

fn changes(record: &Record) -> Vec<ChangeStatus> {
    let before = std::iter::once(None).chain(record.changes.iter().map(Some));
    let with_before = record.changes.iter().zip(before);
    let mut changes: Vec<_> = with_before.map(|(change, before)| ChangeStatus::of(change, before)).collect();
    changes.reverse();
    changes
}

impl DrainStatus {
    pub(super) fn of(drain: &Drain) -> Self {
        let text = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
        Self {
            by: drain.by.clone(),
            reason: drain.reason.clone(),
            since: drain.since.to_string(),
            until: text(drain.ends_at()),
            deadline: text(drain.cuts_at()),
        }
    }
}

impl EjectedStatus {
    fn of(record: &Record, now: Timestamp) -> Option<Self> {
        let ejected = record.ejected?;
        let left_s = (ejected.until > now).then(|| seconds_between(now, ejected.until));
        Some(Self { until: ejected.until.to_string(), times: ejected.times, left_s })
    }
}

impl LiveStatus {
    fn of(row: &Row<'_>) -> Self {
        let Some(backend) = row.view.map(|view| &view.backend) else { return Self::default() };
        let metrics = backend.metrics();
        Self { failures_in_row: backend.failures(), failures: metrics.failures(), requests: metrics.requests() }
    }
}

impl CheckStatus {
    fn of(check: &HealthCheck, record: &Record) -> Self {
        let question = match &check.kind {
            // Without a query, which may hold secrets.
            ProbeKind::Http(http) => format!("{} {}", http.method, http.path.split('?').next().unwrap_or_default()),
            kind => kind.to_string(),
        };
        let port = check.port.map(|port| format!(" at port {port}")).unwrap_or_default();
        let (every, within) = (Written(check.interval), Written(check.timeout));
        let (bad, good) = (check.unhealthy_after, check.healthy_after);
        let asks = format!("{question}{port} every {every}, within {within}; down after {bad}, up after {good}");
        let last_failed = record.of_check(&check.name).and_then(|probed| probed.last_failed.as_deref());
        Self { name: check.name.to_string(), asks, last_failed: last_failed.map(ProbeStatus::of) }
    }
}

impl ProbeStatus {
    fn of(probe: &Probe) -> Self {
        let outcome = &probe.outcome;
        Self {
            at: outcome.at.to_string(),
            check: probe.check.to_string(),
            result: outcome.kind.as_str().to_owned(),
            reason: outcome.reason.to_owned(),
            detail: outcome.detail.clone(),
            status: outcome.status,
            connect_ms: outcome.connect.map(millis),
            tls_ms: outcome.tls.map(millis),
            first_byte_ms: outcome.first_byte.map(millis),
            total_ms: millis(outcome.total),
            body: outcome.body.clone(),
            generation: probe.generation,
        }
    }
}

/// To the hundredth.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

impl ChangeStatus {
    fn of(change: &Change, before: Option<&Arc<Change>>) -> Self {
        let lasted = before.map(|before| change.at.as_micros().saturating_sub(before.at.as_micros()) / 1_000);
        Self {
            at: change.at.to_string(),
            from: change.from.to_owned(),
            to: change.to.to_owned(),
            source: change.source.as_str().to_owned(),
            reason: change.reason.to_owned(),
            detail: change.detail.clone(),
            check: change.check.as_ref().map(ToString::to_string),
            generation: change.generation,
            lasted_s: lasted.map(|millis| millis as f64 / 1e3),
        }
    }
}
