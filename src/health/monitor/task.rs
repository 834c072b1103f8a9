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

use super::{Ask, Cast, Edit, Order, Prober, Shared, Waiting, Wish, suspicion::Suspicion};
use crate::{
    base::Percent,
    config::plan::{Passive, WhenOut},
    health::{
        Detection, Drain, Kind, Outcome, Source, Spared,
        cadence::{self, Vouching},
        line::Reply,
        may_eject,
        probe::Prepared,
        subject::{Heard, Shift, Subject, Why},
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
    // While backends that have left stand in for those that came, none of which is fit yet.
    pub(super) stand_in_until: Option<Instant>,
}

type Ended = Result<(Id, Reply), JoinError>;

/// How often what has no event of its own is looked at: requests that a removed backend still has, the share of one that starts
/// slowly, how many requests have failed.
const LOOK: Duration = Duration::from_secs(1);

/// What backends that replace all others are given to come up, beside the time that it takes to find them well; and the most that
/// both may be.
const COMING_UP: Duration = Duration::from_secs(10);
const LONGEST_STAND_IN: Duration = Duration::from_secs(60);

/// Further outcomes that are taken in with one, the slice being published once for all of them.
const BATCH: usize = 256;

/// Others that are asked whether they pass a check: that one of them does is enough.
const ASKED: usize = 16;

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
        let (before, after) = (&self.edit.plan.health.checks, &edit.plan.health.checks);
        self.suspicion.edit(before, after, &self.edit.members);
        self.edit = edit;
        let Edit { generation, .. } = self.edit;
        let checks: Vec<Arc<Prepared>> = self.edit.plan.health.checks.iter().map(Prepared::new).collect();
        let (checks, mut shifts) = (checks.as_slice(), Vec::new());
        let closes = self.edit.plan.health.when_out == WhenOut::Close;
        let mut some_came = false;
        for member in &*self.edit.members {
            match self.subjects.get_mut(&member.backend.slot()) {
                Some(subject) if Arc::ptr_eq(&subject.member().backend, &member.backend) => {
                    shifts.extend(subject.keep(member, checks, &self.prober.lines, generation));
                }
                _ => {
                    some_came = true;
                    let subject = Subject::new(member, checks, &self.prober.lines, generation);
                    self.subjects.insert(member.backend.slot(), subject);
                }
            }
        }
        self.subjects.values_mut().for_each(|subject| subject.close_when_out(closes));
        if some_came {
            self.let_stand_in();
        }
        let stands_in = |subject: &Subject| self.stand_in_until.is_some() && is_eligible(subject.member());
        let present = self.present();
        let leaving = self.subjects.iter_mut().filter(|(slot, subject)| !present.contains(slot) && !stands_in(subject));
        shifts.extend(leaving.filter_map(|(_, subject)| subject.dismiss(generation)));
        if self.edit.plan.health.passive.is_none() {
            let detail = || "live traffic says nothing any more".to_owned();
            let ejected = self.subjects.values_mut().filter(|subject| subject.member().backend.condition().is_ejected);
            shifts.extend(ejected.filter_map(|subject| subject.readmit(Why::new("time_over", detail()))));
        }
        self.publish(shifts);
        self.show();
        self.schedule_idle();
        self.close_first_round();
    }

    fn present(&self) -> HashSet<Slot> {
        self.edit.members.iter().map(|member| member.backend.slot()).collect()
    }

    /// Where none of the members is fit, those that leave keep the traffic for now, so that a change of all of them at once
    /// costs no request while the new ones come up.
    fn let_stand_in(&mut self) {
        let Edit { plan, members, .. } = &self.edit;
        let Some(Detection { back, .. }) = Detection::of(&plan.health.checks) else { return };
        let stand_ins = self.outgoing().count();
        if self.stand_in_until.is_some() || stand_ins == 0 || members.iter().any(is_eligible) {
            return;
        }
        let longest = LONGEST_STAND_IN.min(back + COMING_UP);
        let s = if stand_ins == 1 { "" } else { "s" };
        let name = &plan.name;
        let detail = format!(
            "`{name}` keeps {stand_ins} removed backend{s} until a new one is up, for {:.0}s at most",
            longest.as_secs_f64().ceil()
        );
        self.prober.events.emit(Event::Process { stage: "handover", detail });
        self.stand_in_until = Some(Instant::now() + longest);
    }

    /// Backends that are eligible, and members no more.
    fn outgoing(&self) -> impl Iterator<Item = &Member> {
        let present = self.present();
        let outgoing = self.subjects.iter().filter(move |(slot, _)| !present.contains(slot));
        outgoing.map(|(_, subject)| subject.member()).filter(|member| is_eligible(member))
    }

    /// Those who stand in for the members now.
    fn stand_ins(&self) -> Vec<Member> {
        if self.stand_in_until.is_some() { self.outgoing().cloned().collect() } else { Vec::new() }
    }

    /// Ends that others stand in, once a member is fit, nobody is left or the time is over.
    fn relieve(&mut self) -> Vec<Shift> {
        let Some(until) = self.stand_in_until else { return Vec::new() };
        let is_needed = !self.edit.members.iter().any(is_eligible) && self.outgoing().next().is_some();
        if is_needed && Instant::now() < until {
            return Vec::new();
        }
        self.stand_in_until = None;
        let (present, generation) = (self.present(), self.edit.generation);
        let leaving = self.subjects.iter_mut().filter(|(slot, _)| !present.contains(slot));
        leaving.filter_map(|(_, subject)| subject.dismiss(generation)).collect()
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
        let check = self.subjects.get(&slot)?.expects(probe)?;
        self.shared.probe_durations.observe(answer.1.total);
        self.suspect(slot, check, answer.1.kind);
        let subject = self.subjects.get_mut(&slot)?;
        let (was_held, mode) = (subject.is_held(), self.edit.plan.health.suspect_check);
        let is_suspect = |check| self.suspicion.holds(check, mode);
        let Heard { shift, next } = subject.hear(now, probe, answer, is_suspect)?;
        let is_held = subject.is_held();
        self.some_are_held |= is_held;
        self.schedule(slot, check, next);
        if is_held && !was_held && self.suspicion.asks_others(check) {
            self.ask_others(check);
        }
        shift
    }

    /// Takes in what an outcome says of the check itself.
    fn suspect(&mut self, slot: Slot, check: usize, kind: Kind) {
        let Edit { plan, members, .. } = &self.edit;
        self.suspicion.hear(check, kind);
        let is_fit = |subject: &Subject| subject.is_fit() && !subject.is_leaving();
        let fails = kind == Kind::Fail && self.subjects.get(&slot).is_some_and(is_fit);
        // One alone has nobody to be compared with.
        if fails && self.subjects.values().filter(|subject| is_fit(subject)).nth(1).is_some() {
            self.suspicion.begin(check, plan, members);
        }
        self.suspicion.look(members);
    }

    /// Finds out whether others pass a check that somebody begins to fail whose traffic goes well.
    fn ask_others(&mut self, check: usize) {
        let others = self.subjects.iter().filter(|(_, subject)| subject.has_passed(check)).take(ASKED);
        let others: Vec<(Slot, usize)> = others.map(|(slot, _)| (*slot, check)).collect();
        self.ask_now(&others);
    }

    fn ask_now(&mut self, asked: &[(Slot, usize)]) {
        let now = Instant::now();
        for (slot, check) in asked {
            let Some(plan) = self.edit.plan.health.checks.get(*check) else { continue };
            self.schedule_at(*slot, *check, now + cadence::first(plan, asked.len()), None);
        }
    }

    fn schedule_idle(&mut self) {
        let idle_of =
            |(slot, subject): (&Slot, &Subject)| subject.idle().map(|check| (*slot, check)).collect::<Vec<_>>();
        let idle: Vec<(Slot, usize)> = self.subjects.iter().flat_map(idle_of).collect();
        self.ask_now(&idle);
    }

    fn schedule(&mut self, slot: Slot, check: usize, due: Instant) {
        let vouching = self.subjects.get(&slot).and_then(|subject| subject.vouching(check));
        self.schedule_at(slot, check, due, vouching);
    }

    fn schedule_at(&mut self, slot: Slot, check: usize, due: Instant, vouching: Option<Vouching>) {
        let Some(subject) = self.subjects.get_mut(&slot) else { return };
        let Some(line) = subject.line(check).cloned() else { return };
        let (ask, share, permits) = (Arc::clone(&self.ask), Arc::clone(&self.share), Arc::clone(&self.prober.permits));
        let shared = Arc::clone(&self.shared);
        let probe = self.probes.spawn(async move {
            let put = || async {
                let waiting = Waiting::among(&shared.probes_waiting);
                let _own = share.acquire().await.expect("the permits are never closed");
                let _permit = permits.acquire().await.expect("the permits are never closed");
                drop(waiting);
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
        if self.stand_in_until.is_some() || self.subjects.values().any(Subject::is_ramping) {
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
    fn publish(&mut self, mut shifts: Vec<Shift>) {
        shifts.extend(self.relieve());
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
        let stand_ins = self.stand_ins();
        let Edit { plan, members, number, .. } = &self.edit;
        let ramp = |member: &Member| ramps.get(&member.backend.slot()).copied().unwrap_or(Percent::whole(100));
        let candidates = if stand_ins.is_empty() { members } else { stand_ins.as_slice() };
        self.shared.upstream.publish(Eligible::among(candidates, &plan.health, &plan.balance, ramp));
        if self.stand_in_until.is_none() {
            self.applied.send_if_modified(|applied| std::mem::replace(applied, *number) != *number);
        }
        let eligible = members.iter().chain(&stand_ins).filter(|member| is_eligible(member)).count();
        let total = members.len() + stand_ins.len();
        for event in shifts.into_iter().filter_map(|shift| shift.event(plan.name.clone(), eligible, total)) {
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
        let is_raised = self.suspicion.is_raised();
        self.is_watchful =
            has_ratio || is_raised || self.stand_in_until.is_some() || self.subjects.values().any(is_busy);
    }

    /// Says that a check may be at fault, or that it is not any more, and lets what was held back come into force then.
    fn mind_suspicion(&mut self) {
        let Edit { plan, members, .. } = &self.edit;
        self.suspicion.look(members);
        let minded = self.suspicion.mind(plan, |check| do_all_fail(&self.subjects, check));
        minded.warnings.into_iter().for_each(|warning| self.prober.events.emit(warning));
        let told = self.suspicion.told();
        if **self.shared.suspicion.load() != told {
            if told.is_none() {
                let why = minded.why.map(|why| format!(": {why}")).unwrap_or_default();
                let detail = format!("the health check of `{}` is not suspect any more{why}", plan.name);
                self.prober.events.emit(Event::Process { stage: "check", detail });
            }
            self.shared.suspicion.store(Arc::new(told));
        }
        if self.some_are_held && minded.asks_again {
            // All may be well again, so nobody is taken out for what was said before.
            let held = self.subjects.iter().filter(|(_, subject)| subject.is_held());
            let again = held.flat_map(|(slot, subject)| subject.down().into_iter().map(|check| (*slot, check)));
            let again: Vec<(Slot, usize)> = again.collect();
            self.some_are_held = false;
            self.ask_now(&again);
        } else if self.some_are_held && minded.releases {
            let (suspicion, mode) = (&self.suspicion, plan.health.suspect_check);
            let held = self.subjects.values_mut().filter(|subject| subject.is_held());
            let shifts = held.filter_map(|subject| subject.release(|check| suspicion.holds(check, mode))).collect();
            self.some_are_held = self.subjects.values().any(Subject::is_held);
            self.publish_if_any(shifts);
        }
    }

    /// Lets readers see who is watched: the members in their order, then those that have left.
    fn show(&self) {
        let slots = self.present();
        let seen = |subject: &Subject| (subject.member().clone(), Arc::clone(subject.timeline()));
        let present = self.edit.members.iter().filter_map(|member| self.subjects.get(&member.backend.slot()));
        let left = self.subjects.iter().filter(|(slot, _)| !slots.contains(slot));
        let mut left: Vec<&Subject> = left.map(|(_, subject)| subject).collect();
        left.sort_by_key(|subject| subject.member().backend.slot());
        let subjects = present.chain(left).map(seen).collect();
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
            let mut last = record.probed.iter().filter_map(|probed| probed.recent.back());
            last.any(|probe| !probe.outcome.kind.is_fit() && probe.outcome.status == Some(404))
        };
        if !self.subjects.is_empty() && self.subjects.values().all(is_unknown) {
            let name = &self.edit.plan.name;
            let detail = format!("every backend of `{name}` answers its first probe with 404: is the path right?");
            self.prober.events.emit(Event::Warning { what: "probe_path", detail });
        }
    }
}

/// Whether a check fails everywhere, but where all is lost anyway.
fn do_all_fail(subjects: &HashMap<Slot, Subject>, check: usize) -> bool {
    let mut some_fail = false;
    let mut staying = subjects.values().filter(|subject| !subject.is_leaving());
    let do_all = staying.all(|subject| {
        let fails = subject.says_down(check);
        some_fail |= fails;
        fails || subject.member().backend.verdict() == Verdict::Down
    });
    do_all && some_fail
}

fn is_eligible(member: &Member) -> bool {
    member.backend.condition().is_eligible()
}
