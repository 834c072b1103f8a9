//! What goes wrong inside the gateway, in libraries above all, costs one connection and nothing else.
//!
//! No panic is known that a client could cause, so the test brings its own: libraries tell what they do (`log`, `tracing`), and
//! whoever listens may panic in the middle of it. For that the workers run in the test's process.

use std::{
    fmt::{self, Write as _},
    fs,
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{Arc, Mutex, Once},
    thread,
    time::{Duration, Instant},
};

use http::HeaderMap;
use rustls::{ClientConnection, StreamOwned};
use tidegate::{
    config::{
        self, Source,
        plan::{Bind, LogFormat, LogLevel},
    },
    layers::PasswordPool,
    proxy::Fault,
    runtime::{self, Edition, Live, Registry, Resolved, Tokens},
    server::{Closed, Fleet, Setup, bind},
    telemetry::{Counter, EventLog, events::Sink, metrics::RouteMetrics},
};
use tracing_core::{Event, Field, Metadata, Subscriber, field::Visit, span};

use crate::support::{
    Act, Authority, Backend, Client, Gateway, Http2Backend, Launch, PATIENCE, eventually,
    frames::{GET, PING, frame, request},
    ok, route,
};

/// Which message, of which library, a worker panics at; once.
static TRAP: Mutex<Option<(&str, &str)>> = Mutex::new(None);

fn heard(target: &str, message: &str) {
    let is_ours = thread::current().name().is_some_and(|name| name.starts_with("worker-"));
    let mut trap = TRAP.lock().unwrap();
    if is_ours && trap.is_some_and(|(library, needle)| target.starts_with(library) && message.contains(needle)) {
        *trap = None;
        drop(trap);
        panic!("a trap in {target}: {message:.40}");
    }
}

struct Listens;

impl log::Log for Listens {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        heard(record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}

impl Subscriber for Listens {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("h2::")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Text::default();
        event.record(&mut said);
        heard(event.metadata().target(), &said.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

/// One worker with two listeners, in this process.
struct Workers {
    fleet: Fleet,
    live: Arc<Live>,
    panics: Arc<Counter>,
    event_log: EventLog,
    plain: SocketAddr,
    secure: SocketAddr,
}

impl Workers {
    fn start(yaml: &str, folder: &Path) -> Self {
        static LISTENS: Once = Once::new();
        LISTENS.call_once(|| {
            log::set_logger(&Listens).unwrap();
            log::set_max_level(log::LevelFilter::Trace);
            tracing_core::dispatcher::set_global_default(tracing_core::Dispatch::new(Listens)).unwrap();
        });
        let source = Source { path: folder.join("tidegate.yaml"), text: yaml.to_owned() };
        let loaded = config::load(&source, &|_| None).unwrap_or_else(|report| panic!("{}", report.short()));
        let tokens = Tokens { faults: &Fault::REASONS, closes: &Closed::TOKENS };
        let registry = Registry::new(1, tokens, PasswordPool::new(1, 1).unwrap());
        let edition = Edition::new(1, loaded.sha);
        let live = Arc::new(Live::new(runtime::build(&registry, &loaded.plan, edition, &Resolved::default()).snapshot));
        let sink = Sink::writer(io::sink(), anstream::ColorChoice::Never);
        let (event_log, events) = EventLog::start(LogFormat::Json, LogLevel::Info, sink).unwrap();
        let panics = Arc::new(Counter::new(1));
        let unrouted = Arc::new(RouteMetrics::new(1, &Fault::REASONS));
        let setup = Setup { live: Arc::clone(&live), events, unrouted, panics: Arc::clone(&panics) };
        let fleet = Fleet::start(1, &setup).unwrap();
        let control = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let at = |name: &str| {
            let snapshot = live.load();
            let listener = snapshot.listeners.values().find(|listener| listener.plan.name.as_str() == name).unwrap();
            let sockets = bind(&listener.plan.bind, 1, &[]).unwrap();
            let Bind::Tcp(address) = sockets.address else { panic!("it is TCP") };
            control.block_on(fleet.accept(listener.id, sockets));
            address
        };
        let (plain, secure) = (at("plain"), at("secure"));
        Self { fleet, live, panics, event_log, plain, secure }
    }

    /// Connections that are open, of both listeners.
    fn open(&self) -> u64 {
        self.live.load().listeners.values().map(|listener| listener.metrics.open()).sum()
    }

    fn told(&self) -> usize {
        self.event_log.recent().iter().filter(|recorded| recorded.json().contains("panicked")).count()
    }
}

#[test]
fn a_panic_costs_one_connection() {
    let (backend, shared) =
        (Backend::start(), Http2Backend::start(100, |_| Act::Answer(ok("hello"), HeaderMap::new())));
    let (authority, folder) = (Authority::new("authority"), tempfile::tempdir().unwrap());
    let pair = authority.server(&["gateway.test"], 1);
    fs::write(folder.path().join("cert.pem"), &pair.cert).unwrap();
    fs::write(folder.path().join("key.pem"), &pair.key).unwrap();
    let to = backend.address();
    let workers = Workers::start(
        &format!(
            "listeners:\n  plain: {{ bind: \"127.0.0.1:0\" }}\n  \
             secure: {{ bind: \"127.0.0.1:0\", tls: {{ certs: [{{ cert: cert.pem, key: key.pem }}] }} }}\n\
             routes:\n  - {{ path: /secured, to: \"https://{to}\", health: none }}\n  \
             - {{ path: /shared, to: shared }}\n  \
             - {{ path: /*, to: \"{to}\", health: none }}\n\
             upstreams: {{ shared: {{ backends: [\"{shared}\"], health: none, protocol: http2 }} }}\n",
            shared = shared.address(),
        ),
        folder.path(),
    );
    let mut bystander = Client::connect(workers.plain);
    let mut other = Client::http2(workers.plain);
    assert_eq!(bystander.get("/").text(), "hello");
    eventually("two are open", || workers.open() == 2);

    let shakes_hands = |workers: &Workers| {
        let _ = authority.trusting().connect(workers.secure, "gateway.test").map(|mut client| client.rest());
    };
    let asks = |workers: &Workers| assert_eq!(Client::connect(workers.plain).send(HTTP1).rest(), "");
    let pings = |workers: &Workers| {
        let mut client = Client::http2(workers.plain);
        client.send(frame(PING, 0, 0, *b"trap-it!"));
        while client.frame().is_some() {}
    };
    let asks_by_http2 = |workers: &Workers| {
        let mut client = Client::http2(workers.plain);
        assert_eq!(client.send(request(1, &GET, true)).frames_of(1), None);
    };
    let cases: [(&str, &str, Misbehave<'_>); 4] = [
        ("rustls::server", "clienthello", &shakes_hands),
        // In the middle of a request: a connection to its backend is made.
        ("rustls::client", "ClientHello", &asks),
        ("h2::codec::framed_read", "Ping", &pings),
        // In the task of one stream.
        ("h2::proto::streams::send", "send_headers", &asks_by_http2),
    ];
    for (number, (library, needle, misbehave)) in cases.into_iter().enumerate() {
        *TRAP.lock().unwrap() = Some((library, needle));
        misbehave(&workers);
        assert_eq!(*TRAP.lock().unwrap(), None, "{library}: it did not panic");
        eventually("it is counted", || workers.panics.sum() == number as u64 + 1);
        eventually("it is told", || workers.told() == number + 1);
        eventually("it is closed", || workers.open() == 2);
        for path in ["/", "/shared"] {
            assert_eq!(bystander.get(path).text(), "hello", "{library}");
        }
        let stream = 2 * u32::try_from(number).unwrap() + 1;
        assert!(other.send(request(stream, &GET, true)).frames_of(stream).is_some(), "{library}");
        assert_eq!(authority.trusting().connect(workers.secure, "gateway.test").unwrap().get("/").text(), "hello");
    }
    // In a connection to a backend that many share: what can be asked again is, and nobody else is given that connection.
    *TRAP.lock().unwrap() = Some(("h2::proto::streams::send", "send_headers"));
    assert_eq!(Client::connect(workers.plain).get("/shared").text(), "hello");
    assert_eq!(*TRAP.lock().unwrap(), None, "it did not panic");
    assert_eq!(bystander.get("/shared").text(), "hello");
    workers.fleet.stop();
}

type Misbehave<'a> = &'a dyn Fn(&Workers);

const HTTP1: &str = "GET /secured HTTP/1.1\r\nhost: a\r\n\r\n";

/// A gateway with a listener `main` that speaks TLS.
fn secured(backend: &Backend, authority: &Authority) -> Gateway {
    let pair = authority.server(&["gateway.test"], 1);
    let tls = "tls: { certs: [{ cert: cert.pem, key: key.pem }] }";
    Launch::default().file("cert.pem", pair.cert).file("key.pem", pair.key).start(format!(
        "workers: 1\nlisteners: {{ main: {{ bind: \"127.0.0.1:0\", {tls} }} }}\n{}",
        route(&[backend.address()], "")
    ))
}

/// rustls has panicked at it (RUSTSEC-2024-0399).
#[test]
fn a_hello_in_pieces_is_a_hello() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let gateway = secured(&backend, &authority);
    for size in [1, 7, 100] {
        let name = "gateway.test".try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::new(authority.trusting().config()), name).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        let (head, message) = hello.split_at(5);
        let record = |piece: &[u8]| [&head[..3], &u16::try_from(piece.len()).unwrap().to_be_bytes(), piece].concat();
        let pieces: Vec<u8> = message.chunks(size).flat_map(record).collect();
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&pieces).unwrap();
        let mut client = Client::over(StreamOwned::new(connection, socket));
        assert_eq!(client.get("/").text(), "hello", "pieces of {size}");
    }
}

/// rustls has spun at it (RUSTSEC-2024-0336), as others have at connections that are half closed.
#[test]
fn who_says_goodbye_and_stays_costs_no_time() {
    let backend = Backend::scripted(|peer, request| match request.target() {
        "/endless" => {
            peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")?;
            peer.wait_for_close()
        }
        _ => peer.respond("200 OK", "hello"),
    });
    let authority = Authority::new("authority");
    let gateway = secured(&backend, &authority);
    let connect = || authority.trusting().connect(gateway.address(), "gateway.test").unwrap();
    let mut clients: Vec<_> = (0..40).map(|_| connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // Before a request, in the middle of a head, after a response, in the middle of one.
        match number % 4 {
            0 => {}
            1 => drop(client.send("GET / HTTP/1.1\r\nhost")),
            2 => assert_eq!(client.get("/").text(), "hello"),
            _ => drop(client.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").head()),
        }
        let stream = client.inner_mut();
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    let (began, before) = (Instant::now(), gateway.cpu_ticks());
    thread::sleep(Duration::from_secs(1));
    let (ticks, took) = (gateway.cpu_ticks() - before, began.elapsed());
    assert!(ticks < 20, "{ticks} hundredths of a second in {took:?}");
    assert_eq!(connect().get("/").text(), "hello");
    drop(clients);
}
