//! One client's connection from accept to close: what it speaks, who may end it, when, and why it ended.

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, OnceCell},
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{io::AsyncWriteExt as _, sync::Notify, task::spawn_local, time::timeout};
use tower::{Service, ServiceExt as _};

use super::{
    gather::Gathered,
    proxy_protocol,
    stream::{ClientStream, Opening, Transport},
};
use crate::{
    base::duration::Elapsed,
    config::plan::ProxyProtocol,
    net::Socket,
    proxy::{Client, Gateway, Phase, Source, Tunnel},
    tls::{Acceptor, Protocol},
};

/// Why a client's connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// What came was not HTTP; hyper has said so, or closed.
    BadRequest,
    /// The client left in the middle of a request or a response.
    ClientGone,
    /// A response could not be finished.
    Cut,
    /// All was said: either side closed between requests.
    Done,
    /// It was still open when the time to drain was over.
    DrainTimeout,
    /// An HTTP/2 client sent much and asked for little, or gave up most of what it asked for.
    Flood,
    /// The TLS handshake took longer than `client_header`.
    HandshakeTimeout,
    /// The head of a request took longer than `client_header`.
    HeaderTimeout,
    /// The head of a request was too large to be read to its end; hyper has said so.
    HeaderTooLarge,
    /// Nothing came for `client_idle`.
    Idle,
    /// The code that served it panicked.
    Panic,
    /// It should have started with a PROXY header, and did not within `client_header`, or came from a peer that is not
    /// trusted to send one.
    ProxyHeader,
    /// The TLS handshake failed.
    TlsHandshake,
    /// The listener has `max_connections`.
    TooMany,
}

impl Closed {
    /// Their tokens, in the order of their numbers.
    pub const TOKENS: [&'static str; 14] = [
        "bad_request",
        "client_gone",
        "cut",
        "done",
        "drain_timeout",
        "flood",
        "handshake_timeout",
        "header_timeout",
        "header_too_large",
        "idle",
        "panic",
        "proxy_header",
        "tls_handshake",
        "too_many",
    ];

    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        Self::TOKENS.get(self.index()).copied().unwrap_or_default()
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// After so long without a request, as the sweep sees it, a connection holds nothing that it does not need without one: hyper would
/// keep its buffers of 16 KiB, and all that it knows of a request.
const SILENCE: Duration = Duration::from_millis(500);

/// Bodies pass in pieces of at most this, in bytes, unless heads may be larger.
const PIECE: usize = 64 * 1024;

/// By so many bytes a head may be larger than the listener accepts and is read all the same, for an answer that says why it is
/// refused, and a line in the log. What is larger still never becomes a request: hyper answers it with a bare 431.
const HEAD_SLACK: u32 = 16 * 1024;

/// As many fields hyper reads without allocating, unless it is told of more.
const HEADERS_ON_STACK: u32 = 100;

/// A connection that is being served, and the handle by which the worker ends it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) client: Rc<Client>,
    order: Cell<Order>,
    ordered: Notify,
    lost_request: Cell<bool>,
    why: OnceCell<Box<str>>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// Go on.
    Serve,
    /// Close after the response under way, and be cut at this moment.
    Finish(Instant),
    /// Close now.
    Cut(Closed),
    /// Go on, but hold nothing that a connection without a request does not need.
    Rest,
}

impl Open {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client: Rc::new(client),
            order: Cell::new(Order::Serve),
            ordered: Notify::new(),
            lost_request: Cell::default(),
            why: OnceCell::new(),
        }
    }

    /// Why it ended, in words, where nothing else tells: no request came of what the client sent.
    pub(super) fn why(&self, closed: Closed) -> Option<String> {
        match closed {
            Closed::BadRequest | Closed::HeaderTooLarge | Closed::TlsHandshake => {
                self.why.get().map(ToString::to_string)
            }
            Closed::Flood => Some("it sent much and asked for little, or gave up most of what it asked for".to_owned()),
            Closed::HandshakeTimeout => Some("its TLS handshake took too long".to_owned()),
            Closed::HeaderTimeout if self.client.has_begun() => {
                Some(format!("the head of its request did not end within {}", self.patience()))
            }
            Closed::TooMany => {
                Some(format!("the listener has its {} connections", self.client.listener.plan.max_connections))
            }
            Closed::ClientGone
            | Closed::Cut
            | Closed::Done
            | Closed::DrainTimeout
            | Closed::HeaderTimeout
            | Closed::Idle
            | Closed::Panic
            | Closed::ProxyHeader => None,
        }
    }

    fn patience(&self) -> Elapsed {
        Elapsed(self.client.listener.plan.client_header)
    }

    /// Lets the response under way end, and closes then; at the latest at `deadline`.
    pub(super) fn finish(&self, deadline: Instant) {
        self.order.set(Order::Finish(deadline));
        self.ordered.notify_one();
    }

    /// Ends a connection that has missed a deadline.
    pub(super) fn check_deadlines(&self, now: Instant) {
        let missed = match self.order.get() {
            Order::Finish(deadline) if deadline <= now => Some(Closed::DrainTimeout),
            Order::Cut(_) => None,
            Order::Finish(_) | Order::Rest | Order::Serve => self.client.overdue(now).map(|phase| match phase {
                Phase::Busy => Closed::Cut,
                Phase::Handshake => Closed::HandshakeTimeout,
                Phase::Head => Closed::HeaderTimeout,
                Phase::Idle => Closed::Idle,
                Phase::ProxyHeader => Closed::ProxyHeader,
            }),
        };
        if let Some(reason) = missed {
            self.cut(reason);
        } else if self.client.is_at_rest()
            && self.client.phase_lasts(now) >= SILENCE
            && matches!(self.order.get(), Order::Serve)
        {
            self.order.set(Order::Rest);
            self.ordered.notify_one();
        }
    }

    /// Cuts it if its TLS handshake, or the PROXY header before it, lasts longer than this. Returns whether it goes on.
    pub(super) fn hurry(&self, now: Instant, patience: Duration) -> bool {
        let reason = match self.client.phase() {
            Phase::Handshake => Closed::HandshakeTimeout,
            Phase::ProxyHeader => Closed::ProxyHeader,
            Phase::Busy | Phase::Head | Phase::Idle => return false,
        };
        let is_slow = self.client.phase_lasts(now) > patience;
        if is_slow {
            self.cut(reason);
        }
        !is_slow
    }

    /// It rests no more, or was ordered to and does not. Until then it is not ordered to again.
    fn resume(&self) {
        if matches!(self.order.get(), Order::Rest) {
            self.order.set(Order::Serve);
        }
    }

    fn because(&self, why: String) {
        // The first reason is the reason.
        let _ = self.why.set(why.into());
    }

    fn reason(&self, error: &hyper::Error) -> Closed {
        if error.is_parse() {
            self.because(error.to_string());
        }
        if error.is_parse_too_large() {
            Closed::HeaderTooLarge
        } else if error.is_parse() {
            Closed::BadRequest
        } else if error.is_user() {
            Closed::Cut
        } else {
            Closed::ClientGone
        }
    }

    /// Whether a request is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.client.phase() == Phase::Busy
    }

    /// Whether it was cut in the middle of a request.
    pub(super) fn lost_request(&self) -> bool {
        self.lost_request.get()
    }

    /// What it was cut for is over, and counts no more.
    pub(super) fn forget_loss(&self) {
        self.lost_request.set(false);
    }

    /// Whether it was cut because it does not take its response. The system would hold what was written, and the close behind
    /// it, for as long as the other end likes.
    fn takes_too_long(&self) -> bool {
        matches!(self.order.get(), Order::Cut(Closed::Cut))
    }

    /// Ends it now.
    pub(super) fn cut(&self, reason: Closed) {
        self.lost_request.set(self.is_busy());
        self.client.cut();
        self.order.set(Order::Cut(reason));
        self.ordered.notify_one();
    }
}

/// Serves a connection to its end. A panic is its end, and nobody else's.
pub(super) async fn serve(gateway: Rc<Gateway>, open: &Rc<Open>, stream: Box<ClientStream<Socket>>) -> Closed {
    let served = AssertUnwindSafe(drive(gateway, open, stream)).catch_unwind().await;
    // One that was agreed on and did not begin ends here, and is recorded.
    drop(open.client.take_tunnel());
    served.unwrap_or(Closed::Panic)
}

async fn drive(gateway: Rc<Gateway>, open: &Rc<Open>, mut stream: Box<ClientStream<Socket>>) -> Closed {
    let listener = &open.client.listener;
    if let Some(spoken) = listener.plan.proxy_protocol
        && let Err(reason) = Box::pin(introduce(open, stream.transport_mut(), spoken)).await
    {
        return reason;
    }
    match &listener.tls {
        None => greet(gateway, open, stream).await,
        // Boxed: it would be part of every connection.
        Some(acceptor) => Box::pin(shake_hands(gateway, open, acceptor, stream.into_transport())).await,
    }
}

/// Agrees on TLS with the client, and in it on what to speak.
async fn shake_hands(gateway: Rc<Gateway>, open: &Rc<Open>, acceptor: &Acceptor, socket: Socket) -> Closed {
    let mut is_last = false;
    // Boxed: it is large, and gone when it is done.
    let mut accepting = Box::pin(acceptor.accept(socket));
    let shaken = loop {
        match unless_ordered(open, &mut accepting).await {
            Ok(shaken) => break shaken,
            Err(Order::Cut(reason)) => return reason,
            // Who shakes hands believes to be connected: one request will be served, and the connection then finished.
            Err(Order::Finish(_)) => is_last = true,
            Err(Order::Rest | Order::Serve) => {}
        }
    };
    drop(accepting);
    if is_last {
        open.ordered.notify_one();
    }
    let stream = match shaken {
        Ok(stream) => stream,
        Err(why) => {
            why.into_iter().for_each(|why| open.because(why));
            return Closed::TlsHandshake;
        }
    };
    open.client.handshaken(stream.peer());
    let protocol = stream.protocol();
    let stream = ClientStream::new(Box::new(stream), Rc::clone(&open.client));
    match protocol {
        Protocol::Http1 => http1(gateway, open, Box::new(stream)).await,
        Protocol::Http2 => Box::pin(http2(gateway, open, stream)).await,
    }
}

/// Hears from a trusted proxy whose connection it is.
async fn introduce(open: &Open, socket: &mut Socket, spoken: ProxyProtocol) -> Result<(), Closed> {
    if !open.client.is_trusted() {
        return Err(Closed::ProxyHeader);
    }
    let source = within_a_moment(open, pin!(proxy_header(socket, spoken))).await??;
    open.client.introduced(source);
    Ok(())
}

async fn proxy_header(socket: &mut Socket, spoken: ProxyProtocol) -> Result<Source, Closed> {
    loop {
        if let Some(header) = proxy_protocol::parse(socket.ahead(), spoken).map_err(|_no_header| Closed::ProxyHeader)? {
            socket.skip(header.length);
            return Ok(header.source);
        }
        match socket.read_ahead().await {
            // A proxy that only looks whether somebody listens.
            Ok(0) if socket.ahead().is_empty() => return Err(Closed::Done),
            Ok(0) => return Err(Closed::ProxyHeader),
            Ok(_) => {}
            Err(_) => return Err(Closed::ClientGone),
        }
    }
}

/// On a listener without TLS, the first bytes tell what the client speaks.
async fn greet(gateway: Rc<Gateway>, open: &Rc<Open>, mut stream: Box<ClientStream<Socket>>) -> Closed {
    let opening = within_a_moment(open, pin!(stream.opening())).await;
    match opening {
        Ok(Ok(Opening::Http2)) if open.client.listener.plan.http2 => Box::pin(http2(gateway, open, *stream)).await,
        Ok(Ok(Opening::Http1 | Opening::Http2)) => http1(gateway, open, stream).await,
        Ok(Ok(Opening::Nothing)) => Closed::Done,
        Ok(Err(_)) => Closed::ClientGone,
        Err(reason) => reason,
    }
}

/// What a client that was only just accepted still has to be heard, once it is to finish: its request may be under way.
const MOMENT: Duration = Duration::from_secs(1);

/// Waits for a step before the first request. Ordered to finish meanwhile, it is over in a moment, and what comes after it
/// hears of the order, too.
async fn within_a_moment<T>(open: &Open, mut step: impl Future<Output = T> + Unpin) -> Result<T, Closed> {
    match unless_ordered(open, &mut step).await {
        Ok(done) => return Ok(done),
        Err(Order::Cut(reason)) => return Err(reason),
        Err(Order::Finish(_) | Order::Rest | Order::Serve) => {}
    }
    // Boxed: it is rare, and its timer would be part of every connection.
    let last = Box::pin(timeout(MOMENT, unless_ordered(open, &mut step))).await;
    match last {
        Ok(Ok(done)) => {
            open.ordered.notify_one();
            Ok(done)
        }
        Ok(Err(Order::Cut(reason))) => Err(reason),
        Ok(Err(Order::Finish(_) | Order::Rest | Order::Serve)) | Err(_) => Err(Closed::Done),
    }
}

/// Waits for a step, unless the worker orders something meanwhile.
async fn unless_ordered<T>(open: &Open, step: impl Future<Output = T> + Unpin) -> Result<T, Order> {
    tokio::select! {
        biased;
        done = step => Ok(done),
        () = open.ordered.notified() => Err(open.order.get()),
    }
}

/// Serves HTTP/1: in turns, between which the client says nothing and the connection holds no buffers.
async fn http1<T: Transport>(gateway: Rc<Gateway>, open: &Rc<Open>, mut stream: Box<ClientStream<T>>) -> Closed {
    loop {
        // Boxed: what a request needs is not there while there is none.
        match Box::pin(converse(&gateway, open, stream)).await {
            Turn::Ended(closed) => return closed,
            Turn::Silent(silent) => stream = silent,
        }
        // Who has something to say is heard before what was ordered, which may be the end: nothing is under way.
        while let Err(order) = unless_ordered(open, poll_fn(|cx| stream.poll_heard_of(cx))).await {
            match order {
                Order::Cut(reason) => return reason,
                Order::Finish(_) => {
                    // Boxed: as above.
                    Box::pin(say_goodbye(&mut stream)).await;
                    return Closed::Done;
                }
                Order::Rest | Order::Serve => {}
            }
        }
        open.resume();
    }
}

/// What has come of a turn.
enum Turn<T> {
    /// The end of the connection.
    Ended(Closed),
    /// Silence, and the stream, read dry and flushed.
    Silent(Box<ClientStream<T>>),
}

/// Serves requests in HTTP/1 until the connection ends, or its client has been silent for a while.
async fn converse<T: Transport>(gateway: &Rc<Gateway>, open: &Rc<Open>, mut stream: Box<ClientStream<T>>) -> Turn<T> {
    stream.close_next(true);
    let service = TowerToHyperService::new(Rc::clone(gateway).service(Rc::clone(&open.client)));
    let mut builder = http1::Builder::new();
    let limits = &open.client.listener.plan.limits;
    let head = (limits.header_size + HEAD_SLACK) as usize;
    // The worker's sweep keeps the deadlines: hyper's would arm a timer for each request.
    builder.header_read_timeout(None::<Duration>).max_header_size(head).max_buf_size(head.max(PIECE));
    if limits.headers > HEADERS_ON_STACK {
        builder.max_headers(limits.headers as usize);
    }
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let (closed, has_unread) = loop {
        let served = poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            if ended.is_pending() && open.client.is_newly_worn_out() {
                Pin::new(&mut connection).graceful_shutdown();
                return Pin::new(&mut connection).poll(cx);
            }
            ended
        });
        match unless_ordered(open, pin!(served)).await {
            Ok(ended) => {
                // The rest of what was not understood is unread, too.
                let has_unread = open.client.has_unread() || ended.as_ref().is_err_and(hyper::Error::is_parse);
                break (ended.map_or_else(|error| open.reason(&error), |()| Closed::Done), has_unread);
            }
            Err(Order::Serve) => {}
            Err(Order::Finish(_)) => Pin::new(&mut connection).graceful_shutdown(),
            Err(Order::Cut(reason)) => break (reason, false),
            Err(Order::Rest) => {
                // A request may have begun since that was ordered.
                if open.client.is_at_rest() {
                    open.client.rests();
                    let parts = connection.into_parts();
                    let mut stream = parts.io.into_inner();
                    stream.read_again(parts.read_buf);
                    stream.close_next(false);
                    return Turn::Silent(stream);
                }
                open.resume();
            }
        }
    };
    // What is still under way ends here, and is recorded.
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    stream.close_next(false);
    if closed == Closed::Done
        && let Some(tunnel) = open.client.take_tunnel()
    {
        return Turn::Ended(Box::pin(pass_on(open, tunnel, *stream, parts.read_buf)).await);
    }
    if closed == Closed::HeaderTimeout && open.client.has_begun() {
        // Boxed: as below.
        Box::pin(too_slow(&mut stream)).await;
    } else if open.client.is_broken_off() || open.takes_too_long() {
        stream.socket().reset();
    } else if has_unread {
        // Boxed: it is rare, and its buffer would be part of every connection.
        Box::pin(hear_out(&mut stream)).await;
    }
    Turn::Ended(closed)
}

/// Says that nothing comes any more: in TLS in so many words, without which an end may be an attacker's.
async fn say_goodbye<T: Transport>(stream: &mut ClientStream<T>) {
    // Whoever does not take so little is not waited for.
    let _ = timeout(LAST_WORDS, stream.shutdown()).await;
}

/// Says no more, and reads what is still said.
async fn hear_out<T: Transport>(stream: &mut ClientStream<T>) {
    say_goodbye(stream).await;
    stream.socket().linger().await;
}

/// Answers a head that does not come to its end.
async fn too_slow<T: Transport>(stream: &mut ClientStream<T>) {
    const ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    // Whoever does not take so little has no use for it.
    let _ = timeout(Duration::from_secs(1), stream.write_all(ANSWER)).await;
    stream.socket().linger().await;
}

/// Serves a tunnel to its end, or to the moment that it is cut.
async fn pass_on<T: Transport>(open: &Open, tunnel: Box<Tunnel>, stream: ClientStream<T>, ahead: Bytes) -> Closed {
    let cut = async {
        // It ends with one of its ends, or at the deadline: only a cut is an order to it.
        while !matches!(open.order.get(), Order::Cut(_)) {
            open.ordered.notified().await;
        }
    };
    tunnel.run(stream, ahead, cut).await;
    match open.order.get() {
        Order::Cut(reason) => reason,
        Order::Finish(_) | Order::Rest | Order::Serve => Closed::Done,
    }
}

async fn http2<T: Transport>(gateway: Rc<Gateway>, open: &Rc<Open>, stream: ClientStream<T>) -> Closed {
    open.client.multiplexes();
    let service = TowerToHyperService::new(boxed(gateway.service(Rc::clone(&open.client))));
    let mut builder = http2::Builder::new(Streams(Rc::clone(open)));
    builder
        .max_concurrent_streams(open.client.listener.plan.max_concurrent_streams)
        .max_header_list_size(open.client.listener.plan.limits.header_size + HEAD_SLACK)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_BUFFER)
        // Streams that a client resets before they were looked at (CVE-2023-44487), and that it makes us reset (CVE-2025-8671).
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .enable_connect_protocol()
        // A client that is gone without a word holds streams that no deadline ends.
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let stream = Gathered::new(stream);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream.clone()), service));
    let closed = loop {
        let polled = poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            let written = stream.poll_write_out(cx);
            match (ended, written) {
                (Poll::Ready(ended), _) => {
                    Poll::Ready(ended.map_or_else(|error| open.reason(&error), |()| Closed::Done))
                }
                (Poll::Pending, Poll::Ready(Err(_))) => Poll::Ready(Closed::ClientGone),
                (Poll::Pending, Poll::Ready(Ok(())) | Poll::Pending) => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            closed = polled => break closed,
            () = open.ordered.notified() => match open.order.get() {
                Order::Rest | Order::Serve => {}
                Order::Finish(_) => {
                    open.client.told_to_go();
                    connection.as_mut().graceful_shutdown();
                }
                Order::Cut(reason) => break reason,
            },
            () = open.client.worn_out() => {
                open.client.told_to_go();
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    // What is still under way ends here, and is recorded.
    open.client.end_streams();
    // The last words, as GOAWAY, to whoever takes them.
    let _ = timeout(LAST_WORDS, poll_fn(|cx| stream.poll_write_out(cx))).await;
    if open.client.is_flooding() { Closed::Flood } else { closed }
}

/// A service whose futures are boxed. Each becomes a part of a task, and is moved there in several steps: in one place it is
/// written once.
fn boxed<R, S>(service: S) -> impl Service<R, Response = S::Response, Error = S::Error> + Clone
where
    S: Service<R, Future: 'static> + Clone,
{
    service.map_future(Box::pin)
}

/// Runs the streams of one HTTP/2 connection as tasks of its worker.
#[derive(Clone)]
struct Streams(Rc<Open>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let watch = Watch(Rc::clone(&self.0));
        let task = spawn_local(async move {
            let watch = watch;
            stream.await;
            watch.0.client.stream_ended(tokio::task::id());
        });
        self.0.client.stream_began(task.id(), task.abort_handle());
    }
}

/// Cuts a connection of which one stream panics, while that unwinds. Later would be too late: a lock that the stream shares
/// with its connection may be poisoned, and whatever touches it then panics as well, the end of the stream among it.
struct Watch(Rc<Open>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cut(Closed::Panic);
        }
    }
}

/// What a client may send of one request's body, and of all of a connection's, before the backend has taken it.
///
/// h2 ends a connection on which small frames wait for their reader (`upstream::wire` has the sum): with these figures one call
/// that streams messages of 25 bytes to a backend that has stopped reading is no reason to.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How often a client is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a client may take over what is said to it last.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What waits of one response for the client to take it.
const STREAM_BUFFER: usize = 64 * 1024;

/// Streams of a connection that may be reset and not yet forgotten.
const MAX_RESETS: usize = 64;
