//! A request, in one straight line: [`Gateway::service`]. A file per step.
//!
//! pin → sanitise → find the route → admit through its layers → pick a backend → forward one attempt → judge → finish.
//! Whatever goes wrong is a [`Fault`], and every fault becomes a response in one place (`respond`).

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod alarm;
mod body;
mod client;
mod compress;
mod cookies;
mod exchange;
mod fault;
mod fields;
mod forward;
mod frames;
#[cfg(fuzzing)]
#[allow(clippy::indexing_slicing, reason = "a fuzz target fails by panicking")]
pub mod fuzzing;
mod gateway;
mod grpc;
mod headers;
mod hedge;
mod judge;
mod lifecycle;
mod mirror;
mod own;
mod resend;
mod respond;
mod retry;
mod sanitise;
mod ticket;
mod tunnel;
mod upgrade;
mod upload;
mod way;

pub use body::{BackendBody, Cut, RequestBody, ResponseBody};
pub use client::{Client, Phase, Source};
pub use compress::CompressedBody;
pub use exchange::Exchange;
pub use fault::{Blame, Fault};
pub use gateway::Gateway;
pub use resend::Again;
pub use tunnel::Tunnel;
