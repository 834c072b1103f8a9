//! The admin listener: accepts, bounds and ends connections, and samples the rates meanwhile.
//!
//! hyper is used directly because `axum::serve` bounds neither the number of connections nor any time of theirs.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tower::ServiceExt as _;

use super::{
    Rates, rates,
    router::{App, Audience, router},
};
use crate::control::Status;

/// Connections at once; further ones wait to be accepted.
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
/// The listener is bound and non-blocking already, so that a port in use is found before anything else starts.
///
/// # Errors
/// The socket cannot be used by the runtime. A failing accept is none: it is tried again.
///
/// # Panics
/// Outside a tokio runtime with time and I/O.
pub async fn serve(
    listener: std::net::TcpListener,
    status: Arc<Status>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let audience = match listener.local_addr()?.ip().is_loopback() {
        true => Audience::Local,
        false => Audience::Network,
    };
    let listener = TcpListener::from_std(listener)?;
    let rates = Arc::new(Rates::default());
    let router = router(App { status: Arc::clone(&status), rates: Arc::clone(&rates) }, audience);
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut sampling = interval(rates::EVERY);
    sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = sampling.tick() => rates.sample(Instant::now(), &status),
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, _peer)) => drop(connections.spawn(connection(socket, router.clone(), stopped.clone()))),
                Err(_no_descriptor) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop((listener, stop));
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// One connection to its end.
async fn connection(socket: TcpStream, router: Router, mut stopped: watch::Receiver<()>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| router.clone().oneshot(request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = sleep(LIFETIME) => {}
        // An error, and there is nothing but an error: the sender is gone.
        _stopped = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    // What is not read by now is cut with the socket.
    let _cut = timeout(FINISH, connection).await;
}
