//! Real servers and channels on loopback, with a service written by hand: who gets in, who is cut off.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::BoxFuture;
use muster_model::ids::Name;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::*;
use crate::access::{self, AccessTable, Revocations, Rule};
use crate::audit::Audit;
use crate::ca::{Ca, LEAF_LIFE};
use crate::clock::{Clock, ManualClock, SharedClock};
use crate::dial::{self, Endpoints};
use crate::identity::{Identity, Role};
use crate::keys::NodeKey;
use crate::tls::{Credentials, Tls, Trust};

const SOON: Duration = Duration::from_secs(5);
const DAY: u64 = 24 * 3600 * 1000;
const ANYONE: &str = "/muster.test.v1.Test/Anyone";
const AGENT: &str = "/muster.test.v1.Test/Agent";
const RENEW: &str = "/muster.test.v1.Test/Renew";
const RAFT: &str = "/muster.test.v1.Test/Raft";
const SESSION: &str = "/muster.test.v1.Test/Session";
const NO_ROW: &str = "/muster.test.v1.Test/NoRow";

/// Answers every call with who the caller is, and a session with an echo.
#[derive(Clone)]
struct TestService;

impl tonic::server::NamedService for TestService {
    const NAME: &'static str = "muster.test.v1.Test";
}

impl Service<http::Request<Body>> for TestService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(if request.uri().path() == SESSION {
                grpc.streaming(tower::service_fn(echo), request).await
            } else {
                grpc.unary(tower::service_fn(who), request).await
            })
        })
    }
}

async fn who(request: Request<String>) -> Result<Response<String>, Status> {
    Ok(Response::new(access::identity(&request).map_or_else(|_| "nobody".into(), Identity::uri)))
}

async fn echo(request: Request<Streaming<String>>) -> Result<Response<Streaming<String>>, Status> {
    Ok(Response::new(request.into_inner()))
}

#[derive(Debug, Default)]
struct Revoked(Mutex<BTreeSet<String>>);

impl Revocations for Revoked {
    fn is_revoked(&self, certificate: &PeerCertificate) -> bool {
        self.0.lock().unwrap().contains(&certificate.serial)
    }
}

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Audit for Heard {
    fn refused(&self, refusal: &Refusal) {
        self.0.lock().unwrap().push(refusal.to_string());
    }
}

struct World {
    ca: Ca,
    clock: Arc<ManualClock>,
    server: Tls,
    revoked: Arc<Revoked>,
    heard: Arc<Heard>,
    tasks: TaskGroup,
    address: SocketAddr,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    async fn new(limits: Limits) -> Self {
        let now = crate::clock::SystemClock::shared().now_ms();
        let clock = Arc::new(ManualClock::new(now));
        let ca = Ca::create(&name("shop"), now).unwrap();
        let server = tls(&ca, &clock, Some(issue(&ca, &clock, Role::Coordinator, LEAF_LIFE)));
        let (revoked, heard) = (Arc::<Revoked>::default(), Arc::<Heard>::default());
        let rows = [
            (ANYONE, Rule::anyone()),
            (AGENT, Rule::roles(&[Role::Agent])),
            (SESSION, Rule::roles(&[Role::Agent])),
            (RENEW, Rule::roles(&Role::ALL).even_expired()),
            (RAFT, Rule::roles(&[Role::Coordinator]).even_expired_if_pinned()),
        ];
        let access = Access {
            table: AccessTable::new(&rows).unwrap(),
            revocations: Arc::clone(&revoked) as _,
            pins: Arc::clone(server.pins()),
            clock: Arc::clone(&clock) as _,
            audit: Arc::clone(&heard) as _,
        };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskGroup::new();
        let routes = Routes::new(TestService);
        start(&tasks, listener, server.server_config().unwrap(), Arc::new(access), limits, routes);
        Self { ca, clock, server, revoked, heard, tasks, address }
    }

    fn tls(&self, credentials: Option<Credentials>) -> Tls {
        tls(&self.ca, &self.clock, credentials)
    }

    fn client(&self, role: Role) -> Tls {
        self.tls(Some(issue(&self.ca, &self.clock, role, LEAF_LIFE)))
    }

    fn channel(&self, tls: &Tls) -> Channel {
        dial::channel(Endpoints::new([self.address.to_string()]), tls.client_config().unwrap())
    }

    fn heard(&self, part: &str) -> bool {
        self.heard.0.lock().unwrap().iter().any(|line| line.contains(part))
    }
}

fn tls(ca: &Ca, clock: &Arc<ManualClock>, credentials: Option<Credentials>) -> Tls {
    let trust = Arc::new(Trust::new(name("shop"), &[ca.pem()]).unwrap());
    Tls::new(credentials, trust, Arc::default(), Arc::clone(clock) as SharedClock)
}

fn issue(ca: &Ca, clock: &ManualClock, role: Role, life: Duration) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let identity = Identity { platform: name("shop"), role, id: name("x1"), name: name("x1") };
    let issued = ca.issue(&key.csr(&name("x1")).unwrap(), &identity, life, clock.now_ms()).unwrap();
    Credentials::new(&key, &issued.pem, ca.pem()).unwrap()
}

async fn call(channel: &Channel, method: &'static str) -> Result<String, Status> {
    rpc::within(SOON, async {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
        let codec = ProstCodec::<String, String>::default();
        let path = http::uri::PathAndQuery::from_static(method);
        grpc.unary(Request::new(String::new()), path, codec).await.map(Response::into_inner)
    })
    .await
}

async fn code(channel: &Channel, method: &'static str) -> Code {
    call(channel, method).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// An open echo session: what is sent comes back.
struct Session {
    send: mpsc::Sender<String>,
    receive: Streaming<String>,
}

impl Session {
    async fn open(channel: &Channel) -> Self {
        let (send, sent) = mpsc::channel(1);
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<String, String>::default();
        let path = http::uri::PathAndQuery::from_static(SESSION);
        let answer = grpc.streaming(Request::new(ReceiverStream::new(sent)), path, codec).await.unwrap();
        Self { send, receive: answer.into_inner() }
    }

    async fn echo(&mut self) -> bool {
        self.send.send("beat".into()).await.is_ok()
            && matches!(self.receive.next().await, Some(Ok(text)) if text == "beat")
    }

    /// How long until the stream ends.
    async fn ended(&mut self) -> Duration {
        let start = std::time::Instant::now();
        let end = tokio::time::timeout(SOON, self.receive.next()).await;
        assert!(matches!(end, Ok(None | Some(Err(_)))), "{end:?}");
        start.elapsed()
    }
}

#[tokio::test]
async fn each_role_may_call_what_its_row_says_and_nothing_else() {
    let world = World::new(Limits::default()).await;
    let nobody = world.channel(&world.tls(None));
    assert_eq!(call(&nobody, ANYONE).await.unwrap(), "nobody");
    assert_eq!(code(&nobody, AGENT).await, Code::Unauthenticated);
    assert_eq!(code(&nobody, NO_ROW).await, Code::PermissionDenied);
    for role in Role::ALL {
        let channel = world.channel(&world.client(role));
        assert_eq!(call(&channel, ANYONE).await.unwrap(), format!("muster://shop/{role}/x1"));
        let allowed = if role == Role::Agent { Code::Ok } else { Code::PermissionDenied };
        assert_eq!(code(&channel, AGENT).await, allowed, "{role}");
        assert_eq!(code(&channel, NO_ROW).await, Code::PermissionDenied);
        assert_eq!(code(&channel, RENEW).await, Code::Ok);
    }
    assert!(world.heard("viewer x1 at") && world.heard("may not call this, only agent"));
}

#[tokio::test]
async fn a_stranger_is_refused_and_noted() {
    let world = World::new(Limits::default()).await;
    let other = Ca::create(&name("shop"), world.clock.now_ms()).unwrap();
    let stranger = world.tls(Some(issue(&other, &world.clock, Role::Admin, LEAF_LIFE)));
    assert!(call(&world.channel(&stranger), ANYONE).await.is_err());
    assert!(world.heard("BadSignature"));
}

#[tokio::test]
async fn an_expired_certificate_is_good_for_renewal_and_for_raft_if_pinned() {
    let world = World::new(Limits::default()).await;
    let clients = [world.client(Role::Agent), world.client(Role::Coordinator)];
    world.clock.set_wall_ms(world.clock.now_ms() + 90 * DAY);
    let server_key = world.server.credentials().unwrap().certificate().key.clone();
    for client in &clients {
        client.pins().replace([server_key.clone()]);
    }
    let agent = world.channel(&clients[0]);
    assert_eq!(code(&agent, AGENT).await, Code::Unauthenticated);
    assert!(world.heard("has expired"));
    assert_eq!(call(&agent, RENEW).await.unwrap(), "muster://shop/agent/x1");
    assert_eq!(call(&agent, ANYONE).await.unwrap(), "nobody");
    let coordinator = world.channel(&clients[1]);
    assert_eq!(code(&coordinator, RAFT).await, Code::Unauthenticated);
    world.server.pins().replace([clients[1].credentials().unwrap().certificate().key.clone()]);
    assert_eq!(code(&coordinator, RAFT).await, Code::Ok);
}

#[tokio::test]
async fn rotation_leaves_sessions_alone_and_shows_the_new_certificate_to_the_next() {
    let world = World::new(Limits::default()).await;
    let client = world.client(Role::Agent);
    let mut session = Session::open(&world.channel(&client)).await;
    assert!(session.echo().await);
    client.rotate(issue(&world.ca, &world.clock, Role::Agent, LEAF_LIFE));
    let next = issue(&world.ca, &world.clock, Role::Coordinator, LEAF_LIFE);
    let serial = next.certificate().serial.clone();
    world.server.rotate(next);
    assert!(session.echo().await);
    let endpoints = Endpoints::new([world.address.to_string()]);
    let seen = dial::probe(&endpoints, &client.client_config().unwrap()).await.unwrap();
    assert_eq!(seen.serial, serial);
    assert!(session.echo().await);
}

#[tokio::test]
async fn revocation_cuts_an_open_stream_within_two_seconds_and_no_other() {
    let world = World::new(Limits::default()).await;
    let (bad, good) = (world.client(Role::Agent), world.client(Role::Agent));
    let mut cut = Session::open(&world.channel(&bad)).await;
    let mut kept = Session::open(&world.channel(&good)).await;
    assert!(cut.echo().await && kept.echo().await);
    let serial = bad.credentials().unwrap().certificate().serial.clone();
    world.revoked.0.lock().unwrap().insert(serial);
    // Two seconds are promised; the next keepalive ping, which would fail too, comes later than this.
    assert!(cut.ended().await < Duration::from_millis(1500));
    assert!(kept.echo().await);
    for method in [AGENT, ANYONE, RENEW] {
        assert_eq!(code(&world.channel(&bad), method).await, Code::PermissionDenied);
    }
    assert!(world.heard("was revoked"));
}

#[tokio::test]
async fn a_session_does_not_outlive_its_certificate() {
    let world = World::new(Limits::default()).await;
    let short = issue(&world.ca, &world.clock, Role::Agent, Duration::from_secs(3));
    let mut session = Session::open(&world.channel(&world.tls(Some(short)))).await;
    world.clock.advance(Duration::from_secs(2));
    tokio::time::sleep(SWEEP * 2).await;
    assert!(session.echo().await);
    world.clock.advance(Duration::from_secs(2));
    assert!(session.ended().await < Duration::from_secs(2));
}

#[tokio::test]
async fn silent_and_numerous_connections_do_not_keep_others_out() {
    let limits = Limits { per_key: 2, handshakes_per_address: 8, ..Limits::default() };
    let world = World::new(limits).await;
    let address = world.address.to_string();
    let mut silent = Vec::new();
    for _ in 0..7 {
        silent.push(net::connect(&address, SOON).await.unwrap());
    }
    let client = world.client(Role::Agent);
    let channels: Vec<_> = (0..3).map(|_| world.channel(&client)).collect();
    assert_eq!(code(&channels[0], AGENT).await, Code::Ok);
    assert_eq!(code(&channels[1], AGENT).await, Code::Ok);
    assert_ne!(code(&channels[2], AGENT).await, Code::Ok);
    assert_eq!(code(&world.channel(&world.client(Role::Agent)), AGENT).await, Code::Ok);
}

#[tokio::test]
async fn a_channel_takes_the_endpoint_that_answers_and_says_when_none_does() {
    let world = World::new(Limits::default()).await;
    let dead = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap().local_addr().unwrap().to_string();
    let client = world.client(Role::Agent).client_config().unwrap();
    let endpoints = Endpoints::new([dead.clone(), world.address.to_string()]);
    assert_eq!(code(&dial::channel(Arc::clone(&endpoints), Arc::clone(&client)), AGENT).await, Code::Ok);
    assert_eq!(endpoints.list()[0], world.address.to_string());

    let status = call(&dial::channel(Endpoints::new([dead.clone()]), client), AGENT).await.unwrap_err();
    let reason = dial::unreachable(&status).map(ToString::to_string).unwrap_or_default();
    assert!(reason.contains(&dead) && reason.contains("refused"), "{status:?}");
}

#[tokio::test]
async fn a_pinned_channel_accepts_no_other_coordinator() {
    let world = World::new(Limits::default()).await;
    let tls = world.client(Role::Agent);
    let (address, config) = (world.address.to_string(), tls.client_config().unwrap());
    let key = world.server.credentials().unwrap().certificate().key.clone();
    let channel = dial::connect_to(&address, &key, Arc::clone(&config)).await.unwrap();
    assert_eq!(code(&channel, AGENT).await, Code::Ok);
    let other = tls.credentials().unwrap().certificate().key.clone();
    let error = dial::connect_to(&address, &other, config).await.unwrap_err().to_string();
    assert!(error.contains("coordinator x1 answers there"), "{error}");
}

#[tokio::test]
async fn a_channel_connects_again_after_the_server_came_back() {
    let world = World::new(Limits::default()).await;
    let channel = world.channel(&world.client(Role::Agent));
    let mut session = Session::open(&channel).await;
    assert!(session.echo().await);
    // Sessions never end by themselves: draining must still be quick.
    world.tasks.drain(SOON).await.unwrap();
    session.ended().await;
    assert_ne!(code(&channel, AGENT).await, Code::Ok);

    let listener = Listener::bind(world.address).await.unwrap();
    let access = Access {
        table: AccessTable::new(&[(AGENT, Rule::roles(&[Role::Agent]))]).unwrap(),
        revocations: Arc::clone(&world.revoked) as _,
        pins: Arc::default(),
        clock: Arc::clone(&world.clock) as _,
        audit: Arc::clone(&world.heard) as _,
    };
    let tls = world.server.server_config().unwrap();
    let tasks = TaskGroup::new();
    start(&tasks, listener, tls, Arc::new(access), Limits::default(), Routes::new(TestService));
    assert_eq!(code(&channel, AGENT).await, Code::Ok);
}
