//! What a request says of the backend that it was sent to, for the sake of those that come after it.
//!
//! A failure is counted and told to the upstream's health task when it is seen: no response, one of the statuses that the config
//! names, a head that took too long, a body that was cut. A success is what has ended without any of these, and costs a load.

use std::time::{Duration, Instant as Clock};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use super::{Fault, fault::Blame};
use crate::{
    base::duration,
    config::plan::Passive,
    net::values,
    runtime::Upstream,
    telemetry::WorkerId,
    upstream::{Evidence, Member},
};

/// What a backend may ask for: no drain is so short that it comes and goes with every response, none outlasts the day.
const SHORTEST_DRAIN: Duration = Duration::from_secs(1);
const LONGEST_DRAIN: Duration = Duration::from_secs(86_400);

/// No response came. Faults that are not the backend's doing say nothing of it.
pub(super) fn failed(worker: WorkerId, upstream: &Upstream, member: &Member, fault: Fault) {
    if fault.blame() == Blame::Backend {
        tell(worker, upstream, member, Failure::new(fault.reason()));
        if upstream.plan.balance.watches_latency() {
            member.backend.took(Duration::ZERO, true);
        }
    }
}

/// The head of a response came. Returns whether it is a failure.
pub(super) fn answered(
    worker: WorkerId,
    upstream: &Upstream,
    member: &Member,
    status: StatusCode,
    headers: &mut HeaderMap,
    began: Clock,
) -> bool {
    let is_bad = speaks_against(worker, upstream, member, status, headers, began);
    if upstream.plan.balance.watches_latency() {
        member.backend.took(began.elapsed(), is_bad);
    }
    is_bad
}

fn speaks_against(
    worker: WorkerId,
    upstream: &Upstream,
    member: &Member,
    status: StatusCode,
    headers: &mut HeaderMap,
    began: Clock,
) -> bool {
    let Some(rules) = &upstream.plan.health.passive else { return false };
    if let Some(name) = &rules.drain_header
        && let Some(asked) = headers.remove(name)
    {
        // What is not a time asks for nothing: it may be `false`.
        if let Some(lasts) = asked.to_str().ok().and_then(|text| duration::parse(text).ok().or_else(|| seconds(text))) {
            let (slot, lasts) = (member.backend.slot(), lasts.clamp(SHORTEST_DRAIN, LONGEST_DRAIN));
            upstream.live.report(Evidence::AsksToDrain { slot, lasts });
        }
    }
    let Some(reason) = what_is_wrong(rules, status, began) else { return false };
    let retry_after = retry_after(headers).and_then(Result::ok);
    let status = Some(status.as_u16());
    tell(worker, upstream, member, Failure { reason, is_answered: true, status, retry_after });
    true
}

/// A response that was no failure so far was cut.
pub(super) fn cut(worker: WorkerId, upstream: &Upstream, member: &Member) {
    tell(worker, upstream, member, Failure { is_answered: true, ..Failure::new(Fault::ResponseCut.reason()) });
}

fn what_is_wrong(rules: &Passive, status: StatusCode, began: Clock) -> Option<&'static str> {
    if rules.status.iter().any(|range| range.contains(status.as_u16())) {
        return Some("status");
    }
    rules.slower_than.is_some_and(|limit| began.elapsed() > limit).then_some("slow")
}

/// When a backend wants to be asked again, if it says so; an error where it says it in another form than ours.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Result<Duration, NotSeconds>> {
    let said = values(headers, &RETRY_AFTER).next()?;
    Some(said.to_str().ok().and_then(seconds).ok_or(NotSeconds))
}

/// A date, or garbage.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotSeconds;

/// Whole seconds, as `Retry-After` has them. As a date it is left alone: the backend's clock is not ours.
fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs)
}

// What there is to say of a failure.
#[derive(Clone, Copy)]
struct Failure {
    reason: &'static str,
    is_answered: bool,
    status: Option<u16>,
    retry_after: Option<Duration>,
}

impl Failure {
    const fn new(reason: &'static str) -> Self {
        Self { reason, is_answered: false, status: None, retry_after: None }
    }
}

fn tell(worker: WorkerId, upstream: &Upstream, member: &Member, failure: Failure) {
    let Failure { reason, is_answered, status, retry_after } = failure;
    member.backend.failed(worker, is_answered);
    upstream.live.report(Evidence::Failed { slot: member.backend.slot(), reason, status, retry_after });
}
