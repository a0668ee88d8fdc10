//! Commands to fake servers of a replicated Redis, with the answers that real ones give.

use std::net::Ipv4Addr;

use muster_model::ids::MemberId;
use muster_model::plan::{RespAsk, RespKeep};
use serde_json::{Map, Value, json};

use super::Replicated;
use super::process::{HandOver, Role};
use super::rows::Content;
use crate::engines::{Moment, Said, no, yes};
use crate::host::FakeHost;

/// One command's result: a value, or the server's error.
type Answer = Result<Value, String>;

impl Replicated {
    /// Questions: the answers by the names of the calls, and whether all succeeded.
    pub fn ask(&self, hosts: &[FakeHost], at: usize, member: MemberId, ask: &RespAsk, now: u64) -> Said {
        let answers = ask.calls.iter().map(|call| {
            let answer = match self.target(hosts, at, member, call.address, now) {
                Some(target) => self.read(target, &call.words, &call.keep, now),
                None => Err("connection refused".to_owned()),
            };
            (call.name.clone(), answer)
        });
        told(answers.collect())
    }

    /// The same for commands that change something.
    pub fn act(&mut self, moment: &mut Moment<'_>, at: usize, member: MemberId, ask: &RespAsk) -> Said {
        let mut answers = Vec::new();
        for call in &ask.calls {
            let answer = match self.target(moment.hosts, at, member, call.address, moment.now) {
                Some(target) => self.change(moment, target, &call.words, &call.keep),
                None => Err("connection refused".to_owned()),
            };
            answers.push((call.name.clone(), answer));
        }
        told(answers)
    }

    fn target(
        &self,
        hosts: &[FakeHost],
        from: usize,
        member: MemberId,
        address: Option<Ipv4Addr>,
        now: u64,
    ) -> Option<MemberId> {
        match address {
            None => self.processes.contains_key(&member).then_some(member),
            Some(address) => self.processes.iter().find_map(|(id, p)| {
                let near = crate::engines::reach(&hosts[from], &hosts[p.host], now);
                (p.at == address && near).then_some(*id)
            }),
        }
    }

    fn read(&self, member: MemberId, words: &[String], keep: &RespKeep, now: u64) -> Answer {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["INFO"] => Ok(kept(self.info(member, now), keep)),
            ["GET", "muster:master"] => {
                let term = self.rows.term(self.disks.get(&member).and_then(|disk| disk.head));
                Ok(term.map_or(Value::Null, |(epoch, leads)| json!(format!("{epoch} {leads}"))))
            }
            ["GET", "muster:beat"] => {
                let beats = self.beats(member);
                Ok(if beats == 0 { Value::Null } else { json!(beats.to_string()) })
            }
            // Its own probe asks for it all the time: `write` counts it.
            ["INCR", "muster:beat"] => self.may_write(member, now).map(|()| json!(self.beats(member))),
            _ => Err(format!("ERR not simulated: {}", words.join(" "))),
        }
    }

    fn beats(&self, member: MemberId) -> u64 {
        self.rows.beats(self.disks.get(&member).and_then(|disk| disk.head))
    }

    fn may_write(&self, member: MemberId, now: u64) -> Result<(), String> {
        match self.processes.get(&member) {
            Some(process) if !process.leads() => {
                Err("READONLY You can't write against a read only replica.".to_owned())
            }
            Some(process) if process.holds() => Err("timeout".to_owned()),
            _ if self.takes_writes(member, now) => Ok(()),
            _ => Err("NOREPLICAS Not enough good replicas to write.".to_owned()),
        }
    }

    fn info(&self, member: MemberId, now: u64) -> Map<String, Value> {
        let mut info = Map::new();
        let mut put = |key: &str, value: String| drop(info.insert(key.to_owned(), json!(value)));
        let Some(process) = self.processes.get(&member) else { return info };
        put("loading", "0".to_owned());
        put("aof_last_write_status", "ok".to_owned());
        let Role::Follows(master) = process.role else {
            put("role", "master".to_owned());
            return info;
        };
        let linked = process.linked(now);
        let copies = process.link.is_some() && !linked;
        let ago = if linked { ((now - process.heard) / 1_000).to_string() } else { "-1".to_owned() };
        put("role", "slave".to_owned());
        put("master_host", master.to_string());
        put("master_link_status", if linked { "up" } else { "down" }.to_owned());
        put("master_sync_in_progress", if copies { "1" } else { "0" }.to_owned());
        put("master_last_io_seconds_ago", ago);
        put("slave_repl_offset", process.offset.to_string());
        info
    }

    fn change(&mut self, moment: &Moment<'_>, member: MemberId, words: &[String], keep: &RespKeep) -> Answer {
        let now = moment.now;
        let ok = || Ok(json!("OK"));
        let list: Vec<&str> = words.iter().map(String::as_str).collect();
        match list.as_slice() {
            ["ACL", "LOAD"] => ok(),
            ["WAIT", ..] => Ok(json!(1)),
            ["CONFIG", "SET", "appendfsync", how] => {
                if let Some(process) = self.processes.get_mut(&member) {
                    process.syncs = *how == "always";
                }
                ok()
            }
            ["SET", "muster:master", term] => {
                self.may_write(member, now)?;
                let term = term
                    .split_once(' ')
                    .and_then(|(epoch, leads)| Some((epoch.parse().ok()?, MemberId(leads.parse().ok()?))));
                let (epoch, leads) = term.ok_or("ERR not a term")?;
                let known = *self.terms.entry(epoch).or_insert(leads);
                if known != leads || leads != member {
                    let wrong = format!("term {epoch} of member {known} is written as {leads}'s at {member}");
                    self.wrong.get_or_insert(wrong);
                }
                let row = self.rows.write(self.disks[&member].head, now, Content::Term(epoch, leads));
                self.put(member, row);
                if self.processes[&member].syncs {
                    self.disks.entry(member).or_default().synced = Some(row);
                }
                if self.newest.is_none() || self.last == Some(member) {
                    (self.newest, self.last) = (Some(row), Some(member));
                }
                ok()
            }
            ["REPLICAOF", ..] | ["FAILOVER", ..] if self.processes[&member].hand_over.is_some() => {
                Err("ERR REPLICAOF not allowed while failing over.".to_owned())
            }
            ["REPLICAOF", "NO", "ONE"] => {
                self.streams += 1;
                let stream = self.streams;
                if let Some(process) = self.processes.get_mut(&member).filter(|process| !process.leads()) {
                    process.lead(stream, false);
                }
                ok()
            }
            ["REPLICAOF", address, _] => {
                let address = address.parse().map_err(|_| "ERR Invalid master address")?;
                if let Some(process) = self.processes.get_mut(&member) {
                    process.follow(address);
                }
                ok()
            }
            ["FAILOVER", "TO", address, _, "TIMEOUT", limit] => {
                self.failover(member, address.parse().ok(), now, limit.parse().unwrap_or(0))
            }
            _ => self.read(member, words, keep, now),
        }
    }

    fn failover(&mut self, member: MemberId, to: Option<Ipv4Addr>, now: u64, limit: u64) -> Answer {
        let own = &self.processes[&member];
        if !own.leads() {
            return Err("ERR FAILOVER is not valid when server is a replica.".to_owned());
        }
        let heir = self
            .processes
            .iter()
            .find(|(_, p)| Some(p.at) == to && p.role == Role::Follows(own.at) && p.linked(now));
        let Some(to) = heir.map(|(id, _)| *id) else {
            return Err("ERR FAILOVER target HOST and PORT is not a replica.".to_owned());
        };
        if let Some(process) = self.processes.get_mut(&member) {
            process.hand_over = Some(HandOver::Waits { to, until: now + limit });
        }
        Ok(json!("OK"))
    }
}

fn told(answers: Vec<(String, Answer)>) -> Said {
    let good = answers.iter().all(|(_, answer)| answer.is_ok());
    let value = |answer: Answer| answer.unwrap_or_else(|why| json!({ "error": why }));
    let all: Map<String, Value> = answers.into_iter().map(|(name, answer)| (name, value(answer))).collect();
    let body = Value::Object(all).to_string();
    if good { yes(body) } else { no(body) }
}

fn kept(mut info: Map<String, Value>, keep: &RespKeep) -> Value {
    if let RespKeep::Fields(names) = keep {
        info.retain(|name, _| names.contains(name));
    }
    Value::Object(info)
}
