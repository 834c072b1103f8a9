use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Any, Count, Duration, Host, Name, Named, NewPath, NewUrl, OneOrMany, OneStatus, Percent, RedirectStatus, Regex,
    Scheme, SizeOrNone, Sticky, WhenDown, Written,
};

/// Where the client is sent: `to`, or the parts of the URL that are to be others. The rest stays as it was in the request, and so
/// does the query. In a path, `{name}` is what the route's path has captured; a brace that is meant is written twice.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of redirect")]
#[schemars(rename = "Redirect")]
pub(in crate::config) struct RedirectSpec {
    /// A path on the same host (`/orders/{id}`), or a whole URL. It may have a query, which then stands for the request's.
    pub(in crate::config) to: Option<Written<NewUrl>>,
    /// `http` or `https`. Default: the request's, also as a trusted proxy says it (`X-Forwarded-Proto`).
    pub(in crate::config) scheme: Option<Written<Scheme>>,
    /// A host, without a port. Default: the request's.
    pub(in crate::config) host: Option<Written<Host>>,
    /// A port, 1 to 65535. Default: the usual one where `scheme` is given, else the one in the request's `Host`.
    pub(in crate::config) port: Option<Written<Count>>,
    /// The whole path.
    pub(in crate::config) path: Option<Written<NewPath>>,
    /// What stands in place of the prefix that the route names (`/a` of `path: /a/*`).
    pub(in crate::config) replace_prefix: Option<Written<NewPath>>,
    /// `301`, `302`, `303`, `307` or `308`. Default `302`.
    pub(in crate::config) status: Option<Written<RedirectStatus>>,
}

/// An answer of the gateway's own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of respond")]
#[schemars(rename = "Respond")]
pub(in crate::config) struct RespondSpec {
    /// 200 to 599. Default `200`.
    pub(in crate::config) status: Option<Written<OneStatus>>,
    /// Up to 64 KiB of text. Default: none.
    pub(in crate::config) body: Option<Written<Any>>,
    /// Default `text/plain; charset=utf-8` where there is a body.
    pub(in crate::config) content_type: Option<Written<Any>>,
}

/// The path that backends see: one of these. What comes out is brought into its normal form, and refused (400) where it would
/// have `.` or `..` segments or could be read in two ways. The query stays as it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of rewrite")]
#[schemars(rename = "Rewrite")]
pub(in crate::config) struct RewriteSpec {
    /// A prefix that is taken off, by whole segments. Backends learn it from `X-Forwarded-Prefix`.
    pub(in crate::config) strip_prefix: Option<Written<NewPath>>,
    /// What stands in place of the prefix that the route names (`/a` of `path: /a/*`).
    pub(in crate::config) replace_prefix: Option<Written<NewPath>>,
    /// The whole path: `/x/{id}`, where the route's path captures `id`.
    pub(in crate::config) path: Option<Written<NewPath>>,
    /// Another text wherever an expression matches.
    pub(in crate::config) regex: Option<RewriteRegexSpec>,
}

/// Another text wherever an expression matches the path.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields match and to")]
#[schemars(rename = "RewriteRegex")]
pub(in crate::config) struct RewriteRegexSpec {
    /// Required. The expression: `^/v(?<version>[0-9]+)/`.
    pub(in crate::config) r#match: Option<Written<Regex>>,
    /// Required. What stands there instead, with the groups that have a name: `/api/{version}/`.
    pub(in crate::config) to: Option<Written<Any>>,
}

/// Changes of fields: first some go, then some are set, then some are added. In a value, `{name}` is what the route's path has
/// captured, or `{client_ip}`, `{host}`, `{request_id}`, `{route}`; a brace that is meant is written twice. Fields that frame a
/// message or concern one connection, `Host` and `X-Request-Id` are not changed here.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields set, add and remove")]
#[schemars(rename = "Headers")]
pub(in crate::config) struct HeadersSpec {
    /// Fields that have this one value then.
    pub(in crate::config) set: Option<Named<Written<Any>>>,
    /// Fields that have this value besides.
    pub(in crate::config) add: Option<Named<Written<Any>>>,
    /// Names of fields that go.
    pub(in crate::config) remove: Option<OneOrMany<Any>>,
}

/// How requests are divided where `to` has weights.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of split")]
#[schemars(rename = "Split")]
pub(in crate::config) struct SplitSpec {
    /// `header NAME` or `cookie NAME`: requests with the same value go to the same upstream, here and on every other gateway with the
    /// same weights; where weights change, no more of them move than must. Default: chance decides for each request, as it does
    /// for those without a value.
    pub(in crate::config) sticky: Option<Written<Sticky>>,
    /// What becomes of a request whose upstream has no eligible backend: `stay` refuses it (503), `other` sends it to another one.
    /// Default `stay`.
    pub(in crate::config) when_down: Option<Written<WhenDown>>,
}

/// Copies of requests go to another upstream, too. Clients hear nothing of it: what comes back is thrown away, and what goes wrong is
/// counted in `tidegate_mirrored_total` alone. A copy has `X-Mirrored: 1` in its head. Upgrades are not copied.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of mirror")]
#[schemars(rename = "Mirror")]
pub(in crate::config) struct MirrorSpec {
    /// Required. The name of an upstream that is not one of the route's own.
    pub(in crate::config) to: Option<Written<Name>>,
    /// How many of the requests, by chance. Default `100%`.
    pub(in crate::config) share: Option<Written<Percent>>,
    /// Requests with a larger body are not copied. Up to `1MiB`. Default `64KiB`.
    pub(in crate::config) max_body: Option<Written<SizeOrNone>>,
    /// For all of a copy, the wait for the client's body included: `1ms` to `1h`. Default `5s`.
    pub(in crate::config) timeout: Option<Written<Duration>>,
    /// Copies under way at once, 1 to 100000; those above are dropped. Default `100`.
    pub(in crate::config) max_in_flight: Option<Written<Count>>,
}
