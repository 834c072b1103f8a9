//! Pick a backend, send it the request, judge what comes back; again, where another backend can save the request.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant as Clock},
};

use http::{Response, StatusCode, header::HOST};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Exchange, Fault, RequestBody,
    alarm::Alarm,
    body::{Used, io_kind},
    exchange::Begun,
    headers::{self, Special},
    hedge::Hedge,
    judge,
    retry::{Came, Retries, dismiss},
    upgrade::Asked,
    way::Way,
};
use crate::{
    config::plan::HostHeader,
    net::values,
    runtime::Upstream,
    upstream::{
        Backend, Connection, DialError, Draw, Lease, Limits, Member, NoPlace, RequestHead, Reuse, Slot, Ticket,
        WireError,
    },
};

/// Sends the request to a backend, or to one after the other, and returns the head of a response.
///
/// A request of which no byte was written goes to another backend, whatever its method; that is no retry. Nor is it one where
/// the backend says that it has not begun: then it is sent again, with its body, if that is small and was sent whole. One
/// that was written and lost, or answered with a status that `retries` names, is retried as `retries` says, and only where its body
/// is empty or was kept.
pub(super) async fn forward(
    exchange: &Rc<Exchange>,
    route: &Way<'_>,
    mut head: RequestHead,
    mut body: RequestBody,
    asked: Option<&Asked>,
    ticket: Ticket,
) -> Result<Answer, Fault> {
    let mut retries = Retries::new(exchange, route, &head, &mut body);
    let hedge_after = if asked.is_none() { retries.hedge_after(&head, &body) } else { None };
    let names_host = values(&head.parts.headers, &HOST).next().is_some();
    let mut tried = Vec::new();
    let mut lease = pick(exchange, route, ticket, &tried)?;
    loop {
        address(&mut head, names_host, route.upstream, lease.member());
        let slot = lease.member().backend.slot();
        let begun = exchange.begin_attempt(lease.member());
        let came = match hedge_after.filter(|_| begun.number == 0) {
            None => attempt(exchange, route, lease, begun, &head, body, asked).await,
            Some(after) => {
                tried.push(slot);
                let hedge = Hedge { exchange, route, ticket, names_host, after };
                Box::pin(hedge.attempt(&retries, lease, begun, &head, &mut tried)).await
            }
        };
        let (came, unsent, is_unprocessed) = match came {
            Ok(answer) if !retries.wants_another(answer.0.status(), answer.0.headers()) => return Ok(answer),
            Ok(answer) => (Came::Ok(answer), None, false),
            Err(failure) => (Came::Err(failure.fault), failure.unsent, failure.is_unprocessed),
        };
        if !tried.contains(&slot) {
            tried.push(slot);
        }
        let others = Draw { ticket, tried: &tried, ..Draw::default() };
        let is_other_left = route.upstream.live.eligible().pick(&others).is_ok();
        // Nothing speaks against a backend that has not begun: where there is no other, a new connection to it may do.
        let is_free = is_unprocessed && retries.allow_unprocessed() || unsent.is_some() && is_other_left;
        let pause = if is_free { Some(Duration::ZERO) } else { retries.allow(&came, is_other_left) };
        let Some(pause) = pause.filter(|_| !exchange.is_overdue()) else { return came };
        if !pause.is_zero() {
            Box::pin(sleep(pause)).await;
        }
        if !is_other_left {
            // Everybody was tried. The same ones may do better a second time.
            tried.clear();
        }
        let Ok(next) = pick(exchange, route, ticket, &tried) else { return came };
        lease = next;
        dismiss(exchange, came);
        body = unsent.unwrap_or_else(|| retries.replay());
    }
}

/// The head of a response, and the backend that it is from.
pub(super) type Answer = (Response<()>, Used);

/// An eligible backend by the mode of the upstream, and a place among its requests in flight.
pub(super) fn pick(exchange: &Exchange, route: &Way<'_>, ticket: Ticket, tried: &[Slot]) -> Result<Lease, Fault> {
    let upstream = &route.upstream;
    let lease = upstream.live.lease(exchange.worker(), ticket, tried, upstream.plan.max_in_flight);
    lease.map_err(|none| match none {
        NoPlace::Full => Fault::Overloaded,
        NoPlace::Nobody => Fault::NoHealthyBackend,
    })
}

/// Says which host is meant, of the backend that was chosen.
pub(super) fn address(head: &mut RequestHead, names_host: bool, upstream: &Upstream, member: &Member) {
    let host = match &upstream.plan.host {
        HostHeader::Preserve if names_host => return,
        // A client of HTTP/1.0 may name none, and a request of HTTP/1.1 must (RFC 9112, section 3.2).
        HostHeader::Backend | HostHeader::Preserve => member.authority.clone(),
        HostHeader::Literal(host) => host.clone(),
    };
    head.parts.headers.insert(HOST, host);
}

/// An attempt that brought no response: why, and the body if no byte of the request was written.
pub(super) struct Failure {
    pub(super) fault: Fault,
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

/// One attempt, and what it says of its backend.
pub(super) async fn attempt(
    exchange: &Exchange,
    route: &Way<'_>,
    lease: Lease,
    begun: Begun,
    head: &RequestHead,
    body: RequestBody,
    asked: Option<&Asked>,
) -> Result<Answer, Failure> {
    let member = Arc::clone(lease.member());
    let (worker, upstream) = (exchange.worker(), route.upstream);
    let came = ask(exchange, route, lease, begun.at, head, body, asked).await;
    match came {
        Ok((mut response, used)) => {
            let status = response.status();
            let is_bad = judge::answered(worker, upstream, &member, status, response.headers_mut(), begun.at);
            exchange.end_attempt(begun.number, "ok", None, Some(status));
            if is_bad {
                exchange.judged(begun.number);
            }
            Ok((response, used))
        }
        Err(mut failure) => {
            if !failure.is_unprocessed {
                judge::failed(worker, upstream, &member, failure.fault);
            }
            exchange.end_attempt(begun.number, failure.fault.reason(), failure.detail.take(), None);
            Err(failure)
        }
    }
}

async fn ask(
    exchange: &Exchange,
    route: &Way<'_>,
    lease: Lease,
    began: Clock,
    head: &RequestHead,
    mut body: RequestBody,
    asked: Option<&Asked>,
) -> Result<Answer, Failure> {
    let backend = &lease.member().backend;
    let limit = route.plan.retries.timeout;
    let due = (!limit.is_zero()).then(|| Instant::from_std(began + limit));
    let mut connected_by = None;
    let mut reuse = Reuse::Allowed;
    loop {
        let limits = route.upstream.limits;
        let at_hand = exchange.pools().at_hand(backend, limits, reuse, began);
        let connected = match at_hand {
            Some(connection) => Ok(connection),
            None => {
                let within = || exchange.deadline_within(route.plan.timeouts.connect).into_iter().chain(due).min();
                let connected_by = *connected_by.get_or_insert_with(within);
                Box::pin(connect(exchange, backend, limits, connected_by)).await
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
        let overdue = head_overdue(exchange, route, began, due);
        let failure = match send(exchange, route, &mut connection, head, body, overdue).await {
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
    route: &Way<'_>,
    connection: &mut Connection<RequestBody>,
    head: &RequestHead,
    body: RequestBody,
    overdue: impl Future<Output = ()>,
) -> Result<Response<()>, Failure> {
    let sent = tokio::select! {
        biased;
        sent = connection.send(head, body) => sent.map_err(|unsent| Failure {
            is_unprocessed: unsent.is_unprocessed(),
            fault: exchange.request_fault().unwrap_or_else(|| send_fault(&unsent.error)),
            detail: send_detail(&unsent.error),
            unsent: unsent.body,
        }),
        () = overdue => Err(Fault::ResponseTimeout.into()),
    };
    if matches!(&sent, Err(failure) if failure.fault == Fault::ResponseTimeout) {
        connection.doubt();
    }
    route.upstream.metrics.interim(connection.take_interim());
    sent
}

/// Returns when the head of a response is overdue: `request` after the start of the exchange, `response_header` after the end of
/// the request, or when the attempt is `due`, whichever is first.
async fn head_overdue(exchange: &Exchange, route: &Way<'_>, began: Clock, attempt_due: Option<Instant>) {
    let limit = route.plan.timeouts.response_header;
    let client = exchange.client();
    let mut own = Alarm::default();
    poll_fn(|cx| {
        loop {
            // Of a request that is still being sent the wait for its response has not begun. One that is sent again begins anew.
            let sent = || exchange.request_sent_at().map_or_else(Instant::now, |sent| sent.max(began.into()));
            let header_due = || (!limit.is_zero()).then(|| sent() + limit);
            let due = || exchange.deadline().into_iter().chain(attempt_due).chain(header_due()).min();
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
