//! The configs that most tests need.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// One route for everything, to these addresses, with these fields beside; without a health check where they name none.
pub fn route(to: &[SocketAddr], fields: &str) -> String {
    let fields = format!("path: /*, to: {}, {}", list(to), with_health(fields));
    format!("routes: [{{ {fields} }}]\n")
}

/// One route for everything, to one upstream `up` of these addresses, which has these fields beside.
pub fn upstream(backends: &[SocketAddr], fields: &str) -> String {
    let fields = format!("backends: {}, {}", list(backends), with_health(fields));
    format!("upstreams: {{ up: {{ {fields} }} }}\nroutes: [{{ path: /*, to: up }}]\n")
}

fn list(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

fn with_health(fields: &str) -> String {
    if fields.contains("health:") { fields.to_owned() } else { format!("health: none, {fields}") }
}

/// An address that no other test and no system-chosen port will ever be on.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 100 + NEXT.fetch_add(1, Relaxed), high, low.clamp(1, 254)), 8080))
}
