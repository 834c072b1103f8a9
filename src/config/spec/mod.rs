//! The config as written: one struct per block of the file.
//!
//! Doc comments here are written for operators: they become the JSON Schema and `config/reference.md`. Every field is optional
//! to serde, because "it is missing" is a finding like every other; every scalar is a [`Written`] text that the check parses.
//! Field names follow the rules of the file: nouns, units in values, no repeated namespace.

mod access;
mod action;
mod api;
mod balance;
mod health;
mod home;
mod process;
mod route;
mod upstream;
mod written;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use access::{ApiKeySpec, AuthSpec, BasicSpec, LimitSpec};
pub(super) use action::{HeadersSpec, MirrorSpec, RedirectSpec, RespondSpec, RewriteRegexSpec, RewriteSpec, SplitSpec};
pub(super) use api::ApiSpec;
pub(super) use balance::{BalanceSpec, StickySpec};
pub(super) use health::{ActiveSpec, ExpectSpec, HealthSpec, PassiveSpec};
pub(super) use home::{home, is_planned};
pub(super) use process::{
    AdminSpec, CertSpec, DnsSpec, ListenerSpec, ListenerTlsSpec, ReloadSpec, ShutdownSpec, TelemetrySpec, WebhookSpec,
};
pub(super) use route::{CompressSpec, Defaults, RetriesSpec, RouteSpec};
pub(super) use upstream::{BackendSpec, UpstreamSpec, UpstreamTlsSpec};
pub(super) use written::{
    AccessFormat, Address, AdminShort, Algorithm, Any, Balance, Bind, Blocks, By, Cidr, ClientAuth, Coding, Count,
    DnsServer, DocumentUse, Duration, EventKind, Family, File, Flag, Form, HealthShort, Host, HostHeader, HostPattern,
    Ip, KeyHash, LimitRef, List, Listen, LogFormat, LogLevel, Method, Moment, Name, Named, NewPath, NewUrl, OnFailure,
    OneOrMany, OneStatus, OverPercent, PassiveShort, PasswordHash, PathPattern, Percent, ProbeTlsShort, ProbeType,
    Protocol, ProxyProtocol, Rate, RedirectStatus, Regex, RetryOn, SameSite, Scheme, ShortOr, SizeOrNone, SocketMode,
    Stage, Status, Sticky, SuspectCheck, TlsVersion, To, Upgrade, Version, Wanted, WhenAllDown, WhenDown, WhenOut,
    Workers, Written,
};

/// A Tidegate config. Keys that start with `x-` are free space for YAML anchors.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a config")]
#[schemars(rename = "Config", extend("patternProperties" = { "^x-": true }))]
pub(super) struct Spec {
    /// The version of this format. Default `1`, the only one.
    pub(super) version: Option<Written<Version>>,
    /// A listener named `main`, in short: a port on all IPv4 addresses (`8080` or `":8080"`), or an address. It may stand beside
    /// `listeners`, which then have no `main` of their own.
    pub(super) listen: Option<Written<Listen>>,
    /// Addresses that accept clients, by name.
    pub(super) listeners: Option<Named<ListenerSpec>>,
    /// Threads that carry traffic: `auto` (one per core that the process may use) or 1 to 1024. Default `auto`. Needs a restart.
    pub(super) workers: Option<Written<Workers>>,
    /// Probes under way at once, 1 to 100000; of one upstream, a quarter of them. Default `1024`. Needs a restart.
    pub(super) max_probes: Option<Written<Count>>,
    /// What every route starts from.
    pub(super) defaults: Option<Defaults>,
    /// Named groups of interchangeable backends.
    pub(super) upstreams: Option<Named<UpstreamSpec>>,
    /// Required. Which requests, and what happens to them. The most specific route wins; the order means nothing.
    pub(super) routes: Option<List<RouteSpec>>,
    /// Ways to say who a client is, by name. A route asks for them with `auth`.
    pub(super) auth: Option<Named<AuthSpec>>,
    /// Rate limits, by name. Routes that name the same limit share its buckets.
    pub(super) limits: Option<Named<LimitSpec>>,
    /// APIs with a version and a stage of their lives, by name. A route belongs to one by its `api`.
    pub(super) apis: Option<Named<ApiSpec>>,
    /// How the names of backends are looked up.
    pub(super) dns: Option<DnsSpec>,
    /// Where the gateway answers for itself, or `none`. Needs a restart.
    pub(super) admin: Option<ShortOr<AdminShort, AdminSpec>>,
    /// Logs.
    pub(super) telemetry: Option<TelemetrySpec>,
    /// How the process stops.
    pub(super) shutdown: Option<ShutdownSpec>,
    /// How edits of this file are picked up.
    pub(super) reload: Option<ReloadSpec>,
}
