//! `tidegate demo`: the gateway's main job, to be watched on sample backends, one of which breaks again and again.
//!
//! backends (`sample`) ← a real gateway in a process of its own (`gateway`), on a config file that can be edited (`file`) ←
//! a client (`traffic`). This file puts them together and tells what happens, in the order in which it does. With `--for`
//! the demo is a test as well: a backend was taken out, one came back, and no user has seen anything of it.

mod file;
mod gateway;
mod sample;
mod traffic;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{interval, interval_at, sleep_until},
};

use self::{
    file::File,
    gateway::{Gateway, Said},
    sample::{BREAK_EVERY, BREAK_LASTS, FIRST_BREAK, SLOWNESS, Samples},
    traffic::{PACE, Tally, Traffic},
};
use super::{
    NO, Trouble,
    args::DemoArgs,
    print::{eprint, print, print_with, reason},
};
use crate::base::duration::Elapsed;

/// Time between two summaries.
const SUMMARY: Duration = Duration::from_secs(20);

pub(super) fn demo(args: &DemoArgs) -> Result<ExitCode, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    runtime.block_on(show(args))
}

async fn show(args: &DemoArgs) -> Result<ExitCode, Trouble> {
    let mut stop = Stop::new().map_err(cannot_start)?;
    let samples = Samples::start().map_err(cannot_start)?;
    let listen = address(args.port, 8080)?;
    let admin = address(None, 9901)?;
    let file = File::create(Path::new(""), file::text(listen, admin, &samples.addresses))?;
    let mut gateway = Gateway::start(&file.path).map_err(cannot_start)?;
    tokio::select! {
        ready = gateway.ready() => ready?,
        () = stop.wait() => return Ok(ExitCode::SUCCESS),
    }

    let began = Instant::now();
    samples.start_clock(began);
    let mut story = Story::new(args.json, began, &samples);
    story.introduce(listen, admin, &file);
    let mut traffic = Traffic::new(listen);
    let end = args.lasts.map(|lasts| began + lasts);
    play(&mut story, &mut traffic, &mut gateway, &mut stop, end).await?;
    let lasted = story.began.elapsed();
    traffic.finish().await;
    gateway.stop().await;

    let document = Document::judge(story.conclude(&traffic.tally, &file), lasted);
    let is_test = args.json || args.lasts.is_some();
    if let Some(reason) = document.reason.as_ref().filter(|_| is_test) {
        eprint(format_args!("failed: {reason}\n"));
    }
    if args.json {
        let line = serde_json::to_string(&document).expect("numbers are JSON");
        print(&format!("{line}\n"))?;
    }
    Ok(if document.passed || !is_test { ExitCode::SUCCESS } else { NO.into() })
}

/// Sends requests and tells what happens, until it is time, somebody stops it, or nobody reads any more.
async fn play(
    story: &mut Story<'_>,
    traffic: &mut Traffic,
    gateway: &mut Gateway,
    stop: &mut Stop,
    end: Option<Instant>,
) -> Result<(), Trouble> {
    let began = tokio::time::Instant::from_std(story.began);
    let mut pace = interval(PACE);
    let mut breaks = interval_at(began + FIRST_BREAK, BREAK_EVERY);
    let mut summaries = interval_at(began + SUMMARY, SUMMARY);
    let over = async {
        match end {
            Some(end) => sleep_until(end.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    while story.is_heard {
        tokio::select! {
            _ = pace.tick() => traffic.send(),
            () = traffic.settle() => {}
            said = gateway.next() => match said {
                Some(said) => story.retell(said, &traffic.tally),
                None => return Err(Trouble("the gateway has ended".to_owned())),
            },
            _ = breaks.tick() => story.flaky_breaks(&traffic.tally),
            _ = summaries.tick() => story.summarise(&traffic.tally),
            () = stop.wait() => return Ok(()),
            () = &mut over => return Ok(()),
        }
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn cannot_start(why: io::Error) -> Trouble {
    Trouble(format!("cannot start the demo: {why}"))
}

/// An address of this machine with the port that must be, or the one that should be, or another that is free.
fn address(must: Option<u16>, should: u16) -> Result<SocketAddr, Trouble> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|socket| socket.local_addr());
    match must {
        Some(port) => bind(port).map_err(|why| Trouble(format!("cannot use port {port}: {}", reason(&why)))),
        None => bind(should).or_else(|_| bind(0)).map_err(cannot_start),
    }
}

/// Signals that end the demo, all alike.
struct Stop([Signal; 4]);

impl Stop {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup, quit] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?, quit?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    counts: Counts,
    passed: bool,
    /// Why not.
    reason: Option<String>,
}

impl Document {
    fn judge(counts: Counts, lasted: Duration) -> Self {
        let reason = counts.complaint(lasted);
        Self { counts, passed: reason.is_none(), reason }
    }
}

/// What has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Counts {
    #[serde(flatten)]
    tally: Tally,
    ejections: u64,
    recoveries: u64,
    reloads: u64,
    retried: u64,
}

impl Counts {
    /// `no ejection and no recovery in 3s; one cycle takes 20s`. `None`: one went, one came back, and no user noticed.
    fn complaint(&self, lasted: Duration) -> Option<String> {
        let mut complaints = vec![];
        match (self.tally.requests, self.tally.failed()) {
            (0, _) => complaints.push("no request was answered".to_owned()),
            (_, 0) => {}
            (requests, failed) => complaints.push(format!("users saw {failed} of {requests} requests fail")),
        }
        let missing = match (self.ejections, self.recoveries) {
            (0, 0) => Some("no ejection and no recovery"),
            (0, _) => Some("no ejection"),
            (_, 0) => Some("no recovery"),
            (_, _) => None,
        };
        if let Some(missing) = missing {
            complaints.push(format!("{missing} in {}", Elapsed(lasted)));
            if lasted < BREAK_EVERY {
                complaints.push(format!("one cycle takes {}", Elapsed(BREAK_EVERY)));
            }
        }
        (!complaints.is_empty()).then(|| complaints.join("; "))
    }
}

/// Tells what happens, and remembers what matters at the end.
struct Story<'a> {
    is_json: bool,
    is_heard: bool,
    began: Instant,
    samples: &'a Samples,
    so_far: Counts,
    generation: u64,
    /// Whether the last edit was.
    is_refused: bool,
    is_all_up_told: bool,
    /// When the flaky backend broke last: how many requests had met it before, and how many users had seen a failure.
    at_break: (u64, u64),
}

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const NEWS: Style = AnsiColor::Blue.on_default();

/// The column at which the tail of a line starts.
const TAIL: usize = 45;

impl<'a> Story<'a> {
    fn new(is_json: bool, began: Instant, samples: &'a Samples) -> Self {
        Self {
            is_json,
            is_heard: true,
            began,
            samples,
            so_far: Counts::default(),
            generation: 1,
            is_refused: false,
            is_all_up_told: false,
            at_break: (0, 0),
        }
    }

    fn introduce(&mut self, listen: SocketAddr, admin: SocketAddr, file: &File) {
        let backends: Vec<String> = self
            .samples
            .addresses
            .iter()
            .map(|(name, at)| match *name {
                "slow" => format!("slow :{} ({} ms)", at.port(), SLOWNESS.as_millis()),
                "flaky" => {
                    let (lasts, every) = (BREAK_LASTS.as_secs(), BREAK_EVERY.as_secs());
                    format!("flaky :{} (breaks for {lasts}s of every {every}s)", at.port())
                }
                name => format!("{name} :{}", at.port()),
            })
            .collect();
        let per_second = Duration::from_secs(1).as_millis() / PACE.as_millis();
        self.write(&format!(
            "gateway    http://{listen}     health http://{admin}/health\n\
             backends   {}\n\
             traffic    {per_second} req/s from here. Config: ./{} - edit it and watch.\n",
            backends.join("  "),
            file.path.display(),
        ));
    }

    fn flaky_breaks(&mut self, tally: &Tally) {
        self.at_break = (self.samples.resets(), tally.failed());
        self.line("flaky breaks…");
    }

    /// An event of the gateway, as it looks from here.
    fn retell(&mut self, said: Said, tally: &Tally) {
        match said {
            Said::Backend { backend, from, to, detail, lasted_s, eligible, total } => match (&*from, &*to) {
                // Several that come up at once each say that all are.
                ("checking", "up") if eligible == total && !self.is_all_up_told => {
                    self.is_all_up_told = true;
                    self.line(&format!("all {total} {GOOD}up{GOOD:#}"));
                }
                ("checking", "up") => {}
                ("up" | "degraded", "down" | "ejected") => {
                    self.so_far.ejections += 1;
                    let text = format!("{backend}  OUT: {detail}");
                    let tail = if backend == "flaky" { self.who_noticed(tally) } else { String::new() };
                    // At least three spaces keep a long text and its tail apart.
                    let width = TAIL.max(text.chars().count() + 3);
                    self.line(&format!("{BAD}{text:<width$}{BAD:#}{tail}"));
                }
                ("down" | "ejected", "up" | "degraded") => {
                    self.so_far.recoveries += 1;
                    let out = lasted_s.map(|seconds| format!(", out for {seconds:.0}s")).unwrap_or_default();
                    self.line(&format!("{GOOD}{backend}  back: {detail}{out}{GOOD:#}"));
                }
                (from, to) => self.line(&format!("{backend}  {from} → {to}: {detail}")),
            },
            Said::Reload { generation, detail } if generation > self.generation => {
                self.is_refused = false;
                self.generation = generation;
                self.so_far.reloads += 1;
                self.line(&format!("{NEWS}your edit is live{NEWS:#}, gen {generation}: {detail}"));
            }
            Said::Reload { generation, .. } if self.is_refused => {
                self.is_refused = false;
                self.line(&format!("{NEWS}your edit is fine again{NEWS:#}: same as gen {generation}"));
            }
            // A file that was saved without a change is no news.
            Said::Reload { .. } | Said::Process { .. } => {}
            Said::Refused { generation, errors, findings } => {
                self.is_refused = true;
                let s = if errors == 1 { "" } else { "s" };
                self.line(&format!(
                    "{BAD}REFUSED{BAD:#} your edit: {errors} error{s}. Still serving gen {generation}."
                ));
                for finding in findings {
                    self.write(&format!("       {finding}\n"));
                }
            }
            Said::Warning { reason, detail } => self.line(&format!("{BAD}warning{BAD:#}: {reason}: {detail}")),
            Said::Text(text) => self.line(&text),
        }
    }

    /// `2 requests hit it, both retried elsewhere`
    fn who_noticed(&self, tally: &Tally) -> String {
        let (resets, failed) = self.at_break;
        noticed(self.samples.resets().saturating_sub(resets), tally.failed().saturating_sub(failed))
    }

    fn so_far(&self, tally: &Tally) -> Counts {
        // Whoever met the broken backend and saw no failure was answered by another one.
        let retried = self.samples.resets().saturating_sub(tally.failed());
        Counts { tally: *tally, retried, ..self.so_far }
    }

    fn summarise(&mut self, tally: &Tally) {
        let summary = summary(&self.so_far(tally));
        self.line(&summary);
    }

    fn conclude(&mut self, tally: &Tally, file: &File) -> Counts {
        self.summarise(tally);
        if file.is_edited() {
            self.write(&format!("Your config is kept: ./{}\n", file.path.display()));
        }
        self.so_far(tally)
    }

    fn line(&mut self, text: &str) {
        let elapsed = self.began.elapsed().as_secs();
        self.write(&format!("{:02}:{:02}  {text}\n", elapsed / 60, elapsed % 60));
    }

    /// With `--json`, standard output is for the document alone.
    fn write(&mut self, text: &str) {
        if self.is_json {
            eprint(format_args!("{text}"));
        } else {
            self.is_heard &= matches!(print_with(|out| out.write_all(text.as_bytes())), Ok(Some(())));
        }
    }
}

fn noticed(hit: u64, failed: u64) -> String {
    let requests = if hit == 1 { "1 request".to_owned() } else { format!("{hit} requests") };
    match (hit, hit.saturating_sub(failed)) {
        (0, _) => "no request hit it".to_owned(),
        (1, 1) => format!("{requests} hit it, retried elsewhere"),
        (2, 2) => format!("{requests} hit it, both retried elsewhere"),
        (hit, retried) if hit == retried => format!("{requests} hit it, all retried elsewhere"),
        (_, retried) => format!("{requests} hit it, {retried} retried elsewhere"),
    }
}

/// `400 requests · 400 ok · 0 seen by users · 2 retried`
fn summary(counts: &Counts) -> String {
    let Counts { tally, retried, .. } = counts;
    let refused = if tally.client_4xx == 0 { String::new() } else { format!(" · {} were 4xx", tally.client_4xx) };
    let (requests, ok, failed) = (tally.requests, tally.ok, tally.failed());
    format!("{requests} requests · {ok} ok{refused} · {failed} seen by users · {retried} retried")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_passes_only_if_one_went_one_came_back_and_nobody_noticed() {
        let good = Counts {
            tally: Tally { requests: 600, ok: 600, ..Tally::default() },
            ejections: 1,
            recoveries: 1,
            ..Counts::default()
        };
        let passed = Document::judge(good, BREAK_EVERY);
        assert!(passed.passed && passed.reason.is_none(), "{passed:?}");
        let short = Duration::from_secs(3);
        for (bad, lasted, reason) in [
            (Counts { ejections: 0, ..good }, BREAK_EVERY, "no ejection in 20s"),
            (Counts { recoveries: 0, ..good }, BREAK_EVERY, "no recovery in 20s"),
            (
                Counts { ejections: 0, recoveries: 0, ..good },
                short,
                "no ejection and no recovery in 3s; one cycle takes 20s",
            ),
            (Counts { tally: Tally::default(), ..good }, short, "no request was answered"),
            (
                Counts { tally: Tally { server_5xx: 1, ..good.tally }, ..good },
                short,
                "users saw 1 of 600 requests fail",
            ),
            (
                Counts { tally: Tally { transport_errors: 2, ..good.tally }, recoveries: 0, ..good },
                BREAK_EVERY,
                "users saw 2 of 600 requests fail; no recovery in 20s",
            ),
        ] {
            let failed = Document::judge(bad, lasted);
            assert_eq!((failed.passed, failed.reason.as_deref()), (false, Some(reason)));
        }
    }

    #[test]
    fn the_document_has_the_promised_fields() {
        let json = |counts| serde_json::to_string(&Document::judge(counts, Duration::from_secs(20))).unwrap();
        assert_eq!(
            json(Counts { tally: Tally { requests: 1, ok: 1, ..Tally::default() }, ejections: 1, ..Counts::default() }),
            r#"{"requests":1,"ok":1,"client_4xx":0,"server_5xx":0,"transport_errors":0,"ejections":1,"recoveries":0,"reloads":0,"retried":0,"passed":false,"reason":"no recovery in 20s"}"#
        );
    }

    #[test]
    fn events_are_counted_as_what_they_mean() {
        let samples = Samples::start().unwrap();
        let mut story = Story::new(true, Instant::now(), &samples);
        let backend = |from: &str, to: &str| Said::Backend {
            backend: "flaky".into(),
            from: from.into(),
            to: to.into(),
            detail: String::new(),
            lasted_s: None,
            eligible: 2,
            total: 3,
        };
        let reload = |generation| Said::Reload { generation, detail: String::new() };
        // A backend that was never up was not taken out, and a file saved without a change is no reload.
        let events = [
            backend("checking", "down"),
            backend("checking", "up"),
            backend("up", "down"),
            backend("down", "up"),
            backend("up", "ejected"),
            reload(1),
            reload(2),
            reload(2),
        ];
        for event in events {
            story.retell(event, &Tally::default());
        }
        let Counts { ejections, recoveries, reloads, .. } = story.so_far(&Tally::default());
        assert_eq!((ejections, recoveries, reloads), (2, 1, 1));
    }

    #[test]
    fn a_refused_edit_is_over_with_the_next_one_that_is_right() {
        let samples = Samples::start().unwrap();
        let mut story = Story::new(true, Instant::now(), &samples);
        let refused = || Said::Refused { generation: 1, errors: 1, findings: vec![] };
        let reload = |generation| Said::Reload { generation, detail: "nothing changed".into() };
        for (said, is_refused) in
            [(refused(), true), (refused(), true), (reload(1), false), (refused(), true), (reload(2), false)]
        {
            story.retell(said, &Tally::default());
            assert_eq!(story.is_refused, is_refused);
        }
        assert_eq!(story.so_far.reloads, 1, "put right is not changed");
    }

    #[test]
    fn sentences_fit_their_numbers() {
        let sentences = [
            (0, 0, "no request hit it"),
            (1, 0, "1 request hit it, retried elsewhere"),
            (2, 0, "2 requests hit it, both retried elsewhere"),
            (3, 0, "3 requests hit it, all retried elsewhere"),
            (3, 1, "3 requests hit it, 2 retried elsewhere"),
            (1, 1, "1 request hit it, 0 retried elsewhere"),
        ];
        for (hit, failed, sentence) in sentences {
            assert_eq!(noticed(hit, failed), sentence);
        }
        let tally = Tally { requests: 400, ok: 399, client_4xx: 1, ..Tally::default() };
        let line = summary(&Counts { tally, retried: 2, ..Counts::default() });
        assert_eq!(line, "400 requests · 399 ok · 1 were 4xx · 0 seen by users · 2 retried");
    }
}
