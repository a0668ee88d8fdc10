//! One parser under test: how often it is run, where its corpus is, and what is printed of a run.

use std::cell::Cell;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

/// Executions of a target when the environment says nothing.
const CASES: u32 = 256;
/// Longest time for one input, on a machine that does other things too.
const SLOW: Duration = Duration::from_secs(10);

/// A parser under test. Its corpus is the folder `tests/corpus/NAME` of its crate; inputs that failed once are kept as
/// seeds in `tests/corpus/NAME.seeds`, and run first.
pub struct Target {
    name: &'static str,
    corpus: PathBuf,
    weight: u32,
}

impl Target {
    /// Of the crate in this folder, which is its `CARGO_MANIFEST_DIR`.
    #[must_use]
    pub fn new(name: &'static str, of: &str) -> Self {
        Self { name, corpus: Path::new(of).join("tests/corpus").join(name), weight: 1 }
    }

    /// One execution costs as much as this many others: it is run less often.
    #[must_use]
    pub fn heavy(self, weight: u32) -> Self {
        Self { weight: weight.max(1), ..self }
    }

    /// Executions: `PROPTEST_CASES`, or 256, for a target of weight 1.
    fn cases(&self) -> u32 {
        let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
        (asked.unwrap_or(CASES) / self.weight).max(1)
    }

    /// Runs the property, which panics when it does not hold, on random values. Prints one line:
    /// `target NAME executions N failures N`.
    ///
    /// # Panics
    /// It does not hold, or one execution takes too long; says for which value, the smallest that was found.
    pub fn holds<S: Strategy>(&self, values: S, property: impl Fn(S::Value)) {
        let seeds: &'static str = self.corpus.with_extension("seeds").display().to_string().leak();
        let config = Config {
            cases: self.cases(),
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
            ..Config::default()
        };
        let executions = Cell::new(0_u64);
        let outcome = TestRunner::new(config).run(&values, |value| {
            executions.set(executions.get() + 1);
            let began = Instant::now();
            property(value);
            assert!(began.elapsed() < SLOW, "took {:?}", began.elapsed());
            Ok(())
        });
        self.tell(executions.get(), u64::from(outcome.is_err()));
        if let Err(error) = outcome {
            panic!("{}: {error}; its seed is in {seeds}", self.name);
        }
    }

    /// Runs the property on every file of the corpus.
    ///
    /// # Panics
    /// There is none, or it does not hold for one.
    pub fn replay(&self, property: impl Fn(&[u8])) {
        let inputs = self.inputs();
        for (name, input) in &inputs {
            println!("corpus {} {name}: {} bytes", self.name, input.len());
            property(input);
        }
        self.tell(inputs.len() as u64, 0);
    }

    /// The files of the corpus by name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn inputs(&self) -> Vec<(String, Vec<u8>)> {
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for entry in std::fs::read_dir(&self.corpus).into_iter().flatten().flatten() {
            let input = std::fs::read(entry.path()).expect("a file of the corpus can be read");
            found.push((entry.file_name().to_string_lossy().into_owned(), input));
        }
        assert!(!found.is_empty(), "{} has no corpus", self.corpus.display());
        found.sort();
        found
    }

    /// The corpus without names, to be damaged.
    #[must_use]
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        self.inputs().into_iter().map(|(_, input)| input).collect()
    }

    fn tell(&self, executions: u64, failures: u64) {
        println!("target {} executions {executions} failures {failures}", self.name);
    }
}

/// For properties that look at a value more than once.
impl Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;

    use super::*;

    fn target(folder: &tempfile::TempDir) -> Target {
        Target::new("t", folder.path().to_str().unwrap())
    }

    #[test]
    fn what_does_not_hold_fails_with_the_smallest_value_and_keeps_its_seed() {
        let folder = tempfile::tempdir().unwrap();
        let seeds = folder.path().join("tests/corpus/t.seeds");
        std::fs::create_dir_all(seeds.parent().unwrap()).unwrap();
        target(&folder).holds(any::<u16>(), |_| {});
        assert!(!seeds.exists());
        let wrong = || target(&folder).holds(any::<u16>(), |number| assert!(number < 300));
        let said = std::panic::catch_unwind(wrong).unwrap_err();
        let said = said.downcast_ref::<String>().unwrap();
        assert!(said.contains("minimal failing input: 300"), "{said}");
        assert!(std::fs::read_to_string(seeds).unwrap().contains("cc "), "no seed was kept");
    }

    #[test]
    fn a_corpus_is_replayed_and_an_empty_one_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(std::panic::catch_unwind(|| target(&folder).replay(|_| {})).is_err());
        let corpus = folder.path().join("tests/corpus/t");
        std::fs::create_dir_all(&corpus).unwrap();
        std::fs::write(corpus.join("b"), "2").unwrap();
        std::fs::write(corpus.join("a"), "1").unwrap();
        let seen = Cell::new(Vec::new());
        target(&folder).replay(|input| {
            let mut all = seen.take();
            all.extend_from_slice(input);
            seen.set(all);
        });
        assert_eq!(seen.take(), b"12");
    }
}
