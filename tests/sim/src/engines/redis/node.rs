//! What one fake Redis node has on its disk and knows of the others. Decides nothing of the cluster.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Hash slots of every cluster.
pub const HASH_SLOTS: u32 = 16_384;
/// Keys that are written, each in the middle of one sixteenth of the hash slots.
pub const KEYS: usize = 16;

/// The identity of a node, made at its first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u32);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:040x}", self.0)
    }
}

impl Id {
    pub fn parse(text: &str) -> Option<Self> {
        u32::from_str_radix(text, 16).ok().map(Self)
    }
}

/// Hash slots, as ranges from one to another.
pub type Ranges = Vec<(u32, u32)>;

pub fn count(ranges: &Ranges) -> u32 {
    ranges.iter().map(|(from, to)| to - from + 1).sum()
}

/// The hash slot of a key.
pub const fn slot_of(key: usize) -> u32 {
    key as u32 * 1_024 + 512
}

pub fn has(ranges: &Ranges, slot: u32) -> bool {
    ranges.iter().any(|(from, to)| (*from..=*to).contains(&slot))
}

/// What is left of `ranges` without `taken`.
pub fn without(ranges: &Ranges, taken: &Ranges) -> Ranges {
    let mut left = ranges.clone();
    for (from, to) in taken {
        let cut = |(a, b): (u32, u32)| {
            let before = (a < *from).then(|| (a, b.min(from.saturating_sub(1))));
            let after = (b > *to).then(|| (a.max(to + 1), b));
            before.into_iter().chain(after)
        };
        left = left.into_iter().flat_map(cut).collect();
    }
    left
}

/// One row of a node's table.
#[derive(Debug, Clone)]
pub struct Row {
    pub at: Ipv4Addr,
    pub master: Option<Id>,
    pub slots: Ranges,
    /// Whose claim is newer.
    pub epoch: u64,
}

/// Everything that outlives the process.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: Id,
    /// The table of nodes, itself among them.
    pub table: BTreeMap<Id, Row>,
    pub epoch: u64,
    pub voted: u64,
    /// The last value of each key.
    pub data: [u64; KEYS],
    /// When it had everything that its master had.
    pub taken: u64,
    /// Its log is there. False = somebody emptied it.
    pub has_log: bool,
}

impl Node {
    pub fn new(id: Id, at: Ipv4Addr) -> Self {
        let own = Row { at, master: None, slots: Vec::new(), epoch: 0 };
        Self { id, table: [(id, own)].into(), epoch: 0, voted: 0, data: [0; KEYS], taken: 0, has_log: true }
    }

    pub fn own(&self) -> &Row {
        &self.table[&self.id]
    }

    pub fn own_mut(&mut self) -> &mut Row {
        self.table.get_mut(&self.id).expect("a node is in its own table")
    }

    /// Takes writes for hash slots, as far as it knows.
    pub fn leads(&self) -> bool {
        self.own().master.is_none() && !self.own().slots.is_empty()
    }

    /// Masters with hash slots, in its own view.
    pub fn masters(&self) -> impl Iterator<Item = (Id, &Row)> {
        self.table
            .iter()
            .filter(|(_, row)| row.master.is_none() && !row.slots.is_empty())
            .map(|(id, row)| (*id, row))
    }

    /// Takes in what another node says of itself, or what a third one knows of it: a newer claim to hash slots wins.
    pub fn learn(&mut self, id: Id, said: &Row) {
        if id == self.id {
            return;
        }
        self.epoch = self.epoch.max(said.epoch);
        let Some(known) = self.table.get(&id).map(|row| row.epoch) else { return };
        if said.epoch < known {
            return;
        }
        let mut claims = Ranges::new();
        for (other, row) in &self.table {
            if *other != id && row.epoch >= said.epoch {
                claims.extend(row.slots.iter().copied());
            }
        }
        let claimed = without(&said.slots, &claims);
        let own_before = self.own().slots.clone();
        let mut masters_lost = Vec::new();
        for (other, row) in self.table.iter_mut().filter(|(other, _)| **other != id) {
            let left = without(&row.slots, &claimed);
            if left.is_empty() && !row.slots.is_empty() {
                masters_lost.push(*other);
            }
            row.slots = left;
        }
        if let Some(row) = self.table.get_mut(&id) {
            *row = Row { slots: claimed, ..said.clone() };
        }
        // Who lost everything to one that has nothing else follows it; keys of hash slots that went elsewhere go too.
        let all_of_it = |lost: &Ranges| without(&said.slots, lost).is_empty();
        if masters_lost.contains(&self.id) && all_of_it(&own_before) {
            self.own_mut().master = Some(id);
        }
        if !own_before.is_empty() && self.own().master.is_none() {
            for key in 0..KEYS {
                if has(&own_before, slot_of(key)) && !has(&self.own().slots, slot_of(key)) {
                    self.data[key] = 0;
                }
            }
        }
        let follows = self.own().master;
        if follows.is_some_and(|master| masters_lost.contains(&master)) && follows != Some(id) {
            self.own_mut().master = Some(id);
        }
    }
}

/// What one process knows besides.
#[derive(Debug, Clone)]
pub struct Process {
    pub host: usize,
    pub at: Ipv4Addr,
    /// It waits: an emptied master does not start.
    pub held: bool,
    /// Since when it gets no answer from whom.
    pub silent: BTreeMap<Id, u64>,
    /// Nodes that a majority of masters gets no answer from, since when.
    pub failed: BTreeMap<Id, u64>,
    /// Forgotten nodes that it does not hear of again before.
    pub banned: BTreeMap<Id, u64>,
    /// The link to its master is being made until then; absent = no link.
    pub link: Option<u64>,
    /// What its master sent and what it has not taken in yet.
    pub coming: [u64; KEYS],
    /// When it last heard its master.
    pub heard: u64,
    /// When it started.
    pub since: u64,
    /// It sees the cluster as complete since then.
    pub ok_since: Option<u64>,
    /// It was told to stop.
    pub over: bool,
}
