//! `tidegate explain` and `/api/v1/explain`: whose a request is, and why.

mod asked;
mod fields;
mod words;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use self::asked::Asked;
pub use self::fields::Fields;
use super::{
    Now, Observed, Problem,
    router::{App, JSON, answer, document},
    upstreams::read,
};
use crate::{
    base::Name,
    config::{
        Places,
        plan::{Plan, Route},
    },
    route::{self, Candidate, Pattern},
};

/// A request that is asked about.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExplainOrder {
    /// Its method. Default `GET`.
    pub method: String,
    /// `https://api.example.com/orders/42?v=2`, or a path alone.
    pub url: String,
    /// Its header fields, in their order. A value may be a list, and a name be there again.
    pub headers: Fields,
    /// Whether a proxy sends it that the listener trusts: what proxies say (`X-Forwarded-Proto`, ...) counts then.
    pub from_proxy: bool,
    /// All routes that do not match are wanted, not the closest 100.
    pub all: bool,
    /// The listener that it comes by. Default: the one whose port the URL names, else any.
    pub listener: Option<String>,
}

/// Whose a request is, and why.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ExplainDocument {
    /// Its method.
    pub method: String,
    /// Its host, as it is matched; empty where there is none.
    pub host: String,
    /// Its path, as it is matched and forwarded.
    pub path: String,
    /// The listener that was assumed; null: any.
    pub listener: Option<String>,
    /// Why the gateway refuses it before it looks for a route.
    pub refused: Option<String>,
    /// The route that has it.
    pub route: Option<Matched>,
    /// Other routes that match it, the most specific first.
    pub beats: Vec<Other>,
    /// Routes that do not match it, those that come closest first.
    pub missed: Vec<Other>,
    /// How many more there are.
    pub more_missed: usize,
    /// What happens to it then, in order.
    pub then: Vec<String>,
    /// How long it may take, and what may be tried again.
    pub within: Option<String>,
    /// The backends that it may go to, as they are now; empty where no gateway was asked.
    pub now: Vec<BackendNow>,
}

/// A route that matches.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Matched {
    /// Its name.
    pub name: String,
    /// Its line in the file, where that is known.
    pub line: Option<usize>,
    /// Each thing that it asks for: `host`, `path`, `method`, `header` or `query`, what, and how it is compared.
    pub by: Vec<[String; 3]>,
}

/// A route that does not have the request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Its host and path.
    pub pattern: String,
    /// Why not.
    pub why: String,
    /// Its line in the file, where that is known.
    pub line: Option<usize>,
}

/// A backend, as it is now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BackendNow {
    /// Its name.
    pub name: String,
    /// `up`, `down`, ...
    pub state: String,
    /// Why it is in that state.
    pub why: String,
    /// Whether it may get the request.
    pub eligible: bool,
}

/// The most that a request may take that is asked about, in bytes: no less than clients may send.
const LARGEST: usize = 256 * 1024;

/// Routes that do not match, unless all are wanted.
const CLOSEST: usize = 100;

/// Answers an order by what is live.
pub(super) async fn explain(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let order: ExplainOrder = read(request, LARGEST).await?;
    Ok(answer(app, move |_, now| match ExplainDocument::of(&now.snapshot.plan, None, &order) {
        Ok(mut explained) => {
            explained.now = backends(now, &explained);
            document(StatusCode::OK, JSON, &explained)
        }
        Err(why) => Problem::bad_request(why).into_response(),
    })
    .await)
}

fn backends(now: &Now, explained: &ExplainDocument) -> Vec<BackendNow> {
    let route = explained.route.as_ref().and_then(|route| now.snapshot.plan.routes.get(route.name.as_str()));
    let sides = route.into_iter().flat_map(|route| route.action.upstreams());
    let observed = sides.filter_map(|side| now.upstreams.iter().find(|observed| observed.name() == side));
    let rows = observed.flat_map(Observed::rows);
    rows.map(|row| BackendNow {
        name: row.name.to_string(),
        state: row.state.to_owned(),
        why: row.detail.to_owned(),
        eligible: row.is_eligible,
    })
    .collect()
}

impl ExplainDocument {
    /// Looks for the route of a request in a plan. `places` are the lines of its file.
    ///
    /// # Errors
    /// What is wrong with the order, in words.
    pub fn of(plan: &Plan, places: Option<&Places>, order: &ExplainOrder) -> Result<Self, String> {
        let asked = Asked::of(plan, order)?;
        let line = |route: &Route| places.and_then(|places| places.routes.get(&route.name).copied());
        let (served, elsewhere): (Vec<&Route>, Vec<&Route>) =
            plan.routes.values().map(|route| &**route).partition(|route| asked.comes_by(plan, route));
        let candidates = route::candidates(served.iter().copied().map(pattern), &asked.ask());
        let (matching, missed): (Vec<_>, Vec<_>) = candidates.iter().partition(|candidate| candidate.miss.is_none());
        let first = matching.first().map(|first| &first.to.name);
        let is_ambiguous = || asked.other_readings().any(|path| top(&served, &asked, &path) != first);
        let refused = asked
            .refused
            .clone()
            .or_else(|| is_ambiguous().then(|| "the path may be read in two ways, which are two routes".to_owned()));
        let mut explained = Self {
            method: asked.method.to_string(),
            host: asked.host.clone(),
            path: asked.path.clone(),
            listener: asked.listener.as_ref().map(ToString::to_string),
            refused,
            ..Self::default()
        };
        let other = |candidate: &&Candidate<'_, &Route>, host, why| Other {
            name: candidate.to.name.to_string(),
            pattern: words::pattern(candidate.to, host),
            why,
            line: line(candidate.to),
        };
        if let Some((first, behind)) = matching.split_first().filter(|_| explained.refused.is_none()) {
            let (name, by) = (first.to.name.to_string(), words::matched(first));
            explained.route = Some(Matched { name, line: line(first.to), by });
            (explained.then, explained.within) = (words::then(plan, first.to, &asked.path), words::within(first.to));
            explained.beats = behind.iter().map(|c| other(c, c.host, words::weaker(c, first))).collect();
        }
        let misses = missed.iter().filter_map(|candidate| {
            let why = asked.differs(candidate.miss.as_ref()?);
            Some(other(candidate, None, why))
        });
        explained.missed = misses.collect();
        explained.missed.extend(elsewhere.into_iter().map(|route| Other {
            name: route.name.to_string(),
            pattern: words::pattern(route, None),
            why: "it does not serve this listener".to_owned(),
            line: line(route),
        }));
        if !order.all {
            explained.more_missed = explained.missed.len().saturating_sub(CLOSEST);
            explained.missed.truncate(CLOSEST);
        }
        Ok(explained)
    }
}

fn pattern(route: &Route) -> Pattern<'_, &Route> {
    Pattern { hosts: &route.hosts, path: &route.path, conditions: &route.conditions, to: route }
}

/// Whose the request would be with another path.
fn top<'p>(routes: &[&'p Route], asked: &Asked, path: &str) -> Option<&'p Name> {
    let ask = route::Ask { path, ..asked.ask() };
    let candidates = route::candidates(routes.iter().copied().map(pattern), &ask);
    candidates.first().filter(|first| first.miss.is_none()).map(|first| &first.to.name)
}

#[cfg(test)]
mod tests;
