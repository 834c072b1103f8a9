//! The gRPC probe: one call of `grpc.health.v1.Health/Check`, whose two messages are small enough to be read by hand.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE, USER_AGENT},
    uri::{Authority, PathAndQuery},
};
use http_body_util::Full;

use super::{Attempt, Failure, Question, READ_LIMIT, conversation::Conversation, http::AGENT, quoted};
use crate::{config::plan::GrpcProbe, tls::Protocol};

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// As much of what a server says as fits into a sentence.
const QUOTED: usize = 60;

pub(super) async fn probe(attempt: &mut Attempt, question: &Question, probe: &GrpcProbe) -> Result<(), Failure> {
    let request = request(attempt, question, probe)?;
    let transport = attempt.dial(&question.dial).await?;
    let mut conversation = Conversation::begin(transport, Protocol::Http2).await?;
    let result = call(attempt, &mut conversation, request, &probe.service).await;
    match attempt.status {
        Some(_) => result,
        None => result.map_err(|failure| conversation.other_protocol().unwrap_or(failure)),
    }
}

fn request(attempt: &Attempt, question: &Question, probe: &GrpcProbe) -> Result<Request<Full<Bytes>>, Failure> {
    let mut target = Uri::default().into_parts();
    target.scheme = Some(question.dial.scheme());
    target.authority = Authority::try_from(question.authority.as_bytes()).ok();
    target.path_and_query = Some(PathAndQuery::from_static(METHOD));
    let mut request = Request::new(Full::from(framed(&check_request(&probe.service))));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() =
        Uri::from_parts(target).map_err(|error| Failure::new("bad_request", format!("authority: {error}")))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    // At most eight digits; the longest timeout, a day, has as many.
    let timeout = HeaderValue::from_str(&format!("{}m", attempt.timeout.as_millis()));
    headers.extend(timeout.ok().map(|timeout| (http::HeaderName::from_static("grpc-timeout"), timeout)));
    Ok(request)
}

async fn call(
    attempt: &mut Attempt,
    conversation: &mut Conversation,
    request: Request<Full<Bytes>>,
    service: &str,
) -> Result<(), Failure> {
    let answer = attempt.within("timeout", "answer", conversation.ask(request)).await??;
    let (head, mut body) = answer.into_parts();
    attempt.first_byte = Some(attempt.started.elapsed());
    attempt.status = Some(head.status.as_u16());
    if head.status != 200 {
        return Err(Failure::new("status", format!("status {} in place of an answer in gRPC", head.status.as_u16())));
    }
    let media = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !media.starts_with(b"application/grpc") {
        let media = quoted(&String::from_utf8_lossy(media), QUOTED);
        return Err(Failure::new("bad_response", format!("not an answer in gRPC, but `{media}`")));
    }
    let mut read = Vec::new();
    let filled = conversation.read(&mut body, &mut read, READ_LIMIT);
    let trailers = attempt.within("timeout", "end of the answer", filled).await??;
    ended_well(trailers.as_ref().unwrap_or(&head.headers), service)?;
    attempt.found = serving(&read)?;
    Ok(())
}

/// How a call ended: in the trailers, or in a head without a body.
fn ended_well(trailers: &HeaderMap, service: &str) -> Result<(), Failure> {
    let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse::<u32>().ok());
    let Some(status) = status else {
        return Err(Failure::new("bad_response", "an answer without a grpc-status"));
    };
    let message = trailers.get("grpc-message").map(|message| unescaped(message.as_bytes())).unwrap_or_default();
    let name = STATUSES.get(usize::try_from(status).unwrap_or(usize::MAX)).copied();
    let name = name.map_or_else(|| format!("status {status}"), str::to_owned);
    let detail = match (name.as_str(), message.is_empty()) {
        ("OK", _) => return Ok(()),
        ("UNIMPLEMENTED", _) => "UNIMPLEMENTED: the server does not implement grpc.health.v1".to_owned(),
        ("NOT_FOUND", _) => format!("NOT_FOUND: the server does not know service `{}`", quoted(service, QUOTED)),
        (name, true) => name.to_owned(),
        (name, false) => format!("{name}: {}", quoted(&message, QUOTED)),
    };
    Err(Failure::new("grpc_status", detail))
}

/// The codes of gRPC, by number.
const STATUSES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `grpc-message` without its percent-encoding; what is not encoded right stays as it is.
pub(super) fn unescaped(message: &[u8]) -> String {
    let hex = |digit: Option<&u8>| digit.and_then(|digit| char::from(*digit).to_digit(16));
    let (mut bytes, mut rest) = (Vec::with_capacity(message.len()), message);
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| Some(hex(after.first())? * 16 + hex(after.get(1))?)).flatten();
        bytes.push(escaped.and_then(|byte| u8::try_from(byte).ok()).unwrap_or(byte));
        rest = after.get(if escaped.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the answer says of the service.
pub(super) fn serving(body: &[u8]) -> Result<String, Failure> {
    let status = message_of(body).and_then(status_of);
    match status {
        Some(1) => Ok("SERVING".to_owned()),
        Some(0) => Err(Failure::new("not_serving", "UNKNOWN")),
        Some(2) => Err(Failure::new("not_serving", "NOT_SERVING")),
        Some(3) => Err(Failure::new("not_serving", "SERVICE_UNKNOWN")),
        Some(other) => Err(Failure::new("not_serving", format!("serving status {other}"))),
        None => Err(Failure::new("bad_response", "not an answer of grpc.health.v1")),
    }
}

/// `HealthCheckRequest`: the service is field 1, and left out where it is empty.
fn check_request(service: &str) -> Vec<u8> {
    if service.is_empty() {
        return vec![];
    }
    let mut message = vec![1 << 3 | LENGTH];
    let mut length = service.len();
    while length >= 0x80 {
        message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).unwrap_or_default());
    message.extend_from_slice(service.as_bytes());
    message
}

/// A message behind its flag (not compressed) and length.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// The first message, not compressed.
fn message_of(body: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = body.split_first_chunk::<5>()?;
    let [0, length @ ..] = prefix else { return None };
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

// How a field is written (protobuf's wire types).
const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const LENGTH: u8 = 2;
const FOUR_BYTES: u8 = 5;

/// `HealthCheckResponse`: the status is field 1, the last one counts, and 0 is left out. Other fields are skipped.
fn status_of(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let (key, rest) = varint(message)?;
        let (number, kind) = (key >> 3, u8::try_from(key & 7).ok()?);
        message = match kind {
            VARINT => {
                let (value, rest) = varint(rest)?;
                status = if number == 1 { value } else { status };
                rest
            }
            EIGHT_BYTES => rest.get(8..)?,
            FOUR_BYTES => rest.get(4..)?,
            LENGTH => {
                let (length, rest) = varint(rest)?;
                rest.get(usize::try_from(length).ok()?..)?
            }
            _ => return None,
        };
    }
    Some(status)
}

/// A number of up to ten bytes, seven bits in each, the lowest first.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(i).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(i + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_written_as_protobuf_has_them() {
        assert_eq!(framed(&check_request("")), [0, 0, 0, 0, 0]);
        assert_eq!(framed(&check_request("a.B")), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert_eq!(check_request(&"x".repeat(200))[..3], [0x0a, 0xc8, 1]);
    }

    #[test]
    fn answers_are_read_as_protobuf_has_them() {
        let said = |message: &[u8]| serving(&framed(message)).map_err(|failure| failure.detail);
        assert_eq!(said(&[8, 1]).unwrap(), "SERVING");
        // Fields of every kind that a later version may have, and a status that is said twice.
        let others = [0x12, 1, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 0x28, 7, 8, 2, 8, 1];
        assert_eq!(said(&others).unwrap(), "SERVING");
        assert_eq!((said(&[]), said(&[8, 2])), (Err("UNKNOWN".into()), Err("NOT_SERVING".into())));
        assert_eq!((said(&[8, 3]), said(&[8, 9])), (Err("SERVICE_UNKNOWN".into()), Err("serving status 9".into())));
        let bad = "not an answer of grpc.health.v1".to_owned();
        for message in [&[8][..], &[8, 0xff], &[0x12, 9, 0], &[0x0b], &[0x19, 0]] {
            assert_eq!(said(message), Err(bad.clone()), "{message:?}");
        }
        for body in [&b""[..], &[0, 0, 0, 0, 9, 8, 1], &[1, 0, 0, 0, 2, 8, 1], &[0, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(serving(body).unwrap_err().detail, bad, "{body:?}");
        }
    }

    #[test]
    fn how_a_call_ended_is_said_in_words() {
        let said = |fields: &[(&'static str, &'static str)]| {
            let field = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let trailers = fields.iter().map(field).collect();
            ended_well(&trailers, "my.Service").map_err(|failure| (failure.reason, failure.detail))
        };
        let status = |detail: &str| Err(("grpc_status", detail.to_owned()));
        assert_eq!(said(&[("grpc-status", "0")]), Ok(()));
        assert_eq!(
            said(&[("grpc-status", "12")]),
            status("UNIMPLEMENTED: the server does not implement grpc.health.v1")
        );
        assert_eq!(said(&[("grpc-status", "5")]), status("NOT_FOUND: the server does not know service `my.Service`"));
        let unavailable = [("grpc-status", "14"), ("grpc-message", "100%25 of caf%C3%A9%0A %zz %")];
        assert_eq!(said(&unavailable), status("UNAVAILABLE: 100% of café\\n %zz %"));
        assert_eq!(
            (said(&[("grpc-status", "16")]), said(&[("grpc-status", "99")])),
            (status("UNAUTHENTICATED"), status("status 99"))
        );
        assert_eq!(said(&[]).unwrap_err().0, "bad_response");
        assert_eq!(said(&[("grpc-status", "x")]).unwrap_err().0, "bad_response");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (serving(&bytes), serving(&framed(&bytes)), unescaped(&bytes));
        }
    }
}
