//! Who leads a replicated service: one master in one term, recorded in State and written into the data itself. A member
//! starts as nobody's replica; what it says of the term tells what its data is of. Pure.

use std::fmt;
use std::net::Ipv4Addr;

use muster_model::ids::MemberId;

use super::observe::{FOLLOWS, LOADING, MASTER, REPLICA, TERM};
use super::settings::Settings;
use crate::kinds::{MemberFacts, ServiceFacts, parts};

/// Record: the newest term.
pub const RECORD: &str = "master";
/// The key that carries the term to every replica.
pub const KEY: &str = "muster:master";
/// Whom a member follows that was told nothing.
pub const NOBODY: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Whom a member follows while another master is chosen. Nobody answers there either; but a lost master that comes back sees
/// by it that its term does not go on, and does not take it up again by itself.
pub const NOBODY_YET: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// One member leads from its beginning to the next one's. Numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Its number.
    pub epoch: u64,
    /// Who leads.
    pub member: MemberId,
}

impl Term {
    /// As it is recorded and written.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, member) = text.split_once(' ')?;
        Some(Self { epoch: epoch.parse().ok()?, member: MemberId(member.parse().ok()?) })
    }

    /// The one after it.
    pub const fn next(self, member: MemberId) -> Self {
        Self { epoch: self.epoch + 1, member }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.epoch, self.member)
    }
}

/// The newest term.
pub fn recorded(service: &ServiceFacts<'_>) -> Option<Term> {
    Term::parse(service.records.get(RECORD)?)
}

/// The term that a member's data is of.
pub fn said(member: &MemberFacts) -> Option<Term> {
    Term::parse(fact(member, TERM)?)
}

/// Its data is of no term: it has none, or never had.
pub fn has_none(member: &MemberFacts) -> bool {
    fact(member, TERM) == Some("")
}

/// It reads its data, and says nothing of it yet.
pub fn loads(member: &MemberFacts) -> bool {
    fact(member, LOADING).is_some()
}

fn fact<'a>(member: &'a MemberFacts, key: &str) -> Option<&'a str> {
    member.seen.as_ref().filter(|seen| seen.running)?.facts.get(key).map(String::as_str)
}

/// The address that it follows.
pub fn follows(member: &MemberFacts) -> Option<Ipv4Addr> {
    fact(member, FOLLOWS)?.parse().ok()
}

/// Where clients and the others reach it.
pub fn address(member: &MemberFacts, settings: &Settings) -> Ipv4Addr {
    member.addresses.get(&settings.network).copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// It says that it takes writes, whether it should or not.
pub fn is_master(member: &MemberFacts) -> bool {
    parts::has_role(member, MASTER)
}

/// The member that takes writes rightly: the recorded one, or one that it gave its role to.
pub fn leader<'a>(service: &'a ServiceFacts<'_>) -> Option<&'a MemberFacts> {
    let term = recorded(service)?;
    let rightful = |m: &&MemberFacts| {
        is_master(m) && (m.member == term.member || said(m).is_some_and(|said| said.epoch >= term.epoch))
    };
    let mut leaders = service.members.iter().filter(rightful);
    leaders.clone().find(|member| member.member == term.member).or_else(|| leaders.next())
}

/// Could take the leader's place without a loss.
pub fn in_sync(member: &MemberFacts, leader: &MemberFacts, settings: &Settings) -> bool {
    parts::has_role(member, REPLICA)
        && follows(member) == Some(address(leader, settings))
        && member.seen.as_ref().is_some_and(|seen| seen.ready && seen.caught_up)
}
