//! Three members of etcd with its defaults, on the same disk; a write puts 256 bytes, without TLS.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::uri::PathAndQuery;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{IntoRequest as _, Status};
use tonic_prost::ProstCodec;

use crate::side::{MEMBERS, Side, Writer};

const VALUE_BYTES: usize = 256;
const UP_WITHIN: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(2);

// The four messages that are needed, with the fields that are needed: the client crate's build asks for a `protoc`, which
// every build of this workspace would need then. Source: etcd's `rpc.proto`.

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutReply {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusReply {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// One call.
async fn call<Q, A>(channel: &mut Grpc<Channel>, path: &'static str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    channel.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(channel.unary(request.into_request(), PathAndQuery::from_static(path), codec).await?.into_inner())
}

/// The members.
pub struct Etcd {
    program: PathBuf,
    /// Ports for clients and for peers.
    ports: Vec<(u16, u16)>,
    running: Vec<Option<Child>>,
    root: TempDir,
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Etcd {
    /// Three of them.
    ///
    /// # Errors
    /// The program does not start, or nobody leads in time.
    pub async fn up(program: PathBuf) -> Result<Self> {
        let ports = (0..MEMBERS).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<_>>()?;
        let running = (0..MEMBERS).map(|_| None).collect();
        let mut etcd = Self { program, ports, running, root: TempDir::with_prefix("etcd")? };
        for member in 0..MEMBERS {
            etcd.start(member)?;
        }
        let led = async {
            while etcd.leader().await.is_err() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(UP_WITHIN, led).await.context("etcd has no leader")?;
        Ok(etcd)
    }

    async fn channel(&self, member: usize) -> Result<Grpc<Channel>> {
        let endpoint = Endpoint::from_shared(url(self.ports[member].0))?.connect_timeout(ANSWER);
        Ok(Grpc::new(endpoint.connect().await?))
    }
}

impl Side for Etcd {
    type Writer = Putter;

    fn name(&self) -> &'static str {
        "etcd"
    }

    async fn writer(&self, member: usize) -> Result<Putter> {
        Ok(Putter { channel: self.channel(member).await?, number: 0 })
    }

    async fn leader(&self) -> Result<usize> {
        for member in (0..MEMBERS).filter(|member| self.running[*member].is_some()) {
            let mut channel = self.channel(member).await?;
            let asked = call(&mut channel, "/etcdserverpb.Maintenance/Status", StatusRequest {});
            let status: StatusReply = timeout(ANSWER, asked).await.context("no status")??;
            if status.leader != 0 && status.header.is_some_and(|own| own.member_id == status.leader) {
                return Ok(member);
            }
        }
        anyhow::bail!("nobody leads")
    }

    async fn kill(&mut self, member: usize) -> Result<()> {
        if let Some(mut process) = self.running[member].take() {
            process.kill().await?;
        }
        Ok(())
    }

    fn start(&mut self, member: usize) -> Result<()> {
        let all: Vec<String> =
            self.ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}={}", url(*peer))).collect();
        let (client, peer) = self.ports[member];
        let data = self.root.path().join(format!("m{member}"));
        let log = std::fs::File::create(self.root.path().join(format!("m{member}.log")))?;
        let process = Command::new(&self.program)
            .arg("--name")
            .arg(format!("m{member}"))
            .arg("--data-dir")
            .arg(&data)
            .args(["--initial-cluster-state", if data.exists() { "existing" } else { "new" }])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        self.running[member] = Some(process);
        Ok(())
    }
}

/// A client that puts.
pub struct Putter {
    channel: Grpc<Channel>,
    number: usize,
}

impl Writer for Putter {
    async fn write(&mut self) -> Result<()> {
        self.number += 1;
        let key = format!("bench/{}", self.number % 64).into_bytes();
        let put = PutRequest { key, value: vec![7; VALUE_BYTES] };
        let PutReply {} = call(&mut self.channel, "/etcdserverpb.KV/Put", put).await?;
        Ok(())
    }
}
