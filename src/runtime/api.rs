//! An API, running: what its responses say of its life, and who still calls it.
//!
//! Built with the snapshot, fields and all, so that a request compares its time with two dates, looks its consumer up in a sorted
//! table and counts. Nobody flips a stage: it is what the dates say at that moment. Counters outlive the snapshot (the registry).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::HeaderValue;

use crate::{
    base::{Name, Timestamp},
    config::plan::{self, AuthMethod, PathPattern, Plan, Stage, Successor},
    layers::Identity,
    telemetry::{
        WorkerId,
        metrics::{CallerMetrics, TokenCounter},
    },
};

/// Who sends requests that no auth knows the sender of.
const ANONYMOUS: &str = "anonymous";

/// An API, running.
#[derive(Debug)]
pub struct Api {
    /// What it was built from.
    pub plan: Arc<plan::Api>,
    /// `Deprecation`, where it has that date.
    pub deprecation: Option<HeaderValue>,
    /// `Sunset`, where it has that date.
    pub sunset: Option<HeaderValue>,
    /// `Link`, where there is something to point at.
    pub links: Option<HeaderValue>,
    /// What a client is told once it is retired.
    pub farewell: Box<str>,
    counts: ApiCounts,
}

/// What is counted of an API. The same objects as long as it has its name and version, and each caller its name.
#[derive(Clone, Debug)]
pub(super) struct ApiCounts {
    by_stage: Arc<TokenCounter>,
    // Sorted by name; `anonymous` is one of them.
    callers: Arc<[(Name, Arc<CallerMetrics>)]>,
}

impl Api {
    pub(super) fn new(plan: &Arc<plan::Api>, whole: &Plan, counts: ApiCounts) -> Self {
        let successor = plan.successor.as_ref().map(|successor| Pointer::to(successor, whole));
        let value = |text: String| HeaderValue::try_from(text).ok();
        Self {
            deprecation: plan.deprecated.and_then(|date| value(format!("@{}", date.as_seconds()))),
            sunset: plan.sunset.and_then(|date| value(date.http_date())),
            links: links(plan, successor.as_ref().and_then(|pointer| pointer.target.as_deref())).and_then(value),
            farewell: farewell(plan, successor.as_ref()).into(),
            plan: Arc::clone(plan),
            counts,
        }
    }

    /// Counts a request, and says which stage it finds the API in.
    pub fn called(&self, worker: WorkerId, now: Timestamp, by: Option<&Identity>) -> Stage {
        let stage = self.plan.stage_at(now);
        self.counts.by_stage.record(worker, stage.index());
        let place = |name: &str| self.counts.callers.binary_search_by(|(known, _)| known.as_str().cmp(name));
        let known = by.and_then(|identity| place(&identity.consumer).ok());
        let caller = known.or_else(|| place(ANONYMOUS).ok()).and_then(|place| self.counts.callers.get(place));
        if let Some((_, caller)) = caller {
            caller.record(worker, now);
        }
        stage
    }

    /// Requests by the stage that they found it in, in the order of stages.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.by_stage.sums()
    }

    /// Who has called it, in the order of names.
    pub fn callers(&self) -> impl Iterator<Item = Caller<'_>> {
        self.counts.callers.iter().enumerate().filter_map(|(place, (name, caller))| {
            let (requests, last_seen) = caller.seen()?;
            Some(Caller { name, place, requests, last_seen })
        })
    }
}

/// Somebody who has called an API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caller<'a> {
    /// The consumer or user, or `anonymous`.
    pub name: &'a Name,
    /// Its place among all that could call, sorted by name.
    pub place: usize,
    /// Requests that were admitted.
    pub requests: u64,
    /// When the last one came.
    pub last_seen: Timestamp,
}

impl ApiCounts {
    /// Those of an API of this plan: what `old` knows of it stays.
    pub(super) fn of(api: &plan::Api, plan: &Plan, old: Option<&Self>, workers: usize) -> Self {
        let names = consumers(api, plan);
        let known: BTreeMap<&Name, &Arc<CallerMetrics>> =
            old.iter().flat_map(|old| old.callers.iter()).map(|(name, caller)| (name, caller)).collect();
        let caller = |name: Name| {
            let kept = known.get(&name).map(|caller| Arc::clone(caller));
            let caller = kept.unwrap_or_else(|| Arc::new(CallerMetrics::new(workers)));
            (name, caller)
        };
        let fresh = || Arc::new(TokenCounter::new(workers, &Stage::WORDS));
        Self {
            by_stage: old.map_or_else(fresh, |old| Arc::clone(&old.by_stage)),
            callers: names.into_iter().map(caller).collect(),
        }
    }
}

/// Everybody whom the auths of its routes know by name, and `anonymous`.
fn consumers(api: &plan::Api, plan: &Plan) -> BTreeSet<Name> {
    let routes = plan.routes.values().filter(|route| route.api.as_ref() == Some(&api.name));
    let mut auths: Vec<_> = routes.flat_map(|route| &route.auth).collect();
    // Many routes may share one that knows many.
    auths.sort_by_key(|auth| Arc::as_ptr(auth));
    auths.dedup_by_key(|auth| Arc::as_ptr(auth));
    let mut names = BTreeSet::from([Name::derived(ANONYMOUS)]);
    for auth in auths {
        match &auth.method {
            AuthMethod::ApiKey(keys) => names.extend(keys.consumers.iter().map(|consumer| consumer.name.clone())),
            AuthMethod::Basic(users) => names.extend(users.users.iter().map(|user| user.name.clone())),
        }
    }
    names
}

/// A successor as clients are told of it.
struct Pointer {
    // In a sentence.
    words: String,
    // A URL or a path, where one is known.
    target: Option<String>,
}

impl Pointer {
    fn to(successor: &Successor, plan: &Plan) -> Self {
        match successor {
            Successor::Target(target) => Self { words: target.clone(), target: Some(target.clone()) },
            Successor::Api(name) => {
                let version = plan.apis.get(name).map(|api| format!(", version {}", api.version)).unwrap_or_default();
                let target = target(name, plan);
                let place = target.as_ref().map(|target| format!(", at {target}")).unwrap_or_default();
                Self { words: format!("{name}{version}{place}"), target }
            }
        }
    }
}

/// Where an API begins: the path of the first of its routes that has one to point at.
fn target(api: &Name, plan: &Plan) -> Option<String> {
    let routes = plan.routes.values().filter(|route| route.api.as_ref() == Some(api));
    let mut targets = routes.filter_map(|route| {
        let path = match &route.path {
            PathPattern::Exact(path) | PathPattern::Prefix(path) if path.starts_with('/') => path.as_str(),
            PathPattern::Prefix(_) => "/",
            _ => return None,
        };
        // What a URL has in it only escaped would end it, or the field.
        let path =
            Some(path).filter(|path| path.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte)))?;
        match route.hosts.as_slice() {
            [] => Some(path.to_owned()),
            [plan::HostPattern::Exact(host), ..] => Some(format!("//{host}{path}")),
            _ => None,
        }
    });
    targets.next()
}

fn links(plan: &plan::Api, successor: Option<&str>) -> Option<String> {
    let is_leaving = plan.deprecated.is_some() || plan.stage >= Stage::Deprecated;
    let page = |relation: &str| plan.link.as_ref().map(|link| format!("<{link}>; rel=\"{relation}\""));
    // RFC 9745, section 3; RFC 8594, section 6; RFC 5829, section 3.2.
    let links = [
        page("deprecation").filter(|_| is_leaving),
        page("sunset").filter(|_| plan.sunset.is_some()),
        successor.map(|target| format!("<{target}>; rel=\"successor-version\"")),
    ];
    let links: Vec<String> = links.into_iter().flatten().collect();
    (!links.is_empty()).then(|| links.join(", "))
}

fn farewell(plan: &plan::Api, successor: Option<&Pointer>) -> String {
    let gone = format!("This API, {} version {}, is retired.", plan.name, plan.version);
    let next = successor.map(|pointer| format!(" Use {} instead.", pointer.words));
    let more = plan.link.as_ref().map(|link| format!(" See {link}"));
    [Some(gone), next, more].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Source};

    const W: WorkerId = WorkerId(0);

    fn load(yaml: &str) -> Arc<Plan> {
        let source = Source { path: "t.yaml".into(), text: format!("listen: 8080\n{yaml}") };
        config::load(&source, &|_| None).unwrap_or_else(|r| panic!("{}", r.text(config::Style::Plain))).plan
    }

    fn api(plan: &Plan, old: Option<&ApiCounts>) -> Api {
        let api = &plan.apis["orders-v1"];
        Api::new(api, plan, ApiCounts::of(api, plan, old, 1))
    }

    fn fields(api: &Api) -> [Option<&str>; 3] {
        [&api.deprecation, &api.sunset, &api.links].map(|value| value.as_ref().map(|value| value.to_str().unwrap()))
    }

    const ROUTES: &str = "routes:
  - { path: /v1/*, to: 127.0.0.1:9001, health: none, api: orders-v1 }
  - { host: api.example.com, path: /v2/orders/*, to: 127.0.0.1:9001, health: none, api: orders-v2 }
";

    #[test]
    fn fields_are_those_of_the_rfcs() {
        // The dates of the examples in RFC 9745, section 2.1, and RFC 8594, section 3.
        let plan = load(&format!(
            "apis:
  orders-v1: {{ version: 1, deprecated: 2023-06-30T23:59:59Z, sunset: 2024-12-31T23:59:59Z, link: \"https://docs.example.com/migrate?a=1#v2\", successor: orders-v2 }}
  orders-v2: {{ version: 2 }}
{ROUTES}"
        ));
        let api = api(&plan, None);
        assert_eq!(
            fields(&api),
            [
                Some("@1688169599"),
                Some("Tue, 31 Dec 2024 23:59:59 GMT"),
                Some(
                    "<https://docs.example.com/migrate?a=1#v2>; rel=\"deprecation\", \
                     <https://docs.example.com/migrate?a=1#v2>; rel=\"sunset\", \
                     <//api.example.com/v2/orders>; rel=\"successor-version\""
                )
            ]
        );
        assert_eq!(
            &*api.farewell,
            "This API, orders-v1 version 1, is retired. Use orders-v2, version 2, at \
             //api.example.com/v2/orders instead. See https://docs.example.com/migrate?a=1#v2"
        );
    }

    #[test]
    fn a_stable_api_says_nothing_but_where_its_successor_is() {
        let plan = load(&format!(
            "apis: {{ orders-v1: {{ version: 1, link: \"https://d.example\", successor: /v2 }}, orders-v2: {{ version: 2 }} }}\n{ROUTES}"
        ));
        assert_eq!(fields(&api(&plan, None)), [None, None, Some("</v2>; rel=\"successor-version\"")]);
    }

    #[test]
    fn who_calls_is_known_by_name_and_stays_known() {
        let key = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let other = "sha256:2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea";
        let with = |keys: &str| {
            load(&format!(
                "apis: {{ orders-v1: {{ version: 1, stage: beta }} }}
auth: {{ partners: {{ api_key: {{ header: x-api-key, keys: {{ {keys} }} }} }} }}
routes: [{{ path: /*, to: 127.0.0.1:9001, health: none, api: orders-v1, auth: partners }}]
"
            ))
        };
        let by = |consumer: &str| Identity { consumer: Name::derived(consumer), auth: Name::derived("partners") };
        let at = Timestamp::from_micros;
        let before = api(&with(&format!("acme: \"{key}\"")), None);
        before.called(W, at(1), Some(&by("acme")));
        before.called(W, at(2), None);
        before.called(W, at(3), Some(&by("umbra")));
        let seen = |api: &Api| {
            let seen = api.callers().map(|caller| (caller.name.to_string(), caller.requests, caller.last_seen));
            seen.collect::<Vec<_>>()
        };
        assert_eq!(seen(&before), [("acme".to_owned(), 1, at(1)), ("anonymous".to_owned(), 2, at(3))]);

        let after = api(&with(&format!("acme: \"{key}\", umbra: \"{other}\"")), Some(&before.counts));
        assert_eq!(after.called(W, at(4), Some(&by("umbra"))), Stage::Beta);
        after.called(W, at(5), Some(&by("acme")));
        let expected = [("acme", 2, at(5)), ("anonymous", 2, at(3)), ("umbra", 1, at(4))];
        assert_eq!(seen(&after), expected.map(|(name, n, at)| (name.to_owned(), n, at)));
        assert_eq!(
            after.requests().collect::<Vec<_>>(),
            [("beta", 5), ("stable", 0), ("deprecated", 0), ("retired", 0)]
        );
    }
}
