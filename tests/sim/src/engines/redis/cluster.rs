//! Who sees whom, whom a majority has given up, what is told, copied and elected.

use std::collections::BTreeSet;

use muster_model::ids::MemberId;

use super::node::{HASH_SLOTS, Id, KEYS, Ranges, Row, count, has, slot_of};
use super::{COPY, Redis};
use crate::engines::Moment;
use crate::world::TICK;

/// A replica that was apart from its master for so many node timeouts is not elected.
const VALID: u64 = 10;
/// Between the failure of a master and the votes for its replica.
const DELAY: u64 = 500;
/// The bus's own ping period, on top of the timeout.
const PING: u64 = 2_000;

/// Pairs of members of which the first gets answers from the second.
pub type Seen = BTreeSet<(MemberId, MemberId)>;

impl Redis {
    pub(super) fn member_of(&self, id: Id) -> Option<MemberId> {
        self.processes.keys().copied().find(|member| self.nodes[member].id == id)
    }

    pub(super) fn seen(&self, moment: &Moment<'_>) -> Seen {
        let mut seen = Seen::new();
        let alive = || self.processes.iter().filter(|(_, process)| !process.held);
        for (one, process) in alive() {
            for (other, theirs) in alive().filter(|(other, _)| *other != one) {
                let row = self.nodes[one].table.get(&self.nodes[other].id);
                if row.is_some_and(|row| row.at == theirs.at) && moment.reach(process.host, theirs.host) {
                    seen.insert((*one, *other));
                }
            }
        }
        seen
    }

    /// Who does not answer, and whom a majority of masters does not hear.
    pub(super) fn notice(&mut self, seen: &Seen, now: u64) {
        let members: Vec<MemberId> = self.processes.keys().copied().collect();
        for member in &members {
            let heard: BTreeSet<Id> =
                seen.iter().filter(|(one, _)| one == member).map(|(_, other)| self.nodes[other].id).collect();
            let Some(process) = self.processes.get_mut(member) else { continue };
            let node = &self.nodes[member];
            process.silent.retain(|id, _| node.table.contains_key(id) && !heard.contains(id));
            for id in node.table.keys().filter(|id| **id != node.id && !heard.contains(id)) {
                process.silent.entry(*id).or_insert(now);
            }
            process.banned.retain(|_, until| *until > now);
        }
        for member in &members {
            let suspects: Vec<Id> = self.processes[member].silent.keys().copied().collect();
            let node = &self.nodes[member];
            let masters: Vec<Id> = node.masters().map(|(id, _)| id).collect();
            let given_up: BTreeSet<Id> = suspects
                .into_iter()
                .filter(|id| self.suspects(*member, *id, now))
                .filter(|id| {
                    let agree = masters.iter().filter(|master| match self.member_of(**master) {
                        Some(other) if other == *member => true,
                        Some(other) => seen.contains(&(*member, other)) && self.suspects(other, *id, now),
                        None => false,
                    });
                    agree.count() > masters.len() / 2
                })
                .collect();
            let Some(process) = self.processes.get_mut(member) else { continue };
            process.failed.retain(|id, _| given_up.contains(id));
            for id in given_up {
                process.failed.entry(id).or_insert(now);
            }
        }
    }

    pub(super) fn suspects(&self, member: MemberId, id: Id, now: u64) -> bool {
        let since = self.processes.get(&member).and_then(|process| process.silent.get(&id));
        since.is_some_and(|since| now - since >= self.timeout)
    }

    /// Everybody tells those who know it of itself and of the others; nodes nobody knew are met.
    pub(super) fn gossip(&mut self, seen: &Seen, now: u64) {
        for (hears, says) in seen {
            let id = self.nodes[says].id;
            if !self.nodes[hears].table.contains_key(&id)
                || !self.nodes[says].table.contains_key(&self.nodes[hears].id)
            {
                continue;
            }
            let rows: Vec<(Id, Row)> =
                self.nodes[says].table.iter().map(|(id, row)| (*id, row.clone())).collect();
            for (other, row) in rows {
                let known = self.nodes[hears].table.contains_key(&other);
                let banned = self.processes[hears].banned.get(&other).is_some_and(|until| *until > now);
                let claims = other == id || !row.slots.is_empty();
                if known && claims {
                    if let Some(node) = self.nodes.get_mut(hears) {
                        node.learn(other, &row);
                    }
                } else if !known
                    && !banned
                    && let Some(member) = self.member_of(other).filter(|m| seen.contains(&(*says, *m)))
                {
                    self.meet(*hears, member, now);
                }
            }
        }
    }

    /// Two nodes get to know each other.
    pub(super) fn meet(&mut self, one: MemberId, other: MemberId, now: u64) {
        for (who, whom) in [(one, other), (other, one)] {
            let (Some(of), Some(process)) = (self.nodes.get(&whom), self.processes.get_mut(&who)) else {
                continue;
            };
            let (id, row) = (of.id, Row { slots: Ranges::new(), epoch: 0, master: None, ..of.own().clone() });
            if process.banned.get(&id).is_some_and(|until| *until > now) && who == other {
                continue;
            }
            process.banned.remove(&id);
            if let Some(node) = self.nodes.get_mut(&who) {
                node.table.entry(id).or_insert(row);
            }
        }
    }

    /// Replicas take what their master has, one step behind it.
    pub(super) fn copy(&mut self, seen: &Seen, moment: &Moment<'_>) {
        let members: Vec<MemberId> = self.processes.keys().copied().collect();
        for member in members {
            let Some(id) = self.nodes[&member].own().master else {
                if let Some(process) = self.processes.get_mut(&member) {
                    process.link = None;
                    process.coming = self.nodes[&member].data;
                }
                continue;
            };
            let master = self.member_of(id).filter(|master| seen.contains(&(member, *master)));
            let data = master.map(|master| self.nodes[&master].data);
            let (Some(process), Some(node)) = (self.processes.get_mut(&member), self.nodes.get_mut(&member))
            else {
                continue;
            };
            match data {
                None => process.link = None,
                Some(data) => {
                    let until = *process.link.get_or_insert(moment.now + COPY);
                    if until <= moment.now {
                        process.heard = moment.now;
                        node.taken = moment.now;
                    }
                    if until == moment.now || until < moment.now && until + TICK > moment.now {
                        node.data = data;
                    } else if until < moment.now {
                        node.data = process.coming;
                    }
                    if until <= moment.now {
                        process.coming = data;
                    }
                }
            }
        }
    }

    /// Replicas of masters that were given up ask the other masters for their votes.
    pub(super) fn elect(&mut self, seen: &Seen, moment: &Moment<'_>) {
        let mut candidates: Vec<(MemberId, Id)> = Vec::new();
        for (member, process) in self.processes.iter().filter(|(_, process)| !process.held) {
            let node = &self.nodes[member];
            let Some(master) = node.own().master else { continue };
            let failed = process.failed.get(&master).is_some_and(|since| moment.now - since >= DELAY);
            let owns = node.table.get(&master).is_some_and(|row| !row.slots.is_empty());
            let valid = moment.now - process.heard <= self.timeout * VALID + PING;
            if failed && owns && valid && node.has_log {
                candidates.push((*member, master));
            }
        }
        // The one with the most data asks first.
        candidates.sort_by_key(|(member, _)| std::cmp::Reverse(self.nodes[member].data.iter().sum::<u64>()));
        for (member, master) in candidates {
            if self.votes(seen, member, master) {
                self.account(member, master);
                self.promote(member, master);
                self.tell(seen, member);
            }
        }
    }

    /// Whether a majority of all masters votes for the replica.
    pub(super) fn votes(&mut self, seen: &Seen, member: MemberId, master: Id) -> bool {
        let node = &self.nodes[&member];
        let epoch = node.epoch + 1;
        let masters: Vec<Id> = node.masters().map(|(id, _)| id).collect();
        let claim = node.table.get(&master).map_or(0, |row| row.epoch);
        let mut voters = Vec::new();
        for id in masters.iter().filter(|id| **id != master) {
            let Some(voter) = self.member_of(*id).filter(|voter| seen.contains(&(member, *voter))) else {
                continue;
            };
            let theirs = &self.nodes[&voter];
            let newer = theirs.table.get(&master).is_some_and(|row| row.epoch > claim);
            if theirs.table.contains_key(&self.nodes[&member].id)
                && theirs.leads()
                && theirs.voted < epoch
                && !newer
            {
                voters.push(voter);
            }
        }
        let own = self.member_of(master).filter(|_| !self.processes[&member].failed.contains_key(&master));
        let planned = own.is_some_and(|own| seen.contains(&(member, own)));
        if voters.len() + usize::from(planned) <= masters.len() / 2 {
            return false;
        }
        for voter in voters {
            if let Some(node) = self.nodes.get_mut(&voter) {
                node.voted = epoch;
                node.epoch = node.epoch.max(epoch);
            }
        }
        true
    }

    /// What an election, or a replica that took over without one, may lose: what the copy lacked, and what the old master took while it was cut off.
    pub(super) fn account(&mut self, member: MemberId, master: Id) {
        let node = &self.nodes[&member];
        let slots = node.table.get(&master).map(|row| row.slots.clone()).unwrap_or_default();
        for key in (0..KEYS).filter(|key| has(&slots, slot_of(*key))) {
            let (newest, at) = self.acknowledged[key];
            let explained = at.saturating_sub(node.taken) / TICK + 2;
            if newest > node.data[key] + explained {
                self.lost = Some(format!(
                    "member {member} was elected with {} of {newest} acknowledged writes, {explained} could be missing",
                    node.data[key]
                ));
            }
            self.acknowledged[key].0 = newest.min(node.data[key]);
        }
    }

    /// A replica becomes the master of the hash slots of its master.
    pub(super) fn promote(&mut self, member: MemberId, master: Id) {
        let Some(node) = self.nodes.get_mut(&member) else { return };
        node.epoch += 1;
        let epoch = node.epoch;
        let slots = node.table.get_mut(&master).map(|row| std::mem::take(&mut row.slots)).unwrap_or_default();
        let own = node.own_mut();
        (own.master, own.slots, own.epoch) = (None, slots, epoch);
        if let Some(process) = self.processes.get_mut(&member) {
            process.link = None;
        }
    }

    /// Who won tells everybody at once, before it takes the first write.
    pub(super) fn tell(&mut self, seen: &Seen, member: MemberId) {
        let (id, row) = (self.nodes[&member].id, self.nodes[&member].own().clone());
        for (hears, _) in seen.iter().filter(|(_, says)| *says == member) {
            if let Some(node) = self.nodes.get_mut(hears) {
                node.learn(id, &row);
            }
        }
    }

    /// Whether each node sees the cluster as complete.
    pub(super) fn judge(&mut self, now: u64) {
        for (member, process) in &mut self.processes {
            let node = &self.nodes[member];
            let good = |id: &Id| !process.failed.contains_key(id);
            let covered: u32 =
                node.masters().filter(|(id, _)| good(id)).map(|(_, row)| count(&row.slots)).sum();
            let masters: Vec<Id> = node.masters().map(|(id, _)| id).collect();
            let silent = |id: &Id| process.silent.get(id).is_some_and(|since| now - since >= self.timeout);
            let near = masters.iter().filter(|id| !silent(id)).count();
            let answers = masters.iter().filter(|id| !process.silent.contains_key(id)).count();
            // Once apart, it serves again only when a majority answers.
            let again = process.ok_since.is_some() || answers > masters.len() / 2;
            let whole = again && covered == HASH_SLOTS && near > masters.len() / 2;
            match process.ok_since {
                _ if process.held => process.ok_since = None,
                None if self.alone || whole => process.ok_since = Some(now),
                Some(_) if !self.alone && !whole => process.ok_since = None,
                _ => {}
            }
        }
    }
}
