//! The HTTP/1.1 probe: a request, its status, and the text that the body must hold.
//!
//! The status is judged first. The body is read to its end, or to 64 KiB, only where text is expected of it: what is cut
//! short is not fit, even when the text came before the cut. Redirects are not followed.

use std::{error::Error, io, pin::pin, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{CONNECTION, HOST, USER_AGENT},
    uri::Authority,
};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout_at};

use super::{super::outcome::SNIPPET_LEN, Attempt, Failure, Question};
use crate::{
    config::plan::{Expect, HttpProbe},
    tls::Protocol,
    upstream::Dial,
};

/// How much of a body, and how long a head, is read.
const READ_LIMIT: usize = 64 * 1024;

/// How long the body of a failed probe is waited for, only to show its beginning.
const SNIPPET_WAIT: Duration = Duration::from_millis(250);

const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"), " (health check)");

pub(super) async fn probe(attempt: &mut Attempt, question: &Question, probe: &HttpProbe) -> Result<(), Failure> {
    let request = request(question, probe)?;
    let transport = attempt.dial(&question.dial).await?;
    match transport.protocol(&question.dial) {
        Protocol::Http1 => {
            let handshake = http1::Builder::new().max_buf_size(READ_LIMIT).handshake(TokioIo::new(transport)).await;
            let (mut sender, connection) = handshake.map_err(|error| no_answer(&error))?;
            let answer = async move { sender.send_request(request).await };
            beside(connection, exchange(attempt, answer, &probe.expect)).await
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(READ_LIMIT as u32);
            let handshake = builder.handshake(TokioIo::new(transport)).await;
            let (mut sender, connection) = handshake.map_err(|error| no_answer(&error))?;
            let request = in_http2(request, &question.dial);
            // The sender must outlive the body: without it the connection closes.
            let answer = async { sender.send_request(request).await };
            let outcome = beside(connection, exchange(attempt, answer, &probe.expect)).await;
            drop(sender);
            outcome
        }
    }
}

/// The host is a part of the target there, and no field speaks of the connection.
fn in_http2(mut request: Request<Empty<Bytes>>, dial: &Dial) -> Request<Empty<Bytes>> {
    request.headers_mut().remove(CONNECTION);
    let host = request.headers_mut().remove(HOST);
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(dial.scheme());
    target.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    request
}

pub(super) fn request(question: &Question, probe: &HttpProbe) -> Result<Request<Empty<Bytes>>, Failure> {
    let mut headers: HeaderMap = probe.headers.iter().cloned().fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    });
    headers.entry(HOST).or_insert_with(|| question.authority.clone());
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut request = Request::new(Empty::new());
    *request.method_mut() = probe.method.clone();
    *request.uri_mut() = probe.path.parse().map_err(|error| Failure::new("bad_request", format!("path: {error}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Runs an exchange with its connection beside it. A connection that ends first leaves what it has read to the exchange.
async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        result = &mut exchange => return result,
        _ = connection => {}
    }
    exchange.await
}

async fn exchange(
    attempt: &mut Attempt,
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    expect: &Expect,
) -> Result<(), Failure> {
    let answer = attempt.within("timeout", "answer", answer).await?;
    let (head, mut body) = answer.map_err(|error| no_answer(&error))?.into_parts();
    attempt.first_byte = Some(attempt.started.elapsed());
    attempt.status = Some(head.status.as_u16());
    let mut read = Vec::new();
    if !expect.status.iter().any(|range| range.contains(head.status.as_u16())) {
        let patience = attempt.deadline().min(Instant::now() + SNIPPET_WAIT);
        // What came in time is shown; that more of it did not is no news, the status has decided.
        let _ = timeout_at(patience, fill(&mut read, &mut body, SNIPPET_LEN)).await;
        attempt.show(&read);
        return Err(other_status(head.status, expect));
    }
    let Some(text) = &expect.body else { return Ok(()) };
    let filled = attempt.within("timeout", "end of the body", fill(&mut read, &mut body, READ_LIMIT)).await;
    attempt.show(&read);
    filled?.map_err(|error| cut_short(&error))?;
    match holds(&read, text) {
        true => Ok(()),
        false => Err(Failure::new("body", format!("status {}, no `{text}` in the body", head.status.as_u16()))),
    }
}

/// Reads a body to its end, or to `limit` bytes.
async fn fill(read: &mut Vec<u8>, body: &mut Incoming, limit: usize) -> Result<(), hyper::Error> {
    while read.len() < limit {
        let Some(frame) = body.frame().await.transpose()? else { return Ok(()) };
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data.get(..limit - read.len()).unwrap_or(data));
        }
    }
    Ok(())
}

fn holds(body: &[u8], text: &str) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text.as_bytes())
}

fn other_status(status: StatusCode, expect: &Expect) -> Failure {
    let ranges: Vec<String> = expect.status.iter().map(ToString::to_string).collect();
    Failure::new("status", format!("status {}, expected {}", status.as_u16(), ranges.join(", ")))
}

fn no_answer(error: &hyper::Error) -> Failure {
    match io_cause(error) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Failure::new("reset", "connection reset"),
        _ if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            Failure::new("closed", "connection closed without an answer")
        }
        _ if error.is_parse_too_large() => Failure::new("bad_response", "the head of the answer is too large"),
        _ => Failure::new("bad_response", format!("not an HTTP/1.1 answer: {error}")),
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
