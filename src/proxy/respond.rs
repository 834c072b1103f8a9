//! The one place where a fault becomes a response.

use std::{borrow::Cow, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use serde::Serialize;

use super::{Exchange, Fault, ResponseBody, grpc, headers::X_REQUEST_ID, lifecycle, sanitise::Malformed, way};
use crate::{
    layers::{Pass, Refusal},
    net::values,
    runtime::Api,
    upstream::Tier,
};

/// The methods of RFC 9110 and RFC 5789 that pass. Others pass, too, but nobody asks for a list of those.
const ALLOWED: HeaderValue = HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The form of the gateway's own answers, by what the client can read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// A status of gRPC's own, in a head without a body.
    Grpc,
    /// A page for a person.
    Html,
    /// A problem document (RFC 9457).
    Problem,
}

impl Form {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let accept = values(request.headers(), &header::ACCEPT).next().map(HeaderValue::as_bytes);
        match accept.is_some_and(|accept| accept.starts_with(b"text/html")) {
            true => Self::Html,
            false if grpc::is_call(request) => Self::Grpc,
            false => Self::Problem,
        }
    }
}

/// A request that the gateway answers itself: why, what to say of it, and what to send with it.
#[derive(Debug)]
pub(super) struct Refused {
    fault: Fault,
    detail: Option<Cow<'static, str>>,
    // Boxed: a refusal is rare, and every step of the line returns one or something else.
    headers: Box<HeaderMap>,
}

impl Refused {
    pub(super) fn by_layer(refusal: &Refusal, pass: &Pass) -> Self {
        let mut headers = HeaderMap::new();
        refusal.decorate(&mut headers);
        pass.decorate(&mut headers);
        let (fault, detail) = match refusal {
            Refusal::Overloaded => (Fault::Overloaded, Some("Too many passwords wait to be verified.".into())),
            Refusal::RateLimited { limit, retry_after_s } => {
                let detail = format!("The limit `{limit}` is spent. Try again in {retry_after_s} s.");
                (Fault::RateLimited, Some(detail.into()))
            }
            Refusal::Unauthorized { .. } => (Fault::Unauthorized, None),
        };
        Self { fault, detail, headers: Box::new(headers) }
    }
}

impl Refused {
    /// What it asks for is gone for good: what there is instead.
    pub(super) fn retired(api: &Api) -> Self {
        let mut headers = HeaderMap::new();
        lifecycle::decorate(api, &mut headers);
        Self { fault: Fault::Retired, detail: Some(api.farewell.to_string().into()), headers: Box::new(headers) }
    }

    /// It came on a connection that is going to end, long after the client was told.
    pub(super) fn overstays() -> Self {
        Self { detail: Some("The connection ends: another one is needed.".into()), ..Fault::Draining.into() }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, detail: None, headers: Box::default() }
    }
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        let mut headers = HeaderMap::new();
        // Whatever follows on this connection may be the rest of what was not understood.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if malformed.fault() == Fault::MethodNotAllowed {
            headers.insert(header::ALLOW, ALLOWED);
        }
        let mut detail = malformed.to_string();
        if let Some(first) = detail.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self { fault: malformed.fault(), detail: Some(format!("{detail}.").into()), headers: Box::new(headers) }
    }
}

/// A problem document (RFC 9457).
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'a str,
    request_id: &'a str,
}

/// The response that says why there is no other.
pub(super) fn refuse(exchange: &Rc<Exchange>, refused: Refused) -> Response<ResponseBody> {
    let Refused { fault, detail, headers } = refused;
    let status = fault.status();
    let form = exchange.form();
    // A gRPC client reads its own status, and expects that HTTP has none to complain of.
    let sent = if form == Form::Grpc { StatusCode::OK } else { status };
    exchange.answered(sent, Some(fault));
    let detail = backends_detail(exchange, fault).or(detail).unwrap_or(fault.sentence().into());
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: &detail,
        reason: fault.reason(),
        request_id: exchange.id().to_str().unwrap_or_default(),
    };
    let (content_type, text) = match form {
        Form::Grpc => (None, String::new()),
        Form::Html => (Some("text/html; charset=utf-8"), html(&problem)),
        Form::Problem => (Some("application/problem+json"), serde_json::to_string(&problem).unwrap_or_default()),
    };
    let mut response = Response::new(ResponseBody::own(text, Rc::clone(exchange)));
    *response.status_mut() = sent;
    *response.headers_mut() = *headers;
    let headers = response.headers_mut();
    match content_type {
        Some(content_type) => drop(headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type))),
        None => grpc::end(headers, fault.grpc_status(), &detail),
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, exchange.id().clone());
    if let Ok(value) = HeaderValue::from_str(&format!("tidegate; error={}", fault.proxy_status())) {
        headers.insert(PROXY_STATUS, value);
    }
    exchange.called(response.headers());
    response
}

/// Sends the client to the same URL under `https`. 308, so that a POST stays one.
pub(super) fn redirect(exchange: &Rc<Exchange>, host: &str, uri: &Uri, port: u16) -> Response<ResponseBody> {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let location = HeaderValue::try_from(format!("https://{host}{port}{uri}"));
    let mut response = bare(exchange, StatusCode::PERMANENT_REDIRECT);
    response.headers_mut().insert(header::LOCATION, location.expect("a host and a target that came in headers"));
    response
}

/// Answers an OPTIONS that was to go no further than here (`Max-Forwards: 0`).
pub(super) fn options(exchange: &Rc<Exchange>) -> Response<ResponseBody> {
    let mut response = bare(exchange, StatusCode::NO_CONTENT);
    response.headers_mut().insert(header::ALLOW, ALLOWED);
    response
}

/// An answer that is no refusal and has no body.
fn bare(exchange: &Rc<Exchange>, status: StatusCode) -> Response<ResponseBody> {
    exchange.answered(status, None);
    let mut response = Response::new(ResponseBody::own(String::new(), Rc::clone(exchange)));
    *response.status_mut() = status;
    response.headers_mut().insert(X_REQUEST_ID, exchange.id().clone());
    response
}

/// Why nobody is eligible. Which backends are out is for a client on the same machine only: whoever else asks learns nothing of them.
fn backends_detail(exchange: &Exchange, fault: Fault) -> Option<Cow<'static, str>> {
    let upstream = exchange.upstream()?;
    if fault != Fault::NoHealthyBackend || !way::is_everybody_out(upstream) {
        return None;
    }
    let are_too_few = upstream.live.eligible().tier() == Tier::TooFew;
    if !(exchange.client().peer().ip().is_loopback() && exchange.client_ip().is_loopback()) {
        return are_too_few.then(|| "Too few backends of the service are healthy.".into());
    }
    let states: Vec<String> = upstream
        .members
        .iter()
        .map(|member| format!("{} {}", member.name, member.backend.shown()))
        .chain(upstream.unresolved.iter().map(|(name, unresolved)| format!("{name} ({})", unresolved.why)))
        .collect();
    let (name, states) = (&upstream.plan.name, states.join(", "));
    let detail = match are_too_few {
        true => {
            let needed = upstream.plan.health.min_capacity;
            format!("The healthy backends of `{name}` are less than its min_capacity of {needed}: {states}.")
        }
        false => format!("No backend of `{name}` is eligible: {states}."),
    };
    Some(detail.into())
}

fn html(problem: &Problem<'_>) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {title}</title>\n\
         <h1>{status} {title}</h1>\n<p>{detail}</p>\n<p><small>{reason} &middot; {id}</small></p>\n</html>\n",
        status = problem.status,
        title = problem.title,
        detail = escaped(problem.detail),
        reason = problem.reason,
        id = escaped(problem.request_id),
    )
}
