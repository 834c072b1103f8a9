//! Text to spec: the only file that names `serde_yaml`.
//!
//! Two parsers read the text. `index` (saphyr-parser) knows where everything stands and refuses what is ambiguous; `serde_yaml`
//! makes the tree of values. The two must agree, node by node: a text that two parsers read differently is refused. Every scalar
//! of the tree is then replaced by its text *as written*, with `${…}` expanded, so that no value is reinterpreted on its
//! way (`1.10`, `0644`, `no`) and the check can quote it.
//!
//! serde stops at the first structural error. [`Document::read`] records it, takes the offending entry out of the tree and
//! reads again, so that one run reports them all.

mod gaps;
mod index;
mod interpolate;
mod mend;
mod syntax;

use std::{ops::Range, path::PathBuf, sync::Arc};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use serde_yaml::Value;

pub(super) use gaps::Gaps;
use index::Flaws;
pub(super) use index::{At, Index};
pub(super) use interpolate::{Failure, Sources, expand, read_text};
pub(super) use syntax::secrets;

use super::{
    diagnostics::{Code, Diagnostic},
    suggest,
};
use crate::base::Secret;

/// The largest config that is read.
pub(super) const LARGEST: usize = 4 << 20;
/// Structural errors after which reading stops.
const MOST_ERRORS: usize = 50;

/// Fields that hold secrets somewhere below, wherever they stand.
const MAY_HOLD_SECRETS: &[&str] = &["auth", "api_key", "basic", "headers", "keys", "users"];

/// A parsed text.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) index: Index,
    tree: Value,
    /// What is written and not in the tree.
    pub(super) gaps: Gaps,
    /// Values that were not read because the field that holds them does not fit, and that may be secrets: those of a misspelt
    /// `keys`; all of them where fields may not stand where they were meant to.
    pub(super) unread: Vec<Range<usize>>,
    is_sound: bool,
}

impl Document {
    /// Parses a text, both ways, as far as it goes, and says what is wrong with it as YAML.
    pub(super) fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let text: Arc<str> = text.into();
        let (index, Flaws { mut findings, gaps }) = Index::read(&text);
        if findings.is_empty() {
            findings.extend(disagreement(&text, index.root()));
        }
        let (tree, is_sound) = (as_written(index.root()), findings.is_empty());
        let gaps = Gaps::new(&text, index.root(), &gaps);
        (Self { index, tree, gaps, unread: vec![], is_sound }, findings)
    }

    /// Replaces every `${…}` in values, and gives each value that came of it with what is written there. `verbatim` says
    /// which places are left alone.
    pub(super) fn expand(
        &mut self,
        sources: &Sources<'_>,
        files: &mut Vec<PathBuf>,
        verbatim: fn(&[&str]) -> bool,
    ) -> (Vec<Diagnostic>, Vec<(Secret, String)>) {
        let mut walk =
            Walk { sources, files, verbatim, findings: vec![], expanded: vec![], values: vec![], keys: vec![] };
        walk.value(&mut self.tree, self.index.root());
        let (findings, expanded, values) = (walk.findings, walk.expanded, walk.values);
        for node in expanded {
            self.index.mark_expanded(node);
        }
        (findings, values)
    }

    /// Takes out what is free space: the top-level keys that start with `x-`.
    pub(super) fn forget_free_keys(&mut self) {
        if let Value::Mapping(map) = &mut self.tree {
            map.retain(|key, _| !key.as_str().is_some_and(|key| key.starts_with("x-")));
        }
    }

    /// Reads the tree as a `T`, without what does not fit, and says what that was.
    pub(super) fn read<T: DeserializeOwned + Default>(&mut self) -> (T, Vec<Diagnostic>) {
        let mut findings = vec![];
        if self.tree.is_null() {
            return (T::default(), findings);
        }
        while findings.len() < MOST_ERRORS {
            let error = match serde_path_to_error::deserialize::<_, T>(&self.tree) {
                Ok(spec) => return (spec, findings),
                Err(error) => error,
            };
            let path: Vec<Segment> = error.path().iter().cloned().collect();
            let (at, keys) = place(self.index.root(), &path);
            findings.push(structural(at, &keys, &error.inner().to_string()));
            let is_below = matches!(keys[..], ["auth", ..] | [.., "headers", _]);
            let is_secret = !self.is_sound || is_below || keys.last().is_some_and(|key| MAY_HOLD_SECRETS.contains(key));
            secret_scalars(at, is_secret, &mut self.unread);
            if is_part_of_a_hash(&keys, at) {
                self.unread.push(at.key_span());
            }
            if !remove(&mut self.tree, &path) {
                break;
            }
        }
        (T::default(), findings)
    }
}

/// The tree of values, each scalar with its text.
fn as_written(at: At<'_>) -> Value {
    match (at.len(), at.scalar()) {
        (Some(items), _) => Value::Sequence((0..items).map(|item| as_written(at.item(item))).collect()),
        (None, Some(text)) => Value::String(text.to_owned()),
        (None, None) if at.is_empty() => Value::Null,
        (None, None) => {
            let entries = at.keys().iter().map(|key| (Value::String(key.to_string()), as_written(at.key(key))));
            Value::Mapping(entries.collect())
        }
    }
}

/// Adds the bytes of the scalars that may be secrets, here and below.
pub(super) fn secret_scalars(at: At<'_>, is_secret: bool, spans: &mut Vec<Range<usize>>) {
    if is_secret {
        spans.extend(at.scalar_span().filter(|span| !span.is_empty()));
    }
    (0..at.len().unwrap_or_default()).for_each(|item| secret_scalars(at.item(item), is_secret, spans));
    for key in at.keys() {
        secret_scalars(at.key(key), is_secret || MAY_HOLD_SECRETS.contains(&&**key), spans);
    }
}

/// What `serde_yaml` has to say against what the index read.
fn disagreement(text: &str, root: At<'_>) -> Option<Diagnostic> {
    match serde_yaml::from_str(text) {
        Ok(tree) if agrees(&tree, root) => None,
        Ok(_) => Some(
            Diagnostic::new(Code::NotYaml, 0..0, "YAML parsers disagree about what this file says")
                .label("write it more plainly: quote texts, one field per line"),
        ),
        Err(error) => {
            let at = error.location().map_or(0, |location| location.index()).min(text.len());
            let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            Some(syntax::explain(text, at, &error.to_string()).finding)
        }
    }
}

/// Whether the other parser read the same shape and the same texts.
fn agrees(value: &Value, at: At<'_>) -> bool {
    match value {
        Value::Mapping(map) => {
            let keys = at.keys();
            let entries = || map.iter().zip(keys);
            keys.len() == map.len()
                && entries().all(|((written, value), key)| {
                    written.as_str().is_none_or(|written| written == &**key) && agrees(value, at.key(key))
                })
        }
        Value::Sequence(items) => {
            at.len() == Some(items.len()) && items.iter().enumerate().all(|(i, item)| agrees(item, at.item(i)))
        }
        Value::Null => at.is_empty(),
        Value::Bool(_) | Value::Number(_) => at.scalar().is_some(),
        Value::String(text) => at.scalar() == Some(text),
        Value::Tagged(_) => false,
    }
}

struct Walk<'a> {
    sources: &'a Sources<'a>,
    files: &'a mut Vec<PathBuf>,
    verbatim: fn(&[&str]) -> bool,
    findings: Vec<Diagnostic>,
    expanded: Vec<usize>,
    values: Vec<(Secret, String)>,
    keys: Vec<Arc<str>>,
}

impl Walk<'_> {
    /// Expands what is below, without the scalars that could not be: each was reported, and what follows from it is noise.
    fn value(&mut self, value: &mut Value, at: At<'_>) -> bool {
        match value {
            Value::Mapping(map) => map.retain(|key, value| {
                let key = key.as_str().unwrap_or_default();
                self.keys.push(key.into());
                let keep = self.value(value, at.key(key));
                self.keys.pop();
                keep
            }),
            Value::Sequence(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    if !self.value(item, at.item(i)) {
                        *item = Value::Null;
                    }
                }
            }
            Value::String(text) if text.contains("${") => return self.scalar(text, at),
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
        }
        true
    }

    fn scalar(&mut self, text: &mut String, at: At<'_>) -> bool {
        let keys: Vec<&str> = self.keys.iter().map(|key| &**key).collect();
        if (self.verbatim)(&keys) {
            return true;
        }
        match expand(text, self.sources, self.files) {
            Ok(Some(expanded)) => {
                self.values.push((Secret::new(expanded.clone()), text.clone()));
                *text = expanded;
                self.expanded.push(at.node());
            }
            Ok(None) => {}
            Err(failure) => {
                self.findings.push(unexpanded(&failure, at, self.sources));
                return false;
            }
        }
        true
    }
}

fn unexpanded(failure: &Failure, at: At<'_>, sources: &Sources<'_>) -> Diagnostic {
    let finding = match failure {
        Failure::Form(written) => {
            Diagnostic::new(Code::Unset, at.part(written), format!("`{written}` is not a variable"))
                .label("write ${NAME}, ${NAME:-default} or ${file:PATH}; $${ for a literal ${")
        }
        Failure::Unset(name) => {
            Diagnostic::new(Code::Unset, at.part(&format!("${{{name}}}")), format!("`${{{name}}}` is not set"))
                .label(format!("export it, give a default with ${{{name}:-…}}, or list it in the unit's Environment="))
        }
        Failure::Unreadable(path, why) => unreadable(at, path, sources.folder, why),
    };
    finding.path(at.path())
}

/// A file named in the config that cannot be read.
pub(super) fn unreadable(at: At<'_>, path: &std::path::Path, folder: &std::path::Path, why: &str) -> Diagnostic {
    let (shown, label) = match path.strip_prefix(folder) {
        Ok(relative) if folder.as_os_str().is_empty() => (relative, Some("looked in the current folder".to_owned())),
        Ok(relative) => (relative, Some(format!("looked in {} (the folder of the config)", folder.display()))),
        Err(_) => (path, None),
    };
    let mut finding = Diagnostic::new(Code::Unreadable, at.span(), format!("cannot read {}: {why}", shown.display()));
    finding.label = label;
    finding.path(at.path())
}

/// Where a path of serde's leads, and the keys on the way.
fn place<'a, 'p>(root: At<'a>, path: &'p [Segment]) -> (At<'a>, Vec<&'p str>) {
    let mut at = root;
    let mut keys = vec![];
    for segment in path {
        match segment {
            Segment::Map { key } => {
                keys.push(key.as_str());
                at = at.key(key);
            }
            Segment::Seq { index } => at = at.item(*index),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (at, keys)
}

/// Whether what looks like a user's or a key's name is what comes after a comma in a hash.
fn is_part_of_a_hash(keys: &[&str], at: At<'_>) -> bool {
    matches!(keys, [.., "users" | "keys", name] if name.contains(['$', '='])) && at.is_empty()
}

/// A structural error in an operator's words.
fn structural(at: At<'_>, keys: &[&str], serde_says: &str) -> Diagnostic {
    if let Some(list) = serde_says.strip_prefix("unknown field ") {
        let allowed: Vec<&str> = list.split('`').skip(3).step_by(2).collect();
        return unknown_field(at, keys, &allowed).path(at.path());
    }
    if is_part_of_a_hash(keys, at) {
        let message = "a hash with commas in it must be quoted inside { }";
        let finding = Diagnostic::new(Code::WrongType, at.key_span(), message).label("put quotes around all of it");
        return finding.path(keys.split_last().map(|(_, parents)| parents.join(".")).unwrap_or_default());
    }
    let expected = serde_says.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
    let subject = keys.last().map(|key| format!("`{key}`: ")).unwrap_or_default();
    let found = at.describe();
    let message = format!("{subject}expected {expected}, found {found}");
    let finding = Diagnostic::new(Code::WrongType, at.span(), message).path(at.path());
    match (expected, found) {
        ("a list", "fields") if keys == ["routes"] => finding.label("start each route with `- `"),
        ("a list", "fields") => finding.label("start each item with `- `"),
        ("a list", "text") => finding.label("write [ ... ], or each item on a line of its own after `- `"),
        _ => finding,
    }
}

fn unknown_field(at: At<'_>, keys: &[&str], allowed: &[&str]) -> Diagnostic {
    let (field, parents) = keys.split_last().map_or(("", &[][..]), |(field, parents)| (*field, parents));
    let parent = parents.last().copied().unwrap_or_default();
    if let Some(home) = super::spec::home(parents, field) {
        let within = if parent.is_empty() { "the top level".to_owned() } else { format!("`{parent}`") };
        let message = format!("`{field}` does not belong in {within}");
        let finding = Diagnostic::new(Code::Misplaced, at.key_span(), message).label(format!("it goes under {home}"));
        return match (at.scalar_span(), home.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '.'))) {
            (Some(_), true) => finding.note(format!("write {}", nested(home, field, &at.shown()))),
            _ => finding,
        };
    }
    if super::spec::is_planned(field) {
        return Diagnostic::new(Code::Unsupported, at.key_span(), format!("`{field}` is not in this version yet"))
            .label("delete it")
            .note(format!("fields here: {}", suggest::list(allowed.iter().copied())));
    }
    let finding = Diagnostic::new(Code::UnknownField, at.key_span(), format!("unknown field `{field}`"));
    let finding = match suggest::nearest(field, allowed.iter().copied()) {
        Some(near) => finding.label(format!("did you mean `{near}`?")).fix(near),
        None => finding,
    };
    finding.note(format!("fields here: {}", suggest::list(allowed.iter().copied())))
}

/// `health: { active: { interval: 5s } }`
fn nested(home: &str, field: &str, value: &str) -> String {
    let blocks = home.split('.').count();
    let opened: String = home.split('.').flat_map(|block| [block, ": { "]).collect();
    format!("{opened}{field}: {value}{}", " }".repeat(blocks))
}

/// Takes the entry out that did not fit. An item becomes null, so that those after it keep their numbers.
fn remove(tree: &mut Value, path: &[Segment]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut value = tree;
    for segment in parents {
        let next = match segment {
            Segment::Map { key } => value.get_mut(key.as_str()),
            Segment::Seq { index } => value.get_mut(*index),
            Segment::Enum { .. } | Segment::Unknown => return false,
        };
        value = match next {
            Some(next) => next,
            None => return false,
        };
    }
    match (last, value) {
        (Segment::Map { key }, Value::Mapping(map)) => map.remove(key.as_str()).is_some(),
        (Segment::Seq { index }, Value::Sequence(items)) => match items.get_mut(*index) {
            Some(item) if !item.is_null() => {
                *item = Value::Null;
                true
            }
            _ => false,
        },
        _ => false,
    }
}
