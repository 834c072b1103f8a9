//! A client's stream as hyper reads and writes it: watched.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::spelling::Spelling;
use crate::{net::Socket, proxy::Client, tls::SecureStream};

/// What is under a [`ClientStream`].
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Whether it says goodbye before its socket is closed.
    const SAYS_GOODBYE: bool;

    /// The socket at the bottom.
    fn socket(&self) -> &Socket;
}

impl Transport for Socket {
    const SAYS_GOODBYE: bool = false;

    fn socket(&self) -> &Socket {
        self
    }
}

// Boxed: it is large, and moved whenever its connection comes to rest.
impl Transport for Box<SecureStream<Socket>> {
    const SAYS_GOODBYE: bool = true;

    fn socket(&self) -> &Socket {
        SecureStream::socket(self)
    }
}

/// A client's stream. Tells the client's state that bytes came, so that a deadline for the head of a request starts with its
/// first byte, so that an HTTP/2 client that sends and sends and asks for nothing is found out, and so that nothing is taken for
/// a request behind a head that others may read differently.
pub(super) struct ClientStream<T> {
    transport: T,
    client: Rc<Client>,
    heads: Spelling,
    // What was read and is to be read again. It is known already.
    again: Bytes,
    is_closed_next: bool,
}

/// What comes first on a new connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// The client closed without a word.
    Nothing,
    /// Anything that is not the preface: hyper will see.
    Http1,
    /// The preface of HTTP/2 (RFC 9113, section 3.4), by prior knowledge.
    Http2,
}

/// What is written in one piece, in bytes.
const SMALL: usize = 2048;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<T: Transport> ClientStream<T> {
    pub(super) fn new(transport: T, client: Rc<Client>) -> Self {
        Self { transport, client, heads: Spelling::default(), again: Bytes::new(), is_closed_next: false }
    }

    pub(super) fn socket(&self) -> &Socket {
        self.transport.socket()
    }

    pub(super) fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    pub(super) fn into_transport(self) -> T {
        self.transport
    }

    /// Whether what shuts it down closes it next: that is as good, and one system call less for each connection.
    pub(super) fn close_next(&mut self, is_closed_next: bool) {
        self.is_closed_next = is_closed_next && !T::SAYS_GOODBYE;
    }

    /// Gives back what was read ahead.
    pub(super) fn read_again(&mut self, read: Bytes) {
        // Even of nothing, it would hold the buffer that it was cut from.
        self.again = if read.is_empty() { Bytes::new() } else { read };
    }

    /// Ready when there may be something to read: after it was read dry, and as long as nobody reads it.
    pub(super) fn poll_heard_of(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.again.is_empty() {
            // Whoever reads next hears of an error, too.
            true => self.transport.socket().poll_readable(cx).map(drop),
            false => Poll::Ready(()),
        }
    }

    fn watch_heads(&mut self, read: &[u8]) {
        if self.client.is_multiplexed() {
            return;
        }
        if let Some(number) = self.heads.odd_head(read) {
            self.client.reads_no_further_than(number);
        }
    }
}

impl ClientStream<Socket> {
    /// Reads ahead until it is clear which protocol the client speaks.
    pub(super) async fn opening(&mut self) -> io::Result<Opening> {
        loop {
            let ahead = self.transport.ahead();
            let common = ahead.len().min(PREFACE.len());
            match (ahead.get(..common) == PREFACE.get(..common), common == PREFACE.len()) {
                (false, _) => return Ok(Opening::Http1),
                (true, true) => return Ok(Opening::Http2),
                (true, false) => {}
            }
            if self.transport.read_ahead().await? == 0 {
                let is_silent = self.transport.ahead().is_empty();
                return Ok(if is_silent { Opening::Nothing } else { Opening::Http1 });
            }
        }
    }
}

impl<T: Transport> AsyncRead for ClientStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let ready = self.again.len().min(buf.remaining());
            buf.put_slice(&self.again.split_to(ready));
            // The start of a head that came behind a request, whose patience it had until now.
            let _ = self.client.received(0);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            self.watch_heads(read);
            if !self.client.received(read.len()) {
                return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for ClientStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.client.flushed(false);
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.client.flushed(false);
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if bufs.len() > 1 && length <= SMALL {
            // A head and a small body: to copy them costs less than the system takes for a list of two.
            let mut both = [0; SMALL];
            let mut end = 0;
            for buf in bufs {
                if let Some(room) = both.get_mut(end..end + buf.len()) {
                    room.copy_from_slice(buf);
                    end += buf.len();
                }
            }
            return Pin::new(&mut self.transport).poll_write(cx, both.get(..end).unwrap_or_default());
        }
        Pin::new(&mut self.transport).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
        self.client.flushed(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed_next {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
