//! Listening sockets, one per worker on the same address.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// One listening socket per worker, all on the same address.
#[derive(Debug)]
pub struct Sockets {
    /// The address; where port 0 was asked for, the one that the system chose.
    pub address: SocketAddr,
    pub(super) each: Vec<TcpListener>,
}

/// Connections that may wait to be accepted; the system lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Binds an address once per worker. The system spreads connections over the sockets.
///
/// # Errors
/// The address is in use, not this machine's, or not allowed.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Sockets> {
    // Sockets that share a port would also share it with another process of the same user, unnoticed. One that does not
    // share finds out.
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let each = (0..workers).map(|_| {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        // Small writes are whole responses: they wait for nothing. Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    Ok(Sockets { address, each: each.collect::<io::Result<_>>()? })
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of a process before this one may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_a_port_and_nobody_else_does() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(sockets.each.len(), 3);
        assert_ne!(sockets.address.port(), 0);
        let error = bind(sockets.address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
