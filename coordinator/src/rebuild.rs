//! `rebuild`: a coordinator out of what the hosts' agents kept, when all coordinators and their disks are lost. Docs:
//! `docs/tasks/all-coordinators-lost.md`, and why: `docs/adr/0017-rebuild-from-agents.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_consensus::Position;
use muster_core::apply::apply;
use muster_core::command::{Command, LogMeta, What};
use muster_core::keepsake::Keepsake;
use muster_core::kinds::CA_SECRET;
use muster_core::state::{SecretRow, State};
use muster_model::ids::{HostId, LogIndex, Name};
use muster_model::time::Timestamp;
use muster_runtime::ca::Ca;
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::clock::SystemClock;
use muster_runtime::host_bundle::{HostBundle, Kept, SIZE_MAX};
use muster_runtime::identity::{Identity, Role};
use muster_runtime::seal::SealKey;
use muster_runtime::secret::Secret;

use crate::authority::{CA_KEY, FORMER_CA, bound_to, record};
use crate::home::{Home, NodeFile};
use crate::init::{Init, certificate_life, first_operator, known};
use crate::recovery::{Found, begin};

/// The new group's first coordinator, and its term: nothing of the old group can be heard by the new one.
const NODE: u64 = 1;
const TERM: u64 = 1;

/// What `rebuild` is told.
#[derive(Debug)]
pub struct Rebuild {
    /// Files of `muster-agent bundle`.
    pub from: Vec<PathBuf>,
    /// Hosts that are lost too.
    pub without: Vec<Name>,
    /// This coordinator's name.
    pub name: Name,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Raft's timings.
    pub timings: String,
    /// Where the first operator's context goes.
    pub context: PathBuf,
}

/// Makes this directory the first coordinator of the platform that the files are of. What was done, line by line.
///
/// # Errors
/// The directory is in use; a file is damaged or of another platform; a host is missing; nothing can be written.
pub fn rebuild(home: &Home, wish: &Rebuild) -> Result<Vec<String>> {
    home.ensure_fresh()?;
    let bundles = read_all(&wish.from)?;
    let (kept, mut lines) = newest(&bundles)?;
    let keepsake = Keepsake::decode(kept.body.as_bytes()).context("what the agents kept")?;
    let lost = missing(&keepsake.state, &bundles, &wish.without)?;
    let plans = bundles.iter().filter_map(|one| Some((one.host.clone(), one.plan.clone()?)));
    let rebuilt = keepsake.rebuild(&plans.collect());
    let (mut state, notes) = (rebuilt.state, rebuilt.notes);
    lines.extend(notes);
    let platform = state.platform.clone().context("there is no platform in what the agents kept")?;
    let seal = if home.path("seal.key").exists() { home.seal_key()? } else { SealKey::generate()? };
    lines.extend(reseal(&mut state, &bundles, &seal)?);
    let incarnation = bundles.iter().map(incarnation_of).max().unwrap_or(1);
    let wish_of_init = Init {
        platform: platform.name.clone(),
        name: wish.name.clone(),
        advertise: wish.advertise,
        timings: wish.timings.clone(),
        context: wish.context.clone(),
    };
    let at_ms = SystemClock::shared().now_ms();
    let node = found_identity(home, &wish_of_init, &platform.id, &mut state, &seal, (kept.index, at_ms))?;
    for host in state.hosts.values_mut() {
        host.since = Timestamp(at_ms);
    }
    let how = format!("rebuilt from {} agents, as of index {}", bundles.len(), kept.index);
    let from = Position { term: TERM, index: kept.index };
    let counts = counts(&state);
    let joins = joins(&state, &lost, wish.advertise);
    let begun =
        begin(home, NodeFile { incarnation, ..node }, Found { state, at_ms, term: TERM, from, how }, &lost)?;
    lines.push(format!(
        "incarnation {} of platform {} begins with this coordinator alone, {} at {}: {counts}",
        begun.incarnation, platform.name, wish.name, wish.advertise
    ));
    lines.push(format!(
        "next, here:\n  systemctl enable --now muster-coordinator\nthen, where you work:\n  muster context import {}",
        wish.context.display()
    ));
    lines.push(
        "then each host, with a token of its own (`muster token host`); its members run on meanwhile:"
            .to_owned(),
    );
    lines.extend(joins);
    Ok(lines)
}

fn read_all(files: &[PathBuf]) -> Result<Vec<HostBundle>> {
    let mut bundles: Vec<HostBundle> = Vec::new();
    for path in files {
        let bundle = read(path).with_context(|| format!("{}", path.display()))?;
        if let Some(first) = bundles.first() {
            ensure!(
                first.platform_id == bundle.platform_id,
                "{} is of platform {} ({}), the others of {} ({})",
                path.display(),
                bundle.platform,
                bundle.platform_id,
                first.platform,
                first.platform_id
            );
        }
        ensure!(
            bundles.iter().all(|other| other.host != bundle.host),
            "{}: host {} was given twice",
            path.display(),
            bundle.name
        );
        bundles.push(bundle);
    }
    // The newest first: of two values of a secret the newer host's counts.
    bundles.sort_by_key(|bundle| std::cmp::Reverse(age(bundle)));
    Ok(bundles)
}

fn read(path: &Path) -> Result<HostBundle> {
    let size = std::fs::metadata(path)?.len();
    ensure!(size <= SIZE_MAX, "it is larger than any bundle");
    let file = Secret::new(std::fs::read(path)?);
    Ok(HostBundle::decode(file.expose())?)
}

fn age(bundle: &HostBundle) -> (u64, u64) {
    bundle.kept.as_ref().map_or((0, 0), Kept::age)
}

/// Plans may be newer than what was kept.
fn incarnation_of(bundle: &HostBundle) -> u64 {
    age(bundle).0.max(bundle.plan.as_ref().map_or(0, |plan| plan.generation.incarnation))
}

/// The newest of what was kept, and the table that an operator compares.
fn newest(bundles: &[HostBundle]) -> Result<(&Kept, Vec<String>)> {
    let kept = bundles.iter().find_map(|bundle| bundle.kept.as_ref());
    let Some(kept) = kept else {
        bail!(
            "none of these hosts kept anything of the platform's state: was its coordinator older than this program?"
        )
    };
    let same_age = bundles.iter().filter(|bundle| age(bundle) == kept.age());
    let other = same_age.clone().find(|bundle| bundle.kept.as_ref() != Some(kept));
    if let Some(other) = other {
        bail!(
            "hosts {} and {} kept different things under the same index: one of them was tampered with. Leave it out with \
             --without",
            bundles[0].name,
            other.name
        );
    }
    let line = |bundle: &HostBundle| {
        let members = bundle.plan.as_ref().map_or(0, |plan| plan.members.len());
        let (incarnation, index) = age(bundle);
        format!(
            "{}  incarnation {incarnation}  index {index}  members {members}  secrets {}",
            bundle.name,
            bundle.secrets.len()
        )
    };
    let mut lines: Vec<String> = bundles.iter().map(line).collect();
    lines.push(format!(
        "as of index {}, which {} of {} hosts have",
        kept.index,
        same_age.count(),
        bundles.len()
    ));
    Ok((kept, lines))
}

/// Hosts that an operator gave up; all others must have a file here.
fn missing(state: &State, bundles: &[HostBundle], without: &[Name]) -> Result<BTreeSet<HostId>> {
    let mut lost = BTreeSet::new();
    for name in without {
        let (id, _) = state.host_named(name).with_context(|| format!("there is no host {name}"))?;
        ensure!(
            bundles.iter().all(|bundle| bundle.host != *id),
            "host {name} is there, and given up: which one is it?"
        );
        lost.insert(id.clone());
    }
    let here: BTreeSet<&HostId> = bundles.iter().map(|bundle| &bundle.host).collect();
    let absent = state.hosts.iter().filter(|(id, _)| !here.contains(id) && !lost.contains(*id));
    let absent: Vec<&str> = absent.map(|(_, host)| host.name.as_str()).collect();
    ensure!(
        absent.is_empty(),
        "no file of {}: `muster-agent bundle` there. Only if a host is lost for good: --without NAME",
        absent.join(", ")
    );
    Ok(lost)
}

/// Secrets come from the hosts that use them, under a new key.
fn reseal(state: &mut State, bundles: &[HostBundle], seal: &SealKey) -> Result<Vec<String>> {
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    let mut differ: BTreeSet<&str> = BTreeSet::new();
    for (name, value) in bundles.iter().flat_map(|bundle| &bundle.secrets) {
        if name.starts_with('/') {
            continue;
        }
        if found.entry(name).or_insert(value) != value {
            differ.insert(name);
        }
    }
    let mut lines = Vec::new();
    let absent: Vec<String> =
        state.secrets.keys().filter(|name| !found.contains_key(name.as_str())).cloned().collect();
    for name in absent {
        state.secrets.remove(&name);
        if !name.starts_with('/') {
            lines.push(format!(
                "secret {name} is on no host: no member had it; it is made anew if one needs it"
            ));
        }
    }
    for name in &differ {
        lines.push(format!(
            "secret {name} is not the same on all hosts: the value of the newest one is taken"
        ));
    }
    for (name, value) in found {
        let plain =
            Secret::new(STANDARD.decode(value).with_context(|| format!("secret {name} is not base64"))?);
        let sealed = STANDARD.encode(seal.seal(plain.expose(), bound_to(name))?);
        match state.secrets.get_mut(name) {
            Some(row) => row.sealed = sealed,
            None => drop(state.secrets.insert(name.to_owned(), secret_row(sealed))),
        }
    }
    let former = former_cas(bundles)?;
    let sealed = STANDARD.encode(seal.seal(former.as_bytes(), bound_to(FORMER_CA))?);
    state.secrets.insert(FORMER_CA.to_owned(), secret_row(sealed));
    Ok(lines)
}

fn secret_row(sealed: String) -> SecretRow {
    SecretRow { sealed, version: 1, changed: Timestamp(0), certificate: None }
}

/// Every CA that members of services trust now, each once.
fn former_cas(bundles: &[HostBundle]) -> Result<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let mut all = BTreeSet::new();
    for bundle in bundles {
        let mut texts = vec![bundle.ca_pem.clone()];
        if let Some(trusted) = bundle.secrets.get(CA_SECRET) {
            let bytes = STANDARD.decode(trusted).context("the CA's certificate is not base64")?;
            texts.push(String::from_utf8(bytes).context("the CA's certificate is not text")?);
        }
        all.extend(texts.iter().flat_map(|text| text.split_inclusive(END)).map(str::to_owned));
    }
    Ok(all.into_iter().collect())
}

/// A new CA, identity and first operator, as `init` makes them; all of it is recorded in the state.
fn found_identity(
    home: &Home,
    wish: &Init,
    platform_id: &str,
    state: &mut State,
    seal: &SealKey,
    (index, now_ms): (u64, u64),
) -> Result<NodeFile> {
    let ca = Ca::create(&wish.platform, now_ms)?;
    let key = home.key()?;
    let id = Name::new(NODE.to_string())?;
    let who =
        Identity { platform: wish.platform.clone(), role: Role::Coordinator, id, name: wish.name.clone() };
    let certificate = ca.issue(&key.csr(&wish.name)?, &who, certificate_life(), now_ms)?;
    let operator = first_operator(&ca, wish, &key, now_ms)?;
    operator.store(&wish.context)?;
    let sealed = STANDARD.encode(seal.seal(ca.key_pem().expose().as_bytes(), bound_to(CA_KEY))?);
    state.secrets.insert(CA_KEY.to_owned(), secret_row(sealed));
    let meta = LogMeta { index: LogIndex(index), at: Timestamp(now_ms) };
    let naming = What::NameCoordinator { node: NODE, name: wish.name.clone() };
    let operator = PeerCertificate::from_pem(&operator.certificate_pem)?;
    for what in [record(&certificate.certificate), record(&operator), naming] {
        apply(state, &Command::internal(what), meta)?;
    }
    let node = NodeFile {
        node: NODE,
        name: wish.name.clone(),
        platform_id: platform_id.to_owned(),
        platform: wish.platform.clone(),
        advertise: wish.advertise,
        timings: wish.timings.clone(),
        known: vec![known(NODE, wish.advertise, &key)],
        has_log: true,
        incarnation: 1,
    };
    // The node file comes with the log: an interrupted rebuild is begun again.
    home.store_keys(&certificate.pem, ca.pem(), seal)?;
    Ok(node)
}

fn counts(state: &State) -> String {
    let written = state.services.values().filter(|service| service.parent.is_none()).count();
    format!("{} hosts, {written} services, {} members", state.hosts.len(), state.members.len())
}

/// What an operator types on each host.
fn joins(state: &State, lost: &BTreeSet<HostId>, at: SocketAddr) -> Vec<String> {
    let hosts = state.hosts.iter().filter(|(id, _)| !lost.contains(*id));
    let line = |host: &muster_core::state::Host| {
        format!(
            "  {}: systemctl stop muster-agent && muster-agent join --adopt --coordinator {at} --advertise {} --token TOKEN \
             && systemctl start muster-agent",
            host.name, host.address
        )
    };
    hosts.map(|(_, host)| line(host)).collect()
}
