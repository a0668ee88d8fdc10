//! What the fake member answers: its state over HTTP, programs in its container, one-shots on its volume.

use muster_model::ids::MemberId;
use muster_model::plan::Ask;
use serde_json::json;

use super::process::{Process, Stage};
use super::{Galera, View};
use crate::engines::{Said, no, yes};
use crate::plant::Plant;

/// A server that never answered is taken to join for this long.
const BEGINS: u64 = 20_000;
const BEAT_STALE: u64 = 3_000;
const NO_HISTORY: &str = "00000000-0000-0000-0000-000000000000";

fn uuid(history: u32) -> String {
    format!("{history:08x}-0000-0000-0000-000000000000")
}

impl Galera {
    /// The answer to a question over HTTP.
    pub fn ask(&self, member: MemberId, ask: &Ask, now: u64) -> Said {
        let (Ask::Http(ask), Some(process)) = (ask, self.processes.get(&member)) else {
            return no("no answer");
        };
        let view = process.view.and_then(|id| self.views.get(&id));
        match ask.path.as_str() {
            "/status" => yes(self.status(member, process, view, now)),
            "/uuid" => match view.filter(|_| process.stage == Stage::Synced) {
                Some(view) => yes(uuid(self.rows.history(view.at))),
                None => no("503"),
            },
            _ => no("404"),
        }
    }

    fn status(&self, member: MemberId, process: &Process, view: Option<&View>, now: u64) -> String {
        let leaving = process.leaving;
        let Some(view) = view else {
            let begins = process.stage == Stage::Apart && !process.looked && now - process.begun < BEGINS;
            return match process.stage {
                Stage::Apart if process.looked => {
                    json!({ "state": "Initialized", "primary": false, "leaving": leaving, "why": "no primary component" })
                }
                _ if begins => json!({ "state": "Joining", "leaving": leaving, "why": "waits for the others" }),
                Stage::Apart => json!({ "leaving": leaving, "why": "waits for the others" }),
                _ => json!({ "leaving": leaving, "why": "starting" }),
            }
            .to_string();
        };
        if let Stage::Joining { .. } = process.stage {
            return json!({ "state": "Joining", "leaving": leaving, "why": "joins" }).to_string();
        }
        let copies = |other: &Process| matches!(other.stage, Stage::Joining { whole: true, .. });
        let others = || view.members.iter().filter_map(|id| Some((id, self.processes.get(id)?)));
        let copying = others().any(|(_, other)| copies(other));
        let writer = self.rows.writer(view.at);
        let donor =
            others().find(|(id, other)| other.stage == Stage::Synced && **id != writer).map(|(id, _)| *id);
        let gives = copying && donor.unwrap_or(writer) == member;
        let beats = process.beaten.is_some_and(|at| now - at <= BEAT_STALE);
        json!({
            "primary": true,
            "state": if gives { "Donor/Desynced" } else { "Synced" },
            "synced": !gives,
            "uuid": uuid(self.rows.history(view.at)),
            "size": view.members.len(),
            "queue": 0,
            "writer": writer == member,
            "writes": writer == member && beats,
            "leaving": leaving,
            "why": "",
        })
        .to_string()
    }

    /// A program in a running container.
    pub fn exec(&mut self, member: MemberId, argv: &[String]) -> Said {
        let verb = argv.get(1).map_or("", String::as_str);
        let process = self.processes.get(&member).filter(|process| process.stage == Stage::Synced);
        let view = process.and_then(|process| process.view);
        match (verb, view.and_then(|id| self.views.get_mut(&id))) {
            ("take", Some(view)) if view.missing_since.is_none() => {
                view.at = self.rows.write(view.at, member);
                // Whoever asks is answered when the row is on its disk.
                let at = view.at;
                for id in view.members.clone() {
                    if let Some(process) = self.processes.get_mut(&id).filter(|p| p.stage == Stage::Synced) {
                        process.at = Some(at);
                    }
                }
                if let Some(disk) = self.disks.get_mut(&member) {
                    disk.at = Some(at);
                }
                yes("it writes")
            }
            ("take", _) => no("this member is not in step"),
            ("converge", _) => yes(""),
            _ => no("no such verb"),
        }
    }

    /// A program on the volume of a stopped member.
    pub fn one_shot(&mut self, member: MemberId, command: &[String]) -> Said {
        let disk = self.disks.get(&member);
        let at = disk.and_then(|disk| disk.at);
        let lies =
            self.plant == Some(Plant::PositionLies) && at == self.disks.values().filter_map(|d| d.at).min();
        let seqno = at.map_or(-1, |row| self.rows.seqno(row)) + if lies { 1_000 } else { 0 };
        let history = at.map_or_else(|| NO_HISTORY.to_owned(), |row| uuid(self.rows.history(row)));
        match command.get(1).map_or("", String::as_str) {
            "position" => yes(json!({
                "data": disk.is_some(),
                "uuid": history,
                "seqno": seqno,
                "last_to_stop": disk.is_some_and(|disk| disk.last_to_stop),
            })
            .to_string()),
            "mark" if command.get(2) == Some(&format!("{history}:{seqno}")) && at.is_some() => {
                if let Some(disk) = self.disks.get_mut(&member) {
                    disk.mark = at;
                }
                yes("marked")
            }
            "mark" => no("this volume is elsewhere"),
            _ => no("no such verb"),
        }
    }
}
