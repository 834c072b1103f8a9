use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use tokio::sync::oneshot;

/// The threads that hash passwords, which takes milliseconds by design and must not hold a worker up.
///
/// The queue is bounded and is what limits guessing: when it is full a request is refused at once. A handle is cheap to
/// clone; the threads end with the last one.
#[derive(Clone, Debug)]
pub struct PasswordPool {
    jobs: SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// The queue is full.
#[derive(Debug)]
pub(in crate::layers) struct QueueFull;

impl PasswordPool {
    /// Starts `threads` threads, at least one, with room for `queue` passwords that wait. Sensible: one thread per two
    /// cores, 256 places.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub fn new(threads: usize, queue: usize) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(queue);
        let waiting = Arc::new(Mutex::new(waiting));
        for n in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(format!("password-{n}")).spawn(move || work(&waiting))?;
        }
        Ok(Self { jobs })
    }

    /// Queues work. The answer fails to come only if the work panics. Work whose asker has left is skipped.
    pub(in crate::layers) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, QueueFull> {
        let (answer, asker) = oneshot::channel();
        let job = move || {
            if !answer.is_closed() {
                // An error here is an asker that left meanwhile.
                let _ = answer.send(work());
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|_| QueueFull)?;
        Ok(asker)
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A thread that dies would be missed for ever; the asker learns of the panic by getting no answer.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}
