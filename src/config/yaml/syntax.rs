//! Why a text is not YAML, in an operator's words.
//!
//! The parser says where it gave up, which is often far from the mistake. The mistakes that people make are recognised
//! here by looking at the text again; for all else there is a plain sentence.

use std::ops::Range;

use super::{
    super::{
        diagnostics::{Code, Diagnostic},
        suggest,
    },
    mend::{Flaw, Mend},
};

/// What is wrong with a text in which the parser gave up at a byte.
pub(super) fn explain(text: &str, at: usize, parser_says: &str) -> Flaw {
    let at = at.min(text.len());
    // A value may go on in the next line: where that starts with a tab, the parser gives up at the value.
    let next_line = line_around(text, at).end + 1;
    tab(text, at)
        .or_else(|| tab(text, text.get(next_line..).map_or(at, |_| next_line)))
        .or_else(|| tab_before(text, at))
        .or_else(|| alias(text, at, parser_says))
        .or_else(|| interpolation(text, at))
        .or_else(|| unclosed_quote(text, at, parser_says))
        .or_else(|| unclosed_bracket(text, at))
        .or_else(|| no_colon(text, at, parser_says))
        .unwrap_or_else(|| other(text, at, parser_says))
}

fn line_around(text: &str, at: usize) -> Range<usize> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    start..end
}

/// A tab in the indentation.
fn tab(text: &str, at: usize) -> Option<Flaw> {
    let line = line_around(text, at);
    let written = &text[line.clone()];
    let indent = &written[..written.len() - written.trim_start_matches([' ', '\t']).len()];
    let first = indent.find('\t')?;
    let tabs = indent.matches('\t').count();
    let span = line.start + first..line.start + indent.len();
    let plural = if tabs == 1 { "" } else { "s" };
    let label = format!("YAML allows only spaces; this line starts with {tabs} tab{plural}");
    let finding = Diagnostic::new(Code::Tab, span, "indentation uses a tab").label(label);
    Some(Flaw { finding, mend: Mend::Tabs })
}

/// A tab between a colon or a dash and what follows.
fn tab_before(text: &str, at: usize) -> Option<Flaw> {
    let before = text[..at].trim_end_matches([' ', '\t']);
    let after = &text[before.len()..];
    let span = before.len()..text.len() - after.trim_start_matches([' ', '\t']).len();
    let sign = before.chars().next_back().filter(|sign| matches!(sign, ':' | '-' | '?'))?;
    if !text[span.clone()].contains('\t') {
        return None;
    }
    let finding = Diagnostic::new(Code::Tab, span.clone(), format!("a tab follows `{sign}`"));
    let finding = finding.label("YAML allows only spaces here; write one space");
    Some(Flaw { finding, mend: Mend::Replace(span, " ".to_owned()) })
}

/// The characters from `at` to the end of a plain word in flow or block style.
fn word(text: &str, at: usize) -> Range<usize> {
    let rest = &text[at..];
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(rest.len());
    at..at + rest[..end].trim_end_matches(':').len()
}

fn alias(text: &str, at: usize, parser_says: &str) -> Option<Flaw> {
    if !text[at..].starts_with('*') || !(parser_says.contains("anchor") || parser_says.contains("alias")) {
        return None;
    }
    let span = word(text, at);
    let written = &text[span.clone()];
    let anchors = text.match_indices('&').map(|(found, _)| &text[word(text, found)][1..]);
    if let Some(anchor) = suggest::nearest(&written[1..], anchors.filter(|anchor| !anchor.is_empty())) {
        let finding = Diagnostic::new(Code::UnquotedStar, span, format!("`{written}` is not defined above"));
        return Some(fixed(finding.label(format!("did you mean `*{anchor}`?")), format!("*{anchor}")));
    }
    let label = format!("an unquoted * starts a YAML alias; write \"{written}\"");
    let finding = Diagnostic::new(Code::UnquotedStar, span, format!("`{written}` must be quoted")).label(label);
    Some(fixed(finding, format!("\"{written}\"")))
}

/// A flaw whose fix is as good as certain.
fn fixed(finding: Diagnostic, fix: String) -> Flaw {
    Flaw { mend: Mend::Replace(finding.span.clone(), fix.clone()), finding: finding.fix(fix) }
}

fn interpolation(text: &str, at: usize) -> Option<Flaw> {
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
    Some(fixed(finding.label(label), format!("\"{written}\"")))
}

fn unclosed_quote(text: &str, at: usize, parser_says: &str) -> Option<Flaw> {
    let quote = text[at..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if parser_says.contains("escape") {
        return None;
    }
    let finding = Diagnostic::new(Code::Unclosed, at..at + 1, format!("this `{quote}` is never closed"));
    Some(Flaw { finding: finding.label("the text that starts here has no end"), mend: Mend::LeaveOut })
}

/// The values that may be secrets in a text that was not understood: what stands under `auth`, `users`, `keys`, `headers` and in
/// fields that carry credentials. Where a text is understood, the check knows better.
pub(in crate::config) fn secrets(text: &str) -> Vec<Range<usize>> {
    const BLOCKS: &[&str] = &["users", "keys", "headers"];
    const NAMES: &[&str] = &["authorization", "cookie", "password", "secret", "token", "x-api-key"];
    // Below `auth` indentation is not relied on: a slip of a finger moves a line out.
    const NEIGHBOURS: &[&str] = &["listen", "upstreams:", "routes:", "limits:", "defaults:", "admin:", "telemetry:"];
    let mut spans = vec![];
    let mut block: Option<usize> = None;
    let mut in_auth = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end().len();
        let indent = line.len() - line.trim_start().len();
        let lower = line.to_ascii_lowercase();
        // How deep a tab goes is not defined: it may be inside.
        let has_tab = line[..indent].contains('\t');
        in_auth &= !NEIGHBOURS.iter().any(|name| line.starts_with(name));
        let is_inside = (in_auth || block.is_some_and(|outer| indent > outer || has_tab)) && !line.trim().is_empty();
        if !is_inside && !line.trim().is_empty() {
            block = None;
        }
        let after = |word: &str| {
            let at = lower.find(&format!("{word}:")).or_else(|| lower.find(&format!("{word}\":")))?;
            lower[at..].find(':').map(|colon| at + colon + 1)
        };
        // A route's `auth: NAME` holds nothing.
        let holds_fields = |from: &usize| matches!(line[*from..].trim_start().chars().next(), None | Some('{' | '#'));
        let auth = after("auth").filter(holds_fields);
        let opened = BLOCKS.iter().find_map(|word| after(word)).or(auth);
        in_auth |= auth.is_some();
        let from = match opened {
            _ if is_inside => Some(after_a_name(line, indent)),
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

/// Where a line's value starts: after `name:`, or with its text where that is none.
fn after_a_name(line: &str, indent: usize) -> usize {
    let is_name =
        |name: &str| name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | '"' | '\''));
    match line[indent..].split_once(':') {
        Some((name, _)) if is_name(name.trim_end()) => indent + name.len() + 1,
        _ => indent,
    }
}

/// The innermost bracket that is open where the parser gave up, unless it is closed on its own line.
fn unclosed_bracket(text: &str, at: usize) -> Option<Flaw> {
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
    let is_further = gave_up > opener + 1;
    let finding = if is_further { finding.related(gave_up..gave_up, "reading stopped here") } else { finding };
    let written = text[opener..line_end].split(" #").next().unwrap_or_default().trim_end();
    let end = opener + written.len();
    Some(Flaw { finding, mend: Mend::Replace(end..end, closer.to_string()) })
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

/// A line that was meant as a field and has no `: `. The parser gives up at the next one.
fn no_colon(text: &str, at: usize, parser_says: &str) -> Option<Flaw> {
    if !["mapping values are not allowed", "simple key", "block mapping"].iter().any(|what| parser_says.contains(what))
    {
        return None;
    }
    let above = text[..line_around(text, at).start].trim_end();
    let line = line_around(text, above.len());
    let written = above[line.start..].trim_start_matches([' ', '-']);
    let end = written.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(written.len());
    let (name, rest) = written.split_at(end);
    let value = rest.strip_prefix(':').unwrap_or(rest);
    if name.is_empty() || written.contains(": ") || value.is_empty() != rest.is_empty() {
        return None;
    }
    let fix = format!("{name}: {}", value.trim_start());
    let span = above.len() - written.len()..above.len();
    let finding = match rest.starts_with(':') {
        true => Diagnostic::new(Code::NotYaml, span, format!("a space is missing after `{name}:`")),
        false if rest.is_empty() || rest.starts_with(' ') => {
            Diagnostic::new(Code::NotYaml, span, format!("a `:` is missing after `{name}`"))
        }
        false => return None,
    };
    // The finding has no fix: the value may be a secret.
    let finding = finding.label("a field is written `name: value`");
    Some(Flaw { mend: Mend::Replace(finding.span.clone(), fix.trim_end().to_owned()), finding })
}

fn other(text: &str, at: usize, parser_says: &str) -> Flaw {
    let span = at..(at + text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8));
    let here = &text[span.clone()];
    let says = |part: &str| parser_says.contains(part);
    let instead = |by: &str| Mend::Replace(span.clone(), by.to_owned());
    let (message, label, mend) = if says("mapping values are not allowed") || says("illegal placement of ':'") {
        let message = "a `:` does not belong here".to_owned();
        (message, "check the indentation, or quote text that has a `:` in it", Mend::LeaveOut)
    } else if says("'-' indicator") || says("block collection") || says("block mapping") || says("simple key") {
        let message = "this line does not fit the lines above".to_owned();
        (message, "check its indentation, and that a field ends with `:`", Mend::LeaveOut)
    } else if says("unexpected character") || says("cannot start any token") {
        (format!("text cannot start with `{here}`"), "quote it", Mend::LeaveOut)
    } else if says("',' or") || !open_brackets(text, at).is_empty() {
        let message = "a comma is missing before this".to_owned();
        let comma = Mend::Replace(at..at, ",".to_owned());
        (message, "fields and items in brackets are separated by commas", comma)
    } else if says("bracket") {
        (format!("this `{here}` closes nothing"), "delete it, or quote the text", instead(" "))
    } else if says("escape") {
        ("a `\\` in this text means nothing".to_owned(), "write \\\\, or use single quotes", Mend::LeaveOut)
    } else {
        ("this is not valid YAML".to_owned(), "reading stopped here", Mend::LeaveOut)
    };
    Flaw { finding: Diagnostic::new(Code::NotYaml, span, message).label(label), mend }
}
