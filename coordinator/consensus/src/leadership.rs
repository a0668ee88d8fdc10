//! Who leads, for those who act on it. Must not elect anybody.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::Fatal;
use tokio::sync::watch;

use crate::node::Raft;
use crate::types::NodeId;

/// What this node believes; a leader that is cut off learns late that it is none any more, so
/// whoever acts on `am_leader` must act through proposals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<NodeId>,
    pub term: u64,
    pub am_leader: bool,
}

/// Publishes every change until Raft ends, and the reason if it ends by a failure.
pub(crate) async fn follow(
    raft: Raft,
    out: watch::Sender<Leadership>,
    failed: watch::Sender<Option<String>>,
) {
    let mut metrics = raft.metrics();
    loop {
        let (now, running) = {
            let metrics = metrics.borrow_watched();
            let am_leader =
                metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id);
            let now = Leadership { leader: metrics.current_leader, term: metrics.current_term, am_leader };
            (now, metrics.running_state.clone())
        };
        let stopped = running.is_err();
        let now = if stopped { Leadership { term: now.term, ..Leadership::default() } } else { now };
        out.send_if_modified(|before| std::mem::replace(before, now) != now);
        if let Err(error) = running {
            if error != Fatal::Stopped {
                failed.send_if_modified(|known| {
                    let first = known.is_none();
                    known.get_or_insert_with(|| format!("raft stopped: {error}"));
                    first
                });
            }
            return;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
