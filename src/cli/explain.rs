//! `tidegate explain-error`: what a code of `check` means, with a config that has the mistake and one that does not.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::{Trouble, print::print};
use crate::config::{Code, Severity};

pub(super) fn explain_error(id: &str) -> Result<ExitCode, Trouble> {
    match Code::find(id) {
        Some(code) => print(&explanation(code)),
        None => {
            let known: Vec<&str> = Code::ALL.iter().map(|code| code.id()).collect();
            Err(Trouble(format!("no code `{id}`. Codes: {}", known.join(", "))))
        }
    }
}

fn explanation(code: Code) -> String {
    let style = match code.severity() {
        Severity::Error => AnsiColor::Red.on_default().bold(),
        Severity::Warning => AnsiColor::Yellow.on_default().bold(),
    };
    let head = Style::new().bold();
    format!(
        "{style}{}[{}]{style:#}: {}\n\n{}\n\n{head}Wrong{head:#}\n{}\n{head}Right{head:#}\n{}",
        code.severity(),
        code.id(),
        code.title(),
        code.explanation(),
        indented(code.bad()),
        indented(code.good()),
    )
}

fn indented(yaml: &str) -> String {
    yaml.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_with_both_configs() {
        for code in Code::ALL {
            let text = anstream::adapter::strip_str(&explanation(*code)).to_string();
            let (_, rest) = text.split_once("\nWrong\n").expect("it shows the mistake");
            let (bad, good) = rest.split_once("\nRight\n").expect("it shows the fix");
            assert!(text.starts_with(&format!("{}[{}]: ", code.severity(), code.id())), "{text}");
            assert_ne!(bad.trim(), good.trim(), "{}", code.id());
        }
    }

    #[test]
    fn a_code_that_does_not_exist_is_trouble() {
        let Err(Trouble(what)) = explain_error("E9999") else { panic!("it exists") };
        assert!(what.starts_with("no code `E9999`. Codes: E0101, "), "{what}");
    }
}
