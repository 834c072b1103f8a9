use std::{
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use socket2::TcpKeepalive;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// A connected socket. Bytes may be read ahead of whoever reads it; they come first.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    ahead: BytesMut,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), ahead: BytesMut::new() }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), ahead: BytesMut::new() }
    }
}

/// How long a machine may give no sign of life while it is [watched](Socket::watch). nginx gives it as long to take something
/// (`proxy_send_timeout`), Linkerd 30 s, gRPC 20 s: longer than networks take to find another way, shorter than people wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long nothing may be heard of it before it is asked, and how long until it is asked again.
const QUIET: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(10);

/// Room for the head of an ordinary request: it is read at once, and one system call is all that it takes.
const READ_AHEAD: usize = 4096;

impl Socket {
    /// Reads ahead what is there, at least a byte; returns how many, 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read_ahead(&mut self) -> io::Result<usize> {
        if self.ahead.is_empty() {
            self.ahead.reserve(READ_AHEAD);
        }
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_buf(&mut self.ahead).await,
            Stream::Unix(stream) => stream.read_buf(&mut self.ahead).await,
        }
    }

    /// What was read ahead.
    #[must_use]
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Drops so many of those bytes.
    pub fn skip(&mut self, bytes: usize) {
        self.ahead.advance(bytes);
    }

    /// From now on the system asks the other end's machine whether it is still there, when nothing was heard of it for a while, and
    /// ends the connection with [`TimedOut`](io::ErrorKind::TimedOut) when there was no sign of life of it for [`PATIENCE`]. One that
    /// takes nothing of what it is sent for so long is taken for dead, too. (A Unix socket's other end is on this machine.)
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(&self) -> io::Result<()> {
        let Stream::Tcp(stream) = &self.stream else { return Ok(()) };
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(QUIET).with_interval(AGAIN))?;
        // For what was sent, about which keepalive does not ask; without it that takes the system a quarter of an hour.
        socket.set_tcp_user_timeout(Some(PATIENCE))
    }

    /// Makes the close to come a reset. (A Unix socket has none: its other end sees an early end.)
    pub fn reset(&self) {
        if let Stream::Tcp(socket) = &self.stream {
            // Closing a socket that does not linger resets the connection. One that is gone already needs no reset.
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Ends it in both directions, for whoever reads or writes it at this moment as well.
    pub fn cut(&self) {
        // One that has ended already needs no end.
        let _ = match &self.stream {
            Stream::Tcp(socket) => socket2::SockRef::from(socket).shutdown(Shutdown::Both),
            Stream::Unix(socket) => socket2::SockRef::from(socket).shutdown(Shutdown::Both),
        };
    }

    /// Reads and forgets what a client still sends after it was answered, for a bounded time and size, so that the answer
    /// reaches it before the end of the connection does.
    pub async fn linger(&self) {
        const LONGEST: Duration = Duration::from_secs(2);
        const MOST: usize = 1024 * 1024;
        let drain = async {
            let mut scrap = [0; 4096];
            let mut read = 0;
            while read < MOST && self.readable().await.is_ok() {
                match self.try_read(&mut scrap) {
                    Ok(0) => return,
                    Ok(n) => read += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // Whoever sends for longer than that has had the time to read.
        let _ = timeout(LONGEST, drain).await;
    }

    /// Ready when there may be something to read, or the end. To be polled by the task that reads.
    ///
    /// # Errors
    /// What the system says.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &self.stream {
            Stream::Tcp(socket) => socket.poll_read_ready(cx),
            Stream::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(socket) => socket.ready(Interest::READABLE).await,
            Stream::Unix(socket) => socket.ready(Interest::READABLE).await,
        }
        .map(drop)
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Tcp(socket) => socket.try_read(buf),
            Stream::Unix(socket) => socket.try_read(buf),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let ready = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(ready));
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Stream::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Stream::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Stream::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is held back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
