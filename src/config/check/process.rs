//! Listeners, workers, names, admin, logs, stop and reload.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{Check, Listeners, Placed};
use crate::{
    base::{Name, Percent, duration},
    config::{
        diagnostics::Code,
        plan::{
            AccessLog, Admin, Bind, ClientLimits, Destination, Dns, Family, Listener, Log, LogFormat, LogLevel,
            ProxyProtocol, Reload, Shutdown, Workers,
        },
        spec::{DnsSpec, ListenerSpec, ShortOr, SocketMode, Spec, Written},
        yaml::At,
    },
};

const DAY: Duration = Duration::from_secs(86_400);

/// The owner and the group may connect, as to files that others must not touch.
const SOCKET_MODE: u32 = 0o660;

/// What fits into the system's address of a Unix socket, in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// Where DNS servers listen.
const DNS_PORT: u16 = 53;

/// Requests at once on one HTTP/2 connection, where the file does not say.
const STREAMS: u32 = 128;

impl<'a> Check<'a> {
    pub(super) fn version(&mut self, spec: &Spec, at: At<'a>) {
        let Some(version) = &spec.version else { return };
        if version.text != "1" {
            let at = at.key("version");
            let finding =
                self.finding(Code::NotAChoice, at, format!("there is no version `{}` of this format", at.shown()));
            self.report(finding.label("the only version is 1").fix("1"));
        }
    }

    pub(super) fn listeners(&mut self, spec: &Spec, at: At<'a>) -> Listeners<'a> {
        let (client_header, client_idle) = self.client_timeouts();
        let mut listeners = vec![];
        if let Some(listen) = &spec.listen {
            let at = at.key("listen");
            if let Some(bind) = self.listen(at, &listen.text) {
                let name = Name::parse("main").expect("main is a name");
                let listener = Listener {
                    name,
                    bind,
                    proxy_protocol: None,
                    max_connections: 65_536,
                    limits: ClientLimits::default(),
                    http2: true,
                    max_concurrent_streams: STREAMS,
                    trusted_proxies: vec![],
                    tls: None,
                    redirect_to: None,
                    client_header,
                    client_idle,
                };
                listeners.push(Placed { value: Arc::new(listener), at });
            }
        }
        let block = at.key("listeners");
        for (name, written) in spec.listeners.iter().flat_map(|named| &named.0) {
            let at = block.key(name);
            let name = self.name(at, name, "a listener", true).unwrap_or_else(|| Name::derived(name.as_str()));
            if &*name == "main" && spec.listen.is_some() {
                let mut finding =
                    self.finding(Code::SameName, at, "`listen` is a listener named `main`, and so is this");
                finding.span = at.key_span();
                let listen = self.root.key("listen").key_span();
                self.report(
                    finding.label("delete `listen`, or give this another name").related(listen, "`listen` is here"),
                );
                continue;
            }
            let Some(bind) = self.listener_bind(at, written) else { continue };
            let trusted_proxies = self.trusted_proxies(at, written);
            let max_connections = self.count(at, "max_connections", written.max_connections.as_ref(), 1..=10_000_000);
            let streams = written.max_concurrent_streams.as_ref();
            let streams = self.count(at, "max_concurrent_streams", streams, 1..=10_000);
            let http2 = self.flag(at, "http2", written.http2.as_ref()).unwrap_or(true);
            let tls = written.tls.as_ref().map(|tls| self.listener_tls(at.key("tls"), tls, http2));
            let listener = Listener {
                name,
                bind,
                proxy_protocol: self.proxy_protocol(at, written),
                max_connections: max_connections.unwrap_or(65_536),
                limits: self.client_limits(at, written),
                http2,
                max_concurrent_streams: streams.unwrap_or(STREAMS),
                trusted_proxies,
                tls: tls.flatten(),
                redirect_to: None,
                client_header,
                client_idle,
            };
            listeners.push(Placed { value: Arc::new(listener), at });
        }
        self.redirects(spec, &mut listeners);
        let any = at.has("listen") || spec.listeners.as_ref().map_or(at.has("listeners"), |named| !named.0.is_empty());
        if !any && at.is_block() {
            let finding = self.finding(Code::Missing, at, "nothing listens");
            self.report(finding.label("add `listen: 8080`"));
        }
        listeners
    }

    fn client_limits(&mut self, at: At<'a>, written: &ListenerSpec) -> ClientLimits {
        let plain = ClientLimits::default();
        let requests = self.count(at, "max_requests", written.max_requests.as_ref(), 1..=1_000_000);
        let headers = self.count(at, "max_headers", written.max_headers.as_ref(), 1..=1_000);
        ClientLimits {
            requests: requests.unwrap_or(plain.requests),
            headers: headers.unwrap_or(plain.headers),
            header_size: self
                .bytes(at, "max_header_size", written.max_header_size.as_ref(), 1_024..=1_048_576)
                .unwrap_or(plain.header_size),
            uri: self.bytes(at, "max_uri", written.max_uri.as_ref(), 64..=65_536).unwrap_or(plain.uri),
        }
    }

    /// `redirect_from`: the other listener is told where it sends its clients.
    fn redirects(&mut self, spec: &Spec, listeners: &mut Listeners<'a>) {
        for (name, written) in spec.listeners.iter().flat_map(|named| &named.0) {
            let at = self.root.key("listeners").key(name);
            let port = self.count(at, "redirect_port", written.redirect_port.as_ref(), 1..=65_535);
            let port = port.and_then(|port| u16::try_from(port).ok());
            let Some(from) = &written.redirect_from else {
                if at.has("redirect_port") && !at.has("redirect_from") {
                    self.missing(
                        at,
                        "redirect_from",
                        "a redirect",
                        "add redirect_from: NAME, the listener without TLS",
                    );
                }
                continue;
            };
            let from_at = at.key("redirect_from");
            let own = listeners.iter().find(|placed| *placed.value.name == **name);
            let own_port = own.map(|placed| placed.value.bind.port());
            let known = listeners.iter_mut().find(|placed| *placed.value.name == *from.text);
            let problem = match (&known, &written.tls) {
                (_, None) => Some("this listener has no `tls` to send clients to".to_owned()),
                (Some(other), _) if other.value.tls.is_some() => {
                    Some(format!("listener `{}` speaks TLS itself", from.text))
                }
                (Some(other), _) if other.value.redirect_to.is_some() => {
                    Some(format!("listener `{}` sends its clients elsewhere already", from.text))
                }
                (Some(_), Some(_)) => None,
                (None, _) => {
                    let names = spec.listeners.iter().flat_map(|named| named.0.keys()).filter(|other| *other != name);
                    let names = names.map(String::as_str).chain(spec.listen.as_ref().map(|_| "main"));
                    self.unknown(from_at, "redirect_from", &from.text, names.collect());
                    continue;
                }
            };
            match (problem, known, port.or(own_port.flatten())) {
                (Some(problem), ..) => {
                    let finding = self.finding(Code::Contradiction, from_at, problem);
                    self.report(finding.label("the name of a listener that speaks plain HTTP"));
                }
                (None, Some(other), Some(port)) => Arc::make_mut(&mut other.value).redirect_to = Some(port),
                (None, Some(_), None) if own_port.is_some() => {
                    self.missing(at, "redirect_port", "a redirect to a Unix socket", "add redirect_port: 443");
                }
                (None, ..) => {}
            }
        }
    }

    /// `defaults.timeouts.client_header` and `.client_idle`.
    fn client_timeouts(&mut self) -> (Duration, Duration) {
        let at = self.root.key("defaults").key("timeouts");
        let timeouts = self.defaults.and_then(|defaults| defaults.timeouts.as_ref());
        let header = timeouts.and_then(|timeouts| timeouts.client_header.as_ref());
        let idle = timeouts.and_then(|timeouts| timeouts.client_idle.as_ref());
        let header = self.duration(at, "client_header", header, Duration::ZERO..=DAY);
        let idle = self.duration(at, "client_idle", idle, Duration::ZERO..=DAY);
        (header.unwrap_or(Duration::from_secs(10)), idle.unwrap_or(Duration::from_secs(75)))
    }

    fn listener_bind(&mut self, at: At<'a>, written: &ListenerSpec) -> Option<Bind> {
        match &written.bind {
            Some(bind) => {
                let bind = self.bind(at.key("bind"), &bind.text)?;
                Some(self.with_mode(at, written.socket_mode.as_ref(), bind))
            }
            None => {
                self.missing(at, "bind", "this listener", "add bind: \"0.0.0.0:8080\"");
                None
            }
        }
    }

    fn listen(&mut self, at: At<'a>, text: &str) -> Option<Bind> {
        match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            true => Some(Bind::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port(at, text)?))),
            false => self.bind(at, text),
        }
    }

    /// Gives a Unix socket the `socket_mode` of its block.
    fn with_mode(&mut self, block: At<'a>, written: Option<&Written<SocketMode>>, bind: Bind) -> Bind {
        let Some(written) = written else { return bind };
        let at = block.key("socket_mode");
        match bind {
            Bind::Tcp(_) => {
                let finding =
                    self.finding(Code::Contradiction, at, format!("{bind} is no file: it has no permissions"));
                self.report(finding.label("delete it, or bind \"unix:PATH\""));
                bind
            }
            Bind::Unix { path, .. } => Bind::Unix { path, mode: self.mode(at, &written.text).unwrap_or(SOCKET_MODE) },
        }
    }

    fn mode(&mut self, at: At<'a>, text: &str) -> Option<u32> {
        let digits = text.strip_prefix('0').filter(|digits| digits.len() == 3);
        let is_octal = |digits: &&str| digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = digits.filter(is_octal).and_then(|digits| u32::from_str_radix(digits, 8).ok());
        if mode.is_none() {
            let finding = self.finding(Code::Invalid, at, format!("`{}` are no permissions", at.shown()));
            self.report(finding.label("write a zero and three octal digits, in quotes: \"0660\""));
        }
        mode
    }

    fn proxy_protocol(&mut self, at: At<'a>, written: &ListenerSpec) -> Option<ProxyProtocol> {
        let choices = [
            ("none", None),
            ("v1", Some(ProxyProtocol::V1)),
            ("v2", Some(ProxyProtocol::V2)),
            ("any", Some(ProxyProtocol::Any)),
        ];
        let spoken =
            self.choice(at, "proxy_protocol", written.proxy_protocol.as_ref(), "a PROXY protocol", &choices)??;
        let trusts_nobody = written.trusted_proxies.as_ref().is_none_or(|list| list.0.is_empty());
        if trusts_nobody && !self.has_stray_field(at) {
            let message = "nobody is trusted to send the PROXY header";
            let finding = self.finding(Code::Missing, at.key("proxy_protocol"), message);
            self.report(finding.label("add trusted_proxies: [10.0.0.0/8], the addresses of those who send it"));
        }
        Some(spoken)
    }

    /// The number after the last colon, 0 to 65,535.
    pub(super) fn port(&mut self, at: At<'a>, text: &str) -> Option<u16> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse::<u16>().ok();
        if port.is_none() {
            let shown = if at.is_expanded() { at.shown() } else { text.to_owned() };
            let message = if digits && !at.is_expanded() {
                format!("port {text} is above 65535")
            } else {
                format!("`{shown}` is not a port")
            };
            let mut finding = self.finding(Code::OutOfRange, at, message);
            finding.span = at.part(text);
            self.report(finding.label("ports go up to 65535"));
        }
        port
    }

    fn bind(&mut self, at: At<'a>, text: &str) -> Option<Bind> {
        if let Some(path) = text.strip_prefix("unix:") {
            return self.socket_path(at, path).map(|path| Bind::Unix { path, mode: SOCKET_MODE });
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            let finding =
                self.finding(Code::NotAnAddress, at, format!("`{}` is not an address to listen on", at.shown()));
            let label = match text.parse::<u16>() {
                Ok(port) if !at.is_expanded() => {
                    format!("write \"0.0.0.0:{port}\" for every address, \"127.0.0.1:{port}\" for this machine")
                }
                _ => "write ADDRESS:PORT, like \"0.0.0.0:8080\"".to_owned(),
            };
            self.report(finding.label(label));
            return None;
        };
        let ip = match host {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            "" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            host => host.parse::<Ipv4Addr>().map(IpAddr::V4).ok().or_else(|| {
                let inside = host.strip_prefix('[')?.strip_suffix(']')?;
                inside.parse().map(|ip: Ipv6Addr| ip.to_canonical()).ok()
            }),
        };
        let Some(ip) = ip else {
            let finding =
                self.finding(Code::NotAnAddress, at, format!("`{}` is not an address to listen on", at.shown()));
            let label = match text.matches(':').count() > 1 && !host.starts_with('[') {
                true => "write IPv6 in brackets: \"[::1]:8080\"",
                false => "an IP address goes before the port: \"0.0.0.0:8080\"",
            };
            self.report(finding.label(label));
            return None;
        };
        Some(Bind::Tcp(SocketAddr::new(ip, self.port(at, port)?)))
    }

    fn socket_path(&mut self, at: At<'a>, text: &str) -> Option<PathBuf> {
        let path = self.folder.join(text);
        let finding = if text.is_empty() || text.ends_with('/') {
            let finding = self.finding(Code::NotAnAddress, at, format!("`{}` names no socket", at.shown()));
            finding.label("write \"unix:/run/tidegate/http.sock\"")
        } else if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            let message = format!("the path {} is too long for a socket", path.display());
            self.finding(Code::OutOfRange, at, message).label(format!("at most {LONGEST_SOCKET_PATH} bytes"))
        } else {
            return Some(path);
        };
        self.report(finding);
        None
    }

    fn trusted_proxies(&mut self, at: At<'a>, written: &ListenerSpec) -> Vec<IpNet> {
        let list = at.key("trusted_proxies");
        let mut networks = vec![];
        for (i, network) in written.trusted_proxies.iter().flat_map(|list| &list.0).enumerate() {
            let at = list.item(i);
            let Some(network) = network else {
                self.empty_item(at);
                continue;
            };
            let parsed = network.text.parse::<IpNet>().or_else(|_| network.text.parse::<IpAddr>().map(IpNet::from));
            match parsed {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => {
                    let finding = self.finding(Code::Invalid, at, format!("`{}` is not a network", at.shown()));
                    self.report(finding.label("write it like 10.0.0.0/8, fd00::/8 or 192.0.2.7"));
                }
            }
        }
        networks.sort();
        networks.dedup();
        networks
    }

    pub(super) fn max_probes(&mut self, spec: &Spec, at: At<'a>) -> usize {
        let most = self.count(at, "max_probes", spec.max_probes.as_ref(), 1..=100_000);
        most.and_then(|most| usize::try_from(most).ok()).unwrap_or(1_024)
    }

    pub(super) fn workers(&mut self, spec: &Spec, at: At<'a>) -> Workers {
        let Some(workers) = &spec.workers else { return Workers::Auto };
        if workers.text == "auto" {
            return Workers::Auto;
        }
        let at = at.key("workers");
        if workers.text.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'-') {
            let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not a number of workers", at.shown()));
            self.report(finding.label("write auto, or a number from 1 to 1024"));
            return Workers::Auto;
        }
        let count = self.number(at, "workers", &workers.text, 1..=1024);
        let count = count.and_then(|count| u16::try_from(count).ok()).and_then(NonZeroU16::new);
        count.map_or(Workers::Auto, Workers::Count)
    }

    pub(super) fn dns(&mut self, spec: &Spec, at: At<'a>) -> Dns {
        let default = Dns::default();
        let Some(written) = &spec.dns else { return default };
        let at = at.key("dns");
        let (tenth, minute) = (Duration::from_millis(100), Duration::from_secs(60));
        let families = [("any", Family::Any), ("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)];
        let (min_ttl, max_ttl) = self.ttls(at, written, &default);
        Dns {
            servers: self.dns_servers(at, written),
            timeout: self.duration(at, "timeout", written.timeout.as_ref(), tenth..=minute).unwrap_or(default.timeout),
            min_ttl,
            max_ttl,
            hold: self.duration(at, "hold", written.hold.as_ref(), Duration::ZERO..=DAY).unwrap_or(default.hold),
            family: self.choice(at, "family", written.family.as_ref(), "a family", &families).unwrap_or_default(),
        }
    }

    fn ttls(&mut self, at: At<'a>, written: &DnsSpec, default: &Dns) -> (Duration, Duration) {
        let bounds = Duration::from_millis(100)..=DAY;
        let min = self.duration(at, "min_ttl", written.min_ttl.as_ref(), bounds.clone());
        let max = self.duration(at, "max_ttl", written.max_ttl.as_ref(), bounds);
        match (min, max) {
            (Some(min), Some(max)) if min > max => {
                let message = format!("`max_ttl: {}` is below `min_ttl`", at.key("max_ttl").shown());
                let finding = self.finding(Code::Contradiction, at.key("max_ttl"), message);
                self.report(finding.label(format!("at least {}", duration::Written(min))));
                (min, min)
            }
            // One that is written alone moves the other's default.
            (Some(min), max) => (min, max.unwrap_or(default.max_ttl).max(min)),
            (None, max) => {
                let max = max.unwrap_or(default.max_ttl);
                (default.min_ttl.min(max), max)
            }
        }
    }

    fn dns_servers(&mut self, at: At<'a>, written: &DnsSpec) -> Vec<SocketAddr> {
        let list = at.key("servers");
        let mut servers = vec![];
        for (i, server) in written.servers.iter().flat_map(|list| &list.0).enumerate() {
            let at = list.item(i);
            let Some(server) = server else {
                self.empty_item(at);
                continue;
            };
            let ip = server.text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
            match server.text.parse::<SocketAddr>().or(ip).ok().filter(|server| server.port() != 0) {
                Some(server) => servers.push(server),
                None => {
                    let finding = self.finding(Code::NotAnAddress, at, format!("`{}` is not a DNS server", at.shown()));
                    self.report(finding.label("write its address: 10.0.0.2, 10.0.0.2:5353 or [fd00::2]:53"));
                }
            }
        }
        servers
    }

    pub(super) fn admin(&mut self, spec: &Spec, at: At<'a>) -> Option<Placed<'a, Admin>> {
        let default = Bind::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9901));
        let block = at.key("admin");
        let (bind, at) = match &spec.admin {
            None => (default, block),
            Some(ShortOr::Short(short)) => {
                if short.text != "none" {
                    let message = format!("`{}` is not an admin setting", block.shown());
                    let finding = self.finding(Code::NotAChoice, block, message);
                    self.report(finding.label("write none, or { bind: \"127.0.0.1:9901\" }"));
                }
                return None;
            }
            Some(ShortOr::Fields(fields)) => match &fields.bind {
                None => (self.with_mode(block, fields.socket_mode.as_ref(), default), block),
                Some(bind) => {
                    let at = block.key("bind");
                    let bind = self.bind(at, &bind.text);
                    let bind = bind.map(|bind| self.with_mode(block, fields.socket_mode.as_ref(), bind));
                    (bind.unwrap_or(default), at)
                }
            },
        };
        if let Bind::Tcp(address) = &bind
            && !address.ip().is_loopback()
        {
            let finding = self.finding(Code::OpenAdmin, at, "admin would be open to the network without auth");
            self.report(finding.label(format!("bind 127.0.0.1:{}, or a Unix socket", address.port())));
        }
        Some(Placed { value: Admin { bind }, at })
    }

    pub(super) fn access_log(&mut self, spec: &Spec, at: At<'a>) -> Option<AccessLog> {
        let written = spec.telemetry.as_ref()?.access_log.as_ref()?;
        let at = at.key("telemetry").key("access_log");
        self.choice(at, "format", written.format.as_ref(), "a format", &[("json", ())]);
        let to = match &written.to {
            None => Destination::Stdout,
            Some(to) if to.text == "stdout" => Destination::Stdout,
            Some(to) if to.text.is_empty() => {
                let finding = self.finding(Code::Invalid, at.key("to"), "the access log goes nowhere");
                self.report(finding.label("write stdout, or the path of a file"));
                Destination::Stdout
            }
            Some(to) => Destination::File(self.folder.join(&to.text)),
        };
        Some(AccessLog { to })
    }

    pub(super) fn log(&mut self, spec: &Spec, at: At<'a>) -> Log {
        let at = at.key("telemetry").key("log");
        let Some(written) = spec.telemetry.as_ref().and_then(|telemetry| telemetry.log.as_ref()) else {
            return Log::default();
        };
        let levels = [
            ("debug", LogLevel::Debug),
            ("info", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("error", LogLevel::Error),
        ];
        let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        Log {
            level: self.choice(at, "level", written.level.as_ref(), "a log level", &levels).unwrap_or_default(),
            format: self.choice(at, "format", written.format.as_ref(), "a log format", &formats).unwrap_or_default(),
        }
    }

    pub(super) fn shutdown(&mut self, spec: &Spec, at: At<'a>) -> Shutdown {
        let at = at.key("shutdown");
        let written = spec.shutdown.as_ref();
        let delay = written.and_then(|written| written.delay.as_ref());
        let timeout = written.and_then(|written| written.timeout.as_ref());
        let hour = Duration::from_secs(3_600);
        Shutdown {
            delay: self.duration(at, "delay", delay, Duration::ZERO..=hour).unwrap_or_default(),
            timeout: self.duration(at, "timeout", timeout, Duration::ZERO..=DAY).unwrap_or(Duration::from_secs(30)),
        }
    }

    pub(super) fn reload(&mut self, spec: &Spec, at: At<'a>) -> Reload {
        let at = at.key("reload");
        let written = spec.reload.as_ref();
        let debounce = written.and_then(|written| written.debounce.as_ref());
        let bounds = Duration::from_millis(10)..=Duration::from_secs(60);
        let min_healthy = written.and_then(|written| written.min_healthy.as_ref());
        Reload {
            watch: self.flag(at, "watch", written.and_then(|written| written.watch.as_ref())).unwrap_or(true),
            debounce: self.duration(at, "debounce", debounce, bounds).unwrap_or(Duration::from_millis(200)),
            min_healthy: self.percent(at, "min_healthy", min_healthy, Percent::whole(100)).unwrap_or(Percent::whole(0)),
        }
    }
}
