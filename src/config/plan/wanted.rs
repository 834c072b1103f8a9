use std::{
    fmt,
    hash::{Hash, Hasher},
};

use regex::bytes::{Regex, RegexBuilder};

/// What something that a probe has read must be.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Wanted {
    /// A pattern that matches somewhere in it. Written `~ REGEX`.
    Pattern(Pattern),
    /// This text: all of it where one value is looked at, a part of it where a body is.
    Text(String),
}

impl Wanted {
    /// Whether a whole value is what is wanted.
    #[must_use]
    pub fn is(&self, value: &[u8]) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(value),
            Self::Text(text) => text.as_bytes() == value,
        }
    }

    /// Whether what is wanted is somewhere in a body.
    #[must_use]
    pub fn is_in(&self, body: &[u8]) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(body),
            Self::Text(text) => memchr::memmem::find(body, text.as_bytes()).is_some(),
        }
    }
}

/// As it is written.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => write!(f, "~ {}", pattern.0.as_str()),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A regular expression, unanchored. Two are equal if their texts are.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a regular expression.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(CACHE).build().map(Self).map_err(|error| why(&error))
    }

    /// Whether it matches somewhere.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }
}

/// What one may take when compiled, in bytes.
const LARGEST: usize = 1 << 20;

/// What a worker may keep of one to be quicker the next time, in bytes. Without a bound as low as this, whoever sends paths that are all
/// different makes a few hundred expressions fill gigabytes.
const CACHE: usize = 64 << 10;

/// Compiles a regular expression over text.
pub(super) fn compile(text: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(CACHE).build().map_err(|error| why(&error))
}

/// What is wrong with a regular expression.
fn why(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(_) = error {
        return "it is too large when compiled".to_owned();
    }
    // The report repeats the text, and its last line says what is wrong.
    let report = error.to_string();
    let last = report.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or("it is not a regular expression").to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// Where a value stands in a JSON document: `checks.db.0.status`, or a JSON Pointer (RFC 6901), which starts with `/`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct JsonPath(String);

impl JsonPath {
    /// Reads a path; `None` where a step of it is empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_path = text.starts_with('/') || text.split('.').all(|step| !step.is_empty());
        is_path.then(|| Self(text.to_owned()))
    }

    /// The value that stands there.
    #[must_use]
    pub fn find<'v>(&self, value: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        if self.0.starts_with('/') {
            return value.pointer(&self.0);
        }
        self.0.split('.').try_fold(value, |value, step| match value {
            serde_json::Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            value => value.get(step),
        })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_anywhere_and_texts_where_they_are_meant_to_be() {
        let wanted = Wanted::Pattern(Pattern::parse("re+ady$").unwrap());
        assert!(wanted.is(b"\xffreeady") && wanted.is_in(b"is ready") && !wanted.is(b"ready!"));
        let wanted = Wanted::Text("ok".to_owned());
        assert!(wanted.is(b"ok") && !wanted.is(b"ok!") && wanted.is_in(b"not ok!"));
        assert_eq!(Pattern::parse("a").unwrap(), Pattern::parse("a").unwrap());
    }

    #[test]
    fn what_is_wrong_with_a_pattern_does_not_repeat_it() {
        assert_eq!(Pattern::parse("s3cr3t(").unwrap_err(), "unclosed group");
        assert_eq!(Pattern::parse("(s3cr3t{1000}){1000}").unwrap_err(), "it is too large when compiled");
    }

    #[test]
    fn paths_lead_through_objects_and_lists() {
        let value = serde_json::json!({ "checks": [{ "a.b": true }, { "db": { "status": "ok" } }], "0": 1 });
        let find = |path: &str| JsonPath::parse(path).unwrap().find(&value).cloned();
        assert_eq!(find("checks.1.db.status"), Some("ok".into()));
        assert_eq!(find("/checks/0/a.b"), Some(true.into()));
        assert_eq!((find("0"), find("checks.db"), find("checks.7"), find("/")), (Some(1.into()), None, None, None));
        assert_eq!((JsonPath::parse("a..b"), JsonPath::parse("")), (None, None));
    }
}
