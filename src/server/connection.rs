//! One client's connection from accept to close: who may end it, when, and why it ended.

use std::{
    cell::Cell,
    panic::AssertUnwindSafe,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{net::TcpStream, sync::Notify};

use super::stream::ClientStream;
use crate::proxy::{Client, Gateway, Phase};

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
    /// The head of a request took longer than `client_header`.
    HeaderTimeout,
    /// Nothing came for `client_idle`.
    Idle,
    /// The code that served it panicked.
    Panic,
    /// The listener has `max_connections`.
    TooMany,
}

impl Closed {
    /// Their tokens, in the order of their numbers.
    pub const TOKENS: [&'static str; 9] =
        ["bad_request", "client_gone", "cut", "done", "drain_timeout", "header_timeout", "idle", "panic", "too_many"];

    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The largest head of a request, in bytes. Bodies pass in pieces of at most this.
const MAX_HEAD: usize = 64 * 1024;

/// A connection that is being served, and the handle by which the worker ends it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) client: Rc<Client>,
    order: Cell<Order>,
    ordered: Notify,
    lost_request: Cell<bool>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// Go on.
    Serve,
    /// Close after the response under way, and be cut at this moment.
    Finish(Instant),
    /// Close now.
    Cut(Closed),
}

impl Open {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client: Rc::new(client),
            order: Cell::new(Order::Serve),
            ordered: Notify::new(),
            lost_request: Cell::default(),
        }
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
            Order::Finish(_) | Order::Serve => self.client.overdue(now).map(|phase| match phase {
                Phase::Busy => Closed::Cut,
                Phase::Head => Closed::HeaderTimeout,
                Phase::Idle => Closed::Idle,
            }),
        };
        if let Some(reason) = missed {
            self.cut(reason);
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

    /// Ends it now.
    pub(super) fn cut(&self, reason: Closed) {
        self.lost_request.set(self.is_busy());
        self.client.cut();
        self.order.set(Order::Cut(reason));
        self.ordered.notify_one();
    }
}

/// Serves a connection to its end. A panic is its end, and nobody else's.
pub(super) async fn serve(gateway: Rc<Gateway>, open: &Open, socket: TcpStream) -> Closed {
    let served = AssertUnwindSafe(drive(gateway, open, socket)).catch_unwind().await;
    served.unwrap_or(Closed::Panic)
}

async fn drive(gateway: Rc<Gateway>, open: &Open, socket: TcpStream) -> Closed {
    let client = Rc::clone(&open.client);
    let stream = TokioIo::new(ClientStream::new(socket, Rc::clone(&client)));
    let service = TowerToHyperService::new(gateway.service(client));
    let mut builder = http1::Builder::new();
    // The worker's sweep keeps the deadlines: hyper's would arm a timer for each request.
    builder.header_read_timeout(None::<Duration>).max_buf_size(MAX_HEAD);
    let mut connection = builder.serve_connection(stream, service);
    let (closed, has_unread) = loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                // The rest of what was not understood is unread, too.
                let has_unread = open.client.has_unread() || ended.as_ref().is_err_and(hyper::Error::is_parse);
                break (ended.map_or_else(|error| reason(&error), |()| Closed::Done), has_unread);
            }
            () = open.ordered.notified() => match open.order.get() {
                Order::Serve => {}
                Order::Finish(_) => Pin::new(&mut connection).graceful_shutdown(),
                Order::Cut(reason) => break (reason, false),
            },
        }
    };
    // What is still under way ends here, and is recorded.
    let stream = connection.into_parts().io.into_inner();
    if open.client.is_broken_off() {
        stream.reset();
    } else if has_unread {
        // Boxed: it is rare, and its buffer would be part of every connection.
        Box::pin(stream.linger()).await;
    }
    closed
}

fn reason(error: &hyper::Error) -> Closed {
    if error.is_parse() {
        Closed::BadRequest
    } else if error.is_user() {
        Closed::Cut
    } else {
        Closed::ClientGone
    }
}
