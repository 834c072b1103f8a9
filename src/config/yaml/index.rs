//! Where everything stands: a tree of the file's keys, items and scalars with their bytes, from saphyr-parser's events.
//!
//! The typed read and the check know *what* they look at by its path; this tree says *where* it is. It is also the strict gate:
//! duplicate keys, merge keys, tags, aliases that grow without bound and nesting without end are refused here, before
//! anything else reads the text.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{
    super::diagnostics::{Code, Diagnostic},
    mend::{Flaw, Mend, Mended},
    syntax,
};

/// Deeper than any config; far from the stack's end.
const DEEPEST: usize = 64;
/// Nodes after aliases are expanded. A file of the largest size has fewer of its own unless it is made of empty items.
const MOST_NODES: usize = 1_000_000;
/// Times that a text is read, each past one flaw more.
const MOST_READINGS: usize = 60;

/// The tree.
#[derive(Debug)]
pub(in crate::config) struct Index {
    text: Arc<str>,
    nodes: Vec<Node>,
}

type NodeId = usize;

#[derive(Debug)]
struct Node {
    value: Range<usize>,
    kind: Kind,
    parent: Option<(NodeId, Step)>,
    /// Nodes below and including this one, aliases expanded.
    size: usize,
    /// Its text came from `${…}`: a message shows what is written, never what it stands for.
    expanded: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Key(Arc<str>),
    Item(usize),
}

#[derive(Debug)]
enum Kind {
    List(Vec<Child>),
    Map { order: Vec<Arc<str>>, children: BTreeMap<Arc<str>, Child> },
    Scalar { text: String, plain: bool },
}

#[derive(Clone, Debug)]
struct Child {
    key: Option<Range<usize>>,
    value: Range<usize>,
    node: NodeId,
}

/// What is wrong with a text as YAML.
#[derive(Debug, Default)]
pub(super) struct Flaws {
    pub(super) findings: Vec<Diagnostic>,
    /// What is written and not in the tree, as bytes.
    pub(super) gaps: Vec<Range<usize>>,
}

/// A place in the tree. Cheap to copy; steps that the text does not have stay where they are.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct At<'a> {
    index: &'a Index,
    node: NodeId,
    key: Option<(usize, usize)>,
    value: (usize, usize),
}

impl Index {
    /// Reads a text that is one YAML document, past what is wrong with it as YAML, and says what that is. Of a key given twice
    /// the first is kept, with what blocks and lists hold more under the second.
    pub(super) fn read(text: &Arc<str>) -> (Self, Flaws) {
        let lines_read = |text: &str| match Reading::of(text).flaw {
            Some(flaw) => text[..flaw.finding.span.start].lines().count(),
            None => usize::MAX,
        };
        let mut mended = Mended::new(text);
        let mut reading = Reading::of(mended.text());
        for _ in 1..MOST_READINGS {
            let Some(flaw) = reading.flaw.take() else { break };
            if !mended.mend(flaw, lines_read) {
                break;
            }
            reading = Reading::of(mended.text());
        }
        let mut findings: Vec<Diagnostic> = reading.findings.into_iter().map(|found| mended.placed(found)).collect();
        if let Some(flaw) = reading.flaw {
            findings.push(mended.placed(flaw.finding));
            mended.give_up();
        }
        let nodes = reading.nodes.into_iter().map(|node| node.placed(&mended)).collect();
        findings.extend(mended.findings);
        (Self { text: Arc::clone(text), nodes }, Flaws { findings, gaps: mended.gaps })
    }

    /// The place of the whole document.
    pub(in crate::config) fn root(&self) -> At<'_> {
        At { index: self, node: 0, key: None, value: self.nodes.first().map_or((0, 0), |node| pair(&node.value)) }
    }

    pub(super) fn mark_expanded(&mut self, node: NodeId) {
        self.nodes[node].expanded = true;
    }
}

impl<'a> At<'a> {
    /// The place of a key's value. Where the key is not written: here.
    pub(in crate::config) fn key(self, name: &str) -> Self {
        match &self.index.nodes[self.node].kind {
            Kind::Map { children, .. } => children.get(name).map_or(self, |child| self.child(child)),
            Kind::List(_) | Kind::Scalar { .. } => self,
        }
    }

    /// The place of an item. Where there is no such item: here.
    pub(in crate::config) fn item(self, number: usize) -> Self {
        match &self.index.nodes[self.node].kind {
            Kind::List(children) => children.get(number).map_or(self, |child| self.child(child)),
            Kind::Map { .. } | Kind::Scalar { .. } => self,
        }
    }

    fn child(self, child: &Child) -> Self {
        let key = child.key.as_ref().map(pair);
        At { index: self.index, node: child.node, key, value: pair(&child.value) }
    }

    /// Whether a key is written and has a value, right or wrong.
    pub(in crate::config) fn has(self, name: &str) -> bool {
        match &self.index.nodes[self.node].kind {
            Kind::Map { children, .. } => {
                children.get(name).is_some_and(|child| !self.index.nodes[child.node].is_null())
            }
            Kind::List(_) | Kind::Scalar { .. } => false,
        }
    }

    /// Whether a key is written, with a value or without.
    pub(in crate::config) fn names(self, name: &str) -> bool {
        match &self.index.nodes[self.node].kind {
            Kind::Map { children, .. } => children.contains_key(name),
            Kind::List(_) | Kind::Scalar { .. } => false,
        }
    }

    /// The keys written here, in order.
    pub(in crate::config) fn keys(self) -> &'a [Arc<str>] {
        match &self.index.nodes[self.node].kind {
            Kind::Map { order, .. } => order,
            Kind::List(_) | Kind::Scalar { .. } => &[],
        }
    }

    /// How many items a list has; `None` where this is none.
    pub(in crate::config) fn len(self) -> Option<usize> {
        match &self.index.nodes[self.node].kind {
            Kind::List(items) => Some(items.len()),
            Kind::Map { .. } | Kind::Scalar { .. } => None,
        }
    }

    /// The bytes to point at: a scalar itself, the key of a block, the first thing in an item.
    pub(in crate::config) fn span(self) -> Range<usize> {
        let node = &self.index.nodes[self.node];
        match (&node.kind, self.key) {
            (Kind::Scalar { .. }, Some(key)) if self.value.0 == self.value.1 => key.0..key.1,
            (Kind::Scalar { .. }, _) => self.value.0..self.value.1,
            (_, Some(key)) => key.0..key.1,
            (Kind::Map { order, children }, None) => {
                let first = order.first().and_then(|key| children.get(key)).and_then(|child| child.key.clone());
                first.unwrap_or_else(|| node.value.clone())
            }
            (Kind::List(_), None) => node.value.clone(),
        }
    }

    /// The bytes of the key, or of the thing itself where it has none.
    pub(in crate::config) fn key_span(self) -> Range<usize> {
        self.key.map_or_else(|| self.span(), |key| key.0..key.1)
    }

    /// The bytes of the value, if it is one scalar.
    pub(in crate::config) fn scalar_span(self) -> Option<Range<usize>> {
        let node = &self.index.nodes[self.node];
        matches!(node.kind, Kind::Scalar { .. }).then(|| node.value.clone())
    }

    /// The bytes of a part of the scalar's text, where that text is written without escapes.
    pub(in crate::config) fn part(self, part: &str) -> Range<usize> {
        let span = self.span();
        let written = self.index.text.get(span.clone()).unwrap_or_default();
        match written.rfind(part) {
            Some(at) if !part.is_empty() => span.start + at..span.start + at + part.len(),
            _ => span,
        }
    }

    /// The scalar as it is written, on one line and cut at 60 characters: never what a `${…}` stands for.
    pub(in crate::config) fn shown(self) -> String {
        let node = &self.index.nodes[self.node];
        let text = match &node.kind {
            Kind::Scalar { .. } if node.expanded => self.index.text.get(node.value.clone()).unwrap_or_default(),
            Kind::Scalar { text, .. } => text,
            Kind::List(_) | Kind::Map { .. } => "",
        };
        let line = text.trim_matches('"').lines().next().unwrap_or_default();
        match line.char_indices().nth(60) {
            Some((cut, _)) => format!("{}…", &line[..cut]),
            None => line.to_owned(),
        }
    }

    /// Whether the scalar is written with quotes and without `${…}`: text that was meant as text.
    pub(in crate::config) fn is_quoted(self) -> bool {
        let node = &self.index.nodes[self.node];
        matches!(node.kind, Kind::Scalar { plain: false, .. }) && !node.expanded
    }

    /// Whether the value came from `${…}`.
    pub(in crate::config) fn is_expanded(self) -> bool {
        self.index.nodes[self.node].expanded
    }

    /// What stands here, in a reader's words.
    pub(in crate::config) fn describe(self) -> &'static str {
        let node = &self.index.nodes[self.node];
        match &node.kind {
            _ if node.is_null() => "nothing",
            Kind::List(_) => "a list",
            Kind::Map { .. } => "fields",
            Kind::Scalar { .. } => "text",
        }
    }

    /// Whether fields are written here, or nothing yet.
    pub(in crate::config) fn is_block(self) -> bool {
        self.is_empty() || matches!(self.index.nodes[self.node].kind, Kind::Map { .. })
    }

    /// Whether nothing is written here, or null.
    pub(in crate::config) fn is_empty(self) -> bool {
        self.index.nodes[self.node].is_null()
    }

    /// `routes[2].timeouts.request`.
    pub(in crate::config) fn path(self) -> String {
        let mut steps = vec![];
        let mut node = self.node;
        while let Some((parent, step)) = &self.index.nodes[node].parent {
            steps.push(step);
            node = *parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.extend([".", key]),
                Step::Item(number) => path.push_str(&format!("[{number}]")),
            }
        }
        path
    }

    pub(super) fn node(self) -> NodeId {
        self.node
    }

    /// The scalar's text as parsed; `None` for a list, a map or null.
    pub(super) fn scalar(self) -> Option<&'a str> {
        match &self.index.nodes[self.node] {
            node if node.is_null() => None,
            Node { kind: Kind::Scalar { text, .. }, .. } => Some(text),
            _ => None,
        }
    }
}

impl Child {
    fn placed(self, mended: &Mended) -> Self {
        Self { key: self.key.map(|key| mended.written(&key)), value: mended.written(&self.value), node: self.node }
    }
}

impl Node {
    /// As in the text that is written.
    fn placed(self, mended: &Mended) -> Self {
        let kind = match self.kind {
            Kind::List(items) => Kind::List(items.into_iter().map(|item| item.placed(mended)).collect()),
            Kind::Map { order, children } => {
                let children = children.into_iter().map(|(key, child)| (key, child.placed(mended))).collect();
                Kind::Map { order, children }
            }
            scalar @ Kind::Scalar { .. } => scalar,
        };
        Self { value: mended.written(&self.value), kind, ..self }
    }

    fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, plain: true } => matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            _ => false,
        }
    }
}

/// What one pass over a text finds.
struct Reading {
    nodes: Vec<Node>,
    findings: Vec<Diagnostic>,
    /// Where it ended before the text did.
    flaw: Option<Flaw>,
}

impl Reading {
    fn of(text: &str) -> Self {
        let mut builder = Builder {
            text,
            bytes: (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect()),
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            reading: Self { nodes: vec![], findings: vec![], flaw: None },
        };
        builder.document();
        builder.reading
    }
}

struct Builder<'t> {
    text: &'t str,
    /// Byte of every character, unless they are the same: the parser counts characters.
    bytes: Option<Vec<usize>>,
    parser: Parser<'t, StrInput<'t>>,
    /// Anchors that are complete. One that is still open is not in here, so it cannot hold itself.
    anchors: HashMap<usize, NodeId>,
    reading: Reading,
}

impl<'t> Builder<'t> {
    fn document(&mut self) {
        loop {
            match self.next() {
                (Event::StreamEnd, _) => break,
                (Event::DocumentStart(_), span) if !self.reading.nodes.is_empty() => {
                    let finding = Diagnostic::new(Code::NotYaml, span, "a second document starts here");
                    self.cut(finding.label("a config is one document: delete the `---`"), Mend::LeaveOut);
                }
                (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
                (event, span) => {
                    self.value(event, span, None, 0);
                }
            }
        }
        if self.reading.nodes.is_empty() {
            let kind = Kind::Scalar { text: String::new(), plain: true };
            self.add(0..0, kind, None);
        }
    }

    /// The next event; after a cut, the end of everything.
    fn next(&mut self) -> (Event<'t>, Range<usize>) {
        if !self.is_cut() {
            match self.parser.next_event() {
                None => {}
                Some(Ok((event, span))) => return (event, self.span(span)),
                Some(Err(error)) => {
                    let at = self.byte(error.marker().index());
                    self.reading.flaw = Some(syntax::explain(self.text, at, error.info()));
                }
            }
        }
        (Event::StreamEnd, 0..0)
    }

    /// Reading goes no further.
    fn cut(&mut self, finding: Diagnostic, mend: Mend) {
        self.reading.flaw.get_or_insert(Flaw { finding, mend });
    }

    fn is_cut(&self) -> bool {
        self.reading.flaw.is_some()
    }

    fn byte(&self, character: usize) -> usize {
        match &self.bytes {
            None => character.min(self.text.len()),
            Some(bytes) => bytes.get(character).copied().unwrap_or(self.text.len()),
        }
    }

    fn span(&self, span: Span) -> Range<usize> {
        self.byte(span.start.index())..self.byte(span.end.index())
    }

    fn add(&mut self, value: Range<usize>, kind: Kind, parent: Option<(NodeId, Step)>) -> NodeId {
        self.reading.nodes.push(Node { value, kind, parent, size: 1, expanded: false });
        self.reading.nodes.len() - 1
    }

    /// Reads one value and says which node it is and where it is written.
    fn value(&mut self, event: Event<'t>, span: Range<usize>, parent: Option<(NodeId, Step)>, depth: usize) -> Child {
        if depth > DEEPEST {
            let finding = Diagnostic::new(Code::NotYaml, span.clone(), "this is nested too deeply");
            self.cut(finding.label(format!("more than {DEEPEST} levels")), Mend::LeaveOut);
            return self.nothing(span, parent);
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            _ => (0, false),
        };
        if tag {
            let end = self.text[span.start..].find(char::is_whitespace).map_or(span.end, |at| span.start + at);
            let finding = Diagnostic::new(Code::NotYaml, span.start..end.max(span.start), "tags have no meaning here");
            self.reading.findings.push(finding.label("delete it; quote text that starts with `!`"));
        }
        let node = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, parent),
            Event::Scalar(text, style, ..) => {
                // The parser counts the spaces after a quoted text in.
                let written = self.text.get(span.clone()).unwrap_or_default();
                let span = span.start..span.start + written.trim_end().len();
                let kind = Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                let node = self.add(span.clone(), kind, parent);
                if anchor != 0 {
                    self.anchors.insert(anchor, node);
                }
                return Child { key: None, value: span, node };
            }
            Event::SequenceStart(..) => self.list(span.clone(), parent, depth),
            Event::MappingStart(..) => self.map(span.clone(), parent, depth),
            _ => return self.nothing(span, parent),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node);
        }
        Child { key: None, value: span, node }
    }

    fn nothing(&mut self, span: Range<usize>, parent: Option<(NodeId, Step)>) -> Child {
        let node = self.add(span.clone(), Kind::Scalar { text: String::new(), plain: true }, parent);
        Child { key: None, value: span, node }
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>, parent: Option<(NodeId, Step)>) -> Child {
        match self.anchors.get(&anchor) {
            Some(node) => Child { key: None, value: span, node: *node },
            None => {
                self.cut(
                    Diagnostic::new(Code::NotYaml, span.clone(), "an anchor cannot contain itself"),
                    Mend::LeaveOut,
                );
                self.nothing(span, parent)
            }
        }
    }

    fn list(&mut self, span: Range<usize>, parent: Option<(NodeId, Step)>, depth: usize) -> NodeId {
        let list = self.add(span, Kind::List(vec![]), parent);
        let mut children = vec![];
        loop {
            match self.next() {
                (Event::SequenceEnd | Event::StreamEnd, _) => break,
                (event, span) => {
                    let step = Some((list, Step::Item(children.len())));
                    let child = self.value(event, span, step, depth + 1);
                    self.grow(list, &child);
                    if self.is_lost(depth) {
                        break;
                    }
                    children.push(child);
                }
            }
        }
        self.reading.nodes[list].kind = Kind::List(children);
        list
    }

    fn map(&mut self, span: Range<usize>, parent: Option<(NodeId, Step)>, depth: usize) -> NodeId {
        let map = self.add(span, Kind::Scalar { text: String::new(), plain: true }, parent);
        let mut order: Vec<Arc<str>> = vec![];
        let mut children: BTreeMap<Arc<str>, Child> = BTreeMap::new();
        let mut merged = vec![];
        loop {
            let (key, key_span): (Arc<str>, _) = match self.next() {
                (Event::MappingEnd | Event::StreamEnd, _) => break,
                (Event::Scalar(key, ..), span) => (Arc::from(&*key), span),
                (_, span) => {
                    self.cut(Diagnostic::new(Code::NotYaml, span, "a field's name must be plain text"), Mend::LeaveOut);
                    break;
                }
            };
            let (event, span) = self.next();
            let step = Some((map, Step::Key(Arc::clone(&key))));
            let mut child = self.value(event, span, step, depth + 1);
            child.key = Some(key_span.clone());
            self.grow(map, &child);
            if self.is_lost(depth) {
                break;
            }
            if &*key == "<<" {
                merged.push(child.node);
                let finding = Diagnostic::new(Code::NotYaml, key_span, "merge keys (`<<`) are not supported");
                self.reading.findings.push(
                    finding
                        .label("repeat the fields, or put them under `defaults`")
                        .note("an alias (`*name`) may stand for a whole value"),
                );
                continue;
            }
            match children.get(&key) {
                Some(first) => {
                    let finding = Diagnostic::new(Code::Duplicate, key_span, format!("`{key}` is given twice"));
                    let first_span = first.key.clone().unwrap_or_default();
                    self.reading.findings.push(finding.label("delete one").related(first_span, "first here"));
                    if self.reading.nodes[first.node].is_null() {
                        children.insert(key, child);
                    } else {
                        self.unite(first.node, child.node);
                    }
                }
                None => {
                    order.push(Arc::clone(&key));
                    children.insert(key, child);
                }
            }
        }
        for node in merged {
            self.merge(node, &mut order, &mut children);
        }
        self.reading.nodes[map].kind = Kind::Map { order, children };
        map
    }

    /// Takes what stands under a field that is given twice into the first, as far as it has room: others refer to it.
    fn unite(&mut self, first: NodeId, second: NodeId) {
        let empty = Kind::Scalar { text: String::new(), plain: true };
        self.reading.nodes[first].size = self.reading.nodes[first].size.saturating_add(self.reading.nodes[second].size);
        match (std::mem::replace(&mut self.reading.nodes[first].kind, empty), &self.reading.nodes[second].kind) {
            (Kind::Map { mut order, mut children }, Kind::Map { .. }) => {
                self.merge(second, &mut order, &mut children);
                self.reading.nodes[first].kind = Kind::Map { order, children };
            }
            (Kind::List(mut items), Kind::List(more)) => {
                items.extend(more.iter().cloned());
                self.reading.nodes[first].kind = Kind::List(items);
            }
            (kind, _) => self.reading.nodes[first].kind = kind,
        }
    }

    /// Takes over the fields that a merge key brings, as it was meant: what is written beside it wins.
    fn merge(&self, from: NodeId, order: &mut Vec<Arc<str>>, children: &mut BTreeMap<Arc<str>, Child>) {
        match &self.reading.nodes[from].kind {
            Kind::Map { order: keys, children: brought } => {
                for key in keys.iter().filter(|key| !children.contains_key(*key)).cloned().collect::<Vec<_>>() {
                    children.extend(brought.get(&key).map(|child| (Arc::clone(&key), child.clone())));
                    order.push(key);
                }
            }
            Kind::List(items) => items.iter().for_each(|item| self.merge(item.node, order, children)),
            Kind::Scalar { .. } => {}
        }
    }

    /// Whether the child just read is where the text was cut: what it seems to hold may be anything. The top level's own
    /// children are kept, so that `routes` still holds the routes before the cut.
    fn is_lost(&self, depth: usize) -> bool {
        self.is_cut() && depth > 0
    }

    fn grow(&mut self, parent: NodeId, child: &Child) {
        self.reading.nodes[parent].size =
            self.reading.nodes[parent].size.saturating_add(self.reading.nodes[child.node].size);
        if self.reading.nodes[parent].size > MOST_NODES && !self.is_cut() {
            let finding = Diagnostic::new(Code::NotYaml, child.value.clone(), "aliases make this file too large");
            self.cut(finding.label(format!("more than {MOST_NODES} values")), Mend::Stop);
        }
    }
}

fn pair(range: &Range<usize>) -> (usize, usize) {
    (range.start, range.end)
}
