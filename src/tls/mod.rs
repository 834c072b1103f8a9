//! TLS: certificates in, connections out. The only module that names rustls.

mod acceptor;
mod certificate;
mod connector;
mod explain;
mod listener;
mod stream;

use std::sync::Arc;

pub use acceptor::Acceptor;
pub use certificate::{Certificate, Facts, Flaw};
pub use connector::{Connector, PeerName, Trust, has_system_authorities};
pub use listener::{Authorities, ClientAuth, Tls, Version};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
pub use stream::{PeerCertificate, Protocol, SecureStream};

/// The one provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Does what the first handshake of a process would wait for, and all that wait with it: the source of random numbers gathers entropy once, which
/// takes 30 to 70 ms.
pub fn warm_up() {
    // Where there is no entropy, handshakes will say so.
    let _ = provider().secure_random.fill(&mut [0]);
}
