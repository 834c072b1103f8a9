//! One open connection to a backend, in HTTP/1.1 for one request after the other, in HTTP/2 for many side by side.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Uri, Version, header, request::Parts, uri::PathAndQuery};
use http_body::{Body, Frame, SizeHint};
use hyper::{Request, Response, body::Incoming, client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::{AbortHandle, spawn_local};

use super::{
    Dial, Garbage,
    dial::DialError,
    http1::Http1,
    living::Living,
    pool::{Place, Stream, Unsent},
    stream::{BackendStream, CUT, Heard, SharedStream},
};
use crate::tls::Protocol;

/// The largest response head that a backend may send, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection, where the backend allows more.
const MAX_STREAMS: usize = 128;

/// Fewer than most backends allow: each of them is used.
const FEW_STREAMS: usize = 10;

/// What a backend may send of one response before the client has taken it: enough for 1 Gbit/s over a millisecond there and
/// back.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The same of all of a connection's responses: more than all of them may hold together, which is 16 MiB. With less, clients that
/// do not read would keep all of it, and every other request of the connection would wait for them.
///
/// It is that much more because h2 allows frames that wait for their reader by it: those under 256 bytes together half of it,
/// each counted as what it lacks of 256, and past that it ends the connection. A response in frames of 30 bytes, of which
/// a client takes nothing, counts for 1 MiB; here 64 such clients do not cost all others theirs. Both are credit, not memory.
/// What is really held ends with the deadlines of the requests.
const CONNECTION_WINDOW: u32 = 128 * 1024 * 1024;

/// What may come of a backend before something useful does, the head of a response or a piece of a body that a client takes: more
/// than all of the streams' windows, and soon used up by one that sends interim responses, pings or settings for ever.
const CREDIT: usize = 2 * MAX_STREAMS * STREAM_WINDOW as usize;

/// How long nothing may come from a backend with requests under way before it is asked whether it is still there, and how long
/// it may take to say so.
///
/// Servers of gRPC allow one such question in five minutes, and close the connection with `too_many_pings` at the third that
/// comes sooner, where they have sent nothing meanwhile (gRPC proposal A8, "Server Enforcement"): a call on which both sides
/// are silent for a while would end by it. Their clients, and Envoy's, ask never unless they are told to. This finds calls
/// without a deadline whose backend is gone; the others are found by [`Http2::doubt`].
const KEEP_ALIVE: Duration = Duration::from_secs(6 * 60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// For how long nothing may come from a backend, since a request was sent to it, before one that got no answer in time speaks
/// against the connection.
const SILENCE: Duration = Duration::from_secs(2);

/// What a request's body must be, to be sent to a backend.
pub trait Sendable: Body<Data: Buf + Send, Error: Into<BoxError>> + Unpin + 'static {}

impl<B: Body<Data: Buf + Send, Error: Into<BoxError>> + Unpin + 'static> Sendable for B {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Fields that the gateway adds to a head, none of which it has already.
pub type Added = Vec<(HeaderName, HeaderValue)>;

/// The head of a request as a backend gets it.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// What the client sent of it.
    pub parts: Parts,
    /// What the gateway adds. Beside the map of fields: nobody looks for them there, and to put them in would cost a hash each.
    pub added: Added,
    /// The client says `TE: trailers`. A backend in HTTP/2 is told so, too: gRPC asks for it.
    pub takes_trailers: bool,
}

/// An open connection.
pub(super) enum Wire<B: Sendable> {
    /// For one request at a time.
    Http1(Http1),
    /// For many.
    Http2(Rc<Http2<B>>),
}

/// Opens a connection, which holds the place until its socket is closed, and is one of those that are open from then on.
pub(super) async fn open<B: Sendable>(
    dial: &Dial,
    place: Place,
    streams: &Living<RefCell<BackendStream>>,
) -> Result<Wire<B>, DialError> {
    let transport = dial.connect().await?;
    let protocol = transport.protocol(dial);
    let heard = (protocol == Protocol::Http2).then(Heard::default);
    let stream = Rc::new(RefCell::new(BackendStream::new(transport, heard.clone(), place)));
    streams.add(&stream);
    match heard {
        None => Ok(Wire::Http1(Http1::new(stream))),
        Some(heard) => Box::pin(Http2::open(dial, stream, heard)).await.map(|wire| Wire::Http2(Rc::new(wire))),
    }
}

/// A backend's stream after an upgrade, and what was read of it before.
#[derive(Debug)]
pub struct Upgraded {
    /// The stream.
    pub stream: BackendStream,
    /// What was read ahead.
    pub ahead: Bytes,
}

/// Why a request got no response, or a response no end.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The request's body ended before its time.
    #[error("the request ended before its time")]
    Body,
    /// The backend closed the connection.
    #[error("the backend closed the connection")]
    Ended,
    /// What the backend sent is not HTTP/1.1.
    #[error(transparent)]
    Garbage(#[from] Garbage),
    /// What hyper says of a connection in HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl WireError {
    /// Whether it is our doing: the backend was to be left, with whatever was on its way.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        let io = match self {
            Self::Io(error) => Some(error),
            // hyper unwraps what the system says for a request, and leaves it wrapped for a body.
            Self::Http2(error) => std::error::Error::source(error).and_then(|cause| {
                cause.downcast_ref::<io::Error>().or_else(|| cause.downcast_ref::<h2::Error>()?.get_io())
            }),
            Self::Body | Self::Ended | Self::Garbage(_) => None,
        };
        io.is_some_and(|error| error.kind() == CUT)
    }
}

/// One to which nothing is added.
impl From<Parts> for RequestHead {
    fn from(parts: Parts) -> Self {
        Self { parts, added: Vec::new(), takes_trailers: false }
    }
}

type Http2Connection<B> = http2::Connection<TokioIo<SharedStream>, Upload<B>, Tasks>;

/// A request's body, and the stream that it belongs to, which is open until both body and response have ended: counted by the
/// response alone, it would seem free while the connection has no room, and whatever is sent then would wait in hyper.
pub(super) struct Upload<B: Sendable> {
    body: B,
    stream: Rc<Stream<B>>,
}

impl<B: Sendable> Body for Upload<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_last = frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        self.stream.is_sent.set(is_last || self.body.is_end_stream());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An HTTP/2 connection, shared by its requests.
pub(super) struct Http2<B: Sendable> {
    sender: http2::SendRequest<Upload<B>>,
    // Polled by its driver, asked by whoever wants a stream. Gone once it has ended: requests that still wait in it come back
    // as it is dropped.
    connection: Rc<RefCell<Option<Http2Connection<B>>>>,
    dial: Dial,
    pub(super) born: Instant,
    pub(super) idle_since: Cell<Instant>,
    streams: Cell<usize>,
    heard: Heard,
    // The first request since something last came: how often something had come by then, and when it was sent.
    asked: Cell<(u64, Instant)>,
    is_retired: Rc<Cell<bool>>,
    _driver: Driver,
}

impl<B: Sendable> Http2<B> {
    async fn open(dial: &Dial, stream: Rc<RefCell<BackendStream>>, heard: Heard) -> Result<Self, DialError> {
        heard.credit(CREDIT);
        let stream = TokioIo::new(SharedStream(stream));
        let mut builder = http2::Builder::new(Tasks);
        builder
            .timer(TokioTimer::new())
            // None: `settled` sees by that whether the backend has said how many.
            .initial_max_send_streams(0)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let (sender, mut connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        settled(&mut connection, &heard).await?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        let driven = Rc::clone(&connection);
        let is_retired = Rc::<Cell<bool>>::default();
        let retired = Rc::clone(&is_retired);
        let driver = spawn_local(async move {
            let poll =
                |cx: &mut Context<'_>| driven.borrow_mut().as_mut().map(|connection| Pin::new(connection).poll(cx));
            // What goes wrong is told to the requests that use it. A panic leaves a lock behind that makes whoever touches the
            // connection panic, too: nobody may.
            let driving = poll_fn(|cx| poll(cx).map_or(Poll::Ready(()), |polled| polled.map(drop)));
            let driven_to_its_end = AssertUnwindSafe(driving).catch_unwind().await;
            retired.set(true);
            let ended = driven.borrow_mut().take();
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(ended)));
            if let Err(panic) = driven_to_its_end.and(dropped) {
                resume_unwind(panic);
            }
        });
        let now = Instant::now();
        Ok(Self {
            sender,
            connection,
            dial: dial.clone(),
            born: now,
            idle_since: Cell::new(now),
            streams: Cell::default(),
            heard,
            asked: Cell::new((0, now)),
            is_retired,
            _driver: Driver(driver.abort_handle()),
        })
    }

    /// Whether it may carry one more request: as many as the backend allows, and we.
    ///
    /// Of many that are allowed the last is left alone: hyper holds a request that fills a connection up until it is written,
    /// and loses it, with its body, where the backend goes away in that moment. Of few, one is too much to do without.
    pub(super) fn has_room(&self) -> bool {
        if self.is_closed() {
            return false;
        }
        let Ok(connection) = self.connection.try_borrow() else { return false };
        let allowed = connection.as_ref().map_or(0, Http2Connection::current_max_send_streams);
        let usable = if allowed < FEW_STREAMS { allowed } else { allowed - 1 };
        self.streams.get() < usable.min(MAX_STREAMS)
    }

    /// Whether it takes no request any more. Those that it carries go on.
    pub(super) fn is_closed(&self) -> bool {
        self.is_retired.get() || self.sender.is_closed()
    }

    /// A request got no answer in time. That may be the request's doing, or the backend's; but where nothing at all has come for
    /// a while, the connection may lead nowhere any more, and every further request would be lost in it.
    pub(super) fn doubt(&self) {
        let (heard, since) = self.asked.get();
        if heard == self.heard.times() && since.elapsed() >= SILENCE {
            self.is_retired.set(true);
        }
    }

    /// The backend was useful: it may send as much again.
    pub(super) fn moved_on(&self) {
        self.heard.credit(CREDIT);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    pub(super) fn begin_stream(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    pub(super) fn end_stream(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.idle_since.set(Instant::now());
    }

    pub(super) async fn send(
        &self,
        head: &RequestHead,
        body: B,
        stream: &Rc<Stream<B>>,
    ) -> Result<Response<Incoming>, Unsent<B>> {
        if self.asked.get().0 != self.heard.times() {
            self.asked.set((self.heard.times(), Instant::now()));
        }
        stream.is_sent.set(body.is_end_stream());
        let request = Request::from_parts(self.dressed(head), Upload { body, stream: Rc::clone(stream) });
        let sent = self.sender.clone().try_send_request(request).await;
        self.moved_on();
        sent.map_err(|mut error| Unsent {
            body: error.take_message().map(|request| request.into_body().body),
            error: error.into_error().into(),
        })
    }

    /// A head as one of HTTP/2: the host is a part of the target (RFC 9113, section 8.3.1).
    fn dressed(&self, RequestHead { parts, added, takes_trailers }: &RequestHead) -> Parts {
        let mut head = parts.clone();
        head.headers.extend(added.iter().cloned());
        let host = head.headers.remove(header::HOST);
        let authority = host.as_ref().and_then(|host| host.to_str().ok()?.parse().ok());
        let mut target = std::mem::take(&mut head.uri).into_parts();
        target.scheme = Some(self.dial.scheme());
        // A client of HTTP/1.0 may name no host; a request of HTTP/2 has one.
        target.authority = authority.or_else(|| Some(http::uri::Authority::from_static("localhost")));
        target.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(target).unwrap_or_default();
        head.version = Version::HTTP_2;
        if *takes_trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        head
    }
}

/// Returns when the backend has sent its SETTINGS, which come first and unasked (RFC 9113, section 3.4), and allows a stream.
///
/// Whoever speaks something else, or nothing, is found out here, while there is no request yet that it could have taken: what
/// is to be sent can still go elsewhere, whatever its method.
async fn settled<B: Sendable>(connection: &mut Http2Connection<B>, heard: &Heard) -> Result<(), DialError> {
    poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(Err(unsettled(ended)));
        }
        if connection.current_max_send_streams() > 0 {
            return Poll::Ready(Ok(()));
        }
        // hyper tells nobody of settings: what comes is read and applied in one turn, in a task of its own, and then asked for.
        heard.listen(cx);
        Poll::Pending
    })
    .await
}

/// Why a connection ended before it had begun.
fn unsettled(ended: hyper::Result<()>) -> DialError {
    let error = ended.err();
    let cause = error.as_ref().and_then(|error| std::error::Error::source(error)?.downcast_ref::<h2::Error>());
    match cause {
        Some(cause) if cause.is_library() => DialError::Protocol,
        Some(cause) if let Some(error) = cause.get_io() => io::Error::from(error.kind()).into(),
        Some(_) | None => io::Error::from(io::ErrorKind::ConnectionAborted).into(),
    }
}

/// The task that drives a connection. Ends with its owner: left alone, it would go on with a request body that nobody wants
/// any more, as long as the client takes to send it.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs what an HTTP/2 connection is made of as tasks of its worker.
#[derive(Clone)]
pub(super) struct Tasks;

impl<F: Future<Output: 'static> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
