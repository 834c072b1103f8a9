//! What may be sent again, how often, when, and what of it the backends must bear.
//!
//! Retries make an outage worse where they add to what backends cannot serve. So each is paid for out of a budget of the upstream
//! (`upstream::budget`): a share of its requests. What is spent there comes back with traffic, not with time alone.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;

use super::{
    Exchange, Fault, RequestBody,
    body::Used,
    forward::Answer,
    grpc, judge,
    resend::{Kept, UNASKED},
    way::Way,
};
use crate::{
    config::plan::{self, Protocol, RetryOn},
    runtime::Upstream,
    telemetry::metrics::RetryResult,
    upstream::RequestHead,
};

/// How often a request is sent again because the backend has not begun: more than once, because connections that were opened
/// together go away together, and few times, because a backend that refuses has enough to do.
const MOST_UNPROCESSED: u8 = 3;

/// A `Retry-After` that asks for more than this is for the client, who may come back: here the request and all that it holds
/// would wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What an attempt has brought.
pub(super) type Came = Result<Answer, Fault>;

/// What came is not good enough, and there is another attempt.
pub(super) fn dismiss(exchange: &Exchange, came: Came) {
    let Ok((response, used)) = came else { return };
    exchange.dismissed(match grpc::status(response.headers()) {
        Some(code) => format!("{}, grpc-status {code}", response.status().as_u16()).into(),
        None => response.status().as_str().into(),
    });
    discard(exchange, used);
}

/// Reads what has come of a response that nobody gets, so that its connection can be used again. One of which more is to come ends.
fn discard(exchange: &Exchange, mut used: Used) {
    const MOST: usize = 64 * 1024;
    let mut read = 0;
    while !used.connection.is_end_stream() {
        let cx = &mut Context::from_waker(Waker::noop());
        match Pin::new(&mut used.connection).poll_frame(cx) {
            Poll::Ready(None) => break,
            Poll::Ready(Some(Ok(frame))) if read < MOST => read += frame.data_ref().map_or(0, Bytes::len),
            Poll::Ready(Some(_)) | Poll::Pending => return,
        }
    }
    if exchange.is_request_sent() {
        used.connection.give_back();
    }
}

/// What is left of a route's retries for one request, and whether it can be sent again.
pub(super) struct Retries<'a> {
    exchange: &'a Exchange,
    plan: &'a plan::Retries,
    upstream: &'a Upstream,
    left: Left,
    // What was sent of its body, if it has one.
    kept: Option<Rc<RefCell<Kept>>>,
    // What was sent of it can be had once more: nothing, or what was kept.
    is_repeatable: bool,
    // A failure may be retried: by its method, and as far as its body allows.
    may_repeat: bool,
}

impl<'a> Retries<'a> {
    pub(super) fn new(exchange: &'a Exchange, route: &'a Way<'a>, head: &RequestHead, body: &mut RequestBody) -> Self {
        let (plan, upstream) = (&route.plan.retries, route.upstream);
        let has_method = plan.attempts > 0 && plan.methods.contains(&head.parts.method);
        // What a backend says that it has not begun may be sent again whatever it is, and only HTTP/2 can say so.
        let may_be_refused = upstream.plan.protocol != Protocol::Http1;
        let asked = if has_method { plan.body as usize } else { 0 };
        let most = asked.max(if may_be_refused { UNASKED } else { 0 });
        let kept = if most > 0 { body.kept(most) } else { None };
        let may_repeat = has_method && (body.is_empty() || asked > 0 && kept.is_some());
        let is_repeatable = may_repeat || may_be_refused && (body.is_empty() || kept.is_some());
        Self { exchange, plan, upstream, left: Left::of(plan), kept, is_repeatable, may_repeat }
    }

    /// How long a request without a body that only reads waits before a second backend is asked as well.
    pub(super) fn hedge_after(&self, head: &RequestHead, body: &RequestBody) -> Option<Duration> {
        let after = self.plan.hedge_after;
        let only_reads = || matches!(head.parts.method, Method::GET | Method::HEAD) && body.is_empty();
        (!after.is_zero() && only_reads()).then_some(after)
    }

    /// Whether a second backend may be asked as well. Takes it from the budget.
    pub(super) fn allow_hedge(&self) -> bool {
        self.spend(RetryResult::Hedged)
    }

    /// Whether the client should rather have another response than this one.
    pub(super) fn wants_another(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let (plan, code) = (self.plan, status.as_u16());
        let is_named = code >= 400 && plan.status.iter().any(|range| range.contains(code));
        let ends_call = || !plan.grpc.is_empty() && grpc::status(headers).is_some_and(|code| plan.grpc.contains(&code));
        (is_named || ends_call()) && self.can_repeat()
    }

    /// Whether a request that the backend has not begun may be sent again. That counts as no retry.
    pub(super) fn allow_unprocessed(&mut self) -> bool {
        let is_kept = self.kept.as_ref().is_none_or(|kept| kept.borrow().is_whole());
        self.left.unprocessed += 1;
        self.is_repeatable && is_kept && self.left.unprocessed <= MOST_UNPROCESSED
    }

    /// Whether there may be another attempt, and after which pause. Takes one of those left, and one from the budget.
    pub(super) fn allow(&mut self, came: &Came, is_other_left: bool) -> Option<Duration> {
        let retry_after = came.as_ref().ok().and_then(|(response, _)| judge::retry_after(response.headers()));
        let is_named = match came {
            // Asked before.
            Ok(_) => true,
            Err(fault) => condition(*fault).is_some_and(|on| self.plan.when.contains(&on)) && self.can_repeat(),
        };
        if !is_named {
            return None;
        }
        let Some(pause) =
            self.left.pause(self.plan.backoff, retry_after, is_other_left).filter(|pause| self.fits(*pause))
        else {
            self.upstream.metrics.retried(self.exchange.worker(), RetryResult::GaveUp);
            return None;
        };
        if !self.spend(RetryResult::Sent) {
            return None;
        }
        self.left.take();
        Some(pause)
    }

    /// The body once more.
    pub(super) fn replay(&self) -> RequestBody {
        let again = |kept: &Rc<RefCell<Kept>>| RequestBody::Again(Box::new(kept.borrow().again()));
        self.kept.as_ref().map_or(RequestBody::Empty, again)
    }

    /// Whether all of it can be had once more.
    fn can_repeat(&self) -> bool {
        let is_small = |kept: &Kept| kept.is_whole() && kept.length() <= self.plan.body as usize;
        self.may_repeat && self.kept.as_ref().is_none_or(|kept| is_small(&kept.borrow()))
    }

    fn fits(&self, pause: Duration) -> bool {
        self.exchange.deadline().is_none_or(|deadline| tokio::time::Instant::now() + pause < deadline)
    }

    fn spend(&self, result: RetryResult) -> bool {
        let (budget, min) = (self.plan.budget, self.plan.min_retries);
        let is_left = self.upstream.live.spend_retry(budget, min, Instant::now());
        let result = if is_left { result } else { RetryResult::BudgetSpent };
        self.upstream.metrics.retried(self.exchange.worker(), result);
        if !is_left {
            self.exchange.not_retried("not sent again: the retry budget is spent");
        }
        is_left
    }
}

/// The attempts that are left of one request.
#[derive(Debug)]
struct Left {
    attempts: u8,
    taken: u8,
    unprocessed: u8,
}

impl Left {
    const fn of(plan: &plan::Retries) -> Self {
        Self { attempts: plan.attempts, taken: 0, unprocessed: 0 }
    }

    /// The pause before the next retry, or `None` where there is none. The first one on another backend waits for nothing: that
    /// one has done no wrong.
    fn pause(
        &self,
        backoff: Duration,
        retry_after: Option<Result<Duration, judge::NotSeconds>>,
        is_other_left: bool,
    ) -> Option<Duration> {
        if self.attempts == 0 {
            return None;
        }
        match retry_after {
            Some(said) if !is_other_left => said.ok().filter(|wait| *wait <= LONGEST_WAIT),
            _ if is_other_left && self.taken == 0 => Some(Duration::ZERO),
            _ => Some(jittered(backoff, self.taken.saturating_sub(u8::from(is_other_left)))),
        }
    }

    const fn take(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.taken = self.taken.saturating_add(1);
    }
}

/// A random part of the back-off, which has doubled so often, up to ten times what it was: those who were turned away together do
/// not come back together.
fn jittered(backoff: Duration, doubled: u8) -> Duration {
    let factor = 1_u32.checked_shl(doubled.into()).unwrap_or(u32::MAX).min(10);
    backoff.saturating_mul(factor).mul_f64(fastrand::f64())
}

/// What a fault is in the words of `retries.when`.
const fn condition(fault: Fault) -> Option<RetryOn> {
    match fault {
        Fault::ConnectFailed | Fault::ConnectRefused | Fault::ConnectTimeout | Fault::TlsError => {
            Some(RetryOn::Connect)
        }
        Fault::Draining | Fault::ResetBeforeHeaders => Some(RetryOn::Reset),
        Fault::ResponseTimeout => Some(RetryOn::Timeout),
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
        | Fault::Retired
        | Fault::TunnelTimeout
        | Fault::Unauthorized
        | Fault::UriTooLong => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Duration = Duration::from_millis(25);

    fn left(attempts: u8) -> Left {
        Left::of(&plan::Retries { attempts, ..plan::Retries::default() })
    }

    #[test]
    fn the_first_retry_elsewhere_waits_for_nothing_and_the_others_do() {
        let mut left = left(10);
        assert_eq!(left.pause(BACKOFF, None, true), Some(Duration::ZERO));
        let longest = |left: &Left, is_other_left| {
            (0..500).filter_map(|_| left.pause(BACKOFF, None, is_other_left)).max().unwrap().as_millis()
        };
        assert!((20..=25).contains(&longest(&left, false)));
        left.take();
        assert!((20..=25).contains(&longest(&left, true)));
        assert!((40..=50).contains(&longest(&left, false)));
        (0..8).for_each(|_| left.take());
        assert!((225..=250).contains(&longest(&left, false)), "ten times at most");
        left.take();
        assert_eq!(left.pause(BACKOFF, None, true), None);
    }

    #[test]
    fn retry_after_counts_where_nobody_else_is_left() {
        let left = left(2);
        let after = |seconds| Some(Ok(Duration::from_secs(seconds)));
        assert_eq!(left.pause(BACKOFF, after(3), false), Some(Duration::from_secs(3)));
        assert_eq!(left.pause(BACKOFF, after(3), true), Some(Duration::ZERO));
        assert_eq!(left.pause(BACKOFF, after(6), false), None);
        assert_eq!(left.pause(BACKOFF, Some(Err(judge::NotSeconds)), false), None);
    }

    proptest! {
        /// Whatever fails how, there are no more attempts than the config says.
        #[test]
        fn no_more_attempts_than_are_left(attempts in 0u8..=10, others in prop::collection::vec(any::<bool>(), 0..40)) {
            let mut left = left(attempts);
            let mut sent = 1;
            for is_other_left in others {
                match left.pause(BACKOFF, None, is_other_left) {
                    Some(pause) => {
                        prop_assert!(pause <= BACKOFF * 10);
                        left.take();
                        sent += 1;
                    }
                    None => break,
                }
            }
            prop_assert!(sent <= u32::from(attempts) + 1);
        }
    }

    #[test]
    fn nothing_but_what_a_backend_did_is_retried() {
        use super::super::Blame;
        for fault in Fault::ALL {
            let is_retried = condition(fault).is_some();
            assert!(!is_retried || fault.blame() == Blame::Backend || fault == Fault::Draining, "{fault:?}");
        }
    }
}
