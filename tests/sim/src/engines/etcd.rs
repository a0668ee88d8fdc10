//! The fake etcd: its list of members, its quorum, and how the list is changed. Ground truth for the rule that there is
//! one cluster and that its list is changed only by a majority of it.

use muster_model::ids::MemberId;
use muster_model::plan::HttpAsk;
use serde_json::{Value, json};

use super::{reach, serves};
use crate::host::{Container, FakeHost};

/// One row of the cluster's list.
#[derive(Debug, Clone)]
struct Row {
    id: u64,
    /// Empty until it has started.
    name: String,
    url: String,
    learner: bool,
}

/// The list, as a majority agrees on it.
#[derive(Debug, Default)]
pub struct Locks {
    rows: Vec<Row>,
    next: u64,
}

/// Whether the container is one of etcd.
pub fn is_etcd(container: &Container) -> bool {
    container.seen.slot.service.as_str().ends_with("-etcd")
}

fn name_of(container: &Container) -> String {
    let slot = &container.seen.slot;
    format!("{}-{}-{}", slot.service, slot.index, container.seen.member)
}

/// The value of a key in the member's configuration.
fn config<'a>(container: &'a Container, key: &str) -> &'a str {
    let files = &container.made_of.rendered.files;
    let text = files.iter().find(|file| file.path.ends_with("etcd.yaml")).map_or("", |file| &file.content);
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.map_or("", |rest| rest.trim_start_matches(':').trim())
}

impl Locks {
    fn row(&self, container: &Container) -> Option<&Row> {
        let name = name_of(container);
        self.rows.iter().find(|row| row.name == name)
    }

    /// Gives a fresh member its place: the first ones write the list, later ones must find themselves in it.
    pub fn start(&mut self, container: &Container) -> Result<bool, String> {
        let pairs: Vec<(&str, &str)> =
            config(container, "initial-cluster").split(',').filter_map(|pair| pair.split_once('=')).collect();
        let name = name_of(container);
        if config(container, "initial-cluster-state") == "new" {
            if self.rows.is_empty() {
                for (name, url) in pairs {
                    self.next += 1;
                    let (name, url) = (name.to_owned(), url.to_owned());
                    self.rows.push(Row { id: self.next, name, url, learner: false });
                }
            }
            return match self.row(container) {
                Some(_) => Ok(true),
                None => Err(format!("etcd member {name} would form a second cluster")),
            };
        }
        let same = pairs.len() == self.rows.len()
            && self.rows.iter().all(|row| pairs.iter().any(|(_, url)| *url == row.url));
        let Some((_, url)) = pairs.iter().find(|(own, _)| *own == name).filter(|_| same) else {
            return Ok(false);
        };
        match self.rows.iter_mut().find(|row| row.url == *url) {
            Some(row) => row.name = name,
            None => return Ok(false),
        }
        Ok(true)
    }

    /// A running member with a vote or without one; one that was taken off the list is nobody.
    fn alive<'a>(&'a self, host: &'a FakeHost, now: u64) -> impl Iterator<Item = &'a Row> {
        let here = host.containers.iter().filter(move |(id, c)| {
            is_etcd(c) && serves(c, now) && host.volumes.get(id).is_some_and(|volume| volume.data)
        });
        here.filter_map(|(_, container)| self.row(container))
    }

    /// Whether a host reaches a majority of the members with a vote.
    pub fn quorum(&self, hosts: &[FakeHost], from: &FakeHost, now: u64) -> bool {
        let near = hosts.iter().filter(|host| host.on(now) && reach(from, host, now));
        let alive = near.flat_map(|host| self.alive(host, now)).filter(|row| !row.learner).count();
        let voters = self.rows.iter().filter(|row| !row.learner).count();
        voters > 0 && alive > voters / 2
    }

    /// Whether the container is a member with a vote.
    pub fn votes(&self, container: &Container) -> bool {
        self.row(container).is_some_and(|row| !row.learner)
    }

    /// Whether the container is a member without one.
    pub fn learns(&self, container: &Container) -> bool {
        self.row(container).is_some_and(|row| row.learner)
    }

    /// A call to the member on this host.
    pub fn call(
        &mut self,
        hosts: &[FakeHost],
        at: usize,
        member: MemberId,
        ask: &HttpAsk,
        now: u64,
    ) -> Result<String, String> {
        let host = &hosts[at];
        let teller = host.containers.get(&member).filter(|c| serves(c, now)).ok_or("it does not run")?;
        if !self.votes(teller) || !self.quorum(hosts, host, now) {
            return Err("no leader".to_owned());
        }
        let body: Value = serde_json::from_str(ask.body.as_deref().unwrap_or("{}")).unwrap_or_default();
        let id = || body["ID"].as_str().and_then(|id| id.parse::<u64>().ok()).ok_or("no ID");
        match ask.path.rsplit('/').next() {
            Some("list") => {}
            Some("remove") => {
                let id = id()?;
                self.rows.retain(|row| row.id != id);
            }
            Some("add") => {
                let url = body["peerURLs"][0].as_str().ok_or("no address")?.to_owned();
                if self.rows.iter().any(|row| row.url == url || row.learner) {
                    return Err("it is there, or another learner is".to_owned());
                }
                self.next += 1;
                let learner = body["isLearner"] == true;
                self.rows.push(Row { id: self.next, name: String::new(), url, learner });
            }
            Some("promote") => {
                let id = id()?;
                let runs = hosts.iter().filter(|host| host.on(now) && reach(&hosts[at], host, now));
                let runs = runs.flat_map(|host| self.alive(host, now)).any(|row| row.id == id);
                let row = self.rows.iter_mut().find(|row| row.id == id && runs);
                row.ok_or("it is not in sync")?.learner = false;
            }
            _ => return Err("404".to_owned()),
        }
        Ok(self.list())
    }

    fn list(&self) -> String {
        let row = |row: &Row| json!({ "ID": row.id.to_string(), "name": row.name, "peerURLs": [row.url], "isLearner": row.learner });
        json!({ "members": self.rows.iter().map(row).collect::<Vec<_>>() }).to_string()
    }
}
