//! TLS: certificates in, connections out. The only module that names rustls.

mod acceptor;
mod certificate;
mod connector;
mod listener;

pub use acceptor::{Acceptor, PeerCertificate, Protocol, ServerStream};
pub use certificate::{Certificate, Facts, Flaw};
pub use connector::{ConnectedStream, Connector, PeerName, Trust, has_system_authorities};
pub use listener::{Authorities, ClientAuth, Tls, Version};
