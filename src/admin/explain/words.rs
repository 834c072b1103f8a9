//! What is said of a route: what it asks for, what happens behind it, why it stands behind another.

use crate::{
    base::duration::Written,
    config::plan::{Action, HostPattern, LimitKey, PathPattern, Plan, RetryOn, Route, Side, Wanted},
    route::{self, Candidate, HostRank, PathRank},
};

/// Its host and path: `api.example.com /orders/*`.
pub(super) fn pattern(route: &Route, host: Option<&HostPattern>) -> String {
    let hosts = match host {
        Some(host) => host.to_string(),
        None => route.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    if hosts.is_empty() { route.path.to_string() } else { format!("{hosts} {}", route.path) }
}

/// Each thing that a route asks for, and how it is compared.
pub(super) fn matched(candidate: &Candidate<'_, &Route>) -> Vec<[String; 3]> {
    let route = candidate.to;
    let host = match candidate.host {
        None => ["any".to_owned(), "no host is asked for".to_owned()],
        Some(host) => [host.to_string(), how_host(candidate.rank.host).to_owned()],
    };
    let path = [route.path.to_string(), how_path(&route.path)];
    let conditions = &route.conditions;
    let methods: Vec<&str> = conditions.methods.iter().map(http::Method::as_str).collect();
    let method = (!methods.is_empty()).then(|| [methods.join(", "), "one of these".to_owned()]);
    let headers = conditions.headers.iter().map(|(name, wanted)| (name.as_str(), wanted)).map(field);
    let query = conditions.query.iter().map(|(name, wanted)| (name.as_str(), wanted)).map(field);
    let named = |what: &str, [value, how]: [String; 2]| [what.to_owned(), value, how];
    [named("host", host), named("path", path)]
        .into_iter()
        .chain(method.map(|method| named("method", method)))
        .chain(headers.map(|header| named("header", header)))
        .chain(query.map(|parameter| named("query", parameter)))
        .collect()
}

fn field((name, wanted): (&str, &Wanted)) -> [String; 2] {
    let how = match wanted {
        Wanted::Pattern(_) => "matches",
        Wanted::Text(_) => "equal",
    };
    [format!("{name}: {wanted}"), how.to_owned()]
}

const fn how_host(rank: HostRank) -> &'static str {
    match rank {
        HostRank::Any => "any",
        HostRank::Wildcard(_) => "wildcard",
        HostRank::Exact => "exact",
    }
}

fn how_path(path: &PathPattern) -> String {
    match path {
        PathPattern::Exact(_) => "exact".to_owned(),
        PathPattern::Prefix(prefix) if prefix.is_empty() => "every path".to_owned(),
        PathPattern::Prefix(prefix) => format!("prefix, {} characters", prefix.chars().count()),
        PathPattern::Template(_) => "template".to_owned(),
        PathPattern::Regex(_) => "regular expression".to_owned(),
    }
}

/// In what a route is less specific than the one that has the request.
pub(super) fn weaker(candidate: &Candidate<'_, &Route>, first: &Candidate<'_, &Route>) -> String {
    let (rank, best) = (&candidate.rank, &first.rank);
    match () {
        () if rank.host != best.host => format!("weaker host ({})", how_host(rank.host)),
        () if rank.path != best.path => match &rank.path {
            PathRank::Regex(..) if matches!(best.path, PathRank::Regex(..)) => "shorter expression".to_owned(),
            _ => format!("weaker path ({})", how_path(&candidate.to.path)),
        },
        () if rank.method != best.method => "asks for no method".to_owned(),
        () if rank.headers != best.headers => format!("asks for fewer header fields ({})", rank.headers),
        () if rank.query != best.query => format!("asks for fewer parameters ({})", rank.query),
        () => "as specific, and behind it by name".to_owned(),
    }
}

/// What happens to a request of the route, in order.
pub(super) fn then(plan: &Plan, route: &Route, path: &str) -> Vec<String> {
    let limits = |of_identity: bool| {
        let meant = route.limits.iter().filter(move |limit| (limit.by == LimitKey::Key) == of_identity);
        meant.map(|limit| format!("limit {} {} by {}", limit.name, limit.rate, key(&limit.by)))
    };
    let auth: Vec<&str> = route.auth.iter().map(|auth| &*auth.name).collect();
    let auth = (!auth.is_empty()).then(|| format!("auth {}", auth.join(" or ")));
    limits(false).chain(auth).chain(limits(true)).chain(leads_to(plan, route, path)).collect()
}

/// Where it leads, with the path as it is there.
fn leads_to(plan: &Plan, route: &Route, path: &str) -> Vec<String> {
    let forward = match &route.action {
        Action::Forward(forward) => forward,
        Action::Redirect(redirect) => return vec![format!("redirect {}", redirect.status.as_u16())],
        Action::Respond(respond) => return vec![format!("respond {}", respond.status.as_u16())],
    };
    let rewritten = forward.rewrite.as_ref().map(|rewrite| match route::rewrite(rewrite, &route.path, path) {
        Ok(path) => format!("rewrite to {path}"),
        Err(why) => format!("rewrite, which is refused: {why}"),
    });
    let side = |side: &Side| {
        let weight = if forward.sides.len() > 1 { format!(", weight {}", side.weight) } else { String::new() };
        let balance = plan.upstreams.get(&side.upstream).map(|upstream| upstream.balance.to_string());
        format!("upstream {} ({}{weight})", side.upstream, balance.unwrap_or_default())
    };
    let mirror = forward.mirror.as_ref().map(|mirror| format!("copies to {}", mirror.to));
    rewritten.into_iter().chain(forward.sides.iter().map(side)).chain(mirror).collect()
}

fn key(key: &LimitKey) -> String {
    match key {
        LimitKey::Global => "everybody".to_owned(),
        LimitKey::Header(name) => format!("header {name}"),
        LimitKey::Ip => "ip".to_owned(),
        LimitKey::Key => "key".to_owned(),
    }
}

/// How long it may take, and what may be tried again.
pub(super) fn within(route: &Route) -> Option<String> {
    route.action.forward()?;
    let limit = route.timeouts.request;
    let time = if limit.is_zero() { "without a deadline".to_owned() } else { format!("within {}", Written(limit)) };
    let retries = &route.retries;
    let word = |when: &RetryOn| match when {
        RetryOn::Connect => "connect".to_owned(),
        RetryOn::Reset => "reset".to_owned(),
        RetryOn::Timeout => "timeout".to_owned(),
    };
    let statuses = retries.status.iter().map(ToString::to_string);
    let calls = retries.grpc.iter().map(|status| format!("gRPC {status}"));
    let when: Vec<String> = retries.when.iter().map(word).chain(statuses).chain(calls).collect();
    if retries.attempts == 0 || when.is_empty() {
        return Some(format!("{time}, no retries"));
    }
    let plural = if retries.attempts == 1 { "y" } else { "ies" };
    Some(format!("{time}, up to {} retr{plural} on {}", retries.attempts, when.join(", ")))
}
