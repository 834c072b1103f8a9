//! The four forms of a report: text for people, short for editors, JSON for programs, annotations for GitHub.

use std::{fmt::Write as _, ops::Range};

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Position, Report, Severity};

/// Whether text is coloured. The caller knows the stream; nothing is lost without colour.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Style {
    /// ANSI colours.
    Coloured,
    /// None.
    #[default]
    Plain,
}

impl Report {
    /// Every finding with its source lines, and a last line that counts them.
    #[must_use]
    pub fn text(&self, style: Style) -> String {
        let renderer = match style {
            Style::Coloured => Renderer::styled(),
            Style::Plain => Renderer::plain(),
        };
        let mut out = String::new();
        for finding in self {
            out.push_str(&self.snippet(&renderer, finding));
            out.push_str("\n\n");
        }
        out + &self.count_line() + "\n"
    }

    /// `tidegate.yaml: 2 errors, 0 warnings`
    #[must_use]
    pub fn count_line(&self) -> String {
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let mut line =
            format!("{}: {}, {}", self.file, plural(self.errors(), "error"), plural(self.warnings(), "warning"));
        if self.more > 0 {
            let _ = write!(line, " ({} more not shown)", self.more);
        }
        line
    }

    /// `file:line:col: error[E0201]: text`, a line each.
    #[must_use]
    pub fn short(&self) -> String {
        let mut out = String::new();
        for finding in self {
            let at = self.position(finding.span.start);
            let (severity, id) = (finding.code.severity(), finding.code.id());
            let _ = writeln!(out, "{}:{}:{}: {severity}[{id}]: {}", self.file, at.line, at.col, finding.message);
        }
        out
    }

    /// One JSON object per line: `code, severity, message, file, line, col, end_col, path, suggestion, fix`.
    ///
    /// `suggestion` is for people; `fix` is the text that replaces the columns from `col` up to `end_col`. Both may be null.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::new();
        for finding in self {
            let (from, to) = (self.position(finding.span.start), self.position(finding.span.end));
            let end_col = if to.line == from.line { to.col } else { from.col };
            let object = serde_json::json!({
                "code": finding.code.id(), "severity": finding.code.severity().to_string(), "message": finding.message,
                "file": self.file, "line": from.line, "col": from.col, "end_col": end_col,
                "path": finding.path, "suggestion": finding.label, "fix": finding.fix,
            });
            let _ = writeln!(out, "{object}");
        }
        out
    }

    /// GitHub workflow annotations, a line each.
    #[must_use]
    pub fn github(&self) -> String {
        let escape = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
        let mut out = String::new();
        for finding in self {
            let at = self.position(finding.span.start);
            let label = finding.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
            let _ = writeln!(
                out,
                "::{} file={},line={},col={},title={}::{}",
                finding.code.severity(),
                property(&self.file),
                at.line,
                at.col,
                finding.code.id(),
                escape(&format!("{}{label}", finding.message)),
            );
        }
        out
    }

    fn snippet(&self, renderer: &Renderer, finding: &Diagnostic) -> String {
        let window = self.window(finding);
        let within = |span: &Range<usize>| window.start(span.start)..window.end(span.end);
        let related = finding
            .related
            .iter()
            .map(|other| AnnotationKind::Context.span(within(&other.span)).label(other.label.as_str()));
        let snippet = Snippet::source(window.text.as_str())
            .path(&*self.file)
            .line_start(self.position(window.bytes.start).line)
            .annotation(AnnotationKind::Primary.span(within(&finding.span)).label(finding.label.as_deref()))
            .annotations(related);
        let level = match finding.code.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let notes = finding.notes.iter().map(|note| Level::NOTE.no_name().message(note.as_str()));
        let docs = Level::NOTE.with_name("docs").message(format!("tidegate explain-error {}", finding.code.id()));
        let title = level.primary_title(finding.message.as_str()).id(finding.code.id());
        if self.text.is_empty() {
            let origin = Origin::path(&*self.file);
            let label = finding.label.iter().map(|label| Level::NOTE.no_name().message(label.as_str()));
            return renderer.render(&[title.element(origin).elements(label).elements(notes).element(docs)]);
        }
        let rendered = renderer.render(&[title.element(snippet).elements(notes).element(docs)]);
        // Stars may have moved what is behind them: the place to print is that in the file.
        let Position { line, col } = self.position(finding.span.start);
        let place = |col: usize| format!("{}:{line}:{col}", self.file);
        rendered.replacen(&place(window.col(finding.span.start)), &place(col), 1)
    }

    /// The whole lines from the first to the last place of a finding: rendering looks at nothing else of a large file.
    fn window(&self, finding: &Diagnostic) -> Window {
        let spans = || finding.related.iter().map(|other| &other.span).chain([&finding.span]);
        let first = spans().map(|span| span.start).min().unwrap_or_default().min(self.text.len());
        let last = spans().map(|span| span.end).max().unwrap_or_default().min(self.text.len());
        let start = self.text.get(..first).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let end =
            self.text.get(last..).and_then(|after| after.find(['\r', '\n'])).map_or(self.text.len(), |at| last + at);
        let mut window = Window { bytes: start..end, text: String::new(), masks: vec![] };
        let mut copied = start;
        for mask in self.masked.iter().filter(|mask| start <= mask.start && mask.end <= end) {
            window.text.extend([self.text.get(copied..mask.start).unwrap_or_default(), STARS]);
            window.masks.push((mask.clone(), window.text.len()));
            copied = mask.end;
        }
        window.text.push_str(self.text.get(copied..end).unwrap_or_default());
        window
    }
}

/// What is printed for a masked value.
const STARS: &str = "******";

/// Lines as they are printed: what is masked is [`STARS`], so that not even its length is shown.
struct Window {
    /// Where they are in the file.
    bytes: Range<usize>,
    text: String,
    /// What is masked in the file, and where its stars end in `text`.
    masks: Vec<(Range<usize>, usize)>,
}

impl Window {
    /// Where a span that starts at a byte of the file starts in `text`: never within stars.
    fn start(&self, byte: usize) -> usize {
        let within = self.masks.iter().find(|(mask, _)| mask.start < byte && byte < mask.end);
        within.map_or_else(|| self.end(byte), |(_, end)| end - STARS.len())
    }

    /// Where a span that ends at a byte of the file ends in `text`.
    fn end(&self, byte: usize) -> usize {
        let byte = byte.clamp(self.bytes.start, self.bytes.end);
        match self.masks.iter().rev().find(|(mask, _)| mask.start < byte) {
            Some((mask, end)) => end + byte.saturating_sub(mask.end),
            None => byte - self.bytes.start,
        }
    }

    /// The column of a byte of the file, as it is printed.
    fn col(&self, byte: usize) -> usize {
        let before = self.text.get(..self.start(byte)).unwrap_or_default();
        before.chars().rev().take_while(|c| *c != '\n').count() + 1
    }
}
