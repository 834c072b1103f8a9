//! What an edit makes of each backend: which ones keep what is known of them, and which ones start anew.
//!
//! Known as soon as a plan is built, so before it goes live as well as after: it says what the health tasks are about to do
//! with the members that they are handed, and asks nobody.

use std::{
    collections::{HashMap, HashSet},
    sync::Weak,
};

use super::{Registry, registry::KeptUpstream};
use crate::{
    base::Name,
    config::plan::Health,
    upstream::{Member, Slot},
};

/// What an edit makes of a backend.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Fate {
    /// It stays the same, and is asked the same: verdict, streaks and connections stay.
    Kept,
    /// It stays the same, and is asked something else: it starts from the verdict that it had.
    ReProbing,
    /// It gets no traffic before its first pass, while others are up.
    New,
    /// It is gone from the config, and finishes its requests.
    Draining,
}

impl Fate {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Kept, Self::ReProbing, Self::New, Self::Draining];

    /// The word that logs and the admin API show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Kept => "kept",
            Self::New => "new",
            Self::ReProbing => "re-probing",
        }
    }
}

/// A backend, and what an edit makes of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Carried {
    /// Its upstream, as it is called from then on; of one that is gone, as it was called.
    pub upstream: Name,
    /// Its name; of one whose name does not resolve, the name as written.
    pub backend: Name,
    /// What becomes of it.
    pub fate: Fate,
}

/// What an edit makes of every backend, those that go last within their upstream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CarryOver(Vec<Carried>);

impl CarryOver {
    /// From what is in force to what was built from it.
    #[must_use]
    pub fn between(old: &Registry, new: &Registry) -> Self {
        let mut all = Vec::new();
        for (id, upstream) in &new.upstreams {
            all.extend(carried(old.upstreams.get(id), upstream));
        }
        for (_, gone) in old.upstreams.iter().filter(|(id, _)| !new.upstreams.contains_key(id)) {
            let drains = |member: &Member| Carried::new(&gone.plan.name, &member.name, Fate::Draining);
            all.extend(gone.members.iter().map(drains));
        }
        Self(all)
    }

    /// Each backend.
    pub fn iter(&self) -> std::slice::Iter<'_, Carried> {
        self.0.iter()
    }

    /// How many backends have this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.iter().filter(|carried| carried.fate == fate).count()
    }

    /// `12 kept, 1 re-probing, 2 new, 1 draining`, without those that are none; `None` where every backend is kept.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let counts = Fate::ALL.map(|fate| (fate, self.count(fate)));
        let told: Vec<String> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(fate, n)| format!("{n} {}", fate.as_str())).collect();
        (self.0.len() > self.count(Fate::Kept)).then(|| told.join(", "))
    }
}

impl<'a> IntoIterator for &'a CarryOver {
    type Item = &'a Carried;
    type IntoIter = std::slice::Iter<'a, Carried>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Carried {
    fn new(upstream: &Name, backend: &Name, fate: Fate) -> Self {
        Self { upstream: upstream.clone(), backend: backend.clone(), fate }
    }
}

/// The backends of one upstream, and those that leave it.
fn carried(old: Option<&KeptUpstream>, new: &KeptUpstream) -> Vec<Carried> {
    let known: HashMap<Slot, Option<&Member>> = old.map(known).unwrap_or_default();
    let has_new_check = old.is_some_and(|old| has_new_check(&old.plan.health, &new.plan.health));
    let is_checked = new.plan.health.is_checked();
    let fate = |member: &Member| match known.get(&member.backend.slot()) {
        None => Fate::New,
        // The host that a check asks for is a part of the question.
        Some(Some(before)) if is_checked && before.authority != member.authority => Fate::ReProbing,
        Some(_) if has_new_check => Fate::ReProbing,
        Some(_) => Fate::Kept,
    };
    let was_unresolved = |name: &Name| old.is_some_and(|old| old.unresolved.contains(name));
    let fate_of_name = |name: &Name| if was_unresolved(name) { Fate::Kept } else { Fate::New };
    let stays: HashSet<Slot> = new.members.iter().map(|member| member.backend.slot()).collect();
    let leaves = |member: &&Member| !stays.contains(&member.backend.slot());

    let upstream = &new.plan.name;
    let staying = new.members.iter().map(|member| Carried::new(upstream, &member.name, fate(member)));
    let unresolved = new.unresolved.iter().map(|name| Carried::new(upstream, name, fate_of_name(name)));
    let leaving = old.into_iter().flat_map(|old| old.members.iter().filter(leaves));
    let leaving = leaving.map(|member| Carried::new(upstream, &member.name, Fate::Draining));
    staying.chain(unresolved).chain(leaving).collect()
}

/// The backends of which something is known: the members, and those that have left and are still at work.
fn known(upstream: &KeptUpstream) -> HashMap<Slot, Option<&Member>> {
    let departed = upstream.departed.iter().filter_map(Weak::upgrade);
    let at_work = departed.filter(|backend| !backend.is_draining() || backend.in_flight() > 0);
    let present = upstream.members.iter().map(|member| (member.backend.slot(), Some(member)));
    at_work.map(|backend| (backend.slot(), None)).chain(present).collect()
}

fn has_new_check(old: &Health, new: &Health) -> bool {
    new.checks.iter().any(|check| !old.checks.contains(check))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::{self, Sha},
        layers::PasswordPool,
        runtime::{Edition, Resolved, Tokens, build},
        upstream::{Condition, Lease, Verdict},
    };

    /// Registries of one edit after the other.
    struct Edits(Registry);

    impl Edits {
        fn new() -> Self {
            let passwords = PasswordPool::new(1, 1).unwrap();
            Self(Registry::new(1, Tokens { faults: &[], closes: &[] }, passwords))
        }

        fn apply(&mut self, yaml: &str) -> CarryOver {
            self.apply_resolved(yaml, &Resolved::new())
        }

        fn apply_resolved(&mut self, yaml: &str, resolved: &Resolved) -> CarryOver {
            let text = format!("listen: 127.0.0.1:8080\n{yaml}");
            let source = config::Source { path: "tidegate.yaml".into(), text };
            let plan = config::load(&source, &|_| None).unwrap_or_else(|report| panic!("{}", report.short())).plan;
            let built = build(&self.0, &plan, Edition::new(1, Sha::of("")), resolved);
            let carried = CarryOver::between(&self.0, &built.registry);
            self.0 = built.registry;
            carried
        }
    }

    /// One upstream `a` of these ports, and another one that no edit names.
    fn config(ports: &[u16], fields: &str) -> String {
        let addresses: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let addresses = addresses.join(", ");
        format!(
            "upstreams:\n  a: {{ backends: [{addresses}], {fields} }}\n  b: {{ backends: [\"127.0.0.1:9\"], health: tcp }}\n\
             routes: [{{ path: /*, to: a }}, {{ path: /b, to: b }}]\n"
        )
    }

    fn told(carried: &CarryOver) -> Vec<String> {
        let told = |carried: &Carried| {
            let backend = carried.backend.trim_start_matches("127.0.0.1:");
            format!("{}/{backend} {}", carried.upstream, carried.fate.as_str())
        };
        carried.iter().map(told).collect()
    }

    #[test]
    fn the_first_config_is_all_new() {
        let carried = Edits::new().apply(&config(&[1, 2], "health: /healthz"));
        assert_eq!(told(&carried), ["a/1 new", "a/2 new", "b/9 new"]);
        assert_eq!(carried.summary().as_deref(), Some("3 new"));
    }

    #[test]
    fn what_an_edit_does_not_name_is_kept_and_not_worth_a_word() {
        let mut edits = Edits::new();
        edits.apply(&config(&[1, 2], "health: /healthz"));
        let carried = edits.apply(&config(&[1, 2], "health: /healthz, max_in_flight: 7"));
        assert_eq!(told(&carried), ["a/1 kept", "a/2 kept", "b/9 kept"]);
        assert_eq!(carried.summary(), None);
    }

    #[test]
    fn backends_come_and_go() {
        let mut edits = Edits::new();
        edits.apply(&config(&[1, 2], "health: /healthz"));
        let carried = edits.apply(&config(&[3, 2], "health: /healthz"));
        assert_eq!(told(&carried), ["a/3 new", "a/2 kept", "a/1 draining", "b/9 kept"]);
        assert_eq!(carried.summary().as_deref(), Some("2 kept, 1 new, 1 draining"));
    }

    #[test]
    fn another_check_asks_anew_and_one_check_less_does_not() {
        let mut edits = Edits::new();
        let both = "health: { active: [{ path: /ready }, { type: tcp }] }";
        edits.apply(&config(&[1], "health: /ready"));
        assert_eq!(edits.apply(&config(&[1, 2], both)).summary().as_deref(), Some("1 kept, 1 re-probing, 1 new"));
        assert_eq!(edits.apply(&config(&[1, 2], "health: /ready")).summary(), None);
        let slower = "health: { active: { path: /ready, interval: 20s } }";
        assert_eq!(edits.apply(&config(&[1, 2], slower)).summary().as_deref(), Some("1 kept, 2 re-probing"));
        assert_eq!(edits.apply(&config(&[1, 2], "health: none")).summary(), None);
    }

    #[test]
    fn an_upstream_that_goes_drains_and_one_in_tls_is_another() {
        let mut edits = Edits::new();
        edits.apply(&config(&[1], "health: tcp"));
        let secured = config(&[1], "health: tcp").replace("\"127.0.0.1:1\"", "\"https://127.0.0.1:1\"");
        assert_eq!(told(&edits.apply(&secured)), ["a/1 new", "a/1 draining", "b/9 kept"]);
        let carried = edits.apply("routes: [{ path: /, to: \"127.0.0.1:5\", health: tcp }]\n");
        assert_eq!(
            told(&carried),
            ["//127.0.0.1:5 new", "a/1 draining", "b/9 draining"].map(|told| told.replace("127.0.0.1:", ""))
        );
    }

    #[test]
    fn a_backend_that_returns_while_it_drains_is_kept_and_one_that_is_forgotten_is_new() {
        let mut edits = Edits::new();
        edits.apply(&config(&[1, 2], "health: tcp"));
        let kept = edits.0.upstreams.values().find(|kept| kept.plan.name.as_str() == "a").unwrap();
        let member = Arc::new(kept.members[0].clone());
        edits.apply(&config(&[2], "health: tcp"));
        member.backend.set_condition(Condition { is_removed: true, ..Condition::new(Verdict::Up) });
        let at_work = Lease::take(&member, None).unwrap();
        assert_eq!(edits.apply(&config(&[1, 2], "health: tcp")).summary(), None);
        edits.apply(&config(&[2], "health: tcp"));
        drop(at_work);
        assert_eq!(edits.apply(&config(&[1, 2], "health: tcp")).summary().as_deref(), Some("2 kept, 1 new"));
    }

    #[test]
    fn names_stand_for_their_addresses() {
        let mut edits = Edits::new();
        let named =
            |name: &str| config(&[], "health: tcp").replace("backends: []", &format!("backends: [\"{name}:80\"]"));
        let at = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Resolved::from([((Name::derived("api.test"), 80), Ok(addresses))])
        };
        let a =
            |carried: &CarryOver| told(carried).into_iter().filter(|told| told.starts_with("a/")).collect::<Vec<_>>();
        let both = edits.apply_resolved(&named("api.test"), &at(&["10.0.0.1:80", "10.0.0.2:80"]));
        assert_eq!(a(&both), ["a/api.test:80@10.0.0.1 new", "a/api.test:80@10.0.0.2 new"]);
        let one = edits.apply_resolved(&named("api.test"), &at(&["10.0.0.2:80"]));
        assert_eq!(a(&one), ["a/api.test:80@10.0.0.2 kept", "a/api.test:80@10.0.0.1 draining"]);
        let none = edits.apply(&named("api.test"));
        assert_eq!(a(&none), ["a/api.test:80 new", "a/api.test:80@10.0.0.2 draining"]);
        assert_eq!(edits.apply(&named("api.test")).summary(), None);
    }
}
