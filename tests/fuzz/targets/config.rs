//! Any text is a config or a report of what is wrong with it, in every form, and a config means the same when read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::config::{Source, Style, load};

fuzz_target!(|text: &str| {
    let source = Source { path: "/nowhere/tidegate.yaml".into(), text: text.to_owned() };
    let env = |name: &str| name.len().is_multiple_of(2).then(|| name.to_owned());
    match load(&source, &env) {
        Ok(loaded) => assert_eq!(loaded.plan, load(&source, &env).expect("it was one a moment ago").plan),
        Err(report) => {
            assert!(report.errors() > 0);
            let forms = [
                report.text(Style::Plain),
                report.text(Style::Coloured),
                report.json(),
                report.short(),
                report.github(),
            ];
            assert!(forms.iter().all(|form| !form.is_empty()));
        }
    }
});
