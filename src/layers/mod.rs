//! What may refuse or change a request: limits and auth, in their fixed order.
//!
//! limits by address, header and all → auth → limits by consumer
//!
//! [`Pipeline`] is this order, compiled for one route; a request is taken through it by [`admit`](Pipeline::admit). The
//! order is fixed here because it is a security property: cheap limits stand before expensive auth, so that guessing is
//! limited too, and the limits by consumer can only stand after it. Within a phase the narrowest limit is asked first and
//! the first refusal ends the matter: who has used up its own bucket takes nothing from those it shares with others.
//! What an earlier limit or phase has spent on a request that a later one refuses stays spent.
//!
//! Decisions are `Send + Sync`, await nothing but the hashing of a password not seen lately, and allocate nothing but the
//! header values of the response. What has a memory ([`RateLimiter`], [`Authenticator`]) is owned by the registry and
//! shared between routes; the counters of decisions are the route's own.

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod auth;
mod rate_limit;
pub mod tower;

use std::{net::IpAddr, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};

use self::auth::{Answer, Denial, Verification};
pub use self::{
    auth::{Authenticator, Identity, PasswordPool},
    rate_limit::{Decision, RateLimiter},
};
use crate::{
    base::Name,
    config::plan::LimitKey,
    telemetry::cells::{Counter, WorkerId},
};

/// The limits and auths of one route, in the order in which they are asked.
#[derive(Debug)]
pub struct Pipeline {
    early: Box<[CountedLimit]>,
    auths: Box<[CountedAuth]>,
    late: Box<[CountedLimit]>,
    policy: Option<HeaderValue>,
    challenges: Arc<[HeaderValue]>,
}

/// What a request got on its way through a [`Pipeline`], admitted or not.
#[derive(Debug, Default)]
pub struct Pass {
    /// Who sent it, once that is known; `None` on a route without auth.
    pub identity: Option<Identity>,
    policy: Option<HeaderValue>,
    tightest: Option<(u32, HeaderValue)>,
}

/// Why a [`Pipeline`] does not admit a request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Too many passwords wait to be hashed: 503.
    #[error("too many passwords wait to be verified")]
    Overloaded,
    /// A limit is exceeded: 429.
    #[error("limit `{limit}` is exceeded, try again in {retry_after_s} s")]
    RateLimited {
        /// The limit.
        limit: Name,
        /// Seconds until one more request may pass, at least 1.
        retry_after_s: u32,
    },
    /// No auth of the route knows the sender: 401.
    #[error("not authenticated: {reason}")]
    Unauthorized {
        /// A token: `missing`, `repeated`, `malformed`, `unknown_key` or `bad_password`. For logs and metrics.
        reason: &'static str,
        /// One challenge per auth of the route.
        challenges: Arc<[HeaderValue]>,
    },
}

/// How often a limit or auth of a route decided one way. One request is one decision per limit asked, and one per route's
/// auths together: that of the auth which admitted it, or whose reason was the most telling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DecisionCount<'a> {
    /// What decided.
    pub kind: LayerKind,
    /// Its name.
    pub name: &'a Name,
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// Why an auth denied, else empty.
    pub reason: &'static str,
    /// How often, since the route was built.
    pub count: u64,
}

/// A kind of layer that decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LayerKind {
    /// An auth.
    Auth,
    /// A rate limit.
    Limit,
}

impl Pipeline {
    /// Sorts limits and auths into their order. `workers` is the number of data-plane threads that will call it.
    #[must_use]
    pub fn new(limits: Vec<Arc<RateLimiter>>, auths: Vec<Arc<Authenticator>>, workers: usize) -> Self {
        let items: Vec<&str> = limits.iter().map(|limit| limit.policy()).collect();
        let policy = (!items.is_empty())
            .then(|| HeaderValue::try_from(items.join(", ")).expect("items of structured fields are printable ASCII"));
        let challenges = auths.iter().map(|auth| auth.challenge().clone()).collect();
        let (late, mut early): (Vec<_>, Vec<_>) = limits.into_iter().partition(|limit| *limit.by() == LimitKey::Key);
        early.sort_by_key(|limit| match limit.by() {
            LimitKey::Ip => 0,
            LimitKey::Header(_) => 1,
            LimitKey::Global | LimitKey::Key => 2,
        });
        let counted =
            |limits: Vec<Arc<RateLimiter>>| limits.into_iter().map(|l| CountedLimit::new(l, workers)).collect();
        Self {
            early: counted(early),
            auths: auths.into_iter().map(|auth| CountedAuth::new(auth, workers)).collect(),
            late: counted(late),
            policy,
            challenges,
        }
    }

    /// Whether there is nothing to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.early.is_empty() && self.auths.is_empty() && self.late.is_empty()
    }

    /// Takes a request through its layers. Credentials are gone from the head afterwards, admitted or not.
    ///
    /// `client` is trusted; the head is the client's. Awaits only a password that must be hashed, and is dropped without
    /// harm when the client leaves.
    ///
    /// # Errors
    /// [`Refusal`], which the pass goes with: its rate-limit headers belong on the refusal, too.
    pub async fn admit(
        &self,
        worker: WorkerId,
        client: IpAddr,
        head: &mut Parts,
        pass: &mut Pass,
    ) -> Result<(), Refusal> {
        if self.is_empty() {
            return Ok(());
        }
        pass.policy.clone_from(&self.policy);
        let found = limit(&self.early, worker, client, &head.headers, pass).map(|()| self.identify(head));
        // Before anything is awaited: a client that leaves is logged as well.
        for asked in &self.auths {
            asked.auth.conceal(head);
        }
        let found = found?;
        if !self.auths.is_empty() {
            pass.identity = Some(self.verify(worker, found).await?);
        }
        limit(&self.late, worker, client, &head.headers, pass)
    }

    /// All decisions so far, zeros included.
    pub fn decisions(&self) -> impl Iterator<Item = DecisionCount<'_>> {
        let limits = self.early.iter().chain(&self.late).flat_map(CountedLimit::decisions);
        limits.chain(self.auths.iter().flat_map(CountedAuth::decisions))
    }

    fn identify(&self, head: &Parts) -> Found<'_> {
        let (mut blame, mut pending) = (None, Vec::new());
        for asked in &self.auths {
            match asked.auth.identify(head) {
                Answer::Admit(consumer) => return Found::Known(asked, consumer),
                Answer::Deny(denial) => blame = more_telling(blame, (asked, denial)),
                Answer::Verify(work) => pending.push((asked, work)),
            }
        }
        Found::Unknown(blame, pending)
    }

    async fn verify(&self, worker: WorkerId, found: Found<'_>) -> Result<Identity, Refusal> {
        let (mut blame, pending) = match found {
            Found::Known(asked, consumer) => return Ok(asked.admit(worker, consumer)),
            Found::Unknown(blame, pending) => (blame, pending),
        };
        for (asked, work) in pending {
            match work.run().await {
                Ok(consumer) => return Ok(asked.admit(worker, consumer)),
                Err(denial) => blame = more_telling(blame, (asked, denial)),
            }
        }
        let (asked, denial) = blame.expect("an auth that does not admit denies");
        asked.deny(worker, denial);
        Err(match denial {
            Denial::Overloaded => Refusal::Overloaded,
            _ => Refusal::Unauthorized { reason: denial.as_str(), challenges: Arc::clone(&self.challenges) },
        })
    }
}

impl Pass {
    /// Adds `RateLimit-Policy` with all limits and `RateLimit` with the tightest (draft-ietf-httpapi-ratelimit-headers-11).
    /// Those of a backend stay: both fields are lists.
    pub fn decorate(&self, headers: &mut HeaderMap) {
        if let Some(policy) = &self.policy {
            headers.append(RATELIMIT_POLICY, policy.clone());
        }
        if let Some((_, tightest)) = &self.tightest {
            headers.append(RATELIMIT, tightest.clone());
        }
    }

    /// Notes the tightest limit of a phase. A refusal replaces what an earlier phase noted.
    fn note(&mut self, limiter: &RateLimiter, decision: Decision) {
        let remaining = decision.remaining();
        let refused = matches!(decision, Decision::Refuse { .. });
        if refused || self.tightest.as_ref().is_none_or(|(fewest, _)| remaining < *fewest) {
            let value = HeaderValue::try_from(limiter.status(decision)).expect("structured fields are printable ASCII");
            self.tightest = Some((remaining, value));
        }
    }
}

impl Refusal {
    /// 401, 429 or 503.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
        }
    }

    /// Adds `Retry-After` or `WWW-Authenticate`.
    pub fn decorate(&self, headers: &mut HeaderMap) {
        match self {
            Self::Overloaded => {
                headers.insert(RETRY_AFTER, HeaderValue::from(1));
            }
            Self::RateLimited { retry_after_s, .. } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after_s));
            }
            Self::Unauthorized { challenges, .. } => {
                for challenge in challenges.iter() {
                    headers.append(WWW_AUTHENTICATE, challenge.clone());
                }
            }
        }
    }
}

#[derive(Debug)]
struct CountedLimit {
    limiter: Arc<RateLimiter>,
    allow: Counter,
    deny: Counter,
}

impl CountedLimit {
    fn new(limiter: Arc<RateLimiter>, workers: usize) -> Self {
        Self { limiter, allow: Counter::new(workers), deny: Counter::new(workers) }
    }

    fn check(&self, worker: WorkerId, client: IpAddr, headers: &HeaderMap, consumer: Option<&Name>) -> Decision {
        let decision = self.limiter.check(client, headers, consumer);
        match decision {
            Decision::Admit { .. } => self.allow.add(worker, 1),
            Decision::Refuse { .. } => self.deny.add(worker, 1),
        }
        decision
    }

    fn decisions(&self) -> impl Iterator<Item = DecisionCount<'_>> {
        let (kind, name) = (LayerKind::Limit, self.limiter.name());
        [("allow", &self.allow), ("deny", &self.deny)].into_iter().map(move |(decision, counter)| DecisionCount {
            kind,
            name,
            decision,
            reason: "",
            count: counter.sum(),
        })
    }
}

#[derive(Debug)]
struct CountedAuth {
    auth: Arc<Authenticator>,
    allow: Counter,
    // In the order of `Denial::ALL`.
    deny: [Counter; Denial::ALL.len()],
}

impl CountedAuth {
    fn new(auth: Arc<Authenticator>, workers: usize) -> Self {
        Self { auth, allow: Counter::new(workers), deny: Denial::ALL.map(|_| Counter::new(workers)) }
    }

    fn admit(&self, worker: WorkerId, consumer: Name) -> Identity {
        self.allow.add(worker, 1);
        Identity { consumer, auth: self.auth.name().clone() }
    }

    fn deny(&self, worker: WorkerId, denial: Denial) {
        for (reason, counter) in Denial::ALL.iter().zip(&self.deny) {
            if *reason == denial {
                counter.add(worker, 1);
            }
        }
    }

    fn decisions(&self) -> impl Iterator<Item = DecisionCount<'_>> {
        let count = |decision, reason, counter: &Counter| DecisionCount {
            kind: LayerKind::Auth,
            name: self.auth.name(),
            decision,
            reason,
            count: counter.sum(),
        };
        let denials = Denial::ALL.iter().zip(&self.deny);
        std::iter::once(count("allow", "", &self.allow))
            .chain(denials.map(move |(denial, counter)| count("deny", denial.as_str(), counter)))
    }
}

enum Found<'a> {
    Known(&'a CountedAuth, Name),
    /// Why nobody knows the sender so far, and who could with more work.
    Unknown(Option<(&'a CountedAuth, Denial)>, Vec<(&'a CountedAuth, Verification)>),
}

/// All must admit; the first refusal ends the matter.
fn limit(
    limits: &[CountedLimit],
    worker: WorkerId,
    client: IpAddr,
    headers: &HeaderMap,
    pass: &mut Pass,
) -> Result<(), Refusal> {
    let consumer = pass.identity.as_ref().map(|identity| &identity.consumer);
    let mut tightest: Option<(&RateLimiter, Decision)> = None;
    for limit in limits {
        let decision = limit.check(worker, client, headers, consumer);
        if let Decision::Refuse { retry_after_s } = decision {
            pass.note(&limit.limiter, decision);
            return Err(Refusal::RateLimited { limit: limit.limiter.name().clone(), retry_after_s });
        }
        if tightest.is_none_or(|(_, other)| decision.remaining() < other.remaining()) {
            tightest = Some((&limit.limiter, decision));
        }
    }
    if let Some((limiter, decision)) = tightest {
        pass.note(limiter, decision);
    }
    Ok(())
}

type Blame<'a> = (&'a CountedAuth, Denial);

/// Of two denials the one that says more of what the client did wrong, or that it did nothing wrong.
fn more_telling<'a>(before: Option<Blame<'a>>, now: Blame<'a>) -> Option<Blame<'a>> {
    let weight = |(_, denial): &Blame<'_>| match denial {
        Denial::Missing => 0,
        Denial::BadPassword | Denial::Malformed | Denial::Repeated | Denial::UnknownKey => 1,
        Denial::Overloaded => 2,
    };
    before.filter(|before| weight(before) >= weight(&now)).or(Some(now))
}

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
mod tests;
