//! A process' static configuration: one TOML file, overridden by the environment, all mistakes told at once.
//! It knows no key: the binaries say which there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use crate::state_dir::{self, StateError};

/// Exit code for wrong usage or configuration.
pub const EXIT_USAGE: u8 = 64;

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    fn one(problem: impl ToString) -> Self {
        Self { problems: vec![problem.to_string()] }
    }

    /// Prints the problems and gives the exit code.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(EXIT_USAGE)
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("configuration:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A configuration being read. Ask for each key once, then [`Self::finish`].
#[derive(Debug)]
pub struct Config {
    file: String,
    prefix: String,
    values: BTreeMap<String, Vec<String>>,
    environment: BTreeMap<String, String>,
    asked: BTreeSet<String>,
    problems: Vec<String>,
}

impl Config {
    /// Reads a flat TOML file of strings, numbers, booleans and lists of them. A variable `<PREFIX>_<KEY>` (list
    /// elements separated by commas) overrides a key. A missing file counts as empty.
    ///
    /// # Errors
    /// The file is unreadable or not TOML, with line and column.
    pub fn load(path: &Path, prefix: &str) -> Result<Self, ConfigError> {
        let text = match state_dir::read_text(path) {
            Ok(text) => text,
            Err(error) if StateError::is_not_found(&error) => String::new(),
            Err(error) => return Err(ConfigError::one(error)),
        };
        Self::parse(&path.display().to_string(), &text, prefix, std::env::vars_os().filter_map(utf8))
    }

    fn parse(
        file: &str,
        text: &str,
        prefix: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|error| ConfigError::one(format!("{file}: {error}")))?;
        let mut config = Self {
            file: file.to_owned(),
            prefix: prefix.to_owned(),
            values: BTreeMap::new(),
            environment: environment.collect(),
            asked: BTreeSet::new(),
            problems: Vec::new(),
        };
        for (key, value) in table {
            match strings(value) {
                Some(strings) => {
                    config.values.insert(key, strings);
                }
                None => {
                    config.problems.push(format!("{file}: `{key}` is neither a value nor a list of values"));
                }
            }
        }
        Ok(config)
    }

    /// A key that must be there.
    pub fn required<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        let found = self.single(key);
        if found.is_none() {
            self.problems.push(format!(
                "`{key}` is missing: set it in {} or as {}",
                self.file,
                self.variable(key)
            ));
        }
        found.and_then(|text| self.convert(key, &text))
    }

    /// A key that has a default.
    pub fn or<T: FromStr<Err: Display>>(&mut self, key: &str, default: T) -> Option<T> {
        match self.single(key) {
            Some(text) => self.convert(key, &text),
            None => Some(default),
        }
    }

    /// A list, empty if the key is missing.
    pub fn list<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<Vec<T>> {
        let texts = self.lookup(key).unwrap_or_default();
        let found = texts.len();
        let good: Vec<T> = texts.iter().filter_map(|text| self.convert(key, text)).collect();
        (good.len() == found).then_some(good)
    }

    /// Ends the reading: `build` puts the answers together (with `?`, as each is an `Option`).
    ///
    /// # Errors
    /// Every problem found, unknown keys included.
    pub fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, ConfigError> {
        for key in self.values.keys().filter(|key| !self.asked.contains(*key)) {
            let known = self.asked.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            self.problems.push(format!("{}: `{key}` is not a key; there are {known}", self.file));
        }
        match build() {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(ConfigError { problems: self.problems }),
        }
    }

    fn variable(&self, key: &str) -> String {
        format!("{}_{}", self.prefix, key.to_uppercase())
    }

    fn lookup(&mut self, key: &str) -> Option<Vec<String>> {
        self.asked.insert(key.to_owned());
        match self.environment.get(&self.variable(key)) {
            Some(text) => {
                Some(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect())
            }
            None => self.values.get(key).cloned(),
        }
    }

    fn single(&mut self, key: &str) -> Option<String> {
        if let Some(text) = self.environment.get(&self.variable(key)).cloned() {
            self.asked.insert(key.to_owned());
            return Some(text);
        }
        match self.lookup(key)?.as_slice() {
            [one] => Some(one.clone()),
            _ => {
                self.problems.push(format!("{}: `{key}` must be one value", self.file));
                None
            }
        }
    }

    fn convert<T: FromStr<Err: Display>>(&mut self, key: &str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("`{key}`: `{text}`: {error}"));
                None
            }
        }
    }
}

fn utf8((key, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((key.into_string().ok()?, value.into_string().ok()?))
}

fn strings(value: toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::Array(items) => items.into_iter().map(scalar).collect(),
        other => scalar(other).map(|one| vec![one]),
    }
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use super::*;

    type Sample = (PathBuf, SocketAddr, Vec<SocketAddr>);

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Sample, ConfigError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let mut config = Config::parse("agent.toml", text, "MUSTER_AGENT", environment)?;
        let state = config.or("state_dir", PathBuf::from("/var/lib/muster"));
        let listen = config.required("listen");
        let peers = config.list("peers");
        config.finish(|| Some((state?, listen?, peers?)))
    }

    #[test]
    fn environment_overrides_file_overrides_default() {
        let text = "listen = \"127.0.0.1:1\"\npeers = [\"127.0.0.1:2\"]";
        let (state, listen, peers) = read(text, &[("MUSTER_AGENT_LISTEN", "127.0.0.1:9")]).unwrap();
        assert_eq!((state, listen.port(), peers[0].port()), ("/var/lib/muster".into(), 9, 2));
        let listed = read(text, &[("MUSTER_AGENT_PEERS", "127.0.0.1:3, 127.0.0.1:4")]).unwrap().2;
        assert_eq!(listed.len(), 2);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let error = read("peers = [\"x\"]\nlisten_on = 3\n[a]\nb=1", &[]).unwrap_err().to_string();
        for part in [
            "`listen` is missing",
            "MUSTER_AGENT_LISTEN",
            "`peers`: `x`",
            "`listen_on` is not a key",
            "`a` is",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_syntax_error_names_the_line() {
        let error = read("listen = ", &[]).unwrap_err().to_string();
        assert!(error.contains("agent.toml") && error.contains("line 1"), "{error}");
    }
}
