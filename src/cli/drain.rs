//! `tidegate drain` and `undrain`: takes a backend out of service, and puts it back.

use std::{
    io::Write,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    NO,
    ask::{Gateway, JSON, Unanswered},
    named::{Named, tunnels_among},
    why::Today,
};
use crate::{
    admin::BackendDocument,
    base::duration::{Took, Written},
    telemetry::Printable,
};

/// How a backend is drained.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainQuery<'a> {
    /// Whether to wait until it has no request any more.
    pub(super) wait: bool,
    /// After this whatever is left is cut; `None`: there is no such time.
    pub(super) timeout: Option<Duration>,
    /// When the drain ends by itself.
    pub(super) lasts: Option<Duration>,
    /// Why.
    pub(super) reason: Option<&'a str>,
    /// Who wants it.
    pub(super) by: &'a str,
}

/// Between two looks at how many requests are left.
const LOOK: Duration = Duration::from_millis(100);

/// Every worker cuts what it has within about a second of the deadline.
const CUTTING: Duration = Duration::from_secs(3);

/// Drains a backend, and waits if that is wanted. Returns the exit code: 1 where requests were cut at the deadline.
///
/// # Errors
/// There is no such backend, or no answer, or the output is gone.
pub(super) fn drain(
    gateway: &Gateway,
    typed: &str,
    query: &DrainQuery<'_>,
    out: &mut dyn Write,
) -> Result<u8, Unanswered> {
    let named = Named::find(gateway, typed)?;
    let written = |time: Option<Duration>| time.map(|time| Written(time).to_string());
    let order = json!({
        "by": query.by, "reason": query.reason, "for": written(query.lasts), "deadline": written(query.timeout),
    });
    let began = Instant::now();
    let answer = gateway.post(&format!("{}/drain", named.path()), &order)?;
    let document: BackendDocument = gateway.parse(&answer)?;
    let (open, among) = (document.in_flight, tunnels_among(document.tunnels));
    say(out, &format!("{} draining: no new requests; {open} open{among}", named.shown()))?;
    if let Some(ends) = ends(&document, query.lasts) {
        say(out, &ends)?;
    }
    if !query.wait {
        return say(out, &format!("Undo: tidegate undrain {}", named.quoted())).map(|()| 0);
    }
    let (code, told) = wait(gateway, &named, query, began, open)?;
    say(out, &told).map(|()| code)
}

/// Waits until no request is left, of themselves or because they were cut at the deadline. Returns the exit code, and what to say.
fn wait(
    gateway: &Gateway,
    named: &Named,
    query: &DrainQuery<'_>,
    began: Instant,
    open: u32,
) -> Result<(u8, String), Unanswered> {
    let undo = format!("Undo: tidegate undrain {}", named.quoted());
    let (mut left, mut cut) = (open, 0);
    while left > 0 {
        let over = query.timeout.and_then(|timeout| began.elapsed().checked_sub(timeout));
        if over.is_some_and(|over| over >= CUTTING) {
            let s = if left == 1 { "" } else { "s" };
            return Ok((NO, format!("{left} request{s} left after {}. {undo}", Took(began.elapsed()))));
        }
        sleep(LOOK);
        let document: BackendDocument = match gateway.get(&named.path(), JSON) {
            // It was removed meanwhile, and is gone: so are its requests.
            Err(Unanswered::No(_)) => break,
            answer => gateway.parse(&answer?)?,
        };
        if document.state != "draining" {
            return Ok((NO, format!("{} is drained no more: {}", named.shown(), Printable(&document.state))));
        }
        left = document.in_flight;
        // What was there when the time was over, and is not asked for again, was cut.
        if over.is_none() {
            cut = left;
        }
    }
    let cut = if query.timeout.is_some_and(|timeout| began.elapsed() >= timeout) { cut } else { 0 };
    let (code, finished) = (if cut == 0 { 0 } else { NO }, open.saturating_sub(cut));
    Ok((code, format!("drained in {} ({finished} finished, {cut} cut). {undo}", Took(began.elapsed()))))
}

/// When a drain ends by itself, if it does.
fn ends(document: &BackendDocument, lasts: Option<Duration>) -> Option<String> {
    let drain = document.drain.as_ref()?;
    let at = Today(drain.since.clone()).moment(drain.until.as_ref()?);
    let lasts = lasts.map(|lasts| format!(", in {}", Written(lasts))).unwrap_or_default();
    Some(format!("It ends by itself at {} UTC{lasts}.", Printable(&at)))
}

/// Ends a drain. Returns the exit code.
///
/// # Errors
/// There is no such backend, or no answer, or the output is gone.
pub(super) fn undrain(gateway: &Gateway, typed: &str, by: &str, out: &mut dyn Write) -> Result<u8, Unanswered> {
    let named = Named::find(gateway, typed)?;
    let answer = gateway.post(&format!("{}/undrain", named.path()), &json!({ "by": by }))?;
    let document: BackendDocument = gateway.parse(&answer)?;
    let state = if document.state == "down" { "DOWN" } else { &document.state };
    let before = if named.backend.draining.is_some() { "" } else { "was not drained; it is " };
    let now = match document.eligible {
        true => "new requests go to it".to_owned(),
        false => format!("no requests yet: {}", document.why),
    };
    say(out, &format!("{} {before}{}: {}", named.shown(), Printable(state), Printable(&now))).map(|()| 0)
}

fn say(out: &mut dyn Write, line: &str) -> Result<(), Unanswered> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Unanswered::Output)
}
