//! What the admin API, `/health` and the metrics read of an upstream: a copy, taken without a lock.

use std::sync::Arc;

use super::{Record, Timeline};
use crate::{
    base::{Name, Timestamp},
    config::plan,
    net::Address,
    telemetry::cells::HistogramSum,
    upstream::{Backend, Member, Tier, Verdict},
};

/// An upstream at one moment.
#[derive(Clone, Debug)]
pub struct UpstreamView {
    /// The plan that it runs by: name, health check, what happens when all are down.
    pub plan: Arc<plan::Upstream>,
    /// Which members get traffic now.
    pub tier: Tier,
    /// Whether every member has had one conclusive outcome since the start, or is unchecked. Once true it stays.
    pub first_round_done: bool,
    /// What is said of its check, while that is suspect: everybody fails it since it was edited, or began to at once.
    pub suspicion: Arc<Option<String>>,
    /// How long its probes took, inconclusive ones included.
    pub probe_durations: HistogramSum,
    /// Probes that are due and wait until others have ended, because of `max_probes`.
    pub probes_waiting: usize,
    /// Its backends in the order of the file, then those that were removed and finish their requests.
    pub backends: Vec<BackendView>,
}

/// A backend at one moment.
#[derive(Clone, Debug)]
pub struct BackendView {
    /// The backend itself: slot, address, in-flight and connection counts.
    pub backend: Arc<Backend>,
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub address: Address,
    /// Its share relative to its peers.
    pub weight: u16,
    /// 0 for a primary, else the tier of a backup.
    pub tier: u8,
    /// What the checks say.
    pub verdict: Verdict,
    /// Whether it may get traffic.
    pub is_eligible: bool,
    /// The one word to show: draining, else the verdict.
    pub shown: &'static str,
    /// When what is shown last changed.
    pub since: Timestamp,
    /// Why, the streaks, the last outcomes and changes, the totals.
    pub record: Arc<Record>,
    /// What was remembered of it, to be asked what other thresholds would have done.
    pub timeline: Arc<Timeline>,
}

impl BackendView {
    /// A member now, with what is remembered of it.
    #[must_use]
    pub fn of(member: &Member, timeline: &Arc<Timeline>) -> Self {
        let backend = &member.backend;
        // Once, so that the words agree.
        let known = backend.condition();
        Self {
            backend: Arc::clone(backend),
            name: member.name.clone(),
            address: backend.address().clone(),
            weight: member.weight,
            tier: member.tier,
            verdict: known.verdict,
            is_eligible: known.is_eligible(),
            shown: known.shown(),
            since: backend.since(),
            record: timeline.read(),
            timeline: Arc::clone(timeline),
        }
    }
}
