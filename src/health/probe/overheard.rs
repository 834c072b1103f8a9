//! A stream whose first bytes are kept: what a backend speaks that does not speak what it was asked in.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Failure;
use crate::{tls::Protocol, upstream::Transport};

/// What the first read brought, as much of it as tells protocols apart.
#[derive(Clone, Debug, Default)]
pub(super) struct First(Arc<OnceLock<Box<[u8]>>>);

impl First {
    /// The failure of a backend that has begun with another protocol than the one it was asked in.
    pub(super) fn of_another_protocol(&self, asked: Protocol) -> Option<Failure> {
        let said = match (self.0.get().map(AsRef::as_ref)?, asked) {
            ([0x15 | 0x16, 0x03, ..], _) => "speaks TLS: write https:// or tls: {}",
            // A frame SETTINGS (RFC 9113, section 6.5) of less than 256 bytes.
            ([0, 0, _, 4, ..], Protocol::Http1) => "answers in HTTP/2: write protocol: http2, or type: grpc",
            ([b'H', b'T', b'T', b'P', b'/', b'1', ..], Protocol::Http2) => {
                "answers in HTTP/1.1: write protocol: http1, or type: http"
            }
            _ => return None,
        };
        Some(Failure::new("protocol", said))
    }
}

/// A stream that remembers how the other side began.
#[derive(Debug)]
pub(super) struct Overheard {
    transport: Transport,
    first: First,
}

impl Overheard {
    const KEPT: usize = 16;

    pub(super) fn new(transport: Transport) -> (Self, First) {
        let first = First::default();
        (Self { transport, first: first.clone() }, first)
    }
}

impl AsyncRead for Overheard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            self.first.0.get_or_init(|| new.get(..Self::KEPT).unwrap_or(new).into());
        }
        read
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
