//! What the task of an upstream does: hear of everything, change what is known, publish the slice, tell of it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{Ask, Cast, Edit, Order, Prober, Shared, Wish, suspicion::Suspicion};
use crate::{
    base::Percent,
    config::plan::{Passive, WhenOut},
    health::{
        Drain, Outcome, Source, Spared,
        cadence::{self, Vouching},
        line::Reply,
        may_eject,
        probe::Prepared,
        subject::{Heard, Shift, Subject},
    },
    telemetry::Event,
    upstream::{Eligible, Evidence, Member, Slot, Verdict},
};

// Whatever the task hears of.
pub(super) struct Inbox {
    pub(super) edited: watch::Receiver<Edit>,
    pub(super) ordered: mpsc::Receiver<Order>,
    pub(super) evidence: mpsc::Receiver<Evidence>,
}

// The state of the task.
pub(super) struct Task<A> {
    pub(super) ask: Arc<A>,
    pub(super) prober: Prober,
    // Its part of the permits.
    pub(super) share: Arc<Semaphore>,
    pub(super) shared: Arc<Shared>,
    pub(super) applied: watch::Sender<u64>,
    pub(super) first_round: watch::Sender<bool>,
    pub(super) edit: Edit,
    pub(super) subjects: HashMap<Slot, Subject>,
    pub(super) probes: JoinSet<Reply>,
    pub(super) scheduled: HashMap<Id, Slot>,
    // When an ejection or a drain ends. What was changed since is still in here, and does no harm.
    pub(super) ends: BTreeSet<(Instant, Slot)>,
    // Something has to be looked at every second.
    pub(super) is_watchful: bool,
    pub(super) suspicion: Suspicion,
    // There may be backends that keep their traffic although their checks say no.
    pub(super) some_are_held: bool,
}

type Ended = Result<(Id, Reply), JoinError>;

/// How often what has no event of its own is looked at: requests that a removed backend still has, the share of one that starts
/// slowly, how many requests have failed.
const LOOK: Duration = Duration::from_secs(1);

/// Further outcomes that are taken in with one, the slice being published once for all of them.
const BATCH: usize = 256;

impl<A: Ask> Task<A> {
    pub(super) async fn run(mut self, inbox: Inbox) {
        let Inbox { mut edited, mut ordered, mut evidence } = inbox;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let ends = self.ends.first().map(|(ends, _)| *ends);
            tokio::select! {
                biased;
                edit = edited.changed() => match edit {
                    Ok(()) => {
                        let edit = edited.borrow_and_update().clone();
                        self.apply(edit);
                    }
                    Err(_owner_gone) => return,
                },
                Some(order) = ordered.recv() => self.obey(order),
                () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => self.settle(),
                _ = look.tick(), if self.is_watchful => self.look(),
                Some(ended) = self.probes.join_next_with_id() => self.take(ended),
                Some(seen) = evidence.recv() => self.weigh(seen),
            }
        }
    }

    /// Makes the subjects what the config says, and starts to ask those that nobody asks.
    pub(super) fn apply(&mut self, edit: Edit) {
        if self.edit.plan.health.checks != edit.plan.health.checks {
            let was_fit = self.edit.members.iter().any(|member| member.backend.verdict().is_fit());
            self.suspicion = if was_fit { Suspicion::raised(&self.edit.members) } else { Suspicion::default() };
            self.subjects.values_mut().for_each(Subject::expect_edit);
        }
        self.edit = edit;
        let Edit { generation, .. } = self.edit;
        let checks: Vec<Arc<Prepared>> = self.edit.plan.health.checks.iter().map(Prepared::new).collect();
        let (checks, mut shifts) = (checks.as_slice(), Vec::new());
        let closes = self.edit.plan.health.when_out == WhenOut::Close;
        for member in &*self.edit.members {
            match self.subjects.get_mut(&member.backend.slot()) {
                Some(subject) if Arc::ptr_eq(&subject.member().backend, &member.backend) => {
                    shifts.extend(subject.keep(member, checks, &self.prober.lines, generation));
                }
                _ => {
                    let subject = Subject::new(member, checks, &self.prober.lines, generation);
                    self.subjects.insert(member.backend.slot(), subject);
                }
            }
        }
        self.subjects.values_mut().for_each(|subject| subject.close_when_out(closes));
        let present: HashSet<Slot> = self.edit.members.iter().map(|member| member.backend.slot()).collect();
        let leaving = self.subjects.iter_mut().filter(|(slot, _)| !present.contains(slot));
        shifts.extend(leaving.filter_map(|(_, subject)| subject.dismiss(generation)));
        if self.edit.plan.health.passive.is_none() {
            let detail = || "live traffic says nothing any more".to_owned();
            let ejected = self.subjects.values_mut().filter(|subject| subject.member().backend.condition().is_ejected);
            shifts.extend(ejected.filter_map(|subject| subject.readmit("time_over", detail())));
        }
        self.publish(shifts);
        self.show();
        self.schedule_idle();
        self.close_first_round();
        self.applied.send_replace(self.edit.number);
    }

    /// Takes outcomes in, this one and those that are there as well: verdicts, one slice, an event per change.
    fn take(&mut self, first: Ended) {
        let others = std::iter::from_fn(|| self.probes.try_join_next_with_id()).take(BATCH);
        let ended: Vec<Ended> = std::iter::once(first).chain(others).collect();
        let shifts: Vec<Shift> = ended.into_iter().filter_map(|ended| self.observe(ended)).collect();
        self.publish_if_any(shifts);
        self.mind_suspicion();
        self.close_first_round();
    }

    /// Takes one outcome in and schedules the next probe for the same check of its backend.
    fn observe(&mut self, ended: Ended) -> Option<Shift> {
        let now = Instant::now();
        let (probe, answer) = match ended {
            Ok((probe, answer)) => (probe, answer),
            Err(failed) => (failed.id(), (now, Arc::new(Outcome::panicked()))),
        };
        let slot = self.scheduled.remove(&probe)?;
        let subject = self.subjects.get_mut(&slot)?;
        let check = subject.expects(probe)?;
        self.shared.probe_durations.observe(answer.1.total);
        if subject.is_edited(check) {
            self.suspicion.hear(answer.1.kind);
        }
        self.suspicion.look(&self.edit.members);
        let is_held = self.suspicion.holds(self.edit.plan.health.suspect_check);
        let Heard { shift, next } = subject.hear(now, probe, answer, is_held)?;
        self.some_are_held |= subject.is_held();
        self.schedule(slot, check, next);
        shift
    }

    fn schedule_idle(&mut self) {
        let idle_of =
            |(slot, subject): (&Slot, &Subject)| subject.idle().map(|check| (*slot, check)).collect::<Vec<_>>();
        let idle: Vec<(Slot, usize)> = self.subjects.iter().flat_map(idle_of).collect();
        let now = Instant::now();
        for (slot, check) in &idle {
            let Some(plan) = self.edit.plan.health.checks.get(*check) else { continue };
            self.schedule(*slot, *check, now + cadence::first(plan, idle.len()));
        }
    }

    fn schedule(&mut self, slot: Slot, check: usize, due: Instant) {
        let vouching = self.subjects.get(&slot).and_then(|subject| subject.vouching(check));
        self.schedule_at(slot, check, due, vouching);
    }

    fn schedule_at(&mut self, slot: Slot, check: usize, due: Instant, vouching: Option<Vouching>) {
        let Some(subject) = self.subjects.get_mut(&slot) else { return };
        let Some(line) = subject.line(check).cloned() else { return };
        let (ask, share, permits) = (Arc::clone(&self.ask), Arc::clone(&self.share), Arc::clone(&self.prober.permits));
        let probe = self.probes.spawn(async move {
            let put = || async {
                let _own = share.acquire().await.expect("the permits are never closed");
                let _permit = permits.acquire().await.expect("the permits are never closed");
                (Instant::now(), Arc::new(ask.ask(line.question()).await))
            };
            line.reply(due, vouching, put).await
        });
        self.scheduled.insert(probe.id(), slot);
        subject.expect(check, due, probe);
    }

    /// Weighs what traffic has seen of a backend.
    fn weigh(&mut self, seen: Evidence) {
        let now = Instant::now();
        let slot = seen.slot();
        let Some(subject) = self.subjects.get_mut(&slot) else { return };
        for (check, soon) in subject.doubt(now) {
            self.schedule_at(slot, check, soon, None);
        }
        let Some(rules) = self.edit.plan.health.passive.clone() else { return };
        match seen {
            Evidence::AsksToDrain { lasts, .. } => self.drain_itself(slot, lasts),
            Evidence::Failed { reason, status, retry_after, .. } => {
                let failures = self.subjects.get(&slot).map_or(0, |subject| subject.member().backend.failures());
                if failures >= rules.failures {
                    let what = match status.filter(|_| reason == "status") {
                        Some(status) => status.to_string(),
                        None => reason.replace('_', " "),
                    };
                    let detail = format!("{failures} failed requests in a row ({what})");
                    self.eject(slot, &rules, retry_after.filter(|_| rules.retry_after), "failures", &detail);
                }
            }
        }
    }

    /// Takes a backend out on the word of live traffic, if that may be.
    fn eject(&mut self, slot: Slot, rules: &Passive, asked: Option<Duration>, reason: &'static str, why: &str) {
        let Edit { members, .. } = &self.edit;
        let count = |belongs: &dyn Fn(&Member) -> bool| members.iter().filter(|member| belongs(member)).count();
        let ejected = count(&|member| member.backend.condition().is_ejected);
        let eligible = count(&is_eligible);
        let may = may_eject(members.len(), ejected, eligible, rules.max_ejected);
        let Some(subject) = self.subjects.get_mut(&slot).filter(|subject| is_eligible(subject.member())) else {
            return;
        };
        let shift = match may {
            Ok(()) => subject.eject(Instant::now(), rules, asked, reason, why),
            Err(spared) => {
                subject.spare(&match spared {
                    Spared::LastOne => format!("{why}; it stays: nobody else is eligible"),
                    Spared::Share => format!("{why}; it stays: max_ejected is {}", rules.max_ejected),
                });
                None
            }
        };
        self.note_end(slot);
        self.publish_if_any(shift.into_iter().collect());
    }

    /// Drains a backend that has asked for it, unless it is the last one.
    fn drain_itself(&mut self, slot: Slot, lasts: Duration) {
        let eligible = self.edit.members.iter().filter(|member| is_eligible(member)).count();
        let Some(subject) = self.subjects.get_mut(&slot).filter(|subject| !subject.is_leaving()) else { return };
        let is_drained = subject.member().backend.is_draining();
        if eligible <= 1 && !is_drained {
            return subject.spare("it asks to be drained; it stays: nobody else is eligible");
        }
        if subject.timeline().read().drain.as_ref().is_some_and(|drain| !drain.is_its_own()) {
            return;
        }
        let shift = subject.drain(Drain::of_its_own(lasts), Source::Backend);
        self.note_end(slot);
        self.publish_if_any(shift.into_iter().collect());
    }

    /// Does what an operator wants.
    fn obey(&mut self, order: Order) {
        let Order { backend, wish, done } = order;
        let slot = self.edit.members.iter().find(|member| member.name == backend).map(|member| member.backend.slot());
        let subject = slot.and_then(|slot| self.subjects.get_mut(&slot));
        let shift = subject.map(|subject| match wish {
            Wish::Drain(drain) => subject.drain(drain, Source::Operator),
            Wish::Undrain { by } => subject.undrain(Source::Operator, format!("undrained by {by}")),
        });
        let is_known = shift.is_some();
        if let Some(slot) = slot {
            self.note_end(slot);
        }
        self.publish_if_any(shift.flatten().into_iter().collect());
        // Whoever asked may have gone meanwhile.
        let _ = done.send(is_known);
    }

    /// Ends ejections and drains whose time is over.
    fn settle(&mut self) {
        let now = Instant::now();
        let mut shifts = Vec::new();
        while let Some((_, slot)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            self.ends.pop_first();
            if let Some(subject) = self.subjects.get_mut(&slot) {
                shifts.extend(subject.settle(now));
            }
            self.note_end(slot);
        }
        self.publish_if_any(shifts);
    }

    fn note_end(&mut self, slot: Slot) {
        self.ends.extend(self.subjects.get(&slot).and_then(Subject::ends).map(|ends| (ends, slot)));
    }

    /// Looks at what has no event of its own.
    fn look(&mut self) {
        let before = self.subjects.len();
        self.subjects.retain(|_, subject| !subject.is_leaving() || subject.member().backend.in_flight() > 0);
        if self.subjects.len() < before {
            self.show();
        }
        self.weigh_ratios();
        self.mind_suspicion();
        if self.subjects.values().any(Subject::is_ramping) {
            self.publish(Vec::new());
        }
        self.be_watchful();
    }

    fn weigh_ratios(&mut self) {
        let Some(rules) = self.edit.plan.health.passive.clone() else { return };
        let Some(ratio) = rules.ratio else { return };
        let now = Instant::now().into_std();
        let too_many: Vec<(Slot, u64, u64)> = self
            .subjects
            .iter_mut()
            .filter_map(|(slot, subject)| {
                let metrics = subject.member().backend.metrics();
                let (requests, failures) = (metrics.requests(), metrics.failures());
                let (failures, requests) = subject.window.observe(now, requests, failures, ratio)?;
                Some((*slot, failures, requests))
            })
            .collect();
        for (slot, failures, requests) in too_many {
            let detail = format!("{failures} of {requests} requests failed");
            self.eject(slot, &rules, None, "failure_ratio", &detail);
        }
    }

    /// Publishes the slice, then tells what changed.
    fn publish(&mut self, shifts: Vec<Shift>) {
        let now = Instant::now();
        let slow_start = self.edit.plan.slow_start;
        let starts_slowly = !slow_start.is_zero() && self.is_past_start();
        for shift in shifts.iter().filter(|shift| shift.comes_back && starts_slowly) {
            if let Some(subject) = self.subjects.get_mut(&shift.slot) {
                subject.start_slowly(now);
            }
        }
        let ramps: HashMap<Slot, Percent> = self
            .subjects
            .iter_mut()
            .filter(|(_, subject)| subject.is_ramping())
            .map(|(slot, subject)| (*slot, subject.ramp(now, slow_start)))
            .collect();
        let Edit { plan, members, .. } = &self.edit;
        let ramp = |member: &Member| ramps.get(&member.backend.slot()).copied().unwrap_or(Percent::whole(100));
        self.shared.upstream.publish(Eligible::among(members, &plan.health, &plan.balance, ramp));
        let eligible = members.iter().filter(|member| is_eligible(member)).count();
        for event in shifts.into_iter().filter_map(|shift| shift.event(plan.name.clone(), eligible, members.len())) {
            self.prober.events.emit(event);
        }
        self.be_watchful();
    }

    fn publish_if_any(&mut self, shifts: Vec<Shift>) {
        if !shifts.is_empty() {
            self.publish(shifts);
        }
    }

    /// A backend that joins when everything starts is not one that comes back.
    fn is_past_start(&self) -> bool {
        *self.first_round.borrow()
    }

    /// Whether there is a reason to look every second.
    fn be_watchful(&mut self) {
        let has_ratio = self.edit.plan.health.passive.as_ref().is_some_and(|rules| rules.ratio.is_some());
        let is_busy = |subject: &Subject| subject.is_leaving() || subject.is_ramping();
        self.is_watchful = has_ratio || self.suspicion.is_raised() || self.subjects.values().any(is_busy);
    }

    /// Says that the check may be at fault, or that it is not any more, and lets what was held back come into force then.
    fn mind_suspicion(&mut self) {
        let Edit { plan, members, .. } = &self.edit;
        let fails = |subject: &Subject| subject.member().backend.verdict() == Verdict::Down || subject.is_held();
        self.suspicion.look(members);
        let do_all_fail = self.suspicion.is_raised() && self.subjects.values().all(fails);
        if let Some(detail) = self.suspicion.mind(plan, do_all_fail) {
            self.prober.events.emit(Event::Warning { what: "suspect_check", detail });
        }
        if self.shared.suspicion.load().as_deref() != self.suspicion.told() {
            if self.suspicion.told().is_none() {
                let detail = format!("the health check of `{}` is not suspect any more", plan.name);
                self.prober.events.emit(Event::Process { stage: "check", detail });
            }
            self.shared.suspicion.store(Arc::new(self.suspicion.told().map(str::to_owned)));
        }
        if self.some_are_held && !self.suspicion.holds(plan.health.suspect_check) {
            let held = self.subjects.values_mut().filter(|subject| subject.is_held());
            let shifts: Vec<Shift> = held.filter_map(Subject::release).collect();
            self.some_are_held = self.subjects.values().any(Subject::is_held);
            self.publish_if_any(shifts);
        }
    }

    /// Lets readers see who is watched: the members in their order, then those that leave.
    fn show(&self) {
        let seen = |subject: &Subject| (subject.member().clone(), Arc::clone(subject.timeline()));
        let present = self.edit.members.iter().filter_map(|member| self.subjects.get(&member.backend.slot()));
        let mut leaving: Vec<&Subject> = self.subjects.values().filter(|subject| subject.is_leaving()).collect();
        leaving.sort_by_key(|subject| subject.member().backend.slot());
        let subjects = present.chain(leaving).map(seen).collect();
        self.shared.cast.store(Arc::new(Cast { plan: Arc::clone(&self.edit.plan), subjects }));
    }

    fn close_first_round(&self) {
        if !*self.first_round.borrow() && self.subjects.values().all(Subject::is_answered) {
            self.first_round.send_replace(true);
            self.doubt_path();
        }
    }

    /// Says where everybody answers the first probe as one does who has never heard of it.
    fn doubt_path(&self) {
        let is_unknown = |subject: &Subject| {
            let record = subject.timeline().read();
            record.recent.back().is_some_and(|probe| !probe.outcome.kind.is_fit() && probe.outcome.status == Some(404))
        };
        if !self.subjects.is_empty() && self.subjects.values().all(is_unknown) {
            let name = &self.edit.plan.name;
            let detail = format!("every backend of `{name}` answers its first probe with 404: is the path right?");
            self.prober.events.emit(Event::Warning { what: "probe_path", detail });
        }
    }
}

fn is_eligible(member: &Member) -> bool {
    member.backend.condition().is_eligible()
}
