//! Whose request it is.
//!
//! Precedence is that of [`Rank`], whatever the order in the file: the most specific host first, and within it the most specific path,
//! then the most conditions. Where nothing of a host matches, the next less specific one is looked at. A lookup costs one hash per
//! label of the host and per segment of the path, however many routes there are, and allocates nothing. Only regular expressions, and
//! routes that differ in their conditions alone, are tried one after the other.
//!
//! Knows patterns and what they lead to, not what that is.

// A panic here is somebody's lost request.
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod ask;
mod explain;
mod host;
mod path;
mod paths;
mod rank;
mod rewrite;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use ask::{Ask, Unmet};
pub use explain::{Candidate, Miss, candidates};
pub use host::{Host, HostError, normalise as normalise_host};
pub use path::{PathError, normalise as normalise_path, unescaped, without_parameters};
pub use rank::{HostRank, PathRank, Rank, Step};
pub use rewrite::{Captured, rewrite, stripped};

use self::paths::Paths;
use crate::config::plan::{Conditions, HostPattern, PathPattern};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The routes of one listener.
#[derive(Debug)]
pub struct Table<T> {
    exact: Map<Box<str>, Paths<T>>,
    wildcard: Map<Box<str>, Paths<T>>,
    any: Paths<T>,
}

/// What a route matches, and what it leads to.
#[derive(Clone, Copy, Debug)]
pub struct Pattern<'p, T> {
    /// Any of these; empty is any host.
    pub hosts: &'p [HostPattern],
    /// The path.
    pub path: &'p PathPattern,
    /// What is asked besides.
    pub conditions: &'p Conditions,
    /// Where it leads.
    pub to: T,
}

impl<T: Clone> Table<T> {
    /// A table of these patterns. Of two that are as specific and match the same request, the first has it.
    #[must_use]
    pub fn new<'p>(patterns: impl IntoIterator<Item = Pattern<'p, T>>) -> Self {
        let mut table = Self { exact: Map::default(), wildcard: Map::default(), any: Paths::default() };
        for Pattern { hosts, path, conditions, to } in patterns {
            if hosts.is_empty() {
                table.any.insert(path, conditions, to.clone());
            }
            for host in hosts {
                let paths = match host {
                    HostPattern::Exact(host) => table.exact.entry(host.as_str().into()),
                    HostPattern::Wildcard(parent) => table.wildcard.entry(parent.as_str().into()),
                };
                paths.or_default().insert(path, conditions, to.clone());
            }
        }
        table
    }
}

impl<T> Table<T> {
    /// The most specific route for a request.
    #[must_use]
    pub fn find(&self, ask: &Ask<'_>) -> Option<&T> {
        let host = ask.host;
        let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.' && !self.wildcard.is_empty());
        let parents = dots.filter_map(|(dot, _)| self.wildcard.get(host.get(dot + 1..)?));
        let by_host = self.exact.get(host).into_iter().chain(parents).chain([&self.any]);
        by_host.into_iter().find_map(|paths| paths.find(ask))
    }
}
