//! What operators ask and tell. Reads are linearizable on every coordinator; changes are forwarded to the leader.

mod changes;
mod coordinators;
mod images;
mod net;
mod streams;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_core::command::Caller;
use muster_core::state::State;
use muster_core::view::{self, Local};
use muster_core::{dry_run, explain, holders, secrets, view as views, what_if};
use muster_model::ids::{HostId, Name, OperationId};
use muster_model::spec::PlatformSpec;
use muster_model::time::Timestamp;
use muster_model::view::{CoordinatorView, Diagnostic, PlanView};
use muster_proto::control as pb;
use muster_proto::control::control_server::Control;
use muster_runtime::access;
use muster_runtime::rpc::SPEC_MAX;
use muster_spec::Parsed;
use serde::Serialize;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::judge::judge;
use crate::run::Parts;
use crate::sessions::json;
use crate::{group, status};

/// Longest wait for a state that reflects everything acknowledged before the call.
const READ: Duration = Duration::from_secs(5);

type Views = Pin<Box<dyn Stream<Item = Result<pb::View, Status>> + Send>>;
type Snapshot = Pin<Box<dyn Stream<Item = Result<pb::SnapshotData, Status>> + Send>>;
type Lines = Pin<Box<dyn Stream<Item = Result<pb::LogData, Status>> + Send>>;

/// Serves operators.
pub struct Controls {
    parts: Parts,
}

impl Controls {
    /// With these parts.
    #[must_use]
    pub const fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// The state with everything that was acknowledged before the call.
    async fn read(&self) -> Result<Arc<State>, Status> {
        self.parts.consensus.linearizable(READ).await.map_err(|error| status::read(&error))?;
        Ok(self.parts.replica.state())
    }

    fn now(&self, state: &State) -> Timestamp {
        state.at.max(Timestamp(self.parts.clock.now_ms()))
    }

    fn local(&self, state: &State) -> Local {
        let shown = |host| self.parts.heard.shown(state, host, &self.parts.clock);
        Local {
            now: self.now(state),
            coordinators: group::views(&self.parts.consensus),
            liveness: state.hosts.keys().filter_map(|host| Some((host.clone(), shown(host)?))).collect(),
        }
    }

    /// Judges a spec text against the present state.
    fn judge_against(
        &self,
        state: &State,
        yaml: &str,
    ) -> Result<(Arc<PlatformSpec>, PlanView), Vec<Diagnostic>> {
        let Parsed { spec, places } = judge(yaml)?;
        let spec = Arc::new(spec);
        let coordinators = group::views(&self.parts.consensus);
        let plan = dry_run::plan(state, &spec, &places, self.now(state), &coordinators);
        Ok((spec, plan))
    }
}

fn view<T: Serialize>(value: &T) -> Response<pb::View> {
    Response::new(pb::View { json: json(value) })
}

fn wrong(found: &[Diagnostic]) -> Response<pb::PlanReply> {
    Response::new(pb::PlanReply { diagnostics: json(&found), plan: Bytes::new(), index: 0 })
}

fn planned(plan: &PlanView, index: u64) -> Response<pb::PlanReply> {
    Response::new(pb::PlanReply { diagnostics: Bytes::new(), plan: json(plan), index })
}

fn name(field: &str, text: &str) -> Result<Name, Status> {
    Name::new(text).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

fn caller(caller: Option<pb::Caller>) -> Option<Caller> {
    caller.filter(|c| !c.client.is_empty()).map(|c| Caller { client: c.client, serial: c.serial })
}

fn actor<T>(request: &Request<T>) -> Result<String, Status> {
    Ok(access::identity(request)?.to_string())
}

fn limited(yaml: &str) -> Result<(), Status> {
    if yaml.len() > SPEC_MAX {
        return Err(Status::invalid_argument(format!(
            "the file has {} bytes, the limit is {SPEC_MAX}",
            yaml.len()
        )));
    }
    Ok(())
}

#[tonic::async_trait]
impl Control for Controls {
    type EventsStream = Views;
    type LogsStream = Lines;
    type AuditStream = Views;
    type SaveSnapshotStream = Snapshot;

    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::View>, Status> {
        let only = request.into_inner().service;
        let state = self.read().await?;
        let mut platform = view::platform(&state, &self.local(&state))
            .ok_or_else(|| Status::unavailable("the platform is not ready"))?;
        if !only.is_empty() {
            let only = name("service", &only)?;
            platform.services.retain(|s| s.name == only || s.owner.as_ref() == Some(&only));
            if platform.services.is_empty() {
                return Err(Status::not_found(format!("there is no service `{only}`")));
            }
        }
        Ok(view(&platform))
    }

    async fn plan(&self, request: Request<pb::SpecRequest>) -> Result<Response<pb::PlanReply>, Status> {
        let request = request.into_inner();
        limited(&request.yaml)?;
        let state = self.read().await?;
        match self.judge_against(&state, &request.yaml) {
            Ok((_, plan)) => Ok(planned(&plan, 0)),
            Err(found) => Ok(wrong(&found)),
        }
    }

    async fn apply(&self, request: Request<pb::SpecRequest>) -> Result<Response<pb::PlanReply>, Status> {
        let actor = actor(&request)?;
        let request = request.into_inner();
        limited(&request.yaml)?;
        let state = self.read().await?;
        let (spec, plan) = match self.judge_against(&state, &request.yaml) {
            Ok(judged) => judged,
            Err(found) => return Ok(wrong(&found)),
        };
        if !plan.refusals.is_empty() {
            return Ok(planned(&plan, 0));
        }
        let index = self.apply_spec(actor, request, spec).await?;
        Ok(planned(&plan, index))
    }

    async fn events(&self, request: Request<pb::EventsRequest>) -> Result<Response<Views>, Status> {
        self.read().await?;
        Ok(Response::new(self.follow_events(request.into_inner())))
    }

    async fn audit(&self, request: Request<pb::EventsRequest>) -> Result<Response<Views>, Status> {
        let state = self.read().await?;
        Ok(Response::new(streams::audit(&state, &request.into_inner())))
    }

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Lines>, Status> {
        self.member_logs(request.into_inner()).await
    }

    async fn exec(&self, request: Request<pb::ExecRequest>) -> Result<Response<pb::ExecReply>, Status> {
        let actor = actor(&request)?;
        self.run_inside(actor, request.into_inner()).await
    }

    async fn set_scheduling(
        &self,
        request: Request<pb::SetSchedulingRequest>,
    ) -> Result<Response<pb::Changed>, Status> {
        let (actor, role) = (actor(&request)?, access::identity(&request)?.role);
        self.schedule(actor, role, request.into_inner()).await
    }

    async fn remove_host(
        &self,
        request: Request<pb::RemoveHostRequest>,
    ) -> Result<Response<pb::Changed>, Status> {
        let actor = actor(&request)?;
        self.forget_host(actor, request.into_inner()).await
    }

    async fn start_operation(
        &self,
        request: Request<pb::StartOperationRequest>,
    ) -> Result<Response<pb::Started>, Status> {
        let (actor, role) = (actor(&request)?, access::identity(&request)?.role);
        self.start(actor, role, request.into_inner()).await
    }

    async fn steer_operation(
        &self,
        request: Request<pb::SteerOperationRequest>,
    ) -> Result<Response<pb::Changed>, Status> {
        let actor = actor(&request)?;
        self.steer(actor, request.into_inner()).await
    }

    async fn operation(&self, request: Request<pb::OperationRequest>) -> Result<Response<pb::View>, Status> {
        let id = OperationId(request.into_inner().operation);
        let state = self.read().await?;
        let row = state.operations.get(&id);
        let row = row.ok_or_else(|| Status::not_found(format!("there is no operation {id}")))?;
        Ok(view(&views::operation(id, row)))
    }

    async fn operations(
        &self,
        request: Request<pb::OperationsRequest>,
    ) -> Result<Response<pb::View>, Status> {
        let state = self.read().await?;
        Ok(view(&views::operations(&state, request.into_inner().ended_too)))
    }

    async fn remove_service(
        &self,
        request: Request<pb::RemoveServiceRequest>,
    ) -> Result<Response<pb::Changed>, Status> {
        let actor = actor(&request)?;
        self.remove(actor, request.into_inner()).await
    }

    async fn conn(&self, request: Request<pb::ConnRequest>) -> Result<Response<pb::View>, Status> {
        let state = self.read().await?;
        self.connections(&state, &request.into_inner())
    }

    async fn secrets(&self, request: Request<pb::SecretsRequest>) -> Result<Response<pb::View>, Status> {
        let only = request.into_inner().service;
        let only = if only.is_empty() { None } else { Some(name("service", &only)?) };
        let state = self.read().await?;
        if let Some(only) = only.as_ref().filter(|only| !state.services.contains_key(*only)) {
            return Err(Status::not_found(format!("there is no service `{only}`")));
        }
        Ok(view(&secrets::list(&state, only.as_ref())))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::View>, Status> {
        let about = name("about", &request.into_inner().about)?;
        let state = self.read().await?;
        let now = self.now(&state);
        let host = || explain::host(&state, state.host_named(&about)?.0, now);
        let found = explain::service(&state, &about, now).or_else(host);
        let found =
            found.ok_or_else(|| Status::not_found(format!("there is no service or host `{about}`")))?;
        Ok(view(&found))
    }

    async fn what_if(&self, request: Request<pb::WhatIfRequest>) -> Result<Response<pb::View>, Status> {
        let request = request.into_inner();
        let state = self.read().await?;
        let coordinators = group::views(&self.parts.consensus);
        if !request.coordinators.is_empty() {
            let lost = lost_coordinators(&request.coordinators, &coordinators)?;
            return Ok(view(&what_if::coordinators_down(&lost, &coordinators)));
        }
        let hosts = lost_hosts(&state, &request)?;
        Ok(view(&what_if::hosts_down(&state, &hosts, self.now(&state), &coordinators)))
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::Token>, Status> {
        let actor = actor(&request)?;
        self.token(actor, request.into_inner()).await
    }

    async fn operators(&self, _: Request<pb::OperatorsRequest>) -> Result<Response<pb::View>, Status> {
        Ok(view(&holders::operators(&*self.read().await?)))
    }

    async fn revoke(&self, request: Request<pb::RevokeRequest>) -> Result<Response<pb::Revoked>, Status> {
        let (actor, caller) = (actor(&request)?, access::identity(&request)?.clone());
        self.take_back(actor, &caller, request.into_inner()).await
    }

    async fn coordinators(&self, _: Request<pb::CoordinatorsRequest>) -> Result<Response<pb::View>, Status> {
        self.list_coordinators().await
    }

    async fn remove_coordinator(
        &self,
        request: Request<pb::RemoveCoordinatorRequest>,
    ) -> Result<Response<pb::Changed>, Status> {
        let actor = actor(&request)?;
        self.take_out(actor, request.into_inner()).await
    }

    async fn save_snapshot(
        &self,
        request: Request<pb::SaveSnapshotRequest>,
    ) -> Result<Response<Snapshot>, Status> {
        let actor = actor(&request)?;
        self.snapshot(actor).await
    }

    async fn settle_host(
        &self,
        request: Request<pb::SettleHostRequest>,
    ) -> Result<Response<pb::Changed>, Status> {
        let actor = actor(&request)?;
        self.settle(actor, request.into_inner()).await
    }

    async fn begin_image(
        &self,
        request: Request<pb::BeginImageRequest>,
    ) -> Result<Response<pb::ImageUpload>, Status> {
        let actor = actor(&request)?;
        self.begin_push(actor, request.into_inner()).await
    }

    async fn send_image(
        &self,
        request: Request<pb::SendImageRequest>,
    ) -> Result<Response<pb::ImageUpload>, Status> {
        self.take_part(request.into_inner()).await
    }

    async fn image_push(&self, request: Request<pb::ImagePushRequest>) -> Result<Response<pb::View>, Status> {
        self.push_state(&request.into_inner().sha256)
    }

    async fn images(&self, _: Request<pb::ImagesRequest>) -> Result<Response<pb::View>, Status> {
        self.images_on_hosts().await
    }

    async fn net(&self, _: Request<pb::NetRequest>) -> Result<Response<pb::View>, Status> {
        self.net_of_hosts().await
    }

    async fn issue_operator(
        &self,
        request: Request<pb::IssueOperatorRequest>,
    ) -> Result<Response<pb::Issued>, Status> {
        let actor = actor(&request)?;
        self.issue(actor, request.into_inner()).await
    }
}

/// The hosts that a question is about, each once.
fn lost_hosts(state: &State, request: &pb::WhatIfRequest) -> Result<Vec<HostId>, Status> {
    if !request.zone.is_empty() {
        let inside = state.hosts.iter().filter(|(_, host)| host.zone == request.zone);
        let hosts: Vec<HostId> = inside.map(|(id, _)| id.clone()).collect();
        let none = || Status::not_found(format!("no host is in the zone `{}`", request.zone));
        return if hosts.is_empty() { Err(none()) } else { Ok(hosts) };
    }
    let one = Some(&request.host).filter(|host| !host.is_empty());
    let mut found = Vec::new();
    for host in one.into_iter().chain(&request.hosts) {
        let host = name("host", host)?;
        let (id, _) =
            state.host_named(&host).ok_or_else(|| Status::not_found(format!("there is no host `{host}`")))?;
        if !found.contains(id) {
            found.push(id.clone());
        }
    }
    if found.is_empty() { Err(Status::invalid_argument("hosts: name at least one")) } else { Ok(found) }
}

fn lost_coordinators(names: &[String], all: &[CoordinatorView]) -> Result<Vec<u64>, Status> {
    let find = |name: &String| {
        let is_it = |one: &&CoordinatorView| one.endpoint == *name || one.id.to_string() == *name;
        let known: Vec<&str> = all.iter().map(|one| one.endpoint.as_str()).collect();
        all.iter().find(is_it).map(|one| one.id).ok_or_else(|| {
            Status::not_found(format!("there is no coordinator `{name}`; there are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}
