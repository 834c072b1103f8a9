//! The life of an API: who calls it, what responses say of its end, and what there is after it.
//!
//! After the layers: strangers keep their 401, and who calls is known by name. A route without an API costs one comparison.

use http::{HeaderMap, HeaderName, header::LINK};

use super::{Exchange, respond::Refused};
use crate::{
    base::Timestamp,
    config::plan::Stage,
    runtime::{Api, Route},
};

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Counts a request that was admitted, and refuses it where its API is retired.
pub(super) fn enter(exchange: &Exchange, route: &Route) -> Result<(), Refused> {
    let Some(api) = &route.api else { return Ok(()) };
    match exchange.with_identity(|identity| api.called(exchange.worker(), Timestamp::now(), identity)) {
        Stage::Beta | Stage::Stable | Stage::Deprecated => Ok(()),
        Stage::Retired => Err(Refused::retired(api)),
    }
}

/// Says in a response how long the API will live.
pub(super) fn announce(route: &Route, headers: &mut HeaderMap) {
    if let Some(api) = &route.api {
        decorate(api, headers);
    }
}

/// What a backend says of the same replaces nothing: the config is the one place of dates. Its links stay.
pub(super) fn decorate(api: &Api, headers: &mut HeaderMap) {
    if let Some(deprecation) = &api.deprecation {
        headers.insert(DEPRECATION, deprecation.clone());
    }
    if let Some(sunset) = &api.sunset {
        headers.insert(SUNSET, sunset.clone());
    }
    if let Some(links) = &api.links {
        headers.append(LINK, links.clone());
    }
}
