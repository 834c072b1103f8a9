//! Health documents: what backends say of themselves in the body of an answer.
//!
//! One reader for all of them, because they differ in names alone: a `status`, and parts with a status of their own. It knows
//! `{ status, checks }` as gateways and services write it, application/health+json (draft-inadarei-api-health-check, with the
//! words of others that it lists), Spring Boot Actuator, ASP.NET Core and MicroProfile Health. The status of the whole
//! decides; a word that nobody knows says nothing.

use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::{Map, Value};

use super::{Failure, quoted};

/// What the body of an answer is, where it can be a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Media {
    Json,
    /// One word, as ASP.NET Core writes it where nobody says how to.
    Text,
}

impl Media {
    /// As much of a text as shows that it is none of the words.
    pub(super) const LONGEST_WORD: usize = "Unhealthy".len() + 1;

    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let written = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let media = written.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            "application/json" => Some(Self::Json),
            "text/plain" => Some(Self::Text),
            media if media.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }
}

/// What a word says, the worst last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Mood {
    Well,
    Degraded,
    Down,
}

impl Mood {
    fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "healthy" | "ok" | "pass" | "up" => Some(Self::Well),
            "degraded" | "warn" => Some(Self::Degraded),
            "down" | "error" | "fail" | "out_of_service" | "unhealthy" => Some(Self::Down),
            _ => None,
        }
    }
}

/// A document that says something of the whole.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Document {
    mood: Mood,
    word: String,
    /// The parts that are not well, the worst first.
    parts: Vec<Part>,
}

#[derive(Debug, Eq, PartialEq)]
struct Part {
    name: String,
    mood: Mood,
    word: String,
}

/// Parts that are named.
const NAMED: usize = 3;
/// Parts that are looked at, and how deep.
const MOST_PARTS: usize = 1_000;
const DEEPEST: usize = 4;
/// Of a word and of a name.
const QUOTED: usize = 40;

impl Document {
    pub(super) fn read(media: Media, body: &[u8]) -> Option<Self> {
        let value = match media {
            Media::Json => serde_json::from_slice::<Value>(without_mark(body)).ok()?,
            Media::Text => {
                let word = [b"Healthy".as_slice(), b"Degraded", b"Unhealthy"].into_iter().find(|word| *word == body)?;
                let word = String::from_utf8_lossy(word).into_owned();
                return Some(Self { mood: Mood::of(&word)?, word, parts: vec![] });
            }
        };
        let fields = value.as_object()?;
        let word = fields.get("status")?.as_str()?;
        let mut parts = vec![];
        within(fields, "", DEEPEST, &mut parts);
        parts.sort_by_key(|part| std::cmp::Reverse(part.mood));
        Some(Self { mood: Mood::of(word)?, word: word.to_owned(), parts })
    }

    /// A passing answer with this document in it.
    pub(super) fn judge(&self) -> Result<(), Failure> {
        let detail = || format!("status {}{}", quoted(&self.word, QUOTED), self.blamed());
        match self.mood {
            Mood::Well => Ok(()),
            Mood::Degraded => Err(Failure::degraded("document", detail())),
            Mood::Down => Err(Failure::new("document", detail())),
        }
    }

    /// ` (db: down, cache: degraded)`, or nothing.
    pub(super) fn blamed(&self) -> String {
        let said = |part: &Part| format!("{}: {}", quoted(&part.name, QUOTED), quoted(&part.word, QUOTED));
        let mut named: Vec<String> = self.parts.iter().take(NAMED).map(said).collect();
        match self.parts.len() {
            0 => return String::new(),
            all if all > NAMED => named.push(format!("{} more", all - NAMED)),
            _ => {}
        }
        format!(" ({})", named.join(", "))
    }
}

/// The parts of a whole that are not well.
fn within(whole: &Map<String, Value>, prefix: &str, depth: usize, parts: &mut Vec<Part>) {
    let groups = ["checks", "components", "entries", "results", "details"];
    for group in groups.into_iter().filter_map(|name| whole.get(name)) {
        match group {
            Value::Object(named) => named.iter().for_each(|(name, value)| part(name, value, prefix, depth, parts)),
            Value::Array(items) => {
                for item in items {
                    let name = item.get("name").and_then(Value::as_str).unwrap_or("?");
                    part(name, item, prefix, depth, parts);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// One part: a word, fields with a status and perhaps parts of their own, or several measurements of one thing.
fn part(name: &str, value: &Value, prefix: &str, depth: usize, parts: &mut Vec<Part>) {
    if depth == 0 || parts.len() >= MOST_PARTS {
        return;
    }
    let name = format!("{prefix}{name}");
    match value {
        Value::String(word) => parts.extend(unwell(name, word)),
        Value::Object(fields) => {
            let before = parts.len();
            within(fields, &format!("{name}."), depth - 1, parts);
            // Where an inner part is to blame, the outer one says no more.
            if parts.len() == before
                && let Some(word) = fields.get("status").and_then(Value::as_str)
            {
                parts.extend(unwell(name, word));
            }
        }
        Value::Array(measured) => {
            let words = measured.iter().filter_map(|one| one.get("status")?.as_str());
            let worst = words.filter_map(|word| Some((Mood::of(word)?, word))).max_by_key(|(mood, _)| *mood);
            parts.extend(worst.and_then(|(_, word)| unwell(name, word)));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn unwell(name: String, word: &str) -> Option<Part> {
    let mood = Mood::of(word).filter(|mood| *mood != Mood::Well)?;
    Some(Part { name, mood, word: word.to_owned() })
}

/// A body without the mark that some put before UTF-8, which JSON has not (RFC 8259, section 8.1: a reader may ignore it).
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::health::Kind;

    fn said(body: &str) -> Option<(Kind, String)> {
        let document = Document::read(Media::Json, body.as_bytes())?;
        Some(match document.judge() {
            Ok(()) => (Kind::Pass, document.blamed()),
            Err(failure) => (failure.kind, failure.detail),
        })
    }

    #[test]
    fn documents_of_all_families_are_understood() {
        let cases = [
            (r#"{"status":"healthy","checks":{"db":"up"}}"#, Kind::Pass, ""),
            (
                r#"{"status":"degraded","checks":{"db":{"status":"degraded"},"mq":"up"}}"#,
                Kind::Degraded,
                "status degraded (db: degraded)",
            ),
            (
                r#"{"status":"unhealthy","checks":{"a":"degraded","db":"down"}}"#,
                Kind::Fail,
                "status unhealthy (db: down, a: degraded)",
            ),
            (
                r#"{"status":"warn","checks":{"disk:free":[{"status":"pass"},{"status":"warn","output":"low"}],"cpu":[{}]}}"#,
                Kind::Degraded,
                "status warn (disk:free: warn)",
            ),
            (r#"{"status":"fail"}"#, Kind::Fail, "status fail"),
            (
                r#"{"status":"DOWN","components":{"db":{"status":"DOWN","components":{"ro":{"status":"DOWN"},"rw":{"status":"UP"}}},"disk":{"status":"UP","details":{"free":1}}}}"#,
                Kind::Fail,
                "status DOWN (db.ro: DOWN)",
            ),
            (
                r#"{"status":"OUT_OF_SERVICE","details":{"ready":{"status":"OUT_OF_SERVICE"}}}"#,
                Kind::Fail,
                "status OUT_OF_SERVICE (ready: OUT_OF_SERVICE)",
            ),
            (
                r#"{"status":"Unhealthy","totalDuration":"0","entries":{"sql":{"status":"Unhealthy","data":{}}}}"#,
                Kind::Fail,
                "status Unhealthy (sql: Unhealthy)",
            ),
            (
                r#"{"status":"Degraded","results":{"sql":{"status":"Degraded"}}}"#,
                Kind::Degraded,
                "status Degraded (sql: Degraded)",
            ),
            (
                r#"{"status":"DOWN","checks":[{"name":"db","status":"DOWN","data":{}},{"name":"b","status":"UP"}]}"#,
                Kind::Fail,
                "status DOWN (db: DOWN)",
            ),
        ];
        for (body, kind, detail) in cases {
            assert_eq!(said(body), Some((kind, detail.to_owned())), "{body}");
        }
    }

    #[test]
    fn the_whole_decides_and_unknown_words_say_nothing() {
        assert_eq!(said(r#"{"status":"UP","components":{"db":{"status":"DOWN"}}}"#).unwrap().0, Kind::Pass);
        for body in [r#"{"status":"UNKNOWN"}"#, r#"{"status":200}"#, r#"{"state":"down"}"#, r#"["down"]"#, "down", ""] {
            assert_eq!(said(body), None, "{body}");
        }
    }

    #[test]
    fn three_parts_are_named_and_what_they_say_is_escaped_and_short() {
        let parts: Vec<String> = (0..9).map(|i| format!(r#""c{i}":"down""#)).collect();
        let body = format!(r#"{{"status":"down","checks":{{{}}}}}"#, parts.join(","));
        assert_eq!(said(&body).unwrap().1, "status down (c0: down, c1: down, c2: down, 6 more)");
        let body = format!(r#"{{"status":"down","checks":{{"\u001b[31m{}":"down"}}}}"#, "x".repeat(500));
        let detail = said(&body).unwrap().1;
        assert!(detail.starts_with("status down (\\u{1b}[31mxxx") && detail.len() < 100, "{detail}");
    }

    #[test]
    fn only_json_and_the_words_of_asp_net_are_documents() {
        let media = |written: &'static str| {
            Media::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(written))]))
        };
        assert_eq!(media("Application/Health+JSON; charset=utf-8"), Some(Media::Json));
        assert_eq!((media("application/json"), media("text/plain")), (Some(Media::Json), Some(Media::Text)));
        assert_eq!((media("text/html"), media("application/jsonp"), media("")), (None, None, None));
        let word = |body: &str| Document::read(Media::Text, body.as_bytes()).map(|document| document.mood);
        assert_eq!((word("Healthy"), word("Unhealthy")), (Some(Mood::Well), Some(Mood::Down)));
        assert_eq!((word("Degraded"), word("unhealthy"), word("Unhealthy.")), (Some(Mood::Degraded), None, None));
    }

    fn json() -> impl Strategy<Value = Value> {
        let words = prop::sample::select(vec!["up", "down", "warn", "x", "\n"]);
        let keys = prop::sample::select(vec!["status", "checks", "components", "details", "name", "a"]);
        let leaf = prop_oneof![words.prop_map(Value::from), Just(Value::Null), any::<i64>().prop_map(Value::from)];
        leaf.prop_recursive(8, 128, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(keys.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::read(Media::Json, &bytes).map(|document| document.judge());
        }

        #[test]
        fn no_document_makes_a_long_sentence(value in json()) {
            if let Some(document) = Document::read(Media::Json, value.to_string().as_bytes()) {
                prop_assert!(document.blamed().len() < 3 * 250);
                let _ = document.judge();
            }
        }
    }
}
