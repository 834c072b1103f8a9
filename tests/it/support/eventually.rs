use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up. Generous: the machine may be busy, and no test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Returns once the condition holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
