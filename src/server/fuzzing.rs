//! What clients' bytes are taken for, as fuzz targets see it.

use super::{proxy_protocol::parse, spelling::Spelling};
use crate::config::plan::ProxyProtocol;

/// Reads bytes as a PROXY header, in every version that may be spoken.
///
/// # Panics
/// A header is not one and the same however many bytes after it have come, or longer than they are.
pub fn proxy_header(bytes: &[u8]) {
    for spoken in [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Any] {
        let whole = parse(bytes, spoken);
        let Ok(Some(header)) = whole else { continue };
        assert!(0 < header.length && header.length <= bytes.len());
        let (alone, _) = bytes.split_at(header.length);
        assert_eq!(parse(alone, spoken), whole);
        let (cut, _) = bytes.split_at(header.length - 1);
        assert!(!matches!(parse(cut, spoken), Ok(Some(_))), "{spoken:?}");
    }
}

/// Reads bytes as requests, in pieces, and asks for the first head that others may read differently.
///
/// # Panics
/// The answer hangs on the pieces, or is not what the lines of the first head say.
pub fn spelling(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let odd_in_pieces_of = |piece| {
        let mut spelling = Spelling::default();
        bytes.chunks(piece).find_map(|piece| spelling.odd_head(piece))
    };
    let odd = odd_in_pieces_of(usize::from(*piece).max(1));
    assert_eq!(odd, odd_in_pieces_of(usize::MAX));

    // What comes after the last line feed is no line yet.
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    lines.pop();
    let is_empty = |line: &&[u8]| matches!(line, [] | [b'\r']);
    let first = lines.iter().position(|line| !is_empty(line)).unwrap_or(lines.len());
    let end = lines.iter().skip(first).position(is_empty).map_or(lines.len(), |end| first + end + 1);
    let head = lines.get(..end).unwrap_or_default();
    let is_length = |line: &&&[u8]| {
        line.split_first_chunk().is_some_and(|(name, _): (&[u8; 15], _)| name.eq_ignore_ascii_case(b"content-length:"))
    };
    let expected = head.iter().any(|line| !line.ends_with(b"\r")) || head.iter().filter(is_length).count() > 1;
    assert_eq!(odd == Some(1), expected);
}
