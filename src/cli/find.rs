//! Which config is meant when none is named.

use std::path::{Path, PathBuf};

use super::{Trouble, env};
use crate::config::{Source, load};

/// The config that was named, or `$TIDEGATE_CONFIG`, or the first of the usual places where there is one.
pub(super) fn config(named: Option<&Path>) -> Result<PathBuf, Trouble> {
    first(named, env("TIDEGATE_CONFIG"), Path::exists).ok_or_else(|| {
        let [here, system] = PLACES;
        Trouble(format!(
            "no config: $TIDEGATE_CONFIG is not set, and there is neither ./{here} nor {system}. Name one, or try `tidegate demo`"
        ))
    })
}

/// The admin address that was named, or `$TIDEGATE_ADMIN`, or that of the config, or the default.
pub(super) fn admin(named: Option<&str>, file: Option<&Path>) -> String {
    let variable = || env("TIDEGATE_ADMIN").filter(|value| !value.is_empty());
    let of_config = || {
        let source = Source::read(config(file).ok()?).ok()?;
        let loaded = load(&source, &env).ok()?;
        loaded.plan.admin.as_ref().map(|admin| admin.bind.to_string())
    };
    named.map(str::to_owned).or_else(variable).or_else(of_config).unwrap_or_else(|| "127.0.0.1:9901".to_owned())
}

const PLACES: [&str; 2] = ["tidegate.yaml", "/etc/tidegate/tidegate.yaml"];

/// What was named is taken as it is: if it cannot be read, that is better said than passed over.
fn first(named: Option<&Path>, variable: Option<String>, exists: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    let usual = || PLACES.iter().map(PathBuf::from).find(|place| exists(place));
    named.map(Path::to_owned).or(variable).or_else(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_wins_over_the_environment_and_the_usual_places() {
        let found = |named: Option<&str>, variable: &str, existing: &[&str]| {
            let exists = |path: &Path| existing.iter().any(|one| path == Path::new(one));
            first(named.map(Path::new), Some(variable.to_owned()), exists).map(|path| path.display().to_string())
        };
        assert_eq!(found(Some("a.yaml"), "b.yaml", &PLACES).as_deref(), Some("a.yaml"));
        assert_eq!(found(None, "b.yaml", &PLACES).as_deref(), Some("b.yaml"));
        assert_eq!(found(None, "", &PLACES).as_deref(), Some("tidegate.yaml"));
        assert_eq!(found(None, "", &PLACES[1..]).as_deref(), Some("/etc/tidegate/tidegate.yaml"));
        assert_eq!(found(None, "", &[]), None);
    }
}
