use std::{
    cell::Cell,
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
    /// The snapshot when it was accepted: what it falls back to when its listener is gone.
    pub accepted: Rc<Pinned>,
    /// The other end.
    pub peer: SocketAddr,
    /// The other end's address, ready to be sent on.
    pub peer_text: HeaderValue,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    has_unread: Cell<bool>,
    deadline: Cell<Option<Instant>>,
    is_broken_off: Cell<bool>,
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
            accepted,
            peer,
            peer_text: HeaderValue::from_str(&text).expect("an address is a header value"),
            phase: Cell::new(Phase::Head),
            since: Cell::new(Instant::now()),
            has_unread: Cell::new(false),
            deadline: Cell::default(),
            is_broken_off: Cell::new(false),
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
            self.enter(Phase::Head);
        }
    }

    pub(super) fn begin_request(&self) {
        self.enter(Phase::Busy);
    }

    /// When the request that is being served is overdue.
    pub(super) fn due(&self, deadline: Option<Instant>) {
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

    pub(super) fn end_request(&self, is_body_read: bool) {
        self.has_unread.set(!is_body_read);
        self.deadline.set(None);
        self.enter(Phase::Idle);
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

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }
}
