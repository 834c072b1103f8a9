//! Where one frame of a WebSocket ends and the next begins (RFC 6455, section 5.2): all that a tunnel needs to know of them to
//! say its last word at a place where it is understood.

/// Follows one direction of a WebSocket. Looks at heads alone, so a large frame costs as little as a small one.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    have: usize,
    // Of the payload of the frame under way.
    left: u64,
    has_closed: bool,
}

const LONGEST_HEAD: usize = 2 + 8 + 4;
const CLOSE: u8 = 0x8;

/// A Close frame: going away (section 7.4.1), as a server says it.
pub(super) const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// The same as a client says it: masked, with a mask that nobody can foresee (section 5.3).
pub(super) fn going_away_masked() -> [u8; 8] {
    let [a, b, c, d] = fastrand::u32(..).to_be_bytes();
    let [first, length, high, low] = GOING_AWAY;
    [first, length | 0x80, a, b, c, d, high ^ a, low ^ b]
}

impl Frames {
    /// These bytes come next.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            bytes = rest;
            if let Some(length) = self.payload() {
                self.left = length;
                self.has_closed |= self.head[0] & 0x0f == CLOSE;
                self.have = 0;
            }
        }
    }

    /// Whether a frame put in here would be understood: the last one is whole, and was no Close.
    pub(super) const fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.has_closed
    }

    /// The length of the payload, once the head is whole.
    fn payload(&self) -> Option<u64> {
        let [_, second, rest @ ..] = &self.head;
        let short = second & 0x7f;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.have < 2 + extended + mask {
            return None;
        }
        let long = rest.iter().take(extended).fold(0, |length, byte| length << 8 | u64::from(*byte));
        Some(if extended == 0 { u64::from(short) } else { long })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..126 => frame.push(mask | payload as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; payload + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn nothing_fits_behind_a_close() {
        let mut frames = Frames::default();
        assert!(frames.is_between());
        frames.pass(&GOING_AWAY);
        assert!(!frames.is_between());
    }

    #[test]
    fn a_masked_close_reads_as_the_same() {
        let [first, length, a, b, _, _, high, low] = going_away_masked();
        assert_eq!([first, length & 0x7f, high ^ a, low ^ b], GOING_AWAY);
        let mut frames = Frames::default();
        frames.pass(&going_away_masked());
        assert_eq!((frames.have, frames.left, frames.has_closed), (0, 0, true));
    }

    #[test]
    fn a_length_beyond_all_bounds_is_only_a_number() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(frames.left, u64::MAX - 3);
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_come(
            sizes in prop::collection::vec((prop_oneof![0..130_usize, 65_530..65_545_usize], any::<bool>()), 1..5),
            piece in 1..4096_usize,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for (size, masked) in sizes {
                bytes.extend(frame(2, size, masked));
                ends.push(bytes.len());
            }
            let (mut frames, mut passed) = (Frames::default(), 0);
            for piece in bytes.chunks(piece) {
                frames.pass(piece);
                passed += piece.len();
                prop_assert_eq!(frames.is_between(), ends.contains(&passed));
            }
        }
    }
}
