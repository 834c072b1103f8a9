//! The gateway of the demo: this program again, started as anybody would start it, with its log on a pipe.
//!
//! It has a process group of its own, so that Ctrl-C reaches the demo alone, which stops it in order. It never outlives the
//! demo: whoever drops this kills what is left.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{sync::mpsc, time::timeout};

use super::super::Trouble;

/// A line of the gateway's log, as `telemetry::events` writes it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Said {
    Backend {
        backend: String,
        from: String,
        to: String,
        detail: String,
        lasted_s: Option<f64>,
        eligible: usize,
        total: usize,
    },
    Reload {
        generation: u64,
        detail: String,
    },
    Refused {
        generation: u64,
        errors: usize,
        findings: Vec<String>,
    },
    Process {
        stage: String,
        detail: String,
    },
    Warning {
        reason: String,
        detail: String,
    },
    /// Not an event: a panic, or findings of a config.
    #[serde(skip)]
    Text(String),
}

impl Said {
    fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|_| Self::Text(line.to_owned()))
    }
}

/// A running gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    log: mpsc::Receiver<Said>,
    /// What it said before it was ready, still to be told.
    early: VecDeque<Said>,
}

/// The longest that the gateway takes to start, and to stop.
const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(10);

/// Lines that wait to be shown; then the gateway's log waits, never its traffic.
const MAX_LINES: usize = 256;
const LONGEST_LINE: u64 = 64 * 1024;

impl Gateway {
    /// Starts it on this config.
    pub(super) fn start(file: &Path) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["run", "--log-format", "json", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let stderr = child.stderr.take().expect("it was piped");
        let (lines, log) = mpsc::channel(MAX_LINES);
        let this = Self { child, log, early: VecDeque::new() };
        thread::Builder::new().name("gateway log".into()).spawn(move || forward(stderr, &lines))?;
        Ok(this)
    }

    /// Waits until it serves.
    pub(super) async fn ready(&mut self) -> Result<(), Trouble> {
        let ready = async {
            while let Some(said) = self.log.recv().await {
                if matches!(&said, Said::Process { stage, .. } if stage == "ready") {
                    return true;
                }
                self.early.push_back(said);
            }
            false
        };
        match timeout(START, ready).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Trouble(format!("the gateway did not start\n{}", self.complaint()))),
            Err(_) => Err(Trouble(format!("the gateway was not ready within {} s", START.as_secs()))),
        }
    }

    fn complaint(&self) -> String {
        let lines = self.early.iter().filter_map(|said| match said {
            Said::Text(line) => Some(line.as_str()),
            _ => None,
        });
        lines.collect::<Vec<&str>>().join("\n")
    }

    /// The next line of its log. `None`: it has ended.
    pub(super) async fn next(&mut self) -> Option<Said> {
        match self.early.pop_front() {
            Some(said) => Some(said),
            None => self.log.recv().await,
        }
    }

    /// Lets it finish what it does, and ends it.
    pub(super) async fn stop(mut self) {
        // Its log ends with it.
        if let Ok(None) = self.child.try_wait()
            && kill_process(Pid::from_child(&self.child), Signal::TERM).is_ok()
        {
            let _ = timeout(STOP, async { while self.log.recv().await.is_some() {} }).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // One that has ended already gives an error here, and is waited for all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(stderr: ChildStderr, lines: &mpsc::Sender<Said>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = vec![];
    while let Ok(1..) = stderr.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
        let said = Said::parse(String::from_utf8_lossy(&line).trim_end());
        if lines.blocking_send(said).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Name,
        config::plan::{LogFormat, LogLevel},
        telemetry::{Event, EventLog, events::Sink},
    };

    #[derive(Clone, Default)]
    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    // What the log writes is what the demo reads: one side cannot change without the other.
    #[test]
    fn every_event_of_the_log_is_understood() {
        let out = Shared::default();
        let sink = Sink::writer(out.clone(), anstream::ColorChoice::Never);
        let (log, events) = EventLog::start(LogFormat::Json, LogLevel::Info, sink).unwrap();
        events.emit(Event::Backend {
            upstream: Name::parse("samples").unwrap(),
            backend: Name::parse("flaky").unwrap(),
            from: "up",
            to: "down",
            source: "active",
            reason: "status",
            detail: "3 bad probes in 1.9s (503)".into(),
            check: Some(Name::parse("http").unwrap()),
            lasted: Some(Duration::from_millis(6500)),
            eligible: 2,
            total: 3,
            generation: 1,
        });
        events.emit(Event::Reloaded { generation: 2, summary: "~1 route".into(), by: "file watch" });
        events.emit(Event::Refused {
            file: "a".into(),
            generation: 2,
            errors: 1,
            findings: vec!["error".into()],
            by: "file watch",
        });
        events.emit(Event::Warning { what: "panic", detail: "oops".into() });
        assert!(log.close(Event::Process { stage: "stopped", detail: "bye".into() }, Duration::from_secs(30)));

        let written = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let said: Vec<Said> = written.lines().map(Said::parse).collect();
        let expected = [
            Said::Backend {
                backend: "flaky".into(),
                from: "up".into(),
                to: "down".into(),
                detail: "3 bad probes in 1.9s (503)".into(),
                lasted_s: Some(6.5),
                eligible: 2,
                total: 3,
            },
            Said::Reload { generation: 2, detail: "~1 route".into() },
            Said::Refused { generation: 2, errors: 1, findings: vec!["error".into()] },
            Said::Warning { reason: "panic".into(), detail: "oops".into() },
            Said::Process { stage: "stopped".into(), detail: "bye".into() },
        ];
        assert_eq!(said, expected);
        assert_eq!(Said::parse("thread 'x' panicked"), Said::Text("thread 'x' panicked".into()));
    }
}
