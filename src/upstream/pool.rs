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
    fmt,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::Notify;

use super::{
    Backend, DialError, Sendable,
    http1::Http1,
    living::Living,
    stream::BackendStream,
    wire::{self, Http2, RequestHead, Upgraded, Wire, WireError},
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
pub struct Pools<B: Sendable> {
    worker: usize,
    bells: Arc<Bells>,
    by_slot: RefCell<Vec<Option<Rc<Pool<B>>>>>,
}

struct Pool<B: Sendable> {
    backend: Arc<Backend>,
    // The most recently used is at the back and is taken first: the others grow old and are closed.
    idle: RefCell<VecDeque<Idle>>,
    // Connections in HTTP/2, in use or not. One is opened after the other: whoever waits for the first may find room on it.
    shared: RefCell<Vec<Shared<B>>>,
    is_opening: Cell<bool>,
    speaks_http1: Cell<bool>,
    waiting: Cell<u32>,
    freed: Notify,
    serve_others: Cell<bool>,
    // Connections that are open, and, where requests share one, these.
    streams: Living<RefCell<BackendStream>>,
    requests: Living<Stream<B>>,
    was_cut: Cell<bool>,
}

struct Idle {
    wire: Box<Http1>,
    since: Instant,
    limits: Limits,
}

struct Shared<B: Sendable> {
    wire: Rc<Http2<B>>,
    limits: Limits,
}

/// A connection in use by one request. Dropped, it is closed; [`Connection::give_back`] keeps it.
pub struct Connection<B: Sendable> {
    wire: Using<B>,
    reused: bool,
    limits: Limits,
    pool: Weak<Pool<B>>,
}

enum Using<B: Sendable> {
    Http1(Box<Http1>),
    Http2 { stream: Rc<Stream<B>>, response: Option<Incoming> },
}

impl<B: Sendable> Pools<B> {
    /// No connections yet.
    #[must_use]
    pub fn new(worker: usize, bells: Arc<Bells>) -> Self {
        Self { worker, bells, by_slot: RefCell::default() }
    }

    /// A connection to the backend that is there: an idle one where `reuse` allows it, or a stream of a shared one. `now` is about
    /// now.
    pub fn at_hand(&self, backend: &Arc<Backend>, limits: Limits, reuse: Reuse, now: Instant) -> Option<Connection<B>> {
        let pool = self.pool(backend);
        if reuse == Reuse::Refused {
            // One of them has just been found dead, so the others are suspect, and one may hold the last place.
            pool.idle.borrow_mut().clear();
            pool.shared.borrow_mut().retain(|shared| !shared.wire.is_idle());
        }
        pool.take_idle(limits, now).or_else(|| pool.take_stream())
    }

    /// A new connection to the backend, after none was [at hand](Self::at_hand). Waits for a place where the cap is reached, and
    /// takes what is given back meanwhile; the caller sets the deadline.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn checkout(&self, backend: &Arc<Backend>, limits: Limits) -> Result<Connection<B>, DialError> {
        let pool = self.pool(backend);
        let mut waiting = None;
        loop {
            if waiting.is_some()
                && let Some(connection) = pool.take_idle(limits, Instant::now()).or_else(|| pool.take_stream())
            {
                return Ok(connection);
            }
            if !pool.is_opening.get()
                && let Some(place) = self.place(backend, limits)
            {
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

    /// Closes idle connections that are too old, too long idle, or dead, and all to backends that are draining, as those do that an
    /// edit has removed; ends those to backends that are cut, with the requests on them. Called about once a second.
    pub fn prune(&self, now: Instant) {
        for place in self.by_slot.borrow_mut().iter_mut() {
            if let Some(pool) = place {
                pool.cut_if_told();
                pool.prune(now);
                pool.tell_the_oldest(self.worker);
            }
            place.take_if(|pool| is_leaving(&pool.backend) && pool.is_unused());
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
                if wanted > shed {
                    pool.shared.borrow_mut().retain(|shared| !shared.wire.is_idle());
                }
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

impl<B: Sendable> Pool<B> {
    fn take_idle(self: &Rc<Self>, limits: Limits, now: Instant) -> Option<Connection<B>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop_back() {
            if last.is_reusable(now) {
                last.wire.is_asked(Some(now));
                return Some(self.connection(Using::Http1(last.wire), limits, true));
            }
        }
        None
    }

    /// A stream of a connection in HTTP/2 that has room for one.
    fn take_stream(self: &Rc<Self>) -> Option<Connection<B>> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        let now = Instant::now();
        shared.retain(|shared| shared.is_reusable(now));
        let shared = shared.iter().find(|shared| shared.wire.has_room())?;
        let stream = Stream::new(&shared.wire, self, now);
        Some(self.connection(Using::Http2 { stream, response: None }, shared.limits, true))
    }

    async fn connect(self: &Rc<Self>, place: Place, limits: Limits) -> Result<Connection<B>, DialError> {
        let opening = Opening::new(self);
        let wire = wire::open(self.backend.dial(), place, &self.streams).await?;
        let wire = match wire {
            Wire::Http1(wire) => {
                self.speaks_http1.set(true);
                wire.is_asked(Some(wire.born));
                Using::Http1(Box::new(wire))
            }
            Wire::Http2(wire) => {
                let stream = Stream::new(&wire, self, wire.born);
                self.shared.borrow_mut().push(Shared { wire, limits });
                Using::Http2 { stream, response: None }
            }
        };
        drop(opening);
        Ok(self.connection(wire, limits, false))
    }

    fn connection(self: &Rc<Self>, wire: Using<B>, limits: Limits, reused: bool) -> Connection<B> {
        Connection { wire, reused, limits, pool: Rc::downgrade(self) }
    }
}

impl<B: Sendable> Pool<B> {
    fn new(backend: Arc<Backend>) -> Self {
        let speaks_http1 = Cell::new(backend.dial().protocol == plan::Protocol::Http1);
        Self {
            backend,
            idle: RefCell::default(),
            shared: RefCell::default(),
            is_opening: Cell::default(),
            speaks_http1,
            waiting: Cell::new(0),
            freed: Notify::new(),
            serve_others: Cell::new(false),
            streams: Living::default(),
            requests: Living::default(),
            was_cut: Cell::new(false),
        }
    }

    fn prune(&self, now: Instant) {
        let is_leaving = is_leaving(&self.backend);
        self.idle.borrow_mut().retain_mut(|idle| !is_leaving && idle.is_kept(now));
        // Those that are still in use end with their last request.
        self.shared.borrow_mut().retain(|shared| !is_leaving && shared.is_reusable(now));
    }

    /// Ends all connections once when the backend is cut. One that is out may get requests all the same, where nobody else is
    /// left: what comes after the cut stays, unless the backend is drained.
    fn cut_if_told(&self) {
        let known = self.backend.condition();
        let was_cut = self.was_cut.replace(known.is_cut);
        if known.is_cut && (!was_cut || known.is_draining()) {
            self.streams.all().into_iter().for_each(|stream| stream.borrow_mut().cut());
        }
    }

    /// Says since when the oldest of its requests is under way, for those who wait until a backend has none any more. Tunnels are
    /// none of them.
    fn tell_the_oldest(&self, worker: usize) {
        if is_leaving(&self.backend) {
            let alone = self.streams.all().into_iter().filter_map(|stream| stream.borrow().asked);
            let shared = self.requests.all().into_iter().map(|request| request.since);
            self.backend.set_oldest(worker, alone.chain(shared).min());
        }
    }

    /// Whether nothing depends on it: no request waits, and no connection is open that may have to be cut.
    fn is_unused(&self) -> bool {
        self.waiting.get() == 0 && self.streams.is_empty()
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

impl Limits {
    fn allow(&self, born: Instant, since: Instant, now: Instant) -> bool {
        let is_past =
            |since: Instant, limit: Duration| !limit.is_zero() && now.saturating_duration_since(since) >= limit;
        !is_past(born, self.max_age) && !is_past(since, self.idle)
    }
}

/// After so long without a request a connection needs no buffers.
const AT_REST: Duration = Duration::from_secs(1);

impl Idle {
    fn is_reusable(&mut self, now: Instant) -> bool {
        self.limits.allow(self.wire.born, self.since, now) && !self.wire.is_dead()
    }

    fn is_kept(&mut self, now: Instant) -> bool {
        let is_reusable = self.is_reusable(now);
        // Last: to ask whether it has ended takes a buffer.
        if now.saturating_duration_since(self.since) >= AT_REST {
            self.wire.shrink();
        }
        is_reusable
    }
}

impl<B: Sendable> Shared<B> {
    fn is_reusable(&self, now: Instant) -> bool {
        let since = if self.wire.is_idle() { self.wire.idle_since.get() } else { now };
        self.limits.allow(self.wire.born, since, now) && !self.wire.is_closed()
    }
}

impl<B: Sendable> Connection<B> {
    /// Sends a request and returns the head of the response. The head of the request is only read: it may be sent again.
    ///
    /// # Errors
    /// Why there is none, with the body if no byte of the request was written.
    pub async fn send(&mut self, head: &RequestHead, body: B) -> Result<Response<()>, Unsent<B>> {
        match &mut self.wire {
            Using::Http1(wire) => wire.send(head, body).await,
            Using::Http2 { stream, response } => {
                let (head, body) = Box::pin(stream.wire.send(head, body, stream)).await?.into_parts();
                *response = Some(body);
                Ok(Response::from_parts(head, ()))
            }
        }
    }

    /// The response was not there in time. Where many share the connection, it may be the connection's doing.
    pub fn doubt(&self) {
        if let Using::Http2 { stream, .. } = &self.wire {
            stream.wire.doubt();
        }
    }

    /// How many interim responses (1xx) came before the response, or instead of it. In HTTP/2 hyper tells nobody of them.
    pub fn take_interim(&mut self) -> u32 {
        match &mut self.wire {
            Using::Http1(wire) => wire.take_interim(),
            Using::Http2 { .. } => 0,
        }
    }

    /// What is spoken on it.
    #[must_use]
    pub const fn is_http2(&self) -> bool {
        matches!(self.wire, Using::Http2 { .. })
    }

    /// Whether it has carried a request before: the backend may have closed it a moment ago.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// The next request asks for an upgrade.
    pub fn may_upgrade(&mut self) {
        if let Using::Http1(wire) = &mut self.wire {
            wire.may_upgrade(true);
        }
    }

    /// Its stream, after the backend has agreed to an upgrade; `None` where it has ended instead, or was none of HTTP/1.1.
    pub fn into_upgraded(self) -> Option<Upgraded> {
        match self.wire {
            Using::Http1(wire) => wire.into_upgraded(),
            Using::Http2 { .. } => None,
        }
    }

    /// Keeps the connection for another request. To be called when request and response have ended, not before.
    pub fn give_back(self) {
        // A stream gives itself back.
        let Using::Http1(mut wire) = self.wire else { return };
        let Some(pool) = self.pool.upgrade() else { return };
        // A backend may be removed while a request is on its way to it, after this worker let go of its pool.
        if !wire.is_reusable() || is_leaving(&pool.backend) || pool.is_wanted_elsewhere() {
            return;
        }
        wire.may_upgrade(false);
        wire.is_asked(None);
        let mut idle = pool.idle.borrow_mut();
        if idle.len() < self.limits.max_idle {
            idle.push_back(Idle { wire, since: Instant::now(), limits: self.limits });
            pool.freed.notify_one();
        }
    }
}

/// The body of the response, once its head is there.
impl<B: Sendable> Body for Connection<B> {
    type Data = Bytes;
    type Error = WireError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        match &mut self.wire {
            Using::Http1(wire) => wire.poll_frame(cx),
            Using::Http2 { stream, response: Some(response) } => {
                let frame = ready!(Pin::new(&mut *response).poll_frame(cx));
                stream.wire.moved_on();
                // hyper takes a reset without an error for an end. It may be one where the backend has answered and does not
                // want the rest of the request, and only there (RFC 9113, section 8.1).
                if frame.is_none() && stream.is_sent.get() && !response.is_end_stream() {
                    return Poll::Ready(Some(Err(WireError::Ended)));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(WireError::from)))
            }
            Using::Http2 { response: None, .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.wire {
            Using::Http1(wire) => wire.is_end_stream(),
            Using::Http2 { response, .. } => response.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.wire {
            Using::Http1(wire) => wire.size_hint(),
            Using::Http2 { response, .. } => response.as_ref().map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}

/// A request that got no response.
#[derive(Debug)]
pub struct Unsent<B> {
    /// Its body, if no byte of it was written.
    pub body: Option<B>,
    /// Why there was none.
    pub error: WireError,
}

impl<B> Unsent<B> {
    /// Whether the backend says that it has not begun to work on it: it refuses the stream, or goes away and names the last
    /// request that it will answer (RFC 9113, section 8.7).
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        let WireError::Http2(error) = &self.error else { return false };
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        cause.is_some_and(|cause| {
            let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
            let goes_away = cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR);
            cause.is_remote() && (is_refused || goes_away)
        })
    }
}

/// One request on a connection in HTTP/2. Dropped, its place is another's.
pub(super) struct Stream<B: Sendable> {
    wire: Rc<Http2<B>>,
    pool: Weak<Pool<B>>,
    since: Instant,
    /// All of the request was sent.
    pub(super) is_sent: Cell<bool>,
}

impl<B: Sendable> Stream<B> {
    fn new(wire: &Rc<Http2<B>>, pool: &Rc<Pool<B>>, since: Instant) -> Rc<Self> {
        wire.begin_stream();
        let (wire, is_sent) = (Rc::clone(wire), Cell::default());
        let stream = Rc::new(Self { wire, pool: Rc::downgrade(pool), since, is_sent });
        pool.requests.add(&stream);
        stream
    }
}

impl<B: Sendable> Drop for Stream<B> {
    fn drop(&mut self) {
        self.wire.end_stream();
        if let Some(pool) = self.pool.upgrade() {
            // Only now: in use, it would not close, and be of no use to anybody here either.
            if self.wire.is_idle() && pool.is_wanted_elsewhere() {
                pool.shared.borrow_mut().retain(|shared| !Rc::ptr_eq(&shared.wire, &self.wire));
            }
            pool.freed.notify_one();
        }
    }
}

/// A connection on its way, which others may wait for, where it may carry their requests, too.
struct Opening<'a, B: Sendable>(&'a Pool<B>);

impl<'a, B: Sendable> Opening<'a, B> {
    fn new(pool: &'a Pool<B>) -> Self {
        pool.is_opening.set(!pool.speaks_http1.get());
        Self(pool)
    }
}

impl<B: Sendable> Drop for Opening<'_, B> {
    fn drop(&mut self) {
        if self.0.is_opening.replace(false) {
            self.0.freed.notify_waiters();
        }
    }
}

/// A place among a backend's open connections, held by the socket of one.
#[derive(Debug)]
pub(super) struct Place {
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
struct Waiting<'a, B: Sendable>(&'a Pool<B>);

impl<'a, B: Sendable> Waiting<'a, B> {
    fn new(pool: &'a Pool<B>) -> Self {
        pool.waiting.set(pool.waiting.get() + 1);
        pool.backend.begin_waiting();
        Self(pool)
    }
}

impl<B: Sendable> Drop for Waiting<'_, B> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.backend.end_waiting();
    }
}

impl<B: Sendable> fmt::Debug for Pools<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl<B: Sendable> fmt::Debug for Connection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("reused", &self.reused).finish_non_exhaustive()
    }
}

/// Whether connections to it are of no more use when they are idle.
fn is_leaving(backend: &Backend) -> bool {
    let known = backend.condition();
    known.is_draining() || known.is_cut
}
