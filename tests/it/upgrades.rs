//! WebSockets and other upgrades: only what was asked for and agreed on becomes a tunnel, and a tunnel outlives what does not
//! concern it.

use std::{
    io::Read as _,
    net::{Shutdown, SocketAddr},
    sync::mpsc,
    time::Duration,
};

use rustix::process::Signal;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::support::{Backend, Client, Gateway, PATIENCE, Server, eventually, refusing, route};

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: gateway.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Agrees, says `hi`, and says back what it hears, in capitals.
fn echo() -> Backend {
    Backend::scripted(|peer, _| {
        peer.write(format!("{AGREE}hi"))?;
        loop {
            let heard = peer.read_raw()?;
            if heard.is_empty() {
                peer.write("bye")?;
                return peer.close();
            }
            peer.write(heard.to_ascii_uppercase())?;
        }
    })
}

fn open(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    let head = client.send(ASK).head();
    assert_eq!(
        (head.status(), head.header("upgrade"), head.header("connection")),
        (101, Some("websocket"), Some("upgrade"))
    );
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.read(2), b"hi");
    client
}

fn says(client: &mut Client, text: &str) {
    client.send(text);
    assert_eq!(client.read(text.len()), text.to_ascii_uppercase().as_bytes());
}

#[test]
fn an_upgrade_is_a_tunnel() {
    let backend = echo();
    let gateway = Gateway::start(format!("telemetry: {{ access_log: {{}} }}\n{}", route(&[backend.address()], "")));
    let mut client = open(gateway.address());
    says(&mut client, "first");
    says(&mut client, "second");
    let asked = backend.request().head;
    assert_eq!((asked.get("connection"), asked.get("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(asked.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    // Each side ends its own direction.
    assert_eq!(client.finish().rest(), "bye");
    let line = gateway.await_access_log(1).remove(0);
    assert_eq!(
        (&line["status"], &line["bytes_in"], &line["bytes_out"]),
        (&101.into(), &11.into(), &16.into()),
        "{line}"
    );
    assert!(line.get("reason").is_none(), "{line}");
}

#[test]
fn what_is_said_before_the_agreement_is_not_lost() {
    let backend = echo();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    assert_eq!(client.send(format!("{ASK}early")).head().status(), 101);
    assert_eq!(client.read(7), b"hiEARLY");
}

#[test]
fn what_a_backend_does_not_agree_to_is_no_tunnel() {
    let backend = Backend::scripted(|peer, _| peer.respond("200 OK", "plain"));
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let mut client = gateway.connect();
    // Were it one, the second request would be a frame; were it not closed, the frame would be a request.
    let response = client.send(format!("{ASK}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")).response();
    assert_eq!((response.text(), response.header("connection")), ("plain", Some("close")));
    assert_eq!(client.rest(), "");
    assert_eq!(backend.hits(), 1);
}

/// A request that was sent ahead into a tunnel, which does not come to be.
const AHEAD: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn after_an_upgrade_that_failed_nothing_is_a_request() {
    let broken = Backend::scripted(|peer, _| peer.close());
    let silent = Backend::scripted(|peer, _| peer.wait_for_close());
    let (nobody, _socket) = refusing();
    let keys = format!(
        "auth: {{ ops: {{ api_key: {{ header: x-key, keys: {{ amy: \"sha256:{}\" }} }} }} }}\n",
        "0".repeat(64)
    );
    for (to, fields, status) in [
        (broken.address(), "", 502),
        (silent.address(), "timeouts: { request: 200ms }", 504),
        (nobody, "", 502),
        (broken.address(), "auth: ops", 401),
    ] {
        let gateway = Gateway::start(format!("{keys}{}", route(&[to], fields)));
        let mut client = gateway.connect();
        let response = client.send(format!("{ASK}{AHEAD}")).response();
        assert_eq!((response.status(), response.header("connection")), (status, Some("close")), "{fields}");
        assert_eq!(client.rest(), "");
        // Nothing was sent ahead into what is no upgrade here.
        let mut client = gateway.connect();
        let response = client.send(ASK.replace("upgrade: websocket", "upgrade: h2c")).response();
        assert_eq!((response.status(), response.header("connection")), (status, None), "{fields}");
    }
    for backend in [broken, silent] {
        assert!(backend.requests().iter().all(|seen| seen.target() != "/smuggled"));
    }
}

#[test]
fn an_agreement_to_something_else_is_a_bad_response() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    ] {
        let backend = Backend::scripted(move |peer, _| {
            peer.write(answer)?;
            peer.wait_for_close()
        });
        let gateway = Gateway::start(route(&[backend.address()], ""));
        assert_eq!(gateway.send(ASK).fault(), (502, "bad_response".to_owned()), "{answer}");
        assert_eq!(gateway.get("/").fault(), (502, "bad_response".to_owned()), "nobody asked: {answer}");
    }
}

#[test]
fn an_upgrade_that_is_not_allowed_is_a_plain_request() {
    let backend = Backend::start();
    let plain = |gateway: &Gateway, request: &str| {
        assert_eq!(gateway.send(request).text(), "hello");
        let head = backend.requests().pop().unwrap().head;
        assert!(head.all("upgrade").is_empty() && head.all("connection").is_empty(), "{head:?}");
    };
    let gateway = Gateway::start(route(&[backend.address()], "upgrades: none"));
    plain(&gateway, ASK);
    let gateway = Gateway::start(route(&[backend.address()], ""));
    plain(&gateway, &ASK.replace("upgrade: websocket", "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__"));
    plain(&gateway, &ASK.replace("connection: keep-alive, Upgrade\r\n", ""));
    plain(&gateway, &ASK.replace("HTTP/1.1", "HTTP/1.0"));
    plain(&gateway, &ASK.replace("host:", "content-length: 2\r\nhost:").replace("==\r\n\r\n", "==\r\n\r\nxx"));
    assert_eq!(gateway.send("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n").status(), 400);
}

#[test]
fn another_protocol_may_be_allowed() {
    let backend = Backend::scripted(|peer, _| {
        peer.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: IRC/6.9\r\n\r\nok")?;
        peer.wait_for_close()
    });
    let gateway = Gateway::start(route(&[backend.address()], "upgrades: [websocket, irc/6.9]"));
    let mut client = gateway.connect();
    assert_eq!(client.send(ASK.replace("upgrade: websocket", "upgrade: hello, irc/6.9")).head().status(), 101);
    assert_eq!(client.read(2), b"ok");
    assert_eq!(backend.request().head.get("upgrade"), Some("irc/6.9"));
}

#[test]
fn each_side_learns_that_the_other_has_gone() {
    let backend = echo();
    let gateway = Gateway::start(route(&[backend.address()], ""));
    let client = open(gateway.address());
    client.stream().shutdown(Shutdown::Both).unwrap();
    drop(client);
    eventually("the backend sees it", || backend.open() == 0);
    let mut client = open(gateway.address());
    backend.hang_up();
    assert_eq!(client.rest(), "");
}

#[test]
fn silence_ends_a_tunnel_and_talk_keeps_it() {
    let backend = echo();
    // The deadline of requests is shorter, and does not apply.
    let gateway =
        Gateway::start(route(&[backend.address()], "timeouts: { request: 200ms, connect: 100ms, tunnel: 1500ms }"));
    let mut talking = open(gateway.address());
    let silent = open(gateway.address());
    let mut end = [0];
    silent.stream().set_nonblocking(true).unwrap();
    eventually("the silent one has ended", || {
        says(&mut talking, "still here");
        std::thread::sleep(Duration::from_millis(50));
        matches!((&mut silent.stream()).read(&mut end), Ok(0))
    });
    says(&mut talking, "and still");
}

#[test]
fn a_tunnel_survives_every_edit_that_does_not_take_its_route_or_backend() {
    let [backend, other] = [echo(), Backend::start()];
    let routes = |ours: &str, to: SocketAddr| {
        format!(
            "shutdown: {{ timeout: 300ms }}\nupstreams: {{ up: {{ backends: [\"{to}\"], health: none }} }}\n\
             routes: [{ours} {{ name: other, path: /x, to: \"{}\", health: none }}]\n",
            other.address()
        )
    };
    let ours = "{ name: chat, path: /chat, to: up },";
    let gateway = Gateway::start(routes(ours, backend.address()));
    let mut client = open(gateway.address());
    gateway.edit(routes("{ name: chat, path: /chat, to: up, limit: 5/s per ip },", backend.address()));
    says(&mut client, "kept");
    gateway.edit(routes(ours, other.address()));
    assert_eq!(client.rest(), "", "its backend has gone");
    gateway.edit(routes(ours, backend.address()));
    let mut client = open(gateway.address());
    gateway.edit(format!("{}# no chat\n", routes("{ name: talk, path: /talk, to: up },", backend.address())));
    assert_eq!(client.rest(), "", "its route has gone");
}

#[test]
fn a_stop_waits_for_tunnels_as_long_as_it_may() {
    let backend = echo();
    let config = |timeout: &str| format!("shutdown: {{ timeout: {timeout} }}\n{}", route(&[backend.address()], ""));
    let mut gateway = Gateway::start(config("1h"));
    let mut client = open(gateway.address());
    gateway.signal(Signal::TERM);
    eventually("it drains", || !gateway.events(|event| event["stage"] == "draining").is_empty());
    says(&mut client, "last words");
    assert_eq!(client.finish().rest(), "bye");
    assert_eq!(gateway.exit_code(), 0);
    let mut gateway = Gateway::start(config("300ms"));
    let mut client = open(gateway.address());
    gateway.signal(Signal::TERM);
    assert_eq!(client.rest(), "");
    assert_eq!(gateway.exit_code(), 4);
}

#[test]
fn a_tunnel_that_an_edit_has_cut_is_no_loss_at_the_end() {
    let backend = echo();
    let config = |more: &str| {
        let listeners = format!("listeners: {{ main: {{ bind: \"127.0.0.1:0\" }}{more} }}");
        format!("{listeners}\nshutdown: {{ timeout: 300ms }}\n{}", route(&[backend.address()], ""))
    };
    let mut gateway = Gateway::start(config(", more: { bind: \"127.0.0.1:0\" }"));
    let mut client = open(gateway.listener("more"));
    gateway.edit(config(""));
    assert_eq!(client.rest(), "", "its listener has gone");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit_code(), 0);
}

/// A Close frame (RFC 6455, section 7.4.1): going away.
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];

/// Agrees, sends these bytes, and passes on what it hears last.
fn hears_last(says: &'static [u8]) -> (Backend, mpsc::Receiver<Vec<u8>>) {
    let (heard, last) = mpsc::channel();
    let backend = Backend::scripted(move |peer, _| {
        peer.write(AGREE)?;
        peer.write(says)?;
        let mut all = Vec::new();
        loop {
            let more = peer.read_raw()?;
            if more.is_empty() {
                break;
            }
            all.extend(more);
        }
        let _ = heard.send(all);
        peer.close()
    });
    (backend, last)
}

fn asks(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.send(ASK).head().status(), 101);
    client
}

#[test]
fn a_websocket_that_must_end_is_told_so_on_both_sides() {
    let (backend, last) = hears_last(b"\x81\x02hi");
    let logged = |fields: &str| {
        let rest = route(&[backend.address()], fields);
        format!(
            "admin: {{ bind: \"127.0.0.1:0\" }}\ntelemetry: {{ access_log: {{}} }}\nshutdown: {{ timeout: 300ms }}\n{rest}"
        )
    };
    let mut gateway = Gateway::start(logged("timeouts: { tunnel: 1s, connect: 500ms }"));
    let told = |mut client: Client| {
        assert_eq!((client.read(4), client.read(4)), (b"\x81\x02hi".to_vec(), GOING_AWAY.to_vec()));
        assert_eq!(client.rest(), "");
        // As a client says it: masked.
        let last = last.recv_timeout(PATIENCE).unwrap();
        assert_eq!((last.len(), last[0], last[1]), (8, 0x88, 0x82));
        assert_eq!([last[6] ^ last[2], last[7] ^ last[3]], GOING_AWAY[2..]);
    };
    told(asks(&gateway));
    assert_eq!(gateway.await_access_log(1)[0]["reason"], "tunnel_timeout");

    gateway.edit(logged(""));
    let client = asks(&gateway);
    assert_eq!(gateway.metric("tidegate_tunnels_open{listener=\"main\"}"), 1);
    gateway.edit(logged("").replace("/*", "/elsewhere"));
    told(client);
    assert_eq!(gateway.await_access_log(2)[1]["reason"], "draining");
    eventually("it is counted as closed", || gateway.metric("tidegate_tunnels_open{listener=\"main\"}") == 0);
    assert_eq!(gateway.metric("tidegate_tunnels_total{listener=\"main\"}"), 2);

    gateway.edit(logged(""));
    let client = asks(&gateway);
    gateway.signal(Signal::TERM);
    told(client);
    assert_eq!(gateway.exit_code(), 4);
}

#[test]
fn nothing_is_said_in_the_middle_of_a_frame() {
    // A binary frame of ten bytes of which one is missing.
    let (backend, _last) = hears_last(b"\x82\x0a123456789");
    let gateway = Gateway::start(route(&[backend.address()], "timeouts: { tunnel: 1s, connect: 500ms }"));
    assert_eq!(asks(&gateway).rest(), "\u{fffd}\n123456789");
}

#[test]
fn whose_connection_broke_is_in_the_log() {
    let dies = Backend::scripted(|peer, _| {
        peer.write(format!("{AGREE}half"))?;
        peer.read_raw()?;
        peer.reset()
    });
    let echoes = echo();
    let gateway = Gateway::start(format!(
        "telemetry: {{ access_log: {{}} }}\nroutes:\n- {{ path: /chat, to: \"{}\", health: none }}\n\
         - {{ path: /echo, to: \"{}\", health: none }}\n",
        dies.address(),
        echoes.address()
    ));
    let mut client = asks(&gateway);
    assert_eq!(client.read(4), b"half");
    assert_eq!(client.send("die").rest(), "");
    assert_eq!(gateway.await_access_log(1)[0]["reason"], "response_cut");

    let mut client = Client::connect(gateway.address());
    assert_eq!(client.send(ASK.replace("/chat", "/echo")).head().status(), 101);
    assert_eq!(client.read(2), b"hi");
    SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(gateway.await_access_log(2)[1]["reason"], "client_gone");
    eventually("the backend sees the end", || echoes.open() == 0);
}

/// RFC 8441: what a browser does that has an HTTP/2 connection already.
#[tokio::test]
async fn a_websocket_over_http2_is_one_of_http1_to_the_backend() {
    let backend = Backend::scripted(|peer, received| {
        let key = received.head.get("sec-websocket-key").unwrap().to_owned();
        let mut sha1 = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
        sha1.update(key.as_bytes());
        sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, sha1.finish());
        let wrong = received.target() == "/wrong";
        let accept = if wrong { "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned() } else { accept };
        peer.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\nhi"
        ))?;
        loop {
            let heard = peer.read_raw()?;
            if heard.is_empty() {
                return peer.close();
            }
            peer.write(heard.to_ascii_uppercase())?;
        }
    });
    let fields = "upgrades: websocket, timeouts: { request: 1s, connect: 500ms }";
    let more = format!("{{ path: /plain, to: \"{}\", health: none, upgrades: none }},", backend.address());
    let config = route(&[backend.address()], fields).replace("routes: [", &format!("routes: [{more}"));
    let gateway = Gateway::start(config);

    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let (client, connection) = h2::client::Builder::new().handshake::<_, bytes::Bytes>(socket).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let ask = |path: &str, protocol: &'static str| {
        let request =
            http::Request::connect(format!("http://gateway.test{path}")).header("sec-websocket-version", "13");
        request.extension(h2::ext::Protocol::from_static(protocol)).body(()).unwrap()
    };
    for (path, protocol, status) in [("/plain", "websocket", 400), ("/", "ftp", 400), ("/wrong", "websocket", 502)] {
        let (response, _stream) = client.send_request(ask(path, protocol), false).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{path} {protocol}");
    }
    let (response, mut sending) = client.send_request(ask("/chat", "websocket"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    for gone in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    let mut body = response.into_body();
    let mut heard = Vec::new();
    for text in ["", "one", "two"] {
        sending.send_data(text.to_owned().into(), false).unwrap();
        let enough = heard.len() + if text.is_empty() { 2 } else { text.len() };
        while heard.len() < enough {
            let data = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            heard.extend_from_slice(&data);
        }
    }
    assert_eq!(heard, b"hiONETWO");
    let asked = backend.requests().pop().unwrap().head;
    assert_eq!(asked.first_line(), "GET /chat HTTP/1.1");
    assert_eq!((asked.get("upgrade"), asked.get("host")), (Some("websocket"), Some("gateway.test")));
    sending.send_data(bytes::Bytes::new(), true).unwrap();
    let ends = async {
        while backend.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, ends).await.expect("the backend sees the end");
}

#[test]
fn a_real_server_and_a_real_client_talk_through_it() {
    let server = Server::python("websocket_server.py", &[]);
    let gateway = Gateway::start(route(&[server.address()], ""));
    let url = format!("ws://{}/echo", gateway.address());
    let said = crate::support::python("websocket_client.py", &[&url]);
    assert_eq!(said.trim(), "all echoed", "{said}");
}

#[test]
fn a_drain_leaves_tunnels_until_its_deadline() {
    let (leaves, stays) = (echo(), echo());
    let config = |backends: &[SocketAddr]| {
        format!("workers: 1\nadmin: {{ bind: \"127.0.0.1:0\" }}\n{}", crate::support::upstream(backends, ""))
    };
    let gateway = Gateway::start(config(&[leaves.address(), stays.address()]));
    let mut tunnels = [open(gateway.address()), open(gateway.address())];
    let order = |body: &str| {
        let path = format!("/api/v1/upstreams/up/backends/{}/drain", leaves.address());
        let (host, length) = (gateway.admin(), body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        assert_eq!(Client::connect(host).send(request).response().status(), 200);
    };
    order("{}");
    tunnels.iter_mut().for_each(|tunnel| says(tunnel, "still here"));
    order(r#"{ "deadline": "200ms" }"#);
    let open_at = |backend: &Backend| backend.open();
    eventually("the tunnel is cut", || open_at(&leaves) == 0);
    assert_eq!(stays.open(), 1);
    let answers = tunnels.each_mut().map(|tunnel| tunnel.send("alive").try_read(&mut [0; 5]).is_some());
    assert_eq!(answers.into_iter().filter(|answered| *answered).count(), 1);
}

#[test]
fn a_tunnel_ends_with_the_fitness_of_its_backend_where_that_is_said() {
    for (when_out, is_cut) in [("close", true), ("keep", false)] {
        let backend = echo();
        let health = format!(
            "health: {{ active: {{ path: /healthz, interval: 100ms, interval_changing: 20ms, timeout: 90ms }}, when_all_down: try_all, when_out: {when_out} }}"
        );
        let gateway = Gateway::start(route(&[backend.address()], &health));
        gateway.await_backend(backend.address(), "up");
        let mut tunnel = open(gateway.address());
        backend.feel(false);
        gateway.await_backend(backend.address(), "down");
        if is_cut {
            eventually("the tunnel is cut", || tunnel.send("alive").try_read(&mut [0; 5]).is_none());
            // Nobody else is left, so it is used all the same: what is opened from now on stays.
            tunnel = open(gateway.address());
        }
        // For longer than it takes to look whether a tunnel should end.
        let probes = backend.probes();
        eventually("time has passed", || backend.probes() > probes + 20);
        says(&mut tunnel, "still here");
    }
}
