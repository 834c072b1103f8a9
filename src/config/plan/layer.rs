use http::HeaderName;

use crate::base::{Name, Rate, Secret};

/// A named way to say who a client is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Auth {
    /// Its name under `auth`.
    pub name: Name,
    /// How it asks.
    pub method: AuthMethod,
}

/// How an [`Auth`] asks a client who it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum AuthMethod {
    /// A key in a header or a query parameter.
    ApiKey(ApiKeys),
    /// HTTP Basic, RFC 7617.
    Basic(BasicUsers),
}

/// API keys and where clients put them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ApiKeys {
    /// Where the key is.
    pub source: KeySource,
    /// Who has one, sorted by name; a consumer may have several keys.
    pub consumers: Vec<Consumer>,
}

/// Where a client puts its API key.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum KeySource {
    /// A header; removed before the request is forwarded.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
}

/// The holder of an API key.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Consumer {
    /// Its name in limits and logs.
    pub name: Name,
    /// SHA-256 of the key, as `tidegate hash-key` prints it.
    pub digest: [u8; 32],
}

/// HTTP Basic users.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BasicUsers {
    /// Shown by browsers. Default `tidegate`.
    pub realm: String,
    /// Sorted by name.
    pub users: Vec<BasicUser>,
}

/// One HTTP Basic user.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BasicUser {
    /// The user name.
    pub name: Name,
    /// An argon2 (`$argon2id$…`) or bcrypt (`$2y$…`) hash; others are refused by the check.
    pub hash: Secret,
}

/// A rate limit: who shares a bucket, and how fast it fills.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Limit {
    /// Its name under `limits`, whose buckets all its routes share; an inline one is named `ROUTE#1`, `#2`, ...
    pub name: Name,
    /// What is admitted in the long run.
    pub rate: Rate,
    /// What is admitted at once, at least 1. Default: the count of the rate.
    pub burst: u32,
    /// Who shares a bucket.
    pub by: LimitKey,
    /// Buckets kept at once; clients beyond share one more. Default 100,000.
    pub max_keys: u32,
}

/// Who shares a bucket.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum LimitKey {
    /// Everybody.
    Global,
    /// Requests with the same value of a header; those without it share one.
    Header(HeaderName),
    /// The client's address, IPv6 by /64. The default.
    Ip,
    /// The consumer or user that auth found; the route has auth.
    Key,
}
