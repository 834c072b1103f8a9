//! Where the body of a response ends (RFC 9112, section 6.3), and what it is without its framing.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::SizeHint;

use super::{Garbage, head};
use crate::net::values;

/// The longest line before a chunk: a size, and extensions that nobody reads.
const LONGEST_LINE: usize = 4 * 1024;

/// The longest trailers.
const LONGEST_TRAILERS: usize = 16 * 1024;

/// What is left of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decoder {
    /// Nothing.
    Over,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// All that comes before the connection ends.
    UntilClose,
}

/// Where in a body of chunks reading is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Chunks {
    /// Before the line with a chunk's size.
    Size,
    /// In a chunk, with so many bytes to come.
    Data(u64),
    /// Before the end of the line after a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

/// What came next of a body.
#[derive(Debug)]
pub(super) enum Piece {
    /// Some of it.
    Data(Bytes),
    /// Trailers, and so its end.
    Trailers(HeaderMap),
    /// Its end.
    End,
    /// More must be read first.
    Nothing,
}

impl Decoder {
    /// How the body of a response ends.
    ///
    /// # Errors
    /// It is said in more than one way, or in one that cannot be understood.
    pub(super) fn of(
        method: &Method,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<Self, Garbage> {
        if *method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
            return Ok(Self::Over);
        }
        let mut codings = values(headers, &TRANSFER_ENCODING);
        if let Some(coding) = codings.next() {
            let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
            return match is_chunked && codings.next().is_none() && version == Version::HTTP_11 {
                true => Ok(Self::Chunks(Chunks::Size)),
                false => Err(Garbage("a transfer coding other than chunked")),
            };
        }
        let mut lengths = values(headers, &CONTENT_LENGTH);
        match (lengths.next(), lengths.next()) {
            (None, _) => Ok(Self::UntilClose),
            (Some(length), None) => match decimal(length.as_bytes()) {
                Some(0) => Ok(Self::Over),
                Some(length) => Ok(Self::Length(length)),
                None => Err(Garbage("a length that is no number")),
            },
            (Some(_), Some(_)) => Err(Garbage("more than one length")),
        }
    }

    /// Takes the next piece off the front of what was read; `is_closed` says that nothing more will come.
    ///
    /// # Errors
    /// The framing is wrong, or the connection has ended before the body.
    pub(super) fn decode(&mut self, read: &mut BytesMut, is_closed: bool) -> Result<Piece, Garbage> {
        let piece = match self {
            Self::Over => return Ok(Piece::End),
            Self::UntilClose if read.is_empty() && is_closed => {
                *self = Self::Over;
                return Ok(Piece::End);
            }
            Self::UntilClose => take(read, u64::MAX),
            Self::Length(left) => {
                let piece = take(read, *left);
                if let Piece::Data(data) = &piece {
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::Over;
                    }
                }
                piece
            }
            Self::Chunks(chunks) => match chunks.decode(read)? {
                piece @ (Piece::Trailers(_) | Piece::End) => {
                    *self = Self::Over;
                    piece
                }
                piece @ Piece::Data(_) => {
                    if chunks.is_last_of(read) {
                        *self = Self::Over;
                    }
                    piece
                }
                Piece::Nothing => Piece::Nothing,
            },
        };
        match piece {
            Piece::Nothing if is_closed => Err(Garbage("an end before the end of the body")),
            piece => Ok(piece),
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Over => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunks(_) | Self::UntilClose => SizeHint::default(),
        }
    }
}

impl Chunks {
    fn decode(&mut self, read: &mut BytesMut) -> Result<Piece, Garbage> {
        loop {
            match self {
                Self::Size => match chunk_size(read)? {
                    None => return Ok(Piece::Nothing),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(left) => {
                    let piece = take(read, *left);
                    if let Piece::Data(data) = &piece {
                        *left -= data.len() as u64;
                        if *left == 0 {
                            *self = Self::DataEnd;
                        }
                    }
                    return Ok(piece);
                }
                Self::DataEnd => match read[..] {
                    [b'\r', b'\n', ..] => {
                        read.advance(2);
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::Nothing),
                    _ => return Err(Garbage("a chunk longer than its size")),
                },
                Self::Trailers => {
                    let before = read.len();
                    let trailers = head::parse_trailers(read)?;
                    let length = if trailers.is_none() { before } else { before - read.len() };
                    if length > LONGEST_TRAILERS {
                        return Err(Garbage("trailers that are too long"));
                    }
                    return Ok(match trailers {
                        None => Piece::Nothing,
                        Some(trailers) if trailers.is_empty() => Piece::End,
                        Some(trailers) => Piece::Trailers(trailers),
                    });
                }
            }
        }
    }

    /// Takes the end of the body, where it is all that was read behind a chunk: it is passed on with the chunk then, and nobody
    /// is woken for it alone.
    fn is_last_of(self, read: &mut BytesMut) -> bool {
        let is_last = self == Self::DataEnd && read[..] == *b"\r\n0\r\n\r\n";
        if is_last {
            read.clear();
        }
        is_last
    }
}

/// At most so many bytes of what was read.
fn take(read: &mut BytesMut, most: u64) -> Piece {
    match usize::try_from(most).unwrap_or(usize::MAX).min(read.len()) {
        0 => Piece::Nothing,
        length => Piece::Data(read.split_to(length).freeze()),
    }
}

/// Takes the line before a chunk; `None` while its end has not come. Extensions mean nothing here; a CR in them is an attack on
/// somebody who ends lines with it.
fn chunk_size(read: &mut BytesMut) -> Result<Option<u64>, Garbage> {
    let Some(end) = memchr::memchr(b'\n', read.get(..LONGEST_LINE.min(read.len())).unwrap_or_default()) else {
        return if read.len() < LONGEST_LINE { Ok(None) } else { Err(Garbage("a chunk's line that is too long")) };
    };
    let line = read.split_to(end + 1);
    let line = line
        .strip_suffix(b"\r\n")
        .filter(|line| !line.contains(&b'\r'))
        .ok_or(Garbage("what is no line of a chunk"))?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let is_extension = matches!(rest.trim_ascii_start(), [] | [b';', ..]);
    hexadecimal(size).filter(|_| is_extension).map(Some).ok_or(Garbage("what is no size of a chunk"))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A number of digits alone: no sign, no list.
fn decimal(digits: &[u8]) -> Option<u64> {
    let text = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}
