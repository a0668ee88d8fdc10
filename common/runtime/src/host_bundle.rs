//! The file that `muster-agent bundle` writes and `muster-coordinator rebuild` reads: what one host knows of its platform.
//! It holds the host's secrets in the clear. One line that says what it is, then JSON.

use std::collections::BTreeMap;

use muster_model::ids::{HostId, Name};
use muster_model::plan::HostPlan;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::secret::Secret;

/// Format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Largest file that is read, in bytes.
pub const SIZE_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Head {
    muster_bundle: u32,
    sha256: String,
}

/// What an agent keeps for the day on which all coordinators are lost; newer ones replace it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The control plane's incarnation when it was made.
    pub incarnation: u64,
    /// The entry of its log that it is as of.
    pub index: u64,
    /// The coordinator's own text, which agents do not read.
    pub body: String,
}

impl Kept {
    /// The newer one has the greater age.
    #[must_use]
    pub const fn age(&self) -> (u64, u64) {
        (self.incarnation, self.index)
    }
}

/// What one host knows. Not printable: there are secrets in it.
#[derive(Serialize, Deserialize)]
pub struct HostBundle {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// The platform's random id.
    pub platform_id: String,
    /// The platform's name.
    pub platform: Name,
    /// The CA that it trusted, PEM.
    pub ca_pem: String,
    /// What it kept of the state.
    pub kept: Option<Kept>,
    /// The plan that it acts on.
    pub plan: Option<HostPlan>,
    /// Values of the secrets that its members need, base64.
    pub secrets: BTreeMap<String, String>,
}

/// Why a file is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It does not begin like one.
    #[error("this is no file of `muster-agent bundle`")]
    Other,
    /// Written by a newer version.
    #[error("it has format {0}, this version reads up to {FORMAT}: use the newer version")]
    Newer(u32),
    /// Cut off or changed.
    #[error("it is damaged: make it again")]
    Damaged,
    /// Not what this version knows.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl HostBundle {
    /// The whole file.
    ///
    /// # Panics
    /// Never: plain data always has a JSON form.
    #[must_use]
    pub fn encode(&self) -> Secret<Vec<u8>> {
        let body = Secret::new(serde_json::to_vec(self).expect("plain data always has a JSON form"));
        let head = Head { muster_bundle: FORMAT, sha256: hex::encode(Sha256::digest(body.expose())) };
        let mut file = serde_json::to_vec(&head).expect("plain data always has a JSON form");
        // At its final size: a vector that grows leaves copies behind.
        file.reserve_exact(body.expose().len() + 1);
        file.push(b'\n');
        file.extend_from_slice(body.expose());
        Secret::new(file)
    }

    /// Checks and reads a file.
    ///
    /// # Errors
    /// It is none, of a newer format, or damaged.
    pub fn decode(file: &[u8]) -> Result<Self, BundleError> {
        let end = file.iter().take(4096).position(|byte| *byte == b'\n').ok_or(BundleError::Other)?;
        let head: Head = serde_json::from_slice(&file[..end]).map_err(|_| BundleError::Other)?;
        if head.muster_bundle > FORMAT {
            return Err(BundleError::Newer(head.muster_bundle));
        }
        let body = &file[end + 1..];
        if hex::encode(Sha256::digest(body)) != head.sha256 {
            return Err(BundleError::Damaged);
        }
        Ok(serde_json::from_slice(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_as_it_was_written_or_not_at_all() {
        let kept = Kept { incarnation: 2, index: 7, body: "{}".to_owned() };
        let bundle = HostBundle {
            host: HostId::new("0123456789abcdef").unwrap(),
            name: Name::new("h1").unwrap(),
            platform_id: "f00d".to_owned(),
            platform: Name::new("shop").unwrap(),
            ca_pem: String::new(),
            kept: Some(kept.clone()),
            plan: None,
            secrets: BTreeMap::from([("pg/app".to_owned(), "aHVudGVyMg==".to_owned())]),
        };
        let file = bundle.encode();
        let read = HostBundle::decode(file.expose()).unwrap();
        assert_eq!((read.kept, read.secrets), (Some(kept), bundle.secrets));
        let mut broken = file.expose().clone();
        *broken.last_mut().unwrap() = b' ';
        assert!(matches!(HostBundle::decode(&broken), Err(BundleError::Damaged)));
        assert!(matches!(
            HostBundle::decode(&file.expose()[..file.expose().len() - 1]),
            Err(BundleError::Damaged)
        ));
        assert!(matches!(HostBundle::decode(b"{}\n"), Err(BundleError::Other)));
        assert!(matches!(HostBundle::decode(b"nothing"), Err(BundleError::Other)));
        let newer = br#"{"muster_bundle":9,"sha256":""}"#;
        assert!(matches!(HostBundle::decode(&[newer, &b"\n"[..]].concat()), Err(BundleError::Newer(9))));
    }
}
