//! `tidegate status`: asks a running gateway what it knows, and shows it as a table or as the document itself.
//!
//! The exit codes are a contract: 0, or 1 where `--exit-code` was asked for and an upstream has no eligible backend, or 2 where no
//! gateway answered ([`Unanswered`]).

use std::{collections::BTreeMap, fmt::Write as _, io::Write, time::Duration};

use super::{
    ask::{Gateway, JSON, Unanswered},
    print::{aligned, detection},
};
use crate::{
    admin::{
        AliasStatus, BackendStatus, DetectionStatus, DrainStatus, Recent, StaleName, StatusDocument, UpstreamStatus,
    },
    base::duration::Elapsed,
    telemetry::Printable,
};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatusQuery<'a> {
    /// The admin address, `host:port` or `unix:path`.
    pub(super) admin: &'a str,
    /// How it is shown.
    pub(super) form: Form,
    /// What the exit code says.
    pub(super) exit: Exit,
}

/// How the status is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Form {
    /// The document as the gateway sends it.
    Json,
    /// A table for people.
    #[default]
    Table,
}

/// What the exit code says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Exit {
    /// 0 wherever a gateway answered.
    #[default]
    Answered,
    /// 1 where an upstream has no eligible backend.
    Health,
}

/// Shows the status of the gateway at an admin address. Returns the exit code.
///
/// # Errors
/// [`Unanswered`]: no gateway answers, something else does, or the output is gone.
pub(super) fn status(query: &StatusQuery<'_>, out: &mut dyn Write) -> Result<u8, Unanswered> {
    let gateway = Gateway::at(query.admin)?;
    let answer = gateway.get("/api/v1/status", JSON)?;
    let document: StatusDocument = gateway.parse(&answer)?;
    let written = match query.form {
        Form::Json => out.write_all(&answer),
        Form::Table => out.write_all(render(&document).as_bytes()),
    };
    written.and_then(|()| out.flush()).map_err(Unanswered::Output)?;
    let is_out = query.exit == Exit::Health && document.upstreams.iter().any(UpstreamStatus::is_down);
    Ok(u8::from(is_out))
}

const HEADINGS: [&str; 9] = ["UPSTREAM", "BACKEND", "STATE", "FOR", "WHY", "REQ/S", "ERR", "P95", "OPEN"];

/// The table, with a line about the gateway above and what is wrong below.
#[must_use]
pub(super) fn render(document: &StatusDocument) -> String {
    let rows: Vec<[String; HEADINGS.len()]> =
        std::iter::once(HEADINGS.map(str::to_owned)).chain(document.upstreams.iter().flat_map(upstream_rows)).collect();
    let mut out = headline(document) + "\n" + &aligned(&rows);
    let complaints = certificates(document) + &stale_names(document) + &refusal(document) + &suspicions(document);
    out.push_str(&complaints);
    out.push_str(&aliases(document));
    out.push_str(&detections(document));
    out.push_str(&summary(document, complaints.is_empty()));
    out
}

fn headline(document: &StatusDocument) -> String {
    let StatusDocument { version, config, uptime_s, .. } = document;
    let since = match day(&config.since) == day(&document.timestamp) {
        true => clock(&config.since, "HH:MM").to_owned(),
        false => format!("{} {}", day(&config.since), clock(&config.since, "HH:MM")),
    };
    let readiness = match (document.ready, &document.reason) {
        (true, _) => "ready".to_owned(),
        (false, Some(reason)) => format!("not ready ({reason})"),
        (false, None) => "not ready".to_owned(),
    };
    let up = elapsed(*uptime_s);
    let line = format!("tidegate {version} · up {up} · gen {} since {since} · {readiness}", config.generation);
    Printable(&line).to_string()
}

/// The day of a moment in RFC 3339.
pub(super) fn day(moment: &str) -> &str {
    moment.split('T').next().unwrap_or_default()
}

/// Its time of day in UTC, as long as the form.
pub(super) fn clock<'a>(moment: &'a str, form: &str) -> &'a str {
    moment.split('T').nth(1).and_then(|time| time.get(..form.len())).unwrap_or_default()
}

fn upstream_rows(upstream: &UpstreamStatus) -> impl Iterator<Item = [String; HEADINGS.len()]> {
    upstream.backends.iter().enumerate().map(|(index, backend)| {
        let name = if index == 0 { upstream.name.as_str() } else { "" };
        backend_row(name, upstream, backend)
    })
}

fn backend_row(name: &str, upstream: &UpstreamStatus, backend: &BackendStatus) -> [String; HEADINGS.len()] {
    let role = if backend.backup { " backup" } else { "" };
    let (state, why) = match backend.state.as_str() {
        "down" => ("DOWN", backend.why.as_str()),
        "unchecked" if !upstream.checked => ("no check", "no `health.active` configured"),
        state => (state, backend.why.as_str()),
    };
    let held = if backend.held { " held" } else { "" };
    let until = until(backend).map(|until| format!(", until {}", clock(until, "HH:MM:SS")));
    let recent = backend.recent.as_ref();
    let cells = [
        name.to_owned(),
        format!("{}{role}", backend.name),
        format!("{state}{held}"),
        elapsed(backend.for_s),
        format!("{why}{}", until.unwrap_or_default()),
        recent.map_or_else(dash, |recent| rate(recent.requests_per_s)),
        recent.and_then(|recent| recent.error_percent).map_or_else(dash, |percent| format!("{percent:.1}%")),
        recent.and_then(|recent| recent.p95_ms).map_or_else(dash, millis),
        backend.connections.to_string(),
    ];
    cells.map(|cell| Printable(&cell).to_string())
}

/// When it comes back by itself, where that is known.
fn until(backend: &BackendStatus) -> Option<&str> {
    match (&backend.draining, backend.state.as_str()) {
        (Some(DrainStatus { until, .. }), "draining") => until.as_deref(),
        (_, "ejected") => backend.ejected_until.as_deref(),
        _ => None,
    }
}

/// Whole seconds are all that is known, so there is no `0ms`.
pub(super) fn elapsed(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        seconds => Elapsed(Duration::from_secs(seconds)).to_string(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn rate(per_second: f64) -> String {
    match per_second > 0.0 && per_second < 10.0 {
        true => format!("{per_second:.1}"),
        false => format!("{per_second:.0}"),
    }
}

pub(super) fn millis(millis: f64) -> String {
    match millis < 1.0 {
        true => format!("{millis:.1}ms"),
        false => format!("{millis:.0}ms"),
    }
}

/// Certificates that have expired, or will soon.
fn certificates(document: &StatusDocument) -> String {
    let mut out = String::new();
    for certificate in document.certificates.iter().filter(|certificate| certificate.status != "up") {
        let (name, listener) = (Printable(&certificate.name), Printable(&certificate.listener));
        let when = match certificate.left_s {
            Some(left) => format!("expires in {}", elapsed(left)),
            None => format!("EXPIRED on {}", day(&certificate.not_after)),
        };
        let _ = writeln!(out, "CERTIFICATE {name} of listener {listener} {when}.");
    }
    out
}

/// Names whose addresses are in use although DNS does not confirm them.
fn stale_names(document: &StatusDocument) -> String {
    let line = |name: &StaleName| {
        let StaleName { name, addresses, since, why } = name;
        let es = if *addresses == 1 { "" } else { "es" };
        let told = format!("DNS: {name} keeps {addresses} address{es} since {}: {why}", clock(since, "HH:MM:SS"));
        format!("{}\n", Printable(&told))
    };
    document.stale_names.iter().map(line).collect()
}

/// The last edit, where it was refused.
fn refusal(document: &StatusDocument) -> String {
    let attempt = &document.config.last_attempt;
    if attempt.ok {
        return String::new();
    }
    let (at, s) = (clock(&attempt.at, "HH:MM:SS"), if attempt.errors == 1 { "" } else { "s" });
    let mut out = format!(
        "REFUSED edit at {at} by {}: {} error{s}. Still serving gen {}.\n",
        Printable(&attempt.by),
        attempt.errors,
        document.config.generation
    );
    for finding in &attempt.findings {
        let _ = writeln!(out, "  {}", Printable(finding));
    }
    out
}

/// Names that lead to the address of another backend: a line for each upstream that has some.
fn aliases(document: &StatusDocument) -> String {
    let line = |upstream: &UpstreamStatus| {
        let (AliasStatus { name, backend }, more) = upstream.aliases.split_first()?;
        let more = if more.is_empty() { String::new() } else { format!(", and {} more like it", more.len()) };
        let told = format!("{}: {name} has the address of {backend}: they are one backend{more}", upstream.name);
        Some(format!("{}\n", Printable(&told)))
    };
    document.upstreams.iter().filter_map(line).collect()
}

/// How long health checks take at worst: a line for all upstreams for which it is the same.
fn detections(document: &StatusDocument) -> String {
    const NAMED: usize = 4;
    let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for upstream in &document.upstreams {
        let Some(DetectionStatus { out_s, back_s }) = upstream.detection else { continue };
        alike.entry(detection(out_s, back_s)).or_default().push(&upstream.name);
    }
    let line = |(times, names): (&String, &Vec<&str>)| {
        let more = names.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        format!("{}{more}: {times}\n", Printable(&named))
    };
    alike.iter().map(line).collect()
}

/// Checks that may be wrong themselves.
fn suspicions(document: &StatusDocument) -> String {
    let told = document.upstreams.iter().filter_map(|upstream| upstream.suspicion.as_deref());
    told.map(|told| format!("SUSPECT check: {}\n", Printable(told))).collect()
}

/// What is wrong, a line per upstream, and what users notice of it.
fn summary(document: &StatusDocument, is_sound: bool) -> String {
    let mut lines: Vec<String> =
        document.upstreams.iter().filter(|u| u.up < u.total || u.is_down()).map(trouble).collect();
    if lines.is_empty() {
        lines.push(no_trouble(document, is_sound));
    }
    lines.join("\n") + &users(document.gateway.recent.as_ref()) + "\n"
}

/// No backend is known to be bad. That is good only if all are asked and used, users say so too, and nothing else is wrong.
fn no_trouble(document: &StatusDocument, is_sound: bool) -> String {
    let total = |checked: bool| -> usize {
        document.upstreams.iter().filter(|upstream| upstream.checked == checked).map(|upstream| upstream.total).sum()
    };
    let errors = document.gateway.recent.and_then(|recent| recent.error_percent).unwrap_or_default();
    let drained: usize = document.upstreams.iter().map(drained).sum();
    let is_good = is_sound && errors <= 0.0 && drained == 0;
    let drained = if drained == 0 { String::new() } else { format!(", {drained} drained") };
    match (total(true), total(false)) {
        (0, 0) => "No backends.".to_owned(),
        (0, 1) => format!("1 backend, not checked{drained}."),
        (0, unchecked) => format!("{unchecked} backends, none checked{drained}."),
        (up, 0) if is_good => format!("All good: {up} of {up} backends up."),
        (up, 0) => format!("All up: {up} of {up} backends{drained}."),
        (up, unchecked) => format!("All up: {up} of {up} checked backends, {unchecked} not checked{drained}."),
    }
}

/// Backends that somebody drains. Those that were removed are not among them.
fn drained(upstream: &UpstreamStatus) -> usize {
    upstream.backends.iter().filter(|backend| backend.state == "draining" && backend.draining.is_some()).count()
}

fn trouble(upstream: &UpstreamStatus) -> String {
    let UpstreamStatus { total, up, .. } = upstream;
    let what = match upstream.tier.as_str() {
        "nobody" if *total == 0 => nobody_but_drained(drained(upstream)),
        "nobody" => format!("no backend of {total} is eligible: requests are refused"),
        "try_all" => format!("{} of {total} not up: all are tried (when_all_down: try_all)", total - up),
        "too_few" => format!("{up} of {total} up, which is less than min_capacity: requests are refused"),
        "ejected" => format!("{} of {total} not up: those that live traffic speaks against are tried", total - up),
        "backup" => format!("{} of {total} not up: backups take the traffic", total - up),
        _ => count_states(upstream),
    };
    let change = upstream.last_change.as_deref().map(|at| format!(" Last change {}.", clock(at, "HH:MM:SS")));
    Printable(&format!("{}: {what}.{}", upstream.name, change.unwrap_or_default())).to_string()
}

fn nobody_but_drained(drained: usize) -> String {
    match drained {
        0 => "it has no backend: requests are refused".to_owned(),
        1 => "its only backend is drained: requests are refused".to_owned(),
        all => format!("all {all} backends are drained: requests are refused"),
    }
}

/// `1 of 3 down`, `1 of 3 down, 1 checking, 1 drained`.
fn count_states(upstream: &UpstreamStatus) -> String {
    let count = |state: &str| upstream.backends.iter().filter(|backend| backend.state == state).count();
    let states = ["down", "ejected", "degraded", "checking"].into_iter().map(|state| (state, count(state)));
    let states = states.chain([("drained", drained(upstream))]);
    let mut said = states.filter(|(_, count)| *count > 0).map(|(state, count)| (count, state));
    let Some((first, state)) = said.next() else { return format!("{} of {} up", upstream.up, upstream.total) };
    let first = format!("{first} of {} {state}", upstream.total);
    said.fold(first, |text, (count, state)| format!("{text}, {count} {state}"))
}

fn users(recent: Option<&Recent>) -> String {
    match recent {
        Some(Recent { error_percent: Some(percent), seconds, .. }) => {
            let window = if *seconds >= 55.0 { "minute".to_owned() } else { format!("{seconds:.0}s") };
            format!(" Users see: {percent:.1}% gateway errors in the last {window}.")
        }
        Some(Recent { error_percent: None, .. }) => " No requests in the last minute.".to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        admin::tests::{Server, gateway, refuse_an_edit, set},
        upstream::Verdict,
    };

    fn backend(name: &str, state: &str, for_s: u64, why: &str, recent: &Value, connections: u32) -> Value {
        json!({
            "name": name, "address": "10.0.1.11:9001", "state": state, "since": "2026-11-22T12:01:07.000000Z",
            "for_s": for_s, "reason": "", "why": why, "eligible": state != "down", "backup": false, "weight": 1,
            "requests": 0, "errors": 0, "in_flight": 0, "connections": connections, "recent": recent, "unknown": 1,
        })
    }

    fn recent(requests_per_s: f64, error_percent: impl Into<Option<f64>>, p95_ms: impl Into<Option<f64>>) -> Value {
        let (error_percent, p95_ms) = (error_percent.into(), p95_ms.into());
        json!({ "seconds": 60.0, "requests_per_s": requests_per_s, "error_percent": error_percent, "p95_ms": p95_ms })
    }

    fn document() -> Value {
        let (idle, days) = (recent(0.0, None, None), 3 * 86_400 + 4 * 3_600);
        let mut backup = backend("10.0.2.10:9001", "up", days, "200 in 4 ms", &idle, 0);
        backup["backup"] = json!(true);
        json!({
            "version": "0.1.0", "timestamp": "2026-11-22T12:03:48.000000Z", "started": "2026-11-19T08:03:48.000000Z",
            "uptime_s": days, "ready": true, "reason": null, "status": "degraded",
            "config": {
                "file": "tidegate.yaml", "generation": 7, "sha": "3f9c1e2", "since": "2026-11-22T11:58:00.000000Z",
                "last_attempt": {
                    "ok": true, "at": "2026-11-22T11:58:00.000000Z", "by": "file watch",
                    "errors": 0, "warnings": 0, "findings": [],
                },
            },
            "upstreams": [
                {
                    "name": "orders", "status": "degraded", "checked": true, "tier": "primary",
                    "up": 2, "eligible": 2, "total": 3, "last_change": "2026-11-22T12:01:07.000000Z",
                    "detection": { "out_s": 17.0, "back_s": 15.0 },
                    "backends": [
                        backend("10.0.1.11:9001", "up", days, "200 in 3 ms", &recent(212.3, 0.0, 18.2), 7),
                        backend("big", "down", 161, "connect refused ×9", &idle, 0),
                        backup,
                    ],
                },
                {
                    "name": "web", "status": "up", "checked": false, "tier": "primary",
                    "up": 1, "eligible": 1, "total": 1, "last_change": null,
                    "backends": [backend("127.0.0.1:9010", "unchecked", days, "", &recent(4.0, 0.1, 6.0), 1)],
                },
            ],
            "gateway": { "requests": 9_000, "errors": 0, "recent": recent(216.3, 0.0, None) },
            "events": [],
        })
    }

    fn shown(document: Value) -> String {
        render(&serde_json::from_value(document).unwrap())
    }

    #[test]
    fn the_table() {
        insta::assert_snapshot!(shown(document()));
    }

    #[test]
    fn the_table_after_a_refused_edit_of_a_gateway_that_drains() {
        let mut document = document();
        document["ready"] = json!(false);
        document["reason"] = json!("draining");
        document["config"]["since"] = json!("2026-11-20T11:58:00.000000Z");
        document["config"]["last_attempt"] = json!({
            "ok": false, "at": "2026-11-22T12:05:40.000000Z", "by": "file watch", "errors": 1, "warnings": 0,
            "findings": ["tidegate.yaml:9:9: error[E0301]: route `orders` sends to `order`, which is not an upstream"],
        });
        document["upstreams"][0]["tier"] = json!("nobody");
        document["upstreams"][0]["up"] = json!(0);
        document["upstreams"][1]["backends"][0]["recent"] = json!(null);
        document["gateway"]["recent"] = json!(null);
        insta::assert_snapshot!(shown(document));
    }

    #[test]
    fn the_last_line_says_what_is_wrong() {
        let last_line = |tier: &str, up: u64, states: [&str; 3]| {
            let mut document = document();
            document["upstreams"][0]["tier"] = json!(tier);
            document["upstreams"][0]["up"] = json!(up);
            document["upstreams"][0]["last_change"] = json!(null);
            for (index, state) in states.into_iter().enumerate() {
                document["upstreams"][0]["backends"][index]["state"] = json!(state);
            }
            document["gateway"]["recent"] = json!(null);
            shown(document).lines().last().unwrap().to_owned()
        };
        let all_up = "All up: 3 of 3 checked backends, 1 not checked.";
        assert_eq!(last_line("primary", 3, ["up", "up", "up"]), all_up);
        assert_eq!(last_line("primary", 1, ["up", "degraded", "down"]), "orders: 1 of 3 down, 1 degraded.");
        assert_eq!(last_line("checking", 0, ["checking", "checking", "checking"]), "orders: 3 of 3 checking.");
        let backup = "orders: 2 of 3 not up: backups take the traffic.";
        assert_eq!(last_line("backup", 1, ["down", "down", "up"]), backup);
        let tried = "orders: 3 of 3 not up: all are tried (when_all_down: try_all).";
        assert_eq!(last_line("try_all", 0, ["down", "down", "down"]), tried);
        let refused = "orders: no backend of 3 is eligible: requests are refused.";
        assert_eq!(last_line("nobody", 0, ["down", "down", "down"]), refused);
    }

    #[test]
    fn all_is_good_only_if_every_backend_is_asked_and_no_user_sees_an_error() {
        let last_line = |checked: [bool; 2], error_percent: Option<f64>| {
            let mut document = document();
            document["upstreams"][0]["up"] = json!(3);
            for (index, checked) in checked.into_iter().enumerate() {
                document["upstreams"][index]["checked"] = json!(checked);
            }
            document["gateway"]["recent"]["error_percent"] = json!(error_percent);
            shown(document).lines().last().unwrap().to_owned()
        };
        let idle = "No requests in the last minute.";
        let none_seen = "Users see: 0.0% gateway errors in the last minute.";
        let some_seen = "Users see: 14.3% gateway errors in the last minute.";
        let lines = [
            ([true, true], Some(0.0), format!("All good: 4 of 4 backends up. {none_seen}")),
            ([true, true], None, format!("All good: 4 of 4 backends up. {idle}")),
            ([true, true], Some(14.3), format!("All up: 4 of 4 backends. {some_seen}")),
            ([true, false], Some(0.0), format!("All up: 3 of 3 checked backends, 1 not checked. {none_seen}")),
            ([false, false], Some(0.0), format!("4 backends, none checked. {none_seen}")),
        ];
        for (checked, error_percent, line) in lines {
            assert_eq!(last_line(checked, error_percent), line);
        }
    }

    /// A backend that somebody drains counts for nothing.
    fn drained_document() -> Value {
        let mut document = document();
        document["upstreams"][1]["checked"] = json!(true);
        document["upstreams"][0]["up"] = json!(2);
        document["upstreams"][0]["total"] = json!(2);
        drain_one(&mut document["upstreams"][0]["backends"][1]);
        document
    }

    fn drain_one(backend: &mut Value) {
        backend["state"] = json!("draining");
        backend["draining"] = json!({
            "by": "ann", "reason": "", "since": "2026-11-22T12:01:07.000000Z", "until": null, "deadline": null,
        });
    }

    fn last_line(document: Value) -> String {
        shown(document).lines().last().unwrap().to_owned()
    }

    const SEEN: &str = "Users see: 0.0% gateway errors in the last minute.";

    #[test]
    fn not_all_is_good_while_a_backend_is_drained_or_ejected_or_a_check_is_suspect() {
        let mut document = drained_document();
        document["gateway"]["recent"]["error_percent"] = json!(0.0);
        assert_eq!(last_line(document.clone()), format!("All up: 3 of 3 backends, 1 drained. {SEEN}"));

        document["upstreams"][0]["backends"][0]["state"] = json!("ejected");
        document["upstreams"][0]["up"] = json!(1);
        document["upstreams"][0]["last_change"] = json!(null);
        assert_eq!(last_line(document), format!("orders: 1 of 2 ejected, 1 drained. {SEEN}"));

        let mut document = self::document();
        document["upstreams"][0]["up"] = json!(3);
        document["upstreams"][1]["checked"] = json!(true);
        document["upstreams"][0]["suspicion"] = json!("every backend of `orders` fails its check");
        assert_eq!(last_line(document), format!("All up: 4 of 4 backends. {SEEN}"));
    }

    #[test]
    fn who_has_drained_everybody_is_told_so() {
        let mut document = drained_document();
        document["gateway"]["recent"] = json!(null);
        let upstream = &mut document["upstreams"][0];
        (upstream["up"], upstream["total"], upstream["tier"]) = (json!(0), json!(0), json!("nobody"));
        upstream["last_change"] = json!(null);
        upstream["backends"].as_array_mut().unwrap().iter_mut().for_each(drain_one);
        assert_eq!(last_line(document.clone()), "orders: all 3 backends are drained: requests are refused.");
        let backends = document["upstreams"][0]["backends"].as_array_mut().unwrap();
        backends.truncate(1);
        assert_eq!(last_line(document), "orders: its only backend is drained: requests are refused.");
    }

    #[test]
    fn a_name_that_leads_to_another_backend_is_told() {
        let mut document = document();
        let alias = |name: &str| json!({ "name": name, "backend": "big" });
        document["upstreams"][0]["aliases"] = json!([alias("api.test:9001@10.0.1.12"), alias("b.test:9001@10.0.1.12")]);
        let said = "orders: api.test:9001@10.0.1.12 has the address of big: they are one backend, and 1 more like it\n";
        assert!(shown(document.clone()).contains(said), "{}", shown(document));
    }

    #[test]
    fn a_name_that_dns_does_not_confirm_is_told_and_all_is_not_good() {
        let mut document = document();
        (document["upstreams"][0]["up"], document["upstreams"][0]["backends"][1]["state"]) = (json!(3), json!("up"));
        document["stale_names"] = json!([{
            "name": "api.test", "addresses": 2, "since": "2026-11-22T12:01:07.000000Z", "why": "no answer in 2s",
        }]);
        let shown = shown(document);
        assert!(shown.contains("DNS: api.test keeps 2 addresses since 12:01:07: no answer in 2s\n"), "{shown}");
        assert!(!shown.contains("All good"), "{shown}");
    }

    #[test]
    fn where_nobody_probes_it_says_which_block_is_missing() {
        let shown = shown(document());
        assert!(shown.contains("no check  3d4h   no `health.active` configured"), "{shown}");
    }

    #[test]
    fn what_is_younger_than_a_second_is_so_for_0s() {
        assert_eq!([0, 1, 61].map(elapsed), ["0s", "1s", "1m01s"]);
    }

    #[test]
    fn nothing_that_a_backend_says_reaches_the_terminal_raw() {
        let mut document = document();
        document["upstreams"][0]["backends"][1]["why"] = json!("\u{1b}[2J\r\nfine");
        let shown = shown(document);
        assert!(shown.contains("\\u{1b}[2J\\r\\nfine") && !shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn who_drains_it_and_until_when_it_is_out_is_shown() {
        let mut document = document();
        let backends = &mut document["upstreams"][0]["backends"];
        backends[0]["held"] = json!(true);
        backends[1]["state"] = json!("draining");
        backends[1]["why"] = json!("drained by ann: deploy");
        backends[1]["draining"] = json!({
            "by": "ann", "reason": "deploy", "since": "2026-11-22T12:01:07.000000Z",
            "until": "2026-11-22T12:16:07.000000Z", "deadline": null,
        });
        backends[2]["state"] = json!("ejected");
        backends[2]["why"] = json!("5 failed requests in a row (503), for 10.2s");
        backends[2]["ejected_until"] = json!("2026-11-22T12:04:08.000000Z");
        document["upstreams"][0]["up"] = json!(1);
        document["upstreams"][0]["total"] = json!(2);
        document["upstreams"][0]["suspicion"] =
            json!("every backend of `orders` fails its health check since that was edited");
        insta::assert_snapshot!(shown(document));
    }

    async fn ask(address: String, form: Form, exit: Exit) -> (Result<u8, Unanswered>, String) {
        let asked = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            let code = status(&StatusQuery { admin: &address, form, exit }, &mut out);
            (code, String::from_utf8(out).unwrap())
        });
        asked.await.unwrap()
    }

    #[tokio::test]
    async fn asks_a_running_gateway() {
        let gateway = gateway("routes: [{ path: /*, to: 127.0.0.1:9001, health: / }]");
        refuse_an_edit(&gateway);
        let server = Server::start(&gateway);
        let address = || server.address.to_string();
        let (code, table) = ask(address(), Form::Table, Exit::Health).await;
        assert_eq!(code.unwrap(), 0);
        assert!(table.contains("127.0.0.1:9001  checking") && table.contains("REFUSED edit at 12:05:40"), "{table}");

        set(&gateway, "/*", &[Verdict::Down]);
        assert_eq!(ask(address(), Form::Table, Exit::Health).await.0.unwrap(), 1);
        assert_eq!(ask(address(), Form::Table, Exit::Answered).await.0.unwrap(), 0);
        let by_name = format!("localhost:{}", server.address.port());
        let (code, json) = ask(by_name, Form::Json, Exit::Health).await;
        assert_eq!(code.unwrap(), 1);
        let document: StatusDocument = serde_json::from_str(&json).unwrap();
        assert_eq!(document.upstreams[0].backends[0].state, "down");
        server.stop().await;
    }

    #[tokio::test]
    async fn says_how_to_find_a_gateway_that_does_not_answer() {
        // Bound and not listened on: nobody else can have the port, and nobody answers.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
        let (refused, out) = ask(address.clone(), Form::Table, Exit::Answered).await;
        let message = refused.unwrap_err().to_string();
        let first = format!("no tidegate answers at {address}: connection refused");
        assert_eq!(message.lines().next(), Some(first.as_str()), "{message}");
        assert!(message.contains("--admin") && out.is_empty(), "{message}");
        let (nonsense, _) = ask("nonsense".to_owned(), Form::Table, Exit::Answered).await;
        assert_eq!(nonsense.unwrap_err().to_string(), "nonsense is neither HOST:PORT nor unix:PATH");
    }
}
