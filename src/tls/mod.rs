//! TLS: certificates in, connections out. The only module that names rustls.

mod acceptor;

pub use acceptor::{Acceptor, Protocol, ServerStream};
