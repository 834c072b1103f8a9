//! What a route leads to, and what is changed on the way there.

use std::{collections::BTreeSet, net::Ipv6Addr, ops::Range, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{Check, address::is_dns_name, pattern::normalise};
use crate::{
    base::{Name, Percent, Size},
    config::{
        diagnostics::Code,
        plan::{
            Action, Fact, FieldValue, Forward, HeaderRules, Mirror, PathPattern, Redirect, Regex, Respond, Rewrite,
            Segment, Side, SplitKey, Text, TextError, WhenDown,
        },
        spec::{
            Any, Count, HeadersSpec, MirrorSpec, Named, RedirectSpec, RespondSpec, RewriteRegexSpec, RewriteSpec,
            RouteSpec, SplitSpec, Written,
        },
        suggest,
        yaml::At,
    },
};

const LARGEST_BODY: usize = 64 << 10;
const LARGEST_WEIGHT: u32 = 1_000_000;

/// Fields that mean something only where there is an upstream.
const OF_A_WAY: [&str; 11] = [
    "to",
    "health",
    "balance",
    "split",
    "mirror",
    "rewrite",
    "request_headers",
    "retries",
    "compress",
    "upgrades",
    "critical",
];

impl<'a> Check<'a> {
    /// What the gateway answers itself, where the route says so.
    pub(super) fn own_answer(&mut self, at: At<'a>, written: &RouteSpec, path: &PathPattern) -> Option<Action> {
        let (field, action) = match (&written.redirect, &written.respond) {
            (Some(redirect), _) => ("redirect", Action::Redirect(self.redirect(at.key("redirect"), redirect, path))),
            (None, Some(respond)) => ("respond", Action::Respond(self.respond(at.key("respond"), respond))),
            (None, None) => return None,
        };
        let also = if field == "redirect" { Some("respond") } else { None };
        for other in OF_A_WAY.into_iter().chain(also).filter(|other| at.has(other)) {
            let (code, label) = match other {
                "to" | "respond" => (Code::Contradiction, "a route leads to one thing: delete one of them"),
                _ => (Code::Misplaced, "it is for routes that lead to an upstream: delete it"),
            };
            let mut finding = self.finding(code, at.key(other), format!("`{other}` beside `{field}`"));
            finding.span = at.key(other).key_span();
            self.report(finding.label(label));
        }
        Some(action)
    }

    fn respond(&mut self, at: At<'a>, written: &RespondSpec) -> Respond {
        let status =
            written.status.as_ref().and_then(|text| self.number(at.key("status"), "status", &text.text, 200..=599));
        let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
        let status = status.unwrap_or(StatusCode::OK);
        let body = written.body.as_ref().map_or("", |body| body.text.as_str());
        let label = if body.len() > LARGEST_BODY {
            Some((Code::OutOfRange, "`body` is above 64 KiB".to_owned(), "serve it from a backend"))
        } else if !body.is_empty() && [204, 205, 304].contains(&status.as_u16()) {
            let message = format!("a `body` beside status {}, which has none", status.as_u16());
            Some((Code::Contradiction, message, "delete one of them"))
        } else {
            None
        };
        if let Some((code, message, label)) = label {
            let finding = self.finding(code, at.key("body"), message);
            self.report(finding.label(label));
        }
        let content_type = written.content_type.as_ref().and_then(|value| {
            let at = at.key("content_type");
            self.field_value(at, &value.text)
        });
        let plain = (!body.is_empty()).then(|| HeaderValue::from_static("text/plain; charset=utf-8"));
        Respond { status, body: body.to_owned(), content_type: content_type.or(plain) }
    }

    fn redirect(&mut self, at: At<'a>, written: &RedirectSpec, path: &PathPattern) -> Redirect {
        let statuses = [301, 302, 303, 307, 308].map(|status| (status.to_string(), status));
        let statuses: Vec<(&str, u16)> = statuses.iter().map(|(text, status)| (text.as_str(), *status)).collect();
        let status = self.choice(at, "status", written.status.as_ref(), "a status of a redirect", &statuses);
        let schemes = [("http", "http"), ("https", "https")];
        let port = self.count(at, "port", written.port.as_ref(), 1..=65_535);
        let mut redirect = Redirect {
            status: status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::FOUND),
            scheme: self.choice(at, "scheme", written.scheme.as_ref(), "a scheme of HTTP", &schemes),
            host: written.host.as_ref().and_then(|host| self.redirect_host(at.key("host"), &host.text)),
            port: port.and_then(|port| u16::try_from(port).ok()),
            path: None,
            query: None,
        };
        let parts = ["scheme", "host", "port", "path", "replace_prefix"];
        let parts: Vec<&str> = parts.into_iter().filter(|part| at.has(part)).collect();
        match (&written.to, parts.as_slice()) {
            (None, []) if !self.has_stray_field(at) => {
                let finding = self.finding(Code::Missing, at, "this redirect leads to the same URL");
                self.report(finding.label("add to: URL, or the parts of it that are to be others"));
            }
            (Some(to), []) => self.redirect_to(at.key("to"), &to.text, path, &mut redirect),
            (Some(_), [part, ..]) => {
                let finding = self.finding(Code::Contradiction, at.key(part), format!("`{part}` beside `to`"));
                self.report(finding.label("write it into `to`, or delete `to`"));
            }
            (None, _) => {}
        }
        if let (Some(_), Some(_)) = (&written.path, &written.replace_prefix) {
            let finding = self.finding(Code::Contradiction, at.key("path"), "`path` beside `replace_prefix`");
            self.report(finding.label("delete one of them"));
        }
        if let Some(new) = &written.path {
            redirect.path = self.new_path(at.key("path"), &new.text, &path.captures()).map(Rewrite::Path);
        }
        if let Some(with) = &written.replace_prefix {
            redirect.path = self.replaced_prefix(at.key("replace_prefix"), &with.text, path);
        }
        redirect
    }

    fn redirect_host(&mut self, at: At<'a>, text: &str) -> Option<String> {
        let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let is_ip = inside.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        if is_ip || is_dns_name(text) {
            return Some(text.to_ascii_lowercase());
        }
        let finding = self.finding(Code::Invalid, at, format!("`{}` is not a host to send clients to", at.shown()));
        // What a client has sent may not decide where others are sent.
        self.report(finding.label("write a host like api.example.com, without a port; it has no captures"));
        None
    }

    /// `/orders/{id}?a=b` or `https://api.example.com/orders`.
    fn redirect_to(&mut self, at: At<'a>, text: &str, path: &PathPattern, redirect: &mut Redirect) {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some("http"), rest),
            Some(("https", rest)) => (Some("https"), rest),
            _ if text.starts_with('/') && !text.starts_with("//") => (None, text),
            _ => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` is not where a client can go", at.shown()));
                self.report(finding.label("write a path like /orders, or a URL like https://api.example.com/orders"));
                return;
            }
        };
        redirect.scheme = scheme;
        let (authority, rest) = match scheme {
            None => ("", rest),
            Some(_) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        };
        if scheme.is_some() {
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host, Some(port)),
                _ => (authority, None),
            };
            redirect.host = self.redirect_host(at, host);
            let number = port.map(|port| port.parse().ok().filter(|port| *port > 0));
            if number == Some(None) {
                let finding = self.finding(Code::Invalid, at, format!("`{}` has no port behind its `:`", at.shown()));
                self.report(finding.label("write one from 1 to 65535, or none"));
            }
            redirect.port = number.flatten();
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
        if let Some(query) = query.filter(|query| !query.bytes().all(is_plain)) {
            let finding = self.finding(Code::Invalid, at, format!("`?{query}` is not a query to send clients to"));
            self.report(finding.label("write it escaped, without a fragment; it has no captures"));
        }
        redirect.query = query.map(str::to_owned);
        let rest = if rest.is_empty() { "/" } else { rest };
        redirect.path = self.new_path(at, rest, &path.captures()).map(Rewrite::Path);
    }

    /// The path that backends see.
    pub(super) fn rewrite(&mut self, at: At<'a>, written: &RewriteSpec, path: &PathPattern) -> Option<Rewrite> {
        let fields = ["strip_prefix", "replace_prefix", "path", "regex"];
        let given: Vec<&str> = fields.into_iter().filter(|field| at.has(field)).collect();
        if let [_, second, ..] = given.as_slice() {
            let finding = self.finding(Code::Contradiction, at.key(second), "a path is rewritten in one way");
            self.report(finding.label("delete all but one").note(format!("given: {}", given.join(", "))));
        }
        if given.is_empty() && !self.has_stray_field(at) {
            let finding = self.finding(Code::Missing, at, "`rewrite` says no new path");
            self.report(finding.label("add strip_prefix, replace_prefix, path or regex"));
        }
        let RewriteSpec { strip_prefix, replace_prefix, path: whole, regex } = written;
        match (strip_prefix, replace_prefix, whole, regex) {
            (Some(prefix), ..) => self.stripped_prefix(at.key("strip_prefix"), &prefix.text, path),
            (_, Some(with), ..) => self.replaced_prefix(at.key("replace_prefix"), &with.text, path),
            (_, _, Some(whole), _) => self.new_path(at.key("path"), &whole.text, &path.captures()).map(Rewrite::Path),
            (_, _, _, Some(regex)) => self.rewrite_regex(at.key("regex"), regex),
            (None, None, None, None) => None,
        }
    }

    fn stripped_prefix(&mut self, at: At<'a>, text: &str, path: &PathPattern) -> Option<Rewrite> {
        let normal = match text.starts_with('/') {
            true => normalise(text.strip_suffix('/').filter(|text| !text.is_empty()).unwrap_or(text)),
            false => Err(format!("write /{text}")),
        };
        let prefix = match normal {
            Ok(prefix) if prefix != "/" => prefix,
            Ok(_) => {
                let finding = self.finding(Code::Invalid, at, "nothing is taken off by `/`");
                self.report(finding.label("write the prefix, like /orders"));
                return None;
            }
            Err(label) => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` is not a prefix of paths", at.shown()));
                self.report(finding.label(label));
                return None;
            }
        };
        if !may_begin_with(path, &prefix) {
            let message = format!("no path of this route begins with `{prefix}`");
            let finding = self.finding(Code::Contradiction, at, message);
            self.report(finding.label(format!("its path is {path}")));
        }
        Some(Rewrite::Strip(prefix))
    }

    fn replaced_prefix(&mut self, at: At<'a>, text: &str, path: &PathPattern) -> Option<Rewrite> {
        let segments = match path {
            PathPattern::Prefix(prefix) => prefix.split('/').count() - 1,
            PathPattern::Template(template) if template.is_prefix => template.segments.len(),
            PathPattern::Exact(_) | PathPattern::Template(_) | PathPattern::Regex(_) => {
                let finding = self.finding(Code::Contradiction, at, "the route names no prefix that could be replaced");
                self.report(finding.label("write `path` for a whole new path, or end the route's path in /*"));
                return None;
            }
        };
        let with = self.new_path(at, if text.is_empty() { "/" } else { text }, &path.captures())?;
        Some(Rewrite::Prefix { segments, with })
    }

    fn rewrite_regex(&mut self, at: At<'a>, written: &RewriteRegexSpec) -> Option<Rewrite> {
        self.missing(at, "match", "`regex`", "add the expression");
        self.missing(at, "to", "`regex`", "add what stands there instead");
        let (expression, to) = (written.r#match.as_ref()?, written.to.as_ref()?);
        let regex = match Regex::parse(&expression.text) {
            Ok(regex) if regex.0.is_match("") => {
                Err("it matches nothing at all, too: write what is to be replaced".to_owned())
            }
            parsed => parsed,
        };
        let regex = match regex {
            Ok(regex) => regex,
            Err(why) => {
                let at = at.key("match");
                let message = format!("`{}` is not an expression to replace", at.shown());
                let finding = self.finding(Code::Invalid, at, message);
                self.report(match at.is_expanded() {
                    true => finding,
                    false => finding.label(why),
                });
                return None;
            }
        };
        let with = self.text(at.key("to"), &to.text, &regex.captures(), false)?;
        Some(Rewrite::Regex { regex, with })
    }

    /// `/x/{id}`, a path once its gaps are filled.
    fn new_path(&mut self, at: At<'a>, text: &str, captures: &[&str]) -> Option<Text> {
        let new = self.text(at, text, captures, false)?;
        // As if each capture were one letter.
        let path = new.filled(|out, _| out.push('x'));
        let label = match path.starts_with('/') {
            true => normalise(&path).err(),
            false => Some("a path starts with /".to_owned()),
        };
        if let Some(label) = label {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a path", at.shown()));
            self.report(finding.label(label));
            return None;
        }
        Some(new)
    }

    /// A text with gaps.
    fn text(&mut self, at: At<'a>, text: &str, captures: &[&str], has_facts: bool) -> Option<Text> {
        let finding = match Text::parse(text, captures, has_facts) {
            Ok(text) => return Some(text),
            Err(TextError::Brace) => self
                .finding(Code::Invalid, at, format!("a brace stands alone in `{}`", at.shown()))
                .label("write a {name}, or the brace twice"),
            Err(TextError::Unknown(name)) => {
                let facts = Fact::NAMED.iter().map(|(name, _)| *name).filter(|_| has_facts);
                let known: Vec<&str> = captures.iter().copied().chain(facts).collect();
                let finding = self.finding(Code::UnknownName, at, format!("nothing is called {{{name}}} here"));
                let finding = match suggest::nearest(&name, known.iter().copied()) {
                    Some(near) => finding.label(format!("did you mean {{{near}}}?")),
                    None if captures.is_empty() => finding.label("the path captures nothing: write {name} into it"),
                    None => finding,
                };
                let list = if known.is_empty() { "nothing".to_owned() } else { suggest::list(known) };
                finding.note(format!("known: {list}"))
            }
        };
        self.report(finding);
        None
    }

    /// Changes of a head.
    pub(super) fn header_rules(
        &mut self,
        at: At<'a>,
        written: Option<&HeadersSpec>,
        path: &PathPattern,
        base: Option<&HeaderRules>,
    ) -> Option<HeaderRules> {
        let Some(written) = written else { return base.cloned() };
        let captures = path.captures();
        let mut named = BTreeSet::new();
        let mut remove: Vec<HeaderName> = vec![];
        for (at, text) in self.each(at.key("remove"), written.remove.as_ref()) {
            let span = at.span();
            remove.extend(self.changed_field(at, span, text, &mut named));
        }
        let set = self.field_rules(at.key("set"), written.set.as_ref(), &captures, &mut named);
        let add = self.field_rules(at.key("add"), written.add.as_ref(), &captures, &mut named);
        remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let rules = HeaderRules { remove, set, add };
        if rules.is_empty() && at.keys().is_empty() {
            let finding = self.finding(Code::Missing, at, "no field is changed");
            self.report(finding.label("add set, add or remove"));
        }
        let rules = base.map_or(rules.clone(), |base| rules.over(base));
        (!rules.is_empty()).then_some(rules)
    }

    fn field_rules(
        &mut self,
        at: At<'a>,
        written: Option<&Named<Written<Any>>>,
        captures: &[&str],
        named: &mut BTreeSet<String>,
    ) -> Vec<(HeaderName, FieldValue)> {
        let mut rules = vec![];
        for (name, value) in written.into_iter().flat_map(|all| &all.0) {
            let at = at.key(name);
            let name = self.changed_field(at, at.key_span(), name, named);
            let value = self.text(at, &value.text, captures, true).and_then(|text| match text.literal() {
                Some(literal) => self.field_value(at, literal).map(FieldValue::Fixed),
                None => {
                    let sample = text.filled(|out, _| out.push('x'));
                    self.field_value(at, &sample).map(|_| FieldValue::Filled(text))
                }
            });
            rules.extend(name.zip(value));
        }
        rules.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        rules
    }

    fn field_value(&mut self, at: At<'a>, text: &str) -> Option<HeaderValue> {
        let value = HeaderValue::from_str(text).ok().filter(|_| text.trim() == text);
        if value.is_none() {
            let finding = self.finding(Code::Invalid, at, format!("`{}` is not a value of a field", at.shown()));
            self.report(finding.label("a value is one line of ASCII, without spaces around it"));
        }
        value
    }

    /// A field that may be changed, and that nothing else here changes.
    fn changed_field(
        &mut self,
        at: At<'a>,
        span: Range<usize>,
        text: &str,
        named: &mut BTreeSet<String>,
    ) -> Option<HeaderName> {
        let wrong = match HeaderName::from_bytes(text.as_bytes()) {
            Err(_) => Some((Code::Invalid, "is not the name of a field", "a name is made of letters, digits and -")),
            Ok(name) if name == header::HOST => {
                Some((Code::Misplaced, "is not changed here", "an upstream has a field `host` for it"))
            }
            Ok(name) if name == "x-request-id" => {
                Some((Code::Invalid, "cannot be changed", "it is the request's id in the access log, too"))
            }
            Ok(name) if is_of_a_connection(name.as_str()) => Some((
                Code::Invalid,
                "cannot be changed",
                "it frames a message, or concerns one connection alone: the gateway writes it",
            )),
            Ok(name) if !named.insert(name.as_str().to_owned()) => {
                Some((Code::Contradiction, "is changed twice", "case does not matter: delete one of them"))
            }
            Ok(name) => return Some(name),
        };
        if let Some((code, what, label)) = wrong {
            let shown = if text.is_empty() { at.shown() } else { text.to_owned() };
            let mut finding = self.finding(code, at, format!("`{shown}` {what}"));
            finding.span = span;
            self.report(finding.label(label));
        }
        None
    }

    /// `{ orders: 95, orders-v2: 5 }`
    pub(super) fn sides(
        &mut self,
        at: At<'a>,
        written: &Named<Written<Count>>,
        names: &BTreeSet<Name>,
        whose: &str,
    ) -> Option<Vec<Side>> {
        let mut sides = vec![];
        for (name, weight) in &written.0 {
            let at = at.key(name);
            let weight = self.number(at, name, &weight.text, 0..=LARGEST_WEIGHT);
            let is_known = self.is_upstream(at, at.key_span(), name, names, whose);
            sides.extend(
                weight.filter(|_| is_known).map(|weight| Side { upstream: Name::derived(name.as_str()), weight }),
            );
        }
        if sides.len() < written.0.len() {
            return None;
        }
        if sides.iter().all(|side| side.weight == 0) {
            let finding = self.finding(Code::Missing, at, format!("{whose} sends to nobody"));
            self.report(finding.label("give an upstream a weight above 0"));
            return None;
        }
        Some(sides)
    }

    fn is_upstream(&mut self, at: At<'a>, span: Range<usize>, name: &str, names: &BTreeSet<Name>, whose: &str) -> bool {
        self.used.insert(("upstreams", name.to_owned()));
        if names.contains(name) {
            return true;
        }
        if !self.root.key("upstreams").names(name) {
            let message = format!("{whose} sends to `{name}`, which is not an upstream");
            let mut finding = self.finding(Code::UnknownUpstream, at, message);
            finding.span = span;
            let all = || names.iter().map(|name| &**name);
            let finding = match suggest::nearest(name, all()) {
                Some(near) => finding.label(format!("did you mean `{near}`?")).fix(near),
                None if names.is_empty() => finding.label("define it under upstreams"),
                None => finding.note(format!("upstreams: {}", suggest::list(all()))),
            };
            self.report(finding);
        }
        false
    }

    /// How requests are divided over the sides of a way.
    pub(super) fn split(&mut self, route: At<'a>, written: &SplitSpec, forward: &mut Forward) {
        let at = route.key("split");
        if !route.key("to").is_block() {
            let mut finding = self.finding(Code::Misplaced, at, "`split` beside a `to` without weights");
            finding.span = at.key_span();
            self.report(finding.label("write to: { UPSTREAM: 95, OTHER: 5 }, or delete it"));
        }
        let choices = [("stay", WhenDown::Stay), ("other", WhenDown::Other)];
        let when_down = self.choice(at, "when_down", written.when_down.as_ref(), "a way out", &choices);
        forward.when_down = when_down.unwrap_or(WhenDown::Stay);
        forward.sticky = written.sticky.as_ref().and_then(|sticky| self.split_key(at.key("sticky"), &sticky.text));
    }

    /// Where copies go.
    pub(super) fn mirror(
        &mut self,
        at: At<'a>,
        written: &MirrorSpec,
        forward: &Forward,
        names: &BTreeSet<Name>,
    ) -> Option<Mirror> {
        let share = self.percent(at, "share", written.share.as_ref(), Percent::whole(100));
        let max_body = self.bytes(at, "max_body", written.max_body.as_ref(), 0..=1 << 20);
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(3_600));
        let timeout = self.duration(at, "timeout", written.timeout.as_ref(), shortest..=longest);
        let max_in_flight = self.count(at, "max_in_flight", written.max_in_flight.as_ref(), 1..=100_000);
        self.missing(at, "to", "`mirror`", "add to: UPSTREAM");
        let to = &written.to.as_ref()?.text;
        let at = at.key("to");
        if !self.is_upstream(at, at.span(), to, names, "`mirror`") {
            return None;
        }
        if forward.sides.iter().any(|side| *side.upstream == **to) {
            let finding = self.finding(Code::Contradiction, at, format!("`{to}` gets the requests themselves"));
            self.report(finding.label("copies go to another upstream"));
        }
        Some(Mirror {
            to: Name::derived(to.as_str()),
            share: share.unwrap_or(Percent::whole(100)),
            max_body: Size(max_body.map_or(64 << 10, u64::from)),
            timeout: timeout.unwrap_or(Duration::from_secs(5)),
            max_in_flight: max_in_flight.unwrap_or(100),
        })
    }

    fn split_key(&mut self, at: At<'a>, text: &str) -> Option<SplitKey> {
        if let Some(name) = text.strip_prefix("header ") {
            return self.header(at, name.trim()).map(SplitKey::Header);
        }
        let cookie = text.strip_prefix("cookie ").map(str::trim);
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if let Some(name) = cookie.filter(|name| !name.is_empty() && name.bytes().all(is_token)) {
            return Some(SplitKey::Cookie(name.to_owned()));
        }
        let finding = self.finding(Code::NotAChoice, at, format!("requests cannot be told apart by `{}`", at.shown()));
        self.report(finding.note("choices: header NAME, cookie NAME"));
        None
    }
}

/// Whether a path that the pattern matches may begin with these segments.
fn may_begin_with(path: &PathPattern, prefix: &str) -> bool {
    let (segments, goes_on): (Vec<Option<&str>>, bool) = match path {
        PathPattern::Exact(path) => (path.split('/').skip(1).map(Some).collect(), false),
        PathPattern::Prefix(path) => (path.split('/').skip(1).map(Some).collect(), true),
        PathPattern::Template(template) => {
            let texts = template.segments.iter().map(|segment| match segment {
                Segment::Capture(_) => None,
                Segment::Literal(literal) => Some(literal.as_str()),
            });
            (texts.collect(), template.is_prefix)
        }
        PathPattern::Regex(_) => return true,
    };
    let mut own = segments.into_iter();
    prefix.split('/').skip(1).all(|wanted| own.next().map_or(goes_on, |own| own.is_none_or(|own| own == wanted)))
}

/// Whether a field frames a message, or concerns the one connection that it is sent on (RFC 9110, section 7.6.1).
fn is_of_a_connection(name: &str) -> bool {
    matches!(
        name,
        "connection" | "content-length" | "expect" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    ) || name.starts_with("proxy-")
}
