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
}

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

    pub(super) fn end_request(&self) {
        self.enter(Phase::Idle);
    }

    /// Which deadline it has missed, as a token, or `None`.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Option<&'static str> {
        let is_past = |limit: Duration| !limit.is_zero() && now.saturating_duration_since(self.since.get()) >= limit;
        match self.phase.get() {
            Phase::Head if is_past(self.listener.plan.client_header) => Some("client_header_timeout"),
            Phase::Idle if is_past(self.listener.plan.client_idle) => Some("client_idle"),
            Phase::Busy | Phase::Head | Phase::Idle => None,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }
}
