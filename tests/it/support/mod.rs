//! The harness: a gateway in its own process, backends and clients in this one, all on real sockets.
//!
//! A test reads like the sentence that it proves. Backends are scripts that may misbehave in any way; clients say bytes and
//! hear bytes. Nothing sleeps to be in step: whoever waits, waits for a condition ([`eventually`]) or for a byte.

mod backend;
mod client;
mod eventually;
mod gateway;
mod message;

pub use backend::{Backend, Peer, full_backlog, refusing};
pub use client::{Client, Response};
pub use eventually::{PATIENCE, eventually};
pub use gateway::{Gateway, Launch};
pub use message::Received;
