//! An event as a line of text for people, or as a line of JSON for machines. Both use the same words.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::Event;
use crate::{
    base::{Timestamp, duration::Elapsed},
    config::plan::LogLevel,
    telemetry::escape::{Printable, finish_json},
};

/// Renders text lines, and remembers how wide the names were, so that columns stay in line.
#[derive(Debug, Default)]
pub(super) struct TextRenderer {
    upstream_width: usize,
    backend_width: usize,
}

// The column at which the last part of a line starts: how many are left, who asked.
const TAIL_COLUMN: usize = 72;
// `12:04:31  `: where the word of a line starts, and where its continuation lines are indented to.
const INDENT: usize = 10;
// Longer words are rare, and push the text of their line to the right.
const WORD_WIDTH: usize = 7;
// A single long name must not push every later line off the screen.
const WIDEST_NAME: usize = 40;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const CAUTION: Style = AnsiColor::Yellow.on_default();
const NEWS: Style = AnsiColor::Blue.on_default();
const QUIET: Style = Style::new().dimmed();

impl TextRenderer {
    /// One line or, for a refused edit, several; each ends with a line feed. Styles are for the stream to keep or strip.
    pub(super) fn render(&mut self, at: Timestamp, event: &Event) -> String {
        let mut out = String::new();
        self.write(&mut out, at, event).expect("writing to a String does not fail");
        out
    }

    fn write(&mut self, out: &mut String, at: Timestamp, event: &Event) -> fmt::Result {
        let (word, style) = word(event);
        let gap = if word.len() > WORD_WIDTH { "  " } else { " " };
        write!(out, "{QUIET}{}{QUIET:#}  {style}{word:<WORD_WIDTH$}{style:#}{gap}", at.clock_time())?;
        let start = INDENT + word.len().max(WORD_WIDTH) + gap.len();
        match event {
            Event::Backend { upstream, backend, from, to, detail, lasted, eligible, total, .. } => {
                let upstream = self.upstream(upstream);
                let backend = self.backend(backend);
                let mut text = format!("{upstream}  {backend}   {}", Printable(detail));
                let is_back = *to == "up" && *from != "checking";
                if let Some(lasted) = lasted.filter(|_| is_back) {
                    write!(text, ", was {from} {}", Elapsed(lasted))?;
                }
                let left = match (*from, *to) {
                    ("checking", "up") => String::new(),
                    (_, "down" | "ejected" | "draining") => format!("{eligible} of {total} left"),
                    _ => format!("{eligible} of {total}"),
                };
                write_with_tail(out, start, &text, &left)?;
            }
            Event::Client { listener, peer, reason, detail, more } => {
                let text = format!("{peer} at {}   {reason}: {}", Printable(listener), Printable(detail));
                let tail = if *more == 0 { String::new() } else { format!("{more} more before") };
                write_with_tail(out, start, &text, &tail)?;
            }
            Event::Reloaded { generation, summary, by } => {
                let text = format!("gen {generation}  {}", Printable(summary));
                write_with_tail(out, start, &text, &format!("by {by}"))?;
            }
            Event::Refused { file, generation, errors, findings, .. } => {
                let s = if *errors == 1 { "" } else { "s" };
                let file = Printable(file);
                writeln!(out, "edit to {file}: {errors} error{s}. Still serving gen {generation}.")?;
                for finding in findings {
                    writeln!(out, "{:INDENT$}{}", "", Printable(finding))?;
                }
            }
            Event::Process { detail, .. } => writeln!(out, "{}", Printable(detail))?,
            Event::Warning { what, detail } => writeln!(out, "{what}: {}", Printable(detail))?,
        }
        Ok(())
    }

    fn upstream(&mut self, name: &str) -> String {
        padded(name, &mut self.upstream_width)
    }

    fn backend(&mut self, name: &str) -> String {
        padded(name, &mut self.backend_width)
    }
}

// The word that stands first; it alone says what the colour says.
fn word(event: &Event) -> (&str, Style) {
    match event {
        Event::Backend { to: "up", .. } => ("up", GOOD),
        Event::Backend { to: "down", .. } => ("down", BAD),
        Event::Backend { to: "draining", .. } => ("drain", CAUTION),
        Event::Backend { to, .. } => (to, CAUTION),
        Event::Client { .. } => ("client", QUIET),
        Event::Reloaded { .. } => ("reload", NEWS),
        Event::Refused { .. } => ("REFUSED", BAD),
        Event::Process { stage, .. } => (stage, NEWS),
        Event::Warning { .. } => ("warn", CAUTION),
    }
}

fn padded(name: &str, widest: &mut usize) -> String {
    let name = Printable(name).to_string();
    *widest = (*widest).max(name.chars().count().min(WIDEST_NAME));
    format!("{name:<0$}", *widest)
}

fn write_with_tail(out: &mut String, start: usize, text: &str, tail: &str) -> fmt::Result {
    if tail.is_empty() {
        return writeln!(out, "{}", text.trim_end());
    }
    // At least three spaces keep a long text and its tail apart.
    let width = TAIL_COLUMN.saturating_sub(start).max(text.chars().count() + 3);
    writeln!(out, "{text:<width$}{tail}")
}

/// An event as an object of JSON, without a line feed.
pub(super) fn json(at: Timestamp, event: &Event) -> String {
    let line = Line { ts: at, level: level(event.level()), event: Fields::of(event) };
    finish_json(serde_json::to_string(&line).unwrap_or_default())
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[derive(Serialize)]
struct Line<'a> {
    ts: Timestamp,
    level: &'static str,
    #[serde(flatten)]
    event: Fields<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Fields<'a> {
    Backend {
        upstream: &'a str,
        backend: &'a str,
        from: &'a str,
        to: &'a str,
        source: &'a str,
        reason: &'a str,
        detail: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        lasted_s: Option<f64>,
        eligible: usize,
        total: usize,
        generation: u64,
    },
    Client {
        listener: &'a str,
        client: IpAddr,
        reason: &'a str,
        detail: &'a str,
        more: u64,
    },
    Reload {
        generation: u64,
        detail: &'a str,
        by: &'a str,
    },
    Refused {
        generation: u64,
        file: &'a str,
        errors: usize,
        findings: &'a [String],
        by: &'a str,
    },
    Process {
        stage: &'a str,
        detail: &'a str,
    },
    Warning {
        reason: &'a str,
        detail: &'a str,
    },
}

impl<'a> Fields<'a> {
    fn of(event: &'a Event) -> Self {
        match event {
            Event::Backend {
                upstream,
                backend,
                from,
                to,
                source,
                reason,
                detail,
                lasted,
                eligible,
                total,
                generation,
            } => Self::Backend {
                upstream,
                backend,
                from,
                to,
                source,
                reason,
                detail,
                lasted_s: lasted.map(|lasted| lasted.as_millis() as f64 / 1e3),
                eligible: *eligible,
                total: *total,
                generation: *generation,
            },
            Event::Client { listener, peer, reason, detail, more } => {
                Self::Client { listener, client: *peer, reason, detail, more: *more }
            }
            Event::Reloaded { generation, summary, by } => {
                Self::Reload { generation: *generation, detail: summary, by }
            }
            Event::Refused { file, generation, errors, findings, by } => {
                Self::Refused { generation: *generation, file, errors: *errors, findings, by }
            }
            Event::Process { stage, detail } => Self::Process { stage, detail },
            Event::Warning { what, detail } => Self::Warning { reason: what, detail },
        }
    }
}
