//! The PROXY protocol: who the client is, as a trusted proxy says, and what becomes of everybody else.

use std::{io::Write as _, sync::Arc};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::CertificateDer};

use crate::support::{Backend, Client, Gateway, Launch, eventually, route};

const ASK: &str = "GET / HTTP/1.1\r\nhost: shop.test\r\nx-forwarded-for: 6.6.6.6\r\nconnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n";
const V1_IPV6: &str = "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn config(backend: &Backend, listener: &str) -> String {
    let listener = format!("listeners: {{ main: {{ bind: \"127.0.0.1:0\", {listener} }} }}\n");
    let admin = "admin: { bind: \"127.0.0.1:0\" }\ntelemetry: { access_log: {} }\n";
    format!("{listener}{admin}{}", route(&[backend.address()], ""))
}

fn trusting(backend: &Backend, versions: &str) -> Gateway {
    Gateway::start(config(backend, &format!("proxy_protocol: {versions}, trusted_proxies: [127.0.0.1]")))
}

/// A header of version 2, of IPv4, with this after its addresses.
fn v2(tlvs: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + tlvs.len()).unwrap().to_be_bytes();
    let addresses = [203, 0, 113, 7, 10, 0, 0, 1, 0xc8, 0x22, 1, 0xbb];
    [SIGNATURE, b"\x21\x11", &length, &addresses, tlvs].concat()
}

fn v2_ipv6() -> Vec<u8> {
    let ip = |last| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    [SIGNATURE, b"\x21\x21\0\x24", &ip(7), &ip(1), &[0xc8, 0x22, 1, 0xbb]].concat()
}

fn closed(gateway: &Gateway, reason: &str) -> usize {
    gateway.metric(&format!("tidegate_connections_closed_total{{listener=\"main\",reason=\"{reason}\"}}"))
}

#[test]
fn the_client_is_who_the_header_says() {
    let backend = Backend::start();
    let gateway = trusting(&backend, "any");
    let headers = [V1.as_bytes(), V1_IPV6.as_bytes(), &v2(&[]), &v2(b"\x04\0\x03abc"), &v2_ipv6()];
    for header in headers {
        assert_eq!(gateway.send([header, ASK.as_bytes()].concat()).text(), "hello");
        // Byte by byte, and the request in the packet of the last.
        let mut slow = gateway.connect();
        for byte in &header[..header.len() - 1] {
            slow.send([*byte]);
        }
        assert_eq!(slow.send([&header[header.len() - 1..], ASK.as_bytes()].concat()).response().text(), "hello");
    }
    let expected = ["203.0.113.7", "2001:db8::7", "203.0.113.7", "203.0.113.7", "2001:db8::7"];
    let expected: Vec<&str> = expected.iter().flat_map(|ip| [*ip, *ip]).collect();
    // It is not trusted, whoever brought its connection: nothing that it says of itself is believed.
    let seen = backend.requests();
    let seen: Vec<&str> = seen.iter().map(|request| request.header("x-forwarded-for").unwrap()).collect();
    assert_eq!(seen, expected);
    let logged = gateway.await_access_log(headers.len() * 2);
    let logged: Vec<&str> = logged.iter().map(|line| line["client"].as_str().unwrap()).collect();
    let with_port = |ip: &str| if ip.contains(':') { format!("[{ip}]:51234") } else { format!("{ip}:51234") };
    assert_eq!(logged, expected.iter().map(|ip| with_port(ip)).collect::<Vec<_>>());
}

#[test]
fn who_is_trusted_is_decided_by_the_address_in_the_header() {
    let backend = Backend::start();
    let gateway = Gateway::start(config(&backend, "proxy_protocol: v1, trusted_proxies: [127.0.0.1, 203.0.113.0/24]"));
    gateway.send(format!("{V1}{ASK}"));
    assert_eq!(backend.requests()[0].header("x-forwarded-for"), Some("6.6.6.6, 203.0.113.7"));
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let backend = Backend::start();
    let gateway = trusting(&backend, "any");
    assert_eq!(gateway.send([SIGNATURE, b"\x20\0\0\0", ASK.as_bytes()].concat()).status(), 200);
    let line = gateway.await_access_log(1).remove(0);
    assert_eq!(line["client"].as_str().unwrap().rsplit_once(':').unwrap().0, "6.6.6.6");
}

/// Whoever it is, it is not the proxy, so nothing that it says of itself is believed.
#[test]
fn a_client_whom_the_proxy_does_not_know_is_not_trusted() {
    let backend = Backend::start();
    let gateway = trusting(&backend, "any");
    let udp = [SIGNATURE, b"\x21\x12\0\x0c", &[9; 12]].concat();
    let unspecified = [SIGNATURE, b"\x21\0\0\0"].concat();
    for header in [&b"PROXY UNKNOWN\r\n"[..], &udp, &unspecified] {
        assert_eq!(gateway.send([header, ASK.as_bytes()].concat()).status(), 200);
    }
    for line in gateway.await_access_log(3) {
        assert_eq!(line["client"].as_str().unwrap().rsplit_once(':').unwrap().0, "127.0.0.1");
    }
    for seen in backend.requests() {
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn a_trusted_peer_must_send_the_header() {
    let backend = Backend::start();
    let gateway = trusting(&backend, "v2");
    let too_long = v2(&[0; 5_000]);
    let wrong = [ASK.as_bytes(), V1.as_bytes(), b"\x16\x03\x01\x02", &too_long, &[SIGNATURE, b"\x2f"].concat()];
    for (count, bytes) in wrong.iter().enumerate() {
        assert_eq!(gateway.connect().send(bytes).finish().rest(), "");
        eventually("it is counted", || closed(&gateway, "proxy_header") == count + 1);
    }
    gateway.await_event("it is told", |event| {
        event["reason"] == "proxy_header"
            && event["detail"].as_str().unwrap().contains("127.0.0.1 sent no PROXY header")
    });
    let warnings = gateway.events(|event| event["reason"] == "proxy_header").len();
    assert!(warnings < wrong.len(), "not once per connection: {warnings}");
    // A load balancer that only looks whether somebody listens is no trouble.
    gateway.connect().finish().rest();
    eventually("it is counted", || closed(&gateway, "done") == 1);
    assert_eq!((closed(&gateway, "proxy_header"), backend.hits()), (wrong.len(), 0));
}

#[test]
fn nobody_else_is_heard() {
    let backend = Backend::start();
    let gateway = Gateway::start(config(&backend, "proxy_protocol: any, trusted_proxies: [192.0.2.0/24]"));
    // Before it has said a word.
    assert_eq!(gateway.connect().rest(), "");
    assert_eq!(gateway.connect().send(format!("{V1}{ASK}")).rest(), "");
    eventually("both are counted", || closed(&gateway, "proxy_header") == 2);
    gateway.await_event("it is told", |event| {
        event["reason"] == "proxy_header" && event["detail"].as_str().unwrap().contains("not in `trusted_proxies`")
    });
    assert_eq!(backend.hits(), 0);
}

#[test]
fn the_header_has_the_time_of_a_head() {
    let backend = Backend::start();
    let fields = "proxy_protocol: v1, trusted_proxies: [127.0.0.1]";
    let gateway =
        Gateway::start(format!("defaults: {{ timeouts: {{ client_header: 100ms }} }}\n{}", config(&backend, fields)));
    for said in ["", "PROXY TCP4 203."] {
        let before = closed(&gateway, "proxy_header");
        assert_eq!(gateway.connect().send(said).rest(), "");
        eventually("it is counted", || closed(&gateway, "proxy_header") == before + 1);
    }
    // What comes after it has its own.
    assert_eq!(gateway.connect().send(V1).rest(), "");
    eventually("it is counted", || closed(&gateway, "header_timeout") == 1);
}

#[test]
fn http2_by_prior_knowledge_follows_the_header() {
    let backend = Backend::start();
    let gateway = trusting(&backend, "v2");
    let mut client = gateway.connect();
    client.send([&v2(&[])[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    // The type of the first frame is SETTINGS.
    assert_eq!(client.read(9)[3], 4);
}

#[test]
fn tls_follows_the_header() {
    let backend = Backend::start();
    let pair = rcgen::generate_simple_self_signed(["shop.test".to_owned()]).unwrap();
    let tls = "tls: { certs: [{ cert: web.pem, key: web.key }] }";
    let gateway = Launch::default()
        .file("web.pem", pair.cert.pem())
        .file("web.key", pair.signing_key.serialize_pem())
        .start(config(&backend, &format!("proxy_protocol: any, trusted_proxies: [127.0.0.0/8], {tls}")));
    for header in [V1.as_bytes(), &v2(&[])] {
        // The header and the hello in one packet.
        let mut tls = tls_client(pair.cert.der().clone());
        let mut first = header.to_vec();
        tls.write_tls(&mut first).unwrap();
        let mut client = gateway.connect();
        client.send(first);
        let mut stream = StreamOwned::new(tls, client.stream().try_clone().unwrap());
        stream.write_all(ASK.as_bytes()).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    let seen = backend.requests();
    for request in &seen {
        assert_eq!(request.header("x-forwarded-for"), Some("203.0.113.7"));
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    }
    assert_eq!(seen.len(), 2);
    // Inside of TLS it is no header.
    let mut inside =
        StreamOwned::new(tls_client(pair.cert.der().clone()), gateway.connect().stream().try_clone().unwrap());
    assert!(inside.write_all(V1.as_bytes()).and_then(|()| inside.flush()).is_err() || closed_by(&mut inside));
    eventually("it is counted", || closed(&gateway, "proxy_header") == 1);
}

fn closed_by(stream: &mut impl std::io::Read) -> bool {
    stream.read(&mut [0; 1]).map_or(true, |read| read == 0)
}

fn tls_client(trusted: CertificateDer<'static>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), "shop.test".try_into().unwrap()).unwrap()
}

#[test]
fn a_unix_socket_takes_the_header_of_whom_counts_as_this_machine() {
    let backend = Backend::start();
    let config = config(&backend, "proxy_protocol: v1, trusted_proxies: [127.0.0.1]");
    let gateway = Gateway::start(config.replace("127.0.0.1:0\", proxy", "unix:http.sock\", proxy"));
    let mut client = Client::unix(&gateway.folder().join("http.sock"));
    assert_eq!(client.send(format!("{V1}{ASK}")).response().status(), 200);
    assert_eq!(backend.requests()[0].header("x-forwarded-for"), Some("203.0.113.7"));
}
