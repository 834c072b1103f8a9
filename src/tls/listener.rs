//! What a listener shows its clients: which certificate to whom, and what it asks of theirs.

use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::CertificateDer;

use super::{Certificate, Flaw, Protocol, certificate::certificates, provider};

/// What a listener shows its clients, as configured.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Tls {
    /// By the name that a client asks for; the first is for those that ask for none, or for one that no certificate has.
    pub certificates: Vec<Certificate>,
    /// The oldest version that is spoken.
    pub min_version: Version,
    /// Whose clients are let in; `None` asks for no certificate.
    pub client_auth: Option<ClientAuth>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

/// What is asked of clients' certificates.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClientAuth {
    /// Who may have signed them.
    pub authorities: Authorities,
    /// Whether a client without one is refused.
    pub required: bool,
}

/// Certificates of authorities.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Reads them from PEM.
    ///
    /// # Errors
    /// There is none, or one cannot be used.
    pub fn read(pem: &[u8]) -> Result<Self, Flaw> {
        let found = Self(certificates(pem)?);
        found.roots().map(|_| found)
    }

    pub(super) fn roots(&self) -> Result<RootCertStore, Flaw> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone()).map_err(|_| Flaw::NotX509)?;
        }
        Ok(roots)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} authorities", self.0.len())
    }
}

impl Tls {
    /// The configuration that handshakes use. Session tickets are good for this one alone: a session that was begun where
    /// nobody asks for a client certificate is not resumed where somebody does (CVE-2025-23419).
    pub(super) fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let versions: &[&SupportedProtocolVersion] = match self.min_version {
            Version::V12 => &[&TLS13, &TLS12],
            Version::V13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
        let builder = match &self.client_auth {
            None => builder.with_no_client_auth(),
            Some(auth) => {
                let roots = auth.authorities.roots().map_err(|flaw| rustls::Error::General(flaw.to_string()))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = if auth.required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown::new(&self.certificates)));
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.alpn_protocols = match self.http2 {
            true => vec![Protocol::Http2.alpn().to_vec(), Protocol::Http1.alpn().to_vec()],
            false => vec![Protocol::Http1.alpn().to_vec()],
        };
        Ok(config)
    }
}

/// Which certificate is shown to whom.
#[derive(Debug)]
struct Shown {
    all: Vec<Arc<CertifiedKey>>,
    // Places in the above, in the order of the file: an RSA and an ECDSA certificate may have the same name.
    by_name: HashMap<String, Vec<usize>>,
}

impl Shown {
    fn new(certificates: &[Certificate]) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, certificate) in certificates.iter().enumerate() {
            for name in &certificate.facts().names {
                by_name.entry(name.clone()).or_default().push(place);
            }
        }
        Self { all: certificates.iter().map(|certificate| Arc::clone(certificate.certified())).collect(), by_name }
    }

    fn places(&self, name: &str) -> Option<&[usize]> {
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.by_name.get(&format!("*.{parent}")));
        self.by_name.get(name).or_else(wildcard).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.as_deref().and_then(|name| self.places(name));
        let able = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = match named {
            Some(places) => places.iter().filter_map(|place| self.all.get(*place)).find(able),
            None => self.all.iter().find(able),
        };
        chosen.or_else(|| self.all.first()).cloned()
    }
}
