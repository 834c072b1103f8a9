//! What is expected of an answer in HTTP, and what to say where it is not so.

use http::HeaderMap;
use serde_json::Value;

use super::{Failure, READ_LIMIT, document::Document, quoted};
use crate::config::plan::Expect;

/// As much of a value as fits into a sentence.
const QUOTED: usize = 60;

/// The failure of another status, and which parts of the backend its health document blames for it.
pub(super) fn other_status(status: u16, expect: &Expect, document: Option<&Document>) -> Failure {
    let ranges: Vec<String> = expect.status.iter().map(ToString::to_string).collect();
    let blamed = document.map(Document::blamed).unwrap_or_default();
    Failure::new("status", format!("status {status}, expected {}{blamed}", ranges.join(", ")))
}

/// One field of each name must be what is wanted.
pub(super) fn headers(expect: &Expect, headers: &HeaderMap) -> Result<(), Failure> {
    for (name, wanted) in &expect.headers {
        let values = headers.get_all(name);
        if values.iter().any(|value| wanted.is(value.as_bytes())) {
            continue;
        }
        let wanted = quoted(&wanted.to_string(), QUOTED);
        return Err(Failure::new(
            "header",
            match values.iter().next() {
                Some(value) => {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    format!("header `{name}` is `{}`, expected `{wanted}`", quoted(&value, QUOTED))
                }
                None => format!("no header `{name}`, expected `{wanted}`"),
            },
        ));
    }
    Ok(())
}

/// What the body must hold.
pub(super) fn body(expect: &Expect, status: u16, body: &[u8]) -> Result<(), Failure> {
    match &expect.body {
        Some(wanted) if !wanted.is_in(body) => {
            let wanted = quoted(&wanted.to_string(), QUOTED);
            Err(Failure::new("body", format!("status {status}, no `{wanted}` in the body")))
        }
        _ => Ok(()),
    }
}

/// What fields of a JSON body must be.
pub(super) fn json(expect: &Expect, body: &[u8]) -> Result<(), Failure> {
    if expect.json.is_empty() {
        return Ok(());
    }
    if body.len() >= READ_LIMIT {
        return Err(Failure::new("json", "the body is longer than 64 KiB, and was not read as JSON"));
    }
    let Ok(value) = serde_json::from_slice::<Value>(super::document::without_mark(body)) else {
        return Err(Failure::new("json", "the body is not JSON"));
    };
    for (path, wanted) in &expect.json {
        let found = path.find(&value);
        let text = match found {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        };
        if found.is_some() && wanted.is(text.as_bytes()) {
            continue;
        }
        let (path, wanted) = (quoted(&path.to_string(), QUOTED), quoted(&wanted.to_string(), QUOTED));
        return Err(Failure::new(
            "json",
            match found {
                Some(_) => format!("`{path}` is `{}`, expected `{wanted}`", quoted(&text, QUOTED)),
                None => format!("no `{path}` in the body, expected `{wanted}`"),
            },
        ));
    }
    Ok(())
}
