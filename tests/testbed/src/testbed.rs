//! All hosts of one machine and the internet between them; decides order and what runs side by side.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::cgroup::Cgroups;
use crate::config::{Config, is_hostname};
use crate::disk::{Disk, hosts_on_disk, remove_tree};
use crate::golden::{Golden, SCRATCH, SCRATCH_INDEX};
use crate::host::Host;
use crate::wan::{Wan, delete_namespace};

const LOAD: Duration = Duration::from_secs(600);
const GONE: Duration = Duration::from_secs(20);

/// One testbed. Dropping it changes nothing: hosts outlive the program that started them.
pub struct Testbed {
    config: Arc<Config>,
}

impl Testbed {
    /// The testbed that the environment names. Errors: an unusable variable, or not root.
    pub fn from_env() -> Result<Self> {
        Self::new(Config::from_env()?)
    }

    pub fn new(config: Config) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "the testbed needs root");
        Ok(Self { config: Arc::new(config) })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes and boots the first `count` hosts; harmless for those that run. Returns them when all engines answer.
    pub fn up(&self, count: usize) -> Result<Vec<Host>> {
        let _lock = self.lock()?;
        ensure!(count >= 1, "at least one host");
        let names = (1..=count).map(|position| self.config.hostname(position)).collect::<Result<Vec<_>>>()?;
        self.wan().up()?;
        let mut hosts = Vec::new();
        for name in names {
            hosts.push(self.make(&name)?);
        }
        at_once(&hosts, Host::start)?;
        Ok(hosts)
    }

    /// Boots one host of `hosts()` again.
    pub fn start(&self, name: &str) -> Result<()> {
        let host = self.host(name)?;
        let lock = self.lock()?;
        self.wan().up()?;
        // Several hosts may boot side by side.
        drop(lock);
        host.start()
    }

    /// Ends everything and empties the testbed's folder: disks and whatever scenarios put there (kept with `keep`), the
    /// golden store only with `all`. Harmless when down.
    pub fn down(&self, keep: bool, all: bool) -> Result<()> {
        if !self.config.dir.exists() && !self.wan().exists() && !self.any_cgroup()? {
            return Ok(());
        }
        let lock = self.lock()?;
        let mut hosts = self.hosts()?;
        hosts.push(self.scratch());
        at_once(&hosts, Host::kill)?;
        self.end_the_rest()?;
        self.wan().down()?;
        if all {
            Golden::new(&self.config).remove()?;
        }
        if !keep {
            at_once(&hosts, Host::discard)?;
            self.clear()?;
        }
        drop(lock);
        Ok(())
    }

    /// Every host that has a disk, running or not, in the order of their numbers.
    pub fn hosts(&self) -> Result<Vec<Host>> {
        hosts_on_disk(&self.config)?.iter().map(|name| self.host(name)).collect()
    }

    /// Errors: no host of that name was made.
    pub fn host(&self, name: &str) -> Result<Host> {
        ensure!(is_hostname(name), "{name}: not the name of a host");
        let index = Disk::new(&self.config, name).index().with_context(|| format!("no host {name}"))?;
        Ok(Host::new(Arc::clone(&self.config), name, index))
    }

    /// This machine's address as hosts see it.
    pub fn machine_address(&self) -> Ipv4Addr {
        self.wan().machine_address()
    }

    /// Cuts a host off from everybody, this machine included. `exec` and the engine's socket still work.
    pub fn isolate(&self, host: &Host) -> Result<()> {
        self.wan().isolate(host.address())
    }

    /// Cuts two hosts off from each other.
    pub fn partition(&self, one: &Host, other: &Host) -> Result<()> {
        self.partition_oneway(one, other)?;
        self.partition_oneway(other, one)
    }

    /// Loses what `from` sends to `to`; the other direction works.
    pub fn partition_oneway(&self, from: &Host, to: &Host) -> Result<()> {
        ensure!(from.name() != to.name(), "{} cannot be cut off from itself", from.name());
        self.wan().cut(from.address(), to.address())
    }

    /// Loses every packet between hosts that matches an nftables expression, until `heal`.
    pub fn filter(&self, expression: &str) -> Result<()> {
        self.wan().filter(expression)
    }

    /// Ends all partitions and filters. Paused hosts stay paused.
    pub fn heal(&self) -> Result<()> {
        self.wan().heal()
    }

    /// Standing faults of the network, one line each.
    pub fn faults(&self) -> Result<Vec<String>> {
        self.wan().faults()
    }

    /// Loads an image archive into every running host, one after the other: engines share the disk.
    pub fn load(&self, archive: &Path) -> Result<()> {
        for host in self.hosts()?.iter().filter(|host| host.is_running()) {
            host.docker(&["load", "-q", "-i", &archive.to_string_lossy()], LOAD)?;
        }
        Ok(())
    }

    /// Puts images into the golden store, which hosts made from now on share by hard links. Archives whose images are
    /// all in it already are a no-op. Returns whether anything was done.
    pub fn seed(&self, archives: &[&Path]) -> Result<bool> {
        let _lock = self.lock()?;
        let golden = Golden::new(&self.config);
        let missing = golden.missing(archives)?;
        if missing.is_empty() {
            return Ok(false);
        }
        let scratch = self.scratch();
        scratch.kill()?;
        scratch.discard()?;
        self.wan().up()?;
        let built = golden.build(&scratch, &missing);
        scratch.kill()?;
        let stored = built.and_then(|()| golden.store(&scratch, &missing));
        scratch.discard()?;
        if self.hosts()?.is_empty() {
            self.wan().down()?;
            Cgroups::detect()?.remove(&self.config.cgroup(), GONE)?;
        }
        stored.map(|()| true)
    }

    fn make(&self, name: &str) -> Result<Host> {
        let disk = Disk::new(&self.config, name);
        if disk.exists() {
            return self.host(name);
        }
        let mut taken = Vec::new();
        for host in hosts_on_disk(&self.config)? {
            taken.push(Disk::new(&self.config, &host).index()?);
        }
        let free = (1..SCRATCH_INDEX).find(|index| !taken.contains(index)).context("no address is left")?;
        disk.make(&self.config, name, free)?;
        self.host(name)
    }

    /// Never listed by `hosts`: no host can have a name with a dot.
    fn scratch(&self) -> Host {
        Host::new(Arc::clone(&self.config), SCRATCH, SCRATCH_INDEX)
    }

    /// What hosts without a disk left behind: state may have been removed by hand.
    fn end_the_rest(&self) -> Result<()> {
        let cgroups = Cgroups::detect()?;
        for pid in cgroups.processes(&self.config.cgroup()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // Gone meanwhile is fine.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        cgroups.remove(&self.config.cgroup(), GONE)?;
        let start = format!("{}-", self.config.prefix);
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&start) {
                delete_namespace(&name)?;
            }
        }
        Ok(())
    }

    fn any_cgroup(&self) -> Result<bool> {
        Ok(!Cgroups::detect()?.existing(&self.config.cgroup()).is_empty())
    }

    fn wan(&self) -> Wan<'_> {
        Wan::new(&self.config)
    }

    /// Held by whatever makes or removes hosts; a second caller waits.
    fn lock(&self) -> Result<File> {
        let dir = &self.config.dir;
        loop {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            // `down` will empty the whole folder: it must be one that a testbed made.
            let empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
            let ours = empty || self.lock_file().exists() || !dir.exists();
            ensure!(ours, "MUSTER_TB_DIR={} holds something that is no testbed's", dir.display());
            let Ok(file) = File::create(self.lock_file()) else {
                ensure!(!dir.exists(), "{} cannot be written", dir.display());
                continue;
            };
            flock(&file, FlockOperation::LockExclusive).context("waiting for another testbed command")?;
            // Who waited for a `down` may hold the lock of a file that is no longer there.
            if fs::metadata(self.lock_file())
                .is_ok_and(|named| file.metadata().is_ok_and(|ours| ours.ino() == named.ino()))
            {
                return Ok(file);
            }
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.config.dir.join("testbed.lock")
    }

    /// Empties the testbed's folder but for the golden store, also of what scenarios put there; without a store the
    /// folder goes, too.
    fn clear(&self) -> Result<()> {
        let mut golden = false;
        for entry in fs::read_dir(&self.config.dir)?.flatten() {
            let path = entry.path();
            if path == self.config.dir.join("golden") {
                golden = true;
            } else if entry.file_type()?.is_dir() {
                remove_tree(&path)?;
            } else if path != self.lock_file() {
                fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        if !golden {
            // Safety of this order: the lock marks the folder as ours, so it goes last; and while it is held, see `lock`.
            fs::remove_file(self.lock_file()).context("removing the lock")?;
            return match fs::remove_dir(&self.config.dir) {
                // Somebody waits for the lock already, with a new file.
                Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                    Err(error).context("removing the folder")
                }
                _ => Ok(()),
            };
        }
        Ok(())
    }
}

/// Does the same to all hosts side by side; all are tried, and the first error is returned.
fn at_once(hosts: &[Host], action: impl Fn(&Host) -> Result<()> + Sync) -> Result<()> {
    let action = &action;
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let running: Vec<_> = hosts.iter().map(|host| scope.spawn(move || action(host))).collect();
        running.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    results.into_iter().collect()
}
