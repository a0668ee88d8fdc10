//! Images on hosts, and on their way there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::Name;

/// Largest archive in bytes.
pub const IMAGE_MAX: u64 = 16 << 30;
/// Bytes of one part of it on the wire.
pub const IMAGE_PART: usize = 256 * 1024;
/// Images in one archive, and ids of all of them.
pub const IMAGE_NAMES_MAX: usize = 32;

/// How far a host is with an image that is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushState {
    /// Its agent has not said yet whether it has it.
    Asked,
    /// It does not have it, and waits for its turn.
    Wanted,
    /// It fetches it.
    Receiving,
    /// It has all of it, and the engine takes it in.
    Loading,
    /// It had it before.
    Had,
    /// It has it now.
    Loaded,
    /// It does not get it.
    Failed,
}

impl PushState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Asked, Self::Wanted, Self::Receiving, Self::Loading, Self::Had, Self::Loaded, Self::Failed];

    /// Nothing more happens.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Had | Self::Loaded | Self::Failed)
    }

    /// On the wire and for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Wanted => "wanted",
            Self::Receiving => "receiving",
            Self::Loading => "loading",
            Self::Had => "had",
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for PushState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for PushState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.word() == text);
        found.ok_or_else(|| format!("there is no state `{text}`"))
    }
}

/// One push of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushView {
    /// SHA-256 of the archive, hex.
    pub sha256: String,
    /// `name:tag` of what is in it.
    pub names: Vec<String>,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Bytes that the coordinator has.
    pub received: u64,
    /// Hosts that it is meant for.
    pub hosts: Vec<PushHostView>,
}

/// One host of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHostView {
    /// The host.
    pub host: Name,
    /// How far it is.
    pub state: PushState,
    /// Bytes of the archive that it has asked for so far.
    pub bytes: u64,
    /// Why it failed.
    pub text: String,
}

/// An image of the platform on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldImage {
    /// `name:tag`, or `name@recipe`.
    pub name: String,
    /// The engine's id.
    pub id: String,
    /// Size in bytes, as the engine counts it: layers that images share are counted with each.
    pub bytes: u64,
    /// A member here runs it, or ran it before its newest revision.
    pub needed: bool,
}

/// Images of the platform on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostImagesView {
    /// The host.
    pub host: Name,
    /// Absent = its agent is not connected, or has not said yet.
    pub images: Option<Vec<HeldImage>>,
}

/// A digest in lower-case hex: 64 digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name or an id of an image that can go into a path of the engine's API.
#[must_use]
pub fn is_image_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    !text.is_empty()
        && text.len() <= 300
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
        && !text.contains("//")
        && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_again() {
        for state in PushState::ALL {
            assert_eq!(state.word().parse(), Ok(state));
        }
        assert!("lost".parse::<PushState>().is_err());
    }

    #[test]
    fn only_plain_names_and_digests_pass() {
        assert!(is_image_name("registry.example:5000/team/app:1.2-b") && is_image_name("sha256:00ff"));
        for bad in ["", "../x", "a/../b", "a b", "a?force=1", "/a", "a//b", "-x"] {
            assert!(!is_image_name(bad), "{bad}");
        }
        assert!(is_digest(&"0a".repeat(32)));
        assert!(!is_digest(&"0A".repeat(32)) && !is_digest("../../etc/passwd"));
    }
}
