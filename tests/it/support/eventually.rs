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

/// Returns the value once it has stopped to change, which is looked at twenty times in a row.
#[track_caller]
pub fn at_rest<T: PartialEq>(what: &str, mut value: impl FnMut() -> T) -> T {
    let mut last = value();
    let mut same = 0;
    eventually(&format!("{what} comes to rest"), || {
        let now = value();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        thread::sleep(Duration::from_millis(10));
        same >= 20
    });
    last
}
