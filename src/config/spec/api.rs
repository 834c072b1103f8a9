use schemars::JsonSchema;
use serde::Deserialize;

use super::{Any, Moment, Stage, Written};

/// An API in one version, and how far its life has come. Dates are days (`2027-01-01`, from the start of the day in UTC) or moments
/// (`2027-01-01T09:00:00+01:00`); what they say holds from then on without an edit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of an API")]
#[schemars(rename = "Api")]
pub(in crate::config) struct ApiSpec {
    /// Required. Its version, as it is shown: `1`, `2026-10`.
    pub(in crate::config) version: Option<Written<Any>>,
    /// Where it is in its life as long as no date says otherwise: `beta`, `stable`, `deprecated` (which needs the date `deprecated`) or
    /// `retired` (a 410 instead of what its routes do). Default `stable`.
    pub(in crate::config) stage: Option<Written<Stage>>,
    /// From when on it is deprecated. Responses say it, also before that day: `Deprecation` (RFC 9745).
    pub(in crate::config) deprecated: Option<Written<Moment>>,
    /// From when on it is retired. Responses say it: `Sunset` (RFC 8594).
    pub(in crate::config) sunset: Option<Written<Moment>>,
    /// Where people read about it: a URL, which responses have in `Link` beside the dates.
    pub(in crate::config) link: Option<Written<Any>>,
    /// What to use instead: another entry of `apis`, a URL, or a path. Responses have it in `Link`, and a 410 names it.
    pub(in crate::config) successor: Option<Written<Any>>,
}
