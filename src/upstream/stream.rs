//! A backend's stream as hyper sees it, with a bound on what may come before a response, and a count of what came.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{dial::Transport, pool::Place};

/// A backend's stream as hyper reads and writes it. While the head of a response is awaited it gives no more than so many
/// bytes: hyper skips interim responses (1xx) for as long as they come, and a backend that sends nothing else would keep the
/// worker busy for ever.
#[derive(Debug)]
pub struct BackendStream {
    transport: Transport,
    patience: Patience,
    heard: Heard,
    _place: Place,
}

/// Bytes that may still come before the head of a response; `None` while a body comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Rc<Cell<Option<usize>>>);

/// Room for the largest head, what hyper reads ahead of a body before the head is taken, and thousands of interim responses.
const MOST: usize = 512 * 1024;

impl Patience {
    /// A request is about to be sent.
    pub(super) fn begin(&self) {
        self.0.set(Some(MOST));
    }

    /// The head of its response is there.
    pub(super) fn end(&self) {
        self.0.set(None);
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let Some(left) = self.0.get() else { return Ok(()) };
        self.0.set(Some(left.checked_sub(bytes).ok_or(io::ErrorKind::InvalidData)?));
        Ok(())
    }
}

/// How often something came from the backend, for whoever wants to know whether it is silent.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Rc<Ear>);

#[derive(Debug, Default)]
struct Ear {
    times: Cell<u64>,
    listener: RefCell<Option<Waker>>,
}

impl Heard {
    /// How often so far.
    pub(super) fn times(&self) -> u64 {
        self.0.times.get()
    }

    /// Wakes the task the next time.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        self.0.listener.replace(Some(cx.waker().clone()));
    }

    fn count(&self) {
        self.0.times.set(self.0.times.get() + 1);
        if let Some(listener) = self.0.listener.take() {
            listener.wake();
        }
    }
}

impl BackendStream {
    pub(super) const fn new(transport: Transport, patience: Patience, heard: Heard, place: Place) -> Self {
        Self { transport, patience, heard, _place: place }
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        self.heard.count();
        Poll::Ready(self.patience.spend(buf.filled().len() - before))
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
