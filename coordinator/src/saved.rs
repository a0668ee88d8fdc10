//! Snapshots for people: the file of one, and those that each coordinator keeps by itself. Raft's own are another matter.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use muster_core::state::State;
use muster_core::version::encode_state;
use muster_runtime::snapshot_file::{self, Head};
use muster_runtime::state_dir::{PRIVATE, create_private_dir, write_atomic};
use muster_runtime::tasks::OnError;

use crate::home::Home;
use crate::rpc::identity::PROGRAM;
use crate::run::Parts;

/// Between two looks at the age of the newest one.
const LOOK: Duration = Duration::from_secs(1);
const SUFFIX: &str = ".muster-snapshot";

/// How often, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Age of the newest one at which another is made.
    pub every: Duration,
    /// The newest ones that stay; 0 = none are made.
    pub keep: usize,
}

/// The file; absent before the platform was made.
#[must_use]
pub fn file(state: &State, term: u64) -> Option<Vec<u8>> {
    let platform = state.platform.as_ref()?;
    let head = Head {
        muster_snapshot: snapshot_file::FORMAT,
        platform_id: platform.id.clone(),
        platform: platform.name.clone(),
        incarnation: platform.incarnation,
        index: state.index.0,
        term,
        at_ms: state.at.0,
        program: PROGRAM.to_owned(),
        length: 0,
        sha256: String::new(),
    };
    Some(snapshot_file::encode(head, &encode_state(state)))
}

/// Keeps the newest ones in `snapshots`; a full disk or the like is said, and tried again.
pub fn start(home: &Home, parts: &Parts, schedule: Schedule) {
    if schedule.keep == 0 {
        return;
    }
    let (dir, parts) = (home.path("snapshots"), parts.clone());
    let (tasks, stop) = (parts.tasks.clone(), parts.tasks.token());
    tasks.spawn("snapshots", OnError::Log, async move {
        let mut tick = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let (dir, state) = (dir.clone(), parts.replica.state());
            let term = parts.consensus.status().term;
            let kept = tokio::task::spawn_blocking(move || keep(&dir, schedule, &state, term)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(error = format!("{error:#}"), "a snapshot could not be kept, trying on");
                tokio::time::sleep(schedule.every.min(Duration::from_secs(60))).await;
            }
        }
        Ok::<(), Infallible>(())
    });
}

/// Newest first.
fn kept(dir: &Path) -> Result<Vec<(SystemTime, PathBuf)>> {
    create_private_dir(dir)?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(SUFFIX) {
            all.push((std::fs::metadata(&path)?.modified()?, path));
        }
    }
    all.sort();
    all.reverse();
    Ok(all)
}

fn keep(dir: &Path, schedule: Schedule, state: &State, term: u64) -> Result<()> {
    let before = kept(dir)?;
    // A clock that was set back counts as old: better one too many.
    let fresh = |at: &SystemTime| at.elapsed().is_ok_and(|age| age < schedule.every);
    if before.first().is_some_and(|(at, _)| fresh(at)) {
        return Ok(());
    }
    let Some(file) = file(state, term) else { return Ok(()) };
    let incarnation = state.platform.as_ref().map_or(0, |platform| platform.incarnation);
    let name = format!("{incarnation:04}-{:012}{SUFFIX}", state.index.0);
    write_atomic(&dir.join(name), &file, PRIVATE)?;
    for (_, old) in kept(dir)?.into_iter().skip(schedule.keep) {
        std::fs::remove_file(old)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_core::apply::apply;
    use muster_core::command::{Command, LogMeta, What};
    use muster_model::ids::{LogIndex, Name};
    use muster_model::time::Timestamp;

    use super::*;

    #[test]
    fn the_newest_are_kept_and_each_can_be_read() {
        let root = std::env::temp_dir().join(format!("muster-saved-{}", std::process::id()));
        let mut state = State::default();
        let schedule = Schedule { every: Duration::ZERO, keep: 2 };
        keep(&root, schedule, &state, 1).unwrap();
        assert!(kept(&root).unwrap().is_empty());
        let init = What::Init { id: "x".to_owned(), name: Name::new("shop").unwrap() };
        let meta = |index| LogMeta { index: LogIndex(index), at: Timestamp(index) };
        apply(&mut state, &Command::internal(init), meta(1)).unwrap();
        for index in 2..6 {
            let audit = What::Audit { action: "test".to_owned() };
            apply(&mut state, &Command::internal(audit), meta(index)).unwrap();
            keep(&root, schedule, &state, 1).unwrap();
        }
        let left = kept(&root).unwrap();
        assert_eq!(left.len(), 2);
        let file = std::fs::read(&left[0].1).unwrap();
        assert_eq!(snapshot_file::decode(&file).unwrap().0.index, 5);
        let long = Schedule { every: Duration::from_secs(3600), keep: 2 };
        apply(&mut state, &Command::internal(What::Audit { action: String::new() }), meta(7)).unwrap();
        keep(&root, long, &state, 1).unwrap();
        assert_eq!(kept(&root).unwrap(), left);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
