//! What an edit changes, by entity.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::plan::Plan;
use crate::base::Name;

/// The difference between two plans.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Addresses that accept clients.
    pub listeners: Entities,
    /// Groups of backends, the anonymous ones of routes among them.
    pub upstreams: Entities,
    /// Routes.
    pub routes: Entities,
    /// Fields of the process that take effect at once: `apis`, `dns`, `access_log`, `log`, `webhooks`, `shutdown`, `reload`.
    pub process: Vec<&'static str>,
    /// Fields that need a restart: `workers`, `max_probes`, `admin`.
    pub restart: Vec<&'static str>,
}

/// Names that were added, removed, or kept with another meaning.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entities {
    /// Only in the new plan.
    pub added: Vec<Name>,
    /// In both, and not equal.
    pub changed: Vec<Name>,
    /// Only in the old plan.
    pub removed: Vec<Name>,
}

/// Compares two plans.
#[must_use]
pub fn diff(old: &Plan, new: &Plan) -> Changes {
    let named =
        |fields: &[(&'static str, bool)]| fields.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    Changes {
        listeners: entities(&old.listeners, &new.listeners),
        upstreams: entities(&old.upstreams, &new.upstreams),
        routes: entities(&old.routes, &new.routes),
        process: named(&[
            ("apis", old.apis == new.apis),
            ("dns", old.dns == new.dns),
            ("access_log", old.access_log == new.access_log),
            ("log", old.log == new.log),
            ("webhooks", old.webhooks == new.webhooks),
            ("shutdown", old.shutdown == new.shutdown),
            ("reload", old.reload == new.reload),
        ]),
        restart: named(&[
            ("workers", old.workers == new.workers),
            ("max_probes", old.max_probes == new.max_probes),
            ("admin", old.admin == new.admin),
        ]),
    }
}

fn entities<T: PartialEq>(old: &BTreeMap<Name, Arc<T>>, new: &BTreeMap<Name, Arc<T>>) -> Entities {
    let mut entities = Entities::default();
    for (name, value) in new {
        match old.get(name) {
            None => entities.added.push(name.clone()),
            Some(before) if before != value => entities.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    entities.removed = old.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
    entities
}

impl Changes {
    /// Whether the plans mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `+1 route, ~1 upstream`; `no change` where there is none.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = vec![];
        let kinds = [("listener", &self.listeners), ("upstream", &self.upstreams), ("route", &self.routes)];
        for (sign, pick) in [
            ("+", (|e| &e.added) as fn(&Entities) -> &Vec<Name>),
            ("~", |entities| &entities.changed),
            ("-", |entities| &entities.removed),
        ] {
            for (kind, entities) in kinds {
                match pick(entities).len() {
                    0 => {}
                    1 => parts.push(format!("{sign}1 {kind}")),
                    count => parts.push(format!("{sign}{count} {kind}s")),
                }
            }
        }
        parts.extend(self.process.iter().chain(&self.restart).map(|field| format!("~{field}")));
        if parts.is_empty() { "no change".to_owned() } else { parts.join(", ") }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}
