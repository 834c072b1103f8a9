//! What happened to one backend, for people and metrics: its last outcomes and changes, streaks and totals.
//!
//! Written by the upstream's health task alone; anybody reads a whole, consistent [`Record`] without waiting for it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{Backtest, History, Kind, Outcome, Thresholds, Trial, probe::Prepared};
use crate::base::{Name, Timestamp};

/// How many outcomes of each check, and how many changes, are kept.
const KEPT: usize = 20;

/// Who has changed what is shown of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Probes.
    Active,
    /// The backend itself, which has asked for it.
    Backend,
    /// Requests and their responses.
    LiveTraffic,
    /// Somebody, by command.
    Operator,
    /// An edit of the configuration, or other addresses behind a name in it.
    Reload,
}

impl Source {
    /// The word that logs and the admin API show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Backend => "backend",
            Self::LiveTraffic => "live_traffic",
            Self::Operator => "operator",
            Self::Reload => "reload",
        }
    }
}

/// A change of what is shown of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub source: Source,
    /// The generation of the configuration that was live.
    pub generation: u64,
    /// What was shown before: `checking`, `up`, ...
    pub from: &'static str,
    /// What is shown since.
    pub to: &'static str,
    /// Why, as a token: that of the deciding outcome; `failures`, `failure_ratio`, `time_over`; `drained`, `undrained`; `removed`,
    /// `returned`, `check_removed`.
    pub reason: &'static str,
    /// Why, in words: `3 bad probes in 1.9s (503)`.
    pub detail: String,
    /// The health check that decided, where one did.
    pub check: Option<Name>,
}

/// One probe, as it is remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The health check that it was sent for.
    pub check: Name,
    /// The generation of the configuration that was live.
    pub generation: u64,
    /// What it has found.
    pub outcome: Arc<Outcome>,
}

/// The probes of one health check that are remembered.
#[derive(Clone, Debug)]
pub struct Probed {
    /// What the check is called.
    pub check: Name,
    /// The last 20, the oldest first. There is at least one.
    pub recent: VecDeque<Arc<Probe>>,
    /// The last one that failed, however long ago that was.
    pub last_failed: Option<Arc<Probe>>,
}

impl Probed {
    const fn new(check: Name) -> Self {
        Self { check, recent: VecDeque::new(), last_failed: None }
    }

    fn push(&mut self, probe: Arc<Probe>) {
        if probe.outcome.kind == Kind::Fail {
            self.last_failed = Some(Arc::clone(&probe));
        }
        push(&mut self.recent, probe);
    }
}

/// Why a backend is drained although it is in the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drain {
    /// Who: an operator's name as given, or `backend` where it has asked for that itself.
    pub by: String,
    /// Why, as given.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself, from its beginning; `None` is never.
    pub lasts: Option<Duration>,
    /// When the requests and tunnels that it still has are cut, from its beginning; `None` is never.
    pub deadline: Option<Duration>,
}

impl Drain {
    const ITS_OWN: &'static str = "backend";

    /// What a backend asks for itself.
    pub(super) fn of_its_own(lasts: Duration) -> Self {
        Self {
            by: Self::ITS_OWN.to_owned(),
            reason: "it has asked for that in a response".to_owned(),
            since: Timestamp::now(),
            lasts: Some(lasts),
            deadline: None,
        }
    }

    /// The moment at which it ends by itself.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.lasts.map(|lasts| self.since + lasts)
    }

    /// The moment at which the requests and tunnels that it still has are cut.
    #[must_use]
    pub fn cuts_at(&self) -> Option<Timestamp> {
        self.deadline.map(|deadline| self.since + deadline)
    }

    pub(super) fn is_its_own(&self) -> bool {
        self.by == Self::ITS_OWN
    }
}

/// An ejection by live traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ejected {
    /// When it ends.
    pub until: Timestamp,
    /// The how manieth it is in a row, from 1.
    pub times: u32,
}

/// Everything that is remembered of one backend.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Fit outcomes in a row.
    pub good: u32,
    /// Failures in a row.
    pub bad: u32,
    /// Why it is in the state that is shown, as a token. Empty before the first outcome.
    pub reason: &'static str,
    /// Why it is in the state that is shown, in words: `200 in 3 ms`, `connect refused ×9`.
    pub detail: String,
    /// The last probes of the present health checks, of which there are at most 8.
    pub probed: Vec<Arc<Probed>>,
    /// The last 20 changes, the oldest first.
    pub changes: VecDeque<Arc<Change>>,
    /// Why it is drained, while it is.
    pub drain: Option<Drain>,
    /// Its ejection, while it lasts.
    pub ejected: Option<Ejected>,
    /// Why live traffic last spoke against it in vain: `last_one` or `share`, and the words.
    pub spared: Option<String>,
    /// Its checks say that it is down, and the check is suspect: it keeps its traffic.
    pub is_held: bool,
    /// Probes since the backend was first seen, by kind and reason.
    pub probes: BTreeMap<(Kind, &'static str), u64>,
    /// Changes since the backend was first seen, by what is shown since and reason.
    pub transitions: BTreeMap<(&'static str, &'static str), u64>,
}

impl Record {
    /// The probes of one check.
    #[must_use]
    pub fn of_check(&self, check: &Name) -> Option<&Probed> {
        self.probed.iter().find(|probed| probed.check == *check).map(|probed| &**probed)
    }

    /// The last 20 probes of each of the present health checks, in the order in which they began, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<&Arc<Probe>> {
        let mut recent: Vec<_> = self.probed.iter().flat_map(|probed| &probed.recent).collect();
        recent.sort_by_key(|probe| probe.outcome.at);
        recent
    }

    fn of_check_mut(&mut self, check: &Name) -> &mut Probed {
        if self.of_check(check).is_none() {
            self.probed.push(Arc::new(Probed::new(check.clone())));
        }
        let known = self.probed.iter_mut().find(|probed| probed.check == *check);
        Arc::make_mut(known.expect("it was there, or has just been added"))
    }
}

/// The record of one backend, as a place to read it from.
#[derive(Debug, Default)]
pub struct Timeline {
    record: ArcSwap<Record>,
    // By check. Written with each outcome, read when somebody asks what other thresholds would have done.
    history: Mutex<BTreeMap<Name, History>>,
}

impl Timeline {
    /// What is remembered now.
    #[must_use]
    pub fn read(&self) -> Arc<Record> {
        self.record.load_full()
    }

    /// What another deadline and other thresholds of a check would have made of its probes; `None` where there are none.
    #[must_use]
    pub fn backtest(&self, check: &str, present: Thresholds, trial: Trial) -> Option<Backtest> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.get(check).map(|history| history.backtest(present, trial))
    }

    /// Remembers a probe that a machine has taken in. `shown` are its words where it explains what is shown.
    pub(super) fn probed(&self, now: Instant, probe: Probe, streaks: (u32, u32), shown: Option<String>) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let of_check = history.entry(probe.check.clone()).or_insert_with(|| History::new(now));
        of_check.record(now, probe.outcome.kind, probe.outcome.total);
        drop(history);
        self.write(|record| {
            (record.good, record.bad) = streaks;
            let outcome = &probe.outcome;
            if let Some(shown) = shown {
                record.reason = outcome.reason;
                record.detail = match streaks.1 {
                    0 | 1 => shown,
                    bad => format!("{shown} ×{bad}"),
                };
            }
            *record.probes.entry((outcome.kind, outcome.reason)).or_default() += 1;
            record.of_check_mut(&probe.check).push(Arc::new(probe));
        });
    }

    /// Remembers a change that no outcome explains, or that it does.
    pub(super) fn changed(&self, change: Change) {
        self.write(|record| {
            *record.transitions.entry((change.to, change.reason)).or_default() += 1;
            push(&mut record.changes, Arc::new(change));
        });
    }

    /// Says why the backend is in the state that is shown, where no outcome does.
    pub(super) fn explain(&self, reason: &'static str, detail: &str) {
        self.write(|record| (record.reason, record.detail) = (reason, detail.to_owned()));
    }

    /// Forgets the outcomes of health checks that are `gone`, or are asked in another way; what is shown, the changes and the totals stay.
    /// The history of checks that are still there by name stays as well: other thresholds are no other question.
    pub(super) fn new_check(&self, checks: &[Arc<Prepared>], gone: &[Name]) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.retain(|name, _| checks.iter().any(|prepared| prepared.check().name == *name));
        drop(history);
        self.write(|record| {
            (record.good, record.bad) = (0, 0);
            record.probed.retain(|probed| !gone.contains(&probed.check));
        });
    }

    /// Changes what is known beside the probes.
    pub(super) fn note(&self, change: impl FnOnce(&mut Record)) {
        self.write(change);
    }

    // One writer, so nothing is lost between the load and the store.
    fn write(&self, change: impl FnOnce(&mut Record)) {
        let mut record = Record::clone(&self.record.load());
        change(&mut record);
        self.record.store(Arc::new(record));
    }
}

fn push<T>(kept: &mut VecDeque<T>, newest: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(newest);
}
