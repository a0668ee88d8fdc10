//! `muster-agent uninstall`: takes everything of ours off a host that was removed from its platform. Without `--yes` it
//! only says what it would do.

mod membership;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use muster_runtime::state_dir::{StateDir, StateError};

use self::membership::{Membership, membership};
use crate::network::bridges::interface_exists;
use crate::network::command::run as command;
use crate::network::names::DEVICE;
use crate::network::{forget_chain, routes};
use crate::runtime::docker_leftovers::Leftovers;

/// Tables of the packet filter that the agent may have made.
const TABLES: [(&str, &str); 5] = [
    ("inet", "muster"),
    ("bridge", "muster"),
    ("inet", "muster_gone"),
    ("inet", "muster_dead"),
    ("inet", "muster_drill"),
];

/// Below the state directory: data of members, which only `--volumes` removes.
const DATA: [&str; 2] = ["members", "quarantine"];

/// Where wg(8) looks for userspace programs.
const SOCKETS: &str = "/run/wireguard";

/// What may be removed.
#[derive(Debug, Clone, Args)]
pub struct UninstallArgs {
    /// Do it; without this it is only said.
    #[arg(long)]
    pub yes: bool,
    /// Remove the data of members too.
    #[arg(long)]
    pub volumes: bool,
    /// Although a coordinator still takes this host for one of its own.
    #[arg(long)]
    pub force: bool,
    /// Docker's socket.
    #[arg(long, env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    pub docker: String,
    /// Directory of rendered files.
    #[arg(long, env = "MUSTER_AGENT_FILES", default_value = "/run/muster")]
    pub files_dir: PathBuf,
}

/// One thing of ours on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Container { id: String, name: String },
    Network { id: String, name: String },
    Table { family: &'static str, name: &'static str },
    Chain,
    Route(String),
    Device,
    Mount(PathBuf),
    Path(PathBuf),
}

impl Thing {
    fn text(&self) -> String {
        match self {
            Self::Container { name, .. } => format!("container {name}"),
            Self::Network { name, .. } => format!("Docker network {name}"),
            Self::Table { family, name } => format!("nftables table {family} {name}"),
            Self::Chain => "iptables chain MUSTER-FWD".to_owned(),
            Self::Route(route) => format!("route {route}"),
            Self::Device => format!("network device {DEVICE}"),
            Self::Mount(path) => format!("memory file system {}", path.display()),
            Self::Path(path) => path.display().to_string(),
        }
    }
}

/// Says what is to be removed, or removes it. In this order, so that nothing runs unprotected: containers first.
///
/// # Errors
/// The host still belongs to a platform, its agent runs, or something could not be removed.
pub async fn run(args: &UninstallArgs, state: &Path) -> anyhow::Result<()> {
    // An agent that runs would put everything back.
    let held = lock(state)?;
    refuse_members(membership(state).await, args)?;
    let engine = Leftovers::find(&args.docker).await.map_err(anyhow::Error::msg);
    let engine = engine.context("the Docker Engine must answer, so that nothing of ours is left in it")?;
    let things = inventory(&engine, args, state).await?;
    if things.is_empty() {
        println!("nothing of ours is on this host");
        return Ok(());
    }
    let verb = if args.yes { "removed" } else { "would remove" };
    let mut left = 0;
    for thing in &things {
        let done = if args.yes { remove(&engine, thing).await } else { Ok(()) };
        match done {
            Ok(()) => println!("{verb} {}", thing.text()),
            Err(error) => {
                left += 1;
                eprintln!("NOT removed: {}: {error:#}", thing.text());
            }
        }
    }
    drop(held);
    kept(args, state);
    if !args.yes {
        println!("nothing was done: say it again with --yes");
    }
    if left > 0 {
        bail!(
            "{left} of {} could not be removed: put right what is said above, and say it again",
            things.len()
        );
    }
    Ok(())
}

fn lock(state: &Path) -> anyhow::Result<Option<StateDir>> {
    if !state.exists() {
        return Ok(None);
    }
    match StateDir::open(state) {
        Ok(held) => Ok(Some(held)),
        Err(StateError::InUse { .. }) => {
            bail!("the agent runs: `systemctl disable --now muster-agent muster-mesh` first")
        }
        Err(error) => Err(error.into()),
    }
}

fn refuse_members(membership: Membership, args: &UninstallArgs) -> anyhow::Result<()> {
    match membership {
        Membership::Member if !args.force => bail!(
            "a coordinator still takes this host for one of its own: `muster host drain` and `muster host remove` \
             first, or --force if its members may be lost"
        ),
        Membership::Unknown(why) => println!("no coordinator answers ({why}); going on"),
        Membership::Member => {
            println!("a coordinator still takes this host for one of its own; going on (--force)");
        }
        Membership::Removed | Membership::None => {}
    }
    Ok(())
}

/// What is there, in the order in which it is removed.
async fn inventory(engine: &Leftovers, args: &UninstallArgs, state: &Path) -> anyhow::Result<Vec<Thing>> {
    let mut things = Vec::new();
    for (id, name) in &engine.containers {
        things.push(Thing::Container { id: id.clone(), name: name.clone() });
    }
    for network in &engine.networks {
        things.push(Thing::Network { id: network.id.clone(), name: network.name.clone() });
    }
    let tables = command("nft", &["list", "tables"], "").await?;
    let there =
        |family: &str, name: &str| tables.lines().any(|line| line.trim() == format!("table {family} {name}"));
    let found = TABLES.into_iter().filter(|(family, name)| there(family, name));
    things.extend(found.map(|(family, name)| Thing::Table { family, name }));
    if command("iptables-save", &["-t", "filter"], "").await?.contains(":MUSTER-FWD ") {
        things.push(Thing::Chain);
    }
    things.extend(routes::ours().await?.into_iter().map(Thing::Route));
    if interface_exists(DEVICE) {
        things.push(Thing::Device);
    }
    things.extend(sockets(Path::new(SOCKETS)).into_iter().map(Thing::Path));
    if is_mounted(&args.files_dir) {
        things.push(Thing::Mount(args.files_dir.clone()));
    }
    if args.files_dir.exists() {
        things.push(Thing::Path(args.files_dir.clone()));
    }
    things.extend(paths(state, args.volumes).into_iter().map(Thing::Path));
    Ok(things)
}

/// What a userspace WireGuard program leaves: its socket, and the directory if it holds nothing else.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let socket = dir.join(format!("{DEVICE}.sock"));
    if !socket.exists() {
        return Vec::new();
    }
    let alone = fs::read_dir(dir).is_ok_and(|entries| entries.count() == 1);
    if alone { vec![dir.to_owned()] } else { vec![socket] }
}

/// What of the state directory goes: all of it, unless data of members is to stay.
fn paths(state: &Path, volumes: bool) -> Vec<PathBuf> {
    if !state.exists() {
        return Vec::new();
    }
    if volumes || !has_data(state) {
        return vec![state.to_owned()];
    }
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    let goes = |path: &PathBuf| !DATA.iter().any(|data| path.ends_with(data));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(goes).collect();
    paths.sort();
    paths
}

fn has_data(state: &Path) -> bool {
    DATA.iter().any(|data| fs::read_dir(state.join(data)).is_ok_and(|mut entries| entries.next().is_some()))
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == path))
}

async fn remove(engine: &Leftovers, thing: &Thing) -> anyhow::Result<()> {
    match thing {
        Thing::Container { id, .. } => engine.remove_container(id).await.map_err(anyhow::Error::msg)?,
        Thing::Network { id, .. } => engine.remove_network(id).await.map_err(anyhow::Error::msg)?,
        Thing::Table { family, name } => {
            command("nft", &["delete", "table", family, name], "").await.map(drop)?;
        }
        Thing::Chain => forget_chain().await?,
        Thing::Route(route) => {
            let words: Vec<&str> = ["route", "del"].into_iter().chain(route.split(' ')).collect();
            command("ip", &words, "").await.map(drop)?;
        }
        Thing::Device => command("ip", &["link", "del", DEVICE], "").await.map(drop)?,
        Thing::Mount(path) => command("umount", &[&path.to_string_lossy()], "").await.map(drop)?,
        Thing::Path(path) if path.is_dir() => fs::remove_dir_all(path)?,
        Thing::Path(path) => fs::remove_file(path)?,
    }
    Ok(())
}

/// What stays, and how it goes too.
fn kept(args: &UninstallArgs, state: &Path) {
    if !args.volumes && has_data(state) {
        println!(
            "kept: data of members in {0}/members and {0}/quarantine (--volumes removes it)",
            state.display()
        );
    }
    println!(
        "kept: programs and units (rm -r /etc/systemd/system/muster-*.service /usr/local/lib/muster /etc/muster), images, \
         and net.ipv4.ip_forward, which Docker needs"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> UninstallArgs {
        UninstallArgs {
            yes: false,
            volumes: false,
            force: false,
            docker: String::new(),
            files_dir: PathBuf::from("/run/muster"),
        }
    }

    #[test]
    fn data_of_members_stays_unless_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("agent");
        assert!(paths(&state, true).is_empty(), "nothing there");
        for sub in ["identity", "members", "quarantine"] {
            fs::create_dir_all(state.join(sub)).unwrap();
        }
        assert_eq!(paths(&state, false), std::slice::from_ref(&state), "no data, so all of it");
        fs::create_dir_all(state.join("members/7/data")).unwrap();
        assert_eq!(paths(&state, false), [state.join("identity")]);
        assert_eq!(paths(&state, true), [state]);
    }

    #[test]
    fn the_socket_of_another_tunnel_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(sockets(dir.path()).is_empty());
        fs::write(dir.path().join("muster0.sock"), "").unwrap();
        assert_eq!(sockets(dir.path()), [dir.path().to_owned()]);
        fs::write(dir.path().join("wg7.sock"), "").unwrap();
        assert_eq!(sockets(dir.path()), [dir.path().join("muster0.sock")]);
    }

    #[test]
    fn a_host_that_a_coordinator_counts_on_is_left_alone() {
        assert!(refuse_members(Membership::Member, &args()).is_err());
        assert!(refuse_members(Membership::Member, &UninstallArgs { force: true, ..args() }).is_ok());
        for fine in [Membership::None, Membership::Removed, Membership::Unknown("x".into())] {
            assert!(refuse_members(fine, &args()).is_ok());
        }
    }

    #[test]
    fn an_agent_that_runs_is_not_pulled_from_under() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("agent");
        let _held = StateDir::open(&state).unwrap();
        assert!(lock(&state).unwrap_err().to_string().contains("the agent runs"));
    }
}
