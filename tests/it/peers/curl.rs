//! curl, the client that everybody has.

use super::{Stage, app, bytes, path};
use crate::support::{Authority, Backend, Launch, Program, Said, Server, eventually, route};

/// curl, silent but for errors, for URLs of `https://gateway.test:PORT` and others.
fn curl(stage: &Stage) -> Program {
    let mut program =
        Program::new("curl").args(["--disable", "--noproxy", "*", "--silent", "--show-error", "--cacert", &stage.ca()]);
    for listener in ["main", "mutual", "short"] {
        program = program.args(["--resolve".to_owned(), resolve("gateway.test", stage, listener)]);
    }
    program
}

fn resolve(name: &str, stage: &Stage, listener: &str) -> String {
    format!("{name}:{}:127.0.0.1", stage.gateway.listener(listener).port())
}

/// Where a listener is, by name.
fn named(stage: &Stage, listener: &str) -> String {
    stage.url(listener).replace("127.0.0.1", "gateway.test")
}

#[test]
fn every_protocol_passes_every_body() {
    let (_app, _mirror, routes) = app();
    let stage = Stage::set(&routes);
    let (plain, main) = (stage.url("plain"), named(&stage, "main"));
    bodies(&stage, &plain, "--http1.1", "1.1");
    // It asks for an upgrade to HTTP/2, and goes on with HTTP/1.1 where that is not offered.
    bodies(&stage, &plain, "--http2", "1.1");
    bodies(&stage, &plain, "--http2-prior-knowledge", "2");
    bodies(&stage, &main, "--http1.1", "1.1");
    bodies(&stage, &main, "--http2", "2");
    stage.assert_no_fault_seen();
    for (listener, protocol) in
        [("plain", "HTTP/1.1"), ("plain", "HTTP/2.0"), ("main", "HTTP/1.1"), ("main", "HTTP/2.0")]
    {
        // Lines are handed over once a second.
        eventually("it was spoken", || {
            let log = stage.gateway.access_log();
            log.iter().any(|line| line["listener"] == listener && line["protocol"] == protocol)
        });
    }
}

fn bodies(stage: &Stage, url: &str, flag: &str, version: &str) {
    let curl = || curl(stage).args([flag]);
    let big = bytes(4_000_000);
    let file = path(&stage.file("big", &big));
    let is_http1 = version == "1.1";

    let told = "%{stderr}%{http_code} %{http_version} %{num_connects}\n";
    // curl 7.88 cannot use a connection of this kind twice, whoever the server is.
    let is_reused = flag != "--http2-prior-knowledge";
    let urls = vec![format!("{url}/echo"); if is_reused { 2 } else { 1 }];
    let said = curl().args(["--write-out", told]).args(urls).succeed();
    let told_of = [format!("200 {version} 1\n"), format!("200 {version} 0\n")];
    assert_eq!(said.err, told_of[..if is_reused { 2 } else { 1 }].concat(), "one connection");
    assert!(!said.text().to_lowercase().contains("upgrade") && !said.text().contains("http2-settings"), "{flag}");

    // Above 1 MiB, curl waits to be told to go on.
    let mirror = format!("{url}/mirror");
    let upload = ["--data-binary", &format!("@{file}"), "--header", "content-type: a/b", "--verbose"];
    let said = curl().args(upload).args([&mirror]).succeed();
    assert!(said.out == big, "{flag}: {} bytes", said.out.len());
    assert_eq!(said.err.contains("< HTTP/1.1 100 Continue"), is_http1, "{}", said.err);

    // Nobody knows how much will come.
    let said = curl().args(["--upload-file", "-", &mirror]).input(&*big).succeed();
    assert!(said.out == big, "{flag}: {} bytes", said.out.len());

    for query in ["", "?chunked"] {
        let said = curl().args([format!("{url}/bytes/4000000{query}")]).succeed();
        assert!(said.out == big, "{flag}: {} bytes", said.out.len());
    }
    let said = curl().args(["--head", &format!("{url}/bytes/4000000")]).succeed();
    assert_eq!(header(&said, "content-length"), "4000000");

    let said = curl()
        .args(["--include", "--header", "te: trailers", "--header", "connection: te", &format!("{url}/trailers")])
        .succeed();
    // Behind the body, which has no end of line.
    assert!(said.text().contains("okx-sum: none"), "{flag}: {}", said.text());

    if !is_reused {
        return;
    }
    // Many at once, which HTTP/2 does on one connection.
    let folder = stage.file("many", "").with_file_name("many.d");
    let many = format!("{}/#1", folder.display());
    let said = curl()
        .args(["--parallel", "--parallel-max", "20", "--create-dirs", "--write-out", told, "--output", &many])
        .args([format!("{url}/bytes/30000?n=[1-60]")])
        .succeed();
    assert_eq!(said.err.matches(&format!("200 {version} ")).count(), 60, "{}", said.err);
    for number in 1..=60 {
        assert!(std::fs::read(folder.join(number.to_string())).unwrap() == bytes(30_000), "{flag}: {number}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A header of a response that was said with its head.
#[track_caller]
fn header(said: &Said, name: &str) -> String {
    said.line(&format!("{name}:"))
}

#[test]
fn the_subject_of_its_certificate_reaches_the_backend() {
    let backend = Backend::start();
    let stage = Stage::set(&route(&[backend.address()], ""));
    let amy = stage.clients.client("amy");
    let (cert, key) = (path(&stage.file("amy.pem", &amy.cert)), path(&stage.file("amy.key", &amy.key)));
    let url = named(&stage, "mutual");
    for flag in ["--http1.1", "--http2"] {
        let said = curl(&stage).args([flag, "--cert", &cert, "--key", &key, &url]).succeed();
        assert_eq!(said.text(), "hello");
        assert_ne!(curl(&stage).args([flag, &url]).run().code, Some(0), "without a certificate");
    }
    let subjects: Vec<_> = backend.requests().iter().map(|r| r.header("x-client-subject").map(str::to_owned)).collect();
    assert_eq!(subjects, vec![Some("O=Example,CN=amy".to_owned()); 2]);
}

#[test]
fn a_name_leads_to_its_certificate_and_an_address_may_be_of_ipv6() {
    let (backend, authority) = (Backend::start(), Authority::new("authority"));
    let stage = Stage::set(&route(&[backend.address()], ""));
    if !super::ipv6().is_empty() {
        let said = curl(&stage).args(["--globoff", &stage.url("ipv6")]).succeed();
        assert_eq!(said.text(), "hello");
    }
    let mut launch = Launch::default().file("ca.pem", authority.pem());
    for name in ["one.test", "two.test"] {
        let pair = authority.server(&[name], 1);
        launch = launch.file(&format!("{name}.pem"), pair.cert).file(&format!("{name}.key"), pair.key);
    }
    let certs = ["one.test", "two.test"].map(|name| format!("{{ cert: {name}.pem, key: {name}.key }}"));
    let gateway = launch.start(format!(
        "listeners: {{ main: {{ bind: \"127.0.0.1:0\", tls: {{ certs: [{}] }} }} }}\n{}",
        certs.join(", "),
        route(&[backend.address()], "")
    ));
    let port = gateway.address().port();
    let ask = |name: &str| {
        let ca = path(&gateway.folder().join("ca.pem"));
        let resolved = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/");
        Program::new("curl")
            .args(["--disable", "--noproxy", "*", "--cacert", &ca, "--resolve", &resolved, &url])
            .run()
            .code
    };
    assert_eq!((ask("one.test"), ask("two.test")), (Some(0), Some(0)));
    const NOT_VERIFIED: Option<i32> = Some(60);
    assert_eq!(ask("three.test"), NOT_VERIFIED);
}

#[test]
fn a_connection_that_has_had_its_requests_costs_none() {
    let nginx = Server::nginx("nginx");
    let stage = Stage::set(&route(&[nginx.address()], ""));
    let url = format!("{}/[1-50]", named(&stage, "short"));
    for flag in ["--http1.1", "--http2"] {
        let told = "%{http_code} %{num_connects}\n";
        let said = curl(&stage).args([flag, "--output", "/dev/null", "--write-out", told, &url]).succeed();
        let text = said.text();
        assert_eq!(text.lines().filter(|line| line.starts_with("200 ")).count(), 50, "{flag}: {text}");
        assert_eq!(text.lines().filter(|line| line.ends_with(" 1")).count(), 5, "{flag}: {text}");
    }
    stage.assert_no_fault_seen();
}
