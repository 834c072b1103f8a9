//! `tidegate version`.

use serde_json::json;

pub(super) fn version(as_json: bool) -> String {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    match as_json {
        true => format!("{}\n", json!({ "name": name, "version": version, "os": os, "arch": arch })),
        false => format!("{name} {version} ({os} {arch})\n"),
    }
}
