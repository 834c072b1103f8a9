//! What is refused before anything else looks at a request, and the two strings, host and path, that everything after it goes by.

use std::borrow::Cow;

use http::{HeaderValue, Method, Uri, Version, header, request::Parts, uri::PathAndQuery};

use super::{
    Fault,
    headers::{self, Special},
};
use crate::{
    config::plan::ClientLimits,
    net::values,
    route::{self, HostError, PathError},
};

/// Refuses what is larger than the listener accepts. (hyper has refused what is far larger.)
pub(super) fn measure(head: &Parts, limits: &ClientLimits) -> Result<(), Fault> {
    // Path and query alone: HTTP/2 and an absolute target have the host beside them, which others send as a field.
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.uri as usize {
        return Err(Fault::UriTooLong);
    }
    if head.headers.len() > limits.headers as usize || size(head) > limits.header_size as usize {
        return Err(Fault::HeaderTooLarge);
    }
    Ok(())
}

/// The size of a head as its protocol counts it: in HTTP/1.1 what is written, with one space behind each colon; in HTTP/2 names
/// and values, and 32 bytes for each field (RFC 9113, section 6.5.2).
fn size(head: &Parts) -> usize {
    const HTTP1_LINE: usize = "  HTTP/1.1\r\n\r\n".len();
    const HTTP1_FIELD: usize = ": \r\n".len();
    const HTTP2_FIELD: usize = 32;
    const PSEUDO: usize = ":method:scheme:path".len() + 3 * HTTP2_FIELD;
    const AUTHORITY: usize = ":authority".len() + HTTP2_FIELD;
    let uri = &head.uri;
    let is_http2 = head.version == Version::HTTP_2;
    let (line, field) = if is_http2 { (PSEUDO, HTTP2_FIELD) } else { (HTTP1_LINE, HTTP1_FIELD) };
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + if is_http2 { 0 } else { "://".len() });
    let authority = uri.authority().map_or(0, |host| host.as_str().len() + if is_http2 { AUTHORITY } else { 0 });
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + field).sum();
    line + head.method.as_str().len() + scheme + authority + path + fields
}

/// Why a request is refused unread.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("CONNECT is not served")]
    Connect,
    #[error("the request expects something other than 100-continue")]
    Expectation,
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the Host header is missing, given twice or not text")]
    HostHeader,
    #[error("the Host header and the request target name different hosts")]
    TwoHosts,
    #[error("the request has a transfer coding other than chunked")]
    Framing,
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("the path may be read in two ways, which are two routes")]
    Ambiguous,
    #[error("the request has more than one length")]
    Length,
    #[error("the request target is not a path")]
    Target,
    #[error("TRACE is not served")]
    Trace,
}

impl Malformed {
    pub(super) const fn fault(&self) -> Fault {
        match self {
            Self::Expectation => Fault::ExpectationFailed,
            Self::Trace => Fault::MethodNotAllowed,
            Self::Ambiguous
            | Self::Connect
            | Self::Framing
            | Self::Host(_)
            | Self::HostHeader
            | Self::Length
            | Self::Path(_)
            | Self::Target
            | Self::TwoHosts => Fault::BadRequest,
        }
    }
}

/// Refuses what is ambiguous, and brings the path into the one form that is matched and forwarded.
pub(super) fn sanitise(head: &mut Parts, special: Special) -> Result<(), Malformed> {
    if head.method == Method::CONNECT {
        return Err(Malformed::Connect);
    }
    if head.method == Method::TRACE {
        return Err(Malformed::Trace);
    }
    // hyper undoes `chunked` and nothing else: what was compressed as well would be passed on as if it were not. (Of a
    // request that has a Content-Length beside it, hyper drops the length and closes the connection: RFC 9112, section 6.3.)
    if special.has(Special::TRANSFER_ENCODING) && !headers::is_framing_understood(&head.headers) {
        return Err(Malformed::Framing);
    }
    // In HTTP/1.1 hyper has made one of those that agree (`server::spelling` knows of them) and refused the others.
    if special.has(Special::CONTENT_LENGTH) && !headers::is_length_plain(&head.headers) {
        return Err(Malformed::Length);
    }
    if special.has(Special::EXPECT) && !headers::is_expectation_known(&head.headers) {
        return Err(Malformed::Expectation);
    }
    one_host(head)?;
    normalise_target(head)
}

/// The host that a sane request is for: lower case, without port; empty where an HTTP/1.0 client named none.
pub(super) fn host(head: &Parts) -> Result<route::Host<'_>, Malformed> {
    let written = values(&head.headers, &header::HOST).next().map(HeaderValue::to_str).transpose();
    Ok(route::normalise_host(written.map_err(|_| Malformed::HostHeader)?.unwrap_or_default())?)
}

// An absolute request target names the host and the header is ignored (RFC 9112, section 3.2.2): made to agree with it. In HTTP/2
// the target always names it, and a `Host` beside it must say the same (RFC 9113, section 8.3.1).
fn one_host(head: &mut Parts) -> Result<(), Malformed> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let is_http2 = head.version == Version::HTTP_2;
    match (first, second, head.uri.authority()) {
        (Some(host), None, Some(authority)) if is_http2 => {
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) {
                return Err(Malformed::TwoHosts);
            }
        }
        (Some(_), None, _) => {}
        (None, None, Some(_)) if is_http2 => {}
        (None, None, _) if head.version < Version::HTTP_11 => {}
        _ => return Err(Malformed::HostHeader),
    }
    if let Some(authority) = head.uri.authority() {
        let value = authority.as_str().parse().map_err(|_| Malformed::HostHeader)?;
        head.headers.insert(header::HOST, value);
    }
    Ok(())
}

fn normalise_target(head: &mut Parts) -> Result<(), Malformed> {
    let target = head.uri.path_and_query().ok_or(Malformed::Target)?;
    if target.path() == "*" && head.method == Method::OPTIONS {
        return Ok(());
    }
    let path = route::normalise_path(target.path())?;
    let is_origin_form = head.uri.authority().is_none() && head.uri.scheme().is_none();
    if matches!(path, Cow::Borrowed(_)) {
        if is_origin_form {
            return Ok(());
        }
        let relative = Uri::from(target.clone());
        // An absolute target may have a query and no path, or neither.
        if target.as_str().starts_with('/') && relative.path().starts_with('/') {
            head.uri = relative;
            return Ok(());
        }
    }
    let text = match target.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let target = PathAndQuery::try_from(text).map_err(|_| Malformed::Target)?;
    head.uri = Uri::from(target);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).expect("a request").into_parts().0
    }

    fn sane(head: &mut Parts) -> Result<(), Malformed> {
        let special = Special::of(&head.headers);
        sanitise(head, special)
    }

    #[test]
    fn an_absolute_target_decides_the_host() {
        let mut head = parts(Request::get("http://Example.com:80/a//b?q=1").header("host", "other"));
        sane(&mut head).expect("sane");
        assert_eq!(host(&head).expect("a host"), "example.com");
        assert_eq!(head.headers["host"], "Example.com:80");
        assert_eq!(head.uri.to_string(), "/a/b?q=1");
    }

    #[test]
    fn an_absolute_target_without_a_path_gets_one() {
        for (target, expected) in
            [("http://a", "/"), ("http://a#x", "/"), ("http://a?b", "/?b"), ("http://a/?b", "/?b")]
        {
            let mut head = parts(Request::get(target).header("host", "a"));
            sane(&mut head).expect("sane");
            assert_eq!(head.uri.to_string(), expected, "{target}");
        }
    }

    #[test]
    fn refuses_ambiguity() {
        let refused = |request| {
            let mut head = parts(request);
            sane(&mut head).and_then(|()| host(&head).map(|_| ())).expect_err("refused")
        };
        assert_eq!(refused(Request::get("/")), Malformed::HostHeader);
        assert_eq!(refused(Request::get("/").header("host", "a").header("host", "a")), Malformed::HostHeader);
        assert_eq!(refused(Request::get("/").header("host", "a b")), Malformed::Host(HostError::Charset));
        assert_eq!(refused(Request::get("/%2e%2e/").header("host", "a")), Malformed::Path(PathError::AboveRoot));
        assert_eq!(refused(Request::connect("a:80").header("host", "a")), Malformed::Connect);
        for coding in ["gzip, chunked", "gzip", "identity", "chunked, chunked", ""] {
            let coded = Request::post("/").header("host", "a").header("transfer-encoding", coding);
            assert_eq!(refused(coded), Malformed::Framing, "{coding}");
        }
        for expected in ["100-continue, 200-ok", "200-ok", "100-continue;q=1", "100", "\"100-continue\""] {
            let expecting = Request::post("/").header("host", "a").header("expect", expected);
            assert_eq!(refused(expecting), Malformed::Expectation, "{expected}");
        }
    }

    #[test]
    fn http_1_0_may_name_no_host() {
        let mut head = parts(Request::get("/").version(Version::HTTP_10));
        sane(&mut head).expect("sane");
        assert_eq!(host(&head).expect("none"), "");
    }
}
