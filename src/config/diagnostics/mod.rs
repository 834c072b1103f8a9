//! What is wrong with a config, said so that it can be fixed.
//!
//! A [`Diagnostic`] is one fact: a code, a sentence, the place, the fix. A [`Report`] is all of them for one file, in file order,
//! and prints itself for people, editors, CI and programs (`render`). The messages are a contract with operators: every one
//! of them is a committed snapshot. Nothing here reads YAML, and no secret value is in here: the report's copy of the text is
//! masked where the check found values that must not be shown.

mod code;
mod render;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

pub use code::{Code, Severity};
pub use render::Style;

use crate::base::Secret;

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// What kind of mistake it is; the severity is the code's.
    pub code: Code,
    /// One sentence that names the thing and the value.
    pub message: String,
    /// The bytes of the text that it is about.
    pub span: Range<usize>,
    /// A few words beside the caret, mostly the fix.
    pub label: Option<String>,
    /// Lines below: allowed values, where something is defined.
    pub notes: Vec<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
    /// The text that would replace the span to put it right, where that is one word.
    pub fix: Option<String>,
    /// The place as a path of keys and numbers: `routes[2].timeouts.request`. Empty for a syntax error.
    pub path: String,
}

/// Another place that belongs to a finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Related {
    /// Its bytes in the same text.
    pub span: Range<usize>,
    /// What is there.
    pub label: String,
}

impl Diagnostic {
    /// A finding at a place.
    #[must_use]
    pub fn new(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, span, label: None, notes: vec![], related: vec![], fix: None, path: String::new() }
    }

    /// Adds the words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds a line below.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related.push(Related { span, label: label.into() });
        self
    }

    /// Adds the replacement of the span.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds the path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

/// All findings of one file, by position, at most [`Report::CAP`] of them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    file: Box<str>,
    text: Box<str>,
    /// Where the text is stars: in order, apart, none over a line's end.
    masked: Box<[Range<usize>]>,
    lines: Lines,
    findings: Vec<Diagnostic>,
    more: usize,
    files: Vec<PathBuf>,
}

/// Shorter values are in many words by chance, and guessed as fast as read.
const SHORTEST_SECRET: usize = 4;

/// Where the lines of a text start.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Box<[usize]>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line of a byte, counted from 1, and where it starts.
    pub(super) fn line(&self, byte: usize) -> (usize, usize) {
        let line = self.0.partition_point(|start| *start <= byte).max(1);
        (line, self.0.get(line - 1).copied().unwrap_or_default())
    }
}

/// A position in the text, counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub col: usize,
}

impl Report {
    /// The most findings that are kept.
    pub const CAP: usize = 50;

    /// Sorts the findings by position. `masked` are parts of the text that are shown as stars.
    #[must_use]
    pub fn new(file: &Path, text: &str, mut findings: Vec<Diagnostic>, masked: &[Range<usize>]) -> Self {
        findings.sort_by_key(|finding| (finding.span.start, finding.code));
        findings.dedup();
        let more = findings.len().saturating_sub(Self::CAP);
        // Errors are never pushed out by warnings.
        if more > 0 {
            findings.sort_by_key(|finding| finding.code.severity());
            findings.truncate(Self::CAP);
            findings.sort_by_key(|finding| finding.span.start);
        }
        let lines = Lines::of(text);
        let masked = within_lines(text, masked);
        let text = if findings.is_empty() { String::new() } else { mask(text, &masked) };
        let (file, text) = (file.display().to_string().into(), text.into());
        Self { file, text, masked, lines, findings, more, files: vec![] }
    }

    /// Puts what is written in the place of what it stands for, wherever a finding quotes the value of a `${…}`.
    pub(super) fn without(mut self, values: &[(Secret, String)]) -> Self {
        for finding in &mut self.findings {
            let texts = [&mut finding.message].into_iter().chain(&mut finding.label).chain(&mut finding.fix);
            for text in texts.chain(&mut finding.notes) {
                for (value, written) in values.iter().filter(|(value, _)| value.expose().len() >= SHORTEST_SECRET) {
                    if text.contains(value.expose()) {
                        *text = text.replace(value.expose(), written);
                    }
                }
            }
        }
        self
    }

    /// Adds the other files that the config asks for.
    pub(super) fn with_files(mut self, files: Vec<PathBuf>) -> Self {
        self.files = files;
        self
    }

    /// A report of one thing more about the same text, which turned out later, at one of its lines.
    #[must_use]
    pub fn of_one(&self, line: usize, finding: Diagnostic) -> Self {
        self.of_late([(line, finding)])
    }

    /// A report of what turned out later about the same text, each at one of its lines. Of more than [`Report::CAP`] the first are
    /// kept.
    #[must_use]
    pub fn of_late(&self, findings: impl IntoIterator<Item = (usize, Diagnostic)>) -> Self {
        let placed = findings.into_iter().map(|(line, mut finding)| {
            let start = self.lines.0.get(line.saturating_sub(1)).copied().unwrap_or_default();
            finding.span = start..start;
            finding
        });
        let mut findings: Vec<Diagnostic> = placed.collect();
        findings.sort_by_key(|finding| finding.span.start);
        let more = findings.len().saturating_sub(Self::CAP);
        findings.truncate(Self::CAP);
        Self { findings, more, ..self.clone() }
    }

    /// Other files that the config asks for, readable or not: an edit of one may put the config right.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The findings in file order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.findings.iter()
    }

    /// The file as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many findings are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many findings are warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.code.severity() == severity).count()
    }

    /// Where a byte of the text is.
    #[must_use]
    pub fn position(&self, byte: usize) -> Position {
        let (line, start) = self.lines.line(byte);
        let col = self.text.get(start..byte.max(start)).map_or(0, |before| before.chars().count()) + 1;
        Position { line, col }
    }
}

impl<'a> IntoIterator for &'a Report {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The spans in order, those that touch as one, cut at the ends of lines.
fn within_lines(text: &str, spans: &[Range<usize>]) -> Box<[Range<usize>]> {
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.start);
    let mut cut: Vec<Range<usize>> = vec![];
    for span in spans {
        let mut start = span.start;
        for line in text.get(span).unwrap_or_default().split_inclusive('\n') {
            let end = start + line.trim_end_matches(['\r', '\n']).len();
            match cut.last_mut() {
                Some(last) if start <= last.end => last.end = end.max(last.end),
                _ if start < end => cut.push(start..end),
                _ => {}
            }
            start += line.len();
        }
    }
    cut.into()
}

/// Replaces spans by stars, byte for byte, so that every other span stays right.
fn mask(text: &str, spans: &[Range<usize>]) -> String {
    let mut masked = text.to_owned();
    for span in spans {
        masked.replace_range(span.clone(), &"*".repeat(span.len()));
    }
    masked
}
