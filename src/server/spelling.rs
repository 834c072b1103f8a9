//! Whether the head of a request in HTTP/1 is written in the one way that everybody reads alike.
//!
//! hyper takes two things that others read differently: lines that end with a line feed alone (RFC 9112, section 2.2), and a
//! `Content-Length` that is given twice with the same value (RFC 9110, section 8.6). It passes on one plain form of them, and
//! does not say that it was another. What comes behind such a head is not read: a proxy before us may have seen another end.
//!
//! Only heads that are awaited are looked at. Where a body ends, and the next head begins, hyper alone knows: what a client sends
//! ahead, while its request before is still served, is passed on in the plain form as well, and no close follows.

use memchr::memchr_iter;

const LENGTH: &[u8] = b"content-length";

/// A head as it comes, in pieces.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    /// The start of a line that is not there whole.
    line: [u8; LENGTH.len()],
    line_length: usize,
    ends_with_return: bool,
    /// A line with something in it has come: the next empty one is the end. Empty ones before it are not counted.
    has_begun: bool,
    has_ended: bool,
    lengths: u8,
}

impl Spelling {
    /// Takes the next bytes. Returns whether the head, as far as it has come, is one that others may read differently.
    pub(super) fn is_odd(&mut self, bytes: &[u8]) -> bool {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            if self.has_ended {
                return false;
            }
            self.add(bytes.get(start..end).unwrap_or_default());
            if self.line_ends() {
                return true;
            }
            start = end + 1;
        }
        if !self.has_ended {
            self.add(bytes.get(start..).unwrap_or_default());
        }
        false
    }

    fn add(&mut self, part: &[u8]) {
        if let Some(last) = part.last() {
            self.ends_with_return = *last == b'\r';
        }
        let room = self.line.get_mut(self.line_length.min(LENGTH.len())..).unwrap_or_default();
        room.iter_mut().zip(part).for_each(|(kept, byte)| *kept = *byte);
        self.line_length = self.line_length.saturating_add(part.len());
    }

    fn line_ends(&mut self) -> bool {
        let has_return = std::mem::take(&mut self.ends_with_return);
        let length = std::mem::take(&mut self.line_length);
        let is_empty = length == usize::from(has_return);
        self.has_ended = is_empty && self.has_begun;
        self.has_begun |= !is_empty;
        self.lengths += u8::from(length > LENGTH.len() && self.line.eq_ignore_ascii_case(LENGTH));
        !has_return || self.lengths > 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_odd_in_pieces(bytes: &[u8], piece: usize) -> bool {
        let mut spelling = Spelling::default();
        bytes.chunks(piece).any(|piece| spelling.is_odd(piece))
    }

    #[test]
    fn what_others_read_differently_is_odd() {
        let rows: [(&str, bool); 10] = [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", false),
            ("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\n\n", false),
            ("POST / HTTP/1.1\r\ncontent-length: 30\r\n\r\ncontent-length: 1\r\ncontent-", false),
            ("POST / HTTP/1.1\r\ncontent-length-x: 30\r\ncontent-lengt: 1\r\n\r\n", false),
            ("GET / HTTP/1.1\nhost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nhost: a\n\r\n", true),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", true),
            ("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nCONTENT-length: 2\r\nx: y\r\ncontent-length: 2\r\n\r\n", true),
        ];
        for (head, expected) in rows {
            for piece in 1..=head.len() {
                assert_eq!(is_odd_in_pieces(head.as_bytes(), piece), expected, "{head:?} in pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            parts in prop::collection::vec(prop::sample::select(vec!["\r", "\n", "\r\n", "content-length", ":", "x", "a: b"]), 0..20),
            piece in 1..20_usize,
        ) {
            let head = parts.concat();
            prop_assert_eq!(is_odd_in_pieces(head.as_bytes(), piece), is_odd_in_pieces(head.as_bytes(), usize::MAX));
        }
    }
}
