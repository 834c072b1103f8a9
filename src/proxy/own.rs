//! What a route answers without a backend: a redirect, or always the same.

use std::{borrow::Cow, rc::Rc};

use bytes::Bytes;
use http::{HeaderValue, Response, header, request::Parts};

use super::{
    Exchange, ResponseBody,
    headers::{self, X_REQUEST_ID},
    sanitise::{self, Malformed},
};
use crate::{
    config::plan::{self, Redirect, Respond},
    net::values,
    route,
    runtime::{Action, Route},
};

/// The route's own answer. `None` where it leads to an upstream.
pub(super) fn answer(
    exchange: &Rc<Exchange>,
    route: &Route,
    head: &Parts,
) -> Result<Option<Response<ResponseBody>>, Malformed> {
    let mut response = match &route.action {
        Action::Forward { .. } => return Ok(None),
        Action::Redirect(redirect) => {
            let location = HeaderValue::try_from(location(exchange, redirect, &route.plan, head)?);
            let mut response = Response::new(ResponseBody::own(Bytes::new(), Rc::clone(exchange)));
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(header::LOCATION, location.map_err(|_| Malformed::Target)?);
            response
        }
        Action::Respond(Respond { status, content_type, .. }, body) => {
            let mut response = Response::new(ResponseBody::own(body.clone(), Rc::clone(exchange)));
            *response.status_mut() = *status;
            response.headers_mut().extend(content_type.clone().map(|value| (header::CONTENT_TYPE, value)));
            response
        }
    };
    response.headers_mut().insert(X_REQUEST_ID, exchange.id().clone());
    exchange.answered(response.status(), None);
    Ok(Some(response))
}

/// Where the client goes. Nothing that it has sent decides on the host, but for the host that it has asked; where that stays, it is
/// not even repeated: whoever answers from a cache, or stands before this gateway, knows better what it is called.
fn location(exchange: &Exchange, redirect: &Redirect, plan: &plan::Route, head: &Parts) -> Result<String, Malformed> {
    let path = head.uri.path();
    let path = match &redirect.path {
        Some(rewrite) => route::rewrite(rewrite, &plan.path, path)?,
        None => Cow::Borrowed(path),
    };
    let query = redirect.query.as_deref().or(head.uri.query());
    let mut location = match redirect {
        Redirect { scheme: None, host: None, port: None, .. } => String::new(),
        _ => origin(exchange, redirect, head)?,
    };
    location.push_str(&path);
    location.extend(query.into_iter().flat_map(|query| ["?", query]));
    Ok(location)
}

/// Scheme, host and port.
fn origin(exchange: &Exchange, redirect: &Redirect, head: &Parts) -> Result<String, Malformed> {
    let scheme = redirect.scheme.unwrap_or_else(|| headers::scheme(&head.headers, &exchange.client().origin()));
    let host = match &redirect.host {
        Some(host) => Cow::Borrowed(host.as_str()),
        None => Cow::Owned(sanitise::host(head)?.into_owned()),
    };
    if host.is_empty() {
        return Err(Malformed::HostHeader);
    }
    let asked = || values(&head.headers, &header::HOST).next().and_then(port_of);
    let port = redirect.port.or_else(|| if redirect.scheme.is_some() { None } else { asked() });
    let usual = if scheme == "https" { 443 } else { 80 };
    Ok(match port.filter(|port| *port != usual) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

/// The port that a `Host` names.
fn port_of(host: &HeaderValue) -> Option<u16> {
    let (_, port) = host.to_str().ok()?.rsplit_once(':')?;
    port.parse().ok()
}
