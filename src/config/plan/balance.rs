use std::{fmt, time::Duration};

use http::HeaderName;

use crate::base::Secret;

/// How one of the eligible backends is chosen.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Balance {
    /// For a request that is bound to none.
    pub mode: BalanceMode,
    /// Clients stay with the backend that they were first sent to.
    pub sticky: Option<Sticky>,
}

/// How a backend is chosen for a request that is bound to none.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum BalanceMode {
    /// Whoever has the fewest requests in flight, for its weight.
    LeastRequests,
    /// Of two at random, the one that answers sooner, for what it has to do.
    P2c,
    /// At random.
    Random,
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// What the request says decides.
    Hash(Placing),
}

/// How requests that say the same are kept together.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Placing {
    /// What of a request is looked at.
    pub by: HashKey,
    /// How what is seen leads to a backend.
    pub algorithm: HashAlgorithm,
    /// Requests in flight that a backend may have, in percent of its share of all, 100 to 1,000; `None` is unlimited.
    pub bounded_load: Option<u16>,
}

/// What of a request a hash is made of.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum HashKey {
    /// The value of a cookie.
    Cookie(String),
    /// The first value of a header.
    Header(HeaderName),
    /// The client's address.
    Ip,
    /// The first value of a query parameter, as it is written.
    Query(String),
}

/// How a hash leads to a backend.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum HashAlgorithm {
    /// A table in which everybody has an equal part for its weight.
    Maglev,
    /// The next of many points that each backend has on a circle.
    #[default]
    Ring,
}

/// In short, as it is written: `round_robin`, `hash header x-user`, `p2c, sticky by cookie sid`.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mode {
            BalanceMode::LeastRequests => f.write_str("least_requests"),
            BalanceMode::P2c => f.write_str("p2c"),
            BalanceMode::Random => f.write_str("random"),
            BalanceMode::RoundRobin => f.write_str("round_robin"),
            BalanceMode::Hash(placing) => match &placing.by {
                HashKey::Cookie(name) => write!(f, "hash cookie {name}"),
                HashKey::Header(name) => write!(f, "hash header {name}"),
                HashKey::Ip => f.write_str("hash ip"),
                HashKey::Query(name) => write!(f, "hash query {name}"),
            },
        }?;
        self.sticky.as_ref().map_or(Ok(()), |sticky| write!(f, ", sticky by cookie {}", sticky.cookie))
    }
}

/// A cookie by which clients stay with a backend.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// What its values are signed with.
    pub key: Secret,
    /// How long browsers keep it; `None` is until they are closed.
    pub ttl: Option<Duration>,
    /// The paths that it is sent for. Default `/`.
    pub path: String,
    /// Whether it is sent with requests from other sites. Default lax.
    pub same_site: SameSite,
    /// Whether it is sent over TLS only; `None`: if it was given over TLS.
    pub secure: Option<bool>,
    /// Whether scripts cannot see it. Default true.
    pub http_only: bool,
    /// What happens to a client whose backend is out.
    pub on_failure: OnFailure,
}

/// Whether a cookie is sent with requests from other sites.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum SameSite {
    /// Where a link is followed.
    #[default]
    Lax,
    /// Always.
    None,
    /// Never.
    Strict,
}

/// What happens to a client whose backend is out.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum OnFailure {
    /// It gets another one, and stays with that.
    #[default]
    Another,
    /// It is refused until its backend is back.
    Fail,
}

impl Balance {
    /// Whether what backends take to answer is asked for.
    #[must_use]
    pub const fn watches_latency(&self) -> bool {
        matches!(self.mode, BalanceMode::P2c)
    }
}
