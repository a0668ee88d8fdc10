//! `recover` and `restore`: a cluster of one out of what is left, on a coordinator that does not run. Docs:
//! `docs/tasks/coordinators.md`, and why it is safe: `docs/adr/0014-recovery.md`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use muster_consensus::{Beginning, Disk, Node, OsDisk, Position, Stopped, found};
use muster_core::recovery;
use muster_core::state::State;
use muster_core::version::{decode_state, encode_state};
use muster_model::ids::{HostId, LogIndex};
use muster_model::time::Timestamp;
use muster_runtime::clock::SystemClock;
use muster_runtime::snapshot_file::{self, STATE_MAX};

use crate::home::{Home, Known, NodeFile, group_name};
use crate::replica::Replica;
use crate::standing::{Answered, hello};

/// Entries left out: what others had behind the last known one has other numbers than what comes now.
const ENTRIES_SKIPPED: u64 = 1_000;
/// The log while it is written.
const NEW: &str = "log.new";

/// What `recover` is told.
#[derive(Debug)]
pub struct Recover {
    /// Directories of other survivors, or copies of them.
    pub others: Vec<PathBuf>,
    /// The operator has compared them by hand.
    pub compared: bool,
}

/// What `restore` is told.
#[derive(Debug)]
pub struct Restore {
    /// The snapshot.
    pub from: PathBuf,
    /// Also if this coordinator knows something newer.
    pub older: bool,
    /// Where others reach it from now on; absent = as before.
    pub advertise: Option<SocketAddr>,
}

/// Goes on from this coordinator's own log. What was done, line by line.
///
/// # Errors
/// It runs, a majority answers, another survivor knows more, or nobody has compared them.
pub async fn recover(home: &Home, wish: &Recover) -> Result<Vec<String>> {
    let _lock = home.lock()?;
    let node = ready(home)?;
    if finish_interrupted(home)? {
        return Ok(vec!["an interrupted recovery was finished".to_owned()]);
    }
    let disk = open(&home.path("log"))?;
    let own = Stopped::open(&disk)?;
    let mut lines = vec![line(&home.path("log"), &own)];
    let mut better = None;
    for dir in &wish.others {
        let dir = if dir.join("log").is_dir() { dir.join("log") } else { dir.clone() };
        let other = Stopped::open(&open(&dir)?)?;
        ensure!(
            other.platform() == own.platform(),
            "{} is of {}, this coordinator of {}",
            dir.display(),
            other.platform(),
            own.platform()
        );
        lines.push(line(&dir, &other));
        if other.position() > own.position() {
            better = Some(dir);
        }
    }
    let table = lines.join("\n");
    if let Some(better) = better {
        bail!(
            "{table}\n{} knows more than this one: run `recover` there, and let this one join anew",
            better.display()
        );
    }
    let voters = own.voters();
    if wish.others.is_empty() && !wish.compared && voters.len() > 1 {
        bail!(
            "{table}\nof {} coordinators with a vote only this one was looked at. If another one survived, compare: the \
             higher term wins, then the higher index; `--others DIRECTORY` does it with copies of their directories. If \
             this is the best of all that is left: `--i-have-compared`",
            voters.len()
        );
    }
    refuse_living(home, &node, &voters).await?;
    let mut replica = Replica::default();
    let at_ms = own.replay(&mut replica)?;
    let state = State::clone(&replica.state());
    let found = Found { state, at_ms, term: own.term(), from: own.position(), how: "recovered".to_owned() };
    drop((own, disk));
    let begun = begin(home, node, found, &BTreeSet::new())?;
    lines.extend(told(home, &begun)?);
    Ok(lines)
}

/// Goes on from a saved snapshot.
///
/// # Errors
/// As for [`recover`]; or the snapshot is damaged, another platform's, or older than what is known here.
pub async fn restore(home: &Home, wish: &Restore) -> Result<Vec<String>> {
    let _lock = home.lock()?;
    let mut node = ready(home)?;
    if finish_interrupted(home)? {
        return Ok(vec!["an interrupted recovery was finished".to_owned()]);
    }
    let size =
        std::fs::metadata(&wish.from).with_context(|| format!("reading {}", wish.from.display()))?.len();
    ensure!(size <= STATE_MAX + 4096, "{} is larger than any snapshot", wish.from.display());
    let file = std::fs::read(&wish.from).with_context(|| format!("reading {}", wish.from.display()))?;
    let (head, body) = snapshot_file::decode(&file).with_context(|| format!("{}", wish.from.display()))?;
    ensure!(
        head.platform_id == node.platform_id,
        "{} is of platform {} ({}), this coordinator of {} ({})",
        wish.from.display(),
        head.platform,
        head.platform_id,
        node.platform,
        node.platform_id
    );
    let mut from = Position { term: head.term, index: head.index };
    let (mut term, mut voters) = (head.term, Vec::new());
    let mut lines =
        vec![format!("{}  incarnation {}  index {}", wish.from.display(), head.incarnation, head.index)];
    if home.path("log").join("node.json").exists() {
        let disk = open(&home.path("log"))?;
        let own = Stopped::open(&disk)?;
        lines.push(line(&home.path("log"), &own));
        let newer = (node.incarnation, own.position().index) > (head.incarnation, head.index);
        if newer && !wish.older {
            bail!(
                "{}\nthis coordinator's own log is newer than the snapshot: `recover` loses less. To go back to the \
                 snapshot all the same: `--older`; what was changed since is then not known any more",
                lines.join("\n")
            );
        }
        (term, voters) = (term.max(own.term()), own.voters());
        from = Position {
            term: from.term.max(own.position().term),
            index: from.index.max(own.position().index),
        };
    }
    refuse_living(home, &node, &voters).await?;
    let state = decode_state(body).with_context(|| format!("{}", wish.from.display()))?;
    node.incarnation = node.incarnation.max(head.incarnation);
    node.advertise = wish.advertise.unwrap_or(node.advertise);
    let how = format!("restored from a snapshot of index {}", head.index);
    let at_ms = state.at.0;
    let begun = begin(home, node, Found { state, at_ms, term, from, how }, &BTreeSet::new())?;
    lines.extend(told(home, &begun)?);
    Ok(lines)
}

fn ready(home: &Home) -> Result<NodeFile> {
    if let Some(why) = home.removed()? {
        bail!("{why}");
    }
    home.node()
}

fn open(dir: &Path) -> Result<Arc<dyn Disk>> {
    ensure!(dir.is_dir(), "{} does not exist", dir.display());
    Ok(Arc::new(OsDisk::open(dir)?))
}

fn line(dir: &Path, of: &Stopped) -> String {
    let last = of.position();
    format!(
        "{}  coordinator {}  last term {}  last index {}",
        dir.display(),
        of.node(),
        last.term,
        last.index
    )
}

/// A group that can still decide must not get a second one beside it.
async fn refuse_living(home: &Home, node: &NodeFile, voters: &[Node]) -> Result<()> {
    let tls = home.tls(node, SystemClock::shared())?;
    let mut living = Vec::new();
    for other in voters.iter().filter(|other| other.id != node.node) {
        if let Answered::Hello(_) = hello(&other.endpoint, &other.key, &tls).await {
            living.push(other.endpoint.clone());
        }
    }
    if living.len() + 1 > voters.len() / 2 && !living.is_empty() {
        bail!(
            "{} run: with this coordinator they are a majority. Start it (`systemctl start muster-coordinator`), nothing \
             has to be recovered",
            living.join(" and ")
        );
    }
    Ok(())
}

/// What a new incarnation begins with.
pub(crate) struct Found {
    pub state: State,
    pub at_ms: u64,
    pub term: u64,
    pub from: Position,
    pub how: String,
}

/// What began.
pub(crate) struct Begun {
    pub incarnation: u64,
    /// Where the log before is kept.
    pub aside: PathBuf,
}

/// What an operator is told after it, and does next.
fn told(home: &Home, begun: &Begun) -> Result<Vec<String>> {
    let node = home.node()?;
    Ok(vec![
        format!("the log before is kept in {}", begun.aside.display()),
        format!(
            "incarnation {} of platform {} begins with this coordinator alone, {} at {}",
            begun.incarnation, node.platform, node.name, node.advertise
        ),
        "next, here:\n  systemctl start muster-coordinator".to_owned(),
        "the others do not come back as they were: empty their directories, then `muster-coordinator join`"
            .to_owned(),
    ])
}

/// Everything new is written aside first: until the last step this can be done again. Hosts that are `lost` are not waited
/// for.
pub(crate) fn begin(
    home: &Home,
    node: NodeFile,
    found_here: Found,
    lost: &BTreeSet<HostId>,
) -> Result<Begun> {
    let Found { mut state, at_ms, term, from, how } = found_here;
    let key = home.key()?.digest().to_string();
    let index = from.index + ENTRIES_SKIPPED;
    let at_ms = at_ms.max(SystemClock::shared().now_ms());
    let incarnation = node.incarnation + 1;
    let beginning = recovery::Beginning {
        node: node.node,
        incarnation,
        index: LogIndex(index),
        at: Timestamp(at_ms),
        how,
    };
    ensure!(recovery::begin(&mut state, &beginning, lost), "there is no platform in it");
    let node = NodeFile {
        known: vec![Known { node: node.node, endpoint: node.advertise.to_string(), key_digest: key.clone() }],
        has_log: true,
        incarnation,
        ..node
    };
    let new = home.path(NEW);
    if new.exists() {
        std::fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()))?;
    }
    std::fs::create_dir(&new).with_context(|| format!("making {}", new.display()))?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::open(&new)?);
    let member = Node { id: node.node, endpoint: node.advertise.to_string(), key };
    let group = group_name(&node.platform_id, incarnation);
    let body = encode_state(&state);
    let from = Position { term: from.term, index };
    found(&disk, &Beginning { platform: &group, node: member, from, term, at_ms, body: &body })?;
    drop(disk);
    home.store_node(&node)?;
    let aside = home.path(&format!("log.before-{incarnation}"));
    if home.path("log").exists() {
        std::fs::rename(home.path("log"), &aside)
            .with_context(|| format!("renaming to {}", aside.display()))?;
    }
    finish_interrupted(home)?;
    Ok(Begun { incarnation, aside })
}

/// The last step: true = it was still to be done.
fn finish_interrupted(home: &Home) -> Result<bool> {
    let (log, new) = (home.path("log"), home.path(NEW));
    if log.join("node.json").exists() || !new.join("node.json").exists() {
        return Ok(false);
    }
    if log.exists() {
        // A start in between made it; there is nothing in it but its lock.
        std::fs::remove_file(log.join("lock")).ok();
        std::fs::remove_dir(&log)
            .with_context(|| format!("{} has no node.json, and is not empty", log.display()))?;
    }
    std::fs::rename(&new, &log).with_context(|| format!("renaming {}", new.display()))?;
    std::fs::File::open(home.path(""))?.sync_all()?;
    Ok(true)
}
