//! A copy of a small request body, for a request that a backend gives back.
//!
//! Only HTTP/2 can say that a request was not begun, so only what goes to such backends is copied. The copy is a list of pieces
//! that share their bytes with what is sent: nothing is copied but pointers. It is dropped when the head of a response is there.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

/// The largest body of which a copy is kept, in bytes: any message of most services, and a bound on what a request may hold
/// until it is answered.
const MOST_BYTES: usize = 64 * 1024;

/// The most pieces in which it may come. Each may keep alive the buffer in which it was read, which is larger.
const MOST_PIECES: usize = 16;

/// What was sent of a request body so far.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pieces: Vec<Bytes>,
    length: usize,
    trailers: Option<HeaderMap>,
    extent: Extent,
}

/// How much of a body is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Extent {
    /// What has come.
    #[default]
    Part,
    /// Nothing: it is too large.
    TooLarge,
    /// All of it.
    Whole,
}

impl Kept {
    /// For a body of at least so many bytes; `None` where that is too large.
    pub(super) fn of_at_least(length: u64) -> Option<Self> {
        (length <= MOST_BYTES as u64).then(Self::default)
    }

    /// The next frame.
    pub(super) fn push(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        // Empty ones say nothing, and a client may send any number of them.
        let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else { return };
        self.length = self.length.saturating_add(data.len());
        if self.length > MOST_BYTES || self.pieces.len() == MOST_PIECES {
            *self = Self { extent: Extent::TooLarge, ..Self::default() };
        } else if self.extent == Extent::Part {
            self.pieces.push(data.clone());
        }
    }

    /// That was the last.
    pub(super) fn end(&mut self) {
        if self.extent == Extent::Part {
            self.extent = Extent::Whole;
        }
    }

    /// Whether it is all of the body.
    pub(super) fn is_whole(&self) -> bool {
        self.extent == Extent::Whole
    }

    /// The body, to be sent again.
    pub(super) fn again(&self) -> Again {
        Again { pieces: self.pieces.clone().into_iter(), left: self.length, trailers: self.trailers.clone() }
    }
}

/// A body that is sent again, or a copy of one.
#[derive(Debug)]
pub struct Again {
    pieces: std::vec::IntoIter<Bytes>,
    left: usize,
    trailers: Option<HeaderMap>,
}

impl Again {
    /// These bytes.
    pub(super) fn of(body: Bytes) -> Self {
        Self { left: body.len(), pieces: vec![body].into_iter(), trailers: None }
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        let Some(piece) = self.pieces.next() else { return self.trailers.take().map(Frame::trailers) };
        self.left = self.left.saturating_sub(piece.len());
        Some(Frame::data(piece))
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    /// Exact, but where trailers follow: HTTP/1.1 has them only after a body of unknown length.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.trailers {
            None => SizeHint::with_exact(self.left as u64),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::ETAG};

    use super::*;

    fn kept(pieces: &[usize]) -> Kept {
        let mut kept = Kept::default();
        for length in pieces {
            kept.push(&Frame::data(Bytes::from(vec![b'x'; *length])));
        }
        kept
    }

    fn is_kept(pieces: &[usize]) -> bool {
        let mut kept = kept(pieces);
        assert!(!kept.is_whole(), "more may come");
        kept.end();
        kept.is_whole()
    }

    #[test]
    fn a_body_is_sent_again_as_it_was() {
        let mut kept = kept(&[3, 0, 2]);
        kept.push(&Frame::trailers(HeaderMap::from_iter([(ETAG, HeaderValue::from_static("a"))])));
        kept.end();
        assert!(kept.is_whole());
        let mut again = kept.again();
        assert_eq!(again.size_hint().exact(), None);
        assert_eq!(again.next().unwrap().into_data().unwrap(), "xxx");
        assert_eq!(again.next().unwrap().into_data().unwrap(), "xx");
        assert!(!again.is_over());
        assert_eq!(again.next().unwrap().into_trailers().unwrap()["etag"], "a");
        assert!(again.is_over() && again.next().is_none());
    }

    #[test]
    fn without_trailers_its_length_is_known() {
        let mut again = kept(&[3, 2]).again();
        for left in [5, 2, 0] {
            assert_eq!((again.size_hint().exact(), again.is_over()), (Some(left), left == 0));
            again.next();
        }
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        assert!(is_kept(&[MOST_BYTES]) && is_kept(&[1; MOST_PIECES]) && is_kept(&[0; 1_000]));
        assert!(!is_kept(&[MOST_BYTES, 1]) && !is_kept(&[MOST_BYTES + 1]) && !is_kept(&[1; MOST_PIECES + 1]));
        // What comes after that does not begin anew.
        assert!(!is_kept(&[MOST_BYTES + 1, 3]));
        assert!(Kept::of_at_least(MOST_BYTES as u64).is_some() && Kept::of_at_least(MOST_BYTES as u64 + 1).is_none());
    }
}
