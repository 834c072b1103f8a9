//! Leaves: text to durations, sizes, numbers, words and names, within their bounds.
//!
//! Each reader takes a block's place, a field's name and what is written there; it gives `None` for a field that is absent or
//! that it has reported.

use std::{ops::RangeInclusive, time::Duration};

use http::Method;

use super::Check;
use crate::{
    base::{Name, NameError, Percent, Size, duration},
    config::{
        diagnostics::Code,
        spec::{self, Count, Flag, Form, SizeOrNone, Written},
        suggest,
        yaml::At,
    },
};

impl<'a> Check<'a> {
    /// A duration within bounds.
    pub(super) fn duration(
        &mut self,
        block: At<'a>,
        field: &str,
        written: Option<&Written<spec::Duration>>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (text, at) = (&written?.text, block.key(field));
        let shown = at.shown();
        let finding = match duration::parse(text) {
            Ok(value) if bounds.contains(&value) => return Some(value),
            Ok(value) => {
                let (word, bound) =
                    if value < *bounds.start() { ("below", bounds.start()) } else { ("above", bounds.end()) };
                let message = format!("`{field}: {shown}` is {word} {}", duration::Written(*bound));
                let written = duration::Written;
                let label = format!("from {} to {}", written(*bounds.start()), written(*bounds.end()));
                self.finding(Code::OutOfRange, at, message).label(label)
            }
            Err(duration::DurationError::NoUnit) => {
                let finding = self.finding(Code::Duration, at, format!("`{field}: {shown}` has no unit"));
                match at.is_expanded() {
                    true => finding.label("give it a unit: 5s, 250ms"),
                    false => finding.label(format!("write `{shown}s` or `{shown}ms`")).fix(format!("{shown}s")),
                }
            }
            Err(why) => {
                let finding = self.finding(Code::Duration, at, format!("`{shown}` {why}"));
                finding.label("write a number and a unit: 250ms, 5s, 1m30s, 2h, 1d")
            }
        };
        self.report(finding);
        None
    }

    /// A size, or `Some(None)` for `none`.
    pub(super) fn size(
        &mut self,
        block: At<'a>,
        field: &str,
        written: Option<&Written<SizeOrNone>>,
    ) -> Option<Option<Size>> {
        let (text, at) = (&written?.text, block.key(field));
        if text == "none" {
            return Some(None);
        }
        if let Ok(size) = Size::parse(text) {
            return Some(Some(size));
        }
        let finding = self.finding(Code::Size, at, format!("`{}` is not a size", at.shown()));
        let mega = text.strip_suffix(['M', 'm']).is_some_and(|number| number.parse::<u32>().is_ok());
        let label = match mega {
            true => "1MB = 1,000,000 bytes, 1MiB = 1,048,576",
            false => "write a whole number and B, kB, KiB, MB, MiB, GB or GiB, or none",
        };
        self.report(finding.label(label));
        None
    }

    /// A size within bounds, which may not be `none`.
    pub(super) fn bytes(
        &mut self,
        block: At<'a>,
        field: &str,
        written: Option<&Written<SizeOrNone>>,
        bounds: RangeInclusive<u32>,
    ) -> Option<u32> {
        let size = self.size(block, field, written)?;
        let bytes = size.and_then(|size| u32::try_from(size.0).ok()).filter(|bytes| bounds.contains(bytes));
        if bytes.is_none() {
            let at = block.key(field);
            let (low, high) = (Size(u64::from(*bounds.start())), Size(u64::from(*bounds.end())));
            let finding = self.finding(Code::OutOfRange, at, format!("`{field}: {}` is out of range", at.shown()));
            self.report(finding.label(format!("from {low} to {high}")));
        }
        bytes
    }

    /// A whole number within bounds.
    pub(super) fn count(
        &mut self,
        block: At<'a>,
        field: &str,
        written: Option<&Written<Count>>,
        bounds: RangeInclusive<u32>,
    ) -> Option<u32> {
        let text = &written?.text;
        self.number(block.key(field), field, text, bounds)
    }

    pub(super) fn number(&mut self, at: At<'a>, what: &str, text: &str, bounds: RangeInclusive<u32>) -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || at.is_quoted() {
            let negative = text.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
            let shown = if digits { format!("\"{text}\"") } else { at.shown() };
            let finding = match negative {
                true => self.finding(Code::OutOfRange, at, format!("`{what}: {shown}` is below {}", bounds.start())),
                false => {
                    let message = format!("`{what}`: expected a whole number, found `{shown}`");
                    self.finding(Code::WrongType, at, message)
                }
            };
            let finding = if digits { finding.label("write it without quotes").fix(text) } else { finding };
            self.report(finding);
            return None;
        }
        match text.parse::<u32>() {
            Ok(value) if bounds.contains(&value) => Some(value),
            parsed => {
                let low = parsed.is_ok_and(|value| value < *bounds.start());
                let (word, bound) = if low { ("below", bounds.start()) } else { ("above", bounds.end()) };
                let message = format!("`{what}: {}` is {word} {bound}", at.shown());
                let finding = self.finding(Code::OutOfRange, at, message);
                self.report(finding.label(format!("from {} to {}", bounds.start(), bounds.end())));
                None
            }
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, block: At<'a>, field: &str, written: Option<&Written<Flag>>) -> Option<bool> {
        self.flag_at(block.key(field), &written?.text)
    }

    pub(super) fn flag_at(&mut self, at: At<'a>, text: &str) -> Option<bool> {
        match text {
            "true" if !at.is_quoted() => return Some(true),
            "false" if !at.is_quoted() => return Some(false),
            _ => {}
        }
        let meant = match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "on" | "1" => Some("true"),
            "false" | "no" | "n" | "off" | "0" => Some("false"),
            _ => None,
        };
        let mut finding = self.finding(Code::WrongType, at, format!("expected true or false, found `{}`", at.shown()));
        if let Some(meant) = meant {
            finding = finding.label(format!("write {meant}")).fix(meant);
        }
        self.report(finding);
        None
    }

    /// A percentage up to a bound.
    pub(super) fn percent(
        &mut self,
        block: At<'a>,
        field: &str,
        written: Option<&Written<spec::Percent>>,
        most: Percent,
    ) -> Option<Percent> {
        let (text, at) = (&written?.text, block.key(field));
        let finding = match Percent::parse(text) {
            Ok(percent) if percent <= most => return Some(percent),
            Ok(_) => self.finding(Code::OutOfRange, at, format!("`{field}: {}` is above {most}", at.shown())),
            Err(why) => {
                self.finding(Code::Invalid, at, format!("`{}` {why}", at.shown())).label("write it like 10% or 0.5%")
            }
        };
        self.report(finding);
        None
    }

    /// One of a few words. `what` names the kind with its article: "a balance mode".
    pub(super) fn choice<F: Form, T: Copy>(
        &mut self,
        block: At<'a>,
        field: &str,
        written: Option<&Written<F>>,
        what: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = &written?.text;
        self.word(block.key(field), text, what, choices)
    }

    pub(super) fn word<T: Copy>(&mut self, at: At<'a>, text: &str, what: &str, choices: &[(&str, T)]) -> Option<T> {
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words = || choices.iter().map(|(word, _)| *word);
        let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not {what}", at.shown()));
        let near = suggest::nearest(text, words()).or_else(|| {
            words().find(|word| word.replace('_', "") == text.to_ascii_lowercase().replace(['_', '-'], ""))
        });
        let finding = match near {
            Some(near) => finding.label(format!("did you mean {near}?")).fix(near),
            None => finding,
        };
        self.report(finding.note(format!("choices: {}", suggest::list(words()))));
        None
    }

    /// A method; `CONNECT` and unknown ones are refused, as nothing here can send or route them.
    pub(super) fn method(&mut self, at: At<'a>, text: &str) -> Option<Method> {
        let known = [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::TRACE,
        ];
        let custom = || text.bytes().all(|byte| byte.is_ascii_uppercase()) && !text.is_empty() && text != "CONNECT";
        if let Some(method) = known.iter().find(|method| method.as_str() == text) {
            return Some(method.clone());
        }
        if custom()
            && let Ok(method) = Method::from_bytes(text.as_bytes())
        {
            return Some(method);
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a method", at.shown()));
        let upper = text.to_ascii_uppercase();
        let finding = match known.iter().any(|method| method.as_str() == upper) {
            true => finding.label(format!("write {upper}")).fix(upper),
            false => finding.label("write it like GET"),
        };
        self.report(finding);
        None
    }

    /// A written name: the key of a named entry, or a text.
    pub(super) fn name(&mut self, at: At<'a>, text: &str, what: &str, is_key: bool) -> Option<Name> {
        let why = match Name::parse(text) {
            Ok(name) => return Some(name),
            Err(why) => why,
        };
        let span = if is_key { at.key_span() } else { at.span() };
        let shown = if is_key { text.to_owned() } else { at.shown() };
        let message = match why {
            NameError::Charset => format!("`{shown}` is not a name for {what}"),
            NameError::Empty | NameError::TooLong => format!("the name of {what} {why}"),
        };
        let mut finding = self.finding(Code::Invalid, at, message);
        finding.span = span;
        self.report(finding.label("use a-z, 0-9 and -, starting with a letter"));
        None
    }
}
