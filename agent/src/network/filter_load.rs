//! Loads the packet filter in one transaction when it is not what was loaded last, whoever changed it.

use super::command::{CommandError, run};
use super::filter::Ruleset;
use super::problem::Problem;
use super::sysctl;

/// What was loaded, and what the kernel said of it right afterwards.
#[derive(Debug, Default)]
pub struct Filter {
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    text: String,
    listing: String,
    /// Whether frames on one bridge are filtered by table `bridge muster`.
    frames: bool,
}

impl Filter {
    /// Compares what is loaded with what must be, to the letter, and replaces both tables as a whole if need be.
    pub async fn ensure(&mut self, wanted: &Ruleset) -> Vec<Problem> {
        if wanted.is_empty() {
            self.loaded = None;
            return remove().await.err().map(failed).into_iter().collect();
        }
        let text = format!("{}{}", wanted.inet(), wanted.bridge());
        let mut problems = Vec::new();
        if let Some(loaded) = self.loaded.take_if(|loaded| loaded.text != text) {
            tracing::debug!(bytes = loaded.text.len(), "the plan's port rules changed");
        }
        if let Some(loaded) = &self.loaded
            && listing(loaded.frames).await.as_ref() != Ok(&loaded.listing)
        {
            problems.push(Problem::note(
                "net-filter-changed",
                "our nftables tables were flushed or edited by somebody else: loaded again; look for `nft flush \
                 ruleset` or a firewall service that reloads",
            ));
            self.loaded = None;
        }
        if self.loaded.is_none() {
            match load(wanted).await {
                Ok(frames) => match listing(frames).await {
                    Ok(listing) => self.loaded = Some(Loaded { text, listing, frames }),
                    Err(message) => problems.push(Problem::everything("net-filter", message)),
                },
                Err(error) => problems.push(failed(error)),
            }
        }
        problems.extend(self.frames_unfiltered().await);
        problems
    }

    /// Frames between members on one bridge must pass one of the two tables.
    async fn frames_unfiltered(&self) -> Option<Problem> {
        let loaded = self.loaded.as_ref()?;
        let bridged = sysctl::bridged_packets_are_filtered().await;
        (!loaded.frames && !bridged).then(|| {
            Problem::everything(
                "net-bridge-filter",
                "members on one bridge cannot be kept apart: the kernel has neither nftables for family `bridge` nor \
                 br_netfilter; run `modprobe br_netfilter` or install a kernel that has one of them",
            )
        })
    }
}

fn failed(error: CommandError) -> Problem {
    Problem::everything(
        "net-filter",
        format!("the packet filter cannot be loaded, so no member starts: {error}"),
    )
}

/// Loads both tables, or only the first where the kernel has no filter for bridges. Says whether frames are filtered.
async fn load(wanted: &Ruleset) -> Result<bool, CommandError> {
    let (inet, bridge) = (replace("inet", &wanted.inet()), replace("bridge", &wanted.bridge()));
    if run("nft", &["-f", "-"], &format!("{inet}{bridge}")).await.is_ok() {
        return Ok(true);
    }
    run("nft", &["-f", "-"], &inet).await?;
    Ok(false)
}

/// Declared first, so that deleting it never fails.
fn replace(family: &str, table: &str) -> String {
    format!("table {family} muster\ndelete table {family} muster\n{table}")
}

/// The tables as the kernel has them, without counters.
async fn listing(frames: bool) -> Result<String, String> {
    let show = async |family| {
        run("nft", &["-s", "list", "table", family, "muster"], "").await.map_err(|error| error.to_string())
    };
    let mut text = show("inet").await?;
    if frames {
        text.push_str(&show("bridge").await?);
    }
    Ok(text)
}

/// Removes both tables, if they are there.
pub async fn remove() -> Result<(), CommandError> {
    let tables = run("nft", &["list", "tables"], "").await?;
    for family in ["inet", "bridge"] {
        if tables.lines().any(|line| line.trim() == format!("table {family} muster")) {
            run("nft", &["delete", "table", family, "muster"], "").await?;
        }
    }
    Ok(())
}
