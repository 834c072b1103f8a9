//! Which of several routes that match a request has it.

use std::cmp::Reverse;

use crate::config::plan::{Conditions, HostPattern, PathPattern, Segment};

/// How specific a route is: of those that match a request, the greatest has it.
///
/// The order of the Kubernetes Gateway API's HTTPRoute, with two more kinds of paths: the host (exact, then the longest wildcard, then
/// any), the path, then a method, then the number of header fields, then the number of parameters. Of paths an exact one is first. Others
/// are compared segment by segment, from the left: a text before a capture, and that before `*`; so the longest prefix wins,
/// and a template wins over the prefix that it is below. Behind them come regular expressions, of which nobody knows what they
/// have in common: the longest first, and those of a length in the order of the alphabet. Last is `/*`, which says nothing.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rank<'p> {
    /// By its host.
    pub host: HostRank,
    /// By its path.
    pub path: PathRank<'p>,
    /// It asks for a method.
    pub method: bool,
    /// How many header fields it asks for.
    pub headers: usize,
    /// How many parameters of the query it asks for.
    pub query: usize,
}

/// How specific a host is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum HostRank {
    /// Any host.
    Any,
    /// All below one of this length.
    Wildcard(usize),
    /// This host.
    Exact,
}

/// How specific a path is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum PathRank<'p> {
    /// Any path.
    All,
    /// A regular expression of this length.
    Regex(usize, Reverse<&'p str>),
    /// Segments.
    Segments(Vec<Step>),
    /// One path.
    Exact,
}

/// A segment of a path that is matched, or what ends it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// Whatever comes from here.
    Rest,
    /// Any segment.
    Capture,
    /// One text.
    Literal,
    /// Nothing comes any more.
    End,
}

impl<'p> Rank<'p> {
    /// The rank of a route by one of its hosts; `None` is any.
    #[must_use]
    pub fn of(host: Option<&HostPattern>, path: &'p PathPattern, conditions: &Conditions) -> Self {
        let host = match host {
            None => HostRank::Any,
            Some(HostPattern::Wildcard(parent)) => HostRank::Wildcard(parent.len()),
            Some(HostPattern::Exact(_)) => HostRank::Exact,
        };
        Self {
            host,
            path: PathRank::of(path),
            method: !conditions.methods.is_empty(),
            headers: conditions.headers.len(),
            query: conditions.query.len(),
        }
    }
}

impl<'p> PathRank<'p> {
    fn of(path: &'p PathPattern) -> Self {
        match path {
            PathPattern::Exact(_) => Self::Exact,
            PathPattern::Prefix(prefix) if prefix.is_empty() => Self::All,
            PathPattern::Prefix(prefix) => {
                let literals = prefix.split('/').skip(1).map(|_| Step::Literal);
                Self::Segments(literals.chain([Step::Rest]).collect())
            }
            PathPattern::Template(template) => {
                let segments = template.segments.iter().map(|segment| match segment {
                    Segment::Capture(_) => Step::Capture,
                    Segment::Literal(_) => Step::Literal,
                });
                Self::Segments(segments.chain([if template.is_prefix { Step::Rest } else { Step::End }]).collect())
            }
            PathPattern::Regex(regex) => Self::Regex(regex.text().len(), Reverse(regex.text())),
        }
    }
}
