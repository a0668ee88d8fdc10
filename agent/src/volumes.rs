//! Data directories under the agent's root: made once, checked before each start, moved aside, never deleted.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use muster_model::ids::{MemberId, Name};
use muster_model::plan::{ANSWER_LEN_MAX, HostPlan, MemberPlan};
use muster_model::time::Timestamp;
use muster_runtime::state_dir::{self, PRIVATE};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::ledger::KnownVolumes;
use crate::profile::data_dir;
use crate::volume::{Expected, Found, Marker, Verdict, judge};

const MARKER: &str = "marker.json";
const MARKER_MAX: u64 = 64 * 1024;

/// The data directories of this host.
#[derive(Debug, Clone)]
pub struct Volumes {
    members: PathBuf,
    quarantine: PathBuf,
}

/// A member's volumes as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Why it may not start.
    pub lost: Option<String>,
    /// Those with data in them.
    pub with_data: BTreeSet<Name>,
}

impl Volumes {
    /// Under the agent's state directory.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn open(state: &Path) -> Result<Self, state_dir::StateError> {
        let volumes = Self { members: state.join("members"), quarantine: state.join("quarantine") };
        state_dir::create_private_dir(&volumes.members)?;
        state_dir::create_private_dir(&volumes.quarantine)?;
        Ok(volumes)
    }

    /// Where all members' volumes are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.members
    }

    /// Where a member's volumes are.
    #[must_use]
    pub fn of(&self, member: MemberId) -> PathBuf {
        self.members.join(member.to_string())
    }

    /// Looks at a member's volumes and changes nothing.
    #[must_use]
    pub fn check(&self, plan: &HostPlan, member: &MemberPlan, known: Option<&KnownVolumes>) -> Checked {
        let mut checked = Checked::default();
        for volume in &member.rendered.volumes {
            let found = self.look(member.member, &volume.name);
            if matches!(found, Found::Marked { empty: false, .. }) {
                checked.with_data.insert(volume.name.clone());
            }
            if let Verdict::Lost(what) = judge(&expected(plan, member, &volume.name, known), &found) {
                checked.lost.get_or_insert(what);
            }
        }
        checked
    }

    /// Makes what was never there, for the member's user alone.
    ///
    /// # Errors
    /// A volume is lost, or the system refuses.
    pub fn prepare(
        &self,
        plan: &HostPlan,
        member: &MemberPlan,
        known: Option<&KnownVolumes>,
    ) -> Result<(), String> {
        for volume in &member.rendered.volumes {
            let expected = expected(plan, member, &volume.name, known);
            match judge(&expected, &self.look(member.member, &volume.name)) {
                Verdict::Lost(what) => return Err(what),
                Verdict::Use => {}
                Verdict::Make => {
                    let failed = |error: String| format!("volume {} cannot be made: {error}", volume.name);
                    self.make(member, &volume.name, &expected.marker).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the engine's own system id into the markers.
    ///
    /// # Errors
    /// A marker cannot be written.
    pub fn set_system_id(&self, member: MemberId, known: &KnownVolumes, id: &str) -> Result<(), String> {
        for volume in &known.made {
            if let Found::Marked { mut marker, .. } = self.look(member, volume)
                && marker.system_id.as_deref() != Some(id)
            {
                marker.system_id = Some(id.to_owned());
                self.write_marker(member, volume, &marker)?;
            }
        }
        Ok(())
    }

    /// Moves a member's directories aside. Nothing is deleted.
    ///
    /// # Errors
    /// The system refuses, for example because something is mounted there.
    pub fn put_aside(&self, member: MemberId, now: Timestamp) -> Result<(), String> {
        let target = self.quarantine.join(format!("{member}-{}", now.0));
        match fs::rename(self.of(member), &target) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!("{} cannot be moved aside: {error}", self.of(member).display())),
        }
    }

    /// Deletes a member's directories, in one step as far as anybody else can see.
    ///
    /// # Errors
    /// The system refuses; what is left lies in the quarantine.
    pub fn delete(&self, member: MemberId, now: Timestamp) -> Result<(), String> {
        self.put_aside(member, now)?;
        let target = self.quarantine.join(format!("{member}-{}", now.0));
        match fs::remove_dir_all(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{} cannot be deleted: {error}", target.display()))
            }
            _ => Ok(()),
        }
    }

    /// The beginning of a file in a volume; nothing outside the volume can be named, not by links either.
    ///
    /// # Errors
    /// It is not there, or not readable as text.
    pub fn read_file(&self, member: MemberId, volume: &Name, path: &str) -> Result<String, String> {
        let root = fs::File::open(data_dir(&self.of(member), volume.as_str())).map_err(|e| e.to_string())?;
        let inside = path.trim_start_matches('/');
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file =
            openat2(&root, inside, flags, Mode::empty(), resolve).map_err(|e| format!("{path}: {e}"))?;
        let mut content = Vec::new();
        let limit = ANSWER_LEN_MAX as u64;
        fs::File::from(file).take(limit).read_to_end(&mut content).map_err(|e| format!("{path}: {e}"))?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    fn look(&self, member: MemberId, volume: &Name) -> Found {
        let root = self.of(member);
        let data = data_dir(&root, volume.as_str());
        let entries = fs::read_dir(&data);
        let marker = fs::File::open(root.join(volume.as_str()).join(MARKER)).ok().and_then(|file| {
            let mut text = Vec::new();
            file.take(MARKER_MAX).read_to_end(&mut text).ok()?;
            serde_json::from_slice::<Marker>(&text).ok()
        });
        match (marker, entries) {
            (None, Err(_)) => Found::Nothing,
            (None, Ok(_)) => Found::NoMarker,
            (Some(_), Err(_)) => Found::NoDirectory,
            (Some(marker), Ok(mut entries)) => Found::Marked { marker, empty: entries.next().is_none() },
        }
    }

    // Safety of this order: a directory without a marker is another's, so the marker comes first.
    fn make(&self, member: &MemberPlan, volume: &Name, marker: &Marker) -> Result<(), String> {
        let root = self.of(member.member);
        state_dir::create_private_dir(&root.join(volume.as_str())).map_err(|e| e.to_string())?;
        self.write_marker(member.member, volume, marker)?;
        let data = data_dir(&root, volume.as_str());
        let user = member.rendered.user;
        let made = fs::DirBuilder::new().mode(0o700).create(&data);
        made.and_then(|()| chown(&data, Some(user.uid), Some(user.gid))).map_err(|e| e.to_string())
    }

    fn write_marker(&self, member: MemberId, volume: &Name, marker: &Marker) -> Result<(), String> {
        let path = self.of(member).join(volume.as_str()).join(MARKER);
        let text = serde_json::to_vec(marker).map_err(|e| e.to_string())?;
        state_dir::write_atomic(&path, &text, PRIVATE).map_err(|e| e.to_string())
    }
}

fn expected(plan: &HostPlan, member: &MemberPlan, volume: &Name, known: Option<&KnownVolumes>) -> Expected {
    Expected {
        marker: Marker {
            platform: plan.platform.clone(),
            slot: member.slot.clone(),
            member: member.member,
            volume: volume.clone(),
            system_id: known.and_then(|known| known.system_id.clone()),
        },
        had_data: member.has_data || known.is_some_and(|known| known.with_data.contains(volume)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{member, name, plan};
    use muster_model::plan::{UserIds, VolumeSpec};
    use std::os::unix::fs::MetadataExt;

    fn here() -> (tempfile::TempDir, Volumes, HostPlan) {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        let mut mine = member(1);
        let owner = fs::metadata(dir.path()).unwrap();
        mine.rendered.user = UserIds { uid: owner.uid(), gid: owner.gid() };
        mine.rendered.volumes.push(VolumeSpec { name: name("data"), path: "/data".to_owned() });
        (dir, volumes, plan(1, vec![mine]))
    }

    #[test]
    fn a_volume_is_made_once_and_its_loss_is_refused() {
        let (_dir, volumes, mut plan) = here();
        let mine = plan.members[0].clone();
        assert_eq!(volumes.check(&plan, &mine, None), Checked::default());
        volumes.prepare(&plan, &mine, None).unwrap();
        let data = data_dir(&volumes.of(mine.member), "data");
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
        fs::write(data.join("PG_VERSION"), "15").unwrap();
        assert_eq!(volumes.check(&plan, &mine, None).with_data.len(), 1);
        plan.members[0].has_data = true;
        let mine = plan.members[0].clone();
        volumes.prepare(&plan, &mine, None).unwrap();
        fs::remove_file(data.join("PG_VERSION")).unwrap();
        assert!(volumes.prepare(&plan, &mine, None).unwrap_err().contains("empty"));
        fs::remove_dir_all(volumes.of(mine.member)).unwrap();
        assert!(volumes.check(&plan, &mine, None).lost.unwrap().contains("no directory"));
    }

    #[test]
    fn a_file_is_read_and_nothing_outside_the_volume() {
        let (dir, volumes, plan) = here();
        let mine = &plan.members[0];
        volumes.prepare(&plan, mine, None).unwrap();
        let data = data_dir(&volumes.of(mine.member), "data");
        fs::write(data.join("grastate.dat"), "seqno: 7").unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), data.join("link")).unwrap();
        let read = |path: &str| volumes.read_file(mine.member, &name("data"), path);
        assert_eq!(read("grastate.dat").unwrap(), "seqno: 7");
        for path in ["../marker.json", "link", "../../../outside", "/etc/hostname"] {
            assert!(read(path).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_put_aside_is_kept() {
        let (dir, volumes, plan) = here();
        volumes.prepare(&plan, &plan.members[0], None).unwrap();
        volumes.put_aside(MemberId(1), Timestamp(5)).unwrap();
        assert!(dir.path().join("quarantine/1-5/data/data").exists());
        assert!(!volumes.of(MemberId(1)).exists());
    }
}
