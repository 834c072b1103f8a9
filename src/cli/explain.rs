//! `tidegate explain`: whose a request is, and why; by a config, or by what is live.

use std::fmt::Write as _;

use super::{
    Trouble,
    ask::{Gateway, Unanswered},
    env, find,
    print::{aligned, reason},
};
use crate::{
    admin::{BackendNow, ExplainDocument, ExplainOrder, Other},
    config::{Source, load},
    telemetry::Printable,
};

/// What is asked, and how it is shown.
#[derive(Clone, Debug)]
pub(super) struct ExplainQuery {
    /// The request.
    pub(super) order: ExplainOrder,
    /// Show every route, not the closest alone.
    pub(super) all: bool,
    /// As JSON.
    pub(super) json: bool,
}

/// How many of the routes that do not match are shown.
const CLOSEST: usize = 3;

/// Looks into a config.
///
/// # Errors
/// It cannot be read, has errors, or the request is none.
pub(super) fn by_config(query: &ExplainQuery, file: Option<&std::path::Path>) -> Result<(String, bool), Trouble> {
    let path = find::config(file)?;
    let name = path.display().to_string();
    let source = Source::read(&path).map_err(|why| Trouble(format!("cannot read {name}: {}", reason(&why))))?;
    let Ok(loaded) = load(&source, &env) else {
        return Err(Trouble(format!("{name} has errors: see `tidegate check {name}`")));
    };
    let explained = ExplainDocument::of(&loaded.plan, Some(&loaded.places), &query.order).map_err(Trouble)?;
    Ok(shown(query, &explained, &name))
}

/// Asks a gateway.
///
/// # Errors
/// No answer, or the request is none.
pub(super) fn by_gateway(query: &ExplainQuery, gateway: &Gateway) -> Result<(String, bool), Unanswered> {
    let order = serde_json::to_value(&query.order).expect("texts always serialise");
    let answer = gateway.post("/api/v1/explain", &order)?;
    let explained: ExplainDocument = gateway.parse(&answer)?;
    Ok(shown(query, &explained, ""))
}

/// What is printed, and whether there is a route.
fn shown(query: &ExplainQuery, explained: &ExplainDocument, file: &str) -> (String, bool) {
    let text = match query.json {
        true => serde_json::to_string(explained).expect("texts always serialise") + "\n",
        false => render(explained, &query.order, query.all, file),
    };
    (text, explained.route.is_some())
}

fn render(explained: &ExplainDocument, order: &ExplainOrder, all: bool, file: &str) -> String {
    let ExplainDocument { method, host, path, refused, route, beats, missed, more_missed, then, within, now, .. } =
        explained;
    let place = |line: Option<usize>| line.map(|line| format!("{file}:{line}")).unwrap_or_default();
    if let Some(why) = refused {
        return format!("{method} {} is refused: {}.\n", Printable(&order.url), Printable(why));
    }
    let Some(route) = route else {
        let closest =
            missed.first().map(|other| format!(" Closest: `{}` ({}).", Printable(&other.name), Printable(&other.why)));
        let target = [host.as_str(), path.as_str()].join(" ");
        return format!("no route for {method} {}.{}\n", Printable(target.trim_start()), closest.unwrap_or_default());
    };
    let mut out = match place(route.line).as_str() {
        "" => format!("route `{}`\n", Printable(&route.name)),
        at => format!("route `{}`  ({at})\n", Printable(&route.name)),
    };
    let by: Vec<[String; 3]> = route
        .by
        .iter()
        .map(|[what, value, how]| [format!("  {what}"), Printable(value).to_string(), how.clone()])
        .collect();
    out.push_str(&aligned(&by));
    let rows = |others: &[Other]| {
        let row = |other: &Other| {
            let cells = [&format!("`{}`", other.name), &other.pattern, &other.why, &place(other.line)];
            let [name, pattern, why, at] = cells.map(|cell| Printable(cell).to_string());
            [format!("  {name}"), pattern, why, at]
        };
        aligned(&others.iter().map(row).collect::<Vec<_>>())
    };
    if !beats.is_empty() {
        let _ = write!(out, "beats\n{}", rows(beats));
    }
    let most = if all { missed.len() } else { CLOSEST };
    let (closest, others) = missed.split_at(most.min(missed.len()));
    if !closest.is_empty() {
        let _ = write!(out, "not matched\n{}", rows(closest));
    }
    let more = others.len() + more_missed;
    if more > 0 {
        let _ = writeln!(out, "  {more} more: --all");
    }
    let _ = writeln!(out, "\nthen   {}", Printable(&then.join(" · ")));
    if !now.is_empty() {
        let _ = writeln!(out, "now    {}", Printable(&now.iter().map(backend).collect::<Vec<_>>().join(" · ")));
    }
    if let Some(within) = within {
        let _ = writeln!(out, "{within}");
    }
    out
}

fn backend(backend: &BackendNow) -> String {
    let state = if backend.state == "down" { "DOWN" } else { &backend.state };
    match backend.eligible || backend.why.is_empty() {
        true => format!("{} {state}", backend.name),
        false => format!("{} {state} ({})", backend.name, backend.why),
    }
}
