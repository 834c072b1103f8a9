//! The config as it is meant: every default filled, every reference resolved, every value valid by its type.
//!
//! `Eq + Hash` throughout and no floats, because parts of a plan are the keys by which the registry finds what has a memory
//! (`runtime::registry`): an equal part keeps its object across a reload. For the same reason no file position is in here;
//! those stay with the findings of the check.

mod action;
mod api;
mod balance;
mod health;
mod layer;
mod listener;
mod matching;
mod process;
mod route;
mod text;
mod upstream;
mod wanted;
mod webhook;

use std::{collections::BTreeMap, sync::Arc};

pub use action::{
    Action, FieldValue, Forward, HeaderRules, Mirror, Redirect, Regex, Respond, Rewrite, Side, SplitKey, WhenDown,
};
pub use api::{Api, Stage, Successor};
pub use balance::{Balance, BalanceMode, HashAlgorithm, HashKey, OnFailure, Placing, SameSite, Sticky};
pub use health::{
    Document, Expect, FailureRatio, GrpcProbe, Health, HealthCheck, HttpProbe, Passive, ProbeKind, ProbeTls,
    StatusRange, SuspectCheck, TcpProbe, TlsProbe, WhenAllDown, WhenOut,
};
pub use layer::{ApiKeys, Auth, AuthMethod, BasicUser, BasicUsers, Consumer, KeySource, Limit, LimitKey};
pub use listener::{Bind, ClientLimits, Listener, ProxyProtocol, Tls};
pub use matching::{Conditions, HostPattern, PathPattern, PathRegex, Segment, Template};
pub use process::{AccessLog, Admin, Destination, Dns, Family, Log, LogFormat, LogLevel, Reload, Shutdown, Workers};
pub use route::{Coding, Compression, Retries, RetryOn, Route, Timeouts};
pub use text::{Fact, Piece, Text, TextError};
pub use upstream::{Backend, Host, HostHeader, Protocol, Upstream, UpstreamTls};
pub use wanted::{JsonPath, Pattern, Wanted};
pub use webhook::{EventKind, Webhook};

use crate::base::Name;

/// A whole config, checked. What a snapshot is built from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Plan {
    /// Threads that carry traffic. Needs a restart to change.
    pub workers: Workers,
    /// Probes under way at once; of one upstream, a quarter of them. Default 1,024. Needs a restart to change.
    pub max_probes: usize,
    /// Addresses that accept clients, by name; at least one.
    pub listeners: BTreeMap<Name, Arc<Listener>>,
    /// Groups of backends, by name, the anonymous ones of routes among them.
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// Which requests go where, by name. Order means nothing: precedence is by how specific a pattern is.
    pub routes: BTreeMap<Name, Arc<Route>>,
    /// APIs, by name.
    pub apis: BTreeMap<Name, Arc<Api>>,
    /// How the names of backends are looked up.
    pub dns: Dns,
    /// Where the gateway answers for itself. Needs a restart to change. `None`: switched off with `admin: none`.
    pub admin: Option<Admin>,
    /// One line per request; `None` is off.
    pub access_log: Option<AccessLog>,
    /// Who is told of events.
    pub webhooks: Vec<Webhook>,
    /// What is said on the terminal.
    pub log: Log,
    /// How the process stops.
    pub shutdown: Shutdown,
    /// How edits are picked up.
    pub reload: Reload,
}
