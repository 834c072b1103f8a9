//! TLS: certificates in, connections out. The only module that names rustls.

mod acceptor;
mod certificate;
mod listener;

pub use acceptor::{Acceptor, PeerCertificate, Protocol, ServerStream};
pub use certificate::{Certificate, Facts, Flaw};
pub use listener::{Authorities, ClientAuth, Tls, Version};
