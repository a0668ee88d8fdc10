//! Which hosts' members are reset, and what an operator should know of it. Pure: fed with what the leader says and with
//! echoes, it touches no network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use muster_model::ids::{HostId, Name};
use muster_model::observed::Condition;
use muster_model::time::{Millis, Timestamp};

/// Without an echo for this long a host is dark from here.
const DARK_AFTER: Millis = Millis(1_000);
/// What the leader said last counts for this long without being said again.
const COUNTS_FOR: Millis = Millis::seconds(60);

/// A host that the coordinators say is down, with what was placed on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownHost {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// Addresses of its members.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// What is known of the other hosts.
#[derive(Debug, Default)]
pub struct Tracker {
    told: Vec<DownHost>,
    told_at: Timestamp,
    /// When each host was asked first without a pause since, and when it answered last.
    asked: BTreeMap<HostId, Timestamp>,
    answered: BTreeMap<HostId, Timestamp>,
}

impl Tracker {
    /// What the leader says now; it replaces what it said before.
    pub fn tell(&mut self, told: Vec<DownHost>, now: Timestamp) {
        self.told = told;
        self.told_at = now;
    }

    /// These hosts are asked for an echo from now on, and no others.
    pub fn asking(&mut self, hosts: &BTreeSet<HostId>, now: Timestamp) {
        self.asked.retain(|host, _| hosts.contains(host));
        self.answered.retain(|host, _| hosts.contains(host));
        for host in hosts {
            self.asked.entry(host.clone()).or_insert(now);
        }
    }

    /// Nobody could be asked, for a reason of our own: silence proves nothing.
    pub fn asked_nobody(&mut self) {
        self.asked.clear();
    }

    /// A host answered.
    pub fn answer(&mut self, host: &HostId, now: Timestamp) {
        self.answered.insert(host.clone(), now);
    }

    /// Dark from where we stand: asked for long enough, and silent for as long.
    fn dark(&self, host: &HostId, now: Timestamp) -> bool {
        let Some(asked) = self.asked.get(host) else { return false };
        let heard = self.answered.get(host).map_or(*asked, |answered| *answered.max(asked));
        now.since(heard) >= DARK_AFTER
    }

    fn down(&self, now: Timestamp) -> impl Iterator<Item = &DownHost> {
        let counts = now.since(self.told_at) < COUNTS_FOR;
        self.told.iter().filter(move |_| counts)
    }

    /// Addresses to which connections are refused now.
    #[must_use]
    pub fn reset(&self, now: Timestamp) -> BTreeSet<Ipv4Addr> {
        let dark = self.down(now).filter(|down| self.dark(&down.host, now));
        dark.flat_map(|down| down.addresses.iter().copied()).collect()
    }

    /// What an operator should know.
    #[must_use]
    pub fn conditions(&self, now: Timestamp) -> Vec<Condition> {
        let condition = |down: &DownHost| {
            let name = &down.name;
            let (code, text) = if self.dark(&down.host, now) {
                (
                    "host-dark",
                    format!(
                        "host {name} is down and dark from here: connections to its members are refused at once"
                    ),
                )
            } else {
                (
                    "agent-silent",
                    format!(
                        "host {name}: agent silent, host answers: nothing is reset; look at `systemctl status muster-agent` there"
                    ),
                )
            };
            Condition { code: code.to_owned(), text }
        };
        self.down(now).map(condition).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u64) -> HostId {
        HostId::new(format!("{number:016x}")).unwrap()
    }

    fn down(number: u64) -> DownHost {
        let address = Ipv4Addr::new(172, 31, 10, u8::try_from(number).unwrap());
        DownHost {
            host: host(number),
            name: Name::new(format!("h{number}")).unwrap(),
            addresses: [address].into(),
        }
    }

    /// Asks hosts 1 and 2 from 0 on.
    fn tracker() -> Tracker {
        let mut tracker = Tracker::default();
        tracker.asking(&[host(1), host(2)].into(), Timestamp(0));
        tracker
    }

    #[test]
    fn a_host_is_reset_when_it_is_down_and_dark_and_not_before_both() {
        let mut tracker = tracker();
        tracker.answer(&host(1), Timestamp(5_000));
        tracker.answer(&host(2), Timestamp(5_000));
        assert!(tracker.reset(Timestamp(9_000)).is_empty(), "dark, but not down");
        tracker.tell(vec![down(1)], Timestamp(5_500));
        assert!(tracker.reset(Timestamp(5_900)).is_empty(), "down, but it answered just now");
        assert_eq!(tracker.conditions(Timestamp(5_900))[0].code, "agent-silent");
        assert_eq!(tracker.reset(Timestamp(6_000)), down(1).addresses);
        assert_eq!(tracker.conditions(Timestamp(6_000))[0].code, "host-dark");
    }

    #[test]
    fn a_silent_agent_on_a_host_that_answers_resets_nothing() {
        let mut tracker = tracker();
        for at in (0..70_000).step_by(250) {
            tracker.answer(&host(1), Timestamp(at));
            tracker.tell(vec![down(1)], Timestamp(at));
            assert!(tracker.reset(Timestamp(at)).is_empty());
        }
    }

    #[test]
    fn it_is_lifted_by_an_answer_by_the_leader_and_by_time() {
        let mut tracker = tracker();
        tracker.tell(vec![down(1)], Timestamp(10_000));
        assert!(!tracker.reset(Timestamp(10_000)).is_empty());
        tracker.answer(&host(1), Timestamp(11_000));
        assert!(tracker.reset(Timestamp(11_000)).is_empty(), "it answers");
        assert!(!tracker.reset(Timestamp(12_000)).is_empty(), "silent again");
        assert!(!tracker.reset(Timestamp(69_999)).is_empty());
        assert!(tracker.reset(Timestamp(70_000)).is_empty(), "not said again for a minute");
        assert!(tracker.conditions(Timestamp(70_000)).is_empty());
        tracker.tell(vec![down(1)], Timestamp(70_000));
        assert!(!tracker.reset(Timestamp(70_000)).is_empty());
        tracker.tell(Vec::new(), Timestamp(70_500));
        assert!(tracker.reset(Timestamp(70_500)).is_empty(), "up again");
    }

    #[test]
    fn silence_counts_only_from_the_first_question_on() {
        let mut tracker = Tracker::default();
        tracker.tell(vec![down(1), down(3)], Timestamp(5_000));
        assert!(tracker.reset(Timestamp(6_000)).is_empty(), "nobody was asked");
        tracker.asking(&[host(1)].into(), Timestamp(6_000));
        assert!(tracker.reset(Timestamp(6_900)).is_empty());
        assert_eq!(tracker.reset(Timestamp(7_000)), down(1).addresses, "host 3 cannot be asked");
        tracker.asked_nobody();
        tracker.asking(&[host(1)].into(), Timestamp(8_000));
        assert!(tracker.reset(Timestamp(8_500)).is_empty());
    }
}
