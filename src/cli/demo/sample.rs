//! Three backends to be looked at: one is steady, one slow, one breaks for 8 s of every 20 s.
//!
//! They are real HTTP servers on a thread of their own, so that what the gateway sees of them is what it sees of any backend.
//! While the flaky one is broken, its `/health` answers 503 and every other request has its connection reset; it counts
//! those, because only it knows them all: a retry hides them from the client.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, oneshot},
    time::sleep,
};

use crate::base::Timestamp;

/// When the flaky backend is broken, counted from the start of the traffic.
pub(super) const FIRST_BREAK: Duration = Duration::from_secs(6);
pub(super) const BREAK_EVERY: Duration = Duration::from_secs(20);
pub(super) const BREAK_LASTS: Duration = Duration::from_secs(8);
pub(super) const SLOWNESS: Duration = Duration::from_millis(120);

/// Names and the ports that they take if those are free.
const BACKENDS: [(Behaviour, &str, u16); 3] =
    [(Behaviour::Steady, "steady", 41001), (Behaviour::Slow, "slow", 41002), (Behaviour::Flaky, "flaky", 41003)];

/// Connections open at once per backend; others wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Behaviour {
    Steady,
    Slow,
    Flaky,
}

/// The backends, serving until this is dropped.
#[derive(Debug)]
pub(super) struct Samples {
    /// By name, in the order of the config.
    pub(super) addresses: Vec<(&'static str, SocketAddr)>,
    state: Arc<State>,
    // Dropped, it ends the thread.
    _stop: oneshot::Sender<Infallible>,
}

#[derive(Debug, Default)]
struct State {
    began: OnceLock<Instant>,
    resets: AtomicU64,
}

impl Samples {
    /// Binds and serves. All are steady until the [clock is started](Self::start_clock).
    pub(super) fn start() -> io::Result<Self> {
        let state = Arc::<State>::default();
        let mut addresses = vec![];
        let mut servers = vec![];
        for (behaviour, name, port) in BACKENDS {
            let socket = bind(port)?;
            socket.set_nonblocking(true)?;
            addresses.push((name, socket.local_addr()?));
            servers.push((socket, Sample { behaviour, name, state: Arc::clone(&state) }));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name("samples".into()).spawn(move || {
            runtime.block_on(async {
                for (socket, sample) in servers {
                    tokio::spawn(serve(socket, sample));
                }
                let _ = stopped.await;
            });
        })?;
        Ok(Self { addresses, state, _stop: stop })
    }

    /// From this moment on, the flaky backend breaks when it is due.
    pub(super) fn start_clock(&self, began: Instant) {
        let _ = self.state.began.set(began);
    }

    /// Requests that met the flaky backend while it was broken.
    pub(super) fn resets(&self) -> u64 {
        self.state.resets.load(Relaxed)
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
}

fn is_due(elapsed: Duration) -> bool {
    elapsed
        .checked_sub(FIRST_BREAK)
        .is_some_and(|since| since.as_millis() % BREAK_EVERY.as_millis() < BREAK_LASTS.as_millis())
}

async fn serve(socket: TcpListener, sample: Sample) {
    let Ok(socket) = tokio::net::TcpListener::from_std(socket) else { return };
    let sample = Arc::new(sample);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let Ok((connection, _)) = socket.accept().await else {
            // Out of descriptors, most likely: some will be closed soon.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let sample = Arc::clone(&sample);
        tokio::spawn(async move {
            sample.converse(connection).await;
            drop(permit);
        });
    }
}

#[derive(Debug)]
struct Sample {
    behaviour: Behaviour,
    name: &'static str,
    state: Arc<State>,
}

/// The answer of a backend that is broken: none.
#[derive(Debug, thiserror::Error)]
#[error("broken")]
struct Broken;

impl Sample {
    async fn converse(&self, connection: TcpStream) {
        let service = service_fn(|request| Box::pin(self.answer(request)));
        let mut exchange = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(connection), service);
        let ended = std::future::poll_fn(|context| exchange.poll_without_shutdown(context)).await;
        if ended.is_err() {
            // Closing a socket that does not linger resets the connection.
            let connection = exchange.into_parts().io.into_inner();
            let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Broken> {
        let path = request.uri().path();
        if path == "/health" {
            return Ok(health(self.is_broken()));
        }
        if self.is_broken() {
            self.state.resets.fetch_add(1, Relaxed);
            return Err(Broken);
        }
        if self.behaviour == Behaviour::Slow {
            sleep(SLOWNESS).await;
        }
        Ok(json_response(StatusCode::OK, &json!({ "backend": self.name, "path": path })))
    }

    fn is_broken(&self) -> bool {
        let began = self.state.began.get();
        self.behaviour == Behaviour::Flaky && began.is_some_and(|began| is_due(began.elapsed()))
    }
}

fn health(is_broken: bool) -> Response<Full<Bytes>> {
    let (code, status, database) = match is_broken {
        false => (StatusCode::OK, "healthy", "up"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", "down"),
    };
    let checks = json!({ "database": database, "cache": "up", "external": "up" });
    json_response(code, &json!({ "status": status, "checks": checks, "timestamp": Timestamp::now() }))
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;

    fn ask(samples: &Samples, name: &str, path: &str) -> io::Result<String> {
        let (_, address) = samples.addresses.iter().find(|(known, _)| *known == name).expect("a sample");
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(connection, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn body(answer: &str) -> serde_json::Value {
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
    }

    #[test]
    fn the_flaky_backend_is_broken_for_8_of_20_seconds_from_second_6() {
        let broken: Vec<u64> = (0..50).filter(|second| is_due(Duration::from_secs(*second))).collect();
        assert_eq!(broken, (6..14).chain(26..34).chain(46..50).collect::<Vec<u64>>());
    }

    #[test]
    fn all_are_healthy_and_answer_before_the_clock_starts() {
        let samples = Samples::start().unwrap();
        for name in ["steady", "slow", "flaky"] {
            let health = ask(&samples, name, "/health").unwrap();
            assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
            let health = body(&health);
            assert_eq!(health["status"], "healthy");
            assert_eq!(health["checks"], json!({ "database": "up", "cache": "up", "external": "up" }));
            assert!(health["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));

            let began = Instant::now();
            let answer = body(&ask(&samples, name, "/orders/1").unwrap());
            assert_eq!(answer, json!({ "backend": name, "path": "/orders/1" }));
            assert!(name != "slow" || began.elapsed() >= SLOWNESS);
        }
        assert_eq!(samples.resets(), 0);
    }

    #[test]
    fn the_broken_backend_answers_503_to_probes_and_resets_the_rest() {
        let samples = Samples::start().unwrap();
        samples.start_clock(Instant::now().checked_sub(FIRST_BREAK).expect("the machine runs for longer"));
        let health = ask(&samples, "flaky", "/health").unwrap();
        assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
        assert_eq!(body(&health)["status"], "unhealthy");
        let reset = ask(&samples, "flaky", "/orders/1").unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        assert_eq!(samples.resets(), 1);
        assert!(ask(&samples, "steady", "/orders/1").unwrap().starts_with("HTTP/1.1 200 "));
    }
}
