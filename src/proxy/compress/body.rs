//! A backend's body, compressed as it comes: what a backend has sent does not wait for what it has not.

use std::{
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use async_compression::{
    Level,
    brotli::EncoderParams,
    tokio::bufread::{BrotliEncoder, GzipEncoder, ZstdEncoder},
    zstd::CParameter,
};
use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::super::{BackendBody, Exchange, Fault};
use crate::config::plan::Coding;

/// A backend's body on its way through an encoder.
pub struct CompressedBody {
    encoder: Encoder,
    is_over: bool,
}

// Their windows bound what a response takes: 64 KiB for gzip, some 1.5 MiB for the others.
enum Encoder {
    Brotli(Box<BrotliEncoder<Source>>),
    Gzip(GzipEncoder<Source>),
    Zstd(ZstdEncoder<Source>),
}

/// The largest piece that goes out at once, in bytes.
const PIECE: usize = 16 * 1024;

/// What is compressed before others on this worker have their turn, in bytes.
const TURN: usize = 64 * 1024;

/// Windows of 256 KiB: what a page repeats, it repeats within that.
const WINDOW: u32 = 18;

impl CompressedBody {
    pub(in crate::proxy) fn new(body: BackendBody, coding: Coding) -> Self {
        let source = Source { body, chunk: Bytes::new(), trailers: None, fault: None, left: TURN };
        let encoder = match coding {
            Coding::Brotli => {
                let params = EncoderParams::default().quality(Level::Precise(4)).window_size(WINDOW as i32);
                Encoder::Brotli(Box::new(BrotliEncoder::with_params(source, params)))
            }
            Coding::Gzip => Encoder::Gzip(GzipEncoder::with_quality(source, Level::Precise(5))),
            Coding::Zstd => {
                let window = [CParameter::window_log(WINDOW)];
                Encoder::Zstd(ZstdEncoder::with_quality_and_params(source, Level::Precise(3), &window))
            }
        };
        Self { encoder, is_over: false }
    }

    pub(in crate::proxy) fn exchange(&self) -> &Rc<Exchange> {
        self.source().body.exchange()
    }

    /// The next piece; trailers come last. A body that is cut is cut here, too: its coding gets no end.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.is_over {
            let trailers = self.source_mut().trailers.take();
            // hyper does not ask again after trailers.
            self.exchange().response_ended();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        self.source_mut().left = TURN;
        let mut piece = BytesMut::zeroed(PIECE);
        let mut buffer = ReadBuf::new(&mut piece);
        let read = ready!(match &mut self.encoder {
            Encoder::Brotli(encoder) => Pin::new(encoder).poll_read(cx, &mut buffer),
            Encoder::Gzip(encoder) => Pin::new(encoder).poll_read(cx, &mut buffer),
            Encoder::Zstd(encoder) => Pin::new(encoder).poll_read(cx, &mut buffer),
        });
        let length = buffer.filled().len();
        if read.is_err() {
            return Poll::Ready(Some(Err(self.source_mut().fault.take().unwrap_or(Fault::Internal))));
        }
        if length == 0 {
            self.is_over = true;
            return self.poll(cx);
        }
        piece.truncate(length);
        self.exchange().sent(length as u64);
        Poll::Ready(Some(Ok(Frame::data(piece.freeze()))))
    }

    fn source(&self) -> &Source {
        match &self.encoder {
            Encoder::Brotli(encoder) => encoder.get_ref(),
            Encoder::Gzip(encoder) => encoder.get_ref(),
            Encoder::Zstd(encoder) => encoder.get_ref(),
        }
    }

    fn source_mut(&mut self) -> &mut Source {
        match &mut self.encoder {
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

impl fmt::Debug for CompressedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressedBody").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

/// A body as encoders read it.
struct Source {
    body: BackendBody,
    chunk: Bytes,
    trailers: Option<HeaderMap>,
    fault: Option<Fault>,
    // Of this turn.
    left: usize,
}

impl AsyncBufRead for Source {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.chunk.is_empty() {
            match ready!(this.body.poll(cx)) {
                None => return Poll::Ready(Ok(&[])),
                Some(Err(fault)) => {
                    this.fault = Some(fault);
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.chunk = data,
                    Err(frame) => this.trailers = frame.into_trailers().ok(),
                },
            }
        }
        if this.left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(this.chunk.get(..this.left.min(this.chunk.len())).unwrap_or_default()))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.chunk.advance(amount);
        this.left = this.left.saturating_sub(amount);
    }
}

// Encoders ask for it and read by the buffer alone.
impl AsyncRead for Source {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ready = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = ready.len().min(buf.remaining());
        buf.put_slice(ready.get(..amount).unwrap_or_default());
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}
