//! A fake etcd for the tests: the list of its members, and how new ones come in.

use muster_model::observed::TaskOutcome;
use muster_model::plan::{Act, MemberPlan, TaskKind};
use serde_json::{Value, json};

use super::*;

/// Its list of members: number, name (empty before the first start), address, without a vote.
#[derive(Default)]
pub struct Locks(Vec<(u64, String, String, bool)>);

/// The verb and body of a call that changes or reads the list.
pub fn call(what: &TaskKind) -> Option<(&str, Value)> {
    let TaskKind::Act { act: Act::Http(ask) } = what else { return None };
    let verb = ask.path.strip_prefix("/v3/cluster/member/")?;
    Some((verb, serde_json::from_str(ask.body.as_deref()?).unwrap()))
}

fn url(addresses: &[muster_model::plan::Attachment]) -> String {
    format!("http://{}:2380", addresses[0].address)
}

impl Locks {
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|row| row.1.clone()).collect()
    }

    /// The first ones are those that formed it.
    pub fn fill(&mut self, state: &State) {
        let old = state
            .members
            .iter()
            .filter(|(_, m)| m.slot.service.as_str().ends_with("-etcd") && !m.joins_existing);
        let row = |(id, m): (&MemberId, &crate::state::Member)| {
            (id.0, format!("{}-{}-{id}", m.slot.service, m.slot.index), url(&m.addresses), false)
        };
        if self.0.is_empty()
            && state.services.iter().any(|(name, s)| s.formed && name.as_str().ends_with("-etcd"))
        {
            self.0 = old.map(row).collect();
        }
    }

    pub fn call(&mut self, verb: &str, body: &Value) -> TaskOutcome {
        let id: u64 = body["ID"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
        match verb {
            "list" => {}
            "remove" => self.0.retain(|row| row.0 != id),
            "add" => {
                let next = self.0.iter().map(|row| row.0).max().unwrap_or_default() + 100;
                let url = body["peerURLs"][0].as_str().unwrap().to_owned();
                self.0.push((next, String::new(), url, body["isLearner"] == true));
            }
            "promote" => self.0.iter_mut().filter(|row| row.0 == id).for_each(|row| row.3 = false),
            other => panic!("no such call {other}"),
        }
        let row = |(id, name, url, learner): &(u64, String, String, bool)| json!({ "ID": id.to_string(), "name": name, "peerURLs": [url], "isLearner": learner });
        let members: Vec<Value> = self.0.iter().map(row).collect();
        TaskOutcome::Done { answer: json!({ "members": members }).to_string() }
    }

    /// A member that runs has told its name.
    pub fn learns(&mut self, member: &MemberPlan) -> bool {
        let url = url(&member.addresses);
        let row = self.0.iter_mut().find(|row| row.2 == url);
        row.is_some_and(|row| {
            row.1 = format!("{}-{}-{}", member.slot.service, member.slot.index, member.member);
            row.3
        })
    }
}
