//! `tidegate why`: what is known of one backend, with the evidence of its probes.

use std::{fmt::Write as _, io::Write};

use super::{
    ask::{Gateway, JSON, Unanswered, encoded},
    named::{Named, tunnels_among},
    print::{aligned, took},
    status::{Form, clock, day, elapsed, millis},
};
use crate::{
    admin::{BackendDocument, BacktestDocument, ChangeStatus, CheckStatus, DetectionStatus, DrainStatus, ProbeStatus},
    base::Timestamp,
    telemetry::Printable,
};

/// Shows a backend, or its document as the gateway sends it. Returns the exit code.
///
/// # Errors
/// There is no such backend, or no answer, or the output is gone.
pub(super) fn why(gateway: &Gateway, typed: &str, form: Form, out: &mut dyn Write) -> Result<u8, Unanswered> {
    let named = Named::find(gateway, typed)?;
    let answer = gateway.get(&named.path(), JSON)?;
    let document: BackendDocument = gateway.parse(&answer)?;
    let written = match form {
        Form::Json => out.write_all(&answer),
        Form::Table => out.write_all(render(&document, Timestamp::now()).as_bytes()),
    };
    written.and_then(|()| out.flush()).map(|()| 0).map_err(Unanswered::Output)
}

/// Shows what other thresholds would have made of a backend's probes. Returns the exit code.
///
/// # Errors
/// There is no such backend, a field cannot be tried, or no answer, or the output is gone.
pub(super) fn backtest(
    gateway: &Gateway,
    typed: &str,
    trial: &[String],
    form: Form,
    out: &mut dyn Write,
) -> Result<u8, Unanswered> {
    let named = Named::find(gateway, typed)?;
    let fields: Vec<String> = trial.iter().map(|field| query(field)).collect::<Result<_, _>>()?;
    let answer = gateway.get(&format!("{}/backtest?{}", named.path(), fields.join("&")), JSON)?;
    let documents: Vec<BacktestDocument> = gateway.parse(&answer)?;
    let line =
        |document: &BacktestDocument| format!("{}: {}\n", Printable(&document.check), Printable(&document.words));
    let written = match form {
        Form::Json => out.write_all(&answer),
        Form::Table => out.write_all(documents.iter().map(line).collect::<String>().as_bytes()),
    };
    written.and_then(|()| out.flush()).map(|()| 0).map_err(Unanswered::Output)
}

/// `FIELD=VALUE` as a part of a query.
fn query(field: &str) -> Result<String, Unanswered> {
    const FIELDS: [&str; 4] = ["check", "healthy_after", "timeout", "unhealthy_after"];
    match field.split_once('=') {
        Some((name, value)) if FIELDS.contains(&name) => Ok(format!("{name}={}", encoded(value))),
        _ => Err(Unanswered::No(format!(
            "`{}` cannot be tried; write one of {}, like unhealthy_after=5",
            Printable(field),
            FIELDS.join(", ")
        ))),
    }
}

/// For people, at a moment.
fn render(document: &BackendDocument, now: Timestamp) -> String {
    let today = Today(now.to_string());
    let mut out = Printable(&headline(document, &today)).to_string() + "\n";
    for (label, text) in facts(document, &today) {
        let _ = writeln!(out, "  {label:<8}  {}", Printable(&text));
    }
    if !document.probes.is_empty() {
        let _ = write!(out, "\n{}", probes(document, &today));
    }
    if !document.changes.is_empty() {
        let _ = write!(out, "\n{}", changes(&document.changes, &today));
    }
    out
}

fn headline(document: &BackendDocument, today: &Today) -> String {
    let BackendDocument { upstream, name, state, since, for_s, why, .. } = document;
    let state = if state == "down" { "DOWN" } else { state };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{upstream}/{name} {state} for {} (since {}){why}", elapsed(*for_s), today.moment(since))
}

/// What is to be said besides, each with its label.
fn facts(document: &BackendDocument, today: &Today) -> Vec<(&'static str, String)> {
    let role = if document.tier > 0 { format!(", backup of tier {}", document.tier) } else { String::new() };
    let mut facts = vec![("address", format!("{}, weight {}{role}", document.address, document.weight))];
    let [requests, connections] = [(document.in_flight, "request"), (document.connections, "connection")].map(counted);
    let oldest = document.oldest_s.map(|age| format!(", the oldest for {}", elapsed(age))).unwrap_or_default();
    facts.push(("open", format!("{requests}{}{oldest}, {connections}", tunnels_among(document.tunnels))));
    if !document.aliases.is_empty() {
        facts.push(("also", document.aliases.join(", ")));
    }
    facts.extend(document.drain.as_ref().map(|drain| ("drained", drained(drain, today))));
    if let Some(ejected) = &document.ejected {
        let left = ejected.left_s.map(|left| format!(", in {}", elapsed(left))).unwrap_or_default();
        let times = if ejected.times > 1 { format!("; {} times in a row", ejected.times) } else { String::new() };
        facts.push(("ejected", format!("until {}{left}{times}", today.moment(&ejected.until))));
    }
    if document.held {
        facts.push(("held", "its checks say that it is down, and are not believed".to_owned()));
    }
    facts.extend(document.suspicion.clone().map(|told| ("suspect", told)));
    facts.extend(document.spared.clone().map(|told| ("spared", told)));
    let live = &document.live;
    if live.failures > 0 {
        let told = format!(
            "{} of {} requests failed, the last {} in a row",
            live.failures, live.requests, live.failures_in_row
        );
        facts.push(("traffic", told));
    }
    for check in &document.checks {
        facts.push(("check", check.asks.clone()));
        facts.extend(failed_before(document, check).map(|probe| ("failed", failed(probe, today))));
    }
    if let Some(DetectionStatus { out_s, back_s }) = document.detection {
        facts.push(("detects", format!("out after {} at most, back after {}", took(out_s), took(back_s))));
    }
    facts
}

fn counted((count, what): (u32, &str)) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn drained(drain: &DrainStatus, today: &Today) -> String {
    let reason = if drain.reason.is_empty() { String::new() } else { format!(": {}", drain.reason) };
    let until = drain.until.as_ref().map(|until| format!(", until {}", today.moment(until))).unwrap_or_default();
    let cut = drain.deadline.as_ref().map(|at| format!(", cut at {}", today.moment(at))).unwrap_or_default();
    format!("by {} since {}{until}{cut}{reason}", drain.by, today.moment(&drain.since))
}

/// The last failure of a check, where it is not among the probes that are shown.
fn failed_before<'a>(document: &BackendDocument, check: &'a CheckStatus) -> Option<&'a ProbeStatus> {
    let is_shown = |failed: &ProbeStatus| {
        document
            .probes
            .iter()
            .any(|probe| probe.result == "fail" && (&probe.at, &probe.check) == (&failed.at, &failed.check))
    };
    check.last_failed.as_ref().filter(|failed| !is_shown(failed))
}

fn failed(probe: &ProbeStatus, today: &Today) -> String {
    format!("last at {}: {}", today.moment(&probe.at), with_body(probe))
}

fn with_body(probe: &ProbeStatus) -> String {
    match probe.body.as_deref().filter(|body| probe.result != "pass" && !body.is_empty()) {
        Some(body) => format!("{}   \"{body}\"", probe.detail),
        None => probe.detail.clone(),
    }
}

fn probes(document: &BackendDocument, today: &Today) -> String {
    let headings = ["PROBE", "CHECK", "RESULT", "STATUS", "CONNECT", "HEAD", "TOTAL", "WHY"].map(str::to_owned);
    let rows = document.probes.iter().map(|probe| probe_row(probe, today));
    let rows: Vec<_> = std::iter::once(headings).chain(rows).collect();
    if document.checks.len() > 1 {
        return aligned(&rows);
    }
    let rows: Vec<_> = rows.into_iter().map(|[at, _check, rest @ ..]: [String; 8]| without_check(at, rest)).collect();
    aligned(&rows)
}

fn without_check(at: String, [result, status, connect, head, total, why]: [String; 6]) -> [String; 7] {
    [at, result, status, connect, head, total, why]
}

fn probe_row(probe: &ProbeStatus, today: &Today) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = [
        today.moment(&probe.at),
        probe.check.clone(),
        probe.result.clone(),
        or_dash(probe.status.map(|status| status.to_string())),
        or_dash(probe.connect_ms.map(millis)),
        or_dash(probe.first_byte_ms.map(millis)),
        millis(probe.total_ms),
        with_body(probe),
    ];
    cells.map(|cell| Printable(&cell).to_string())
}

fn changes(changes: &[ChangeStatus], today: &Today) -> String {
    let headings = ["CHANGE", "FROM > TO", "AFTER", "SOURCE", "GEN", "WHY"].map(str::to_owned);
    let row = |change: &ChangeStatus| {
        let cells = [
            today.moment(&change.at),
            format!("{} > {}", change.from, change.to),
            change.lasted_s.map_or_else(|| "-".to_owned(), |seconds| elapsed(seconds as u64)),
            change.source.clone(),
            change.generation.to_string(),
            change.detail.clone(),
        ];
        cells.map(|cell| Printable(&cell).to_string())
    };
    let rows: Vec<_> = std::iter::once(headings).chain(changes.iter().map(row)).collect();
    aligned(&rows)
}

/// The present, in RFC 3339: moments of another day are shown with it.
pub(super) struct Today(pub(super) String);

impl Today {
    pub(super) fn moment(&self, moment: &str) -> String {
        let time = clock(moment, "HH:MM:SS");
        if day(moment) == day(&self.0) { time.to_owned() } else { format!("{} {time}", day(moment)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn probe(at: &str, result: &str, status: Option<u16>, detail: &str, body: Option<&str>) -> Value {
        json!({
            "at": format!("2026-11-22T{at}.250000Z"), "check": "http /healthz", "result": result, "reason": "status",
            "detail": detail, "status": status, "connect_ms": status.map(|_| 0.31), "first_byte_ms": status.map(|_| 3.1),
            "total_ms": 3.24, "body": body, "generation": 7, "unknown": 1,
        })
    }

    fn document() -> Value {
        json!({
            "upstream": "orders", "name": "big", "address": "10.0.1.12:9001", "state": "down",
            "since": "2026-11-22T12:01:07.000000Z", "for_s": 161, "reason": "status",
            "why": "status 503, expected 200-399 ×9", "source": "active", "generation": 7, "weight": 4, "tier": 0,
            "eligible": false, "in_flight": 0, "tunnels": 0, "oldest_s": null, "connections": 1, "drain": null, "ejected": null, "held": false,
            "suspicion": null, "spared": null, "live": { "failures_in_row": 2, "failures": 12, "requests": 340 },
            "checks": [{ "name": "http /healthz", "asks": "GET /healthz every 10s, within 2s; down after 3, up after 2" }],
            "probes": [
                probe("12:03:47", "fail", Some(503), "status 503, expected 200-399", Some("{\"db\":\"down\"}\u{1b}[2J")),
                probe("12:03:37", "fail", None, "connect refused", None),
                probe("12:03:27", "pass", Some(200), "200 in 3 ms", Some("ok")),
            ],
            "changes": [
                { "at": "2026-11-22T12:01:07.000000Z", "from": "up", "to": "down", "source": "active", "reason": "status",
                  "detail": "3 bad probes in 2.0s (503)", "generation": 7, "lasted_s": 273_600.5 },
                { "at": "2026-11-19T08:01:06.500000Z", "from": "checking", "to": "up", "source": "active",
                  "reason": "passed", "detail": "probe 200 in 3 ms", "generation": 1, "lasted_s": null },
            ],
        })
    }

    fn shown(document: Value) -> String {
        render(&serde_json::from_value(document).unwrap(), "2026-11-22T12:03:48Z".parse().unwrap())
    }

    #[test]
    fn a_backend_that_is_down() {
        insta::assert_snapshot!(shown(document()));
    }

    #[test]
    fn everything_that_can_be_said_besides() {
        let mut document = document();
        document["state"] = json!("draining");
        document["why"] = json!("drained by ann: deploy");
        document["drain"] = json!({
            "by": "ann", "reason": "deploy", "since": "2026-11-22T12:01:07.000000Z",
            "until": "2026-11-22T12:16:07.000000Z", "deadline": "2026-11-22T12:02:07.000000Z",
        });
        document["ejected"] = json!({ "until": "2026-11-22T12:04:08.000000Z", "times": 2, "left_s": 20 });
        document["held"] = json!(true);
        document["suspicion"] = json!("every backend of `orders` fails its health check since that was edited");
        document["spared"] = json!("5 failed requests in a row (503); it stays: nobody else is eligible");
        document["tier"] = json!(1);
        let mut failed = probe("03:12:44", "fail", None, "connect refused", None);
        (failed["at"], failed["check"]) = (json!("2026-11-21T03:12:44.000000Z"), json!("tcp"));
        let tcp = json!({ "name": "tcp", "asks": "tcp every 5s", "last_failed": failed });
        // One that is shown among the probes is not told twice.
        document["checks"][0]["last_failed"] = document["probes"][0].clone();
        document["checks"].as_array_mut().unwrap().push(tcp);
        insta::assert_snapshot!(shown(document));
    }

    #[test]
    fn a_name_without_an_address_has_no_probes() {
        let mut document = document();
        document["why"] = json!("no such name");
        for field in ["probes", "changes", "checks"] {
            document[field] = json!([]);
        }
        document["live"] = json!({ "failures_in_row": 0, "failures": 0, "requests": 0 });
        let shown = shown(document);
        assert!(shown.starts_with("orders/big DOWN for 2m41s (since 12:01:07): no such name\n"), "{shown}");
        assert_eq!(shown.lines().count(), 3, "{shown}");
    }
}
