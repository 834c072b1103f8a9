//! `${NAME}`, `${NAME:-default}`, `${file:PATH}` and `$${` inside scalar values.
//!
//! Expanded after parsing, so a value can never add structure, and once: what a variable holds is not expanded again.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What a variable is looked up in.
pub(in crate::config) struct Sources<'a> {
    /// The environment.
    pub(in crate::config) env: &'a dyn Fn(&str) -> Option<String>,
    /// The folder that paths start from.
    pub(in crate::config) folder: &'a Path,
}

/// Why a text could not be expanded.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::config) enum Failure {
    /// Not `NAME`, `NAME:-default` or `file:PATH`, or no `}`.
    Form(String),
    /// No such variable and no default.
    Unset(String),
    /// A file that could not be read, and why.
    Unreadable(PathBuf, String),
}

/// The largest file that `${file:…}` takes.
const LARGEST: u64 = 64 * 1024;

/// The text with every `${…}` replaced; `None` where there is none. Files that were asked for go to `files`, read or not.
pub(in crate::config) fn expand(
    text: &str,
    sources: &Sources<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<Option<String>, Failure> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, tail) = rest.split_at(at);
        let tail = &tail[2..];
        if let Some(literal) = before.strip_suffix('$') {
            out.extend([literal, "${"]);
            rest = tail;
            continue;
        }
        let close = tail.find('}').ok_or_else(|| Failure::Form(format!("${{{tail}")))?;
        out.push_str(before);
        out.push_str(&lookup(&tail[..close], sources, files)?);
        rest = &tail[close + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn lookup(inside: &str, sources: &Sources<'_>, files: &mut Vec<PathBuf>) -> Result<String, Failure> {
    if inside.contains("${") {
        return Err(Failure::Form(format!("${{{inside}}}")));
    }
    if let Some(path) = inside.strip_prefix("file:") {
        let path = sources.folder.join(path);
        files.push(path.clone());
        let text = read_text(&path, LARGEST).map_err(|why| Failure::Unreadable(path, why))?;
        return Ok(text
            .strip_suffix('\n')
            .map(|text| text.strip_suffix('\r').unwrap_or(text))
            .unwrap_or(&text)
            .to_owned());
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Failure::Form(format!("${{{inside}}}")));
    }
    match ((sources.env)(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Failure::Unset(name.to_owned())),
    }
}

/// Reads a text file of a bounded size. The error is the reason alone, for the end of a sentence.
pub(in crate::config) fn read_text(path: &Path, largest: u64) -> Result<String, String> {
    let reason = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => format!("permission denied{}", running_as()),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    };
    let mut bytes = vec![];
    let file = crate::base::open_regular(path).map_err(reason)?;
    file.take(largest + 1).read_to_end(&mut bytes).map_err(reason)?;
    if bytes.len() as u64 > largest {
        return Err(format!("it is larger than {}", crate::base::Size(largest)));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// ` for uid 1000`, where the system says who that is.
fn running_as() -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or_else(|_| String::new(), |process| format!(" for uid {}", process.uid()))
}
