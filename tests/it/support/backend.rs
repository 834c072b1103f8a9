use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{
    Received, eventually,
    message::{Framing, Head},
};

/// A backend that does what its script says, request by request, and remembers what it received.
///
/// It answers `GET /healthz` by itself, as well as it is, and keeps these out of [`Backend::requests`].
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Keeps the port while nobody listens on it, so that it refuses connections and nobody else takes it.
    reserved: Mutex<Option<Socket>>,
}

type Script = Arc<dyn Fn(&mut Peer, &Received) -> io::Result<()> + Send + Sync>;

struct Shared {
    script: Mutex<Script>,
    requests: Mutex<Vec<Received>>,
    accepted: AtomicUsize,
    open: Mutex<BTreeMap<usize, TcpStream>>,
    probes: AtomicUsize,
    is_well: AtomicBool,
    is_stopped: AtomicBool,
}

impl Backend {
    /// Reads each request whole and answers 200 `hello`.
    pub fn start() -> Self {
        Self::named("hello")
    }

    /// Reads each request whole and answers 200 with its name.
    pub fn named(name: &'static str) -> Self {
        Self::scripted(move |peer, _| peer.respond("200 OK", name))
    }

    /// Runs the script for each request, once its head was read. A script that returns an error ends the connection.
    pub fn scripted(script: impl Fn(&mut Peer, &Received) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// Reads each request whole and answers 200 with its name, at this address.
    pub fn at(address: SocketAddr, name: &'static str) -> Self {
        Self::on(TcpListener::bind(address).unwrap(), move |peer, _| peer.respond("200 OK", name))
    }

    /// Runs the script for each request that comes to the listener.
    pub fn on(
        listener: TcpListener,
        script: impl Fn(&mut Peer, &Received) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            requests: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: Mutex::default(),
            probes: AtomicUsize::new(0),
            is_well: AtomicBool::new(true),
            is_stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared, reserved: Mutex::default() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next request on, another script.
    pub fn behave(&self, script: impl Fn(&mut Peer, &Received) -> io::Result<()> + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// What it answers to `GET /healthz` from now on: 200 or 503.
    pub fn feel(&self, is_well: bool) {
        self.shared.is_well.store(is_well, SeqCst);
    }

    /// The requests that were received so far, probes left out.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.requests().clone()
    }

    /// The only request that was received.
    #[track_caller]
    pub fn request(&self) -> Received {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }

    /// How many requests were received so far, probes left out.
    pub fn hits(&self) -> usize {
        self.shared.requests().len()
    }

    pub fn probes(&self) -> usize {
        self.shared.probes.load(SeqCst)
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.shared.open().len()
    }

    /// Closes every connection, between requests or not.
    pub fn hang_up(&self) {
        self.shared.open().values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Closes every connection and refuses new ones.
    pub fn stop(&self) {
        self.shared.is_stopped.store(true, SeqCst);
        self.hang_up();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        eventually("a stopped backend refuses connections", || TcpStream::connect(self.address).is_err());
        *self.reserved.lock().unwrap() = Some(bound(self.address));
    }

    /// Listens again, on the same address.
    pub fn restart(&self) {
        let socket = self.reserved.lock().unwrap().take().expect("it was stopped");
        socket.listen(128).unwrap();
        self.shared.is_stopped.store(false, SeqCst);
        let (accepting, listener) = (Arc::clone(&self.shared), TcpListener::from(socket));
        thread::spawn(move || accepting.accept(&listener));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if !self.shared.is_stopped.swap(true, SeqCst) {
            self.hang_up();
            drop(TcpStream::connect(self.address));
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.is_stopped.load(SeqCst) {
                return;
            }
            let Ok(stream) = stream else { return };
            let number = self.accepted.fetch_add(1, SeqCst);
            self.open().insert(number, stream.try_clone().unwrap());
            let shared = Arc::clone(&self);
            thread::spawn(move || {
                let mut peer = Peer { stream: BufReader::new(stream), number, shared, framing: None, request: None };
                // That it ended is what tests look at, not why.
                let _ended = peer.serve();
                peer.shared.open().remove(&number);
            });
        }
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Received>> {
        self.requests.lock().unwrap()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<usize, TcpStream>> {
        self.open.lock().unwrap()
    }
}

/// The gateway's end of a connection, as a script deals with it.
pub struct Peer {
    stream: BufReader<TcpStream>,
    number: usize,
    shared: Arc<Shared>,
    framing: Option<Framing>,
    request: Option<usize>,
}

impl Peer {
    fn serve(&mut self) -> io::Result<()> {
        self.stream.get_ref().set_nodelay(true)?;
        while let Some(head) = Head::read(&mut self.stream)? {
            self.framing = head.framing();
            let received = Received { head, body: Vec::new(), connection: self.number };
            if received.target() == "/healthz" {
                self.request = None;
                self.shared.probes.fetch_add(1, SeqCst);
                let status = if self.shared.is_well.load(SeqCst) { "200 OK" } else { "503 Service Unavailable" };
                self.respond(status, "")?;
                continue;
            }
            self.remember(&received);
            let script = Arc::clone(&self.shared.script.lock().unwrap());
            script(self, &received)?;
        }
        Ok(())
    }

    fn remember(&mut self, received: &Received) {
        let mut requests = self.shared.requests();
        self.request = Some(requests.len());
        requests.push(received.clone());
    }

    /// The number of this connection, from 0.
    pub fn connection(&self) -> usize {
        self.number
    }

    /// Reads the rest of the request and answers it.
    pub fn respond(&mut self, status: &str, body: &str) -> io::Result<()> {
        self.read_body()?;
        self.write(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Reads the rest of the request's body; [`Received::body`] shows it as it comes.
    pub fn read_body(&mut self) -> io::Result<()> {
        let Some(framing) = self.framing.take() else { return Ok(()) };
        let (shared, request) = (Arc::clone(&self.shared), self.request);
        framing.read(&mut self.stream, |piece| {
            if let Some(request) = request {
                shared.requests()[request].body.extend_from_slice(piece);
            }
        })
    }

    /// Reads some raw bytes, framing and all; none at the end.
    pub fn read_raw(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        let read = self.stream.read(&mut buffer)?;
        buffer.truncate(read);
        Ok(buffer)
    }

    /// Says no more, and returns when the gateway has closed the connection.
    pub fn wait_for_close(&mut self) -> io::Result<()> {
        while !self.read_raw()?.is_empty() {}
        self.close()
    }

    /// Closes the connection in order.
    pub fn close(&mut self) -> io::Result<()> {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Ends the connection with a reset.
    pub fn reset(&mut self) -> io::Result<()> {
        SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO))?;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// An address at which connections are refused, as long as the socket is kept.
pub fn refusing() -> (SocketAddr, Socket) {
    let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// An address at which connections are neither accepted nor refused, as long as the sockets are kept: its backlog is full.
pub fn full_backlog() -> (SocketAddr, Vec<Socket>) {
    let (address, socket) = refusing();
    socket.listen(0).unwrap();
    let mut sockets = vec![socket];
    loop {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let connected = filler.connect_timeout(&address.into(), Duration::from_millis(200));
        sockets.push(filler);
        if connected.is_err() {
            return (address, sockets);
        }
    }
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}
