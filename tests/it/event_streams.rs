//! Streams of events (Server-Sent Events): each is there when it is sent, whatever the route does with other responses.

use crate::support::{
    Backend, Client, Gate, Gateway, eventually,
    frames::{DATA, GET, HEADERS, request},
    route,
};

/// Says one event after the other, each once the client has seen the one before it; then the end.
struct Stream {
    backend: Backend,
    seen: Vec<Gate>,
}

const COUNT: usize = 4;

fn event(number: usize) -> String {
    format!("id: {number}\ndata: {}\n\n", "x".repeat(number * 500))
}

impl Stream {
    /// In chunks, or to the end of the connection.
    fn start(is_chunked: bool) -> Self {
        let seen: Vec<Gate> = (0..COUNT).map(|_| Gate::default()).collect();
        let gates = seen.clone();
        let backend = Backend::scripted(move |peer, _| {
            let framing = if is_chunked { "transfer-encoding: chunked\r\n" } else { "" };
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n{framing}\r\n"))?;
            for (number, gate) in gates.iter().enumerate() {
                let event = event(number);
                let length = event.len();
                peer.write(if is_chunked { format!("{length:x}\r\n{event}\r\n") } else { event })?;
                gate.wait()?;
            }
            if is_chunked {
                return peer.write("0\r\n\r\n");
            }
            peer.close()
        });
        Self { backend, seen }
    }

    fn gateway(&self, fields: &str) -> Gateway {
        Gateway::start(route(&[self.backend.address()], fields))
    }

    /// Every event is read before the next is sent; `read` says what came next of the body.
    #[track_caller]
    fn comes_one_by_one(&self, mut read: impl FnMut() -> Vec<u8>) {
        for (number, gate) in self.seen.iter().enumerate() {
            let (expected, mut read_so_far) = (event(number), Vec::new());
            while read_so_far.len() < expected.len() {
                read_so_far.extend(read());
            }
            assert_eq!(String::from_utf8(read_so_far).unwrap(), expected);
            gate.open();
        }
    }
}

/// What routes may say that could hold an event back.
const ROUTES: [&str; 3] = [
    "timeouts: { request: 0s }",
    "compress: true",
    "compress: { types: [\"text/*\", text/event-stream], min_size: 1B }, timeouts: { response_header: 5s }",
];

#[test]
fn events_come_one_by_one_over_http1() {
    for fields in ROUTES {
        for is_chunked in [true, false] {
            let stream = Stream::start(is_chunked);
            let gateway = stream.gateway(fields);
            let mut client = gateway.connect();
            client.send(
                "GET / HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\naccept-encoding: gzip, br, zstd\r\n\r\n",
            );
            let head = client.head();
            assert_eq!(head.header("content-type"), Some("text/event-stream; charset=utf-8"));
            assert_eq!((head.header("content-encoding"), head.header("content-length")), (None, None), "{fields}");
            stream.comes_one_by_one(|| client.chunk());
            assert_eq!(client.chunk(), b"", "the end");
        }
    }
}

#[test]
fn events_come_one_by_one_over_http2() {
    for fields in ROUTES {
        let stream = Stream::start(true);
        let gateway = stream.gateway(fields);
        let mut client = Client::http2(gateway.address());
        let asked =
            [GET.to_vec(), vec![("accept", &b"text/event-stream"[..]), ("accept-encoding", b"gzip, br")]].concat();
        client.send(request(1, &asked, true));
        let mut next = |kind: u8| loop {
            let frame = client.frame().expect("a frame");
            if frame.stream == 1 && frame.kind == kind {
                break frame;
            }
        };
        let head = String::from_utf8_lossy(&next(HEADERS).payload).into_owned();
        assert!(!head.contains("gzip") && !head.contains("br"), "{head:?}");
        stream.comes_one_by_one(|| next(DATA).payload);
        assert_eq!(next(DATA).flags, 1, "the end");
    }
}

/// A client that leaves is what ends a stream without end, at once.
#[test]
fn who_leaves_is_let_go() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")?;
        peer.wait_for_close()
    });
    let gateway = Gateway::start(route(&[backend.address()], "compress: true, timeouts: { request: 0s }"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").head();
    assert_eq!(client.chunk(), b"data: 1\n\n");
    drop(client);
    eventually("the backend is let go", || backend.open() == 0);
}
