//! A backend that speaks HTTP/2, and does with each stream what its script says.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Notify,
};

/// What is done with a stream.
pub enum Act {
    /// A response, with trailers where there are any.
    Answer(Response<Bytes>, HeaderMap),
    /// `REFUSED_STREAM`: nothing was begun.
    Refuse,
    /// A response, and the connection takes no further stream.
    AnswerAndGoAway(Response<Bytes>),
    /// Some other reset.
    Reset(Reason),
    /// Half a response, then a reset, once the backend is let go on.
    Cut,
    /// No answer, until the backend is let go on.
    Hold,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: Arc<Request<()>>,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    /// The number of the connection, from 0.
    pub connection: usize,
    /// The number of the stream on the connection, from 0.
    pub stream: usize,
}

type Script = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

pub struct Http2Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    go_on: Notify,
}

/// 200 with this body.
pub fn ok(body: &'static str) -> Response<Bytes> {
    Response::new(Bytes::from_static(body.as_bytes()))
}

impl Http2Backend {
    /// By prior knowledge, with at most so many streams on a connection.
    pub fn start(max_streams: u32, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::over(max_streams, script, |socket| async move { Some(socket) })
    }

    /// Over TLS.
    pub fn secured(
        config: rustls::ServerConfig,
        max_streams: u32,
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::over(max_streams, script, move |socket| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(socket).await.ok() }
        })
    }

    fn over<F, S>(
        max_streams: u32,
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
        wrap: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Option<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Arc::new(script),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            go_on: Notify::new(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let (shared, wrapped) = (Arc::clone(&serving), wrap(socket));
                    tokio::spawn(async move {
                        if let Some(stream) = wrapped.await {
                            shared.serve(stream, max_streams).await;
                        }
                    });
                }
            });
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, probes of `/healthz` left out.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// How many streams were held at once, at most.
    pub fn most_under_way(&self) -> usize {
        self.shared.most_under_way.load(SeqCst)
    }

    /// How many streams are held now.
    pub fn under_way(&self) -> usize {
        self.shared.under_way.load(SeqCst)
    }

    /// Answers whatever is held now.
    pub fn go_on(&self) {
        self.shared.go_on.notify_waiters();
    }
}

impl Shared {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self: Arc<Self>, stream: S, max_streams: u32) {
        let connection = self.connections.fetch_add(1, SeqCst);
        let mut builder = h2::server::Builder::new();
        let Ok(mut h2) = builder.max_concurrent_streams(max_streams).handshake::<_, Bytes>(stream).await else {
            return;
        };
        let mut count = 0;
        let ends = Arc::new(Notify::new());
        loop {
            let accepted = tokio::select! {
                accepted = h2.accept() => accepted,
                () = ends.notified() => {
                    h2.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else { return };
            let (shared, ends) = (Arc::clone(&self), Arc::clone(&ends));
            let stream = count;
            count += 1;
            tokio::spawn(async move { shared.stream(request, respond, connection, stream, &ends).await });
        }
    }

    async fn stream(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        connection: usize,
        stream: usize,
        ends: &Notify,
    ) {
        let (head, mut incoming) = request.into_parts();
        let mut body = Vec::new();
        while let Some(Ok(data)) = incoming.data().await {
            let _ = incoming.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        let trailers = incoming.trailers().await.ok().flatten();
        let head = Arc::new(Request::from_parts(head, ()));
        let seen = Seen { head, body: body.into(), trailers, connection, stream };
        let is_probe = seen.head.uri().path() == "/healthz";
        if is_probe {
            answer(&mut respond, ok(""), HeaderMap::new());
            return;
        }
        self.seen.lock().unwrap().push(seen.clone());
        match (self.script)(&seen) {
            Act::Answer(response, trailers) => answer(&mut respond, response, trailers),
            Act::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
            Act::Reset(reason) => respond.send_reset(reason),
            Act::AnswerAndGoAway(response) => {
                ends.notify_one();
                answer(&mut respond, response, HeaderMap::new());
            }
            Act::Cut => {
                let mut sending = respond.send_response(Response::new(()), false).unwrap();
                sending.send_data(Bytes::from_static(b"half"), false).unwrap();
                self.held().await;
                sending.send_reset(Reason::INTERNAL_ERROR);
            }
            Act::Hold => {
                self.held().await;
                answer(&mut respond, ok("late"), HeaderMap::new());
            }
        }
    }
}

impl Shared {
    async fn held(&self) {
        let go_on = self.go_on.notified();
        let held = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most_under_way.fetch_max(held, SeqCst);
        go_on.await;
        self.under_way.fetch_sub(1, SeqCst);
    }
}

fn answer(respond: &mut SendResponse<Bytes>, response: Response<Bytes>, trailers: HeaderMap) {
    let (head, body) = response.into_parts();
    let is_end = body.is_empty() && trailers.is_empty();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), is_end) else { return };
    if is_end {
        return;
    }
    let _ = stream.send_data(body, trailers.is_empty());
    if !trailers.is_empty() {
        let _ = stream.send_trailers(trailers);
    }
}
