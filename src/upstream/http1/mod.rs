//! HTTP/1.1 to a backend, one request after the other.
//!
//! This framing is ours, where all other is hyper's. hyper drives a client's connection in a task of its own, to which a request
//! passes through one channel and from which its response comes back through two more; here the connection is polled by whoever
//! waits for it, in the task of the request. Nothing else is different: the tests hold it against hyper's client.

mod body;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(all(test, not(fuzzing)))]
mod fuzzing;
mod head;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::{
    io::AsyncReadExt as _,
    task::{AbortHandle, spawn_local},
};

use self::{
    body::{Decoder, Piece},
    upload::Upload,
};
use super::{
    pool::Unsent,
    stream::BackendStream,
    wire::{RequestHead, Sendable, Upgraded, WireError},
};
use crate::net::values;

/// What a backend sent is not what HTTP/1.1 would have it send.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the backend sent {0}")]
pub struct Garbage(&'static str);

/// The largest head of a response, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;

/// The most that interim responses (1xx) may take before the response, in bytes: a backend that sends nothing else would keep
/// the worker busy for ever.
const MOST_INTERIM: usize = 512 * 1024;

/// What is read at once: first so much, and more where it is filled, up to the most.
const READ: usize = 8 * 1024;
const MOST_READ: usize = 64 * 1024;

/// An open connection.
pub(super) struct Http1 {
    // Shared with the task of an upload that outlasts the head of its response.
    stream: Rc<RefCell<BackendStream>>,
    read: BytesMut,
    room: usize,
    is_ended: bool,
    // What frames requests is written here. Kept, so that it is allocated once.
    out: Vec<u8>,
    response: Decoder,
    keeps_alive: bool,
    may_upgrade: bool,
    uploading: Option<Uploading>,
    interim: u32,
    pub(super) born: Instant,
}

impl Http1 {
    pub(super) fn new(stream: Rc<RefCell<BackendStream>>) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            room: READ,
            is_ended: false,
            out: Vec::new(),
            response: Decoder::Over,
            keeps_alive: true,
            may_upgrade: false,
            uploading: None,
            interim: 0,
            born: Instant::now(),
        }
    }

    /// Whether the next response may say 101, after which the stream is wanted.
    pub(super) fn may_upgrade(&mut self, may: bool) {
        self.may_upgrade = may;
    }

    /// How many interim responses (1xx) came since this was last asked.
    pub(super) fn take_interim(&mut self) -> u32 {
        std::mem::take(&mut self.interim)
    }

    /// Whether request and response have ended, and another may follow them.
    pub(super) fn is_reusable(&self) -> bool {
        let is_uploaded = self.uploading.as_ref().is_none_or(|uploading| uploading.state.get() == State::Done);
        self.keeps_alive && is_uploaded && self.response.is_over() && self.read.is_empty() && !self.is_ended
    }

    /// Whether an idle connection has ended. What comes while nothing was asked for is no answer to anything: it ends it, too.
    pub(super) fn is_dead(&mut self) -> bool {
        self.poll_read(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Gives back what an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        self.read = BytesMut::new();
        self.out = Vec::new();
        self.room = READ;
    }

    /// From when on a request has it; `None`: it is idle.
    pub(super) fn is_asked(&self, since: Option<Instant>) {
        self.stream.borrow_mut().asked = since;
    }

    /// Sends a request and returns the head of its response, which may come before the request has ended.
    pub(super) async fn send<B: Sendable>(&mut self, head: &RequestHead, body: B) -> Result<Response<()>, Unsent<B>> {
        let mut upload = Upload::new(head, body, std::mem::take(&mut self.out));
        let method = &head.parts.method;
        let mut interim = 0;
        let answered = poll_fn(|cx| {
            let uploaded = upload.poll(cx, &mut self.stream.borrow_mut());
            let head = self.poll_head(cx, method, &mut interim);
            match (uploaded, head) {
                (_, Poll::Ready(Ok(head))) => Poll::Ready(Ok(head)),
                // A backend that answers early may close its side at once: the answer is read all the same.
                (Poll::Ready(Err(error @ WireError::Body)), _) | (_, Poll::Ready(Err(error))) => {
                    Poll::Ready(Err(error))
                }
                (Poll::Ready(Ok(()) | Err(_)) | Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        })
        .await;
        let response = answered.map_err(|error| Unsent { body: None, error })?;
        match upload.into_buffer() {
            Ok(buffer) => self.out = buffer,
            Err(upload) => self.uploading = Some(Uploading::begin(upload, &self.stream)),
        }
        Ok(response)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        interim: &mut usize,
    ) -> Poll<Result<Response<()>, WireError>> {
        loop {
            let before = self.read.len();
            let head = head::parse(&mut self.read)?;
            if head.as_ref().map_or(before, |_| before - self.read.len()) > LARGEST_HEAD {
                return Poll::Ready(Err(Garbage("a head that is too large").into()));
            }
            let Some(head) = head else {
                if ready!(self.poll_read(cx))? == 0 {
                    return Poll::Ready(Err(WireError::Ended));
                }
                continue;
            };
            let (status, headers) = (head.response.status(), head.response.headers());
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.interim = self.interim.saturating_add(1);
                *interim += before - self.read.len();
                if *interim > MOST_INTERIM {
                    return Poll::Ready(Err(Garbage("too many interim responses").into()));
                }
                continue;
            }
            if status == StatusCode::SWITCHING_PROTOCOLS && !self.may_upgrade {
                return Poll::Ready(Err(Garbage("an upgrade that nobody asked for").into()));
            }
            self.response = Decoder::of(method, status, head.response.version(), headers)?;
            let has = |name| values(headers, &name).next().is_some();
            let is_doubtful = has(header::TRANSFER_ENCODING) && has(header::CONTENT_LENGTH);
            self.keeps_alive = head.keeps_alive && !is_doubtful && self.response != Decoder::UntilClose;
            return Poll::Ready(Ok(head.response));
        }
    }

    /// The next frame of the body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        loop {
            match self.response.decode(&mut self.read, self.is_ended) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::Nothing) => {}
                Err(garbage) => return Poll::Ready(Some(Err(garbage.into()))),
            }
            if self.uploading.as_ref().is_some_and(|uploading| uploading.has_failed(cx)) {
                return Poll::Ready(Some(Err(WireError::Body)));
            }
            if let Err(error) = ready!(self.poll_read(cx)) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
    }

    /// Whether the body has no further frame.
    pub(super) const fn is_end_stream(&self) -> bool {
        self.response.is_over()
    }

    /// What is left of the body.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.response.size_hint()
    }

    /// The stream, after a response that says 101; `None` while a request is still being written to it.
    pub(super) fn into_upgraded(self) -> Option<Upgraded> {
        let stream = Rc::try_unwrap(self.stream).ok()?.into_inner();
        Some(Upgraded { stream, ahead: self.read.freeze() })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.room);
        let room = self.read.capacity() - self.read.len();
        let read = ready!(pin!(self.stream.borrow_mut().read_buf(&mut self.read)).poll(cx))?;
        if read == room {
            self.room = (self.room * 2).min(MOST_READ);
        }
        self.is_ended |= read == 0;
        Poll::Ready(Ok(read))
    }
}

/// The rest of a request whose response has begun: it goes on in a task of its own, because a client may send all of the one
/// before it takes any of the other.
struct Uploading {
    state: Rc<Cell<State>>,
    reader: Rc<RefCell<Option<Waker>>>,
    task: AbortHandle,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Running,
    Done,
    /// The body ended before its time.
    Failed,
    /// The backend takes no more of it. Its response says what there is to say.
    Unwanted,
}

impl Uploading {
    fn begin<B: Sendable>(mut upload: Upload<B>, stream: &Rc<RefCell<BackendStream>>) -> Self {
        let (state, reader) = (Rc::new(Cell::new(State::Running)), Rc::<RefCell<Option<Waker>>>::default());
        let (stream, told, waiting) = (Rc::clone(stream), Rc::clone(&state), Rc::clone(&reader));
        let task = spawn_local(async move {
            let uploaded = poll_fn(|cx| upload.poll(cx, &mut stream.borrow_mut())).await;
            told.set(match uploaded {
                Ok(()) => State::Done,
                Err(WireError::Body) => State::Failed,
                Err(_) => State::Unwanted,
            });
            waiting.take().into_iter().for_each(Waker::wake);
        });
        Self { state, reader, task: task.abort_handle() }
    }

    fn has_failed(&self, cx: &Context<'_>) -> bool {
        if self.state.get() == State::Running {
            self.reader.replace(Some(cx.waker().clone()));
        }
        self.state.get() == State::Failed
    }
}

/// Left alone, it would go on with a body that nobody wants any more, as long as the client takes to send it.
impl Drop for Uploading {
    fn drop(&mut self) {
        self.task.abort();
    }
}
