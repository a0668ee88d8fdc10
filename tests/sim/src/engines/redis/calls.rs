//! Commands to fake Redis nodes, with the answers that real ones give, and the official tool that moves hash slots.

use std::net::Ipv4Addr;

use muster_model::ids::MemberId;
use muster_model::plan::{RespAsk, RespKeep};
use serde_json::{Map, Value, json};

use super::Redis;
use super::node::{HASH_SLOTS, Id, KEYS, Ranges, count, has, slot_of, without};
use crate::engines::{Moment, Said, no, yes};
use crate::host::FakeHost;
use crate::plant::Plant;

/// A forgotten node is not heard of again for this long.
const BAN: u64 = 60_000;

/// One command's result: a value, or the server's error.
type Answer = Result<Value, String>;

impl Redis {
    /// Questions: the answers by the names of the calls, and whether all succeeded.
    pub fn ask(&self, hosts: &[FakeHost], at: usize, member: MemberId, ask: &RespAsk, now: u64) -> Said {
        let mut all = Map::new();
        let mut good = true;
        for call in &ask.calls {
            let answer = match self.target(hosts, at, member, call.address, now) {
                Some(target) => self.read(target, &call.words, &call.keep, now),
                None => Err("connection refused".to_owned()),
            };
            good &= answer.is_ok();
            all.insert(call.name.clone(), answer.unwrap_or_else(|why| json!({ "error": why })));
        }
        let body = Value::Object(all).to_string();
        if good { yes(body) } else { no(body) }
    }

    /// The same for commands that change something.
    pub fn act(&mut self, moment: &mut Moment<'_>, at: usize, member: MemberId, ask: &RespAsk) -> Said {
        let mut all = Map::new();
        let mut good = true;
        for call in &ask.calls {
            let answer = match self.target(moment.hosts, at, member, call.address, moment.now) {
                Some(target) => self.change(moment, target, &call.words),
                None => Err("connection refused".to_owned()),
            };
            good &= answer.is_ok();
            all.insert(call.name.clone(), answer.unwrap_or_else(|why| json!({ "error": why })));
        }
        let body = Value::Object(all).to_string();
        if good { yes(body) } else { no(body) }
    }

    /// Who answers at an address, as seen from a host.
    fn target(
        &self,
        hosts: &[FakeHost],
        from: usize,
        member: MemberId,
        address: Option<Ipv4Addr>,
        now: u64,
    ) -> Option<MemberId> {
        let process = |id: &MemberId| self.processes.get(id).filter(|process| !process.held);
        match address {
            None => process(&member).map(|_| member),
            Some(address) => self.processes.iter().find_map(|(id, p)| {
                let near = crate::engines::reach(&hosts[from], &hosts[p.host], now);
                (p.at == address && !p.held && near).then_some(*id)
            }),
        }
    }

    fn read(&self, member: MemberId, words: &[String], keep: &RespKeep, now: u64) -> Answer {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let node = &self.nodes[&member];
        let process = &self.processes[&member];
        match words.as_slice() {
            ["INFO"] => {
                let linked = process.link.is_some_and(|until| until <= now);
                let mut info = json!({ "loading": "0", "aof_last_write_status": "ok" });
                info["uptime_in_seconds"] = json!(((now - process.since) / 1_000).to_string());
                match node.own().master {
                    None => info["role"] = json!("master"),
                    Some(_) => {
                        info["role"] = json!("slave");
                        info["master_link_status"] = json!(if linked { "up" } else { "down" });
                        let copying = process.link.is_some() && !linked;
                        info["master_sync_in_progress"] = json!(if copying { "1" } else { "0" });
                        info["master_last_io_seconds_ago"] =
                            json!(((now - process.heard) / 1_000).to_string());
                    }
                }
                Ok(info)
            }
            ["CLUSTER", "INFO"] => {
                let state = if process.ok_since.is_some() { "ok" } else { "fail" };
                Ok(json!({ "cluster_state": state, "cluster_known_nodes": node.table.len().to_string() }))
            }
            ["CLUSTER", "NODES"] if *keep != RespKeep::Whole => Ok(self.nodes_table(member, now)),
            ["DBSIZE"] => Ok(json!(node.data.iter().filter(|value| **value > 0).count())),
            ["SET", key, _] => self.set(member, key),
            _ => Err(format!("ERR not simulated: {}", words.join(" "))),
        }
    }

    fn nodes_table(&self, member: MemberId, now: u64) -> Value {
        let (node, process) = (&self.nodes[&member], &self.processes[&member]);
        let line = |(id, row): (&Id, &super::node::Row)| {
            let role = if row.master.is_some() { "slave" } else { "master" };
            let failed = process.failed.contains_key(id);
            let suspect = self.suspects(member, *id, now);
            let flags = match () {
                () if *id == node.id => format!("myself,{role}"),
                () if failed => format!("{role},fail"),
                () if suspect => format!("{role},fail?"),
                () => role.to_owned(),
            };
            let master = row.master.map_or_else(|| "-".to_owned(), |id| id.to_string());
            let state = if process.silent.contains_key(id) { "disconnected" } else { "connected" };
            let mut words =
                vec![id.to_string(), format!("{}:6379@16379", row.at), flags, master, state.to_owned()];
            words.extend(row.slots.iter().map(|(from, to)| format!("{from}-{to}")));
            words
        };
        json!(node.table.iter().map(line).collect::<Vec<_>>())
    }

    /// A heartbeat on the key of one sixteenth of the hash slots, or on the only server's.
    fn set(&self, member: MemberId, key: &str) -> Answer {
        let (node, process) = (&self.nodes[&member], &self.processes[&member]);
        if self.alone {
            return Ok(json!("OK"));
        }
        let tag = key.split(['{', '}']).nth(1).unwrap_or_default();
        let place = [
            "18", "249", "72", "223", "19", "2", "64", "222", "265", "34", "404", "155", "264", "22", "219",
            "48",
        ];
        let slot = slot_of(place.iter().position(|known| *known == tag).unwrap_or(0));
        match () {
            () if process.ok_since.is_none() => Err("CLUSTERDOWN The cluster is down".to_owned()),
            () if node.own().master.is_none() && has(&node.own().slots, slot) => Ok(json!("OK")),
            () => Err(format!("MOVED {slot} elsewhere")),
        }
    }

    fn change(&mut self, moment: &mut Moment<'_>, member: MemberId, words: &[String]) -> Answer {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let now = moment.now;
        let ok = || Ok(json!("OK"));
        match words.as_slice() {
            ["ACL", "LOAD"] => ok(),
            ["CLUSTER", "ADDSLOTSRANGE", from, to] => {
                let range = (from.parse().unwrap_or(0), to.parse().unwrap_or(0));
                let node = self.nodes.get_mut(&member).ok_or("gone")?;
                if range.0 > range.1 || range.1 >= HASH_SLOTS {
                    return Err("ERR Invalid or out of range slot".to_owned());
                }
                if node.table.values().any(|row| without(&vec![range], &row.slots) != [range]) {
                    return Err("ERR Slot is already busy".to_owned());
                }
                node.own_mut().slots.push(range);
                ok()
            }
            ["CLUSTER", "SET-CONFIG-EPOCH", epoch] => {
                let node = self.nodes.get_mut(&member).ok_or("gone")?;
                if node.table.len() > 1 || node.own().epoch != 0 {
                    return Err("ERR The user can assign a config epoch only when the node does not know any other node".to_owned());
                }
                node.own_mut().epoch = epoch.parse().unwrap_or(1);
                node.epoch = node.epoch.max(node.own().epoch);
                ok()
            }
            ["CLUSTER", "MEET", address, _] => {
                let address = address.parse().ok();
                let host = self.processes[&member].host;
                let other = self.target(moment.hosts, host, member, address, now);
                if other.is_none() && self.is_foreign(moment, host, address) {
                    self.lost =
                        Some(format!("member {member} was introduced to a foreign server at {address:?}"));
                }
                if let Some(other) = other {
                    if !moment.hosts[self.processes[&other].host].agent.member(other).is_some_and(|_| true) {
                        self.lost =
                            Some(format!("member {other}, which is no member any more, was introduced"));
                    }
                    self.meet(member, other, now);
                }
                ok()
            }
            ["CLUSTER", "REPLICATE", id] => self.replicate(member, Id::parse(id).ok_or("ERR Unknown node")?),
            ["CLUSTER", "FORGET", id] => self.forget(member, Id::parse(id).ok_or("ERR Unknown node")?, now),
            ["CLUSTER", "FAILOVER"] => self.failover(moment, member),
            ["CLUSTER", "FAILOVER", "TAKEOVER"] => self.take_over(moment, member),
            _ => Err(format!("ERR not simulated: {}", words.join(" "))),
        }
    }

    /// A server that is no node of this cluster runs there.
    fn is_foreign(&self, moment: &Moment<'_>, from: usize, address: Option<Ipv4Addr>) -> bool {
        moment.hosts.iter().enumerate().any(|(at, host)| {
            let here = host.containers.values().filter(|c| c.seen.running());
            let mut taken = here.flat_map(|c| c.seen.addresses.values());
            moment.reach(from, at)
                && taken.any(|a| Some(*a) == address)
                && !self.processes.values().any(|p| Some(p.at) == address)
        }) && !moment.hosts.iter().any(|host| {
            let redis = |c: &&crate::host::Container| c.seen.slot.service.as_str() == crate::engines::REDIS;
            host.containers
                .values()
                .filter(redis)
                .any(|c| c.seen.addresses.values().any(|a| Some(*a) == address))
        })
    }

    fn replicate(&mut self, member: MemberId, master: Id) -> Answer {
        let node = self.nodes.get_mut(&member).ok_or("gone")?;
        match node.table.get(&master) {
            None => return Err("ERR Unknown node".to_owned()),
            Some(_) if master == node.id => return Err("ERR Can't replicate myself".to_owned()),
            Some(row) if row.master.is_some() => return Err("ERR I can only replicate a master".to_owned()),
            Some(_) => {}
        }
        let own = node.own();
        if own.master.is_none() && (!own.slots.is_empty() || node.data.iter().any(|value| *value > 0)) {
            return Err("ERR To set a master the node must be empty and without assigned slots.".to_owned());
        }
        node.own_mut().master = Some(master);
        if let Some(process) = self.processes.get_mut(&member) {
            process.link = None;
        }
        Ok(json!("OK"))
    }

    fn forget(&mut self, member: MemberId, id: Id, now: u64) -> Answer {
        let first = self.processes.keys().next() == Some(&member);
        if first && self.plant == Some(Plant::ForgetsNot) {
            return Ok(json!("OK"));
        }
        let node = self.nodes.get_mut(&member).ok_or("gone")?;
        match () {
            () if id == node.id => return Err("ERR I tried hard but I can't forget myself...".to_owned()),
            () if node.own().master == Some(id) => return Err("ERR Can't forget my master!".to_owned()),
            () if node.table.remove(&id).is_none() => return Err("ERR Unknown node".to_owned()),
            () => {}
        }
        if let Some(process) = self.processes.get_mut(&member) {
            process.banned.insert(id, now + BAN);
        }
        Ok(json!("OK"))
    }

    /// The master waits until its replica has everything, then the other masters vote.
    fn failover(&mut self, moment: &Moment<'_>, member: MemberId) -> Answer {
        let Some(master) = self.nodes[&member].own().master else {
            return Err("ERR You should send CLUSTER FAILOVER to a replica".to_owned());
        };
        let seen = self.seen(moment);
        let old = self.member_of(master).filter(|old| seen.contains(&(member, *old)));
        let Some(old) = old else { return Err("ERR Master is down or failed".to_owned()) };
        let linked = self.processes[&member].link.is_some_and(|until| until <= moment.now);
        if linked && self.votes(&seen, member, master) {
            let data = self.nodes[&old].data;
            if let Some(node) = self.nodes.get_mut(&member) {
                node.data = data;
                node.taken = moment.now;
            }
            self.promote(member, master);
            let (id, row) = (self.nodes[&member].id, self.nodes[&member].own().clone());
            if let Some(node) = self.nodes.get_mut(&old) {
                node.learn(id, &row);
            }
        }
        Ok(json!("OK"))
    }

    /// A replica makes itself master without a vote.
    fn take_over(&mut self, moment: &Moment<'_>, member: MemberId) -> Answer {
        let Some(master) = self.nodes[&member].own().master else {
            return Err("ERR You should send CLUSTER FAILOVER to a replica".to_owned());
        };
        let seen = self.seen(moment);
        self.account(member, master);
        self.promote(member, master);
        self.tell(&seen, member);
        Ok(json!("OK"))
    }

    /// The official tool: spreads hash slots evenly over masters, away from those of weight 0.
    pub fn rebalance(&mut self, moment: &mut Moment<'_>, member: MemberId, argv: &[String]) -> Said {
        let script = argv.last().map_or("", String::as_str);
        let leaving: Vec<Id> =
            script.split_whitespace().filter_map(|word| Id::parse(word.strip_suffix("=0")?)).collect();
        let seen = self.seen(moment);
        let empty_too = script.contains("--cluster-use-empty-masters");
        let table = &self.nodes[&member].table;
        let masters: Vec<Id> = table
            .iter()
            .filter(|(_, row)| row.master.is_none() && (empty_too || !row.slots.is_empty()))
            .map(|(id, _)| *id)
            .collect();
        let mut members = Vec::new();
        for id in &masters {
            match self.member_of(*id).filter(|other| *other == member || seen.contains(&(member, *other))) {
                Some(other) => members.push(other),
                None => return no("a node does not answer"),
            }
        }
        let stays: Vec<MemberId> =
            members.iter().copied().filter(|other| !leaving.contains(&self.nodes[other].id)).collect();
        let share = HASH_SLOTS.div_ceil(u32::try_from(stays.len().max(1)).unwrap_or(1));
        // Now and then the tool is cut off in the middle.
        let mut moves = if moment.rng.chance(200) { 1 } else { u32::MAX };
        for from in &members {
            let keep = if stays.contains(from) { share } else { 0 };
            while count(&self.nodes[from].own().slots) > keep {
                let surplus = count(&self.nodes[from].own().slots) - keep;
                let to =
                    stays.iter().copied().find(|to| to != from && count(&self.nodes[to].own().slots) < share);
                let Some(to) = to else { break };
                if moves == 0 {
                    return no("killed");
                }
                moves -= 1;
                let room = share - count(&self.nodes[&to].own().slots);
                self.give(*from, to, surplus.min(room));
            }
        }
        yes("rebalanced")
    }

    /// Hash slots with their keys go from one master to another.
    fn give(&mut self, from: MemberId, to: MemberId, mut slots: u32) {
        let mut taken = Ranges::new();
        let source = self.nodes.get_mut(&from).expect("a known node");
        for (first, last) in source.own().slots.iter().rev() {
            let part = slots.min(last - first + 1);
            if part > 0 {
                taken.push((last + 1 - part, *last));
                slots -= part;
            }
        }
        let data = source.data;
        let left = without(&source.own().slots, &taken);
        source.own_mut().slots = left;
        for key in (0..KEYS).filter(|key| has(&taken, slot_of(*key))) {
            source.data[key] = 0;
        }
        let epoch = self.processes.keys().map(|member| self.nodes[member].epoch).max().unwrap_or(0) + 1;
        let target = self.nodes.get_mut(&to).expect("a known node");
        target.epoch = epoch;
        for key in (0..KEYS).filter(|key| has(&taken, slot_of(*key))) {
            target.data[key] = data[key];
        }
        let own = target.own_mut();
        own.slots.extend(taken);
        own.slots.sort_unstable();
        own.epoch = epoch;
        let (id, row) = (target.id, target.own().clone());
        if let Some(source) = self.nodes.get_mut(&from) {
            source.learn(id, &row);
        }
    }
}
