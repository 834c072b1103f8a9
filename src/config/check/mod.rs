//! Spec to plan: every default filled, every reference resolved, every finding collected.
//!
//! One file per section of the config. Each function takes what is written and its place, says what is wrong, and goes on with
//! the best guess, so that one run reports everything; the plan that comes out is used only if nothing was an error. No
//! network is touched. What is between sections (same bind, same requests, loops) comes last, in `across`.

mod access;
mod action;
mod across;
mod api;
mod address;
mod balance;
mod conditions;
mod hash;
mod health;
mod pattern;
mod process;
mod retry;
mod route;
mod tls;
mod upstream;
mod value;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    diagnostics::{Code, Diagnostic},
    plan::{Api, Auth, Limit, Listener, Plan, Route, Upstream},
    spec::{Defaults, Spec},
    suggest,
    yaml::At,
};
use crate::base::Name;

/// What a check leaves behind, besides the plan.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Parts of the text that a report must not show.
    pub(super) masked: Vec<Range<usize>>,
    /// Other files that were read, or should have been.
    pub(super) files: Vec<PathBuf>,
}

/// Where named things are written, as bytes.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) listeners: BTreeMap<Name, usize>,
    pub(super) routes: BTreeMap<Name, usize>,
    pub(super) upstreams: BTreeMap<Name, usize>,
}

/// Checks a whole spec.
///
/// `known` is what reading it has found: a field that was misspelt is not also missing.
pub(super) fn check(spec: &Spec, at: At<'_>, folder: &Path, known: &[Diagnostic]) -> (Plan, Findings, Spans) {
    let mut check = Check::new(spec, at, folder, known);
    check.version(spec, at);
    let listeners = check.listeners(spec, at);
    let upstreams = check.upstreams(spec, at);
    let auth = check.auth(spec, at);
    let limits = check.limits(spec, at);
    let apis = check.apis(spec, at);
    let known = Known { listeners: &listeners, upstreams, auth: &auth, limits: &limits, apis: &apis };
    let routes = check.routes(spec, at, &known);
    let admin = check.admin(spec, at);
    let spans = check.across(&listeners, &routes, admin.as_ref());
    check.uncovered_hosts(&listeners, &routes);

    check.unused(&routes, &auth, &limits, &apis);
    let plan = Plan {
        workers: check.workers(spec, at),
        max_probes: check.max_probes(spec, at),
        listeners: by_name(listeners, |listener| &listener.name),
        upstreams: by_name(routes.upstreams, |upstream| &upstream.name),
        routes: by_name(routes.routes, |route| &route.name),
        apis: apis.into_iter().map(|(name, placed)| (name, placed.value)).collect(),
        dns: check.dns(spec, at),
        admin: admin.map(|placed| placed.value),
        access_log: check.access_log(spec, at),
        webhooks: check.webhooks(spec, at),
        log: check.log(spec, at),
        shutdown: check.shutdown(spec, at),
        reload: check.reload(spec, at),
    };
    (plan, check.findings, spans)
}

fn by_name<T>(placed: Vec<Placed<'_, Arc<T>>>, name: fn(&T) -> &Name) -> BTreeMap<Name, Arc<T>> {
    placed.into_iter().map(|placed| (name(&placed.value).clone(), placed.value)).collect()
}

/// A part of the plan and the place that it came from.
#[derive(Clone, Debug)]
struct Placed<'a, T> {
    value: T,
    at: At<'a>,
}

type Listeners<'a> = Vec<Placed<'a, Arc<Listener>>>;
type Upstreams<'a> = Vec<Placed<'a, Arc<Upstream>>>;
type Auths<'a> = BTreeMap<Name, Placed<'a, Arc<Auth>>>;
type Apis<'a> = BTreeMap<Name, Placed<'a, Arc<Api>>>;
type Limits<'a> = BTreeMap<Name, Placed<'a, Arc<Limit>>>;

/// What a route may refer to.
struct Known<'k, 'a> {
    listeners: &'k Listeners<'a>,
    upstreams: Upstreams<'a>,
    auth: &'k Auths<'a>,
    limits: &'k Limits<'a>,
    apis: &'k Apis<'a>,
}

/// The routes, and all upstreams, those written inside routes among them.
struct Routes<'a> {
    routes: Vec<Placed<'a, Arc<Route>>>,
    upstreams: Upstreams<'a>,
}

/// The state of one check.
struct Check<'a> {
    folder: &'a Path,
    root: At<'a>,
    defaults: Option<&'a Defaults>,
    findings: Findings,
    /// Where reading found something, as first bytes.
    known: BTreeSet<usize>,
    /// Where backends are written, by upstream and name.
    backend_places: HashMap<(Name, Name), At<'a>>,
    /// Names that something refers to, for "nothing uses it".
    used: BTreeSet<(&'static str, String)>,
}

impl<'a> Check<'a> {
    fn new(spec: &'a Spec, root: At<'a>, folder: &'a Path, known: &[Diagnostic]) -> Self {
        let known = known.iter().map(|finding| finding.span.start).collect();
        Self {
            folder,
            root,
            defaults: spec.defaults.as_ref(),
            findings: Findings::default(),
            known,
            backend_places: HashMap::new(),
            used: BTreeSet::new(),
        }
    }

    fn report(&mut self, finding: Diagnostic) {
        self.findings.diagnostics.push(finding);
    }

    /// A finding about a value.
    fn finding(&self, code: Code, at: At<'a>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, at.span(), message).path(at.path())
    }

    /// Says that a field is missing from a block, unless it is written and was already found wrong, or misspelt.
    fn missing(&mut self, at: At<'a>, field: &str, what: &str, label: &str) {
        let is_misspelt = |key: &Arc<str>| {
            self.known.contains(&at.key(key).key_span().start) && suggest::nearest(key, [field]).is_some()
        };
        if at.is_block() && !at.has(field) && !at.keys().iter().any(is_misspelt) {
            let finding = self.finding(Code::Missing, at, format!("{what} has no `{field}`")).label(label);
            self.report(finding);
        }
    }

    /// Whether a block has a field that it should not have: what seems to be missing may be what that was meant for.
    fn has_stray_field(&self, at: At<'a>) -> bool {
        at.keys().iter().any(|key| self.known.contains(&at.key(key).key_span().start))
    }

    /// An item of a list that holds nothing, unless it was already found wrong.
    fn empty_item(&mut self, at: At<'a>) {
        if at.is_empty() {
            let finding =
                self.finding(Code::WrongType, at, "this item is empty").label("write a value, or delete the `-`");
            self.report(finding);
        }
    }

    /// Keeps a value out of every report.
    fn mask(&mut self, at: At<'a>) {
        if !at.is_expanded() {
            self.findings.masked.extend(at.scalar_span());
        }
    }
}
