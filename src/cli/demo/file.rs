//! The config that the demo runs on: a file like any other, so that it can be edited while the demo runs.
//!
//! A file that is there already is never written to. What the demo wrote and nobody edited is removed at the end.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::super::{Trouble, print::reason};

/// The config's text, in block style: a line can be added below any other.
pub(super) fn text(listen: SocketAddr, admin: SocketAddr, backends: &[(&str, SocketAddr)]) -> String {
    let backends: String =
        backends.iter().map(|(name, at)| format!("      - name: {name}\n        url: \"{at}\"\n")).collect();
    format!(
        "# The config of `tidegate demo`. Edit it while the demo runs: what you save is live at once, or refused with the reason.
listen: \"{listen}\"
admin:
  bind: \"{admin}\"
upstreams:
  samples:
    backends:
{backends}    health:
      active:
        path: /health
        interval: 1s
        interval_changing: 500ms
        healthy_after: 2
        unhealthy_after: 3
routes:
  - path: /*
    to: samples
",
    )
}

/// The file, until this is dropped.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    text: String,
    is_ours: bool,
}

/// Names that are tried.
const MAX_NAMES: usize = 20;

impl File {
    /// Writes the text to a file of this folder that is new, or finds one that holds just this.
    pub(super) fn create(folder: &Path, text: String) -> Result<Self, Trouble> {
        for number in 1..=MAX_NAMES {
            let name =
                if number == 1 { "tidegate-demo.yaml".to_owned() } else { format!("tidegate-demo-{number}.yaml") };
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    let this = Self { path, text, is_ours: true };
                    let written = file.write_all(this.text.as_bytes());
                    return written.map_err(|why| cannot_write(&this.path, &why)).map(|()| this);
                }
                Err(why) if why.kind() != ErrorKind::AlreadyExists => return Err(cannot_write(&path, &why)),
                Err(_) if holds(&path, &text) => return Ok(Self { path, text, is_ours: false }),
                Err(_) => {}
            }
        }
        Err(Trouble(format!("{MAX_NAMES} edited tidegate-demo files are here already; remove some")))
    }

    /// Whether somebody made something else of it, and it is there still.
    pub(super) fn is_edited(&self) -> bool {
        fs::read(&self.path).is_ok_and(|bytes| bytes != self.text.as_bytes())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.is_ours && holds(&self.path, &self.text) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn holds(path: &Path, text: &str) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

fn cannot_write(path: &Path, why: &std::io::Error) -> Trouble {
    Trouble(format!("cannot write {}: {}", path.display(), reason(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, load, plan::Bind};

    #[test]
    fn the_config_loads_without_a_finding() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = text(at(8080), at(9901), &[("steady", at(41001)), ("slow", at(41002)), ("flaky", at(41003))]);
        let load = |text| load(&Source { path: "tidegate-demo.yaml".into(), text }, &|_| None).unwrap();
        let edited = load(format!("{text}    limit: 5/s per ip\n"));
        assert!(edited.warnings.is_empty(), "{}", edited.warnings.short());
        let loaded = load(text);
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.short());
        let upstream = loaded.plan.upstreams.values().next().unwrap();
        let names: Vec<&str> = upstream.backends.iter().map(|backend| backend.name.as_str()).collect();
        assert_eq!(names, ["steady", "slow", "flaky"]);
        assert_eq!(loaded.plan.admin.as_ref().map(|admin| &admin.bind), Some(&Bind::Tcp(at(9901))));
    }

    #[test]
    fn what_is_there_is_never_overwritten_and_what_was_edited_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let there = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        fs::write(folder.path().join("tidegate-demo.yaml"), "somebody's").unwrap();

        let first = File::create(folder.path(), "a".into()).unwrap();
        assert_eq!(first.path.file_name().unwrap(), "tidegate-demo-2.yaml");
        let same = File::create(folder.path(), "a".into()).unwrap();
        assert_eq!(same.path, first.path);
        let other = File::create(folder.path(), "b".into()).unwrap();
        assert_eq!(other.path.file_name().unwrap(), "tidegate-demo-3.yaml");

        drop(same);
        assert_eq!(there("tidegate-demo-2.yaml").as_deref(), Some("a"));
        drop(first);
        assert_eq!(there("tidegate-demo-2.yaml"), None);
        fs::write(&other.path, "edited").unwrap();
        assert!(other.is_edited());
        let deleted = File::create(folder.path(), "c".into()).unwrap();
        fs::remove_file(&deleted.path).unwrap();
        assert!(!deleted.is_edited(), "what is gone is not kept");
        drop(other);
        assert_eq!(there("tidegate-demo-3.yaml").as_deref(), Some("edited"));
        assert_eq!(there("tidegate-demo.yaml").as_deref(), Some("somebody's"));
    }
}
