use schemars::JsonSchema;
use serde::Deserialize;

use super::{Any, By, Count, File, KeyHash, Named, OneOrMany, PasswordHash, Rate, Written};

/// A way to say who a client is: exactly one of the fields.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "`api_key` or `basic`")]
#[schemars(rename = "Auth")]
pub(in crate::config) struct AuthSpec {
    /// A key in a header or a query parameter.
    pub(in crate::config) api_key: Option<ApiKeySpec>,
    /// User name and password, HTTP Basic.
    pub(in crate::config) basic: Option<BasicSpec>,
}

/// API keys: where clients put them, and who has one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of api_key")]
#[schemars(rename = "ApiKey")]
pub(in crate::config) struct ApiKeySpec {
    /// The header that holds the key; removed before the request is forwarded. Either this or `query`.
    pub(in crate::config) header: Option<Written<Any>>,
    /// The query parameter that holds the key. Either this or `header`.
    pub(in crate::config) query: Option<Written<Any>>,
    /// Who has a key: `name: sha256:HEX`, or a list of hashes. `tidegate hash-key` prints one. `${…}` is not
    /// expanded here.
    pub(in crate::config) keys: Option<Named<OneOrMany<KeyHash>>>,
    /// A YAML file of more such entries, from the folder of this file.
    pub(in crate::config) keys_file: Option<Written<File>>,
}

/// HTTP Basic users.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of basic")]
#[schemars(rename = "Basic")]
pub(in crate::config) struct BasicSpec {
    /// The name that browsers show. Default `tidegate`.
    pub(in crate::config) realm: Option<Written<Any>>,
    /// Who has a password: `name: HASH`, argon2 or bcrypt. `tidegate hash-password` prints one. `${…}` is not expanded here.
    pub(in crate::config) users: Option<Named<Written<PasswordHash>>>,
    /// A file of `name:HASH` lines (htpasswd with bcrypt), from the folder of this file.
    pub(in crate::config) users_file: Option<Written<File>>,
}

/// A rate limit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a limit")]
#[schemars(rename = "Limit")]
pub(in crate::config) struct LimitSpec {
    /// Required. What is admitted in the long run: `N/s`, `N/min`, `N/h`, `N/d`.
    pub(in crate::config) rate: Option<Written<Rate>>,
    /// What is admitted at once, at least 1. Default: the count of the rate.
    pub(in crate::config) burst: Option<Written<Count>>,
    /// Who shares a bucket: `ip`, `header NAME`, `key` (who auth found) or `global`. Default `ip`.
    pub(in crate::config) by: Option<Written<By>>,
    /// Buckets kept at once, 1 to 10000000; clients beyond share one more. Default `100000`.
    pub(in crate::config) max_keys: Option<Written<Count>>,
}
