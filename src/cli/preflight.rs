//! `tidegate check --probe`: every backend of a config is asked once, from here, as a gateway that runs it would ask.
//!
//! Nothing is started and nothing is remembered. The verdict is that of a first probe: it decides at once.

use std::{collections::BTreeMap, fmt::Write as _, io, sync::Arc, time::Duration};

use super::{Trouble, print::aligned};
use crate::{
    base::Name,
    config::{Sha, plan::Plan},
    control::Names,
    health::{Kind, Outcome, Resolver, Round},
    layers::PasswordPool,
    runtime::{self, Edition, Registry, Tokens},
    telemetry::{Events, Printable},
    tls,
};
use serde_json::json;

/// What was found of one backend by one check, or why it could not be asked.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) upstream: Name,
    pub(super) backend: Name,
    pub(super) check: Option<Name>,
    pub(super) said: Result<Outcome, String>,
}

/// Longer than all of them take.
const NO_LIMIT: Duration = Duration::from_secs(86_400);

/// Asks every backend that has a health check.
pub(super) fn ask_all(plan: &Arc<Plan>) -> Result<Vec<Finding>, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why: io::Error| Trouble(format!("cannot start: {why}")))?;
    let passwords = PasswordPool::new(1, 1).map_err(|why| Trouble(format!("cannot start a thread: {why}")))?;
    let found = runtime.block_on(ask(plan, passwords));
    // A look-up that nobody waits for any more may take as long as it likes.
    runtime.shutdown_background();
    Ok(found)
}

async fn ask(plan: &Arc<Plan>, passwords: PasswordPool) -> Vec<Finding> {
    let (queue, _nobody_reads) = std::sync::mpsc::sync_channel(1);
    let names = Names::start(Arc::new(Resolver::new(plan.dns.clone())), plan, Events::new(queue)).await;
    let registry = Registry::new(1, Tokens { faults: &[], closes: &[] }, passwords);
    let built = runtime::build(&registry, plan, Edition::new(1, Sha::of("")), &names.resolved(plan));
    let mut round = Round::default();
    for live in built.snapshot.upstreams.values() {
        round.add(&live.members, &live.plan.health.checks);
    }
    // Not within the time of the first probe.
    tls::warm_up();
    let mut outcomes = round.ask(NO_LIMIT).await.into_iter();
    let mut found = Vec::new();
    for (upstream, live) in &built.snapshot.upstreams {
        let finding = |backend: &Name, check: Option<&Name>, said| Finding {
            upstream: upstream.clone(),
            backend: backend.clone(),
            check: check.cloned(),
            said,
        };
        found.extend(live.unresolved.iter().map(|(backend, why)| finding(backend, None, Err(why.why.clone()))));
        for member in &live.members {
            for check in &live.plan.health.checks {
                let said = outcomes.next().flatten().ok_or_else(|| "the probe panicked".to_owned());
                found.push(finding(&member.name, Some(&check.name), said));
            }
        }
    }
    found
}

impl Finding {
    fn is_fit(&self) -> bool {
        self.said.as_ref().is_ok_and(|outcome| outcome.kind.is_fit())
    }

    fn verdict(&self) -> &'static str {
        match self.said.as_ref().map(|outcome| outcome.kind) {
            Ok(Kind::Pass) => "up",
            Ok(Kind::Degraded) => "degraded",
            Ok(Kind::Inconclusive) => "checking",
            Ok(Kind::Fail) | Err(_) => "DOWN",
        }
    }

    fn why(&self) -> &str {
        self.said.as_ref().map_or_else(String::as_str, |outcome| &outcome.detail)
    }
}

/// Whether every backend that was asked is fit.
pub(super) fn are_all_fit(found: &[Finding]) -> bool {
    found.iter().all(Finding::is_fit)
}

/// A table, and a line that counts.
pub(super) fn table(found: &[Finding]) -> String {
    const HEADINGS: [&str; 9] =
        ["UPSTREAM", "BACKEND", "VERDICT", "CHECK", "CONNECT", "TLS", "FIRST BYTE", "TOTAL", "WHY"];
    let rows: Vec<_> = std::iter::once(HEADINGS.map(str::to_owned)).chain(found.iter().map(row)).collect();
    let mut out = aligned(&rows);
    let (all, fit) = backends(found);
    let _ = writeln!(out, "{fit} of {all} backend{} fit", if all == 1 { " is" } else { "s are" });
    out
}

/// Backends that were asked, and those that every check calls fit.
fn backends(found: &[Finding]) -> (usize, usize) {
    let mut by_backend: BTreeMap<(&Name, &Name), bool> = BTreeMap::new();
    for finding in found {
        *by_backend.entry((&finding.upstream, &finding.backend)).or_insert(true) &= finding.is_fit();
    }
    (by_backend.len(), by_backend.values().filter(|is_fit| **is_fit).count())
}

fn row(finding: &Finding) -> [String; 9] {
    let outcome = finding.said.as_ref().ok();
    let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| format!("{:.1} ms", millis(time)));
    let cells = [
        finding.upstream.to_string(),
        finding.backend.to_string(),
        finding.verdict().to_owned(),
        finding.check.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        time(outcome.and_then(|outcome| outcome.connect)),
        time(outcome.and_then(|outcome| outcome.tls)),
        time(outcome.and_then(|outcome| outcome.first_byte)),
        time(outcome.map(|outcome| outcome.total)),
        finding.why().to_owned(),
    ];
    cells.map(|cell| Printable(&cell).to_string())
}

/// An object per line.
pub(super) fn json(found: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let outcome = finding.said.as_ref().ok();
        let time = |time: fn(&Outcome) -> Option<Duration>| outcome.and_then(time).map(millis);
        let object = json!({
            "upstream": *finding.upstream,
            "backend": *finding.backend,
            "verdict": finding.verdict().to_lowercase(),
            "check": finding.check.as_deref(),
            "reason": outcome.map_or("dns_error", |outcome| outcome.reason),
            "detail": finding.why(),
            "status": outcome.and_then(|outcome| outcome.status),
            "connect_ms": time(|outcome| outcome.connect),
            "tls_ms": time(|outcome| outcome.tls),
            "first_byte_ms": time(|outcome| outcome.first_byte),
            "total_ms": time(|outcome| Some(outcome.total)),
            "body": outcome.and_then(|outcome| outcome.body.as_deref()),
        });
        format!("{object}\n")
    };
    found.iter().map(line).collect()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
