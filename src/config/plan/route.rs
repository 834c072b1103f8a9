use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::Method;

use super::{Action, Auth, Conditions, HeaderRules, HostPattern, Limit, PathPattern, StatusRange};
use crate::base::{Name, Percent, Size};

/// Which requests, and what happens to them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Route {
    /// As written, else made of its host and path patterns.
    pub name: Name,
    /// Hosts that match, sorted; empty is any.
    pub hosts: Vec<HostPattern>,
    /// Paths that match.
    pub path: PathPattern,
    /// What requests must be besides.
    pub conditions: Conditions,
    /// Listeners that it serves; `None` is all.
    pub listeners: Option<BTreeSet<Name>>,
    /// What it leads to.
    pub action: Action,
    /// What is changed of the head that a backend gets.
    pub request_headers: Option<HeaderRules>,
    /// What is changed of the head that a client gets, whoever made it but for the gateway's faults.
    pub response_headers: Option<HeaderRules>,
    /// The API that it belongs to, which the plan has.
    pub api: Option<Name>,
    /// Any one of them admits; empty asks nobody.
    pub auth: Vec<Arc<Auth>>,
    /// All of them must admit.
    pub limits: Vec<Arc<Limit>>,
    /// Its deadlines.
    pub timeouts: Timeouts,
    /// What may be tried again, and how often.
    pub retries: Retries,
    /// Protocols that a connection may be upgraded to, in lower case. Default `websocket`.
    pub upgrades: Vec<String>,
    /// How responses are made smaller; `None` leaves them as they are.
    pub compress: Option<Compression>,
    /// The largest request body; `None` is unlimited. Default 10MiB.
    pub max_body: Option<Size>,
    /// `/health` is `unhealthy` when an upstream of this route is down.
    pub critical: bool,
}

/// How responses are made smaller.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Compression {
    /// What may be used, most preferred first.
    pub codings: Vec<Coding>,
    /// Bodies that are known to be smaller are left as they are. Default 1 KiB.
    pub min_size: Size,
    /// Media types: `text/html`, `text/*`, `*+json`, in lower case.
    pub types: Vec<String>,
}

/// A content coding.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        let types = [
            "text/*",
            "*+json",
            "*+xml",
            "application/javascript",
            "application/json",
            "application/wasm",
            "application/x-ndjson",
            "application/xml",
            "application/vnd.ms-fontobject",
            "font/otf",
            "font/ttf",
            "image/bmp",
            "image/x-icon",
        ];
        Self {
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            min_size: Size(1024),
            types: types.map(str::to_owned).to_vec(),
        }
    }
}

impl Compression {
    /// Whether a `Content-Type` is one of these. Streams of events and of calls never are: their pieces are messages.
    #[must_use]
    pub fn covers(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let Ok(essence) = std::str::from_utf8(essence).map(str::to_ascii_lowercase) else { return false };
        if essence == "text/event-stream" || essence.starts_with("application/grpc") {
            return false;
        }
        self.types.iter().any(|pattern| match (pattern.strip_suffix("/*"), pattern.strip_prefix("*+")) {
            (Some(kind), _) => essence.split_once('/').is_some_and(|(own, _)| own == kind),
            (None, Some(suffix)) => essence.rsplit_once('+').is_some_and(|(_, own)| own == suffix),
            (None, None) => essence == *pattern,
        })
    }
}

/// A route's deadlines. Zero switches one off.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Timeouts {
    /// For a connection to a backend, the wait for a free one included. Default 2 s.
    pub connect: Duration,
    /// From the end of the request to the head of the response, per attempt. Default zero: bounded by `request` alone.
    pub response_header: Duration,
    /// The whole exchange, retries and bodies included. Default 30 s.
    pub request: Duration,
    /// Between two reads of the client's body, until the response begins. Default 30 s.
    pub client_body: Duration,
    /// How long nothing may come through a tunnel. Default 1 h.
    pub tunnel: Duration,
}

/// What may be tried again on another backend.
///
/// Apart from it, a request of which no byte was written goes to another backend for every method, and counts as no retry.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Retries {
    /// Extra attempts. Default 1. Zero: none.
    pub attempts: u8,
    /// The failures that allow one. Default connect and reset, and timeout where there is one.
    pub when: BTreeSet<RetryOn>,
    /// The statuses that allow one, 400 to 599. Default 502, 503, 504.
    pub status: Vec<StatusRange>,
    /// The statuses of gRPC that allow one, in a head that ends the response. Default none.
    pub grpc: BTreeSet<u16>,
    /// The methods that allow one, sorted by name. Default GET, HEAD, OPTIONS, PUT, DELETE.
    pub methods: Vec<Method>,
    /// From the choice of a backend to the head of its response. Default zero: bounded by the route's deadlines alone.
    pub timeout: Duration,
    /// The largest request body of which a copy is kept for another attempt, in bytes, up to 1 MiB. Default 0: none.
    pub body: u32,
    /// The longest wait before the first retry that waits; doubled with each, up to ten times. Default 25 ms.
    pub backoff: Duration,
    /// The most retries that the upstream may get, as a part of its requests over the last 10 s. Default 20%.
    pub budget: Percent,
    /// Retries in 10 s that need no budget. Default 100.
    pub min_retries: u32,
    /// When a second backend is asked as well. Default zero: never.
    pub hedge_after: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        let only = |status| StatusRange { first: status, last: status };
        Self {
            attempts: 1,
            when: [RetryOn::Connect, RetryOn::Reset].into(),
            status: [502, 503, 504].map(only).to_vec(),
            grpc: BTreeSet::new(),
            methods: [Method::DELETE, Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT].to_vec(),
            timeout: Duration::ZERO,
            body: 0,
            // Envoy's: full jitter below 25 ms, up to ten times that.
            backoff: Duration::from_millis(25),
            // Finagle's and Linkerd's: a fifth of the requests over ten seconds, and ten a second whatever comes.
            budget: Percent::whole(20),
            min_retries: 100,
            hedge_after: Duration::ZERO,
        }
    }
}

/// A failure that allows a retry.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RetryOn {
    /// No connection could be made in time.
    Connect,
    /// The connection ended before the head of a response.
    Reset,
    /// The head of a response did not come in time.
    Timeout,
}
