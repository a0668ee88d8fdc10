//! Questions and answers of one round. Pure: the time is told.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use muster_model::link::Link;
use muster_model::network::Mesh;
use tokio::time::Instant;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A small echo.
    Small,
    /// A packet of this many bytes that may not be cut into pieces.
    Whole(u16),
}

#[derive(Debug, Default)]
struct Peer {
    asked: u32,
    times: Vec<Duration>,
    packet: Option<u16>,
}

/// One round.
#[derive(Debug, Default)]
pub struct Round {
    open: BTreeMap<(Ipv4Addr, u16), (Question, Instant)>,
    peers: BTreeMap<Ipv4Addr, Peer>,
}

impl Round {
    /// For these hosts.
    pub fn new(addresses: impl Iterator<Item = Ipv4Addr>) -> Self {
        Self { open: BTreeMap::new(), peers: addresses.map(|address| (address, Peer::default())).collect() }
    }

    /// A question went out.
    pub fn asked(&mut self, address: Ipv4Addr, sequence: u16, question: Question, now: Instant) {
        if question == Question::Small
            && let Some(peer) = self.peers.get_mut(&address)
        {
            peer.asked += 1;
        }
        self.open.insert((address, sequence), (question, now));
    }

    /// An answer came. One to no question of this round, or a second one, says nothing.
    pub fn answered(&mut self, address: Ipv4Addr, sequence: u16, now: Instant) {
        let Some((question, asked)) = self.open.remove(&(address, sequence)) else { return };
        let Some(peer) = self.peers.get_mut(&address) else { return };
        match question {
            Question::Small => peer.times.push(now - asked),
            Question::Whole(size) => peer.packet = peer.packet.max(Some(size)),
        }
    }

    /// Nothing can be learned by waiting.
    #[must_use]
    pub fn is_complete(&self, small: u32, mtu: u16) -> bool {
        let complete = |peer: &Peer| peer.times.len() >= small as usize && peer.packet == Some(mtu);
        self.peers.values().all(complete)
    }

    /// Hosts that answer, but not to a full packet.
    #[must_use]
    pub fn narrow(&self, mtu: u16) -> Vec<Ipv4Addr> {
        let narrow = |peer: &Peer| !peer.times.is_empty() && peer.packet != Some(mtu);
        self.peers.iter().filter(|(_, peer)| narrow(peer)).map(|(address, _)| *address).collect()
    }

    /// What is told. `handshakes` is what `wg show ... latest-handshakes` prints, `now_s` seconds since 1970.
    #[must_use]
    pub fn links(&self, mesh: &Mesh, handshakes: &str, now_s: u64) -> Vec<Link> {
        let handshakes: BTreeMap<&str, u64> = handshakes
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(key, at)| Some((key, at.trim().parse().ok()?)))
            .filter(|(_, at)| *at > 0)
            .collect();
        let nothing = Peer::default();
        let link = |peer: &muster_model::network::MeshPeer| {
            let seen = self.peers.get(&peer.address).unwrap_or(&nothing);
            Link {
                to: peer.host.clone(),
                address: peer.address,
                asked: seen.asked,
                answered: u32::try_from(seen.times.len()).unwrap_or(u32::MAX),
                round_trip_us: median(&seen.times),
                packet: seen.packet,
                handshake_s: handshakes.get(peer.public_key.as_str()).map(|at| now_s.saturating_sub(*at)),
            }
        };
        mesh.peers.iter().map(link).collect()
    }
}

/// Microseconds.
fn median(times: &[Duration]) -> Option<u64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let middle = times.get(times.len() / 2)?;
    u64::try_from(middle.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const H2: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 2);

    #[test]
    fn an_answer_counts_once_and_only_for_its_question() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut round = Round::new([H2].into_iter());
        for (sequence, took) in [(1, 9), (2, 3), (3, 5)] {
            round.asked(H2, sequence, Question::Small, start);
            round.answered(H2, sequence, at(took));
            round.answered(H2, sequence, at(100));
        }
        round.answered(H2, 77, at(1));
        assert_eq!(median(&round.peers[&H2].times), Some(5_000));
        assert_eq!(round.peers[&H2].times.len(), 3);
        assert!(!round.is_complete(3, 1_370));
        assert_eq!(round.narrow(1_370), [H2], "answers, but no full packet did yet");
        round.asked(H2, 4, Question::Whole(1_280), start);
        round.asked(H2, 5, Question::Whole(576), start);
        round.answered(H2, 4, at(2));
        round.answered(H2, 5, at(3));
        assert_eq!(round.peers[&H2].packet, Some(1_280), "the largest counts, whichever came last");
        round.asked(H2, 6, Question::Whole(1_370), start);
        round.answered(H2, 6, at(4));
        assert!(round.is_complete(3, 1_370) && round.narrow(1_370).is_empty());
    }
}
