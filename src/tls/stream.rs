//! What a handshake leads to, with a client or with a backend: a decrypted stream, and what was agreed on it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::Facts;

/// What both sides have agreed to speak (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Protocol {
    /// `http/1.1`, or a client that does not say.
    Http1,
    /// `h2`.
    Http2,
}

impl Protocol {
    /// Its name in the handshake.
    pub(super) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// What the name stands for that both sides agreed on, or none.
    fn agreed(name: Option<&[u8]>) -> Self {
        if name == Some(Self::Http2.alpn()) { Self::Http2 } else { Self::Http1 }
    }
}

/// Who the other side is, by the certificate that it proved to own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerCertificate {
    /// As RFC 4514 writes it: `CN=alice,O=Example`.
    pub subject: String,
    /// The SHA-256 of the certificate, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// A stream, decrypted.
#[derive(Debug)]
pub struct SecureStream<S>(TlsStream<S>);

impl<S> SecureStream<S> {
    pub(super) fn new(stream: impl Into<TlsStream<S>>) -> Self {
        Self(stream.into())
    }

    /// What to speak on it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol::agreed(self.0.get_ref().1.alpn_protocol())
    }

    /// Who the other side is, where it was asked for a certificate and sent one.
    #[must_use]
    pub fn peer(&self) -> Option<PeerCertificate> {
        let certificate = self.0.get_ref().1.peer_certificates()?.first()?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(PeerCertificate { subject: Facts::of(certificate)?.subject, sha256 })
    }

    /// What the certificate says that the other side has shown, if it can be read. It may be expired where nobody has verified it.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        Facts::of(self.0.get_ref().1.peer_certificates()?.first()?)
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &S {
        self.0.get_ref().0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SecureStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SecureStream<S> {
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
