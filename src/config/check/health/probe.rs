//! What a probe asks, where, and with what around it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};

use super::{
    super::{tls::offered, upstream::is_host},
    Check, Reached,
};
use crate::config::{
    diagnostics::Code,
    plan::{GrpcProbe, Host, HttpProbe, ProbeKind, ProbeTls, Protocol, TcpProbe, UpstreamTls},
    spec::{self, ActiveSpec, ExpectSpec, Named, ShortOr, Written},
    suggest,
    yaml::At,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Grpc,
    Http,
    Tcp,
    Tls,
}
use Kind::{Grpc, Http, Tcp, Tls};

const KINDS: &[(&str, Kind)] = &[("http", Http), ("tcp", Tcp), ("tls", Tls), ("grpc", Grpc)];

/// Fields that not every kind of check has.
const FIELDS: &[(&str, &[Kind])] = &[
    ("path", &[Http]),
    ("method", &[Http]),
    ("headers", &[Http]),
    ("body", &[Http]),
    ("protocol", &[Http]),
    ("send", &[Tcp]),
    ("service", &[Grpc]),
    ("expect", &[Http, Tcp, Tls]),
];

/// The same for what is expected.
const EXPECTED: &[(&str, &[Kind])] = &[
    ("status", &[Http]),
    ("degraded_status", &[Http]),
    ("headers", &[Http]),
    ("body", &[Http, Tcp]),
    ("json", &[Http]),
    ("document", &[Http]),
    ("valid_for", &[Tls]),
];

impl<'a> Check<'a> {
    pub(super) fn probe(&mut self, at: At<'a>, written: &ActiveSpec) -> ProbeKind {
        let kind = self.choice(at, "type", written.kind.as_ref(), "a kind of probe", KINDS);
        if kind.is_some() || !at.has("type") {
            self.foreign_fields(at, kind.unwrap_or(Http));
        }
        let nothing = ExpectSpec::default();
        let expect = written.expect.as_ref().unwrap_or(&nothing);
        match kind.unwrap_or(Http) {
            Grpc => ProbeKind::Grpc(self.grpc_probe(at, written)),
            Http => ProbeKind::Http(self.http_probe(at, written, expect)),
            Tcp => {
                let send = written.send.as_ref().map(|send| send.text.clone());
                if send.as_deref() == Some("") {
                    let finding = self.finding(Code::Invalid, at.key("send"), "nothing would be sent");
                    self.report(finding.label("write what to send, or delete it"));
                }
                ProbeKind::Tcp(TcpProbe { send, expect: self.expected_body(at.key("expect"), expect) })
            }
            Tls => ProbeKind::Tls(self.tls_probe(at.key("expect"), expect)),
        }
    }

    /// Fields that another kind of check has.
    fn foreign_fields(&mut self, at: At<'a>, kind: Kind) {
        let word = |kind: &Kind| KINDS.iter().find(|(_, known)| known == kind).map_or("", |(word, _)| *word);
        let expect_at = at.key("expect");
        let is_expected = FIELDS.iter().any(|(field, kinds)| *field == "expect" && kinds.contains(&kind));
        let within = if is_expected { EXPECTED } else { &[] };
        for (at, fields) in [(at, FIELDS), (expect_at, within)] {
            for (field, kinds) in fields.iter().filter(|(field, kinds)| at.has(field) && !kinds.contains(&kind)) {
                let article = if kind == Http { "an" } else { "a" };
                let message = format!("`{field}` does not belong in {article} {} check", word(&kind));
                let mut finding = self.finding(Code::Misplaced, at.key(field), message);
                finding.span = at.key(field).key_span();
                let others: Vec<&str> = kinds.iter().map(word).collect();
                self.report(finding.label(format!("delete it, or write type: {}", others.join(" or "))));
            }
        }
    }

    fn grpc_probe(&mut self, at: At<'a>, written: &ActiveSpec) -> GrpcProbe {
        let Some(service) = &written.service else { return GrpcProbe::default() };
        let at = at.key("service");
        if service.text.len() > 255 || service.text.chars().any(char::is_control) {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not the name of a service", at.shown()));
            self.report(finding.label("write it like my.package.Service"));
        }
        GrpcProbe { service: service.text.clone() }
    }

    fn http_probe(&mut self, at: At<'a>, written: &ActiveSpec, expect: &ExpectSpec) -> HttpProbe {
        let plain = HttpProbe::default();
        let path = written.path.as_ref().and_then(|path| self.probe_path(at.key("path"), &path.text));
        let method = written.method.as_ref().and_then(|method| self.method(at.key("method"), &method.text));
        let method = method.unwrap_or(plain.method);
        let headers = written.headers.as_ref().map(|headers| self.own_headers(at.key("headers"), headers, "a probe"));
        let body = written.body.as_ref().map(|body| body.text.clone());
        let with_body = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
        if body.is_some() && !with_body.contains(&method) {
            let methods = suggest::list(with_body.iter().map(Method::as_str));
            let finding = self.finding(Code::Contradiction, at.key("body"), "a probe with this method sends no body");
            let finding = finding.label("write method: POST; what the answer must hold is written in `expect`");
            self.report(finding.note(format!("methods with a body: {methods}")));
        }
        let expect = self.expect(at.key("expect"), expect, &method);
        HttpProbe { path: path.unwrap_or(plain.path), method, headers: headers.unwrap_or_default(), body, expect }
    }

    pub(super) fn probe_path(&mut self, at: At<'a>, path: &str) -> Option<String> {
        let parses = path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == path);
        if path.starts_with('/') && parses {
            return Some(path.to_owned());
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a path to probe", at.shown()));
        self.report(finding.label("write it like /healthz or /healthz?full=1"));
        None
    }

    /// Headers that an operator has every request of ours to somebody carry. `whose` names the request with its article.
    pub(in crate::config::check) fn own_headers(
        &mut self,
        at: At<'a>,
        headers: &Named<Written<spec::Any>>,
        whose: &str,
    ) -> Vec<(HeaderName, HeaderValue)> {
        const FRAMING: &[&str] = &["connection", "content-length", "te", "trailer", "transfer-encoding", "upgrade"];
        const SECRET: &[&str] = &["authorization", "cookie", "proxy-authorization", "x-api-key"];
        let mut checked = vec![];
        for (name, value) in &headers.0 {
            let at = at.key(name);
            let lower = name.to_ascii_lowercase();
            if SECRET.contains(&lower.as_str()) && !at.is_expanded() {
                self.mask(at);
                let finding = self.finding(Code::PlainSecret, at, format!("`{name}` is written in plain text"));
                self.report(finding.label("write ${NAME} or ${file:PATH}"));
            }
            let finding = match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value.text)) {
                (Ok(header), _) if FRAMING.contains(&header.as_str()) => {
                    self.finding(Code::Invalid, at, format!("`{name}` cannot be set on {whose}")).label("delete it")
                }
                (Ok(header), _) if header == http::header::HOST && !is_host(&value.text) => self
                    .finding(Code::Invalid, at, format!("`{}` is not a host", at.shown()))
                    .label("write it like orders.internal or orders.internal:8080"),
                (Ok(header), Ok(value)) => {
                    checked.push((header, value));
                    continue;
                }
                (Err(_), _) => {
                    // It may be a misspelt one that carries a secret.
                    self.mask(at);
                    let mut finding = self.finding(Code::Invalid, at, format!("`{name}` is not the name of a header"));
                    finding.span = at.key_span();
                    finding
                }
                (_, Err(_)) => self
                    .finding(Code::Invalid, at, format!("the value of `{name}` cannot be sent in a header"))
                    .label("printable ASCII only"),
            };
            self.report(finding);
        }
        checked.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        checked
    }

    /// The address to ask instead of the backends' own.
    pub(super) fn probe_address(&mut self, block: At<'a>, text: &str, reached: Reached<'_>) -> Option<IpAddr> {
        let at = block.key("address");
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let ip = match bare.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) if text == "localhost" => Ipv4Addr::LOCALHOST.into(),
            Err(_) => {
                let finding = self.finding(Code::NotAnAddress, at, format!("`{}` is not an IP address", at.shown()));
                let label = match text.parse::<SocketAddr>() {
                    Ok(both) if !at.is_expanded() => format!("write address: {}, port: {}", both.ip(), both.port()),
                    _ => "write it like 10.0.0.9; the port is written in `port`".to_owned(),
                };
                self.report(finding.label(label));
                return None;
            }
        };
        if !block.has("port") && reached.backends.iter().any(|backend| matches!(backend.host, Host::Unix(_))) {
            let finding = self.finding(Code::Missing, at, "this check has no `port`, and neither has a Unix socket");
            self.report(finding.label("add the port to ask at this address"));
        }
        Some(ip)
    }

    /// Which HTTP a probe speaks, and what TLS is around it.
    pub(super) fn transport(
        &mut self,
        at: At<'a>,
        kind: &ProbeKind,
        written: &ActiveSpec,
        reached: Reached<'_>,
    ) -> (Option<Protocol>, ProbeTls) {
        let protocol = match kind {
            ProbeKind::Grpc(_) => Some(Protocol::Http2),
            ProbeKind::Http(_) => self.protocol(at, written.protocol.as_ref()),
            ProbeKind::Tcp(_) | ProbeKind::Tls(_) => None,
        };
        // What is not HTTP may not know any of its names.
        let offered = match kind {
            ProbeKind::Grpc(_) | ProbeKind::Http(_) => offered(protocol.unwrap_or(reached.protocol)),
            ProbeKind::Tcp(_) | ProbeKind::Tls(_) => vec![],
        };
        let tls = match (&written.tls, reached.tls) {
            (None, Some(tls)) if protocol.is_some() && offered != tls.trust.offered => {
                let mut own = UpstreamTls::clone(tls);
                own.trust.offered = offered;
                ProbeTls::Own(Box::new(own))
            }
            (None, _) => ProbeTls::AsBackend,
            (Some(ShortOr::Fields(fields)), _) => match self.peer_tls(at.key("tls"), fields, offered) {
                Some(own) => ProbeTls::Own(Box::new(own)),
                None => return (protocol, ProbeTls::AsBackend),
            },
            (Some(ShortOr::Short(short)), _) if short.text == "none" => ProbeTls::Plain,
            (Some(ShortOr::Short(_)), _) => {
                let at = at.key("tls");
                let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not TLS of a probe", at.shown()));
                self.report(finding.label("write none, or fields: { ca: ca.pem, sni: orders.internal }"));
                return (protocol, ProbeTls::AsBackend);
            }
        };
        self.needs_tls(at, kind, protocol, &tls, reached);
        (protocol, tls)
    }

    /// Says where there is no TLS and it takes some.
    fn needs_tls(
        &mut self,
        at: At<'a>,
        kind: &ProbeKind,
        protocol: Option<Protocol>,
        tls: &ProbeTls,
        reached: Reached<'_>,
    ) {
        let is_plain = match tls {
            // Backends that could not be read were reported.
            ProbeTls::AsBackend => reached.backends.first().is_some_and(|backend| !backend.tls),
            ProbeTls::Own(_) => false,
            ProbeTls::Plain => true,
        };
        if is_plain && matches!(kind, ProbeKind::Tls(_)) {
            let label = match tls {
                ProbeTls::Plain => "delete `tls: none`",
                ProbeTls::AsBackend | ProbeTls::Own(_) => "write the backends with https://, or `tls: {}` in the check",
            };
            let finding = self.finding(Code::Contradiction, at.key("type"), "nothing here speaks TLS");
            self.report(finding.label(label));
        }
        if is_plain && protocol == Some(Protocol::Auto) {
            let finding = self.finding(Code::Contradiction, at.key("protocol"), "`auto` is for TLS to backends");
            self.report(finding.label("without TLS nothing is agreed on: write http1 or http2"));
        }
    }
}
