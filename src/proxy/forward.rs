//! Pick a backend, send it the request, judge what comes back; again, where another backend can save the request.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Instant as Clock,
};

use http::{Response, StatusCode, header::HOST};
use tokio::time::{Instant, timeout_at};

use super::{
    Exchange, Fault, RequestBody,
    alarm::Alarm,
    body::{Used, io_kind},
    headers::{self, Special},
    judge,
    resend::Kept,
    upgrade::Asked,
};
use crate::{
    config::plan::{HostHeader, Protocol, RetryOn},
    net::values,
    runtime::Route,
    upstream::{
        Backend, Connection, DialError, Lease, Limits, Member, NoPlace, RequestHead, Reuse, Slot, Ticket, Tier,
        WireError,
    },
};

/// Sends the request to a backend, or to one after the other, and returns the head of a response.
///
/// A request of which no byte was written goes to another backend, whatever its method; that is no retry. Nor is it one where
/// the backend says that it has not begun: then it is sent again, with its body, if that is small and was sent whole. One
/// that was written and lost is retried only as `retries` says, and only where its body is empty.
pub(super) async fn forward(
    exchange: &Rc<Exchange>,
    route: &Route,
    mut head: RequestHead,
    mut body: RequestBody,
    asked: Option<&Asked>,
    ticket: Ticket,
) -> Result<(Response<()>, Used), Fault> {
    let mut retries = Retries::new(route, &head, &mut body);
    let mut tried = Vec::new();
    let mut last = None;
    let mut is_granted = false;
    let names_host = values(&head.parts.headers, &HOST).next().is_some();
    loop {
        if last.is_some() && exchange.is_overdue() {
            return Err(last.unwrap_or(Fault::ResponseTimeout));
        }
        let lease = match pick(exchange, route, ticket, &tried) {
            Ok(lease) => lease,
            // Everybody was tried. The same ones may do better a second time.
            Err(Fault::NoHealthyBackend) if is_granted || last.is_some_and(|fault| retries.allow(fault)) => {
                tried.clear();
                pick(exchange, route, ticket, &tried)?
            }
            Err(fault) => return Err(last.unwrap_or(fault)),
        };
        let member = Arc::clone(lease.member());
        address(&mut head, names_host, route, &member);
        let began = exchange.begin_attempt(&member);
        let failure = match attempt(exchange, route, lease, began, &head, body, asked).await {
            Ok((mut response, used)) => {
                let (worker, status) = (exchange.worker(), response.status());
                let is_bad = judge::answered(worker, &route.upstream, &member, status, response.headers_mut(), began);
                exchange.end_attempt("ok", None, Some(status));
                if is_bad {
                    exchange.judged();
                }
                return Ok((response, used));
            }
            Err(failure) => failure,
        };
        if !failure.is_unprocessed {
            judge::failed(exchange.worker(), &route.upstream, &member, failure.fault);
        }
        exchange.end_attempt(failure.fault.reason(), failure.detail, None);
        tried.push(member.backend.slot());
        // Nothing speaks against a backend that has not begun: where there is no other, a new connection to it may do.
        let is_free = failure.is_unprocessed && retries.allow_unprocessed();
        is_granted = failure.unsent.is_none() && (is_free || retries.allow(failure.fault));
        body = match failure.unsent {
            Some(body) => body,
            None if is_granted => retries.replay(),
            None => return Err(failure.fault),
        };
        last = Some(failure.fault);
    }
}

/// An eligible backend by the mode of the upstream, and a place among its requests in flight.
fn pick(exchange: &Exchange, route: &Route, ticket: Ticket, tried: &[Slot]) -> Result<Lease, Fault> {
    let upstream = &route.upstream;
    let lease = upstream.live.lease(exchange.worker(), ticket, tried, upstream.plan.max_in_flight);
    lease.map_err(|none| match none {
        NoPlace::Full => Fault::Overloaded,
        NoPlace::Nobody => Fault::NoHealthyBackend,
    })
}

/// Says which host is meant, of the backend that was chosen.
fn address(head: &mut RequestHead, names_host: bool, route: &Route, member: &Member) {
    let host = match &route.upstream.plan.host {
        HostHeader::Preserve if names_host => return,
        // A client of HTTP/1.0 may name none, and a request of HTTP/1.1 must (RFC 9112, section 3.2).
        HostHeader::Backend | HostHeader::Preserve => member.authority.clone(),
        HostHeader::Literal(host) => host.clone(),
    };
    head.parts.headers.insert(HOST, host);
}

/// An attempt that brought no response: why, and the body if no byte of the request was written.
struct Failure {
    fault: Fault,
    /// More of the reason, in words for the log.
    detail: Option<Box<str>>,
    unsent: Option<RequestBody>,
    /// It was written, and the backend says that it has not begun to work on it.
    is_unprocessed: bool,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, detail: None, unsent: None, is_unprocessed: false }
    }
}

async fn attempt(
    exchange: &Exchange,
    route: &Route,
    lease: Lease,
    began: Clock,
    head: &RequestHead,
    mut body: RequestBody,
    asked: Option<&Asked>,
) -> Result<(Response<()>, Used), Failure> {
    let backend = &lease.member().backend;
    let mut due = None;
    let mut reuse = Reuse::Allowed;
    loop {
        let limits = route.upstream.limits;
        let at_hand = exchange.pools().at_hand(backend, limits, reuse, began);
        let connected = match at_hand {
            Some(connection) => Ok(connection),
            None => {
                let due = *due.get_or_insert_with(|| exchange.deadline_within(route.plan.timeouts.connect));
                Box::pin(connect(exchange, backend, limits, due)).await
            }
        };
        let mut connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                let (unsent, detail) = (Some(body), connect_detail(&error));
                return Err(Failure { unsent, detail, ..connect_fault(&error).into() });
            }
        };
        if asked.is_some() {
            connection.may_upgrade();
        }
        let failure = match send(exchange, route, &mut connection, head, body).await {
            Ok(mut response) => {
                let is_agreed = |asked: &Asked| asked.is_agreed(response.headers());
                let is_asked_for = response.status() != StatusCode::SWITCHING_PROTOCOLS || asked.is_some_and(is_agreed);
                let special = Special::of(response.headers());
                if !is_asked_for || !headers::settle_framing(response.headers_mut(), special) {
                    return Err(Fault::BadResponse.into());
                }
                // Here, where its fields have just been looked at.
                headers::strip_hop_by_hop(response.headers_mut(), special);
                return Ok((response, Used { lease, connection }));
            }
            Err(failure) => failure,
        };
        match failure.unsent {
            // It had died since its last use. That says nothing of the backend: ask it on a new connection.
            Some(unsent) if connection.is_reused() => {
                body = unsent;
                reuse = Reuse::Refused;
            }
            unsent => return Err(Failure { unsent, ..failure }),
        }
    }
}

/// Opens a connection, or waits for one.
async fn connect(
    exchange: &Exchange,
    backend: &Arc<Backend>,
    limits: Limits,
    due: Option<Instant>,
) -> Result<Connection<RequestBody>, DialError> {
    let connecting = exchange.pools().checkout(backend, limits);
    match due {
        Some(due) => timeout_at(due, connecting).await.unwrap_or_else(|_| Err(timed_out().into())),
        None => connecting.await,
    }
}

async fn send(
    exchange: &Exchange,
    route: &Route,
    connection: &mut Connection<RequestBody>,
    head: &RequestHead,
    body: RequestBody,
) -> Result<Response<()>, Failure> {
    let sent = tokio::select! {
        biased;
        sent = connection.send(head, body) => sent.map_err(|unsent| Failure {
            is_unprocessed: unsent.is_unprocessed(),
            fault: exchange.request_fault().unwrap_or_else(|| send_fault(&unsent.error)),
            detail: send_detail(&unsent.error),
            unsent: unsent.body,
        }),
        () = head_overdue(exchange, route) => Err(Fault::ResponseTimeout.into()),
    };
    if matches!(&sent, Err(failure) if failure.fault == Fault::ResponseTimeout) {
        connection.doubt();
    }
    route.upstream.metrics.interim(connection.take_interim());
    sent
}

/// Returns when the head of a response is overdue: `request` after the start of the exchange, or `response_header` after the
/// end of the request, whichever is first.
async fn head_overdue(exchange: &Exchange, route: &Route) {
    let limit = route.plan.timeouts.response_header;
    let client = exchange.client();
    let mut own = Alarm::default();
    poll_fn(|cx| {
        loop {
            // Of a request that is still being sent the wait for its response has not begun.
            let sent = || exchange.request_sent_at().unwrap_or_else(Instant::now);
            let due = || exchange.deadline().into_iter().chain((!limit.is_zero()).then(|| sent() + limit)).min();
            let Some(now_due) = due() else { return Poll::Pending };
            // Many tasks serve a client in HTTP/2, and each wants to be woken.
            ready!(match client.is_multiplexed() {
                true => own.poll(cx, now_due),
                false => client.alarm().poll(cx, now_due),
            });
            if due().is_some_and(|due| due <= now_due) {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

fn connect_fault(error: &DialError) -> Fault {
    let error = match error {
        DialError::Connect(error) => error,
        DialError::Protocol => return Fault::BadResponse,
        DialError::Tls(_) => return Fault::TlsError,
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::ConnectRefused,
        io::ErrorKind::TimedOut => Fault::ConnectTimeout,
        // No descriptor or no port is left: a shortage of this machine's, not of the backend's.
        io::ErrorKind::AddrNotAvailable => Fault::Overloaded,
        _ if error.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code)) => Fault::Overloaded,
        _ => Fault::ConnectFailed,
    }
}

/// What the fault does not say.
fn connect_detail(error: &DialError) -> Option<Box<str>> {
    match error {
        DialError::Connect(error) if connect_says_all(error) => None,
        DialError::Connect(_) | DialError::Protocol | DialError::Tls(_) => Some(error.to_string().into()),
    }
}

fn connect_says_all(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut)
}

fn send_detail(error: &WireError) -> Option<Box<str>> {
    match error {
        WireError::Garbage(_) => Some(error.to_string().into()),
        _ if error.is_cut() => Some("the backend was cut off while it drained, or when it went out".into()),
        WireError::Http2(error) => std::error::Error::source(error).map(|cause| cause.to_string().into()),
        WireError::Body | WireError::Ended | WireError::Io(_) => None,
    }
}

// EMFILE and ENFILE, which have no `ErrorKind` of their own yet.
const OUT_OF_DESCRIPTORS: [i32; 2] = [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()];

fn send_fault(error: &WireError) -> Fault {
    match error {
        _ if error.is_cut() => Fault::Draining,
        WireError::Garbage(_) => Fault::BadResponse,
        WireError::Http2(error) if error.is_parse() || io_kind(error) == Some(io::ErrorKind::InvalidData) => {
            Fault::BadResponse
        }
        WireError::Body | WireError::Ended | WireError::Http2(_) | WireError::Io(_) => Fault::ResetBeforeHeaders,
    }
}

/// How often a request is sent again because the backend has not begun: more than once, because connections that were opened
/// together go away together, and few times, because a backend that refuses has enough to do.
const MOST_UNPROCESSED: u8 = 3;

/// What is left of a route's retries for one request, and whether it can be sent again.
struct Retries<'a> {
    route: &'a Route,
    left: u8,
    // What was sent of it can be had once more: nothing, or what was kept.
    is_repeatable: bool,
    // What was sent of its body, if it has one.
    kept: Option<Rc<RefCell<Kept>>>,
    may_repeat: bool,
    unprocessed: u8,
}

impl<'a> Retries<'a> {
    fn new(route: &'a Route, head: &RequestHead, body: &mut RequestBody) -> Self {
        let plan = &route.plan.retries;
        let may_repeat = plan.attempts > 0 && plan.methods.contains(&head.parts.method) && body.is_empty();
        // What a backend says that it has not begun may be sent again whatever it is, and only HTTP/2 can say so.
        let may_be_refused = route.upstream.plan.protocol != Protocol::Http1;
        let kept = if may_be_refused { body.kept() } else { None };
        let is_repeatable = may_repeat || may_be_refused && (body.is_empty() || kept.is_some());
        Self { route, left: plan.attempts, is_repeatable, kept, may_repeat, unprocessed: 0 }
    }

    /// Whether a request that the backend has not begun may be sent again. That counts as no retry.
    fn allow_unprocessed(&mut self) -> bool {
        let is_kept = self.kept.as_ref().is_none_or(|kept| kept.borrow().is_whole());
        self.unprocessed += 1;
        self.is_repeatable && is_kept && self.unprocessed <= MOST_UNPROCESSED
    }

    /// Whether the failure may be retried; takes one of those left.
    fn allow(&mut self, fault: Fault) -> bool {
        let condition = match fault {
            Fault::ConnectFailed | Fault::ConnectRefused | Fault::ConnectTimeout | Fault::TlsError => RetryOn::Connect,
            Fault::Draining | Fault::ResetBeforeHeaders => RetryOn::Reset,
            Fault::BadRequest
            | Fault::BadResponse
            | Fault::BodyTooLarge
            | Fault::ClientGone
            | Fault::ClientTimeout
            | Fault::ExpectationFailed
            | Fault::HeaderTooLarge
            | Fault::Internal
            | Fault::MethodNotAllowed
            | Fault::NoHealthyBackend
            | Fault::NoRoute
            | Fault::Overloaded
            | Fault::RateLimited
            | Fault::ResponseCut
            | Fault::ResponseTimeout
            | Fault::Retired
            | Fault::TunnelTimeout
            | Fault::Unauthorized
            | Fault::UriTooLong => return false,
        };
        if !self.may_repeat || self.left == 0 || !self.route.plan.retries.when.contains(&condition) {
            return false;
        }
        self.left -= 1;
        true
    }

    /// The body once more.
    fn replay(&self) -> RequestBody {
        let again = |kept: &Rc<RefCell<Kept>>| RequestBody::Again(Box::new(kept.borrow().again()));
        self.kept.as_ref().map_or(RequestBody::Empty, again)
    }
}

/// Whether the backends are all out, for the words of a refusal.
pub(super) fn is_everybody_out(route: &Route) -> bool {
    matches!(route.upstream.live.eligible().tier(), Tier::Nobody | Tier::TooFew)
}
