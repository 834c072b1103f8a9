//! OpenSSL's client, and a scanner built on it, look at TLS.

use super::{NAMES, Stage};
use crate::support::{Backend, Program, Said, route};

const GET: &str = "GET / HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\n\r\n";

fn stage(backend: &Backend) -> Stage {
    Stage::set(&route(&[backend.address()], ""))
}

/// Connects to a listener as strictly as OpenSSL can, says this, and hears the gateway out.
fn s_client(stage: &Stage, listener: &str, says: &str, arguments: &[&str]) -> Said {
    let address = stage.gateway.listener(listener).to_string();
    Program::new("openssl")
        .args(["s_client", "-connect", &address, "-CAfile", &stage.ca(), "-verify_return_error", "-x509_strict"])
        .args(arguments)
        .input(says)
        .hold_input()
        .run()
}

/// With the name that the certificate is for.
fn named(stage: &Stage, listener: &str, says: &str, arguments: &[&str]) -> Said {
    let name = ["-servername", NAMES[0], "-verify_hostname", NAMES[0]];
    s_client(stage, listener, says, &[&name, arguments].concat())
}

/// What was agreed on, as `New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384`, once a request was answered.
#[track_caller]
fn agreed(said: &Said) -> String {
    let text = said.text();
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}{}", said.err);
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}{}", said.err);
    let line = text.lines().find(|line| line.starts_with("New, ") || line.starts_with("Reused, "));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn versions_and_ciphers() {
    let backend = Backend::start();
    let stage = stage(&backend);
    let main = |arguments: &[&str]| agreed(&named(&stage, "main", GET, arguments));
    assert_eq!(main(&[]), "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384");
    assert_eq!(main(&["-tls1_2"]), "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384");
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        assert_eq!(main(&["-ciphersuites", suite]), format!("New, TLSv1.3, Cipher is {suite}"));
    }
    for (listener, key) in [("main", "ECDSA"), ("rsa", "RSA")] {
        for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
            let cipher = format!("ECDHE-{key}-{cipher}");
            let said = named(&stage, listener, GET, &["-tls1_2", "-cipher", &cipher]);
            assert_eq!(agreed(&said), format!("New, TLSv1.2, Cipher is {cipher}"));
        }
    }
    for group in ["X25519", "P-256", "P-384"] {
        assert_eq!(main(&["-groups", group]), "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384");
    }
    assert_eq!(agreed(&named(&stage, "modern", GET, &[])), "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384");
}

/// With OpenSSL's own objections out of the way.
#[test]
fn what_is_weak_is_refused() {
    let backend = Backend::start();
    let stage = stage(&backend);
    let weak = |listener: &str, arguments: &[&str], cipher: &str| {
        let cipher = format!("{cipher}:@SECLEVEL=0");
        let said = named(&stage, listener, GET, &[arguments, &["-cipher", &cipher]].concat());
        assert!(said.text().contains("New, (NONE), Cipher is (NONE)"), "{arguments:?} {cipher}: {}", said.text());
        // It is the gateway who says no.
        assert!(said.err.contains("alert"), "{arguments:?} {cipher}: {}", said.err);
    };
    weak("main", &["-tls1"], "ALL");
    weak("main", &["-tls1_1"], "ALL");
    weak("modern", &["-tls1_2"], "ALL");
    for cipher in ["ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"] {
        weak("rsa", &["-tls1_2"], cipher);
    }
    weak("main", &["-tls1_2"], "ECDHE-ECDSA-AES128-SHA256");
    assert_eq!(backend.hits(), 0);
}

#[test]
fn protocols_by_alpn() {
    let backend = Backend::start();
    let stage = stage(&backend);
    let agreed = |offered: &str| {
        // `Q` ends it.
        let said = named(&stage, "main", "Q\n", &["-alpn", offered]);
        let text = said.text();
        let line = text.lines().find(|line| line.contains("ALPN"));
        line.map_or(said.err, str::to_owned)
    };
    assert_eq!(agreed("http/1.1,h2"), "ALPN protocol: h2");
    assert_eq!(agreed("http/1.1"), "ALPN protocol: http/1.1");
    assert!(agreed("spdy/3").contains("No ALPN"), "{}", agreed("spdy/3"));
}

#[test]
fn names() {
    let backend = Backend::start();
    let stage = stage(&backend);
    let code = |arguments: &[&str]| s_client(&stage, "main", GET, arguments).code;
    assert_eq!(code(&["-servername", "gateway.test", "-verify_hostname", "gateway.test"]), Some(0));
    // Without a name, and by an address.
    assert_eq!(code(&["-noservername", "-verify_ip", "127.0.0.1"]), Some(0));
    let wrong = s_client(&stage, "main", GET, &["-servername", "other.test", "-verify_hostname", "other.test"]);
    assert_ne!(wrong.code, Some(0));
    assert!(wrong.err.contains("hostname mismatch"), "{}", wrong.err);
}

#[test]
fn sessions_are_resumed() {
    let backend = Backend::start();
    let stage = stage(&backend);
    for (flag, version) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let session = super::path(&stage.gateway.folder().join(version));
        let first = agreed(&named(&stage, "main", GET, &[flag, "-sess_out", &session]));
        assert!(first.starts_with(&format!("New, {version}")), "{first}");
        let second = agreed(&named(&stage, "main", GET, &[flag, "-sess_in", &session]));
        assert!(second.starts_with(&format!("Reused, {version}")), "{second}");
        // A session of one listener is none of another's: who may come in is asked there.
        let other = agreed(&named(&stage, "rsa", GET, &[flag, "-sess_in", &session]));
        assert!(other.starts_with(&format!("New, {version}")), "{other}");
    }
}

#[test]
fn renegotiation_is_refused() {
    let backend = Backend::start();
    let stage = stage(&backend);
    // What `R` asks for.
    let said = named(&stage, "main", "R\n", &["-tls1_2"]);
    assert!(said.text().contains("RENEGOTIATING") || said.err.contains("RENEGOTIATING"), "{}{}", said.text(), said.err);
    assert!(said.err.contains("no renegotiation"), "{}", said.err);
    assert_eq!(backend.hits(), 0);
    assert!(agreed(&named(&stage, "main", GET, &["-tls1_2"])).starts_with("New"), "others are served");
}

/// What sslscan finds on a listener: an attribute of its XML a line.
fn scan(stage: &Stage, listener: &str) -> String {
    let address = stage.gateway.listener(listener).to_string();
    let said = Program::new("sslscan")
        // Without groups: it waits for three seconds after each that is accepted.
        .args(["--xml=-", "--no-colour", "--no-groups", "--no-cipher-details", "--sni-name=gateway.test", &address])
        .succeed();
    let text = said.text();
    let mut found: Vec<_> = text.lines().map(str::trim).filter_map(finding).collect();
    found.sort();
    format!("{listener}\n{}\n", found.join("\n"))
}

fn finding(line: &str) -> Option<String> {
    let value = |name: &str| Some(line.split_once(&format!(" {name}=\""))?.1.split('"').next()?.to_owned());
    let tag = line.strip_prefix('<')?.split(' ').next()?;
    Some(match tag {
        "protocol" if value("enabled")? == "1" => format!("speaks {} {}", value("type")?, value("version")?),
        "cipher" => format!("  {} {}, {} bits", value("sslversion")?, value("cipher")?, value("bits")?),
        "renegotiation" if value("supported")? == "1" => "renegotiates".to_owned(),
        "compression" if value("supported")? == "1" => "compresses".to_owned(),
        "heartbleed" if value("vulnerable")? == "1" => format!("bleeds in {}", value("sslversion")?),
        _ => return None,
    })
}

#[test]
fn sslscan_finds_nothing_weak() {
    let backend = Backend::start();
    let stage = stage(&backend);
    let found = ["main", "rsa", "modern"].map(|listener| scan(&stage, listener)).concat();
    insta::assert_snapshot!(found);
}
