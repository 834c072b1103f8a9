//! A load client that keeps its rate whatever the answers take: `rate ADDRESS PATH CONNECTIONS PER_SECOND SECONDS`.
//!
//! A client that waits for an answer before it counts the time of its next request hides every stall but the first
//! ("coordinated omission"). Here each connection has a timetable, staggered among them. A request that starts late because
//! the one before it was not answered yet counts from the time when it was due. One that starts late because this thread woke
//! late counts from when it was sent: that delay is the client's own.
//!
//! Of the standard library only, so that `rustc` alone builds it. Prints one JSON object; times are microseconds.
#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::{
    env,
    error::Error,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

#[derive(Default)]
struct Tally {
    micros: Vec<u64>,
    errors: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address, path, connections, per_second, seconds] = args.as_slice() else {
        return Err("usage: rate ADDRESS PATH CONNECTIONS PER_SECOND SECONDS".into());
    };
    let address: SocketAddr = address.parse()?;
    let (connections, per_second, seconds): (u32, u32, u32) =
        (connections.parse()?, per_second.parse()?, seconds.parse()?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: rate/1\r\nAccept: */*\r\n\r\n");
    let step = Duration::from_secs(1) / per_second;
    let start = Instant::now() + Duration::from_millis(100);
    let end = start + Duration::from_secs(seconds.into());

    let mut all = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|number| {
                let (first, request) = (start + step * number, request.as_bytes());
                scope.spawn(move || client(address, request, first, step * connections, end))
            })
            .collect();
        for client in clients {
            // A client that panicked has sent nothing that counts.
            let tally = client.join().unwrap_or_else(|_| Tally { errors: 1, ..Tally::default() });
            all.errors += tally.errors;
            all.micros.extend(tally.micros);
        }
    });
    all.micros.sort_unstable();
    let at = |share: f64| all.micros.get((all.micros.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        r#"{{"requests":{},"errors":{},"p50":{},"p99":{},"p999":{}}}"#,
        all.micros.len(),
        all.errors,
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

/// Keeps one connection to its timetable; opens a new one after an error.
fn client(address: SocketAddr, request: &[u8], first: Instant, step: Duration, end: Instant) -> Tally {
    let mut tally = Tally::default();
    let mut open = None;
    let mut due = first;
    while due < end {
        let early = due.saturating_duration_since(Instant::now());
        thread::sleep(early);
        let from = if early.is_zero() { due } else { Instant::now() };
        match exchange(&mut open, address, request) {
            Ok(()) => tally.micros.push(u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(_) => {
                tally.errors += 1;
                open = None;
            }
        }
        due += step;
    }
    tally
}

/// Sends the request and reads the whole answer.
fn exchange(open: &mut Option<TcpStream>, address: SocketAddr, request: &[u8]) -> io::Result<()> {
    let socket = match open {
        Some(socket) => socket,
        None => open.insert(connect(address)?),
    };
    socket.write_all(request)?;
    let mut buffer = [0; 16 * 1024];
    let mut filled = 0;
    let mut whole = None;
    while whole.is_none_or(|whole| filled < whole) {
        let read = socket.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        whole = whole.or_else(|| length(&buffer[..filled]));
    }
    if buffer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// The length of the answer, once all of its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let mut fields = str::from_utf8(&answer[..head]).ok()?.lines().filter_map(|line| line.split_once(':'));
    let body = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    Some(head + body.and_then(|(_, length)| length.trim().parse().ok()).unwrap_or(0))
}
