//! Which requests a route matches.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use http::{HeaderName, Method};

use super::{Wanted, wanted::compile};
use crate::base::Name;

/// A host that a route matches. Lower case, no port, no trailing dot.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HostPattern {
    /// This host only.
    Exact(Name),
    /// `*.example.com`, held as `example.com`: one or more labels in front of it.
    Wildcard(Name),
}

/// A path that a route matches, in its normalised form.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum PathPattern {
    /// This path only.
    Exact(String),
    /// `/a/*`, held as `/a`: this path and everything below it by whole segments. `/*` is held as the empty string.
    Prefix(String),
    /// `/u/{id}` or `/u/{id}/*`.
    Template(Template),
    /// `~ ^/v[0-9]+/`.
    Regex(PathRegex),
}

impl PathPattern {
    /// Every path.
    pub const ALL: Self = Self::Prefix(String::new());

    /// The names of what it captures, in their order.
    #[must_use]
    pub fn captures(&self) -> Vec<&str> {
        match self {
            Self::Exact(_) | Self::Prefix(_) => Vec::new(),
            Self::Template(template) => template.captures().collect(),
            Self::Regex(regex) => regex.regex.capture_names().flatten().collect(),
        }
    }

    /// The same for patterns that match the same paths, whatever their captures are called.
    #[must_use]
    pub fn shape(&self) -> String {
        match self {
            Self::Template(template) => template.write(|_| "{}".to_owned()),
            Self::Exact(_) | Self::Prefix(_) | Self::Regex(_) => self.to_string(),
        }
    }
}

/// A path some of whose segments may be anything.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Template {
    /// Its segments, in their order.
    pub segments: Vec<Segment>,
    /// Whether it matches everything below as well: `/u/{id}/*`.
    pub is_prefix: bool,
}

/// A segment of a template.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Segment {
    /// Anything that is not empty, under this name.
    Capture(String),
    /// This text.
    Literal(String),
}

impl Template {
    fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    fn write(&self, capture: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for segment in &self.segments {
            text.push('/');
            match segment {
                Segment::Capture(name) => text.push_str(&capture(name)),
                Segment::Literal(literal) => text.push_str(literal),
            }
        }
        text + if self.is_prefix { "/*" } else { "" }
    }
}

/// A regular expression that a path matches from its start. Two are equal if their texts are.
#[derive(Clone, Debug)]
pub struct PathRegex {
    text: String,
    /// Compiled, and anchored at the start.
    pub regex: regex::Regex,
}

impl PathRegex {
    /// Compiles a regular expression. Where it does not say `$`, the path may go on behind the match.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Alone first: what closes a group that it has not opened would close ours.
        compile(text)?;
        let regex = compile(&format!("^(?:{text})"))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// The text with which every path begins that it matches, as far as that is plain to see.
    #[must_use]
    pub fn literal_start(&self) -> &str {
        let text = self.text.strip_prefix('^').unwrap_or(&self.text);
        if text.contains('|') {
            return "";
        }
        let end = text.find(['\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$']).unwrap_or(text.len());
        let (start, rest) = text.split_at(end);
        // What may be there any number of times may not be there at all.
        let may_be_absent = rest.starts_with(['*', '?', '{']);
        let last = start.char_indices().next_back().map_or(0, |(at, _)| at);
        if may_be_absent { start.split_at(last).0 } else { start }
    }

    /// As it is written, without the `~`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathRegex {}

impl Hash for PathRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// What a request must be besides its host and path. Without any of them every request is.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Conditions {
    /// One of these, sorted by name; empty is any.
    pub methods: Vec<Method>,
    /// Header fields and what their first value is, sorted by name.
    pub headers: Vec<(HeaderName, Wanted)>,
    /// Parameters of the query and what their first value is, decoded, sorted by name.
    pub query: Vec<(String, Wanted)>,
}

impl Conditions {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty()
    }

    /// Whether there may be a request that both of them admit.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let share_a_method = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        share_a_method && may_both_hold(&self.headers, &other.headers) && may_both_hold(&self.query, &other.query)
    }
}

/// A field is one thing or the other, where both are texts; of what patterns match nothing is known.
fn may_both_hold<N: Eq>(some: &[(N, Wanted)], others: &[(N, Wanted)]) -> bool {
    some.iter().all(|(name, one)| {
        let same_field = others.iter().filter(|(other, _)| other == name);
        same_field.into_iter().all(|(_, other)| {
            let are_texts = matches!((one, other), (Wanted::Text(_), Wanted::Text(_)));
            !are_texts || one == other
        })
    })
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}/*"),
            Self::Template(template) => f.write_str(&template.write(|name| format!("{{{name}}}"))),
            Self::Regex(regex) => write!(f, "~ {}", regex.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_start_of_an_expression_is_what_every_match_begins_with() {
        for (text, start) in [
            ("^/api/v[0-9]+/", "/api/v"),
            ("/api", "/api"),
            ("^/apis?/x", "/api"),
            ("^/apis*", "/api"),
            ("^/apis{0,2}", "/api"),
            ("^/apis+", "/apis"),
            ("^/a|^/b", ""),
            ("^/(a|b)", ""),
            ("^/a\\.b", "/a"),
            ("[/]a", ""),
        ] {
            assert_eq!(PathRegex::parse(text).unwrap().literal_start(), start, "{text}");
        }
    }

    #[test]
    fn an_expression_cannot_leave_its_anchor() {
        assert!(PathRegex::parse("a)|(b").is_err());
        let either = PathRegex::parse("/a|/b").unwrap();
        assert_eq!(["/b", "/x/b"].map(|path| either.regex.is_match(path)), [true, false]);
    }
}
