//! `/api/v1/events`: what has happened, as a list, and what happens, as a stream.
//!
//! A stream reads from the ring that the event log keeps anyway and has no queue of its own: a client that is slow holds up nobody, and
//! one that the ring has passed by is told so and cut.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    extract::{Query, Request, State},
    response::{
        IntoResponse, Response,
        sse::{Event as Message, Sse},
    },
};
use futures_util::stream;
use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use super::{
    Problem,
    router::{App, JSON, accepts},
};
use crate::{
    base::{Timestamp, duration},
    telemetry::{EventLog, events::Recorded},
};

/// Streams at once: half of the connections.
const MAX_STREAMS: usize = 64;

/// After so much silence a stream says that it is alive, so that a client notices one that is not.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The streams of events that are open.
#[derive(Debug)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_STREAMS)), closing: watch::Sender::new(false) }
    }
}

impl Streams {
    /// Ends them all.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// Counts how often a client took something from a stream: one that takes nothing for long is gone. Zero: there is no stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    fn beat(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn beats(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

const NDJSON: &str = "application/x-ndjson";

pub(super) async fn events(
    State(app): State<App>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let answered = Wanted::read(&query).and_then(|wanted| match accepts(request.headers(), "text/event-stream") {
        true => stream(&app, &wanted, &request),
        false => Ok(list(&app, &wanted, request.headers())),
    });
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// What the query says.
#[derive(Debug, Default)]
struct Wanted {
    since: Option<Timestamp>,
    limit: Option<usize>,
}

impl Wanted {
    fn read(query: &BTreeMap<String, String>) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        for (name, value) in query {
            let shown = value.escape_debug();
            match name.as_str() {
                "since" => {
                    let since = moment(value).ok_or_else(|| {
                        Problem::bad_request(format!("`since={shown}` is neither RFC 3339 nor a duration such as 1h."))
                    })?;
                    wanted.since = Some(since);
                }
                "limit" => {
                    let limit = value.parse();
                    wanted.limit =
                        Some(limit.map_err(|_| Problem::bad_request(format!("`limit={shown}` is not a number.")))?);
                }
                _ => {
                    return Err(Problem::bad_request(format!(
                        "There is `since` and `limit`, no `{}`.",
                        name.escape_debug()
                    )));
                }
            }
        }
        Ok(wanted)
    }

    /// The events that are wanted, of those that came after a number.
    fn of(&self, log: &EventLog, after: u64) -> Vec<Recorded> {
        let mut events = log.since(after);
        events.retain(|event| self.since.is_none_or(|since| event.at >= since));
        let too_many = self.limit.map_or(0, |limit| events.len().saturating_sub(limit));
        events.drain(..too_many);
        events
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    duration::parse(text).map(|ago| Timestamp::now() - ago).ok().or_else(|| text.parse().ok())
}

/// As a list, or a line each for programs that read lines.
fn list(app: &App, wanted: &Wanted, headers: &HeaderMap) -> Response {
    let events: Vec<String> = wanted.of(&app.status.event_log, 0).iter().map(Recorded::json).collect();
    let (content_type, text) = match accepts(headers, NDJSON) {
        true => (NDJSON, events.iter().map(|event| format!("{event}\n")).collect()),
        false => (JSON, format!("[{}]\n", events.join(","))),
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

fn stream(app: &App, wanted: &Wanted, request: &Request) -> Result<Response, Problem> {
    let Ok(place) = Arc::clone(&app.streams.places).try_acquire_owned() else {
        let detail = format!("{MAX_STREAMS} streams of events are open, and there are no more.");
        return Err(Problem { status: StatusCode::SERVICE_UNAVAILABLE, reason: "too_many_streams", detail });
    };
    let log = Arc::clone(&app.status.event_log);
    let id = request.headers().get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let epoch = app.status.started.as_micros();
    let seen = id.and_then(|id| sequence(id, epoch)).unwrap_or(0);
    let newest = log.newest();
    let waiting: VecDeque<Recorded> = wanted.of(&log, seen).into();
    let last = waiting.back().map_or_else(|| *newest.borrow(), |event| event.sequence);
    let reader = Reader {
        log,
        epoch,
        newest,
        closing: app.streams.closing.subscribe(),
        waiting,
        last,
        is_cut: false,
        pulse: request.extensions().get::<Pulse>().cloned().unwrap_or_default(),
        _place: place,
    };
    reader.pulse.beat();
    Ok(Sse::new(stream::unfold(reader, Reader::next)).into_response())
}

/// `1764244524000000-12`: the twelfth event of the process that was started then. The numbers of another process mean nothing here.
fn sequence(id: &str, epoch: u64) -> Option<u64> {
    match id.split_once('-') {
        Some((process, number)) if process.parse() == Ok(epoch) => number.parse().ok(),
        Some(_another) => None,
        None => id.parse().ok(),
    }
}

/// One client's place in the ring.
struct Reader {
    log: Arc<EventLog>,
    epoch: u64,
    newest: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    waiting: VecDeque<Recorded>,
    last: u64,
    is_cut: bool,
    pulse: Pulse,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Message, Infallible>, Self)> {
        self.pulse.beat();
        if self.is_cut {
            return None;
        }
        if self.waiting.is_empty() && !self.is_behind() && !self.wait().await? {
            return Some((Ok(Message::default().comment("")), self));
        }
        let message = match self.waiting.pop_front() {
            Some(event) => self.message(&event),
            None => self.refill(),
        };
        Some((Ok(message), self))
    }

    fn is_behind(&self) -> bool {
        *self.newest.borrow() > self.last
    }

    /// Whether there is something new, or only time has passed; `None` at the end of the process.
    async fn wait(&mut self) -> Option<bool> {
        let (last, newest, closing) = (self.last, &mut self.newest, &mut self.closing);
        let woken = timeout(HEARTBEAT, async {
            tokio::select! {
                biased;
                new = newest.wait_for(|newest| *newest > last) => new.is_ok(),
                _closing = closing.wait_for(|closing| *closing) => false,
            }
        });
        match woken.await {
            Ok(true) => Some(true),
            Ok(false) => None,
            Err(_silence) => Some(false),
        }
    }

    /// Takes what has come meanwhile, unless some of it is lost.
    fn refill(&mut self) -> Message {
        self.waiting = self.log.since(self.last).into();
        match self.waiting.pop_front() {
            Some(first) if first.sequence == self.last + 1 => {
                self.last = self.waiting.back().map_or(first.sequence, |newest| newest.sequence);
                self.message(&first)
            }
            _ => {
                self.is_cut = true;
                Message::default().comment("too slow: events are lost, and the stream ends here")
            }
        }
    }

    fn message(&self, event: &Recorded) -> Message {
        Message::default().id(format!("{}-{}", self.epoch, event.sequence)).data(event.json())
    }
}
