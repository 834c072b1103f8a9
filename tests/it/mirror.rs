//! Copies of requests to a second upstream, which no client notices.

use std::{thread::sleep, time::Duration};

use crate::support::{Backend, Gateway, eventually, refusing};

fn config(main: &Backend, second: std::net::SocketAddr, mirror: &str, fields: &str) -> String {
    format!(
        "admin: {{ bind: \"127.0.0.1:0\" }}
upstreams:
  main: {{ backends: [\"{}\"], health: none }}
  second: {{ backends: [\"{second}\"], health: none, host: backend }}
routes: [{{ name: orders, path: /a/*, to: main, mirror: {{ to: second, {mirror} }}, {fields} }}]\n",
        main.address()
    )
}

fn mirrored(gateway: &Gateway, result: &str) -> usize {
    gateway.metric(&format!("tidegate_mirrored_total{{route=\"orders\",result=\"{result}\"}}"))
}

#[track_caller]
fn await_mirrored(gateway: &Gateway, result: &str, count: usize) {
    eventually(&format!("{count} copies are {result}"), || mirrored(gateway, result) == count);
}

#[test]
fn a_copy_is_what_the_backend_got() {
    let (main, second) = (Backend::named("main"), Backend::named("second"));
    let fields = "rewrite: { strip_prefix: /a }, request_headers: { set: { x-by: us } }";
    let gateway = Gateway::start(config(&main, second.address(), "", fields));
    let mut client = gateway.connect();
    assert_eq!(client.get("/a/x?q=1").text(), "main");
    let posted = "POST /a/y HTTP/1.1\r\nhost: shop.test\r\nx-mirrored: no\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(client.send(posted).response().text(), "main");
    let chunked =
        "POST /a/z HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(client.send(chunked).response().text(), "main");
    await_mirrored(&gateway, "ok", 3);
    let mut copies = second.requests();
    copies.sort_by_key(|copy| copy.target().to_owned());
    assert_eq!(copies.iter().map(|copy| copy.target().to_owned()).collect::<Vec<_>>(), ["/x?q=1", "/y", "/z"]);
    assert_eq!(copies.iter().map(|copy| copy.body.clone()).collect::<Vec<_>>(), [&b""[..], b"hello", b"abcde"]);
    for copy in &copies {
        assert_eq!((copy.head.all("x-mirrored"), copy.header("x-by")), (vec!["1"], Some("us")));
        assert_eq!(copy.header("host"), Some(&*second.address().to_string()));
        assert!(copy.header("x-request-id").is_some());
    }
    assert_eq!(main.requests()[1].header("x-mirrored"), Some("no"), "what a client says is its own affair");
}

#[test]
fn a_second_upstream_that_fails_or_hangs_is_not_noticed() {
    let main = Backend::named("main");
    let (refused, _socket) = refusing();
    let gateway = Gateway::start(config(&main, refused, "", ""));
    (0..3).for_each(|_| assert_eq!(gateway.get("/a/x").text(), "main"));
    await_mirrored(&gateway, "failed", 3);

    let hanging = Backend::scripted(|peer, _| peer.wait_for_close());
    let gateway = Gateway::start(config(&main, hanging.address(), "timeout: 300ms, max_in_flight: 2", ""));
    let mut client = gateway.connect();
    (0..5).for_each(|_| assert_eq!(client.get("/a/x").text(), "main"));
    await_mirrored(&gateway, "timeout", 2);
    assert_eq!(mirrored(&gateway, "dropped"), 3);
    assert_eq!(client.get("/a/x").text(), "main");
    await_mirrored(&gateway, "timeout", 3);
}

#[test]
fn the_body_is_copied_up_to_its_bound() {
    let (main, second) = (Backend::named("main"), Backend::named("second"));
    let gateway = Gateway::start(config(&main, second.address(), "max_body: 4B", ""));
    let mut client = gateway.connect();
    let known = "POST /a/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(client.send(known).response().text(), "main");
    let chunked = "POST /a/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(client.send(chunked).response().text(), "main");
    await_mirrored(&gateway, "too_large", 2);
    let fits = "POST /a/x HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nhell";
    assert_eq!(client.send(fits).response().text(), "main");
    await_mirrored(&gateway, "ok", 1);
    assert_eq!(second.request().body, b"hell");
    assert_eq!(main.hits(), 3);
}

#[test]
fn a_body_that_is_cut_is_not_copied() {
    let (main, second) = (Backend::scripted(|peer, _| peer.wait_for_close()), Backend::named("second"));
    let gateway = Gateway::start(config(&main, second.address(), "", ""));
    let mut client = gateway.connect();
    client.send("POST /a/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhe");
    eventually("it came to the backend", || main.hits() == 1);
    drop(client);
    await_mirrored(&gateway, "incomplete", 1);
    assert_eq!(second.hits(), 0);
}

#[test]
fn a_share_of_the_requests_is_copied() {
    let (main, second) = (Backend::named("main"), Backend::named("second"));
    let gateway = Gateway::start(config(&main, second.address(), "share: 20%", ""));
    let mut client = gateway.connect();
    (0..500).for_each(|_| drop(client.get("/a/x")));
    // Five times the deviation that chance has of 100.
    eventually("about a fifth has come", || (55..=145).contains(&second.hits()));
    sleep(Duration::from_millis(100));
    assert!((55..=145).contains(&second.hits()), "{}", second.hits());
    assert_eq!(main.hits(), 500);
}

#[test]
fn an_answer_that_does_not_end_is_cut_off() {
    let main = Backend::named("main");
    let endless = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            peer.write(format!("8000\r\n{}\r\n", "x".repeat(0x8000)))?;
        }
    });
    let gateway = Gateway::start(config(&main, endless.address(), "timeout: 60s", ""));
    assert_eq!(gateway.get("/a/x").text(), "main");
    await_mirrored(&gateway, "ok", 1);
    eventually("its connection is closed", || endless.open() == 0);
}
