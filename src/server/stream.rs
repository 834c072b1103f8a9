//! A client's socket as hyper sees it, and the two ways to end it that hyper does not have: a reset, and a patient close.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use crate::proxy::Client;

/// A client's socket as hyper reads and writes it. Tells the client's state that bytes came, so that a deadline for the head
/// of a request starts with its first byte.
pub(super) struct ClientStream {
    socket: TcpStream,
    client: Rc<Client>,
}

impl ClientStream {
    pub(super) const fn new(socket: TcpStream, client: Rc<Client>) -> Self {
        Self { socket, client }
    }

    /// Makes the close to come a reset.
    pub(super) fn reset(&self) {
        // Closing a socket that does not linger resets the connection. One that is gone already needs no reset.
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// Reads and forgets what a client still sends after it was answered, for a bounded time and size, so that the answer
    /// reaches it before the end of the connection does.
    pub(super) async fn linger(&self) {
        const LONGEST: Duration = Duration::from_secs(2);
        const MOST: usize = 1024 * 1024;
        let drain = async {
            let mut scrap = [0; 4096];
            let mut read = 0;
            while read < MOST && self.socket.readable().await.is_ok() {
                match self.socket.try_read(&mut scrap) {
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
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.client.received();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
