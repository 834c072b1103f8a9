//! `tidegate run`: from a config to a serving process, and back to nothing.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    num::NonZero,
    process::ExitCode,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    NO, RunArgs, Trouble, env, find,
    print::{eprint, reason},
    quick::quick,
};
use crate::{
    admin,
    base::{Timestamp, open_regular},
    config::{
        Loaded, Report, Style,
        plan::{Bind, LogFormat, Plan, Workers},
    },
    control::{Attempt, First, Names, Origin, Readiness, Reloader, Status},
    health::{Prober, Resolver},
    layers::PasswordPool,
    proxy::Fault,
    runtime::{self, Edition, ListenerId, Live, Registry, Tokens},
    server::{CannotBind, Closed, Fleet, Setup, Sockets, bind},
    telemetry::{AccessLog, Counter, Event, EventLog, Events, events::Sink, metrics::RouteMetrics},
};

/// The exit code when connections had to be cut.
const CUT: u8 = 4;

/// Passwords that may wait to be verified.
const MAX_PASSWORDS: usize = 256;

/// The longest that `/readyz` waits for the first round of probes.
const FIRST_ROUND: Duration = Duration::from_secs(3);

/// For the last lines of logs to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs a gateway until it is told to stop.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode, Trouble> {
    let began = Instant::now();
    let origin = origin(args)?;
    let loaded = match origin.load() {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint(format_args!("{}", report.text(Style::Coloured)));
            return Ok(NO.into());
        }
    };
    if !loaded.warnings.is_empty() {
        eprint(format_args!("{}", loaded.warnings.text(Style::Coloured)));
    }
    let limited = raise_descriptor_limit();
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let control = control.map_err(|error| Trouble(format!("cannot start: {error}")))?;
    let code = control.block_on(serve(origin, loaded, limited, began));
    // Not waited for: a look-up that nobody needs any more may take as long as the resolver likes.
    control.shutdown_background();
    code
}

/// Where the config is: a file, or a text made of `--to`.
fn origin(args: &RunArgs) -> Result<Origin, Trouble> {
    let (watch, log_format) = (!args.no_watch, args.log_format);
    if !args.to.is_empty() {
        let text = Some(quick(&args.to, args.listen.as_deref()));
        return Ok(Origin { path: "--to".into(), text, watch, log_format, env });
    }
    let path = find::config(args.config.as_deref())?;
    // A file that cannot be read is trouble with the system; one that is wrong is an honest "no".
    open_regular(&path).map_err(|error| Trouble(format!("cannot read {}: {}", path.display(), reason(&error))))?;
    Ok(Origin { path, text: None, watch, log_format, env })
}

async fn serve(origin: Origin, loaded: Loaded, limited: io::Result<()>, began: Instant) -> Result<ExitCode, Trouble> {
    let plan = Arc::clone(&loaded.plan);
    let format = origin.log_format(&plan);
    let (event_log, events) = EventLog::start(format, plan.log.level, Sink::stderr()).map_err(no_thread)?;
    if let Err(error) = limited {
        let detail = format!("cannot raise the limit of open files (ulimit -n) to what the system allows: {error}");
        events.emit(Event::Warning { what: "descriptors", detail });
    }
    let workers = worker_count(plan.workers);
    let passwords = PasswordPool::new(workers.div_ceil(2), MAX_PASSWORDS).map_err(no_thread)?;
    let registry = Registry::new(workers, Tokens { faults: &Fault::REASONS, closes: &Closed::TOKENS }, passwords);
    let names = Names::start(Arc::new(Resolver::new(plan.dns.clone())), &plan, events.clone()).await;
    let built = runtime::build(&registry, &plan, Edition::new(1, loaded.sha), &names.resolved(&plan));

    let sockets = bind_listeners(&built.snapshot, workers)?;
    let admin_socket = plan.admin.as_ref().map(|admin| bind_admin(&admin.bind)).transpose()?;
    let access_log = plan.access_log.as_ref().map(|plan| AccessLog::start(plan, events.clone()).map(Arc::new));
    let access_log = access_log.transpose().map_err(|error| Trouble(format!("cannot open the access log: {error}")))?;
    let mut signals = Signals::new().map_err(|error| Trouble(format!("cannot listen for signals: {error}")))?;

    let live = Arc::new(Live::new(built.snapshot));
    let status = Arc::new(Status {
        started: Timestamp::now(),
        file: origin.path.clone(),
        live: Arc::clone(&live),
        monitors: ArcSwap::default(),
        names: ArcSwap::default(),
        webhooks: ArcSwap::default(),
        last_attempt: ArcSwap::from_pointee(first_attempt(&loaded.warnings)),
        reloads_ok: AtomicU64::new(1),
        reloads_refused: AtomicU64::new(0),
        workers,
        unrouted: Arc::new(RouteMetrics::new(workers, &Fault::REASONS)),
        panics: Arc::new(Counter::new(workers)),
        access_log: ArcSwapOption::new(access_log.clone()),
        events: events.clone(),
        event_log: Arc::new(event_log),
        readiness: Readiness::default(),
    });
    let setup = Setup {
        live,
        events: events.clone(),
        unrouted: Arc::clone(&status.unrouted),
        panics: Arc::clone(&status.panics),
    };
    let fleet = Arc::new(Fleet::start(workers, &setup).map_err(no_thread)?);
    fleet.log_to(access_log.as_ref()).await;
    // Only now: threads that are started later are as patient.
    yield_to_workers();
    let is_watched = origin.watch && origin.text.is_none();
    let first = First { origin, loaded, names, registry: built.registry, upstreams: built.upstreams };
    let prober = Prober::new(events.clone(), plan.max_probes);
    let reloader = Reloader::new(first, Arc::clone(&status), Arc::clone(&fleet), prober);

    let addresses = Addresses::of(&sockets, admin_socket.as_ref(), is_watched);
    for (id, sockets) in sockets {
        fleet.accept(id, sockets).await;
    }
    if let Some(socket) = admin_socket {
        tokio::spawn(answer_for_itself(socket, Arc::clone(&status)));
    }
    let (requests, edits) = mpsc::channel(1);
    let reloading = tokio::spawn(reloader.run(edits));
    addresses.tell(&status, format, began.elapsed());
    tokio::spawn(become_ready(Arc::clone(&status)));

    signals.until_stop(&requests, &status).await;
    // An edit now would open what is about to close.
    reloading.abort();
    let _ = reloading.await;
    let cut = wind_down(&status, &fleet, &mut signals).await;

    if let Some(fleet) = Arc::into_inner(fleet) {
        fleet.stop();
    }
    if let Some(log) = status.access_log.load_full() {
        log.close(LAST_WORDS);
    }
    let (stage, detail) = match cut {
        0 => ("stopped", "every request was finished".to_owned()),
        1 => ("cut", "1 request did not finish in time".to_owned()),
        cut => ("cut", format!("{cut} requests did not finish in time")),
    };
    status.event_log.close(Event::Process { stage, detail }, LAST_WORDS);
    Ok(if cut == 0 { ExitCode::SUCCESS } else { ExitCode::from(CUT) })
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn no_thread(error: io::Error) -> Trouble {
    Trouble(format!("the system gives no more threads: {error}"))
}

fn worker_count(workers: Workers) -> usize {
    match workers {
        Workers::Auto => std::thread::available_parallelism().map_or(1, NonZero::get),
        Workers::Count(count) => usize::from(count.get()),
    }
}

fn first_attempt(warnings: &Report) -> Attempt {
    Attempt {
        at: Timestamp::now(),
        by: "start",
        findings: Arc::new(warnings.clone()),
        is_live: true,
        backends: Arc::default(),
    }
}

fn bind_listeners(snapshot: &runtime::Snapshot, workers: usize) -> Result<BTreeMap<ListenerId, Sockets>, Trouble> {
    let bound = snapshot.listeners.values().map(|listener| {
        let sockets = bind(&listener.plan.bind, workers, &[]);
        let sockets =
            sockets.map_err(|error| cannot_bind(&format!("listeners.{}.bind", listener.plan.name), &error))?;
        Ok((listener.id, sockets))
    });
    bound.collect()
}

fn bind_admin(address: &Bind) -> Result<Sockets, Trouble> {
    bind(address, 1, &[]).map_err(|error| cannot_bind("admin.bind", &error))
}

fn cannot_bind(field: &str, error: &CannotBind) -> Trouble {
    Trouble(format!("`{field}`: {error}: {}", error.fix))
}

/// Connections are descriptors: as many as the system allows at all, not only those that it allows unasked.
fn raise_descriptor_limit() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Lets the workers go first where there are fewer processors than threads: this thread has an edit of thousands of routes to check, or
/// ten thousand probes to send, and a request would wait for its share of the time to be over.
fn yield_to_workers() {
    // Elsewhere a priority is the whole process's.
    if cfg!(target_os = "linux") {
        // Nobody is refused a lower one, and without it all works as well.
        let _ = rustix::process::setpriority_process(None, PATIENCE);
    }
}

/// By this niceness the system gives the control plane a tenth of what it gives a worker, if both want all of a processor.
const PATIENCE: i32 = 10;

/// Where the process can be reached.
struct Addresses {
    listeners: BTreeMap<ListenerId, Bind>,
    admin: Option<Bind>,
    is_watched: bool,
}

impl Addresses {
    fn of(sockets: &BTreeMap<ListenerId, Sockets>, admin: Option<&Sockets>, is_watched: bool) -> Self {
        Self {
            listeners: sockets.iter().map(|(id, sockets)| (*id, sockets.address.clone())).collect(),
            admin: admin.map(|sockets| sockets.address.clone()),
            is_watched,
        }
    }

    fn tell(&self, status: &Status, format: LogFormat, took: Duration) {
        let is_text = match format {
            LogFormat::Auto => io::stderr().is_terminal(),
            LogFormat::Json => false,
            LogFormat::Text => true,
        };
        if is_text {
            eprint(format_args!("{}", self.banner(status, took)));
        } else {
            self.tell_machines(status, took);
        }
    }

    fn banner(&self, status: &Status, took: Duration) -> String {
        let live = status.live.load();
        let mut lines = vec![format!(
            "tidegate {} · {} · gen {} ({})",
            env!("CARGO_PKG_VERSION"),
            status.file.display(),
            live.generation,
            live.sha
        )];
        for listener in live.listeners.values() {
            let routes = served_routes(&live.plan, &listener.plan.name);
            let address = self.listeners.get(&listener.id).unwrap_or(&listener.plan.bind);
            let scheme = if listener.tls.is_some() { "https" } else { "http" };
            lines.push(format!("  {:<10} {:<26} {}", "listen", shown(scheme, address), counted(routes, "route")));
        }
        for (name, upstream) in &live.plan.upstreams {
            let backends = counted(upstream.backends.len(), "backend");
            lines.push(format!("  {:<10} {:<26} {}", "upstream", format!("{name}  {backends}"), asked(upstream)));
        }
        if let Some(admin) = &self.admin {
            let admin = shown("http", admin);
            lines.push(format!("  {:<10} {admin:<26} /health · /metrics · /api/v1/status", "admin"));
        }
        let edits = match self.is_watched && live.plan.reload.watch {
            true => format!("Edits to {} apply live. ", status.file.display()),
            false => String::new(),
        };
        lines.push(format!("ready in {} ms. {edits}Ctrl-C to stop.\n\n", took.as_millis()));
        lines.join("\n")
    }

    fn tell_machines(&self, status: &Status, took: Duration) {
        let live = status.live.load();
        let say = |stage, detail| status.events.emit(Event::Process { stage, detail });
        for listener in live.listeners.values() {
            if let Some(address) = self.listeners.get(&listener.id) {
                say("listen", format!("{} {address}", listener.plan.name));
            }
        }
        if let Some(admin) = &self.admin {
            say("admin", admin.to_string());
        }
        say("ready", format!("gen {} ({}) in {} ms", live.generation, live.sha, took.as_millis()));
    }
}

/// How a client reaches an address.
fn shown(scheme: &str, address: &Bind) -> String {
    match address {
        Bind::Tcp(address) => format!("{scheme}://{address}"),
        Bind::Unix { .. } => address.to_string(),
    }
}

fn served_routes(plan: &Plan, listener: &str) -> usize {
    let serves = |route: &&Arc<_>| {
        let route: &crate::config::plan::Route = route;
        route.listeners.as_ref().is_none_or(|listeners| listeners.contains(listener))
    };
    plan.routes.values().filter(serves).count()
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn asked(upstream: &crate::config::plan::Upstream) -> String {
    use crate::{base::duration::Written, config::plan::ProbeKind};
    let Some(check) = upstream.health.checks.first() else { return "no health check".to_owned() };
    let every = Written(check.interval);
    let first = match &check.kind {
        ProbeKind::Http(http) => format!("{} {} every {every}", http.method, http.path),
        ProbeKind::Tcp(_) => format!("tcp connect every {every}"),
        ProbeKind::Grpc(_) | ProbeKind::Tls(_) => format!("{} every {every}", check.name),
    };
    match upstream.health.checks.len() {
        1 => first,
        checks => format!("{first}, {}", counted(checks - 1, "more check")),
    }
}

/// The admin listener, as long as the process lives: it is asked how the end goes, too.
async fn answer_for_itself(socket: Sockets, status: Arc<Status>) {
    let events = status.events.clone();
    if let Err(error) = admin::serve(socket, status, std::future::pending()).await {
        events.emit(Event::Warning { what: "admin", detail: format!("the admin listener is gone: {error}") });
    }
}

/// Traffic should come once the first probes have answered; it is taken before that, too.
async fn become_ready(status: Arc<Status>) {
    let rounds: Vec<_> = status.monitors.load().values().map(|monitor| monitor.first_round()).collect();
    let all = async {
        for round in rounds {
            round.await;
        }
    };
    let _ = timeout(FIRST_ROUND, all).await;
    status.readiness.started();
}

/// Readiness fails, listeners close, requests finish; a second signal cuts it short. Returns how many connections were cut.
async fn wind_down(status: &Status, fleet: &Fleet, signals: &mut Signals) -> usize {
    let shutdown = status.live.load().plan.shutdown;
    status.readiness.draining();
    let detail =
        format!("no new connections; requests have {} to finish", crate::base::duration::Written(shutdown.timeout));
    status.events.emit(Event::Process { stage: "draining", detail });
    tokio::select! {
        () = sleep(shutdown.delay) => {}
        () = signals.stop() => return fleet.drain(Instant::now()).await,
    }
    tokio::select! {
        cut = fleet.drain(Instant::now() + shutdown.timeout) => cut,
        () = signals.stop() => fleet.drain(Instant::now()).await,
    }
}

struct Signals {
    hup: Signal,
    int: Signal,
    quit: Signal,
    term: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            term: signal(SignalKind::terminate())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// INT, QUIT (what container images built for nginx send) and TERM mean the same.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.quit.recv() => {}
            _ = self.term.recv() => {}
        }
    }

    /// Obeys HUP (reload), USR1 (reopen the access log) and USR2 (say what is known) until one comes that stops the process.
    async fn until_stop(&mut self, edits: &mpsc::Sender<&'static str>, status: &Status) {
        loop {
            tokio::select! {
                _ = self.int.recv() => return,
                _ = self.quit.recv() => return,
                _ = self.term.recv() => return,
                // One that waits already will read the same file.
                _ = self.hup.recv() => drop(edits.try_send("SIGHUP")),
                _ = self.usr1.recv() => reopen(status, &status.events),
                _ = self.usr2.recv() => tell_state(status),
            }
        }
    }
}

fn tell_state(status: &Status) {
    status.events.emit(Event::Process { stage: "state", detail: admin::state(status) });
}

fn reopen(status: &Status, events: &Events) {
    if let Some(log) = status.access_log.load_full()
        && let Err(error) = log.reopen()
    {
        let detail = format!("cannot reopen, the old file goes on: {error}");
        events.emit(Event::Warning { what: "access_log", detail });
    }
}
