//! The order of the `mod` lines in `src/lib.rs` is the architecture: a module uses only what stands above it.
//!
//! Dumb on purpose: it reads source text. Beside the floors it keeps the fences: which crate, or which part of the standard
//! library, is named in which folder only; and what SECURITY.md says of the tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The code without its comments: documentation may look down.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn floors() -> Vec<String> {
    let lib = code(&src().join("lib.rs"));
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// The modules that are named after `crate::`, alone or as a list in braces.
fn named_after_crate(code: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            named.push(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => named.push(word(std::mem::take(&mut item).trim())),
                _ if depth == 0 => item.push(c),
                _ => {}
            }
        }
        named.push(word(item.trim()));
    }
    named.retain(|name| !name.is_empty());
    named
}

#[test]
fn a_module_names_only_modules_above_it() {
    let floors = floors();
    assert!(floors.len() > 10, "the mod lines of lib.rs were not found: {floors:?}");
    let mut wrong = Vec::new();
    for (floor, module) in floors.iter().enumerate() {
        for path in sources(&src().join(module)) {
            for named in named_after_crate(&code(&path)) {
                if floors.iter().position(|f| *f == named).is_some_and(|other| other > floor) {
                    wrong.push(format!("{} names `{named}`, which stands below `{module}`", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "move the code, or pass the thing in:\n{}", wrong.join("\n"));
}

#[test]
fn a_fenced_name_stays_in_its_place() {
    let fences: &[(&str, &[&str])] = &[
        ("serde_yaml", &["config/yaml"]),
        ("governor::", &["layers/rate_limit"]),
        ("annotate_snippets", &["config/diagnostics"]),
        ("prometheus_client", &["telemetry"]),
        ("hyper::server", &["server", "admin", "cli/demo", "health/probe/tests.rs"]),
        ("hyper::client", &["upstream", "health/probe", "control/webhook.rs", "cli"]),
        ("rustls", &["tls"]),
        ("x509_cert", &["tls"]),
        ("std::env::var", &["cli", "config/tests.rs"]),
        ("clap", &["cli"]),
        ("axum", &["admin"]),
        ("hickory_resolver", &["health/resolve.rs"]),
        ("proxy_header::", &["server/proxy_protocol.rs"]),
    ];
    let mut wrong = Vec::new();
    for path in sources(&src()) {
        let inside = path.strip_prefix(src()).unwrap().to_owned();
        let code = code(&path);
        for (name, places) in fences {
            if code.contains(name) && !places.iter().any(|place| inside.starts_with(place)) {
                wrong.push(format!("src/{} names `{name}`, which belongs to {places:?}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reads_lists_and_paths() {
    let code = "use crate::{\n    base::{Name, x},\n    config::plan,\n    health,\n};\nfn f() { crate::proxy::g(); }";
    assert_eq!(named_after_crate(code), ["base", "config", "health", "proxy"]);
}

/// Its table is worth something only as long as it is true.
#[test]
fn the_tests_that_security_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, table) = text.split_once("| Class |").expect("the table");
    let named: Vec<&str> = table.split('`').skip(1).step_by(2).filter(|name| *name != "tests/it").collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        let file = |module: &str| fs::read_to_string(root.join(format!("tests/it/{}.rs", module.replace("::", "/"))));
        let is_there = match name.rsplit_once("::") {
            Some((module, test)) => file(module).is_ok_and(|code| code.contains(&format!("fn {test}()"))),
            None => file(name).is_ok() || root.join(format!("tests/fuzz/targets/{name}.rs")).exists(),
        };
        assert!(is_there, "SECURITY.md names `{name}`, which is not among the tests");
    }
}
