//! A config edit, in one straight line: [`Reloader::apply`].
//!
//! read → parse and check → diff → look new names up → build → gate → bind → **swap** → probe → drain → tell. Whatever can fail
//! stands before the swap; a refused edit has had no effect but to be told. One that its backends hold up is tried again.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, sleep_until, timeout},
};

use super::{
    Attempt, Names, Status, Watch, Webhooks,
    gate::{Gate, Shortage},
    stages::Stages,
};
use crate::{
    base::{Name, Timestamp},
    config::{
        self, Changes, Code, Diagnostic, Loaded, Report, Sha, Source,
        plan::{Bind, LogFormat, Plan},
    },
    health::{Monitor, Prober},
    runtime::{self, Built, CarryOver, Edition, ListenerId, Registry, Resolved, UpstreamId},
    server::{Fleet, Sockets, bind, set_mode},
    telemetry::{AccessLog, Event},
    upstream::Condition,
};

/// What an edit is read from, and what the command line says beside it.
#[derive(Debug)]
pub struct Origin {
    /// The file, or a name for the text of a gateway that runs without one.
    pub path: PathBuf,
    /// The text of a gateway that runs without a file: nothing to watch or to read again.
    pub text: Option<String>,
    /// Whether edits of the file apply by themselves; the file may say no, too.
    pub watch: bool,
    /// The form of log lines, whatever the file says.
    pub log_format: Option<LogFormat>,
    /// Where `${NAME}` is looked up.
    pub env: fn(&str) -> Option<String>,
}

impl Origin {
    /// Reads and checks the config.
    ///
    /// # Errors
    /// Everything that is wrong with it; a file that cannot be read among it.
    pub fn load(&self) -> Result<Loaded, Report> {
        let source = match &self.text {
            Some(text) => Source { path: self.path.clone(), text: text.clone() },
            None => Source::read(&self.path).map_err(|error| unreadable(&self.path, &error))?,
        };
        config::load(&source, &self.env)
    }

    /// The form of log lines under this plan.
    #[must_use]
    pub fn log_format(&self, plan: &Plan) -> LogFormat {
        self.log_format.unwrap_or(plan.log.format)
    }

    fn differs_from(&self, sha: Sha) -> bool {
        let source = || Source::read(&self.path).ok();
        self.watch && self.text.is_none() && source().is_some_and(|source| Sha::of(&source.text) != sha)
    }

    fn is_still(&self, sha: Sha) -> bool {
        Source::read(&self.path).is_ok_and(|source| Sha::of(&source.text) == sha)
    }
}

fn unreadable(path: &std::path::Path, error: &io::Error) -> Report {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    let message = format!("cannot read {}: {why}", path.display());
    Report::new(path, "", vec![Diagnostic::new(Code::Unreadable, 0..0, message)], &[])
}

/// Applies edits, one after the other. The only one that changes what is in force.
#[derive(Debug)]
pub struct Reloader {
    origin: Arc<Origin>,
    status: Arc<Status>,
    fleet: Arc<Fleet>,
    prober: Prober,
    registry: Registry,
    names: Names,
    resolved: Resolved,
    watch: Watch,
    webhooks: Webhooks,
    stages: Stages,
    monitors: BTreeMap<UpstreamId, Arc<Monitor>>,
    held_up: Option<HeldUp>,
}

/// An edit that waits for its backends.
#[derive(Clone, Copy, Debug)]
struct HeldUp {
    sha: Sha,
    /// When it is tried again.
    due: tokio::time::Instant,
    /// How long after the attempt before.
    pause: Duration,
}

/// Who asks for an edit that its backends have held up.
const RETRY: &str = "retry";

/// Between the attempts of one that they hold up: at first, and in the long run.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// An edit is told after that, although backends that have left still stand in for new ones.
const HANDOVER: Duration = Duration::from_secs(2);

/// What a reloader starts from: the first config, built.
#[derive(Debug)]
pub struct First {
    /// Where it was read.
    pub origin: Origin,
    /// The config.
    pub loaded: Loaded,
    /// The names in it.
    pub names: Names,
    /// What has the memory.
    pub registry: Registry,
    /// Which upstream each name is.
    pub upstreams: BTreeMap<Name, UpstreamId>,
}

/// How often it is looked whether the date of an API has come.
const LOOK: Duration = Duration::from_secs(1);

/// How often buckets that are full again are forgotten.
const SWEEP: Duration = Duration::from_secs(5);

impl Reloader {
    /// Starts the health tasks of the first config.
    #[must_use]
    pub fn new(first: First, status: Arc<Status>, fleet: Arc<Fleet>, prober: Prober) -> Self {
        let watch = Watch::new(&first.origin, &first.loaded);
        let First { origin, loaded, names, registry, upstreams } = first;
        let (origin, resolved) = (Arc::new(origin), names.resolved(&loaded.plan));
        status.names.store(Arc::new(names.records()));
        let (webhooks, monitors) = (Webhooks::default(), BTreeMap::default());
        let (held_up, mut stages) = (None, Stages::default());
        stages.adopt(&status.live.load(), Timestamp::now());
        let mut reloader = Self {
            origin,
            status,
            fleet,
            prober,
            registry,
            names,
            resolved,
            watch,
            webhooks,
            stages,
            monitors,
            held_up,
        };
        reloader.tell_webhooks(&loaded.plan);
        reloader.names.tell_aliases(&reloader.status.live.load());
        reloader.probe(&upstreams);
        reloader
    }

    /// Applies an edit whenever the file changes or somebody asks, until nobody can ask any more.
    pub async fn run(mut self, mut requests: mpsc::Receiver<&'static str>) {
        let (mut sweep, mut look) = (tokio::time::interval(SWEEP), tokio::time::interval(LOOK));
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        if self.watch.is_on() && self.origin.differs_from(self.status.live.load().sha) {
            // Edited while the process started, before anybody watched.
            self.apply("file watch").await;
        }
        loop {
            let retry = self.held_up.map(|held_up| held_up.due);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(by) => self.apply(by).await,
                    None => return,
                },
                () = self.watch.changed() => self.apply("file watch").await,
                _ = sweep.tick() => {
                    self.registry.limiters().for_each(|limiter| limiter.sweep());
                    self.prober.sweep();
                    self.status.live.free_retired();
                }
                _ = look.tick(), if self.stages.is_awaiting() => self.tell_stages(),
                () = self.names.changed() => self.readdress(),
                () = sleep_until(retry.unwrap_or_else(tokio::time::Instant::now)), if retry.is_some() => self.retry().await,
            }
        }
    }

    /// Tries an edit again that its backends have held up. Another text is for the watch, or for whoever asks.
    async fn retry(&mut self) {
        match self.held_up.filter(|held_up| self.origin.is_still(held_up.sha)) {
            Some(_) => self.apply(RETRY).await,
            None => self.held_up = None,
        }
    }

    /// The straight line of an edit.
    async fn apply(&mut self, by: &'static str) {
        let held_up = self.held_up.take();
        let loaded = match self.load().await {
            Ok(loaded) => loaded,
            Err(report) => {
                // A keys file that is missing may appear.
                self.watch.follow(report.files());
                return self.refuse(report, by);
            }
        };
        self.watch.follow(&loaded.files);
        let live = self.status.live.load();
        let changes = config::diff(&live.plan, &loaded.plan);
        if changes.is_empty() && loaded.sha == live.sha {
            return self.tell(live.generation, "nothing changed".to_owned(), loaded.warnings, CarryOver::default(), by);
        }
        let names = self.names.prepare(&loaded.plan).await;
        let edition = Edition::new(live.generation + 1, loaded.sha);
        let built = runtime::build(&self.registry, &loaded.plan, edition, &names.resolved);
        let carried = CarryOver::between(&self.registry, &built.registry);
        let gate = Gate { before: &self.registry, monitors: &self.monitors, built: &built, carried: &carried };
        let shortages = gate.shortages(loaded.plan.reload.min_healthy).await;
        if !shortages.is_empty() {
            return self.hold_up(&shortages, &loaded, held_up, by);
        }
        let opened = match self.open(&built, &live.plan, &loaded) {
            Ok(opened) => opened,
            Err(report) => return self.refuse(report, by),
        };

        let generation = built.snapshot.generation;
        self.resolved.clone_from(&names.resolved);
        self.names.adopt(&loaded.plan, names);
        self.status.names.store(Arc::new(self.names.records()));
        self.swap(built);
        self.watch.obey(&loaded.plan.reload);
        self.switch_sockets(opened.sockets, &live, &changes).await;
        self.switch_logs(opened.access_log, &loaded.plan).await;
        self.tell_webhooks(&loaded.plan);
        // Whoever is told that a backend is gone may stop it. Some may stand in for others that take their time to come up.
        let all_applied = async {
            for applied in self.monitors.values().map(|monitor| monitor.applied()).collect::<Vec<_>>() {
                applied.await;
            }
        };
        let _ = timeout(HANDOVER, all_applied).await;
        self.tell(generation, summary(&changes, &carried), loaded.warnings, carried, by);
    }

    /// Reads and checks off this thread, which has probes to send meanwhile.
    async fn load(&self) -> Result<Loaded, Report> {
        let origin = Arc::clone(&self.origin);
        match tokio::task::spawn_blocking(move || origin.load()).await {
            Ok(loaded) => loaded,
            // A panic of the loader is a bug; what is in force stays.
            Err(error) => Err(unreadable(&self.origin.path, &io::Error::other(error))),
        }
    }

    /// Binds and opens what is new. Sockets that are then dropped have had no effect.
    fn open(&self, built: &Built, old: &Plan, new: &Loaded) -> Result<Opened, Report> {
        let live = self.status.live.load();
        let leaving: Vec<Bind> = only_in(&live, &built.snapshot).map(|listener| listener.plan.bind.clone()).collect();
        let bound = only_in(&built.snapshot, &live).map(|listener| {
            let sockets = bind(&listener.plan.bind, self.fleet.len(), &leaving);
            let name = &listener.plan.name;
            let sockets = sockets.map_err(|error| {
                let what = format!("listener `{name}`: {error}");
                let line = new.places.listeners.get(name).copied().unwrap_or(1);
                new.warnings.of_one(line, Diagnostic::new(Code::SameBind, 0..0, what).label(error.fix))
            });
            Ok((listener.id, sockets?))
        });
        let sockets = bound.collect::<Result<Vec<_>, Report>>()?;
        // The last step that can fail, because it has an effect: lines go to the new destination from here on.
        let access_log = self.open_access_log(&new.plan, old).map_err(|error| {
            let what = format!("cannot open the access log: {error}");
            new.warnings.of_one(1, Diagnostic::new(Code::Unreadable, 0..0, what))
        })?;
        Ok(Opened { sockets, access_log })
    }

    /// A log that only gets another destination goes on, and so do its counts.
    fn open_access_log(&self, new: &Plan, old: &Plan) -> io::Result<LogChange> {
        if new.access_log == old.access_log {
            return Ok(LogChange::None);
        }
        match (&new.access_log, self.status.access_log.load_full()) {
            (Some(plan), Some(log)) => log.redirect(plan).map(|()| LogChange::None),
            (Some(plan), None) => {
                let log = AccessLog::start(plan, self.status.events.clone())?;
                Ok(LogChange::Start(Arc::new(log)))
            }
            (None, _) => Ok(LogChange::Stop),
        }
    }

    fn tell_stages(&mut self) {
        let changed = self.stages.look(&self.status.live.load(), Timestamp::now());
        changed.into_iter().for_each(|event| self.status.events.emit(event));
    }

    fn swap(&mut self, built: Built) {
        // What a date has changed before the edit.
        self.tell_stages();
        self.status.live.replace(built.snapshot);
        self.stages.adopt(&self.status.live.load(), Timestamp::now());
        self.registry = built.registry;
        self.names.tell_aliases(&self.status.live.load());
        self.probe(&built.upstreams);
    }

    /// Hands every upstream's health task what is in force now; starts those that are new and ends those that are gone.
    fn probe(&mut self, upstreams: &BTreeMap<Name, UpstreamId>) {
        let live = self.status.live.load();
        let mut by_name = BTreeMap::new();
        let mut monitors = BTreeMap::new();
        for (name, id) in upstreams {
            let Some(upstream) = live.upstreams.get(name) else { continue };
            let (plan, members) = (Arc::clone(&upstream.plan), upstream.members.clone());
            let monitor = match self.monitors.remove(id) {
                Some(monitor) => {
                    monitor.update(plan, members, live.generation);
                    monitor
                }
                None => {
                    let generation = live.generation;
                    Arc::new(Monitor::start(&self.prober, Arc::clone(&upstream.live), plan, members, generation))
                }
            };
            by_name.insert(name.clone(), Arc::clone(&monitor));
            monitors.insert(*id, monitor);
        }
        // Nobody watches the backends of a removed upstream any more; requests that they still have end in their own time.
        for monitor in std::mem::replace(&mut self.monitors, monitors).into_values() {
            monitor.view().backends.iter().for_each(|view| {
                let known = view.backend.condition();
                view.backend.set_condition(Condition { is_removed: true, ..known });
            });
        }
        self.status.monitors.store(Arc::new(by_name));
    }

    async fn switch_sockets(&self, opened: Vec<(ListenerId, Sockets)>, before: &runtime::Snapshot, changes: &Changes) {
        let live = self.status.live.load();
        let addresses: Vec<(ListenerId, Bind)> =
            opened.iter().map(|(id, sockets)| (*id, sockets.address.clone())).collect();
        for (id, sockets) in opened {
            if let Some(served) = live.served(id) {
                let detail = format!("{} {}", served.listener.plan.name, sockets.address);
                self.status.events.emit(Event::Process { stage: "listen", detail });
            }
            self.fleet.accept(id, sockets).await;
        }
        let deadline = Instant::now() + live.plan.shutdown.timeout;
        for gone in only_in(before, &live) {
            match addresses.iter().find(|(_, address)| address.covers(&gone.plan.bind)) {
                Some((heir, _)) => self.fleet.hand_over(gone.id, *heir, deadline).await,
                None => self.fleet.close(gone.id, deadline).await,
            }
        }
        let changed = changes.listeners.changed.iter().filter_map(|name| live.listeners.get(name));
        for listener in changed.filter(|listener| before.served(listener.id).is_some()) {
            self.renew_mode(&listener.plan.bind);
            self.fleet.renew(listener.id, deadline).await;
        }
    }

    fn renew_mode(&self, bind: &Bind) {
        if let Bind::Unix { path, mode } = bind
            && let Err(error) = set_mode(path, *mode)
        {
            let detail = format!("{bind} keeps its permissions: {error}");
            self.status.events.emit(Event::Warning { what: "socket_mode", detail });
        }
    }

    fn tell_webhooks(&mut self, plan: &Plan) {
        self.webhooks.apply(&plan.webhooks, &self.status.event_log, &self.status.events);
        self.status.webhooks.store(Arc::new(self.webhooks.told()));
    }

    async fn switch_logs(&self, access_log: LogChange, plan: &Plan) {
        self.status.event_log.set_level(plan.log.level);
        self.status.event_log.set_format(self.origin.log_format(plan));
        let log = match access_log {
            LogChange::None => return,
            LogChange::Start(log) => Some(log),
            LogChange::Stop => None,
        };
        self.fleet.log_to(log.as_ref()).await;
        self.status.access_log.store(log);
    }

    fn tell(&self, generation: u64, summary: String, warnings: Report, carried: CarryOver, by: &'static str) {
        self.status.reloads_ok.fetch_add(1, Relaxed);
        let (findings, backends) = (Arc::new(warnings), Arc::new(carried));
        self.attempted(Attempt { at: Timestamp::now(), by, findings, is_live: true, backends });
        self.status.events.emit(Event::Reloaded { generation, summary, by });
    }

    /// Refuses an edit for now. It is told once, however often it is tried.
    fn hold_up(&mut self, shortages: &[Shortage], loaded: &Loaded, before: Option<HeldUp>, by: &'static str) {
        let line = |upstream| loaded.places.upstreams.get(upstream).copied().unwrap_or(1);
        let finding = |shortage: &Shortage| shortage.finding(loaded.plan.reload.min_healthy);
        let found = shortages.iter().map(|shortage| (line(&shortage.upstream), finding(shortage)));
        let report = loaded.warnings.of_late(found);
        let before = before.filter(|before| before.sha == loaded.sha && by == RETRY);
        let pause = before.map_or(PAUSES.0, |before| PAUSES.1.min(before.pause * 2));
        self.held_up = Some(HeldUp { sha: loaded.sha, due: tokio::time::Instant::now() + pause, pause });
        match before {
            Some(_) => self.attempted(Attempt::refused(report, by)),
            None => self.refuse(report, by),
        }
    }

    fn refuse(&self, report: Report, by: &'static str) {
        self.status.reloads_refused.fetch_add(1, Relaxed);
        let event = Event::Refused {
            file: self.origin.path.display().to_string(),
            generation: self.status.live.load().generation,
            errors: report.errors(),
            findings: report.iter().map(|finding| in_a_line(&report, finding)).collect(),
            by,
        };
        self.attempted(Attempt::refused(report, by));
        self.status.events.emit(event);
    }

    fn attempted(&self, attempt: Attempt) {
        self.status.last_attempt.store(Arc::new(attempt));
    }

    /// Names stand for other addresses, or for none. The config is the same, and so is its generation.
    fn readdress(&mut self) {
        let live = self.status.live.load();
        let resolved = self.names.resolved(&live.plan);
        if resolved == self.resolved {
            return;
        }
        let addresses = |resolved: &Resolved, name| resolved.get(name).and_then(|result| result.clone().ok());
        let others = resolved.keys().filter(|name| addresses(&resolved, name) != addresses(&self.resolved, name));
        let others: Vec<String> = others.map(|(host, port)| format!("{host}:{port}")).collect();
        let edition = Edition { generation: live.generation, sha: live.sha, since: live.since };
        let built = runtime::build(&self.registry, &live.plan, edition, &resolved);
        self.resolved = resolved;
        self.swap(built);
        if !others.is_empty() {
            let detail = format!("other addresses for {}", others.join(", "));
            self.status.events.emit(Event::Process { stage: "resolved", detail });
        }
    }
}

struct Opened {
    sockets: Vec<(ListenerId, Sockets)>,
    access_log: LogChange,
}

/// What becomes of the access log.
enum LogChange {
    None,
    Start(Arc<AccessLog>),
    Stop,
}

/// The listeners of one snapshot that another has not.
fn only_in<'a>(
    snapshot: &'a runtime::Snapshot,
    other: &'a runtime::Snapshot,
) -> impl Iterator<Item = &'a Arc<runtime::Listener>> {
    snapshot.listeners.values().filter(|listener| other.served(listener.id).is_none())
}

/// A finding with its fix, and where it is.
fn in_a_line(report: &Report, finding: &Diagnostic) -> String {
    let (severity, id, at) = (finding.code.severity(), finding.code.id(), report.position(finding.span.start));
    let fix = finding.label.as_ref().map(|label| format!(": {label}")).unwrap_or_default();
    format!("{severity}[{id}]: {}{fix}   {}:{}:{}", finding.message, report.file(), at.line, at.col)
}

fn summary(changes: &Changes, carried: &CarryOver) -> String {
    let mut summary = changes.summary();
    if !changes.restart.is_empty() {
        summary.push_str(&format!(" ({} needs a restart)", changes.restart.join(", ")));
    }
    if let Some(counts) = carried.summary() {
        summary.push_str(&format!("; backends: {counts}"));
    }
    summary
}
