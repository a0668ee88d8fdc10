//! Who is in a view with whom: components, quorum, the last view found again, joiners, and the writes of a view.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::ids::MemberId;

use super::process::Stage;
use super::rows::Row;
use super::{CATCH_UP, COPY, Galera, SUSPECT, View};
use crate::engines::Moment;
use crate::plant::Plant;

/// Processes that reach each other.
pub type Group = BTreeSet<MemberId>;

impl Galera {
    /// Processes that speak to each other: one of two knows the other's address.
    pub(super) fn groups(&self, moment: &Moment<'_>) -> Vec<Group> {
        let speaks = self.processes.iter().filter(|(_, process)| process.stage.speaks());
        let mut left: BTreeMap<MemberId, _> =
            speaks.collect::<Vec<_>>().into_iter().map(|(id, p)| (*id, p)).collect();
        let mut groups = Vec::new();
        while let Some((first, process)) = left.pop_first() {
            let mut group = Group::from([first]);
            let mut edge = vec![process];
            while let Some(one) = edge.pop() {
                let near: Vec<MemberId> = left
                    .iter()
                    .filter(|(_, other)| {
                        let dials = other.own.is_some_and(|own| one.peers.contains(&own))
                            || one.own.is_some_and(|own| other.peers.contains(&own));
                        dials && moment.reach(one.host, other.host)
                    })
                    .map(|(id, _)| *id)
                    .collect();
                for id in near {
                    group.insert(id);
                    edge.extend(left.remove(&id));
                }
            }
            groups.push(group);
        }
        groups
    }

    /// A view of these members, none of whom was in another one.
    pub(super) fn install(&mut self, members: BTreeSet<MemberId>, at: Row) -> u64 {
        for member in &members {
            if let Some(process) = self.processes.get_mut(member) {
                process.stage = Stage::Synced;
                process.at = Some(at);
                process.looked = true;
            }
            if let Some(disk) = self.disks.get_mut(member) {
                disk.at = Some(at);
                disk.joining = false;
            }
        }
        self.renew(members, at)
    }

    /// The next view, of members that stay in it.
    pub(super) fn renew(&mut self, members: BTreeSet<MemberId>, at: Row) -> u64 {
        self.last_view += 1;
        let id = self.last_view;
        for member in &members {
            let Some(process) = self.processes.get_mut(member) else { continue };
            process.view = Some(id);
            let Some(disk) = self.disks.get_mut(member) else { continue };
            disk.view = Some((id, members.clone()));
            if process.stage == Stage::Synced {
                // A view comes after all rows that were written before it.
                process.at = Some(at);
                disk.at = Some(at);
            }
        }
        self.views.insert(id, View { members, at, missing_since: None });
        id
    }

    /// Members that are silent for long enough leave their view; a part without a majority of it serves nothing.
    pub(super) fn split(&mut self, groups: &[Group], now: u64) {
        let ids: Vec<u64> = self.views.keys().copied().collect();
        let goes_on = self.plant == Some(Plant::MinorityServes);
        for id in ids {
            let Some(view) = self.views.get_mut(&id) else { continue };
            let here = |member: &MemberId| self.processes.get(member).is_some_and(|p| p.view == Some(id));
            let parts: Vec<BTreeSet<MemberId>> = groups
                .iter()
                .map(|group| view.members.iter().copied().filter(|m| group.contains(m) && here(m)).collect())
                .filter(|part: &BTreeSet<MemberId>| !part.is_empty())
                .collect();
            if parts.len() == 1 && parts[0].len() == view.members.len() {
                view.missing_since = None;
                continue;
            }
            let since = *view.missing_since.get_or_insert(now);
            if now - since < SUSPECT && !parts.is_empty() {
                continue;
            }
            let (all, at) = (view.members.len(), view.at);
            self.views.remove(&id);
            for part in parts {
                if part.len() * 2 > all || goes_on {
                    self.renew(part, at);
                } else {
                    for member in part {
                        if let Some(process) = self.processes.get_mut(&member) {
                            process.view = None;
                            process.stage = Stage::Apart;
                        }
                    }
                }
            }
        }
    }

    /// Where nobody is in a view, the members of the newest last view begin one again, once all of them are there.
    pub(super) fn recover(&mut self, groups: &[Group]) {
        for group in groups {
            let apart = |id: &MemberId| self.processes.get(id).is_some_and(|p| p.stage == Stage::Apart);
            if !group.iter().all(apart) {
                continue;
            }
            let last = group.iter().filter_map(|id| self.disks.get(id)?.view.clone());
            let Some((id, members)) = last.max_by_key(|(id, _)| *id) else { continue };
            let same = |member: &MemberId| {
                let own = self.disks.get(member).and_then(|disk| disk.view.as_ref());
                group.contains(member) && own.is_some_and(|(own, _)| *own == id)
            };
            if !members.iter().all(same) {
                continue;
            }
            let at = |member: &MemberId| {
                let process = self.processes.get(member)?;
                process.at.or_else(|| self.disks.get(member)?.at)
            };
            let best = members.iter().filter_map(at).max_by_key(|row| self.rows.seqno(*row));
            let Some(best) = best else { continue };
            let full: BTreeSet<MemberId> = members.into_iter().filter(|m| at(m) == Some(best)).collect();
            self.install(full, best);
        }
    }

    /// Members that meet a view join it: what they missed is enough for those whose rows are a part of it.
    pub(super) fn join(&mut self, groups: &[Group], moment: &mut Moment<'_>) -> Result<(), String> {
        for group in groups {
            let ids: BTreeSet<u64> = group.iter().filter_map(|id| self.processes.get(id)?.view).collect();
            if ids.len() > 1 {
                return Err("two components with a majority meet".to_owned());
            }
            let Some(id) = ids.first().copied() else { continue };
            let Some(view) = self.views.get(&id).filter(|view| view.missing_since.is_none()).cloned() else {
                continue;
            };
            let apart =
                |id: &&MemberId| self.processes.get(id).is_some_and(|p| p.stage == Stage::Apart && p.cluster);
            let joiners: Vec<MemberId> = group.iter().filter(apart).copied().collect();
            for member in &joiners {
                self.take(moment, *member, view.at);
            }
            if !joiners.is_empty() {
                let members = view.members.iter().copied().chain(joiners).collect();
                self.views.remove(&id);
                self.renew(members, view.at);
            }
        }
        self.arrive(moment.now);
        Ok(())
    }

    fn take(&mut self, moment: &mut Moment<'_>, member: MemberId, at: Row) {
        let Some(process) = self.processes.get_mut(&member) else { return };
        let host = process.host;
        let disk = self.disks.entry(member).or_default();
        let part = disk.at.is_some_and(|own| self.rows.contains(at, own));
        let span = if part { CATCH_UP } else { moment.rng.between(COPY.0, COPY.1) };
        if !part {
            // A whole copy takes the place of what was there.
            disk.at = None;
        }
        disk.joining = true;
        process.stage = Stage::Joining { until: moment.now + span, whole: !part };
        process.looked |= part;
        let volume = moment.hosts[host].volumes.entry(member).or_default();
        volume.data = true;
    }

    fn arrive(&mut self, now: u64) {
        for (member, process) in &mut self.processes {
            let Stage::Joining { until, .. } = process.stage else { continue };
            let view = process.view.and_then(|id| self.views.get(&id));
            let Some(view) = view.filter(|view| view.missing_since.is_none() && until <= now) else {
                continue;
            };
            process.stage = Stage::Synced;
            process.looked = true;
            process.at = Some(view.at);
            if let Some(disk) = self.disks.get_mut(member) {
                disk.at = Some(view.at);
                disk.joining = false;
            }
        }
    }

    /// Each whole view writes once where the row says; the others apply it a moment later.
    pub(super) fn write(&mut self, groups: &[Group], moment: &mut Moment<'_>) -> Result<(), String> {
        let mut writing = Vec::new();
        let ids: Vec<u64> = self.views.keys().copied().collect();
        for id in ids {
            let Some(view) = self.views.get(&id).filter(|view| view.missing_since.is_none()).cloned() else {
                continue;
            };
            if !groups.iter().any(|group| view.members.is_subset(group)) {
                continue;
            }
            let synced = |id: &MemberId| {
                self.processes.get(id).is_some_and(|p| p.stage == Stage::Synced && !p.leaving)
            };
            let Some(first) = view.members.iter().copied().find(|id| synced(id)) else { continue };
            let named = self.rows.writer(view.at);
            let writer = if view.members.contains(&named) { named } else { first };
            if !synced(&writer) {
                continue;
            }
            let at = self.rows.write(view.at, writer);
            if let Some(before) = self.acknowledged.filter(|before| !self.rows.contains(at, *before)) {
                let (has, lacks) = (self.rows.seqno(at), self.rows.seqno(before));
                return Err(format!(
                    "member {writer} acknowledges row {has} of history {} without acknowledged row {lacks} of history {}",
                    self.rows.history(at),
                    self.rows.history(before)
                ));
            }
            self.acknowledged = Some(at);
            writing.push(writer);
            if let Some(view) = self.views.get_mut(&id) {
                view.at = at;
            }
            self.apply(&view.members, writer, at, moment);
        }
        match writing.as_slice() {
            [one, other, ..] => Err(format!("members {one} and {other} both acknowledge rows")),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, members: &BTreeSet<MemberId>, writer: MemberId, at: Row, moment: &mut Moment<'_>) {
        for member in members {
            let Some(process) = self.processes.get_mut(member).filter(|p| p.stage == Stage::Synced) else {
                continue;
            };
            let before = process.at;
            process.at = Some(at);
            process.beaten = (*member == writer).then_some(moment.now);
            let applied = if *member == writer { Some(at) } else { before };
            if let Some(disk) = self.disks.get_mut(member)
                && (*member == writer || moment.rng.chance(700))
            {
                disk.at = applied.or(disk.at);
            }
        }
    }
}
