//! `/health`, as a document of our own and as `application/health+json` (draft-inadarei-api-health-check-06).

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;

use super::{
    Now, Observed, Row, Standing,
    observed::{Overall, Shown, tier},
};
use crate::{
    base::Timestamp,
    health::{Kind, Outcome, Record},
    upstream::Tier,
};

/// The document. Its fields are a contract with monitoring.
#[derive(Debug, Serialize)]
pub(super) struct Health<'a> {
    status: &'static str,
    checks: BTreeMap<Cow<'a, str>, &'static str>,
    timestamp: Timestamp,
    version: &'static str,
    uptime_s: u64,
    config: Config,
    upstreams: BTreeMap<&'a str, Upstream<'a>>,
    /// By listener: the one that expires first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    certificates: BTreeMap<&'a str, Certificate<'a>>,
    /// Names whose addresses stay in use although they could not be confirmed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stale_names: BTreeMap<&'a str, StaleName>,
}

#[derive(Debug, Serialize)]
struct StaleName {
    addresses: usize,
    since: Timestamp,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Config {
    generation: u64,
    sha: String,
    since: Timestamp,
    last_attempt: LastAttempt,
}

#[derive(Debug, Serialize)]
struct LastAttempt {
    ok: bool,
    at: Timestamp,
    errors: usize,
    by: &'static str,
}

#[derive(Debug, Serialize)]
struct Certificate<'a> {
    status: &'static str,
    name: &'a str,
    not_after: Timestamp,
}

#[derive(Debug, Serialize)]
struct Upstream<'a> {
    status: &'static str,
    up: usize,
    total: usize,
    tier: &'static str,
    /// Present only while it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    when_all_down: Option<&'static str>,
    /// Present only while it is suspect: everybody fails it since it was edited, or began to at once while traffic went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspect_check: Option<String>,
    backends: Vec<Backend<'a>>,
}

#[derive(Debug, Serialize)]
struct Backend<'a> {
    name: &'a str,
    address: String,
    state: &'static str,
    since: Timestamp,
    reason: &'a str,
    detail: &'a str,
    backup: bool,
    weight: u16,
    last_probe: Option<LastProbe>,
    consecutive: Consecutive,
    in_flight: u32,
    connections: u32,
}

#[derive(Debug, Serialize)]
struct LastProbe {
    at: Timestamp,
    ok: bool,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

#[derive(Debug, Default, Serialize)]
struct Consecutive {
    good: u32,
    bad: u32,
}

impl<'a> Health<'a> {
    pub(super) fn of(now: &'a Now) -> Self {
        let by_name = |observed: &'a Observed| (observed.name().as_str(), observed);
        let upstreams = || now.upstreams.iter().map(by_name);
        Self {
            status: now.overall().as_str(),
            checks: upstreams()
                .map(|(name, observed)| (name.into(), observed.standing().as_str()))
                .chain(now.certificates().map(|shown| (shown.key().into(), shown.standing().as_str())))
                .collect(),
            timestamp: now.at,
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: now.uptime_s(),
            config: Config {
                generation: now.snapshot.generation,
                sha: now.snapshot.sha.to_string(),
                since: now.snapshot.since,
                last_attempt: LastAttempt {
                    ok: now.last_attempt.is_live,
                    at: now.last_attempt.at,
                    errors: now.last_attempt.findings.errors(),
                    by: now.last_attempt.by,
                },
            },
            upstreams: upstreams().map(|(name, observed)| (name, Upstream::of(observed))).collect(),
            certificates: now.certificates().map(|shown| (shown.listener.as_str(), Certificate::of(&shown))).collect(),
            stale_names: now
                .stale_names()
                .map(|(name, addresses, trouble)| {
                    (name.as_str(), StaleName { addresses, since: trouble.since, detail: trouble.why.to_string() })
                })
                .collect(),
        }
    }
}

impl<'a> Certificate<'a> {
    fn of(shown: &Shown<'a>) -> Self {
        Self { status: shown.standing().as_str(), name: shown.name, not_after: shown.ends }
    }
}

impl<'a> Upstream<'a> {
    fn of(observed: &'a Observed) -> Self {
        Self {
            status: observed.standing().as_str(),
            up: observed.up(),
            total: observed.total(),
            tier: tier(observed.view.tier),
            when_all_down: (observed.view.tier == Tier::TryAll).then_some("try_all"),
            suspect_check: observed.suspicion(),
            backends: observed.rows().map(Backend::of).collect(),
        }
    }
}

impl<'a> Backend<'a> {
    #[expect(clippy::needless_pass_by_value, reason = "a row is made to be used up")]
    fn of(row: Row<'a>) -> Self {
        let record = row.view.map(|view| &view.record);
        Self {
            name: row.name,
            address: row.address.to_string(),
            state: row.state,
            since: row.since,
            reason: row.reason,
            detail: row.detail,
            backup: row.is_backup(),
            weight: row.weight,
            last_probe: record.and_then(|record| last_conclusive(record)).map(LastProbe::of),
            consecutive: record.map_or_else(Consecutive::default, |r| Consecutive { good: r.good, bad: r.bad }),
            in_flight: row.in_flight(),
            connections: row.connections(),
        }
    }
}

/// The last outcome that says something of the backend: an inconclusive one says something of us.
fn last_conclusive(record: &Record) -> Option<&Outcome> {
    let last = record.probed.iter().filter_map(|probed| {
        let mut outcomes = probed.recent.iter().rev().map(|probe| &*probe.outcome);
        outcomes.find(|outcome| outcome.kind != Kind::Inconclusive)
    });
    last.max_by_key(|outcome| outcome.at)
}

impl LastProbe {
    fn of(outcome: &Outcome) -> Self {
        let tenths = (outcome.total.as_secs_f64() * 10_000.0).round();
        Self { at: outcome.at, ok: outcome.kind.is_fit(), ms: tenths / 10.0, status: outcome.status }
    }
}

/// The same as the draft has it: `pass`, `warn` or `fail`, a list of checks per component.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DraftHealth<'a> {
    status: &'static str,
    release_id: &'static str,
    description: &'static str,
    checks: BTreeMap<Cow<'a, str>, Vec<DraftCheck<'a>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DraftCheck<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    component_id: Option<&'a str>,
    component_type: &'static str,
    status: &'static str,
    time: Timestamp,
    /// Left out where all is well, as the draft asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

impl<'a> DraftHealth<'a> {
    pub(super) fn of(now: &'a Now) -> Self {
        let status = match now.overall() {
            Overall::Degraded => "warn",
            Overall::Healthy => "pass",
            Overall::Unhealthy => "fail",
        };
        let upstreams = now.upstreams.iter();
        let mut checks: BTreeMap<_, _> =
            upstreams.map(|observed| (observed.name().as_str().into(), draft_checks(observed, now))).collect();
        checks.extend(now.certificates().map(|shown| (shown.key().into(), vec![draft_certificate(&shown, now)])));
        // Not the name of an upstream: a written name has no colon, a derived one starts with a host or a path.
        checks.insert("config:last_attempt".into(), vec![draft_config(now)]);
        Self { status, release_id: env!("CARGO_PKG_VERSION"), description: "Tidegate API gateway", checks }
    }
}

const fn draft_status(standing: Standing) -> &'static str {
    match standing {
        Standing::Degraded => "warn",
        Standing::Down => "fail",
        Standing::Up => "pass",
    }
}

fn draft_checks<'a>(observed: &'a Observed, now: &Now) -> Vec<DraftCheck<'a>> {
    let status = draft_status(observed.standing());
    let all_down = if observed.view.tier == Tier::TryAll { ", all are tried" } else { "" };
    let suspicion = observed.suspicion().map(|told| format!("; {told}")).unwrap_or_default();
    let output = match observed.total() {
        0 => "all of its backends are drained".to_owned(),
        total => format!("{} of {total} backends up{all_down}{suspicion}", observed.up()),
    };
    let whole = DraftCheck {
        component_id: None,
        component_type: "system",
        status,
        time: now.at,
        output: (status != "pass").then_some(output),
    };
    std::iter::once(whole).chain(observed.rows().map(draft_backend)).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "a row is made to be used up")]
fn draft_backend(row: Row<'_>) -> DraftCheck<'_> {
    let status = match row.state {
        "up" | "unchecked" => "pass",
        "down" => "fail",
        _ => "warn",
    };
    let output = match row.detail {
        "" => row.state.to_owned(),
        detail => format!("{}: {detail}", row.state),
    };
    DraftCheck {
        component_id: Some(row.name),
        component_type: "component",
        status,
        time: row.since,
        output: (status != "pass").then_some(output),
    }
}

fn draft_certificate(shown: &Shown<'_>, now: &Now) -> DraftCheck<'static> {
    let status = draft_status(shown.standing());
    let output = || format!("the certificate of {} expires at {}", shown.name, shown.ends);
    DraftCheck {
        component_id: None,
        component_type: "component",
        status,
        time: now.at,
        output: (status != "pass").then(output),
    }
}

fn draft_config(now: &Now) -> DraftCheck<'static> {
    let attempt = &now.last_attempt;
    let refused = || format!("the last edit was refused: {}", attempt.findings.count_line());
    DraftCheck {
        component_id: None,
        component_type: "component",
        status: if attempt.is_live { "pass" } else { "warn" },
        time: attempt.at,
        output: (!attempt.is_live).then(refused),
    }
}
