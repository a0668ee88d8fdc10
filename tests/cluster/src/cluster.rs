//! A platform of one or three coordinators, made with the programs' own commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_model::view::PlatformView;
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::clock::{SharedClock, SystemClock};
use muster_runtime::context::Context;
use tempfile::TempDir;
use tokio::process::Command;

use crate::node::{self, Ended, Node};
use crate::operator::Operator;
use crate::programs;
use crate::wait::until;

/// A platform. Its processes and directories go with it.
pub struct Cluster {
    // First, so that the processes end before their directories go.
    /// The coordinators, in the order in which they joined.
    pub nodes: Vec<Node>,
    /// The first administrator's context file.
    pub context: PathBuf,
    /// The clock of clients.
    pub clock: SharedClock,
    root: TempDir,
}

fn new_root() -> TempDir {
    TempDir::with_prefix("muster").expect("a directory can be made")
}

impl Cluster {
    /// One coordinator that is ready.
    pub async fn single() -> Self {
        Self::formed(new_root(), None).await
    }

    /// One coordinator whose directory is below this one.
    ///
    /// # Panics
    /// Nothing can be made there.
    pub async fn single_at(folder: &Path) -> Self {
        Self::formed(TempDir::with_prefix_in("muster", folder).expect("a directory can be made"), None).await
    }

    /// Three coordinators, each with a vote.
    pub async fn three() -> Self {
        Self::three_with_life(None).await
    }

    /// Three coordinators whose certificates live for some seconds.
    ///
    /// # Panics
    /// One does not come up.
    pub async fn three_with_life(life: Option<u64>) -> Self {
        let mut cluster = Self::formed(new_root(), life).await;
        for name in ["second", "third"] {
            cluster.join(name).await;
        }
        cluster.voters(3).await;
        cluster
    }

    /// Lets another coordinator join and starts it; its place among the nodes.
    ///
    /// # Panics
    /// It cannot join.
    pub async fn join(&mut self, name: &str) -> usize {
        let mut node = Node::new(self.root.path(), name, self.nodes[0].life);
        // The one before does not lead in general and says who does.
        let running = self.nodes.iter().rev().find(|node| node.pid().is_some()).expect("one runs");
        let (own, asked) = (node.address.to_string(), running.address.to_string());
        let token = self.token("coordinator").await;
        let words = ["join", "--coordinator", &asked, "--token", &token, "--advertise", &own, "--name", name];
        let joined = node.once(&words).await;
        assert!(joined.ok, "{joined:?}");
        node.start();
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    async fn formed(root: TempDir, life: Option<u64>) -> Self {
        let context = root.path().join("admin.json");
        let mut first = Node::new(root.path(), "first", life);
        let (own, file) = (first.address.to_string(), context.display().to_string());
        let made = first.once(&["init", "--platform", "shop", "--advertise", &own, "--context", &file]).await;
        assert!(made.ok, "{made:?}");
        first.start();
        let cluster = Self { nodes: vec![first], context, clock: SystemClock::shared(), root };
        cluster.voters(1).await;
        cluster
    }

    /// The directory of everything.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The first administrator at one coordinator.
    #[must_use]
    pub fn operator(&self, node: usize) -> Operator {
        Operator::new(&self.context, self.nodes[node].address, &self.clock)
    }

    /// As [`Self::operator`]; a certificate that is due is renewed first, as the CLI does.
    pub async fn fresh_operator(&self, node: usize) -> Operator {
        let operator = self.operator(node);
        let certificate = PeerCertificate::from_pem(&operator.context.certificate_pem);
        if certificate.is_ok_and(|certificate| certificate.renew_at_ms() > self.clock.now_ms()) {
            return operator;
        }
        match operator.renew(&self.context).await {
            Ok(()) => self.operator(node),
            Err(_) => operator,
        }
    }

    /// What one coordinator says of the platform.
    pub async fn status(&self, node: usize) -> PlatformView {
        until("the platform's status", async || self.fresh_operator(node).await.status().await).await
    }

    /// A join token from the first coordinator that runs.
    pub async fn token(&self, role: &str) -> String {
        until("a token", async || self.fresh_operator(self.running()).await.token(role, 0).await).await
    }

    /// The first coordinator that runs.
    fn running(&self) -> usize {
        self.nodes.iter().position(|node| node.pid().is_some()).unwrap_or_default()
    }

    /// Waits until this many coordinators vote and one leads.
    pub async fn voters(&self, count: usize) {
        until("all vote", async || {
            let view = self
                .fresh_operator(self.running())
                .await
                .status()
                .await
                .map_err(|status| status.to_string())?;
            let voters = view.coordinators.iter().filter(|one| one.voter).count();
            let led = view.coordinators.iter().any(|one| one.leader);
            if voters == count && led { Ok(()) } else { Err(format!("{:?}", view.coordinators)) }
        })
        .await;
    }

    /// Which coordinator leads, as a running one says.
    pub async fn leader(&self) -> usize {
        until("a leader", async || {
            for at in (0..self.nodes.len()).filter(|at| self.nodes[*at].pid().is_some()) {
                let Ok(view) = self.fresh_operator(at).await.status().await else { continue };
                let leader = view.coordinators.iter().find(|one| one.leader);
                let found = leader.and_then(|leader| {
                    self.nodes.iter().position(|n| n.address.to_string() == leader.endpoint)
                });
                if let Some(found) = found.filter(|found| self.nodes[*found].pid().is_some()) {
                    return Ok(found);
                }
            }
            Err("nobody leads")
        })
        .await
    }

    /// Makes a new context with root's rights on one coordinator.
    ///
    /// # Errors
    /// What the program said.
    pub async fn issue(&self, node: usize, name: &str, role: &str) -> Result<PathBuf, Ended> {
        let out = self.root.path().join(format!("{name}.json"));
        let file = out.display().to_string();
        let done =
            self.nodes[node].once(&["admin", "issue", "--name", name, "--role", role, "--out", &file]).await;
        if done.ok { Ok(out) } else { Err(done) }
    }

    /// Runs the CLI with a context, its clock moved as the first coordinator's.
    pub async fn cli(&self, context: &Path, arguments: &[&str]) -> Ended {
        let mut command = Command::new(programs::cli());
        command
            .arg("--context")
            .arg(context)
            .args(arguments)
            .env("HOME", self.root.path())
            .kill_on_drop(true);
        node::move_clock(&mut command, self.nodes[0].clock);
        node::finish(command).await
    }

    /// Serial number of a context's certificate.
    ///
    /// # Panics
    /// The context cannot be read.
    #[must_use]
    pub fn serial(context: &Path) -> String {
        let context = Context::load(context).expect("the context can be read");
        PeerCertificate::from_pem(&context.certificate_pem).expect("it has a certificate").serial
    }

    /// The clients' clock.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        Arc::clone(&self.clock)
    }
}
