//! Every file under `config/` starts a gateway that answers, as it is but for its ports.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::support::{Authority, Client, Gateway, Launch, Response};

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let examples = fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let files = examples.chain([root.join("tidegate.yaml")]);
    files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

/// The same config on free ports, so that tests can run beside each other and beside whatever this machine runs.
fn on_free_ports(text: &str) -> String {
    let mut text = text.replace("listen: 8080", "listen: \"127.0.0.1:0\"");
    for (written, free) in [
        ("${PORT:-8080}", "\"127.0.0.1:0\""),
        ("0.0.0.0:8080", "127.0.0.1:0"),
        ("0.0.0.0:8443", "127.0.0.1:0"),
        (":8081", ":0"),
        (":9901", ":0"),
    ] {
        text = text.replace(written, free);
    }
    if !text.contains("\nadmin:") {
        text += "\nadmin: { bind: \"127.0.0.1:0\" }\n";
    }
    text
}

#[test]
fn every_example_starts_answers_and_stops() {
    let files = files();
    assert!(files.len() > 8, "{files:?}");
    let pair = Authority::new("authority").server(&["shop.example.com"], 1);
    for file in files {
        let config = on_free_ports(&fs::read_to_string(&file).unwrap());
        let launch = Launch::default().file("certs/shop.pem", &pair.cert).file("certs/shop.key", &pair.key);
        let gateway = launch.file("tidegate.yaml", config).start_on_what_is_there();
        assert_eq!(ask(&gateway, "/livez").status(), 200, "{}", file.display());
        let health: serde_json::Value = serde_json::from_slice(&ask(&gateway, "/health").body).unwrap();
        assert!(health["checks"].as_object().is_some_and(|checks| !checks.is_empty()), "{}", file.display());
        assert_eq!(gateway.stop(), 0, "{}", file.display());
    }
}

fn ask(gateway: &Gateway, path: &str) -> Response {
    let admin = gateway.admin();
    Client::connect(admin).send(format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\n\r\n")).response()
}
