//! What decides beside the probes: live traffic, capacity, and what happens when too few are left.

use std::time::Duration;

use http::HeaderName;

use super::super::{Check, upstream::DAY};
use crate::{
    base::Percent,
    config::{
        diagnostics::Code,
        plan::{Backend, FailureRatio, Health, Host, Passive, SuspectCheck, WhenAllDown, WhenOut},
        spec::{self, HealthSpec, PassiveSpec, ShortOr, Written},
        yaml::At,
    },
};

/// Fields of `health` that ask nobody.
pub(super) const RULES: &[&str] =
    &["degraded_weight", "min_capacity", "passive", "suspect_check", "when_all_down", "when_out"];

impl<'a> Check<'a> {
    /// Everything beside the checks.
    pub(super) fn rules(&mut self, at: At<'a>, written: &HealthSpec) -> Health {
        let plain = Health::default();
        let modes = [("fail", WhenAllDown::Fail), ("try_all", WhenAllDown::TryAll)];
        let what = "a mode for when all are down";
        let when_all_down = self.choice(at, "when_all_down", written.when_all_down.as_ref(), what, &modes);
        let modes = [("hold", SuspectCheck::Hold), ("eject", SuspectCheck::Eject)];
        let what = "a mode for a check that is suspect";
        let suspect_check = self.choice(at, "suspect_check", written.suspect_check.as_ref(), what, &modes);
        let modes = [("keep", WhenOut::Keep), ("close", WhenOut::Close)];
        let what = "a mode for connections to a backend that is out";
        let when_out = self.choice(at, "when_out", written.when_out.as_ref(), what, &modes);
        let whole = Percent::whole(100);
        let min_capacity = self.percent(at, "min_capacity", written.min_capacity.as_ref(), whole);
        let degraded = self.share(at, "degraded_weight", written.degraded_weight.as_ref());
        Health {
            checks: Vec::new(),
            when_all_down: when_all_down.unwrap_or_default(),
            passive: self.passive(at, written),
            min_capacity: min_capacity.unwrap_or(plain.min_capacity),
            degraded_weight: degraded.unwrap_or(plain.degraded_weight),
            suspect_check: suspect_check.unwrap_or_default(),
            when_out: when_out.unwrap_or_default(),
        }
    }

    /// What live traffic says.
    fn passive(&mut self, at: At<'a>, written: &HealthSpec) -> Option<Passive> {
        let at = at.key("passive");
        let written = match &written.passive {
            None => return Some(Passive::default()),
            Some(ShortOr::Short(short)) if short.text == "none" => return None,
            Some(ShortOr::Short(_)) => {
                let finding = self.finding(Code::NotAChoice, at, format!("`{}` is not passive health", at.shown()));
                self.report(finding.label("write none, or fields like failures: 5"));
                return None;
            }
            Some(ShortOr::Fields(fields)) => fields,
        };
        let plain = Passive::default();
        let failures = self.count(at, "failures", written.failures.as_ref(), 1..=1_000);
        let status = written.status.as_ref().map(|status| self.statuses(at.key("status"), status));
        if status.as_ref().is_some_and(|status| status.iter().any(|range| range.first < 400)) {
            let finding = self.finding(Code::Invalid, at.key("status"), "a status below 400 is no failure");
            self.report(finding.label("write statuses from 400 to 599"));
        }
        let moment = Duration::from_millis(1);
        let hour = moment..=Duration::from_secs(3_600);
        let slower_than = self.duration(at, "slower_than", written.slower_than.as_ref(), hour);
        let eject_for = self.duration(at, "eject_for", written.eject_for.as_ref(), moment..=DAY);
        let max_eject_for = self.duration(at, "max_eject_for", written.max_eject_for.as_ref(), moment..=DAY);
        let max_ejected = self.percent(at, "max_ejected", written.max_ejected.as_ref(), Percent::whole(100));
        let retry_after = self.flag(at, "retry_after", written.retry_after.as_ref());
        let (eject_for, max_eject_for) = self.ejection(at, eject_for, max_eject_for, &plain);
        Some(Passive {
            failures: failures.unwrap_or(plain.failures),
            status: status.unwrap_or(plain.status),
            slower_than,
            ratio: self.failure_ratio(at, written),
            eject_for,
            max_eject_for,
            max_ejected: max_ejected.unwrap_or(plain.max_ejected),
            retry_after: retry_after.unwrap_or(plain.retry_after),
            drain_header: written.drain_header.as_ref().and_then(|name| self.drain_header(at, &name.text)),
        })
    }

    /// The first ejection is not longer than the longest.
    fn ejection(
        &mut self,
        at: At<'a>,
        first: Option<Duration>,
        longest: Option<Duration>,
        plain: &Passive,
    ) -> (Duration, Duration) {
        if let (Some(first), Some(longest)) = (first, longest)
            && first > longest
        {
            let written = crate::base::duration::Written;
            let message = format!("eject_for ({}) is longer than max_eject_for ({})", written(first), written(longest));
            let finding = self.finding(Code::Contradiction, at.key("eject_for"), message);
            self.report(finding.label("a backend would be out for longer than the longest"));
        }
        let longest_or = longest.unwrap_or(plain.max_eject_for);
        let first = first.unwrap_or(plain.eject_for.min(longest_or));
        (first, longest.unwrap_or(plain.max_eject_for.max(first)))
    }

    /// A share of the backends that comes to nobody, or to one of two, where it is written.
    pub(in crate::config::check) fn few_ejected(&mut self, at: At<'a>, health: &Health, backends: &[Backend]) {
        let at = at.key("health").key("passive");
        let Some(rules) = health.passive.as_ref().filter(|_| at.has("max_ejected")) else { return };
        // A name may have any number of addresses.
        let is_known = backends.iter().all(|backend| !matches!(backend.host, Host::Dns(_)));
        let (all, share) = (backends.len(), rules.max_ejected);
        let (of, few, label) = match (all * usize::from(share.basis_points()) / 10_000, all) {
            // Drains that backends ask for know no such share.
            _ if share == Percent::whole(0) && rules.drain_header.is_some() => {
                (String::new(), "nobody", "live traffic ejects nobody: raise it")
            }
            _ if share == Percent::whole(0) => {
                (String::new(), "nobody", "live traffic ejects nobody: write `passive: none`, or raise it")
            }
            (0, 2..) if is_known => (format!(" of {all} backends"), "none", "live traffic ejects nobody"),
            (1, 2) if is_known => (format!(" of {all} backends"), "one", "one ejection uses it up"),
            _ => return,
        };
        let message = format!("max_ejected: {share}{of} is {few}");
        let finding = self.finding(Code::FewEjected, at.key("max_ejected"), message);
        self.report(finding.label(label));
    }

    /// A capacity for which nobody can join, where it is not written what happens below it.
    pub(in crate::config::check) fn no_backups(&mut self, at: At<'a>, health: &Health, backends: &[Backend]) {
        let (at, needed) = (at.key("health"), health.min_capacity);
        let has_backups = backends.iter().any(|backend| backend.tier > 0);
        if needed == Percent::whole(0) || has_backups || backends.is_empty() || at.has("when_all_down") {
            return;
        }
        let message = format!("min_capacity: {needed} without a backup");
        let finding = self.finding(Code::NoBackups, at.key("min_capacity"), message);
        let finding = finding.label("below it every request is refused: add a backup, or delete it");
        self.report(finding.note("`when_all_down: fail` says that this is meant, `try_all` tries all of them"));
    }

    fn failure_ratio(&mut self, at: At<'a>, written: &PassiveSpec) -> Option<FailureRatio> {
        let limit = self.share(at, "failure_ratio", written.failure_ratio.as_ref());
        let bounds = Duration::from_secs(1)..=Duration::from_secs(300);
        let window = self.duration(at, "window", written.window.as_ref(), bounds);
        let min_requests = self.count(at, "min_requests", written.min_requests.as_ref(), 1..=1_000_000);
        if written.failure_ratio.is_none() {
            for field in ["window", "min_requests"].into_iter().filter(|field| at.has(field)) {
                let message = format!("`{field}` says nothing without `failure_ratio`");
                let mut finding = self.finding(Code::Contradiction, at.key(field), message);
                finding.span = at.key(field).key_span();
                self.report(finding.label("add failure_ratio: 50%, or delete it"));
            }
        }
        let window = window.unwrap_or(Duration::from_secs(10));
        limit.map(|limit| FailureRatio { limit, window, min_requests: min_requests.unwrap_or(20) })
    }

    fn drain_header(&mut self, at: At<'a>, text: &str) -> Option<HeaderName> {
        const KEPT: &[&str] = &[
            "cache-control",
            "connection",
            "content-encoding",
            "content-length",
            "content-type",
            "date",
            "etag",
            "location",
            "retry-after",
            "server",
            "set-cookie",
            "transfer-encoding",
            "upgrade",
            "vary",
            "www-authenticate",
        ];
        let at = at.key("drain_header");
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !KEPT.contains(&name.as_str()) => Some(name),
            _ => {
                let finding = self.finding(Code::Invalid, at, format!("`{}` cannot ask for a drain", at.shown()));
                self.report(finding.label("write the name of a header like x-drain"));
                None
            }
        }
    }

    /// A share that is not nothing.
    fn share(&mut self, at: At<'a>, field: &str, written: Option<&Written<spec::Percent>>) -> Option<Percent> {
        let share = self.percent(at, field, written, Percent::whole(100))?;
        if share >= Percent::whole(1) {
            return Some(share);
        }
        let at = at.key(field);
        let finding = self.finding(Code::OutOfRange, at, format!("`{field}: {}` is below 1%", at.shown()));
        self.report(finding.label("from 1% to 100%"));
        None
    }
}
