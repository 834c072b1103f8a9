//! Sockets: who may connect, what becomes of a connection, how it ends.
//!
//! One worker per core, each a thread with its own runtime, its own accept socket per listener (`SO_REUSEPORT`; Unix
//! sockets are shared) and its own connections to backends; a connection never leaves the worker that accepted it. The
//! control plane talks to workers through a mailbox each, and through the one swap of the snapshot. Knows nothing of files
//! and reloads.

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bind;
mod complaints;
mod connection;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gather;
mod holder;
mod listening;
mod proxy_protocol;
mod spelling;
mod stream;
mod worker;

pub use bind::{CannotBind, Sockets, bind, set_mode};
pub use connection::Closed;
pub use listening::Listening;
pub use worker::{Fleet, Setup};
