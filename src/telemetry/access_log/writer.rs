use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{Acquire, Release},
        mpsc::{Receiver, SyncSender},
    },
};

use super::{FULL, Shared, Sink};
use crate::telemetry::events::{Event, Events};

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Write what is in the queue, then stop.
    Close,
    /// Write these.
    Lines(Batch),
    /// There is a new destination.
    Wake,
}

/// Whole lines of one worker.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
    pub(super) home: SyncSender<Vec<u8>>,
}

impl Batch {
    /// Returns the buffer to its worker, unless a few huge lines have blown it up.
    pub(super) fn give_back(mut self) {
        self.bytes.clear();
        if self.bytes.capacity() <= 4 * FULL {
            let _ = self.home.try_send(self.bytes);
        }
    }
}

/// The one that writes.
#[derive(Debug)]
pub(super) struct Writer {
    sink: Sink,
    shared: Arc<Shared>,
    events: Events,
    // The destination ends within a line: the rest of it failed.
    is_torn: bool,
    is_failing: bool,
}

impl Writer {
    pub(super) fn new(sink: Sink, shared: Arc<Shared>, events: Events) -> Self {
        Self { sink, shared, events, is_torn: false, is_failing: false }
    }

    /// Writes until it is told to close, or until log and workers are gone.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            self.take_next_sink();
            match message {
                Message::Close => break,
                Message::Lines(batch) => self.settle(batch),
                Message::Wake => {}
            }
        }
        for message in messages.try_iter() {
            if let Message::Lines(batch) = message {
                self.settle(batch);
            }
        }
    }

    fn take_next_sink(&mut self) {
        let next = self.shared.next_sink.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sink) = next {
            self.sink = sink;
            self.is_torn = false;
        }
    }

    // Writes a batch and counts each of its lines as written or dropped.
    fn settle(&mut self, batch: Batch) {
        let result = self.write(&batch.bytes);
        let written = match result {
            Ok(()) => batch.lines,
            Err((whole_lines, _)) => whole_lines,
        };
        // A log that was closed without waiting for this has counted it as dropped.
        if !self.shared.closed.load(Acquire) {
            self.shared.written.fetch_add(written, Release);
            self.shared.dropped.fetch_add(batch.lines - written, Release);
        }
        self.tell(result.err().map(|(_, error)| error));
        batch.give_back();
    }

    // On failure: how many whole lines arrived, and why no more.
    fn write(&mut self, bytes: &[u8]) -> Result<(), (u64, io::Error)> {
        if self.is_torn {
            self.write_all(b"\n").map_err(|(_, error)| (0, error))?;
            self.is_torn = false;
        }
        self.write_all(bytes).map_err(|(taken, error)| {
            let arrived = &bytes[..taken];
            self.is_torn = arrived.last().is_some_and(|last| *last != b'\n');
            (arrived.iter().filter(|b| **b == b'\n').count() as u64, error)
        })
    }

    // On failure: how many bytes were taken. `Write::write_all` does not tell.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.sink.0.write(&bytes[taken..]) {
                Ok(0) => return Err((taken, io::ErrorKind::WriteZero.into())),
                Ok(n) => taken += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((taken, error)),
            }
        }
        Ok(())
    }

    // Says once that it fails and once that it works again, not for each batch.
    fn tell(&mut self, error: Option<io::Error>) {
        let detail = match error {
            Some(error) if !self.is_failing => format!("lines are lost: {error}"),
            None if self.is_failing => "is written again".to_owned(),
            _ => return,
        };
        self.is_failing = !self.is_failing;
        self.events.emit(Event::Warning { what: "access_log", detail });
    }
}
