//! The heads of HTTP/1.1: a request's on its way out, a response's as it comes (RFC 9112).

use std::{io::Write as _, mem::MaybeUninit};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::{super::wire::RequestHead, Garbage};
use crate::net::values;

/// Fields that a head or trailers of a backend may have.
const MAX_FIELDS: usize = 100;

/// Fields that the gateway is likely to add to a response: there is room for them, so that the map need not grow.
const LIKELY_ADDED: usize = 1;

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Length {
    /// By its length.
    Known(u64),
    /// By chunks.
    Chunked,
}

/// Writes the head of a request. What frames the body is written here and taken from nowhere else.
pub(super) fn encode(out: &mut Vec<u8>, RequestHead { parts: head, added, .. }: &RequestHead, length: Length) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut says_length = false;
    for (name, value) in &head.headers {
        if name == CONTENT_LENGTH {
            says_length = true;
        } else if name != TRANSFER_ENCODING {
            field(out, name, value);
        }
    }
    added.iter().for_each(|(name, value)| field(out, name, value));
    match length {
        // A request that says that it has no body goes on saying so; to one that says nothing, nothing is added.
        Length::Known(0) if !says_length => {}
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
    match read.first() {
        None => return Ok(None),
        Some(b'H') => {}
        // The parser forgives empty lines before a head. They came after the end of a response: somebody counts differently.
        Some(_) => return Err(not_a_head(httparse::Error::Version)),
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parsing = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, read, &mut fields);
    let Status::Complete(length) = parsing.map_err(not_a_head)? else { return Ok(None) };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Garbage("what is no status"))?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let unusual = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let reason = unusual.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    let mut places = [Place::default(); MAX_FIELDS];
    let count = parsed.headers.len();
    places.iter_mut().zip(parsed.headers.iter()).for_each(|(place, field)| *place = Place::of(field, read));
    let head = read.split_to(length).freeze();
    let headers = collect(&head, places.get(..count).unwrap_or_default())?;
    let keeps_alive = match version {
        Version::HTTP_11 => !has_option(&headers, b"close"),
        _ => has_option(&headers, b"keep-alive") && !has_option(&headers, b"close"),
    };
    let mut response = Response::new(());
    if let Some(reason) = reason {
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
        Ok(Status::Complete((length, fields))) if length == trailers.len() => {
            let places: Vec<Place> = fields.iter().map(|field| Place::of(field, &trailers)).collect();
            collect(&trailers, &places).map(Some)
        }
        _ => Err(Garbage("what are no trailers")),
    }
}

/// Where in a text a field is. Values are then cut from the text, without a copy.
#[derive(Clone, Copy, Default)]
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

impl Place {
    fn of(field: &httparse::Header<'_>, text: &[u8]) -> Self {
        let place = |part: &[u8]| {
            // Of nothing, the parser need not say where it is.
            if part.is_empty() {
                return (0, 0);
            }
            let start = part.as_ptr().addr() - text.as_ptr().addr();
            (start as u32, (start + part.len()) as u32)
        };
        Self { name: place(field.name.as_bytes()), value: place(field.value) }
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

fn collect(text: &Bytes, fields: &[Place]) -> Result<HeaderMap, Garbage> {
    let mut headers = HeaderMap::with_capacity(fields.len() + LIKELY_ADDED);
    for Place { name, value } in fields {
        let name = text.get(name.0 as usize..name.1 as usize).unwrap_or_default();
        let name = HeaderName::from_bytes(name).map_err(|_| Garbage("what is no name of a field"))?;
        let value = HeaderValue::from_maybe_shared(text.slice(value.0 as usize..value.1 as usize));
        headers.append(name, value.map_err(|_| Garbage("what is no value of a field"))?);
    }
    Ok(headers)
}

/// Whether `Connection` has an option, in any of its lines.
fn has_option(headers: &HeaderMap, option: &[u8]) -> bool {
    let options = values(headers, &CONNECTION).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).any(|written| written.eq_ignore_ascii_case(option))
}
