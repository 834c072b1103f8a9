//! What a connection is after an upgrade: bytes in both directions, until either side has said all.

use std::{
    cell::Cell,
    fmt, io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    time::{Instant, MissedTickBehavior, interval},
};

use super::Exchange;
use crate::upstream::{Lease, Upgraded};

/// A tunnel that is agreed on, between a client and a backend. Holds what the exchange uses of the backend until its end.
pub struct Tunnel {
    exchange: Rc<Exchange>,
    lease: Lease,
    backend: Upgraded,
}

/// What is read from one side and not yet taken by the other, in bytes.
const BUFFER: usize = 16 * 1024;

/// How often it is looked whether a tunnel should end. Its deadlines are kept to this much.
const TICK: Duration = Duration::from_secs(1);

impl Tunnel {
    pub(super) const fn new(exchange: Rc<Exchange>, lease: Lease, backend: Upgraded) -> Self {
        Self { exchange, lease, backend }
    }

    /// Passes bytes on until both sides have ended, one has failed, nothing came for `timeouts.tunnel`, or, after
    /// `shutdown.timeout`, its route or its backend is gone. `ahead` is what was read of the client's bytes before.
    pub async fn run(self, client: impl AsyncRead + AsyncWrite + Unpin, ahead: Bytes) {
        let Self { exchange, lease, backend } = self;
        let moved = Cell::new(Instant::now());
        let from_client = |bytes| {
            exchange.received(bytes);
            moved.set(Instant::now());
        };
        let from_backend = |bytes| {
            exchange.sent(bytes);
            moved.set(Instant::now());
        };
        let mut client = Watched { inner: client, ahead, on_read: from_client };
        let Upgraded { stream, ahead } = backend;
        let mut backend = Watched { inner: stream, ahead, on_read: from_backend };
        let mut copying = pin!(copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER));
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let limit = exchange.timeouts().tunnel;
        let mut doomed: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                // Who has failed, and how, is between the two of them.
                _ended = &mut copying => break,
                now = ticks.tick() => {
                    if !limit.is_zero() && now.saturating_duration_since(moved.get()) >= limit {
                        break;
                    }
                    doomed = exchange.ends_by(lease.member(), doomed);
                    if doomed.is_some_and(|deadline| deadline <= now) {
                        // Cut: the record says so.
                        return;
                    }
                }
            }
        }
        exchange.response_ended();
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// A stream that first gives what was read ahead of it, and tells of whatever is read.
struct Watched<S, F> {
    inner: S,
    ahead: Bytes,
    on_read: F,
}

impl<S: AsyncRead + Unpin, F: Fn(u64) + Unpin> AsyncRead for Watched<S, F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.ahead.has_remaining() {
            let ready = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(ready));
        } else {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        }
        (self.on_read)((buf.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Watched<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
