//! Bodies pass through in pieces, each side as fast as the other takes them, and what hangs on them ends when they end.

use std::{
    cell::RefCell,
    error::Error as _,
    fmt, io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, Version, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Exchange, Fault,
    compress::CompressedBody,
    headers,
    mirror::{Copied, Copy},
    resend::{Again, Kept},
    upload::Upload,
};
use crate::{
    config::plan::Coding,
    upstream::{Connection, Lease},
};

/// A body that was cut short, and why.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{}", .0.reason())]
pub struct Cut(pub Fault);

/// What a backend receives.
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// The client's body, as it comes.
    Client(Box<ClientBody>),
    /// The client's body, which was sent before, to a backend that did not take it.
    Again(Box<Again>),
}

/// A client's body on its way to a backend: counted, bounded in size and in silence.
pub struct ClientBody {
    incoming: Upload,
    exchange: Rc<Exchange>,
    left: u64,
    silence: Option<Pin<Box<Sleep>>>,
    // Gone once nobody would send it again.
    kept: Weak<RefCell<Kept>>,
    // For whoever gets a copy.
    copy: Option<Box<Copy>>,
    /// A head of HTTP/2 announces trailers, which HTTP/1.1 has only behind chunks: its length is not told.
    announces_trailers: bool,
}

impl RequestBody {
    /// Takes over the body that a client has sent with this head, of at most `max` bytes.
    ///
    /// # Errors
    /// `BodyTooLarge` where its announced length is above that.
    pub(super) fn new(
        incoming: Option<Upload>,
        head: &Parts,
        exchange: &Rc<Exchange>,
        max: Option<u64>,
    ) -> Result<Self, Fault> {
        let Some(incoming) = incoming else {
            exchange.has_no_body();
            return Ok(Self::Empty);
        };
        let max = max.unwrap_or(u64::MAX);
        match incoming.size_hint().exact() {
            Some(length) if length > max => Err(Fault::BodyTooLarge),
            _ => Ok(Self::Client(Box::new(ClientBody {
                incoming,
                exchange: Rc::clone(exchange),
                left: max,
                silence: None,
                kept: Weak::new(),
                copy: None,
                announces_trailers: head.version == Version::HTTP_2 && head.headers.contains_key(header::TRAILER),
            }))),
        }
    }

    /// Whether there is none, so that it could be sent again.
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Copies what is sent of it, up to so many bytes, to where what is returned says. `None` where it has none.
    pub(super) fn copied(&mut self, most: usize) -> Option<oneshot::Receiver<Copied>> {
        let Self::Client(body) = self else { return None };
        let (copy, copied) = Copy::of_at_most(most);
        body.copy = Some(Box::new(copy));
        Some(copied)
    }

    /// Keeps what is sent of it, up to so many bytes, for as long as somebody holds what is returned. `None` where it is known to be
    /// larger.
    pub(super) fn kept(&mut self, most: usize) -> Option<Rc<RefCell<Kept>>> {
        let Self::Client(body) = self else { return None };
        let kept = Rc::new(RefCell::new(Kept::up_to(most, body.incoming.size_hint().lower())?));
        body.kept = Rc::downgrade(&kept);
        Some(kept)
    }
}

impl ClientBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.poll_silence(cx));
            return Poll::Ready(Some(Err(Fault::ClientTimeout)));
        };
        self.silence = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(self.count(frame)),
            Some(Err(error)) => Some(Err(broken_off(&error))),
            None => {
                self.exchange.request_sent();
                self.keep(None);
                None
            }
        })
    }

    /// Keeps a frame, or, without one, the end.
    fn keep(&mut self, frame: Option<&Frame<Bytes>>) {
        if let Some(copy) = &mut self.copy {
            frame.and_then(Frame::data_ref).into_iter().for_each(|data| copy.push(data));
            if frame.is_none_or(|frame| is_last(frame, &self.incoming)) {
                copy.end();
            }
        }
        let Some(kept) = self.kept.upgrade() else { return };
        let mut kept = kept.borrow_mut();
        frame.into_iter().for_each(|frame| kept.push(frame));
        if frame.is_none_or(|frame| is_last(frame, &self.incoming)) {
            kept.end();
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.announces_trailers { SizeHint::default() } else { self.incoming.size_hint() }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.exchange.timeouts().client_body;
        // Once the response has begun, both sides may take turns and pauses; the deadline of the exchange bounds them.
        if limit.is_zero() || self.exchange.is_answered() {
            return Poll::Pending;
        }
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        silence.as_mut().poll(cx)
    }

    fn count(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, Fault> {
        if let Some(trailers) = frame.trailers_mut() {
            let is_ours = |name: &HeaderName| self.exchange.is_identity(name) || self.exchange.is_replaced(name);
            headers::strip_request_trailers(trailers, is_ours);
            // Two readers of HTTP/1.1 take different bytes for the end of trailers: hyper the first CRLF CRLF, and its parser of
            // fields, as others, an LF LF before it. What stands between is dropped, so nothing that follows is believed.
            self.exchange.be_last();
        }
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.exchange.received(length);
        self.left = self.left.checked_sub(length).ok_or(Fault::BodyTooLarge)?;
        // A backend that was told the length has all of it, although the end may not have been said yet.
        if is_last(&frame, &self.incoming) || self.size_hint().exact() == Some(0) {
            self.exchange.request_sent();
        }
        self.keep(Some(&frame));
        Ok(frame)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => Poll::Ready(ready!(body.poll(cx)).map(|frame| {
                frame.map_err(|fault| {
                    body.exchange.request_cut(fault);
                    Cut(fault)
                })
            })),
            Self::Again(body) => Poll::Ready(body.next().map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.incoming.is_end_stream(),
            Self::Again(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
            Self::Again(body) => body.size_hint(),
        }
    }
}

/// What a client receives.
pub enum ResponseBody {
    /// Text of the gateway's own, and then the end of the exchange.
    Own(Bytes, Rc<Exchange>),
    /// A backend's body, as it comes.
    Backend(Box<BackendBody>),
    /// The same, compressed on its way.
    Compressed(Box<CompressedBody>),
    /// What ended before its time: what has come goes out before the client is told.
    Cut(Fault, Rc<Exchange>),
    /// None: a tunnel begins.
    Tunnel,
}

/// A backend's body on its way to a client. Holds what the exchange uses of the backend until its last byte.
pub struct BackendBody {
    exchange: Rc<Exchange>,
    used: Option<Used>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// What the client gets is made of it, and told by whoever makes it.
    is_raw: bool,
}

/// A backend in use: a place among its requests in flight, and a connection.
pub(super) struct Used {
    pub(super) lease: Lease,
    pub(super) connection: Connection<RequestBody>,
}

impl ResponseBody {
    pub(super) fn own(text: impl Into<Bytes>, exchange: Rc<Exchange>) -> Self {
        let text = text.into();
        if text.is_empty() {
            // Nobody asks for a body that has ended.
            exchange.response_ended();
        }
        Self::Own(text, exchange)
    }

    pub(super) fn backend(exchange: Rc<Exchange>, used: Used) -> Self {
        let mut body = BackendBody { exchange, used: Some(used), deadline: None, is_raw: false };
        if body.is_end_stream() {
            body.ended();
        }
        Self::Backend(Box::new(body))
    }

    pub(super) fn compressed(exchange: Rc<Exchange>, used: Used, coding: Coding) -> Self {
        let body = BackendBody { exchange, used: Some(used), deadline: None, is_raw: true };
        Self::Compressed(Box::new(CompressedBody::new(body, coding)))
    }
}

impl ResponseBody {
    /// The backend's part is over. hyper writes what it was given when it is told to wait, and not when it is told of an error.
    fn cut(
        &mut self,
        fault: Fault,
        exchange: Rc<Exchange>,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        exchange.response_cut(fault);
        *self = Self::Cut(fault, exchange);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl BackendBody {
    pub(super) const fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Some(Used { connection, .. }) = &mut self.used else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *connection).poll_frame(cx) else {
            ready!(self.poll_deadline(cx));
            return Poll::Ready(Some(Err(Fault::ResponseTimeout)));
        };
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if !self.is_raw {
                    self.exchange.sent(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_trailers(trailers);
                    self.exchange.called(trailers);
                }
                if frame.is_trailers() || self.is_end_stream() {
                    self.ended();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(if error.is_cut() { Fault::Draining } else { Fault::ResponseCut })),
            None => {
                self.ended();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.used.as_ref().is_none_or(|used| used.connection.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.used.as_ref().map_or_else(|| SizeHint::with_exact(0), |used| used.connection.size_hint())
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.exchange.deadline() else { return Poll::Pending };
        self.deadline.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(cx)
    }

    // A connection on which a request body is still under way cannot carry another request.
    fn ended(&mut self) {
        let Some(Used { lease, connection }) = self.used.take() else { return };
        if self.exchange.is_request_sent() {
            connection.give_back();
        }
        if !self.is_raw {
            self.exchange.response_ended();
        }
        drop(lease);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Self::Own(text, exchange) => {
                exchange.response_ended();
                let text = std::mem::take(text);
                exchange.sent(text.len() as u64);
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
            }
            Self::Backend(body) => match ready!(body.poll(cx)).transpose() {
                Ok(frame) => Poll::Ready(frame.map(Ok)),
                Err(fault) => {
                    let exchange = Rc::clone(&body.exchange);
                    self.cut(fault, exchange, cx)
                }
            },
            Self::Compressed(body) => match ready!(body.poll(cx)).transpose() {
                Ok(frame) => Poll::Ready(frame.map(Ok)),
                Err(fault) => {
                    let exchange = Rc::clone(body.exchange());
                    self.cut(fault, exchange, cx)
                }
            },
            Self::Cut(fault, _) => Poll::Ready(Some(Err(Cut(*fault)))),
            Self::Tunnel => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text, _) => text.is_empty(),
            Self::Backend(body) => body.is_end_stream(),
            Self::Compressed(_) | Self::Cut(..) => false,
            Self::Tunnel => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text, _) => SizeHint::with_exact(text.len() as u64),
            Self::Backend(body) => body.size_hint(),
            Self::Compressed(_) | Self::Cut(..) => SizeHint::default(),
            Self::Tunnel => SizeHint::with_exact(0),
        }
    }
}

/// Why a client's body ended before its time.
fn broken_off(error: &hyper::Error) -> Fault {
    match io_kind(error) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Fault::BadRequest,
        _ => Fault::ClientGone,
    }
}

/// What the system, or a decoder, says below an error of hyper's.
pub(super) fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    Some(error.source()?.downcast_ref::<io::Error>()?.kind())
}

/// Whether nothing comes after the frame. Trailers are the end, too: hyper does not ask again after them.
fn is_last(frame: &Frame<Bytes>, incoming: &impl Body) -> bool {
    frame.is_trailers() || incoming.is_end_stream()
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Client(_) => "Client",
            Self::Again(_) => "Again",
        })
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(..) => f.write_str("Own"),
            Self::Backend(_) => f.write_str("Backend"),
            Self::Compressed(_) => f.write_str("Compressed"),
            Self::Cut(fault, _) => f.debug_tuple("Cut").field(fault).finish(),
            Self::Tunnel => f.write_str("Tunnel"),
        }
    }
}

impl fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBody").field("left", &self.left).finish_non_exhaustive()
    }
}

impl fmt::Debug for BackendBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendBody").finish_non_exhaustive()
    }
}
