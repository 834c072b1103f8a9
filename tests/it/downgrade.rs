//! What an HTTP/2 client says reaches a backend of HTTP/1.1 as one request of that, or not at all.

use std::sync::{Arc, Mutex};

use crate::support::{
    Backend, Client, Gateway, Received, eventually,
    frames::{DATA, END_HEADERS, END_STREAM, GET, HEADERS, RST_STREAM, block, frame, request},
    route,
};

type Field<'a> = (&'a str, &'a [u8]);

struct Desk {
    backend: Backend,
    whole: Arc<Mutex<Vec<String>>>,
    gateway: Gateway,
}

/// How a request ended for its client.
#[derive(Clone, Debug, Eq, PartialEq)]
enum End {
    /// The backend's response, whole.
    Answered,
    /// An answer of the gateway's own, with this status.
    Refused(u64),
    /// The stream, or the connection, ended without an answer.
    Reset,
}

impl Desk {
    fn open() -> Self {
        let whole = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&whole);
        let backend = Backend::scripted(move |peer, request| {
            peer.read_body()?;
            notes.lock().unwrap().push(request.target().to_owned());
            peer.respond("200 OK", "hello")
        });
        let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
        Self { backend, whole, gateway }
    }

    /// Says these frames on a connection of their own.
    #[track_caller]
    fn say(&self, frames: &[Vec<u8>]) -> End {
        self.whole.lock().unwrap().clear();
        let mut client = Client::http2(self.gateway.address());
        client.send(frames.concat());
        let Some(frames) = client.frames_of(1) else { return End::Reset };
        if frames.last().is_some_and(|frame| frame.kind == RST_STREAM) {
            return End::Reset;
        }
        let body: Vec<u8> = frames.iter().filter(|frame| frame.kind == DATA).flat_map(|f| f.payload.clone()).collect();
        if body == b"hello" {
            return End::Answered;
        }
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("a problem document");
        End::Refused(problem["status"].as_u64().unwrap())
    }

    /// No backend has seen the request whole.
    #[track_caller]
    fn refuses(&self, what: &str, frames: &[Vec<u8>]) {
        let end = self.say(frames);
        assert!(matches!(end, End::Reset | End::Refused(400)), "{what}: {end:?}");
        assert_eq!(*self.whole.lock().unwrap(), [""; 0], "{what}");
    }

    /// The request as the backend received it.
    #[track_caller]
    fn passes(&self, frames: &[Vec<u8>]) -> Received {
        assert_eq!(self.say(frames), End::Answered);
        self.backend.requests().pop().expect("a request")
    }
}

/// A GET with these instead of its pseudo-header fields of the same name, or after them.
fn with<'a>(fields: &[Field<'a>]) -> Vec<Field<'a>> {
    let mut all: Vec<Field<'a>> = GET.to_vec();
    for field in fields {
        match all.iter_mut().find(|(name, _)| *name == field.0 && name.starts_with(':')) {
            Some(present) => *present = *field,
            None => all.push(*field),
        }
    }
    all
}

fn without(name: &str) -> Vec<Field<'static>> {
    GET.into_iter().filter(|(field, _)| *field != name).collect()
}

#[test]
fn a_plain_request_is_one_line_and_its_fields() {
    let desk = Desk::open();
    let fields =
        with(&[(":path", b"/a?b=c"), ("cookie", b"a=1"), ("x", b"y"), ("cookie", b"b=2"), ("te", b"trailers")]);
    let received = desk.passes(&[request(1, &fields, true)]);
    assert_eq!(received.head.first_line(), "GET /a?b=c HTTP/1.1");
    assert_eq!(received.header("host"), Some("gateway.test"));
    assert_eq!(received.header("cookie"), Some("a=1; b=2"));
    assert_eq!(received.header("te"), None);
    assert_eq!(received.head.all("content-length").len() + received.head.all("transfer-encoding").len(), 0);
}

#[test]
fn characters_that_frame_http_1_are_in_no_field() {
    let desk = Desk::open();
    for byte in [b'\r', b'\n', b'\0', b'\x0b', b'\x7f'] {
        let text = |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        let value = text("a", "b: c");
        desk.refuses("a value", &[request(1, &with(&[("x", &value)]), true)]);
        let smuggled = text("/", " HTTP/1.1\r\nhost: a\r\n\r\nGET /smuggled");
        desk.refuses("a path", &[request(1, &with(&[(":path", &smuggled)]), true)]);
        let method = text("GET / HTTP/1.1", "x: y");
        desk.refuses("a method", &[request(1, &with(&[(":method", &method)]), true)]);
        let authority = text("a", "b");
        desk.refuses("an authority", &[request(1, &with(&[(":authority", &authority)]), true)]);
        let scheme = text("http", "x");
        desk.refuses("a scheme", &[request(1, &with(&[(":scheme", &scheme)]), true)]);
        let host = text("a", "b");
        desk.refuses("a host", &[request(1, &with(&[("host", &host)]), true)]);
        let name = String::from_utf8(text("x", "y")).unwrap();
        desk.refuses("a name", &[request(1, &with(&[(&name, b"z")]), true)]);
        let cookie = text("a=1", "b");
        desk.refuses("a cookie", &[request(1, &with(&[("cookie", &cookie)]), true)]);
    }
}

#[test]
fn names_are_lower_case_tokens() {
    let desk = Desk::open();
    for name in ["X", "Host", "Transfer-Encoding", "x y", "x:", "x: y\r\nz", "", " x", "x ", "x\t", "(x)", "\u{e9}"] {
        desk.refuses(name, &[request(1, &with(&[(name, b"y")]), true)]);
    }
}

/// RFC 9113, section 8.2.2.
#[test]
fn fields_of_a_connection_are_malformed() {
    let desk = Desk::open();
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-forwarded-for"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, chunked"),
    ] {
        desk.refuses(name, &[request(1, &with(&[(name, value.as_bytes())]), true)]);
    }
}

#[test]
fn pseudo_header_fields_are_there_once_and_first() {
    let desk = Desk::open();
    for name in [":method", ":scheme", ":path"] {
        desk.refuses(name, &[request(1, &without(name), true)]);
    }
    for (name, value) in GET {
        let mut twice = GET.to_vec();
        twice.push((name, value));
        desk.refuses(name, &[request(1, &twice, true)]);
        let mut late = without(name);
        late.extend([("x", &b"y"[..]), (name, value)]);
        desk.refuses(name, &[request(1, &late, true)]);
    }
    desk.refuses("a status", &[request(1, &with(&[(":status", b"200")]), true)]);
    desk.refuses("a protocol", &[request(1, &with(&[(":protocol", b"websocket")]), true)]);
    desk.refuses("an unknown one", &[request(1, &with(&[(":x", b"y")]), true)]);
    desk.refuses("a CONNECT", &[request(1, &with(&[(":method", b"CONNECT")]), true)]);
    let connect = [(":method", &b"CONNECT"[..]), (":authority", b"other:443")];
    desk.refuses("a CONNECT", &[request(1, &connect, false)]);
}

#[test]
fn a_target_is_a_path() {
    let desk = Desk::open();
    for path in ["", "a", "*", "a/b", "http://a/b", "/a b", "/a\tb", "/..", "/a/..;/", "/%2f", "/a\\b", "/%", "/a%00"] {
        desk.refuses(path, &[request(1, &with(&[(":path", path.as_bytes())]), true)]);
    }
    desk.refuses("no text", &[request(1, &with(&[(":path", b"/\xff")]), true)]);
    for (path, seen) in [("//a/./b", "/a/b"), ("/a#/../b", "/a"), ("/%61", "/a"), ("?a", "/?a")] {
        assert_eq!(desk.passes(&[request(1, &with(&[(":path", path.as_bytes())]), true)]).target(), seen);
    }
}

#[test]
fn one_host_is_named() {
    let desk = Desk::open();
    let seen = |fields: &[Field<'_>]| {
        let received = desk.passes(&[request(1, fields, true)]);
        received.header("host").map(str::to_owned)
    };
    assert_eq!(seen(&with(&[("host", b"gateway.test")])).as_deref(), Some("gateway.test"));
    let mut by_header = without(":authority");
    by_header.push(("host", b"only.test"));
    assert_eq!(seen(&by_header).as_deref(), Some("only.test"));
    for fields in [
        with(&[("host", b"other.test")]),
        with(&[("host", b"gateway.test"), ("host", b"gateway.test")]),
        with(&[("host", b"")]),
        without(":authority"),
        with(&[(":authority", b"")]),
        with(&[(":authority", b"user@gateway.test")]),
        with(&[(":authority", b"a/b")]),
        with(&[(":authority", b"a b")]),
        with(&[(":authority", b"a, b")]),
        with(&[(":authority", b"a:x")]),
    ] {
        desk.refuses(&format!("{fields:?}"), &[request(1, &fields, true)]);
    }
}

#[test]
fn a_length_that_is_not_that_of_the_body_makes_no_request() {
    let desk = Desk::open();
    let post = |length: &[&str]| {
        let mut fields = with(&[(":method", b"POST")]);
        fields.extend(length.iter().map(|length| ("content-length", length.as_bytes())));
        fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect::<Vec<_>>()
    };
    let say = |length: &[&str], bodies: &[&str]| {
        let fields = post(length);
        let fields: Vec<Field<'_>> = fields.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        let mut frames = vec![request(1, &fields, bodies.is_empty())];
        for (number, body) in bodies.iter().enumerate() {
            let end = u8::from(number + 1 == bodies.len());
            frames.push(frame(DATA, end, 1, body));
        }
        frames
    };
    for (length, bodies) in [
        (&["3"][..], &["ab"][..]),
        (&["3"], &["abcd"]),
        (&["3"], &["ab", "cd"]),
        (&["3"], &["ab", ""]),
        (&["3"], &[""]),
        (&["3"], &[]),
        (&["0"], &["abc"]),
        (&["3", "4"], &["abc"]),
        (&["3", "3"], &["abc"]),
        (&["3, 3"], &["abc"]),
        (&["+3"], &["abc"]),
        (&["0x3"], &["abc"]),
        (&["3 "], &["abc"]),
        (&[""], &["abc"]),
        (&["-1"], &["abc"]),
        (&["18446744073709551619"], &["abc"]),
    ] {
        desk.refuses(&format!("{length:?} {bodies:?}"), &say(length, bodies));
    }
    assert_eq!(desk.passes(&say(&["3"], &["abc"])).body, b"abc");
    assert_eq!(desk.passes(&say(&["3"], &["a", "b", "c", ""])).body, b"abc");
    let chunked = desk.passes(&say(&[], &["a", "bc"]));
    assert_eq!((&chunked.body[..], chunked.header("transfer-encoding")), (&b"abc"[..], Some("chunked")));
    eventually("cut requests are let go", || desk.backend.open() <= 1);
}

/// A GET with a body of unknown length has it at the backend, too.
#[test]
fn a_get_keeps_its_body() {
    let desk = Desk::open();
    for method in [&b"GET"[..], b"DELETE", b"OPTIONS"] {
        let fields = with(&[(":method", method)]);
        let received = desk.passes(&[request(1, &fields, false), frame(DATA, END_STREAM, 1, "abc")]);
        assert_eq!(received.body, b"abc");
    }
}

#[test]
fn trailers_are_trailers() {
    let desk = Desk::open();
    let say = |trailers: &[Field<'_>], end: u8| {
        let post = with(&[(":method", b"POST"), ("trailer", b"x-sum, x-forwarded-for, host, x_y, authorization")]);
        [request(1, &post, false), frame(DATA, 0, 1, "abc"), frame(HEADERS, END_HEADERS | end, 1, block(trailers))]
    };
    for (name, value) in
        [("connection", "close"), ("transfer-encoding", "chunked"), ("Upper", "case"), ("x", "a\r\nb"), ("te", "gzip")]
    {
        desk.refuses(name, &say(&[(name, value.as_bytes())], END_STREAM));
    }
    desk.refuses("trailers that do not end the request", &say(&[("x-sum", b"1")], 0));
    desk.refuses("a pseudo-header field behind others", &say(&[("x-sum", b"1"), (":path", b"/smuggled")], END_STREAM));
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let raw = Arc::clone(&seen);
    desk.backend.behave(move |peer, _| {
        let mut raw = raw.lock().unwrap();
        while !raw.ends_with(b"\r\n\r\n") {
            raw.extend(peer.read_raw()?);
        }
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    });
    // A pseudo-header field at their head is dropped by the HTTP library: what RFC 9113, section 8.1, calls malformed is harmless.
    let fields: [Field<'_>; 6] = [
        (":path", b"/smuggled"),
        ("x-sum", b"1"),
        ("x-forwarded-for", b"6.6.6.6"),
        ("host", b"evil"),
        ("x_y", b"z"),
        ("authorization", b"Basic x"),
    ];
    assert_eq!(desk.say(&say(&fields, END_STREAM)), End::Answered);
    assert_eq!(String::from_utf8_lossy(&seen.lock().unwrap()), "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
}

/// HTTP/1.1 has trailers only behind chunks: a length in their way is left out, where they are announced. Where they are not,
/// they are dropped, whatever the framing.
#[test]
fn a_length_does_not_cost_announced_trailers() {
    let desk = Desk::open();
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let raw = Arc::clone(&seen);
    desk.backend.behave(move |peer, received| {
        let is_chunked = received.header("transfer-encoding").is_some();
        let mut raw = raw.lock().unwrap();
        raw.clear();
        while !raw.ends_with(if is_chunked { b"\r\n\r\n" } else { b"abc" }) {
            raw.extend(peer.read_raw()?);
        }
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    });
    let say = |fields: &[Field<'_>], trailers: &[Field<'_>]| {
        let mut post = with(&[(":method", b"POST")]);
        post.extend_from_slice(fields);
        let mut frames = vec![request(1, &post, false), frame(DATA, u8::from(trailers.is_empty()), 1, "abc")];
        if !trailers.is_empty() {
            frames.push(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(trailers)));
        }
        let head = desk.passes(&frames).head;
        let framing = (head.get("content-length").map(str::to_owned), head.get("transfer-encoding").map(str::to_owned));
        (framing, String::from_utf8(seen.lock().unwrap().clone()).unwrap())
    };
    let (length, trailer, sum) = (("content-length", &b"3"[..]), ("trailer", &b"x-sum"[..]), ("x-sum", &b"1"[..]));
    let chunked = || (None, Some("chunked".to_owned()));
    let of_length = || (Some("3".to_owned()), None);
    assert_eq!(say(&[length, trailer], &[sum]), (chunked(), "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n".to_owned()));
    assert_eq!(say(&[length, trailer], &[]), (chunked(), "3\r\nabc\r\n0\r\n\r\n".to_owned()));
    assert_eq!(say(&[trailer], &[sum]), (chunked(), "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n".to_owned()));
    assert_eq!(say(&[length], &[sum]), (of_length(), "abc".to_owned()));
    assert_eq!(say(&[], &[sum]), (chunked(), "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n".to_owned()));
    assert_eq!(desk.backend.connections(), 1, "it goes on after trailers");
    // One that is wrong is still wrong.
    desk.refuses(
        "a length that is not that of the body",
        &[
            request(1, &with(&[(":method", b"POST"), ("content-length", b"4"), trailer]), false),
            frame(DATA, 0, 1, "abc"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&[sum])),
        ],
    );
}

#[test]
fn a_stream_that_is_reset_in_its_body_is_cut_for_the_backend() {
    let desk = Desk::open();
    let mut client = Client::http2(desk.gateway.address());
    let post = with(&[(":method", b"POST")]);
    client.send(request(1, &post, false)).send(frame(DATA, 0, 1, "abc"));
    eventually("the backend has a piece", || desk.backend.requests().iter().any(|request| request.body == b"abc"));
    client.send(frame(RST_STREAM, 0, 1, 8_u32.to_be_bytes()));
    eventually("the backend is let go", || desk.backend.open() == 0);
    assert_eq!(*desk.whole.lock().unwrap(), [""; 0]);
    client.send(request(3, &GET, true));
    assert!(client.frames_of(3).expect("an answer").iter().any(|frame| frame.payload == b"hello"));
}
