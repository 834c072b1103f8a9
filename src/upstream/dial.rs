//! How a backend is reached: the address, TLS around it, and what is spoken inside.

use std::{
    hash::{Hash, Hasher},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    config::plan,
    net::{Address, Socket},
    tls::{Connector, PeerName, Protocol, SecureStream, Trust},
};

/// How a backend is reached. It is a part of what a backend is: one that is dialled otherwise is another one.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where it is.
    pub address: Address,
    /// TLS around the connection, if any.
    pub tls: Option<Secured>,
    /// What is spoken.
    pub protocol: plan::Protocol,
}

/// TLS around a connection to a backend.
#[derive(Clone, Debug)]
pub struct Secured {
    /// Shakes hands.
    pub connector: Arc<Connector>,
    /// With whom.
    pub name: PeerName,
}

/// Why a backend cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// A connection, and on it something else than the HTTP/2 that its backend is said to speak.
    #[error("it does not speak HTTP/2")]
    Protocol,
    /// A connection, and no agreement on TLS: why, in words.
    #[error("{0}")]
    Tls(String),
}

impl Dial {
    /// Connects and, where that is said, shakes hands. The caller sets the deadline. The connection ends when the other machine
    /// has vanished: whoever waits for an answer may have set none for that.
    ///
    /// # Errors
    /// The backend cannot be reached, or is not who it should be.
    pub async fn connect(&self) -> Result<Transport, DialError> {
        let socket = self.address.connect().await?;
        socket.watch()?;
        self.secure(socket).await
    }

    /// Shakes hands on a connection, where that is said.
    ///
    /// # Errors
    /// The backend is not who it should be, or does not speak TLS as it should.
    pub async fn secure(&self, socket: Socket) -> Result<Transport, DialError> {
        let Some(Secured { connector, name }) = &self.tls else { return Ok(Transport::Plain(socket)) };
        // Boxed: a handshake is large and rare, and would be part of every request's future.
        let shaken = Box::pin(connector.connect(name, socket)).await;
        Ok(Transport::Tls(Box::new(shaken.map_err(DialError::Tls)?)))
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> http::uri::Scheme {
        if self.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP }
    }
}

/// HTTP/1.1 over TCP, without TLS.
impl From<SocketAddr> for Dial {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.into(), tls: None, protocol: plan::Protocol::Http1 }
    }
}

impl Dial {
    /// All that two that are equal have in common.
    fn key(&self) -> (&Address, plan::Protocol, Option<(&Trust, &PeerName)>) {
        (&self.address, self.protocol, self.tls.as_ref().map(|tls| (tls.connector.trust(), &tls.name)))
    }
}

impl PartialEq for Dial {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Dial {}

impl Hash for Dial {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// A backend's stream.
#[derive(Debug)]
pub enum Transport {
    /// As it is.
    Plain(Socket),
    /// Inside TLS.
    Tls(Box<SecureStream<Socket>>),
}

impl Transport {
    /// What to speak on it.
    #[must_use]
    pub fn protocol(&self, dial: &Dial) -> Protocol {
        match (self, dial.protocol) {
            (Self::Tls(stream), plan::Protocol::Auto) => stream.protocol(),
            (_, plan::Protocol::Http2) => Protocol::Http2,
            (_, plan::Protocol::Auto | plan::Protocol::Http1) => Protocol::Http1,
        }
    }
}

impl Transport {
    /// Ends it, for whoever reads or writes it at this moment as well.
    pub(super) fn cut(&self) {
        match self {
            Self::Plain(socket) => socket.cut(),
            Self::Tls(stream) => stream.socket().cut(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
