//! The config of `tidegate run --to ADDR`, for which there is no file.

use serde_json::json;

/// A config that sends everything to these addresses. `:9001` and `9001` are ports of this machine.
///
/// Which path could be asked for health is not known, so that a backend is up while it accepts connections.
pub(super) fn quick(to: &[String], listen: Option<&str>) -> String {
    let to: Vec<String> = to.iter().map(|address| with_host(address)).collect();
    let listen = listen.unwrap_or("8080");
    let listen = listen.strip_prefix(':').unwrap_or(listen);
    // JSON strings are YAML strings, whatever is in them.
    format!("listen: {}\nroutes:\n  - {{ path: /*, to: {}, health: tcp }}\n", json!(listen), json!(to))
}

fn with_host(address: &str) -> String {
    let port = address.strip_prefix(':').unwrap_or(address);
    match port.parse::<u16>() {
        Ok(_) => format!("127.0.0.1:{port}"),
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, Report, Source, load};

    fn loaded(to: &[&str], listen: Option<&str>) -> Result<Loaded, Report> {
        let to: Vec<String> = to.iter().map(|&address| address.to_owned()).collect();
        load(&Source { path: "--to".into(), text: quick(&to, listen) }, &|_| None)
    }

    #[test]
    fn it_loads_without_a_finding() {
        for listen in [None, Some("8081"), Some(":8081"), Some("127.0.0.1:8081"), Some("[::1]:8081")] {
            let loaded = loaded(&[":9001", "9002", "10.0.0.1:80", "http://orders.internal"], listen).unwrap();
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.short());
            let upstream = loaded.plan.upstreams.values().next().unwrap();
            assert_eq!(upstream.backends.len(), 4);
            assert!(upstream.health.is_checked());
        }
    }

    #[test]
    fn an_address_cannot_add_fields() {
        for hostile in ["127.0.0.1:1], auth: [x", "a\"\nadmin: none", "${HOME}"] {
            let report = loaded(&[hostile], None).expect_err(hostile);
            assert!(report.iter().all(|finding| finding.path.starts_with("routes[0].to")), "{}", report.short());
        }
    }
}
