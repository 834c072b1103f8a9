use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use serde_json::Value;

use super::{
    PATIENCE,
    message::{Framing, Head},
};

/// A client's connection: says bytes, hears bytes.
pub struct Client<S = TcpStream> {
    stream: S,
}

/// A response as a client received it, interim ones left out unless asked for.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing announced.
    pub is_whole: bool,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects to a Unix socket.
    #[track_caller]
    pub fn unix(path: &Path) -> Self {
        let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(path).unwrap()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Says that nothing more will be said.
    pub fn finish(&mut self) -> &mut Self {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }
}

impl<S: Read + Write> Client<S> {
    /// On a stream that is connected.
    pub const fn over(stream: S) -> Self {
        Self { stream }
    }

    pub const fn inner(&self) -> &S {
        &self.stream
    }

    pub const fn inner_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Says something. What the other end makes of it is for it to answer, so a closed connection is no failure here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: gateway.test\r\n\r\n")).response()
    }

    /// Reads a head, interim or not, and nothing of a body.
    #[track_caller]
    pub fn head(&mut self) -> Response {
        self.head_if_any().expect("a response, not the end")
    }

    fn head_if_any(&mut self) -> Option<Response> {
        let head = Head::read(&mut self.stream).expect("the head of a response")?;
        Some(Response { head, body: Vec::new(), is_whole: false })
    }

    /// Reads the response to a request that is not a HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_if_any().expect("a response, not the end")
    }

    /// The same; `None` where the connection ends before a response has begun.
    #[track_caller]
    pub fn response_if_any(&mut self) -> Option<Response> {
        let mut response = self.head_if_any()?;
        while response.status() < 200 {
            response = self.head();
        }
        let has_body = !matches!(response.status(), 204 | 304);
        let framing = response.head.framing().filter(|_| has_body);
        let framing = framing.unwrap_or(if has_body { Framing::UntilClose } else { Framing::Length(0) });
        let read = framing.read(&mut self.stream, |piece| response.body.extend_from_slice(piece)).or_else(in_time);
        response.is_whole = read.is_ok();
        Some(response)
    }

    /// Fills the buffer; `None` where the connection ends first, in order or not.
    #[track_caller]
    pub fn try_read(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => in_time(error).ok(),
        }
    }

    /// Reads exactly so many bytes.
    #[track_caller]
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("as many bytes");
        bytes
    }

    /// Reads one chunk of a chunked body; empty at its end.
    #[track_caller]
    pub fn chunk(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.read(1));
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).expect("the size of a chunk");
        let chunk = self.read(size);
        assert_eq!(self.read(2), b"\r\n");
        chunk
    }

    /// Reads whatever comes until the connection is closed, in order or not.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut bytes).or_else(|error| in_time(error).map(|()| 0)) {
            assert_ne!(error.kind(), io::ErrorKind::TimedOut);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

// Silence is no end.
#[track_caller]
fn in_time(error: io::Error) -> io::Result<()> {
    assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "nothing came in time");
    Err(error)
}

impl Response {
    #[track_caller]
    pub fn status(&self) -> u16 {
        self.head.first_line().split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        assert!(self.is_whole, "the body was cut: {self:?}");
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    /// The problem document that it is.
    #[track_caller]
    pub fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and reason of an answer that the gateway made up.
    #[track_caller]
    pub fn fault(&self) -> (u16, String) {
        (self.status(), self.problem()["reason"].as_str().unwrap().to_owned())
    }
}
