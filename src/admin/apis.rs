//! `/api/v1/apis` and what is below it: how far the life of each API has come, and who calls it.

use std::cmp::Reverse;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use super::{
    Now, Problem,
    router::{App, JSON, answer, document},
    upstreams::Named,
};
use crate::{
    base::{Name, Timestamp},
    config::{self, plan::Successor},
    runtime::Api,
};

/// Callers that a document names; the others are a number.
const CALLERS: usize = 100;

/// What is known of an API.
#[derive(Serialize)]
struct ApiDocument<'a> {
    name: &'a str,
    version: &'a str,
    stage: &'static str,
    deprecated: Option<Timestamp>,
    sunset: Option<Timestamp>,
    // The stage that a date brings next.
    next: Option<NextStage>,
    link: Option<&'a str>,
    successor: Option<&'a str>,
    routes: Vec<&'a str>,
    // Since it was first in the config, or since the start.
    requests: u64,
    // Whoever called last comes first.
    callers: Vec<CallerDocument<'a>>,
    callers_left_out: usize,
}

#[derive(Serialize)]
struct NextStage {
    stage: &'static str,
    at: Timestamp,
}

#[derive(Serialize)]
struct CallerDocument<'a> {
    consumer: &'a str,
    requests: u64,
    last_seen: Timestamp,
}

impl<'a> ApiDocument<'a> {
    fn of(api: &'a Api, now: &'a Now) -> Self {
        let plan = &*api.plan;
        let routes = now.snapshot.routes.values().filter(|route| route.plan.api.as_ref() == Some(&plan.name));
        let mut callers: Vec<_> = api.callers().collect();
        callers.sort_by_key(|caller| (Reverse(caller.last_seen), caller.name));
        let callers_left_out = callers.len().saturating_sub(CALLERS);
        let shown = callers.into_iter().take(CALLERS).map(|caller| CallerDocument {
            consumer: caller.name,
            requests: caller.requests,
            last_seen: caller.last_seen,
        });
        Self {
            name: &plan.name,
            version: &plan.version,
            stage: plan.stage_at(now.at).as_str(),
            deprecated: plan.deprecated,
            sunset: plan.sunset,
            next: plan.next(now.at).map(|(stage, at)| NextStage { stage: stage.as_str(), at }),
            link: plan.link.as_deref(),
            successor: plan.successor.as_ref().map(|successor| match successor {
                Successor::Api(name) => name.as_str(),
                Successor::Target(target) => target,
            }),
            routes: routes.map(|route| route.plan.name.as_str()).collect(),
            requests: api.requests().map(|(_, count)| count).sum(),
            callers: shown.collect(),
            callers_left_out,
        }
    }
}

pub(super) async fn list(State(app): State<App>) -> Response {
    answer(app, |_, now| {
        let apis: Vec<_> = now.snapshot.apis.values().map(|api| ApiDocument::of(api, now)).collect();
        document(StatusCode::OK, JSON, &apis)
    })
    .await
}

pub(super) async fn api(State(app): State<App>, Named(name): Named<String>) -> Response {
    answer(app, move |_, now| match now.snapshot.apis.get(name.as_str()) {
        Some(api) => document(StatusCode::OK, JSON, &ApiDocument::of(api, now)),
        None => {
            let known = now.snapshot.apis.keys().map(Name::as_str);
            let detail = format!("There is no API `{name}`.");
            Problem::unknown("unknown_api", detail, config::nearest(&name, known)).into_response()
        }
    })
    .await
}
