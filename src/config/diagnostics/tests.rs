use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};

use super::{Code, Report, Severity, Style};
use crate::config::{Source, load};

/// Certificates and keys in PEM, by the name of the variable that holds each: `${WEB_CERT}` is valid for www.example.com,
/// `${OLD_CERT}` not for long, and so on.
static CERTIFICATES: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let hour = day / 24;
    let pair = |names: &[&str], from: SystemTime, to: SystemTime| {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        (params.not_before, params.not_after) = (from.into(), to.into());
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let (web, web_key) = pair(&["www.example.com", "*.example.org"], now - day, now + day * 400);
    let (old, old_key) = pair(&["www.example.com"], now - day * 90, now + day * 6 + hour);
    let (expired, expired_key) = pair(&["www.example.com"], now - day * 90, now - day * 3 - hour);
    let (future, future_key) = pair(&["www.example.com"], now + day * 2 + hour, now + day * 90);
    BTreeMap::from([
        ("WEB_CERT", web),
        ("WEB_KEY", web_key),
        ("OLD_CERT", old),
        ("OLD_KEY", old_key.clone()),
        ("OTHER_KEY", old_key),
        ("EXPIRED_CERT", expired),
        ("EXPIRED_KEY", expired_key),
        ("FUTURE_CERT", future),
        ("FUTURE_KEY", future_key),
        ("GARBAGE", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
    ])
});

/// What the case says, whether or not it stops the config.
fn report(text: &str) -> Report {
    let env = |name: &str| match name {
        "TOKEN" => Some("s3cr3t".to_owned()),
        "BAD_TIMEOUT" => Some("12".to_owned()),
        name => CERTIFICATES.get(name).cloned(),
    };
    match load(&Source { path: "tidegate.yaml".into(), text: text.to_owned() }, &env) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    }
}

/// Found by asking backends, which a check of the text does not.
const ONLY_WHILE_RUNNING: Code = Code::TooFewFit;

fn cases() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/diagnostics/cases");
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_case_reads_as_reviewed() {
    for (name, text) in cases() {
        insta::with_settings!({ prepend_module_to_snapshot => false, description => text.clone(), omit_expression => true }, {
            insta::assert_snapshot!(name, report(&text).text(Style::Plain));
        });
    }
}

#[test]
fn every_code_has_a_case() {
    let seen: BTreeSet<Code> =
        cases().iter().flat_map(|(_, text)| report(text).iter().map(|f| f.code).collect::<Vec<_>>()).collect();
    let missing = Code::ALL.iter().filter(|code| !seen.contains(code) && **code != ONLY_WHILE_RUNNING);
    let missing: Vec<&str> = missing.map(|code| code.id()).collect();
    assert!(missing.is_empty(), "codes without a case: {missing:?}");
}

#[test]
fn examples_of_a_code_show_it_and_its_repair() {
    for code in Code::ALL {
        let bad = report(code.bad());
        let is_shown = *code == ONLY_WHILE_RUNNING || bad.iter().any(|finding| finding.code == *code);
        assert!(is_shown, "{}: {}", code.id(), bad.text(Style::Plain));
        let good = report(code.good());
        assert!(good.is_empty(), "{}: {}", code.id(), good.text(Style::Plain));
    }
}

#[test]
fn ids_are_unique_and_sorted_and_found_again() {
    let ids: Vec<&str> = Code::ALL.iter().map(|code| code.id()).collect();
    let sorted: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids, sorted.into_iter().collect::<Vec<_>>());
    for code in Code::ALL {
        assert_eq!(Code::find(&code.id().to_lowercase()), Some(*code));
    }
    assert_eq!(Code::find("E9999"), None);
}

const TWO: &str = "listen: 8080\nroutes:\n  - path: /ä\n    tö: x\n    to: 127.0.0.1\n";

#[test]
fn short_form_is_file_line_column() {
    insta::assert_snapshot!(report(TWO).short(), @"
    tidegate.yaml:4:5: error[E0201]: unknown field `tö`
    tidegate.yaml:5:9: error[E0305]: backend `127.0.0.1` has no port
    ");
}

#[test]
fn json_has_one_object_per_finding() {
    let text = "listen: 8080\nlimitz: {}\nroutes: [{ path: /*, to: 127.0.0.1:1, health: none }]\n";
    insta::assert_snapshot!(report(text).json(), @r#"{"code":"E0201","col":1,"end_col":7,"file":"tidegate.yaml","fix":"limits","line":2,"message":"unknown field `limitz`","path":"limitz","severity":"error","suggestion":"did you mean `limits`?"}"#);
}

#[test]
fn github_annotations_escape_what_they_must() {
    insta::assert_snapshot!(report("listen: 8080\nli%mits: {}\nroutes: [{ path: /*, to: 127.0.0.1:1, health: none }]\n").github(), @"::error file=tidegate.yaml,line=2,col=1,title=E0201::unknown field `li%25mits` (did you mean `limits`?)");
}

#[test]
fn colour_changes_no_word() {
    let report = report(TWO);
    let coloured = anstream::adapter::strip_str(&report.text(Style::Coloured)).to_string();
    assert_ne!(report.text(Style::Coloured), coloured);
    assert_eq!(coloured, report.text(Style::Plain));
}

#[test]
fn no_report_shows_a_secret() {
    let text = "listen: 8080
auth:
  a: { basic: { users: { bob: hunter2 } } }
  b: { api_key: { header: x-key, keys: { c: hunter2, d: [hunter2] } } }
  e: { basic: { realm: \"é\", users: { bob: \"ünter-hunter2\" } } }
routes:
  - path: /*
    to: \"http://user:hunter2@10.0.0.1:1\"
    health: { active: { headers: { authorization: hunter2 }, interval: \"${TOKEN}\", method: \"${TOKEN}\", timeout: 2x } }
    limit: \"${TOKEN}\"
    host: \"${TOKEN}!\"
    retries: { attempts: \"${TOKEN}\", methods: [\"${TOKEN}\"], when: [\"${TOKEN}\"] }
    critical: \"${TOKEN}\"
    max_body: \"${TOKEN}\"
    auth: [\"${TOKEN}\", a, b, e]
";
    let report = report(text);
    assert!(report.errors() >= 12, "{}", report.short());
    for form in
        [report.text(Style::Plain), report.text(Style::Coloured), report.json(), report.short(), report.github()]
    {
        assert!(!form.contains("hunter2") && !form.contains("s3cr3t"), "{form}");
    }
}

#[test]
fn masks_have_one_width_and_move_no_place() {
    let text = "a: [hunter2, correct-horse]\nb: |\n  long\r\n  text\n";
    let at = |part: &str| text.find(part).map(|start| start..start + part.len()).unwrap();
    let finding = super::Diagnostic::new(Code::BadHash, at("correct-horse"), "bad").related(at("b"), "and this");
    let over_lines = at("long").start..at("text").end;
    let masked = [over_lines, at("correct-horse"), at("hunter2"), at("hunter2, c")];
    let report = Report::new(Path::new("f.yaml"), text, vec![finding], &masked);
    insta::assert_snapshot!(report.text(Style::Plain), @"
    error[E0307]: bad
     --> f.yaml:1:14
      |
    1 | a: [******]
      |     ^^^^^^
    2 | b: |
      | - and this
      |
      = docs: tidegate explain-error E0307

    f.yaml: 1 error, 0 warnings
    ");
    let last = super::Diagnostic::new(Code::BadHash, at("text"), "bad");
    let report = Report::new(Path::new("f.yaml"), text, vec![last], &masked);
    insta::assert_snapshot!(report.text(Style::Plain), @"
    error[E0307]: bad
     --> f.yaml:4:3
      |
    4 | ******
      | ^^^^^^
      |
      = docs: tidegate explain-error E0307

    f.yaml: 1 error, 0 warnings
    ");
}

#[test]
fn at_most_fifty_are_kept_and_errors_go_before_warnings() {
    let mut text = "listen: 8080\nroutes:\n".to_owned();
    for i in 0..60 {
        text.push_str(&format!("  - {{ path: /w{i}, to: \"127.0.0.1:9001\" }}\n"));
    }
    for i in 0..60 {
        text.push_str(&format!("  - {{ path: /e{i}, to: nowhere, limit: 1 }}\n"));
    }
    let report = report(&text);
    assert_eq!((report.errors(), report.warnings()), (Report::CAP, 0));
    assert!(report.iter().all(|finding| finding.code.severity() == Severity::Error));
    assert!(report.count_line().ends_with("(130 more not shown)"), "{}", report.count_line());
}

#[test]
fn what_turns_out_late_has_the_places_of_the_text_and_the_same_bound() {
    let report = Report::new(Path::new("f.yaml"), "a: 1\nb: 2\nc: 3\n", vec![], &[]);
    let late = |line| (line, super::Diagnostic::new(ONLY_WHILE_RUNNING, 0..0, format!("line {line}")));
    assert_eq!(
        report.of_late([late(3), late(1)]).short(),
        "f.yaml:1:1: error[E0410]: line 1\nf.yaml:3:1: error[E0410]: line 3\n"
    );
    let many = report.of_late((0..60).map(|_| late(2)));
    assert_eq!(many.errors(), Report::CAP);
    assert!(many.count_line().contains("10 more not shown"), "{}", many.count_line());
}

#[test]
fn all_structural_errors_are_found_in_one_run() {
    let text = "listen: [1]\nfoo: 1\nroutes:\n  - nothing\n  - path: /x\n    bar: 1\n    to: { a: [1] }\n  - path: []\n    to: 1.2.3.4:1\nlimits: []\n";
    let codes: Vec<(&str, usize)> = {
        let report = report(text);
        report.iter().map(|f| (f.code.id(), report.position(f.span.start).line)).collect()
    };
    for expected in [("E0206", 1), ("E0201", 2), ("E0206", 4), ("E0201", 6), ("E0206", 7), ("E0206", 8), ("E0206", 10)]
    {
        assert!(codes.contains(&expected), "{expected:?} in {codes:?}");
    }
}

#[test]
fn a_code_explains_itself() {
    insta::assert_snapshot!(Code::Duration.explain());
}

#[test]
fn a_failed_load_says_which_files_it_asked_for() {
    let text = "listen: ${file:a}\nauth: { x: { basic: { users_file: b } } }\nroutes: []\n";
    let files: Vec<_> = report(text).files().iter().map(|file| file.display().to_string()).collect();
    assert_eq!(files, ["a", "b"]);
}

#[test]
fn line_ends_of_windows_move_no_place() {
    let unix = "listen: 8080\nroutes:\n  - path: /*\n    to: 127.0.0.1\n    health: tcp\n";
    let windows = unix.replace('\n', "\r\n");
    assert_eq!(report(unix).text(Style::Plain), report(&windows).text(Style::Plain));
}

/// The control plane reports so what it cannot read at all.
#[test]
fn a_report_without_a_text_is_printed() {
    let finding = super::Diagnostic::new(Code::Unreadable, 0..0, "cannot read tidegate.yaml: no such file");
    let report = Report::new(Path::new("tidegate.yaml"), "", vec![finding], &[]);
    insta::assert_snapshot!(report.text(Style::Plain), @"
    error[E0303]: cannot read tidegate.yaml: no such file
    --> tidegate.yaml
     = docs: tidegate explain-error E0303

    tidegate.yaml: 1 error, 0 warnings
    ");
    assert!(report.short().starts_with("tidegate.yaml:1:1: error[E0303]: cannot read"));
}
