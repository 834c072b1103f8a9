//! A client's connection as its requests see it: its listener's settings, its phase, its deadlines.

use std::{
    cell::{Cell, OnceCell, RefCell, RefMut},
    collections::HashMap,
    future::pending,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use tokio::{
    sync::Notify,
    task::{self, AbortHandle},
};

use super::{Tunnel, alarm::Alarm, headers::Origin};
use crate::{
    runtime::{Listener, Pinned},
    tls::PeerCertificate,
};

/// A client's connection, as the request path sees it: where it came from and what it is doing.
#[derive(Debug)]
pub struct Client {
    /// The listener's settings when it was accepted, which it keeps.
    pub listener: Arc<Listener>,
    // The other end, or who is behind it, as a PROXY header says.
    peer: Cell<SocketAddr>,
    // The peer is a proxy that does not know who is behind it.
    is_unknown: Cell<bool>,
    // Its address, ready to be sent on.
    peer_text: RefCell<Option<HeaderValue>>,
    // The subject of its certificate, as backends are told.
    subject: OnceCell<Box<HeaderValue>>,
    // The last snapshot that had its listener: what it falls back to when that is gone.
    last_served: RefCell<Rc<Pinned>>,
    requests: Cell<u64>,
    is_newly_worn_out: Cell<bool>,
    has_begun: Cell<bool>,
    in_flight: Cell<u32>,
    multiplexed: RefCell<Option<Box<Multiplexed>>>,
    tunnel: RefCell<Option<Box<Tunnel>>>,
    phase: Cell<Phase>,
    // Unknown until somebody asks, where bytes alone began it: a clock need not be read for each head.
    since: Cell<Option<Instant>>,
    alarm: RefCell<Alarm>,
    has_unread: Cell<bool>,
    is_flushed: Cell<bool>,
    deadline: Cell<Option<Instant>>,
    is_broken_off: Cell<bool>,
    is_cut: Cell<bool>,
    // The number of its last request, where that is written in a way that others may read differently.
    last_request: Cell<u64>,
}

// An HTTP/2 connection's requests, which are served side by side, and what its client has left of our patience.
#[derive(Debug)]
struct Multiplexed {
    streams: HashMap<task::Id, Stream, foldhash::fast::RandomState>,
    // Bytes that may still come before something useful does.
    credit: usize,
    abandoned: u32,
    finished: u32,
    worn_out: Rc<Notify>,
    // When it was told to open no more streams.
    told_to_go: Option<Instant>,
}

#[derive(Debug)]
struct Stream {
    task: AbortHandle,
    deadline: Option<Instant>,
}

/// The credit of a client that has just been useful: above anything that a working client sends between two requests or two
/// pieces of a body, which is a whole window (`server::connection`) and its frames, and soon used up by one that sends pings,
/// settings or empty frames.
const CREDIT: usize = 6 * 1024 * 1024;

/// Requests that a client may give up before it must have seen as many to their end.
const MOST_ABANDONED: u32 = 100;

/// How long after the deadline of a request its connection is cut, for an answer that says so to pass first.
const GRACE: Duration = Duration::from_secs(1);

/// For whom a proxy speaks, by its PROXY header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// For the client at this address.
    Client(SocketAddr),
    /// For itself (LOCAL).
    Proxy,
    /// For somebody whom it does not know, or not by an address and TCP (UNKNOWN, UNSPEC, UDP, ...).
    Unknown,
}

/// How long streams of HTTP/2 may still be opened by a client that was told to open no more: many times the way there and back.
const TIME_TO_HEAR: Duration = Duration::from_secs(2);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// A request is being served.
    Busy,
    /// TLS is being agreed on.
    Handshake,
    /// The head of a request is awaited: its first byte came, or the connection is new.
    Head,
    /// Nothing, between requests.
    Idle,
    /// A PROXY header is awaited, before all else.
    ProxyHeader,
}

impl Client {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(listener: Arc<Listener>, accepted: Rc<Pinned>, peer: SocketAddr) -> Self {
        let phase = if listener.plan.proxy_protocol.is_some() { Phase::ProxyHeader } else { first_phase(&listener) };
        Self {
            listener,
            peer: Cell::new(canonical(peer)),
            is_unknown: Cell::default(),
            peer_text: RefCell::default(),
            subject: OnceCell::new(),
            last_served: RefCell::new(accepted),
            requests: Cell::default(),
            is_newly_worn_out: Cell::default(),
            has_begun: Cell::default(),
            in_flight: Cell::default(),
            multiplexed: RefCell::default(),
            tunnel: RefCell::default(),
            phase: Cell::new(phase),
            since: Cell::new(Some(Instant::now())),
            alarm: RefCell::default(),
            has_unread: Cell::new(false),
            is_flushed: Cell::new(true),
            deadline: Cell::default(),
            is_broken_off: Cell::new(false),
            is_cut: Cell::new(false),
            last_request: Cell::new(u64::MAX),
        }
    }

    /// Where its requests come from.
    pub(super) fn origin(&self) -> Origin<'_> {
        let scheme = if self.listener.tls.is_some() { "https" } else { "http" };
        Origin { peer: self.peer().ip(), text: self.peer_text(), scheme, trusted: self.trusted() }
    }

    /// The other end, or who is behind it, as a PROXY header says. An IPv4 address is one, however it came.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer.get()
    }

    fn peer_text(&self) -> HeaderValue {
        let text = || HeaderValue::from_str(&self.peer().ip().to_string()).expect("an address is a header value");
        self.peer_text.borrow_mut().get_or_insert_with(text).clone()
    }

    /// Proxies whose word of a request is believed. The word of whom a proxy does not know is not the proxy's, although its
    /// address is all that is known.
    pub(super) fn trusted(&self) -> &[IpNet] {
        if self.is_unknown.get() { &[] } else { &self.listener.plan.trusted_proxies }
    }

    /// Whether its listener trusts the peer to say whom it speaks for.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        let ip = self.peer().ip();
        self.listener.plan.trusted_proxies.iter().any(|network| network.contains(&ip))
    }

    /// Its proxy has said for whom it speaks.
    pub fn introduced(&self, source: Source) {
        match source {
            Source::Client(client) => self.peer.set(canonical(client)),
            Source::Proxy => {}
            Source::Unknown => self.is_unknown.set(true),
        }
        self.enter(first_phase(&self.listener), Instant::now());
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// TLS is agreed on, and the head of the first request is due.
    pub fn handshaken(&self, certificate: Option<PeerCertificate>) {
        if let Some(subject) = certificate.and_then(|certificate| HeaderValue::try_from(certificate.subject).ok()) {
            let _ = self.subject.set(Box::new(subject));
        }
        self.enter(Phase::Head, Instant::now());
    }

    /// The header that tells backends the subject of its certificate.
    pub(super) fn identity(&self) -> Option<(&HeaderName, &HeaderValue)> {
        let tls = self.listener.plan.tls.as_ref()?;
        Some((tls.client_subject.as_ref()?, self.subject.get()?))
    }

    /// It speaks HTTP/2. Frames come at any time, so that nothing but a request ends the idleness.
    pub fn multiplexes(&self) {
        let multiplexed = Multiplexed {
            streams: HashMap::default(),
            credit: CREDIT,
            abandoned: 0,
            finished: 0,
            worn_out: Rc::default(),
            told_to_go: None,
        };
        self.multiplexed.replace(Some(Box::new(multiplexed)));
        self.enter(Phase::Idle, Instant::now());
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_multiplexed(&self) -> bool {
        self.multiplexed.borrow().is_some()
    }

    /// Bytes came: the start of a head, if it was idle. Returns whether it may send more.
    #[must_use]
    pub fn received(&self, bytes: usize) -> bool {
        if let Some(multiplexed) = &mut *self.multiplexed.borrow_mut() {
            return multiplexed.spend(bytes);
        }
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Head);
            self.since.set(None);
        }
        self.has_begun.set(true);
        true
    }

    /// The head of this request, counted from 1, is not written in the one way that everybody reads alike: it is the last.
    pub fn reads_no_further_than(&self, number: u64) {
        self.last_request.set(self.last_request.get().min(number));
    }

    /// It was useful: a body moved on.
    pub(super) fn moved_on(&self) {
        if let Some(multiplexed) = &mut *self.multiplexed.borrow_mut() {
            multiplexed.credit = CREDIT;
        }
    }

    /// Whether it was cut off for sending much and asking for little, or for giving up most of what it asked for.
    #[must_use]
    pub fn is_flooding(&self) -> bool {
        self.multiplexed.borrow().as_ref().is_some_and(|multiplexed| multiplexed.is_spent())
    }

    /// The response that is now written is the last thing of HTTP here.
    pub(super) fn becomes_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(Box::new(tunnel)));
    }

    /// The tunnel that the connection is, once HTTP on it has ended.
    pub fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.take()
    }

    /// Runs a task that ends with the connection.
    pub(super) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let client = Rc::clone(self);
        let task = task::spawn_local(async move {
            task.await;
            client.stream_ended(task::id());
        });
        self.stream_began(task.id(), task.abort_handle());
    }

    /// A task serves a request of an HTTP/2 connection.
    pub fn stream_began(&self, id: task::Id, task: AbortHandle) {
        if let Some(multiplexed) = &mut *self.multiplexed.borrow_mut() {
            multiplexed.streams.insert(id, Stream { task, deadline: None });
        }
    }

    /// Such a task is over.
    pub fn stream_ended(&self, id: task::Id) {
        if let Some(multiplexed) = &mut *self.multiplexed.borrow_mut() {
            multiplexed.streams.remove(&id);
        }
    }

    /// Ends all such tasks.
    pub fn end_streams(&self) {
        if let Some(multiplexed) = &mut *self.multiplexed.borrow_mut() {
            multiplexed.streams.drain().for_each(|(_, stream)| stream.task.abort());
        }
    }

    /// Returns the number of the request.
    pub(super) fn begin_request(&self, now: Instant) -> u64 {
        self.requests.set(self.requests.get() + 1);
        if self.is_worn_out() {
            self.is_newly_worn_out.set(true);
            self.multiplexed.borrow().iter().for_each(|multiplexed| multiplexed.worn_out.notify_one());
        }
        self.in_flight.set(self.in_flight.get() + 1);
        self.enter(Phase::Busy, now);
        self.moved_on();
        self.requests.get()
    }

    /// Whether the request that has just begun is the last that it may have.
    pub(super) fn is_worn_out(&self) -> bool {
        self.requests.get() == u64::from(self.listener.plan.limits.requests)
    }

    /// Whether nothing behind the request that has just begun is read.
    pub(super) fn is_at_last_request(&self) -> bool {
        self.is_worn_out() || self.requests.get() >= self.last_request.get()
    }

    /// Whether it has had as many requests as it may, for the first time that this is asked: the last one is still served.
    #[must_use]
    pub fn is_newly_worn_out(&self) -> bool {
        self.is_newly_worn_out.take()
    }

    /// Returns once it has had as many requests as it may. In HTTP/2 they are served by tasks of their own.
    pub async fn worn_out(&self) {
        let worn_out = self.multiplexed.borrow().as_ref().map(|multiplexed| Rc::clone(&multiplexed.worn_out));
        match worn_out {
            Some(worn_out) => worn_out.notified().await,
            None => pending().await,
        }
    }

    /// Whether the head of a request has begun to come, and no request is being served.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.phase.get() == Phase::Head && self.has_begun.get()
    }

    /// The snapshot whose routes serve it: the pinned one, or, once its listener has been removed, the last that had it.
    pub(super) fn served_by(&self, pinned: &Rc<Pinned>) -> Rc<Pinned> {
        let mut last = self.last_served.borrow_mut();
        if !Rc::ptr_eq(&last, pinned) && pinned.snapshot.served(self.listener.id).is_some() {
            *last = Rc::clone(pinned);
        }
        Rc::clone(&last)
    }

    /// It was told, in HTTP/2, that the connection is going to end.
    pub fn told_to_go(&self) {
        if let Some(multiplexed) = &mut *self.multiplexed.borrow_mut() {
            multiplexed.told_to_go.get_or_insert_with(Instant::now);
        }
    }

    /// Whether it has had the time to hear of that. The end of streams that it opens is not known before it has heard, so that
    /// one that never does could open more and more.
    pub(super) fn overstays(&self) -> bool {
        let told = self.multiplexed.borrow().as_ref().and_then(|multiplexed| multiplexed.told_to_go);
        told.is_some_and(|told| told.elapsed() >= TIME_TO_HEAR)
    }

    /// It is about to be cut, by no doing of the other end.
    pub fn cut(&self) {
        self.is_cut.set(true);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// When the request that this task serves is overdue.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        match &mut *self.multiplexed.borrow_mut() {
            None => self.deadline.set(deadline),
            Some(multiplexed) => {
                let stream = task::try_id().and_then(|id| multiplexed.streams.get_mut(&id));
                stream.into_iter().for_each(|stream| stream.deadline = deadline);
            }
        }
    }

    /// The response ended before its time, and only the end of the connection would have told its end.
    pub(super) fn break_off(&self) {
        self.is_broken_off.set(true);
    }

    /// Whether the connection must end with a reset, because an orderly close would make half a response look whole.
    #[must_use]
    pub fn is_broken_off(&self) -> bool {
        self.is_broken_off.get()
    }

    /// A request that a backend answered early may end after the next one has begun: it has no say any more in what is unread.
    pub(super) fn end_request(&self, number: u64, leaves_unread: bool, was_abandoned: bool, now: Instant) {
        if let Some(multiplexed) = &mut *self.multiplexed.borrow_mut() {
            multiplexed.count_end(was_abandoned);
        }
        if number == self.requests.get() {
            self.has_unread.set(leaves_unread);
            self.deadline.set(None);
        }
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        if self.in_flight.get() == 0 {
            self.enter(Phase::Idle, now);
        }
    }

    /// Whether the last request was answered although more may come, of its body or behind it. That must be taken before the
    /// connection is closed, or the system answers it with a reset that may overtake the response.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.has_unread.get()
    }

    /// The phase whose deadline it has missed, if any.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Option<Phase> {
        if let Some(multiplexed) = &*self.multiplexed.borrow() {
            multiplexed.end_overdue(now);
        }
        let limit = match self.phase.get() {
            // The steps keep the deadline by themselves, but for one: a client that does not read, so that nothing is asked.
            Phase::Busy => {
                let is_overdue = self.deadline.get().is_some_and(|deadline| deadline + GRACE <= now);
                return is_overdue.then_some(Phase::Busy);
            }
            Phase::Handshake | Phase::Head | Phase::ProxyHeader => self.listener.plan.client_header,
            Phase::Idle => self.listener.plan.client_idle,
        };
        (!limit.is_zero() && self.phase_lasts(now) >= limit).then(|| self.phase.get())
    }

    /// Something was written, or all that was written is on its way.
    pub fn flushed(&self, all: bool) {
        self.is_flushed.set(all);
    }

    /// Whether there is nothing of a request of HTTP/1 or its response on the connection, as far as it was read.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.phase.get() == Phase::Idle && self.is_flushed.get() && !self.has_unread.get() && !self.is_multiplexed()
    }

    /// It rests: what its next request will make anew is dropped.
    pub fn rests(&self) {
        self.alarm.take();
        self.peer_text.take();
    }

    /// How long it has been doing what it does, as far as that is known.
    #[must_use]
    pub fn phase_lasts(&self, now: Instant) -> Duration {
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        now.saturating_duration_since(since)
    }

    /// The timer of its requests, of which HTTP/1 has one at a time.
    pub(super) fn alarm(&self) -> RefMut<'_, Alarm> {
        self.alarm.borrow_mut()
    }

    fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(Some(now));
    }
}

/// What comes first on a connection once it is known whose it is.
fn first_phase(listener: &Listener) -> Phase {
    if listener.tls.is_some() { Phase::Handshake } else { Phase::Head }
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

impl Multiplexed {
    fn spend(&mut self, bytes: usize) -> bool {
        self.credit = self.credit.saturating_sub(bytes);
        !self.is_spent()
    }

    fn is_spent(&self) -> bool {
        self.credit == 0 || self.abandoned > MOST_ABANDONED.max(self.finished)
    }

    fn count_end(&mut self, was_abandoned: bool) {
        let count = if was_abandoned { &mut self.abandoned } else { &mut self.finished };
        *count = count.saturating_add(1);
    }

    /// Ends requests whose client takes so little that nobody asks for more of their response: each alone, not its neighbours.
    fn end_overdue(&self, now: Instant) {
        let is_overdue = |stream: &&Stream| stream.deadline.is_some_and(|deadline| deadline + GRACE <= now);
        self.streams.values().filter(is_overdue).for_each(|stream| stream.task.abort());
    }
}
