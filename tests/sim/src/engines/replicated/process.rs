//! One fake server: what it has on its disk, and what its process knows besides. Decides nothing of the others.

use std::net::Ipv4Addr;

use muster_model::ids::MemberId;

use super::rows::Row;

/// Everything that outlives the process.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Its newest row; absent = it is empty.
    pub head: Option<Row>,
    /// Power that is cut does not take what there was up to this row.
    pub synced: Option<Row>,
    /// When it last had everything that its master had.
    pub taken: u64,
    /// When its host's power was cut, and took the end of its log with it.
    pub cuts: Vec<u64>,
}

/// What it does for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Master,
    Follows(Ipv4Addr),
}

/// A hand-over that its master carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOver {
    /// Writes are held until the replica has everything, or until then.
    Waits { to: MemberId, until: u64 },
    /// It follows the replica already, and asks it to take over until it hears an answer.
    Asks { to: MemberId },
}

/// What one process knows.
#[derive(Debug, Clone)]
pub struct Process {
    pub host: usize,
    pub at: Ipv4Addr,
    /// How often its host had lost power when it began.
    pub cuts: u32,
    pub role: Role,
    /// The start script is still looking around.
    pub settles: bool,
    /// What it saw when it looked last, and does now.
    pub resolved: Option<Role>,
    /// Its stream, the one before it with the offset up to which it is the same, and how far it is in it.
    pub stream: u64,
    pub earlier: Option<(u64, u64)>,
    pub offset: u64,
    /// The link to its master stands from then on; absent = no link.
    pub link: Option<u64>,
    /// What its master sent and what it has not taken in yet, with the offset.
    pub coming: Option<(Option<Row>, u64)>,
    /// When it last heard its master.
    pub heard: u64,
    /// What it writes is on its disk at once.
    pub syncs: bool,
    pub hand_over: Option<HandOver>,
    /// It was made master and has not written since. True inside = by a hand-over that waits for everything.
    pub made: Option<bool>,
    /// It was told to stop.
    pub over: bool,
}

impl Process {
    /// It started a moment ago: nobody's replica.
    pub const fn new(host: usize, at: Ipv4Addr, cuts: u32, stream: u64) -> Self {
        Self {
            host,
            at,
            cuts,
            role: Role::Follows(Ipv4Addr::LOCALHOST),
            settles: true,
            resolved: None,
            stream,
            earlier: None,
            offset: 1,
            link: None,
            coming: None,
            heard: 0,
            syncs: false,
            hand_over: None,
            made: None,
            over: false,
        }
    }

    pub fn leads(&self) -> bool {
        self.role == Role::Master
    }

    /// Its writes are held.
    pub const fn holds(&self) -> bool {
        matches!(self.hand_over, Some(HandOver::Waits { .. }))
    }

    pub fn linked(&self, now: u64) -> bool {
        !self.leads() && self.link.is_some_and(|until| until <= now)
    }

    /// Takes writes from now on, in a stream of its own that begins where the other one ended.
    pub fn lead(&mut self, stream: u64, planned: bool) {
        self.earlier = Some((self.stream, self.offset));
        (self.role, self.stream, self.link, self.coming) = (Role::Master, stream, None, None);
        (self.settles, self.made, self.hand_over) = (false, Some(planned), None);
    }

    pub fn follow(&mut self, master: Ipv4Addr) {
        if self.role != Role::Follows(master) {
            (self.role, self.link, self.coming, self.made) = (Role::Follows(master), None, None, None);
        }
        self.settles &= master == Ipv4Addr::LOCALHOST;
    }

    /// What a replica in this stream at this offset lacks can be sent from here.
    pub fn can_continue(&self, stream: u64, offset: u64) -> bool {
        let in_own = stream == self.stream && offset <= self.offset;
        in_own || self.earlier.is_some_and(|(earlier, upto)| stream == earlier && offset <= upto)
    }
}
