//! How commands ask a running gateway.
//!
//! One plain HTTP/1.0 request to the admin address: the answer has an end and no framing, so no HTTP client is needed, and
//! every wait has a deadline. Whatever comes back instead of an answer is an [`Unanswered`], which knows whether it is an honest "no".

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::ToSocketAddrs as _,
    time::{Duration, Instant},
};

use serde::{Deserialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::telemetry::Printable;

/// A gateway, by its admin address.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    admin: String,
}

/// Why there is no answer. The exit code is 2, unless it is a "no".
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// The gateway says no, or there is nothing of that name: the exit code is 1.
    #[error("{0}")]
    No(String),
    /// What was named cannot be asked.
    #[error("{admin} is neither HOST:PORT nor unix:PATH")]
    NotAnAddress {
        /// What was named.
        admin: String,
    },
    /// Something else listens there, or another version.
    #[error("{admin} answers, but not as a tidegate {} does: {why}\nIs it the admin address (`admin:` in the config, 127.0.0.1:9901 by default)?", env!("CARGO_PKG_VERSION"))]
    NotTidegate {
        /// The address.
        admin: String,
        /// What came instead.
        why: String,
    },
    /// The terminal or pipe is gone.
    #[error("cannot print the answer: {0}")]
    Output(#[source] io::Error),
    /// The gateway does not do what it is asked for.
    #[error("{0}")]
    Refused(String),
    /// Nobody answers.
    #[error(
        "no tidegate answers at {admin}: {}\nIs it running? Its config says where it answers (`admin:`, 127.0.0.1:9901 by default); name another address with --admin.",
        in_words(why)
    )]
    Unreachable {
        /// The address.
        admin: String,
        /// What the system says.
        why: io::Error,
    },
}

/// What an answer is wanted as.
pub(super) const JSON: &str = "application/json";

impl Gateway {
    /// The gateway at `host:port` or `unix:path`.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn at(admin: &str) -> Result<Self, Unanswered> {
        match is_address(admin) {
            true => Ok(Self { admin: admin.to_owned() }),
            false => Err(Unanswered::NotAnAddress { admin: admin.to_owned() }),
        }
    }

    pub(super) fn admin(&self) -> &str {
        &self.admin
    }

    /// Reads a document.
    ///
    /// # Errors
    /// No answer, or another one.
    pub(super) fn get(&self, path: &str, accept: &str) -> Result<Vec<u8>, Unanswered> {
        self.exchange(&format!("GET {path} HTTP/1.0"), &format!("Accept: {accept}\r\n"), "")
    }

    /// Gives an order, which is JSON.
    ///
    /// # Errors
    /// No answer, or another one.
    pub(super) fn post(&self, path: &str, order: &serde_json::Value) -> Result<Vec<u8>, Unanswered> {
        let order = order.to_string();
        let fields = format!("Content-Type: {JSON}\r\nContent-Length: {}\r\n", order.len());
        self.exchange(&format!("POST {path} HTTP/1.0"), &fields, &order)
    }

    /// An answer as what it stands for.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn parse<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, Unanswered> {
        serde_json::from_slice(answer).map_err(|why| self.not_tidegate(why.to_string()))
    }

    /// Opens a stream of events, from behind the last one that was seen.
    ///
    /// # Errors
    /// No answer, or another one.
    pub(super) fn stream(&self, path: &str, seen: Option<&str>) -> Result<BufReader<Socket>, Unanswered> {
        let seen = seen.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let fields = format!("Accept: text/event-stream\r\n{seen}");
        let opened = self.send(&format!("GET {path} HTTP/1.0"), &fields, "").and_then(|socket| {
            socket.set_read_timeout(Some(SILENCE))?;
            let mut reader = BufReader::new(socket);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
                if (&mut reader).take(LONGEST_HEAD as u64).read_until(b'\n', &mut head)? == 0 {
                    break;
                }
            }
            Ok((head, reader))
        });
        let (mut answer, reader) = opened.map_err(|why| self.unreachable(why))?;
        if answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200") {
            return Ok(reader);
        }
        let read = reader.take(LONGEST_HEAD as u64).read_to_end(&mut answer);
        read.map_err(|why| self.unreachable(why))?;
        Err(self.body(&answer).err().unwrap_or_else(|| self.not_tidegate("no stream".to_owned())))
    }

    fn exchange(&self, line: &str, fields: &str, body: &str) -> Result<Vec<u8>, Unanswered> {
        let answer = self.send(line, fields, body).and_then(read_whole).map_err(|why| self.unreachable(why))?;
        self.body(&answer).map(<[u8]>::to_vec)
    }

    fn send(&self, line: &str, fields: &str, body: &str) -> io::Result<Socket> {
        let mut socket = connect(&self.admin)?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let request = format!("{line}\r\nHost: {}\r\n{fields}\r\n{body}", host_of(&socket));
        socket.write_all(request.as_bytes())?;
        Ok(socket)
    }

    fn body<'a>(&self, answer: &'a [u8]) -> Result<&'a [u8], Unanswered> {
        let (status, body) = parts(answer).map_err(|why| self.not_tidegate(why))?;
        if status == "200" {
            return Ok(body);
        }
        match (status, serde_json::from_slice::<Problem>(body)) {
            ("404" | "409", Ok(problem)) if problem.reason != "not_found" => Err(Unanswered::No(problem.said())),
            (_, Ok(problem)) => Err(Unanswered::Refused(format!("{}: {}", self.admin, problem.said()))),
            (_, Err(_)) => Err(self.not_tidegate(format!("status {}", Printable(status)))),
        }
    }

    fn not_tidegate(&self, why: String) -> Unanswered {
        Unanswered::NotTidegate { admin: self.admin.clone(), why }
    }

    fn unreachable(&self, why: io::Error) -> Unanswered {
        Unanswered::Unreachable { admin: self.admin.clone(), why }
    }
}

/// Why the gateway does not do what it is asked for.
#[derive(Debug, Deserialize)]
struct Problem {
    reason: String,
    detail: String,
}

impl Problem {
    fn said(&self) -> String {
        Printable(&self.detail).to_string()
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For the whole answer, after the connect.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read: the status of a hundred thousand backends.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// The longest head of a stream.
const LONGEST_HEAD: usize = 16 * 1024;

/// A stream that has said nothing for so long is dead: the gateway says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

fn is_address(admin: &str) -> bool {
    if let Some(path) = admin.strip_prefix("unix:") {
        return !path.is_empty();
    }
    let parts = admin.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok())
}

/// `Connection refused (os error 111)` as `connection refused`.
fn in_words(why: &io::Error) -> String {
    let text = why.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

fn read_whole(mut socket: Socket) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let (mut answer, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer did not end in 10s"));
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(read) if (answer.len() + read) as u64 > LONGEST_ANSWER => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is longer than 64MiB"));
            }
            Ok(read) => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn connect(admin: &str) -> io::Result<Socket> {
    if let Some(path) = admin.strip_prefix("unix:") {
        return connect_to(&SockAddr::unix(path)?);
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in admin.to_socket_addrs()? {
        match connect_to(&address.into()) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_to(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    match address.domain() {
        // A Unix socket connects at once, or never.
        Domain::UNIX => socket.connect(address)?,
        _ => socket.connect_timeout(address, CONNECT_TIMEOUT)?,
    }
    Ok(socket)
}

/// The address that was reached, whatever name led there: a name is what the gateway refuses on loopback.
fn host_of(socket: &Socket) -> String {
    let address = socket.peer_addr().ok().and_then(|address| address.as_socket());
    address.map_or_else(|| "localhost".to_owned(), |address| address.to_string())
}

/// The status and the body of a whole answer.
fn parts(answer: &[u8]) -> Result<(&str, &[u8]), String> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("this is not HTTP")?;
    let (head, body) = (answer.get(..end).unwrap_or_default(), answer.get(end + 4..).unwrap_or_default());
    let head = std::str::from_utf8(head).map_err(|_| "this is not HTTP")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().filter(|line| line.starts_with("HTTP/1.")).and_then(|line| line.split(' ').nth(1));
    let status = status.ok_or("this is not HTTP")?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match length.and_then(|(_, value)| value.trim().parse::<usize>().ok()) {
        Some(length) if body.len() != length => Err("the answer was cut".to_owned()),
        Some(_) | None => Ok((status, body)),
    }
}

/// A name as a segment of a path, or as a value of a query.
pub(super) fn encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_host_and_a_port_or_a_path() {
        for good in ["unix:/run/admin.sock", "127.0.0.1:9901", "[::1]:9901", "gateway.internal:9901"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["foo", ":9901", "foo:", "foo:99010", "http://127.0.0.1:9901", "127.0.0.1:9901/", "unix:", ""] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn only_a_whole_answer_with_200_is_one() {
        let gateway = Gateway::at("127.0.0.1:9901").unwrap();
        let body = |answer: &'static [u8]| gateway.body(answer).map_err(|why| why.to_string());
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"), Ok(&b"hi"[..]));
        let says = |answer, what: &str| {
            let why = body(answer).unwrap_err();
            assert!(why.contains(what), "{why}");
        };
        says(b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nhi", "the answer was cut");
        says(b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404");
        for garbage in [&b""[..], b"SSH-2.0\r\n\r\n", b"HTTP/1.0\r\n\r\n", b"\xff\r\n\r\n", b"HTTP/1.0 200 OK"] {
            says(garbage, "this is not HTTP");
        }
    }

    #[test]
    fn a_problem_is_a_no_if_it_is_about_what_was_named() {
        let gateway = Gateway::at("127.0.0.1:9901").unwrap();
        let answer = |status: &str, reason: &str| {
            let answer = format!("HTTP/1.0 {status}\r\n\r\n{{\"reason\":\"{reason}\",\"detail\":\"So.\\u001b[2J\"}}");
            gateway.body(answer.as_bytes()).unwrap_err()
        };
        for (status, reason) in [("404 Not Found", "unknown_backend"), ("409 Conflict", "removed")] {
            assert!(matches!(answer(status, reason), Unanswered::No(said) if said == "So.\\u{1b}[2J"), "{status}");
        }
        for (status, reason) in [("404 Not Found", "not_found"), ("400 Bad Request", "bad_request")] {
            assert!(matches!(answer(status, reason), Unanswered::Refused(_)), "{status}");
        }
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(encoded("/*"), "%2F%2A");
        assert_eq!(encoded("unix:/run/a b.sock"), "unix%3A%2Frun%2Fa%20b.sock");
        assert_eq!(encoded("10.0.1.11:9001"), "10.0.1.11%3A9001");
    }
}
