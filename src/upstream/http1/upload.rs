//! A request on its way out.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::Frame;
use tokio::io::AsyncWrite as _;

use super::{
    super::{
        stream::BackendStream,
        wire::{RequestHead, Sendable, WireError},
    },
    head::{self, Length},
};

/// Pieces up to this, in bytes, are copied behind what frames them, and go out in one write with their neighbours.
const SMALL: usize = 4 * 1024;

/// What is gathered before it is written, in bytes.
const GATHERED: usize = 16 * 1024;

/// A request: what frames it, and its body as it comes.
pub(super) struct Upload<B> {
    // Gone once it has ended.
    body: Option<B>,
    length: Length,
    out: Vec<u8>,
    written: usize,
    // A piece that is not copied. It comes after what is in `out`.
    piece: Bytes,
}

impl<B: Sendable> Upload<B> {
    /// Everything is still to be written. `out` is an empty buffer.
    pub(super) fn new(head: &RequestHead, body: B, mut out: Vec<u8>) -> Self {
        let length = body.size_hint().exact().map_or(Length::Chunked, Length::Known);
        head::encode(&mut out, head, length);
        let has_body = !body.is_end_stream() && length != Length::Known(0);
        Self { body: has_body.then_some(body), length, out, written: 0, piece: Bytes::new() }
    }

    /// Writes as much as there is and as the connection takes. Ready when the request has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut BackendStream) -> Poll<Result<(), WireError>> {
        loop {
            self.gather(cx)?;
            if self.is_written() {
                // TLS may hold what it took.
                ready!(Pin::new(stream).poll_flush(cx))?;
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            ready!(self.poll_write(cx, stream))?;
        }
    }

    /// The empty buffer, if the request has ended; else the upload.
    pub(super) fn into_buffer(mut self) -> Result<Vec<u8>, Self> {
        if self.body.is_some() || !self.is_written() {
            return Err(self);
        }
        self.out.clear();
        Ok(self.out)
    }

    fn is_written(&self) -> bool {
        self.written == self.out.len() && self.piece.is_empty()
    }

    /// Takes of the body what has come and fits.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), WireError> {
        while self.piece.is_empty() && self.out.len() < GATHERED {
            let Some(body) = &mut self.body else { return Ok(()) };
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(()) };
            match frame.transpose().map_err(|_| WireError::Body)?.map(Frame::into_data) {
                Some(Ok(data)) => self.push(data)?,
                Some(Err(frame)) => return self.end(frame.into_trailers().ok().as_ref()),
                None => return self.end(None),
            }
            // Who says a length says the end with it. What is not copied goes out before the end of chunks.
            let is_over = self.length == Length::Known(0) || self.body.as_ref().is_some_and(B::is_end_stream);
            if is_over && (self.piece.is_empty() || self.length == Length::Known(0)) {
                return self.end(None);
            }
        }
        Ok(())
    }

    fn push(&mut self, mut data: B::Data) -> Result<(), WireError> {
        let data = data.copy_to_bytes(data.remaining());
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.length {
            Length::Known(left) => *left = left.checked_sub(data.len() as u64).ok_or(WireError::Body)?,
            Length::Chunked => write!(self.out, "{:x}\r\n", data.len())?,
        }
        if data.len() > SMALL {
            self.piece = data;
            return Ok(());
        }
        self.out.extend_from_slice(&data);
        self.end_chunk();
        Ok(())
    }

    fn end_chunk(&mut self) {
        if self.length == Length::Chunked {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), WireError> {
        self.body = None;
        match self.length {
            Length::Known(0) => {}
            // Shorter than it said: the backend must not take it for whole.
            Length::Known(_) => return Err(WireError::Body),
            Length::Chunked => head::encode_end(&mut self.out, trailers),
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut BackendStream) -> Poll<io::Result<()>> {
        let out = self.out.get(self.written..).unwrap_or_default();
        let written = match self.piece.is_empty() {
            true => ready!(Pin::new(stream).poll_write(cx, out))?,
            false => {
                let both = [IoSlice::new(out), IoSlice::new(&self.piece)];
                ready!(Pin::new(stream).poll_write_vectored(cx, &both))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_out = written.min(out.len());
        self.written += of_out;
        if written > of_out {
            self.piece.advance(written - of_out);
            if self.piece.is_empty() {
                self.out.clear();
                self.written = 0;
                self.end_chunk();
            }
        } else if self.piece.is_empty() && self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }
}
