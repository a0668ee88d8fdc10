//! Sends each connected agent its newest host plan, with the secrets that it names and no others.

use std::collections::HashMap;

use bytes::Bytes;
use muster_core::plan::{published, secret_names};
use muster_core::state::State;
use muster_model::ids::HostId;
use muster_model::plan::{HostPlan, previous_secret};
use muster_proto::agents::{PlanUpdate, to_agent};

use super::{Leader, TICK};
use crate::sessions::json;

impl Leader {
    pub(super) async fn tend_agents(&self) {
        let mut applied = self.parts.consensus.watch_applied();
        let mut sessions = self.parts.sessions.watch();
        loop {
            applied.mark_unchanged();
            sessions.mark_unchanged();
            self.send_plans();
            tokio::select! {
                _ = applied.changed() => {}
                _ = sessions.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn send_plans(&self) {
        let state = self.parts.replica.state();
        for (host, session) in self.parts.sessions.views() {
            // A host that the state does not know as up is in another boot, or was just heard of: it waits.
            let same_boot = state
                .hosts
                .get(&host)
                .is_some_and(|row| row.is_up() && row.boot.as_ref() == Some(&session.boot));
            if !same_boot {
                continue;
            }
            let Some(plan) = published(&state, &host).filter(|plan| plan.generation != session.sent) else {
                continue;
            };
            if let Some(update) = self.update(&state, &host, &plan)
                && self.parts.sessions.send(&host, to_agent::Message::Plan(update))
            {
                self.parts.sessions.sent(&host, plan.generation);
            }
        }
    }

    /// Absent = a secret cannot be opened: the plan is not sent, and the log says why.
    fn update(&self, state: &State, host: &HostId, plan: &HostPlan) -> Option<PlanUpdate> {
        let mut secrets = HashMap::new();
        let names = secret_names(plan);
        let before =
            names.iter().map(|name| previous_secret(name)).filter(|name| state.secrets.contains_key(name));
        let before: Vec<String> = before.collect();
        for name in names.into_iter().chain(before) {
            match self.parts.authority.open(state, &name) {
                Ok(secret) => secrets.insert(name, Bytes::copy_from_slice(secret.expose())),
                Err(error) => {
                    tracing::error!(%host, name, error = format!("{error:#}"), "a plan cannot be sent");
                    return None;
                }
            };
        }
        Some(PlanUpdate { plan: json(plan), secrets })
    }
}
