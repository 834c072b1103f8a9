//! What RFC 9113 says of each thing that a client may get wrong: the error is the one that it names, no backend hears of it,
//! and nobody beside it notices.

use std::{io::Write as _, thread};

use crate::support::{
    Backend, Client, Gate, Gateway,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, frame, request,
    },
    route,
};

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 0x20;

// Error codes (section 7).
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// What becomes of a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// A stream ends with this code; others on its connection go on.
    Stream(u32),
    /// The connection ends with this code.
    Connection(u32),
    /// The request is answered, with this status where it is 200 or 400.
    Answered(u16),
    /// Nothing: what was said is passed over.
    Nothing,
}
use End::{Answered, Connection, Nothing, Stream};

struct Desk {
    backend: Backend,
    gateway: Gateway,
    bystander: Client,
    asked: u32,
}

/// A stream on which clients ask whether the gateway still listens.
const AFTER: u32 = 101;

fn after(stream: u32) -> Vec<u8> {
    let mut fields = GET;
    fields[3].1 = b"/after";
    request(stream, &fields, true)
}

impl Desk {
    fn open() -> Self {
        let backend = Backend::start();
        let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "")));
        let bystander = Client::http2(gateway.address());
        Self { backend, gateway, bystander, asked: 1 }
    }

    fn say(&self, frames: &[Vec<u8>]) -> End {
        let mut client = Client::http2(self.gateway.address());
        client.send(frames.concat());
        client.send(after(AFTER));
        let mut end = None;
        loop {
            let Some(frame) = client.frame() else { return end.unwrap_or(Connection(NO_ERROR)) };
            let code = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match (frame.kind, frame.stream) {
                (GOAWAY, _) if code(4) != NO_ERROR => return Connection(code(4)),
                (HEADERS, AFTER) => return end.unwrap_or(Nothing),
                (RST_STREAM, _) => end = end.or(Some(Stream(code(0)))),
                (HEADERS, _) => {
                    let status = match frame.payload.first() {
                        Some(0x88) => 200,
                        Some(0x8c) => 400,
                        _ => 0,
                    };
                    end = end.or(Some(Answered(status)));
                }
                _ => {}
            }
        }
    }

    /// The backend's requests but for those that ask whether the gateway still listens.
    fn forwarded(&self) -> Vec<String> {
        let requests = self.backend.requests();
        requests.iter().map(|r| r.target().to_owned()).filter(|target| target != "/after").collect()
    }

    /// This ends as it should, and nothing of it is forwarded. Two licences are taken: the error of a stream may be that of its
    /// connection (section 5.4.1), and `PROTOCOL_ERROR`, which is the one for what has no better name, stands for any: the
    /// library has no other for a frame that it cannot load.
    #[track_caller]
    fn judges(&mut self, what: &str, frames: &[Vec<u8>], right: &[End]) {
        let end = self.say(frames);
        let is_error = right.iter().any(|end| matches!(end, Stream(_) | Connection(_)));
        let is_licensed = is_error && end == Connection(PROTOCOL_ERROR);
        assert!(right.contains(&end) || is_licensed, "{what}: {end:?} is none of {right:?}");
        assert_eq!(self.forwarded(), [""; 0], "{what}");
        let stream = self.asked;
        self.asked += 2;
        let frames = self.bystander.send(after(stream)).frames_of(stream).expect("the bystander's connection goes on");
        assert!(frames.iter().any(|frame| frame.payload == b"hello"), "{what}");
    }
}

/// A GET as a block of fields, with these instead of its own of the same name or behind them.
fn get(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = GET.to_vec();
    all.extend_from_slice(fields);
    block(&all)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn update(by: u32) -> [u8; 4] {
    by.to_be_bytes()
}

/// A request whose end has not come.
fn unfinished() -> Vec<u8> {
    let mut fields = GET;
    fields[0].1 = b"POST";
    // Nobody takes it: what is looked at is what becomes of its stream.
    fields[3].1 = b"/a%00";
    request(1, &fields, false)
}

#[test]
fn sizes_of_frames() {
    let mut desk = Desk::open();
    let wrong = [Connection(FRAME_SIZE_ERROR)];
    desk.judges("settings of 5 bytes", &[frame(SETTINGS, 0, 0, [0; 5])], &wrong);
    desk.judges("settings of 7 bytes", &[frame(SETTINGS, 0, 0, [0; 7])], &wrong);
    desk.judges("an acknowledgement with settings", &[frame(SETTINGS, ACK, 0, setting(1, 0))], &wrong);
    desk.judges("a ping of 7 bytes", &[frame(PING, 0, 0, [0; 7])], &wrong);
    desk.judges("a ping of 9 bytes", &[frame(PING, 0, 0, [0; 9])], &wrong);
    desk.judges("a window of 3 bytes", &[frame(WINDOW_UPDATE, 0, 0, [0; 3])], &wrong);
    desk.judges("a window of 5 bytes", &[frame(WINDOW_UPDATE, 0, 0, [0; 5])], &wrong);
    desk.judges("a reset of 3 bytes", &[unfinished(), frame(RST_STREAM, 0, 1, [0; 3])], &wrong);
    desk.judges("a reset of 5 bytes", &[unfinished(), frame(RST_STREAM, 0, 1, [0; 5])], &wrong);
    desk.judges("a goodbye of 7 bytes", &[frame(GOAWAY, 0, 0, [0; 7])], &wrong);
    desk.judges("a priority of 4 bytes", &[frame(PRIORITY, 0, 1, [0; 4])], &[Stream(FRAME_SIZE_ERROR), wrong[0]]);
    desk.judges("a piece of 16385 bytes", &[unfinished(), frame(DATA, 0, 1, vec![0; 16_385])], &wrong);
    desk.judges("a head of 16385 bytes", &[frame(HEADERS, END_HEADERS, 1, vec![0; 16_385])], &wrong);
    desk.judges("settings of 18000 bytes", &[frame(SETTINGS, 0, 0, vec![0; 18_000])], &wrong);
    desk.judges("something unknown of 16385 bytes", &[frame(0xfe, 0, 0, vec![0; 16_385])], &wrong);
}

#[test]
fn frames_on_the_wrong_stream() {
    let mut desk = Desk::open();
    let wrong = [Connection(PROTOCOL_ERROR)];
    desk.judges("data on 0", &[frame(DATA, END_STREAM, 0, "abc")], &wrong);
    desk.judges(
        "data on one that is idle",
        &[frame(DATA, END_STREAM, 1, "abc")],
        &[wrong[0], Connection(STREAM_CLOSED)],
    );
    desk.judges("a head on 0", &[frame(HEADERS, END_HEADERS | END_STREAM, 0, get(&[]))], &wrong);
    desk.judges("a head on one of the server's", &[frame(HEADERS, END_HEADERS | END_STREAM, 2, get(&[]))], &wrong);
    desk.judges("a priority on 0", &[frame(PRIORITY, 0, 0, [0; 5])], &wrong);
    desk.judges("a reset on 0", &[frame(RST_STREAM, 0, 0, [0; 4])], &wrong);
    desk.judges("a reset of one that is idle", &[frame(RST_STREAM, 0, 1, [0; 4])], &wrong);
    desk.judges("settings on 1", &[frame(SETTINGS, 0, 1, [])], &wrong);
    desk.judges("a ping on 1", &[frame(PING, 0, 1, [0; 8])], &wrong);
    desk.judges("a goodbye on 1", &[frame(GOAWAY, 0, 1, [0; 8])], &wrong);
    desk.judges("a window on one that is idle", &[frame(WINDOW_UPDATE, 0, 1, update(1))], &wrong);
    desk.judges("a rest on 0", &[frame(CONTINUATION, END_HEADERS, 0, get(&[]))], &wrong);
    desk.judges(
        "a number that was passed over",
        &[after(5), frame(HEADERS, END_HEADERS | END_STREAM, 3, get(&[]))],
        &[wrong[0], Connection(STREAM_CLOSED)],
    );
    let promise = [&2_u32.to_be_bytes()[..], &get(&[])].concat();
    desk.judges("a promise of a client", &[after(1), frame(PUSH_PROMISE, END_HEADERS, 1, promise)], &wrong);
}

#[test]
fn heads_in_pieces() {
    let mut desk = Desk::open();
    let wrong = [Connection(PROTOCOL_ERROR)];
    let begun = || frame(HEADERS, END_STREAM, 1, get(&[]));
    desk.judges("a rest of nothing", &[frame(CONTINUATION, END_HEADERS, 1, get(&[]))], &wrong);
    desk.judges("a rest behind the end", &[unfinished(), frame(CONTINUATION, END_HEADERS, 1, block(&[]))], &wrong);
    desk.judges("a rest of another's", &[begun(), frame(CONTINUATION, END_HEADERS, 3, block(&[]))], &wrong);
    desk.judges("a ping between", &[begun(), frame(PING, 0, 0, [0; 8])], &wrong);
    desk.judges("another head between", &[begun(), request(3, &GET, true)], &wrong);
    desk.judges("something unknown between", &[begun(), frame(0xfe, 0, 1, "x")], &wrong);
    desk.judges("data between", &[frame(HEADERS, 0, 1, get(&[])), frame(DATA, END_STREAM, 1, "abc")], &wrong);
}

#[test]
fn settings_and_windows() {
    let mut desk = Desk::open();
    let (wrong, overflow) = ([Connection(PROTOCOL_ERROR)], [Connection(FLOW_CONTROL_ERROR)]);
    let set = |id: u16, value: u32| [frame(SETTINGS, 0, 0, setting(id, value))];
    desk.judges("push is neither on nor off", &set(2, 2), &wrong);
    desk.judges("a window of 2 GiB", &set(4, 1 << 31), &overflow);
    desk.judges("frames of 16383 bytes", &set(5, 16_383), &wrong);
    desk.judges("frames of 16 MiB", &set(5, 1 << 24), &wrong);
    desk.judges("a window by nothing", &[frame(WINDOW_UPDATE, 0, 0, update(0))], &wrong);
    desk.judges("a window above 2 GiB", &[frame(WINDOW_UPDATE, 0, 0, update(0x7fff_ffff))], &overflow);
    desk.judges(
        "a stream's window by nothing",
        &[unfinished(), frame(WINDOW_UPDATE, 0, 1, update(0))],
        &[Stream(PROTOCOL_ERROR), wrong[0]],
    );
    desk.judges(
        "a stream's window above 2 GiB",
        &[unfinished(), frame(WINDOW_UPDATE, 0, 1, update(0x7fff_ffff))],
        &[Stream(FLOW_CONTROL_ERROR), overflow[0]],
    );
}

#[test]
fn padding_and_priorities() {
    let mut desk = Desk::open();
    let wrong = [Connection(PROTOCOL_ERROR)];
    let padded = |padding: u8, bytes: &[u8]| [&[padding], bytes].concat();
    let flags = END_HEADERS | END_STREAM;
    desk.judges("data that is all padding", &[unfinished(), frame(DATA, PADDED, 1, padded(4, b"abc"))], &wrong);
    desk.judges(
        "data without its padding",
        &[unfinished(), frame(DATA, PADDED, 1, [])],
        &[wrong[0], Connection(FRAME_SIZE_ERROR)],
    );
    desk.judges("a head that is all padding", &[frame(HEADERS, flags | PADDED, 1, padded(255, &get(&[])))], &wrong);
    let priority = |on: u32| [&on.to_be_bytes()[..], &[15]].concat();
    let on_itself = [Stream(PROTOCOL_ERROR), wrong[0]];
    desk.judges(
        "a stream that depends on itself",
        &[frame(PRIORITY, 0, 1, priority(1))],
        &[on_itself[0], on_itself[1], Nothing],
    );
    let head = [priority(1), get(&[])].concat();
    desk.judges("a head that depends on itself", &[frame(HEADERS, flags | PRIORITISED, 1, head)], &on_itself);
    desk.judges(
        "a head without its priority",
        &[frame(HEADERS, flags | PRIORITISED, 1, [0; 3])],
        &[wrong[0], Connection(FRAME_SIZE_ERROR)],
    );
}

#[test]
fn compression() {
    let mut desk = Desk::open();
    let wrong = [Connection(COMPRESSION_ERROR)];
    let head = |block: &[u8]| [frame(HEADERS, END_HEADERS | END_STREAM, 1, block)];
    desk.judges("the field of number 0", &head(&[0x80]), &wrong);
    desk.judges("a field that is in no table", &head(&[0xff, 0x20]), &wrong);
    desk.judges("a number without end", &head(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), &wrong);
    desk.judges("half a field", &head(&[0x10, 0x05, b'x']), &wrong);
    desk.judges("a table of 1 MiB", &head(&[0x3f, 0xe1, 0xff, 0x3f]), &wrong);
    desk.judges("a table that changes behind a field", &head(&[0x82, 0x20]), &wrong);
    desk.judges("a text that is coded wrongly", &head(&[0x10, 0x81, 0x00, 0x01, b'x']), &wrong);
}

/// Section 8.1.1: a stream error, or an answer that says so.
#[test]
fn requests_that_are_malformed() {
    let mut desk = Desk::open();
    let wrong = [Stream(PROTOCOL_ERROR), Answered(400)];
    let head = |fields: &[(&str, &[u8])]| [request(1, fields, true)];
    let more = |name, value| [frame(HEADERS, END_HEADERS | END_STREAM, 1, get(&[(name, value)]))];
    for (name, value) in [
        ("Upper", &b"x"[..]),
        ("a b", b"x"),
        ("x", b"a\r\nb"),
        ("x", b"a\0b"),
        ("connection", b"close"),
        ("keep-alive", b"1"),
        ("proxy-connection", b"x"),
        ("transfer-encoding", b"chunked"),
        ("upgrade", b"h2c"),
        ("te", b"gzip"),
        (":path", b"/twice"),
        (":method", b"POST"),
        (":scheme", b"https"),
        (":authority", b"other"),
        (":status", b"200"),
        (":unknown", b"x"),
        ("content-length", b"3"),
    ] {
        desk.judges(name, &more(name, value), &wrong);
    }
    for missing in [":method", ":scheme", ":path"] {
        let fields: Vec<_> = GET.into_iter().filter(|(name, _)| *name != missing).collect();
        desk.judges(missing, &head(&fields), &wrong);
    }
    let late = [GET[0], GET[1], GET[2], ("x", b"y"), GET[3]];
    desk.judges("a path behind a field", &head(&late), &wrong);
    let empty = [GET[0], GET[1], GET[2], (":path", b"")];
    desk.judges("an empty path", &head(&empty), &wrong);
    let post = |length: &'static [u8]| {
        let mut fields = GET.to_vec();
        fields[0].1 = b"POST";
        fields.push(("content-length", length));
        request(1, &fields, false)
    };
    desk.judges("less than announced", &[post(b"4"), frame(DATA, END_STREAM, 1, "abc")], &wrong);
    desk.judges("more than announced", &[post(b"2"), frame(DATA, END_STREAM, 1, "abc")], &wrong);
}

#[test]
fn streams_that_are_over() {
    let mut desk = Desk::open();
    let wrong = [Stream(STREAM_CLOSED), Connection(STREAM_CLOSED), Connection(PROTOCOL_ERROR)];
    let refused = || {
        let mut fields = GET;
        fields[3].1 = b"/a%00";
        request(1, &fields, true)
    };
    let late = [Answered(400), wrong[0], wrong[1], wrong[2]];
    desk.judges("data behind the end", &[refused(), frame(DATA, 0, 1, "abc")], &late);
    desk.judges("a head behind the end", &[refused(), refused()], &late);
    desk.judges(
        "data behind a reset",
        &[unfinished(), frame(RST_STREAM, 0, 1, update(8)), frame(DATA, END_STREAM, 1, "abc")],
        &[wrong[0], wrong[1], Nothing],
    );
    let trailers = frame(HEADERS, END_HEADERS, 1, block(&[("x", b"y")]));
    desk.judges("trailers that are not the end", &[unfinished(), trailers], &[Stream(PROTOCOL_ERROR), wrong[2]]);
}

/// Sections 4.1, 5.5 and 6: what nobody knows is passed over.
#[test]
fn what_is_unknown_is_passed_over() {
    let mut desk = Desk::open();
    for (what, said) in [
        ("a kind of frame", frame(0xfe, 0xff, 0, "what?")),
        ("a kind of frame on a stream", frame(0xfe, 0xff, 1, "what?")),
        ("a setting", frame(SETTINGS, 0, 0, setting(0xfefe, 7))),
        ("flags", frame(PING, 0xfe, 0, [1; 8])),
        ("a priority of what is idle", frame(PRIORITY, 0, 9, [0, 0, 0, 3, 200])),
    ] {
        desk.judges(what, &[said], &[Nothing]);
    }
    let mut client = Client::http2(desk.gateway.address());
    client.send(frame(PING, 0, 0, *b"12345678"));
    let pong = std::iter::from_fn(|| client.frame()).find(|frame| frame.kind == PING).expect("an answer");
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"12345678"[..]));
}

/// Section 3.4. (That its first frame is SETTINGS is not insisted on: nothing depends on it.)
#[test]
fn a_connection_starts_with_its_preface() {
    let desk = Desk::open();
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for wrong in [preface.replace("SM", "XX"), preface.replace("PRI *", "PRI /"), preface.replace("2.0", "2.1")] {
        let said = Client::connect(desk.gateway.address()).send(&wrong).send(frame(SETTINGS, 0, 0, [])).rest();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert_eq!(desk.forwarded(), [""; 0]);
    assert_eq!(desk.gateway.get("/").text(), "hello");
}

/// Section 6.9: who sends more than was allowed is cut, not buffered.
#[test]
fn a_window_is_a_window() {
    let gate = Gate::default();
    let hold = gate.clone();
    let backend = Backend::scripted(move |peer, request| match request.method() {
        // It reads nothing of a body.
        "POST" => hold.wait(),
        _ => peer.respond("200 OK", "hello"),
    });
    let gateway = Gateway::start(format!("workers: 1\n{}", route(&[backend.address()], "max_body: none")));
    let before = gateway.resident();
    let mut client = Client::http2(gateway.address());
    let mut fields = GET;
    fields[0].1 = b"POST";
    client.send(request(1, &fields, false));
    let mut writer = client.stream().try_clone().unwrap();
    let sends = thread::spawn(move || {
        let piece = frame(DATA, 0, 1, vec![b'x'; 16_384]);
        (0..2048).take_while(|_| writer.write_all(&piece).is_ok()).count()
    });
    let end = std::iter::from_fn(|| client.frame()).find_map(|frame| match frame.kind {
        RST_STREAM => Some(frame.code()),
        GOAWAY => Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())),
        _ => None,
    });
    assert_eq!(end, Some(FLOW_CONTROL_ERROR));
    assert!(gateway.resident() < before + (16 << 20));
    drop(client);
    gate.open();
    sends.join().unwrap();
    assert_eq!(gateway.get("/").text(), "hello");
}
