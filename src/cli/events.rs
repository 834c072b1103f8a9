//! `tidegate events`: what has happened, in the words of the log, and what happens.

use std::{
    io::{self, BufRead, Write},
    thread::sleep,
    time::Duration,
};

use super::{
    ask::{Gateway, Unanswered, encoded},
    print::eprint,
    status::Form,
};
use crate::telemetry::{
    Printable,
    events::{Line, TextRenderer},
};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventsQuery<'a> {
    /// From when on: RFC 3339, or how long ago.
    pub(super) since: Option<&'a str>,
    /// Whether to go on with what comes.
    pub(super) follow: bool,
    /// How they are shown.
    pub(super) form: Form,
}

/// Between two attempts to reach a gateway that has gone away.
const RETRY: Duration = Duration::from_secs(1);

/// The longest line that is read: a refused edit with all its findings.
const LONGEST: u64 = 8 * 1024 * 1024;

/// Shows events. Returns the exit code; following, only where it has to give up.
///
/// # Errors
/// No answer, or the output is gone.
pub(super) fn events(gateway: &Gateway, query: &EventsQuery<'_>, out: &mut dyn Write) -> Result<u8, Unanswered> {
    let path = match query.since {
        Some(since) => format!("/api/v1/events?since={}", encoded(since)),
        None => "/api/v1/events".to_owned(),
    };
    let mut teller = Teller { form: query.form, text: TextRenderer::default(), seen: None };
    if query.follow {
        return teller.follow(gateway, &path, out);
    }
    let answer = gateway.get(&path, "application/x-ndjson")?;
    for line in String::from_utf8_lossy(&answer).lines() {
        teller.tell(line, out)?;
    }
    out.flush().map(|()| 0).map_err(Unanswered::Output)
}

/// Tells of events, and remembers how far it has come.
struct Teller {
    form: Form,
    text: TextRenderer,
    seen: Option<String>,
}

impl Teller {
    fn follow(&mut self, gateway: &Gateway, path: &str, out: &mut dyn Write) -> Result<u8, Unanswered> {
        self.read(gateway.stream(path, None)?, out)?;
        loop {
            eprint(format_args!("{} has ended the stream: trying to reach it again\n", gateway.admin()));
            let stream = loop {
                sleep(RETRY);
                match gateway.stream(path, self.seen.as_deref()) {
                    Err(Unanswered::Unreachable { .. }) => {}
                    stream => break stream?,
                }
            };
            eprint(format_args!("{} answers again\n", gateway.admin()));
            self.read(stream, out)?;
        }
    }

    /// Reads a stream of events (HTML, section 9.2.6) to its end, however that comes about.
    fn read(&mut self, mut stream: impl BufRead, out: &mut dyn Write) -> Result<(), Unanswered> {
        let mut line = Vec::new();
        loop {
            line.clear();
            match io::Read::take(&mut stream, LONGEST).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            match text.trim_end().split_once(": ") {
                Some(("id", id)) if !id.contains(char::is_control) => self.seen = Some(id.to_owned()),
                Some(("data", json)) => {
                    self.tell(json, out)?;
                    out.flush().map_err(Unanswered::Output)?;
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, json: &str, out: &mut dyn Write) -> Result<(), Unanswered> {
        let told = match (self.form, serde_json::from_str::<Line<'_>>(json)) {
            (Form::Table, Ok(line)) => self.text.render(&line),
            // Or it is of a kind that this version does not know.
            (Form::Json, _) | (Form::Table, Err(_)) => format!("{}\n", Printable(json)),
        };
        out.write_all(told.as_bytes()).map_err(Unanswered::Output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": \n\nid: 7-1\ndata: {\"ts\":\"2026-11-22T12:04:31.500000Z\",\"level\":\"info\",\"event\":\"process\",\
                          \"stage\":\"ready\",\"detail\":\"gen 1\"}\n\nid: 7-2\ndata: {\"event\":\"of a later version\"}\n\n";

    fn told(form: Form) -> (String, Option<String>) {
        let mut teller = Teller { form, text: TextRenderer::default(), seen: None };
        let mut out = Vec::new();
        teller.read(STREAM.as_bytes(), &mut out).unwrap();
        (anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string(), teller.seen)
    }

    #[test]
    fn a_stream_is_told_in_the_words_of_the_log() {
        let (text, seen) = told(Form::Table);
        assert_eq!(text, "12:04:31  ready   gen 1\n{\"event\":\"of a later version\"}\n");
        assert_eq!(seen.as_deref(), Some("7-2"));
    }

    #[test]
    fn as_json_it_is_what_the_gateway_sends() {
        let (text, _) = told(Form::Json);
        let sent: String =
            STREAM.lines().filter_map(|line| line.strip_prefix("data: ")).map(|l| format!("{l}\n")).collect();
        assert_eq!(text, sent);
    }
}
