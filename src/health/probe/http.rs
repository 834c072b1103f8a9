//! The HTTP probe: a request, and what is expected of its answer.
//!
//! The status is judged first, then the head, then the body, which is read to its end or to 64 KiB, and only where something is
//! expected of it or where it may be a health document. What is cut short is not fit, even when all that is expected came before
//! the cut. Redirects are not followed.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Uri,
    header::{CONNECTION, HOST, USER_AGENT},
    uri::Authority,
};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{
    super::outcome::SNIPPET_LEN, Attempt, Failure, Question, READ_LIMIT, conversation::Conversation,
    document::Document, document::Media, expect,
};
use crate::{
    config::plan::{self, Expect, HttpProbe},
    tls::Protocol,
    upstream::Dial,
};

/// How long the body of a failed probe is waited for, only to show its beginning and to name what has failed.
const SNIPPET_WAIT: Duration = Duration::from_millis(250);

pub(super) const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"), " (health check)");

pub(super) async fn probe(attempt: &mut Attempt, question: &Question, probe: &HttpProbe) -> Result<(), Failure> {
    let request = request(question, probe)?;
    let transport = attempt.dial(&question.dial).await?;
    let protocol = transport.protocol(&question.dial);
    let request = match protocol {
        Protocol::Http1 => request,
        Protocol::Http2 => in_http2(request, &question.dial),
    };
    let mut conversation = Conversation::begin(transport, protocol).await?;
    let result = exchange(attempt, &mut conversation, request, &probe.expect).await;
    match attempt.status {
        Some(_) => result,
        None => result.map_err(|failure| conversation.other_protocol().unwrap_or(failure)),
    }
}

/// The host is a part of the target there, and no field speaks of the connection.
fn in_http2(mut request: Request<Full<Bytes>>, dial: &Dial) -> Request<Full<Bytes>> {
    request.headers_mut().remove(CONNECTION);
    let host = request.headers_mut().remove(HOST);
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(dial.scheme());
    target.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    request
}

pub(super) fn request(question: &Question, probe: &HttpProbe) -> Result<Request<Full<Bytes>>, Failure> {
    let mut headers: HeaderMap = probe.headers.iter().cloned().fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    });
    headers.entry(HOST).or_insert_with(|| question.authority.clone());
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut request = Request::new(Full::from(probe.body.clone().unwrap_or_default()));
    *request.method_mut() = probe.method.clone();
    *request.uri_mut() = probe.path.parse().map_err(|error| Failure::new("bad_request", format!("path: {error}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn exchange(
    attempt: &mut Attempt,
    conversation: &mut Conversation,
    request: Request<Full<Bytes>>,
    expect: &Expect,
) -> Result<(), Failure> {
    let answer = attempt.within("timeout", "answer", conversation.ask(request)).await??;
    let (head, mut body) = answer.into_parts();
    let status = head.status.as_u16();
    attempt.first_byte = Some(attempt.started.elapsed());
    attempt.status = Some(status);
    attempt.found = status.to_string();
    let media = Media::of(&head.headers).filter(|_| expect.document == plan::Document::Read);
    let is_in = |ranges: &[plan::StatusRange]| ranges.iter().any(|range| range.contains(status));
    let is_degraded = is_in(&expect.degraded_status);
    if !is_degraded && !is_in(&expect.status) {
        let wrong = wrong_document(attempt, conversation, &mut body, media).await;
        return Err(expect::other_status(status, expect, wrong.as_ref()));
    }
    expect::headers(expect, &head.headers)?;
    if media.is_some() || expect.body.is_some() || !expect.json.is_empty() {
        let mut read = Vec::new();
        let is_word = media == Some(Media::Text) && expect.body.is_none() && expect.json.is_empty();
        let limit = if is_word { Media::LONGEST_WORD } else { READ_LIMIT };
        let filled = conversation.read(&mut body, &mut read, limit);
        let filled = attempt.within("timeout", "end of the body", filled).await;
        attempt.show(&read);
        filled??;
        expect::body(expect, status, &read)?;
        expect::json(expect, &read)?;
        media.and_then(|media| Document::read(media, &read)).map_or(Ok(()), |document| document.judge())?;
    }
    match is_degraded {
        true => Err(Failure::degraded("status", format!("status {status} says degraded"))),
        false => Ok(()),
    }
}

/// Shows the body of an answer whose status has decided, and finds the health document that it may be.
async fn wrong_document(
    attempt: &mut Attempt,
    conversation: &mut Conversation,
    body: &mut Incoming,
    media: Option<Media>,
) -> Option<Document> {
    let patience = attempt.deadline().min(Instant::now() + SNIPPET_WAIT);
    let limit = if media.is_some() { READ_LIMIT } else { SNIPPET_LEN };
    let mut read = Vec::new();
    // What came in time is shown; that more of it did not is no news.
    let _ = timeout_at(patience, conversation.read(body, &mut read, limit)).await;
    attempt.show(&read);
    Document::read(media?, &read)
}
