//! Images that operators push: taken in by the leader, part by part, and handed on to the agents that ask.

use std::convert::Infallible;
use std::time::Duration;

use muster_core::command::What;
use muster_core::state::State;
use muster_model::ids::{HostId, Name};
use muster_model::image::{HostImagesView, IMAGE_MAX, IMAGE_NAMES_MAX, IMAGE_PART, is_digest, is_image_name};
use muster_proto::control as pb;
use muster_runtime::tasks::OnError;
use tonic::{Response, Status};

use super::{Controls, name, view};
use crate::pushes::Order;
use crate::{group, status};

/// Longest time for one push.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Part of the names that the audit log keeps, in characters.
const AUDITED_LEN_MAX: usize = 200;

impl Controls {
    pub(super) fn must_lead(&self) -> Result<(), Status> {
        if self.parts.consensus.watch_leadership().borrow().am_leader {
            return Ok(());
        }
        Err(status::not_leader(group::leader_endpoint(&self.parts.consensus).as_deref()))
    }

    pub(super) async fn begin_push(
        &self,
        actor: String,
        request: pb::BeginImageRequest,
    ) -> Result<Response<pb::ImageUpload>, Status> {
        self.must_lead()?;
        let state = self.read().await?;
        let order = judged(&state, request)?;
        let (sha256, size) = (order.sha256.clone(), order.size);
        let have = self.have(&sha256, size).await?;
        let names: String = order.names.join(", ").chars().take(AUDITED_LEN_MAX).collect();
        let hosts = order.hosts.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ");
        let action = format!("push image {names} ({size} bytes, sha256 {sha256}) to {hosts}");
        self.propose(actor, None, What::Audit { action }).await?;
        let now = self.parts.clock.monotonic();
        self.parts.pushes.begin(order, now).map_err(Status::resource_exhausted)?;
        if have == size {
            self.check(sha256);
        }
        Ok(Response::new(pb::ImageUpload { have }))
    }

    /// Bytes that are here, if there is room for the rest.
    async fn have(&self, sha256: &str, size: u64) -> Result<u64, Status> {
        let (spool, sha256) = (self.parts.spool.clone(), sha256.to_owned());
        let looked = tokio::task::spawn_blocking(move || {
            let mut have = spool.have(&sha256);
            if have > size {
                spool.remove(&sha256);
                have = 0;
            }
            let room = spool.room(size - have).map(|()| have);
            room.map_err(|why| format!("on the leading coordinator {why}"))
        });
        let looked = looked.await.map_err(|error| Status::internal(error.to_string()))?;
        looked.map_err(Status::failed_precondition)
    }

    pub(super) async fn take_part(
        &self,
        request: pb::SendImageRequest,
    ) -> Result<Response<pb::ImageUpload>, Status> {
        self.must_lead()?;
        let pb::SendImageRequest { sha256, offset, data } = request;
        let size = self.parts.pushes.expected(&sha256, self.parts.clock.monotonic());
        let size = size.ok_or_else(|| Status::aborted("this image is not being pushed: begin again"))?;
        let left = size.saturating_sub(offset);
        if data.len() > IMAGE_PART || data.len() as u64 > left {
            return Err(Status::invalid_argument(format!(
                "data: at most {IMAGE_PART} bytes, and none beyond the {size} of the archive"
            )));
        }
        let (spool, digest) = (self.parts.spool.clone(), sha256.clone());
        let added = tokio::task::spawn_blocking(move || spool.add(&digest, offset, &data)).await;
        let have = added.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| {
            Status::resource_exhausted(format!("the coordinator cannot keep the archive: {error}"))
        })?;
        if have == size {
            self.check(sha256);
        }
        Ok(Response::new(pb::ImageUpload { have }))
    }

    /// Reads the whole archive once more, which takes a while for a large one.
    fn check(&self, sha256: String) {
        let (spool, pushes) = (self.parts.spool.clone(), self.parts.pushes.clone());
        self.parts.tasks.spawn("image check", OnError::Log, async move {
            let checked = tokio::task::spawn_blocking(move || {
                let whole = spool.is_whole(&sha256);
                let right = whole.as_ref().is_ok_and(|whole| *whole);
                if !right {
                    tracing::warn!(sha256, ?whole, "an image did not arrive whole");
                    spool.remove(&sha256);
                }
                pushes.arrived(&sha256, right);
            });
            checked.await.ok();
            Ok::<(), Infallible>(())
        });
    }

    pub(super) fn push_state(&self, sha256: &str) -> Result<Response<pb::View>, Status> {
        self.must_lead()?;
        let none = || Status::aborted("this image is not being pushed: begin again");
        if !is_digest(sha256) {
            return Err(none());
        }
        let received = self.parts.spool.have(sha256);
        let push = self.parts.pushes.view(sha256, received, self.parts.clock.monotonic());
        push.map(|push| view(&push)).ok_or_else(none)
    }

    pub(super) async fn images_on_hosts(&self) -> Result<Response<pb::View>, Status> {
        self.must_lead()?;
        let state = self.read().await?;
        let sessions = self.parts.sessions.views();
        let of_host = |(id, host): (&HostId, &muster_core::state::Host)| HostImagesView {
            host: host.name.clone(),
            images: sessions.get(id).and_then(|session| session.report.as_ref()?.images.clone()),
        };
        let mut all: Vec<HostImagesView> = state.hosts.iter().map(of_host).collect();
        all.sort_by(|a, b| a.host.cmp(&b.host));
        Ok(view(&all))
    }
}

/// An order that is within all limits.
fn judged(state: &State, request: pb::BeginImageRequest) -> Result<Order, Status> {
    let wrong = |why: String| Err(Status::invalid_argument(why));
    if !is_digest(&request.sha256) {
        return wrong("sha256: 64 lower-case hexadecimal digits".to_owned());
    }
    if request.size == 0 || request.size > IMAGE_MAX {
        return wrong(format!(
            "the archive has {} bytes; an archive has at most {} GiB: push its images one by one, or make them smaller",
            request.size,
            IMAGE_MAX >> 30
        ));
    }
    let most = 1..=IMAGE_NAMES_MAX;
    if !most.contains(&request.names.len()) || request.ids.len() > 2 * IMAGE_NAMES_MAX {
        return wrong(format!("names: 1 to {IMAGE_NAMES_MAX} images in one archive"));
    }
    if let Some(bad) = request.names.iter().chain(&request.ids).find(|text| !is_image_name(text)) {
        return wrong(format!("`{bad}` is no name of an image"));
    }
    let deadline =
        Duration::from_secs(u64::from(request.deadline_s)).clamp(Duration::from_secs(1), DEADLINE_MAX);
    Ok(Order {
        hosts: hosts(state, &request.hosts)?,
        sha256: request.sha256,
        size: request.size,
        names: request.names,
        ids: request.ids,
        deadline,
    })
}

/// Those that are named, each once; all if none is.
fn hosts(state: &State, names: &[String]) -> Result<Vec<(HostId, Name)>, Status> {
    if names.is_empty() {
        return Ok(state.hosts.iter().map(|(id, host)| (id.clone(), host.name.clone())).collect());
    }
    let mut found: Vec<(HostId, Name)> = Vec::new();
    for text in names {
        let wanted = name("host", text)?;
        let missing = || Status::not_found(format!("there is no host `{wanted}`"));
        let (id, _) = state.host_named(&wanted).ok_or_else(missing)?;
        if !found.iter().any(|(known, _)| known == id) {
            found.push((id.clone(), wanted.clone()));
        }
    }
    Ok(found)
}
