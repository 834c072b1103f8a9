//! Which config, and which gateway, is meant when none is named.

use std::path::{Path, PathBuf};

use super::{
    Trouble, env,
    print::{eprint, reason},
};
use crate::config::{self, Source, load};

/// The config that was named, or `$TIDEGATE_CONFIG`, or the first of the usual places where there is one.
pub(super) fn config(named: Option<&Path>) -> Result<PathBuf, Trouble> {
    first(named, env("TIDEGATE_CONFIG"), Path::exists).ok_or_else(|| {
        let [here, system] = PLACES;
        Trouble(format!(
            "no config: $TIDEGATE_CONFIG is not set, and there is neither ./{here} nor {system}. Name one, or try `tidegate demo`"
        ))
    })
}

/// The admin address that was named, or `$TIDEGATE_ADMIN`, or what the config says.
pub(super) fn admin(named: Option<&str>, config: Option<&Path>) -> Result<String, Trouble> {
    // A config that was named is meant; the environment is not asked then.
    let variable = || env("TIDEGATE_ADMIN").filter(|value| !value.is_empty() && config.is_none());
    if let Some(address) = named.map(str::to_owned).or_else(variable) {
        return Ok(address);
    }
    match first(config, env("TIDEGATE_CONFIG"), Path::exists) {
        Some(file) => admin_of(&file),
        None => Ok(ADMIN.to_owned()),
    }
}

const ADMIN: &str = "127.0.0.1:9901";

fn admin_of(file: &Path) -> Result<String, Trouble> {
    let name = file.display();
    let source = Source::read(file).map_err(|why| Trouble(format!("cannot read {name}: {}", reason(&why))))?;
    match load(&source, &env) {
        Ok(loaded) => match &loaded.plan.admin {
            Some(admin) => Ok(admin.bind.to_string()),
            None => Err(Trouble(format!("{name} says `admin: none`: that gateway cannot be asked"))),
        },
        // The gateway goes on with the config before this edit, and that is when somebody asks for its status.
        Err(_) => {
            let address = config::admin(&source, &env).map_or_else(|| ADMIN.to_owned(), |admin| admin.bind.to_string());
            eprint(format_args!("{name} has errors (see `tidegate check`): asking {address}\n"));
            Ok(address)
        }
    }
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
    fn a_config_with_errors_still_says_where_its_gateway_answers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.yaml");
        let routes = "listen: 8080\nroutes:\n  - path: /*\n      to: nobody\n  - { path: /b, to: nobody }\n";
        std::fs::write(&file, format!("{routes}admin: {{ bind: \"127.0.0.1:7\" }}\n")).unwrap();
        assert_eq!(admin_of(&file).unwrap(), "127.0.0.1:7");
        std::fs::write(&file, routes).unwrap();
        assert_eq!(admin_of(&file).unwrap(), ADMIN);
    }

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

    #[test]
    fn the_config_says_where_its_gateway_answers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let says = |admin: &str| {
            let text = format!("listen: 8080\n{admin}\nroutes: [{{ path: /*, to: 127.0.0.1:9001, health: tcp }}]\n");
            std::fs::write(file.path(), text).unwrap();
            admin_of(file.path()).map_err(|Trouble(what)| what)
        };
        assert_eq!(says("admin: { bind: \"127.0.0.1:9902\" }"), Ok("127.0.0.1:9902".to_owned()));
        assert_eq!(says(""), Ok(ADMIN.to_owned()));
        assert_eq!(says("admin: { bin: 1 }"), Ok(ADMIN.to_owned()));
        assert!(says("admin: none").is_err_and(|what| what.ends_with("cannot be asked")));
        assert!(admin_of(Path::new("no-such-folder/tidegate.yaml")).is_err());
    }
}
