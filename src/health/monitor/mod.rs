//! The task of one upstream: asks its backends, publishes what they are, tells of changes.
//!
//! It is the only writer of what is known of its backends and of its upstream's slice. Whoever owns the [`Monitor`] owns the task
//! and its probes; dropping it ends both. Each probe is a task that sleeps until it is due, waits for one of the permits
//! that the whole process shares, and asks; so a backend that hangs holds up nobody's schedule but its own.

mod suspicion;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic_tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use suspicion::Suspicion;

use super::{
    BackendView, Drain, Outcome, Source, Spared, Timeline, UpstreamView, cadence,
    line::{Reply, Switchboard},
    may_eject,
    probe::{self, Prepared, Question},
    subject::{DrainTimes, Heard, Shift, Subject},
};
use crate::{
    base::{Name, Percent},
    config::plan::{self, Passive, WhenOut},
    telemetry::{
        Event, Events,
        cells::{Histogram, HistogramSum},
    },
    upstream::{Eligible, Evidence, Member, Slot, Upstream, Verdict},
};

/// What all monitors of the process share: the permits to probe, the lines to backends and the way to tell.
#[derive(Clone, Debug)]
pub struct Prober {
    permits: Arc<Semaphore>,
    lines: Arc<Switchboard>,
    events: Events,
}

impl Prober {
    /// At most `max_parallel` probes are under way at once, from 1; 256 is a good default. Waiting for a permit is not part of a
    /// probe's deadline.
    #[must_use]
    pub fn new(events: Events, max_parallel: usize) -> Self {
        let permits = Arc::new(Semaphore::new(max_parallel.clamp(1, Semaphore::MAX_PERMITS)));
        Self { permits, lines: Arc::default(), events }
    }

    /// Forgets lines that nobody uses any more. To be called now and then.
    pub fn sweep(&self) {
        self.lines.sweep();
    }
}

/// The owner of an upstream's health task.
#[derive(Debug)]
pub struct Monitor {
    edits: watch::Sender<Edit>,
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    applied: watch::Receiver<u64>,
    first_round: watch::Receiver<bool>,
}

impl Monitor {
    /// Publishes the first slice, then watches the members from a task of its own, whose first probes go out at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(
        prober: &Prober,
        upstream: Arc<Upstream>,
        plan: Arc<plan::Upstream>,
        members: Vec<Member>,
        generation: u64,
    ) -> Self {
        Self::start_with(Sockets, prober, upstream, plan, members, generation)
    }

    pub(super) fn start_with(
        ask: impl Ask,
        prober: &Prober,
        upstream: Arc<Upstream>,
        plan: Arc<plan::Upstream>,
        members: Vec<Member>,
        generation: u64,
    ) -> Self {
        let edit = Edit { number: 0, generation, plan, members: members.into() };
        let shared = Arc::new(Shared {
            upstream,
            cast: ArcSwap::from_pointee(Cast { plan: Arc::clone(&edit.plan), subjects: Vec::new() }),
            suspicion: ArcSwap::default(),
            probe_durations: Histogram::default(),
        });
        let (orders, ordered) = mpsc::channel(ORDERS);
        let evidence = shared.upstream.evidence().unwrap_or_else(|| mpsc::channel(1).1);
        let (first_round, first_round_seen) = watch::channel(false);
        let (applied, applied_seen) = watch::channel(0);
        let mut task = Task {
            ask: Arc::new(ask),
            prober: prober.clone(),
            shared: Arc::clone(&shared),
            applied,
            first_round,
            edit: edit.clone(),
            subjects: HashMap::new(),
            probes: JoinSet::new(),
            scheduled: HashMap::new(),
            ends: BTreeSet::new(),
            is_watchful: false,
            suspicion: Suspicion::default(),
        };
        task.apply(edit.clone());
        let (edits, edited) = watch::channel(edit);
        // The task ends, and its probes with it, when it finds the sender gone.
        tokio::spawn(task.run(Inbox { edited, ordered, evidence }));
        Self { edits, orders, shared, applied: applied_seen, first_round: first_round_seen }
    }

    /// Takes a reload in. Never waits; the task acts on the last edit that it finds.
    pub fn update(&self, plan: Arc<plan::Upstream>, members: Vec<Member>, generation: u64) {
        self.edits.send_modify(|edit| {
            *edit = Edit { number: edit.number + 1, generation, plan, members: members.into() };
        });
    }

    /// Drains a backend: it finishes its requests and gets no new ones.
    ///
    /// # Errors
    /// There is no such backend.
    pub async fn drain(&self, backend: Name, drain: Drain, times: DrainTimes) -> Result<(), NoSuchBackend> {
        self.order(backend, Wish::Drain { drain, times }).await
    }

    /// Ends a drain.
    ///
    /// # Errors
    /// There is no such backend.
    pub async fn undrain(&self, backend: Name, by: String) -> Result<(), NoSuchBackend> {
        self.order(backend, Wish::Undrain { by }).await
    }

    async fn order(&self, backend: Name, wish: Wish) -> Result<(), NoSuchBackend> {
        let (done, is_done) = oneshot::channel();
        // An error of either says that the task is gone, and its backends with it.
        let _ = self.orders.send(Order { backend, wish, done }).await;
        if is_done.await.unwrap_or(false) { Ok(()) } else { Err(NoSuchBackend) }
    }

    /// Waits until the slice that traffic goes by is that of the last update.
    pub fn applied(&self) -> impl Future<Output = ()> + Send + use<> {
        let (number, mut applied) = (self.edits.borrow().number, self.applied.clone());
        async move {
            // An error says that the task is gone: there is nothing to wait for any more.
            let _ = applied.wait_for(|applied| *applied >= number).await;
        }
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> UpstreamView {
        let cast = self.shared.cast.load();
        let mut probe_durations = HistogramSum::default();
        self.shared.probe_durations.add_to(&mut probe_durations);
        UpstreamView {
            plan: Arc::clone(&cast.plan),
            tier: self.shared.upstream.eligible().tier(),
            first_round_done: self.first_round_done(),
            suspicion: self.shared.suspicion.load_full(),
            probe_durations,
            backends: cast.subjects.iter().map(|(member, timeline)| BackendView::of(member, timeline)).collect(),
        }
    }

    /// Whether every member has had one conclusive outcome since the start, or is unchecked. Once true it stays.
    #[must_use]
    pub fn first_round_done(&self) -> bool {
        *self.first_round.borrow()
    }

    /// Waits until [`Monitor::first_round_done`].
    pub fn first_round(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut first_round = self.first_round.clone();
        async move {
            // An error says that the task is gone: there is nothing to wait for any more.
            let _ = first_round.wait_for(|done| *done).await;
        }
    }
}

/// How a question is put; the tests put it without sockets.
pub(super) trait Ask: Send + Sync + 'static {
    fn ask(&self, question: &Question) -> impl Future<Output = Outcome> + Send;
}

struct Sockets;

impl Ask for Sockets {
    fn ask(&self, question: &Question) -> impl Future<Output = Outcome> + Send {
        probe::ask(question)
    }
}

/// The upstream has no backend of that name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no such backend")]
pub struct NoSuchBackend;

// What an operator wants of one backend.
#[derive(Debug)]
struct Order {
    backend: Name,
    wish: Wish,
    // Whether there is such a backend.
    done: oneshot::Sender<bool>,
}

#[derive(Debug)]
enum Wish {
    Drain { drain: Drain, times: DrainTimes },
    Undrain { by: String },
}

/// Orders that may wait: more than a person gives.
const ORDERS: usize = 16;

// What the config says of the upstream.
#[derive(Clone, Debug)]
struct Edit {
    // They are counted.
    number: u64,
    generation: u64,
    plan: Arc<plan::Upstream>,
    members: Arc<[Member]>,
}

// What the owner reads while the task writes.
#[derive(Debug)]
struct Shared {
    upstream: Arc<Upstream>,
    cast: ArcSwap<Cast>,
    suspicion: ArcSwap<Option<String>>,
    probe_durations: Histogram,
}

#[derive(Debug)]
struct Cast {
    plan: Arc<plan::Upstream>,
    subjects: Vec<(Member, Arc<Timeline>)>,
}

// Whatever the task hears of.
struct Inbox {
    edited: watch::Receiver<Edit>,
    ordered: mpsc::Receiver<Order>,
    evidence: mpsc::Receiver<Evidence>,
}

// The state of the task.
struct Task<A> {
    ask: Arc<A>,
    prober: Prober,
    shared: Arc<Shared>,
    applied: watch::Sender<u64>,
    first_round: watch::Sender<bool>,
    edit: Edit,
    subjects: HashMap<Slot, Subject>,
    probes: JoinSet<Reply>,
    scheduled: HashMap<Id, Slot>,
    // When an ejection or a drain ends. What was changed since is still in here, and does no harm.
    ends: BTreeSet<(Instant, Slot)>,
    // Something has to be looked at every second.
    is_watchful: bool,
    suspicion: Suspicion,
}

type Ended = Result<(Id, Reply), JoinError>;

/// How often what has no event of its own is looked at: requests that a removed backend still has, the share of one that starts
/// slowly, how many requests have failed.
const LOOK: Duration = Duration::from_secs(1);

/// Further outcomes that are taken in with one, the slice being published once for all of them.
const BATCH: usize = 256;

impl<A: Ask> Task<A> {
    async fn run(mut self, inbox: Inbox) {
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
    fn apply(&mut self, edit: Edit) {
        if self.edit.plan.health.checks != edit.plan.health.checks {
            let was_fit = self.edit.members.iter().any(|member| member.backend.verdict().is_fit());
            self.suspicion = if was_fit { Suspicion::raised(&self.edit.members) } else { Suspicion::default() };
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
            shifts.extend(self.subjects.values_mut().filter_map(|subject| subject.readmit("time_over", detail())));
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
        self.suspicion.hear(answer.1.kind);
        let is_held = self.suspicion.holds(self.edit.plan.health.suspect_check, &self.edit.members);
        let Heard { shift, next } = subject.hear(now, probe, answer, is_held)?;
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
        let Some(subject) = self.subjects.get_mut(&slot) else { return };
        let Some(line) = subject.line(check).cloned() else { return };
        let vouching = subject.vouching(check);
        let (ask, permits) = (Arc::clone(&self.ask), Arc::clone(&self.prober.permits));
        let probe = self.probes.spawn(async move {
            let put = || async {
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
        let Some(subject) = self.subjects.get(&slot) else { return };
        for (check, soon) in subject.doubt(now) {
            self.schedule(slot, check, soon);
        }
        let Some(rules) = self.edit.plan.health.passive.clone() else { return };
        match seen {
            Evidence::AsksToDrain { lasts, .. } => self.drain_itself(slot, lasts.unwrap_or(rules.max_eject_for)),
            Evidence::Failed { reason, status, retry_after, .. } => {
                let failures = self.subjects.get(&slot).map_or(0, |subject| subject.member().backend.failures());
                if failures >= rules.failures {
                    let what = status.map_or_else(|| reason.replace('_', " "), |status| status.to_string());
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
        let times = DrainTimes { lasts: Some(lasts), deadline: None };
        let shift = subject.drain(Drain::of_its_own(lasts), times, Source::Backend);
        self.note_end(slot);
        self.publish_if_any(shift.into_iter().collect());
    }

    /// Does what an operator wants.
    fn obey(&mut self, order: Order) {
        let Order { backend, wish, done } = order;
        let slot = self.edit.members.iter().find(|member| member.name == backend).map(|member| member.backend.slot());
        let subject = slot.and_then(|slot| self.subjects.get_mut(&slot));
        let shift = subject.map(|subject| match wish {
            Wish::Drain { drain, times } => subject.drain(drain, times, Source::Operator),
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
        self.shared.upstream.publish(Eligible::among(members, &plan.health, ramp));
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
        let fails = |subject: &Subject| {
            subject.member().backend.verdict() == Verdict::Down || subject.timeline().read().is_held
        };
        let do_all_fail = self.suspicion.is_raised() && self.subjects.values().all(fails);
        if let Some(detail) = self.suspicion.mind(plan, members, do_all_fail) {
            self.prober.events.emit(Event::Warning { what: "suspect_check", detail });
        }
        if self.shared.suspicion.load().as_deref() != self.suspicion.told() {
            self.shared.suspicion.store(Arc::new(self.suspicion.told().map(str::to_owned)));
        }
        if !self.suspicion.holds(plan.health.suspect_check, members) {
            let held = self.subjects.values_mut().filter(|subject| subject.timeline().read().is_held);
            let shifts: Vec<Shift> = held.filter_map(Subject::release).collect();
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
        }
    }
}

fn is_eligible(member: &Member) -> bool {
    let known = member.backend.condition();
    known.is_free() && known.verdict.is_fit()
}
