//! A worker's connections to backends.
//!
//! Each worker has its own pools, one per backend slot, so that taking and returning a connection locks nothing and wakes
//! nobody. What the workers share is the backend's count of open connections, one atomic. hyper does the framing; neither of
//! hyper-util's pools has a cap, a wait queue, an age or a drain.
//!
//! A request that finds the cap reached waits in its worker. Whatever then frees a place wakes it: a connection returned
//! here, or, through the [`Bells`], one that ended or was shed by another worker.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt, io,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Buf;
use http_body::Body;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Notify, task::AbortHandle};

use super::{
    Backend,
    stream::{BackendStream, Patience},
};
use crate::config::plan;

/// What bounds the connections to one backend.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections over all workers; `None` is unlimited.
    pub max_connections: Option<u32>,
    /// Idle connections kept by this worker.
    pub max_idle: usize,
    /// How long an idle connection is kept; zero is for ever.
    pub idle: Duration,
    /// Age at which a connection is no longer reused; zero is never.
    pub max_age: Duration,
}

impl From<&plan::Upstream> for Limits {
    fn from(plan: &plan::Upstream) -> Self {
        Self {
            max_connections: plan.max_connections,
            max_idle: usize::try_from(plan.max_idle_connections).unwrap_or(usize::MAX),
            idle: plan.idle,
            max_age: plan.max_connection_age,
        }
    }
}

/// One bell per worker, rung when a place among a backend's connections may have become free elsewhere.
#[derive(Debug)]
pub struct Bells(Box<[Notify]>);

impl Bells {
    /// One bell for each of the workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Notify::new()).collect())
    }

    fn ring(&self) {
        self.0.iter().for_each(Notify::notify_one);
    }

    async fn rung(&self, worker: usize) {
        match self.0.get(worker) {
            Some(bell) => bell.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// Whether a connection that has carried requests before will do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// It will, and is preferred.
    Allowed,
    /// It will not: a kept one has just given the request back, dead.
    Refused,
}

/// A worker's pools, by backend slot.
pub struct Pools<B> {
    worker: usize,
    bells: Arc<Bells>,
    by_slot: RefCell<Vec<Option<Rc<Pool<B>>>>>,
}

struct Pool<B> {
    backend: Arc<Backend>,
    // The most recently used is at the back and is taken first: the others grow old and are closed.
    idle: RefCell<VecDeque<Idle<B>>>,
    waiting: Cell<u32>,
    freed: Notify,
    serve_others: Cell<bool>,
}

/// An open connection: where requests go in, and the task that drives it.
struct Wire<B> {
    sender: SendRequest<B>,
    patience: Patience,
    born: Instant,
    _driver: Driver,
}

struct Idle<B> {
    wire: Wire<B>,
    since: Instant,
    limits: Limits,
}

/// A connection in use by one request. Dropped, it is closed; [`Connection::give_back`] keeps it.
pub struct Connection<B> {
    wire: Wire<B>,
    reused: bool,
    limits: Limits,
    pool: Weak<Pool<B>>,
}

impl<B> Pools<B>
where
    B: Body<Data: Buf + Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    /// No connections yet.
    #[must_use]
    pub fn new(worker: usize, bells: Arc<Bells>) -> Self {
        Self { worker, bells, by_slot: RefCell::default() }
    }

    /// A connection to the backend: an idle one where `reuse` allows it, else a new one. Waits for a place where the cap is
    /// reached; the caller sets the deadline.
    ///
    /// # Errors
    /// What the system says of the attempt to connect.
    pub async fn checkout(&self, backend: &Arc<Backend>, limits: Limits, reuse: Reuse) -> io::Result<Connection<B>> {
        let pool = self.pool(backend);
        if reuse == Reuse::Refused {
            // One of them has just been found dead, so the others are suspect, and one may hold the last place.
            pool.idle.borrow_mut().clear();
        }
        let mut waiting = None;
        loop {
            // Whoever waited takes what is given back: that was in use a moment ago.
            if (reuse == Reuse::Allowed || waiting.is_some())
                && let Some(connection) = pool.take_ready(limits).await
            {
                return Ok(connection);
            }
            if let Some(place) = self.place(backend, limits) {
                return pool.connect(place, limits).await;
            }
            let freed = pool.freed.notified();
            if waiting.is_none() {
                // Counted from here to the end of the wait, so that a place freed by another worker is never missed; rung
                // once, because another worker may sit on idle connections.
                waiting = Some(Waiting::new(&pool));
                self.bells.ring();
            }
            freed.await;
        }
    }

    /// Closes idle connections that are too old, too long idle, or dead, and all to backends that are draining. Called about
    /// once a second.
    pub fn prune(&self, now: Instant) {
        for place in self.by_slot.borrow_mut().iter_mut() {
            place.take_if(|pool| pool.backend.is_draining() && pool.waiting.get() == 0);
            if let Some(pool) = place {
                pool.idle.borrow_mut().retain(|idle| idle.is_reusable(now));
            }
        }
    }

    /// Drops the pools of backends that are gone. Called when a worker first sees a new generation.
    pub fn retain(&self, is_live: impl Fn(&Arc<Backend>) -> bool) {
        for pool in self.by_slot.borrow_mut().iter_mut() {
            pool.take_if(|pool| !is_live(&pool.backend) && pool.waiting.get() == 0);
        }
    }

    /// Answers the bell, forever: sheds idle connections that another worker waits for, and lets this worker's own waiting
    /// requests look again.
    pub async fn answer_bell(&self) {
        loop {
            self.bells.rung(self.worker).await;
            for pool in self.by_slot.borrow().iter().flatten() {
                let wanted = pool.backend.waiting().saturating_sub(pool.waiting.get()) as usize;
                let mut idle = pool.idle.borrow_mut();
                let shed = wanted.min(idle.len());
                idle.drain(..shed);
                drop(idle);
                if pool.waiting.get() > 0 {
                    pool.freed.notify_waiters();
                }
            }
        }
    }

    fn pool(&self, backend: &Arc<Backend>) -> Rc<Pool<B>> {
        let slot = backend.slot().0 as usize;
        let mut by_slot = self.by_slot.borrow_mut();
        if by_slot.len() <= slot {
            by_slot.resize_with(slot + 1, || None);
        }
        let place = by_slot.get_mut(slot).expect("the table was grown to hold the slot");
        match place {
            // A slot is reused after its backend is gone.
            Some(pool) if Arc::ptr_eq(&pool.backend, backend) => Rc::clone(pool),
            _ => Rc::clone(place.insert(Rc::new(Pool::new(Arc::clone(backend))))),
        }
    }

    fn place(&self, backend: &Arc<Backend>, limits: Limits) -> Option<Place> {
        let taken = backend.connect(limits.max_connections);
        taken.then(|| Place { backend: Arc::clone(backend), bells: Arc::clone(&self.bells) })
    }
}

impl<B> Pool<B>
where
    B: Body<Data: Buf + Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    async fn take_ready(self: &Rc<Self>, limits: Limits) -> Option<Connection<B>> {
        loop {
            let idle = self.idle.borrow_mut().pop_back()?;
            if !idle.is_reusable(Instant::now()) {
                continue;
            }
            if !idle.wire.sender.is_ready() {
                // A connection is returned as the last byte of a body is passed on, a turn before hyper calls it ready. One
                // that is not ready by then still has a request to write, to a backend that has answered and does not read.
                tokio::task::yield_now().await;
            }
            if idle.wire.sender.is_ready() {
                return Some(self.connection(idle.wire, limits, true));
            }
        }
    }

    async fn connect(self: &Rc<Self>, place: Place, limits: Limits) -> io::Result<Connection<B>> {
        let stream = TcpStream::connect(place.backend.address()).await?;
        stream.set_nodelay(true)?;
        let patience = Patience::default();
        let stream = TokioIo::new(BackendStream::new(stream, patience.clone()));
        let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(stream).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let driver = tokio::task::spawn_local(async move {
            let _place = place;
            // What goes wrong is told to the request that uses it; between requests there is nobody to tell.
            let _ended = connection.await;
        });
        let wire = Wire { sender, patience, born: Instant::now(), _driver: Driver(driver.abort_handle()) };
        Ok(self.connection(wire, limits, false))
    }

    fn connection(self: &Rc<Self>, wire: Wire<B>, limits: Limits, reused: bool) -> Connection<B> {
        Connection { wire, reused, limits, pool: Rc::downgrade(self) }
    }
}

impl<B> Pool<B> {
    fn new(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            idle: RefCell::default(),
            waiting: Cell::new(0),
            freed: Notify::new(),
            serve_others: Cell::new(false),
        }
    }

    // While requests of other workers wait, every second connection that comes free is theirs, and all of them when nobody
    // waits here.
    fn is_wanted_elsewhere(&self) -> bool {
        let (here, everywhere) = (self.waiting.get(), self.backend.waiting());
        if everywhere <= here {
            return false;
        }
        here == 0 || self.serve_others.replace(!self.serve_others.get())
    }
}

impl<B> Idle<B> {
    fn is_reusable(&self, now: Instant) -> bool {
        let is_past =
            |since: Instant, limit: Duration| !limit.is_zero() && now.saturating_duration_since(since) >= limit;
        let is_too_old = is_past(self.wire.born, self.limits.max_age) || is_past(self.since, self.limits.idle);
        !is_too_old && !self.wire.sender.is_closed()
    }
}

impl<B> Connection<B>
where
    B: Body<Data: Buf + Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    /// Sends a request and returns the head of the response.
    ///
    /// # Errors
    /// What hyper says, with the request if no byte of it was written.
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        self.wire.patience.begin();
        let sent = self.wire.sender.try_send_request(request).await;
        self.wire.patience.end();
        sent
    }
}

impl<B> Connection<B> {
    /// Whether it has carried a request before: the backend may have closed it a moment ago.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Keeps the connection for another request. To be called when request and response have ended, not before.
    pub fn give_back(self) {
        let Some(pool) = self.pool.upgrade() else { return };
        // A backend may be removed while a request is on its way to it, after this worker let go of its pool.
        if self.wire.sender.is_closed() || pool.backend.is_draining() || pool.is_wanted_elsewhere() {
            return;
        }
        let mut idle = pool.idle.borrow_mut();
        if idle.len() < self.limits.max_idle {
            idle.push_back(Idle { wire: self.wire, since: Instant::now(), limits: self.limits });
            pool.freed.notify_one();
        }
    }
}

/// The task that drives a connection. Ends with its owner: left alone, it would go on with a request body that nobody wants
/// any more, as long as the client takes to send it.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A place among a backend's open connections, held by the task that drives one.
struct Place {
    backend: Arc<Backend>,
    bells: Arc<Bells>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.backend.disconnected();
        if self.backend.waiting() > 0 {
            self.bells.ring();
        }
    }
}

/// One request in the wait queue.
struct Waiting<'a, B>(&'a Pool<B>);

impl<'a, B> Waiting<'a, B> {
    fn new(pool: &'a Pool<B>) -> Self {
        pool.waiting.set(pool.waiting.get() + 1);
        pool.backend.begin_waiting();
        Self(pool)
    }
}

impl<B> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.backend.end_waiting();
    }
}

impl<B> fmt::Debug for Pools<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Connection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("reused", &self.reused).finish_non_exhaustive()
    }
}

/// The largest response head that a backend may send, in bytes. Bodies pass in pieces of at most this.
const MAX_HEAD: usize = 64 * 1024;
