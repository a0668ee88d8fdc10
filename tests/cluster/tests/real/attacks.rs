//! Attacks on a coordinator's port: lengths that lie, compression, floods, lack of files, names that break out. Each time
//! others are served meanwhile or soon after, and memory stays small.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::node::Node;
use muster_cluster_tests::operator::{ANSWER, Operator};
use muster_cluster_tests::wait::{bounded, until};
use muster_proto::control as pb;
use muster_proto::identity::JoinRequest;
use muster_proto::identity::identity_client::IdentityClient;
use muster_runtime::rpc::within;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt as _;

/// What an attack may cost a coordinator, MiB.
const GROWTH_MAX: u64 = 16;
/// The code of gRPC's status in an answer; `None`: the connection or stream was ended without one.
type Refused = Option<Code>;

/// One call with a body of our own making.
async fn raw(channel: &Channel, encoding: Option<&str>, body: Body) -> Refused {
    let mut request = http::Request::post("http://coordinator/muster.control.v1.Control/Plan")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let request = request.body(body).expect("a request");
    let asked = tokio::time::timeout(ANSWER, channel.clone().oneshot(request)).await;
    let reply = asked.expect("an answer in time").ok()?;
    let code = |headers: &http::HeaderMap| {
        headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()))
    };
    if let Some(code) = code(reply.headers()) {
        return Some(code);
    }
    let rest =
        tokio::time::timeout(ANSWER, reply.into_body().collect()).await.expect("an end in time").ok()?;
    rest.trailers().and_then(code)
}

/// The five bytes before a message: whether it is compressed, and how long it says that it is.
fn frame(compressed: bool, length: u32, content: &[u8]) -> Vec<u8> {
    [&[u8::from(compressed)][..], &length.to_be_bytes(), content].concat()
}

/// A body that says this and then nothing more, without an end.
fn unfinished(start: Vec<u8>) -> Body {
    let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(start)))]);
    Body::new(StreamBody::new(futures::StreamExt::chain(first, futures::stream::pending())))
}

/// A body of one byte a second, for ever.
fn trickle() -> Body {
    let stream = futures::stream::unfold(0_u8, |sent| async move {
        tokio::time::sleep(Duration::from_secs(u64::from(sent.min(1)))).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0]))), 1))
    });
    Body::new(StreamBody::new(stream))
}

/// Time for a new connection and one answer on it.
async fn answers_anew(cluster: &Cluster) -> Duration {
    let begin = Instant::now();
    until("a new connection is served", async || cluster.operator(0).status().await).await;
    begin.elapsed()
}

/// Connections from one of this machine's addresses on which not a byte is said.
async fn silent(from: u8, count: usize, to: SocketAddr) -> Vec<TcpStream> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("as many files as we may");
    let mut open = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).expect("loopback has many addresses");
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), socket.connect(to)).await {
            open.push(stream);
        }
    }
    open
}

fn grown(node: &Node, before: u64) -> u64 {
    node.memory_mib().saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_lies_and_a_compressed_message_are_refused_before_memory_is_taken() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let channel = cluster.operator(0).channel();
        let honest = Body::new(Full::new(Bytes::from(frame(false, 0, b""))));
        let good = raw(&channel, None, honest).await;
        assert!(matches!(good, Some(Code::Ok)), "an honest frame is read: {good:?}");
        let before = cluster.nodes[0].memory_mib();
        for length in [(4 << 20) + 1, 1 << 30, i32::MAX as u32, u32::MAX] {
            let refused = raw(&channel, None, unfinished(frame(false, length, b"short"))).await;
            assert_eq!(refused, Some(Code::OutOfRange), "{length} bytes announced");
        }
        // A bomb would be of kilobytes here and of gigabytes there: nothing compressed is even looked at.
        for encoding in [None, Some("gzip"), Some("zstd"), Some("deflate"), Some("identity")] {
            let refused = raw(&channel, encoding, unfinished(frame(true, 64, &[0x1f; 64]))).await;
            let right = matches!(refused, Some(Code::Unimplemented | Code::Internal));
            assert!(right, "compressed, said to be {encoding:?}: {refused:?}");
        }
        let growth = grown(&cluster.nodes[0], before);
        assert!(growth < GROWTH_MAX, "{growth} MiB more");
        cluster.operator(0).status().await.expect("it serves");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_silent_connections_and_slow_streams_keep_nobody_out() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let (node, early) = (&cluster.nodes[0], cluster.operator(0));
        early.status().await.expect("it serves");
        let before = node.memory_mib();
        let held = silent(2, 1_000, node.address).await;
        assert!(held.len() > 900, "only {} connections", held.len());
        let alone = answers_anew(&cluster).await;
        assert!(
            alone < Duration::from_secs(3),
            "a new connection took {alone:?} beside one address that is silent"
        );
        early.status().await.expect("an open connection is served");

        let slow: Vec<Operator> = (0..10).map(|_| cluster.operator(0)).collect();
        let mut streams = tokio::task::JoinSet::new();
        for operator in &slow {
            for _ in 0..100 {
                let channel = operator.channel();
                streams.spawn(async move { raw(&channel, None, trickle()).await });
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut times = Vec::new();
        for _ in 0..20 {
            let begin = Instant::now();
            early.status().await.expect("it serves beside slow streams");
            times.push(begin.elapsed());
        }
        times.sort();
        assert!(times[18] < Duration::from_secs(1), "answers took {times:?}");
        streams.abort_all();
        drop((held, slow));
        assert!(answers_anew(&cluster).await < Duration::from_secs(5));
        let growth = grown(node, before);
        assert!(growth < 4 * GROWTH_MAX, "{growth} MiB more after 1,000 connections and 1,000 streams");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_from_many_addresses_ends_by_itself() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let (node, early) = (&cluster.nodes[0], cluster.operator(0));
        early.status().await.expect("it serves");
        let mut held = Vec::new();
        for from in 2..10 {
            held.extend(silent(from, 125, node.address).await);
        }
        early.status().await.expect("an open connection is served");
        // The places for handshakes are all taken; each is given back after five seconds.
        let took = answers_anew(&cluster).await;
        assert!(
            took < Duration::from_secs(12),
            "a new connection took {took:?} beside {} silent ones",
            held.len()
        );
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_fast_as_they_open_end_their_connection() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let (node, early) = (&cluster.nodes[0], cluster.operator(0));
        early.status().await.expect("it serves");
        let before = node.memory_mib();
        let attacker = cluster.operator(0);
        attacker.status().await.expect("a connection to attack on");
        let end = Instant::now() + Duration::from_secs(10);
        let (mut opened, mut worst) = (0, Duration::ZERO);
        while opened < 20_000 && Instant::now() < end {
            for _ in 0..200 {
                // Long enough to go out, too short for an answer; dropping the call resets its stream.
                let call = raw_status(&attacker);
                drop(tokio::time::timeout(Duration::from_micros(50), call).await);
                opened += 1;
            }
            let begin = Instant::now();
            early.status().await.expect("others are served");
            worst = worst.max(begin.elapsed());
        }
        assert!(opened >= 1_000, "only {opened} streams");
        assert!(worst < Duration::from_secs(2), "an answer took {worst:?}");
        assert!(answers_anew(&cluster).await < Duration::from_secs(5));
        let growth = grown(node, before);
        assert!(growth < 2 * GROWTH_MAX, "{growth} MiB more after {opened} streams");
    }))
    .await;
}

async fn raw_status(operator: &Operator) {
    drop(operator.control().status(pb::StatusRequest::default()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_it_waits_and_then_serves_again() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let (node, early) = (&cluster.nodes[0], cluster.operator(0));
        early.status().await.expect("it serves");
        let pid = node.pid().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
        let used = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").count() as u64;
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit { current: Some(used + 16), maximum: before.maximum };
        prlimit(Pid::from_raw(pid), Resource::Nofile, few).expect("a limit can be set");
        let held = silent(2, 100, node.address).await;
        until("it says that it cannot accept", async || {
            let said = node.said();
            if said.contains("cannot accept connections") { Ok(()) } else { Err(said.len()) }
        })
        .await;
        early.status().await.expect("an open connection is served");
        drop(held);
        let took = answers_anew(&cluster).await;
        assert!(took < Duration::from_secs(15), "it took {took:?}");
        assert!(node.pid().is_some_and(|now| i32::try_from(now) == Ok(pid)), "it runs on");
        let lines = node.said().lines().filter(|line| line.contains("cannot accept")).count();
        assert!(lines < 20, "{lines} lines for one lack of files");
    }))
    .await;
}

/// Texts that would end a line, colour a terminal, close a JSON string or leave a directory.
const HOSTILE: &[&str] = &[
    "x\nFORGED line",
    "x\r\nFORGED line",
    "x\u{1b}[2J\u{1b}[31mFORGED",
    "x\",\"actor\":\"FORGED",
    "x\u{2028}FORGED",
    "x\u{202e}DEGROF",
    "../../etc/cron.d/x",
    "/etc/passwd",
    "x\u{0}y",
    "..",
    "x/../../y",
    "\u{ff0e}\u{ff0e}\u{ff0f}x",
    "x; rm -rf /",
    "$(reboot)",
    "`reboot`",
    "x' OR '1'='1",
    "x\\'; DROP DATABASE app; --",
    "${secret:pg-main/superuser}",
    "{{x}}",
    "%n%s",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_writes_lines_or_colours_into_the_log() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let at = cluster.nodes[0].address;
        let operator = cluster.operator(0);
        let token = cluster.token("host").await;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        for text in HOSTILE.iter().map(|text| (*text).to_owned()).chain(["x".repeat(1 << 20)]) {
            let mut identity = IdentityClient::new(agent.channel(at));
            let join = JoinRequest { name: text.clone(), token: text.clone(), ..JoinRequest::default() };
            within(ANSWER, identity.join(join)).await.expect_err("no name of a host");
            let yaml = format!("muster: 1\nplatform: {}\n", serde_json::json!(text));
            drop(
                within(ANSWER, operator.control().plan(pb::SpecRequest { caller: None, yaml, at: 0 })).await,
            );
            operator.schedule(None, &text, "cordoned").await.expect_err("no such host");
            operator.token(&text, 0).await.expect_err("no such role");
        }
        let context = cluster.context.clone();
        let shown = cluster.cli(&context, &["audit", "--tail", "1000"]).await;
        assert!(shown.ok, "{shown:?}");
        for (what, text) in [("the log", cluster.nodes[0].said()), ("muster audit", shown.out)] {
            assert!(!text.is_empty(), "{what} is empty");
            for line in text.lines() {
                assert!(!line.starts_with("FORGED"), "{what} has a line of an attacker's: {line}");
                let bad = line.chars().find(|one| one.is_control() && *one != '\t');
                assert!(bad.is_none(), "{what} has {bad:?} in {line:?}");
                assert!(line.len() < 64 << 10, "{what} has a line of {} bytes", line.len());
            }
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_break_out_of_files_and_statements_are_refused() {
    bounded(Box::pin(async {
        let cluster = Cluster::single().await;
        let operator = cluster.operator(0);
        let plan = async |service: String| {
            let yaml = format!("muster: 1\nplatform: shop\nservices:\n{service}");
            let request = pb::SpecRequest { caller: None, yaml, at: 0 };
            within(ANSWER, operator.control().plan(request)).await.map(|reply| reply.into_inner().diagnostics)
        };
        let mut tried = 0;
        for hostile in HOSTILE {
            let text = serde_json::json!(hostile).to_string();
            // An absolute path is the container's own: it leads out of nothing.
            let absolute = hostile.starts_with('/');
            for field in FIELDS.iter().filter(|field| !(absolute && field.contains(PATH))) {
                let judged = plan(field.replace('@', &text)).await.expect("an answer");
                assert!(!judged.is_empty(), "accepted: {}", field.replace('@', &text));
                tried += 1;
            }
        }
        assert!(tried > 200, "only {tried} tried");
        for field in FIELDS {
            let good = if field.contains(PATH) { "/data/good" } else { "good" };
            let judged = plan(field.replace('@', good)).await;
            let judged = judged.expect("an answer");
            assert!(judged.is_empty(), "{field}: {}", String::from_utf8_lossy(&judged));
        }
    }))
    .await;
}

/// What a field has that takes a path inside the container.
const PATH: &str = "path: @";

/// Places in a spec from which a text goes into file names, SQL, templates or the engine's API.
const FIELDS: &[&str] = &[
    "  @: { kind: app, image: 'web:1' }\n",
    "  pg: { kind: postgres, mode: single, users: [{ name: @ }] }\n",
    "  pg: { kind: postgres, mode: single, databases: [{ name: @ }] }\n",
    "  db: { kind: mariadb, mode: single, users: [{ name: @ }] }\n",
    "  db: { kind: mariadb, mode: single, databases: [{ name: @ }] }\n",
    "  cache: { kind: redis, mode: single, users: [{ name: @ }] }\n",
    "  files: { kind: s3, mode: single, buckets: [{ name: @ }] }\n",
    "  bus: { kind: nats, members: 1, users: [{ name: @ }] }\n",
    "  web: { kind: app, image: 'web:1', volumes: [{ name: @, path: /data }] }\n",
    "  web: { kind: app, image: 'web:1', volumes: [{ name: data, path: @ }] }\n",
    "  web: { kind: app, image: 'web:1', files: [{ path: @, content: x }] }\n",
];
