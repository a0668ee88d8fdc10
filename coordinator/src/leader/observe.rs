//! Proposes what agents' reports change; what they mean is the core's decision.

use std::time::Duration;

use muster_core::observe::from_report;

use super::{Leader, TICK};

/// Reports that arrive within this span share one look.
const GATHER: Duration = Duration::from_millis(50);

impl Leader {
    pub(super) async fn observe(&self) {
        let mut sessions = self.parts.sessions.watch();
        let mut applied = self.parts.consensus.watch_applied();
        loop {
            sessions.mark_unchanged();
            applied.mark_unchanged();
            for (host, session) in self.parts.sessions.views() {
                let Some(report) = &session.report else { continue };
                let changes = from_report(&self.parts.replica.state(), &host, report);
                for change in &changes {
                    self.propose_command(change).await;
                }
            }
            tokio::select! {
                _ = sessions.changed() => tokio::time::sleep(GATHER).await,
                _ = applied.changed() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }
}
