//! One member under watch: what is asked of it, what the answers and the traffic say, who has drained it.
//!
//! Everything that changes what is known of a backend passes through [`Subject::shift`], so that there is exactly one entry in
//! the timeline, and one event, for each change of what is shown, and none without.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{AbortHandle, Id},
    time::Instant,
};

use super::{
    Change, Drain, Ejected, Ejector, Kind, Machine, Outcome, Source, Thresholds, Timeline, Transition, Window,
    cadence::{self, Pace, Vouching},
    line::{Line, Switchboard},
    probe::{Prepared, Question},
    timeline::Probe,
};
use crate::{
    base::{Name, Percent, Timestamp, duration::Took},
    config::plan::Passive,
    telemetry::Event,
    upstream::{Condition, Member, Slot, Verdict},
};

/// A member under watch.
#[derive(Debug)]
pub(super) struct Subject {
    member: Member,
    generation: u64,
    timeline: Arc<Timeline>,
    inquiries: Vec<Inquiry>,
    ejector: Ejector,
    pub(super) window: Window,
    drain_ends: Option<Instant>,
    // When what a drain has left over is cut; `None` once it is.
    cut_due: Option<Instant>,
    // Whether connections end when it is out.
    closes: bool,
    ramp: Option<Instant>,
    is_held: bool,
}

// What is known through one health check. A changed check is a new inquiry.
#[derive(Debug)]
struct Inquiry {
    line: Arc<Line>,
    machine: Machine,
    answered: bool,
    last: Option<Kind>,
    began: Option<Instant>,
    due: Instant,
    probe: Option<AbortHandle>,
    // What changed its verdict last.
    transition: Option<Transition>,
    // Its next probe was brought forward: once is enough.
    is_hastened: bool,
}

/// A change of what is known of a backend. Where it is shown, there is an event to be told once the slice agrees with it.
#[derive(Debug)]
pub(super) struct Shift {
    pub(super) slot: Slot,
    backend: Name,
    change: Option<Change>,
    lasted: Option<Duration>,
    /// It may get traffic again.
    pub(super) comes_back: bool,
}

impl Shift {
    /// The event that tells of it.
    pub(super) fn event(self, upstream: Name, eligible: usize, total: usize) -> Option<Event> {
        let Self { backend, change, lasted, .. } = self;
        let Change { source, generation, from, to, reason, detail, check, .. } = change?;
        let source = source.as_str();
        Some(Event::Backend {
            upstream,
            backend,
            from,
            to,
            source,
            reason,
            detail,
            check,
            lasted,
            eligible,
            total,
            generation,
        })
    }
}

/// Why something is to change: a token, words, and the health check that says so, where one does.
#[derive(Debug)]
pub(super) struct Why {
    reason: &'static str,
    detail: String,
    check: Option<Name>,
}

impl Why {
    /// It is no check that says so.
    pub(super) const fn new(reason: &'static str, detail: String) -> Self {
        Self { reason, detail, check: None }
    }
}

/// What a probe has led to.
pub(super) struct Heard {
    pub(super) shift: Option<Shift>,
    /// When the next one of the same check is due.
    pub(super) next: Instant,
}

impl Subject {
    /// A member that was not watched before. What another watcher found of it is kept as a first opinion.
    pub(super) fn new(member: &Member, checks: &[Arc<Prepared>], lines: &Switchboard, generation: u64) -> Self {
        let backend = &member.backend;
        let verdict = match backend.verdict() {
            _ if checks.is_empty() => Verdict::Unchecked,
            known @ (Verdict::Up | Verdict::Degraded | Verdict::Down) if !backend.is_draining() => known,
            _ => Verdict::Checking,
        };
        backend.set_condition(Condition::new(verdict));
        let line = |check| lines.line(Question::new(member, check));
        let subject = Self {
            member: member.clone(),
            generation,
            timeline: Arc::default(),
            inquiries: checks.iter().map(|check| Inquiry::new(line(check), verdict)).collect(),
            ejector: Ejector::default(),
            window: Window::default(),
            drain_ends: None,
            cut_due: None,
            closes: false,
            ramp: None,
            is_held: false,
        };
        if checks.is_empty() {
            subject.timeline.explain("unchecked", "no health check");
        }
        subject
    }

    /// Takes a reload in: the same backend, perhaps in another role, perhaps asked other questions.
    ///
    /// A backend that was `unchecked` stays so, and keeps its traffic, until the first probe of a new check decides.
    pub(super) fn keep(
        &mut self,
        member: &Member,
        checks: &[Arc<Prepared>],
        lines: &Switchboard,
        generation: u64,
    ) -> Option<Shift> {
        (self.member, self.generation) = (member.clone(), generation);
        let known = self.member.backend.condition();
        let mut before = std::mem::take(&mut self.inquiries);
        for question in checks.iter().map(|check| Question::new(member, check)) {
            let same = before.iter().position(|inquiry| *inquiry.question() == question);
            let inquiry = same.map(|index| before.swap_remove(index));
            self.inquiries.push(inquiry.unwrap_or_else(|| Inquiry::new(lines.line(question), known.verdict)));
        }
        if !before.is_empty() {
            let gone: Vec<Name> = before.iter().map(|inquiry| inquiry.check().clone()).collect();
            self.timeline.new_check(checks, &gone);
        }
        let (reason, detail) = match known.is_removed {
            true => ("returned", "back in the configuration"),
            false => ("check_removed", "health check removed"),
        };
        // What was held back stays so, unless the edit has taken away what said it.
        self.hold(self.is_held && self.said() == Verdict::Down);
        let verdict = if self.is_held { known.verdict } else { self.said() };
        self.decree(Source::Reload, reason, detail, |known| {
            (known.verdict, known.is_removed) = (verdict, false);
        })
    }

    /// Takes its removal in: no probes, no new requests.
    pub(super) fn dismiss(&mut self, generation: u64) -> Option<Shift> {
        self.generation = generation;
        self.inquiries.iter_mut().for_each(Inquiry::stop);
        let detail = "removed from the configuration";
        self.decree(Source::Reload, "removed", detail, |known| known.is_removed = true)
    }

    /// Takes the outcome of a probe in. One that brings it down changes nothing while every check that says so is suspect.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        probe: Id,
        answer: (Instant, Arc<Outcome>),
        is_suspect: impl Fn(usize) -> bool,
    ) -> Option<Heard> {
        let (began, outcome) = answer;
        let inquiry = self.inquiries.iter_mut().find(|inquiry| inquiry.expects(probe))?;
        (inquiry.probe, inquiry.began, inquiry.is_hastened) = (None, Some(began), false);
        let transition = inquiry.machine.observe(now.into_std(), outcome.kind);
        inquiry.transition = transition.or(inquiry.transition);
        let pause = inquiry.pause(outcome.kind);
        let (check, verdict) = (inquiry.check().clone(), inquiry.machine.verdict());
        let is_settled = outcome.kind != Kind::Inconclusive && !inquiry.machine.is_pending();
        let said = self.said();
        let decides = is_settled && verdict == said;
        let probe = Probe { check: check.clone(), generation: self.generation, outcome: Arc::clone(&outcome) };
        let shown = self.named(&check, &outcome.detail);
        self.timeline.probed(now.into_std(), probe, self.streaks(), decides.then_some(shown));
        let is_held = said == Verdict::Down && self.is_fit() && self.believed(&is_suspect).is_none();
        self.hold(is_held);
        let shift = if is_held { None } else { self.follow(&check, &outcome, transition) };
        Some(Heard { shift, next: began + pause })
    }

    /// What was held back is in force where a check says it that is not suspect any more.
    pub(super) fn release(&mut self, is_suspect: impl Fn(usize) -> bool) -> Option<Shift> {
        let believed = self.believed(&is_suspect)?;
        let (check, transition) = (believed.check().clone(), believed.transition);
        let last = self.timeline.read().of_check(&check)?.last_failed.clone()?;
        self.hold(false);
        self.follow(&check, &last.outcome, transition)
    }

    /// A check that says that it is down and is to be believed: it is not suspect. Whoever is held back and passes on the way back is
    /// not taken out for having failed before.
    fn believed(&self, is_suspect: impl Fn(usize) -> bool) -> Option<&Inquiry> {
        let says_down = |inquiry: &Inquiry| inquiry.machine.verdict() == Verdict::Down;
        let comes_back = |inquiry: &Inquiry| self.is_held && inquiry.machine.good() > 0;
        let mut inquiries = self.inquiries.iter().enumerate();
        inquiries
            .find(|(check, inquiry)| says_down(inquiry) && !comes_back(inquiry) && !is_suspect(*check))
            .map(|(_, inquiry)| inquiry)
    }

    /// Whether one of its checks says that it is down.
    pub(super) fn says_down(&self, check: usize) -> bool {
        self.inquiries.get(check).is_some_and(|inquiry| inquiry.machine.verdict() == Verdict::Down)
    }

    /// The checks that say that it is down.
    pub(super) fn down(&self) -> Vec<usize> {
        (0..self.inquiries.len()).filter(|check| self.says_down(*check)).collect()
    }

    /// Whether its last known answer to a check was a good one, and is worth another question.
    pub(super) fn has_passed(&self, check: usize) -> bool {
        self.inquiries.get(check).is_some_and(|inquiry| inquiry.machine.good() > 0) && !self.is_leaving()
    }

    /// Whether the verdict lets it have traffic.
    pub(super) fn is_fit(&self) -> bool {
        self.member.backend.verdict().is_fit()
    }

    fn hold(&mut self, is_held: bool) {
        if std::mem::replace(&mut self.is_held, is_held) != is_held {
            self.timeline.note(|record| record.is_held = is_held);
        }
    }

    /// Whether it keeps its traffic although its checks say no.
    pub(super) const fn is_held(&self) -> bool {
        self.is_held
    }

    /// Makes what the checks say the verdict.
    fn follow(&mut self, check: &Name, outcome: &Outcome, transition: Option<Transition>) -> Option<Shift> {
        let said = self.said();
        let before = self.member.backend.verdict();
        if said == before {
            return None;
        }
        let detail = match transition.filter(|transition| transition.to == said) {
            Some(transition) => why(&transition, outcome),
            None => outcome.detail.clone(),
        };
        let detail = self.named(check, &detail);
        let why = Why { reason: outcome.reason, detail, check: Some(check.clone()) };
        self.shift(Source::Active, why, |known| known.verdict = said)
    }

    /// What one check says, and which it is, where there are several.
    fn named(&self, check: &Name, detail: &str) -> String {
        if self.inquiries.len() > 1 { format!("{check}: {detail}") } else { detail.to_owned() }
    }

    /// Takes it out on the word of live traffic.
    pub(super) fn eject(
        &mut self,
        now: Instant,
        rules: &Passive,
        asked: Option<Duration>,
        reason: &'static str,
        why: &str,
    ) -> Option<Shift> {
        let lasts = self.ejector.eject(now.into_std(), rules, asked, fastrand::f64());
        let (times, until) = (self.ejector.times(), Timestamp::now() + lasts);
        self.timeline.note(|record| {
            record.spared = None;
            record.ejected = Some(Ejected { until, times });
        });
        let detail = format!("{why}, for {}", Took(lasts));
        self.shift(Source::LiveTraffic, Why::new(reason, detail), |known| known.is_ejected = true)
    }

    /// Live traffic speaks against it, in vain. Said once.
    pub(super) fn spare(&self, why: &str) {
        if self.timeline.read().spared.as_deref() != Some(why) {
            self.timeline.note(|record| record.spared = Some(why.to_owned()));
        }
    }

    /// Drains it until it is told otherwise, or until the drain ends by itself.
    pub(super) fn drain(&mut self, drain: Drain, source: Source) -> Option<Shift> {
        let in_time = |time: Duration| Instant::now() + time;
        (self.drain_ends, self.cut_due) = (drain.lasts.map(in_time), drain.deadline.map(in_time));
        let detail = match (drain.by.as_str(), drain.reason.as_str()) {
            (by, "") => format!("drained by {by}"),
            (by, reason) => format!("drained by {by}: {reason}"),
        };
        self.timeline.note(|record| record.drain = Some(drain));
        // Also where it was drained before: this is why it is now.
        self.timeline.explain("drained", &detail);
        self.shift(source, Why::new("drained", detail), |known| known.is_drained = true)
    }

    /// Ends a drain.
    pub(super) fn undrain(&mut self, source: Source, detail: String) -> Option<Shift> {
        (self.drain_ends, self.cut_due) = (None, None);
        self.timeline.note(|record| record.drain = None);
        self.explain_by_last_probe();
        self.shift(source, Why::new("undrained", detail), |known| (known.is_drained, known.is_cut) = (false, false))
    }

    /// Without a drain it is what its checks say that it is.
    fn explain_by_last_probe(&self) {
        match self.last_probe() {
            Some(probe) => {
                let Why { reason, detail, .. } = self.because(&probe);
                self.timeline.explain(reason, &detail);
            }
            None if self.inquiries.is_empty() => self.timeline.explain("unchecked", "no health check"),
            None => {}
        }
    }

    fn because(&self, probe: &Probe) -> Why {
        let Probe { check, outcome, .. } = probe;
        Why { reason: outcome.reason, detail: self.named(check, &outcome.detail), check: Some(check.clone()) }
    }

    /// The last probe of a check that says what all together say.
    fn last_probe(&self) -> Option<Arc<Probe>> {
        let said = self.said();
        let deciding = self.inquiries.iter().find(|inquiry| inquiry.machine.verdict() == said)?;
        self.timeline.read().of_check(deciding.check())?.recent.back().cloned()
    }

    /// Ends what has ended by now: an ejection, a drain.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Shift> {
        let mut shifts = Vec::new();
        if self.ejector.is_over(now.into_std()) {
            let last = self.last_probe().filter(|_| self.member.backend.verdict() == Verdict::Down);
            shifts.extend(self.readmit(match last {
                Some(probe) => self.because(&probe),
                None => Why::new("time_over", "back after its ejection".to_owned()),
            }));
        }
        if self.cut_due.take_if(|due| *due <= now).is_some() {
            let detail = "the deadline of its drain is over".to_owned();
            shifts.extend(self.shift(Source::Operator, Why::new("drained", detail), |known| known.is_cut = true));
        }
        if self.drain_ends.is_some_and(|ends| ends <= now) {
            let is_its_own = self.timeline.read().drain.as_ref().is_some_and(Drain::is_its_own);
            let source = if is_its_own { Source::Backend } else { Source::Operator };
            shifts.extend(self.undrain(source, "the time of its drain is over".to_owned()));
        }
        shifts
    }

    /// Ends an ejection, whether or not its time is over.
    pub(super) fn readmit(&mut self, why: Why) -> Option<Shift> {
        self.ejector.pardon();
        self.window.clear();
        self.member.backend.succeeded();
        self.timeline.note(|record| record.ejected = None);
        self.shift(Source::LiveTraffic, why, |known| known.is_ejected = false)
    }

    /// When something of it ends next.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ejector.until().map(Instant::from_std).into_iter().chain(self.drain_ends).chain(self.cut_due).min()
    }

    /// Whether connections to it end when it is out.
    pub(super) const fn close_when_out(&mut self, closes: bool) {
        self.closes = closes;
    }

    /// It gets its share little by little from here on.
    pub(super) const fn start_slowly(&mut self, now: Instant) {
        self.ramp = Some(now);
    }

    /// Whether it has less than its share.
    pub(super) const fn is_ramping(&self) -> bool {
        self.ramp.is_some()
    }

    /// Traffic that may speak for it, where that is a reason to ask less often.
    pub(super) fn vouching(&self, check: usize) -> Option<Vouching> {
        let inquiry = self.inquiries.get(check)?;
        let check = inquiry.question().check();
        let (longest, began) = (check.interval_with_traffic?, inquiry.began?);
        let is_steady = !inquiry.machine.is_pending() && inquiry.machine.verdict().is_fit();
        is_steady.then(|| Vouching::new(&self.member.backend, check.interval, began + longest))
    }

    /// The part of its share that it gets, in tenths.
    pub(super) fn ramp(&mut self, now: Instant, slow_start: Duration) -> Percent {
        let Some(start) = self.ramp else { return Percent::whole(100) };
        let tenths = now.saturating_duration_since(start).as_millis() * 10 / slow_start.as_millis().max(1);
        match u8::try_from(tenths) {
            Ok(tenths @ 0..10) => Percent::whole((tenths + 1) * 10),
            _ => {
                self.ramp = None;
                Percent::whole(100)
            }
        }
    }

    /// The member in its present role.
    pub(super) const fn member(&self) -> &Member {
        &self.member
    }

    /// Where to read what is remembered of it.
    pub(super) const fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// The checks of which no probe is scheduled.
    pub(super) fn idle(&self) -> impl Iterator<Item = usize> {
        let is_idle = |inquiry: &Inquiry| inquiry.probe.is_none() && !self.is_leaving();
        self.inquiries.iter().enumerate().filter(move |(_, inquiry)| is_idle(inquiry)).map(|(index, _)| index)
    }

    /// Where to ask one of its checks.
    pub(super) fn line(&self, check: usize) -> Option<&Arc<Line>> {
        self.inquiries.get(check).filter(|_| !self.is_leaving()).map(|inquiry| &inquiry.line)
    }

    /// Which of its checks waits for this probe; none if it was called off too late.
    pub(super) fn expects(&self, probe: Id) -> Option<usize> {
        self.inquiries.iter().position(|inquiry| inquiry.expects(probe))
    }

    /// The checks that had better be asked before their time, and when: a request has failed, and the check may know why.
    pub(super) fn doubt(&mut self, now: Instant) -> Vec<(usize, Instant)> {
        if self.is_leaving() {
            return Vec::new();
        }
        let calm = self.inquiries.iter_mut().enumerate().filter(|(_, inquiry)| !inquiry.is_hastened);
        let sooner = calm.filter_map(|(index, inquiry)| {
            let check = inquiry.question().check();
            let soon = inquiry.began.map_or(now, |began| now.max(began + check.interval_changing));
            // A probe that traffic has put off may be due for long. One that is under way is called off, which costs little.
            let is_put_off = || check.interval_with_traffic.is_some() && inquiry.machine.verdict().is_fit();
            inquiry.is_hastened = check.probe_on_doubt && (inquiry.due > soon || is_put_off());
            inquiry.is_hastened.then_some((index, soon))
        });
        sooner.collect()
    }

    /// Whether it was removed and only finishes its requests.
    pub(super) fn is_leaving(&self) -> bool {
        self.member.backend.condition().is_removed
    }

    /// Whether the first conclusive outcomes are in, or none are to come.
    pub(super) fn is_answered(&self) -> bool {
        self.is_leaving() || self.inquiries.iter().all(|inquiry| inquiry.answered)
    }

    /// Remembers the probe that is scheduled, so that it can be called off, in place of the one before.
    pub(super) fn expect(&mut self, check: usize, due: Instant, probe: AbortHandle) {
        if let Some(inquiry) = self.inquiries.get_mut(check) {
            inquiry.stop();
            (inquiry.due, inquiry.probe) = (due, Some(probe));
        }
    }

    /// What all checks together say.
    fn said(&self) -> Verdict {
        let rank = |verdict: &Verdict| match verdict {
            Verdict::Down => 4,
            Verdict::Checking => 3,
            Verdict::Unchecked => 2,
            Verdict::Degraded => 1,
            Verdict::Up => 0,
        };
        let verdicts = self.inquiries.iter().map(|inquiry| inquiry.machine.verdict());
        verdicts.max_by_key(rank).unwrap_or(Verdict::Unchecked)
    }

    /// Fit outcomes in a row of the check that has fewest, failures in a row of the one that has most.
    fn streaks(&self) -> (u32, u32) {
        let machines = || self.inquiries.iter().map(|inquiry| &inquiry.machine);
        (machines().map(Machine::good).min().unwrap_or(0), machines().map(Machine::bad).max().unwrap_or(0))
    }

    // A change that no probe explains.
    fn decree(
        &mut self,
        source: Source,
        reason: &'static str,
        detail: &str,
        change: impl FnOnce(&mut Condition),
    ) -> Option<Shift> {
        let shift = self.shift(source, Why::new(reason, detail.to_owned()), change)?;
        if shift.change.is_some() {
            self.timeline.explain(reason, detail);
        }
        Some(shift)
    }

    fn shift(&mut self, source: Source, why: Why, change: impl FnOnce(&mut Condition)) -> Option<Shift> {
        let backend = &self.member.backend;
        let (before, since) = (backend.condition(), backend.since());
        let mut now = before;
        change(&mut now);
        now.is_cut |= self.closes && (now.is_ejected || now.verdict == Verdict::Down);
        now.is_cut &= !now.is_eligible();
        if now == before {
            return None;
        }
        backend.set_condition(now);
        let (from, to) = (before.shown(), now.shown());
        let generation = self.generation;
        let at = Timestamp::now();
        let Why { reason, detail, check } = why;
        let change = (from != to).then_some(Change { at, source, generation, from, to, reason, detail, check });
        if let Some(change) = &change {
            self.timeline.changed(change.clone());
        }
        if !now.is_eligible() {
            self.ramp = None;
        }
        let lasted = (from != Verdict::Checking.as_str()).then(|| since.elapsed());
        let comes_back = !before.is_eligible() && now.is_eligible();
        Some(Shift { slot: backend.slot(), backend: self.member.name.clone(), change, lasted, comes_back })
    }
}

impl Inquiry {
    fn new(line: Arc<Line>, verdict: Verdict) -> Self {
        let machine = Machine::new(Thresholds::from(line.question().check()), verdict);
        Self {
            line,
            machine,
            answered: false,
            last: None,
            began: None,
            due: Instant::now(),
            probe: None,
            transition: None,
            is_hastened: false,
        }
    }

    fn question(&self) -> &Question {
        self.line.question()
    }

    fn check(&self) -> &Name {
        &self.question().check().name
    }

    fn expects(&self, probe: Id) -> bool {
        self.probe.as_ref().is_some_and(|expected| expected.id() == probe)
    }

    fn stop(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }

    // An inconclusive probe is repeated at once, but only once: more haste does not help a machine that is late.
    fn pause(&mut self, kind: Kind) -> Duration {
        let before = self.last.replace(kind);
        let pace = match kind {
            Kind::Inconclusive if before != Some(Kind::Inconclusive) => Pace::AtOnce,
            _ if kind == Kind::Inconclusive || self.machine.is_pending() => Pace::Changing,
            _ if !self.answered => Pace::Scatter,
            _ if self.machine.verdict() == Verdict::Down => Pace::Down,
            _ => Pace::Steady,
        };
        self.answered |= kind != Kind::Inconclusive;
        cadence::next(self.question().check(), pace)
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A transition in words: what the probe saw where one decided, the length of the streak where several did.
fn why(transition: &Transition, outcome: &Outcome) -> String {
    let Transition { from, to, streak, over } = *transition;
    let brief = match (outcome.reason, outcome.status) {
        ("status", Some(status)) => match outcome.detail.split_once(" (") {
            // What the body says is wrong.
            Some((_, component)) => format!("{status}, {}", component.trim_end_matches(')')),
            None => status.to_string(),
        },
        _ => outcome.detail.clone(),
    };
    match (from, to) {
        (Verdict::Checking | Verdict::Unchecked, Verdict::Up | Verdict::Degraded) => {
            format!("probe {}", outcome.detail)
        }
        (Verdict::Checking | Verdict::Unchecked, _) => outcome.detail.clone(),
        (_, Verdict::Down) if streak == 1 => outcome.detail.clone(),
        (_, Verdict::Down) => format!("{streak} bad probes in {} ({brief})", Took(over)),
        (_, Verdict::Degraded) => format!("{streak} degraded probe{} ({brief})", plural(streak)),
        (_, _) => format!("{streak} good probe{}", plural(streak)),
    }
}

const fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}
