//! A connection that comes to rest in every moment at which it may, and is heard of again.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::net,
    sync::Arc,
    thread,
};

use allocation_counter::measure;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime::{Builder, LocalOptions, LocalRuntime},
    task::yield_now,
};

use super::*;
use crate::{
    config::{self, Source as Text},
    layers::PasswordPool,
    proxy::Fault,
    runtime::{self, Edition, Live, Registry, Resolved, Tokens},
    telemetry::{WorkerId, metrics::RouteMetrics},
    upstream::Bells,
};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// Who says the secret whole is told that the backend refuses connections; who does not, that he may not come in.
const CONFIG: &str = "\
listen: 8080
auth: { key: { api_key: { header: x-key, keys: { me: sha256:DIGEST } } } }
routes: [{ path: /*, to: [127.0.0.1:9], health: none, auth: key, retries: { attempts: 0 } }]
";
const SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn with_secret() -> Rc<Gateway> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SECRET.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    gateway(CONFIG.replace("DIGEST", &digest))
}

fn gateway(text: String) -> Rc<Gateway> {
    let text = Text { path: "t.yaml".into(), text };
    let loaded = config::load(&text, &|_| None).expect("a good config");
    let tokens = Tokens { faults: &Fault::REASONS, closes: &Closed::TOKENS };
    let registry = Registry::new(1, tokens, PasswordPool::new(1, 1).expect("a thread"));
    let edition = Edition::new(1, loaded.sha);
    let snapshot = runtime::build(&registry, &loaded.plan, edition, &Resolved::default()).snapshot;
    let unrouted = Arc::new(RouteMetrics::new(1, &Fault::REASONS));
    let live = Arc::new(Live::new(snapshot));
    Rc::new(Gateway::new(WorkerId(0), live, Arc::new(Bells::new(1)), unrouted))
}

/// What happens between two pieces of what the client sends.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    /// Everybody else has his turn.
    Turns(usize),
    /// A sweep that finds the connection silent, before or after others have their turn.
    Sweep(usize),
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![Just(Between::Nothing), (1..20_usize).prop_map(Between::Turns), (0..20_usize).prop_map(Between::Sweep)]
}

fn accepted(gateway: &Rc<Gateway>, socket: UnixStream) -> (Rc<Open>, Box<ClientStream<Socket>>) {
    let pinned = gateway.pin();
    let listener = pinned.snapshot.listeners.values().next().expect("a listener");
    let client = Client::new(Arc::clone(listener), Rc::clone(&pinned), PEER);
    let open = Rc::new(Open::new(client));
    let stream = Box::new(ClientStream::new(Socket::from(socket), Rc::clone(&open.client)));
    (open, stream)
}

/// What a client has heard after it has sent these pieces, and whether the connection has rested.
async fn talk(gateway: Rc<Gateway>, requests: usize, pieces: Vec<(Vec<u8>, Between)>) -> (String, bool) {
    let (near, mut far) = UnixStream::pair().expect("two sockets");
    let (open, stream) = accepted(&gateway, near);
    let served = Rc::clone(&open);
    let serving = spawn_local(async move { serve(gateway, &served, stream).await });
    let mut has_rested = false;
    for (piece, between) in pieces {
        far.write_all(&piece).await.expect("it is read");
        let (turns, is_swept) = match between {
            Between::Nothing => (0, false),
            Between::Turns(turns) => (turns, false),
            Between::Sweep(turns) => (turns, true),
        };
        for _ in 0..turns {
            yield_now().await;
        }
        if is_swept {
            open.check_deadlines(Instant::now() + SILENCE);
            yield_now().await;
            has_rested |= matches!(open.order.get(), Order::Rest);
        }
    }
    // A client that ends its side is gone, so this one does not; one that hears too little ends by the deadline.
    let mut heard = Vec::new();
    let hearing = async {
        while answers(&heard) < requests {
            far.read_buf(&mut heard).await.expect("it is open");
        }
    };
    let _ = timeout(Duration::from_secs(1), hearing).await;
    drop(far);
    assert_eq!(serving.await.expect("it ends"), Closed::Done);
    (String::from_utf8_lossy(&heard).into_owned(), has_rested)
}

/// Whole ones: their bodies are objects.
fn answers(heard: &[u8]) -> usize {
    String::from_utf8_lossy(heard).matches("\"}").count()
}

fn runtime() -> LocalRuntime {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime")
}

fn run(gateway: &Rc<Gateway>, requests: usize, pieces: Vec<(Vec<u8>, Between)>) -> (String, bool) {
    runtime().block_on(talk(Rc::clone(gateway), requests, pieces))
}

#[test]
fn a_connection_rests_and_is_heard_of_again() {
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-key: {SECRET}\r\n\r\n");
    let pieces = (0..3).map(|_| (request.clone().into_bytes(), Between::Sweep(40))).collect();
    let (heard, has_rested) = run(&with_secret(), 3, pieces);
    assert!(has_rested);
    assert_eq!(heard.matches("HTTP/1.1 502").count(), 3, "{heard}");
}

/// Takes one connection, and answers so many requests on it.
fn answer(mut stream: impl Read + Write, requests: usize) {
    let mut head = [0; 4096];
    for _ in 0..requests {
        let read = stream.read(&mut head).expect("a request");
        assert!(head[..read].ends_with(b"\r\n\r\n"));
        let answer = b"HTTP/1.1 200 OK\r\nserver: b\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
        stream.write_all(answer).expect("it is taken");
    }
}

/// What the worker's thread allocates for a connection with so many requests.
fn allocations(requests: usize) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let backend = listener.local_addr().expect("an address");
    let backend_thread = thread::spawn(move || answer(listener.accept().expect("the gateway").0, requests));
    let gateway = gateway(format!("listen: 8080\nroutes: [{{ path: /*, to: ['{backend}'], health: none }}]\n"));
    let (near, mut far) = net::UnixStream::pair().expect("two sockets");
    near.set_nonblocking(true).expect("a socket");
    let client = thread::spawn(move || {
        for _ in 0..requests {
            far.write_all(b"GET /item HTTP/1.1\r\nhost: a\r\nuser-agent: u\r\naccept: */*\r\n\r\n")
                .expect("it is read");
            let mut answer = [0; 4096];
            let read = far.read(&mut answer).expect("an answer");
            assert!(answer[..read].ends_with(b"hello"), "{}", answer[..read].escape_ascii());
        }
    });
    let runtime = runtime();
    let cost = measure(|| {
        let closed = runtime.block_on(async {
            let (open, stream) = accepted(&gateway, UnixStream::from_std(near).expect("a socket"));
            serve(gateway, &open, stream).await
        });
        assert_eq!(closed, Closed::Done);
    });
    client.join().expect("all is answered");
    backend_thread.join().expect("all is asked");
    cost.count_total
}

/// The whole of a request, hyper's part included: room to read into, the two maps of fields, the exchange, its attempt, what is added to the
/// head, the body of the response, and what that shares with the buffer it was cut from. Whoever changes the figure says why. (Request
/// ids are cut from memory for 32 of them, so these are among those that need no new one.)
#[test]
fn a_request_allocates_eight_times() {
    let (few, many) = (336, 352);
    // Whether a buffer can be used again depends now and then on who is faster: the least of several is what it takes.
    let least = |requests| (0..8).map(|_| allocations(requests)).min().unwrap_or_default();
    assert_eq!(least(many) - least(few), 8 * (many - few) as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Wherever the bytes of requests are cut, and whenever the connection is told to rest.
    #[test]
    fn no_byte_is_lost_when_a_request_comes_as_its_connection_rests(
        requests in 1..6_usize,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), between()), 0..12),
        last in between(),
    ) {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-key: {SECRET}\r\n\r\n");
        let text = request.repeat(requests);
        let mut cuts: Vec<_> = cuts.iter().map(|(at, between)| (at.index(text.len()), *between)).collect();
        cuts.sort_unstable_by_key(|(at, _)| *at);
        cuts.push((text.len(), last));
        let mut from = 0;
        let pieces = cuts.into_iter().map(|(to, between)| {
            let piece = text.as_bytes()[from..to].to_vec();
            from = to;
            (piece, between)
        });
        let (heard, _) = run(&with_secret(), requests, pieces.collect());
        prop_assert_eq!(heard.matches("HTTP/1.1 502").count(), requests, "{}", heard);
        prop_assert_eq!(heard.matches("HTTP/1.1").count(), requests, "{}", heard);
    }
}
