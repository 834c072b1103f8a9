//! The heads of HTTP/1.1: a request's on its way out, a response's as it comes (RFC 9112).

use std::{io::Write as _, mem::MaybeUninit};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::Garbage;

/// Fields that a head or trailers of a backend may have.
const MAX_FIELDS: usize = 100;

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Length {
    /// By its length.
    Known(u64),
    /// By chunks.
    Chunked,
}

/// Writes the head of a request. What frames the body is written here and taken from nowhere else.
pub(super) fn encode(out: &mut Vec<u8>, head: &Parts, length: Length) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &head.headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            field(out, name, value);
        }
    }
    match length {
        // A request that says that it has no body goes on saying so; to one that says nothing, nothing is added.
        Length::Known(0) if !head.headers.contains_key(CONTENT_LENGTH) => {}
        // Writing to memory cannot fail.
        Length::Known(length) => drop(write!(out, "content-length: {length}\r\n")),
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a body in chunks.
pub(super) fn encode_end(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    trailers.into_iter().flatten().for_each(|(name, value)| field(out, name, value));
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The head of a response, and whether its connection may carry another.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) keeps_alive: bool,
}

/// Takes the head of a response off the front of what was read; `None` while its end has not come.
///
/// # Errors
/// It is none of HTTP/1.0 or 1.1.
pub(super) fn parse(read: &mut BytesMut) -> Result<Option<Head>, Garbage> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let Some(end) = end_of_fields(read) else {
        // The rest of what is wrong already need not be awaited.
        let begun = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, read, &mut fields);
        return begun.map(|_partial| None).map_err(not_a_head);
    };
    let head = read.split_to(end).freeze();
    let whole = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &head, &mut fields);
    if whole.map_err(not_a_head)? != Status::Complete(head.len()) {
        return Err(Garbage("a head that ends before its end"));
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Garbage("what is no status"))?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let headers = collect(&head, parsed.headers)?;
    let keeps_alive = match version {
        Version::HTTP_11 => !has_option(&headers, b"close"),
        _ => has_option(&headers, b"keep-alive") && !has_option(&headers, b"close"),
    };
    let mut response = Response::new(());
    if let Some(reason) = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason())
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    Ok(Some(Head { response, keeps_alive }))
}

fn not_a_head(error: httparse::Error) -> Garbage {
    match error {
        httparse::Error::TooManyHeaders => Garbage("too many fields"),
        _ => Garbage("what is no head of HTTP/1.1"),
    }
}

/// Takes the trailers of a body off the front of what was read, with the empty line after them; `None` while that has not come.
///
/// # Errors
/// They are no fields.
pub(super) fn parse_trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, Garbage> {
    match read[..] {
        [b'\r', b'\n', ..] => {
            read.advance(2);
            return Ok(Some(HeaderMap::new()));
        }
        [] | [b'\r'] => return Ok(None),
        _ => {}
    }
    let Some(end) = end_of_fields(read) else { return Ok(None) };
    let trailers = read.split_to(end).freeze();
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(&trailers, &mut fields) {
        Ok(Status::Complete((length, fields))) if length == trailers.len() => collect(&trailers, fields).map(Some),
        _ => Err(Garbage("what are no trailers")),
    }
}

/// Where the empty line after a block of fields ends. A lone LF ends a line, too (RFC 9112, section 2.2).
fn end_of_fields(read: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr(b'\n', read.get(at..)?)? + 1;
        match read.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

fn collect(text: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, Garbage> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Garbage("what is no name of a field"))?;
        let value = HeaderValue::from_maybe_shared(text.slice_ref(field.value));
        headers.append(name, value.map_err(|_| Garbage("what is no value of a field"))?);
    }
    Ok(headers)
}

/// Whether `Connection` has an option, in any of its lines.
fn has_option(headers: &HeaderMap, option: &[u8]) -> bool {
    let options = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).any(|written| written.eq_ignore_ascii_case(option))
}
