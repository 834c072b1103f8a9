//! A request and its answer on a connection of their own, in HTTP/1.1 or HTTP/2.

use std::{error::Error, io, pin::Pin};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    Failure, READ_LIMIT,
    overheard::{First, Overheard},
};
use crate::{tls::Protocol, upstream::Transport};

/// A connection that is polled beside whatever waits for what comes on it.
pub(super) struct Conversation {
    protocol: Protocol,
    // Must outlive the body: without it the connection closes.
    sender: Sender,
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    first: First,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Conversation {
    /// Begins to speak. Nothing is waited for.
    pub(super) async fn begin(transport: Transport, protocol: Protocol) -> Result<Self, Failure> {
        let (stream, first) = Overheard::new(transport);
        match protocol {
            Protocol::Http1 => {
                let handshake = http1::Builder::new().max_buf_size(READ_LIMIT).handshake(TokioIo::new(stream)).await;
                let (sender, connection) = handshake.map_err(|error| no_answer(&error, protocol))?;
                let connection = async { drop(connection.await) };
                Ok(Self { protocol, sender: Sender::Http1(sender), connection: Some(Box::pin(connection)), first })
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_header_list_size(READ_LIMIT as u32);
                let handshake = builder.handshake(TokioIo::new(stream)).await;
                let (sender, connection) = handshake.map_err(|error| no_answer(&error, protocol))?;
                let connection = async { drop(connection.await) };
                Ok(Self { protocol, sender: Sender::Http2(sender), connection: Some(Box::pin(connection)), first })
            }
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let answer: Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>> = match &mut self.sender {
            Sender::Http1(sender) => Box::pin(sender.send_request(request)),
            Sender::Http2(sender) => Box::pin(sender.send_request(request)),
        };
        let protocol = self.protocol;
        beside(&mut self.connection, answer).await.map_err(|error| no_answer(&error, protocol))
    }

    /// Reads a body to its end, or to `limit` bytes; returns the trailers, if any.
    pub(super) async fn read(
        &mut self,
        body: &mut Incoming,
        read: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Option<HeaderMap>, Failure> {
        let filled = async {
            while read.len() < limit {
                let Some(frame) = body.frame().await.transpose()? else { return Ok(None) };
                match frame.into_data() {
                    Ok(data) => read.extend_from_slice(data.get(..limit - read.len()).unwrap_or(&data)),
                    Err(frame) => return Ok(frame.into_trailers().ok()),
                }
            }
            Ok(None)
        };
        beside(&mut self.connection, filled).await.map_err(|error| cut_short(&error))
    }

    /// What the other side speaks, where it has shown that it does not speak what it was asked in.
    pub(super) fn other_protocol(&self) -> Option<Failure> {
        self.first.of_another_protocol(self.protocol)
    }
}

/// Waits with the connection beside. One that ends first leaves what it has read to whoever waits.
async fn beside<T>(
    connection: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    future: impl Future<Output = T>,
) -> T {
    let mut future = std::pin::pin!(future);
    if let Some(running) = connection {
        tokio::select! {
            biased;
            result = &mut future => return result,
            () = running => *connection = None,
        }
    }
    future.await
}

fn no_answer(error: &hyper::Error, protocol: Protocol) -> Failure {
    let spoken = match protocol {
        Protocol::Http1 => "HTTP/1.1",
        Protocol::Http2 => "HTTP/2",
    };
    match io_cause(error) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Failure::new("reset", "connection reset"),
        _ if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            Failure::new("closed", "connection closed without an answer")
        }
        _ if error.is_parse_too_large() => Failure::new("bad_response", "the head of the answer is too large"),
        _ => Failure::new("bad_response", format!("not an {spoken} answer: {error}")),
    }
}

fn cut_short(error: &hyper::Error) -> Failure {
    match io_cause(error) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            Failure::new("reset", "connection reset within the body")
        }
        _ => Failure::new("bad_response", "the body is cut short"),
    }
}

fn io_cause(error: &hyper::Error) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}
