//! A heal of everything, as the platform asks for it: what enough drives have, all that are reached get.

use muster_model::ids::MemberId;
use serde_json::json;

use super::Minio;
use crate::engines::{Said, no, yes};
use crate::host::FakeHost;

impl Minio {
    /// Through this member, at once and to its end.
    pub fn heal_all(&mut self, hosts: &[FakeHost], member: MemberId, now: u64) -> Said {
        if !self.processes.get(&member).is_some_and(|process| process.online) {
            return no("connection refused");
        }
        let near = self.reaches(hosts, member, now);
        if near.len() < self.read_quorum() {
            return no("503 read quorum");
        }
        let (mut healed, mut failed) = (0, Vec::new());
        for object in 0..self.objects {
            let copies = near.iter().filter(|id| self.drives[id].objects.contains(&object)).count();
            if copies < self.read_quorum() {
                failed.push(object);
            } else if copies < near.len() {
                healed += 1;
                for id in &near {
                    self.drives.entry(*id).or_default().objects.insert(object);
                }
            }
        }
        let first = failed.first().map(|object| format!("bucket/{object}")).unwrap_or_default();
        yes(json!({ "state": "finished", "healed": healed, "failed": failed.len(), "first": first })
            .to_string())
    }
}
