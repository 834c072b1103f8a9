use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::{Notify, mpsc, oneshot},
    task::spawn_local,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Sockets,
    connection::{self, Closed, Open},
};
use crate::{
    proxy::{Client, Gateway},
    runtime::{ListenerId, Live},
    telemetry::{AccessLog, Counter, Event, Events, WorkerId, metrics::RouteMetrics},
    upstream::Bells,
};

/// What the workers are given.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The snapshot in force.
    pub live: Arc<Live>,
    /// Where to say what operators want to know.
    pub events: Events,
    /// What counts requests that no route takes.
    pub unrouted: Arc<RouteMetrics>,
    /// What counts connections that ended in a panic.
    pub panics: Arc<Counter>,
}

/// All workers.
#[derive(Debug)]
pub struct Fleet {
    workers: Vec<Handle>,
}

#[derive(Debug)]
struct Handle {
    mailbox: mpsc::Sender<Command>,
    thread: thread::JoinHandle<()>,
}

// What the control plane asks of a worker.
enum Command {
    Accept(ListenerId, std::net::TcpListener),
    Refuse(ListenerId),
    Retire(ListenerId, Instant),
    LogTo(Option<Arc<AccessLog>>),
    Drain(Instant, oneshot::Sender<usize>),
}

/// Commands that wait for a worker. The control plane waits for room.
const MAILBOX: usize = 64;

/// How often deadlines of connections are looked at; they are kept to this much.
const SWEEP: Duration = Duration::from_millis(250);

/// How often a worker says that it cannot accept, while it cannot.
const COMPLAINT: Duration = Duration::from_secs(10);

impl Fleet {
    /// Starts as many workers.
    ///
    /// # Errors
    /// The system has no thread or no event queue to give.
    pub fn start(count: usize, setup: &Setup) -> io::Result<Self> {
        let bells = Arc::new(Bells::new(count));
        let workers = (0..count).map(|number| {
            let (mailbox, commands) = mpsc::channel(MAILBOX);
            let (id, setup, bells) = (WorkerId(number), setup.clone(), Arc::clone(&bells));
            // A first runtime here, so that a lack of descriptors is an error of the start and not a dead thread.
            drop(local_runtime()?);
            let body = move || {
                let runtime = local_runtime().expect("a runtime was built a moment ago");
                runtime.block_on(run(id, setup, bells, commands));
            };
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(body)?;
            Ok(Handle { mailbox, thread })
        });
        Ok(Self { workers: workers.collect::<io::Result<_>>()? })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Accepts clients of a listener, which the snapshot in force has.
    pub async fn accept(&self, listener: ListenerId, sockets: Sockets) {
        for (worker, socket) in self.workers.iter().zip(sockets.each) {
            worker.tell(Command::Accept(listener, socket)).await;
        }
    }

    /// Accepts no more clients of a listener but those who are connected already.
    pub async fn refuse(&self, listener: ListenerId) {
        for worker in &self.workers {
            worker.tell(Command::Refuse(listener)).await;
        }
    }

    /// Lets connections of a listener finish, at the latest at `deadline`: it was removed, or its settings changed.
    pub async fn retire(&self, listener: ListenerId, deadline: Instant) {
        for worker in &self.workers {
            worker.tell(Command::Retire(listener, deadline)).await;
        }
    }

    /// Starts, or with `None` stops, one line per request.
    pub async fn log_to(&self, log: Option<&Arc<AccessLog>>) {
        for worker in &self.workers {
            worker.tell(Command::LogTo(log.cloned())).await;
        }
    }

    /// Accepts nobody, lets everybody finish, and returns how many connections were still open at `deadline` and cut.
    pub async fn drain(&self, deadline: Instant) -> usize {
        let mut reports = Vec::new();
        for worker in &self.workers {
            let (done, report) = oneshot::channel();
            worker.tell(Command::Drain(deadline, done)).await;
            reports.push(report);
        }
        let mut cut = 0;
        for report in reports {
            cut += report.await.unwrap_or_default();
        }
        cut
    }

    /// Ends the workers' threads, which hand over their last log lines.
    pub fn stop(self) {
        for Handle { mailbox, thread } in self.workers {
            drop(mailbox);
            // A worker that panicked outside of a connection has said so by its panic message.
            let _ = thread.join();
        }
    }
}

fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

impl Handle {
    async fn tell(&self, command: Command) {
        // A worker that is gone has no sockets left to command.
        let _ = self.mailbox.send(command).await;
    }
}

struct Worker {
    gateway: Rc<Gateway>,
    setup: Setup,
    open: RefCell<HashMap<u64, Rc<Open>, foldhash::fast::RandomState>>,
    next: Cell<u64>,
    accepting: RefCell<HashMap<ListenerId, Rc<Notify>>>,
    all_closed: Notify,
    last_complaint: Cell<Option<Instant>>,
}

async fn run(id: WorkerId, setup: Setup, bells: Arc<Bells>, mut commands: mpsc::Receiver<Command>) {
    let gateway = Gateway::new(id, Arc::clone(&setup.live), bells, Arc::clone(&setup.unrouted));
    let worker = Rc::new(Worker {
        gateway: Rc::new(gateway),
        setup,
        open: RefCell::default(),
        next: Cell::default(),
        accepting: RefCell::default(),
        all_closed: Notify::new(),
        last_complaint: Cell::default(),
    });
    let answering = Rc::clone(&worker.gateway);
    spawn_local(async move { answering.pools().answer_bell().await });
    spawn_local(sweep(Rc::clone(&worker)));
    while let Some(command) = commands.recv().await {
        worker.obey(command);
    }
    worker.cut_everybody().await;
    // The last lines of the log, before the thread is gone.
    worker.gateway.log_to(None);
}

async fn sweep(worker: Rc<Worker>) {
    const SWEEPS_PER_TICK: u32 = 4;
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeps: u32 = 0;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        worker.open.borrow().values().for_each(|open| open.check_deadlines(now));
        sweeps = sweeps.wrapping_add(1);
        if sweeps.is_multiple_of(SWEEPS_PER_TICK) {
            worker.gateway.tick(now);
        }
    }
}

impl Worker {
    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Accept(listener, socket) => self.accept_clients(listener, socket),
            Command::Refuse(listener) => drop(self.stop_accepting(listener)),
            Command::Retire(listener, deadline) => {
                let open = self.open.borrow();
                let its = open.values().filter(|open| open.client.listener.id == listener);
                its.for_each(|open| open.finish(deadline));
            }
            Command::LogTo(log) => self.gateway.log_to(log.as_deref()),
            Command::Drain(deadline, done) => {
                self.accepting.borrow_mut().drain().for_each(|(_, stop)| stop.notify_one());
                spawn_local(Rc::clone(self).drain(deadline, done));
            }
        }
    }

    fn accept_clients(self: &Rc<Self>, listener: ListenerId, socket: std::net::TcpListener) {
        let stop = Rc::new(Notify::new());
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                spawn_local(Rc::clone(self).accept_loop(listener, socket, Rc::clone(&stop)));
                self.accepting.borrow_mut().insert(listener, stop);
            }
            Err(error) => self.warn("accept_failed", format!("a listening socket is unusable: {error}")),
        }
    }

    fn stop_accepting(&self, listener: ListenerId) -> Option<()> {
        self.accepting.borrow_mut().remove(&listener).map(|stop| stop.notify_one())
    }

    async fn accept_loop(self: Rc<Self>, listener: ListenerId, socket: TcpListener, stop: Rc<Notify>) {
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => self.accepted(listener, stream, peer),
                    Err(error) => self.accept_failed(&error).await,
                },
                () = stop.notified() => break,
            }
        }
        // Whoever is in the queue has been told that it is connected.
        while let Some(Ok((stream, peer))) = socket.accept().now_or_never() {
            self.accepted(listener, stream, peer);
        }
    }

    async fn accept_failed(&self, error: &io::Error) {
        // A client that left the queue is none of our trouble. Anything else, no descriptors above all, will be there again
        // at once: without a pause this loop would spin.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        let now = Instant::now();
        if self.last_complaint.get().is_none_or(|last| now - last >= COMPLAINT) {
            self.last_complaint.set(Some(now));
            self.warn("accept_failed", format!("cannot accept a connection: {error}"));
        }
        sleep(Duration::from_millis(200)).await;
    }

    fn accepted(self: &Rc<Self>, id: ListenerId, socket: TcpStream, peer: SocketAddr) {
        let pinned = self.gateway.pin();
        let Some(served) = pinned.snapshot.served(id) else { return };
        let listener = Arc::clone(&served.listener);
        listener.metrics.accepted(self.gateway.worker());
        let max = listener.plan.max_connections;
        let place = listener.connections.fetch_update(AcqRel, Acquire, |open| (open < max).then_some(open + 1));
        if place.is_err() {
            listener.metrics.closed(self.gateway.worker(), Closed::TooMany.index());
            return;
        }
        let open = Rc::new(Open::new(Client::new(listener, pinned, peer)));
        let number = self.next.replace(self.next.get() + 1);
        self.open.borrow_mut().insert(number, Rc::clone(&open));
        spawn_local(Rc::clone(self).serve(number, open, socket));
    }

    async fn serve(self: Rc<Self>, number: u64, open: Rc<Open>, socket: TcpStream) {
        let closed = connection::serve(Rc::clone(&self.gateway), &open, socket).await;
        if closed == Closed::Panic {
            self.setup.panics.add(self.gateway.worker(), 1);
            self.warn("panic", format!("the code that served {} panicked; its connection is closed", open.client.peer));
        }
        let listener = &open.client.listener;
        listener.connections.fetch_sub(1, AcqRel);
        listener.metrics.closed(self.gateway.worker(), closed.index());
        let mut all = self.open.borrow_mut();
        all.remove(&number);
        if all.is_empty() {
            self.all_closed.notify_waiters();
        }
    }

    async fn drain(self: Rc<Self>, deadline: Instant, done: oneshot::Sender<usize>) {
        // What the accept queues held is among them by the next turn of this thread.
        tokio::task::yield_now().await;
        self.open.borrow().values().for_each(|open| open.finish(deadline));
        while !self.open.borrow().is_empty() && Instant::now() < deadline {
            let closed = self.all_closed.notified();
            tokio::select! {
                () = closed => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
        // Nobody waits any more for the rest; they end with this thread.
        let _ = done.send(self.open.borrow().len());
    }

    /// Ends every connection now, so that what each was doing is still recorded.
    async fn cut_everybody(&self) {
        let closed = self.all_closed.notified();
        self.open.borrow().values().for_each(|open| open.cut(Closed::DrainTimeout));
        if !self.open.borrow().is_empty() {
            // A turn of the thread is enough for each; a second is more than enough for all.
            let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
        }
    }

    fn warn(&self, what: &'static str, detail: String) {
        self.setup.events.emit(Event::Warning { what, detail });
    }
}
