//! Which stage each API was in when that was last looked at, so that a change by its date is told.
//!
//! Requests need none of this: they compare the dates with their own time. A look once a second is for the log.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::{Name, Timestamp},
    config::plan::Stage,
    runtime::{Api, Snapshot},
    telemetry::Event,
};

/// The stages that were told, or that an edit has brought.
#[derive(Debug, Default)]
pub(super) struct Stages {
    known: BTreeMap<Name, Stage>,
    // Without a date to come there is nothing to look at.
    next: Option<Timestamp>,
}

impl Stages {
    /// What an edit brings is told by the edit.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot, now: Timestamp) {
        self.known = snapshot.apis.iter().map(|(name, api)| (name.clone(), api.plan.stage_at(now))).collect();
        self.next = snapshot.apis.values().filter_map(|api| Some(api.plan.next(now)?.1)).min();
    }

    /// Whether a date is still to come.
    pub(super) fn is_awaiting(&self) -> bool {
        self.next.is_some()
    }

    /// What dates have changed since the last look.
    pub(super) fn look(&mut self, snapshot: &Snapshot, now: Timestamp) -> Vec<Event> {
        if self.next.is_none_or(|next| next > now) {
            return vec![];
        }
        let changed = snapshot.apis.iter().filter_map(|(name, api)| {
            let (from, to) = (*self.known.get(name)?, api.plan.stage_at(now));
            (from != to).then(|| changed(api, from, to))
        });
        let events = changed.collect();
        self.adopt(snapshot, now);
        events
    }
}

fn changed(api: &Arc<Api>, from: Stage, to: Stage) -> Event {
    let callers = api.callers().count();
    let field = if to == Stage::Retired { "sunset" } else { "deprecated" };
    let detail = match callers {
        0 => format!("its date `{field}` has come; nobody has called it"),
        1 => format!("its date `{field}` has come; one caller is known"),
        _ => format!("its date `{field}` has come; {callers} callers are known"),
    };
    let (name, version) = (api.plan.name.clone(), api.plan.version.clone());
    Event::Api { api: name, version, from: from.as_str(), to: to.as_str(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, Source},
        layers::PasswordPool,
        runtime::{Edition, Registry, Resolved, Tokens, build},
    };

    fn snapshot(apis: &str) -> Snapshot {
        let text = format!(
            "listen: 8080\napis: {{ a: {{ version: 1, {apis} }} }}
routes: [{{ path: /*, to: 127.0.0.1:9001, health: none, api: a }}]\n"
        );
        let loaded = config::load(&Source { path: "t.yaml".into(), text }, &|_| None).unwrap();
        let registry = Registry::new(1, Tokens { faults: &[], closes: &[] }, PasswordPool::new(1, 1).unwrap());
        build(&registry, &loaded.plan, Edition::new(1, loaded.sha), &Resolved::default()).snapshot
    }

    fn told(events: &[Event]) -> Vec<(&str, &str)> {
        events
            .iter()
            .filter_map(|e| if let Event::Api { from, to, .. } = e { Some((*from, *to)) } else { None })
            .collect()
    }

    #[test]
    fn a_date_is_told_once_and_an_edit_is_not() {
        let at = |text: &str| Timestamp::of_date(text).unwrap();
        let snapshot = snapshot("stage: beta, deprecated: 2026-02-01, sunset: 2026-03-01");
        let mut stages = Stages::default();
        stages.adopt(&snapshot, at("2026-01-01"));
        assert!(stages.is_awaiting());
        assert_eq!(told(&stages.look(&snapshot, at("2026-01-31"))), []);
        assert_eq!(told(&stages.look(&snapshot, at("2026-02-01"))), [("beta", "deprecated")]);
        assert_eq!(told(&stages.look(&snapshot, at("2026-02-02"))), []);
        assert_eq!(told(&stages.look(&snapshot, at("2026-03-02"))), [("deprecated", "retired")]);
        assert!(!stages.is_awaiting());
        stages.adopt(&snapshot, at("2026-01-01"));
        assert_eq!(told(&stages.look(&snapshot, at("2026-04-01"))), [("beta", "retired")]);
        stages.adopt(&snapshot, at("2026-04-01"));
        assert_eq!(told(&stages.look(&snapshot, at("2026-04-01"))), []);
    }
}
