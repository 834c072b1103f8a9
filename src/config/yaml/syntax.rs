//! Why a text is not YAML, in an operator's words.
//!
//! The parser says where it gave up, which is often far from the mistake. The five mistakes that people make are recognised
//! here by looking at the text again; for all else there is a plain sentence.

use std::ops::Range;

use super::super::{
    diagnostics::{Code, Diagnostic},
    suggest,
};

/// The finding for a text in which the parser gave up at a byte.
pub(super) fn explain(text: &str, at: usize, parser_says: &str) -> Diagnostic {
    let at = at.min(text.len());
    // A value may go on in the next line: where that starts with a tab, the parser gives up at the value.
    let next_line = line_around(text, at).end + 1;
    tab(text, at)
        .or_else(|| tab(text, text.get(next_line..).map_or(at, |_| next_line)))
        .or_else(|| alias(text, at, parser_says))
        .or_else(|| interpolation(text, at))
        .or_else(|| unclosed_quote(text, at, parser_says))
        .or_else(|| unclosed_bracket(text, at))
        .unwrap_or_else(|| other(text, at, parser_says))
}

fn line_around(text: &str, at: usize) -> Range<usize> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    start..end
}

fn tab(text: &str, at: usize) -> Option<Diagnostic> {
    let line = line_around(text, at);
    let written = &text[line.clone()];
    let indent = &written[..written.len() - written.trim_start_matches([' ', '\t']).len()];
    let first = indent.find('\t')?;
    let tabs = indent.matches('\t').count();
    let span = line.start + first..line.start + indent.len();
    let plural = if tabs == 1 { "" } else { "s" };
    let label = format!("YAML allows only spaces; this line starts with {tabs} tab{plural}");
    Some(Diagnostic::new(Code::Tab, span, "indentation uses a tab").label(label))
}

/// The characters from `at` to the end of a plain word in flow or block style.
fn word(text: &str, at: usize) -> Range<usize> {
    let rest = &text[at..];
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(rest.len());
    at..at + end
}

fn alias(text: &str, at: usize, parser_says: &str) -> Option<Diagnostic> {
    if !text[at..].starts_with('*') || !(parser_says.contains("anchor") || parser_says.contains("alias")) {
        return None;
    }
    let span = word(text, at);
    let written = &text[span.clone()];
    let anchors = text.match_indices('&').map(|(found, _)| &text[word(text, found)][1..]);
    if let Some(anchor) = suggest::nearest(&written[1..], anchors.filter(|anchor| !anchor.is_empty())) {
        let finding = Diagnostic::new(Code::UnquotedStar, span, format!("`{written}` is not defined above"));
        return Some(finding.label(format!("did you mean `*{anchor}`?")).fix(format!("*{anchor}")));
    }
    let label = format!("an unquoted * starts a YAML alias; write \"{written}\"");
    let fix = format!("\"{written}\"");
    Some(Diagnostic::new(Code::UnquotedStar, span, format!("`{written}` must be quoted")).label(label).fix(fix))
}

fn interpolation(text: &str, at: usize) -> Option<Diagnostic> {
    let line = line_around(text, at);
    let start = text[..at].ends_with('$').then(|| at - 1).or_else(|| text[at..].starts_with("${").then_some(at))?;
    let end = text[start..line.end].find('}').map(|close| start + close + 1)?;
    let written = &text[start..end];
    let key = text[line.start..start].trim_end().strip_suffix(':');
    let key = key.map(|before| before.rsplit([' ', '{', ',', '[']).next().unwrap_or_default());
    let quoted = match key {
        Some(key) if !key.is_empty() => format!("{key}: \"{written}\""),
        _ => format!("\"{written}\""),
    };
    let label = format!("write {quoted}, or put the fields on separate lines");
    let finding =
        Diagnostic::new(Code::UnquotedVariable, start..end, format!("`{written}` inside {{ }} must be quoted"));
    Some(finding.label(label).fix(format!("\"{written}\"")))
}

fn unclosed_quote(text: &str, at: usize, parser_says: &str) -> Option<Diagnostic> {
    let quote = text[at..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if parser_says.contains("escape") {
        return None;
    }
    let finding = Diagnostic::new(Code::Unclosed, at..at + 1, format!("this `{quote}` is never closed"));
    Some(finding.label("the text that starts here has no end"))
}

/// The values that may be secrets in a text that was not understood: what stands under `users`, `keys` and in headers that
/// carry credentials. Where a text is understood, the check knows better.
pub(in crate::config) fn secrets(text: &str) -> Vec<Range<usize>> {
    const BLOCKS: &[&str] = &["users", "keys"];
    const NAMES: &[&str] = &["authorization", "cookie", "password", "secret", "token", "x-api-key"];
    let mut spans = vec![];
    let mut block: Option<usize> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end().len();
        let indent = line.len() - line.trim_start().len();
        let lower = line.to_ascii_lowercase();
        // How deep a tab goes is not defined: it may be inside.
        let has_tab = line[..indent].contains('\t');
        let is_inside = block.is_some_and(|outer| indent > outer || has_tab) && !line.trim().is_empty();
        if !is_inside && !line.trim().is_empty() {
            block = None;
        }
        let after = |word: &str| {
            let at = lower.find(&format!("{word}:")).or_else(|| lower.find(&format!("{word}\":")))?;
            lower[at..].find(':').map(|colon| at + colon + 1)
        };
        let opened = BLOCKS.iter().find_map(|word| after(word));
        let from = match opened {
            _ if is_inside => line.find(':').map_or(Some(indent), |colon| Some(colon + 1)),
            Some(from) => {
                block = Some(indent);
                Some(from)
            }
            None => NAMES.iter().find_map(|word| after(word)),
        };
        if let Some(from) = from {
            let value = line[from..].trim_start();
            let from = start + line.len() - value.len();
            if from < end && !value.trim_start_matches('"').starts_with("${") {
                spans.push(from..end);
            }
        }
        start += line.len();
    }
    spans
}

/// The innermost bracket that is open where the parser gave up, unless it is closed on its own line.
fn unclosed_bracket(text: &str, at: usize) -> Option<Diagnostic> {
    let open = open_brackets(text, at);
    let (opener, bracket) = *open.last()?;
    let closer = if bracket == '[' { ']' } else { '}' };
    let line_end = line_around(text, opener).end;
    let rest = &text[at.max(opener + 1).min(line_end)..line_end];
    if rest.contains(closer) && at <= line_end {
        return None;
    }
    let gave_up = at.min(text.trim_end().len());
    let span = opener..opener + 1;
    let finding = Diagnostic::new(Code::Unclosed, span, format!("this `{bracket}` is never closed"));
    let finding = finding.label(format!("add a `{closer}`"));
    Some(if gave_up > opener + 1 { finding.related(gave_up..gave_up, "reading stopped here") } else { finding })
}

fn open_brackets(text: &str, until: usize) -> Vec<(usize, char)> {
    let mut open: Vec<(usize, char)> = vec![];
    let mut quote = None;
    let mut before = '\n';
    let mut chars = text[..until].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some('"'), '\\') => {
                chars.next();
            }
            (Some(open_quote), _) if c == open_quote => quote = None,
            (None, '#') if before.is_whitespace() => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            // Brackets and quotes mean something at the start of a value, or inside brackets.
            (None, '"' | '\'') if is_start(before) => quote = Some(c),
            (None, '[' | '{') if !open.is_empty() || is_start(before) => open.push((at, c)),
            (None, ']' | '}') => {
                open.pop();
            }
            (Some(_) | None, _) => {}
        }
        before = c;
    }
    open
}

fn is_start(before: char) -> bool {
    before.is_whitespace() || matches!(before, '[' | '{' | ',' | ':')
}

fn other(text: &str, at: usize, parser_says: &str) -> Diagnostic {
    let span = at..(at + text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8));
    let here = &text[span.clone()];
    let says = |part: &str| parser_says.contains(part);
    let (message, label) = if says("mapping values are not allowed") || says("illegal placement of ':'") {
        ("a `:` does not belong here".to_owned(), "check the indentation, or quote text that has a `:` in it")
    } else if says("'-' indicator") || says("block collection") || says("block mapping") || says("simple key") {
        ("this line does not fit the lines above".to_owned(), "check its indentation, and that a field ends with `:`")
    } else if says("unexpected character") || says("cannot start any token") {
        (format!("text cannot start with `{here}`"), "quote it")
    } else if says("',' or") || !open_brackets(text, at).is_empty() {
        ("a comma is missing before this".to_owned(), "fields and items in brackets are separated by commas")
    } else if says("bracket") {
        (format!("this `{here}` closes nothing"), "delete it, or quote the text")
    } else if says("escape") {
        ("a `\\` in this text means nothing".to_owned(), "write \\\\, or use single quotes")
    } else {
        ("this is not valid YAML".to_owned(), "reading stopped here")
    };
    Diagnostic::new(Code::NotYaml, span, message).label(label)
}
