//! `/api/v1/upstreams` and what is below it: what is known of backends, and the orders to drain them.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query, Request, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    BackendDocument, Now, Observed, Problem, Row, UpstreamStatus,
    backtest::{Asked, backtest},
    router::{App, JSON, answer, document},
    why,
};
use crate::{
    base::{Timestamp, duration},
    config,
    health::Drain,
    telemetry::Printable,
};

pub(super) async fn list(State(app): State<App>) -> Response {
    answer(app, |app, now| {
        let status = |observed| UpstreamStatus::of(observed, now, &app.rates);
        let upstreams: Vec<UpstreamStatus> = now.upstreams.iter().map(status).collect();
        document(StatusCode::OK, JSON, &upstreams)
    })
    .await
}

pub(super) async fn upstream(State(app): State<App>, Named(upstream): Named<String>) -> Response {
    answer(app, move |app, now| match find_upstream(now, &upstream) {
        Ok(observed) => document(StatusCode::OK, JSON, &UpstreamStatus::of(observed, now, &app.rates)),
        Err(problem) => problem.into_response(),
    })
    .await
}

pub(super) async fn backend(State(app): State<App>, Named(names): Named<(String, String)>) -> Response {
    answer(app, move |_, now| match find(now, &names) {
        Ok((observed, row)) => document(StatusCode::OK, JSON, &BackendDocument::of(row, observed, now)),
        Err(problem) => problem.into_response(),
    })
    .await
}

pub(super) async fn probes(State(app): State<App>, Named(names): Named<(String, String)>) -> Response {
    answer(app, move |_, now| match find(now, &names) {
        Ok((_, row)) => document(StatusCode::OK, JSON, &why::probes(&row.record())),
        Err(problem) => problem.into_response(),
    })
    .await
}

pub(super) async fn replay(
    State(app): State<App>,
    Named(names): Named<(String, String)>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(why) => return Problem::bad_request(format!("The query: {}.", why.body_text())).into_response(),
    };
    answer(app, move |_, now| {
        let found = find(now, &names).and_then(|(observed, row)| backtest(observed, &row, &asked));
        match found {
            Ok(documents) => document(StatusCode::OK, JSON, &documents),
            Err(problem) => problem.into_response(),
        }
    })
    .await
}

pub(super) async fn drain(State(app): State<App>, Named(names): Named<(String, String)>, request: Request) -> Response {
    match order(&app, &names, request, DrainOrder::wish).await {
        Ok(()) => backend(State(app), Named(names)).await,
        Err(problem) => problem.into_response(),
    }
}

pub(super) async fn undrain(
    State(app): State<App>,
    Named(names): Named<(String, String)>,
    request: Request,
) -> Response {
    match order(&app, &names, request, UndrainOrder::wish).await {
        Ok(()) => backend(State(app), Named(names)).await,
        Err(problem) => problem.into_response(),
    }
}

/// The names of a path, percent-decoded.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let named = Path::from_request_parts(parts, app).await;
        named.map(|Path(named)| Self(named)).map_err(|why| Problem::bad_request(format!("The path: {why}.")))
    }
}

fn find_upstream<'a>(now: &'a Now, name: &str) -> Result<&'a Observed, Problem> {
    now.upstreams.iter().find(|observed| observed.name().as_str() == name).ok_or_else(|| {
        let known = now.upstreams.iter().map(|observed| observed.name().as_str());
        Problem::unknown("unknown_upstream", format!("There is no upstream `{name}`."), config::nearest(name, known))
    })
}

/// A backend by its name. Where one of that name is about to leave, the one that stays is meant.
fn find<'a>(now: &'a Now, (upstream, name): &(String, String)) -> Result<(&'a Observed, Row<'a>), Problem> {
    let observed = find_upstream(now, upstream)?;
    let row = observed.rows().filter(|row| row.name.as_str() == name).min_by_key(Row::is_removed);
    let row = row.ok_or_else(|| {
        let known: Vec<&str> = observed.rows().map(|row| row.name.as_str()).collect();
        let detail = format!("Upstream `{upstream}` has no backend `{name}`.");
        Problem::unknown("unknown_backend", detail, config::nearest(name, known))
    })?;
    Ok((observed, row))
}

/// What is asked of a health task.
enum Wish {
    Drain(Drain),
    Undrain(String),
}

/// The body of a `drain`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DrainOrder {
    reason: Option<String>,
    by: Option<String>,
    r#for: Option<String>,
    deadline: Option<String>,
}

/// The body of an `undrain`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UndrainOrder {
    by: Option<String>,
}

impl DrainOrder {
    fn wish(self) -> Result<Wish, Problem> {
        let (lasts, deadline) = (time("for", self.r#for)?, time("deadline", self.deadline)?);
        Ok(Wish::Drain(Drain {
            by: who(self.by)?,
            reason: words("reason", self.reason)?.unwrap_or_default(),
            since: Timestamp::now(),
            lasts,
            deadline,
        }))
    }
}

impl UndrainOrder {
    fn wish(self) -> Result<Wish, Problem> {
        who(self.by).map(Wish::Undrain)
    }
}

/// The most characters of a reason or a name.
const LONGEST: usize = 200;

fn who(by: Option<String>) -> Result<String, Problem> {
    Ok(words("by", by)?.filter(|by| !by.is_empty()).unwrap_or_else(|| "the admin API".to_owned()))
}

fn words(field: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    match &text {
        Some(text) if text.chars().count() > LONGEST => {
            Err(Problem::bad_request(format!("`{field}` is longer than {LONGEST} characters.")))
        }
        Some(text) if text.contains(char::is_control) => {
            Err(Problem::bad_request(format!("`{field}` has control characters.")))
        }
        // What turns text around, or nobody sees, is shown for what it is wherever the text is, in documents and on pages too.
        _ => Ok(text.map(|text| Printable(&text).to_string())),
    }
}

fn time(field: &str, text: Option<String>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let why = match duration::parse(&text) {
        Ok(Duration::ZERO) => "is no time at all".to_owned(),
        Ok(time) => return Ok(Some(time)),
        Err(why) => why.to_string(),
    };
    Err(Problem::bad_request(format!("`{field}: {}` {why}; write 30s or 15m.", text.escape_debug())))
}

/// Reads an order and gives it to the health task of the upstream.
async fn order<O: Default + DeserializeOwned>(
    app: &App,
    names: &(String, String),
    request: Request,
    wish: impl FnOnce(O) -> Result<Wish, Problem>,
) -> Result<(), Problem> {
    let wish = wish(read(request, LARGEST).await?)?;
    let name = {
        let now = Now::look(&app.status);
        let (_, row) = find(&now, names)?;
        row.may_be_drained()?;
        row.name.clone()
    };
    let monitor = app.status.monitors.load().get(names.0.as_str()).cloned();
    let monitor = monitor.ok_or_else(|| Problem::conflict("not_watched", "An edit is just going live: ask again."))?;
    let done = match wish {
        Wish::Drain(drain) => monitor.drain(name, drain).await,
        Wish::Undrain(by) => monitor.undrain(name, by).await,
    };
    done.map_err(|_gone| removed())
}

fn removed() -> Problem {
    Problem::conflict("removed", "It is in the configuration no more: it finishes its requests and gets no new ones.")
}

impl Row<'_> {
    fn may_be_drained(&self) -> Result<(), Problem> {
        match (self.view, self.is_removed()) {
            (None, _) => Err(Problem::conflict("no_address", "Its name has no address: there is nothing to drain.")),
            (_, true) => Err(removed()),
            (Some(_), false) => Ok(()),
        }
    }
}

/// How long an order may take to come.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that an order may take, in bytes.
const LARGEST: usize = 4 * 1024;

/// Reads the body of an order; an empty one says nothing.
pub(super) async fn read<O: Default + DeserializeOwned>(request: Request, most: usize) -> Result<O, Problem> {
    let (head, body) = request.into_parts();
    // A page of another site can have a browser post a form here, or plain text, but not JSON: for that the browser asks first, and is
    // not answered. This is what keeps such pages from giving orders.
    if !is_json(&head) {
        let detail = "An order is JSON, and says so: `Content-Type: application/json`.".to_owned();
        return Err(Problem { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, reason: "not_json", detail });
    }
    let body = whole(body, most).await?;
    match body.is_empty() {
        true => Ok(O::default()),
        false => serde_json::from_slice(&body).map_err(|why| Problem::bad_request(format!("The order: {why}."))),
    }
}

fn is_json(head: &Parts) -> bool {
    let mut types = head.headers.get_all(header::CONTENT_TYPE).iter();
    let essence = types.next().and_then(|value| value.to_str().ok()?.split(';').next());
    types.next().is_none() && essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(JSON))
}

async fn whole(body: Body, most: usize) -> Result<bytes::Bytes, Problem> {
    let Ok(read) = timeout(PATIENCE, Limited::new(body, most).collect()).await else {
        let detail = "The body did not come in time.".to_owned();
        return Err(Problem { status: StatusCode::REQUEST_TIMEOUT, reason: "too_slow", detail });
    };
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(why) if why.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("An order is no longer than {most} bytes.");
            Err(Problem { status: StatusCode::PAYLOAD_TOO_LARGE, reason: "too_large", detail })
        }
        Err(_cut) => Err(Problem::bad_request("The body was cut.".to_owned())),
    }
}

impl Problem {
    pub(super) fn unknown(reason: &'static str, detail: String, nearest: Option<&str>) -> Self {
        let hint = nearest.map(|name| format!(" Did you mean `{name}`?")).unwrap_or_default();
        Self { status: StatusCode::NOT_FOUND, reason, detail: detail + &hint }
    }

    pub(super) fn conflict(reason: &'static str, detail: &str) -> Self {
        Self { status: StatusCode::CONFLICT, reason, detail: detail.to_owned() }
    }
}
