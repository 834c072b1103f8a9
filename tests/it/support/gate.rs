use std::{
    io,
    sync::{Arc, Condvar, Mutex},
};

use super::PATIENCE;

/// Holds a script until the test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn wait(&self) -> io::Result<()> {
        let is_open = self.0.0.lock().unwrap();
        let (_open, waited) = self.0.1.wait_timeout_while(is_open, PATIENCE, |is_open| !*is_open).unwrap();
        if waited.timed_out() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}
