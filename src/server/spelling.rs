//! Whether the heads of requests in HTTP/1 are written in the one way that everybody reads alike.
//!
//! hyper takes two things that others read differently: lines that end with a line feed alone (RFC 9112, section 2.2), and a
//! `Content-Length` that is given twice with the same value (RFC 9110, section 8.6). It passes on one plain form of them, and
//! does not say that it was another. What comes behind such a head is not read: a proxy before us may have seen another end.
//!
//! A client may send ahead, so what is between heads is followed as well, as far as it takes to find the next: lengths and
//! chunks. This decides nothing but when a connection ends. Where it cannot follow, it looks no further.

use memchr::memchr;

/// The heads on one connection, as their bytes come.
#[derive(Debug, Default)]
pub(super) struct Spelling {
    at: At,
    // Rare: most heads come whole.
    begun: Option<Box<Begun>>,
    /// The number of the head that is coming, less one.
    heads: u64,
    head: Head,
}

/// The head that is coming.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// A line with something in it has come, so that the next empty one is the end.
    has_begun: bool,
    lengths: u8,
    length: u64,
    is_chunked: bool,
    /// What follows may be no HTTP.
    may_upgrade: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum At {
    /// In a head.
    #[default]
    Head,
    /// In a body, with so many bytes to come.
    Body(u64),
    /// In the line before a chunk.
    ChunkSize,
    /// In a chunk, with so many bytes to come, and a line end behind it.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Somewhere: it looks no further.
    Lost,
}

impl Spelling {
    /// Takes the next bytes. Returns the number of the first head in them, counted from 1, that others may read differently.
    pub(super) fn odd_head(&mut self, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            match self.at {
                At::Lost => return None,
                At::Body(left) | At::Chunk(left) => {
                    let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(passed..).unwrap_or_default();
                    self.at = match (self.at, left - passed as u64) {
                        (At::Chunk(_), 0) => At::ChunkEnd,
                        (At::Chunk(_), left) => At::Chunk(left),
                        (_, 0) => At::Head,
                        (_, left) => At::Body(left),
                    };
                }
                At::Head | At::ChunkSize | At::ChunkEnd | At::Trailers => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        self.begun.get_or_insert_default().add(bytes);
                        return None;
                    };
                    let (ended, rest) = bytes.split_at(end);
                    bytes = rest.get(1..).unwrap_or_default();
                    let mut begun = self.begun.take();
                    let line = match &mut begun {
                        None => Line::of(ended),
                        Some(begun) => {
                            begun.add(ended);
                            begun.line()
                        }
                    };
                    if self.at == At::Head && self.is_odd(line) {
                        return Some(self.heads + 1);
                    }
                    self.at = self.after(line);
                }
            }
        }
        None
    }

    fn is_odd(&mut self, line: Line<'_>) -> bool {
        let head = &mut self.head;
        // Most fields are neither: their first letter says so.
        match line.start.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = line.value(b"content-length") {
                    head.lengths = head.lengths.saturating_add(1);
                    head.length = number(value, 10).unwrap_or(u64::MAX);
                }
            }
            Some(b't' | b'T') => head.is_chunked |= line.value(b"transfer-encoding").is_some(),
            Some(b'u' | b'U') => head.may_upgrade |= line.value(b"upgrade").is_some(),
            _ => {}
        }
        !line.ends_with_return() || head.lengths > 1
    }

    /// Where it is after a line.
    fn after(&mut self, line: Line<'_>) -> At {
        match self.at {
            At::Head if !line.is_empty() => {
                self.head.has_begun = true;
                At::Head
            }
            // Empty lines before a request are nothing (RFC 9112, section 2.2).
            At::Head if !self.head.has_begun => At::Head,
            At::Head => {
                let Head { length, is_chunked, may_upgrade, .. } = std::mem::take(&mut self.head);
                self.heads += 1;
                match (may_upgrade, is_chunked, length) {
                    (true, ..) | (_, false, u64::MAX) => At::Lost,
                    (_, true, _) => At::ChunkSize,
                    (_, _, 0) => At::Head,
                    (_, _, length) => At::Body(length),
                }
            }
            At::ChunkSize => {
                let digits = line.start.split(|byte| !byte.is_ascii_hexdigit()).next().unwrap_or_default();
                match number(digits, 16) {
                    Some(0) => At::Trailers,
                    Some(size) => At::Chunk(size),
                    None => At::Lost,
                }
            }
            At::ChunkEnd => At::ChunkSize,
            At::Trailers if line.is_empty() => At::Head,
            elsewhere => elsewhere,
        }
    }
}

/// A line without its line feed: the start, as much as is of interest of it, and the end.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    start: &'a [u8],
    length: usize,
    last: u8,
}

impl<'a> Line<'a> {
    /// Longer than a name that matters with its value, however generously spaced.
    const ROOM: usize = 64;

    /// One that came whole.
    fn of(whole: &'a [u8]) -> Self {
        let start = whole.get(..Self::ROOM).unwrap_or(whole);
        Self { start, length: whole.len(), last: whole.last().copied().unwrap_or_default() }
    }

    fn ends_with_return(&self) -> bool {
        self.last == b'\r'
    }

    fn is_empty(&self) -> bool {
        self.length == usize::from(self.ends_with_return())
    }

    /// The value of a field of this name, if that is what the line is. A longer one than there is room for is none of a number.
    fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (written, value) = self.start.split_at_checked(name.len())?;
        let is_it = written.eq_ignore_ascii_case(name);
        value.split_first().filter(|(colon, _)| is_it && **colon == b':').map(|(_, value)| value.trim_ascii())
    }
}

/// What has come of a line that has not ended.
#[derive(Debug)]
struct Begun {
    start: [u8; Line::ROOM],
    length: usize,
    last: u8,
}

impl Begun {
    fn add(&mut self, part: &[u8]) {
        let room = self.start.get_mut(self.length.min(Line::ROOM)..).unwrap_or_default();
        room.iter_mut().zip(part).for_each(|(kept, byte)| *kept = *byte);
        self.length = self.length.saturating_add(part.len());
        self.last = part.last().copied().unwrap_or(self.last);
    }

    fn line(&self) -> Line<'_> {
        let start = self.start.get(..self.length.min(Line::ROOM)).unwrap_or_default();
        Line { start, length: self.length, last: self.last }
    }
}

impl Default for Begun {
    fn default() -> Self {
        Self { start: [0; Line::ROOM], length: 0, last: 0 }
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn odd_in_pieces(bytes: &[u8], piece: usize) -> Option<u64> {
        let mut spelling = Spelling::default();
        bytes.chunks(piece).find_map(|piece| spelling.odd_head(piece))
    }

    #[track_caller]
    fn judge(head: &str, expected: Option<u64>) {
        for piece in 1..=head.len() {
            assert_eq!(odd_in_pieces(head.as_bytes(), piece), expected, "{head:?} in pieces of {piece}");
        }
    }

    #[test]
    fn what_others_read_differently_is_odd() {
        for plain in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\n\n",
            "POST / HTTP/1.1\r\ncontent-length: 30\r\n\r\ncontent-length: 1\r\ncontent-",
            "POST / HTTP/1.1\r\ncontent-length-x: 30\r\ncontent-length-y: 1\r\ncontent-lengt: 1\r\n\r\n",
        ] {
            judge(plain, None);
        }
        for odd in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nCONTENT-length: 2\r\nx: y\r\ncontent-length: 2\r\n\r\n",
        ] {
            judge(odd, Some(1));
        }
    }

    #[test]
    fn heads_that_were_sent_ahead_are_found() {
        const ODD: &str = "GET / HTTP/1.1\r\nhost: a\n\r\n";
        for (first, number) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 2),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", 3),
            ("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 2),
            ("POST / HTTP/1.1\r\ncontent-length:  2 \r\n\r\n\n\n", 2),
            ("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\n\r\n", 2),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;x=\"y\"\r\n\n\n\r\n0\r\n\r\n", 2),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0\r\n\r\n0\r\n\r\n\r\n00\r\na: b\r\n\r\n", 2),
        ] {
            judge(&format!("{first}{ODD}"), Some(number));
            judge(first, None);
        }
        // What is behind an upgrade may be anything.
        judge(&format!("GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n{ODD}"), None);
        judge(&format!("POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n{ODD}"), None);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            parts in prop::collection::vec(prop::sample::select(vec![
                "\r", "\n", "\r\n", "\r\n\r\n", "content-length", ":", "x", "a: b", "2", "content-length: 3\r\n",
                "transfer-encoding: chunked\r\n", "upgrade: x\r\n", "GET / HTTP/1.1\r\n",
            ]), 0..30),
            piece in 1..20_usize,
        ) {
            let head = parts.concat();
            prop_assert_eq!(odd_in_pieces(head.as_bytes(), piece), odd_in_pieces(head.as_bytes(), usize::MAX));
        }
    }
}
