//! The gateway as its clients, its backends and its operators see it: the real program on real sockets.
#![allow(missing_docs, unreachable_pub, reason = "a test binary has no users")]
#![allow(missing_debug_implementations, reason = "nobody prints the harness")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on says so")]
#![allow(dead_code, reason = "the harness grows with its tests")]

mod access_log;
mod admin;
mod allocations;
mod backends;
mod balance;
mod bodies;
mod checks;
mod compression;
mod cut_cable;
mod dns;
mod downgrade;
mod drills;
mod event_streams;
mod examples;
mod failover;
mod floods;
mod floors;
mod grpc;
mod header_rules;
mod headers;
mod health;
mod http2_conformance;
mod layers;
mod lifecycle;
mod limits;
mod mirror;
mod operators;
mod passive;
mod peers;
mod pool;
mod proxy_protocol;
mod redirect;
mod reload;
mod retries;
mod real_servers;
mod responses;
mod rewrite;
mod routing;
mod shutdown;
mod sick;
mod smuggling;
mod sockets;
mod split;
mod support;
mod survival;
mod timeouts;
mod tls;
mod upgrades;
mod webhooks;
mod upstream_http2;
