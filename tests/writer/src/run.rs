//! The writing itself: one item after the other at a steady rate, reconnecting at once, never repeating one.

use std::time::Duration;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::config::Config;
use crate::engine::{self, Engine, Item, Outcome, Session};
use crate::ledger::Ledger;
use crate::status::Status;

/// Between two tries to connect, after every server was tried.
const RETRY: Duration = Duration::from_millis(20);

/// Writes until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration or the ledger is of no use; nothing that a server does is an error here.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let servers = engine::servers(config)?;
    let status = Status::new();
    let (ledger, last) = Ledger::open(&config.ledger).context("the ledger")?;
    let listener = match &config.listen {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| address.clone())?),
        None => None,
    };
    let serve = async {
        match &listener {
            Some(listener) => status.serve(listener).await,
            None => std::future::pending().await,
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let writer = Writer { config, servers, status: &status, ledger, seq: last };
    tokio::select! {
        result = writer.write() => result,
        () = serve => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// The item of this number.
fn item(run: &str, seq: u64) -> Item {
    let key = format!("{run}/{seq}");
    let value = hex::encode(&Sha256::digest(key.as_bytes())[..8]);
    Item { seq, key, value }
}

struct Writer<'a> {
    config: &'a Config,
    servers: Vec<Box<dyn Engine>>,
    status: &'a Status,
    ledger: Ledger,
    seq: u64,
}

impl Writer<'_> {
    async fn write(mut self) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.config.writes_per_second);
        // After a gap it goes on at its rate, instead of catching up.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut at = 0;
        loop {
            let (session, server) = self.connect(at).await;
            at = server;
            self.write_to(session, server, &mut ticks).await?;
        }
    }

    /// A session with the first server that gives one, beginning with the one at `first`.
    async fn connect(&self, first: usize) -> (Box<dyn Session>, usize) {
        loop {
            for offset in 0..self.servers.len() {
                let server = (first + offset) % self.servers.len();
                if let Ok(session) = self.servers[server].connect().await {
                    return (session, server);
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Writes until an answer is not an acknowledgement.
    async fn write_to(
        &mut self,
        mut session: Box<dyn Session>,
        server: usize,
        ticks: &mut tokio::time::Interval,
    ) -> anyhow::Result<()> {
        loop {
            ticks.tick().await;
            self.seq += 1;
            let item = item(&self.config.run, self.seq);
            self.ledger
                .sent(&item, self.servers[server].label(), self.status.now_ms())
                .context("the ledger")?;
            let outcome = session.write(&self.config.run, &item).await;
            let at = self.status.now_ms();
            self.ledger.answered(item.seq, &outcome, at).context("the ledger")?;
            self.status.count(outcome == Outcome::Acked, at);
            if outcome != Outcome::Acked {
                return Ok(());
            }
        }
    }
}
