//! Every secret of the platform, looked for everywhere that a person, a backup or another container could read.
//!
//! The secrets are taken from the agents' sealed files and from the key files; then one of each kind is put on purpose
//! into each kind of place, so that a search that finds nothing is known to be able to find.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_model::view::{PlatformView, SecretView};
use muster_runtime::seal::SealKey;
use muster_testbed::Host;
use serde_json::{Value, json};

use super::together::wait_whole;
use crate::clock::now_ms;
use crate::needles::{Needles, parts};
use crate::platform::{Platform, exec};
use crate::run::Scenario;

pub const CANARY: Scenario = Scenario {
    name: "canary-secrets",
    what: "every password and key looked for in containers' settings, processes, logs, state, disks and answers: nowhere but where it must be",
    runs: 3,
    in_ci: false,
    medians: &[("found", 0.0)],
    act: canary_secrets,
};

/// Fewer would prove little.
const SECRETS_MIN: usize = 20;
const INSPECT: &str = "docker inspect";
const PROCESSES: &str = "arguments and environment";
const LOGS: &str = "docker logs";
const OUR_LOGS: &str = "logs of agents and coordinators";
const DISK: &str = "disk";
const LAYER: &str = "containers' own layers";
const MEMORY_FILES: &str = "memory file systems";
const ANSWERS: &str = "answers of the CLI";
const PLANT: &str = "canary-plant";
/// How long processes come and go before our eyes: agents start programs inside members every few seconds.
const WATCH: Duration = Duration::from_secs(15);

/// Where a secret has to be, and why. `host:` and the name of the host come before a path.
const ALLOWED: &[(&str, &str)] = &[
    ("/run/muster/", "rendered files on a memory file system, from which members read their passwords"),
    ("/muster/agent/seal.key", "the key of the host's sealed secrets, for root only"),
    ("/muster/agent/wg.key", "the host's WireGuard key, for root only"),
    ("/muster/agent/identity/key.pem", "the agent's identity, for root only"),
    ("/muster/coordinator/seal.key", "the key of the platform's sealed secrets, for root only"),
    ("/muster/coordinator/node.key", "the coordinator's identity, for root only"),
    ("/muster/coordinator/admin.context.json", "the first operator's login, for root only"),
];

/// Keys on a host's disk: one file each.
const KEYS: &[&str] = &[
    "agent/seal.key",
    "agent/wg.key",
    "agent/identity/key.pem",
    "coordinator/seal.key",
    "coordinator/node.key",
];

/// A secret in a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    kind: &'static str,
    place: String,
    secret: String,
    form: &'static str,
}

/// What was looked at, and what was found there.
struct Search {
    needles: Needles,
    seen: BTreeMap<&'static str, (u64, u64)>,
    hits: BTreeSet<Hit>,
}

impl Search {
    fn look(&mut self, kind: &'static str, place: &str, reader: impl Read) -> Result<()> {
        let (found, bytes) = match self.needles.within(reader) {
            Ok(all) => all,
            Err(error) if passed_over(&error) => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("searching {place}")),
        };
        let (places, total) = self.seen.entry(kind).or_default();
        (*places, *total) = (*places + 1, *total + bytes);
        self.hits.extend(found.into_iter().map(|(secret, form)| Hit {
            kind,
            place: place.to_owned(),
            secret,
            form,
        }));
        Ok(())
    }

    fn file(&mut self, kind: &'static str, place: &str, path: &Path) -> Result<()> {
        match File::open(path) {
            Ok(file) => self.look(kind, place, file),
            Err(error) if passed_over(&error) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
        }
    }

    /// Every plain file below, links not followed.
    fn tree(&mut self, kind: &'static str, place: &str, root: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(root) else { return Ok(()) };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let inner = format!("{place}/{}", entry.file_name().to_string_lossy());
            if meta.is_dir() {
                self.tree(kind, &inner, &entry.path())?;
            } else if meta.is_file() {
                self.file(kind, &inner, &entry.path())?;
            }
        }
        Ok(())
    }
}

/// Gone meanwhile; or nothing to read, as the files that stand for network namespaces.
fn passed_over(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput)
}

fn canary_secrets(platform: &Platform) -> Result<Value> {
    let begin = Instant::now();
    let status = wait_whole(platform)?;
    for host in platform.hosts()? {
        // What clients of other scenarios left behind: their connection strings are theirs, not the platform's.
        exec(&host, &["sh", "-c", "rm -f /var/lib/muster/*.json /var/lib/muster/*.ledger"])?;
    }
    let mut secrets = collected(platform, &status)?;
    let names: BTreeSet<String> = secrets.iter().map(|(name, _)| name.clone()).collect();
    ensure!(names.len() >= SECRETS_MIN, "only {} secrets: {names:?}", names.len());
    let planted = Planted::put(platform, &status)?;
    secrets
        .extend(planted.canaries.iter().map(|(kind, canary)| (format!("canary in {kind}"), canary.clone())));
    let mut search =
        Search { needles: Needles::new(&secrets)?, seen: BTreeMap::new(), hits: BTreeSet::new() };
    let searched = everywhere(platform, &status, &mut search);
    planted.take_away();
    searched?;
    let blind: Vec<&str> = planted.unseen(&search.hits);
    ensure!(blind.is_empty(), "the search is blind: what was put there was not found in {blind:?}");
    judge(search, names.len(), begin)
}

/// Splits what was found into what has to be there and what has not.
fn judge(search: Search, secrets: usize, begin: Instant) -> Result<Value> {
    let mut allowed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for hit in search.hits.iter().filter(|hit| !hit.secret.starts_with("canary in ")) {
        match ALLOWED.iter().find(|(place, _)| hit.place.contains(place)) {
            Some((place, _)) => *allowed.entry(place).or_default() += 1,
            None => wrong.push(format!("{} ({}) in {} {}", hit.secret, hit.form, hit.kind, hit.place)),
        }
    }
    ensure!(wrong.is_empty(), "{} secrets lie where they must not: {wrong:#?}", wrong.len());
    let (places, bytes) =
        search.seen.values().fold((0, 0), |(places, bytes), one| (places + one.0, bytes + one.1));
    let by_kind: BTreeMap<&str, Value> = search
        .seen
        .iter()
        .map(|(kind, (places, bytes))| (*kind, json!({ "places": places, "bytes": bytes })))
        .collect();
    Ok(json!({
        "secrets": secrets, "forms": search.needles.len(), "places": places, "bytes": bytes, "found": wrong.len(),
        "by_kind": by_kind, "where_they_must_be": allowed, "planted_and_found": PLANTS.len(),
        "took_s": begin.elapsed().as_secs_f64(),
    }))
}

/// What the agents hold, unsealed with their own keys, and the keys themselves.
fn of_hosts(platform: &Platform) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = BTreeSet::new();
    for host in platform.hosts()? {
        let state = host.dir().join("muster");
        let key = SealKey::load(&state.join("agent/seal.key"))?;
        let sealed = fs::read(state.join("agent/secrets.sealed")).context("the agent's secrets")?;
        let plain = key.open(&sealed, b"muster agent secrets")?;
        let stored: BTreeMap<String, String> = serde_json::from_slice(plain.expose())?;
        for (name, text) in stored {
            let secret = STANDARD.decode(text)?;
            all.extend(parts(&secret).into_iter().map(|part| (name.clone(), part)));
        }
        for file in KEYS {
            let stored = fs::read(state.join(file)).with_context(|| format!("{file} of {}", host.name()))?;
            all.extend(parts(&stored).into_iter().map(|part| (format!("{}:{file}", host.name()), part)));
        }
    }
    all.extend([("a private key of PEM".to_owned(), b"PRIVATE KEY-----".to_vec())]);
    Ok(all.into_iter().collect())
}

/// Passwords that `muster conn` shows to an admin, by the names that `secret ls` has for them.
fn shown_to_operators(platform: &Platform, status: &PlatformView) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut shown = BTreeMap::new();
    for service in status.services.iter().filter(|service| service.owner.is_none()) {
        let by_role: BTreeMap<String, Vec<String>> = platform.cli.json(&["conn", service.name.as_str()])?;
        for url in by_role.values().flatten() {
            let login =
                url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(login, _)| login);
            let login = login.and_then(|login| login.split_once(':'));
            let (user, password) =
                login.with_context(|| format!("{} is reached without password", service.name))?;
            shown.insert(format!("{}/user-{user}", service.name), password.as_bytes().to_vec());
        }
    }
    Ok(shown)
}

/// All that is looked for. What `conn` shows must be what the agents hold, and no name that `secret ls` lists may be
/// missing: else something else would be looked for than what is used.
fn collected(platform: &Platform, status: &PlatformView) -> Result<Vec<(String, Vec<u8>)>> {
    let mut secrets = of_hosts(platform)?;
    let mut held = 0;
    for (name, password) in shown_to_operators(platform, status)? {
        match secrets.iter().find(|(known, _)| *known == name) {
            Some((_, known)) => {
                ensure!(*known == password, "conn shows another password of {name} than the agents hold");
                held += 1;
            }
            None => secrets.push((name, password)),
        }
    }
    ensure!(held > 0, "no password that conn shows is held by an agent");
    let listed: Vec<SecretView> = platform.cli.json(&["secret", "ls"])?;
    let missing: Vec<&str> = listed
        .iter()
        .map(|one| one.name.as_str())
        .filter(|name| !secrets.iter().any(|(known, _)| known == name))
        .collect();
    ensure!(missing.is_empty(), "the values of {missing:?} are not known, so they cannot be looked for");
    Ok(secrets)
}

fn everywhere(platform: &Platform, status: &PlatformView, search: &mut Search) -> Result<()> {
    for host in platform.hosts()? {
        containers(&host, search)?;
        disks(&host, search)?;
    }
    answers(platform, status, search)?;
    let begin = Instant::now();
    while begin.elapsed() < WATCH {
        for host in platform.hosts()? {
            processes(&host, search)?;
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn containers(host: &Host, search: &mut Search) -> Result<()> {
    let deadline = Duration::from_secs(60);
    for id in host.docker(&["ps", "-aq", "--no-trunc"], deadline)?.lines() {
        let Ok(inspected) = host.docker(&["inspect", id], deadline) else { continue };
        let about: Value = serde_json::from_str(&inspected)?;
        let name = about[0]["Name"].as_str().unwrap_or(id);
        let place = format!("{}:{name}", host.name());
        search.look(INSPECT, &place, inspected.as_bytes())?;
        if let Ok(out) = host.docker_command(&["logs", id]).output() {
            search.look(LOGS, &place, &*[out.stdout, out.stderr].concat())?;
        }
        let layer = about[0]["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap_or_default();
        if let Some(inside) = layer.strip_prefix("/var/lib/docker/") {
            search.tree(LAYER, &place, &host.dir().join("docker").join(inside))?;
        }
    }
    Ok(())
}

/// Programs under `/usr/local` and image layers are left out: nothing is written there.
fn disks(host: &Host, search: &mut Search) -> Result<()> {
    let name = host.name();
    for folder in ["muster", "etc-muster", "etc-docker", "etc/upper", "var-lib/upper", "docker/containers"] {
        search.tree(DISK, &format!("{name}:/{folder}"), &host.dir().join(folder))?;
    }
    search.tree(OUR_LOGS, &format!("{name}:/log"), &host.dir().join("log"))?;
    let root = host_root(host)?;
    // The rest of an emulated host's tree is the machine's own.
    for folder in ["run", "dev/shm"] {
        search.tree(MEMORY_FILES, &format!("{name}:/{folder}"), &root.join(folder))?;
    }
    on_memory(host)
}

fn host_root(host: &Host) -> Result<PathBuf> {
    let pid = host.pid().with_context(|| format!("{} is off", host.name()))?;
    Ok(PathBuf::from(format!("/proc/{pid}/root")))
}

/// The one allowed place with passwords must not be on a disk.
fn on_memory(host: &Host) -> Result<()> {
    let out = host.exec(&["stat", "-f", "-c", "%T", "/run/muster"])?;
    ensure!(out.stdout.trim() == "tmpfs", "/run/muster of {} is on {}", host.name(), out.stdout.trim());
    Ok(())
}

fn processes(host: &Host, search: &mut Search) -> Result<()> {
    let Ok(entries) = fs::read_dir(host_root(host)?.join("proc")) else { return Ok(()) };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let what = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        for file in ["cmdline", "environ"] {
            let Ok(content) = fs::read(entry.path().join(file)) else { continue };
            search.look(PROCESSES, &format!("{}: {file} of {}", host.name(), what.trim()), &*content)?;
        }
    }
    Ok(())
}

/// Everything that the CLI shows to an admin but connection strings; the state as a file, too.
fn answers(platform: &Platform, status: &PlatformView, search: &mut Search) -> Result<()> {
    let mut commands: Vec<Vec<String>> = [
        "status",
        "ps",
        "events --tail 0",
        "audit --tail 100000",
        "op ls --all",
        "secret ls",
        "host ls",
        "drill ls",
        "coordinator ls",
        "operator ls",
        "metrics",
        "ca",
    ]
    .iter()
    .map(|line| line.split(' ').map(str::to_owned).collect())
    .collect();
    let mut add = |words: &[&str]| commands.push(words.iter().map(|&word| word.to_owned()).collect());
    for host in platform.hosts()? {
        add(&["explain", host.name()]);
        add(&["host", "show", host.name()]);
        add(&["whatif", "host", "down", host.name()]);
    }
    for service in &status.services {
        add(&["explain", service.name.as_str()]);
        add(&["status", service.name.as_str()]);
        for member in &service.members {
            add(&["logs", &member.slot.to_string(), "--tail", "0"]);
        }
    }
    let spec = platform.testbed.config().dir.join("spec.yaml");
    add(&["plan", &spec.to_string_lossy()]);
    for words in commands {
        for format in ["json", "table"] {
            let all: Vec<&str> = ["-o", format].into_iter().chain(words.iter().map(String::as_str)).collect();
            let out = platform.cli.output(&all)?;
            // 1 = nothing to show, as `metrics` without exporters; what it says is searched all the same.
            ensure!(matches!(out.status.code(), Some(0..=2)), "muster {all:?}: {out:?}");
            search.look(
                ANSWERS,
                &format!("muster {}", words.join(" ")),
                &*[out.stdout, out.stderr].concat(),
            )?;
        }
    }
    let file = platform.testbed.config().dir.join(format!("canary-{}.snapshot", now_ms()));
    platform.cli.run(&["snapshot", "save", &file.to_string_lossy()])?;
    let looked = search.file(ANSWERS, "muster snapshot save", &file);
    fs::remove_file(&file).ok();
    looked
}

/// Kind of place, and part of the name of the place in which the canary of that kind must be found.
const PLANTS: &[(&str, &str, &str)] = &[
    ("environment", INSPECT, PLANT),
    ("environment", PROCESSES, "environ of sh"),
    ("argument", PROCESSES, "cmdline of sh"),
    ("output", LOGS, PLANT),
    ("layer", LAYER, "/tmp/canary"),
    ("disk", DISK, "/muster/agent/canary"),
    ("memory", MEMORY_FILES, "/run/canary"),
    ("log", OUR_LOGS, "/log/canary.log"),
    ("audit", ANSWERS, "muster audit"),
    ("audit", ANSWERS, "muster snapshot save"),
    ("audit", DISK, "/muster/coordinator/log/"),
];

/// Canaries that were put somewhere on purpose, each in another form.
struct Planted {
    host: Host,
    canaries: BTreeMap<&'static str, Vec<u8>>,
}

impl Planted {
    fn put(platform: &Platform, status: &PlatformView) -> Result<Self> {
        let host = platform.hosts()?.into_iter().next().context("no host")?;
        let canaries = PLANTS
            .iter()
            .map(|(of, ..)| (*of, format!("canary-of-{of}-{}", now_ms()).into_bytes()))
            .collect();
        let planted = Self { host, canaries };
        let plain = |of: &str| String::from_utf8_lossy(&planted.canaries[of]).into_owned();
        let environment = format!("CANARY={}", plain("environment"));
        let script = format!(
            "printf '%s\\n' {} >&2; printf '%s' {} > /tmp/canary; while :; do sleep 9; done",
            plain("output"),
            STANDARD.encode(format!("user:{}", plain("layer")))
        );
        let argument = plain("argument");
        let words = [
            "run",
            "-d",
            "--name",
            PLANT,
            "--network",
            "none",
            "--env",
            &environment,
            "muster/busybox:1.35",
            "sh",
            "-c",
            &script,
            &argument,
        ];
        planted.take_away();
        planted.host.docker(&words, Duration::from_secs(60))?;
        planted.write(&planted.host.dir().join("muster/agent/canary"), &hex::encode(plain("disk")))?;
        planted.write(&host_root(&planted.host)?.join("run/canary"), &plain("memory"))?;
        planted.write(&planted.host.dir().join("log/canary.log"), &plain("log"))?;
        let member =
            status.services.iter().flat_map(|service| &service.members).next().context("no member")?;
        platform.cli.output(&["exec", &member.slot.to_string(), "--", "echo", &plain("audit")])?;
        Ok(planted)
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        Ok(writeln!(file, "x{text}")?)
    }

    /// Where what was put was not found.
    fn unseen(&self, hits: &BTreeSet<Hit>) -> Vec<&'static str> {
        let seen = |of: &str, kind: &str, place: &str| {
            let name = format!("canary in {of}");
            hits.iter().any(|hit| hit.secret == name && hit.kind == kind && hit.place.contains(place))
        };
        PLANTS.iter().filter(|(of, kind, place)| !seen(of, kind, place)).map(|(_, kind, _)| *kind).collect()
    }

    fn take_away(&self) {
        self.host.docker(&["rm", "-f", PLANT], Duration::from_secs(60)).ok();
        fs::remove_file(self.host.dir().join("muster/agent/canary")).ok();
        fs::remove_file(self.host.dir().join("log/canary.log")).ok();
        if let Ok(root) = host_root(&self.host) {
            fs::remove_file(root.join("run/canary")).ok();
        }
    }
}
