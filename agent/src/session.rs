//! The one stream to the leader: beats, reports and logs out; plans, secrets and requests in. Any doubt ends it, and
//! another is begun, for ever.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use muster_model::ids::{HostId, Name};
use muster_model::link::Links;
use muster_model::observed::{Condition, Report};
use muster_model::plan::HostPlan;
use muster_model::time::Timestamp;
use muster_proto::agents::agents_client::AgentsClient;
use muster_proto::agents::{
    AgentHello, Beat, FromAgent, Keepsake, LogChunk, PlanUpdate, ToAgent, from_agent, to_agent,
};
use muster_proto::identity::identity_client::IdentityClient;
use muster_proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use muster_runtime::host_bundle::Kept;
use muster_runtime::secret::Secret;
use muster_runtime::tasks::{OnError, TaskGroup};
use muster_runtime::{dial, rpc};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::enroll::hello;
use crate::files::SecretMap;
use crate::identity_dir::{Coordinator, Link};
use crate::ledger::Accepted;
use crate::logs::Readers;
use crate::reset::DownHost;
use crate::shared::{Shared, UpdateError};

/// Beats come at this interval unless the coordinator asks for another one.
const BEAT: Duration = Duration::from_millis(500);
/// Changes within this time go together.
const COALESCE: Duration = Duration::from_millis(100);
/// A report goes out at least this often.
const REPORT: Duration = Duration::from_secs(10);
/// Without a word for this long the coordinator is gone: it acknowledges every beat.
const SILENCE: Duration = Duration::from_secs(5);
/// First and longest wait between two attempts.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Addresses of one host's members; more are not believed.
const DOWN_ADDRESSES_MAX: usize = 1_000;

/// How a session ended.
enum End {
    /// The answering coordinator does not lead; it knows who does, or not.
    NotLeader(String),
    /// It was one, and broke.
    Broke(String),
    /// It never began.
    Failed(String),
}

/// Runs sessions until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn run(shared: Arc<Shared>, link: Arc<Link>, group: TaskGroup) -> Result<(), Infallible> {
    group.token().run_until_cancelled(sessions(&shared, &link)).await;
    Ok(())
}

async fn sessions(shared: &Arc<Shared>, link: &Arc<Link>) {
    let mut wait = AGAIN.0;
    loop {
        shared.until_silent(false).await;
        let local = TaskGroup::new();
        let end = session(shared, link, &local).await;
        local.drain(Duration::from_secs(1)).await.ok();
        match end {
            End::NotLeader(leader) if !leader.is_empty() => {
                tracing::debug!(leader, "another one leads");
                link.endpoints.prefer(&leader);
                // A hint may be wrong, and then the next one too: never a busy loop.
                wait = wait.max(AGAIN.0);
            }
            End::NotLeader(_) => try_next(link),
            End::Broke(why) => {
                tracing::info!(why, "session ended");
                wait = AGAIN.0;
            }
            End::Failed(why) => {
                tracing::debug!(why, "no session");
                try_next(link);
            }
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

/// The first endpoint answered and was no use.
fn try_next(link: &Link) {
    let mut list = Vec::clone(&link.endpoints.list());
    if !list.is_empty() {
        list.rotate_left(1);
        link.endpoints.replace(list);
    }
}

/// Between half and all of the span.
fn jittered(span: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness all wait the whole span.
    if getrandom::fill(&mut byte).is_err() {
        byte[0] = u8::MAX;
    }
    span / 2 + span / 2 * u32::from(byte[0]) / u32::from(u8::MAX)
}

async fn session(shared: &Arc<Shared>, link: &Arc<Link>, local: &TaskGroup) -> End {
    let opened = open(shared, link).await;
    let (mut inbound, out, beat) = match opened {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    tracing::info!("session with the leader");
    let (log_out, log_in) = mpsc::channel(4);
    let speaker = Speaker { shared: Arc::clone(shared), out, logs: log_in, beat };
    local.spawn("beats", OnError::Shutdown, speaker.run());
    let mut readers = Readers::new(Arc::clone(shared), local.clone(), log_out);
    let ended = local.token();
    loop {
        let word = tokio::select! {
            word = tokio::time::timeout(SILENCE, inbound.message()) => word,
            () = ended.cancelled() => return End::Broke("the stream out is closed".to_owned()),
            () = shared.until_silent(true) => return End::Broke("a drill makes this host silent".to_owned()),
        };
        let message = match word {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return End::Broke("the coordinator closed it".to_owned()),
            Ok(Err(status)) => return End::Broke(status.message().to_owned()),
            Err(_) => return End::Broke(format!("no word for {SILENCE:?}")),
        };
        match message.message {
            Some(to_agent::Message::Ack(ack)) => {
                shared.images.leader_says(ack.quiet);
                shared.tell_down(ack.down.iter().filter_map(down_host).collect());
                let addresses = ack.coordinators.into_iter();
                let learned =
                    link.learn(addresses.map(|address| Coordinator { address, key: None }).collect());
                if let Err(error) = learned {
                    tracing::warn!(%error, "coordinators cannot be recorded");
                }
            }
            Some(to_agent::Message::Plan(update)) => take_plan(shared, link, update).await,
            Some(to_agent::Message::Log(request)) => readers.handle(&request),
            Some(to_agent::Message::Image(offer)) => shared.images.offer(offer),
            Some(to_agent::Message::Keepsake(keepsake)) => keep(shared, keepsake).await,
            Some(to_agent::Message::NotLeader(hint)) => return End::NotLeader(hint.leader),
            Some(to_agent::Message::Welcome(_)) | None => {}
        }
    }
}

type Opened = (Streaming<ToAgent>, mpsc::Sender<FromAgent>, Duration);

async fn open(shared: &Shared, link: &Link) -> Result<Opened, End> {
    let failed = |status: tonic::Status| match dial::unreachable(&status) {
        Some(unreachable) => End::Failed(unreachable.to_string()),
        None => End::Failed(status.message().to_owned()),
    };
    let tls = link.tls.client_config().map_err(|error| End::Failed(error.to_string()))?;
    let channel = dial::channel(Arc::clone(&link.endpoints), tls);
    let mut identity = IdentityClient::new(channel.clone());
    rpc::within(rpc::CALL, identity.hello(hello())).await.map_err(failed)?;
    let mut client = AgentsClient::new(channel)
        .max_decoding_message_size(rpc::MESSAGE_MAX)
        .max_encoding_message_size(rpc::MESSAGE_MAX);
    let (out, outbound) = mpsc::channel(4);
    out.try_send(said(from_agent::Message::Hello(introduction(shared, link)))).ok();
    let call = client.session(ReceiverStream::new(outbound));
    let mut inbound = rpc::within(rpc::CALL, call).await.map_err(failed)?.into_inner();
    let first = rpc::within(rpc::CALL, inbound.message()).await.map_err(failed)?;
    match first.and_then(|message| message.message) {
        Some(to_agent::Message::Welcome(welcome)) => {
            let asked = Duration::from_millis(u64::from(welcome.beat_every_ms));
            let beat = if asked.is_zero() { BEAT } else { asked.clamp(BEAT / 10, BEAT * 4) };
            Ok((inbound, out, beat))
        }
        Some(to_agent::Message::NotLeader(hint)) => Err(End::NotLeader(hint.leader)),
        _ => Err(End::Failed("no welcome".to_owned())),
    }
}

fn introduction(shared: &Shared, link: &Link) -> AgentHello {
    let generation = shared.generation();
    AgentHello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: Vec::new(),
        boot: shared.boot.0.clone(),
        incarnation: generation.incarnation,
        plan_counter: generation.counter,
        adopted: link.dir.record().is_ok_and(|record| record.adopted),
    }
}

const fn said(message: from_agent::Message) -> FromAgent {
    FromAgent { message: Some(message) }
}

/// What cannot be read is left out: then nothing is reset for that host.
fn down_host(said: &muster_proto::agents::DownHost) -> Option<DownHost> {
    let addresses = said.addresses.iter().take(DOWN_ADDRESSES_MAX).map(|address| address.parse());
    Some(DownHost {
        host: HostId::new(said.host.as_str()).ok()?,
        name: Name::new(said.name.as_str()).ok()?,
        addresses: addresses.collect::<Result<_, _>>().ok()?,
    })
}

async fn take_plan(shared: &Shared, link: &Link, update: PlanUpdate) {
    let plan: HostPlan = match serde_json::from_slice(&update.plan) {
        Ok(plan) => plan,
        Err(error) => {
            let text = format!(
                "a plan came that cannot be read: {error}; is this agent older than its coordinator?"
            );
            return shared.say("plan", vec![Condition { code: "foreign-plan".to_owned(), text }]);
        }
    };
    let generation = plan.generation;
    let secrets: SecretMap =
        update.secrets.into_iter().map(|(name, value)| (name, Secret::new(value.to_vec()))).collect();
    match shared.accept(plan, secrets).await {
        Ok(Accepted::Newer) => {
            tracing::info!(%generation, "plan accepted");
            shared.images.bell.notify_one();
            if let Err(error) = link.adoption_done() {
                tracing::warn!(%error, "adoption cannot be recorded");
            }
        }
        Ok(Accepted::Same) => {}
        Err(UpdateError::Refused(error)) => tracing::warn!(%error, "plan refused"),
        Err(error) => {
            tracing::error!(%error, "plan not taken");
            let text = format!("{error}; the host goes on with its old plan");
            shared.say("plan", vec![Condition { code: "plan-not-stored".to_owned(), text }]);
        }
    }
}

/// A disk that refuses is told by what matters more; the coordinator sends it again with its next change.
async fn keep(shared: &Shared, keepsake: Keepsake) {
    let Ok(body) = String::from_utf8(keepsake.body.to_vec()) else { return };
    let kept = Kept { incarnation: keepsake.incarnation, index: keepsake.index, body };
    if let Err(error) = shared.keep(kept).await {
        tracing::warn!(%error, "what a rebuild would need is not kept");
    }
}

/// The outgoing half: beats first, then reports, then logs.
struct Speaker {
    shared: Arc<Shared>,
    out: mpsc::Sender<FromAgent>,
    logs: mpsc::Receiver<LogChunk>,
    beat: Duration,
}

impl Speaker {
    async fn run(mut self) -> Result<(), String> {
        let mut beats = tokio::time::interval(self.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0;
        let mut sent: Option<Report> = None;
        let mut sent_at = Instant::now();
        let mut due = sent_at;
        loop {
            let message = tokio::select! {
                biased;
                _ = beats.tick() => {
                    sequence += 1;
                    Some(self.beat(sequence))
                }
                () = tokio::time::sleep_until(due) => {
                    let report = self.shared.report();
                    due = Instant::now() + REPORT;
                    let news = sent.as_ref().is_none_or(|old| comparable(old) != comparable(&report));
                    if news || sent_at.elapsed() + COALESCE >= REPORT {
                        sent_at = Instant::now();
                        let text = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
                        sent = Some(report);
                        Some(from_agent::Message::Report(text.into()))
                    } else {
                        due = sent_at + REPORT;
                        None
                    }
                }
                () = self.shared.changed.notified() => {
                    due = due.min((sent_at + COALESCE).max(Instant::now() + COALESCE / 10));
                    None
                }
                Some(chunk) = self.logs.recv() => Some(from_agent::Message::Log(chunk)),
            };
            if let Some(message) = message {
                self.out.send(said(message)).await.map_err(|_| "the stream is closed".to_owned())?;
            }
        }
    }

    fn beat(&self, sequence: u64) -> from_agent::Message {
        let generation = self.shared.generation();
        from_agent::Message::Beat(Beat {
            sequence,
            incarnation: generation.incarnation,
            plan_counter: generation.counter,
        })
    }
}

/// A report without what changes all the time.
fn comparable(report: &Report) -> Report {
    let mut report = report.clone();
    for probe in report.members.iter_mut().flat_map(|member| &mut member.probes) {
        probe.at = Timestamp::default();
        probe.took_ms = 0;
    }
    report.links = report.links.as_ref().map(Links::without_times);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_spread_over_its_upper_half() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(1));
            assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&wait));
        }
    }
}
