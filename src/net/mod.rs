//! What programs say to one another: where streams of bytes lead, their sockets, TCP and Unix alike, and the fields of heads on them.

mod address;
mod fields;
mod socket;

pub use address::Address;
pub use fields::values;
pub use socket::Socket;
