use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method};

use super::{JsonPath, Protocol, UpstreamTls, Wanted};
use crate::base::{Name, Percent};

/// How the backends of an upstream are judged, and what happens when none is left.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Health {
    /// How a backend is asked; a backend is fit where every check says so. None leaves every backend `unchecked`.
    pub checks: Vec<HealthCheck>,
    /// What happens to requests while no backend is eligible.
    pub when_all_down: WhenAllDown,
    /// What live traffic says; `None`: nothing.
    pub passive: Option<Passive>,
    /// The part of the primaries, by weight, that carries the traffic alone. Default 0%.
    pub min_capacity: Percent,
    /// The part of its share that a degraded backend gets. Default 50%.
    pub degraded_weight: Percent,
    /// What a check is worth that everybody fails since it was edited, or begins to fail at once, while live traffic succeeds.
    pub suspect_check: SuspectCheck,
    /// What becomes of connections to a backend that is down or ejected.
    pub when_out: WhenOut,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            checks: Vec::new(),
            when_all_down: WhenAllDown::default(),
            passive: Some(Passive::default()),
            min_capacity: Percent::whole(0),
            degraded_weight: Percent::whole(50),
            suspect_check: SuspectCheck::default(),
            when_out: WhenOut::default(),
        }
    }
}

/// What live traffic says of backends, and what follows from it. It never takes the last eligible one.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Passive {
    /// Failures in a row that eject a backend. Default 5.
    pub failures: u32,
    /// Statuses that are failures. Default 502, 503, 504.
    pub status: Vec<StatusRange>,
    /// A response whose head takes longer is a failure.
    pub slower_than: Option<Duration>,
    /// The part of the requests in a window that must fail.
    pub ratio: Option<FailureRatio>,
    /// How long a backend is out the first time. Default 10 s.
    pub eject_for: Duration,
    /// The longest that it is out. Default 5 min.
    pub max_eject_for: Duration,
    /// The part of the backends that may be out so at once. Default 50%.
    pub max_ejected: Percent,
    /// Whether `Retry-After` says how long. Default true.
    pub retry_after: bool,
    /// The field of a response by which a backend asks to be drained.
    pub drain_header: Option<HeaderName>,
}

/// How many of a backend's requests may fail.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FailureRatio {
    /// The part that ejects it.
    pub limit: Percent,
    /// The time over which it is taken. Default 10 s.
    pub window: Duration,
    /// Requests below which it says nothing. Default 20.
    pub min_requests: u32,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            failures: 5,
            status: [502, 503, 504].map(|status| StatusRange { first: status, last: status }).to_vec(),
            slower_than: None,
            ratio: None,
            eject_for: Duration::from_secs(10),
            max_eject_for: Duration::from_secs(300),
            max_ejected: Percent::whole(50),
            retry_after: true,
            drain_header: None,
        }
    }
}

/// What becomes of connections to a backend that is down or ejected. Requests on their way are finished either way.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum WhenOut {
    /// Idle ones are closed, tunnels are cut.
    Close,
    /// They stay: it may be back soon.
    #[default]
    Keep,
}

/// What a check is worth that everybody fails since it was edited, or begins to fail at once, while live traffic succeeds.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum SuspectCheck {
    /// What it says.
    Eject,
    /// Nothing, until somebody has passed it or traffic fails, too.
    #[default]
    Hold,
}

impl Health {
    /// Whether anybody asks the backends.
    #[must_use]
    pub const fn is_checked(&self) -> bool {
        !self.checks.is_empty()
    }
}

/// What happens to requests while no backend is eligible.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum WhenAllDown {
    /// 503 at once.
    #[default]
    Fail,
    /// Traffic goes to all of them as if all were up. Shown in `/health` while it is in force.
    TryAll,
}

/// How a backend's health is asked, and what the answers mean.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HealthCheck {
    /// As written, else what it asks: `http /healthz`, `tcp :9000`, `grpc my.Service`. No two of an upstream are equal.
    pub name: Name,
    /// The question.
    pub kind: ProbeKind,
    /// The port to ask; `None` is the backend's own.
    pub port: Option<u16>,
    /// The address to ask instead of the backend's own.
    pub address: Option<IpAddr>,
    /// Which HTTP is spoken; `None` is the backend's.
    pub protocol: Option<Protocol>,
    /// TLS around the probe.
    pub tls: ProbeTls,
    /// Between probes in steady state. Default 10 s.
    pub interval: Duration,
    /// Between probes while a verdict is pending. Default 1 s, never above `interval`.
    pub interval_changing: Duration,
    /// Between probes while the verdict is down. Default: `interval`.
    pub interval_down: Duration,
    /// The longest between probes while live traffic goes well; `None`: traffic changes nothing.
    pub interval_with_traffic: Option<Duration>,
    /// Whether a request that failed is a reason to probe at once. Default true.
    pub probe_on_doubt: bool,
    /// The deadline of one probe, connect included. Default 2 s.
    pub timeout: Duration,
    /// Passes in a row that bring a backend back. Default 2.
    pub healthy_after: u16,
    /// Failures in a row that take a backend out. Default 3.
    pub unhealthy_after: u16,
    /// Each interval is lengthened or shortened at random by up to this share. Default 10%.
    pub jitter: Percent,
}

impl HealthCheck {
    /// A check with nothing but defaults.
    #[must_use]
    pub fn new(kind: ProbeKind) -> Self {
        let protocol = matches!(kind, ProbeKind::Grpc(_)).then_some(Protocol::Http2);
        let interval = Duration::from_secs(10);
        Self {
            name: Name::derived(kind.to_string()),
            kind,
            port: None,
            address: None,
            protocol,
            tls: ProbeTls::AsBackend,
            interval,
            interval_down: interval,
            interval_changing: Duration::from_secs(1),
            interval_with_traffic: None,
            probe_on_doubt: true,
            timeout: Duration::from_secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
            jitter: Percent::whole(10),
        }
    }

    /// What it asks, and where: the name of a check that was given none.
    #[must_use]
    pub fn derived_name(&self) -> Name {
        let kind = &self.kind;
        Name::derived(match (self.address, self.port) {
            (None, None) => kind.to_string(),
            (None, Some(port)) => format!("{kind} :{port}"),
            (Some(ip), None) => format!("{kind} {ip}"),
            (Some(ip), Some(port)) => format!("{kind} {}", SocketAddr::new(ip, port)),
        })
    }

    /// Whether another check puts the same question to the same place, however often.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        (&self.kind, self.port, self.address, self.protocol, &self.tls)
            == (&other.kind, other.port, other.address, other.protocol, &other.tls)
    }
}

/// TLS around a probe.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum ProbeTls {
    /// As the backend is reached.
    #[default]
    AsBackend,
    /// Like this, whatever the backend speaks; without a name, that of the backend.
    Own(Box<UpstreamTls>),
    /// None, whatever the backend speaks.
    Plain,
}

/// The question of a health check.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ProbeKind {
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcProbe),
    /// An HTTP request on a fresh connection.
    Http(HttpProbe),
    /// A connection, and perhaps a few words on it.
    Tcp(TcpProbe),
    /// A handshake, and how long the certificate is valid.
    Tls(TlsProbe),
}

/// What is asked, in short: `http /healthz`. Without a query, which may hold secrets.
impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc(probe) if probe.service.is_empty() => f.write_str("grpc"),
            Self::Grpc(probe) => write!(f, "grpc {}", probe.service),
            Self::Http(probe) => write!(f, "http {}", probe.path.split('?').next().unwrap_or_default()),
            Self::Tcp(_) => f.write_str("tcp"),
            Self::Tls(_) => f.write_str("tls"),
        }
    }
}

/// A probe of gRPC.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct GrpcProbe {
    /// The service to ask for; empty is the server as a whole.
    pub service: String,
}

/// A probe of TCP. Without words to say or to hear, a connection is enough, and no TLS is spoken on it.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct TcpProbe {
    /// What is said first.
    pub send: Option<String>,
    /// What the first 64 KiB of the answer must hold.
    pub expect: Option<Wanted>,
}

/// A probe of TLS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TlsProbe {
    /// How long the certificate must be valid from now on, or the backend is degraded. Default 7 days.
    pub valid_for: Duration,
}

/// An HTTP probe's request and what it expects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpProbe {
    /// Path and query, starting with `/`.
    pub path: String,
    /// Default `GET`.
    pub method: Method,
    /// Sent as they are; `host` here replaces the backend's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Sent with the request; only with methods that have one.
    pub body: Option<String>,
    /// What passes.
    pub expect: Expect,
}

impl Default for HttpProbe {
    fn default() -> Self {
        let expect = Expect::default();
        Self { path: "/healthz".to_owned(), method: Method::GET, headers: vec![], body: None, expect }
    }
}

// `HeaderValue` has no `Hash` that its `Eq` would promise to agree with across versions: hash its bytes.
impl std::hash::Hash for HttpProbe {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.path.hash(state);
        self.method.hash(state);
        for (name, value) in &self.headers {
            name.as_str().hash(state);
            value.as_bytes().hash(state);
        }
        self.body.hash(state);
        self.expect.hash(state);
    }
}

/// What an HTTP probe expects; all of it must hold.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Expect {
    /// Ranges of statuses that pass. Default 200-399. Redirects are not followed.
    pub status: Vec<StatusRange>,
    /// Ranges of statuses that say that the backend is degraded. Default none.
    pub degraded_status: Vec<StatusRange>,
    /// What header fields must be, one of those of a name at least.
    pub headers: Vec<(HeaderName, Wanted)>,
    /// What the first 64 KiB of the body must hold; `None` does not read the body for it.
    pub body: Option<Wanted>,
    /// What fields of a JSON body must be.
    pub json: Vec<(JsonPath, Wanted)>,
    /// Whether what the body says of the backend counts.
    pub document: Document,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            status: vec![StatusRange { first: 200, last: 399 }],
            degraded_status: vec![],
            headers: vec![],
            body: None,
            json: vec![],
            document: Document::default(),
        }
    }
}

/// Whether a health document in the body of an answer counts.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Document {
    /// It is a body like any other.
    Ignore,
    /// What it says of the whole decides, even where the status passes.
    #[default]
    Read,
}

/// An inclusive range of statuses.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StatusRange {
    /// The lowest that passes.
    pub first: u16,
    /// The highest that passes.
    pub last: u16,
}

impl StatusRange {
    /// Reads `503` or `200-399`, from 200 to 599; `None` for any other form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let parse =
            |text: &str| text.parse::<u16>().ok().filter(|status| text.len() == 3 && (200..=599).contains(status));
        let (first, last) = (parse(first)?, parse(last)?);
        (first <= last).then_some(Self { first, last })
    }

    /// Whether the status lies within.
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}
