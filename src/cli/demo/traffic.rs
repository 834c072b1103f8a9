//! A client as patient as a user: it sends GET requests through the gateway and counts what comes back.
//!
//! Connections are kept and used again. The only request that is sent twice is one that was never sent, because the kept
//! connection had been closed; everything else that a user would see is counted as seen.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// Time between two requests.
pub(super) const PACE: Duration = Duration::from_millis(50);

/// The longest that a request is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests in flight at once: more than [`PATIENCE`] lets pile up at this [`PACE`].
const MAX_IN_FLIGHT: usize = 256;

/// What a user has seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) ok: u64,
    pub(super) client_4xx: u64,
    pub(super) server_5xx: u64,
    pub(super) transport_errors: u64,
}

impl Tally {
    /// Failures that are not the client's.
    pub(super) const fn failed(&self) -> u64 {
        self.server_5xx + self.transport_errors
    }

    fn count(&mut self, seen: Option<StatusCode>) {
        self.requests += 1;
        *match seen {
            None => &mut self.transport_errors,
            Some(status) if status.is_server_error() => &mut self.server_5xx,
            Some(status) if status.is_client_error() => &mut self.client_4xx,
            Some(_) => &mut self.ok,
        } += 1;
    }
}

type Connection = SendRequest<Empty<Bytes>>;
/// The status, if there was one, and the connection if it can be used again.
type Answer = (Option<StatusCode>, Option<Connection>);

/// The client.
#[derive(Debug)]
pub(super) struct Traffic {
    gateway: SocketAddr,
    idle: Vec<Connection>,
    in_flight: JoinSet<Answer>,
    /// Requests that are over.
    pub(super) tally: Tally,
}

impl Traffic {
    pub(super) fn new(gateway: SocketAddr) -> Self {
        Self { gateway, idle: vec![], in_flight: JoinSet::new(), tally: Tally::default() }
    }

    /// Starts a request.
    pub(super) fn send(&mut self) {
        if self.in_flight.len() < MAX_IN_FLIGHT {
            let (gateway, kept) = (self.gateway, self.idle.pop());
            self.in_flight.spawn(async move {
                let answer = timeout(PATIENCE, exchange(gateway, kept)).await;
                answer.unwrap_or_default()
            });
        }
    }

    /// Waits until a request is over; for ever if there is none.
    pub(super) async fn settle(&mut self) {
        match self.in_flight.join_next().await {
            Some(answer) => {
                let (seen, connection) = answer.unwrap_or_default();
                self.tally.count(seen);
                self.idle.extend(connection);
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until every request is over.
    pub(super) async fn finish(&mut self) {
        while !self.in_flight.is_empty() {
            self.settle().await;
        }
    }
}

async fn exchange(gateway: SocketAddr, kept: Option<Connection>) -> Answer {
    if let Some(kept) = kept {
        match ask(kept).await {
            Err(unsent) if unsent.is_canceled() || unsent.is_closed() => {}
            answer => return answer.unwrap_or_default(),
        }
    }
    match connect(gateway).await {
        Some(new) => ask(new).await.unwrap_or_default(),
        None => (None, None),
    }
}

async fn connect(gateway: SocketAddr) -> Option<Connection> {
    let socket = TcpStream::connect(gateway).await.ok()?;
    let (connection, driver) = handshake(TokioIo::new(socket)).await.ok()?;
    // Ends with the connection.
    tokio::spawn(driver);
    Some(connection)
}

async fn ask(mut connection: Connection) -> Result<Answer, hyper::Error> {
    connection.ready().await?;
    let request = Request::get("/orders/1").header(HOST, "demo.localhost").body(Empty::new());
    let mut response = connection.send_request(request.expect("the parts are valid")).await?;
    let status = response.status();
    while let Some(frame) = response.body_mut().frame().await {
        // A body that is cut is an answer that nobody can use.
        if frame.is_err() {
            return Ok((None, None));
        }
    }
    Ok((Some(status), Some(connection)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn server(answers: &'static [&'static str]) -> SocketAddr {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut connection, _) = socket.accept().await.unwrap();
                let mut head = [0; 1024];
                let _ = connection.read(&mut head).await.unwrap();
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn every_end_of_a_request_is_counted_as_what_a_user_sees() {
        let address = server(&[
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut",
            "",
        ])
        .await;
        let mut traffic = Traffic::new(address);
        // The last one meets nobody who listens.
        for _ in 0..6 {
            traffic.send();
            traffic.finish().await;
        }
        let expected = Tally { requests: 6, ok: 1, client_4xx: 1, server_5xx: 1, transport_errors: 3 };
        assert_eq!(traffic.tally, expected);
        assert_eq!(traffic.tally.failed(), 4);
    }
}
