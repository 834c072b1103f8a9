//! What a connection is after an upgrade: bytes in both directions, until both sides have said their last.
//!
//! A WebSocket that must end is told so, on both sides, wherever a frame may be put in. (Not where a whole HTTP/2 connection is
//! cut at the end of its time: that takes its streams with it.)

use std::{
    cell::Cell,
    fmt,
    future::{Future, poll_fn},
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::{FutureExt as _, future::join};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    Exchange, Fault,
    frames::{Frames, GOING_AWAY, going_away_masked},
};
use crate::upstream::{Lease, Upgraded};

/// A tunnel that is agreed on, between a client and a backend. Holds what the exchange uses of the backend until its end.
pub struct Tunnel {
    exchange: Rc<Exchange>,
    lease: Lease,
    backend: Upgraded,
    is_websocket: bool,
}

/// What is read at once, and the most that waits in one direction; what was read ahead comes before it.
const PIECE: usize = 16 * 1024;

/// How often it is looked whether a tunnel should end. Its deadlines are kept to this much.
const TICK: Duration = Duration::from_secs(1);

/// How long both ends may take over their last words, where they have not agreed to end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The backend's connection broke.
    BackendGone,
    /// The client's connection broke.
    ClientGone,
    /// Its route, its backend or its connection had to go, and the time to finish was over.
    Cut,
    /// Both sides have said their last.
    Done,
    /// Neither side said anything for as long as `timeouts.tunnel`.
    Silent,
}

impl Tunnel {
    pub(super) const fn new(exchange: Rc<Exchange>, lease: Lease, backend: Upgraded, is_websocket: bool) -> Self {
        Self { exchange, lease, backend, is_websocket }
    }

    /// Passes bytes on until both sides have ended, one has failed, nothing came for `timeouts.tunnel`, `cut` says so, or, after
    /// `shutdown.timeout`, its route or its backend is gone. `ahead` is what was read of the client's bytes before.
    pub async fn run(
        self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        ahead: Bytes,
        cut: impl Future<Output = ()>,
    ) {
        let Self { exchange, lease, backend: Upgraded { stream: mut backend, ahead: answered }, is_websocket } = self;
        let counted = lease.member().backend.open_tunnel();
        let moved = Cell::new(Instant::now());
        let mut up = Flow::new(ahead, is_websocket, |bytes| {
            exchange.received(bytes);
            moved.set(Instant::now());
        });
        let mut down = Flow::new(answered, is_websocket, |bytes| {
            exchange.sent(bytes);
            moved.set(Instant::now());
        });
        let copied = poll_fn(|cx| {
            let (up, down) = (up.poll(cx, &mut client, &mut backend), down.poll(cx, &mut backend, &mut client));
            End::of(&up, &down)
        });
        let end = tokio::select! {
            biased;
            () = cut => End::Cut,
            end = copied => end,
            end = due(&exchange, &lease, &moved) => end,
        };
        let (tell_backend, tell_client) = (up.is_between_frames(), down.is_between_frames());
        match end.fault() {
            Some(fault) => exchange.response_cut(fault),
            None => exchange.response_ended(),
        }
        // Here it is over for whoever counts. What follows is manners.
        drop((exchange, lease, counted));
        if matches!(end, End::Cut | End::Silent) {
            if tell_backend {
                say(&mut backend, &going_away_masked());
            }
            if tell_client {
                say(&mut client, &GOING_AWAY);
            }
        }
        if end != End::Done {
            let _ = timeout(FAREWELL, join(part(&mut client), part(&mut backend))).await;
        }
    }
}

/// Waits until a tunnel should end though its two ends go on.
async fn due(exchange: &Exchange, lease: &Lease, moved: &Cell<Instant>) -> End {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let limit = exchange.timeouts().tunnel;
    let mut doomed: Option<Instant> = None;
    let backend = &lease.member().backend;
    // To a backend that is out all the same, because nobody else was left, or because it was drained a moment ago.
    let mut was_cut = backend.condition().is_cut;
    loop {
        let now = ticks.tick().await;
        let known = backend.condition();
        if known.is_cut && (!was_cut || known.is_draining()) {
            return End::Cut;
        }
        was_cut = known.is_cut;
        if !limit.is_zero() && now.saturating_duration_since(moved.get()) >= limit {
            return End::Silent;
        }
        doomed = exchange.ends_by(lease.member(), doomed, now);
        if doomed.is_some_and(|deadline| deadline <= now) {
            return End::Cut;
        }
    }
}

/// Says something if it can be said at once: whoever does not read has heard enough.
fn say<T: AsyncWrite + Unpin>(stream: &mut T, frame: &[u8]) {
    let _ = stream.write_all(frame).now_or_never();
}

/// Says that nothing more comes, and hears the other end out: a connection that is closed over unread bytes is reset, which may
/// overtake what was said last.
async fn part<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut T) {
    let mut scrap = [0; 1024];
    if stream.shutdown().await.is_ok() {
        while stream.read(&mut scrap).await.is_ok_and(|read| read > 0) {}
    }
}

impl End {
    fn of(up: &Poll<Result<(), Broken>>, down: &Poll<Result<(), Broken>>) -> Poll<Self> {
        match (up, down) {
            (Poll::Ready(Err(Broken::Sender)), _) | (_, Poll::Ready(Err(Broken::Receiver))) => {
                Poll::Ready(Self::ClientGone)
            }
            (Poll::Ready(Err(Broken::Receiver)), _) | (_, Poll::Ready(Err(Broken::Sender))) => {
                Poll::Ready(Self::BackendGone)
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Self::Done),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }

    const fn fault(self) -> Option<Fault> {
        match self {
            Self::BackendGone => Some(Fault::ResponseCut),
            Self::ClientGone => Some(Fault::ClientGone),
            Self::Cut => Some(Fault::Draining),
            Self::Done => None,
            Self::Silent => Some(Fault::TunnelTimeout),
        }
    }
}

/// One way of a tunnel. Holds memory only while the receiver is slower than the sender.
struct Flow<F> {
    held: Bytes,
    stage: Stage,
    frames: Option<Frames>,
    count: F,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Bytes may come.
    Open,
    /// The sender has said its last; the receiver is to be told.
    Ending,
    /// The receiver was told.
    Ended,
}

/// Which end of a flow broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Broken {
    Sender,
    Receiver,
}

impl<F: Fn(u64)> Flow<F> {
    fn new(ahead: Bytes, is_websocket: bool, count: F) -> Self {
        let frames = is_websocket.then(Frames::default);
        let mut flow = Self { held: Bytes::new(), stage: Stage::Open, frames, count };
        flow.came(&ahead);
        flow.held = ahead;
        flow
    }

    fn came(&mut self, piece: &[u8]) {
        if let Some(frames) = &mut self.frames {
            frames.pass(piece);
        }
        if !piece.is_empty() {
            (self.count)(piece.len() as u64);
        }
    }

    /// Passes on what comes until nothing does, or the receiver takes no more. Ready once the end was passed on, too.
    fn poll<S, R>(&mut self, cx: &mut Context<'_>, sender: &mut S, receiver: &mut R) -> Poll<Result<(), Broken>>
    where
        S: AsyncRead + Unpin,
        R: AsyncWrite + Unpin,
    {
        let (mut sender, mut receiver) = (Pin::new(sender), Pin::new(receiver));
        loop {
            while self.held.has_remaining() {
                let written = ready!(receiver.as_mut().poll_write(cx, &self.held)).unwrap_or(0);
                if written == 0 {
                    return Poll::Ready(Err(Broken::Receiver));
                }
                self.held.advance(written);
            }
            match self.stage {
                Stage::Open => ready!(self.poll_piece(cx, sender.as_mut(), receiver.as_mut()))?,
                Stage::Ending => {
                    ready!(receiver.as_mut().poll_shutdown(cx)).map_err(|_| Broken::Receiver)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once, and writes at once what the receiver takes of it; the rest is held.
    fn poll_piece<S: AsyncRead, R: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        sender: Pin<&mut S>,
        mut receiver: Pin<&mut R>,
    ) -> Poll<Result<(), Broken>> {
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        let Poll::Ready(read) = sender.poll_read(cx, &mut piece) else {
            // TLS may hold back what was written.
            ready!(receiver.poll_flush(cx)).map_err(|_| Broken::Receiver)?;
            return Poll::Pending;
        };
        read.map_err(|_| Broken::Sender)?;
        let piece = piece.filled();
        if piece.is_empty() {
            self.stage = Stage::Ending;
            return Poll::Ready(Ok(()));
        }
        self.came(piece);
        let written = match receiver.as_mut().poll_write(cx, piece) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Receiver)),
            Poll::Pending => 0,
        };
        self.held = piece.get(written..).map(Bytes::copy_from_slice).unwrap_or_default();
        Poll::Ready(Ok(()))
    }

    /// Whether this way stands where a frame may be put in.
    fn is_between_frames(&self) -> bool {
        let is_between = self.frames.as_ref().is_some_and(Frames::is_between);
        is_between && self.held.is_empty() && self.stage == Stage::Open
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
