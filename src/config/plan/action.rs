//! What a route leads to.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use http::{HeaderName, HeaderValue, StatusCode};

use super::{Text, wanted::compile};
use crate::base::{Name, Percent, Size};

/// What a route leads to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Action {
    /// An upstream, or one of several.
    Forward(Forward),
    /// Another URL, which the client is told.
    Redirect(Redirect),
    /// An answer that is always the same.
    Respond(Respond),
}

impl Action {
    /// The way to one upstream.
    #[must_use]
    pub fn to(upstream: Name) -> Self {
        Self::Forward(Forward::to(upstream))
    }

    /// The way to upstreams, if it is one.
    #[must_use]
    pub const fn forward(&self) -> Option<&Forward> {
        match self {
            Self::Forward(forward) => Some(forward),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }

    /// The names of the upstreams that answer its requests.
    pub fn upstreams(&self) -> impl Iterator<Item = &Name> {
        self.forward().into_iter().flat_map(|forward| &forward.sides).map(|side| &side.upstream)
    }
}

/// Sends requests to backends.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Forward {
    /// Upstreams that the plan has, sorted by name. At least one has a weight.
    pub sides: Vec<Side>,
    /// What a request goes by to the side where the one before it went. `None`: chance decides each time.
    pub sticky: Option<SplitKey>,
    /// What becomes of a request whose side has no eligible backend. Default stay.
    pub when_down: WhenDown,
    /// The path that backends see; `None` is the client's, normalised.
    pub rewrite: Option<Rewrite>,
    /// Where copies of requests go.
    pub mirror: Option<Mirror>,
}

impl Forward {
    /// To one upstream, unchanged.
    #[must_use]
    pub fn to(upstream: Name) -> Self {
        let sides = vec![Side { upstream, weight: 1 }];
        Self { sides, sticky: None, when_down: WhenDown::Stay, rewrite: None, mirror: None }
    }
}

/// Sends copies of requests to another upstream. What comes back is thrown away.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Mirror {
    /// The name of the upstream, which the plan has.
    pub to: Name,
    /// How many of the requests. Default all.
    pub share: Percent,
    /// Requests with a larger body are not copied. Default 64 KiB, at most 1 MiB.
    pub max_body: Size,
    /// For all of a copy. Default 5 s.
    pub timeout: Duration,
    /// Copies under way at once; those above are dropped. Default 100.
    pub max_in_flight: u32,
}

/// One of the upstreams of a route.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Side {
    /// The name of the upstream.
    pub upstream: Name,
    /// Its part of the sum of all weights is its part of the requests. Up to 1,000,000; 0 is none.
    pub weight: u32,
}

/// What tells whose request it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SplitKey {
    /// The value of a cookie.
    Cookie(String),
    /// The first value of a field.
    Header(HeaderName),
}

/// What becomes of a request whose side has no eligible backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum WhenDown {
    /// Another side has it, by the weights of those that are left.
    Other,
    /// It is refused (503).
    Stay,
}

/// Another path. Prefixes are whole segments.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Rewrite {
    /// This one, with what the route's path captures.
    Path(Text),
    /// Another text in place of the first so many segments, which are those that the route names.
    Prefix {
        /// How many.
        segments: usize,
        /// What stands there instead.
        with: Text,
    },
    /// Another text wherever an expression matches, with what its groups capture.
    Regex {
        /// The expression.
        regex: Regex,
        /// What stands there instead.
        with: Text,
    },
    /// Without this prefix, where the path has it: `/orders`.
    Strip(String),
}

/// A regular expression over a path, unanchored. Two are equal if their texts are.
#[derive(Clone, Debug)]
pub struct Regex(pub regex::Regex);

impl Regex {
    /// Compiles a regular expression.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        compile(text).map(Self)
    }

    /// The names of its groups, in their order.
    #[must_use]
    pub fn captures(&self) -> Vec<&str> {
        self.0.capture_names().flatten().collect()
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Regex {}

impl Hash for Regex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// Another URL. What is `None` is as in the request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308. Default 302.
    pub status: StatusCode,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// As it stands in a URL.
    pub host: Option<String>,
    /// Where a scheme is given and no port, it is the scheme's own.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<Rewrite>,
    /// What stands behind the `?`.
    pub query: Option<String>,
}

/// An answer that is always the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Respond {
    /// 200 to 599. Default 200.
    pub status: StatusCode,
    /// Its body; empty is none.
    pub body: String,
    /// Its `Content-Type`. Default `text/plain; charset=utf-8` where there is a body.
    pub content_type: Option<HeaderValue>,
}

/// What is changed of the fields of a head: first some go, then some are set, then some are added.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct HeaderRules {
    /// Sorted by name.
    pub remove: Vec<HeaderName>,
    /// Each in place of all that are there, sorted by name.
    pub set: Vec<(HeaderName, FieldValue)>,
    /// Each behind those that are there, sorted by name.
    pub add: Vec<(HeaderName, FieldValue)>,
}

impl HeaderRules {
    /// Whether nothing is changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// These, and those of `base` for fields that these do not name.
    #[must_use]
    pub fn over(mut self, base: &Self) -> Self {
        let is_named = |name: &HeaderName| self.replaces(name) || self.add.iter().any(|(add, _)| add == name);
        let valued = |rules: &[(HeaderName, FieldValue)]| -> Vec<(HeaderName, FieldValue)> {
            rules.iter().filter(|(name, _)| !is_named(name)).cloned().collect()
        };
        let remove: Vec<HeaderName> = base.remove.iter().filter(|name| !is_named(name)).cloned().collect();
        let (set, add) = (valued(&base.set), valued(&base.add));
        self.remove.extend(remove);
        self.set.extend(set);
        self.add.extend(add);
        self.remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        self.set.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        self.add.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        self
    }

    /// Whether nothing that is there of this field stays.
    #[must_use]
    pub fn replaces(&self, name: &HeaderName) -> bool {
        self.remove.contains(name) || self.set.iter().any(|(set, _)| set == name)
    }
}

/// The value of a field.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum FieldValue {
    /// Made for each request.
    Filled(Text),
    /// Always the same.
    Fixed(HeaderValue),
}
