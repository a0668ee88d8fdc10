//! Clients change and read one thing through all coordinators while these are killed and paused; a library judges what
//! they were told.
//!
//! The thing is a subnet in the spec: a write applies another spec, with or without a condition; a read saves a snapshot;
//! a look at the status tells how far the log is. A write without an answer is repeated under the same number through
//! other coordinators, or given up and left open.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::operator::Operator;
use muster_cluster_tests::random::Random;
use muster_cluster_tests::wait::until;
use muster_property::History;
use muster_property::register::{Call, Outcome};
use muster_proto::control::Caller;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

/// Clients at once.
const CLIENTS: usize = 5;
/// Longest wait for one answer; then the next coordinator is asked.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Faults of one round.
const FAULTS: usize = 3;
/// Tries of one write.
const TRIES: u64 = 6;

/// What all clients of a round share.
struct Round {
    seed: u64,
    operators: Vec<Operator>,
    history: History,
    /// The last value that anybody took.
    values: AtomicU64,
    over: AtomicBool,
}

fn yaml(value: u64) -> String {
    let (high, low) = (value >> 8 & 0x7f, value & 0xff);
    format!("muster: 1\nplatform: shop\nnetworks:\n  register: {{subnet: 10.{high}.{low}.0/24}}\n")
}

/// The value of a saved state, and where in the log it was written.
fn value_of(state: &serde_json::Value) -> Option<(u64, u64)> {
    let platform = &state["platform"];
    let index = platform["spec_index"].as_u64()?;
    let Some(subnet) = platform["spec"]["networks"]["register"]["subnet"].as_str() else {
        return Some((0, index));
    };
    let mut parts = subnet.split('.').skip(1).map_while(|part| part.parse::<u64>().ok());
    Some((parts.next()? << 8 | parts.next()?, index))
}

impl Round {
    fn running(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    async fn client(&self, number: usize) {
        let mut random = Random::new(self.seed ^ (number as u64 + 1) << 32);
        let mut calls = 0;
        // Where the last read of this client saw the value.
        let mut seen = 0;
        while self.running() {
            let at = usize::try_from(random.below(3)).unwrap_or_default();
            match random.below(10) {
                0..4 => seen = self.read(number, at).await.unwrap_or(seen),
                4..6 => self.look(number, at).await,
                kind => {
                    calls += 1;
                    let condition = (kind == 9 && seen > 0).then_some(seen);
                    self.write(number, at, calls, condition, &mut random).await;
                }
            }
            sleep(Duration::from_millis(random.below(40))).await;
        }
    }

    async fn read(&self, client: usize, at: usize) -> Option<u64> {
        let ticket = self.history.invoke(client, Call::Read);
        let state = timeout(PATIENCE, self.operators[at].snapshot()).await.ok()?.ok()?;
        let (value, index) = value_of(&state).expect("a state with a spec");
        self.history.returned(ticket, Outcome::Value { value, index: Some(index) });
        Some(index)
    }

    async fn look(&self, client: usize, at: usize) {
        let ticket = self.history.invoke(client, Call::Look);
        if let Ok(Ok(view)) = timeout(PATIENCE, self.operators[at].status()).await {
            self.history.returned(ticket, Outcome::Index(view.index.0));
        }
    }

    async fn write(&self, client: usize, first: usize, serial: u64, at: Option<u64>, random: &mut Random) {
        let value = self.values.fetch_add(1, Ordering::Relaxed) + 1;
        let caller = || Some(Caller { client: format!("{}-{client}", self.seed), serial });
        let ticket = self.history.invoke(client, Call::Write { value, at });
        // Some give up early, so that there are open ones.
        let tries = if random.below(12) == 0 { 1 } else { TRIES };
        for attempt in 0..tries {
            let operator = &self.operators[(first + usize::try_from(attempt).unwrap_or_default()) % 3];
            let answer =
                timeout(PATIENCE, operator.apply(caller(), yaml(value), at.unwrap_or_default())).await;
            match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("ours"))) {
                Ok(0) => panic!("the spec of value {value} was refused"),
                Ok(index) => return self.history.returned(ticket, Outcome::Index(index)),
                Err(stale) if stale.code() == Code::Aborted => {
                    return self.history.returned(ticket, Outcome::Refused);
                }
                Err(unknown) => {
                    let may = [
                        Code::Unavailable,
                        Code::DeadlineExceeded,
                        Code::Cancelled,
                        Code::Unknown,
                        Code::Internal,
                    ];
                    assert!(may.contains(&unknown.code()), "{unknown}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Kills or pauses the leader or another one, and lets it come back.
async fn fault(cluster: &mut Cluster, random: &mut Random) -> String {
    let leader = cluster.leader().await;
    let at = if random.below(4) == 0 { (leader + 1) % 3 } else { leader };
    let whom = if at == leader { "the leader" } else { "a follower" };
    let pause = random.below(2) == 0;
    let length = Duration::from_millis(600 + random.below(1_200));
    if pause {
        cluster.nodes[at].pause(true);
        sleep(length).await;
        cluster.nodes[at].pause(false);
    } else {
        cluster.nodes[at].kill().await;
        sleep(length).await;
        cluster.nodes[at].start();
    }
    sleep(Duration::from_millis(300 + random.below(500))).await;
    format!("{whom} {} for {length:?}", if pause { "paused" } else { "killed" })
}

async fn round(seed: u64) {
    let mut cluster = Cluster::three().await;
    let before = until("a read before", async || {
        let state =
            cluster.operator(cluster.leader().await).snapshot().await.map_err(|status| status.to_string())?;
        value_of(&state).ok_or_else(|| "no value".to_owned())
    })
    .await;
    let round = Round {
        seed,
        operators: (0..3).map(|at| cluster.operator(at)).collect(),
        history: History::default(),
        values: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    // What was there before, as a write of its own.
    let ticket = round.history.invoke(CLIENTS, Call::Write { value: before.0, at: None });
    round.history.returned(ticket, Outcome::Index(before.1));
    let mut random = Random::new(seed);
    let clients = join_all((0..CLIENTS).map(|number| round.client(number)));
    let faults = async {
        let mut done = Vec::new();
        for _ in 0..FAULTS {
            done.push(fault(&mut cluster, &mut random).await);
        }
        round.over.store(true, Ordering::Relaxed);
        done
    };
    let (_, faults) = tokio::join!(clients, faults);
    let (known, open) = round.history.counts();
    let began = std::time::Instant::now();
    let good = round.history.is_linearizable();
    let took = began.elapsed();
    println!("seed {seed}: {known} operations, {open} open, judged in {took:?}; {}", faults.join(", "));
    assert!(good, "seed {seed} is not linearizable:\n{}", round.history.lines());
    assert!(known > 20, "seed {seed}: too little was tried:\n{}", round.history.lines());
    let stale = round.history.with_stale_read().expect("values change");
    assert!(
        !stale.is_linearizable(),
        "seed {seed}: a planted stale read was not noticed:\n{}",
        stale.lines()
    );
}

/// `MUSTER_LINEAR_ROUNDS` rounds (2), the first of the seed `MUSTER_LINEAR_SEED` (random).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_are_told_could_have_happened_one_after_the_other() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("MUSTER_LINEAR_ROUNDS").unwrap_or(2);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = number("MUSTER_LINEAR_SEED").unwrap_or_else(|| now.map_or(1, |now| now.as_secs()));
    for seed in first..first + rounds {
        println!("round of seed {seed}");
        // A platform of its own: what is left open in one round could happen in the next.
        timeout(Duration::from_secs(120), Box::pin(round(seed)))
            .await
            .expect("a round takes a quarter of a minute");
    }
}
