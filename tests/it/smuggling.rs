//! Nothing is forwarded that was not understood, and no byte is taken for a request that is none.

use std::sync::{Arc, Mutex};

use crate::support::{Backend, Client, Gateway, Received, eventually, route};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// It is answered with this status and the connection is closed; no backend sees it whole.
    Refused(u16),
    /// It reaches the backend with this target and body; the connection is closed after it.
    Last(&'static str, &'static str),
    /// It reaches the backend with this target and body; what follows is the next request.
    Kept(&'static str, &'static str),
}

use Verdict::{Kept, Last, Refused};

const REFUSED: Verdict = Refused(400);

/// A backend that notes each request that it received whole, and a gateway before it.
struct Desk {
    backend: Backend,
    whole: Arc<Mutex<Vec<Received>>>,
    gateway: Gateway,
}

impl Desk {
    fn open() -> Self {
        let whole = Arc::<Mutex<Vec<Received>>>::default();
        let notes = Arc::clone(&whole);
        let backend = Backend::scripted(move |peer, request| {
            peer.read_body()?;
            notes.lock().unwrap().push(request.clone());
            peer.respond("200 OK", request.target())
        });
        let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
        Self { backend, whole, gateway }
    }

    /// Says the request and, in the same breath, another.
    #[track_caller]
    fn judge(&self, request: &[u8], verdict: Verdict) {
        let shown = String::from_utf8_lossy(request);
        let before = self.backend.hits();
        self.whole.lock().unwrap().clear();
        let mut client = self.gateway.connect();
        client.send([request, b"GET /smuggled HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"].concat());
        if let Refused(_) = verdict {
            client.finish();
        }
        let said = client.rest();
        let answers = said.matches("HTTP/1.1 ").count() + said.matches("HTTP/1.0 ").count();
        let targets = || self.whole.lock().unwrap().iter().map(|seen| seen.target().to_owned()).collect::<Vec<_>>();
        let seen = || self.backend.requests().into_iter().skip(before).collect::<Vec<_>>();
        match verdict {
            Refused(status) => {
                assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?} -> {said:?}");
                assert_eq!(answers, 1, "{shown:?} -> {said:?}");
                assert_eq!(targets(), [""; 0], "{shown:?}");
            }
            Last(target, _) => {
                let is_last = said.contains("connection: close") || said.starts_with("HTTP/1.0 ");
                assert!(is_last, "{shown:?} -> {said:?}");
                assert_eq!(answers, 1, "{shown:?} -> {said:?}");
                assert_eq!(targets(), [target], "{shown:?} -> {said:?}");
            }
            Kept(target, _) => {
                assert_eq!(answers, 2, "{shown:?} -> {said:?}");
                assert_eq!(targets(), [target, "/smuggled"], "{shown:?} -> {said:?}");
            }
        }
        if let Last(_, body) | Kept(_, body) = verdict {
            let first = seen().swap_remove(0);
            assert_eq!(String::from_utf8_lossy(&first.body), body, "{shown:?}");
            assert_well_formed(&first);
        }
        assert!(seen().iter().all(|seen| seen.head.text.matches("/smuggled").count() <= 1), "{shown:?}");
    }

    #[track_caller]
    fn judge_all(&self, rows: &[(&str, Verdict)]) {
        for (request, verdict) in rows {
            self.judge(request.as_bytes(), *verdict);
        }
    }

    /// Judges heads that consist of a good start and these fields.
    #[track_caller]
    fn judge_fields(&self, rows: &[(&str, Verdict)]) {
        for (fields, verdict) in rows {
            self.judge(
                format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n").as_bytes(),
                *verdict,
            );
        }
    }
}

/// One length at most, and nothing that could be read as two lines or as no line.
#[track_caller]
fn assert_well_formed(request: &Received) {
    let head = &request.head;
    assert!(head.all("content-length").len() + head.all("transfer-encoding").len() <= 1, "{request:?}");
    assert_eq!(head.all("host").len(), 1, "{request:?}");
    let lines = head.text.strip_suffix("\r\n\r\n").expect("its end").split("\r\n").skip(1);
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} in {request:?}"));
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&b);
        assert!(!name.is_empty() && name.bytes().all(is_token), "{line:?}");
        assert!(!value.contains(['\r', '\n', '\0']), "{line:?}");
    }
}

/// RFC 9112, section 6.3: a length beside a coding may be refused, or it is removed and the connection closed.
#[test]
fn of_two_framings_one_is_forwarded_and_nothing_after_it() {
    let chunks = Last("/", "abc");
    Desk::open().judge_fields(&[
        ("content-length: 4\r\ntransfer-encoding: chunked", chunks),
        ("transfer-encoding: chunked\r\ncontent-length: 0", chunks),
        ("transfer-encoding: chunked\r\ncontent-length: 99", chunks),
        ("transfer-encoding: chunked\r\ncontent-length: 5\r\ncontent-length: 6", chunks),
        ("content-length: 5\r\ncontent-length: 6\r\ntransfer-encoding: chunked", REFUSED),
        ("content-length: 5\r\ntransfer-encoding: identity", REFUSED),
        ("content-length: 5\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity", REFUSED),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", REFUSED),
        ("transfer-encoding: identity\r\ntransfer-encoding: chunked", REFUSED),
    ]);
}

#[test]
fn a_length_is_one_number_in_digits() {
    let three = Kept("/", "abc");
    let desk = Desk::open();
    let judge = |fields: &str, verdict| {
        desk.judge(format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\nabc").as_bytes(), verdict);
    };
    for (length, verdict) in [
        ("3", three),
        ("  3 \t", three),
        ("003", three),
        ("+3", REFUSED),
        ("-3", REFUSED),
        ("0x3", REFUSED),
        ("3a", REFUSED),
        ("3 3", REFUSED),
        ("3.0", REFUSED),
        ("3e0", REFUSED),
        ("3,", REFUSED),
        ("3, 3", REFUSED),
        ("3;3", REFUSED),
        ("\u{ff13}", REFUSED),
        ("", REFUSED),
        (" ", REFUSED),
        ("18446744073709551619", REFUSED),
        ("99999999999999999999999", REFUSED),
    ] {
        judge(&format!("content-length: {length}"), verdict);
    }
    // Two that agree are one (RFC 9110, section 8.6), and nothing after it is read.
    let last = Last("/", "abc");
    judge("content-length: 3\r\ncontent-length: 3", last);
    judge("content-length: 3\r\nx: y\r\nCONTENT-LENGTH: 3", last);
    judge("content-length: 3\r\ncontent-length: 4", REFUSED);
    judge("content-length: 3\r\ncontent-length:", REFUSED);
    judge("Content-Length: 3\r\nCONTENT-LENGTH: 33", REFUSED);
    judge("content-length : 3", REFUSED);
    judge("content-length\t: 3", REFUSED);
    judge("content_length: 99\r\ncontent-length: 3", three);
    judge("content-length:\r\n 3", REFUSED);
    judge("content-length: 3\r\n 3", REFUSED);
    judge("\tcontent-length: 3", REFUSED);
    judge("content-length: 3\r\nconnection: content-length", three);
}

#[test]
fn the_only_coding_is_chunked_written_plainly() {
    let chunks = Kept("/", "abc");
    Desk::open().judge_fields(&[
        ("transfer-encoding: chunked", chunks),
        ("Transfer-Encoding:chunked", chunks),
        ("transfer-encoding: CHUNKED", chunks),
        ("transfer-encoding: \t chunked \t", chunks),
        ("transfer-encoding: identity", REFUSED),
        ("transfer-encoding: gzip", REFUSED),
        ("transfer-encoding: gzip, chunked", REFUSED),
        ("transfer-encoding: chunked, gzip", REFUSED),
        ("transfer-encoding: chunked, chunked", REFUSED),
        ("transfer-encoding: chunked, identity", REFUSED),
        ("transfer-encoding: , chunked", REFUSED),
        ("transfer-encoding: chunked,", REFUSED),
        ("transfer-encoding: chunked;q=1", REFUSED),
        ("transfer-encoding: xchunked", REFUSED),
        ("transfer-encoding: \"chunked\"", REFUSED),
        ("transfer-encoding: chunked\u{b}", REFUSED),
        ("transfer-encoding: \u{b}chunked", REFUSED),
        ("transfer-encoding: \u{c}chunked", REFUSED),
        ("transfer-encoding: chunked\0", REFUSED),
        ("transfer-encoding: ch\u{fffd}nked", REFUSED),
        ("transfer-encoding:", REFUSED),
        ("transfer-encoding : chunked", REFUSED),
        ("transfer-encoding\t: chunked", REFUSED),
        (" transfer-encoding: chunked", REFUSED),
        ("transfer-encoding:\r\n chunked", REFUSED),
        ("transfer-encoding: chunked\r\n , gzip", REFUSED),
        ("x: y\r\n transfer-encoding: chunked", REFUSED),
        ("x: y\rtransfer-encoding: chunked", REFUSED),
        ("transfer\u{b}encoding: chunked", REFUSED),
    ]);
}

#[test]
fn a_head_is_read_one_way() {
    Desk::open().judge_all(&[
        // A folded line, blanks around a name, a name that is none, a lone carriage return, a NUL.
        ("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c: d\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n\tc\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\n host: a\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx y: b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx(y): b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\n\u{e9}: b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx\0: b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\u{7f}c\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\u{1b}c\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\rcontent-length: 3\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\rhost: a\r\r", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\n\rGET / HTTP/1.1\r\n\r\n", REFUSED),
        // The first line.
        ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET /  HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET\t/\tHTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1 \r\nhost: a\r\n\r\n", REFUSED),
        ("GET / a HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        (" GET / HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("G\0T / HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET /\r HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET:/ HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / http/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/1.2\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/0.9\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1x\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/01.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\n\r\n", REFUSED),
        ("GET /\r\n", REFUSED),
        ("GET /\r\n\r\n", REFUSED),
        ("\u{16}\u{3}\u{1}", REFUSED),
        // Methods are case-sensitive, and which there are is the backend's to know.
        ("get / HTTP/1.1\r\nhost: a\r\n\r\n", Kept("/", "")),
        ("PROPFIND / HTTP/1.1\r\nhost: a\r\n\r\n", Kept("/", "")),
        // Empty lines before a request (RFC 9112, section 2.2), and bytes beyond ASCII in a value, are harmless.
        ("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Kept("/", "")),
        ("GET / HTTP/1.1\r\nhost: a\r\nx-a: \u{e9}\r\n\r\n", Kept("/", "")),
    ]);
}

/// A lone line feed may end a line (RFC 9112, section 2.2), and so it does; the backend sees none, and nothing after it is read.
#[test]
fn a_lone_line_feed_ends_a_line_and_is_not_passed_on() {
    Desk::open().judge_all(&[
        ("GET / HTTP/1.1\nhost: a\n\n", Last("/", "")),
        ("POST / HTTP/1.1\nhost: a\ncontent-length: 3\n\nabc", Last("/", "abc")),
        ("POST / HTTP/1.1\r\nhost: a\r\nx: y\ncontent-length: 3\r\n\r\nabc", Last("/", "abc")),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\na\n\n", Kept("/", "a\n\n")),
        ("POST / HTTP/1.1\r\nhost: a\r\nx: y\ntransfer-encoding: gzip\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: y\nhost: b\r\n\r\n", REFUSED),
    ]);
}

#[test]
fn a_host_is_one_and_is_one() {
    let here = Kept("/", "");
    Desk::open().judge_all(&[
        ("GET / HTTP/1.1\r\nhost: a:80\r\n\r\n", here),
        ("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", here),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a?b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a#b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a\\b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a%2eb\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a:b\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a:99999\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: a:80:80\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: [::1\r\n\r\n", REFUSED),
        ("GET / HTTP/1.1\r\nhost: \u{e9}\r\n\r\n", REFUSED),
        // The target wins, and the header is made to agree with it (RFC 9112, section 3.2.2).
        ("GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n", here),
        ("GET http://a/ HTTP/1.1\r\n\r\n", REFUSED),
        ("GET http://u:p@a/ HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET http:///a HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET http://a:99999/ HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET //b/ HTTP/1.1\r\nhost: a\r\n\r\n", Kept("/b/", "")),
        ("GET @b/ HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("GET b:80 HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED),
        ("CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n", REFUSED),
    ]);
}

#[test]
fn a_target_is_a_path_that_all_read_alike() {
    let desk = Desk::open();
    for target in [
        "a",
        "*",
        "/..",
        "/a/../../b",
        "/%2e%2e/",
        "/a/..;/b",
        "/a/.;x/b",
        "/a/%2e%2e;/b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a%00b",
        "/%",
        "/%a",
        "/%zz",
        "/a%+1",
        "/%u002e",
        "?a",
        "#a",
    ] {
        desk.judge(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes(), REFUSED);
    }
    for (target, seen) in [
        ("//a///b", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/%61%2D%7e", "/a-~"),
        ("/a/%2e%2E/b", "/b"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/a?b=/../%2f\\#", "/a?b=/../%2f\\"),
        ("/a#/../b", "/a"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/caf%c3%a9/%ff", "/caf%C3%A9/%FF"),
        ("/a%20b|{}", "/a%20b%7C%7B%7D"),
    ] {
        desk.judge(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes(), Kept(seen, ""));
    }
    // No text at all.
    desk.judge(b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED);
    desk.judge(b"GET /\xc0\xae\xc0\xae/a HTTP/1.1\r\nhost: a\r\n\r\n", REFUSED);
}

#[test]
fn old_versions_are_read_as_they_are() {
    Desk::open().judge_all(&[
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", Last("/", "")),
        ("POST / HTTP/1.0\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", Last("/", "abc")),
        ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", REFUSED),
        ("POST / HTTP/1.0\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", REFUSED),
    ]);
}

#[test]
fn a_body_belongs_to_its_request_whatever_the_method() {
    let desk = Desk::open();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PURGE"] {
        let length = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
        desk.judge(length.as_bytes(), Kept("/", "abc"));
        let chunks =
            format!("{method} / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        desk.judge(chunks.as_bytes(), Kept("/", "abc"));
    }
}

/// Bad chunks come when the request may be under way already: it must never end, for the backend, as if all were well.
#[test]
fn bad_chunks_never_make_a_whole_request() {
    let desk = Desk::open();
    let judge = |chunks: &str, verdict| {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        desk.judge([head, chunks].concat().as_bytes(), verdict);
    };
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3_\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nx y: z\r\n\r\n",
        "3\r\nabc\r\n0\r\n: z\r\n\r\n",
        "3\r\nabc\r\n0\r\n x: z\r\n\r\n",
        "3\r\nabc\r\n0\r\nx: y\0z\r\n\r\n",
        "3\r\nabc\r\n0\r\nGET /trailer HTTP/1.1\r\n\r\n",
    ] {
        judge(chunks, REFUSED);
    }
    // Extensions mean nothing to anybody, and go.
    judge("3;name=value\r\nabc\r\n0;last\r\n\r\n", Kept("/", "abc"));
    judge("3 \t;name=\"a;b\"\r\nabc\r\n00\r\n\r\n", Kept("/", "abc"));
    judge("000003\r\nabc\r\n0\r\n\r\n", Kept("/", "abc"));
    // hyper and its parser of fields do not agree where trailers end, so nothing comes after them.
    judge("1\r\na\r\n2\r\nbc\r\n0\r\nx: y\r\n\r\n", Last("/", "abc"));
    judge("3\r\nabc\r\n0\r\nx: y\n\nGET /swallowed HTTP/1.1\r\nhost: a\r\n\r\n", Last("/", "abc"));
    judge("3\r\nabc\r\n0\r\n\nGET /swallowed HTTP/1.1\r\nhost: a\r\n\r\n", Last("/", "abc"));
    // Too much of them is refused.
    judge(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000)), REFUSED);
    judge(&format!("3\r\nabc\r\n0\r\n{}\r\n", "x: y\r\n".repeat(20_000)), REFUSED);
    eventually("the backend is let go", || desk.backend.open() <= 1);
}

/// Bytes that come after an error are no request, whatever they look like, and none that came before is lost.
#[test]
fn after_an_error_nothing_more_is_read() {
    let desk = Desk::open();
    let mut client = desk.gateway.connect();
    client.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3\r\n\r\nGET /4 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
    let rest = client.rest();
    assert!(rest.starts_with("HTTP/1.1 400 ") && rest.matches("HTTP/1.1 ").count() == 1, "{rest}");
    assert_eq!(desk.backend.hits(), 2);
}

/// A body that nobody read is no request, however it looks.
#[test]
fn what_follows_an_early_answer_is_not_taken_for_a_request() {
    let backend = Backend::scripted(|peer, request| match request.target() {
        "/early" => {
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly")?;
            peer.wait_for_close()
        }
        _ => peer.respond("200 OK", "other"),
    });
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (route_fields, path, status) in [("", "/early", 200), ("max_body: 10B", "/", 413), ("", "/a%00", 400)] {
        let gateway = Gateway::start(route(&[backend.address()], route_fields));
        for head in
            ["content-length: 1000", "transfer-encoding: chunked", "expect: 100-continue\r\ncontent-length: 1000"]
        {
            let mut client = gateway.connect();
            client.send(format!("POST {path} HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n3e8\r\n{smuggled}"));
            client.send(smuggled.repeat(10));
            let said = client.rest();
            let said = said.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {head} -> {said}");
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{path} {head} -> {said}");
        }
    }
    assert!(backend.requests().iter().all(|request| request.target() != "/smuggled"));
}

#[test]
fn requests_in_one_piece_are_answered_one_by_one() {
    let backend = Backend::scripted(|peer, request| peer.respond("200 OK", request.target()));
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    client.send(
        "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nhost: a\r\n\r\n\
         POST /3 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    for expected in ["/1", "/2", "/3", "/4"] {
        assert_eq!(client.response().text(), expected);
    }
    let seen: Vec<_> = backend.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(seen, ["/1", "/2", "/3", "/4"]);
}

/// A client may send ahead, and heads may come in any pieces.
#[test]
fn plain_requests_that_were_sent_ahead_are_all_answered() {
    let desk = Desk::open();
    let request = |number| format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n");
    let all: String = (0..120).map(request).collect();
    for piece in [1, 35, 36, 100, 1_000] {
        let mut client = desk.gateway.connect();
        for piece in all.as_bytes().chunks(piece) {
            client.send(piece);
        }
        for number in 0..120 {
            let response = client.response();
            assert_eq!(
                (response.text(), response.header("connection")),
                (format!("/{number}").as_str(), None),
                "{piece}"
            );
        }
    }
}

#[test]
fn an_odd_request_that_was_sent_ahead_is_the_last() {
    let desk = Desk::open();
    let odd = [
        "GET /odd HTTP/1.1\nHost: h\n\n",
        "GET /odd HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
    ];
    let before = [
        "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\n\r\n\na\n",
        "POST /1 HTTP/1.1\r\nHost: h\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\n\na\n\r\n0\r\n\r\n",
    ];
    for (odd, before) in odd.iter().flat_map(|odd| before.iter().map(move |before| (odd, before))) {
        let all = format!("{before}{odd}GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
        for piece in [all.len(), 11] {
            desk.whole.lock().unwrap().clear();
            let mut client = desk.gateway.connect();
            for piece in all.as_bytes().chunks(piece) {
                client.send(piece);
            }
            assert_eq!(client.response().header("connection"), None, "{all:?}");
            let last = client.response();
            assert_eq!((last.text(), last.header("connection")), ("/odd", Some("close")), "{all:?}");
            assert_eq!(client.rest(), "");
            let seen: Vec<String> = desk.whole.lock().unwrap().iter().map(|seen| seen.target().to_owned()).collect();
            assert_eq!(seen, ["/1", "/odd"], "{all:?}");
        }
    }
}

#[test]
fn bytes_after_a_body_are_a_request_of_their_own_or_nothing() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcdefg\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
    assert!(client.rest().starts_with("HTTP/1.1 400 "));
    assert_eq!(backend.request().body, b"abc");
}

#[test]
fn a_backend_that_says_more_than_its_response_does_not_answer_the_next_request() {
    let backend = Backend::scripted(|peer, request| match request.target() {
        "/1" => peer
            .write("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\noneHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
        _ => peer.respond("200 OK", "two"),
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
    assert_eq!(gateway.get("/1").text(), "one");
    for _ in 0..3 {
        assert_eq!(gateway.get("/2").text(), "two");
    }
}

#[test]
fn a_response_with_two_framings_is_not_forwarded() {
    for head in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip\r\n",
        "content-length: x\r\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n3\r\nabc\r\n0\r\n\r\n");
        let backend = Backend::scripted(move |peer, _| {
            peer.write(&text)?;
            peer.close()
        });
        let gateway = Gateway::start(route(&[backend.address()], ""));
        let mut client: Client = gateway.connect();
        let response = client.get("/");
        let is_one_message =
            response.head.all("content-length").len() + response.head.all("transfer-encoding").len() <= 1;
        assert!(is_one_message, "{head:?} -> {response:?}");
    }
}

/// A response whose framing is in doubt is no response; one with a needless length is passed on by its chunks.
#[test]
fn a_response_ends_where_it_says_and_says_so_in_one_way() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    for length in [5, 100] {
        backend.behave(move |peer, _| {
            peer.write(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"
            ))
        });
        let response = gateway.get("/");
        assert_eq!((response.status(), response.text(), response.is_whole), (200, "0123456789", true), "{length}");
        assert_eq!(response.header("content-length"), None);
    }
    for framing in ["transfer-encoding: gzip, chunked", "transfer-encoding: gzip", "content-length: 5, 5"] {
        backend.behave(move |peer, _| {
            peer.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"))?;
            peer.close()
        });
        assert_eq!(gateway.get("/").fault(), (502, "bad_response".to_owned()), "{framing}");
    }
}

#[test]
fn a_body_of_bad_chunks_is_the_clients_mistake() {
    let backend = Backend::scripted(|peer, _| peer.read_body());
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let response = gateway.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n-3\r\n");
    assert_eq!(response.status(), 400);
}

/// To programs behind CGI and WSGI an underscore is a hyphen.
#[test]
fn no_alias_of_a_forwarding_field_reaches_a_backend() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    gateway.send("GET / HTTP/1.1\r\nhost: a\r\nX_Forwarded_For: 6.6.6.6\r\nx_request_id: me\r\n\r\n");
    let text = backend.request().head.text;
    assert!(!text.contains("6.6.6.6") && !text.contains('_'), "{text}");
}
