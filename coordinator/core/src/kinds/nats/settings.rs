//! Settings of a `nats` service, read and judged. Renders nothing.

use std::collections::BTreeSet;

use muster_model::ids::Name;
use muster_model::spec::{PlatformSpec, ServiceSpec, Size};

use crate::kinds::settings::Fields;
use crate::kinds::{Problem, parts};

const IMAGE: &str = "muster/nats:2.9";
const USERS_MAX: usize = 50;
const STORAGE: Size = Size(1 << 30);

/// The settings.
pub struct Settings {
    /// Servers; odd, so that a majority is more than half.
    pub members: u32,
    /// Network of clients and servers.
    pub network: Name,
    /// Image.
    pub image: String,
    /// What streams may take of a member's disk, in bytes.
    pub storage: u64,
    /// Users, at least one.
    pub users: Vec<String>,
}

impl Settings {
    /// The settings of a spec that was accepted.
    pub fn of(spec: &ServiceSpec) -> Self {
        Self::read(spec, None).0
    }

    /// Reads and judges.
    pub fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let settings = Self::from_fields(&mut fields, platform);
        (settings, fields.finish())
    }

    /// Asks for every setting that there is.
    pub fn from_fields(fields: &mut Fields<'_>, platform: Option<&PlatformSpec>) -> Self {
        let members = fields.number("members", 1, 5).unwrap_or(3) as u32;
        if members.is_multiple_of(2) {
            fields.problem("members", "an even number of servers", "write 1, 3 or 5");
        }
        let network = parts::network(fields, "dbnet", platform);
        let image = parts::image(fields, "image", IMAGE);
        let storage: Size = fields.get("storage", "write a size, for example 2GiB").unwrap_or(STORAGE);
        if storage.0 < parts::MIB {
            fields.problem("storage", "too little for any stream", "write 1MiB or more");
        }
        let users = read_users(fields);
        Self { members, network, image, storage: storage.0, users }
    }
}

fn read_users(fields: &mut Fields<'_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let users = fields.list("users", USERS_MAX, "write a list of `- name: NAME`", |user| {
        let name: Name = user.required("name", "write the user's name")?;
        if name.as_str() == "system" {
            user.problem("name", "`system` belongs to the platform", "take another name");
        } else if !seen.insert(name.clone()) {
            user.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        Some(name.to_string())
    });
    if users.is_empty() { vec!["app".to_owned()] } else { users }
}
