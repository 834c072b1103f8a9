//! Streams of bytes between programs: where they lead, and their sockets, TCP and Unix alike.

mod address;
mod socket;

pub use address::Address;
pub use socket::Socket;
