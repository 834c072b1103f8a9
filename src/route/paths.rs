//! The paths of one host: a tree of segments, and beside it the regular expressions.

use super::{Ask, Map, Rank};
use crate::config::plan::{Conditions, PathPattern, PathRegex, Segment};

/// Patterns of paths, and what they lead to.
#[derive(Debug)]
pub(super) struct Paths<T> {
    root: Node<T>,
    // The most specific first.
    regexes: Vec<(PathRegex, Leaf<T>)>,
}

/// What begins with the same segments.
#[derive(Debug)]
struct Node<T> {
    exact: Leaf<T>,
    below: Leaf<T>,
    literals: Map<Box<str>, Self>,
    capture: Option<Box<Self>>,
}

/// Routes with the same path, the most specific first.
#[derive(Debug)]
struct Leaf<T>(Vec<(Conditions, T)>);

impl<T> Paths<T> {
    /// Adds a pattern. Of two with equal conditions the first stays first.
    pub(super) fn insert(&mut self, path: &PathPattern, conditions: &Conditions, to: T) {
        self.leaf(path).insert(conditions, to);
    }

    fn leaf(&mut self, path: &PathPattern) -> &mut Leaf<T> {
        match path {
            PathPattern::Exact(path) => &mut self.root.literally(path).exact,
            PathPattern::Prefix(prefix) => &mut self.root.literally(prefix).below,
            PathPattern::Template(template) => {
                let node = template.segments.iter().fold(&mut self.root, |node, segment| match segment {
                    Segment::Capture(_) => &mut **node.capture.get_or_insert_default(),
                    Segment::Literal(literal) => node.literals.entry(literal.as_str().into()).or_default(),
                });
                if template.is_prefix { &mut node.below } else { &mut node.exact }
            }
            PathPattern::Regex(regex) => {
                let rank = |regex: &PathRegex| (regex.text().len(), std::cmp::Reverse(regex.text().to_owned()));
                let place = self.regexes.partition_point(|(other, _)| rank(other) > rank(regex));
                if self.regexes.get(place).is_none_or(|(other, _)| other != regex) {
                    self.regexes.insert(place, (regex.clone(), Leaf::default()));
                }
                &mut self.regexes.get_mut(place).expect("it is there, or was put there").1
            }
        }
    }

    /// The most specific pattern that matches. Allocates nothing.
    pub(super) fn find(&self, ask: &Ask<'_>) -> Option<&T> {
        let path = ask.path.strip_prefix('/')?;
        let by_regex = || self.regexes.iter().find_map(|(regex, leaf)| leaf.if_matched(regex, ask));
        self.root.descend(path, ask).or_else(by_regex).or_else(|| self.root.below.find(ask))
    }
}

impl<T> Node<T> {
    fn literally(&mut self, path: &str) -> &mut Self {
        path.split('/').skip(1).fold(self, |node, segment| node.literals.entry(segment.into()).or_default())
    }

    /// What leads on by the first segment of `path`, which has no slash in front of it any more.
    fn descend(&self, path: &str, ask: &Ask<'_>) -> Option<&T> {
        let (segment, rest) = match memchr::memchr(b'/', path.as_bytes()) {
            Some(slash) => (path.get(..slash)?, path.get(slash + 1..)),
            None => (path, None),
        };
        let by_text = self.literals.get(segment).and_then(|node| node.find(rest, ask));
        let capture = self.capture.as_deref().filter(|_| !segment.is_empty());
        by_text.or_else(|| capture?.find(rest, ask))
    }

    fn find(&self, rest: Option<&str>, ask: &Ask<'_>) -> Option<&T> {
        let here = match rest {
            Some(path) => self.descend(path, ask),
            None => self.exact.find(ask),
        };
        here.or_else(|| self.below.find(ask))
    }
}

impl<T> Leaf<T> {
    fn insert(&mut self, conditions: &Conditions, to: T) {
        let of_one_path = |conditions: &Conditions| {
            let Rank { method, headers, query, .. } = Rank::of(None, &PathPattern::ALL, conditions);
            (method, headers, query)
        };
        let own = of_one_path(conditions);
        let place = self.0.partition_point(|(other, _)| of_one_path(other) >= own);
        self.0.insert(place, (conditions.clone(), to));
    }

    fn find(&self, ask: &Ask<'_>) -> Option<&T> {
        self.0.iter().find(|(conditions, _)| ask.misses(conditions).is_none()).map(|(_, to)| to)
    }

    fn if_matched(&self, regex: &PathRegex, ask: &Ask<'_>) -> Option<&T> {
        regex.regex.is_match(ask.path).then(|| self.find(ask)).flatten()
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { root: Node::default(), regexes: Vec::new() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { exact: Leaf::default(), below: Leaf::default(), literals: Map::default(), capture: None }
    }
}

impl<T> Default for Leaf<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}
