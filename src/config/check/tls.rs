//! Certificates and keys: read, matched, and held against the clock and the routes.

use std::time::{Duration, SystemTime};

use super::{Check, Listeners, Routes};
use crate::{
    base::Name,
    config::{
        diagnostics::{Code, Diagnostic},
        plan::{self, Backend, HostPattern, Protocol, UpstreamTls},
        spec::{Any, CertSpec, ListenerTlsSpec, UpstreamTlsSpec, Written},
        suggest,
        yaml::At,
    },
    tls::{self, Acceptor, Authorities, Certificate, ClientAuth, Flaw, PeerName, Tls, Trust, Version},
};

const DAY: u64 = 86_400;

impl<'a> Check<'a> {
    pub(super) fn listener_tls(&mut self, at: At<'a>, written: &ListenerTlsSpec, http2: bool) -> Option<plan::Tls> {
        let list = at.key("certs");
        let entries: Vec<_> = written.certs.iter().flat_map(|certs| &certs.0).collect();
        let mut certificates = vec![];
        for (i, entry) in entries.iter().enumerate() {
            match entry {
                Some(entry) => certificates.extend(self.certificate(list.item(i), entry)),
                None => self.empty_item(list.item(i)),
            }
        }
        if entries.is_empty() {
            self.missing(at, "certs", "this `tls`", "add certs: [{ cert: site.pem, key: site.key }]");
            if written.certs.is_some() {
                let finding = self.finding(Code::Missing, list, "`certs` is empty");
                self.report(finding.label("add { cert: site.pem, key: site.key }"));
            }
        }
        let versions = [("1.2", Version::V12), ("1.3", Version::V13)];
        let min_version = written.min_version.as_ref();
        let min_version = self.choice(at, "min_version", min_version, "a version of TLS that is spoken", &versions);
        let client_auth = self.client_auth(at, written);
        let client_subject = written.client_subject.as_ref();
        let client_subject = client_subject.and_then(|name| self.header(at.key("client_subject"), &name.text));
        if written.client_subject.is_some() && client_auth.is_none() && !at.has("client_ca") {
            let finding = self.finding(Code::Missing, at.key("client_subject"), "`client_subject` has no `client_ca`");
            self.report(finding.label("add client_ca: ca.pem, whose clients are let in"));
        }
        let max_handshakes = self.count(at, "max_handshakes", written.max_handshakes.as_ref(), 1..=100_000);
        let is_complete = certificates.len() == entries.len() && !entries.is_empty();
        let min_version = min_version.unwrap_or(Version::V12);
        let shown = is_complete.then_some(Tls { certificates, min_version, client_auth, http2 })?;
        if let Err(why) = Acceptor::new(&shown) {
            let finding = self.bad_certificate(at, &format!("this `tls` cannot be used: {why}"));
            self.report(finding);
            return None;
        }
        Some(plan::Tls { shown, client_subject, max_handshakes: max_handshakes.unwrap_or(1_024) })
    }

    fn client_auth(&mut self, at: At<'a>, written: &ListenerTlsSpec) -> Option<ClientAuth> {
        let choices = [("required", true), ("optional", false)];
        let required = self.choice(at, "client_auth", written.client_auth.as_ref(), "a client_auth", &choices);
        let Some(ca) = &written.client_ca else {
            if required.is_some() {
                let finding = self.finding(Code::Missing, at.key("client_auth"), "`client_auth` has no `client_ca`");
                self.report(finding.label("add client_ca: ca.pem, whose clients are let in"));
            }
            return None;
        };
        let authorities = self.authorities(at.key("client_ca"), ca)?;
        Some(ClientAuth { authorities, required: required.unwrap_or(true) })
    }

    fn authorities(&mut self, at: At<'a>, written: &Written<Any>) -> Option<Authorities> {
        let pem = self.pem(at, written)?;
        match Authorities::read(pem.as_bytes()) {
            Ok(authorities) => Some(authorities),
            Err(flaw) => {
                let finding = self.bad_certificate(at, &format!("{} {flaw}", named(at)));
                self.report(finding.label("a PEM file with the certificates of the authorities"));
                None
            }
        }
    }

    fn certificate(&mut self, at: At<'a>, written: &CertSpec) -> Option<Certificate> {
        self.pair(at, written.cert.as_ref(), written.key.as_ref())
    }

    /// The fields `cert` and `key` of a block.
    fn pair(&mut self, at: At<'a>, cert: Option<&Written<Any>>, key: Option<&Written<Any>>) -> Option<Certificate> {
        let (cert_at, key_at) = (at.key("cert"), at.key("key"));
        let Some(cert) = cert else {
            self.missing(at, "cert", "this certificate", "add cert: site.pem");
            return None;
        };
        let Some(key) = key else {
            self.missing(at, "key", "this certificate", "add key: site.key (the same file may hold both)");
            return None;
        };
        let (chain, key) = (self.pem(cert_at, cert), self.pem(key_at, key));
        let certificate = match Certificate::read(chain?.as_bytes(), key?.as_bytes()) {
            Ok(certificate) => certificate,
            Err(flaw) => {
                let finding = match flaw {
                    Flaw::Mismatch => self
                        .bad_certificate(cert_at, &format!("{} does not match its key", named(cert_at)))
                        .label("the first certificate of the file must be the one that the key was made for")
                        .related(key_at.span(), "the key"),
                    Flaw::NoKey | Flaw::KeyKind => self
                        .bad_certificate(key_at, &format!("{} {flaw}", named(key_at)))
                        .label("PKCS#8, PKCS#1 or SEC1 in PEM, not encrypted; RSA, ECDSA or Ed25519"),
                    Flaw::OldVersion => self
                        .bad_certificate(cert_at, &format!("{} {flaw}", named(cert_at)))
                        .label("make it anew with its names: openssl req -x509 -addext subjectAltName=DNS:NAME ..."),
                    Flaw::NoCertificate | Flaw::NotX509 => self
                        .bad_certificate(cert_at, &format!("{} {flaw}", named(cert_at)))
                        .label("PEM: the certificate of the server first, then those of its authorities"),
                };
                self.report(finding);
                return None;
            }
        };
        self.in_time(cert_at, &certificate).then_some(certificate)
    }

    /// Says when a certificate is not valid now, or not for long.
    fn in_time(&mut self, at: At<'a>, certificate: &Certificate) -> bool {
        let (facts, now) = (certificate.facts(), SystemTime::now());
        let name = named(at);
        if let Some(ago) = facts.expired_for(now) {
            let finding = self.bad_certificate(at, &format!("{name} expired {} ago", days(ago)));
            self.report(finding.label("renew it"));
            return false;
        }
        if let Some(wait) = facts.valid_in(now) {
            let finding = self.bad_certificate(at, &format!("{name} is not valid yet: it will be in {}", days(wait)));
            self.report(finding.label("check the clock of this machine, or take the certificate before it"));
            return false;
        }
        if let Some(left) = facts.not_after.duration_since(now).ok().filter(|left| *left < Certificate::SOON) {
            let finding = self.finding(Code::ExpiresSoon, at, format!("{name} expires in {}", days(left)));
            self.report(finding.label("renew it"));
        }
        true
    }

    /// TLS to the backends of an upstream: all of them, or none.
    pub(super) fn upstream_tls(
        &mut self,
        at: At<'a>,
        upstream: &Name,
        written: Option<&UpstreamTlsSpec>,
        backends: &[Backend],
        protocol: Protocol,
    ) -> Option<UpstreamTls> {
        let (tls_at, first) = (at.key("tls"), backends.first()?);
        if let Some(odd) = backends.iter().find(|backend| backend.tls != first.tls) {
            let place = |backend: &Backend| self.backend_places.get(&(upstream.clone(), backend.name.clone())).copied();
            let (odd_at, first_at) = (place(odd).unwrap_or(at), place(first).unwrap_or(at));
            let finding = self.finding(Code::Contradiction, odd_at, "some backends speak TLS and some do not");
            let finding = finding.label("write https:// for all of them or for none");
            self.report(finding.related(first_at.span(), "unlike this one"));
            return None;
        }
        if !first.tls {
            if written.is_some() {
                let finding = self.finding(Code::Contradiction, tls_at, "no backend here speaks TLS");
                self.report(finding.label("write the backends with https://, or delete this"));
            }
            if protocol == Protocol::Auto {
                let finding = self.finding(Code::Contradiction, at.key("protocol"), "`auto` is for TLS to backends");
                self.report(finding.label("without TLS nothing is agreed on: write http1 or http2"));
            }
            return None;
        }
        let plain = UpstreamTlsSpec::default();
        let written = written.unwrap_or(&plain);
        self.peer_tls(tls_at, written, offered(protocol))
    }

    /// The fields of a block `tls` that is about backends.
    pub(super) fn peer_tls(
        &mut self,
        at: At<'a>,
        written: &UpstreamTlsSpec,
        offered: Vec<tls::Protocol>,
    ) -> Option<UpstreamTls> {
        let name = written.sni.as_ref().and_then(|sni| self.peer_name(at.key("sni"), &sni.text));
        Some(UpstreamTls { trust: self.trust(at, written, offered)?, name })
    }

    fn trust(&mut self, at: At<'a>, written: &UpstreamTlsSpec, offered: Vec<tls::Protocol>) -> Option<Trust> {
        let verify = self.flag(at, "verify", written.verify.as_ref()).unwrap_or(true);
        if !verify {
            let finding =
                self.finding(Code::Unverified, at.key("verify"), "backends do not have to prove who they are");
            self.report(finding.label("name their authority in `ca` instead"));
        }
        let authorities = written.ca.as_ref().map(|ca| self.authorities(at.key("ca"), ca));
        let is_anonymous = written.cert.is_none() && written.key.is_none();
        let identity = (!is_anonymous).then(|| self.pair(at, written.cert.as_ref(), written.key.as_ref()));
        if verify && authorities.is_none() && !tls::has_system_authorities() {
            let finding = self.finding(Code::BadCertificate, at, "this system trusts no authority at all");
            self.report(finding.label("install its package of CA certificates, or name a `ca`"));
            return None;
        }
        // What is written and cannot be used has been reported.
        let authorities = authorities.map_or(Some(None), |read| read.map(Some))?;
        let identity = identity.map_or(Some(None), |read| read.map(Some))?;
        let trust = Trust { verify, authorities, identity, offered };
        if let Err(why) = tls::Connector::new(&trust) {
            let finding = self.bad_certificate(at, &format!("this `tls` cannot be used: {why}"));
            self.report(finding);
            return None;
        }
        Some(trust)
    }

    fn peer_name(&mut self, at: At<'a>, text: &str) -> Option<PeerName> {
        let name = PeerName::parse(text);
        if name.is_none() {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a host", at.shown()));
            self.report(finding.label("write it like orders.internal"));
        }
        name
    }

    /// A PEM text: written there, or in the file that is named there.
    pub(super) fn pem(&mut self, at: At<'a>, written: &Written<Any>) -> Option<String> {
        if written.text.contains("-----BEGIN") {
            self.mask(at);
            return Some(written.text.clone());
        }
        self.read_file(at, &written.text)
    }

    fn bad_certificate(&self, at: At<'a>, message: &str) -> Diagnostic {
        self.finding(Code::BadCertificate, at, message)
    }

    /// Hosts of routes that a listener with TLS serves and none of its certificates covers.
    pub(super) fn uncovered_hosts(&mut self, listeners: &Listeners<'a>, routes: &Routes<'a>) {
        for listener in listeners {
            let Some(tls) = &listener.value.tls else { continue };
            let names = || tls.shown.certificates.iter().flat_map(|certificate| &certificate.facts().names);
            let is_covered =
                |host: &str| tls.shown.certificates.iter().any(|certificate| certificate.facts().covers(host));
            for route in &routes.routes {
                let served = &route.value.listeners;
                if served.as_ref().is_some_and(|served| !served.contains(&listener.value.name)) {
                    continue;
                }
                let exact = route.value.hosts.iter().filter_map(|host| match host {
                    HostPattern::Exact(host) => Some(&**host),
                    _ => None,
                });
                for host in exact.filter(|host| !is_covered(host)) {
                    let message = format!("no certificate of listener `{}` covers {host}", listener.value.name);
                    let finding = self.finding(Code::Uncovered, route.at.key("host"), message);
                    let finding = finding.label("clients will refuse the connection");
                    self.report(finding.note(format!("covered: {}", suggest::list(names().map(String::as_str)))));
                }
            }
        }
    }
}

/// What is offered in the handshake with a backend, to speak this.
pub(super) fn offered(protocol: Protocol) -> Vec<tls::Protocol> {
    match protocol {
        Protocol::Auto => vec![tls::Protocol::Http2, tls::Protocol::Http1],
        Protocol::Http1 => vec![tls::Protocol::Http1],
        Protocol::Http2 => vec![tls::Protocol::Http2],
    }
}

/// The file as written; what a `${…}` stands for is not shown.
fn named(at: At<'_>) -> String {
    match at.shown() {
        text if text.is_empty() || text.starts_with("-----BEGIN") => "this text".to_owned(),
        text => text,
    }
}

fn days(time: Duration) -> String {
    match time.as_secs() / DAY {
        0 => format!("{} h", time.as_secs() / 3600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}
