//! What is counted of each route, backend, upstream and listener.
//!
//! Whoever owns the counted thing (the registry, the listener) owns its metrics, so they survive a reload with it. Workers
//! call the `record` methods: no lock, no shared write but for a rarity, and no allocation but a worker's first record of a
//! thing, which makes its block of cells; of ten thousand routes only the used ones cost memory. `expose` sums the blocks for
//! a scrape and is given the names, which are not known here.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;

use super::{
    access_log::AccessLog,
    catalogue,
    cells::{Cell, Counter, Histogram, HistogramSum, WorkerId},
    events::Events,
    exposition::Exposition,
    tally::{Code, LABEL_MAX, Tally},
};
use crate::base::Timestamp;

// A worker's block of cells, made at its first record. Two blocks never share a cache line (128 bytes: adjacent-line prefetch).
#[derive(Debug)]
struct PerWorker<T>(Box<[OnceLock<Box<Block<T>>>]>);

#[derive(Debug)]
#[repr(align(128))]
struct Block<T>(T);

impl<T> PerWorker<T> {
    fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| OnceLock::new()).collect())
    }

    fn of(&self, worker: WorkerId, make: impl FnOnce() -> T) -> Option<&T> {
        Some(&self.0.get(worker.0)?.get_or_init(|| Box::new(Block(make()))).0)
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|block| Some(&block.get()?.0))
    }
}

// As many cells as asked for, on cache lines of their own.
#[derive(Debug)]
struct Cells(Box<[Block<[Cell; 16]>]>);

impl Cells {
    fn new(count: usize) -> Self {
        Self((0..count.div_ceil(16)).map(|_| Block(Default::default())).collect())
    }

    fn get(&self, index: usize) -> Option<&Cell> {
        self.0.get(index / 16)?.0.get(index % 16)
    }
}

/// Counts by token, out of a fixed list: reasons of closing, decisions, outcomes.
#[derive(Debug)]
pub struct TokenCounter {
    tokens: &'static [&'static str],
    workers: PerWorker<Cells>,
}

impl TokenCounter {
    /// All at zero.
    #[must_use]
    pub fn new(workers: usize, tokens: &'static [&'static str]) -> Self {
        Self { tokens, workers: PerWorker::new(workers) }
    }

    /// Counts one of the token with this index.
    pub fn record(&self, worker: WorkerId, token: usize) {
        let cells = self.workers.of(worker, || Cells::new(self.tokens.len()));
        if let Some(cell) = cells.and_then(|cells| cells.get(token)) {
            cell.add(1);
        }
    }

    /// The sum over all workers of each token, those at zero too.
    pub fn sums(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sum = |token: usize| self.workers.iter().filter_map(|cells| Some(cells.get(token)?.get())).sum();
        self.tokens.iter().enumerate().map(move |(index, token)| (*token, sum(index)))
    }

    /// The sum over all workers and tokens.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sums().map(|(_, sum)| sum).sum()
    }
}

/// What is counted of one caller of an API.
#[derive(Debug)]
pub struct CallerMetrics {
    workers: PerWorker<CallerCells>,
}

#[derive(Debug, Default)]
struct CallerCells {
    requests: Cell,
    last_seen_micros: Cell,
}

impl CallerMetrics {
    /// Never seen.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: PerWorker::new(workers) }
    }

    /// Counts a request of now.
    pub fn record(&self, worker: WorkerId, now: Timestamp) {
        if let Some(cells) = self.workers.of(worker, CallerCells::default) {
            cells.requests.add(1);
            cells.last_seen_micros.set(now.as_micros());
        }
    }

    /// Its requests, and when the last one came; `None` where none came yet.
    #[must_use]
    pub fn seen(&self) -> Option<(u64, Timestamp)> {
        let requests = self.workers.iter().map(|cells| cells.requests.get()).sum();
        let last = self.workers.iter().map(|cells| cells.last_seen_micros.get()).max();
        last.filter(|_| requests > 0).map(|last| (requests, Timestamp::from_micros(last)))
    }
}

/// A request that is over, as its route counts it.
#[derive(Clone, Debug)]
pub struct RequestRecord<'a> {
    /// The number of the listener that it came in by, at most 65,535: the caller's, resolved to a name by the caller.
    pub listener: u16,
    /// Its method.
    pub method: &'a Method,
    /// The status that the client got, or 0 for none.
    pub status: u16,
    /// From its head to the end of the response's body.
    pub duration: Duration,
    /// Bytes of its body that came in.
    pub request_bytes: u64,
    /// Bytes of the response's body that went out.
    pub response_bytes: u64,
    /// If the gateway answered or cut it: the index of the reason in the list that the metrics were made with.
    pub error: Option<usize>,
}

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", OTHER_METHOD];
const OTHER_METHOD: &str = "other";
const METHOD_BITS: u32 = 4;

// An index of METHODS. Methods are known by their text, of which a client chooses any: all others are one.
fn method_index(method: &Method) -> u32 {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::PATCH => 5,
        Method::OPTIONS => 6,
        Method::CONNECT => 7,
        Method::TRACE => 8,
        _ => 9,
    }
}

/// What a series of [`RouteMetrics::requests`] is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RequestKey {
    /// The listener; `None` for what was too varied to be told apart.
    pub listener: Option<u16>,
    /// The method, `other` for one that is not well known.
    pub method: &'static str,
    /// The status.
    pub code: Code,
}

/// What is counted of a route.
#[derive(Debug)]
pub struct RouteMetrics {
    workers: PerWorker<RouteCells>,
    reasons: &'static [&'static str],
    mirrored: TokenCounter,
}

#[derive(Debug)]
struct RouteCells {
    requests: Tally<32>,
    duration: Histogram,
    request_bytes: Cell,
    response_bytes: Cell,
    errors: Cells,
}

impl RouteMetrics {
    /// All at zero. `reasons` are the tokens of [`RequestRecord::error`].
    #[must_use]
    pub fn new(workers: usize, reasons: &'static [&'static str]) -> Self {
        Self { workers: PerWorker::new(workers), reasons, mirrored: TokenCounter::new(workers, &MIRRORED) }
    }

    /// Counts a request that is over.
    pub fn record(&self, worker: WorkerId, request: &RequestRecord<'_>) {
        let Some(cells) = self.workers.of(worker, || RouteCells::new(self.reasons.len())) else { return };
        let label = u32::from(request.listener) << METHOD_BITS | method_index(request.method);
        cells.requests.add(label, request.status);
        cells.duration.observe(request.duration);
        cells.request_bytes.add(request.request_bytes);
        cells.response_bytes.add(request.response_bytes);
        if let Some(cell) = request.error.and_then(|reason| cells.errors.get(reason)) {
            cell.add(1);
        }
    }

    /// Counts a copy of a request.
    pub fn mirrored(&self, worker: WorkerId, result: Mirrored) {
        self.mirrored.record(worker, result as usize);
    }

    /// Requests by listener, method and code.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<RequestKey, u64> {
        let mut sums = BTreeMap::new();
        self.workers.iter().for_each(|cells| cells.requests.add_to(&mut sums));
        sums.into_iter().map(|((label, code), sum)| (RequestKey::new(label, code), sum)).collect()
    }

    /// Latencies of requests.
    #[must_use]
    pub fn duration(&self) -> HistogramSum {
        summed(self.workers.iter().map(|cells| &cells.duration))
    }

    /// Bytes of bodies: of requests, of responses.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |of: fn(&RouteCells) -> &Cell| self.workers.iter().map(|cells| of(cells).get()).sum();
        (sum(|cells| &cells.request_bytes), sum(|cells| &cells.response_bytes))
    }

    /// Requests that the gateway answered or cut by itself, by reason, without those at zero.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sum = |reason: usize| self.workers.iter().filter_map(|cells| Some(cells.errors.get(reason)?.get())).sum();
        let sums = self.reasons.iter().enumerate().map(move |(index, reason)| (*reason, sum(index)));
        sums.filter(|(_, sum)| *sum > 0)
    }

    /// Adds its families to a scrape, under its name; `listener` names a listener by its number.
    pub fn expose<'a>(&self, out: &mut Exposition, route: &str, listener: impl Fn(u16) -> Option<&'a str>) {
        let mut requests = out.family(&catalogue::HTTP_REQUESTS);
        for (key, sum) in self.requests() {
            let listener = key.listener.and_then(&listener).unwrap_or("-");
            requests.sample([listener, route, key.method, &key.code.to_string()], sum);
        }
        let (request_bytes, response_bytes) = self.bytes();
        out.family(&catalogue::HTTP_REQUEST_DURATION).sample([route], self.duration());
        out.family(&catalogue::HTTP_REQUEST_BODY_BYTES).sample([route], request_bytes);
        out.family(&catalogue::HTTP_RESPONSE_BODY_BYTES).sample([route], response_bytes);
        let mut errors = out.family(&catalogue::GATEWAY_ERRORS);
        for (reason, sum) in self.errors() {
            errors.sample([route, reason], sum);
        }
        let mut mirrored = out.family(&catalogue::MIRRORED);
        for (result, sum) in self.mirrored.sums().filter(|(_, sum)| *sum > 0) {
            mirrored.sample([route, result], sum);
        }
    }
}

impl RequestKey {
    fn new(label: Option<u32>, code: Code) -> Self {
        let method = label.map_or(OTHER_METHOD, |label| METHODS[(label & ((1 << METHOD_BITS) - 1)) as usize]);
        let listener = label.and_then(|label| u16::try_from(label >> METHOD_BITS).ok());
        Self { listener, method, code }
    }
}

const _: () = assert!((u16::MAX as u32) << METHOD_BITS < LABEL_MAX, "a listener and a method fit a label");

impl RouteCells {
    fn new(reasons: usize) -> Self {
        Self {
            requests: Tally::default(),
            duration: Histogram::default(),
            request_bytes: Cell::default(),
            response_bytes: Cell::default(),
            errors: Cells::new(reasons),
        }
    }
}

fn summed<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> HistogramSum {
    let mut sum = HistogramSum::default();
    histograms.for_each(|histogram| histogram.add_to(&mut sum));
    sum
}

/// What is counted of a backend.
#[derive(Debug)]
pub struct BackendMetrics {
    workers: PerWorker<BackendCells>,
}

#[derive(Debug, Default)]
struct BackendCells {
    responses: Tally<16>,
    duration: Histogram,
    failures: Cell,
    unanswered: Cell,
}

impl BackendMetrics {
    /// All at zero.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: PerWorker::new(workers) }
    }

    /// Counts a response of the backend, when its body is over.
    pub fn record(&self, worker: WorkerId, status: u16, duration: Duration) {
        if let Some(cells) = self.workers.of(worker, BackendCells::default) {
            cells.responses.add(0, status);
            cells.duration.observe(duration);
        }
    }

    /// Counts a request that failed by its doing, when that is known.
    pub fn failed(&self, worker: WorkerId, is_answered: bool) {
        if let Some(cells) = self.workers.of(worker, BackendCells::default) {
            cells.failures.add(1);
            cells.unanswered.add(u64::from(!is_answered));
        }
    }

    /// Requests that are over: responses, and requests that got none.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let unanswered: u64 = self.workers.iter().map(|cells| cells.unanswered.get()).sum();
        self.responses().values().sum::<u64>() + unanswered
    }

    /// Requests that failed by its doing: no response, or one that passive health counts as a failure.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.workers.iter().map(|cells| cells.failures.get()).sum()
    }

    /// Responses by code.
    #[must_use]
    pub fn responses(&self) -> BTreeMap<Code, u64> {
        let mut sums = BTreeMap::new();
        self.workers.iter().for_each(|cells| cells.responses.add_to(&mut sums));
        sums.into_iter().map(|((_, code), sum)| (code, sum)).collect()
    }

    /// Latencies of responses.
    #[must_use]
    pub fn duration(&self) -> HistogramSum {
        summed(self.workers.iter().map(|cells| &cells.duration))
    }

    /// Adds its families to a scrape, under its names.
    pub fn expose(&self, out: &mut Exposition, upstream: &str, backend: &str) {
        let mut requests = out.family(&catalogue::UPSTREAM_REQUESTS);
        for (code, sum) in self.responses() {
            requests.sample([upstream, backend, &code.to_string()], sum);
        }
        out.family(&catalogue::UPSTREAM_REQUEST_DURATION).sample([upstream, backend], self.duration());
        out.family(&catalogue::BACKEND_FAILURES).sample([upstream, backend], self.failures());
    }
}

/// What became of a copy of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mirrored {
    /// As many as may be were under way.
    Dropped,
    /// No backend was eligible, or none answered.
    Failed,
    /// The client's body did not come to its end.
    Incomplete,
    /// A backend answered, whatever it said.
    Ok,
    /// It did not end in time.
    Timeout,
    /// The body was larger than what is copied.
    TooLarge,
}

const MIRRORED: [&str; 6] = ["dropped", "failed", "incomplete", "ok", "timeout", "too_large"];

/// How an attempt to have a backend answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AttemptOutcome {
    /// The first one, and the backend answered.
    FirstOk,
    /// The first one failed.
    FirstFailed,
    /// A retry, and a backend answered.
    RetryOk,
    /// A retry failed.
    RetryFailed,
    /// Another backend that was asked at the same time answered first.
    Overtaken,
}

const ATTEMPT_OUTCOMES: [&str; 5] = ["first_ok", "first_failed", "retry_ok", "retry_failed", "overtaken"];

/// What became of an attempt that could be followed by another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetryResult {
    /// The request was sent again.
    Sent,
    /// It took long, and was sent to a second backend as well.
    Hedged,
    /// It was not: the upstream had as many retries as it may.
    BudgetSpent,
    /// It was not: all attempts were used, or there was no time or no backend for another.
    GaveUp,
}

const RETRY_RESULTS: [&str; 4] = ["sent", "hedged", "budget_spent", "gave_up"];

/// What is counted of an upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    attempts: TokenCounter,
    retries: TokenCounter,
    // One cell for all workers: there are few.
    interim: AtomicU64,
}

impl UpstreamMetrics {
    /// All at zero.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            attempts: TokenCounter::new(workers, &ATTEMPT_OUTCOMES),
            retries: TokenCounter::new(workers, &RETRY_RESULTS),
            interim: AtomicU64::new(0),
        }
    }

    /// Counts interim responses.
    pub fn interim(&self, responses: u32) {
        if responses > 0 {
            self.interim.fetch_add(responses.into(), Relaxed);
        }
    }

    /// Counts an attempt.
    pub fn record(&self, worker: WorkerId, outcome: AttemptOutcome) {
        self.attempts.record(worker, outcome as usize);
    }

    /// Counts what became of an attempt that could be followed by another.
    pub fn retried(&self, worker: WorkerId, result: RetryResult) {
        self.retries.record(worker, result as usize);
    }

    /// Retries by result: `sent`, `hedged`, `budget_spent`, `gave_up`.
    pub fn retries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.retries.sums()
    }

    /// Attempts by outcome: `first_ok`, `first_failed`, `retry_ok`, `retry_failed`, `overtaken`.
    pub fn attempts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.attempts.sums()
    }

    /// Adds its families to a scrape, under its name.
    pub fn expose(&self, out: &mut Exposition, upstream: &str) {
        let mut attempts = out.family(&catalogue::UPSTREAM_ATTEMPTS);
        for (outcome, sum) in self.attempts() {
            attempts.sample([upstream, outcome], sum);
        }
        let mut retries = out.family(&catalogue::UPSTREAM_RETRIES);
        for (result, sum) in self.retries() {
            retries.sample([upstream, result], sum);
        }
        out.family(&catalogue::UPSTREAM_INTERIM_RESPONSES).sample([upstream], self.interim.load(Relaxed));
    }
}

/// What is counted of a listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    accepted: Counter,
    closed: TokenCounter,
    started: Counter,
    ended: Counter,
    tunnels_opened: Counter,
    tunnels_closed: Counter,
}

impl ListenerMetrics {
    /// All at zero. `reasons` are the tokens of [`ListenerMetrics::closed`].
    #[must_use]
    pub fn new(workers: usize, reasons: &'static [&'static str]) -> Self {
        let counter = || Counter::new(workers);
        Self {
            accepted: counter(),
            closed: TokenCounter::new(workers, reasons),
            started: counter(),
            ended: counter(),
            tunnels_opened: counter(),
            tunnels_closed: counter(),
        }
    }

    /// A connection was accepted.
    pub fn accepted(&self, worker: WorkerId) {
        self.accepted.add(worker, 1);
    }

    /// A connection ended; `reason` is an index of the list that the metrics were made with.
    pub fn closed(&self, worker: WorkerId, reason: usize) {
        self.closed.record(worker, reason);
    }

    /// A request's head came in.
    pub fn request_started(&self, worker: WorkerId) {
        self.started.add(worker, 1);
    }

    /// A request's response is over, or was cut.
    pub fn request_ended(&self, worker: WorkerId) {
        self.ended.add(worker, 1);
    }

    /// A request became a tunnel.
    pub fn tunnel_opened(&self, worker: WorkerId) {
        self.tunnels_opened.add(worker, 1);
    }

    /// A tunnel ended.
    pub fn tunnel_closed(&self, worker: WorkerId) {
        self.tunnels_closed.add(worker, 1);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        // Ends are read first: what begins meanwhile may show as one too many, never as less than none.
        let closed = self.closed.sum();
        self.accepted.sum().saturating_sub(closed)
    }

    /// Requests that are being answered now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let ended = self.ended.sum();
        self.started.sum().saturating_sub(ended)
    }

    /// Tunnels that are open now.
    #[must_use]
    pub fn tunnels(&self) -> u64 {
        let closed = self.tunnels_closed.sum();
        self.tunnels_opened.sum().saturating_sub(closed)
    }

    /// Adds its families to a scrape, under its name.
    pub fn expose(&self, out: &mut Exposition, listener: &str) {
        out.family(&catalogue::CONNECTIONS_ACCEPTED).sample([listener], self.accepted.sum());
        let mut closed = out.family(&catalogue::CONNECTIONS_CLOSED);
        for (reason, sum) in self.closed.sums() {
            closed.sample([listener, reason], sum);
        }
        out.family(&catalogue::CONNECTIONS_OPEN).sample([listener], self.open());
        out.family(&catalogue::HTTP_REQUESTS_IN_FLIGHT).sample([listener], self.in_flight());
        out.family(&catalogue::TUNNELS).sample([listener], self.tunnels_opened.sum());
        out.family(&catalogue::TUNNELS_OPEN).sample([listener], self.tunnels());
    }
}

/// Adds what concerns the gateway as a whole to a scrape: panics, what the logs lost, the process, the build.
pub fn expose_gateway(out: &mut Exposition, panics: &Counter, access_log: Option<&AccessLog>, events: &Events) {
    let commit = option_env!("TIDEGATE_COMMIT").unwrap_or("unknown");
    out.family(&catalogue::BUILD_INFO).sample([env!("CARGO_PKG_VERSION"), commit], ());
    out.family(&catalogue::PANICS).sample([], panics.sum());
    if let Some(log) = access_log {
        out.family(&catalogue::ACCESS_LOG_LINES).sample([], log.lines());
        out.family(&catalogue::ACCESS_LOG_DROPPED).sample([], log.dropped());
    }
    out.family(&catalogue::EVENTS_LOST).sample([], events.lost());
    super::process::expose(out);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::telemetry::exposition::Format;

    const REASONS: [&str; 3] = ["no_route", "timeout", "rate_limited"];
    const CLOSED: [&str; 2] = ["client", "idle"];

    fn request(method: &Method, status: u16) -> RequestRecord<'_> {
        RequestRecord {
            listener: 0,
            method,
            status,
            duration: Duration::from_millis(3),
            request_bytes: 10,
            response_bytes: 100,
            error: None,
        }
    }

    #[test]
    fn workers_count_side_by_side_and_nothing_is_lost() {
        const EACH: u64 = 20_000;
        let route = RouteMetrics::new(4, &REASONS);
        let listener = ListenerMetrics::new(4, &CLOSED);
        thread::scope(|scope| {
            for worker in (0..4).map(WorkerId) {
                let (route, listener) = (&route, &listener);
                scope.spawn(move || {
                    for n in 0..EACH {
                        listener.request_started(worker);
                        let status = 200 + u16::try_from(n % 3).unwrap();
                        let error = (n % 4 == 0).then_some(1);
                        route.record(worker, &RequestRecord { error, ..request(&Method::GET, status) });
                        listener.request_ended(worker);
                    }
                });
            }
            // A reader meanwhile sees sums that only grow.
            let mut before = 0;
            while before < 4 * EACH {
                let now = route.requests().values().sum();
                assert!(now >= before);
                before = now;
                assert!(listener.in_flight() <= 4 * EACH);
            }
        });
        assert_eq!(route.requests().values().sum::<u64>(), 4 * EACH);
        assert_eq!(route.duration().buckets.iter().sum::<u64>(), 4 * EACH);
        assert_eq!(route.duration().sum_micros, 4 * EACH * 3_000);
        assert_eq!(route.bytes(), (40 * EACH, 400 * EACH));
        assert_eq!(route.errors().collect::<Vec<_>>(), [("timeout", EACH)]);
        assert_eq!(listener.in_flight(), 0);
    }

    #[test]
    fn requests_are_told_apart_by_listener_method_and_code() {
        let route = RouteMetrics::new(2, &REASONS);
        let brew = Method::from_bytes(b"BREW").unwrap();
        route.record(WorkerId(0), &request(&Method::GET, 200));
        route.record(WorkerId(1), &request(&Method::GET, 200));
        route.record(WorkerId(1), &RequestRecord { listener: u16::MAX, ..request(&brew, 418) });
        // A worker that does not exist counts nothing and harms nothing.
        route.record(WorkerId(2), &request(&Method::GET, 200));
        let key = |listener, method, code| RequestKey { listener: Some(listener), method, code: Code::Exact(code) };
        let expected = [(key(0, "GET", 200), 2), (key(u16::MAX, "other", 418), 1)];
        assert_eq!(route.requests(), expected.into());
    }

    #[test]
    fn too_many_kinds_of_requests_are_counted_by_class() {
        let route = RouteMetrics::new(1, &REASONS);
        (200..300).for_each(|status| route.record(WorkerId(0), &request(&Method::GET, status)));
        let requests = route.requests();
        assert_eq!(requests[&RequestKey { listener: None, method: "other", code: Code::Class(2) }], 100 - 32);
        assert_eq!(requests.len(), 33);
    }

    #[test]
    fn open_connections_are_those_accepted_and_not_closed() {
        let listener = ListenerMetrics::new(1, &CLOSED);
        (0..3).for_each(|_| listener.accepted(WorkerId(0)));
        listener.closed(WorkerId(0), 1);
        assert_eq!(listener.open(), 2);
        listener.request_started(WorkerId(0));
        assert_eq!(listener.in_flight(), 1);
    }

    #[test]
    fn a_whole_scrape() {
        let worker = WorkerId(0);
        let route = RouteMetrics::new(1, &REASONS);
        route.record(worker, &request(&Method::GET, 200));
        route.record(worker, &RequestRecord { listener: 9, error: Some(0), ..request(&Method::POST, 404) });
        let upstream = UpstreamMetrics::new(1);
        upstream.record(worker, AttemptOutcome::FirstFailed);
        upstream.record(worker, AttemptOutcome::RetryOk);
        let backend = BackendMetrics::new(1);
        backend.record(worker, 200, Duration::from_micros(2_500));
        backend.record(worker, 503, Duration::from_secs(61));
        let listener = ListenerMetrics::new(1, &CLOSED);
        (0..2).for_each(|_| listener.accepted(worker));
        listener.closed(worker, 0);
        listener.request_started(worker);

        for format in [Format::OpenMetrics, Format::Text] {
            let mut out = Exposition::new(format);
            listener.expose(&mut out, "web");
            route.expose(&mut out, "orders", |listener| (listener == 0).then_some("web"));
            upstream.expose(&mut out, "orders");
            backend.expose(&mut out, "orders", "10.0.1.11:9001");
            insta::assert_snapshot!(out.finish());
        }
    }

    #[test]
    fn the_gateway_tells_of_itself() {
        let (queue, _events) = std::sync::mpsc::sync_channel(1);
        let panics = Counter::new(1);
        panics.add(WorkerId(0), 2);
        let mut out = Exposition::new(Format::Text);
        expose_gateway(&mut out, &panics, None, &Events::new(queue));
        let text = out.finish();
        assert!(text.contains("\ntidegate_panics_total 2\n"), "{text}");
        assert!(text.contains(concat!("\ntidegate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
        assert!(text.contains("\ntidegate_events_lost_total 0\n"), "{text}");
        assert!(!text.contains("access_log"), "{text}");
        if std::path::Path::new("/proc/self/stat").exists() {
            let value = |name: &str| -> f64 {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
            };
            assert!(value("process_resident_memory_bytes") > 1e5 && value("process_open_fds") >= 3.0, "{text}");
        }
    }
}
