//! What a route is looked for by, and what a route asks of it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

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
    /// Whether whoever sends it may say what proxies say (`X-Forwarded-Proto`, ...). Of others it is as if they had not.
    pub is_from_proxy: bool,
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
        if is_claim(name) && !self.is_from_proxy {
            return false;
        }
        let mut values = self.headers.get_all(name).iter();
        let Some(first) = values.next() else { return false };
        if *name == header::COOKIE
            && let Some(second) = values.next()
        {
            // Crumbs of one field (RFC 9113, section 8.2.3), which backends get as one.
            let crumbs: Vec<&[u8]> = [first, second].into_iter().chain(values).map(HeaderValue::as_bytes).collect();
            return wanted.is(&crumbs.join(&b"; "[..]));
        }
        // HTTP/2 carries white space around a value, which HTTP/1.1 does not know (RFC 9113, section 8.2.1).
        wanted.is(first.as_bytes().trim_ascii())
    }

    // By the rules of forms, as whoever reads the query has it: `+` is a space. What has no escapes is not copied.
    fn has_parameter(&self, name: &str, wanted: &Wanted) -> bool {
        let query = self.query.unwrap_or_default();
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        parameters.find(|(other, _)| other == name).is_some_and(|(_, value)| wanted.is(value.as_bytes()))
    }
}

/// What proxies say of a request, and nobody else may.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded-")
}
