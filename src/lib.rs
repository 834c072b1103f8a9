//! Tidegate: an API gateway with built-in upstream health checking. One binary, one YAML file, live edits.
//!
//! `ARCHITECTURE.md` has the words, the floors and the three walks: a request, a probe, a config edit. In short:
//!
//! - a request: [`server::Fleet`] accepts, [`proxy::Gateway`] answers;
//! - a probe: [`health::Monitor`] asks and publishes to [`upstream::Upstream`];
//! - an edit: [`control::Reloader`] loads ([`config::load`]), builds ([`runtime::build`]) and swaps ([`runtime::Live`]).
//!
//! The order of the `mod` lines below is the order of the floors: a module uses only what stands above it.

pub mod base;
pub mod net;
pub mod tls;
pub mod config;
pub mod telemetry;
pub mod upstream;
pub mod health;
pub mod route;
pub mod layers;
pub mod runtime;
pub mod proxy;
pub mod server;
pub mod control;
pub mod admin;
pub mod cli;
