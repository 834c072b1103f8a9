use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use anstream::ColorChoice;

use super::*;
use crate::config::plan::LogFormat;

const LONG: Duration = Duration::from_secs(60);

// What a log wrote, and a gate that can hold it up.
#[derive(Clone, Default)]
struct Terminal(Arc<(Mutex<Contents>, Condvar)>);

#[derive(Default)]
struct Contents {
    text: Vec<u8>,
    writes: usize,
    is_blocked: bool,
    is_waiting: bool,
}

impl Terminal {
    fn set_blocked(&self, is_blocked: bool) {
        self.0.0.lock().unwrap().is_blocked = is_blocked;
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().text.clone()).unwrap()
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut contents = self.0.0.lock().unwrap();
        contents.is_waiting = contents.is_blocked;
        let mut contents = self.0.1.wait_while(contents, |contents| contents.is_blocked).unwrap();
        contents.text.extend_from_slice(bytes);
        contents.writes += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(format: LogFormat, level: LogLevel) -> (Terminal, EventLog, Events) {
    let terminal = Terminal::default();
    let (log, events) = EventLog::start(format, level, Sink::writer(terminal.clone(), ColorChoice::Never)).unwrap();
    (terminal, log, events)
}

fn stopped() -> Event {
    Event::Process { stage: "stopped", detail: "nothing was cut".into() }
}

fn warning(detail: &str) -> Event {
    Event::Warning { what: "accept_failed", detail: detail.into() }
}

fn backend(backend: &str, change: [&'static str; 2], reason: &'static str, detail: &str) -> Event {
    Event::Backend {
        upstream: Name::derived("/*"),
        backend: Name::derived(backend),
        from: change[0],
        to: change[1],
        source: "active",
        reason,
        detail: detail.into(),
        check: matches!(change[1], "up" | "down").then(|| Name::derived("http /healthz")),
        lasted: (change[0] != "checking").then_some(Duration::from_millis(21_400)),
        eligible: 1,
        total: 2,
        generation: 7,
    }
}

fn every_event() -> Vec<Event> {
    vec![
        backend("127.0.0.1:9001", ["checking", "up"], "passed", "probe 200 in 3 ms"),
        backend("127.0.0.1:9002", ["checking", "down"], "connect_refused", "connect refused"),
        backend("127.0.0.1:9002", ["down", "up"], "passed", "2 good probes"),
        backend("big", ["up", "degraded"], "degraded", "says it is degraded"),
        backend("big", ["degraded", "ejected"], "consecutive_5xx", "5 of 5 responses were 5xx"),
        backend(
            "big",
            ["ejected", "draining"],
            "operator",
            "drained by an operator, with a reason longer than its column",
        ),
        Event::Api {
            api: Name::derived("orders-v1"),
            version: "1".into(),
            from: "deprecated",
            to: "retired",
            detail: "its date `sunset` has come; 2 callers are known".into(),
        },
        Event::Reloaded { generation: 2, summary: "+1 route, ~1 upstream   nothing dropped".into(), by: "file watch" },
        Event::Refused {
            file: "tidegate.yaml".into(),
            generation: 2,
            errors: 1,
            findings: vec![
                "error[E0301]: route `orders` sends to `order`, which is not an upstream   tidegate.yaml:9:9".into(),
            ],
            by: "file watch",
        },
        Event::Refused {
            file: "tidegate.yaml".into(),
            generation: 2,
            errors: 2,
            findings: vec!["error[E0201]: unknown field `a`".into(), "error[E0201]: unknown field `b`".into()],
            by: "SIGHUP",
        },
        Event::Process { stage: "draining", detail: "14 requests in flight, up to 30s".into() },
        warning("too many open files"),
        warning("forged\n12:00:00  up      all \u{1b}[2J is \u{9b}1m well \u{202e}"),
    ]
}

// 2026-11-22T12:04:31.5Z
const AT: Timestamp = Timestamp::from_micros(1_795_349_071_500_000);

#[test]
fn the_log_can_be_shared() {
    fn is_shareable<T: Send + Sync>() {}
    is_shareable::<EventLog>();
    is_shareable::<crate::telemetry::AccessLog>();
    is_shareable::<crate::telemetry::metrics::RouteMetrics>();
}

#[test]
fn every_event_as_text() {
    let mut renderer = TextRenderer::default();
    let styled: String = every_event().iter().map(|event| renderer.render(&Line::of(AT, event))).collect();
    insta::assert_snapshot!(anstream::adapter::strip_str(&styled));
}

#[test]
fn every_event_as_json() {
    let lines: Vec<_> = every_event().iter().map(|event| Line::of(AT, event).json()).collect();
    for line in &lines {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(parsed["level"].is_string() && parsed["event"].is_string(), "{line}");
        assert!(!line.contains(char::is_control), "{line}");
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_read_back_from_json_is_told_in_the_same_words() {
    let (mut here, mut there) = (TextRenderer::default(), TextRenderer::default());
    for event in every_event() {
        let json = Line::of(AT, &event).json();
        let read: Line<'_> = serde_json::from_str(&json).unwrap();
        assert_eq!(read.json(), json);
        assert_eq!(there.render(&read), here.render(&Line::of(AT, &event)));
    }
}

#[tokio::test]
async fn a_reader_is_woken_by_the_next_event_and_finds_it() {
    let (_, log, events) = start(LogFormat::Json, LogLevel::Error);
    let mut newest = log.newest();
    for n in 1..=3 {
        events.emit(warning("x"));
        newest.wait_for(|newest| *newest >= n).await.unwrap();
        assert_eq!(log.since(n - 1)[0].sequence, n);
    }
}

#[test]
fn colours_say_nothing_that_the_words_do_not() {
    let mut renderer = TextRenderer::default();
    let styled = renderer.render(&Line::of(AT, &every_event()[1]));
    insta::assert_snapshot!(styled.escape_debug());
}

#[test]
fn columns_follow_the_widest_name() {
    let mut renderer = TextRenderer::default();
    let events = [("a", "probe 200 in 3 ms"), ("a-longer-name", "x"), ("a", "y")];
    let back = |name, detail| backend(name, ["down", "up"], "passed", detail);
    let lines = events.map(|(name, detail)| renderer.render(&Line::of(AT, &back(name, detail))));
    let column = |line: &str, part: &str| anstream::adapter::strip_str(line).to_string().find(part).unwrap();
    assert_eq!(column(&lines[1], "x, was"), column(&lines[2], "y, was"));
    assert!(lines.iter().all(|line| column(line, "1 of 2") == 72), "{lines:?}");
}

#[test]
fn an_event_is_one_write_with_colours_and_without() {
    for (format, color) in [
        (LogFormat::Text, ColorChoice::Always),
        (LogFormat::Text, ColorChoice::Never),
        (LogFormat::Json, ColorChoice::Never),
    ] {
        let terminal = Terminal::default();
        let sink = Sink::writer(terminal.clone(), color);
        let (log, events) = EventLog::start(format, LogLevel::Info, sink).unwrap();
        every_event().into_iter().for_each(|event| events.emit(event));
        assert!(log.close(stopped(), LONG));
        assert_eq!(terminal.0.0.lock().unwrap().writes, every_event().len() + 1, "{format:?} {color:?}");
        assert_eq!(terminal.text().contains('\u{1b}'), color == ColorChoice::Always, "{}", terminal.text());
    }
}

#[test]
fn close_writes_everything_and_the_last_event() {
    for count in [0, 1, 100] {
        let (terminal, log, events) = start(LogFormat::Text, LogLevel::Info);
        (0..count).for_each(|n| events.emit(warning(&n.to_string())));
        assert!(log.close(stopped(), LONG));
        assert_eq!(terminal.text().lines().count(), count + 1);
        assert!(terminal.text().ends_with("stopped nothing was cut\n"), "{}", terminal.text());
        assert_eq!(events.lost(), 0);
    }
}

#[test]
fn a_blocked_terminal_holds_up_nobody() {
    let (terminal, log, events) = start(LogFormat::Text, LogLevel::Info);
    terminal.set_blocked(true);
    events.emit(warning("holds up the writer"));
    while !terminal.0.0.lock().unwrap().is_waiting {
        std::thread::yield_now();
    }
    (0..5000).for_each(|n| events.emit(warning(&n.to_string())));
    let lost = 5000 - 4096;
    assert_eq!(events.lost(), lost);
    assert!(!log.close(stopped(), Duration::from_millis(5)), "it closes, and says that lines are missing");
    assert_eq!(events.lost(), lost + 1, "the last event found no place either");
    terminal.set_blocked(false);
}

#[test]
fn level_and_form_may_change_while_it_runs() {
    let (terminal, log, events) = start(LogFormat::Auto, LogLevel::Error);
    let wait_for = |count: u64| {
        while log.recent().len() < count as usize {
            std::thread::yield_now();
        }
    };
    events.emit(warning("not said"));
    wait_for(1);
    log.set_level(LogLevel::Warn);
    events.emit(warning("said as JSON"));
    wait_for(2);
    log.set_format(LogFormat::Text);
    events.emit(warning("said as text"));
    wait_for(3);
    assert!(log.close(stopped(), LONG), "an event below the level still stops the writer");
    let text = terminal.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with('{') && lines[0].contains("said as JSON"), "{text}");
    assert!(lines[1].ends_with("warn    accept_failed: said as text"), "{text}");
}

#[test]
fn the_last_500_stay_readable_at_any_level() {
    let (_, log, events) = start(LogFormat::Json, LogLevel::Error);
    (1..=600).for_each(|n| events.emit(warning(&n.to_string())));
    while log.since(599).is_empty() {
        std::thread::yield_now();
    }
    let recent = log.recent();
    assert_eq!(recent.iter().map(|recorded| recorded.sequence).collect::<Vec<_>>(), (101..=600).collect::<Vec<_>>());
    assert_eq!(recent[0].event, warning("101"));
    assert_eq!(log.since(598).len(), 2);
    assert!(log.since(600).is_empty());
    assert!(recent[0].json().contains(r#""event":"warning","reason":"accept_failed","detail":"101""#));
}
