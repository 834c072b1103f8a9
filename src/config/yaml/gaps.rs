//! What is written and could not be read: the lines that were left out of a text that is not YAML.
//!
//! What seems to be missing, unknown or in the way may stand in such a line. The questions here say where that can be, so that
//! every finding that does not hang on it is reported in the same run.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use super::At;

/// The parts of a text that are not in its tree.
#[derive(Debug, Default)]
pub(in crate::config) struct Gaps {
    is_all: bool,
    /// What may be a name.
    names: BTreeSet<Box<str>>,
    blocks: Vec<Block>,
    /// Where the gaps are. One at the margin may be a top-level field of its own, or have slipped out of the block above.
    homes: Vec<Home>,
}

/// A top-level block, and where what is in it starts: a list's items, a block's fields.
#[derive(Debug)]
struct Block {
    name: Arc<str>,
    start: usize,
    entries: Vec<usize>,
}

/// The numbers of a block and of an entry of it. Without an entry: before the first.
type Home = (usize, Option<usize>);

impl Gaps {
    /// The gaps at these bytes of a text.
    pub(super) fn new(text: &str, root: At<'_>, spans: &[Range<usize>]) -> Self {
        if spans.is_empty() {
            return Self::default();
        }
        let mut blocks: Vec<Block> = root.keys().iter().map(|name| Block::of(name, root.key(name))).collect();
        blocks.sort_by_key(|block| block.start);
        let says_something = |gap: &Range<usize>| text.get(gap.clone()).is_some_and(|gap| words(gap).next().is_some());
        let lines = || spans.iter().filter_map(|gap| text.get(gap.clone())).flat_map(str::lines);
        Self {
            is_all: spans.contains(&(0..text.len())),
            names: lines().flat_map(names).map(Box::from).collect(),
            homes: spans
                .iter()
                .filter(|gap| says_something(gap))
                .filter_map(|gap| home_of_gap(&blocks, text, gap.start))
                .collect(),
            blocks,
        }
    }

    /// Whether all of the text is in the tree.
    pub(in crate::config) fn is_empty(&self) -> bool {
        !self.is_all && self.names.is_empty() && self.homes.is_empty()
    }

    /// Whether something of this name may be defined in a gap.
    pub(in crate::config) fn may_define(&self, name: &str) -> bool {
        self.is_all || self.names.contains(name)
    }

    /// Whether a top-level block may hold more than was read of it.
    pub(in crate::config) fn are_in_block(&self, name: &str) -> bool {
        let is_here = |home: &Home| self.blocks.get(home.0).is_some_and(|block| *block.name == *name);
        self.may_define(name) || self.homes.iter().any(is_here)
    }

    /// Whether the entry of a block in which a byte stands, a route for one, may hold more than was read of it.
    pub(in crate::config) fn are_in_entry(&self, byte: usize) -> bool {
        let Some((block, entry)) = home(&self.blocks, byte) else { return self.is_all };
        let is_here = |home: &Home| home.0 == block && (home.1 == entry || home.1.is_none() || entry.is_none());
        self.is_all || self.homes.iter().any(is_here)
    }
}

impl Block {
    fn of(name: &Arc<str>, at: At<'_>) -> Self {
        let fields = at.keys().iter().map(|key| at.key(key).key_span().start);
        let items = (0..at.len().unwrap_or_default()).map(|item| at.item(item).span().start);
        let mut entries: Vec<usize> = fields.chain(items).collect();
        entries.sort_unstable();
        Self { name: Arc::clone(name), start: at.key_span().start, entries }
    }
}

/// The words of a line that may be names of something: the first, for a colon may be missing; those in front of a colon; and
/// the value of `name`.
fn names(line: &str) -> Vec<&str> {
    let (before, last) = line.rsplit_once(':').unwrap_or(("", line));
    let mut names: Vec<&str> = before.split(':').filter_map(|part| words(part).next_back()).collect();
    if names.last() == Some(&"name") {
        names.extend(words(last).next());
    }
    names.extend(words(line).next());
    names
}

fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.split(move |c| !is_part(c)).filter(|word| word.contains(char::is_alphanumeric))
}

fn home(blocks: &[Block], byte: usize) -> Option<Home> {
    let block = blocks.partition_point(|block| block.start <= byte).checked_sub(1)?;
    let entry = blocks[block].entries.partition_point(|start| *start <= byte).checked_sub(1);
    Some((block, entry))
}

fn home_of_gap(blocks: &[Block], text: &str, gap: usize) -> Option<Home> {
    let line = text[..gap].rfind('\n').map_or(0, |newline| newline + 1);
    if text[line..gap].trim().is_empty() {
        return home(blocks, gap);
    }
    // After a dash: the first field of an item, which starts with what was read of it, here or below.
    let (block, _) = home(blocks, gap)?;
    let entries = &blocks[block].entries;
    let entry = entries.partition_point(|start| *start < line);
    Some((block, (entry < entries.len()).then_some(entry)))
}
