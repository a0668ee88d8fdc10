//! Whether a data directory is what it was. Pure; it never initialises a fresh database under an existing cluster.

use muster_model::ids::{MemberId, Name, Slot};
use serde::{Deserialize, Serialize};

/// The marker file beside a member's data: whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The platform's id.
    pub platform: String,
    /// The slot.
    pub slot: Slot,
    /// The member.
    pub member: MemberId,
    /// The volume.
    pub volume: Name,
    /// The engine's own system id, once known.
    #[serde(default)]
    pub system_id: Option<String>,
}

/// A data directory as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Neither marker nor directory.
    Nothing,
    /// A directory without a marker that can be read.
    NoMarker,
    /// A marker without its directory.
    NoDirectory,
    /// Both.
    Marked {
        /// What the marker says.
        marker: Marker,
        /// The directory has no entry.
        empty: bool,
    },
}

/// What may be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Make it: there never was one.
    Make,
    /// Use it.
    Use,
    /// Refuse: what was there is lost, or it is another's.
    Lost(String),
}

/// What is expected of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What its marker must say, but for the system id.
    pub marker: Marker,
    /// Data was in it before, as the ledger or the plan says.
    pub had_data: bool,
}

/// Judges one data directory.
#[must_use]
pub fn judge(expected: &Expected, found: &Found) -> Verdict {
    let lost = |what: &str| {
        Verdict::Lost(format!("{what} for volume {} of {}", expected.marker.volume, expected.marker.slot))
    };
    match found {
        Found::Nothing if expected.had_data => lost("no directory"),
        Found::Nothing => Verdict::Make,
        Found::NoMarker => lost("a directory without our marker"),
        Found::NoDirectory if expected.had_data => lost("a marker without its directory"),
        Found::NoDirectory => Verdict::Make,
        Found::Marked { marker, empty } => {
            let own = Marker { system_id: None, ..marker.clone() };
            if own != (Marker { system_id: None, ..expected.marker.clone() }) {
                return lost(&format!(
                    "the directory of member {} of {} (platform {})",
                    marker.member, marker.slot, marker.platform
                ));
            }
            let other_system =
                matches!((&marker.system_id, &expected.marker.system_id), (Some(a), Some(b)) if a != b);
            if other_system {
                lost("the data of another system")
            } else if *empty && (expected.had_data || marker.system_id.is_some()) {
                lost("an empty directory")
            } else {
                Verdict::Use
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(had_data: bool) -> Expected {
        let slot = Slot { service: Name::new("pg").unwrap(), index: 1 };
        let volume = Name::new("data").unwrap();
        let marker = Marker { platform: "p".to_owned(), slot, member: MemberId(3), volume, system_id: None };
        Expected { marker, had_data }
    }

    #[test]
    fn a_new_member_gets_a_directory_and_one_with_data_never_a_second() {
        assert_eq!(judge(&expected(false), &Found::Nothing), Verdict::Make);
        let known = expected(true);
        let empty = Found::Marked { marker: known.marker.clone(), empty: true };
        for found in [Found::Nothing, Found::NoMarker, Found::NoDirectory, empty] {
            assert!(matches!(judge(&known, &found), Verdict::Lost(_)), "{found:?}");
        }
        let full = Found::Marked { marker: known.marker.clone(), empty: false };
        assert_eq!(judge(&known, &full), Verdict::Use);
    }

    #[test]
    fn anothers_directory_is_refused_even_for_a_new_member() {
        let mine = expected(false);
        let change: [fn(&mut Marker); 3] =
            [|m| m.platform = "q".to_owned(), |m| m.member = MemberId(4), |m| m.slot.index = 2];
        for change in change {
            let mut marker = mine.marker.clone();
            change(&mut marker);
            assert!(matches!(judge(&mine, &Found::Marked { marker, empty: true }), Verdict::Lost(_)));
        }
        assert!(matches!(judge(&mine, &Found::NoMarker), Verdict::Lost(_)));
    }

    #[test]
    fn data_of_another_system_is_refused() {
        let mut mine = expected(true);
        mine.marker.system_id = Some("1".to_owned());
        let marker = Marker { system_id: Some("2".to_owned()), ..mine.marker.clone() };
        assert!(matches!(judge(&mine, &Found::Marked { marker, empty: false }), Verdict::Lost(_)));
    }
}
