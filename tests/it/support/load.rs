//! A steady load: so many keep-alive connections, and an account of what became of every request.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    message::{Framing, Head},
};

/// What to ask, how often, on how many connections.
pub struct Load {
    pub connections: u64,
    /// Requests a second in all, sent when they are due however late the answers before them; `None`: each connection
    /// asks again as soon as it is answered.
    pub rate: Option<u32>,
    /// Requests in all; `None`: until [`Running::stop`].
    pub total: Option<u64>,
}

/// A load under way.
pub struct Running {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    connections: Vec<JoinHandle<Account>>,
}

/// What became of the requests.
#[derive(Default)]
pub struct Account {
    pub requests: u64,
    pub statuses: BTreeMap<u16, u64>,
    /// Whole answers with status 200, by body.
    pub bodies: BTreeMap<String, u64>,
    /// Requests that got no whole answer, and why, with the first of each kind.
    pub unanswered: Vec<String>,
    /// From when a request was due to the last byte of its answer.
    latencies: Vec<Duration>,
}

impl Load {
    /// A steady load until it is stopped.
    pub const fn steady(connections: u64, rate: u32) -> Self {
        Self { connections, rate: Some(rate), total: None }
    }

    /// As fast as it goes, until it is stopped.
    pub const fn relentless(connections: u64) -> Self {
        Self { connections, rate: None, total: None }
    }

    /// So many requests, as fast as it goes.
    pub const fn of(total: u64, connections: u64) -> Self {
        Self { connections, rate: None, total: Some(total) }
    }

    /// Starts it with `GET path`.
    pub fn get(self, address: SocketAddr, path: &'static str) -> Running {
        self.start(address, move |_| format!("GET {path} HTTP/1.1\r\nhost: gateway.test\r\n\r\n"))
    }

    /// Starts it with the request that is made for each number, from 0.
    pub fn start(self, address: SocketAddr, request: impl Fn(u64) -> String + Send + Sync + 'static) -> Running {
        let (is_over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let began = Instant::now();
        let request = Arc::new(request);
        let connection = |number| {
            let (is_over, answered, request) = (Arc::clone(&is_over), Arc::clone(&answered), Arc::clone(&request));
            let Self { connections, rate, total } = self;
            thread::spawn(move || {
                let mut account = Account::default();
                let mut connection = Connection { address, stream: None };
                let numbers = (number..total.unwrap_or(u64::MAX)).step_by(usize::try_from(connections).unwrap());
                for number in numbers {
                    let due = match rate {
                        Some(rate) => began + Duration::from_secs(number) / rate,
                        None => Instant::now(),
                    };
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    if is_over.load(Relaxed) {
                        break;
                    }
                    account.enter(connection.ask(&request(number)), due.elapsed());
                    answered.fetch_add(1, Relaxed);
                }
                account
            })
        };
        let connections = (0..self.connections).map(connection).collect();
        Running { is_over, answered, connections }
    }
}

impl Running {
    /// How many requests were answered so far, or failed.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Waits until this many requests more were answered.
    pub fn goes_on_for(&self, requests: u64) {
        let enough = self.answered() + requests;
        let deadline = Instant::now() + PATIENCE;
        while self.answered() < enough {
            assert!(Instant::now() < deadline, "the load makes no progress");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it, and adds up.
    pub fn stop(self) -> Account {
        self.is_over.store(true, Relaxed);
        self.finish()
    }

    /// Waits until all was asked, and adds up.
    pub fn finish(self) -> Account {
        let accounts = self.connections.into_iter().map(|connection| connection.join().unwrap());
        let mut sum = accounts.reduce(Account::and).expect("a load has connections");
        sum.latencies.sort_unstable();
        sum
    }
}

impl Account {
    /// Every request was answered, whole, with status 200.
    #[track_caller]
    pub fn assert_flawless(&self) {
        assert!(self.unanswered.is_empty() && self.statuses.keys().eq(&[200]), "{self:#?}");
    }

    /// So many of the requests were answered with this status.
    pub fn with(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    /// Within which time this share of the requests was answered.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).copied().unwrap_or_default()
    }

    fn enter(&mut self, answer: io::Result<(u16, String)>, took: Duration) {
        self.requests += 1;
        match answer {
            Ok((status, body)) => {
                self.latencies.push(took);
                *self.statuses.entry(status).or_default() += 1;
                if status == 200 {
                    *self.bodies.entry(body).or_default() += 1;
                }
            }
            Err(error) => self.unanswered.push(format!("request {}: {error}", self.requests)),
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.requests += other.requests;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (body, count) in other.bodies {
            *self.bodies.entry(body).or_default() += count;
        }
        self.unanswered.extend(other.unanswered);
        self.latencies.extend(other.latencies);
        self
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("requests", &self.requests)
            .field("statuses", &self.statuses)
            .field("unanswered", &self.unanswered.len())
            .field("such_as", &self.unanswered.iter().take(5).collect::<Vec<_>>())
            .field("p50", &self.percentile(50))
            .field("p99", &self.percentile(99))
            .field("max", &self.percentile(100))
            .finish()
    }
}

/// A keep-alive connection. It is made anew where the gateway has announced its end, or where a request failed; one that
/// ends unannounced costs the request that finds out.
struct Connection {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    fn ask(&mut self, request: &str) -> io::Result<(u16, String)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.get_mut().write_all(request.as_bytes())?;
        let head = Head::read(&mut stream)?.ok_or_else(|| io::Error::other("closed without an answer"))?;
        let status = head.first_line().split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status: {head:?}")))?;
        let mut body = Vec::new();
        let framing = head.framing().unwrap_or(Framing::UntilClose);
        framing.read(&mut stream, |piece| body.extend_from_slice(piece))?;
        let is_last = framing == Framing::UntilClose || head.get("connection") == Some("close");
        self.stream = (!is_last).then_some(stream);
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }
}
