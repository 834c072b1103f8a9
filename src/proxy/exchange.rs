//! One request and its response, with everything that is to be told of them when both have ended.

use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Client, Fault, Gateway, RequestBody, grpc,
    headers::{client_ip, trusted_request_id},
    judge,
    respond::Form,
};
use crate::{
    base::Timestamp,
    config::plan::Timeouts,
    layers::Identity,
    runtime::{Action, Pinned, Route, Upstream},
    telemetry::{
        AccessRecord, WorkerId,
        access_log::Attempt as LoggedAttempt,
        metrics::{AttemptOutcome, RequestRecord},
    },
    upstream::{Member, Pools},
};

/// One request and its response, from the head of the one to the last byte of the other.
///
/// Shared by the two bodies, whichever ends last; dropping it is the record: metrics and a line in the access log.
pub struct Exchange {
    gateway: Rc<Gateway>,
    pinned: Rc<Pinned>,
    // The snapshot whose routes serve it.
    routed: Rc<Pinned>,
    client: Rc<Client>,
    number: u64,
    client_ip: IpAddr,
    id: HeaderValue,
    method: Method,
    version: Version,
    form: Form,
    // What a gRPC client grants.
    granted: Option<Duration>,
    facts: Option<Box<RefCell<Facts>>>,
    started: Clock,
    route: OnceCell<Arc<Route>>,
    // Which of the upstreams of its route has it.
    side: Cell<Option<usize>>,
    identity: RefCell<Option<Identity>>,
    attempts: RefCell<Vec<Attempt>>,
    status: Cell<Option<StatusCode>>,
    grpc_status: Cell<Option<u16>>,
    first_byte: Cell<Option<Duration>>,
    fault: Cell<Option<Fault>>,
    request_fault: Cell<Option<Fault>>,
    request_sent: Cell<Option<Instant>>,
    is_body_read: Cell<bool>,
    is_last: Cell<bool>,
    response_ended: Cell<bool>,
    is_tunnel: Cell<bool>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

// What only the access log wants to know. Clones of these share the bytes that hyper read.
struct Facts {
    at: Timestamp,
    host: Option<HeaderValue>,
    uri: Uri,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    is_query_safe: bool,
}

struct Attempt {
    member: Arc<Member>,
    began: Clock,
    // Until then it is under way.
    took: Option<Duration>,
    outcome: &'static str,
    detail: Option<Box<str>>,
    status: Option<StatusCode>,
    // It speaks against the backend, and that was said.
    is_judged: bool,
}

/// An attempt that has begun: its number, from 0, and when.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) number: usize,
    pub(super) at: Clock,
}

/// The outcome of an attempt that was given up for another.
const OVERTAKEN: &str = "overtaken";

/// The attempt whose response the client gets. Of two that were made at the same time it may be the first.
fn answer_of(attempts: &[Attempt]) -> Option<&Attempt> {
    attempts.iter().rfind(|attempt| attempt.status.is_some())
}

impl Exchange {
    pub(super) fn begin(
        gateway: &Rc<Gateway>,
        client: &Rc<Client>,
        pinned: Rc<Pinned>,
        request: &Request<Incoming>,
    ) -> Rc<Self> {
        let (headers, has_body) = (request.headers(), !request.body().is_end_stream());
        let trusted = client.trusted();
        let peer = client.peer().ip();
        let id = trusted_request_id(headers, peer, trusted).unwrap_or_else(|| gateway.new_request_id());
        let form = Form::of(request);
        let started = Clock::now();
        let number = client.begin_request(started);
        client.listener.metrics.request_started(gateway.worker());
        let facts = gateway.is_logging().then(|| {
            Box::new(RefCell::new(Facts {
                at: Timestamp::now(),
                host: named_host(request),
                uri: request.uri().clone(),
                user_agent: headers.get(header::USER_AGENT).cloned(),
                referer: headers.get(header::REFERER).cloned(),
                is_query_safe: false,
            }))
        });
        Rc::new(Self {
            client_ip: client_ip(peer, trusted, headers),
            gateway: Rc::clone(gateway),
            client: Rc::clone(client),
            number,
            routed: client.served_by(&pinned),
            pinned,
            id,
            method: request.method().clone(),
            version: request.version(),
            form,
            granted: if form == Form::Grpc { grpc::timeout(headers) } else { None },
            facts,
            started,
            route: OnceCell::new(),
            side: Cell::default(),
            identity: RefCell::default(),
            attempts: RefCell::default(),
            status: Cell::default(),
            grpc_status: Cell::default(),
            first_byte: Cell::default(),
            fault: Cell::default(),
            request_fault: Cell::default(),
            request_sent: Cell::default(),
            is_body_read: Cell::new(!has_body),
            // An answer that is there at once is written before the connection hears that it is worn out.
            is_last: Cell::new(client.is_at_last_request()),
            response_ended: Cell::default(),
            is_tunnel: Cell::default(),
            received: Cell::default(),
            sent: Cell::default(),
        })
    }

    /// It is a tunnel from here on, which lasts as long as its ends like.
    pub(super) fn becomes_tunnel(&self) {
        self.is_tunnel.set(true);
        self.client.listener.metrics.tunnel_opened(self.worker());
        self.client.set_deadline(None);
        self.is_body_read.set(true);
    }

    /// When a tunnel to this backend shall end: never, or some time after its route or its backend has gone.
    pub(super) fn ends_by(&self, member: &Member, doomed: Option<Instant>, now: Instant) -> Option<Instant> {
        let known = member.backend.condition();
        let pinned = self.gateway.pin();
        let is_routed = self.route.get().is_some_and(|route| pinned.snapshot.routes.contains_key(&route.plan.name));
        if is_routed && !known.is_removed {
            return None;
        }
        Some(doomed.unwrap_or_else(|| now + pinned.snapshot.plan.shutdown.timeout))
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.gateway.worker()
    }

    pub(super) fn gateway(&self) -> &Rc<Gateway> {
        &self.gateway
    }

    pub(super) fn pools(&self) -> &Pools<RequestBody> {
        self.gateway.pools()
    }

    /// The snapshot whose routes serve it.
    pub(super) fn routed(&self) -> &Rc<Pinned> {
        &self.routed
    }

    /// Whether a field tells backends who a client is, so that no client may say it: by the snapshot that routes the request, by
    /// the one in force, because backends are shared, or by the listener that it came in on.
    pub(super) fn is_identity(&self, name: &HeaderName) -> bool {
        let own = self.client.listener.plan.tls.as_ref().and_then(|tls| tls.client_subject.as_ref());
        let is_named_by = |pinned: &Pinned| pinned.snapshot.identity_headers.contains(name);
        own == Some(name) || is_named_by(&self.routed) || is_named_by(&self.pinned)
    }

    pub(super) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    pub(super) fn client_ip(&self) -> IpAddr {
        self.client_ip
    }

    pub(super) fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// The form of answers of the gateway's own.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    pub(super) fn matched(&self, route: &Arc<Route>) -> &Arc<Route> {
        let route = self.route.get_or_init(|| Arc::clone(route));
        self.client.set_deadline(self.deadline().map(Instant::into_std));
        route
    }

    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.route.get()
    }

    /// Of the upstreams of its route, the one with this number has it.
    pub(super) fn goes_to(&self, side: usize) {
        self.side.set(Some(side));
    }

    pub(super) fn upstream(&self) -> Option<&Arc<Upstream>> {
        let Action::Forward { sides, .. } = &self.route.get()?.action else { return None };
        Some(&sides.get(self.side.get()?)?.upstream)
    }

    /// Whether a field is the route's own word in what it sends on, so that a client's is not.
    pub(super) fn is_replaced(&self, name: &HeaderName) -> bool {
        let rules = self.route.get().and_then(|route| route.plan.request_headers.as_ref());
        rules.is_some_and(|rules| rules.replaces(name))
    }

    /// Layers have taken credentials out of the head: what is left of its target may be logged.
    pub(super) fn admitted(&self, head: &Parts, identity: Option<Identity>) {
        self.identity.replace(identity);
        if let Some(facts) = &self.facts {
            let mut facts = facts.borrow_mut();
            facts.uri = head.uri.clone();
            facts.is_query_safe = true;
        }
    }

    /// Looks at who sent it, as far as that is known.
    pub(super) fn with_identity<T>(&self, look: impl FnOnce(Option<&Identity>) -> T) -> T {
        look(self.identity.borrow().as_ref())
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.route.get().expect("a body is passed on only after a route was found").plan.timeouts
    }

    /// When the whole exchange is overdue: by the route, and by the client.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.is_tunnel.get() {
            return None;
        }
        let limit = self.route.get()?.plan.timeouts.request;
        let limit = (!limit.is_zero()).then_some(limit).into_iter().chain(self.granted).min()?;
        Some(Instant::from_std(self.started + limit))
    }

    /// The deadline of a step that may take this long (zero: as long as it likes), never after that of the exchange.
    pub(super) fn deadline_within(&self, limit: Duration) -> Option<Instant> {
        let step = (!limit.is_zero()).then(|| Instant::now() + limit);
        self.deadline().into_iter().chain(step).min()
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    pub(super) fn begin_attempt(&self, member: &Arc<Member>) -> Begun {
        let began = Clock::now();
        let mut attempts = self.attempts.borrow_mut();
        let number = attempts.len();
        if let Some(upstream) = self.upstream().filter(|_| number == 0) {
            upstream.live.count_request(self.worker(), began);
        }
        attempts.push(Attempt {
            member: Arc::clone(member),
            began,
            took: None,
            outcome: Fault::ClientGone.reason(),
            detail: None,
            status: None,
            is_judged: false,
        });
        Begun { number, at: began }
    }

    /// It brought a response, or `outcome` says why not, and `detail` in words, where there is more to say.
    pub(super) fn end_attempt(
        &self,
        number: usize,
        outcome: &'static str,
        detail: Option<Box<str>>,
        status: Option<StatusCode>,
    ) {
        let mut attempts = self.attempts.borrow_mut();
        let Some(attempt) = attempts.get_mut(number) else { return };
        attempt.took = Some(attempt.began.elapsed());
        attempt.outcome = outcome;
        attempt.detail = detail;
        attempt.status = status;
        let counted = match (number == 0, status.is_some()) {
            _ if outcome == OVERTAKEN => AttemptOutcome::Overtaken,
            (true, true) => AttemptOutcome::FirstOk,
            (true, false) => AttemptOutcome::FirstFailed,
            (false, true) => AttemptOutcome::RetryOk,
            (false, false) => AttemptOutcome::RetryFailed,
        };
        if let Some(upstream) = self.upstream() {
            upstream.metrics.record(self.worker(), counted);
        }
    }

    /// Another attempt, which was made at the same time, has brought a response.
    pub(super) fn overtaken(&self, number: usize) {
        self.end_attempt(number, OVERTAKEN, None, None);
    }

    /// What an attempt brought speaks against the backend.
    pub(super) fn judged(&self, number: usize) {
        if let Some(attempt) = self.attempts.borrow_mut().get_mut(number) {
            attempt.is_judged = true;
        }
    }

    /// The client does not get the response that is there, but that of another attempt; `why` is for the log.
    pub(super) fn dismissed(&self, why: Box<str>) {
        let mut attempts = self.attempts.borrow_mut();
        let Some(attempt) = attempts.iter_mut().rfind(|attempt| attempt.status.is_some()) else { return };
        let Some(status) = attempt.status.take() else { return };
        attempt.outcome = "status";
        attempt.detail = Some(why);
        let backend = &attempt.member.backend;
        backend.metrics().record(self.worker(), status.as_u16(), attempt.took.unwrap_or_default());
        if !attempt.is_judged {
            backend.succeeded();
        }
    }

    /// Why no other attempt came after the last one, in words for the log.
    pub(super) fn not_retried(&self, why: &str) {
        if let Some(attempt) = self.attempts.borrow_mut().last_mut() {
            attempt.detail.get_or_insert_with(|| why.into());
        }
    }

    pub(super) fn request_sent(&self) {
        self.request_sent.set(Some(Instant::now()));
        self.is_body_read.set(true);
    }

    /// There is no body to send.
    pub(super) fn has_no_body(&self) {
        self.request_sent.set(Some(self.started.into()));
        self.is_body_read.set(true);
    }

    /// The rest of the client's body has come, and nobody wants it.
    pub(super) fn body_read(&self) {
        self.is_body_read.set(true);
    }

    /// What comes behind it in HTTP/1 may be no request, whatever it looks like.
    pub(super) fn be_last(&self) {
        self.is_last.set(true);
    }

    /// Whether an answer now is the last on its connection of HTTP/1: what comes next is not known to be a request, or a body is
    /// still to be read.
    pub(super) fn is_last(&self) -> bool {
        let is_http1 = self.version != Version::HTTP_2 && !self.is_tunnel.get();
        is_http1 && (self.is_last.get() || !self.is_body_read.get())
    }

    pub(super) fn is_request_sent(&self) -> bool {
        self.request_sent.get().is_some()
    }

    pub(super) fn request_sent_at(&self) -> Option<Instant> {
        self.request_sent.get()
    }

    /// The client's body failed: whatever the backend makes of that is not the backend's doing.
    pub(super) fn request_cut(&self, fault: Fault) {
        self.request_fault.set(Some(fault));
    }

    pub(super) fn request_fault(&self) -> Option<Fault> {
        self.request_fault.get()
    }

    pub(super) fn answered(&self, status: StatusCode, fault: Option<Fault>) {
        self.status.set(Some(status));
        self.fault.set(fault);
        if self.facts.is_some() {
            self.first_byte.set(Some(self.started.elapsed()));
        }
    }

    /// Whether the head of a response is there.
    pub(super) fn is_answered(&self) -> bool {
        self.status.get().is_some()
    }

    /// A head or trailers came, which tell how a call of gRPC ended, if it is one.
    pub(super) fn called(&self, headers: &HeaderMap) {
        if self.form == Form::Grpc
            && let Some(status) = grpc::status(headers)
        {
            self.grpc_status.set(Some(status));
        }
    }

    pub(super) fn response_ended(&self) {
        self.response_ended.set(true);
    }

    pub(super) fn response_cut(&self, fault: Fault) {
        self.response_ended.set(true);
        self.fault.set(Some(self.request_fault.get().unwrap_or(fault)));
        if self.version == Version::HTTP_10 {
            self.client.break_off();
        }
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
        if bytes > 0 {
            self.client.moved_on();
        }
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
        self.client.moved_on();
    }

    /// Why nobody saw the end of it.
    fn why_unfinished(&self) -> Fault {
        match () {
            () if std::thread::panicking() => Fault::Internal,
            // The client did not read in time.
            () if self.is_overdue() => Fault::ResponseTimeout,
            () if self.client.is_cut() || self.is_tunnel.get() => Fault::Draining,
            () => Fault::ClientGone,
        }
    }

    fn record(&self) {
        if !self.response_ended.get() && self.fault.get().is_none() {
            self.response_cut(self.why_unfinished());
        }
        let (worker, now) = (self.worker(), Clock::now());
        let duration = now - self.started;
        let status = self.status.get().or_else(|| self.fault.get().map(Fault::status));
        let listener = &self.client.listener;
        let metrics = self.route.get().map_or_else(|| self.gateway.unrouted(), |route| &route.metrics);
        metrics.record(
            worker,
            &RequestRecord {
                listener: u16::try_from(listener.id.0).unwrap_or(u16::MAX),
                method: &self.method,
                status: status.map_or(0, |status| status.as_u16()),
                duration,
                request_bytes: self.received.get(),
                response_bytes: self.sent.get(),
                error: self.fault.get().map(Fault::index),
            },
        );
        if let Some(Attempt { member, status: Some(status), began, is_judged, .. }) = answer_of(&self.attempts.borrow())
        {
            member.backend.metrics().record(worker, status.as_u16(), now - *began);
            match (self.fault.get(), self.upstream()) {
                _ if *is_judged => {}
                (Some(Fault::ResponseCut), Some(upstream)) => judge::cut(worker, upstream, member),
                _ => member.backend.succeeded(),
            }
        }
        listener.metrics.request_ended(worker);
        if self.is_tunnel.get() {
            listener.metrics.tunnel_closed(worker);
        }
        let was_abandoned = self.fault.get() == Some(Fault::ClientGone);
        self.client.end_request(self.number, self.is_last(), was_abandoned, now);
        self.log(status, duration);
    }

    fn log(&self, status: Option<StatusCode>, duration: Duration) {
        let Some(facts) = self.facts.as_ref().map(|facts| facts.borrow()) else { return };
        let attempts = self.attempts.borrow();
        let backend = answer_of(&attempts).or(attempts.last()).map(|attempt| attempt.member.name.as_str());
        let attempts: Vec<LoggedAttempt<'_>> = attempts
            .iter()
            .map(|a| LoggedAttempt {
                backend: &a.member.name,
                outcome: a.outcome,
                detail: a.detail.as_deref(),
                took: a.took.unwrap_or_else(|| a.began.elapsed()),
            })
            .collect();
        let identity = self.identity.borrow();
        let fault = self.fault.get();
        let route = self.route.get();
        let asked_for_backend = !attempts.is_empty() || fault == Some(Fault::NoHealthyBackend);
        self.gateway.log(&AccessRecord {
            at: facts.at,
            request_id: self.id.to_str().unwrap_or_default(),
            listener: &self.client.listener.plan.name,
            client: SocketAddr::new(self.client_ip, self.client.peer().port()),
            method: self.method.as_str(),
            host: facts.host.as_ref().map(HeaderValue::as_bytes),
            path: facts.uri.path().as_bytes(),
            query: facts.uri.query().filter(|_| facts.is_query_safe).map(str::as_bytes),
            protocol: match self.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            route: route.map(|route| route.plan.name.as_str()),
            upstream: self.upstream().map(|upstream| upstream.plan.name.as_str()).filter(|_| asked_for_backend),
            backend,
            status: status.map(|status| status.as_u16()),
            grpc_status: self.grpc_status.get(),
            reason: fault.map(Fault::reason),
            attempts: &attempts,
            bytes_in: self.received.get(),
            bytes_out: self.sent.get(),
            duration,
            first_byte: self.first_byte.get(),
            limit: (fault == Some(Fault::RateLimited)).then_some("deny"),
            identity: identity.as_ref().map(|identity| identity.consumer.as_bytes()),
            user_agent: facts.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: facts.referer.as_ref().map(HeaderValue::as_bytes),
        });
    }
}

/// The host that a request names: in HTTP/2, with its target.
fn named_host(request: &Request<Incoming>) -> Option<HeaderValue> {
    let authority = || HeaderValue::from_str(request.uri().authority()?.as_str()).ok();
    request.headers().get(header::HOST).cloned().or_else(authority)
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record();
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("id", &self.id).finish_non_exhaustive()
    }
}
