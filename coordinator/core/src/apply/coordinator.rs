//! Commands about the coordinators. Who is one is Raft's own matter; here are their names and their keys.

use muster_model::ids::Name;

use super::{event, unknown};
use crate::command::{LogMeta, Rejected};
use crate::holders;
use crate::state::State;

pub fn name(state: &mut State, node: u64, name: &Name) {
    state.coordinators.insert(node, name.clone());
}

/// To say it again changes nothing, as long as the certificates are remembered.
pub fn remove(state: &mut State, node: u64, meta: LogMeta) -> Result<(), Rejected> {
    let keys = holders::of_coordinator(state, node);
    let name = state.coordinators.remove(&node);
    if keys.is_none() && name.is_none() {
        return Err(unknown("coordinator", node));
    }
    let why = "removed from the platform";
    for serial in keys.unwrap_or_default() {
        if let Some(row) = state.certificates.get_mut(&serial) {
            row.revoked = Some(why.to_owned());
        }
    }
    if let Some(name) = name {
        event(state, meta, "platform", format!("coordinator {name} ({node}) was removed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_model::ids::LogIndex;
    use muster_model::time::Timestamp;

    use super::*;
    use crate::state::Certificate;

    #[test]
    fn a_removal_takes_every_key_of_that_number_and_no_other() {
        let mut state = State::default();
        let row = |subject: &str, key: &str| Certificate {
            subject: format!("muster://p/{subject}"),
            key_digest: key.to_owned(),
            expires: Timestamp(1),
            revoked: None,
        };
        for (serial, subject, key) in [
            ("01", "coordinator/7", "a"),
            ("02", "coordinator/7", "b"),
            ("03", "coordinator/77", "c"),
            ("04", "agent/7", "d"),
        ] {
            state.certificates.insert(serial.to_owned(), row(subject, key));
        }
        let meta = LogMeta { index: LogIndex(9), at: Timestamp(9) };
        name(&mut state, 7, &Name::new("second").unwrap());
        assert_eq!(remove(&mut state, 7, meta), Ok(()));
        let revoked: Vec<_> =
            state.certificates.iter().filter(|(_, c)| c.revoked.is_some()).map(|(s, _)| s.as_str()).collect();
        assert_eq!(revoked, ["01", "02"]);
        assert!(state.coordinators.is_empty());
        assert!(state.events.back().unwrap().text.contains("coordinator second (7) was removed"));
        assert_eq!(remove(&mut state, 7, meta), Ok(()));
        assert_eq!(state.events.len(), 1);
        assert!(remove(&mut state, 8, meta).is_err());
    }
}
