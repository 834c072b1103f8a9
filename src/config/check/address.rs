//! The address of a backend: `HOST:PORT`, `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:PATH`.

use std::net::{IpAddr, Ipv4Addr};

use super::Check;
use crate::{
    base::Name,
    config::{diagnostics::Code, plan::Host, yaml::At},
};

/// What the system's socket addresses have room for.
const LONGEST_UNIX_PATH: usize = 107;

impl<'a> Check<'a> {
    /// The host and port of a backend, and whether TLS is spoken to it.
    pub(super) fn address(&mut self, at: At<'a>, text: &str) -> Option<(Host, u16, bool)> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some((self.unix_socket(at, path)?, 0, false));
        }
        let (authority, default_port) = self.authority(at, text)?;
        let (host, port) = split_port(authority);
        let port = match (port, default_port) {
            (Some("0"), _) => {
                let finding = self.finding(Code::OutOfRange, at, "port 0 is not a port to connect to");
                self.report(finding.label("from 1 to 65535"));
                None
            }
            (Some(port), _) => self.port(at, port),
            (None, Some(port)) => Some(port),
            (None, None) => {
                self.no_port(at, host);
                return None;
            }
        };
        Some((self.host(at, host)?, port?, text.starts_with("https://")))
    }

    /// The path of a Unix socket, from the folder of the config.
    fn unix_socket(&mut self, at: At<'a>, path: &str) -> Option<Host> {
        let full = self.folder.join(path);
        if path.is_empty() || full.as_os_str().len() > LONGEST_UNIX_PATH {
            let finding = self.finding(Code::NotAnAddress, at, format!("`{}` is not a Unix socket", at.shown()));
            self.report(finding.label(format!("write unix:/run/app.sock, at most {LONGEST_UNIX_PATH} bytes")));
            return None;
        }
        Some(Host::Unix(full.into()))
    }

    /// What stands between the scheme and the path, and the scheme's port.
    fn authority<'t>(&mut self, at: At<'a>, text: &'t str) -> Option<(&'t str, Option<u16>)> {
        if text.contains('@') {
            self.mask(at);
            let finding = self.finding(Code::NotAnAddress, at, "a backend's address has credentials in it");
            self.report(finding.label("backends take none: write http://HOST:PORT"));
            return None;
        }
        let schemes = [("http://", 80), ("https://", 443)];
        let written = schemes.into_iter().find_map(|(scheme, port)| Some((text.strip_prefix(scheme)?, Some(port))));
        let (rest, default_port) = written.unwrap_or((text, None));
        if rest.contains("://") {
            let finding = self.finding(Code::NotAnAddress, at, format!("`{}` is not a backend's address", at.shown()));
            self.report(finding.label("backends speak http:// or https://"));
            return None;
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !matches!(path, "" | "/") {
            let mut finding = self.finding(Code::NotAnAddress, at, format!("backend `{}` has a path", at.shown()));
            finding.span = at.part(path);
            self.report(finding.label("backends take no path: every request keeps its own"));
            return None;
        }
        Some((authority, default_port))
    }

    fn no_port(&mut self, at: At<'a>, host: &str) {
        let shown = at.shown();
        if host.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() {
            let finding = self.finding(Code::NotAnAddress, at, format!("backend `{shown}` has no host"));
            self.report(finding.label(format!("write 127.0.0.1:{shown}")).fix(format!("127.0.0.1:{shown}")));
            return;
        }
        let finding = self.finding(Code::NotAnAddress, at, format!("backend `{shown}` has no port"));
        self.report(finding.label(format!("write {shown}:80 or http://{shown}")));
    }

    fn host(&mut self, at: At<'a>, host: &str) -> Option<Host> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(host).parse::<IpAddr>()
            && bare.is_some() == ip.is_ipv6()
        {
            return Some(Host::Ip(ip));
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Some(Host::Ip(Ipv4Addr::LOCALHOST.into()));
        }
        let label = if host.is_empty() {
            "write a host before the port, like 127.0.0.1"
        } else if host.contains(':') {
            "write IPv6 in brackets: [::1]:9001"
        } else if host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            "an IPv4 address has four numbers up to 255"
        } else if !is_dns_name(host) {
            "a host is made of letters, digits, - and ."
        } else {
            return Some(Host::Dns(Name::derived(host.trim_end_matches('.').to_ascii_lowercase())));
        };
        let finding = self.finding(Code::NotAnAddress, at, format!("`{}` is not a backend's address", at.shown()));
        self.report(finding.label(label));
        None
    }
}

/// The part after the last colon outside brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Whether a text can be looked up: labels of letters, digits, hyphens and underscores, within DNS lengths.
pub(super) fn is_dns_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed) && !label.starts_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}
