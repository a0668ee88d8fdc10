//! `muster-agent bundle`: what this host knows of its platform, for a rebuild of the control plane. Reads, and changes nothing.

use std::path::Path;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_model::ids::Name;
use muster_runtime::host_bundle::HostBundle;
use muster_runtime::state_dir::{PRIVATE, read_text, write_atomic};

use crate::identity_dir::IdentityDir;
use crate::secrets::SecretStore;
use crate::store::Store;

/// Writes the file; a line about what is in it.
///
/// # Errors
/// The host has not joined, something stored cannot be read, or the file exists or cannot be written.
pub fn write(state: &Path, out: &Path) -> anyhow::Result<String> {
    ensure!(!out.exists(), "{} is there already", out.display());
    let bundle = read(state)?;
    write_atomic(out, bundle.encode().expose(), PRIVATE)?;
    let of = match &bundle.kept {
        Some(kept) => format!("incarnation {}, index {}", kept.incarnation, kept.index),
        None => "nothing of the platform's state: its coordinators were older than that".to_owned(),
    };
    let members = bundle.plan.as_ref().map_or(0, |plan| plan.members.len());
    Ok(format!(
        "{}: host {} of platform {}, {of}, {members} members, {} secrets\nit holds passwords in the clear, readable by you \
         alone (0600): bring it to the new coordinator by scp, and delete it afterwards",
        out.display(),
        bundle.name,
        bundle.platform,
        bundle.secrets.len()
    ))
}

fn read(state: &Path) -> anyhow::Result<HostBundle> {
    let dir = IdentityDir::new(state);
    ensure!(dir.exists(), "this host has not joined a platform");
    let record = dir.record()?;
    let store = Store::new(state);
    let secrets = SecretStore::open(state)?.load().context("the host's secrets")?;
    let secrets = secrets.iter().map(|(name, value)| (name.clone(), STANDARD.encode(value.expose())));
    Ok(HostBundle {
        host: record.host,
        name: record.name,
        platform_id: record.platform_id,
        platform: Name::new(record.platform_name)?,
        ca_pem: read_text(&dir.ca_file())?,
        kept: store.kept()?,
        plan: store.plan()?,
        secrets: secrets.collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use muster_model::ids::HostId;
    use muster_runtime::host_bundle::Kept;
    use muster_runtime::keys::NodeKey;
    use muster_runtime::secret::Secret;

    use super::*;
    use crate::files::SecretMap;
    use crate::identity_dir::Record;

    #[test]
    fn a_bundle_holds_what_the_host_knows_and_is_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("agent");
        let out = dir.path().join("bundle");
        std::fs::create_dir(&state).unwrap();
        assert!(write(&state, &out).unwrap_err().to_string().contains("has not joined"));
        let record = Record {
            format: 1,
            platform_id: "f00d".to_owned(),
            platform_name: "shop".to_owned(),
            host: HostId::new("0123456789abcdef").unwrap(),
            name: Name::new("h1").unwrap(),
            coordinators: Vec::new(),
            adopted: false,
        };
        IdentityDir::new(&state).create(&NodeKey::generate().unwrap(), &record, "", "the CA").unwrap();
        let kept = Kept { incarnation: 1, index: 9, body: "{}".to_owned() };
        Store::new(&state).keep(&kept).unwrap();
        let map = SecretMap::from([("pg/app".to_owned(), Secret::new(b"hunter2".to_vec()))]);
        SecretStore::open(&state).unwrap().store(&map).unwrap();
        let said = write(&state, &out).unwrap();
        assert!(said.contains("incarnation 1, index 9, 0 members, 1 secrets"), "{said}");
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        let read = HostBundle::decode(&std::fs::read(&out).unwrap()).unwrap();
        assert_eq!((read.kept, read.ca_pem.as_str()), (Some(kept), "the CA"));
        assert_eq!(read.secrets["pg/app"], STANDARD.encode("hunter2"));
        assert!(write(&state, &out).unwrap_err().to_string().contains("is there already"));
    }
}
