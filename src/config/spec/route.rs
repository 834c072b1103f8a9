use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Any, Balance, BalanceSpec, Coding, Count, Duration, Flag, HeadersSpec, HealthShort, HealthSpec, HostPattern,
    LimitRef, List, Method, MirrorSpec, Name, Named, OneOrMany, PathPattern, Percent, RedirectSpec, RespondSpec,
    RetryOn, RewriteSpec, ShortOr, SizeOrNone, SplitSpec, To, Upgrade, Wanted, Written,
};

/// Which requests, and what happens to them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a route")]
#[schemars(rename = "Route")]
pub(in crate::config) struct RouteSpec {
    /// Its name in logs and metrics. Default: its host and path, like `api.example.com/orders/*`.
    pub(in crate::config) name: Option<Written<Name>>,
    /// Hosts: `api.example.com`, `"*.example.com"`, or a list. Default: any.
    pub(in crate::config) host: Option<OneOrMany<HostPattern>>,
    /// Required. `/a` matches exactly, `/a/*` matches `/a` and everything below it, `/*` everything; in `/u/{id}` and `/u/{id}/*` a
    /// segment is captured; `"~ ^/v[0-9]+/"` is a regular expression, matched from the start. The most specific route has a
    /// request, whatever the order: an exact path, then the longest text, then captures, then expressions, then `/*`.
    pub(in crate::config) path: Option<Written<PathPattern>>,
    /// Methods that match: `[GET, POST]`. Default: any.
    pub(in crate::config) methods: Option<List<Written<Method>>>,
    /// Header fields that must be there, with this as their first value: a text, or a regular expression like `"~ ^v[12]$"`. Of routes
    /// with the same path those that ask for more are looked at first.
    pub(in crate::config) headers: Option<Named<Written<Wanted>>>,
    /// Parameters of the query that must be there, decoded, with this as their first value: a text or an expression.
    pub(in crate::config) query: Option<Named<Written<Wanted>>>,
    /// The listeners that it serves. Default: all.
    pub(in crate::config) listeners: Option<List<Written<Name>>>,
    /// This, `redirect` or `respond` is required. Where requests go: the name of an upstream, an address, a list of addresses, or
    /// several upstreams with weights: `{ orders: 95, orders-v2: 5 }` (0 to 1000000; each gets its part of the sum).
    pub(in crate::config) to: Option<To>,
    /// How requests are divided where `to` has weights.
    pub(in crate::config) split: Option<SplitSpec>,
    /// Copies of requests go to another upstream, too.
    pub(in crate::config) mirror: Option<MirrorSpec>,
    /// The client is sent to another URL.
    pub(in crate::config) redirect: Option<RedirectSpec>,
    /// The gateway answers, always the same.
    pub(in crate::config) respond: Option<RespondSpec>,
    /// The path that backends see. Default: as it was matched.
    pub(in crate::config) rewrite: Option<RewriteSpec>,
    /// Changes of the head that backends get.
    pub(in crate::config) request_headers: Option<HeadersSpec>,
    /// Changes of the head that clients get, whether it comes from a backend, from `redirect` or from `respond`. What the gateway
    /// says where something went wrong stays as it is.
    pub(in crate::config) response_headers: Option<HeadersSpec>,
    /// The health check of the addresses in `to`: `/path`, `tcp`, `none`, or fields.
    pub(in crate::config) health: Option<ShortOr<HealthShort, HealthSpec>>,
    /// How one of the addresses in `to` is chosen: a mode, or fields, as in an upstream. Default `round_robin`.
    pub(in crate::config) balance: Option<ShortOr<Balance, BalanceSpec>>,
    /// Names under the top level's `auth`; any one of them admits. Default: nobody is asked.
    pub(in crate::config) auth: Option<OneOrMany<Name>>,
    /// Names under `limits`, or rates like `10/s per ip`; all of them must admit. Default: no limit.
    pub(in crate::config) limit: Option<OneOrMany<LimitRef>>,
    /// Deadlines of this route.
    pub(in crate::config) timeouts: Option<RouteTimeouts>,
    /// What may be tried again.
    pub(in crate::config) retries: Option<RetriesSpec>,
    /// Whether responses are compressed for clients that can take it: `true`, `false` or fields. Not for routes whose responses
    /// hold a secret beside what somebody else may choose: sizes tell of it (BREACH). Default `false`.
    pub(in crate::config) compress: Option<ShortOr<Flag, CompressSpec>>,
    /// Protocols that a client may upgrade its connection to, or `none`. Default `websocket`.
    pub(in crate::config) upgrades: Option<OneOrMany<Upgrade>>,
    /// The largest request body, or `none`. Default `10MiB`, or what `defaults` says.
    pub(in crate::config) max_body: Option<Written<SizeOrNone>>,
    /// Whether `/health` is unhealthy as soon as this route's upstream is down. Default `false`.
    pub(in crate::config) critical: Option<Written<Flag>>,
    /// The API that it belongs to: a name under `apis`. Default: none.
    pub(in crate::config) api: Option<Written<Name>>,
}

/// How responses are compressed: never those that are compressed already, partial, streams of events, or `no-transform`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "true, false or the fields of compress")]
#[schemars(rename = "Compress")]
pub(in crate::config) struct CompressSpec {
    /// What is used, of several that a client likes as much the first: `zstd`, `br`, `gzip`. Default: all, in this order.
    pub(in crate::config) codings: Option<OneOrMany<Coding>>,
    /// Bodies that are known to be smaller are left as they are. Up to `1GiB`. Default `1KiB`.
    pub(in crate::config) min_size: Option<Written<SizeOrNone>>,
    /// Media types: `text/html`, `text/*`, `"*+json"`. Default: text, JSON, XML, JavaScript, WebAssembly, and fonts and images that
    /// are not compressed in themselves.
    pub(in crate::config) types: Option<OneOrMany<Any>>,
}

/// What every route starts from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of defaults")]
pub(in crate::config) struct Defaults {
    /// Deadlines.
    pub(in crate::config) timeouts: Option<DefaultTimeouts>,
    /// What may be tried again.
    pub(in crate::config) retries: Option<RetriesSpec>,
    /// The largest request body, or `none`. Default `10MiB`.
    pub(in crate::config) max_body: Option<Written<SizeOrNone>>,
    /// Changes of the head that backends get. What a route says of the same field is said instead.
    pub(in crate::config) request_headers: Option<HeadersSpec>,
    /// Changes of the head that clients get. What a route says of the same field is said instead.
    pub(in crate::config) response_headers: Option<HeadersSpec>,
}

/// Deadlines of every route, and of connections. Up to `1d`; `0s` switches one off.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of timeouts")]
pub(in crate::config) struct DefaultTimeouts {
    /// For a connection to a backend, the wait for a free one included. Default `2s`.
    pub(in crate::config) connect: Option<Written<Duration>>,
    /// From the end of the request to the head of the response, per attempt. Default `0s`.
    pub(in crate::config) response_header: Option<Written<Duration>>,
    /// The whole exchange, retries and bodies included: a response that goes on for longer, as a stream of events, needs more, or
    /// `0s`. Default `30s`.
    pub(in crate::config) request: Option<Written<Duration>>,
    /// How long an idle connection to a backend is kept. Default `60s`.
    pub(in crate::config) idle: Option<Written<Duration>>,
    /// From the first byte of a client's request to the end of its head. Default `10s`.
    pub(in crate::config) client_header: Option<Written<Duration>>,
    /// How long a client's connection may be silent between requests. Default `75s`.
    pub(in crate::config) client_idle: Option<Written<Duration>>,
    /// Between two reads of a client's body, until the response begins. Default `30s`.
    pub(in crate::config) client_body: Option<Written<Duration>>,
    /// How long nothing may come through an upgraded connection (a WebSocket), to which `request` does not apply. Default `1h`.
    pub(in crate::config) tunnel: Option<Written<Duration>>,
}

/// Deadlines of one route. Up to `1d`; `0s` switches one off. Default: what `defaults` says.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of timeouts")]
pub(in crate::config) struct RouteTimeouts {
    /// For a connection to a backend, the wait for a free one included.
    pub(in crate::config) connect: Option<Written<Duration>>,
    /// From the end of the request to the head of the response, per attempt.
    pub(in crate::config) response_header: Option<Written<Duration>>,
    /// The whole exchange, retries and bodies included. The `grpc-timeout` of a gRPC client counts, too, where it is sooner.
    pub(in crate::config) request: Option<Written<Duration>>,
    /// Between two reads of a client's body, until the response begins.
    pub(in crate::config) client_body: Option<Written<Duration>>,
    /// How long nothing may come through an upgraded connection (a WebSocket), to which `request` does not apply.
    pub(in crate::config) tunnel: Option<Written<Duration>>,
}

/// What may be tried again, on another backend when there is one: requests without a body, or with a small one where `body` says so.
/// What was never sent, or what an HTTP/2 backend gives back unbegun (with its body, up to 64 KiB), is sent again whatever is said
/// here. `docs/retries.md` says more.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of retries")]
#[schemars(rename = "Retries")]
pub(in crate::config) struct RetriesSpec {
    /// Extra attempts, 0 to 10. Default `1`.
    pub(in crate::config) attempts: Option<Written<Count>>,
    /// What allows one: `connect`, `reset` (no head of a response came), `timeout` (none in time), statuses from 400 (`503`, `502-504`),
    /// and where a call of gRPC ended before it began `grpc_cancelled`, `grpc_deadline_exceeded`, `grpc_internal`,
    /// `grpc_resource_exhausted`, `grpc_unavailable`. Default: `connect`, `reset`, `502`, `503`, `504`, and `timeout` beside a `timeout`.
    pub(in crate::config) when: Option<List<Written<RetryOn>>>,
    /// Methods that allow one. Default: `GET`, `HEAD`, `OPTIONS`, `PUT`, `DELETE`.
    pub(in crate::config) methods: Option<List<Written<Method>>>,
    /// For one attempt, from the choice of its backend to the head of the response, within `timeouts.request`. Up to `1d`; `0s` is
    /// none. Default `0s`.
    pub(in crate::config) timeout: Option<Written<Duration>>,
    /// Request bodies up to this size, up to `1MiB`, are kept until a response begins, so that they can be sent again; or `none`.
    /// Default `none`.
    pub(in crate::config) body: Option<Written<SizeOrNone>>,
    /// The wait before a second retry, and before one on a backend that was asked already: a random part of this, which doubles with
    /// each retry up to ten times. Up to `10s`. Default `25ms`.
    pub(in crate::config) backoff: Option<Written<Duration>>,
    /// The most retries that the upstream may get, as a part of its requests over the last 10 s. Default `20%`.
    pub(in crate::config) budget: Option<Written<Percent>>,
    /// Retries in 10 s that need no budget. Up to 1,000,000. Default `100`.
    pub(in crate::config) min_retries: Option<Written<Count>>,
    /// A GET or HEAD that has no response after this is sent to a second backend as well, and whoever answers first is heard. Counts
    /// against the budget. Up to `1d`; `0s` is never. Default `0s`.
    pub(in crate::config) hedge_after: Option<Written<Duration>>,
}
