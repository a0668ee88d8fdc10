//! Tells agents of images that operators push.

use muster_model::ids::HostId;
use muster_proto::agents::to_agent;

use super::{Leader, TICK};

impl Leader {
    pub(super) async fn offer_images(&self) {
        loop {
            let connected: Vec<HostId> = self.parts.sessions.views().into_keys().collect();
            for (host, offer) in self.parts.pushes.due(&connected, self.parts.clock.monotonic()) {
                // If the session has ended just now it is said again later.
                let _ = self.parts.sessions.send(&host, to_agent::Message::Image(offer));
            }
            tokio::time::sleep(TICK).await;
        }
    }
}
