//! Which hosts beat, as the leader hears it. Leader-local: only transitions become commands, beats never do.

use std::collections::BTreeMap;

use muster_model::ids::{BootId, HostId};
use muster_model::spec::Detection;
use muster_model::time::{Millis, Timestamp};
use muster_model::view;

use crate::command::{Command, What};
use crate::state::{Liveness, State};

/// Silence after which a host is shown as *suspect*; nothing moves because of it.
pub const SUSPECT_AFTER: Millis = Millis(1_500);

#[derive(Debug, Clone)]
struct Heard {
    last: Timestamp,
    /// The agent's run; absent = not heard under this leader.
    boot: Option<BootId>,
    /// Its session is open.
    connected: bool,
}

/// What the leader has heard. Made new with each term.
#[derive(Debug, Clone)]
pub struct Tracker {
    hosts: BTreeMap<HostId, Heard>,
    began: Timestamp,
}

impl Tracker {
    /// A new leader has heard nobody: everyone counts as heard just now, and has twice the time.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { hosts: BTreeMap::new(), began: now }
    }

    /// A beat, or the beginning of a session.
    pub fn beat(&mut self, host: &HostId, boot: &BootId, now: Timestamp) {
        let heard = Heard { last: now, boot: Some(boot.clone()), connected: true };
        self.hosts.insert(host.clone(), heard);
    }

    /// A session ended. Ignored if the host has begun another one with another boot since.
    pub fn closed(&mut self, host: &HostId, boot: &BootId) {
        if let Some(heard) = self.hosts.get_mut(host).filter(|heard| heard.boot.as_ref() == Some(boot)) {
            heard.connected = false;
        }
    }

    /// Sessions that are gone: only hosts for which `open` holds are connected.
    pub fn close_all_but(&mut self, open: impl Fn(&HostId) -> bool) {
        for (host, heard) in &mut self.hosts {
            heard.connected = heard.connected && open(host);
        }
    }

    fn silence(&self, host: &HostId, now: Timestamp) -> Millis {
        now.since(self.hosts.get(host).map_or(self.began, |heard| heard.last))
    }

    fn limit(&self, host: &HostId, detection: Detection) -> Millis {
        let once = detection.down_after();
        if self.hosts.contains_key(host) { once } else { Millis(once.0 * 2) }
    }

    /// Hosts whose state is no longer what the coordinators agreed on.
    #[must_use]
    pub fn transitions(&self, state: &State, now: Timestamp) -> Vec<Command> {
        let Some(spec) = state.spec() else { return Vec::new() };
        let mut commands = Vec::new();
        for (id, host) in &state.hosts {
            let silent = self.silence(id, now) >= self.limit(id, spec.detection);
            let boot = self.hosts.get(id).and_then(|heard| heard.boot.clone()).filter(|_| !silent);
            let liveness = match (silent, &boot) {
                (true, _) if host.is_up() => Liveness::Down,
                (false, Some(boot)) if !host.is_up() || host.boot.as_ref() != Some(boot) => Liveness::Up,
                _ => continue,
            };
            commands.push(Command::internal(What::HostLiveness { host: id.clone(), liveness, boot }));
        }
        commands
    }

    /// What operators are shown.
    #[must_use]
    pub fn shown(&self, state: &State, host: &HostId, now: Timestamp) -> view::Liveness {
        if !state.hosts.get(host).is_some_and(|row| row.is_up()) {
            return view::Liveness::Down;
        }
        let connected = self.hosts.get(host).is_none_or(|heard| heard.connected);
        if connected && self.silence(host, now) < SUSPECT_AFTER {
            view::Liveness::Ready
        } else {
            view::Liveness::Suspect
        }
    }
}
