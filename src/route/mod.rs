//! Whose request it is.
//!
//! Precedence, independent of the order in the file and the same as the Kubernetes Gateway API's HTTPRoute: the most specific
//! host first (exact, then the longest wildcard, then any), and within it the most specific path (exact, then the longest
//! prefix). A host whose paths do not match falls through to the next less specific one. A lookup costs one hash per label
//! of the host and per segment of the path, however many routes there are, and allocates nothing.
//!
//! Knows patterns and what they lead to, not what that is.

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod host;
mod path;

use std::collections::HashMap;

pub use host::{Host, HostError, normalise as normalise_host};
pub use path::{PathError, normalise as normalise_path, unescaped, without_parameters};

use crate::config::plan::{HostPattern, PathPattern};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The routes of one listener.
#[derive(Debug)]
pub struct Table<T> {
    exact: Map<Box<str>, Paths<T>>,
    wildcard: Map<Box<str>, Paths<T>>,
    any: Paths<T>,
}

#[derive(Debug)]
struct Paths<T> {
    exact: Map<Box<str>, T>,
    prefix: Map<Box<str>, T>,
    // No prefix is longer than this, so that a path of ten thousand segments costs no ten thousand lookups.
    longest_prefix: usize,
}

impl<T: Clone> Table<T> {
    /// A table of these patterns, of which no two are equal. An empty list of hosts is any host.
    #[must_use]
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a [HostPattern], &'a PathPattern, T)>) -> Self {
        let mut table = Self { exact: Map::default(), wildcard: Map::default(), any: Paths::default() };
        for (hosts, path, to) in routes {
            if hosts.is_empty() {
                table.any.insert(path, to.clone());
            }
            for host in hosts {
                let paths = match host {
                    HostPattern::Exact(host) => table.exact.entry(host.as_str().into()),
                    HostPattern::Wildcard(parent) => table.wildcard.entry(parent.as_str().into()),
                };
                paths.or_default().insert(path, to.clone());
            }
        }
        table
    }
}

impl<T> Table<T> {
    /// The most specific route for a host (lower case, no port; empty where the client named none) and a normalised path.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.' && !self.wildcard.is_empty());
        let parents = dots.filter_map(|(dot, _)| self.wildcard.get(host.get(dot + 1..)?));
        let by_host = self.exact.get(host).into_iter().chain(parents).chain([&self.any]);
        by_host.into_iter().find_map(|paths| paths.find(path))
    }
}

impl<T> Paths<T> {
    fn insert(&mut self, path: &PathPattern, to: T) {
        match path {
            PathPattern::Exact(path) => {
                self.exact.insert(path.as_str().into(), to);
            }
            PathPattern::Prefix(prefix) => {
                self.longest_prefix = self.longest_prefix.max(prefix.len());
                self.prefix.insert(prefix.as_str().into(), to);
            }
        }
    }

    fn find(&self, path: &str) -> Option<&T> {
        self.exact.get(path).or_else(|| {
            let reach = path.len().min(self.longest_prefix + 1);
            let ends = path.bytes().enumerate().take(reach).filter(|(_, b)| *b == b'/').map(|(end, _)| end).rev();
            let whole = (path.len() <= self.longest_prefix).then_some(path.len());
            whole.into_iter().chain(ends).find_map(|end| self.prefix.get(path.get(..end)?))
        })
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { exact: Map::default(), prefix: Map::default(), longest_prefix: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::base::Name;

    fn host(pattern: &str) -> HostPattern {
        match pattern.strip_prefix("*.") {
            Some(parent) => HostPattern::Wildcard(Name::derived(parent)),
            None => HostPattern::Exact(Name::derived(pattern)),
        }
    }

    fn path(pattern: &str) -> PathPattern {
        match pattern.strip_suffix("/*") {
            Some(prefix) => PathPattern::Prefix(prefix.to_owned()),
            None => PathPattern::Exact(pattern.to_owned()),
        }
    }

    fn table(routes: &[(&[&str], &str)]) -> Table<String> {
        let patterns: Vec<(Vec<HostPattern>, PathPattern, String)> = routes
            .iter()
            .map(|(hosts, p)| (hosts.iter().map(|h| host(h)).collect(), path(p), format!("{} {p}", hosts.join(","))))
            .collect();
        Table::new(patterns.iter().map(|(h, p, to)| (h.as_slice(), p, to.clone())))
    }

    #[test]
    fn prefers_the_exact_path_then_the_longest_prefix() {
        let table = table(&[(&[], "/*"), (&[], "/a/*"), (&[], "/a/b/*"), (&[], "/a/b")]);
        let found = |p: &str| table.find("x", p).map(String::as_str);
        assert_eq!(found("/a/b"), Some(" /a/b"));
        assert_eq!(found("/a/b/"), Some(" /a/b/*"));
        assert_eq!(found("/a/b/c"), Some(" /a/b/*"));
        assert_eq!(found("/a"), Some(" /a/*"));
        assert_eq!(found("/ab"), Some(" /*"));
        assert_eq!(found("/"), Some(" /*"));
    }

    #[test]
    fn prefers_the_more_specific_host_and_falls_through_where_its_paths_do_not_match() {
        let table = table(&[
            (&["api.example.com"], "/orders/*"),
            (&["*.example.com"], "/*"),
            (&["*.a.example.com"], "/*"),
            (&[], "/any"),
        ]);
        let found = |h: &str, p: &str| table.find(h, p).map(String::as_str);
        assert_eq!(found("api.example.com", "/orders/1"), Some("api.example.com /orders/*"));
        assert_eq!(found("api.example.com", "/other"), Some("*.example.com /*"));
        assert_eq!(found("x.a.example.com", "/"), Some("*.a.example.com /*"));
        assert_eq!(found("y.x.a.example.com", "/"), Some("*.a.example.com /*"));
        assert_eq!(found("example.com", "/any"), Some(" /any"));
        assert_eq!(found("example.com", "/"), None);
        assert_eq!(found("", "/any"), Some(" /any"));
    }

    /// What the table must answer, by looking at every route.
    fn oracle(routes: &[(HostPattern, PathPattern)], any: &[PathPattern], h: &str, p: &str) -> Option<(u32, usize)> {
        let path_rank = |pattern: &PathPattern| match pattern {
            PathPattern::Exact(exact) => (exact == p).then_some(usize::MAX),
            PathPattern::Prefix(prefix) => {
                let below = p.strip_prefix(prefix.as_str())?;
                (below.is_empty() || below.starts_with('/')).then_some(prefix.len())
            }
        };
        let host_rank = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(exact) => (exact.as_str() == h).then_some(u32::MAX),
            HostPattern::Wildcard(parent) => h.ends_with(&format!(".{parent}")).then_some(parent.len() as u32),
        };
        let with_host = routes.iter().filter_map(|(hp, pp)| Some((host_rank(hp)?, path_rank(pp)?)));
        let without = any.iter().filter_map(|pp| Some((0, path_rank(pp)?)));
        with_host.chain(without).max()
    }

    proptest! {
        #[test]
        fn agrees_with_looking_at_every_route(
            patterns in vec(("(\\*\\.)?[ab](\\.[ab]){0,2}", "(/[ab]){0,3}(/\\*)?"), 0..12),
            any in vec("(/[ab]){0,3}(/\\*)?", 0..4),
            h in "[ab](\\.[ab]){0,3}",
            p in "(/[ab]){1,5}/?",
        ) {
            let routes: Vec<_> = patterns.iter().map(|(h, p)| (host(h), path(p))).collect();
            let any: Vec<_> = any.iter().map(|p| path(p)).collect();
            let hosts: Vec<_> = routes.iter().map(|(h, _)| vec![h.clone()]).collect();
            let rank = |hp: Option<&HostPattern>, pp: &PathPattern| (
                match hp { None => 0, Some(HostPattern::Exact(_)) => u32::MAX, Some(HostPattern::Wildcard(n)) => n.len() as u32 },
                match pp { PathPattern::Exact(_) => usize::MAX, PathPattern::Prefix(p) => p.len() },
            );
            let table = Table::new(
                routes.iter().zip(&hosts).map(|((h, p), hs)| (hs.as_slice(), p, rank(Some(h), p)))
                    .chain(any.iter().map(|p| (&[][..], p, rank(None, p)))),
            );
            prop_assert_eq!(table.find(&h, &p).copied(), oracle(&routes, &any, &h, &p));
        }
    }
}
