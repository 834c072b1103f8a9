//! The task of one upstream: asks its backends, publishes what they are, tells of changes.
//!
//! It is the only writer of its backends' verdicts and of its upstream's slice. Whoever owns the [`Monitor`] owns the task
//! and its probes; dropping it ends both. Each probe is a task that sleeps until it is due, waits for one of the permits
//! that the whole process shares, and asks; so a backend that hangs holds up nobody's schedule but its own.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    BackendView, Outcome, Timeline, UpstreamView, cadence,
    probe::{self, Prepared, Question},
    subject::{Shift, Subject},
};
use crate::{
    config::plan,
    telemetry::{
        Event, Events,
        cells::{Histogram, HistogramSum},
    },
    upstream::{Eligible, Member, Slot, Upstream, Verdict},
};

/// What all monitors of the process share: the permits to probe and the way to tell.
#[derive(Clone, Debug)]
pub struct Prober {
    permits: Arc<Semaphore>,
    events: Events,
}

impl Prober {
    /// At most `max_parallel` probes are under way at once, from 1; 256 is a good default. Waiting for a permit is not part of a
    /// probe's deadline.
    #[must_use]
    pub fn new(events: Events, max_parallel: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(max_parallel.clamp(1, Semaphore::MAX_PERMITS))), events }
    }
}

/// The owner of an upstream's health task.
#[derive(Debug)]
pub struct Monitor {
    edits: watch::Sender<Edit>,
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
    pub fn start(prober: &Prober, upstream: Arc<Upstream>, plan: Arc<plan::Upstream>, members: Vec<Member>) -> Self {
        Self::start_with(Sockets, prober, upstream, plan, members)
    }

    pub(super) fn start_with(
        ask: impl Ask,
        prober: &Prober,
        upstream: Arc<Upstream>,
        plan: Arc<plan::Upstream>,
        members: Vec<Member>,
    ) -> Self {
        let edit = Edit { number: 0, plan, members: members.into() };
        let shared = Arc::new(Shared {
            upstream,
            cast: ArcSwap::from_pointee(Cast { plan: Arc::clone(&edit.plan), subjects: Vec::new() }),
            probe_durations: Histogram::default(),
        });
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
            some_leave: false,
            check_is_suspect: false,
        };
        task.apply(edit.clone());
        let (edits, edited) = watch::channel(edit);
        // The task ends, and its probes with it, when it finds the sender gone.
        tokio::spawn(task.run(edited));
        Self { edits, shared, applied: applied_seen, first_round: first_round_seen }
    }

    /// Takes a reload in. Never waits; the task acts on the last edit that it finds.
    pub fn update(&self, plan: Arc<plan::Upstream>, members: Vec<Member>) {
        self.edits.send_modify(|edit| *edit = Edit { number: edit.number + 1, plan, members: members.into() });
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

// What the config says of the upstream.
#[derive(Clone, Debug)]
struct Edit {
    // They are counted.
    number: u64,
    plan: Arc<plan::Upstream>,
    members: Arc<[Member]>,
}

// What the owner reads while the task writes.
#[derive(Debug)]
struct Shared {
    upstream: Arc<Upstream>,
    cast: ArcSwap<Cast>,
    probe_durations: Histogram,
}

#[derive(Debug)]
struct Cast {
    plan: Arc<plan::Upstream>,
    subjects: Vec<(Member, Arc<Timeline>)>,
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
    probes: JoinSet<Answer>,
    scheduled: HashMap<Id, Slot>,
    some_leave: bool,
    check_is_suspect: bool,
}

// When the probe began, and its outcome.
type Answer = (Instant, Outcome);
type Ended = Result<(Id, Answer), JoinError>;

/// How often a removed backend is looked at for requests that it still has.
const LEAVING_LOOK: Duration = Duration::from_secs(1);

/// Further outcomes that are taken in with one, the slice being published once for all of them.
const BATCH: usize = 256;

impl<A: Ask> Task<A> {
    async fn run(mut self, mut edited: watch::Receiver<Edit>) {
        let mut look = interval(LEAVING_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                edit = edited.changed() => match edit {
                    Ok(()) => {
                        let edit = edited.borrow_and_update().clone();
                        self.apply(edit);
                    }
                    Err(_owner_gone) => return,
                },
                _ = look.tick(), if self.some_leave => self.forget_the_gone(),
                Some(ended) = self.probes.join_next_with_id() => self.take(ended),
            }
        }
    }

    /// Makes the subjects what the config says, and starts to ask those that nobody asks.
    fn apply(&mut self, edit: Edit) {
        if self.edit.plan.health.checks != edit.plan.health.checks {
            self.check_is_suspect = self.edit.members.iter().any(|member| member.backend.verdict().is_fit());
        }
        self.edit = edit;
        let check = self.edit.plan.health.checks.first().map(Prepared::new);
        let (check, mut shifts) = (check.as_ref(), Vec::new());
        for member in &*self.edit.members {
            match self.subjects.get_mut(&member.backend.slot()) {
                Some(subject) if Arc::ptr_eq(&subject.member().backend, &member.backend) => {
                    shifts.extend(subject.keep(member, check));
                }
                _ => drop(self.subjects.insert(member.backend.slot(), Subject::new(member, check))),
            }
        }
        let present: HashSet<Slot> = self.edit.members.iter().map(|member| member.backend.slot()).collect();
        let leaving = self.subjects.iter_mut().filter(|(slot, _)| !present.contains(slot));
        shifts.extend(leaving.filter_map(|(_, subject)| subject.dismiss()));
        self.some_leave = self.subjects.values().any(Subject::is_leaving);
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
        if !shifts.is_empty() {
            self.publish(shifts);
            self.suspect_check();
        }
        self.close_first_round();
    }

    /// Takes one outcome in and schedules the next probe of its backend.
    fn observe(&mut self, ended: Ended) -> Option<Shift> {
        let (probe, answer) = match ended {
            Ok((probe, answer)) => (probe, Some(answer)),
            Err(failed) => (failed.id(), None),
        };
        let slot = self.scheduled.remove(&probe)?;
        let subject = self.subjects.get_mut(&slot).filter(|subject| subject.expects(probe))?;
        let now = Instant::now();
        let (started, outcome) = answer.unwrap_or_else(|| (now, Outcome::panicked()));
        self.shared.probe_durations.observe(outcome.total);
        self.check_is_suspect &= !outcome.kind.is_fit();
        let (shift, pause) = subject.observe(now, outcome);
        self.schedule(slot, started + pause);
        shift
    }

    fn schedule_idle(&mut self) {
        let Some(check) = self.edit.plan.health.checks.first().cloned() else { return };
        let idle: Vec<Slot> =
            self.subjects.iter().filter(|(_, subject)| subject.is_idle()).map(|(slot, _)| *slot).collect();
        let now = Instant::now();
        for slot in &idle {
            self.schedule(*slot, now + cadence::first(&check, idle.len()));
        }
    }

    fn schedule(&mut self, slot: Slot, due: Instant) {
        let Some(subject) = self.subjects.get_mut(&slot) else { return };
        let Some(question) = subject.question().cloned() else { return };
        let (ask, permits) = (Arc::clone(&self.ask), Arc::clone(&self.prober.permits));
        let probe = self.probes.spawn(async move {
            sleep_until(due).await;
            let _permit = permits.acquire().await.expect("the permits are never closed");
            (Instant::now(), ask.ask(&question).await)
        });
        self.scheduled.insert(probe.id(), slot);
        subject.expect(probe);
    }

    /// Publishes the slice, then tells what changed.
    fn publish(&self, shifts: Vec<Shift>) {
        let Edit { plan, members, .. } = &self.edit;
        self.shared.upstream.publish(Eligible::among(members, plan.health.when_all_down));
        let eligible = members.iter().filter(|member| member.backend.verdict().is_fit()).count();
        for shift in shifts {
            self.prober.events.emit(shift.event(plan.name.clone(), eligible, members.len()));
        }
    }

    /// Says once that the check may be at fault: nobody has passed it since it was edited, and somebody was fit before.
    fn suspect_check(&mut self) {
        let all_down = self.edit.members.iter().all(|member| member.backend.verdict() == Verdict::Down);
        if all_down && std::mem::take(&mut self.check_is_suspect) {
            let name = &self.edit.plan.name;
            let detail =
                format!("every backend of `{name}` is down since its health check was edited: is the check right?");
            self.prober.events.emit(Event::Warning { what: "suspect_check", detail });
        }
    }

    fn forget_the_gone(&mut self) {
        self.subjects.retain(|_, subject| !subject.is_leaving() || subject.member().backend.in_flight() > 0);
        self.some_leave = self.subjects.values().any(Subject::is_leaving);
        self.show();
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
