//! Tidegate: an API gateway with built-in upstream health checking. One binary, one YAML file.
//!
//! The order of the `mod` lines below is the order of the floors: a module uses only what stands above it.

pub mod base;
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
