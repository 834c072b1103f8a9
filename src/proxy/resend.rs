//! A copy of a small request body, for a request that a backend gives back, or that is to be retried.
//!
//! Only HTTP/2 can say that a request was not begun, so only what goes to such backends is copied, and what a route's `retries` ask
//! for. The copy is a list of pieces that share their bytes with what is sent: nothing is copied but pointers. It is dropped when
//! the head of a response is there.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

/// The largest body of which a copy is kept unasked, in bytes: any message of most services, and a bound on what a request may
/// hold until it is answered.
pub(super) const UNASKED: usize = 64 * 1024;

/// The most pieces in which it may come: one for so many bytes that may be kept. Each may keep alive the buffer in which it was
/// read, which is larger.
const PER_PIECE: usize = 4 * 1024;
const FEWEST_PIECES: usize = 16;

/// What was sent of a request body so far.
#[derive(Debug)]
pub(super) struct Kept {
    most: usize,
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
    /// Up to so many bytes of a body of at least `length`; `None` where that is too large.
    pub(super) fn up_to(most: usize, length: u64) -> Option<Self> {
        let nothing = || Self { most, pieces: Vec::new(), length: 0, trailers: None, extent: Extent::Part };
        (length <= most as u64).then(nothing)
    }

    /// The next frame.
    pub(super) fn push(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        // Empty ones say nothing, and a client may send any number of them.
        let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else { return };
        self.length = self.length.saturating_add(data.len());
        let most_pieces = FEWEST_PIECES.max(self.most / PER_PIECE);
        if self.length > self.most || self.pieces.len() == most_pieces {
            (self.pieces, self.trailers, self.extent) = (Vec::new(), None, Extent::TooLarge);
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

    /// How much has come.
    pub(super) const fn length(&self) -> usize {
        self.length
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
    use proptest::prelude::*;

    use super::*;

    fn kept(pieces: &[usize]) -> Kept {
        let mut kept = Kept::up_to(UNASKED, 0).unwrap();
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

    proptest! {
        /// What is sent again is all of it, and what is not all there, or too much, is not sent again.
        #[test]
        fn a_body_is_whole_or_not_sent_again(
            pieces in prop::collection::vec(0usize..200, 0..40),
            most in 1usize..2_000,
            has_ended: bool,
        ) {
            let mut kept = Kept::up_to(most, 0).unwrap();
            pieces.iter().for_each(|length| kept.push(&Frame::data(Bytes::from(vec![b'x'; *length]))));
            if has_ended {
                kept.end();
            }
            let length: usize = pieces.iter().sum();
            let is_few = pieces.iter().filter(|length| **length > 0).count() <= FEWEST_PIECES;
            prop_assert_eq!(kept.is_whole(), has_ended && length <= most && is_few);
            if kept.is_whole() {
                let mut again = kept.again();
                let sent: usize = std::iter::from_fn(|| again.next()).map(|frame| frame.into_data().unwrap().len()).sum();
                prop_assert_eq!(sent, length);
            }
        }
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
        assert!(is_kept(&[UNASKED]) && is_kept(&[1; FEWEST_PIECES]) && is_kept(&[0; 1_000]));
        assert!(!is_kept(&[UNASKED, 1]) && !is_kept(&[UNASKED + 1]) && !is_kept(&[1; FEWEST_PIECES + 1]));
        // What comes after that does not begin anew.
        assert!(!is_kept(&[UNASKED + 1, 3]));
        assert!(Kept::up_to(10, 10).is_some() && Kept::up_to(10, 11).is_none());
    }
}
