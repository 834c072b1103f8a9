//! A client's connection as its requests see it: its listener's settings, its phase, its deadlines.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::runtime::{Listener, Pinned};

/// A client's connection, as the request path sees it: where it came from and what it is doing.
#[derive(Debug)]
pub struct Client {
    /// The listener's settings when it was accepted, which it keeps.
    pub listener: Arc<Listener>,
    /// The other end.
    pub peer: SocketAddr,
    /// The other end's address, ready to be sent on.
    pub peer_text: HeaderValue,
    // The last snapshot that had its listener: what it falls back to when that is gone.
    last_served: RefCell<Rc<Pinned>>,
    requests: Cell<u64>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    has_unread: Cell<bool>,
    deadline: Cell<Option<Instant>>,
    is_broken_off: Cell<bool>,
    is_cut: Cell<bool>,
}

/// How long after the deadline of a request its connection is cut, for an answer that says so to pass first.
const GRACE: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// A request is being served.
    Busy,
    /// The head of a request is awaited: its first byte came, or the connection is new.
    Head,
    /// Nothing, between requests.
    Idle,
}

impl Client {
    /// A connection that was just accepted; the head of its first request is due.
    #[must_use]
    pub fn new(listener: Arc<Listener>, accepted: Rc<Pinned>, peer: SocketAddr) -> Self {
        let text = peer.ip().to_canonical().to_string();
        Self {
            listener,
            peer,
            peer_text: HeaderValue::from_str(&text).expect("an address is a header value"),
            last_served: RefCell::new(accepted),
            requests: Cell::default(),
            phase: Cell::new(Phase::Head),
            since: Cell::new(Instant::now()),
            has_unread: Cell::new(false),
            deadline: Cell::default(),
            is_broken_off: Cell::new(false),
            is_cut: Cell::new(false),
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Bytes came: the start of a head, if it was idle.
    pub fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, Instant::now());
        }
    }

    /// Returns the number of the request.
    pub(super) fn begin_request(&self, now: Instant) -> u64 {
        self.requests.set(self.requests.get() + 1);
        self.enter(Phase::Busy, now);
        self.requests.get()
    }

    /// The snapshot whose routes serve it: the pinned one, or, once its listener has been removed, the last that had it.
    pub(super) fn served_by(&self, pinned: &Rc<Pinned>) -> Rc<Pinned> {
        let mut last = self.last_served.borrow_mut();
        if !Rc::ptr_eq(&last, pinned) && pinned.snapshot.served(self.listener.id).is_some() {
            *last = Rc::clone(pinned);
        }
        Rc::clone(&last)
    }

    /// It is about to be cut, by no doing of the other end.
    pub fn cut(&self) {
        self.is_cut.set(true);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// When the request that is being served is overdue.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
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

    /// A request that a backend answered early may end after the next one has begun: it has no say any more.
    pub(super) fn end_request(&self, number: u64, is_body_read: bool, now: Instant) {
        if number != self.requests.get() {
            return;
        }
        self.has_unread.set(!is_body_read);
        self.deadline.set(None);
        self.enter(Phase::Idle, now);
    }

    /// Whether the last request was answered without its body having been read. What is still to come of it must be taken
    /// before the connection is closed, or the system answers it with a reset that may overtake the response.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.has_unread.get()
    }

    /// The phase whose deadline it has missed, if any.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Option<Phase> {
        let limit = match self.phase.get() {
            // The steps keep the deadline by themselves, but for one: a client that does not read, so that nothing is asked.
            Phase::Busy => {
                let is_overdue = self.deadline.get().is_some_and(|deadline| deadline + GRACE <= now);
                return is_overdue.then_some(Phase::Busy);
            }
            Phase::Head => self.listener.plan.client_header,
            Phase::Idle => self.listener.plan.client_idle,
        };
        let lasted = now.saturating_duration_since(self.since.get());
        (!limit.is_zero() && lasted >= limit).then(|| self.phase.get())
    }

    fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(now);
    }
}
