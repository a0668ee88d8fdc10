//! What operators write, after parsing: the platform, its networks and services.
//!
//! Fields that only one kind knows stay in [`ServiceSpec::settings`]; the kind's folder gives them types. So a new
//! kind touches no file here. Reading YAML, with line and column, is `muster-spec`'s work.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::time::Millis;

/// The format of spec file that this version reads and writes.
pub const SPEC_FORMAT: u32 = 1;

/// Everything one spec file describes.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformSpec {
    /// Format of the file, see [`SPEC_FORMAT`].
    pub muster: u32,
    /// Name of the platform; must be the one given at `muster-coordinator init`.
    pub platform: Name,
    /// How fast a silent host counts as down.
    #[serde(default)]
    pub detection: Detection,
    /// The encrypted mesh between hosts.
    #[serde(default)]
    pub mesh: MeshSpec,
    /// Networks beside, or instead of the subnets of, the default ones.
    #[serde(default)]
    pub networks: BTreeMap<Name, NetworkSpec>,
    /// The services by name.
    #[serde(default)]
    pub services: BTreeMap<Name, ServiceSpec>,
}

/// Preset of how long a host may be silent before it counts as down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detection {
    /// 2.5 s: hosts of one data centre.
    Lan,
    /// 5 s: ordinary rented servers.
    #[default]
    Vps,
    /// 10 s: hosts on several continents.
    Wan,
}

impl Detection {
    /// Silence after which a host is *down*.
    #[must_use]
    pub const fn down_after(self) -> Millis {
        match self {
            Self::Lan => Millis(2_500),
            Self::Vps => Millis(5_000),
            Self::Wan => Millis(10_000),
        }
    }
}

/// Settings of the mesh. They cannot be changed while members run in its networks.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshSpec {
    /// One address of this subnet for each host.
    #[schemars(with = "String")]
    pub subnet: Ipv4Net,
    /// UDP port on every host.
    pub port: u16,
    /// MTU in bytes of the mesh and of every container interface.
    pub mtu: u16,
}

impl Default for MeshSpec {
    fn default() -> Self {
        Self { subnet: Ipv4Net::new_assert([10, 210, 0, 0].into(), 16), port: 51_820, mtu: 1_370 }
    }
}

/// One network that members join.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The whole network, the same on every host.
    #[schemars(with = "String")]
    pub subnet: Ipv4Net,
    /// Whether members may open connections to the internet.
    #[serde(default)]
    pub egress: Egress,
}

/// Whether members of a network may open connections to the internet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// NATed through the host.
    Allow,
    /// Dropped.
    #[default]
    Deny,
}

/// The networks that exist without being written: name, subnet, egress.
pub const DEFAULT_NETWORKS: [(&str, [u8; 4], Egress); 6] = [
    ("proxy", [172, 30, 0, 0], Egress::Allow),
    ("dbnet", [172, 31, 10, 0], Egress::Deny),
    ("cachenet", [172, 31, 20, 0], Egress::Deny),
    ("stornet", [172, 31, 30, 0], Egress::Deny),
    ("keycloaknet", [172, 31, 40, 0], Egress::Deny),
    ("monnet", [172, 31, 50, 0], Egress::Deny),
];

impl PlatformSpec {
    /// The network of this name, written or default.
    #[must_use]
    pub fn network(&self, name: &Name) -> Option<NetworkSpec> {
        if let Some(written) = self.networks.get(name) {
            return Some(written.clone());
        }
        let (_, net, egress) = DEFAULT_NETWORKS.iter().find(|(n, ..)| *n == name.as_str())?;
        Some(NetworkSpec { subnet: Ipv4Net::new_assert((*net).into(), 24), egress: *egress })
    }
}

/// One service as written. Unknown fields land in `settings` and are judged by the kind.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// `postgres`, `app`, ...
    pub kind: Name,
    /// Where its members may run.
    #[serde(default)]
    pub place: PlaceSpec,
    /// Loss that writes must survive; an unsatisfiable demand is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survive: Option<FailureDomain>,
    /// Limits of each member's container.
    #[serde(default)]
    pub resources: ResourceSpec,
    /// How a new revision is rolled out.
    #[serde(default)]
    pub update: UpdateSpec,
    /// How long a member's host may be down before the member is replaced on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_after: Option<Span>,
    /// The name that this service had before, to rename it without losing data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<Name>,
    /// Everything else, typed by the kind.
    #[serde(flatten)]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// Where members may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlaceSpec {
    /// Labels that a host must have, with these values.
    pub labels: BTreeMap<String, String>,
    /// Names of the only hosts allowed; empty = all.
    pub hosts: Vec<Name>,
    /// Members of the service must be in different zones too.
    pub spread: FailureDomain,
}

/// What may be lost at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureDomain {
    /// One host.
    #[default]
    Host,
    /// All hosts of one zone.
    Zone,
}

/// Limits of a member's container. Absent = the kind's default.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceSpec {
    /// Memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// CPU limit in cores, for example 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Largest number of processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// How a new revision is rolled out.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSpec {
    /// What happens when a member does not become ready in time.
    pub on_failure: OnFailure,
    /// Time one member has to become ready again.
    pub deadline: Span,
    /// How long a member must stay ready before the next one.
    pub soak: Span,
}

impl Default for UpdateSpec {
    fn default() -> Self {
        Self { on_failure: OnFailure::Pause, deadline: Span(Millis(300_000)), soak: Span(Millis(2_000)) }
    }
}

/// What a failed update does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Stops after the failed member and waits for an operator.
    #[default]
    Pause,
    /// Goes back to the previous revision by itself.
    Rollback,
}

/// A number of bytes, written `512MiB`, `2GiB`, `10GB` or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a size: write for example 512MiB, 2GiB or 10GB");
        let (number, unit) = SIZE_UNITS
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|n| (n, *unit)))
            .unwrap_or((text, 1));
        let number: u64 = number.trim_end().parse().map_err(|_| refused())?;
        number.checked_mul(unit).map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &SIZE_UNITS[..4];
        match binary.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A span of time as operators write it: `500ms`, `30s`, `5m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Millis);

const SPAN_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a duration: write for example 500ms, 30s, 5m, 2h or 7d");
        let (number, unit) = SPAN_UNITS
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|n| (n, *unit)))
            .ok_or_else(refused)?;
        let number: u64 = number.parse().map_err(|_| refused())?;
        number.checked_mul(unit).map(|ms| Self(Millis(ms))).ok_or_else(refused)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.0;
        match SPAN_UNITS.iter().rev().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit)) {
            Some((suffix, unit)) => write!(f, "{}{suffix}", ms / unit),
            None => write!(f, "{ms}ms"),
        }
    }
}

macro_rules! text_serde {
    ($type:ident, $expecting:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}
text_serde!(Size, "a size such as 512MiB or 2GiB", {
    "type": ["string", "integer"],
    "pattern": "^\\+?[0-9]+ *(TiB|GiB|MiB|KiB|TB|GB|MB|kB|B)?$",
    "minimum": 0
});
text_serde!(Span, "a duration such as 500ms, 30s or 5m", {
    "type": "string",
    "pattern": "^\\+?[0-9]+(ms|s|m|h|d)$"
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_read_and_written_with_units() {
        assert_eq!("2GiB".parse(), Ok(Size(2 << 30)));
        assert_eq!("10GB".parse(), Ok(Size(10_000_000_000)));
        assert_eq!(Size(512 << 20).to_string(), "512MiB");
        assert!("2gb".parse::<Size>().is_err());
        assert!("99999999999TiB".parse::<Size>().is_err());
        assert_eq!("5m".parse(), Ok(Span(Millis(300_000))));
        assert_eq!(Span(Millis(90_000)).to_string(), "90s");
        assert!("30".parse::<Span>().is_err());
        assert!("-3s".parse::<Span>().is_err());
    }

    #[test]
    fn a_written_network_wins_over_the_default() {
        let yaml = r#"{"muster":1,"platform":"p","networks":{"dbnet":{"subnet":"10.9.0.0/24"}}}"#;
        let spec: PlatformSpec = serde_json::from_str(yaml).unwrap();
        let name = |n| Name::new(n).unwrap();
        assert_eq!(spec.network(&name("dbnet")).unwrap().subnet.to_string(), "10.9.0.0/24");
        assert_eq!(spec.network(&name("proxy")).unwrap().subnet.to_string(), "172.30.0.0/24");
        assert!(spec.network(&name("other")).is_none());
    }
}
