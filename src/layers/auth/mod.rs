//! Authentication: who sent this request?
//!
//! An [`Authenticator`] is one auth of the plan. [`Pipeline`](super::Pipeline) asks all auths of a route: first for what
//! they know at once (a key, a password that was right a minute ago), and only if none admits for what takes hashing, which
//! is done by the threads of the [`PasswordPool`]. It then has all of them take their credentials out of the request,
//! admitted or not, so that none is forwarded or logged.
//!
//! What a client sent is compared in constant time, and an unknown user costs and reads like a wrong password. Nothing
//! secret is in any `Debug`.

mod api_key;
mod basic;
mod hash;
mod pool;

use std::fmt;

use http::{HeaderValue, request::Parts};

pub(super) use self::basic::Verification;
use self::{api_key::ApiKeyHolders, basic::Basic};
pub use self::{
    hash::{HashError, MAX_SECRET, hash_key, hash_password},
    pool::PasswordPool,
};
use crate::{
    base::Name,
    config::plan::{Auth, AuthMethod},
};

/// Who sent a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The consumer or user.
    pub consumer: Name,
    /// The auth that says so.
    pub auth: Name,
}

/// One way to find out who sent a request. Shared by the workers, and kept across reloads while its plan is equal.
pub struct Authenticator {
    name: Name,
    challenge: HeaderValue,
    method: Method,
}

enum Method {
    ApiKey(ApiKeyHolders),
    Basic(Basic),
}

/// Why an auth does not admit a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Denial {
    /// The user is unknown or the password wrong: not told apart, not even in a metric.
    BadPassword,
    Malformed,
    Missing,
    Overloaded,
    Repeated,
    UnknownKey,
}

/// What an [`Authenticator`] says at once.
pub(super) enum Answer {
    /// The request is of this consumer or user.
    Admit(Name),
    Deny(Denial),
    /// That takes hashing.
    Verify(Verification),
}

impl Authenticator {
    /// An auth that passwords are hashed for by `pool`.
    #[must_use]
    pub fn new(auth: &Auth, pool: &PasswordPool) -> Self {
        let (method, challenge) = match &auth.method {
            AuthMethod::ApiKey(keys) => {
                let holders = ApiKeyHolders::new(keys);
                let (place, name) = holders.expects();
                let challenge = format!("ApiKey realm=\"tidegate\", {place}={}", quoted(name));
                (Method::ApiKey(holders), challenge)
            }
            AuthMethod::Basic(users) => {
                let challenge = format!("Basic realm={}, charset=\"UTF-8\"", quoted(&users.realm));
                (Method::Basic(Basic::new(users, pool.clone())), challenge)
            }
        };
        let challenge = HeaderValue::try_from(challenge).expect("a quoted string has no control characters");
        Self { name: auth.name.clone(), challenge, method }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Passwords hashed so far.
    #[must_use]
    pub fn hashed(&self) -> u64 {
        match &self.method {
            Method::ApiKey(_) => 0,
            Method::Basic(basic) => basic.hashed(),
        }
    }

    /// What a client is told to send, RFC 9110, section 11.6.1.
    pub(super) fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// Says who sent the request, or what it would take to know.
    pub(super) fn identify(&self, head: &Parts) -> Answer {
        match &self.method {
            Method::ApiKey(holders) => holders.identify(head).map_or_else(Answer::Deny, Answer::Admit),
            Method::Basic(basic) => basic.identify(&head.headers),
        }
    }

    /// Takes its credentials out of the request.
    pub(super) fn conceal(&self, head: &mut Parts) {
        match &self.method {
            Method::ApiKey(holders) => holders.conceal(head),
            Method::Basic(basic) => basic.conceal(head),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Denial {
    pub(super) const ALL: [Self; 6] =
        [Self::BadPassword, Self::Malformed, Self::Missing, Self::Overloaded, Self::Repeated, Self::UnknownKey];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BadPassword => "bad_password",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::Overloaded => "overloaded",
            Self::Repeated => "repeated",
            Self::UnknownKey => "unknown_key",
        }
    }
}

/// RFC 9110, section 5.6.4. Control characters become spaces.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
