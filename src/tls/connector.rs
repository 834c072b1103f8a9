//! Backends' side of TLS: a socket in, a decrypted stream out, from a backend that has proved its name.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{Authorities, Certificate, Protocol, SecureStream, explain::explain, provider};

/// How backends are recognised, and what the gateway shows them, as configured.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Trust {
    /// Whether a backend's certificate is verified at all.
    pub verify: bool,
    /// Who may have signed it; `None` is whom the system trusts.
    pub authorities: Option<Authorities>,
    /// What the gateway shows to backends that ask for a certificate.
    pub identity: Option<Certificate>,
    /// What is offered to be spoken, most preferred first.
    pub offered: Vec<Protocol>,
}

/// The name that a backend's certificate must cover, which is also the one that it is asked for, unless it is an address.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PeerName(ServerName<'static>);

impl PeerName {
    /// A DNS name or an IP address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        ServerName::try_from(text.to_owned()).ok().map(Self)
    }
}

/// Shakes hands with the backends of one upstream.
pub struct Connector {
    trust: Trust,
    config: Arc<ClientConfig>,
}

impl Connector {
    /// For backends that are recognised like this.
    ///
    /// # Errors
    /// Parts that do not go together, which the check of a config finds first.
    pub fn new(trust: &Trust) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match (&trust.authorities, trust.verify) {
            (_, false) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider()))),
            (Some(authorities), true) => {
                builder.with_root_certificates(authorities.roots().map_err(|flaw| flaw.to_string())?)
            }
            (None, true) => builder.with_root_certificates(system_authorities()),
        };
        let mut config = match &trust.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(Identity(Arc::clone(identity.certified())))),
        };
        config.alpn_protocols = trust.offered.iter().map(|protocol| protocol.alpn().to_vec()).collect();
        Ok(Self { trust: trust.clone(), config: Arc::new(config) })
    }

    /// What it was made of.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Shakes hands with a backend of this name. The caller sets the deadline.
    ///
    /// # Errors
    /// Why not, in words: the backend is not who it should be, or does not speak TLS as it should.
    pub async fn connect<S>(&self, name: &PeerName, socket: S) -> Result<SecureStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(name.0.clone(), socket);
        let stream = SecureStream::new(connecting.await.map_err(|error| explain(&error))?);
        // Whoever offers one protocol alone can speak no other.
        match *self.trust.offered.as_slice() {
            [only] if only == Protocol::Http2 && stream.protocol() != only => {
                Err("it does not speak HTTP/2".to_owned())
            }
            _ => Ok(stream),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// Whom the system trusts. Read once: a process that runs on while its system's list changes is started anew for it.
fn system_authorities() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    Arc::clone(ROOTS.get_or_init(read))
}

/// Whether the system trusts anybody: small containers come without a list.
#[must_use]
pub fn has_system_authorities() -> bool {
    !system_authorities().is_empty()
}

/// The one certificate, to whoever asks.
#[derive(Debug)]
struct Identity(Arc<CertifiedKey>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(offered).is_some().then(|| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// `verify: false`: takes any certificate for the right one. That its owner has the key is still proved.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
