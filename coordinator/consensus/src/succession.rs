//! Finds a leader whose process is gone, so that its successor need not wait for the end of its lease. Must not guess:
//! only a host that answers "nobody listens here" counts, and a pre-vote of a majority decides.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::node::Raft;
use crate::types::{NodeId, Vote};

/// When something of a leader last arrived here.
#[derive(Clone)]
pub(crate) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    /// At this moment.
    pub fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// The leader that this node follows.
struct Followed {
    leader: NodeId,
    endpoint: String,
    vote: Vote,
    /// How many voters with a smaller number could follow it, too.
    before: u32,
}

/// What a node is just now.
enum Standing {
    /// Raft has ended here.
    Over,
    /// A leader, a candidate, a learner.
    Other,
    Follower(Followed),
}

/// Looks until Raft ends. After two heartbeats that did not come it asks the leader's host whether anybody listens.
pub(crate) async fn watch(raft: Raft, heard: Heard, heartbeat: Duration) {
    let silence = heartbeat * 9 / 4;
    loop {
        sleep(heartbeat / 2).await;
        let followed = match standing(&raft) {
            Standing::Over => return,
            Standing::Other => continue,
            Standing::Follower(followed) => followed,
        };
        if heard.age() < silence || !refused(&followed.endpoint, heartbeat).await {
            continue;
        }
        if succeed(&raft, followed, heartbeat).await.is_none() {
            return;
        }
    }
}

/// Gives up the dead leader's lease here, and asks for votes; `None` when Raft has ended. The others find the same by
/// themselves: until they have, they refuse, and no term is used up.
async fn succeed(raft: &Raft, followed: Followed, heartbeat: Duration) -> Option<()> {
    let Followed { leader, vote, before, .. } = followed;
    tracing::info!(leader, "the leader's process is gone: nobody listens at its address");
    // A hand-over to the leader itself: this node only forgets the lease.
    let forget = TransferLeaderRequest::new(vote, leader, None);
    drop(raft.handle_transfer_leader(forget).await.ok()?);
    // One after the other, so that they do not share the votes.
    sleep(heartbeat / 4 + heartbeat / 2 * before).await;
    match standing(raft) {
        Standing::Over => None,
        Standing::Follower(now) if now.vote == vote => raft.trigger().elect(true).await.ok(),
        Standing::Other | Standing::Follower(_) => Some(()),
    }
}

fn standing(raft: &Raft) -> Standing {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    if metrics.running_state.is_err() {
        return Standing::Over;
    }
    let Some(leader) = metrics.current_leader.filter(|leader| *leader != metrics.id) else {
        return Standing::Other;
    };
    if metrics.state != ServerState::Follower {
        return Standing::Other;
    }
    let membership = metrics.membership_config.membership();
    let Some(address) = membership.get_node(&leader) else { return Standing::Other };
    let before = membership.voter_ids().filter(|id| *id != leader && *id < metrics.id).count();
    Standing::Follower(Followed {
        leader,
        endpoint: address.node(leader).endpoint,
        vote: metrics.vote,
        before: u32::try_from(before).unwrap_or(u32::MAX),
    })
}

/// Whether the host answers that nobody listens. A host without power, behind a filter or far away does not answer that.
async fn refused(endpoint: &str, within: Duration) -> bool {
    let tried = timeout(within, TcpStream::connect(endpoint)).await;
    matches!(tried, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}
