//! Sockets that listen, of a worker: TCP, or Unix sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::bind::{Listener, SocketFile};
use crate::net::Socket;

/// Whom a client of a Unix socket counts as: it is on this machine, and has no address.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A socket that listens, and the file that leads to it, which goes with the last of those who share it.
#[derive(Debug)]
pub struct Listening {
    socket: ListeningSocket,
    file: Option<Arc<SocketFile>>,
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    /// Makes a socket one of this thread's runtime.
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        let Listener { socket, file } = listener;
        let socket = match socket.local_addr()?.as_socket() {
            Some(_) => ListeningSocket::Tcp(TcpListener::from_std(socket.into())?),
            None => ListeningSocket::Unix(UnixListener::from_std(socket.into())?),
        };
        Ok(Self { socket, file })
    }

    /// The next client, and its address.
    ///
    /// # Errors
    /// The client has left already, or the system has no descriptor to give.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match &self.socket {
            ListeningSocket::Tcp(listener) => {
                listener.accept().await.map(|(stream, peer)| (Socket::from(stream), peer))
            }
            ListeningSocket::Unix(listener) => listener.accept().await.map(|(stream, _)| (Socket::from(stream), LOCAL)),
        }
    }

    /// Lets nobody find it any more, and returns what holds those who have found it.
    pub(super) fn into_queue(self) -> io::Result<Queue> {
        drop(self.file);
        Ok(Queue(match self.socket {
            ListeningSocket::Tcp(listener) => listener.into_std()?.into(),
            ListeningSocket::Unix(listener) => listener.into_std()?.into(),
        }))
    }
}

/// The clients that a listener has still to accept.
#[derive(Debug)]
pub(super) struct Queue(socket2::Socket);

impl Queue {
    /// The next one that waits. Taken with the plain socket, because the runtime's would make a pause after so many.
    pub(super) fn next(&self) -> io::Result<(Socket, SocketAddr)> {
        let (socket, peer) = self.0.accept()?;
        socket.set_nonblocking(true)?;
        Ok(match peer.as_socket() {
            Some(peer) => (TcpStream::from_std(socket.into())?.into(), peer),
            None => (UnixStream::from_std(socket.into())?.into(), LOCAL),
        })
    }
}
