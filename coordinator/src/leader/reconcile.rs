//! Runs the core's reconcilers after every change and on a tick, and makes the secrets that they miss.

use muster_core::certificates::{is_certificate, needed_certificates};
use muster_core::facts::needed_secrets;
use muster_core::reconcile;

use super::{Leader, TICK};

/// Rounds after which it pauses although there is still something to do: a reconciler that never agrees with itself
/// must not take the whole processor.
const ROUNDS_MAX: u32 = 200;

impl Leader {
    pub(super) async fn reconcile(&self) {
        let mut applied = self.parts.consensus.watch_applied();
        let mut rounds = 0;
        loop {
            applied.mark_unchanged();
            let busy = self.make_secrets().await | self.step().await;
            rounds = if busy { rounds + 1 } else { 0 };
            if rounds > ROUNDS_MAX {
                tracing::warn!("reconcilers find something to do again and again");
                tokio::time::sleep(TICK * 4).await;
                rounds = 0;
            }
            if !busy {
                // Either something changed or time passed; both mean: look again.
                drop(tokio::time::timeout(TICK, applied.changed()).await);
            }
        }
    }

    /// One round. True = something was agreed on.
    async fn step(&self) -> bool {
        let state = self.parts.replica.state();
        let commands = reconcile::run(&state, self.now());
        drop(state);
        let mut busy = false;
        for command in &commands {
            busy |= self.propose_command(command).await;
        }
        if !busy && !commands.is_empty() {
            // A refused entry is an applied one: without a pause the log would be written at the speed of the disk.
            tokio::time::sleep(TICK).await;
        }
        busy
    }

    async fn make_secrets(&self) -> bool {
        let state = self.parts.replica.state();
        let authority = &self.parts.authority;
        let certificates = needed_certificates(&state, self.now());
        let passwords = needed_secrets(&state).into_iter().filter(|name| !is_certificate(&state, name));
        let made: Vec<_> = certificates
            .iter()
            .map(|need| (need.secret.clone(), authority.make_certificate(need)))
            .chain(passwords.map(|name| (name.clone(), authority.make_password(&name))))
            .collect();
        drop(state);
        let mut busy = false;
        for (name, made) in made {
            match made {
                Ok(what) => busy |= self.propose(what).await,
                Err(error) => {
                    tracing::error!(name, error = format!("{error:#}"), "a secret could not be made");
                }
            }
        }
        busy
    }
}
