//! Text from outside, made safe to print: neither a terminal nor a reader of lines may take it for something else.
//!
//! Escaped are control characters (C0, DEL, C1: escape sequences, forged line ends), the characters that reorder text or end a line
//! in Unicode's eyes, and those that nobody sees. Everything else passes as it is.

use std::{
    fmt::{self, Write as _},
    ops::RangeInclusive,
};

/// Whether a character does something else than stand there.
pub(super) fn is_active(c: char) -> bool {
    const ORDER: [RangeInclusive<char>; 3] = ['\u{61C}'..='\u{61C}', '\u{200E}'..='\u{200F}', '\u{2028}'..='\u{202E}'];
    // Soft hyphen, the separator of Mongolian vowels, zero width, isolates and invisible operators, byte order mark, annotations, tags.
    const UNSEEN: [RangeInclusive<char>; 7] = [
        '\u{AD}'..='\u{AD}',
        '\u{180E}'..='\u{180E}',
        '\u{200B}'..='\u{200D}',
        '\u{2060}'..='\u{2069}',
        '\u{FEFF}'..='\u{FEFF}',
        '\u{FFF9}'..='\u{FFFB}',
        '\u{E0000}'..='\u{E007F}',
    ];
    c.is_control() || !c.is_ascii() && ORDER.iter().chain(&UNSEEN).any(|range| range.contains(&c))
}

/// Prints a text for a line of a terminal, active characters as `\n` or `\u{1b}`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_active(c) { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Escapes the active characters that JSON allows as they are. In JSON text they occur in strings only.
pub(super) fn finish_json(json: String) -> String {
    if !json.contains(is_active) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_active(c) {
            push_unicode_escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out
}

fn push_unicode_escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        write!(out, "\\u{unit:04x}").expect("writing to a String does not fail");
    }
}

/// Appends a JSON string of at most `max` bytes of a text; what is not UTF-8 becomes U+FFFD, a cut is marked with `…`.
pub(super) fn push_json_string(out: &mut Vec<u8>, text: &[u8], max: usize) {
    let kept = text.get(..max).unwrap_or(text);
    out.push(b'"');
    // Looked at to the end, whatever is found, so that many bytes are looked at in one instruction: nearly all texts are plain.
    if kept.iter().fold(true, |all, byte| all & is_plain(byte)) {
        out.extend_from_slice(kept);
    } else {
        for chunk in kept.utf8_chunks() {
            push_json_chars(out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
    }
    if kept.len() < text.len() {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// Whether a byte stands for itself in JSON.
fn is_plain(byte: &u8) -> bool {
    matches!(byte, 0x20..=0x7E) & (*byte != b'"') & (*byte != b'\\')
}

fn push_json_chars(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    loop {
        let plain = rest.bytes().take_while(is_plain).count();
        let (before, after) = rest.split_at(plain);
        out.extend_from_slice(before.as_bytes());
        let Some(c) = after.chars().next() else { return };
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if is_active(c) => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let digits = [12, 8, 4, 0].map(|shift| HEX[usize::from(*unit >> shift & 0xF)]);
                    out.extend_from_slice(b"\\u");
                    out.extend_from_slice(&digits);
                }
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = &after[c.len_utf8()..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_json_string_parses_back(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            push_json_string(&mut out, &text, 4096);
            let line = String::from_utf8(out).unwrap();
            prop_assert!(!line.contains(is_active), "{line:?}");
            let parsed: String = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(parsed, String::from_utf8_lossy(&text));
        }

        #[test]
        fn finished_json_means_the_same(text in any::<String>()) {
            let line = finish_json(serde_json::to_string(&text).unwrap());
            prop_assert!(!line.contains(is_active), "{line:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }

        #[test]
        fn printable_text_holds_nothing_active(text in any::<String>()) {
            prop_assert!(!Printable(&text).to_string().contains(is_active));
        }
    }

    #[test]
    fn what_nobody_sees_is_shown() {
        let text = "de\u{200b}p\u{2060}l\u{ad}o\u{e0041}y\u{feff}";
        let shown = Printable(text).to_string();
        assert_eq!(shown, "de\\u{200b}p\\u{2060}l\\u{ad}o\\u{e0041}y\\u{feff}");
        let mut line = Vec::new();
        push_json_string(&mut line, text.as_bytes(), 4096);
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line, "\"de\\u200bp\\u2060l\\u00ado\\udb40\\udc41y\\ufeff\"");
        assert_eq!(finish_json(serde_json::to_string(text).unwrap()), line);
    }

    #[test]
    fn a_long_text_is_cut_and_marked() {
        let mut out = Vec::new();
        push_json_string(&mut out, "aé".as_bytes(), 2);
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\u{FFFD}…\"");
        assert_eq!(Printable("a\x1b[2J\u{9b}\n\u{202e}b").to_string(), "a\\u{1b}[2J\\u{9b}\\n\\u{202e}b");
    }
}
