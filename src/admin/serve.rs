//! The admin listener: accepts, bounds and ends connections, and samples the rates meanwhile.
//!
//! hyper is used directly because `axum::serve` bounds neither the number of connections nor any time of theirs.

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tower::ServiceExt as _;

use super::{
    Rates,
    events::{Pulse, Streams},
    rates,
    router::{App, Audience, router},
};
use crate::{config::plan::Bind, control::Status, net::Socket, server::Sockets};

/// Connections at once. For one more, one that is idle ends: connections that somebody keeps for nothing do not keep out a
/// probe. While none is idle, further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 128;

/// For the head of a request to arrive, from the connection's or the last response's end.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// After this a connection ends with the response under way: a scraper that keeps one opens another.
const LIFETIME: Duration = Duration::from_secs(60);

/// For that response to be read, then it is cut.
const FINISH: Duration = Duration::from_secs(10);

/// Between two attempts to accept where the system has no descriptor to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin address until `shutdown`, then lets responses under way end.
///
/// The address is bound already, so that a port in use is found before anything else starts.
///
/// # Errors
/// The socket cannot be used by the runtime. A failing accept is none: it is tried again.
///
/// # Panics
/// Outside a tokio runtime with time and I/O.
pub async fn serve(sockets: Sockets, status: Arc<Status>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let audience = match &sockets.address {
        Bind::Tcp(address) if address.ip().is_loopback() => Audience::Local,
        // No browser reaches a Unix socket by way of DNS.
        Bind::Tcp(_) | Bind::Unix { .. } => Audience::Network,
    };
    let listener = sockets.into_listening()?;
    let rates = Arc::new(Rates::default());
    let streams = Arc::<Streams>::default();
    let app = App { status: Arc::clone(&status), rates: Arc::clone(&rates), streams: Arc::clone(&streams) };
    let router = router(app, audience);
    let (stop, stopped) = watch::channel(());
    let (mut connections, mut visitors) = (JoinSet::new(), Visitors::default());
    let mut sampling = interval(rates::EVERY);
    sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = sampling.tick() => rates.sample(Instant::now(), &status),
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() <= MAX_CONNECTIONS => match accepted {
                Ok((socket, _peer)) => {
                    let visitor = visitors.enter();
                    connections.spawn(connection(socket, visitor, router.clone(), stopped.clone()));
                    if connections.len() > MAX_CONNECTIONS {
                        visitors.send_one_away();
                    }
                }
                Err(_no_descriptor) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    streams.close();
    drop((listener, stop));
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Who is connected, the oldest first.
#[derive(Debug, Default)]
struct Visitors(VecDeque<Weak<Visitor>>);

/// A connection, as far as it concerns others.
#[derive(Debug, Default)]
struct Visitor {
    is_busy: AtomicBool,
    is_leaving: AtomicBool,
    leave: Notify,
    pulse: Pulse,
}

impl Visitor {
    fn is_idle(&self) -> bool {
        !self.is_busy.load(Relaxed) && self.pulse.beats() == 0
    }
}

impl Visitors {
    fn enter(&mut self) -> Arc<Visitor> {
        self.0.retain(|visitor| visitor.strong_count() > 0);
        let visitor = Arc::default();
        self.0.push_back(Arc::downgrade(&visitor));
        visitor
    }

    /// Ends the oldest connection that is idle; where none is, the oldest, after its response.
    fn send_one_away(&self) {
        // Who has just come has had no time to ask.
        let older = self.0.iter().take(self.0.len().saturating_sub(1)).filter_map(Weak::upgrade);
        let mut staying = older.filter(|visitor| !visitor.is_leaving.load(Relaxed)).peekable();
        let oldest = staying.peek().cloned();
        let idle = staying.find(|visitor| visitor.is_idle());
        if let Some(visitor) = idle.or(oldest) {
            visitor.is_leaving.store(true, Relaxed);
            visitor.leave.notify_one();
        }
    }
}

/// One connection to its end.
async fn connection(socket: Socket, visitor: Arc<Visitor>, router: Router, mut stopped: watch::Receiver<()>) {
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let (router, visitor) = (router.clone(), Arc::clone(&visitor));
        request.extensions_mut().insert(visitor.pulse.clone());
        async move {
            visitor.is_busy.store(true, Relaxed);
            let response = router.oneshot(request).await;
            visitor.is_busy.store(false, Relaxed);
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    loop {
        let beats = visitor.pulse.beats();
        tokio::select! {
            _ended = connection.as_mut() => return,
            // A stream lives for as long as somebody takes from it.
            () = sleep(LIFETIME) => if visitor.pulse.beats() == beats { break },
            () = visitor.leave.notified() => break,
            // An error, and there is nothing but an error: the sender is gone.
            _stopped = stopped.changed() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    // What is not read by now is cut with the socket.
    let _cut = timeout(FINISH, connection).await;
}
