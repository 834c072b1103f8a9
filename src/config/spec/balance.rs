use schemars::JsonSchema;
use serde::Deserialize;

use super::{Algorithm, Any, Balance, Duration, Flag, OnFailure, OverPercent, SameSite, Written};

/// How a backend is chosen, where a mode alone does not say it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a balance mode or the fields of balance")]
#[schemars(rename = "Balance")]
pub(in crate::config) struct BalanceSpec {
    /// How a backend is chosen for a request that no cookie binds to one. `round_robin`: in turn, as often as its weight says, and
    /// evenly spread. `random`: by chance, as often as its weight says. `least_requests`: whoever has the fewest requests in
    /// flight for its weight; among more than 16, the better of two by chance. `p2c`: of two by chance, the one that has answered
    /// sooner lately, for what it has in flight and its weight. `hash header NAME`, `hash cookie NAME`, `hash query NAME` and
    /// `hash ip`: requests that say the same go to the same backend, in every process and version, as long as it is eligible;
    /// those of one that goes are spread over the others. Backends are told apart by their names. A request that says nothing is
    /// sent in turn. Default `round_robin`.
    pub(in crate::config) mode: Option<Written<Balance>>,
    /// Of `hash`: with `ring`, only requests of a backend that goes, or for one that comes, move; `maglev` has more equal shares,
    /// and moves a few more. Default `ring`.
    pub(in crate::config) algorithm: Option<Written<Algorithm>>,
    /// Of `hash`: the most requests in flight that a backend may have, in parts of its share of all that are, `100%` to `1000%`;
    /// what is above goes to the next in order. `125%` is a good bound. Default: no bound.
    pub(in crate::config) bounded_load: Option<Written<OverPercent>>,
    /// Keeps a client at the backend that it was first sent to, by a cookie of the gateway's own, which backends never see.
    pub(in crate::config) sticky: Option<StickySpec>,
}

/// A cookie by which clients stay with a backend. A backend that is drained, ejected or down gets none of them: `on_failure` says what
/// happens to them. A cookie that is forged, or of a backend that is in this file no more, is as good as none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of sticky")]
#[schemars(rename = "Sticky")]
pub(in crate::config) struct StickySpec {
    /// Required. The name of the cookie. Upstreams that clients see under one host need different ones.
    pub(in crate::config) cookie: Option<Written<Any>>,
    /// What cookies are signed with, at least 16 characters: `"${file:sticky.key}"`. Gateways with the same key know each
    /// other's cookies; with another one, clients are bound anew. Default: made from the name of the upstream, which keeps clients
    /// where they are over restarts, but whoever knows the names of upstream and backends can choose among them.
    pub(in crate::config) key: Option<Written<Any>>,
    /// How long browsers keep the cookie, `1s` to `400d`. Default: until they are closed.
    pub(in crate::config) ttl: Option<Written<Duration>>,
    /// The path under which browsers send it. Default `/`.
    pub(in crate::config) path: Option<Written<Any>>,
    /// Whether browsers send it with requests that other sites cause: `strict` never, `lax` where a link is followed, `none`
    /// always, which needs `secure: true`. Default `lax`.
    pub(in crate::config) same_site: Option<Written<SameSite>>,
    /// Whether browsers send it over TLS only. Default: if the client has come over TLS. Behind a proxy that ends TLS, write
    /// `true`.
    pub(in crate::config) secure: Option<Written<Flag>>,
    /// Whether scripts in a page cannot see it. Default `true`.
    pub(in crate::config) http_only: Option<Written<Flag>>,
    /// What happens to a client whose backend gets no requests, or has no place for one: `another` binds it to another, `fail` refuses
    /// it with a 503 until the backend is back. Default `another`.
    pub(in crate::config) on_failure: Option<Written<OnFailure>>,
}
