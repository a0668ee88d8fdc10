//! A coordinator that answers what a test told it to: real TLS, real gRPC, no platform behind it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clap::Parser;
use muster_cli::args::Cli;
use muster_cli::console::Console;
use muster_cli::exit::Exit;
use muster_model::ids::Name;
use muster_model::view::{EventView, OperationView, PlanView, PlatformView};
use muster_proto::control::control_server::{Control, ControlServer};
use muster_proto::control::*;
use muster_proto::identity::identity_server::{Identity, IdentityServer};
use muster_proto::identity::{HelloReply, HelloRequest, JoinReply, JoinRequest, RenewReply, RenewRequest};
use muster_runtime::access::{Access, AccessTable, Revocations, Rule};
use muster_runtime::audit::{Audit, Refusal};
use muster_runtime::ca::{Ca, LEAF_LIFE};
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::clock::SystemClock;
use muster_runtime::context::Context;
use muster_runtime::identity::{Identity as Who, Role};
use muster_runtime::keys::NodeKey;
use muster_runtime::net::Listener;
use muster_runtime::server;
use muster_runtime::tasks::TaskGroup;
use muster_runtime::tls::{Credentials, PinnedKeys, Tls, Trust};
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// What the coordinators of one test share: what they answer, and what they heard.
#[derive(Default)]
pub struct Script {
    /// Answers of `Plan`; the last one stays.
    pub plan: Option<PlanReply>,
    /// Answers of `Apply`, one each; then index 813.
    pub apply: VecDeque<Result<PlanReply, Status>>,
    /// Views of `Status`, one each; the last one stays.
    pub status: VecDeque<PlatformView>,
    /// Views of `Operation`, one each; the last one stays.
    pub operation: VecDeque<OperationView>,
    /// All of `Operations`.
    pub operations: Vec<OperationView>,
    /// All of `Events`.
    pub events: Vec<EventView>,
    /// Every change that was asked for: what, client, serial.
    pub changes: Vec<(String, String, u64)>,
    /// The coordinator that leads, for the others' hint.
    pub leader: Option<String>,
    /// Who answered logs.
    pub logs_from: Vec<String>,
    /// Renewals answered with these coordinators.
    pub coordinators: Vec<String>,
    pub renewals: usize,
}

pub type Shared = Arc<Mutex<Script>>;

pub struct World {
    pub script: Shared,
    pub addresses: Vec<String>,
    pub context: PathBuf,
    dir: tempfile::TempDir,
    _tasks: TaskGroup,
}

#[derive(Debug)]
struct Nobody;

impl Revocations for Nobody {
    fn is_revoked(&self, _: &PeerCertificate) -> bool {
        false
    }
}

impl Audit for Nobody {
    fn refused(&self, _: &Refusal) {}
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    /// So many coordinators; the context knows the first `known` of them.
    pub async fn new(count: usize, known: usize) -> Self {
        let clock = SystemClock::shared();
        let ca = Arc::new(Ca::create(&name("shop"), clock.now_ms()).unwrap());
        let (script, tasks) = (Shared::default(), TaskGroup::new());
        let mut addresses = Vec::new();
        for _ in 0..count {
            addresses.push(start(&tasks, &ca, &script).await);
        }
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path().join("operator.json");
        let key = NodeKey::generate().unwrap();
        let issued =
            ca.issue(&key.csr(&name("ann")).unwrap(), &who(Role::Admin, "ann"), LEAF_LIFE, clock.now_ms());
        Context {
            platform: name("shop"),
            endpoints: addresses[..known].to_vec(),
            pins: Vec::new(),
            ca_pem: ca.pem().to_owned(),
            certificate_pem: issued.unwrap().pem,
            key_pem: key.pem(),
        }
        .store(&context)
        .unwrap();
        Self { script, addresses, context, dir, _tasks: tasks }
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub fn file(&self, file: &str, text: &str) -> String {
        let path = self.dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a command: exit code, standard output, standard error.
    pub async fn run(&self, words: &[&str]) -> (Exit, String, String) {
        let context = self.context.to_str().unwrap();
        let cli = Cli::try_parse_from(["muster", "--context", context].iter().chain(words)).unwrap();
        let (console, out, err) = Console::buffered(cli.globals.output, "");
        let exit = muster_cli::run(cli, console).await;
        let text = |buffer: Arc<Mutex<Vec<u8>>>| String::from_utf8(buffer.lock().unwrap().clone()).unwrap();
        (exit, text(out), text(err))
    }
}

fn who(role: Role, id: &str) -> Who {
    Who { platform: name("shop"), role, id: name(id), name: name(id) }
}

async fn start(tasks: &TaskGroup, ca: &Arc<Ca>, script: &Shared) -> String {
    let clock = SystemClock::shared();
    let key = NodeKey::generate().unwrap();
    let csr = key.csr(&name("c1")).unwrap();
    let issued = ca.issue(&csr, &who(Role::Coordinator, "1"), LEAF_LIFE, clock.now_ms()).unwrap();
    let credentials = Credentials::new(&key, &issued.pem, ca.pem()).unwrap();
    let trust = Arc::new(Trust::new(name("shop"), &[ca.pem()]).unwrap());
    let tls = Tls::new(Some(credentials), trust, Arc::<PinnedKeys>::default(), Arc::clone(&clock));
    let operators = Rule::roles(&[Role::Admin]);
    let rows = [
        ("/muster.identity.v1.Identity/Hello", Rule::anyone()),
        ("/muster.identity.v1.Identity/Renew", operators),
        ("/muster.control.v1.Control/Status", operators),
        ("/muster.control.v1.Control/Plan", operators),
        ("/muster.control.v1.Control/Apply", operators),
        ("/muster.control.v1.Control/Events", operators),
        ("/muster.control.v1.Control/Logs", operators),
        ("/muster.control.v1.Control/Exec", operators),
        ("/muster.control.v1.Control/StartOperation", operators),
        ("/muster.control.v1.Control/SteerOperation", operators),
        ("/muster.control.v1.Control/Operation", operators),
        ("/muster.control.v1.Control/Operations", operators),
        ("/muster.control.v1.Control/Conn", operators),
        ("/muster.control.v1.Control/CreateToken", operators),
        ("/muster.control.v1.Control/Operators", operators),
        ("/muster.control.v1.Control/Images", operators),
        ("/muster.control.v1.Control/Net", operators),
        ("/muster.control.v1.Control/Revoke", operators),
    ];
    let access = Access {
        table: AccessTable::new(&rows).unwrap(),
        revocations: Arc::new(Nobody),
        pins: Arc::clone(tls.pins()),
        clock,
        audit: Arc::new(Nobody),
    };
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fake = Fake { address: address.clone(), script: Arc::clone(script), ca: Arc::clone(ca) };
    let routes = Routes::new(ControlServer::new(fake.clone())).add_service(IdentityServer::new(fake));
    let limits = server::Limits::default();
    server::start(tasks, listener, tls.server_config().unwrap(), Arc::new(access), limits, routes);
    address
}

#[derive(Clone)]
struct Fake {
    address: String,
    script: Shared,
    ca: Arc<Ca>,
}

type Answer<T> = Result<Response<T>, Status>;
type Many<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub fn view(value: &impl serde::Serialize) -> View {
    View { json: serde_json::to_vec(value).unwrap().into() }
}

pub fn plan_reply(plan: &PlanView, index: u64) -> PlanReply {
    PlanReply { diagnostics: "[]".into(), plan: serde_json::to_vec(plan).unwrap().into(), index }
}

fn next<T: Clone>(queue: &mut VecDeque<T>) -> Result<T, Status> {
    let first = if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() };
    first.ok_or_else(|| Status::internal("the test did not say what to answer"))
}

fn many<T: Send + 'static>(all: Vec<T>) -> Response<Many<T>> {
    Response::new(Box::pin(tokio_stream::iter(all.into_iter().map(Ok))))
}

impl Fake {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn heard(&self, what: impl Into<String>, caller: Option<Caller>) {
        let caller = caller.expect("every change names its caller");
        self.script().changes.push((what.into(), caller.client, caller.serial));
    }
}

#[tonic::async_trait]
impl Identity for Fake {
    async fn hello(&self, request: Request<HelloRequest>) -> Answer<HelloReply> {
        assert!(request.into_inner().program.starts_with("muster "));
        Ok(Response::new(HelloReply { protocol: 1, ..HelloReply::default() }))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Answer<JoinReply> {
        Err(Status::unimplemented(""))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Answer<RenewReply> {
        let csr = request.into_inner().csr_pem;
        let issued = self.ca.issue(&csr, &who(Role::Admin, "ann"), LEAF_LIFE, SystemClock::shared().now_ms());
        let mut script = self.script();
        script.renewals += 1;
        let endpoint = |address: &String| muster_proto::identity::Endpoint {
            node: 1,
            address: address.clone(),
            key_digest: "ab".repeat(32),
        };
        Ok(Response::new(RenewReply {
            certificate_pem: issued.unwrap().pem,
            ca_pem: self.ca.pem().to_owned(),
            coordinators: script.coordinators.iter().map(endpoint).collect(),
        }))
    }
}

#[tonic::async_trait]
impl Control for Fake {
    type EventsStream = Many<View>;
    type LogsStream = Many<LogData>;
    type AuditStream = Many<View>;

    async fn status(&self, _: Request<StatusRequest>) -> Answer<View> {
        Ok(Response::new(view(&next(&mut self.script().status)?)))
    }

    async fn plan(&self, _: Request<SpecRequest>) -> Answer<PlanReply> {
        let plan = self.script().plan.clone();
        plan.map(Response::new).ok_or_else(|| Status::internal("no plan"))
    }

    async fn apply(&self, request: Request<SpecRequest>) -> Answer<PlanReply> {
        let request = request.into_inner();
        self.heard(format!("apply at {}: {}", request.at, request.yaml), request.caller);
        let scripted = self.script().apply.pop_front();
        match scripted {
            Some(answer) => answer.map(Response::new),
            None => {
                let plan = self.script().plan.clone().unwrap();
                Ok(Response::new(PlanReply { index: 813, ..plan }))
            }
        }
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        let from = request.into_inner().from;
        let events = self.script().events.clone();
        Ok(many(events.iter().filter(|event| event.index.0 >= from).map(view).collect()))
    }

    async fn logs(&self, _: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        let mut script = self.script();
        script.logs_from.push(self.address.clone());
        match &script.leader {
            Some(leader) if *leader != self.address => {
                let mut status = Status::unavailable("ask the leader");
                status.metadata_mut().insert("muster-leader", leader.parse().unwrap());
                Err(status)
            }
            _ => Ok(many(vec![LogData { data: "hello\n".into() }])),
        }
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecReply> {
        let ExecRequest { slot, argv, timeout_ms } = request.into_inner();
        let output = format!("{slot} {} {timeout_ms}\n", argv.join(" "));
        Ok(Response::new(ExecReply { code: 3, output: output.into() }))
    }

    async fn set_scheduling(&self, _: Request<SetSchedulingRequest>) -> Answer<Changed> {
        Err(Status::unimplemented(""))
    }

    async fn remove_host(&self, request: Request<RemoveHostRequest>) -> Answer<Changed> {
        let request = request.into_inner();
        self.heard(format!("remove host {}", request.host), request.caller);
        Ok(Response::new(Changed { index: 9 }))
    }

    async fn start_operation(&self, request: Request<StartOperationRequest>) -> Answer<Started> {
        let request = request.into_inner();
        let what = format!("{} {} {} {}", request.kind, request.service, request.slot, request.argument);
        self.heard(what, request.caller);
        Ok(Response::new(Started { operation: 9, advice: String::new() }))
    }

    async fn steer_operation(&self, request: Request<SteerOperationRequest>) -> Answer<Changed> {
        let request = request.into_inner();
        self.heard(format!("{} {}", request.verb, request.operation), request.caller);
        Ok(Response::new(Changed { index: 1 }))
    }

    async fn operation(&self, _: Request<OperationRequest>) -> Answer<View> {
        Ok(Response::new(view(&next(&mut self.script().operation)?)))
    }

    async fn operations(&self, _: Request<OperationsRequest>) -> Answer<View> {
        Ok(Response::new(view(&self.script().operations)))
    }

    async fn remove_service(&self, _: Request<RemoveServiceRequest>) -> Answer<Changed> {
        Err(Status::unimplemented(""))
    }

    async fn conn(&self, _: Request<ConnRequest>) -> Answer<View> {
        let json = r#"[{"role":"write","url":"postgresql://a"},{"role":"write","url":"postgresql://b"}]"#;
        Ok(Response::new(View { json: json.into() }))
    }

    async fn create_token(&self, _: Request<CreateTokenRequest>) -> Answer<Token> {
        let coordinators = vec!["10.0.0.1:7400".to_owned(), "10.0.0.2:7400".to_owned()];
        Ok(Response::new(Token {
            token: "mt1.h.a.b".to_owned(),
            expires_at_ms: 1_795_501_721_000,
            coordinators,
        }))
    }

    async fn operators(&self, _: Request<OperatorsRequest>) -> Answer<View> {
        let json = r#"[{"name":"ada","role":"admin","key":"0011","serial":"40","expires":4102444800000,"revoked":null},
            {"name":"eve","role":"viewer","key":"2233","serial":"41","expires":0,"revoked":"stolen"}]"#;
        Ok(Response::new(View { json: json.into() }))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Answer<Revoked> {
        let request = request.into_inner();
        let serials = if request.operator == "eve" { vec![] } else { vec!["40".to_owned()] };
        Ok(Response::new(Revoked { serials }))
    }

    async fn issue_operator(&self, _: Request<IssueOperatorRequest>) -> Answer<Issued> {
        Err(Status::unimplemented(""))
    }

    async fn secrets(&self, _: Request<SecretsRequest>) -> Answer<View> {
        let json = r#"[{"name":"web/user-app","service":"web","version":2,"changed":0,"stops":false,"refused":false,"rotation":"open sessions stay"}]"#;
        Ok(Response::new(View { json: json.into() }))
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Answer<View> {
        let json = r#"{"about":"web","sections":[{"title":"Gates","lines":["healthy"]}],"events":[]}"#;
        Ok(Response::new(View { json: json.into() }))
    }

    async fn what_if(&self, _: Request<WhatIfRequest>) -> Answer<View> {
        let json = r#"{"host":"h1","services":[],"control_plane":null}"#;
        Ok(Response::new(View { json: json.into() }))
    }

    type SaveSnapshotStream = tokio_stream::Empty<Result<SnapshotData, Status>>;

    async fn save_snapshot(&self, _: Request<SaveSnapshotRequest>) -> Answer<Self::SaveSnapshotStream> {
        Err(Status::unimplemented("no test saves one"))
    }

    async fn settle_host(&self, _: Request<SettleHostRequest>) -> Answer<Changed> {
        Err(Status::unimplemented("no test settles one"))
    }

    async fn coordinators(&self, _: Request<CoordinatorsRequest>) -> Answer<View> {
        Err(Status::unimplemented("no test asks for them"))
    }

    async fn remove_coordinator(&self, _: Request<RemoveCoordinatorRequest>) -> Answer<Changed> {
        Err(Status::unimplemented("no test removes one"))
    }

    async fn begin_image(&self, _: Request<BeginImageRequest>) -> Answer<ImageUpload> {
        Err(Status::unimplemented("no test pushes one"))
    }

    async fn send_image(&self, _: Request<SendImageRequest>) -> Answer<ImageUpload> {
        Err(Status::unimplemented("no test pushes one"))
    }

    async fn image_push(&self, _: Request<ImagePushRequest>) -> Answer<View> {
        Err(Status::unimplemented("no test pushes one"))
    }

    async fn images(&self, _: Request<ImagesRequest>) -> Answer<View> {
        let json = r#"[{"host":"h1","images":[{"name":"app:1","id":"sha256:00","bytes":3145728,"needed":true}]},
            {"host":"h2","images":null}]"#;
        Ok(Response::new(View { json: json.into() }))
    }

    async fn net(&self, _: Request<NetRequest>) -> Answer<View> {
        Err(Status::unimplemented("no test asks for the mesh"))
    }

    async fn audit(&self, _: Request<EventsRequest>) -> Answer<Self::AuditStream> {
        tokio::time::sleep(Duration::ZERO).await;
        Err(Status::unimplemented(""))
    }
}
