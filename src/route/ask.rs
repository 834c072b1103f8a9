//! What a route is looked for by, and what a route asks of it.

use http::{HeaderMap, HeaderName, Method};

use crate::config::plan::{Conditions, Wanted};

/// A request, as far as it decides on its route.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'r> {
    /// In lower case, without a port; empty where the client named none.
    pub host: &'r str,
    /// Normalised.
    pub path: &'r str,
    /// As it was sent.
    pub method: &'r Method,
    /// As they were sent.
    pub headers: &'r HeaderMap,
    /// What stands behind the `?`.
    pub query: Option<&'r str>,
}

/// A condition that does not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unmet<'c> {
    /// The method is another one.
    Method,
    /// This field has another value, or none.
    Header(&'c HeaderName),
    /// This parameter of the query has another value, or none.
    Query(&'c str),
}

impl Ask<'_> {
    /// The first condition that does not hold; `None` where all of them do.
    pub(super) fn misses<'c>(&self, conditions: &'c Conditions) -> Option<Unmet<'c>> {
        if !conditions.methods.is_empty() && !conditions.methods.contains(self.method) {
            return Some(Unmet::Method);
        }
        let header = conditions.headers.iter().find(|(name, wanted)| !self.has_header(name, wanted));
        let query = || conditions.query.iter().find(|(name, wanted)| !self.has_parameter(name, wanted));
        match header {
            Some((name, _)) => Some(Unmet::Header(name)),
            None => query().map(|(name, _)| Unmet::Query(name)),
        }
    }

    fn has_header(&self, name: &HeaderName, wanted: &Wanted) -> bool {
        self.headers.get(name).is_some_and(|value| wanted.is(value.as_bytes()))
    }

    // By the rules of forms, as whoever reads the query has it: `+` is a space. What has no escapes is not copied.
    fn has_parameter(&self, name: &str, wanted: &Wanted) -> bool {
        let query = self.query.unwrap_or_default();
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        parameters.find(|(other, _)| other == name).is_some_and(|(_, value)| wanted.is(value.as_bytes()))
    }
}
