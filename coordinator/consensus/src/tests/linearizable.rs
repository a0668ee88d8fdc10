//! Clients write and read through all nodes while leaders are cut off from the others and not from their clients; a
//! library judges what they were told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use muster_property::History;
use muster_property::register::{Call, Outcome};
use tokio::time::sleep;

use super::harness::Cluster;
use crate::ProposeError;

const PATIENCE: Duration = Duration::from_millis(700);
const CLIENTS: u64 = 4;

/// Numbers below `end` that look random, the same for the same seed.
fn chosen(seed: u64, turn: u64, end: u64) -> u64 {
    let text = [seed.to_le_bytes(), turn.to_le_bytes()].concat();
    u64::from(crc32fast::hash(&text)) % end
}

struct Round {
    seed: u64,
    cluster: Cluster,
    history: History,
    values: AtomicU64,
    over: AtomicBool,
}

impl Round {
    async fn client(&self, number: u64) {
        let seed = self.seed.wrapping_mul(31) + number;
        for turn in (0..).take_while(|_| !self.over.load(Ordering::Relaxed)) {
            let node = chosen(seed, turn * 3, 3) + 1;
            if chosen(seed, turn * 3 + 1, 2) == 0 {
                self.write(number, node).await;
            } else {
                self.read(number, node).await;
            }
            sleep(Duration::from_millis(chosen(seed, turn * 3 + 2, 25))).await;
        }
    }

    async fn write(&self, client: u64, node: u64) {
        let value = self.values.fetch_add(1, Ordering::Relaxed) + 1;
        let call = Call::Write { value, at: None };
        let ticket = self.history.invoke(usize::try_from(client).unwrap(), call);
        let written = self.cluster.nodes[&node].consensus.propose(value.to_string(), PATIENCE).await;
        self.history.returned(
            ticket,
            match written {
                Ok(applied) => Outcome::Index(applied.index),
                Err(ProposeError::NoLeader) => Outcome::Never,
                Err(ProposeError::Unknown) => Outcome::Open,
                Err(other) => panic!("{other}"),
            },
        );
    }

    async fn read(&self, client: u64, node: u64) {
        let ticket = self.history.invoke(usize::try_from(client).unwrap(), Call::Read);
        let node = &self.cluster.nodes[&node];
        if node.consensus.linearizable(PATIENCE).await.is_ok() {
            let last = node.lines().last().map_or(0, |line| line.parse().unwrap());
            self.history.returned(ticket, Outcome::Value { value: last, index: None });
        }
    }

    /// Cuts the leader off while its clients go on, and lets it hear of the new one.
    async fn faults(&self) {
        for turn in 0..3 {
            sleep(Duration::from_millis(200 + chosen(self.seed, turn, 200))).await;
            let leader = self.cluster.leader().await;
            self.cluster.nodes[&leader].set_dark(true);
            sleep(Duration::from_millis(500 + chosen(self.seed, turn + 7, 900))).await;
            self.cluster.nodes[&leader].set_dark(false);
        }
        self.cluster.leader().await;
        self.over.store(true, Ordering::Relaxed);
    }
}

/// `MUSTER_LINEAR_ROUNDS` rounds (2), the first of the seed `MUSTER_LINEAR_SEED` (random).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_of_a_leader_that_is_cut_off_are_told_could_have_happened() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number("MUSTER_LINEAR_SEED").unwrap_or(now.as_secs());
    for seed in first..first + number("MUSTER_LINEAR_ROUNDS").unwrap_or(2) {
        let (values, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let round = Round { seed, cluster: Cluster::of(3).await, history: History::default(), values, over };
        let clients = join_all((0..CLIENTS).map(|client| round.client(client)));
        tokio::join!(clients, round.faults());
        let (known, open) = round.history.counts();
        let good = round.history.is_linearizable();
        println!("seed {seed}: {known} operations, {open} open");
        assert!(good, "seed {seed} is not linearizable:\n{}", round.history.lines());
        assert!(known > 20, "seed {seed}: too little was tried:\n{}", round.history.lines());
        let stale = round.history.with_stale_read().expect("values change");
        assert!(!stale.is_linearizable(), "seed {seed}: a planted stale read was not noticed");
    }
}
