//! Which path answers what, and who is not answered at all.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{Query, Request, State},
    handler::Handler,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, uri::Authority};
use serde::Serialize;
use serde_json::json;

use super::{
    Now, Problem, Rates, Standing, StatusDocument, apis,
    events::{self, Streams},
    explain,
    health::{DraftHealth, Health},
    metrics,
    observed::Overall,
    page, upstreams,
};
use crate::{
    control::Status,
    telemetry::exposition::{Format, format_for},
};

/// What every answer is made from.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) status: Arc<Status>,
    pub(super) rates: Arc<Rates>,
    pub(super) streams: Arc<Streams>,
}

/// Who may come to the address that is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Audience {
    /// A loopback address: programs of this machine, a browser among them, which any page may send here by way of DNS.
    Local,
    /// Any other address: whoever the operator lets through.
    Network,
}

pub(super) fn router(app: App, audience: Audience) -> Router {
    let router = Router::new()
        .route("/", get(index))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .route("/metrics", get(scrape))
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/explain", order(explain::explain))
        .route("/api/v1/apis", get(apis::list))
        .route("/api/v1/apis/{api}", get(apis::api))
        .route("/api/v1/upstreams", get(upstreams::list))
        .route("/api/v1/upstreams/{upstream}", get(upstreams::upstream))
        .route("/api/v1/upstreams/{upstream}/backends/{backend}", get(upstreams::backend))
        .route("/api/v1/upstreams/{upstream}/backends/{backend}/probes", get(upstreams::probes))
        .route("/api/v1/upstreams/{upstream}/backends/{backend}/backtest", get(upstreams::replay))
        .route("/api/v1/upstreams/{upstream}/backends/{backend}/drain", order(upstreams::drain))
        .route("/api/v1/upstreams/{upstream}/backends/{backend}/undrain", order(upstreams::undrain))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app);
    let router = match audience {
        Audience::Local => router.layer(from_fn(refuse_rebound)),
        Audience::Network => router,
    };
    router.layer(from_fn(decorate))
}

/// What changes something is asked for with POST alone: a link, or an image of a page, must not do it.
fn order<H: Handler<T, App>, T: 'static>(handler: H) -> MethodRouter<App> {
    post(handler).fallback(only_post)
}

/// Headers of every answer: it is of this moment, and means what it says.
async fn decorate(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = next.run(request).await;
    response.headers_mut().extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

/// A page whose name was made to point to this machine sends that name as `Host`; no other page's script may ask either.
async fn refuse_rebound(request: Request, next: Next) -> Response {
    if is_own(request.uri().authority(), request.headers()) {
        return next.run(request).await;
    }
    let detail = "On this address only requests for an IP address or `localhost` are answered.".to_owned();
    Problem { status: StatusCode::FORBIDDEN, reason: "foreign_host", detail }.into_response()
}

fn is_own(target: Option<&Authority>, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    // A client of HTTP/1.0 sends none; no browser does that.
    let has_local_host = host.is_none_or(|host| Authority::try_from(host.as_bytes()).is_ok_and(|host| is_local(&host)));
    let has_local_target = target.is_none_or(is_local);
    let has_own_origin = headers.get(header::ORIGIN).is_none_or(|origin| {
        let origin = origin.as_bytes().strip_prefix(b"http://");
        origin.is_some_and(|origin| host.is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(origin)))
    });
    hosts.next().is_none() && has_local_host && has_local_target && has_own_origin
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let has_user = authority.as_str().contains('@');
    !has_user && (host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok())
}

/// Looks and answers off the runtime's thread: ten thousand backends must not delay a probe. A panic is this request's alone.
pub(super) async fn answer(app: App, make: impl FnOnce(&App, &Now) -> Response + Send + 'static) -> Response {
    let made = tokio::task::spawn_blocking(move || {
        let now = Now::look(&app.status);
        make(&app, &now)
    });
    made.await.unwrap_or_else(|_panic| {
        let detail = "This answer could not be made: a defect of the gateway.".to_owned();
        Problem { status: StatusCode::INTERNAL_SERVER_ERROR, reason: "panic", detail }.into_response()
    })
}

pub(super) fn document(status: StatusCode, content_type: &'static str, document: &impl Serialize) -> Response {
    let text = serde_json::to_string(document).expect("names and numbers always serialise") + "\n";
    (status, [(header::CONTENT_TYPE, content_type)], text).into_response()
}

pub(super) const JSON: &str = "application/json";
const HEALTH_JSON: &str = "application/health+json";

async fn index(State(app): State<App>) -> Response {
    answer(app, |app, now| {
        let page = page::index(now, app.status.readiness.check().is_ok());
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
    })
    .await
}

async fn readyz(State(app): State<App>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    answer(app, move |app, now| match is_ready(app, now, query.get("min_healthy").map(String::as_str)) {
        Ok(()) => document(StatusCode::OK, JSON, &json!({ "ready": true, "reason": null })),
        Err(Unready::Because(reason)) => {
            document(StatusCode::SERVICE_UNAVAILABLE, JSON, &json!({ "ready": false, "reason": reason }))
        }
        Err(Unready::UnknownUpstream(name)) => {
            let detail = format!("There is no upstream `{name}`.");
            Problem { status: StatusCode::NOT_FOUND, reason: "unknown_upstream", detail }.into_response()
        }
    })
    .await
}

#[derive(Debug)]
enum Unready<'a> {
    Because(&'static str),
    UnknownUpstream(&'a str),
}

fn is_ready<'a>(app: &App, now: &Now, needed: Option<&'a str>) -> Result<(), Unready<'a>> {
    if let Some(name) = needed {
        let found = now.upstreams.iter().find(|observed| observed.name().as_str() == name);
        if found.ok_or(Unready::UnknownUpstream(name))?.standing() == Standing::Down {
            return Err(Unready::Because("no_eligible_backend"));
        }
    }
    app.status.readiness.check().map_err(Unready::Because)
}

async fn health(State(app): State<App>, headers: HeaderMap) -> Response {
    let wants_draft = accepts(&headers, HEALTH_JSON);
    answer(app, move |_, now| {
        let status = match now.overall() {
            Overall::Degraded | Overall::Healthy => StatusCode::OK,
            Overall::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        };
        match wants_draft {
            true => document(status, HEALTH_JSON, &DraftHealth::of(now)),
            false => document(status, JSON, &Health::of(now)),
        }
    })
    .await
}

pub(super) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accept.flat_map(|value| value.split(','));
    ranges.any(|range| range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(wanted)))
}

async fn scrape(State(app): State<App>, headers: HeaderMap) -> Response {
    let format: Format = format_for(headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()));
    answer(app, move |app, now| {
        let text = metrics::scrape(now, &app.status, format);
        ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
    })
    .await
}

async fn status(State(app): State<App>) -> Response {
    answer(app, |app, now| document(StatusCode::OK, JSON, &StatusDocument::of(now, &app.status, &app.rates))).await
}

async fn not_found(request: Request) -> Problem {
    let detail = format!("There is nothing at `{}`. `/` lists what there is.", request.uri().path());
    Problem { status: StatusCode::NOT_FOUND, reason: "not_found", detail }
}

async fn method_not_allowed() -> Response {
    not_with_this_method("GET, HEAD", "This is read with GET or HEAD.")
}

async fn only_post() -> Response {
    not_with_this_method("POST", "This is an order, and is given with POST.")
}

fn not_with_this_method(allow: &'static str, detail: &str) -> Response {
    let (status, reason) = (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    ([(header::ALLOW, allow)], Problem { status, reason, detail: detail.to_owned() }).into_response()
}
