//! Listening sockets: one per worker on the same TCP port, or a Unix socket that all workers share; and why there are none.

use std::{
    fs::{self, Permissions},
    io,
    net::{Ipv6Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    holder::{self, Holder},
    listening::Listening,
};
use crate::config::plan::Bind;

/// One listening socket per worker, all on the same address.
#[derive(Debug)]
pub struct Sockets {
    /// The address; where port 0 was asked for, the one that the system chose.
    pub address: Bind,
    pub(super) each: Vec<Listener>,
}

/// A socket that listens, and the file that leads to it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: Socket,
    pub(super) file: Option<Arc<SocketFile>>,
}

impl Sockets {
    /// The only one, for a listener that one thread serves.
    ///
    /// # Errors
    /// The runtime has no event queue for it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn into_listening(mut self) -> io::Result<Listening> {
        Listening::new(self.each.pop().expect("there is a socket for each worker, and a worker at least"))
    }
}

/// Why an address cannot be bound, in words: `port 8080 is in use by nginx (pid 812)`.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct CannotBind {
    what: String,
    /// What the operator can do.
    pub fix: String,
}

/// Connections that may wait to be accepted; the system lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Binds an address once per worker. The system spreads connections over the sockets.
///
/// `leaving` are addresses at which this process listens and will soon not do so any more: they are not in the way.
///
/// # Errors
/// The address is in use, not this machine's, or not allowed.
pub fn bind(bind: &Bind, workers: usize, leaving: &[Bind]) -> Result<Sockets, CannotBind> {
    let bound = match bind {
        Bind::Tcp(address) => bind_tcp(*address, workers, leaving),
        Bind::Unix { path, mode } => {
            bind_unix(path, *mode, workers).map(|each| Sockets { address: bind.clone(), each })
        }
    };
    bound.map_err(|error| cannot(bind, &error))
}

fn bind_tcp(address: SocketAddr, workers: usize, leaving: &[Bind]) -> io::Result<Sockets> {
    // Sockets that share a port would also share it with another process of the same user, unnoticed. One that does not
    // share finds out.
    let probe = tcp_socket(address)?;
    match probe.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_soon(address, leaving) => {}
        bound => bound?,
    }
    let address = probe.local_addr()?.as_socket().filter(|_| address.port() == 0).unwrap_or(address);
    drop(probe);
    let each = (0..workers).map(|_| {
        let socket = tcp_socket(address)?;
        socket.set_reuse_port(true)?;
        // Small writes are whole responses: they wait for nothing. Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Listener { socket, file: None })
    });
    Ok(Sockets { address: Bind::Tcp(address), each: each.collect::<io::Result<_>>()? })
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of a process before this one may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Said either way, because systems differ in what they do unasked.
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    Ok(socket)
}

/// Whether all that is in the way of an address is this process, at addresses that it leaves.
fn is_left_soon(address: SocketAddr, leaving: &[Bind]) -> bool {
    let in_the_way = holder::listening(address);
    let is_left = |at: SocketAddr| leaving.iter().any(|bind| bind.covers(&Bind::Tcp(at)));
    !in_the_way.is_empty() && in_the_way.iter().all(|socket| is_left(socket.address) && socket.is_ours())
}

fn bind_unix(path: &Path, mode: u32, workers: usize) -> io::Result<Vec<Listener>> {
    remove_stale(path)?;
    let socket = unix_socket()?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = Arc::new(SocketFile::of(path)?);
    set_mode(path, mode)?;
    // Nobody can connect before this.
    socket.listen(BACKLOG)?;
    let each = (0..workers).map(|_| Ok(Listener { socket: socket.try_clone()?, file: Some(Arc::clone(&file)) }));
    each.collect()
}

fn unix_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Connecting to one that is alive and busy must not wait.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes the socket of a process that is gone: nobody answers there.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => {}
    }
    match unix_socket()?.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Says who may connect to a Unix socket.
///
/// # Errors
/// The file is gone, or not this user's.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The file of a Unix socket. Removed when dropped, unless another socket is there by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // One that cannot be removed is found to be stale by the next who binds it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What tells a file from another that takes its path: its device, its inode, and when it was made, because inodes are used
/// again.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino(), file.mtime(), file.mtime_nsec()))
}

/// An error of the system in an operator's words.
fn cannot(bind: &Bind, error: &io::Error) -> CannotBind {
    use io::ErrorKind as Kind;
    let (what, fix) = match (bind, error.kind()) {
        (Bind::Tcp(address), Kind::AddrInUse) => {
            in_use(&format!("port {}", address.port()), Holder::of_port(*address).as_ref(), "port")
        }
        (Bind::Unix { path, .. }, Kind::AddrInUse) => in_use(&bind.to_string(), Holder::of_path(path).as_ref(), "path"),
        (Bind::Tcp(address), Kind::PermissionDenied) if address.port() < UNPRIVILEGED => (
            format!("not allowed to bind port {}", address.port()),
            "give the process CAP_NET_BIND_SERVICE, or take a port above 1023".to_owned(),
        ),
        (Bind::Tcp(address), Kind::AddrNotAvailable) => {
            let any = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            let fix = format!("bind one that is, or {any}:{} for every address", address.port());
            (format!("{} is not an address of this machine", address.ip()), fix)
        }
        (Bind::Unix { path, .. }, Kind::PermissionDenied | Kind::ReadOnlyFilesystem) => (
            format!("not allowed to make the socket {}", path.display()),
            format!("let this user write to {}, or take another path", folder(path).display()),
        ),
        (Bind::Unix { path, .. }, Kind::NotFound | Kind::NotADirectory) => {
            (format!("there is no folder {}", folder(path).display()), "make it, or take another path".to_owned())
        }
        (Bind::Unix { path, .. }, Kind::AlreadyExists) => {
            (format!("{} exists and is not a socket", path.display()), "remove it, or take another path".to_owned())
        }
        _ => (format!("cannot bind {bind}: {error}"), "bind another address".to_owned()),
    };
    CannotBind { what, fix }
}

/// Ports below this are the system's, on nearly every system.
const UNPRIVILEGED: u16 = 1024;

fn in_use(what: &str, holder: Option<&Holder>, other: &str) -> (String, String) {
    match holder {
        Some(holder) if holder.is_self() => {
            (format!("{what} is in use by this gateway"), format!("take another {other}"))
        }
        Some(holder) => (format!("{what} is in use by {holder}"), format!("stop it, or take another {other}")),
        None => (format!("{what} is in use"), format!("stop what listens there, or take another {other}")),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Bind {
        Bind::Tcp(address.parse().unwrap())
    }

    fn refusal(at: &Bind, leaving: &[Bind]) -> (String, String) {
        let error = bind(at, 1, leaving).unwrap_err();
        (error.to_string(), error.fix)
    }

    fn own() -> String {
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        format!("{} (pid {})", name.trim(), std::process::id())
    }

    #[test]
    fn all_workers_share_a_port_and_nobody_else_does() {
        let sockets = bind(&tcp("127.0.0.1:0"), 3, &[]).unwrap();
        assert_eq!(sockets.each.len(), 3);
        let port = sockets.address.port().unwrap();
        assert_ne!(port, 0);
        let (what, fix) = refusal(&sockets.address, &[]);
        assert_eq!(
            (what.as_str(), fix.as_str()),
            (&*format!("port {port} is in use by this gateway"), "take another port")
        );
    }

    #[test]
    fn what_this_process_leaves_is_not_in_the_way() {
        let narrow = bind(&tcp("127.0.0.1:0"), 2, &[]).unwrap();
        let port = narrow.address.port().unwrap();
        let leaving = [narrow.address.clone()];
        for wide in ["0.0.0.0", "[::]"] {
            let wide = tcp(&format!("{wide}:{port}"));
            assert!(refusal(&wide, &[]).0.contains("in use"));
            assert!(refusal(&wide, &[tcp("127.0.0.1:1")]).0.contains("in use"));
            assert_eq!(bind(&wide, 2, &leaving).unwrap().address, wide);
        }
        // A socket of somebody else, as far as can be told: this process does not say that it leaves it.
        let _other = bind(&tcp(&format!("127.0.0.2:{port}")), 1, &[]).unwrap();
        assert!(refusal(&tcp(&format!("0.0.0.0:{port}")), &leaving).0.contains("in use"));
    }

    #[test]
    fn says_why_not() {
        let (what, fix) = refusal(&tcp("192.0.2.1:8080"), &[]);
        assert_eq!(what, "192.0.2.1 is not an address of this machine");
        assert_eq!(fix, "bind one that is, or 0.0.0.0:8080 for every address");
        let denied = cannot(&tcp("0.0.0.0:80"), &io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.to_string(), "not allowed to bind port 80");
        assert_eq!(denied.fix, "give the process CAP_NET_BIND_SERVICE, or take a port above 1023");
        let denied = cannot(&tcp("0.0.0.0:8080"), &io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.to_string(), "cannot bind 0.0.0.0:8080: permission denied");
    }

    #[test]
    fn a_socket_file_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        let at = Bind::Unix { path: path.clone(), mode: 0o620 };
        let sockets = bind(&at, 2, &[]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        let (what, _) = refusal(&at, &[]);
        assert_eq!(what, format!("unix:{} is in use by this gateway", path.display()));
        drop(sockets);
        assert!(!path.exists());

        // Left behind by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let sockets = bind(&at, 1, &[]).unwrap();
        // And not taken away from whoever has put another one there.
        fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(sockets);
        assert!(path.exists());
        drop(other);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(refusal(&at, &[]).0, format!("{} exists and is not a socket", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let nowhere = Bind::Unix { path: folder.path().join("no/http.sock"), mode: 0o660 };
        assert_eq!(refusal(&nowhere, &[]).0, format!("there is no folder {}", folder.path().join("no").display()));
    }

    #[test]
    fn a_holder_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(Holder::of_port(listener.local_addr().unwrap()).unwrap().to_string(), own());
    }
}
