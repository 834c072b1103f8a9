//! Certificates, and clients that speak TLS.

use std::{
    fmt,
    io::{self, Read as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::SystemTime,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SerialNumber,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::{Client, PATIENCE};

/// Whoever signs the certificates of a test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// A client's stream over TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Strict clients ask for it.
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of a server for these names, with a number.
    pub fn server(&self, names: &[&str], serial: u64) -> Pair {
        self.sign(named(names, serial), ExtendedKeyUsagePurpose::ServerAuth, &KeyPair::generate().unwrap())
    }

    /// Such a certificate that is valid until then.
    pub fn server_until(&self, names: &[&str], not_after: SystemTime) -> Pair {
        let mut params = named(names, 1);
        params.not_after = not_after.into();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth, &KeyPair::generate().unwrap())
    }

    /// Such a certificate with a key of RSA.
    pub fn server_with_rsa(&self, names: &[&str], serial: u64) -> Pair {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        self.sign(named(names, serial), ExtendedKeyUsagePurpose::ServerAuth, &key)
    }

    /// A certificate of a client with this subject.
    pub fn client(&self, common_name: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth, &KeyPair::generate().unwrap())
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose, key: &KeyPair) -> Pair {
        params.extended_key_usages.push(usage);
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(key, &self.0).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts it.
    pub fn trusting(&self) -> TlsClient {
        TlsClient { authority: self.0.der().clone(), alpn: vec![], versions: vec![&TLS13, &TLS12], identity: None }
    }
}

fn named(names: &[&str], serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// How a client shakes hands.
#[derive(Clone)]
pub struct TlsClient {
    authority: CertificateDer<'static>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    identity: Option<Pair>,
}

impl TlsClient {
    /// Speaks these protocols, most preferred first.
    pub fn speaking(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    pub fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub fn identified_by(mut self, pair: Pair) -> Self {
        self.identity = Some(pair);
        self
    }

    pub fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&self.versions).unwrap().with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    /// Connects and shakes hands, asking for this name.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Client<TlsStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(self.config()), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client::over(stream))
    }
}

impl Client<TlsStream> {
    /// The certificate that was shown: all its bytes.
    pub fn shown(&self) -> CertificateDer<'static> {
        self.inner().conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Whether the connection ends in order, with `close_notify`.
    pub fn hears_goodbye(&mut self) -> bool {
        matches!(self.inner_mut().read(&mut [0]), Ok(0))
    }

    /// What was agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.inner().conn.alpn_protocol().map(|protocol| std::str::from_utf8(protocol).unwrap())
    }
}

impl Pair {
    /// The certificate, as it is shown.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair")
    }
}
