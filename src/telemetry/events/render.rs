//! An event as a line of text for people, or as a line of JSON for machines. Both use the same words.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    net::IpAddr,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use serde::{Deserialize, Serialize};

use super::Event;
use crate::{
    base::{Timestamp, duration::Elapsed},
    config::plan::LogLevel,
    telemetry::escape::{Printable, finish_json},
};

/// Renders text lines, and remembers how wide the names were, so that columns stay in line.
#[derive(Debug, Default)]
pub struct TextRenderer {
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
    #[must_use]
    pub fn render(&mut self, line: &Line<'_>) -> String {
        let mut out = String::new();
        self.write(&mut out, line).expect("writing to a String does not fail");
        out
    }

    fn write(&mut self, out: &mut String, line: &Line<'_>) -> fmt::Result {
        let (word, style) = word(&line.event);
        let word = Printable(word).to_string();
        let gap = if word.len() > WORD_WIDTH { "  " } else { " " };
        write!(out, "{QUIET}{}{QUIET:#}  {style}{word:<WORD_WIDTH$}{style:#}{gap}", line.ts.clock_time())?;
        let start = INDENT + word.len().max(WORD_WIDTH) + gap.len();
        match &line.event {
            Fields::Backend { upstream, backend, from, to, detail, lasted_s, eligible, total, .. } => {
                let upstream = self.upstream(upstream);
                let backend = self.backend(backend);
                let mut text = format!("{upstream}  {backend}   {}", Printable(detail));
                let is_back = *to == "up" && *from != "checking";
                if let Some(lasted) = lasted_s.filter(|_| is_back) {
                    write!(text, ", was {} {}", Printable(from), Elapsed(lasted.duration()))?;
                }
                let left = match (&**from, &**to) {
                    ("checking", "up") => String::new(),
                    (_, "down" | "ejected" | "draining") => format!("{eligible} of {total} left"),
                    _ => format!("{eligible} of {total}"),
                };
                write_with_tail(out, start, &text, &left)?;
            }
            Fields::Api { api, version, from, to, detail } => {
                let (api, version) = (Printable(api), Printable(version));
                let text = format!("{api}  version {version}   {}", Printable(detail));
                write_with_tail(out, start, &text, &format!("{} > {}", Printable(from), Printable(to)))?;
            }
            Fields::Client { listener, client, reason, detail, more } => {
                let text =
                    format!("{client} at {}   {}: {}", Printable(listener), Printable(reason), Printable(detail));
                let tail = if *more == 0 { String::new() } else { format!("{more} more before") };
                write_with_tail(out, start, &text, &tail)?;
            }
            Fields::Reload { generation, detail, by } => {
                let text = format!("gen {generation}  {}", Printable(detail));
                write_with_tail(out, start, &text, &format!("by {}", Printable(by)))?;
            }
            Fields::Refused { file, generation, errors, findings, .. } => {
                let s = if *errors == 1 { "" } else { "s" };
                let file = Printable(file);
                writeln!(out, "edit to {file}: {errors} error{s}. Still serving gen {generation}.")?;
                for finding in &**findings {
                    writeln!(out, "{:INDENT$}{}", "", Printable(finding))?;
                }
            }
            Fields::Process { detail, .. } => writeln!(out, "{}", Printable(detail))?,
            Fields::Warning { reason, detail } => writeln!(out, "{}: {}", Printable(reason), Printable(detail))?,
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
fn word<'a>(event: &'a Fields<'_>) -> (&'a str, Style) {
    match event {
        Fields::Backend { to, .. } => match &**to {
            "up" => ("up", GOOD),
            "down" => ("down", BAD),
            "draining" => ("drain", CAUTION),
            to => (to, CAUTION),
        },
        Fields::Api { .. } => ("api", CAUTION),
        Fields::Client { .. } => ("client", QUIET),
        Fields::Reload { .. } => ("reload", NEWS),
        Fields::Refused { .. } => ("REFUSED", BAD),
        Fields::Process { stage, .. } => (stage, NEWS),
        Fields::Warning { .. } => ("warn", CAUTION),
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

/// An event as it is told: what a line of JSON says, and what a line of text is made of, wherever that is printed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line<'a> {
    ts: Timestamp,
    level: Cow<'a, str>,
    #[serde(flatten)]
    event: Fields<'a>,
}

impl<'a> Line<'a> {
    pub(super) fn of(at: Timestamp, event: &'a Event) -> Self {
        Self { ts: at, level: level(event.level()).into(), event: Fields::of(event) }
    }

    /// As an object of JSON, without a line feed.
    #[must_use]
    pub fn json(&self) -> String {
        finish_json(serde_json::to_string(self).unwrap_or_default())
    }
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Fields<'a> {
    Backend {
        upstream: Cow<'a, str>,
        backend: Cow<'a, str>,
        from: Cow<'a, str>,
        to: Cow<'a, str>,
        source: Cow<'a, str>,
        reason: Cow<'a, str>,
        detail: Cow<'a, str>,
        // The text has it in its detail, where there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        check: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasted_s: Option<Seconds>,
        eligible: usize,
        total: usize,
        generation: u64,
    },
    Api {
        api: Cow<'a, str>,
        version: Cow<'a, str>,
        from: Cow<'a, str>,
        to: Cow<'a, str>,
        detail: Cow<'a, str>,
    },
    Client {
        listener: Cow<'a, str>,
        client: IpAddr,
        reason: Cow<'a, str>,
        detail: Cow<'a, str>,
        more: u64,
    },
    Reload {
        generation: u64,
        detail: Cow<'a, str>,
        by: Cow<'a, str>,
    },
    Refused {
        generation: u64,
        file: Cow<'a, str>,
        errors: usize,
        findings: Cow<'a, [String]>,
        by: Cow<'a, str>,
    },
    Process {
        stage: Cow<'a, str>,
        detail: Cow<'a, str>,
    },
    Warning {
        reason: Cow<'a, str>,
        detail: Cow<'a, str>,
    },
}

// To the millisecond.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(transparent)]
struct Seconds(f64);

impl Seconds {
    fn of(duration: Duration) -> Self {
        Self(duration.as_millis() as f64 / 1e3)
    }

    fn duration(self) -> Duration {
        Duration::from_millis((self.0 * 1e3).round() as u64)
    }
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
                check,
                lasted,
                eligible,
                total,
                generation,
            } => Self::Backend {
                upstream: upstream.as_str().into(),
                backend: backend.as_str().into(),
                from: (*from).into(),
                to: (*to).into(),
                source: (*source).into(),
                reason: (*reason).into(),
                detail: detail.into(),
                check: check.as_ref().map(|check| check.as_str().into()),
                lasted_s: lasted.map(Seconds::of),
                eligible: *eligible,
                total: *total,
                generation: *generation,
            },
            Event::Api { api, version, from, to, detail } => Self::Api {
                api: api.as_str().into(),
                version: version.into(),
                from: (*from).into(),
                to: (*to).into(),
                detail: detail.into(),
            },
            Event::Client { listener, peer, reason, detail, more } => Self::Client {
                listener: listener.as_str().into(),
                client: *peer,
                reason: (*reason).into(),
                detail: detail.into(),
                more: *more,
            },
            Event::Reloaded { generation, summary, by } => {
                Self::Reload { generation: *generation, detail: summary.into(), by: (*by).into() }
            }
            Event::Refused { file, generation, errors, findings, by } => Self::Refused {
                generation: *generation,
                file: file.into(),
                errors: *errors,
                findings: findings.into(),
                by: (*by).into(),
            },
            Event::Process { stage, detail } => Self::Process { stage: (*stage).into(), detail: detail.into() },
            Event::Warning { what, detail } => Self::Warning { reason: (*what).into(), detail: detail.into() },
        }
    }
}
