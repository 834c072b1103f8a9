//! The changes that a route makes to heads, with the values that this request gives them.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

use super::{Exchange, sanitise};
use crate::{
    config::plan::{Fact, FieldValue, HeaderRules, Piece, Text},
    route::Captured,
    runtime::Route,
    upstream::RequestHead,
};

/// What a route changes of the head that a backend gets, and of the one that the client gets.
pub(super) struct Fields<'r> {
    request: Option<Changes<'r>>,
    response: Option<Changes<'r>>,
}

struct Changes<'r> {
    rules: &'r HeaderRules,
    // In the order of the rules.
    set: Vec<HeaderValue>,
    add: Vec<HeaderValue>,
}

impl<'r> Fields<'r> {
    /// Takes from the request what its route wants to say, before its path becomes another one.
    pub(super) fn of(exchange: &Exchange, route: &'r Route, head: &Parts) -> Self {
        let (request, response) = (route.plan.request_headers.as_ref(), route.plan.response_headers.as_ref());
        if request.is_none() && response.is_none() {
            return Self { request: None, response: None };
        }
        let facts = Facts { exchange, route, head, captured: Captured::of(&route.plan.path, head.uri.path()) };
        let changes =
            |rules: &'r HeaderRules| Changes { rules, set: facts.values(&rules.set), add: facts.values(&rules.add) };
        Self { request: request.map(changes), response: response.map(changes) }
    }

    /// The last word on a head for a backend.
    pub(super) fn change_request(&self, head: &mut RequestHead) {
        let Some(changes) = &self.request else { return };
        let RequestHead { parts, added, .. } = head;
        added.retain(|(name, value)| {
            let is_touched = changes.names().any(|changed| changed == name);
            if is_touched {
                parts.headers.insert(name.clone(), value.clone());
            }
            !is_touched
        });
        changes.apply(&mut parts.headers);
    }

    /// Changes a head for the client.
    pub(super) fn change_response(&self, headers: &mut HeaderMap) {
        if let Some(changes) = &self.response {
            changes.apply(headers);
        }
    }
}

impl Changes<'_> {
    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let written = self.rules.set.iter().chain(&self.rules.add).map(|(name, _)| name);
        self.rules.remove.iter().chain(written)
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.rules.remove {
            headers.remove(name);
        }
        for ((name, _), value) in self.rules.set.iter().zip(&self.set) {
            headers.insert(name.clone(), value.clone());
        }
        for ((name, _), value) in self.rules.add.iter().zip(&self.add) {
            headers.append(name.clone(), value.clone());
        }
    }
}

struct Facts<'r> {
    exchange: &'r Exchange,
    route: &'r Route,
    head: &'r Parts,
    captured: Captured<'r>,
}

impl Facts<'_> {
    fn values(&self, rules: &[(HeaderName, FieldValue)]) -> Vec<HeaderValue> {
        let value = |rule: &FieldValue| match rule {
            FieldValue::Fixed(value) => value.clone(),
            FieldValue::Filled(text) => self.filled(text),
        };
        rules.iter().map(|(_, rule)| value(rule)).collect()
    }

    fn filled(&self, text: &Text) -> HeaderValue {
        let value = text.filled(|out, piece| match piece {
            Piece::Literal(literal) => out.push_str(literal),
            // As it stands in the path, where everything else is escaped: nothing in it ends a line.
            Piece::Capture(number) => out.push_str(self.captured.get(*number)),
            Piece::Fact(fact) => out.push_str(&self.fact(*fact)),
        });
        HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    fn fact(&self, fact: Fact) -> Cow<'_, str> {
        match fact {
            Fact::ClientIp => self.exchange.client_ip().to_string().into(),
            Fact::Host => sanitise::host(self.head).map(|host| host.into_owned().into()).unwrap_or_default(),
            Fact::RequestId => self.exchange.id().to_str().unwrap_or_default().into(),
            Fact::Route => self.route.plan.name.as_str().into(),
        }
    }
}
