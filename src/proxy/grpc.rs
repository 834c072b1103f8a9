//! gRPC over HTTP/2, as far as a proxy has a part in it: its deadline, and its way to say that a call has failed.
//!
//! Calls and their trailers pass as every other request does. See the protocol's specification, "gRPC over HTTP2".

use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The content type of an answer that has no message.
pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Whether it is a call. gRPC-Web is not: its clients know nothing of trailers and read statuses of HTTP.
pub(super) fn is_call<B>(request: &Request<B>) -> bool {
    let is_grpc = |kind: &HeaderValue| {
        let rest = kind.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    request.version() == Version::HTTP_2 && request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc)
}

/// The time that the client grants the call: up to eight digits and a unit. `None` where it names none, or none that is valid.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let written = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = written.split_at_checked(written.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Says how a call ended, where there is no message: in the head, which is then the trailers, too ("Trailers-Only").
pub(super) fn end(headers: &mut HeaderMap, status: u16, message: &str) {
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(GRPC_STATUS, status.into());
    if let Ok(message) = HeaderValue::try_from(percent_encoded(message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
}

/// The status that a head or trailers tell.
pub(super) fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Printable ASCII without `%` stays as it is.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_by_version_and_content_type() {
        let is = |version, kind: &str| {
            is_call(&Request::post("/s/m").version(version).header("content-type", kind).body(()).unwrap())
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert!(is(Version::HTTP_2, kind), "{kind}");
            assert!(!is(Version::HTTP_11, kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            assert!(!is(Version::HTTP_2, kind), "{kind}");
        }
    }

    #[test]
    fn timeouts_are_read_and_garbage_is_none() {
        let read = |written: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(written).unwrap());
            timeout(&headers)
        };
        assert_eq!(read("1H"), Some(Duration::from_secs(3_600)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("30S"), Some(Duration::from_secs(30)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
        for garbage in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "\u{e9}"] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut headers = HeaderMap::new();
        end(&mut headers, 14, "100% à\n");
        assert_eq!(headers["grpc-message"], "100%25 %C3%A0%0A");
        assert_eq!((&headers["content-type"], status(&headers)), (&CONTENT_TYPE, Some(14)));
    }
}
