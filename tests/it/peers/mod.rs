//! Programs and libraries of other people, as clients: each does with the gateway what it was made for, and finds no fault.

mod curl;
mod libraries;
mod load;
mod openssl;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use crate::support::{Authority, Backend, Gateway, Launch, Server};

/// A gateway with listeners of every kind, for clients that trust `authority`.
struct Stage {
    gateway: Gateway,
    authority: Authority,
    clients: Authority,
}

/// The names of the gateway's certificate.
const NAMES: [&str; 4] = ["gateway.test", "localhost", "127.0.0.1", "::1"];

impl Stage {
    fn set(routes: &str) -> Self {
        let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
        let (usual, rsa) = (authority.server(&NAMES, 1), authority.server_with_rsa(&NAMES, 2));
        let mut launch = Launch::default().file("clients.pem", clients.pem());
        for (name, pair) in [("usual", usual), ("rsa", rsa)] {
            launch = launch.file(&format!("{name}.pem"), pair.cert).file(&format!("{name}.key"), pair.key);
        }
        let gateway = launch.start(LISTENERS.to_owned() + &ipv6() + routes);
        Self { gateway, authority, clients }
    }

    /// Where a listener is, for clients that call it by its address.
    fn url(&self, listener: &str) -> String {
        let scheme = if listener == "plain" { "http" } else { "https" };
        format!("{scheme}://{}", self.gateway.listener(listener))
    }

    /// The file of the authority that clients are to trust.
    fn ca(&self) -> String {
        path(&self.file("authority.pem", self.authority.pem()))
    }

    /// A file beside the config.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.gateway.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn closed_as(&self, listener: &str, reason: &str) -> usize {
        self.gateway
            .metric(&format!("tidegate_connections_closed_total{{listener=\"{listener}\",reason=\"{reason}\"}}"))
    }

    /// Every connection ended as it should, as far as the gateway could see.
    #[track_caller]
    fn assert_no_fault_seen(&self) {
        for listener in ["plain", "main", "short", "mutual"] {
            for reason in ["bad_request", "cut", "flood", "header_timeout", "panic"] {
                assert_eq!(self.closed_as(listener, reason), 0, "{listener} {reason}");
            }
        }
        let faults: Vec<_> =
            self.gateway.access_log().into_iter().filter(|line| line.get("reason").is_some()).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

const LISTENERS: &str = r#"
admin: { bind: "127.0.0.1:0" }
telemetry: { access_log: {} }
listeners:
  plain: { bind: "127.0.0.1:0" }
  main: { bind: "127.0.0.1:0", tls: { certs: [{ cert: usual.pem, key: usual.key }] } }
  rsa: { bind: "127.0.0.1:0", tls: { certs: [{ cert: rsa.pem, key: rsa.key }] } }
  modern: { bind: "127.0.0.1:0", tls: { min_version: "1.3", certs: [{ cert: usual.pem, key: usual.key }] } }
  short: { bind: "127.0.0.1:0", max_requests: 10, tls: { certs: [{ cert: usual.pem, key: usual.key }] } }
  mutual:
    bind: "127.0.0.1:0"
    tls: { client_ca: clients.pem, client_subject: x-client-subject, certs: [{ cert: usual.pem, key: usual.key }] }
"#;

/// One more listener, `ipv6`, where the machine has IPv6.
fn ipv6() -> String {
    match TcpListener::bind("[::1]:0") {
        Ok(_) => "  ipv6: { bind: \"[::1]:0\", tls: { certs: [{ cert: usual.pem, key: usual.key }] } }\n".to_owned(),
        Err(_) => String::new(),
    }
}

/// The Flask app, and a mirror of trailers at `/trailers`.
fn app() -> (Server, Backend, String) {
    let (app, mirror) = (Server::flask("app"), trailers());
    let to = |address: SocketAddr| format!("to: \"{address}\", health: none");
    let routes =
        format!("routes: [{{ path: /trailers, {} }}, {{ path: /*, {} }}]\n", to(mirror.address()), to(app.address()));
    (app, mirror, routes)
}

/// A backend that says back the trailer `x-sum`, in a trailer.
fn trailers() -> Backend {
    Backend::scripted(|peer, received| {
        let mut raw = Vec::new();
        let is_chunked = received.header("transfer-encoding").is_some();
        while is_chunked && !raw.ends_with(b"\r\n\r\n") {
            match peer.read_raw()? {
                piece if piece.is_empty() => return peer.close(),
                piece => raw.extend(piece),
            }
        }
        let text = String::from_utf8_lossy(&raw);
        let sum = text.lines().find_map(|line| line.strip_prefix("x-sum: ")).unwrap_or("none");
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
        peer.write(format!("{head}2\r\nok\r\n0\r\nx-sum: {sum}\r\n\r\n"))
    })
}

/// Bytes like those of the app's `/bytes`.
fn bytes(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
