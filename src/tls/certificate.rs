//! A certificate with its key, as files hold them: read, and checked as far as that is possible without a peer.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use x509_cert::{
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// A chain of certificates and the key of the first. Two are equal if their bytes are.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<PrivateKeyDer<'static>>,
    certified: Arc<CertifiedKey>,
    facts: Facts,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Facts {
    /// DNS names, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// As RFC 4514 writes it: `CN=api,O=Example`.
    pub subject: String,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// Why a certificate and its key cannot be used together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// No PEM block `CERTIFICATE`.
    #[error("holds no certificate")]
    NoCertificate,
    /// A PEM block that is not X.509.
    #[error("is not a certificate")]
    NotX509,
    /// No PEM block with a private key; encrypted ones do not count.
    #[error("holds no private key")]
    NoKey,
    /// X.509 version 1 or 2, as `openssl x509 -req` makes them without extensions: no name but the subject's, which clients
    /// have stopped to read (RFC 6125), and rustls takes none.
    #[error("is of an old version of X.509")]
    OldVersion,
    /// A key of a kind that TLS 1.2 and 1.3 do not use.
    #[error("is of a kind that is not supported")]
    KeyKind,
    /// The key of another certificate.
    #[error("does not match its key")]
    Mismatch,
}

impl Certificate {
    /// One that expires sooner is worth a warning.
    pub const SOON: Duration = Duration::from_secs(7 * 86_400);

    /// Reads a chain (the server's own certificate first) and its key, both PEM. They may be the same text.
    ///
    /// # Errors
    /// The first thing that keeps them from being used.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Flaw> {
        let chain = certificates(chain)?;
        let facts = chain.first().and_then(Facts::of).ok_or(Flaw::NotX509)?;
        if chain.first().is_some_and(|first| !is_version_3(first)) {
            return Err(Flaw::OldVersion);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Flaw::NoKey)?;
        let signer = aws_lc_rs::sign::any_supported_type(&key).map_err(|_| Flaw::KeyKind)?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| Flaw::Mismatch)?;
        Ok(Self { key: Arc::new(key), certified: Arc::new(certified), facts })
    }

    /// What it says of itself.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(super) const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// All certificates of a PEM text, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(Flaw::NoCertificate)
}

fn is_version_3(certificate: &CertificateDer<'_>) -> bool {
    let read = x509_cert::Certificate::from_der(certificate);
    read.is_ok_and(|certificate| certificate.tbs_certificate.version == x509_cert::Version::V3)
}

impl Facts {
    /// Of a certificate that can be read.
    #[must_use]
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(certificate).ok()?.tbs_certificate;
        let at = |time: x509_cert::time::Time| UNIX_EPOCH + time.to_unix_duration();
        let names = certificate.get::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0).unwrap_or_default();
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
            _ => None,
        });
        Some(Self {
            names: names.collect(),
            subject: certificate.subject.to_string(),
            not_before: at(certificate.validity.not_before),
            not_after: at(certificate.validity.not_after),
        })
    }

    /// What to call it: its first name, else its subject.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names.first().unwrap_or(&self.subject)
    }

    /// How long it has been invalid, as of now.
    #[must_use]
    pub fn expired_for(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.not_after).ok()
    }

    /// How long until it becomes valid.
    #[must_use]
    pub fn valid_in(&self, now: SystemTime) -> Option<Duration> {
        self.not_before.duration_since(now).ok().filter(|wait| !wait.is_zero())
    }

    /// Whether one of its names covers a host: the same, or a wildcard for its first label (RFC 9525, section 6.3).
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(rest) => parent == Some(rest),
            None => name == host,
        })
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert && self.key.secret_der() == other.key.secret_der()
    }
}

impl Eq for Certificate {}

impl Hash for Certificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.certified.cert.hash(state);
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("subject", &self.facts.subject).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    fn pem(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// The same as version 1, of which DER says nothing. (It needs no right signature to be read.)
    fn without_version(pem: &str) -> String {
        const VERSION: [u8; 5] = [0xa0, 3, 2, 1, 2];
        let mut der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        // Two sequences, with a length of two bytes each, and the version as the first thing in them.
        assert_eq!(
            (der[..2].to_vec(), der[4..6].to_vec(), &der[8..13]),
            (vec![0x30, 0x82], vec![0x30, 0x82], &VERSION[..])
        );
        der.drain(8..13);
        for at in [2, 6] {
            let length = u16::from_be_bytes([der[at], der[at + 1]]) - 5;
            der[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        let lines: Vec<String> =
            STANDARD.encode(&der).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    #[test]
    fn a_pair_is_read_and_says_what_it_covers() {
        let (cert, key) = pem(&["api.example.com", "*.Example.org"]);
        let certificate = Certificate::read(cert.as_bytes(), key.as_bytes()).unwrap();
        let facts = certificate.facts();
        assert!(facts.covers("api.example.com") && facts.covers("www.example.org"));
        assert!(!facts.covers("example.org") && !facts.covers("a.b.example.org") && !facts.covers("example.com"));
        assert_eq!(facts.expired_for(SystemTime::now()), None);
        assert_eq!(facts.valid_in(SystemTime::now()), None);
        assert_eq!(certificate, Certificate::read(cert.as_bytes(), key.as_bytes()).unwrap());
        assert!(!format!("{certificate:?}").contains("key"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let ((cert, key), (_, other)) = (pem(&["a"]), pem(&["a"]));
        let read = |cert: &str, key: &str| Certificate::read(cert.as_bytes(), key.as_bytes()).unwrap_err();
        assert_eq!(read(&cert, &other), Flaw::Mismatch);
        assert_eq!(read(&cert, &cert), Flaw::NoKey);
        assert_eq!(read(&key, &key), Flaw::NoCertificate);
        assert_eq!(read("", &key), Flaw::NoCertificate);
        let (long, key) = pem(&["a.test"; 40]);
        assert_eq!(read(&without_version(&long), &key), Flaw::OldVersion);
        assert_eq!(read("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key), Flaw::NotX509);
    }
}
