//! Who holds which key by a certificate: operators for people to see, and what there is to revoke. Changes nothing.

use std::collections::BTreeMap;

use muster_model::ids::{HostId, Name};
use muster_model::view::OperatorView;

use crate::state::{Certificate, State};

/// Roles of people.
const OPERATORS: [&str; 3] = ["admin", "operator", "viewer"];
/// Characters of a key's digest that are shown.
const KEY_SHOWN: usize = 16;

/// Role and id of a certificate's subject, `muster://platform/role/id`.
fn holder(row: &Certificate) -> Option<(&str, &str)> {
    let mut parts = row.subject.rsplit('/');
    let id = parts.next()?;
    Some((parts.next()?, id))
}

/// Operators' keys, by name and role, each with its newest certificate.
#[must_use]
pub fn operators(state: &State) -> Vec<OperatorView> {
    let mut keys: BTreeMap<&str, OperatorView> = BTreeMap::new();
    for (serial, row) in &state.certificates {
        let Some((role, name)) = holder(row).filter(|(role, _)| OPERATORS.contains(role)) else { continue };
        let fresh = OperatorView {
            name: name.to_owned(),
            role: role.to_owned(),
            key: row.key_digest.chars().take(KEY_SHOWN).collect(),
            serial: serial.clone(),
            expires: row.expires,
            revoked: row.revoked.clone(),
        };
        match keys.get_mut(row.key_digest.as_str()) {
            None => drop(keys.insert(&row.key_digest, fresh)),
            Some(known) => {
                let revoked = known.revoked.take().or_else(|| fresh.revoked.clone());
                if fresh.expires > known.expires {
                    *known = fresh;
                }
                known.revoked = revoked;
            }
        }
    }
    let mut all: Vec<OperatorView> = keys.into_values().collect();
    all.sort_by(|a, b| (&a.name, &a.role, a.expires).cmp(&(&b.name, &b.role, b.expires)));
    all
}

/// One serial for each key of an operator that is not revoked; absent = nobody of this name ever had one.
#[must_use]
pub fn of_operator(state: &State, name: &Name) -> Option<Vec<String>> {
    keys_of(state, |role, id| OPERATORS.contains(&role) && id == name.as_str())
}

/// The same for the agent of a host.
#[must_use]
pub fn of_host(state: &State, host: &HostId) -> Option<Vec<String>> {
    keys_of(state, |role, id| role == "agent" && id == host.as_str())
}

/// The same for a coordinator.
#[must_use]
pub fn of_coordinator(state: &State, node: u64) -> Option<Vec<String>> {
    let node = node.to_string();
    keys_of(state, |role, id| role == "coordinator" && id == node)
}

/// Revocation counts for the key: one certificate of each is enough.
fn keys_of(state: &State, is_theirs: impl Fn(&str, &str) -> bool) -> Option<Vec<String>> {
    let theirs = |row: &Certificate| holder(row).is_some_and(|(role, id)| is_theirs(role, id));
    let mut keys: BTreeMap<&str, (bool, &str)> = BTreeMap::new();
    for (serial, row) in state.certificates.iter().filter(|(_, row)| theirs(row)) {
        let known = keys.entry(&row.key_digest).or_insert((false, serial.as_str()));
        known.0 |= row.revoked.is_some();
    }
    let good = keys.values().filter(|(revoked, _)| !revoked).map(|(_, serial)| (*serial).to_owned());
    (!keys.is_empty()).then(|| good.collect())
}

#[cfg(test)]
mod tests {
    use muster_model::time::Timestamp;

    use super::*;

    fn state(rows: &[(&str, &str, &str, u64, bool)]) -> State {
        let mut state = State::default();
        for (serial, subject, key, expires, revoked) in rows {
            let row = Certificate {
                subject: format!("muster://shop/{subject}"),
                key_digest: (*key).to_owned(),
                expires: Timestamp(*expires),
                revoked: revoked.then(|| "stolen".to_owned()),
            };
            state.certificates.insert((*serial).to_owned(), row);
        }
        state
    }

    #[test]
    fn a_key_is_listed_once_and_revoked_as_a_whole() {
        let state = state(&[
            ("01", "admin/ada", "aa", 5, true),
            ("02", "admin/ada", "aa", 9, false),
            ("03", "viewer/ada", "bb", 7, false),
            ("04", "agent/ada", "cc", 7, false),
            ("05", "coordinator/1", "dd", 7, false),
        ]);
        let seen = operators(&state);
        let told: Vec<_> =
            seen.iter().map(|o| (o.role.as_str(), o.serial.as_str(), o.revoked.is_some())).collect();
        assert_eq!(told, [("admin", "02", true), ("viewer", "03", false)]);
        let name = |text| Name::new(text).unwrap();
        assert_eq!(of_operator(&state, &name("ada")), Some(vec!["03".to_owned()]));
        assert_eq!(of_operator(&state, &name("bob")), None);
    }

    #[test]
    fn a_hosts_key_is_found_by_the_hosts_id() {
        let id = HostId::new("0123456789abcdef").unwrap();
        let state = state(&[
            ("01", "agent/0123456789abcdef", "aa", 5, false),
            ("02", "agent/0123456789abcdef", "aa", 9, false),
            ("03", "agent/fedcba9876543210", "bb", 9, false),
        ]);
        assert_eq!(of_host(&state, &id), Some(vec!["01".to_owned()]));
    }
}
