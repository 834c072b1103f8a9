//! Whether the config, or a file that it reads, has other content than before.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
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
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if !event.is_ok_and(|event| is_of_reading(event.kind)) {
                let _ = sender.try_send(());
            }
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
            self.come_to_rest().await;
            self.is_due = false;
            // Whatever it was about is looked at now.
            let _ = self.notices.try_recv();
            if self.has_other_content() {
                return;
            }
        }
    }

    /// Waits until the files have stayed as they are for the quiet time. Notices say nothing of that: most may be of other files in their
    /// folders, a log for example, and never end.
    async fn come_to_rest(&self) {
        let mut before = self.stamps();
        for _ in 0..LONGEST_DEBOUNCE {
            sleep(self.debounce).await;
            let now = self.stamps();
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.files.keys().map(|path| stamp(path)).collect()
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

/// To open or read a file changes nothing. Whoever took that for a notice would hear itself look, and look again, for ever.
fn is_of_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::load;

    const QUIET: Duration = Duration::from_millis(20);

    fn watch(folder: &Path) -> Watch {
        let path = folder.join("tidegate.yaml");
        let text =
            "listen: 8080\nreload: { debounce: 20ms }\nroutes: [{ path: /*, to: \"127.0.0.1:1\", health: none }]\n";
        fs::write(&path, text).unwrap();
        let loaded = load(&Source { path: path.clone(), text: text.to_owned() }, &|_| None).unwrap();
        Watch::new(&Origin { path, text: None, watch: true, log_format: None, env: |_| None }, &loaded)
    }

    #[tokio::test]
    async fn it_does_not_hear_itself_look() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = watch(folder.path());
        fs::write(folder.path().join("other.log"), "x").unwrap();
        assert!(timeout(QUIET * 20, watch.changed()).await.is_err());
        assert!(!watch.is_due && watch.notices.is_empty());
        // Nor anybody else who reads.
        fs::read(folder.path().join("tidegate.yaml")).unwrap();
        assert!(timeout(QUIET * 10, watch.notices.recv()).await.is_err());
    }

    #[tokio::test]
    async fn what_is_written_beside_the_config_delays_no_edit() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = watch(folder.path());
        watch.debounce = QUIET * 5;
        let (config, log) = (folder.path().join("tidegate.yaml"), folder.path().join("other.log"));
        let noise = async {
            loop {
                fs::write(&log, "x").unwrap();
                sleep(QUIET / 4).await;
            }
        };
        let edited = async {
            assert!(timeout(QUIET * 3, watch.changed()).await.is_err(), "nothing was edited yet");
            fs::write(&config, "listen: 8081\n").unwrap();
            // A round of quiet that the noise began, one that the edit began, and time for a slow machine.
            timeout(QUIET * 25, watch.changed()).await
        };
        tokio::select! {
            () = noise => unreachable!("it does not end"),
            edited = edited => assert!(edited.is_ok(), "the edit was not seen in time"),
        }
    }
}
