//! A worker: a thread with its own runtime, sockets, connections and gateway; and the fleet of them, as the control plane
//! commands it through a mailbox each.
//!
//! Whatever a worker owns is touched by its thread alone. A connection stays with the worker that accepted it to its end.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::spawn_local,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Sockets,
    bind::Listener,
    complaints::Complaints,
    connection::{self, Closed, Open},
    listening::Listening,
    stream::ClientStream,
};
use crate::{
    net::Socket,
    proxy::{Client, Gateway},
    runtime::{ListenerId, Live, Pinned},
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
    Accept(ListenerId, Listener),
    Close(ListenerId, Instant),
    HandOver(ListenerId, ListenerId, Instant),
    Renew(ListenerId, Instant),
    LogTo(Option<Arc<AccessLog>>),
    Drain(Instant, oneshot::Sender<usize>),
}

/// Commands that wait for a worker. The control plane waits for room.
const MAILBOX: usize = 64;

/// How often deadlines of connections are looked at; they are kept to this much.
const SWEEP: Duration = Duration::from_millis(250);

/// How long a handshake may take while others wait for room.
const PATIENCE_WHEN_CROWDED: Duration = Duration::from_secs(1);

impl Fleet {
    /// Starts this many workers.
    ///
    /// # Errors
    /// The system has no thread or no event queue to give.
    pub fn start(count: usize, setup: &Setup) -> io::Result<Self> {
        let bells = Arc::new(Bells::new(count));
        let workers = (0..count).map(|number| {
            let (mailbox, commands) = mpsc::channel(MAILBOX);
            let (id, setup, bells) = (WorkerId(number), setup.clone(), Arc::clone(&bells));
            let (started, start) = std::sync::mpsc::sync_channel(1);
            let body = move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    runtime.block_on(run(id, setup, bells, commands));
                }
                Err(error) => drop(started.send(Err(error))),
            };
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(body)?;
            start.recv().map_err(io::Error::other)??;
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

    /// Accepts no more clients of a listener, which was removed, and lets those who are connected finish, at the latest at
    /// `deadline`.
    pub async fn close(&self, listener: ListenerId, deadline: Instant) {
        for worker in &self.workers {
            worker.tell(Command::Close(listener, deadline)).await;
        }
    }

    /// Serves clients that come to a listener that was removed as clients of another, which takes over its address. The sockets
    /// stay: one that is closed may lose a client who comes at this moment. Who is connected may finish, at the latest at
    /// `deadline`.
    pub async fn hand_over(&self, removed: ListenerId, to: ListenerId, deadline: Instant) {
        for worker in &self.workers {
            worker.tell(Command::HandOver(removed, to, deadline)).await;
        }
    }

    /// Lets connections that have other settings than their listener has now finish, at the latest at `deadline`.
    pub async fn renew(&self, listener: ListenerId, deadline: Instant) {
        for worker in &self.workers {
            worker.tell(Command::Renew(listener, deadline)).await;
        }
    }

    /// Starts, or with `None` stops, one line per request.
    pub async fn log_to(&self, log: Option<&Arc<AccessLog>>) {
        for worker in &self.workers {
            worker.tell(Command::LogTo(log.cloned())).await;
        }
    }

    /// Accepts nobody, lets everybody finish, and returns how many requests were cut at `deadline`.
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
        // All mailboxes first, so that the workers end side by side.
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        for thread in threads {
            // A worker that panicked outside of a connection has said so by its panic message.
            let _ = thread.join();
        }
    }
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
    accepting: RefCell<HashMap<ListenerId, Vec<Rc<Accepting>>>>,
    all_closed: Notify,
    lost_requests: Cell<usize>,
    complaints: Complaints,
}

/// An accept loop, and the handle by which the worker ends it.
struct Accepting {
    // Whose clients they are.
    listener: Cell<ListenerId>,
    // Set once it shall end: when the connections that it still accepts are cut.
    deadline: Cell<Option<Instant>>,
    stop: Notify,
    // Connections in the order in which they came, as far as they may still shake hands.
    handshakes: RefCell<VecDeque<Weak<Open>>>,
}

impl Accepting {
    fn stop(&self, deadline: Instant) {
        self.deadline.set(Some(deadline));
        self.stop.notify_one();
    }

    /// Waits until fewer handshakes are under way than may be: a crowd that comes back at once waits to be accepted. Whoever
    /// takes his time makes room for others.
    async fn room_for_handshake(&self, max: usize) {
        while self.handshakes.borrow().len() >= max {
            let now = Instant::now();
            let goes_on = |open: &Weak<Open>| open.upgrade().is_some_and(|open| open.hurry(now, PATIENCE_WHEN_CROWDED));
            self.handshakes.borrow_mut().retain(goes_on);
            if self.handshakes.borrow().len() >= max {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
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
        lost_requests: Cell::default(),
        complaints: Complaints::default(),
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
            Command::Close(listener, deadline) => {
                let accepting = self.accepting.borrow_mut().remove(&listener);
                accepting.into_iter().flatten().for_each(|accepting| accepting.stop(deadline));
                self.finish(deadline, |client| client.listener.id == listener);
            }
            Command::HandOver(removed, to, deadline) => {
                let mut all = self.accepting.borrow_mut();
                let handed = all.remove(&removed).unwrap_or_default();
                handed.iter().for_each(|accepting| accepting.listener.set(to));
                all.entry(to).or_default().extend(handed);
                self.finish(deadline, |client| client.listener.id == removed);
            }
            Command::Renew(listener, deadline) => {
                let pinned = self.gateway.pin();
                let Some(served) = pinned.snapshot.served(listener) else { return };
                let now = &served.listener.plan;
                let is_outdated = |client: &Client| !client.listener.plan.is_same_to_connected(now);
                self.finish(deadline, |client| client.listener.id == listener && is_outdated(client));
            }
            Command::LogTo(log) => self.gateway.log_to(log.as_deref()),
            Command::Drain(deadline, done) => {
                let all = self.accepting.take();
                all.into_values().flatten().for_each(|accepting| accepting.stop(deadline));
                spawn_local(Rc::clone(self).drain(deadline, done));
            }
        }
    }

    fn accept_clients(self: &Rc<Self>, listener: ListenerId, socket: Listener) {
        let accepting = Accepting {
            listener: Cell::new(listener),
            deadline: Cell::default(),
            stop: Notify::new(),
            handshakes: RefCell::default(),
        };
        let accepting = Rc::new(accepting);
        match Listening::new(socket) {
            Ok(socket) => {
                spawn_local(Rc::clone(self).accept_loop(socket, Rc::clone(&accepting)));
                self.accepting.borrow_mut().entry(listener).or_default().push(accepting);
            }
            Err(error) => self.warn("accept_failed", format!("a listening socket is unusable: {error}")),
        }
    }

    /// Lets these connections finish.
    fn finish(&self, deadline: Instant, which: impl Fn(&Client) -> bool) {
        let open = self.open.borrow();
        open.values().filter(|open| which(&open.client)).for_each(|open| open.finish(deadline));
    }

    async fn accept_loop(self: Rc<Self>, socket: Listening, accepting: Rc<Accepting>) {
        // The last snapshot that has the listener: clients in the queue of one that was removed are served by that.
        let mut last = self.gateway.pin();
        loop {
            let served = last.snapshot.served(accepting.listener.get());
            let most =
                served.and_then(|served| served.listener.plan.tls.as_ref()).map(|tls| tls.max_handshakes as usize);
            let next = async {
                if let Some(most) = most {
                    accepting.room_for_handshake(most).await;
                }
                socket.accept().await
            };
            tokio::select! {
                accepted = next => {
                    let (id, now) = (accepting.listener.get(), self.gateway.pin());
                    if now.snapshot.served(id).is_some() {
                        last = now;
                    }
                    match accepted {
                        Ok((socket, peer)) => {
                            let open = self.accepted(id, &last, socket, peer, None);
                            if let Some(open) = open.filter(|_| most.is_some()) {
                                accepting.handshakes.borrow_mut().push_back(open);
                            }
                        }
                        Err(error) => self.accept_failed(&error).await,
                    }
                }
                () = accepting.stop.notified() => break,
            }
        }
        // Clients in the queue believe that they are connected.
        let (Ok(queue), deadline) = (socket.into_queue(), accepting.deadline.get()) else { return };
        loop {
            match queue.next() {
                Ok((socket, peer)) => {
                    let _ = self.accepted(accepting.listener.get(), &last, socket, peer, deadline);
                }
                Err(error) if is_the_clients(&error) => {}
                Err(_) => return,
            }
        }
    }

    async fn accept_failed(&self, error: &io::Error) {
        if is_the_clients(error) {
            return;
        }
        // No descriptors above all: it will be so again at once, and without a pause this loop would spin.
        if self.complaints.due(None, "accept_failed", "", Instant::now()).is_some() {
            self.warn("accept_failed", format!("cannot accept a connection: {error}"));
        }
        sleep(Duration::from_millis(200)).await;
    }

    fn accepted(
        self: &Rc<Self>,
        id: ListenerId,
        pinned: &Rc<Pinned>,
        socket: Socket,
        peer: SocketAddr,
        deadline: Option<Instant>,
    ) -> Option<Weak<Open>> {
        let served = pinned.snapshot.served(id)?;
        let listener = Arc::clone(&served.listener);
        listener.metrics.accepted(self.gateway.worker());
        let max = listener.plan.max_connections;
        let place = listener.connections.fetch_update(AcqRel, Acquire, |open| (open < max).then_some(open + 1));
        if place.is_err() {
            listener.metrics.closed(self.gateway.worker(), Closed::TooMany.index());
            self.tell_of(&Open::new(Client::new(listener, Rc::clone(pinned), peer)), Closed::TooMany);
            return None;
        }
        let open = Rc::new(Open::new(Client::new(listener, Rc::clone(pinned), peer)));
        if let Some(deadline) = deadline {
            open.finish(deadline);
        }
        let number = self.next.replace(self.next.get() + 1);
        let weak = Rc::downgrade(&open);
        self.open.borrow_mut().insert(number, Rc::clone(&open));
        // Boxed: each step that passes it on would have room for it, for as long as the connection lasts.
        let stream = Box::new(ClientStream::new(socket, Rc::clone(&open.client)));
        spawn_local(Rc::clone(self).serve(number, open, stream));
        Some(weak)
    }

    async fn serve(self: Rc<Self>, number: u64, open: Rc<Open>, stream: Box<ClientStream<Socket>>) {
        let closed = connection::serve(Rc::clone(&self.gateway), &open, stream).await;
        if closed == Closed::Panic {
            self.setup.panics.add(self.gateway.worker(), 1);
            self.warn(
                "panic",
                format!("the code that served {} panicked; its connection is closed", open.client.peer()),
            );
        }
        self.tell_of(&open, closed);
        if closed == Closed::DrainTimeout && open.lost_request() {
            self.lost_requests.set(self.lost_requests.get() + 1);
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

    /// Says of a connection that no request tells of why it ended.
    fn tell_of(&self, open: &Open, closed: Closed) {
        let listener = &open.client.listener;
        let due = |detail: &str| self.complaints.due(Some(listener.id), closed.token(), detail, Instant::now());
        if closed == Closed::ProxyHeader {
            due("").into_iter().for_each(|_| self.warn("proxy_header", unheard(&open.client)));
        } else if let Some(detail) = open.why(closed)
            && let Some(more) = due(&detail)
        {
            let (listener, peer) = (listener.plan.name.clone(), open.client.peer().ip());
            self.setup.events.emit(Event::Client { listener, peer, reason: closed.token(), detail, more });
        }
    }

    async fn drain(self: Rc<Self>, deadline: Instant, done: oneshot::Sender<usize>) {
        // What edits have cut before says nothing of this end.
        self.lost_requests.set(0);
        self.open.borrow().values().for_each(|open| open.forget_loss());
        // What the accept queues held is among them by the next turn of this thread.
        tokio::task::yield_now().await;
        self.finish(deadline, |_| true);
        while !self.open.borrow().is_empty() && Instant::now() < deadline {
            let closed = self.all_closed.notified();
            tokio::select! {
                () = closed => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
        // Idle connections end at their next turn; they lose nothing.
        tokio::task::yield_now().await;
        let busy = self.open.borrow().values().filter(|open| open.is_busy() || open.lost_request()).count();
        let _ = done.send(self.lost_requests.get() + busy);
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

/// Why a connection ended before it was known whose it is.
fn unheard(client: &Client) -> String {
    let (listener, peer) = (&client.listener.plan.name, client.peer().ip());
    match client.is_trusted() {
        true => format!("{peer} sent no PROXY header to listener `{listener}`: its connection is closed"),
        false => format!("{peer} is not in `trusted_proxies` of listener `{listener}`: its connection is closed"),
    }
}

/// A client that left the accept queue: none of our trouble.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
