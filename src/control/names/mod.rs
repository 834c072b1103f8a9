//! The names of backends: what each stands for now, and when it is looked up again.
//!
//! Each name has its own schedule: again when its TTL has passed, sooner and sooner less after failures. Look-ups are tasks; the
//! [`Reloader`](super::Reloader) waits for [`Names::changed`] beside its other work, and what comes in together is one change.
//!
//! What an answer means for the addresses in force is decided by [`Known::hear`], which asks nobody: an answer replaces them; where DNS
//! says that there are none they are held for a while, because it may be a mistake, and then dropped, because they may be somebody
//! else's by then; where nobody can say they stay for as long as that lasts.

mod known;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use known::Known;
pub use known::{NameNow, NameRecord, Trouble};

use crate::{
    base::{Name, duration::Written},
    config::plan::{Dns, Plan},
    health::{Answer, LookUp, ResolveError},
    runtime::{self, Resolved, Snapshot},
    telemetry::{Event, Events},
};

/// Look-ups under way at once.
const PARALLEL: usize = 32;

/// An edit does not wait longer for its new names than that.
const LOOKUP: Duration = Duration::from_secs(2);

/// Changes that come within this are one.
const TOGETHER: Duration = Duration::from_millis(20);

/// For whoever waits for nothing.
const LONG: Duration = Duration::from_secs(3_600);

/// The names in force.
#[derive(Debug)]
pub struct Names {
    lookup: Arc<dyn LookUp>,
    dns: Dns,
    known: BTreeMap<Name, Known>,
    lookups: JoinSet<Result<Answer, ResolveError>>,
    asked: HashMap<Id, Name>,
    permits: Arc<Semaphore>,
    // When a change is told, once there is one.
    ripe: Option<Instant>,
    // What was told of backends that are one.
    aliases: BTreeSet<String>,
    events: Events,
}

/// The names of an edit that is not in force yet.
#[derive(Debug)]
pub(super) struct Prepared {
    // What the look-ups are made by from then on, where that changes.
    lookup: Option<Arc<dyn LookUp>>,
    new: BTreeMap<Name, Known>,
    /// What all names of the edit stand for.
    pub(super) resolved: Resolved,
}

impl Names {
    /// Looks up the names of the first config. Those that take too long come later.
    pub async fn start(lookup: Arc<dyn LookUp>, plan: &Plan, events: Events) -> Self {
        let mut names = Self {
            lookup,
            dns: plan.dns.clone(),
            known: BTreeMap::new(),
            lookups: JoinSet::new(),
            asked: HashMap::new(),
            permits: Arc::new(Semaphore::new(PARALLEL)),
            ripe: None,
            aliases: BTreeSet::new(),
            events,
        };
        let prepared = names.prepare(plan).await;
        names.adopt(plan, prepared);
        names
    }

    /// What the names of a plan stand for.
    #[must_use]
    pub fn resolved(&self, plan: &Plan) -> Resolved {
        resolved(plan, |name| self.known.get(name))
    }

    /// The record of each name.
    pub(super) fn records(&self) -> BTreeMap<Name, Arc<NameRecord>> {
        self.known.iter().map(|(name, known)| (name.clone(), Arc::clone(&known.record))).collect()
    }

    /// Looks up the names of an edit that are new, and has no effect otherwise.
    pub(super) async fn prepare(&self, plan: &Plan) -> Prepared {
        let renewed = (plan.dns != self.dns).then(|| self.lookup.renewed(&plan.dns));
        let lookup = renewed.as_ref().unwrap_or(&self.lookup);
        let limit = plan.dns.timeout.min(LOOKUP);
        // An edit does not stand in line behind look-ups that hang.
        let permits = Arc::new(Semaphore::new(PARALLEL));
        let mut lookups = JoinSet::new();
        let mut new = BTreeMap::new();
        for name in hosts(plan).into_iter().filter(|name| !self.known.contains_key(name)) {
            let (looking, permits) = (look_up(lookup, &name, limit), Arc::clone(&permits));
            lookups.spawn(async move {
                let _permit = permits.acquire().await;
                (name, looking.await)
            });
        }
        let all = async {
            while let Some(done) = lookups.join_next().await {
                if let Ok((name, said)) = done {
                    new.insert(name, Known::first(said, &plan.dns));
                }
            }
        };
        let _ = timeout(LOOKUP, all).await;
        for name in hosts(plan).into_iter().filter(|name| !self.known.contains_key(name)) {
            new.entry(name).or_insert_with(|| Known::first(Err(ResolveError::Timeout(limit)), &plan.dns));
        }
        let resolved = resolved(plan, |name| self.known.get(name).or_else(|| new.get(name)));
        Prepared { lookup: renewed, new, resolved }
    }

    /// Puts the names of an edit in force.
    pub(super) fn adopt(&mut self, plan: &Plan, prepared: Prepared) {
        let hosts = hosts(plan);
        self.known.retain(|name, _| hosts.contains(name));
        if let Some(lookup) = prepared.lookup {
            self.lookup = lookup;
            self.dns = plan.dns.clone();
            // What others were asked is of no interest any more.
            self.lookups = JoinSet::new();
            self.asked.clear();
            self.known.values_mut().for_each(|known| known.due = Some(Instant::now()));
        }
        for (name, known) in prepared.new {
            self.tell(&name, None, &known);
            self.known.insert(name, known);
        }
    }

    /// Looks names up as they are due, and returns when some stand for something else. Nothing is lost if it is dropped before.
    pub(super) async fn changed(&mut self) {
        loop {
            let now = Instant::now();
            self.drop_overdue(now);
            self.ask(now);
            if self.ripe.take_if(|ripe| *ripe <= now).is_some() {
                return;
            }
            let wake = self.next_wake().unwrap_or(now + LONG);
            tokio::select! {
                Some(done) = self.lookups.join_next_with_id() => {
                    self.hear(done);
                    while let Some(done) = self.lookups.try_join_next_with_id() {
                        self.hear(done);
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let times = self.known.values().flat_map(|known| [known.due, known.drop_at]);
        times.chain([self.ripe]).flatten().min()
    }

    fn ask(&mut self, now: Instant) {
        for (name, known) in &mut self.known {
            if known.due.take_if(|due| *due <= now).is_none() {
                continue;
            }
            let (looking, permits) = (look_up(&self.lookup, name, self.dns.timeout), Arc::clone(&self.permits));
            let task = self.lookups.spawn(async move {
                let _permit = permits.acquire().await;
                looking.await
            });
            self.asked.insert(task.id(), name.clone());
        }
    }

    fn hear(&mut self, done: Result<(Id, Result<Answer, ResolveError>), JoinError>) {
        let (id, said) = match done {
            Ok(done) => done,
            // A panic of the resolver is a bug; the name is looked up again.
            Err(error) => (error.id(), Err(ResolveError::Failed("the look-up broke off".to_owned()))),
        };
        let Some(name) = self.asked.remove(&id) else { return };
        // It may have left the config meanwhile.
        let Some(mut known) = self.known.remove(&name) else { return };
        let before = known.trouble.clone();
        if known.hear(Instant::now(), said, &self.dns) {
            self.ripe.get_or_insert(Instant::now() + TOGETHER);
        }
        self.tell(&name, before.as_ref(), &known);
        self.known.insert(name, known);
    }

    fn drop_overdue(&mut self, now: Instant) {
        for (name, known) in &mut self.known {
            if known.drop_overdue(now) {
                self.ripe.get_or_insert(now + TOGETHER);
                let detail = format!("the addresses of {name} are dropped, its backends are down");
                self.events.emit(Event::Warning { what: "dns", detail });
            }
        }
    }

    /// Says where names lead to the address of another backend of the same upstream, once for as long as that is so.
    pub(super) fn tell_aliases(&mut self, snapshot: &Snapshot) {
        let found = snapshot.upstreams.iter().filter_map(|(upstream, live)| {
            let ((alias, backend), more) = live.aliases.split_first()?;
            let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
            Some(format!("{alias} of {upstream} has the address of {backend}: they are one backend, the latter{more}"))
        });
        let found: BTreeSet<String> = found.collect();
        for detail in found.difference(&self.aliases) {
            self.events.emit(Event::Warning { what: "dns", detail: detail.clone() });
        }
        self.aliases = found;
    }

    /// Says that trouble begins, or is over.
    fn tell(&self, name: &Name, before: Option<&Trouble>, known: &Known) {
        match (before, &known.trouble) {
            (None, Some(trouble)) => {
                let addresses = known.addresses.len();
                let stay = match known.drop_at {
                    _ if addresses == 0 => "its backends are down".to_owned(),
                    Some(_) => format!("its addresses ({addresses}) stay in use for {}", Written(self.dns.hold)),
                    None => format!("its addresses ({addresses}) stay in use meanwhile"),
                };
                let detail = format!("{name} {}; {stay}", trouble.why);
                self.events.emit(Event::Warning { what: "dns", detail });
            }
            (Some(_), None) => {
                self.events.emit(Event::Process { stage: "resolved", detail: format!("{name} resolves again") });
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// One look-up within its time.
fn look_up(
    lookup: &Arc<dyn LookUp>,
    name: &Name,
    limit: Duration,
) -> impl Future<Output = Result<Answer, ResolveError>> + use<> {
    let (lookup, name) = (Arc::clone(lookup), name.clone());
    async move { timeout(limit, lookup.look_up(&name)).await.unwrap_or(Err(ResolveError::Timeout(limit))) }
}

fn hosts(plan: &Plan) -> BTreeSet<Name> {
    runtime::names(plan).into_iter().map(|(name, _)| name).collect()
}

fn resolved<'a>(plan: &Plan, known: impl Fn(&Name) -> Option<&'a Known>) -> Resolved {
    let names = runtime::names(plan).into_iter().filter_map(|(name, port)| {
        let result = known(&name)?.on_port(&name, port);
        Some(((name, port), result))
    });
    names.collect()
}

#[cfg(test)]
mod tests;
