//! A timer that is set for every request and goes off for hardly any.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for one deadline after the other, most of which are met.
///
/// To set a timer of the runtime and take it out again costs several times what it costs to look whether it has gone off. Here it
/// is set once, to the first deadline, and stays when that has been met and a later one has come: it goes off once for nothing, and
/// is then set to the deadline of that time.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `due`, which may be another one each time. To be polled by one task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if due <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alarm").field(&self.0.as_ref().map(|sleep| sleep.deadline())).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_off_at_the_last_deadline_and_no_other() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        // Met: the next has a later one, then an earlier one.
        for due in [100, 300, 200] {
            let waited = timeout(Duration::from_millis(10), poll_fn(|cx| alarm.poll(cx, at(due)))).await;
            assert!(waited.is_err(), "{due}");
        }
        poll_fn(|cx| alarm.poll(cx, at(250))).await;
        assert_eq!(Instant::now(), at(250));
        poll_fn(|cx| alarm.poll(cx, at(240))).await;
        assert_eq!(Instant::now(), at(250));
        poll_fn(|cx| alarm.poll(cx, at(900))).await;
        assert_eq!(Instant::now(), at(900));
    }
}
