//! The harness: a gateway in its own process, backends and clients in this one, all on real sockets.
//!
//! A test reads like the sentence that it proves. Backends are scripts that may misbehave in any way; clients say bytes and
//! hear bytes. Nothing sleeps to be in step: whoever waits, waits for a condition ([`eventually`]) or for a byte.

mod backend;
mod cable;
mod client;
mod config;
mod eventually;
pub mod frames;
mod gate;
mod gateway;
mod http2;
mod load;
mod message;
mod program;
mod server;
mod tls;

pub use backend::{Backend, Peer, full_backlog, refusing};
pub use cable::Cable;
pub use client::{Client, Response};
pub use config::{own_address, route, upstream};
pub use eventually::{PATIENCE, at_rest, eventually};
pub use gate::Gate;
pub use gateway::{Gateway, Launch, completed, replace};
pub use http2::{Act, Http2Backend, Seen, ok};
pub use load::{Account, Load};
pub use message::Received;
pub use program::{Program, Said};
pub use server::{Server, alone, python, spare_address};
pub use tls::{Authority, Pair, TlsClient, TlsStream};
