//! One line of JSON per request, without a worker ever waiting for where the lines go.
//!
//! A worker formats into a buffer of its own and hands it over, at 32 KiB or after a second, through a bounded queue to one
//! writer thread; the empty buffer comes back for reuse. A queue that is full (the destination is too slow) costs the whole
//! buffer, a failed write the lines that did not arrive: each is counted. After [`AccessLog::close`], lines written and lines
//! dropped add up to the requests recorded, exactly.

mod record;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

pub use record::{AccessRecord, Attempt};

use self::{
    record::Formatter,
    writer::{Batch, Message, Writer},
};
use super::events::Events;
use crate::{
    base::without_waiting,
    config::plan::{self, Destination},
};

// At this size a buffer is handed over.
const FULL: usize = 32 * 1024;
// A waiting buffer is handed over at this age.
const DUE: Duration = Duration::from_secs(1);
// Buffers under way to the writer, of all workers: about 4 MiB.
const QUEUE: usize = 128;
// Empty buffers under way back to one worker; more are given up.
const SPARE: usize = 4;

/// The access log: its writer thread and its counts.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    destination: Mutex<Destination>,
    queue: SyncSender<Message>,
    // Nothing is ever sent: the writer drops the other end when it is done.
    done: Mutex<Receiver<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    // Lines that left the workers, by whatever fate.
    handed: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
    closed: AtomicBool,
    next_sink: Mutex<Option<Sink>>,
}

// Unbuffered: a line counts as written when the system took it.
struct Sink(Box<dyn Write + Send>);

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl Sink {
    fn open(to: &Destination) -> io::Result<Self> {
        match to {
            Destination::File(path) => Ok(Self(Box::new(append(path)?))),
            // The standard library's own handle buffers, and would keep lines that then fail unseen.
            Destination::Stdout => Ok(Self(Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)))),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // A pipe without a reader is refused: opening it would wait for one, on a thread that has more to do. Writing may wait.
    let file = without_waiting(OpenOptions::new().append(true).create(true)).open(path)?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
    Ok(file)
}

impl AccessLog {
    /// Opens the destination and starts the writer thread. Trouble with the destination later on is told in `events`.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or the system has no thread to give.
    pub fn start(plan: &plan::AccessLog, events: Events) -> io::Result<Self> {
        Self::start_with(Sink::open(&plan.to)?, plan.to.clone(), events)
    }

    fn start_with(sink: Sink, to: Destination, events: Events) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (queue, messages) = sync_channel(QUEUE);
        let (alive, done) = sync_channel(0);
        let writer = Writer::new(sink, Arc::clone(&shared), events);
        thread::Builder::new().name("access-log".into()).spawn(move || {
            writer.run(&messages);
            drop(alive);
        })?;
        Ok(Self { shared, destination: Mutex::new(to), queue, done: Mutex::new(done) })
    }

    /// A buffer for one worker.
    #[must_use]
    pub fn buffer(&self) -> AccessBuffer {
        let (home, spare) = sync_channel(SPARE);
        AccessBuffer {
            shared: Arc::clone(&self.shared),
            queue: self.queue.clone(),
            home,
            spare,
            formatter: Formatter::default(),
            bytes: Vec::with_capacity(FULL + FULL / 8),
            lines: 0,
            flushed: Instant::now(),
        }
    }

    /// Opens the destination anew, after a rotation. Lines handed over from now on go to the new file.
    ///
    /// # Errors
    /// The file cannot be opened; the old one goes on.
    pub fn reopen(&self) -> io::Result<()> {
        let to = self.destination.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.redirect(&plan::AccessLog { to })
    }

    /// Writes to another destination from now on, after a reload.
    ///
    /// # Errors
    /// It cannot be opened; the old one goes on.
    pub fn redirect(&self, plan: &plan::AccessLog) -> io::Result<()> {
        let sink = Sink::open(&plan.to)?;
        *self.destination.lock().unwrap_or_else(PoisonError::into_inner) = plan.to.clone();
        *self.shared.next_sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
        // A queue that is full wakes the writer anyway.
        let _ = self.queue.try_send(Message::Wake);
        Ok(())
    }

    /// Lines that arrived at the destination.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.shared.written.load(Acquire)
    }

    /// Lines that were lost.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        if self.shared.closed.load(Acquire) {
            // Whatever did not arrive never will.
            let written = self.shared.written.load(Acquire);
            return self.shared.handed.load(Acquire).saturating_sub(written);
        }
        self.shared.dropped.load(Acquire)
    }

    /// Writes what was handed over and stops the writer. The workers' buffers are to be flushed before.
    ///
    /// Waits at most this long; false if the destination took longer, and what it did not take counts as dropped.
    pub fn close(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while matches!(self.queue.try_send(Message::Close), Err(std::sync::mpsc::TrySendError::Full(_))) {
            if Instant::now() >= deadline {
                break;
            }
            // The writer is behind, and nobody tells when it has caught up.
            thread::sleep(Duration::from_millis(1));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let is_done = done.recv_timeout(left) == Err(RecvTimeoutError::Disconnected);
        self.shared.closed.store(true, Release);
        is_done
    }
}

/// The lines that a worker has not handed over yet. Dropping it hands them over.
#[derive(Debug)]
pub struct AccessBuffer {
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
    home: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    formatter: Formatter,
    bytes: Vec<u8>,
    lines: u64,
    flushed: Instant,
}

impl AccessBuffer {
    /// Appends a line. Never blocks.
    pub fn record(&mut self, record: &AccessRecord<'_>) {
        self.formatter.push_line(&mut self.bytes, record);
        self.lines += 1;
        if self.bytes.len() >= FULL {
            self.flush();
        }
    }

    /// Hands over what has waited for a second. Called by the worker's tick.
    pub fn flush_if_due(&mut self, now: Instant) {
        if now.saturating_duration_since(self.flushed) >= DUE {
            self.flush();
            self.flushed = now;
        }
    }

    /// Hands over all lines; where the queue is full they are dropped and counted. Never blocks.
    pub fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let next = self.spare.try_recv().unwrap_or_default();
        let batch = Batch { bytes: std::mem::replace(&mut self.bytes, next), lines, home: self.home.clone() };
        self.shared.handed.fetch_add(lines, Release);
        if let Err(refused) = self.queue.try_send(Message::Lines(batch)) {
            self.shared.dropped.fetch_add(lines, Relaxed);
            self.take_back(refused);
        }
    }

    fn take_back(&mut self, refused: std::sync::mpsc::TrySendError<Message>) {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        if let Full(Message::Lines(batch)) | Disconnected(Message::Lines(batch)) = refused {
            batch.give_back();
        }
    }
}

impl Drop for AccessBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}
