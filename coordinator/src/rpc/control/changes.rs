//! Operators' changes: each becomes one command, with the caller's name and the number of the call.

use std::sync::Arc;
use std::time::Duration;

use muster_core::command::{Caller, Command, Reply, Verb, What};
use muster_core::drill::{DrillSpec, refusal as drill_refusal};
use muster_core::facts::kind_of as kind_of_service;
use muster_core::holders;
use muster_core::kinds::CA;
use muster_core::leave;
use muster_core::reconcile::{maintenance_refusal, replace_refusal};
use muster_core::secrets::rotation_of;
use muster_core::state::{OperationKind, State, TokenRole};
use muster_core::view::endpoints;
use muster_model::ids::{HostId, LogIndex, Name, OperationId};
use muster_model::spec::PlatformSpec;
use muster_model::time::Timestamp;
use muster_model::view::{ConnView, Scheduling};
use muster_proto::control as pb;
use muster_runtime::ca::Issued;
use muster_runtime::identity::{Identity, Role};
use muster_runtime::token::{JoinToken, TokenKind};
use tonic::{Code, Response, Status};

use super::{Controls, caller, name, view};
use crate::authority::record;
use crate::{group, status};

/// Life of a join token unless told otherwise.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
/// Longest reason of a revocation, in characters.
const WHY_MAX: usize = 200;
/// Longest life of a join token.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

impl Controls {
    pub(super) async fn propose(
        &self,
        actor: String,
        from: Option<pb::Caller>,
        what: What,
    ) -> Result<Reply, Status> {
        let command = Command::from_actor(actor, caller(from), what);
        self.parts.proposer.propose(&command).await.map_err(|error| status::change(&error))
    }

    pub(super) async fn apply_spec(
        &self,
        actor: String,
        request: pb::SpecRequest,
        spec: Arc<PlatformSpec>,
    ) -> Result<u64, Status> {
        let at = (request.at > 0).then_some(LogIndex(request.at));
        let what = What::ApplySpec { spec, yaml: Arc::from(request.yaml), at };
        Ok(self.propose(actor, request.caller, what).await?.index.0)
    }

    pub(super) async fn schedule(
        &self,
        actor: String,
        role: Role,
        request: pb::SetSchedulingRequest,
    ) -> Result<Response<pb::Changed>, Status> {
        let scheduling = match request.scheduling.as_str() {
            "open" => Scheduling::Open,
            "cordoned" => Scheduling::Cordoned,
            "draining" => Scheduling::Draining,
            "maintenance" => Scheduling::Maintenance,
            other => {
                return Err(Status::invalid_argument(format!(
                    "scheduling: `{other}` is not `open`, `cordoned`, `draining` or `maintenance`"
                )));
            }
        };
        let outage = request.accept_outage;
        if outage && role != Role::Admin {
            return Err(Status::permission_denied("only admins accept an outage: leave accept_outage out"));
        }
        let host = name("host", &request.host)?;
        if scheduling == Scheduling::Maintenance {
            let state = self.read().await?;
            let coordinators = group::views(&self.parts.consensus);
            let refusal = state
                .host_named(&host)
                .and_then(|(id, _)| maintenance_refusal(&state, id, outage, &coordinators, self.now(&state)));
            if let Some(why) = refusal {
                return Err(Status::failed_precondition(why));
            }
        }
        let index = self.change_host(actor, request.caller, &host, |host| What::SetScheduling {
            host,
            scheduling,
            outage,
        });
        Ok(Response::new(pb::Changed { index: index.await? }))
    }

    /// Proposes a change of a host that needs no other judgement than that the host is there. If this coordinator knows it,
    /// the log judges at once; only a no is made sure of, by a state that reflects everything acknowledged before the call.
    async fn change_host(
        &self,
        actor: String,
        from: Option<pb::Caller>,
        host: &Name,
        what: impl Fn(HostId) -> What,
    ) -> Result<u64, Status> {
        let id = |state: &State| state.host_named(host).map(|(id, _)| id.clone());
        let known = id(&self.parts.replica.state());
        if let Some(known) = &known {
            let tried = self.propose(actor.clone(), from.clone(), what(known.clone())).await;
            if !matches!(&tried, Err(status) if status.code() == Code::NotFound) {
                return tried.map(|reply| reply.index.0);
            }
        }
        let sure = id(&*self.read().await?);
        match sure.filter(|sure| Some(sure) != known.as_ref()) {
            Some(sure) => Ok(self.propose(actor, from, what(sure)).await?.index.0),
            None => Err(Status::not_found(format!("there is no host `{host}`"))),
        }
    }

    pub(super) async fn forget_host(
        &self,
        actor: String,
        request: pb::RemoveHostRequest,
    ) -> Result<Response<pb::Changed>, Status> {
        let state = self.read().await?;
        let host = name("host", &request.host)?;
        let (id, _) =
            state.host_named(&host).ok_or_else(|| Status::not_found(format!("there is no host `{host}`")))?;
        if let Some(why) = leave::refusal(&state, id) {
            return Err(Status::failed_precondition(why));
        }
        let what = What::RemoveHost { host: id.clone() };
        let reply = self.propose(actor, request.caller, what).await?;
        Ok(Response::new(pb::Changed { index: reply.index.0 }))
    }

    pub(super) async fn settle(
        &self,
        actor: String,
        request: pb::SettleHostRequest,
    ) -> Result<Response<pb::Changed>, Status> {
        let host = name("host", &request.host)?;
        let index =
            self.change_host(actor, request.caller, &host, |host| What::HostInventory { host, found: None });
        Ok(Response::new(pb::Changed { index: index.await? }))
    }

    pub(super) async fn start(
        &self,
        actor: String,
        role: Role,
        request: pb::StartOperationRequest,
    ) -> Result<Response<pb::Started>, Status> {
        let state = self.read().await?;
        let service = name("service", &request.service)?;
        if !state.services.contains_key(&service) {
            return Err(Status::not_found(format!("there is no service `{service}`")));
        }
        if request.kind == "update" && !request.argument.is_empty() {
            return self.change_image(actor, request, &state, &service).await;
        }
        if request.kind == "scale" {
            return self.scale(actor, request, &state, &service).await;
        }
        let kind = if request.kind == "rotate" {
            rotation_of(&state, &service, &request.argument)
                .map_err(|why| Status::failed_precondition(format!("nothing is changed: {why}")))?
        } else {
            kind_of(&request, &service)?
        };
        if let OperationKind::Drill(drill) = &kind
            && let Some(why) = drill_refusal(&state, drill, self.now(&state))
        {
            return Err(Status::failed_precondition(format!("the drill is refused: {why}")));
        }
        if let OperationKind::Replace { slot, confirm_lost } = kind
            && let Some(why) = replace_refusal(&state, &service, slot, confirm_lost, self.now(&state))
        {
            return Err(Status::failed_precondition(format!("{service}/{slot} is not replaced: {why}")));
        }
        if let OperationKind::Drill(drill) = &kind
            && drill.takes_a_host()
            && role != Role::Admin
        {
            return Err(Status::permission_denied("only an admin may take a whole host away"));
        }
        let what = What::StartOperation { service, kind, seen: None };
        let reply = self.propose(actor, request.caller, what).await?;
        Ok(started(&reply))
    }

    /// `update --image` is an apply of the present spec with one field changed; the update follows from it.
    async fn change_image(
        &self,
        actor: String,
        request: pb::StartOperationRequest,
        state: &State,
        service: &Name,
    ) -> Result<Response<pb::Started>, Status> {
        let image = request.argument.clone().into();
        self.change_setting(actor, request.caller, state, service, ("image", image)).await?;
        self.wait_for_update(service).await
    }

    /// `scale` is the same with the field that holds the number of members.
    async fn scale(
        &self,
        actor: String,
        request: pb::StartOperationRequest,
        state: &State,
        service: &Name,
    ) -> Result<Response<pb::Started>, Status> {
        let count: u32 = request.argument.parse().map_err(|_| {
            Status::invalid_argument(format!("argument: `{}` is not a number of members", request.argument))
        })?;
        let row = state.services.get(service);
        let (spec, kind) = row
            .and_then(|row| Some((&row.spec, kind_of_service(row)?)))
            .ok_or_else(|| Status::failed_precondition("this version does not know its kind"))?;
        let (key, value) = kind
            .scaled(spec, count)
            .map_err(|why| Status::failed_precondition(format!("{service} is not scaled: {}", why.0)))?;
        let advice = format!("write `{key}: {value}` under `services.{service}`");
        self.change_setting(actor, request.caller, state, service, (key, value)).await?;
        Ok(Response::new(pb::Started { operation: 0, advice }))
    }

    /// Applies the present spec with one setting of a service changed. The last file stays what it was.
    async fn change_setting(
        &self,
        actor: String,
        caller: Option<pb::Caller>,
        state: &State,
        service: &Name,
        (key, value): (&str, serde_json::Value),
    ) -> Result<(), Status> {
        let platform =
            state.platform.as_ref().ok_or_else(|| Status::unavailable("the platform is not ready"))?;
        let mut spec = PlatformSpec::clone(&platform.spec);
        let row = spec.services.get_mut(service).ok_or_else(|| {
            Status::failed_precondition(format!(
                "`{service}` is not written in the spec: change the service that it belongs to"
            ))
        })?;
        row.settings.insert(key.to_owned(), value);
        // JSON is YAML: it is judged like a file.
        let yaml =
            serde_json::to_string_pretty(&spec).map_err(|error| Status::internal(error.to_string()))?;
        let (spec, plan) = self.judge_against(state, &yaml).map_err(|found| {
            let lines: Vec<String> =
                found.iter().map(|d| format!("{}: {}; {}", d.path, d.message, d.help)).collect();
            Status::invalid_argument(lines.join("\n"))
        })?;
        if let Some(refusal) = plan.refusals.first() {
            return Err(Status::failed_precondition(format!("{}; {}", refusal.message, refusal.help)));
        }
        let apply = pb::SpecRequest { caller, yaml: String::new(), at: state.index.0 };
        self.apply_spec(actor, apply, spec).await.map(drop)
    }

    /// The reconcilers start the update; the caller wants its number.
    async fn wait_for_update(&self, service: &Name) -> Result<Response<pb::Started>, Status> {
        for _ in 0..30 {
            let state = self.read().await?;
            if let Some((id, _)) = state.holder(service).filter(|(_, holder)| !holder.is_housekeeping()) {
                return Ok(Response::new(pb::Started { operation: id.0, advice: String::new() }));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The image was the same already: nothing to do.
        Ok(Response::new(pb::Started { operation: 0, advice: String::new() }))
    }

    pub(super) async fn steer(
        &self,
        actor: String,
        request: pb::SteerOperationRequest,
    ) -> Result<Response<pb::Changed>, Status> {
        let verb = match request.verb.as_str() {
            "continue" => Verb::Continue,
            "cancel" => Verb::Cancel,
            "fault-done" => Verb::FaultDone,
            other => {
                return Err(Status::invalid_argument(format!(
                    "verb: `{other}` is not `continue`, `cancel` or `fault-done`"
                )));
            }
        };
        let what = What::SteerOperation { operation: OperationId(request.operation), verb };
        let reply = self.propose(actor, request.caller, what).await?;
        Ok(Response::new(pb::Changed { index: reply.index.0 }))
    }

    pub(super) async fn remove(
        &self,
        actor: String,
        request: pb::RemoveServiceRequest,
    ) -> Result<Response<pb::Changed>, Status> {
        let service = name("service", &request.service)?;
        let what = What::RemoveService { service, destroy: request.destroy_data };
        let reply = self.propose(actor, request.caller, what).await?;
        Ok(Response::new(pb::Changed { index: reply.index.0 }))
    }

    pub(super) fn connections(
        &self,
        state: &State,
        request: &pb::ConnRequest,
    ) -> Result<Response<pb::View>, Status> {
        let service = name("service", &request.service)?;
        if !state.services.contains_key(&service) {
            return Err(Status::not_found(format!("there is no service `{service}`")));
        }
        let user = (!request.user.is_empty()).then_some(request.user.as_str());
        let ca = if request.ca.is_empty() { "muster-ca.pem" } else { request.ca.as_str() };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-%".contains(c);
        if ca.len() > 4096 || !ca.chars().all(plain) {
            return Err(Status::invalid_argument("ca: not a path as it stands in a URL"));
        }
        let mut found = Vec::new();
        for endpoint in endpoints(state, &service, user) {
            let url = endpoint.url.replace(CA, ca);
            let url = self.with_passwords(state, &url)?;
            found.push(ConnView { role: endpoint.role, url });
        }
        if found.is_empty() {
            return Err(Status::not_found(format!(
                "`{service}` offers no connections, or none to this user"
            )));
        }
        Ok(view(&found))
    }

    /// Puts passwords where a connection string names them.
    fn with_passwords(&self, state: &State, text: &str) -> Result<String, Status> {
        let mut parts = text.split("${secret:");
        let mut url = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) =
                part.split_once('}').ok_or_else(|| Status::internal("a connection string is malformed"))?;
            let secret = self
                .parts
                .authority
                .open(state, name)
                .map_err(|error| Status::internal(format!("{error:#}")))?;
            url.push_str(&String::from_utf8_lossy(secret.expose()));
            url.push_str(rest);
        }
        Ok(url)
    }

    pub(super) async fn token(
        &self,
        actor: String,
        request: pb::CreateTokenRequest,
    ) -> Result<Response<pb::Token>, Status> {
        let (kind, role) = match request.role.as_str() {
            "host" => (TokenKind::Host, TokenRole::Host),
            "coordinator" => (TokenKind::Coordinator, TokenRole::Coordinator),
            other => {
                return Err(Status::invalid_argument(format!(
                    "role: `{other}` is not `host` or `coordinator`"
                )));
            }
        };
        let life = Duration::from_secs(u64::from(request.life_seconds));
        let life = if life.is_zero() { TOKEN_LIFE } else { life };
        if life > TOKEN_LIFE_MAX {
            return Err(Status::invalid_argument("life: a join token lives at most 24 hours"));
        }
        let authority = &self.parts.authority;
        let ca = authority.ca_digest().map_err(|error| status::internal(&error))?;
        let token = match caller(request.caller.clone()) {
            // A repeated call must name the token that the first one made.
            Some(from) => {
                let secret = authority.derived(&["token", &actor, &from.client, &from.serial.to_string()]);
                JoinToken::with_secret(kind, ca, secret)
            }
            None => JoinToken::generate(kind, ca).map_err(|error| Status::internal(error.to_string()))?,
        };
        let (hash, expires) = (token.hash().to_string(), authority.after(life));
        self.propose(actor, request.caller, What::CreateToken { hash: hash.clone(), role, expires }).await?;
        let state = self.read().await?;
        let row = state.tokens.get(&hash).ok_or_else(|| {
            Status::failed_precondition("the token of this repeated call has expired: make a new one")
        })?;
        Ok(Response::new(pb::Token {
            token: token.reveal().expose().clone(),
            expires_at_ms: row.expires.0,
            coordinators: group::endpoints(&self.parts.consensus),
        }))
    }

    /// Revokes every key of a host's agent or of an operator. To say it again changes nothing.
    pub(super) async fn take_back(
        &self,
        actor: String,
        caller: &Identity,
        request: pb::RevokeRequest,
    ) -> Result<Response<pb::Revoked>, Status> {
        if request.why.chars().count() > WHY_MAX {
            return Err(Status::invalid_argument(format!("why: at most {WHY_MAX} characters")));
        }
        let state = self.read().await?;
        let keys = match (request.host.as_str(), request.operator.as_str()) {
            (host, "") if !host.is_empty() => {
                let host = name("host", host)?;
                let known = state.host_named(&host).and_then(|(id, _)| holders::of_host(&state, id));
                known.ok_or_else(|| Status::not_found(format!("there is no host `{host}`")))?
            }
            ("", operator) if !operator.is_empty() => {
                let operator = name("operator", operator)?;
                if operator == caller.id {
                    return Err(Status::failed_precondition(
                        "nobody revokes himself: ask another admin, or root on a coordinator: `muster-coordinator admin \
                         revoke`",
                    ));
                }
                let known = holders::of_operator(&state, &operator);
                known.ok_or_else(|| Status::not_found(format!("there is no operator `{operator}`")))?
            }
            _ => return Err(Status::invalid_argument("say one of `host` and `operator`")),
        };
        let why = if request.why.is_empty() { "no reason was given".to_owned() } else { request.why };
        for serial in &keys {
            let what = What::RevokeCertificate { serial: serial.clone(), why: why.clone() };
            self.propose(actor.clone(), None, what).await?;
        }
        Ok(Response::new(pb::Revoked { serials: keys }))
    }

    /// A repeated call gets the certificate that the first one made, and none is recorded for it.
    async fn issue_once(
        &self,
        csr: &str,
        identity: &Identity,
        actor: &str,
        from: Caller,
        state: &State,
    ) -> Result<Issued, Status> {
        let sign = |expires: Option<Timestamp>| {
            let signed = self.parts.authority.sign_for_call(csr, identity, actor, &from, expires);
            signed.map_err(|error| status::internal(&error))
        };
        let fresh = sign(None)?.certificate;
        if !state.certificates.contains_key(&fresh.serial) {
            let call = pb::Caller { client: from.client.clone(), serial: from.serial };
            self.propose(actor.to_owned(), Some(call), record(&fresh)).await?;
        }
        let state = self.read().await?;
        let row = state.certificates.get(&fresh.serial);
        let row = row.ok_or_else(|| Status::failed_precondition("this call was something else before"))?;
        if row.key_digest != fresh.key.to_string() || row.subject != identity.uri() {
            return Err(Status::failed_precondition(
                "this call was made before, for another key or somebody else: make a new one",
            ));
        }
        sign(Some(row.expires))
    }

    pub(super) async fn issue(
        &self,
        actor: String,
        request: pb::IssueOperatorRequest,
    ) -> Result<Response<pb::Issued>, Status> {
        let who = name("name", &request.name)?;
        let role: Role =
            request.role.parse().map_err(|error| Status::invalid_argument(format!("role: {error}")))?;
        if !matches!(role, Role::Admin | Role::Operator | Role::Viewer) {
            return Err(Status::invalid_argument(
                "role: only admin, operator and viewer are operators' roles",
            ));
        }
        let state = self.read().await?;
        let platform =
            state.platform.as_ref().ok_or_else(|| Status::unavailable("the platform is not ready"))?;
        let identity = Identity { platform: platform.name.clone(), role, id: who.clone(), name: who };
        let issued = match caller(request.caller) {
            Some(from) => self.issue_once(&request.csr_pem, &identity, &actor, from, &state).await?,
            None => {
                let issued = self.parts.authority.issue(&request.csr_pem, &identity, &actor).await;
                issued.map_err(|error| status::internal(&error))?
            }
        };
        Ok(Response::new(pb::Issued {
            certificate_pem: issued.pem,
            ca_pem: self.parts.authority.ca_pem().to_owned(),
        }))
    }
}

fn started(reply: &Reply) -> Response<pb::Started> {
    Response::new(pb::Started { operation: reply.operation.unwrap_or_default().0, advice: String::new() })
}

fn kind_of(request: &pb::StartOperationRequest, service: &Name) -> Result<OperationKind, Status> {
    let slot = match request.slot.as_str() {
        "" => None,
        text => {
            let index = text.rsplit('/').next().unwrap_or_default().parse();
            Some(
                index
                    .map_err(|_| Status::invalid_argument(format!("slot: `{text}` is not a slot number")))?,
            )
        }
    };
    match request.kind.as_str() {
        "switchover" => Ok(OperationKind::Switchover { to: slot }),
        "restart" => Ok(OperationKind::Restart { slot }),
        "replace" => {
            let slot = slot.ok_or_else(|| Status::invalid_argument("slot: say which one to replace"))?;
            let confirm_lost = match request.argument.as_str() {
                "" => false,
                "confirm-lost" => true,
                other => {
                    return Err(Status::invalid_argument(format!(
                        "argument: `{other}` is not `confirm-lost`"
                    )));
                }
            };
            Ok(OperationKind::Replace { slot, confirm_lost })
        }
        "update" => Ok(OperationKind::Update),
        "rollback" => Ok(OperationKind::Rollback),
        "drill" => drill(&request.argument, service),
        other => Err(Status::invalid_argument(format!("kind: `{other}` is not an operation"))),
    }
}

fn drill(yaml: &str, service: &Name) -> Result<OperationKind, Status> {
    let parsed = muster_spec::parse_document::<DrillSpec>(yaml).map_err(|found| {
        let lines: Vec<String> =
            found.iter().map(|d| format!("line {}: {}: {}; {}", d.line, d.path, d.message, d.help)).collect();
        Status::invalid_argument(lines.join("\n"))
    });
    let (spec, _) = parsed?;
    if spec.service != *service {
        return Err(Status::invalid_argument(format!(
            "the drill is for `{}`, not for `{service}`",
            spec.service
        )));
    }
    match spec.problem() {
        Some(problem) => Err(Status::invalid_argument(problem)),
        None => Ok(OperationKind::Drill(Box::new(spec))),
    }
}
