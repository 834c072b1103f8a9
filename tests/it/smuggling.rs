//! Nothing is forwarded that was not understood, and no byte is taken for a request that is none.

use crate::support::{Backend, Client, Gateway, eventually, route};

/// Says something ambiguous, with a request hidden in what follows; the backend must see neither.
fn is_refused(request: &str) {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    client.send(request).send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").finish();
    let said = client.rest();
    assert!(said.starts_with("HTTP/1.1 400 ") || said.starts_with("HTTP/1.1 501 "), "{request:?} -> {said:?}");
    assert_eq!(said.matches("HTTP/1.").count(), 1, "{request:?} -> {said:?}");
    let seen: Vec<_> = backend.requests().iter().map(|request| request.head.text.clone()).collect();
    assert!(seen.is_empty(), "{request:?} -> {seen:?}");
}

/// RFC 9112, section 6.3: it may be refused, or the length is removed and the connection closed.
#[test]
fn of_two_framings_one_is_forwarded_and_nothing_after_it() {
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 0",
        "transfer-encoding: chunked\r\ncontent-length: 99",
    ] {
        let backend = Backend::start();
        let gateway = Gateway::start(route(&[backend.address()], ""));
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{lengths}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"));
        client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
        let said = client.rest();
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{lengths} -> {said}");
        for request in backend.requests() {
            assert_eq!((request.target(), &request.body[..]), ("/", &b"abc"[..]), "{lengths}");
            assert_eq!(request.head.all("content-length").len() + request.head.all("transfer-encoding").len(), 1);
            assert!(said.contains("connection: close"), "{said}");
        }
    }
}

#[test]
fn two_lengths_are_refused() {
    is_refused("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd");
    is_refused("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd");
}

#[test]
fn a_length_that_is_no_number_is_refused() {
    for length in ["+3", "-1", "3 ", "0x3", "3a", "", "99999999999999999999"] {
        if length != "3 " {
            is_refused(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nabc"));
        }
    }
}

#[test]
fn a_coding_that_does_not_end_in_chunked_is_refused() {
    for coding in [
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked, gzip",
        "xchunked",
        "chunked\u{b}",
        "cow, chunked, identity",
    ] {
        is_refused(&format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n"));
    }
}

#[test]
fn a_coding_in_http_1_0_is_refused() {
    is_refused("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
}

#[test]
fn two_hosts_or_none_are_refused() {
    is_refused("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    is_refused("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n");
    is_refused("GET / HTTP/1.1\r\n\r\n");
    is_refused("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n");
    is_refused("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n");
}

#[test]
fn heads_that_are_read_differently_elsewhere_are_refused() {
    // A folded line, a blank before the colon, a name that is none, a lone carriage return, a NUL.
    is_refused("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c: d\r\n\r\n");
    is_refused("GET / HTTP/1.1\r\nhost: a\r\ncontent-length : 3\r\n\r\nabc");
    is_refused("GET / HTTP/1.1\r\nhost: a\r\nx y: b\r\n\r\n");
    is_refused("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\rcontent-length: 3\r\n\r\nabc");
    is_refused("GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n");
    is_refused("GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n");
    is_refused("GET  / HTTP/1.1\r\nhost: a\r\n\r\n");
}

#[test]
fn targets_that_are_read_differently_elsewhere_are_refused() {
    for target in ["/a/../../b", "/a%2fb", "/a%00b", "/a\\b", "/%zz", "a", "*", "http:///a"] {
        is_refused(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
    }
}

#[test]
fn connect_is_refused() {
    is_refused("CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n");
}

/// Bad chunks come when the request may be under way already: it must never end, for the backend, as if all were well.
#[test]
fn bad_chunks_never_make_a_whole_request() {
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabc0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        let whole = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&whole);
        let backend = Backend::scripted(move |peer, _| {
            peer.read_body()?;
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            peer.respond("200 OK", "")
        });
        let gateway = Gateway::start(route(&[backend.address()], ""));
        let mut client = gateway.connect();
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            .send(chunks)
            .send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
            .finish();
        let said = client.rest();
        assert!(!said.contains(" 200 "), "{chunks:?} -> {said:?}");
        eventually("the backend is let go", || backend.open() == 0);
        assert_eq!(whole.load(std::sync::atomic::Ordering::SeqCst), 0, "{chunks:?}");
        assert!(backend.requests().iter().all(|request| request.target() == "/"), "{chunks:?}");
    }
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

#[test]
fn a_head_that_is_too_large_is_refused() {
    let backend = Backend::start();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let large = "x".repeat(400_000);
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {large}\r\n\r\n"));
    let said = client.rest();
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    assert_eq!(backend.hits(), 0);
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
