//! From a member's plan to the container that is made of it: names, labels, mounts, tmpfs. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_model::plan::{HostPlan, MemberPlan};

use crate::files::{MOUNT, single_name};
use crate::runtime::{Bind, LABEL_PLATFORM, NewContainer};
use crate::seen::container_name;

/// Member number.
pub const LABEL_MEMBER: &str = "muster.member";
/// Slot, `service/index`.
pub const LABEL_SLOT: &str = "muster.slot";
/// Revision it was made of.
pub const LABEL_REVISION: &str = "muster.revision";
/// `Rendered::container_hash` it was made of.
pub const LABEL_HASH: &str = "muster.hash";
/// Restarts that the plan had asked for.
pub const LABEL_RESTARTS: &str = "muster.restarts";
/// On images: `name@recipe`; on containers: what they were made of.
pub const LABEL_IMAGE: &str = "muster.image";
/// Present = made with the command of the first start.
pub const LABEL_FIRST: &str = "muster.first";
/// Present = a one-shot container of this task.
pub const LABEL_TASK: &str = "muster.task";

/// Size of `/tmp` and `/run` where the plan does not say.
const TMPFS_BYTES: u64 = 64 << 20;
/// Size of what stands in place of a volume in a container apart.
const APART_BYTES: u64 = 256 << 20;

/// Where a member's things are on the host.
#[derive(Debug, Clone)]
pub struct Places {
    /// Its rendered files: `muster/`, and others singly in `at/`.
    pub files: PathBuf,
    /// Its data directories, `<volume>/data`.
    pub data: PathBuf,
}

/// The data directory of a volume.
#[must_use]
pub fn data_dir(data: &Path, volume: &str) -> PathBuf {
    data.join(volume).join("data")
}

/// The container of a member.
#[must_use]
pub fn container(plan: &HostPlan, member: &MemberPlan, places: &Places, first: bool) -> NewContainer {
    let rendered = &member.rendered;
    let command = match (&rendered.first_command, first) {
        (Some(first), true) => first.clone(),
        _ => rendered.command.clone(),
    };
    let mut labels = BTreeMap::from([
        (LABEL_PLATFORM.to_owned(), plan.platform.clone()),
        (LABEL_MEMBER.to_owned(), member.member.to_string()),
        (LABEL_SLOT.to_owned(), member.slot.to_string()),
        (LABEL_REVISION.to_owned(), member.revision.to_string()),
        (LABEL_HASH.to_owned(), rendered.container_hash()),
        (LABEL_RESTARTS.to_owned(), member.restarts.to_string()),
        (LABEL_IMAGE.to_owned(), rendered.image.clone()),
    ]);
    if first {
        labels.insert(LABEL_FIRST.to_owned(), "true".to_owned());
    }
    let mut tmpfs = BTreeMap::from([("/tmp".to_owned(), TMPFS_BYTES), ("/run".to_owned(), TMPFS_BYTES)]);
    tmpfs.extend(rendered.tmpfs.iter().map(|spec| (spec.path.clone(), spec.bytes)));
    let published = |port: &muster_model::plan::PortSpec| Some((port.port, port.protocol, port.publish?));
    NewContainer {
        name: container_name(&member.slot, member.member),
        image: rendered.image.clone(),
        command,
        env: rendered.env.clone(),
        labels,
        user: rendered.user,
        hostname: format!("{}-{}", member.slot.service, member.slot.index),
        mounts: mounts(member, places),
        tmpfs,
        limits: rendered.limits.clone(),
        capabilities: rendered.capabilities.clone(),
        addresses: member.addresses.iter().map(|a| (a.network.clone(), a.address)).collect(),
        ports: rendered.ports.iter().filter_map(published).collect(),
        stop: rendered.stop.clone(),
    }
}

/// A container of its own on the same volumes: no network, no ports, no files but the member's.
#[must_use]
pub fn one_shot(
    plan: &HostPlan,
    member: &MemberPlan,
    places: &Places,
    image: Option<&str>,
    command: &[String],
) -> NewContainer {
    let mut made = container(plan, member, places, false);
    made.name = format!("{}-task", made.name);
    made.command = command.to_vec();
    made.addresses.clear();
    made.ports.clear();
    if let Some(image) = image {
        image.clone_into(&mut made.image);
    }
    made
}

/// Takes the member's volumes away from a container: what it writes there is gone with it.
pub fn set_apart(made: &mut NewContainer, member: &MemberPlan) {
    for volume in &member.rendered.volumes {
        made.mounts.retain(|mount| mount.target != volume.path);
        made.tmpfs.insert(volume.path.clone(), APART_BYTES);
    }
}

fn mounts(member: &MemberPlan, places: &Places) -> Vec<Bind> {
    let single = member.rendered.files.iter().filter(|file| !file.path.starts_with(MOUNT));
    let mut mounts: Vec<Bind> = single
        .map(|file| Bind {
            source: places.files.join("at").join(single_name(&file.path)),
            target: file.path.clone(),
            read_only: true,
        })
        .collect();
    // Always there, so that a first reloadable file needs no new container.
    let target = MOUNT.trim_end_matches('/').to_owned();
    mounts.push(Bind { source: places.files.join("muster"), target, read_only: true });
    let volumes = member.rendered.volumes.iter().map(|volume| Bind {
        source: data_dir(&places.data, volume.name.as_str()),
        target: volume.path.clone(),
        read_only: false,
    });
    mounts.extend(volumes);
    mounts
}
