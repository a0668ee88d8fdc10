//! Where contexts are stored and which one is meant. Opens no connection.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use muster_model::ids::Name;
use muster_runtime::state_dir::{self, PRIVATE};

use crate::exit::{Exit, Failure};

/// The first context, on the machine where the platform was made.
const OF_COORDINATOR: &str = "/var/lib/muster/coordinator/admin.context.json";

/// The directory of contexts.
#[derive(Debug, Clone)]
pub struct Contexts {
    dir: PathBuf,
}

impl Contexts {
    /// `$XDG_CONFIG_HOME/muster`, or `~/.config/muster`.
    ///
    /// # Errors
    /// There is no home directory.
    pub fn of_user() -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        let config = config.context("neither HOME nor XDG_CONFIG_HOME is set")?;
        Ok(Self::in_dir(&config.join("muster")))
    }

    /// In this directory.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.join("contexts")
    }

    /// Where the context of this name is, or would be.
    #[must_use]
    pub fn path(&self, name: &Name) -> PathBuf {
        self.store_dir().join(format!("{name}.json"))
    }

    /// Makes the directory, for its owner alone.
    ///
    /// # Errors
    /// It cannot be made, or others can enter it.
    pub fn prepare(&self) -> Result<()> {
        Ok(state_dir::create_private_dir(&self.store_dir())?)
    }

    /// Names of stored contexts, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> Result<Vec<Name>> {
        let dir = self.store_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| dir.display().to_string()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry?.file_name();
            let stem = file.to_str().and_then(|file| file.strip_suffix(".json"));
            names.extend(stem.and_then(|stem| Name::new(stem).ok()));
        }
        names.sort();
        Ok(names)
    }

    /// The one in use, if one was chosen and is still there.
    #[must_use]
    pub fn current(&self) -> Option<Name> {
        let text = fs::read_to_string(self.dir.join("current")).ok()?;
        Name::new(text.trim()).ok().filter(|name| self.path(name).exists())
    }

    /// Uses this one from now on.
    ///
    /// # Errors
    /// There is none of this name, or the choice cannot be written.
    pub fn set_current(&self, name: &Name) -> Result<()> {
        if !self.path(name).exists() {
            return Err(self.unknown(name.as_str()));
        }
        Ok(state_dir::write_atomic(&self.dir.join("current"), name.as_str().as_bytes(), PRIVATE)?)
    }

    /// The file that is meant by `--context`, or by nothing.
    ///
    /// # Errors
    /// It does not exist, or nothing says which one is meant.
    pub fn resolve(&self, wanted: Option<&str>) -> Result<PathBuf> {
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
            if wanted.contains(['/', '.']) {
                return Ok(PathBuf::from(wanted));
            }
            let path = Name::new(wanted).ok().map(|name| self.path(&name)).filter(|path| path.exists());
            return path
                .or_else(|| Some(PathBuf::from(wanted)).filter(|path| path.exists()))
                .ok_or_else(|| self.unknown(wanted));
        }
        if let Some(name) = self.current() {
            return Ok(self.path(&name));
        }
        let names = self.names()?;
        if let [only] = names.as_slice() {
            return Ok(self.path(only));
        }
        let local = PathBuf::from(OF_COORDINATOR);
        if names.is_empty() && local.exists() {
            return Ok(local);
        }
        let (message, hint) = if names.is_empty() {
            (
                "no context: this program does not know which platform to talk to",
                "`muster context import FILE`: the file is written by `muster-coordinator init`",
            )
        } else {
            (
                "several contexts and none in use",
                "`muster context ls` lists them, `muster context use NAME` chooses one",
            )
        };
        Err(Failure::new(Exit::Error, message).hint(hint).into())
    }

    fn unknown(&self, name: &str) -> anyhow::Error {
        let known: Vec<String> = self.names().unwrap_or_default().iter().map(ToString::to_string).collect();
        let hint = match muster_spec::nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "`muster context import FILE` stores one".to_owned(),
            None => format!("there are: {}", known.join(", ")),
        };
        Failure::new(Exit::Error, format!("no context `{name}`")).hint(hint).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_the_only_one_or_none_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::in_dir(dir.path());
        let name = |text| Name::new(text).unwrap();
        assert!(contexts.resolve(Some("shop")).is_err());
        contexts.prepare().unwrap();
        fs::write(contexts.path(&name("shop")), "{}").unwrap();
        assert_eq!(contexts.resolve(None).unwrap(), contexts.path(&name("shop")));
        fs::write(contexts.path(&name("test")), "{}").unwrap();
        assert!(contexts.resolve(None).is_err());
        contexts.set_current(&name("test")).unwrap();
        assert_eq!(contexts.resolve(None).unwrap(), contexts.path(&name("test")));
        assert_eq!(contexts.resolve(Some("shop")).unwrap(), contexts.path(&name("shop")));
        assert_eq!(contexts.resolve(Some("./x.json")).unwrap(), PathBuf::from("./x.json"));
        assert!(contexts.set_current(&name("gone")).is_err());
    }
}
