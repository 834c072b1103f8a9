use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Condvar, atomic::Ordering::SeqCst, mpsc},
};

use proptest::prelude::*;

use super::*;
use crate::{base::Timestamp, telemetry::events::Event};

const LONG: Duration = Duration::from_secs(60);

// A destination that can be held up and made to fail.
#[derive(Clone, Default)]
struct Disk(Arc<(Mutex<DiskState>, Condvar)>);

#[derive(Default)]
struct DiskState {
    written: Vec<u8>,
    is_blocked: bool,
    // For the next writes: how many bytes to take, or to fail. Empty: takes all.
    script: VecDeque<Option<usize>>,
}

impl Disk {
    fn set_blocked(&self, is_blocked: bool) {
        self.0.0.lock().unwrap().is_blocked = is_blocked;
        self.0.1.notify_all();
    }

    fn script(self, script: impl IntoIterator<Item = Option<usize>>) -> Self {
        self.0.0.lock().unwrap().script.extend(script);
        self
    }

    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.0.lock().unwrap().written.clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), |state| state.is_blocked).unwrap();
        let taken = state.script.pop_front().unwrap_or(Some(bytes.len())).ok_or(io::ErrorKind::StorageFull)?;
        let taken = taken.min(bytes.len());
        state.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(disk: &Disk) -> (AccessLog, mpsc::Receiver<(Timestamp, Event)>) {
    let (queue, events) = sync_channel(16);
    let sink = Sink(Box::new(disk.clone()));
    (AccessLog::start_with(sink, Destination::Stdout, Events::new(queue)).unwrap(), events)
}

fn record(path: &[u8]) -> AccessRecord<'_> {
    AccessRecord {
        at: Timestamp::from_micros(1_795_349_071_000_042),
        request_id: "01J9",
        listener: "web",
        client: SocketAddr::from(([192, 0, 2, 7], 51_234)),
        method: "GET",
        host: Some(b"api.example.com"),
        path,
        query: None,
        protocol: "HTTP/1.1",
        route: None,
        upstream: None,
        backend: None,
        status: Some(404),
        grpc_status: Some(12),
        reason: Some("no_route"),
        attempts: &[],
        bytes_in: 0,
        bytes_out: 9,
        duration: Duration::from_micros(1_234),
        first_byte: None,
        limit: None,
        identity: None,
        user_agent: None,
        referer: None,
    }
}

#[test]
fn a_line_tells_what_an_operator_needs() {
    let attempts = [
        Attempt {
            backend: "10.0.1.11:9001",
            outcome: "tls_error",
            detail: Some("its certificate has expired"),
            took: Duration::from_micros(85),
        },
        Attempt { backend: "big", outcome: "ok", detail: None, took: Duration::from_millis(12) },
    ];
    let full = AccessRecord {
        at: Timestamp::from_micros(1_795_349_072_999_999),
        query: Some(b"page=2"),
        route: Some("orders"),
        upstream: Some("orders"),
        backend: Some("big"),
        status: Some(200),
        grpc_status: None,
        reason: None,
        attempts: &attempts,
        bytes_in: 17,
        first_byte: Some(Duration::from_micros(12_090)),
        limit: Some("allow"),
        identity: Some(b"partner"),
        user_agent: Some(b"curl/8.5 \"quoted\" \x1b[2J"),
        referer: Some(b"https://example.com/\xff"),
        ..record(b"/orders/42")
    };
    let mut formatter = Formatter::default();
    let mut out = Vec::new();
    formatter.push_line(&mut out, &record(b"/x"));
    formatter.push_line(&mut out, &full);
    formatter.push_line(&mut out, &AccessRecord { status: None, reason: Some("client_gone"), ..record(b"/x") });
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

proptest! {
    #[test]
    fn every_line_parses_back(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 7),
        at in 0u64..4_000_000_000_000_000,
        micros in any::<u32>(),
    ) {
        let [host, path, query, identity, user_agent, referer, backend] = &texts[..] else { unreachable!() };
        let backend = String::from_utf8_lossy(backend);
        let attempts = [Attempt { backend: &backend, outcome: "ok", detail: None, took: Duration::from_micros(micros.into()) }; 20];
        let record = AccessRecord {
            at: Timestamp::from_micros(at),
            host: Some(host),
            query: Some(query),
            identity: Some(identity),
            user_agent: Some(user_agent),
            referer: Some(referer),
            backend: Some(&backend),
            attempts: &attempts,
            ..record(path)
        };
        let mut out = Vec::new();
        Formatter::default().push_line(&mut out, &record);
        let line = String::from_utf8(out).unwrap();
        prop_assert_eq!(line.matches(char::is_control).collect::<String>(), "\n");
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (field, bytes) in [
            ("host", host), ("path", path), ("query", query), ("identity", identity), ("user_agent", user_agent),
            ("referer", referer),
        ] {
            prop_assert_eq!(parsed[field].as_str().unwrap(), String::from_utf8_lossy(bytes));
        }
        prop_assert_eq!(parsed["ts"].as_str().unwrap(), Timestamp::from_micros(at).to_string());
        prop_assert_eq!(parsed["attempts"].as_array().unwrap().len(), 16);
        prop_assert_eq!(parsed["attempts"][0]["ms"].as_f64().unwrap(), f64::from(micros) / 1e3);
    }

    // Whatever fails and however short the writes are: what was counted as written is there, whole.
    #[test]
    fn counts_exactly_the_lines_that_arrived(
        batches in prop::collection::vec(1usize..6, 1..12),
        script in prop::collection::vec(prop::option::weighted(0.7, 1usize..900), 0..20),
    ) {
        let disk = Disk::default().script(script);
        let (log, _events) = start(&disk);
        let mut buffer = log.buffer();
        for lines in &batches {
            (0..*lines).for_each(|_| buffer.record(&record(b"/x")));
            buffer.flush();
        }
        drop(buffer);
        prop_assert!(log.close(LONG));
        let total: usize = batches.iter().sum();
        prop_assert_eq!(log.lines() + log.dropped(), total as u64);
        let mut expected = Vec::new();
        Formatter::default().push_line(&mut expected, &record(b"/x"));
        let expected = String::from_utf8(expected).unwrap();
        // A line whose line feed alone failed is whole by luck; it counts as dropped.
        let whole = disk.lines().iter().filter(|line| **line == expected.trim_end()).count() as u64;
        let torn = disk.lines().iter().filter(|line| expected.starts_with(line.as_str())).count() as u64;
        prop_assert!(log.lines() <= whole && torn == disk.lines().len() as u64, "{} of {whole}", log.lines());
    }
}

#[test]
fn a_huge_field_is_cut() {
    let path = vec![b'a'; 100_000];
    let mut out = Vec::new();
    Formatter::default().push_line(&mut out, &record(&path));
    assert!(out.len() < 2048 + 400, "{}", out.len());
    let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(parsed["path"].as_str().unwrap().ends_with("aa…"));
}

#[test]
fn every_workers_lines_arrive_whole() {
    let disk = Disk::default();
    let (log, _events) = start(&disk);
    thread::scope(|scope| {
        for worker in 0..4 {
            let mut buffer = log.buffer();
            scope.spawn(move || {
                for n in 0..2_000 {
                    buffer.record(&record(format!("/{worker}/{n}").as_bytes()));
                }
            });
        }
    });
    assert!(log.close(LONG));
    assert_eq!(log.lines() + log.dropped(), 8_000);
    assert_eq!(log.lines(), disk.lines().len() as u64);
    for line in disk.lines() {
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }
}

#[test]
fn a_blocked_destination_costs_lines_and_no_time() {
    let disk = Disk::default();
    let (log, _events) = start(&disk);
    disk.set_blocked(true);
    let mut buffer = log.buffer();
    let total = 60_000;
    (0..total).for_each(|_| buffer.record(&record(b"/some/path/of/usual/length")));
    drop(buffer);
    assert!(log.dropped() > 0, "the queue must have been full");
    disk.set_blocked(false);
    assert!(log.close(LONG));
    assert_eq!(log.lines() + log.dropped(), total);
    assert_eq!(log.lines(), disk.lines().len() as u64);
}

#[test]
fn a_close_that_times_out_counts_the_rest_as_dropped() {
    let disk = Disk::default();
    let (log, _events) = start(&disk);
    let mut buffer = log.buffer();
    buffer.record(&record(b"/1"));
    buffer.flush();
    while log.lines() < 1 {
        thread::yield_now();
    }
    disk.set_blocked(true);
    (0..5).for_each(|_| {
        buffer.record(&record(b"/2"));
        buffer.flush();
    });
    assert!(!log.close(Duration::from_millis(5)));
    assert_eq!((log.lines(), log.dropped()), (1, 5));
    buffer.record(&record(b"/too-late"));
    drop(buffer);
    assert_eq!((log.lines(), log.dropped()), (1, 6));
    disk.set_blocked(false);
    assert_eq!(log.lines() + log.dropped(), 7);
}

#[test]
fn lines_recorded_after_a_close_are_dropped_and_counted() {
    let disk = Disk::default();
    let (log, _events) = start(&disk);
    let mut buffer = log.buffer();
    buffer.record(&record(b"/1"));
    assert!(log.close(LONG));
    drop(buffer);
    assert_eq!((log.lines(), log.dropped()), (0, 1));
}

#[test]
fn a_failing_destination_is_told_once_and_its_recovery_too() {
    let disk = Disk::default().script([None, None, Some(300), None]);
    let (log, events) = start(&disk);
    let mut buffer = log.buffer();
    // Fails twice; is torn within its second line; is whole.
    for lines in [1, 1, 3, 1] {
        (0..lines).for_each(|_| buffer.record(&record(b"/x")));
        buffer.flush();
    }
    drop(buffer);
    assert!(log.close(LONG));
    assert_eq!((log.lines(), log.dropped()), (2, 4));
    let lines = disk.lines();
    assert_eq!(lines.len(), 3, "the torn line ends where the next begins: {lines:?}");
    assert!(lines[0] == lines[2] && lines[0].starts_with(&lines[1]), "{lines:?}");
    let told: Vec<_> = events.try_iter().map(|(_, event)| event).collect();
    assert!(
        matches!(&told[..], [Event::Warning { what: "access_log", detail }, Event::Warning { detail: again, .. }]
            if detail.starts_with("lines are lost: ") && again == "is written again"),
        "{told:?}"
    );
}

#[test]
fn a_waiting_line_is_handed_over_after_a_second() {
    let disk = Disk::default();
    let (log, _events) = start(&disk);
    let mut buffer = log.buffer();
    let begin = Instant::now();
    buffer.flush_if_due(begin + LONG);
    buffer.record(&record(b"/x"));
    buffer.flush_if_due(begin + LONG + DUE / 2);
    assert_eq!(log.shared.handed.load(SeqCst), 0);
    buffer.flush_if_due(begin + LONG + DUE);
    assert_eq!(log.shared.handed.load(SeqCst), 1);
}

#[test]
fn buffers_come_back() {
    let disk = Disk::default();
    let (log, _events) = start(&disk);
    let mut buffer = log.buffer();
    buffer.record(&record(b"/x"));
    let address = buffer.bytes.as_ptr();
    buffer.flush();
    let back = buffer.spare.recv_timeout(LONG).unwrap();
    assert!(back.is_empty() && back.as_ptr() == address && back.capacity() >= FULL);
}

#[test]
fn a_file_is_appended_to_and_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    std::fs::write(&path, "before\n").unwrap();
    let (queue, _events) = sync_channel(1);
    let plan = plan::AccessLog { to: Destination::File(path.clone()) };
    let log = AccessLog::start(&plan, Events::new(queue)).unwrap();
    let mut buffer = log.buffer();
    buffer.record(&record(b"/1"));
    buffer.flush();
    while log.lines() < 1 {
        thread::yield_now();
    }
    std::fs::rename(&path, &rotated).unwrap();
    log.reopen().unwrap();
    buffer.record(&record(b"/2"));
    drop(buffer);
    assert!(log.close(LONG));
    let (old, new) = (std::fs::read_to_string(rotated).unwrap(), std::fs::read_to_string(path).unwrap());
    assert!(old.starts_with("before\n") && old.contains("\"/1\"") && old.lines().count() == 2, "{old}");
    assert!(new.contains("\"/2\"") && new.lines().count() == 1, "{new}");
    let nowhere = plan::AccessLog { to: Destination::File(folder.path().join("no/such/folder/log")) };
    assert!(log.redirect(&nowhere).is_err());
}
