//! HTTP/2 by hand: frames that no library would write.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use super::Client;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame (RFC 9113, section 4.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as HPACK has them at its plainest: literal, never indexed, not compressed (RFC 7541, section 6.2.3).
pub fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name.as_bytes(), value] {
            length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn length(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    block.push(u8::try_from(value).unwrap());
}

/// The fields of a plain GET.
pub const GET: [(&str, &[u8]); 4] =
    [(":method", b"GET"), (":scheme", b"http"), (":authority", b"gateway.test"), (":path", b"/")];

/// HEADERS, whole in one frame if it is not too long for that.
pub fn request(stream: u32, fields: &[(&str, &[u8])], is_end: bool) -> Vec<u8> {
    const LONGEST: usize = 16_384;
    let block = block(fields);
    let mut pieces = block.chunks(LONGEST).enumerate().peekable();
    let mut bytes = Vec::new();
    while let Some((number, piece)) = pieces.next() {
        let (kind, end_stream) = if number == 0 { (HEADERS, u8::from(is_end)) } else { (CONTINUATION, 0) };
        let end_headers = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, end_headers | end_stream, stream, piece));
    }
    bytes
}

impl Client {
    /// A connection by prior knowledge, with empty settings, that has read the gateway's.
    #[track_caller]
    pub fn http2(address: SocketAddr) -> Self {
        Self::connect(address).in_http2()
    }
}

impl<S: Read + Write> Client<S> {
    /// Begins to speak HTTP/2.
    #[track_caller]
    pub fn in_http2(mut self) -> Self {
        self.send(PREFACE).send(frame(SETTINGS, 0, 0, []));
        let settings = self.frame().expect("the gateway's settings");
        assert_eq!(settings.kind, SETTINGS);
        self.send(frame(SETTINGS, ACK, 0, []));
        self
    }

    /// The next frame; `None` at the end, in order or not.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.try_read(&mut head)?;
        let [a, b, c, kind, flags, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.try_read(&mut payload)?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([d & 0x7f, e, f, g]), payload })
    }

    /// The frames of a stream up to its end or reset; the others are passed over. `None` where the connection ends first.
    #[track_caller]
    pub fn frames_of(&mut self, stream: u32) -> Option<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.frame()?;
            if frame.kind == GOAWAY {
                return None;
            }
            if frame.stream != stream || frame.kind == WINDOW_UPDATE {
                continue;
            }
            let is_last = frame.kind == RST_STREAM || (frame.kind < RST_STREAM && frame.flags & END_STREAM != 0);
            frames.push(frame);
            if is_last {
                return Some(frames);
            }
        }
    }
}

impl Frame {
    /// The code of a RST_STREAM.
    pub fn code(&self) -> u32 {
        assert_eq!(self.kind, RST_STREAM, "{self:?}");
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}
