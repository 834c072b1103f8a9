//! Routes: patterns, where they send, and what they start from in `defaults`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Auths, Check, Known, Limits, Placed, Routes, health::Reached, upstream::DAY};
use crate::{
    base::{Name, Size, duration::Written as Shown},
    config::{
        diagnostics::Code,
        plan::{
            Action, Auth, Backend, Coding, Compression, Forward, HeaderRules, HostPattern, Limit, LimitKey,
            PathPattern, Protocol, Retries, Route, Side, Timeouts, Upstream,
        },
        spec::{self, Address, CompressSpec, Flag, List, OneOrMany, RouteSpec, ShortOr, Spec, Upgrade, Written},
        suggest,
        yaml::At,
    },
};

const MAX_BODY: Size = Size(10 << 20);

/// What routes start from.
struct Base {
    timeouts: Timeouts,
    retries: Retries,
    max_body: Option<Size>,
    request_headers: Option<HeaderRules>,
    response_headers: Option<HeaderRules>,
}

/// A block's deadlines, as written in `defaults` or in a route.
struct WrittenTimeouts {
    connect: Option<Duration>,
    response_header: Option<Duration>,
    request: Option<Duration>,
    client_body: Option<Duration>,
    tunnel: Option<Duration>,
}

impl<'a> Check<'a> {
    pub(super) fn routes(&mut self, spec: &'a Spec, at: At<'a>, known: &Known<'_, 'a>) -> Routes<'a> {
        let base = self.base();
        let block = at.key("routes");
        let how = "add routes: [{ path: /*, to: HOST:PORT }]";
        match &spec.routes {
            None => self.missing(at, "routes", "this config", how),
            Some(list) if list.0.is_empty() => {
                let finding = self.finding(Code::Missing, block, "this config has no `routes`");
                self.report(finding.label(how));
            }
            Some(_) => {}
        }
        let mut routes: Vec<Placed<'a, Arc<Route>>> = vec![];
        let mut upstreams = known.upstreams.clone();
        let names: BTreeSet<Name> = upstreams.iter().map(|placed| placed.value.name.clone()).collect();
        let mut inline: HashMap<Name, At<'a>> = HashMap::new();
        for (i, written) in spec.routes.iter().flat_map(|list| &list.0).enumerate() {
            let at = block.item(i);
            let Some(written) = written else {
                self.empty_item(at);
                continue;
            };
            let (mut route, has_patterns) = self.route(at, written, &base, known);
            let whose = match has_patterns || written.name.is_some() {
                true => format!("route `{}`", route.name),
                false => "this route".to_owned(),
            };
            if let Some(action) = self.own_answer(at, written, &route.path) {
                route.action = action;
                routes.extend(has_patterns.then(|| Placed { value: Arc::new(route), at }));
                continue;
            }
            let mut forward = Forward::to(route.name.clone());
            match self.destination(at, written, &names, &route.name, &whose) {
                Some(To::Name(name)) => forward = Forward::to(name),
                Some(To::Sides(sides)) => forward.sides = sides,
                Some(To::Inline(upstream)) => {
                    // Two unnamed routes on one pattern clash as routes; one finding is enough.
                    if names.contains(&route.name) {
                        let message = format!("route `{}` and an upstream have the same name", route.name);
                        let finding = self.finding(Code::SameName, at.key("name"), message);
                        self.report(finding.label("its addresses would be an upstream of that name: rename one"));
                    } else if inline.insert(route.name.clone(), at).is_none() {
                        upstreams.push(Placed { value: Arc::new(*upstream), at });
                    }
                }
                None => {}
            }
            if let Some(split) = &written.split {
                self.split(at, split, &mut forward);
            }
            forward.rewrite =
                written.rewrite.as_ref().and_then(|rewrite| self.rewrite(at.key("rewrite"), rewrite, &route.path));
            forward.mirror =
                written.mirror.as_ref().and_then(|mirror| self.mirror(at.key("mirror"), mirror, &forward, &names));
            route.action = Action::Forward(forward);
            // Without its patterns it would be compared as what it is not.
            if has_patterns {
                routes.push(Placed { value: Arc::new(route), at });
            }
        }
        Routes { routes, upstreams }
    }

    fn route(&mut self, at: At<'a>, written: &RouteSpec, base: &Base, known: &Known<'_, 'a>) -> (Route, bool) {
        let written_name = written.name.as_ref().map(|name| self.name(at.key("name"), &name.text, "a route", false));
        let (hosts, first_host) = self.hosts(at.key("host"), written);
        let path = match &written.path {
            Some(path) => self.path_pattern(at.key("path"), &path.text),
            None => {
                let what =
                    written.name.as_ref().map_or("this route".to_owned(), |name| format!("route `{}`", name.text));
                self.missing(at, "path", &what, "add path: /* for every path");
                None
            }
        };
        let derived = || Name::derived(format!("{first_host}{}", path.clone().unwrap_or(PathPattern::ALL)));
        let name = written_name.flatten().unwrap_or_else(derived);
        let auth = self.route_auth(at.key("auth"), written, known.auth);
        let limits = self.route_limits(at.key("limit"), written, &name, known.limits, !auth.is_empty());
        let api = self.route_api(at.key("api"), written, known.apis);
        let timeouts = self.route_timeouts(at.key("timeouts"), written, &base.timeouts);
        let retries = self.retries(at.key("retries"), written.retries.as_ref(), &base.retries);
        let max_body = self.size(at, "max_body", written.max_body.as_ref()).unwrap_or(base.max_body);
        let critical = self.flag(at, "critical", written.critical.as_ref()).unwrap_or(false);
        let listeners = self.route_listeners(at.key("listeners"), written, known);
        let conditions = self.conditions(at, written);
        let action = Action::to(name.clone());
        let has_patterns = path.is_some() && (!hosts.is_empty() || !at.has("host"));
        let path = path.unwrap_or(PathPattern::ALL);
        let compress = self.compress(at.key("compress"), written.compress.as_ref());
        let upgrades = self.upgrades(at.key("upgrades"), written.upgrades.as_ref());
        let (of_request, of_response) = (base.request_headers.as_ref(), base.response_headers.as_ref());
        let request_headers =
            self.header_rules(at.key("request_headers"), written.request_headers.as_ref(), &path, of_request);
        let response_headers =
            self.header_rules(at.key("response_headers"), written.response_headers.as_ref(), &path, of_response);
        let route = Route {
            name,
            hosts,
            path,
            conditions,
            listeners,
            action,
            request_headers,
            response_headers,
            api,
            auth,
            limits,
            timeouts,
            retries,
            compress,
            upgrades,
            max_body,
            critical,
        };
        (route, has_patterns)
    }

    fn hosts(&mut self, at: At<'a>, written: &RouteSpec) -> (Vec<HostPattern>, String) {
        let mut hosts = vec![];
        match &written.host {
            None => {}
            Some(OneOrMany::One(host)) => hosts.extend(self.host_pattern(at, &host.text)),
            Some(OneOrMany::Many(list)) => {
                if list.0.is_empty() {
                    let finding = self.finding(Code::Missing, at, "no host would match");
                    self.report(finding.label("write one, or delete the field to match any"));
                }
                for (i, host) in list.0.iter().enumerate() {
                    match host {
                        Some(host) => hosts.extend(self.host_pattern(at.item(i), &host.text)),
                        None => self.empty_item(at.item(i)),
                    }
                }
            }
        }
        let first = hosts.first().map(ToString::to_string).unwrap_or_default();
        hosts.sort();
        hosts.dedup();
        (hosts, first)
    }

    fn route_listeners(&mut self, at: At<'a>, written: &RouteSpec, known: &Known<'_, 'a>) -> Option<BTreeSet<Name>> {
        let list = written.listeners.as_ref()?;
        if list.0.is_empty() {
            let finding = self.finding(Code::Missing, at, "no listener would serve this route");
            self.report(finding.label("name one, or delete the field for all"));
        }
        let mut chosen = BTreeSet::new();
        for (i, name) in list.0.iter().enumerate() {
            let at = at.item(i);
            let Some(name) = name else {
                self.empty_item(at);
                continue;
            };
            let names = || known.listeners.iter().map(|placed| &*placed.value.name);
            match names().any(|known| known == name.text) || self.root.key("listeners").names(&name.text) {
                true => chosen.extend([Name::derived(name.text.as_str())]),
                false => self.unknown(at, "listeners", &name.text, names().collect()),
            }
        }
        Some(chosen)
    }

    fn compress(&mut self, at: At<'a>, written: Option<&ShortOr<Flag, CompressSpec>>) -> Option<Compression> {
        let fields = match written? {
            ShortOr::Short(flag) => return self.flag_at(at, &flag.text)?.then(Compression::default),
            ShortOr::Fields(fields) => fields,
        };
        let plain = Compression::default();
        let words = [("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)];
        let mut codings = vec![];
        for (at, text) in self.each(at.key("codings"), fields.codings.as_ref()) {
            codings.extend(self.word(at, text, "a coding", &words).filter(|coding| !codings.contains(coding)));
        }
        let mut types = vec![];
        for (at, text) in self.each(at.key("types"), fields.types.as_ref()) {
            types.extend(self.media_type(at, text));
        }
        let min_size = self.bytes(at, "min_size", fields.min_size.as_ref(), 0..=1 << 30);
        Some(Compression {
            codings: if codings.is_empty() { plain.codings } else { codings },
            min_size: min_size.map_or(plain.min_size, |bytes| Size(u64::from(bytes))),
            types: if types.is_empty() { plain.types } else { types },
        })
    }

    /// `text/html`, `text/*` or `*+json`.
    fn media_type(&mut self, at: At<'a>, text: &str) -> Option<String> {
        let is_part = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let is_type = match (text.strip_prefix("*+"), text.split_once('/')) {
            (Some(suffix), None) => is_part(suffix),
            (None, Some((kind, "*"))) => is_part(kind),
            (None, Some((kind, subtype))) => is_part(kind) && is_part(subtype),
            _ => false,
        };
        if !is_type {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a media type", at.shown()));
            self.report(finding.label("write it like text/html, text/* or \"*+json\""));
        }
        is_type.then(|| text.to_ascii_lowercase())
    }

    fn upgrades(&mut self, at: At<'a>, written: Option<&OneOrMany<Upgrade>>) -> Vec<String> {
        let Some(written) = written else { return vec!["websocket".to_owned()] };
        let mut upgrades = vec![];
        let tokens = self.each(at, Some(written));
        let is_alone = tokens.len() == 1;
        for (at, text) in tokens {
            let token = text.to_ascii_lowercase();
            // RFC 9110, section 5.6.2, and a version behind a slash.
            let is_token = |part: &str| {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                !part.is_empty() && part.bytes().all(allowed)
            };
            let problem = match token.as_str() {
                "none" if is_alone => continue,
                "none" => "write `none` alone",
                "true" | "false" | "yes" | "no" | "on" | "off" => "write `websocket`, or `none`",
                "h2c" | "http/2.0" | "tls" | "tls/1.0" => {
                    "what comes through it would be requests that nobody looks at; HTTP/2 needs no upgrade here"
                }
                token if token.split('/').count() <= 2 && token.split('/').all(is_token) => {
                    upgrades.push(token.to_owned());
                    continue;
                }
                _ => "write the name of a protocol, like websocket",
            };
            let finding =
                self.finding(Code::Invalid, at, format!("connections cannot be upgraded to `{}`", at.shown()));
            self.report(finding.label(problem));
        }
        upgrades
    }

    /// `auth: ipd` is not defined.
    pub(super) fn unknown(&mut self, at: At<'a>, field: &str, text: &str, defined: Vec<&str>) {
        let finding = self.finding(Code::UnknownName, at, format!("`{field}: {}` is not defined", at.shown()));
        let finding = match suggest::nearest(text, defined.iter().copied()) {
            Some(near) => finding.label(format!("did you mean {near}?")).fix(near),
            None => finding,
        };
        let list = if defined.is_empty() { "nothing".to_owned() } else { suggest::list(defined) };
        self.report(finding.note(format!("defined: {list}")));
    }

    fn route_auth(&mut self, at: At<'a>, written: &RouteSpec, auth: &Auths<'a>) -> Vec<Arc<Auth>> {
        let mut chosen: Vec<Arc<Auth>> = vec![];
        for (at, text) in self.each(at, written.auth.as_ref()) {
            self.used.insert(("auth", text.to_owned()));
            match auth.get(text) {
                Some(known) if chosen.contains(&known.value) => {}
                Some(known) => chosen.push(Arc::clone(&known.value)),
                None if self.root.key("auth").names(text) => {}
                None => self.unknown(at, "auth", text, auth.keys().map(|name| &**name).collect()),
            }
        }
        chosen
    }

    fn route_limits(
        &mut self,
        at: At<'a>,
        written: &RouteSpec,
        route: &Name,
        limits: &Limits<'a>,
        has_auth: bool,
    ) -> Vec<Arc<Limit>> {
        let mut chosen: Vec<Arc<Limit>> = vec![];
        let mut inline = 0;
        for (at, text) in self.each(at, written.limit.as_ref()) {
            let is_name = text.starts_with(|c: char| c.is_ascii_lowercase());
            let limit = if is_name {
                self.used.insert(("limits", text.to_owned()));
                match limits.get(text) {
                    Some(known) => Some(Arc::clone(&known.value)),
                    None if self.root.key("limits").names(text) => None,
                    None => {
                        self.unknown(at, "limit", text, limits.keys().map(|name| &**name).collect());
                        None
                    }
                }
            } else {
                inline += 1;
                self.inline_limit(at, text, Name::derived(format!("{route}#{inline}"))).map(Arc::new)
            };
            let Some(limit) = limit else { continue };
            if limit.by == LimitKey::Key && !has_auth && written.auth.is_none() {
                let message = format!("a limit by key on route `{route}`, which asks nobody who they are");
                let finding = self.finding(Code::NobodyKnown, at, message);
                self.report(finding.label("add `auth` to the route, or limit by ip"));
            }
            if !chosen.contains(&limit) {
                chosen.push(limit);
            }
        }
        chosen
    }

    /// The texts of a field that is one or a list, with their places.
    pub(super) fn each<'w, F>(&mut self, at: At<'a>, written: Option<&'w OneOrMany<F>>) -> Vec<(At<'a>, &'w str)> {
        match written {
            None => vec![],
            Some(OneOrMany::One(one)) => vec![(at, one.text.as_str())],
            Some(OneOrMany::Many(list)) => self.items(at, list),
        }
    }

    pub(super) fn items<'w, F>(&mut self, at: At<'a>, list: &'w List<Written<F>>) -> Vec<(At<'a>, &'w str)> {
        let mut items = vec![];
        for (i, item) in list.0.iter().enumerate() {
            match item {
                Some(item) => items.push((at.item(i), item.text.as_str())),
                None => self.empty_item(at.item(i)),
            }
        }
        items
    }

    fn base(&mut self) -> Base {
        let at = self.root.key("defaults");
        let written = self.defaults;
        let timeouts_at = at.key("timeouts");
        let timeouts = written.and_then(|written| written.timeouts.as_ref());
        if let Some(timeouts) = timeouts {
            self.duration(timeouts_at, "idle", timeouts.idle.as_ref(), Duration::ZERO..=DAY);
        }
        let written_timeouts = WrittenTimeouts {
            connect: self.deadline(timeouts_at, "connect", timeouts.and_then(|t| t.connect.as_ref())),
            response_header: self.deadline(
                timeouts_at,
                "response_header",
                timeouts.and_then(|t| t.response_header.as_ref()),
            ),
            request: self.deadline(timeouts_at, "request", timeouts.and_then(|t| t.request.as_ref())),
            client_body: self.deadline(timeouts_at, "client_body", timeouts.and_then(|t| t.client_body.as_ref())),
            tunnel: self.deadline(timeouts_at, "tunnel", timeouts.and_then(|t| t.tunnel.as_ref())),
        };
        let plain = Timeouts {
            connect: Duration::from_secs(2),
            response_header: Duration::ZERO,
            request: Duration::from_secs(30),
            client_body: Duration::from_secs(30),
            tunnel: Duration::from_secs(3_600),
        };
        let max_body = written.and_then(|written| written.max_body.as_ref());
        Base {
            timeouts: self.timeouts(timeouts_at, &written_timeouts, &plain),
            retries: self.retries(
                at.key("retries"),
                written.and_then(|written| written.retries.as_ref()),
                &Retries::default(),
            ),
            max_body: self.size(at, "max_body", max_body).unwrap_or(Some(MAX_BODY)),
            request_headers: self.header_rules(
                at.key("request_headers"),
                written.and_then(|written| written.request_headers.as_ref()),
                &PathPattern::ALL,
                None,
            ),
            response_headers: self.header_rules(
                at.key("response_headers"),
                written.and_then(|written| written.response_headers.as_ref()),
                &PathPattern::ALL,
                None,
            ),
        }
    }

    fn deadline(&mut self, at: At<'a>, field: &str, written: Option<&Written<spec::Duration>>) -> Option<Duration> {
        self.duration(at, field, written, Duration::ZERO..=DAY)
    }

    fn route_timeouts(&mut self, at: At<'a>, written: &RouteSpec, base: &Timeouts) -> Timeouts {
        let Some(timeouts) = &written.timeouts else { return base.clone() };
        let written = WrittenTimeouts {
            connect: self.deadline(at, "connect", timeouts.connect.as_ref()),
            response_header: self.deadline(at, "response_header", timeouts.response_header.as_ref()),
            request: self.deadline(at, "request", timeouts.request.as_ref()),
            client_body: self.deadline(at, "client_body", timeouts.client_body.as_ref()),
            tunnel: self.deadline(at, "tunnel", timeouts.tunnel.as_ref()),
        };
        self.timeouts(at, &written, base)
    }

    fn timeouts(&mut self, at: At<'a>, written: &WrittenTimeouts, base: &Timeouts) -> Timeouts {
        let timeouts = Timeouts {
            connect: written.connect.unwrap_or(base.connect),
            response_header: written.response_header.unwrap_or(base.response_header),
            request: written.request.unwrap_or(base.request),
            client_body: written.client_body.unwrap_or(base.client_body),
            tunnel: written.tunnel.unwrap_or(base.tunnel),
        };
        // What a block inherits may be longer than what it writes: `request` bounds all of them. What it writes itself may not.
        for (field, part) in [("connect", written.connect), ("response_header", written.response_header)] {
            let Some(part) = part.filter(|part| *part > timeouts.request && !timeouts.request.is_zero()) else {
                continue;
            };
            let message = format!("{field} ({}) is longer than request ({})", Shown(part), Shown(timeouts.request));
            let finding = self.finding(Code::Contradiction, at.key(field), message);
            self.report(finding.label("the whole exchange ends before it"));
        }
        timeouts
    }

    fn destination(
        &mut self,
        at: At<'a>,
        written: &RouteSpec,
        names: &BTreeSet<Name>,
        route: &Name,
        whose: &str,
    ) -> Option<To> {
        let to_at = at.key("to");
        let backends = match &written.to {
            None => {
                // Both would answer instead, and were found wrong.
                if !at.has("redirect") && !at.has("respond") {
                    self.missing(at, "to", whose, "add to: UPSTREAM, to: HOST:PORT, redirect or respond");
                }
                return None;
            }
            Some(spec::To::Split(sides)) => {
                self.upstreams_own(at);
                return self.sides(to_at, sides, names, whose).map(To::Sides);
            }
            Some(spec::To::One(one)) if Name::parse(&one.text).is_ok() => {
                return self.upstream_named(at, &one.text, names, whose);
            }
            // Its name was refused there.
            Some(spec::To::One(one)) if self.root.key("upstreams").has(&one.text) => return None,
            Some(spec::To::One(one)) => {
                self.plain_backend(to_at, &one.text).map(|one| (one, to_at)).into_iter().collect()
            }
            Some(spec::To::Many(list)) => self.addresses(to_at, list),
        };
        let backends = self.distinct(route, backends);
        let tls = self.upstream_tls(self.root, route, None, &backends, Protocol::default());
        let reached = Reached { backends: &backends, tls: tls.as_ref(), protocol: Protocol::default() };
        let health = self.health(at, whose, written.health.as_ref(), reached);
        self.few_ejected(at, &health, &backends);
        self.no_backups(at, &health, &backends);
        let balance = self.balance(at, route, written.balance.as_ref());
        match backends.is_empty() {
            true => None,
            false => Some(To::Inline(Box::new(self.anonymous_upstream(route.clone(), backends, tls, health, balance)))),
        }
    }

    /// What belongs to an upstream and stands beside its name.
    fn upstreams_own(&mut self, at: At<'a>) {
        let to = at.key("to");
        let (beside, home) = match to.is_block() {
            true => ("weights in `to`".to_owned(), "upstreams.NAME".to_owned()),
            false => (format!("`to: {}`", to.shown()), format!("upstreams.{}", to.shown())),
        };
        for field in ["health", "balance"].into_iter().filter(|field| at.has(field)) {
            let message = format!("`{field}` does not belong beside {beside}");
            let mut finding = self.finding(Code::Misplaced, at.key(field), message);
            finding.span = at.key(field).key_span();
            self.report(finding.label(format!("it goes under {home}")));
        }
    }

    fn upstream_named(&mut self, at: At<'a>, text: &str, names: &BTreeSet<Name>, whose: &str) -> Option<To> {
        self.used.insert(("upstreams", text.to_owned()));
        self.upstreams_own(at);
        let to_at = at.key("to");
        if names.contains(text) {
            return Some(To::Name(Name::derived(text)));
        }
        if self.root.key("upstreams").names(text) {
            return None;
        }
        let message = format!("{whose} sends to `{}`, which is not an upstream", to_at.shown());
        let finding = self.finding(Code::UnknownUpstream, to_at, message);
        let finding = match suggest::nearest(text, names.iter().map(|name| &**name)) {
            Some(near) => {
                let defined = self.root.key("upstreams").key(near).key_span();
                finding.label(format!("did you mean `{near}`?")).fix(near).related(defined, "defined here")
            }
            None if names.is_empty() => finding.label("define it under upstreams; add a port to use it as an address"),
            None => finding
                .label("add a port to use it as an address")
                .note(format!("upstreams: {}", suggest::list(names.iter().map(|name| &**name)))),
        };
        self.report(finding);
        None
    }

    fn addresses(&mut self, at: At<'a>, list: &List<Written<Address>>) -> Vec<(Backend, At<'a>)> {
        if list.0.is_empty() {
            let finding = self.finding(Code::Missing, at, "this route sends to nobody");
            self.report(finding.label("add an address: HOST:PORT"));
        }
        let mut backends = vec![];
        for (at, text) in self.items(at, list) {
            if self.root.key("upstreams").names(text) {
                let finding =
                    self.finding(Code::NotAnAddress, at, format!("`{}` is an upstream, not an address", at.shown()));
                self.report(finding.label("a list holds addresses; one upstream is written without [ ]"));
                continue;
            }
            backends.extend(self.plain_backend(at, text).map(|backend| (backend, at)));
        }
        backends
    }
}

/// Where a route sends.
enum To {
    Inline(Box<Upstream>),
    Name(Name),
    Sides(Vec<Side>),
}
