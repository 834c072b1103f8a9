//! What is wrong only between sections: same bind, same requests, same names, loops, and what nothing uses.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Apis, Auths, Check, Limits, Listeners, Placed, Routes, Spans, Upstreams};
use crate::{
    base::Name,
    config::{
        diagnostics::{Code, Diagnostic, Severity},
        plan::{Admin, Bind, Conditions, Host, HostPattern, PathPattern, Route, Upstream},
        yaml::At,
    },
};

impl<'a> Check<'a> {
    pub(super) fn across(
        &mut self,
        listeners: &Listeners<'a>,
        routes: &Routes<'a>,
        admin: Option<&Placed<'a, Admin>>,
    ) -> Spans {
        self.same_bind(listeners, admin);
        self.same_requests(&routes.routes);
        self.shadowed(&routes.routes);
        self.loops(listeners, routes);
        self.probe_budget(&routes.upstreams);
        let start = |at: &At<'_>| at.key_span().start;
        Spans {
            listeners: listeners.iter().map(|placed| (placed.value.name.clone(), start(&placed.at))).collect(),
            routes: routes.routes.iter().map(|placed| (placed.value.name.clone(), start(&placed.at))).collect(),
            upstreams: routes.upstreams.iter().map(|placed| (placed.value.name.clone(), start(&placed.at))).collect(),
        }
    }

    /// How many probes all checks together send. Equal ones of several upstreams are sent once.
    fn probe_budget(&mut self, upstreams: &Upstreams<'a>) {
        /// Per second: what a small service notices.
        const MOST: f64 = 50.0;
        let mut counted = HashSet::new();
        let mut shares: Vec<(f64, &Placed<'a, Arc<Upstream>>)> = Vec::new();
        for placed in upstreams {
            let mut share = 0.0;
            for check in &placed.value.health.checks {
                let asked = placed
                    .value
                    .backends
                    .iter()
                    .filter(|b| counted.insert((&b.host, check.port.unwrap_or(b.port), check)));
                share += asked.count() as f64 / check.interval.as_secs_f64();
            }
            shares.push((share, placed));
        }
        let sum: f64 = shares.iter().map(|(share, _)| share).sum();
        let Some((share, placed)) = shares.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b)) else { return };
        if sum <= MOST {
            return;
        }
        let at = if placed.at.has("health") { placed.at.key("health") } else { placed.at };
        let finding = self.finding(Code::ProbeBudget, at, format!("the health checks send {sum:.0} probes a second"));
        self.report(finding.label(format!("{share:.0} of them from here: a longer interval makes them fewer")));
    }

    fn same_bind(&mut self, listeners: &Listeners<'a>, admin: Option<&Placed<'a, Admin>>) {
        let place = |at: At<'a>| if at.has("bind") { at.key("bind") } else { at };
        let mut bounds: Vec<Bound<'_, 'a>> = listeners
            .iter()
            .map(|placed| Bound { listener: Some(&placed.value.name), bind: &placed.value.bind, at: place(placed.at) })
            .chain(admin.map(|admin| Bound { listener: None, bind: &admin.value.bind, at: admin.at }))
            .collect();
        // The default of `admin` is written nowhere and sorts first: what is written gives way to it.
        bounds.sort_by_key(|bound| bound.at.span().start);
        for (i, second) in bounds.iter().enumerate().filter(|(_, bound)| bound.bind.port() != Some(0)) {
            let Some(first) =
                bounds[..i].iter().find(|first| first.bind.covers(second.bind) || second.bind.covers(first.bind))
            else {
                continue;
            };
            let who = match (first.listener, second.listener) {
                (Some(a), Some(b)) => format!("listeners `{a}` and `{b}`"),
                (Some(one), None) | (None, Some(one)) => format!("admin and listener `{one}`"),
                (None, None) => continue,
            };
            let message = match first.bind.is_at(second.bind) {
                true => format!("{who} both bind {}", first.bind),
                false => format!("{who} bind the same port: {} and {}", first.bind, second.bind),
            };
            let finding = self.finding(Code::SameBind, second.at, message).label(match second.bind {
                Bind::Tcp(_) => "take another port",
                Bind::Unix { .. } => "take another path",
            });
            self.report(match first.listener.is_none() && !self.root.has("admin") {
                true => finding.note(format!("admin binds {} unless it says otherwise", first.bind)),
                false => finding.related(first.at.span(), "first here"),
            });
        }
    }

    /// Routes that are as specific and may match the same request on a common listener, and routes of the same name.
    fn same_requests(&mut self, routes: &[Placed<'a, Arc<Route>>]) {
        let any = HostPattern::Wildcard(Name::derived(""));
        let mut taken: HashMap<(&HostPattern, String, [usize; 3]), Vec<usize>> = HashMap::new();
        let mut clashes: HashSet<(usize, usize)> = HashSet::new();
        for (i, placed) in routes.iter().enumerate() {
            let route = &placed.value;
            let hosts: Vec<&HostPattern> =
                if route.hosts.is_empty() { vec![&any] } else { route.hosts.iter().collect() };
            for host in hosts {
                let others = taken.entry((host, route.path.shape(), asked(&route.conditions))).or_default();
                let clash = others.iter().find(|other| may_have_the_same(&routes[**other].value, route));
                if let Some(other) = clash.copied()
                    && clashes.insert((other, i))
                {
                    self.same_request(&routes[other], placed, (*host != any).then_some(host));
                }
                others.push(i);
            }
        }
        let mut names: HashMap<&Name, usize> = HashMap::new();
        for (i, placed) in routes.iter().enumerate() {
            let Some(first) = names.insert(&placed.value.name, i) else { continue };
            if clashes.contains(&(first, i)) && !placed.at.has("name") {
                continue;
            }
            let message = format!("two routes are named `{}`", placed.value.name);
            let at = if placed.at.has("name") { placed.at.key("name") } else { placed.at };
            let first = &routes[first];
            let first_span = if first.at.has("name") { first.at.key("name").span() } else { first.at.span() };
            let finding = self.finding(Code::SameName, at, message);
            self.report(finding.label("give one of them another `name`").related(first_span, "first here"));
        }
    }

    /// Expressions below a prefix that takes every request.
    fn shadowed(&mut self, routes: &[Placed<'a, Arc<Route>>]) {
        let mut prefixes: HashMap<&str, Vec<&Placed<'a, Arc<Route>>>> = HashMap::new();
        for placed in routes.iter().filter(|placed| placed.value.conditions.is_empty()) {
            if let PathPattern::Prefix(prefix) = &placed.value.path {
                prefixes.entry(prefix).or_default().push(placed);
            }
        }
        for placed in routes {
            let route = &placed.value;
            let PathPattern::Regex(regex) = &route.path else { continue };
            let start = regex.literal_start();
            let above =
                start.match_indices('/').filter(|(slash, _)| *slash > 0).map(|(slash, _)| start.split_at(slash).0);
            let taker = above
                .flat_map(|prefix| prefixes.get(prefix).into_iter().flatten())
                .find(|other| other.value.hosts == route.hosts && serves_all_of(&other.value, route));
            let Some(taker) = taker else { continue };
            let message = format!("route `{}` can never match", route.name);
            let finding = self.finding(Code::Shadowed, placed.at.key("path"), message);
            let (other, path) = (&taker.value.name, &taker.value.path);
            self.report(
                finding
                    .label(format!(
                        "`{other}` takes every request under {path} before it: write a {{capture}}, or a longer prefix"
                    ))
                    .related(taker.at.key("path").span(), "this one is looked at first")
                    .note(format!(
                        "a path like {start}… is `{other}`'s; expressions come behind all other paths but /*"
                    )),
            );
        }
    }

    fn same_request(
        &mut self,
        first: &Placed<'a, Arc<Route>>,
        second: &Placed<'a, Arc<Route>>,
        host: Option<&HostPattern>,
    ) {
        let (a, b) = (&first.value, &second.value);
        let message = match a.hosts == b.hosts {
            _ if a.conditions != b.conditions => {
                format!("routes `{}` and `{}` may match the same request, and neither is more specific", a.name, b.name)
            }
            true if a.name == b.name => format!("two routes match exactly the same requests: `{}`", a.name),
            true => format!("routes `{}` and `{}` match exactly the same requests", a.name, b.name),
            false => {
                let host = host.map(ToString::to_string).unwrap_or_default();
                format!("routes `{}` and `{}` both match {host}{}", a.name, b.name, b.path)
            }
        };
        let place = |at: At<'a>| if at.has("path") { at.key("path").span() } else { at.span() };
        let mut finding = self.finding(Code::SameRequests, second.at, message);
        finding.span = place(second.at);
        let fix = match a.conditions != b.conditions {
            true => "ask for one thing more in one of them, or for another value of the same field",
            false => "give one another host, path, method or header, or delete it",
        };
        self.report(finding.label(fix).related(place(first.at), "first here"));
    }

    /// Backends that are one of our own listeners.
    fn loops(&mut self, listeners: &Listeners<'a>, routes: &Routes<'a>) {
        let ours: HashMap<u16, Vec<(IpAddr, &Name)>> = listeners.iter().fold(HashMap::new(), |mut ours, placed| {
            if let Bind::Tcp(bind) = placed.value.bind {
                ours.entry(bind.port()).or_insert_with(Vec::new).push((bind.ip(), &placed.value.name));
            }
            ours
        });
        for upstream in &routes.upstreams {
            for backend in &upstream.value.backends {
                let Host::Ip(ip) = backend.host else { continue };
                let own = ours.get(&backend.port).and_then(|ours| ours.iter().find(|(bind, _)| reaches(ip, *bind)));
                let Some((_, listener)) = own else { continue };
                let message = format!("backend {} is this gateway's own listener", backend.authority());
                let key = (upstream.value.name.clone(), backend.name.clone());
                let at = self.backend_places.get(&key).copied().unwrap_or(upstream.at);
                let at = if at.has("url") { at.key("url") } else { at };
                let finding = self.finding(Code::Loop, at, message);
                self.report(finding.label("requests would loop").note(format!("it is listener `{listener}`")));
            }
        }
    }

    /// What no route names. With errors about, the route that names it may just not have been understood.
    pub(super) fn unused(&mut self, routes: &Routes<'a>, auth: &Auths<'a>, limits: &Limits<'a>, apis: &Apis<'a>) {
        let is_error = |finding: &Diagnostic| finding.code.severity() == Severity::Error;
        if !self.known.is_empty() || self.findings.diagnostics.iter().any(is_error) {
            return;
        }
        let upstreams = routes.upstreams.iter().filter(|placed| !placed.value.anonymous);
        let named = upstreams.map(|placed| ("upstreams", "to", "an upstream", &placed.value.name, placed.at));
        let auth = auth.iter().map(|(name, placed)| ("auth", "auth", "an auth", name, placed.at));
        let limits = limits.iter().map(|(name, placed)| ("limits", "limit", "a limit", name, placed.at));
        let apis = apis.iter().map(|(name, placed)| ("apis", "api", "an API", name, placed.at));
        let unused: Vec<_> = named
            .chain(auth)
            .chain(limits)
            .chain(apis)
            .filter(|(section, _, _, name, _)| !self.used.contains(&(*section, name.to_string())))
            .collect();
        for (_, field, what, name, at) in unused {
            let mut finding = self.finding(Code::Unused, at, format!("no route uses `{name}`, {what}"));
            finding.span = at.key_span();
            self.report(finding.label(format!("name it in a route's `{field}`, or delete it")));
        }
    }
}

/// An address that a listener binds, or admin.
struct Bound<'p, 'a> {
    listener: Option<&'p Name>,
    bind: &'p Bind,
    at: At<'a>,
}

/// Whether connecting to `ip` ends at a listener bound to `bind`, as far as can be said without asking the machine.
fn reaches(ip: IpAddr, bind: IpAddr) -> bool {
    ip == bind
        || (bind.is_unspecified() && (ip.is_loopback() || ip.is_unspecified()) && (ip.is_ipv4() || bind.is_ipv6()))
        || (ip.is_unspecified() && bind.is_loopback())
}

/// How much is asked besides, in the order in which it counts.
fn asked(conditions: &Conditions) -> [usize; 3] {
    [usize::from(!conditions.methods.is_empty()), conditions.headers.len(), conditions.query.len()]
}

fn may_have_the_same(a: &Route, b: &Route) -> bool {
    share_listener(a, b) && a.conditions.overlaps(&b.conditions)
}

/// Whether a route is on every listener that another is on.
fn serves_all_of(one: &Route, other: &Route) -> bool {
    match (&one.listeners, &other.listeners) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => one.is_superset(other),
    }
}

fn share_listener(a: &Route, b: &Route) -> bool {
    let any = |a: &Option<BTreeSet<Name>>| a.is_none();
    match (&a.listeners, &b.listeners) {
        (Some(a), Some(b)) => !a.is_disjoint(b),
        _ => any(&a.listeners) || any(&b.listeners),
    }
}
