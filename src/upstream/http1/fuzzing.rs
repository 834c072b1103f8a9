//! The framing of responses as a fuzz target sees it.

use bytes::BytesMut;
use http::{HeaderMap, Method};

use super::{
    Garbage,
    body::{Decoder, Piece},
    head,
};

/// A response as it was understood: its status, its fields, its body, its trailers. `None` where it has no end.
pub(super) type Understood = Option<(u16, HeaderMap, Vec<u8>, HeaderMap)>;

/// Reads the response to a request of a method, when the bytes come in these pieces, and then the end of the connection.
pub(super) fn understand<'a>(
    method: &Method,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Understood, Garbage> {
    let (mut read, mut pieces) = (BytesMut::new(), pieces.into_iter());
    let response = loop {
        match head::parse(&mut read)? {
            Some(head) if head.response.status().is_informational() => {}
            Some(head) => break head.response,
            None => match pieces.next() {
                Some(piece) => read.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    };
    let (head, ()) = response.into_parts();
    let mut decoder = Decoder::of(method, head.status, head.version, &head.headers)?;
    let (mut body, mut trailers, mut is_closed) = (Vec::new(), HeaderMap::new(), false);
    loop {
        match decoder.decode(&mut read, is_closed)? {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::Trailers(last) => trailers = last,
            Piece::End => return Ok(Some((head.status.as_u16(), head.headers, body, trailers))),
            Piece::Nothing => match pieces.next() {
                Some(piece) => read.extend_from_slice(piece),
                None => is_closed = true,
            },
        }
    }
}

/// Reads bytes as a response, in one piece and byte by byte.
///
/// # Panics
/// What it says depends on how it comes, or its body is longer than what came.
#[cfg(fuzzing)]
pub fn response(bytes: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let whole = understand(&method, [bytes]).ok().flatten();
        let pieced = understand(&method, bytes.chunks(1)).ok().flatten();
        assert_eq!(whole, pieced);
        assert!(whole.is_none_or(|(_, _, body, _)| body.len() < bytes.len()));
    }
}
