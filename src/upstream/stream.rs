//! A backend's stream as those who frame it see it, with a count of what came.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{dial::Transport, pool::Place};

/// A backend's stream, which holds a place among its connections, and tells, where somebody wants to know, that something came.
#[derive(Debug)]
pub struct BackendStream {
    transport: Transport,
    heard: Option<Heard>,
    is_cut: bool,
    /// When the request began that has it, where one alone has it.
    pub(super) asked: Option<Instant>,
    _place: Place,
}

/// What a stream says that was cut. No read of a connected socket says it of itself.
pub(super) const CUT: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// How often something came from the backend, for whoever wants to know whether it is silent, and how much more may come before
/// something useful does.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Rc<Ear>);

#[derive(Debug, Default)]
struct Ear {
    times: Cell<u64>,
    credit: Cell<usize>,
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

    /// So many bytes may come from now on.
    pub(super) fn credit(&self, bytes: usize) {
        self.0.credit.set(bytes);
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.credit.get().checked_sub(bytes).ok_or(io::ErrorKind::InvalidData)?;
        self.0.credit.set(left);
        self.0.times.set(self.0.times.get() + 1);
        if let Some(listener) = self.0.listener.take() {
            listener.wake();
        }
        Ok(())
    }
}

impl BackendStream {
    pub(super) const fn new(transport: Transport, heard: Option<Heard>, place: Place) -> Self {
        Self { transport, heard, is_cut: false, asked: None, _place: place }
    }

    /// Ends it, with whatever is on its way.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.transport.cut();
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { transport, heard, is_cut, .. } = &mut *self;
        // Not the end that it seems to be: a body may last until then.
        if *is_cut {
            return Poll::Ready(Err(CUT.into()));
        }
        let Some(heard) = heard else { return Pin::new(transport).poll_read(cx, buf) };
        let before = buf.filled().len();
        ready!(Pin::new(transport).poll_read(cx, buf))?;
        Poll::Ready(heard.count(buf.filled().len() - before))
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

/// A stream that a connection in HTTP/2 has for itself, but for its end.
#[derive(Debug)]
pub(super) struct SharedStream(pub(super) Rc<RefCell<BackendStream>>);

impl AsyncRead for SharedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}
