//! YAML text to plan, or a report of everything that is wrong with it.
//!
//! text → `yaml` (two parsers, places, `${…}`) → `spec` (as written) → `check` (every finding) → `plan` (as meant).
//!
//! The control plane calls [`load`] at start and at every edit, compares with [`diff()`], and shows the [`Report`]; the command
//! line prints it. Nothing here touches the network or keeps state: the same text, environment and files give the same plan.
//! Everything else in the program sees the plan alone and never a YAML value.

mod certain;
mod check;
mod diagnostics;
mod diff;
pub mod plan;
mod reference;
mod schema;
mod spec;
mod suggest;
mod yaml;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    io::{Error, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use diagnostics::Lines;
pub use diagnostics::{Code, Diagnostic, Position, Related, Report, Severity, Style};
pub use diff::{Changes, Entities, diff};
use plan::Plan;
pub use reference::reference;
pub use schema::schema;
pub(crate) use suggest::nearest;

use crate::base::{Name, Size, open_regular};

/// A config's text and where it came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// As given: messages name it so, and relative paths in the config start from its folder.
    pub path: PathBuf,
    /// The text.
    pub text: String,
}

impl Source {
    /// The largest config, and the most that is looked at of any other file, in bytes.
    pub const LARGEST: u64 = yaml::LARGEST as u64;

    /// Reads a file.
    ///
    /// # Errors
    /// What the system says, `InvalidInput` for what is not a regular file, or `InvalidData` for one that is not UTF-8 or larger
    /// than 4 MiB.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let file = open_regular(&path)?;
        Self::from_reader(path, file)
    }

    /// Reads a text to its end, under a name.
    ///
    /// # Errors
    /// What the reader says, or `InvalidData` for a text that is not UTF-8 or larger than 4 MiB.
    pub fn from_reader(path: impl Into<PathBuf>, reader: impl Read) -> Result<Self, Error> {
        let mut bytes = vec![];
        reader.take(yaml::LARGEST as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > yaml::LARGEST {
            return Err(Error::new(ErrorKind::InvalidData, "the file is larger than 4MiB"));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "the file is not UTF-8 text"))?;
        Ok(Self { path: path.into(), text })
    }
}

/// A config that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub plan: Arc<Plan>,
    /// What is odd about it. Holds no errors.
    pub warnings: Report,
    /// Which text it is.
    pub sha: Sha,
    /// Where its things are written.
    pub places: Places,
    /// Other files that were read (keys, users, `${file:…}`), sorted: an edit of one is an edit of the config.
    pub files: Vec<PathBuf>,
}

/// The first seven hexadecimal digits of a text's SHA-256.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Sha(u32);

impl Sha {
    /// Of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let first = digest.as_ref().iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        Self(first >> 4)
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:07x}", self.0)
    }
}

/// The lines, counted from 1, on which things are written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Places {
    /// By listener.
    pub listeners: BTreeMap<Name, usize>,
    /// By route.
    pub routes: BTreeMap<Name, usize>,
    /// By upstream; an anonymous one is where its route is.
    pub upstreams: BTreeMap<Name, usize>,
}

/// Reads a config. `env` is where `${NAME}` is looked up.
///
/// # Errors
/// The report of everything that is wrong, errors and warnings.
pub fn load(source: &Source, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    let Understood { plan, report, spans, files } = read(source, env)?;
    if report.errors() > 0 {
        return Err(report.with_files(files));
    }
    let lines = Lines::of(without_mark(&source.text));
    let placed = |spans: BTreeMap<Name, usize>| spans.into_iter().map(|(name, at)| (name, lines.line(at).0)).collect();
    Ok(Loaded {
        plan: Arc::new(plan),
        warnings: report,
        sha: Sha::of(&source.text),
        places: Places {
            listeners: placed(spans.listeners),
            routes: placed(spans.routes),
            upstreams: placed(spans.upstreams),
        },
        files,
    })
}

/// Where the admin API listens by a config that may have errors, as far as they leave it to be read.
#[must_use]
pub fn admin(source: &Source, env: &dyn Fn(&str) -> Option<String>) -> Option<plan::Admin> {
    read(source, env).ok()?.plan.admin
}

/// A text as far as it can be understood, and what is wrong with it.
struct Understood {
    plan: Plan,
    report: Report,
    spans: check::Spans,
    files: Vec<PathBuf>,
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn read(source: &Source, env: &dyn Fn(&str) -> Option<String>) -> Result<Understood, Report> {
    let text = without_mark(&source.text);
    let folder = source.path.parent().unwrap_or(Path::new(""));

    if text.len() > yaml::LARGEST {
        let finding =
            Diagnostic::new(Code::NotYaml, 0..0, format!("the file is larger than {}", Size(Source::LARGEST)));
        return Err(Report::new(&source.path, "", vec![finding], &[]));
    }

    let (mut document, mut findings) = yaml::Document::parse(text);
    // The check masks the secrets that it sees; in a text that is not sound YAML it may see less than is written.
    let mut masked = if findings.is_empty() { vec![] } else { yaml::secrets(text) };
    let mut files = vec![];
    let (unexpanded, values) = document.expand(&yaml::Sources { env, folder }, &mut files, is_hash);
    findings.extend(unexpanded);
    document.forget_free_keys();
    let (spec, structural) = document.read::<spec::Spec>();
    findings.extend(structural);
    masked.append(&mut document.unread);
    let (plan, checked, spans) = check::check(&spec, document.index.root(), folder, &findings);
    findings.extend(checked.diagnostics.into_iter().filter(|found| certain::is_certain(found, text, &document.gaps)));
    files.extend(checked.files);
    files.sort();
    files.dedup();
    masked.extend(checked.masked);
    let report = Report::new(&source.path, text, findings, &masked).without(&values);
    Ok(Understood { plan, report, spans, files })
}

/// Hashes are taken as they are: `$` means something in them.
fn is_hash(keys: &[&str]) -> bool {
    matches!(keys, ["auth", _, "basic", "users", ..] | ["auth", _, "api_key", "keys", ..])
}
