//! Runs what the tally still lacks, for as long as it may: an interrupted campaign goes on where it stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::platform::Platform;
use crate::run::{Scenario, TABLES, Table, explain, recorded};
use crate::tally;

/// What a campaign is about.
pub struct Campaign<'a> {
    /// Where runs are recorded and counted.
    pub tally: &'a Path,
    /// Only these items; empty = all.
    pub names: &'a [String],
    /// No run begins after this.
    pub most: Duration,
}

impl Campaign<'_> {
    /// Every item until the tally holds as many right runs as it asks for. An item that went wrong is left for the next
    /// campaign, on a fresh platform. True = none went wrong and nothing is left.
    ///
    /// # Errors
    /// An item does not exist, or the environment is unusable.
    pub fn run(&self) -> Result<bool> {
        for name in self.names {
            let known = TABLES.iter().flat_map(|table| table.scenarios).any(|s| s.name == name);
            ensure!(known, "no item {name}; `tests/show` lists them");
        }
        let platform = Platform::from_env()?;
        let begin = Instant::now();
        let (mut right, mut wrong, mut left) = (0, 0, 0);
        for table in TABLES {
            let mut stands = false;
            for scenario in table.scenarios.iter().filter(|scenario| self.wants(scenario)) {
                let missing = scenario.runs.saturating_sub(tally::right(self.tally, scenario.name)?);
                let mut done = 0;
                while done < missing && begin.elapsed() < self.most {
                    if !self.once(&platform, table, scenario, &mut stands)? {
                        wrong += 1;
                        break;
                    }
                    done += 1;
                }
                right += done;
                left += missing - done;
            }
            if stands {
                platform.testbed.down(false, false)?;
            }
        }
        println!("{right} passed, {wrong} failed, {} skipped", left - wrong.min(left));
        Ok(wrong == 0 && left == 0)
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        match self.names {
            [] => scenario.runs > 1,
            names => names.iter().any(|name| name == scenario.name),
        }
    }

    /// One run, on the table's platform; after a wrong one that platform is gone.
    fn once(
        &self,
        platform: &Platform,
        table: &Table,
        scenario: &Scenario,
        stands: &mut bool,
    ) -> Result<bool> {
        if !*stands {
            platform.testbed.down(false, false)?;
        }
        *stands = true;
        let prepared = (table.prepare)(platform);
        let run = tally::right(self.tally, scenario.name)? + 1;
        let result = prepared.and_then(|()| (scenario.act)(platform));
        let samples = recorded(platform, scenario.name, run, Some(self.tally), &result)?;
        println!("{} run {run} of {}: {samples}", scenario.name, scenario.runs);
        if let Err(error) = result {
            println!("   WRONG: {error:#}");
            explain(platform);
            platform.testbed.down(false, false)?;
            *stands = false;
            return Ok(false);
        }
        Ok(true)
    }
}
