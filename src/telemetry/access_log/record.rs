use std::{io::Write as _, net::SocketAddr, time::Duration};

use crate::{base::Timestamp, telemetry::escape::push_json_string};

/// A request that is over, as the access log tells it. Absent fields are left out of the line.
///
/// What comes from the client is bytes: it is escaped, whatever it holds, and cut after 2 KiB.
#[derive(Clone, Debug)]
pub struct AccessRecord<'a> {
    /// When its head came in.
    pub at: Timestamp,
    /// Its id, taken over from the client or made here.
    pub request_id: &'a str,
    /// The listener that it came in by.
    pub listener: &'a str,
    /// Who sent it: the client as far as it is known, behind trusted proxies.
    pub client: SocketAddr,
    /// The method.
    pub method: &'a str,
    /// The host that was asked for.
    pub host: Option<&'a [u8]>,
    /// The path, without the query.
    pub path: &'a [u8],
    /// The query, without the question mark and with no secrets left in it.
    pub query: Option<&'a [u8]>,
    /// `HTTP/1.1`, `HTTP/2`, ...
    pub protocol: &'a str,
    /// The route, where one was found.
    pub route: Option<&'a str>,
    /// The upstream that it was sent to.
    pub upstream: Option<&'a str>,
    /// The backend that answered.
    pub backend: Option<&'a str>,
    /// The status that the client got, or `None` if there was nobody to get it.
    pub status: Option<u16>,
    /// The status of gRPC that its client got, where it is such a client.
    pub grpc_status: Option<u16>,
    /// If the gateway answered or cut it: the reason as a token.
    pub reason: Option<&'a str>,
    /// Every attempt to have a backend answer, in order. The first 16 are written.
    pub attempts: &'a [Attempt<'a>],
    /// Bytes of its body that came in.
    pub bytes_in: u64,
    /// Bytes of the response's body that went out.
    pub bytes_out: u64,
    /// From its head to the end of the response's body.
    pub duration: Duration,
    /// From its head to the head of the response.
    pub first_byte: Option<Duration>,
    /// What the rate limits said, e.g. `allow`, `deny`.
    pub limit: Option<&'a str>,
    /// Whom it was authenticated as.
    pub identity: Option<&'a [u8]>,
    /// The `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The `Referer`.
    pub referer: Option<&'a [u8]>,
}

/// One attempt to have a backend answer.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The backend.
    pub backend: &'a str,
    /// How it ended, as a token: `ok`, `connect_refused`, `timeout`, ...
    pub outcome: &'a str,
    /// More of the reason, in words: why a TLS handshake failed, what is wrong with a response.
    pub detail: Option<&'a str>,
    /// How long it took, to the head of the response or to the failure.
    pub took: Duration,
}

const FIELD_MAX: usize = 2048;
const ATTEMPTS_MAX: usize = 16;

/// Formats records without allocating; the seconds of the time stamp are formatted once a second.
#[derive(Debug, Default)]
pub(super) struct Formatter {
    second: u64,
    second_text: Vec<u8>,
}

impl Formatter {
    /// Appends one line.
    pub(super) fn push_line(&mut self, out: &mut Vec<u8>, record: &AccessRecord<'_>) {
        out.extend_from_slice(b"{\"ts\":\"");
        self.push_timestamp(out, record.at);
        out.push(b'"');
        push_text(out, "request_id", Some(record.request_id));
        push_text(out, "listener", Some(record.listener));
        push_client(out, record.client);
        push_text(out, "method", Some(record.method));
        push_bytes(out, "host", record.host);
        push_bytes(out, "path", Some(record.path));
        push_bytes(out, "query", record.query);
        push_text(out, "protocol", Some(record.protocol));
        push_text(out, "route", record.route);
        push_text(out, "upstream", record.upstream);
        push_text(out, "backend", record.backend);
        if let Some(status) = record.status {
            push_number(out, "status", status.into());
        }
        if let Some(status) = record.grpc_status {
            push_number(out, "grpc_status", status.into());
        }
        push_text(out, "reason", record.reason);
        push_attempts(out, record.attempts);
        push_number(out, "bytes_in", record.bytes_in);
        push_number(out, "bytes_out", record.bytes_out);
        push_millis(out, "duration_ms", record.duration);
        if let Some(first_byte) = record.first_byte {
            push_millis(out, "first_byte_ms", first_byte);
        }
        push_text(out, "limit", record.limit);
        push_bytes(out, "identity", record.identity);
        push_bytes(out, "user_agent", record.user_agent);
        push_bytes(out, "referer", record.referer);
        out.extend_from_slice(b"}\n");
    }

    fn push_timestamp(&mut self, out: &mut Vec<u8>, at: Timestamp) {
        let (second, micros) = (at.as_micros() / 1_000_000, at.as_micros() % 1_000_000);
        if second != self.second || self.second_text.is_empty() {
            self.second = second;
            self.second_text.clear();
            push(&mut self.second_text, format_args!("{}", Timestamp::from_micros(second * 1_000_000)));
            self.second_text.truncate("2026-11-22T12:05:41.".len());
        }
        out.extend_from_slice(&self.second_text);
        push_digits(out, micros, 6);
        out.push(b'Z');
    }
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec does not fail");
}

fn push_text(out: &mut Vec<u8>, key: &str, text: Option<&str>) {
    push_bytes(out, key, text.map(str::as_bytes));
}

fn push_bytes(out: &mut Vec<u8>, key: &str, text: Option<&[u8]>) {
    if let Some(text) = text {
        push_key(out, key);
        push_json_string(out, text, FIELD_MAX);
    }
}

fn push_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

fn push_millis(out: &mut Vec<u8>, key: &str, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(out, key, micros / 1000);
    out.push(b'.');
    push_digits(out, micros % 1000, 3);
}

fn push_client(out: &mut Vec<u8>, client: SocketAddr) {
    push_key(out, "client");
    out.push(b'"');
    match client {
        SocketAddr::V4(client) => {
            for (octet, end) in client.ip().octets().into_iter().zip(*b"...:") {
                push_digits(out, octet.into(), 1);
                out.push(end);
            }
            push_digits(out, client.port().into(), 1);
        }
        SocketAddr::V6(client) => push(out, format_args!("{client}")),
    }
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, key: &str, number: u64) {
    push_key(out, key);
    push_digits(out, number, 1);
}

/// Appends a number, with zeros before it if it has fewer digits. A line has a dozen of them, for each of which the formatting of the
/// standard library costs several times this.
fn push_digits(out: &mut Vec<u8>, mut number: u64, least: usize) {
    // As many as the largest has.
    let mut digits = [b'0'; 20];
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 && count >= least {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

fn push_attempts(out: &mut Vec<u8>, attempts: &[Attempt<'_>]) {
    if attempts.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"attempts\":[");
    for (index, attempt) in attempts.iter().take(ATTEMPTS_MAX).enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"backend\":" } else { b",{\"backend\":" });
        push_json_string(out, attempt.backend.as_bytes(), FIELD_MAX);
        push_text(out, "outcome", Some(attempt.outcome));
        push_text(out, "detail", attempt.detail);
        push_millis(out, "ms", attempt.took);
        out.push(b'}');
    }
    out.push(b']');
}
