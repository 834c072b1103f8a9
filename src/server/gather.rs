//! One write for many frames: HTTP/2 flushes after each of them, and each flush would be a system call.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
};

/// What is gathered before the socket must take some, in bytes.
const MOST: usize = 64 * 1024;

/// What is read in a turn, in bytes. Those whom it is for have theirs before more is read: h2 counts what waits for them
/// against the client.
const TURN: usize = 64 * 1024;

/// A stream whose writes are held back until [`Gathered::poll_write_out`], which whoever drives the connection calls after each
/// poll of it: all that the connection had to say in that turn goes out at once.
pub(super) struct Gathered<S>(Rc<RefCell<Gathering<S>>>);

struct Gathering<S> {
    stream: S,
    out: BytesMut,
    // What the last turn had to write: this one is likely to have as much.
    last: usize,
    // What may still be read in this turn.
    turn: usize,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Rc::new(RefCell::new(Gathering { stream, out: BytesMut::new(), last: 0, turn: TURN })))
    }

    /// Writes what was gathered. Pending until the socket has taken all of it.
    pub(super) fn poll_write_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_write_out(cx)
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn = TURN;
        if !self.out.is_empty() {
            self.last = self.out.len();
        }
        while self.out.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        // An idle connection holds no buffer.
        self.out = BytesMut::new();
        // Even if nothing was gathered: TLS may hold what it took before.
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        if gathering.turn == 0 {
            // The next turn comes after everybody else's: a mere wake-up would let it overtake those who wait for a socket.
            return pin!(yield_now()).poll(cx).map(|()| Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut gathering.stream).poll_read(cx, buf))?;
        gathering.turn = gathering.turn.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = self.0.borrow_mut();
        if gathering.out.len() >= MOST {
            ready!(gathering.poll_write_out(cx))?;
        }
        if gathering.out.capacity() == 0 {
            // At once: to grow to it would copy it several times.
            let room = gathering.last.min(MOST);
            gathering.out.reserve(room);
        }
        bufs.iter().for_each(|buf| gathering.out.extend_from_slice(buf));
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        ready!(gathering.poll_write_out(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, DuplexStream, duplex};

    use super::*;

    fn polled<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        poll(&mut Context::from_waker(Waker::noop()))
    }

    fn arrived(other: &mut DuplexStream) -> usize {
        let mut scrap = vec![0; 1024 * 1024];
        let mut buf = ReadBuf::new(&mut scrap);
        let _ = polled(|cx| Pin::new(other).poll_read(cx, &mut buf));
        buf.filled().len()
    }

    #[tokio::test]
    async fn what_is_written_waits_to_be_sent() {
        let (near, mut far) = duplex(1024);
        let stream = Gathered::new(near);
        let mut writer = stream.clone();
        writer.write_all(b"one, ").await.unwrap();
        writer.write_all(b"two").await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(arrived(&mut far), 0);
        assert!(matches!(polled(|cx| stream.poll_write_out(cx)), Poll::Ready(Ok(()))));
        assert_eq!(arrived(&mut far), 8);
    }

    /// As TLS does, which takes what is written before the socket does.
    #[tokio::test]
    async fn what_the_stream_has_taken_and_not_passed_on_goes_out_too() {
        let (near, mut far) = duplex(16);
        let stream = Gathered::new(BufWriter::with_capacity(1024, near));
        stream.clone().write_all(&[b'x'; 40]).await.unwrap();
        assert!(polled(|cx| stream.poll_write_out(cx)).is_pending());
        assert_eq!(arrived(&mut far), 16);
        assert!(polled(|cx| stream.poll_write_out(cx)).is_pending());
        assert_eq!(arrived(&mut far), 16);
        assert!(matches!(polled(|cx| stream.poll_write_out(cx)), Poll::Ready(Ok(()))));
        assert_eq!(arrived(&mut far), 8);
    }

    #[tokio::test]
    async fn who_does_not_read_stops_the_writer() {
        let (near, mut far) = duplex(1024);
        let stream = Gathered::new(near);
        let mut writer = stream.clone();
        writer.write_all(&vec![b'x'; MOST]).await.unwrap();
        assert!(polled(|cx| stream.poll_write_out(cx)).is_pending());
        writer.write_all(&[b'y'; 1024]).await.unwrap();
        assert!(polled(|cx| Pin::new(&mut writer).poll_write(cx, b"z")).is_pending());
        assert_eq!(arrived(&mut far), 1024);
    }

    #[tokio::test]
    async fn the_end_comes_after_what_was_gathered() {
        let (near, mut far) = duplex(1024);
        let mut writer = Gathered::new(near);
        writer.write_all(b"last words").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"last words");
    }
}
