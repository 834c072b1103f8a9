use std::{
    collections::VecDeque,
    fmt,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU8,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc::{Receiver, RecvTimeoutError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use tokio::sync::watch;

use super::{
    Event, Events,
    render::{Line, TextRenderer},
};
use crate::{
    base::Timestamp,
    config::plan::{LogFormat, LogLevel},
};

// A reload of a thousand upstreams fits; what exceeds it is dropped and counted.
const QUEUE: usize = 4096;
const RING: usize = 500;

// Stages of the log. An event follows CLOSING, so a writer that waits while it is OPEN is woken; nothing need follow LAST_SENT.
const OPEN: u8 = 0;
const CLOSING: u8 = 1;
const LAST_SENT: u8 = 2;

/// Where events are written.
pub struct Sink {
    // Whoever else writes to the same place must not land inside a line, so it gets each line in one write: no adapter that
    // cuts lines at escape sequences, no buffer.
    out: Box<dyn Write + Send>,
    is_coloured: bool,
    is_terminal: bool,
}

impl Sink {
    /// Standard error; colours only if it is a terminal that wants them.
    #[must_use]
    pub fn stderr() -> Self {
        let stderr = io::stderr();
        Self {
            is_coloured: is_coloured(AutoStream::choice(&stderr)),
            is_terminal: stderr.is_terminal(),
            out: Box::new(stderr),
        }
    }

    /// Any writer: no terminal, so styles only if `color` insists on them.
    #[must_use]
    pub fn writer(out: impl Write + Send + 'static, color: ColorChoice) -> Self {
        Self { out: Box::new(out), is_coloured: is_coloured(color), is_terminal: false }
    }

    fn write(&mut self, styled: &str) -> io::Result<()> {
        match self.is_coloured {
            true => self.out.write_all(styled.as_bytes())?,
            false => self.out.write_all(strip_str(styled).to_string().as_bytes())?,
        }
        self.out.flush()
    }
}

fn is_coloured(choice: ColorChoice) -> bool {
    matches!(choice, ColorChoice::Always | ColorChoice::AlwaysAnsi)
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("is_terminal", &self.is_terminal).finish_non_exhaustive()
    }
}

/// An event that was written, or would have been at another log level.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

impl Recorded {
    /// The event as it is told.
    #[must_use]
    pub fn line(&self) -> Line<'_> {
        Line::of(self.at, &self.event)
    }

    /// The event as the JSON log writes it, one object.
    #[must_use]
    pub fn json(&self) -> String {
        self.line().json()
    }
}

/// The one writer of events, and the last 500 of them.
///
/// Dropped without [`EventLog::close`], the writer goes on until the last [`Events`] is gone.
#[derive(Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
    events: Events,
    // Nothing is ever sent: the writer drops the other end when it is done.
    done: Mutex<Receiver<()>>,
}

#[derive(Debug)]
struct Shared {
    level: AtomicU8,
    format: AtomicU8,
    stage: AtomicU8,
    newest: watch::Sender<u64>,
    recent: Mutex<VecDeque<Recorded>>,
}

impl EventLog {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(format: LogFormat, level: LogLevel, sink: Sink) -> io::Result<(Self, Events)> {
        let (queue, events) = sync_channel(QUEUE);
        let (alive, done) = sync_channel(0);
        let shared = Arc::new(Shared {
            level: AtomicU8::new(level as u8),
            format: AtomicU8::new(format as u8),
            stage: AtomicU8::new(OPEN),
            newest: watch::Sender::new(0),
            recent: Mutex::default(),
        });
        let mut writer = Writer { shared: Arc::clone(&shared), sink, text: TextRenderer::default() };
        thread::Builder::new().name("events".into()).spawn(move || {
            writer.run(&events);
            drop(alive);
        })?;
        let emitter = Events::new(queue);
        Ok((Self { shared, events: emitter.clone(), done: Mutex::new(done) }, emitter))
    }

    /// Changes the least that is written, from now on.
    pub fn set_level(&self, level: LogLevel) {
        self.shared.level.store(level as u8, Relaxed);
    }

    /// Changes the form of lines, from now on.
    pub fn set_format(&self, format: LogFormat) {
        self.shared.format.store(format as u8, Relaxed);
    }

    /// The last 500 events, oldest first, at whatever level the log is.
    #[must_use]
    pub fn recent(&self) -> Vec<Recorded> {
        self.since(0)
    }

    /// Those of the last 500 events that have a greater number than this, oldest first.
    #[must_use]
    pub fn since(&self, sequence: u64) -> Vec<Recorded> {
        if *self.shared.newest.borrow() <= sequence {
            return Vec::new();
        }
        let recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().filter(|recorded| recorded.sequence > sequence).cloned().collect()
    }

    /// The oldest of the last 500 events that has a greater number than this.
    #[must_use]
    pub fn next(&self, sequence: u64) -> Option<Recorded> {
        let recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recent.partition_point(|recorded| recorded.sequence <= sequence);
        recent.get(first).cloned()
    }

    /// The number of the newest event, and a way to wait for the next one. A reader who is slow holds up nobody: what it has not read
    /// by the time that 500 more have come is gone.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }

    /// Writes everything emitted so far and then this last event, and stops the writer.
    ///
    /// Waits at most this long; false if a destination that blocks took longer.
    pub fn close(&self, last: Event, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.shared.stage.store(CLOSING, Release);
        self.send(last, deadline);
        self.shared.stage.store(LAST_SENT, Release);
        let left = deadline.saturating_duration_since(Instant::now());
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }

    fn send(&self, event: Event, deadline: Instant) {
        let mut message = (Timestamp::now(), event);
        while let Err(TrySendError::Full(back)) = self.events.queue.try_send(message) {
            if Instant::now() >= deadline {
                self.events.lost.fetch_add(1, Relaxed);
                return;
            }
            // The writer is behind, and nobody tells when it has caught up.
            thread::sleep(Duration::from_millis(1));
            message = back;
        }
    }
}

#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    text: TextRenderer,
}

impl Writer {
    fn run(&mut self, events: &Receiver<(Timestamp, Event)>) {
        while let Some((at, event)) = self.next(events) {
            self.write(at, &event);
            self.remember(at, event);
        }
    }

    fn next(&self, events: &Receiver<(Timestamp, Event)>) -> Option<(Timestamp, Event)> {
        loop {
            match self.shared.stage.load(Acquire) {
                OPEN => return events.recv().ok(),
                LAST_SENT => return events.try_recv().ok(),
                _ => match events.recv_timeout(Duration::from_millis(1)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    event => return event.ok(),
                },
            }
        }
    }

    fn write(&mut self, at: Timestamp, event: &Event) {
        if (event.level() as u8) < self.shared.level.load(Relaxed) {
            return;
        }
        let line = Line::of(at, event);
        let line = if self.is_json() { line.json() + "\n" } else { self.text.render(&line) };
        // Where standard error is gone there is nobody left to tell.
        let _ = self.sink.write(&line);
    }

    fn is_json(&self) -> bool {
        let format = self.shared.format.load(Relaxed);
        format == LogFormat::Json as u8 || (format == LogFormat::Auto as u8 && !self.sink.is_terminal)
    }

    fn remember(&self, at: Timestamp, event: Event) {
        let mut recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RING {
            recent.pop_front();
        }
        let sequence = *self.shared.newest.borrow() + 1;
        recent.push_back(Recorded { sequence, at, event });
        // Behind the ring, so that whoever is woken finds the event in it.
        drop(recent);
        self.shared.newest.send_replace(sequence);
    }
}
