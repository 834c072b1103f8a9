//! Past a flaw: a text that is not YAML is mended in a copy, and the copy is read, so that one run reports what stands after the
//! flaw, too.
//!
//! A mend is what was most likely meant where that is plain (a tab is spaces, an open bracket is closed on its line); else the
//! line is left out. Lines stay lines, and every byte of the copy knows the written one that it stands for: places are
//! reported in the text as written.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use super::super::diagnostics::{Code, Diagnostic};

/// How far a tab goes in people's editors. The first with which the file reads best is taken.
const TAB_STOPS: [usize; 3] = [8, 4, 2];
/// The column past which a tab is one space: nobody indents so far, and the copy stays small.
const FARTHEST_TAB: usize = 64;

/// A place where a text is not YAML.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) finding: Diagnostic,
    pub(super) mend: Mend,
}

/// How reading goes on after a flaw.
#[derive(Debug)]
pub(super) enum Mend {
    /// As if tabs in indentations were spaces.
    Tabs,
    /// As if a part of the text were this.
    Replace(Range<usize>, String),
    /// Without the line of the finding and what belongs to it.
    LeaveOut,
    /// Not at all.
    Stop,
}

/// A copy of a text with its mends, and what was said of each flaw.
pub(super) struct Mended {
    draft: Draft,
    pub(super) findings: Vec<Diagnostic>,
    /// What is written and not in the copy, or not read of it.
    pub(super) gaps: Vec<Range<usize>>,
    left_out: BTreeSet<usize>,
    tabbed: BTreeSet<usize>,
}

impl Mended {
    pub(super) fn new(text: &Arc<str>) -> Self {
        let draft = Draft { text: text.to_string(), written: vec![] };
        Self { draft, findings: vec![], gaps: vec![], left_out: BTreeSet::new(), tabbed: BTreeSet::new() }
    }

    pub(super) fn text(&self) -> &str {
        &self.draft.text
    }

    /// The written bytes that a part of the copy stands for.
    pub(super) fn written(&self, span: &Range<usize>) -> Range<usize> {
        self.draft.written(span.start)..self.draft.written(span.end)
    }

    /// A finding in the copy as one in the text.
    pub(super) fn placed(&self, mut finding: Diagnostic) -> Diagnostic {
        finding.span = self.written(&finding.span);
        for related in &mut finding.related {
            related.span = self.written(&related.span);
        }
        finding
    }

    /// Notes a flaw and mends it, if there is a way; `lines_read` says how many lines of a text can be read.
    pub(super) fn mend(&mut self, flaw: Flaw, lines_read: impl Fn(&str) -> usize) -> bool {
        let Flaw { finding, mend } = flaw;
        let at = finding.span.start;
        let is_consequence = self.is_consequence(&finding);
        if !is_consequence {
            let finding = self.placed(finding);
            self.findings.push(match mend {
                Mend::Tabs => with_other_lines(finding, &self.draft),
                Mend::Replace(..) | Mend::LeaveOut | Mend::Stop => finding,
            });
        }
        match mend {
            Mend::Stop => {
                self.give_up();
                false
            }
            Mend::LeaveOut => self.leave_out(at),
            _ if is_consequence => self.leave_out(at),
            Mend::Replace(span, by) => {
                self.draft.replace(span, &by);
                true
            }
            Mend::Tabs => {
                self.tabbed = self.draft.tabbed_lines().collect();
                // Of several that are best the last wins, so that the first of the list comes last.
                let drafts = TAB_STOPS.iter().rev().map(|stop| self.draft.with_tab_stops(*stop));
                if let Some(best) = drafts.max_by_key(|draft| lines_read(&draft.text)) {
                    self.draft = best;
                }
                true
            }
        }
    }

    /// Notes that the copy is read no further: the tree may lack anything.
    pub(super) fn give_up(&mut self) {
        self.gaps.push(0..self.draft.written(self.draft.text.len()));
    }

    /// Whether a flaw is there only because an earlier one was mended as it was, or is that one, not mended by it.
    fn is_consequence(&self, finding: &Diagnostic) -> bool {
        let span = self.written(&finding.span);
        let line = self.draft.line_number(finding.span.start);
        self.findings.iter().any(|known| known.code == finding.code && known.span == span)
            || (finding.code == Code::NotYaml && self.tabbed.contains(&line))
            || self.follows_what_was_left_out(line)
    }

    fn follows_what_was_left_out(&self, line: usize) -> bool {
        let above: Vec<&str> = self.draft.text.lines().take(line + 1).collect();
        for (number, text) in above.into_iter().enumerate().rev() {
            if self.left_out.contains(&number) {
                return true;
            }
            if number < line && !text.trim().is_empty() {
                return false;
            }
        }
        false
    }

    /// Leaves out what stands at a byte on its line, and the lines that belong to it: those further in. A dash before it stays,
    /// so that the other fields of the item are read, unless the line itself is out of place.
    fn leave_out(&mut self, at: usize) -> bool {
        let number = self.draft.line_number(at);
        let mut lines = self.draft.text.split_inclusive('\n');
        let above: Vec<&str> = lines.by_ref().take(number).collect();
        let mut start: usize = above.iter().map(|line| line.len()).sum();
        let Some(line) = lines.next() else { return false };
        let dashes = line.len() - line.trim_start_matches([' ', '\t', '-']).len();
        let is_after_dash = at >= start + dashes && !line[dashes..].trim().is_empty();
        let (from, column) = match meant_column(line, &above) {
            Some(meant) => (indentation(line), meant),
            None if is_after_dash => (dashes, dashes),
            None => (indentation(line), indentation(line)),
        };
        let further_in = lines.take_while(|line| indentation(line) > column || line.trim().is_empty());
        let mut gone: Vec<Range<usize>> = vec![];
        for (line, from) in std::iter::once((line, from)).chain(further_in.map(|line| (line, 0))) {
            gone.push(start + from..start + line.trim_end().len());
            start += line.len();
        }
        gone.retain(|span| span.start < span.end);
        self.left_out.extend(gone.iter().map(|span| self.draft.line_number(span.start)));
        for span in &gone {
            self.gaps.push(self.written(span));
            self.draft.text.replace_range(span.clone(), &" ".repeat(span.len()));
        }
        !gone.is_empty()
    }
}

/// Where a line is out of place, as an item that no list above has in its column or a field that is left of those above: the
/// column of what it was most likely meant to stand beside.
fn meant_column(line: &str, above: &[&str]) -> Option<usize> {
    let column = indentation(line);
    let is_item = |line: &str| line.trim_start().starts_with("- ");
    let opens_block = |line: &str| line.split(" #").next().unwrap_or_default().trim_end().ends_with(':');
    let says_nothing = |line: &&&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let mut below = None;
    let mut lines = above.iter().rev().filter(|line| !says_nothing(line));
    let outer = loop {
        let line = lines.next()?;
        if indentation(line) <= column {
            break line;
        }
        below = Some(indentation(line));
    };
    let is_beside = indentation(outer) == column;
    match below {
        Some(inner) if !is_beside || (is_item(line) && opens_block(outer)) => return Some(inner),
        _ if !is_item(line) || opens_block(outer) || (is_item(outer) && is_beside) => return None,
        _ => {}
    }
    let list = [outer].into_iter().chain(lines).find(|line| is_item(line) && indentation(line) < column);
    Some(list.map_or(column, |item| indentation(item)))
}

/// A text, and for each of its bytes and the end the written one, unless they are the same.
struct Draft {
    text: String,
    written: Vec<u32>,
}

impl Draft {
    fn written(&self, at: usize) -> usize {
        self.written.get(at).map_or(at, |written| *written as usize)
    }

    /// The number of a byte's line, the first being 0.
    fn line_number(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// The numbers of the lines that start with a tab, or with one after spaces.
    fn tabbed_lines(&self) -> impl Iterator<Item = usize> {
        let lines = self.text.lines().enumerate();
        let tabbed = lines.filter(|(_, line)| line[..indentation(line)].contains('\t') && !line.trim().is_empty());
        tabbed.map(|(number, _)| number)
    }

    fn replace(&mut self, span: Range<usize>, by: &str) {
        if self.written.is_empty() {
            self.written = (0..).take(self.text.len() + 1).collect();
        }
        let start = self.written(span.start) as u32;
        self.written.splice(span.clone(), std::iter::repeat_n(start, by.len()));
        self.text.replace_range(span, by);
    }

    fn with_tab_stops(&self, stop: usize) -> Self {
        let mut draft = Self { text: String::with_capacity(self.text.len()), written: vec![] };
        let mut at = 0;
        for line in self.text.split_inclusive('\n') {
            let indent = indentation(line);
            let mut column = 0;
            for byte in line[..indent].bytes() {
                let width = if byte == b'\t' && column < FARTHEST_TAB { stop - column % stop } else { 1 };
                draft.push(&" ".repeat(width), std::iter::repeat_n(self.written(at), width));
                column += width;
                at += 1;
            }
            let end = at + line.len() - indent;
            draft.push(&line[indent..], (at..end).map(|at| self.written(at)));
            at = end;
        }
        draft.push("", [self.written(at)]);
        draft
    }

    fn push(&mut self, text: &str, written: impl IntoIterator<Item = usize>) {
        self.text.push_str(text);
        self.written.extend(written.into_iter().map(|at| at as u32));
    }
}

/// Says which other lines start with tabs.
fn with_other_lines(finding: Diagnostic, draft: &Draft) -> Diagnostic {
    let first = draft.line_number(finding.span.start);
    let others: Vec<usize> = draft.tabbed_lines().filter(|line| *line != first).collect();
    match others[..] {
        [] => finding,
        [one] => finding.note(format!("so does line {}", one + 1)),
        [ref some @ .., last] if others.len() <= 8 => {
            let some: Vec<String> = some.iter().map(|line| (line + 1).to_string()).collect();
            finding.note(format!("so do lines {} and {}", some.join(", "), last + 1))
        }
        [next, ..] => finding.note(format!("so do {} other lines, the next is line {}", others.len(), next + 1)),
    }
}

/// How many bytes of a line stand before its text.
fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}
