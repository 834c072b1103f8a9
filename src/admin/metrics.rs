//! `/metrics`: the families of the catalogue, filled by walking what is live. What was removed is not walked, so its series
//! end by themselves.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use super::{Now, Observed, Row};
use crate::{
    base::Timestamp,
    config::plan::Stage,
    control::Status,
    layers::{LayerKind, Pipeline},
    runtime::{Api, Snapshot},
    telemetry::{
        catalogue,
        exposition::{Exposition, Format},
        metrics::expose_gateway,
    },
    upstream::Verdict,
};

/// The states that a backend can be shown in.
const STATES: [&str; 7] = [
    Verdict::Checking.as_str(),
    Verdict::Up.as_str(),
    Verdict::Degraded.as_str(),
    Verdict::Down.as_str(),
    Verdict::Unchecked.as_str(),
    "ejected",
    "draining",
];

/// The route of requests that no route took.
const UNROUTED: &str = "-";

/// A whole scrape.
pub(super) fn scrape(now: &Now, status: &Status, format: Format) -> String {
    let mut out = Exposition::new(format);
    expose_clients(&mut out, &now.snapshot, status);
    for observed in &now.upstreams {
        expose_upstream(&mut out, observed);
    }
    for (name, record) in &*now.names {
        let mut lookups = out.family(&catalogue::DNS_LOOKUPS);
        for (result, count) in record.results() {
            lookups.sample([name, result], count);
        }
        out.family(&catalogue::DNS_ADDRESSES).sample([name], record.now().addresses);
    }
    for (name, route) in &now.snapshot.routes {
        expose_decisions(&mut out, name, &route.layers);
    }
    for api in now.snapshot.apis.values() {
        expose_api(&mut out, api, now.at);
    }
    expose_config(&mut out, now, status);
    for (name, told) in &**status.webhooks.load() {
        out.family(&catalogue::WEBHOOK_EVENTS)
            .sample([name, "delivered"], told.delivered.load(Relaxed))
            .sample([name, "failed"], told.failed.load(Relaxed))
            .sample([name, "lost"], told.lost.load(Relaxed));
    }
    expose_gateway(&mut out, &status.panics, status.access_log.load().as_deref(), &status.events);
    out.finish()
}

fn expose_clients(out: &mut Exposition, snapshot: &Snapshot, status: &Status) {
    let listener = |number: u16| {
        let mut listeners = snapshot.listeners.iter();
        listeners.find(|(_, listener)| listener.id.0 == usize::from(number)).map(|(name, _)| name.as_str())
    };
    for (name, listener) in &snapshot.listeners {
        listener.metrics.expose(out, name);
        for certificate in listener.plan.tls.iter().flat_map(|tls| &tls.shown.certificates) {
            let facts = certificate.facts();
            let ends = Timestamp::from(facts.not_after);
            out.family(&catalogue::TLS_CERTIFICATE_NOT_AFTER).sample([name, facts.name()], ends);
        }
    }
    for (name, route) in &snapshot.routes {
        route.metrics.expose(out, name, listener);
    }
    status.unrouted.expose(out, UNROUTED, listener);
}

fn expose_upstream(out: &mut Exposition, observed: &Observed) {
    let name = observed.name();
    observed.upstream.metrics.expose(out, name);
    let mut backends = BTreeSet::new();
    let mut in_state = [0u64; STATES.len()];
    for row in observed.rows() {
        // A name may have moved to another address while the former backend finishes its requests; one series is one backend.
        if backends.insert(row.name) {
            expose_backend(out, name, &row);
        }
        for (count, state) in in_state.iter_mut().zip(STATES) {
            *count += u64::from(row.state == state);
        }
    }
    let mut family = out.family(&catalogue::UPSTREAM_BACKENDS);
    for (state, count) in STATES.into_iter().zip(in_state) {
        family.sample([name, state], count);
    }
    if observed.is_checked() {
        let is_suspect = observed.view.suspicion.is_some();
        out.family(&catalogue::HEALTH_CHECK_SUSPECT).sample([name], is_suspect);
        out.family(&catalogue::HEALTH_PROBE_DURATION).sample([name], observed.view.probe_durations.clone());
        out.family(&catalogue::HEALTH_PROBES_WAITING).sample([name], observed.view.probes_waiting);
    }
}

fn expose_backend(out: &mut Exposition, upstream: &str, row: &Row<'_>) {
    let name = row.name.as_str();
    out.family(&catalogue::BACKEND_UP).sample([upstream, name], row.is_eligible);
    let mut state = out.family(&catalogue::BACKEND_STATE);
    for word in STATES {
        state.sample([upstream, name, word], row.state == word);
    }
    out.family(&catalogue::BACKEND_STATE_SINCE).sample([upstream, name], row.since);
    let Some(view) = row.view else { return };
    view.backend.metrics().expose(out, upstream, name);
    let connections = view.backend.connections();
    // A request in flight may still wait for its connection.
    let active = view.backend.in_flight().min(connections);
    out.family(&catalogue::UPSTREAM_CONNECTIONS)
        .sample([upstream, name, "active"], active)
        .sample([upstream, name, "idle"], connections - active);
    let mut transitions = out.family(&catalogue::BACKEND_TRANSITIONS);
    for ((to, reason), count) in &view.record.transitions {
        transitions.sample([upstream, name, to, reason], *count);
    }
    let mut probes = out.family(&catalogue::HEALTH_PROBES);
    for ((kind, reason), count) in &view.record.probes {
        probes.sample([upstream, name, kind.as_str(), reason], *count);
    }
}

fn expose_decisions(out: &mut Exposition, route: &str, layers: &Pipeline) {
    for decided in layers.decisions() {
        match decided.kind {
            LayerKind::Auth => {
                let labels = [route, decided.name, decided.decision, decided.reason];
                out.family(&catalogue::AUTH_DECISIONS).sample(labels, decided.count);
            }
            LayerKind::Limit => {
                let labels = [route, decided.name, decided.decision];
                out.family(&catalogue::LIMIT_DECISIONS).sample(labels, decided.count);
            }
        }
    }
}

/// Callers of an API that have a series of their own.
const CALLERS: usize = 1_000;

/// Those beyond.
const OTHER: &str = "other";

fn expose_api(out: &mut Exposition, api: &Api, now: Timestamp) {
    let (name, version) = (api.plan.name.as_str(), api.plan.version.as_str());
    let mut requests = out.family(&catalogue::API_REQUESTS);
    for (stage, count) in api.requests() {
        requests.sample([name, version, stage], count);
    }
    let mut callers = out.family(&catalogue::API_CALLER_REQUESTS);
    let mut others = None;
    for caller in api.callers() {
        if caller.place < CALLERS && caller.name.as_str() != OTHER {
            callers.sample([name, version, caller.name], caller.requests);
        } else {
            *others.get_or_insert(0) += caller.requests;
        }
    }
    if let Some(count) = others {
        callers.sample([name, version, OTHER], count);
    }
    let stage = api.plan.stage_at(now);
    let mut stages = out.family(&catalogue::API_STAGE);
    for other in Stage::ALL {
        stages.sample([name, version, other.as_str()], other == stage);
    }
    if let Some(sunset) = api.plan.sunset {
        out.family(&catalogue::API_SUNSET).sample([name, version], sunset);
    }
}

fn expose_config(out: &mut Exposition, now: &Now, status: &Status) {
    let snapshot = &now.snapshot;
    out.family(&catalogue::CONFIG_GENERATION).sample([], snapshot.generation);
    out.family(&catalogue::CONFIG_INFO).sample([&snapshot.sha.to_string(), "file"], ());
    out.family(&catalogue::CONFIG_RELOADS)
        .sample(["ok"], status.reloads_ok.load(Relaxed))
        .sample(["refused"], status.reloads_refused.load(Relaxed));
    out.family(&catalogue::CONFIG_LAST_RELOAD_SUCCESSFUL).sample([], now.last_attempt.is_live);
    out.family(&catalogue::CONFIG_LAST_RELOAD_SUCCESS).sample([], snapshot.since);
}
