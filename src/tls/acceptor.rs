//! Clients' side of TLS: a socket in, a decrypted stream out.

use std::{io, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::{SecureStream, Tls, explain::explain};

/// Shakes hands with the clients of one listener.
#[derive(Debug)]
pub struct Acceptor {
    shown: Tls,
    config: Arc<rustls::ServerConfig>,
}

impl Acceptor {
    /// For a listener that shows this.
    ///
    /// # Errors
    /// Parts that do not go together, which the check of a config finds first.
    pub fn new(tls: &Tls) -> Result<Self, String> {
        let config = tls.server_config().map_err(|error| error.to_string())?;
        Ok(Self { shown: tls.clone(), config: Arc::new(config) })
    }

    /// What it was made of.
    #[must_use]
    pub const fn shown(&self) -> &Tls {
        &self.shown
    }

    /// Shakes hands. The caller sets the deadline.
    ///
    /// # Errors
    /// What came is not TLS, or the two sides do not agree: why, in words, unless the client just left.
    pub async fn accept<S>(&self, socket: S) -> Result<SecureStream<S>, Option<String>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(socket);
        let has_left = |error: &io::Error| {
            use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
        };
        accepting.await.map(SecureStream::new).map_err(|error| (!has_left(&error)).then(|| explain(&error)))
    }
}
