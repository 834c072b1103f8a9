//! Clients' side of TLS: a socket in, a decrypted stream out.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What a listener shows its clients: certificates and what it asks of theirs.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<rustls::ServerConfig>,
}

/// What both sides have agreed to speak (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// `http/1.1`, or a client that does not say.
    Http1,
    /// `h2`.
    Http2,
}

impl Acceptor {
    /// With a configuration that is ready.
    #[must_use]
    pub const fn new(config: Arc<rustls::ServerConfig>) -> Self {
        Self { config }
    }

    /// Shakes hands. The caller sets the deadline.
    ///
    /// # Errors
    /// What came is not TLS, or the two sides do not agree.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> io::Result<ServerStream<S>> {
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket);
        Ok(ServerStream(accepting.await?))
    }
}

/// A client's stream, decrypted.
#[derive(Debug)]
pub struct ServerStream<S>(TlsStream<S>);

impl<S> ServerStream<S> {
    /// What to speak on it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.0.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        }
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &S {
        self.0.get_ref().0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
