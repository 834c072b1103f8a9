use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AccessFormat, Any, Bind, Cidr, ClientAuth, Count, DnsServer, Duration, EventKind, Family, Flag, List, LogFormat,
    LogLevel, Name, Named, Percent, ProxyProtocol, SizeOrNone, SocketMode, TlsVersion, UpstreamTlsSpec, Written,
};

/// An address that accepts clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a listener")]
#[schemars(rename = "Listener")]
pub(in crate::config) struct ListenerSpec {
    /// Required. The address to listen on: `0.0.0.0:8080`, `127.0.0.1:8080`, `[::]:8080`, which takes IPv4 clients as well; or
    /// a Unix socket: `unix:http.sock`, from the folder of this file. Port 0 takes a free one. Clients of a Unix socket count
    /// as 127.0.0.1.
    pub(in crate::config) bind: Option<Written<Bind>>,
    /// Who may connect to a Unix socket, as the permissions of a file; as a rule this user and its group. Default `"0660"`.
    pub(in crate::config) socket_mode: Option<Written<SocketMode>>,
    /// The header of the PROXY protocol that connections start with: `none`, `v1`, `v2` or `any`. It needs `trusted_proxies`:
    /// those must send the header, and everybody else's connection is closed. The address in it is the client's from then
    /// on, for `trusted_proxies` and `X-Forwarded-For` too. Default `none`.
    pub(in crate::config) proxy_protocol: Option<Written<ProxyProtocol>>,
    /// Connections open at once; those above are closed as they are accepted. 1 to 10000000. Default `65536`.
    pub(in crate::config) max_connections: Option<Written<Count>>,
    /// Requests on one connection, after which it ends in order, 1 to 1000000. Default `10000`.
    pub(in crate::config) max_requests: Option<Written<Count>>,
    /// Header fields of a request, 1 to 1000; more are a 431. (More than 100 as well as this are not read to their end: that 431
    /// has no body.) Default `100`.
    pub(in crate::config) max_headers: Option<Written<Count>>,
    /// The head of a request as a whole, `1KiB` to `1MiB`; a larger one is a 431. Counted as the protocol counts it: in HTTP/1.1
    /// the bytes up to and including the empty line; in HTTP/2 names and values uncompressed, and 32 bytes more for each field,
    /// `:method` and its like among them. One that is larger by more than 16 KiB is not read to its end: that 431 has no body.
    /// Default `64KiB`.
    pub(in crate::config) max_header_size: Option<Written<SizeOrNone>>,
    /// Path and query of a request, `64B` to `64KiB`; longer ones are a 414. Default `16KiB`.
    pub(in crate::config) max_uri: Option<Written<SizeOrNone>>,
    /// Whether clients may speak HTTP/2: chosen by ALPN over TLS, by prior knowledge without. Default `true`.
    pub(in crate::config) http2: Option<Written<Flag>>,
    /// Requests at once on one HTTP/2 connection, 1 to 10000. Default `128`.
    pub(in crate::config) max_concurrent_streams: Option<Written<Count>>,
    /// Networks or addresses of proxies whose `X-Forwarded-*` headers are believed. Those of IPv4 match clients of `[::]`,
    /// too. Default: nobody's.
    pub(in crate::config) trusted_proxies: Option<List<Written<Cidr>>>,
    /// Speaks TLS. Absent: plain HTTP.
    pub(in crate::config) tls: Option<ListenerTlsSpec>,
    /// A listener without TLS that sends its clients here, with a 308 to the same URL under `https`; only routes that name it
    /// in their `listeners` are still served there. Default: none.
    pub(in crate::config) redirect_from: Option<Written<Name>>,
    /// The port that clients of `redirect_from` are sent to. Default: the port of `bind`.
    pub(in crate::config) redirect_port: Option<Written<Count>>,
}

/// What a listener shows its clients. Files are watched: what is renewed is shown to new connections, and old ones stay.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of tls")]
#[schemars(rename = "ListenerTls")]
pub(in crate::config) struct ListenerTlsSpec {
    /// Required. Certificates, chosen by the name that a client asks for; the first is for those that ask for none of them.
    pub(in crate::config) certs: Option<List<CertSpec>>,
    /// The oldest version of TLS that is spoken: `"1.2"` or `"1.3"`. Default `"1.2"`.
    pub(in crate::config) min_version: Option<Written<TlsVersion>>,
    /// A PEM file of the authorities whose clients are let in (mTLS). Default: no certificate is asked for.
    pub(in crate::config) client_ca: Option<Written<Any>>,
    /// Whether a client without a certificate is refused: `required` or `optional`. Default `required`.
    pub(in crate::config) client_auth: Option<Written<ClientAuth>>,
    /// The header that tells backends the subject of the client's certificate; a client's own is removed. Default: none.
    pub(in crate::config) client_subject: Option<Written<Any>>,
    /// Handshakes under way at once in each worker, 1 to 100000. At that, connections wait to be accepted, and handshakes that
    /// take longer than a second are cut. Default `1024`.
    pub(in crate::config) max_handshakes: Option<Written<Count>>,
}

/// A certificate and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a certificate")]
#[schemars(rename = "Certificate")]
pub(in crate::config) struct CertSpec {
    /// Required. A PEM file from the folder of this file: the certificate first, then those of its authorities.
    pub(in crate::config) cert: Option<Written<Any>>,
    /// Required. The PEM file of its key, not encrypted; it may be the same.
    pub(in crate::config) key: Option<Written<Any>>,
}

/// Where the gateway answers for itself: health, metrics, status.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of admin")]
#[schemars(rename = "Admin")]
pub(in crate::config) struct AdminSpec {
    /// A loopback address, or a Unix socket: `unix:admin.sock`, from the folder of this file. Default `127.0.0.1:9901`.
    pub(in crate::config) bind: Option<Written<Bind>>,
    /// Who may connect to a Unix socket, as the permissions of a file; as a rule this user and its group. Default `"0660"`.
    pub(in crate::config) socket_mode: Option<Written<SocketMode>>,
}

/// Logs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of telemetry")]
#[schemars(rename = "Telemetry")]
pub(in crate::config) struct TelemetrySpec {
    /// One line per request. Absent: off. `{}`: JSON to standard output.
    pub(in crate::config) access_log: Option<AccessLogSpec>,
    /// What is said on the terminal.
    pub(in crate::config) log: Option<LogSpec>,
    /// Who is told of events as they happen, by name: a request for each.
    pub(in crate::config) webhooks: Option<Named<WebhookSpec>>,
}

/// Somebody who is told of events: a POST for each, one after the other, with the object of the JSON log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of a webhook")]
#[schemars(rename = "Webhook")]
pub(in crate::config) struct WebhookSpec {
    /// Required. `https://hooks.example.com/tidegate`.
    pub(in crate::config) url: Option<Written<Any>>,
    /// What is told: `backend`, `api` (the stage of an API), `reload`, `refused`, `process`, `warning`. Default `[backend, refused, warning]`.
    pub(in crate::config) events: Option<List<Written<EventKind>>>,
    /// Headers of the requests.
    pub(in crate::config) headers: Option<Named<Written<Any>>>,
    /// TLS, where the URL says `https`. Default: its host is verified, and whom the system trusts is trusted.
    pub(in crate::config) tls: Option<UpstreamTlsSpec>,
    /// The deadline of one attempt, `100ms` to `1m`. Default `5s`.
    pub(in crate::config) timeout: Option<Written<Duration>>,
    /// Attempts for one event, 1 to 100, with pauses that double from 1 s to 30 s. What comes meanwhile waits; of what waits the last 500
    /// are kept. Default `5`.
    pub(in crate::config) attempts: Option<Written<Count>>,
}

/// One line per request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of access_log")]
#[schemars(rename = "AccessLog")]
pub(in crate::config) struct AccessLogSpec {
    /// The form of a line. Default `json`.
    pub(in crate::config) format: Option<Written<AccessFormat>>,
    /// `stdout`, or a file to append to, from the folder of this file. Default `stdout`.
    pub(in crate::config) to: Option<Written<Any>>,
}

/// What is said on the terminal.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of log")]
#[schemars(rename = "Log")]
pub(in crate::config) struct LogSpec {
    /// The least that is said: `debug`, `info`, `warn` or `error`. Default `info`.
    pub(in crate::config) level: Option<Written<LogLevel>>,
    /// `auto` (text on a terminal, JSON elsewhere), `text` or `json`. Default `auto`.
    pub(in crate::config) format: Option<Written<LogFormat>>,
}

/// How the process stops.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of shutdown")]
#[schemars(rename = "Shutdown")]
pub(in crate::config) struct ShutdownSpec {
    /// Time between readiness failing and listeners closing, for load balancers to notice. Up to `1h`. Default `0s`.
    pub(in crate::config) delay: Option<Written<Duration>>,
    /// Time for requests in flight to finish; then they are cut. Up to `1d`. Default `30s`.
    pub(in crate::config) timeout: Option<Written<Duration>>,
}

/// How edits of this file are picked up.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of reload")]
#[schemars(rename = "Reload")]
pub(in crate::config) struct ReloadSpec {
    /// Whether edits apply as they are saved. SIGHUP reloads either way. Default `true`.
    pub(in crate::config) watch: Option<Written<Flag>>,
    /// Quiet time after a change before the file is read. `10ms` to `1m`. Default `200ms`.
    pub(in crate::config) debounce: Option<Written<Duration>>,
    /// The part of the backends of an upstream that must be fit, or an edit that adds, removes or re-probes some of them is refused. New
    /// ones and those with another check are asked before it goes live, for at most 10 s; upstreams that the edit leaves alone do
    /// not count, nor do those that get no worse by it. A refused edit is tried again as long as the file stays. The start of the
    /// process is not held up. Default `0%`.
    pub(in crate::config) min_healthy: Option<Written<Percent>>,
}

/// How the names of backends are looked up: in `/etc/hosts`, then in DNS, each again when its TTL has passed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "the fields of dns")]
#[schemars(rename = "Dns")]
pub(in crate::config) struct DnsSpec {
    /// DNS servers to ask, `10.0.0.2` or `10.0.0.2:5353`, instead of those in `/etc/resolv.conf`, whose search domains do not count
    /// then. Default: those of the system.
    pub(in crate::config) servers: Option<List<Written<DnsServer>>>,
    /// Time for one look-up with all its questions, `100ms` to `1m`. Default `2s`.
    pub(in crate::config) timeout: Option<Written<Duration>>,
    /// A name is not looked up sooner again than this, whatever its TTL. `100ms` to `1d`. Default `1s`.
    pub(in crate::config) min_ttl: Option<Written<Duration>>,
    /// A name is not looked up later again than this, whatever its TTL. `100ms` to `1d`. Default `5m`.
    pub(in crate::config) max_ttl: Option<Written<Duration>>,
    /// For so long the addresses of a name stay in use when DNS says that there is no such name any more, or that it has no address.
    /// Where DNS does not answer, they stay for as long as that lasts. Up to `1d`. Default `30s`.
    pub(in crate::config) hold: Option<Written<Duration>>,
    /// Which addresses of a name are used: `any`, `ipv4` or `ipv6`. Default `any`.
    pub(in crate::config) family: Option<Written<Family>>,
}
