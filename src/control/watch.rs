//! Whether the config, or a file that it reads, has other content than before.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::Origin;
use crate::{
    base::open_regular,
    config::{Loaded, Source, plan},
};

/// Tells when the config file, or another file that it reads, has other content.
///
/// The folders are watched, not the files: editors replace a file by another, and Kubernetes swaps a symlink beside it. A
/// notice only makes this look; what counts is the content. Every two seconds it looks unasked, because notices get lost, on
/// network file systems above all.
#[derive(Debug)]
pub struct Watch {
    is_allowed: bool,
    is_on: bool,
    debounce: Duration,
    files: BTreeMap<PathBuf, Seen>,
    main: PathBuf,
    notices: mpsc::Receiver<()>,
    // Where the system gives no watcher, nobody else sends: the channel stays open and silent.
    _notify: mpsc::Sender<()>,
    // A notice came, and nobody has looked since.
    is_due: bool,
    watcher: Option<RecommendedWatcher>,
    hasher: RandomState,
}

// What a file was when it was last looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    stamp: Option<Stamp>,
    content: Option<u64>,
}

/// When it was written, its length, its number: two files of one length may be written within one tick of the clock.
type Stamp = (SystemTime, u64, u64);

const UNASKED: Duration = Duration::from_secs(2);

/// A change that never comes to rest is looked at all the same after this many quiet times.
const LONGEST_DEBOUNCE: u32 = 10;

impl Watch {
    /// Watches what this config was read from. One without a file is never changed.
    #[must_use]
    pub fn new(origin: &Origin, loaded: &Loaded) -> Self {
        // One notice is as good as many.
        let (notify, notices) = mpsc::channel(1);
        let sender = notify.clone();
        let watcher = notify::recommended_watcher(move |_| {
            let _ = sender.try_send(());
        });
        let mut watch = Self {
            is_allowed: origin.watch && origin.text.is_none(),
            is_on: false,
            debounce: Duration::ZERO,
            _notify: notify,
            files: BTreeMap::new(),
            main: origin.path.clone(),
            notices,
            is_due: false,
            watcher: watcher.ok(),
            hasher: RandomState::new(),
        };
        watch.obey(&loaded.plan.reload);
        watch.follow(&loaded.files);
        watch
    }

    /// Watches, or does not, as the config says from now on.
    pub fn obey(&mut self, plan: &plan::Reload) {
        self.is_on = self.is_allowed && plan.watch;
        self.debounce = plan.debounce;
    }

    /// Watches these files beside the main one from now on.
    pub fn follow(&mut self, others: &[PathBuf]) {
        let mut files = BTreeMap::new();
        for path in others.iter().chain([&self.main]) {
            let seen = self.files.remove(path).unwrap_or_else(|| self.look(path));
            files.insert(path.clone(), seen);
        }
        self.files = files;
        let Some(watcher) = &mut self.watcher else { return };
        let folder = |path: &PathBuf| path.parent().map_or(PathBuf::from("."), Path::to_path_buf);
        for path in self.files.keys() {
            let folder = Some(folder(path)).filter(|folder| !folder.as_os_str().is_empty());
            // Watching a folder twice is watching it once. One that cannot be watched is looked at unasked.
            let _ = watcher.watch(&folder.unwrap_or_else(|| PathBuf::from(".")), RecursiveMode::NonRecursive);
        }
    }

    /// Whether edits apply by themselves.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Returns when the content of a file is another than when this last returned. May be dropped and called again.
    pub async fn changed(&mut self) {
        if !self.is_on {
            return std::future::pending().await;
        }
        loop {
            if !self.is_due {
                let noticed = timeout(UNASKED, self.notices.recv()).await.is_ok();
                // Kept: who drops this while it waits for quiet must not lose the notice.
                self.is_due = noticed || self.is_stamped_anew();
                continue;
            }
            for _ in 0..LONGEST_DEBOUNCE {
                sleep(self.debounce).await;
                if self.notices.try_recv().is_err() {
                    break;
                }
            }
            self.is_due = false;
            if self.has_other_content() {
                return;
            }
        }
    }

    fn is_stamped_anew(&self) -> bool {
        self.files.iter().any(|(path, seen)| stamp(path) != seen.stamp)
    }

    fn has_other_content(&mut self) -> bool {
        let paths: Vec<PathBuf> = self.files.keys().cloned().collect();
        let mut is_other = false;
        for path in paths {
            let seen = self.look(&path);
            let before = self.files.insert(path, seen.clone());
            is_other |= before.is_none_or(|before| before.content != seen.content);
        }
        is_other
    }

    fn look(&self, path: &Path) -> Seen {
        // The stamp first: what changes in between is then looked at again.
        let stamp = stamp(path);
        let content =
            read_start(path).ok().map(|start| self.hasher.hash_one((start, stamp.map(|(_, length, _)| length))));
        Seen { stamp, content }
    }
}

/// As much of a file as any of its readers takes.
fn read_start(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    open_regular(path)?.take(Source::LARGEST + 1).read_to_end(&mut start)?;
    Ok(start)
}

// Follows symlinks.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
