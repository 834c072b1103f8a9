use std::{fmt, io, net::SocketAddr, path::Path, sync::Arc};

use tokio::net::{TcpStream, UnixStream};

use super::Socket;

/// Where a program listens.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl Address {
    /// Connects. Small writes are whole messages and wait for nothing.
    ///
    /// # Errors
    /// What the system says.
    pub async fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(address) => {
                let socket = TcpStream::connect(address).await?;
                // A loopback connect to a free port of the ephemeral range may meet itself: nobody listens there.
                if socket.local_addr().is_ok_and(|own| own == *address) {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                socket.set_nodelay(true)?;
                Ok(socket.into())
            }
            Self::Unix(path) => UnixStream::connect(path).await.map(Socket::from),
        }
    }

    /// The same host at another port; a Unix socket has none and stays what it is.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        match self {
            Self::Tcp(address) => SocketAddr::new(address.ip(), port).into(),
            Self::Unix(_) => self.clone(),
        }
    }

    /// The address in TCP, if it is one.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
