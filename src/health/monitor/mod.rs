//! The task of one upstream: asks its backends, publishes what they are, tells of changes.
//!
//! It is the only writer of what is known of its backends and of its upstream's slice. Whoever owns the [`Monitor`] owns the task
//! and its probes; dropping it ends both. Each probe is a task that sleeps until it is due, waits for one of the permits
//! that the whole process shares, and asks; so a backend that hangs holds up nobody's schedule but its own.

mod suspicion;
#[cfg(test)]
mod suspicion_tests;
mod task;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic_tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};

use suspicion::Suspicion;
use task::{Inbox, Task};

use super::{
    BackendView, Drain, Outcome, Timeline, UpstreamView,
    line::Switchboard,
    probe::{self, Question},
};
use crate::{
    base::Name,
    config::plan,
    telemetry::{
        Events,
        cells::{Histogram, HistogramSum},
    },
    upstream::{Member, Upstream},
};

/// What all monitors of the process share: the permits to probe, the lines to backends and the way to tell.
#[derive(Clone, Debug)]
pub struct Prober {
    permits: Arc<Semaphore>,
    // Of one upstream.
    share: usize,
    lines: Arc<Switchboard>,
    events: Events,
}

impl Prober {
    /// At most `max_parallel` probes are under way at once, from 1, and a quarter of them for one upstream: one whose backends all
    /// hang leaves the others room. Waiting for a permit is not part of a probe's deadline.
    #[must_use]
    pub fn new(events: Events, max_parallel: usize) -> Self {
        let max_parallel = max_parallel.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max_parallel));
        Self { permits, share: max_parallel.div_ceil(4), lines: Arc::default(), events }
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
            probes_waiting: AtomicUsize::new(0),
        });
        let (orders, ordered) = mpsc::channel(ORDERS);
        let evidence = shared.upstream.evidence().unwrap_or_else(|| mpsc::channel(1).1);
        let (first_round, first_round_seen) = watch::channel(false);
        let (applied, applied_seen) = watch::channel(0);
        let mut task = Task {
            ask: Arc::new(ask),
            prober: prober.clone(),
            share: Arc::new(Semaphore::new(prober.share)),
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
            some_are_held: false,
            stand_in_until: None,
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
    pub async fn drain(&self, backend: Name, drain: Drain) -> Result<(), NoSuchBackend> {
        self.order(backend, Wish::Drain(drain)).await
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

    /// Waits until the slice that traffic goes by is that of the last update: until those that have left get nothing any more.
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
            probes_waiting: self.shared.probes_waiting.load(Relaxed),
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
    Drain(Drain),
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
    probes_waiting: AtomicUsize,
}

// A probe that is due and has no permit yet, for as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
struct Cast {
    plan: Arc<plan::Upstream>,
    subjects: Vec<(Member, Arc<Timeline>)>,
}
