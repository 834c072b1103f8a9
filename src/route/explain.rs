//! Why a request is whose it is: every route, looked at one after the other.

use super::{Ask, HostRank, Pattern, Rank, Unmet};
use crate::config::plan::{HostPattern, PathPattern, Segment};

/// A route beside a request.
#[derive(Clone, Debug)]
pub struct Candidate<'p, T> {
    /// Where it leads.
    pub to: T,
    /// The most specific of its hosts that matches; `None` is any, or none.
    pub host: Option<&'p HostPattern>,
    /// How specific it is by that host.
    pub rank: Rank<'p>,
    /// The first thing in which they differ; `None` where the route matches.
    pub miss: Option<Miss<'p>>,
}

/// The first thing in which a request is not what a route matches, in the order in which a route is looked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Miss<'p> {
    /// The host is another one.
    Host,
    /// The path is another one.
    Path,
    /// A condition does not hold.
    Condition(Unmet<'p>),
}

/// Every route beside a request: first those that match it, the one that has it before all others; then those that do not, the ones
/// that come closest first.
///
/// Looks at each route, as the table does not; so the tests hold the table against it.
#[must_use]
pub fn candidates<'p, T>(patterns: impl IntoIterator<Item = Pattern<'p, T>>, ask: &Ask<'_>) -> Vec<Candidate<'p, T>> {
    let mut all: Vec<Candidate<'p, T>> = patterns.into_iter().map(|pattern| candidate(pattern, ask)).collect();
    // Stable: routes of one rank stay in the order in which they came, as they do in the table.
    all.sort_by(|a, b| closeness(b).cmp(&closeness(a)).then_with(|| b.rank.cmp(&a.rank)));
    all
}

fn candidate<'p, T>(pattern: Pattern<'p, T>, ask: &Ask<'_>) -> Candidate<'p, T> {
    let Pattern { hosts, path, conditions, to } = pattern;
    let matching = hosts.iter().filter(|host| matches_host(host, ask.host));
    let rank = |host| Rank::of(host, path, conditions);
    let host = matching.max_by_key(|host| rank(Some(host)).host);
    let miss = match () {
        () if host.is_none() && !hosts.is_empty() => Some(Miss::Host),
        () if !matches_path(path, ask.path) => Some(Miss::Path),
        () => ask.misses(conditions).map(Miss::Condition),
    };
    Candidate { to, host, rank: rank(host), miss }
}

/// How far the request came on its way to the route.
fn closeness<T>(candidate: &Candidate<'_, T>) -> (u8, HostRank) {
    let stage = match &candidate.miss {
        None => 3,
        Some(Miss::Condition(_)) => 2,
        Some(Miss::Path) => 1,
        Some(Miss::Host) => 0,
    };
    (stage, candidate.rank.host)
}

fn matches_host(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => exact.as_str() == host,
        HostPattern::Wildcard(parent) => host.strip_suffix(parent.as_str()).is_some_and(|below| below.ends_with('.')),
    }
}

fn matches_path(pattern: &PathPattern, path: &str) -> bool {
    let Some(below_root) = path.strip_prefix('/') else { return false };
    match pattern {
        PathPattern::Exact(exact) => exact == path,
        PathPattern::Prefix(prefix) => {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathPattern::Template(template) => {
            let mut segments = below_root.split('/');
            let all = template.segments.iter().all(|wanted| {
                let segment = segments.next();
                segment.is_some_and(|segment| match wanted {
                    Segment::Capture(_) => !segment.is_empty(),
                    Segment::Literal(literal) => literal == segment,
                })
            });
            all && (template.is_prefix || segments.next().is_none())
        }
        PathPattern::Regex(regex) => regex.regex.is_match(path),
    }
}
