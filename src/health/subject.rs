//! One member under watch: its question, its machine, its timeline, the probe under way.
//!
//! Everything that changes what is shown of a backend passes through [`Subject::shift`], so that there is exactly one
//! entry in the timeline, and one event, for each change, and none without.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{AbortHandle, Id},
    time::Instant,
};

use super::{
    Change, Kind, Machine, Outcome, Thresholds, Timeline, Transition,
    cadence::{self, Pace},
    probe::{Prepared, Question},
};
use crate::{
    base::{Name, Timestamp, duration::Elapsed},
    telemetry::Event,
    upstream::{Backend, Member, Verdict},
};

/// A member under watch.
#[derive(Debug)]
pub(super) struct Subject {
    member: Member,
    timeline: Arc<Timeline>,
    inquiry: Option<Inquiry>,
    probe: Option<AbortHandle>,
}

// What is known through the present health check. A changed check is a new inquiry.
#[derive(Debug)]
struct Inquiry {
    question: Arc<Question>,
    machine: Machine,
    answered: bool,
    last: Option<Kind>,
}

/// A change of what is shown of a backend, to be told once the slice agrees with it.
#[derive(Debug)]
pub(super) struct Shift {
    backend: Name,
    change: Change,
    lasted: Option<Duration>,
}

impl Shift {
    /// The event that tells of it.
    pub(super) fn event(self, upstream: Name, eligible: usize, total: usize) -> Event {
        let Self { backend, lasted, change: Change { from, to, reason, detail, .. } } = self;
        Event::Backend { upstream, backend, from, to, reason, detail, lasted, eligible, total }
    }
}

impl Subject {
    /// A member that was not watched before. What another watcher found of it is kept as a first opinion.
    pub(super) fn new(member: &Member, check: Option<&Arc<Prepared>>) -> Self {
        let backend = &member.backend;
        let verdict = match (check, backend.verdict()) {
            (None, _) => Verdict::Unchecked,
            (Some(_), known @ (Verdict::Up | Verdict::Degraded | Verdict::Down)) if !backend.is_draining() => known,
            (Some(_), _) => Verdict::Checking,
        };
        backend.set_draining(false);
        backend.set_verdict(verdict);
        let timeline = Arc::default();
        let inquiry = check.map(|check| Inquiry::new(Question::new(member, check), verdict));
        let subject = Self { member: member.clone(), timeline, inquiry, probe: None };
        if check.is_none() {
            subject.timeline.explain("unchecked", "no health check");
        }
        subject
    }

    /// Takes a reload in: the same backend, perhaps in another role, perhaps asked another question.
    ///
    /// A backend that was `unchecked` stays so, and keeps its traffic, until the first probe of a new check decides.
    pub(super) fn keep(&mut self, member: &Member, check: Option<&Arc<Prepared>>) -> Option<Shift> {
        self.member = member.clone();
        let verdict = if check.is_some() { member.backend.verdict() } else { Verdict::Unchecked };
        let question = check.map(|check| Question::new(member, check));
        if self.inquiry.as_ref().map(|inquiry| &*inquiry.question) != question.as_ref() {
            self.stop();
            self.timeline.new_check();
            self.inquiry = question.map(|question| Inquiry::new(question, verdict));
        }
        let (reason, detail) = match member.backend.is_draining() {
            true => ("returned", "back in the configuration"),
            false => ("check_removed", "health check removed"),
        };
        self.decree(reason, detail, |backend| {
            backend.set_draining(false);
            backend.set_verdict(verdict);
        })
    }

    /// Takes its removal in: no probes, no new requests.
    pub(super) fn dismiss(&mut self) -> Option<Shift> {
        self.stop();
        self.decree("removed", "removed from the configuration", |backend| backend.set_draining(true))
    }

    /// Takes the outcome of its probe in. Also says how long from that probe's start to the start of the next.
    pub(super) fn observe(&mut self, now: Instant, outcome: Outcome) -> (Option<Shift>, Duration) {
        self.probe = None;
        let outcome = Arc::new(outcome);
        let Some(inquiry) = &mut self.inquiry else { return (None, Duration::ZERO) };
        let transition = inquiry.machine.observe(now.into_std(), outcome.kind);
        let pause = inquiry.pause(outcome.kind);
        self.timeline.probed(Arc::clone(&outcome), &inquiry.machine);
        let shift = transition.and_then(|transition| {
            self.shift(outcome.reason, why(&transition, &outcome), |backend| backend.set_verdict(transition.to))
        });
        (shift, pause)
    }

    /// The member in its present role.
    pub(super) const fn member(&self) -> &Member {
        &self.member
    }

    /// Where to read what is remembered of it.
    pub(super) const fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// What to ask it, unless it is unchecked or on its way out.
    pub(super) fn question(&self) -> Option<&Arc<Question>> {
        self.inquiry.as_ref().filter(|_| !self.is_leaving()).map(|inquiry| &inquiry.question)
    }

    /// Whether it has to be asked and no probe is scheduled.
    pub(super) fn is_idle(&self) -> bool {
        self.question().is_some() && self.probe.is_none()
    }

    /// Whether it was removed and only finishes its requests.
    pub(super) fn is_leaving(&self) -> bool {
        self.member.backend.is_draining()
    }

    /// Whether the first conclusive outcome is in, or none is to come.
    pub(super) fn is_answered(&self) -> bool {
        self.is_leaving() || self.inquiry.as_ref().is_none_or(|inquiry| inquiry.answered)
    }

    /// Remembers the probe that is scheduled, so that it can be called off.
    pub(super) fn expect(&mut self, probe: AbortHandle) {
        self.probe = Some(probe);
    }

    /// Whether this is the probe that it waits for, and not one that was called off too late.
    pub(super) fn expects(&self, probe: Id) -> bool {
        self.probe.as_ref().is_some_and(|expected| expected.id() == probe)
    }

    fn stop(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }

    // A change that no probe explains.
    fn decree(&self, reason: &'static str, detail: &str, change: impl FnOnce(&Backend)) -> Option<Shift> {
        let shift = self.shift(reason, detail.to_owned(), change)?;
        self.timeline.explain(reason, detail);
        Some(shift)
    }

    fn shift(&self, reason: &'static str, detail: String, change: impl FnOnce(&Backend)) -> Option<Shift> {
        let backend = &self.member.backend;
        let (from, since) = (backend.shown(), backend.since());
        change(backend);
        let to = backend.shown();
        if from == to {
            return None;
        }
        let change = Change { at: Timestamp::now(), from, to, reason, detail };
        self.timeline.changed(change.clone());
        let lasted = (from != Verdict::Checking.as_str()).then(|| since.elapsed());
        Some(Shift { backend: self.member.name.clone(), change, lasted })
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inquiry {
    fn new(question: Question, verdict: Verdict) -> Self {
        let machine = Machine::new(Thresholds::from(question.check()), verdict);
        Self { question: Arc::new(question), machine, answered: false, last: None }
    }

    // An inconclusive probe is repeated at once, but only once: more haste does not help a machine that is late.
    fn pause(&mut self, kind: Kind) -> Duration {
        let before = self.last.replace(kind);
        let pace = match kind {
            Kind::Inconclusive if before != Some(Kind::Inconclusive) => Pace::AtOnce,
            _ if kind == Kind::Inconclusive || self.machine.is_pending() => Pace::Changing,
            _ if !self.answered => Pace::Scatter,
            _ => Pace::Steady,
        };
        self.answered |= kind != Kind::Inconclusive;
        cadence::next(self.question.check(), pace)
    }
}

/// A transition in words: what the probe saw where one decided, the length of the streak where several did.
fn why(transition: &Transition, outcome: &Outcome) -> String {
    let Transition { from, to, streak, over } = *transition;
    let brief = match (outcome.reason, outcome.status) {
        ("status", Some(status)) => status.to_string(),
        _ => outcome.detail.clone(),
    };
    match (from, to) {
        (Verdict::Checking | Verdict::Unchecked, Verdict::Up | Verdict::Degraded) => {
            format!("probe {}", outcome.detail)
        }
        (Verdict::Checking | Verdict::Unchecked, _) => outcome.detail.clone(),
        (_, Verdict::Down) if streak == 1 => outcome.detail.clone(),
        (_, Verdict::Down) => format!("{streak} bad probes in {} ({brief})", seconds(over)),
        (_, Verdict::Degraded) => format!("{streak} degraded probe{} ({brief})", plural(streak)),
        (_, _) => format!("{streak} good probe{}", plural(streak)),
    }
}

fn seconds(over: Duration) -> String {
    match over.as_secs() {
        0..60 => format!("{:.1}s", over.as_secs_f64()),
        _ => Elapsed(over).to_string(),
    }
}

const fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}
