//! Responses made smaller on their way out, where the route says so and the client can take it.
//!
//! Which coding, if any, is decided here, from heads alone; `body` does it. A response that could have been compressed for
//! another client says so in `Vary`, or a cache would give one client's form to all.

mod body;
mod negotiate;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{self, CACHE_CONTROL},
    request, response,
};

pub use body::CompressedBody;
pub(super) use negotiate::negotiate;

use crate::config::plan::{Coding, Compression};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const DIGEST: HeaderName = HeaderName::from_static("digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// What a client can take, as far as its route offers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    compression: &'a Compression,
    coding: Option<Coding>,
    is_head: bool,
}

impl<'a> Offer<'a> {
    /// What a route that compresses can do for a request.
    pub(super) fn of(compression: &'a Compression, head: &request::Parts) -> Self {
        let coding = negotiate(&head.headers, &compression.codings).filter(|_| !says_no_transform(&head.headers));
        Self { compression, coding, is_head: head.method == Method::HEAD }
    }

    /// The coding for a response, whose head is changed to match.
    pub(super) fn take(&self, head: &mut response::Parts, length: Option<u64>) -> Option<Coding> {
        if !self.may_compress(head, length) {
            return None;
        }
        add_vary(&mut head.headers);
        // A HEAD has no body to tell what it would be, nor has a 304.
        let coding = self.coding.filter(|_| !self.is_head && head.status != StatusCode::NOT_MODIFIED)?;
        announce(&mut head.headers, coding);
        Some(coding)
    }

    /// Whether a response may be compressed for anybody.
    fn may_compress(&self, head: &response::Parts, length: Option<u64>) -> bool {
        // As much as is known of the 200 in its place (RFC 9110, section 15.4.5).
        let is_same = head.status == StatusCode::NOT_MODIFIED;
        let has_whole_body =
            is_same || head.status.is_success() || head.status.is_client_error() || head.status.is_server_error();
        let bodiless = [StatusCode::NO_CONTENT, StatusCode::PARTIAL_CONTENT, StatusCode::RESET_CONTENT];
        let headers = &head.headers;
        has_whole_body
            && !bodiless.contains(&head.status)
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !headers.contains_key(header::CONTENT_RANGE)
            && !says_no_transform(headers)
            && (self.is_head || is_same || length.is_none_or(|length| length >= self.compression.min_size.0))
            && headers.get(header::CONTENT_TYPE).map_or(is_same, |kind| self.compression.covers(kind.as_bytes()))
    }
}

fn says_no_transform(headers: &HeaderMap) -> bool {
    let directives = headers.get_all(CACHE_CONTROL).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    directives.map(<[u8]>::trim_ascii).any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

fn add_vary(headers: &mut HeaderMap) {
    let fields = headers.get_all(header::VARY).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    let is_said =
        fields.map(<[u8]>::trim_ascii).any(|field| field == b"*" || field.eq_ignore_ascii_case(b"accept-encoding"));
    if !is_said {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Says how the body is coded, and no more what was true of the other form alone.
fn announce(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
    for gone in [header::CONTENT_LENGTH, header::ACCEPT_RANGES, CONTENT_MD5, CONTENT_DIGEST, DIGEST, REPR_DIGEST] {
        headers.remove(gone);
    }
    // Two forms of one resource are not the same byte for byte (RFC 9110, section 8.8.1).
    let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        headers.insert(header::ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;
    use crate::base::Size;

    fn take(
        accept: &str,
        method: Method,
        status: u16,
        length: Option<u64>,
        fields: &[(&str, &str)],
    ) -> (Option<Coding>, HeaderMap) {
        let compression = Compression { min_size: Size(100), ..Compression::default() };
        let request = Request::builder().method(method).header("accept-encoding", accept).body(()).unwrap();
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let mut head = response.body(()).unwrap().into_parts().0;
        let coding = Offer::of(&compression, &request.into_parts().0).take(&mut head, length);
        (coding, head.headers)
    }

    #[test]
    fn what_is_worth_it_and_allowed_is_compressed() {
        let html = ("content-type", "text/html; charset=utf-8");
        let get = |fields: &[(&str, &str)]| take("gzip", Method::GET, 200, None, fields).0;
        assert_eq!(get(&[html]), Some(Coding::Gzip));
        assert_eq!(get(&[("content-type", "application/problem+json")]), Some(Coding::Gzip));
        for other in [
            &[][..],
            &[("content-type", "image/png")],
            &[("content-type", "text/event-stream")],
            &[("content-type", "application/grpc+proto")],
            &[html, ("content-encoding", "br")],
            &[html, ("content-range", "bytes 0-1/2")],
            &[html, ("cache-control", "public, No-Transform")],
        ] {
            assert_eq!(get(other), None, "{other:?}");
        }
        for (status, length, expected) in [
            (404, None, true),
            (500, Some(100), true),
            (200, Some(99), false),
            (204, None, false),
            (206, None, false),
            (301, None, false),
        ] {
            let (coding, headers) = take("gzip", Method::GET, status, length, &[html]);
            assert_eq!((coding.is_some(), headers.contains_key("vary")), (expected, expected), "{status}");
        }
        // RFC 9110, section 15.4.5: a 304 says `Vary` as the 200 would, of which it tells next to nothing.
        for (fields, expected) in [
            (&[][..], true),
            (&[html], true),
            (&[("content-type", "image/png")], false),
            (&[html, ("cache-control", "no-transform")], false),
            (&[("content-encoding", "br")], false),
        ] {
            let (coding, headers) = take("gzip", Method::GET, 304, Some(0), fields);
            assert_eq!((coding, headers.contains_key("vary")), (None, expected), "{fields:?}");
        }
    }

    #[test]
    fn the_head_fits_the_body() {
        let fields = [
            ("content-type", "text/css"),
            ("etag", "\"abc\""),
            ("accept-ranges", "bytes"),
            ("content-length", "5000"),
            ("content-digest", "sha-256=:x:"),
            ("vary", "origin"),
        ];
        let (coding, headers) = take("br", Method::GET, 200, Some(5000), &fields);
        assert_eq!(coding, Some(Coding::Brotli));
        assert_eq!(
            (&headers["content-encoding"], &headers["etag"]),
            (&"br".parse().unwrap(), &"W/\"abc\"".parse().unwrap())
        );
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["origin", "accept-encoding"]);
        for gone in ["content-length", "accept-ranges", "content-digest"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn who_cannot_take_it_gets_it_as_it_is_and_caches_are_told() {
        let fields = [("content-type", "text/css"), ("etag", "\"abc\""), ("content-length", "5000")];
        for (accept, method) in [("identity", Method::GET), ("", Method::GET), ("gzip", Method::HEAD)] {
            let (coding, headers) = take(accept, method, 200, Some(5000), &fields);
            assert_eq!(coding, None);
            assert_eq!(
                (&headers["vary"], &headers["etag"]),
                (&"accept-encoding".parse().unwrap(), &"\"abc\"".parse().unwrap())
            );
            assert_eq!(headers["content-length"], "5000");
        }
        let (_, headers) = take("", Method::GET, 200, None, &[("content-type", "text/css"), ("vary", "*")]);
        assert_eq!(headers.get_all("vary").iter().count(), 1);
    }
}
