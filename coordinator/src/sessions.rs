//! Agents connected to this node while it leads: what they said last, and the way to talk to them. Nothing of this is
//! replicated; a new leader starts with none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_model::ids::{BootId, Generation, HostId};
use muster_model::observed::Report;
use muster_proto::agents::{LogChunk, LogRequest, NotLeader, ToAgent, to_agent};
use tokio::sync::{mpsc, watch};

/// Messages that wait for a slow agent before its session is given up.
const QUEUE: usize = 64;
/// Chunks of logs that wait for a slow reader.
const LOG_QUEUE: usize = 32;

/// One agent's session.
#[derive(Debug)]
struct Session {
    number: u64,
    boot: BootId,
    to: mpsc::Sender<ToAgent>,
    beat: Duration,
    /// Newest plan that was handed to the session.
    sent: Generation,
    report: Option<Arc<Report>>,
}

#[derive(Debug, Default)]
struct Tables {
    next: u64,
    open: bool,
    by_host: BTreeMap<HostId, Session>,
    logs: BTreeMap<u64, (HostId, mpsc::Sender<LogChunk>)>,
}

/// All sessions of the leader.
#[derive(Debug, Clone)]
pub struct Sessions {
    tables: Arc<Mutex<Tables>>,
    changed: watch::Sender<u64>,
}

/// A session as the leader's duties see it.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Never that of another session of this leader.
    pub number: u64,
    /// The agent's run.
    pub boot: BootId,
    /// When it beat last, by the monotonic clock.
    pub beat: Duration,
    /// Newest plan that was handed to the session.
    pub sent: Generation,
    /// What it said last.
    pub report: Option<Arc<Report>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { tables: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Sessions {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Wakes whenever a session begins, ends or reports.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// This node leads from now on: sessions are welcome.
    pub fn open(&self) {
        self.tables().open = true;
    }

    /// This node no longer leads: every session is told where to go, and ends.
    pub fn close(&self, leader: Option<String>) {
        let mut tables = self.tables();
        tables.open = false;
        for session in std::mem::take(&mut tables.by_host).into_values() {
            let message =
                to_agent::Message::NotLeader(NotLeader { leader: leader.clone().unwrap_or_default() });
            // A full queue ends the session too.
            drop(session.to.try_send(ToAgent { message: Some(message) }));
        }
        tables.logs.clear();
        drop(tables);
        self.touch();
    }

    /// Begins a session; an older one of the same host ends. Absent = this node does not lead.
    #[must_use]
    pub fn begin(
        &self,
        host: &HostId,
        boot: BootId,
        now: Duration,
    ) -> Option<(u64, mpsc::Receiver<ToAgent>)> {
        let mut tables = self.tables();
        if !tables.open {
            return None;
        }
        tables.next += 1;
        let number = tables.next;
        let (to, from) = mpsc::channel(QUEUE);
        let session = Session { number, boot, to, beat: now, sent: Generation::default(), report: None };
        tables.by_host.insert(host.clone(), session);
        drop(tables);
        self.touch();
        Some((number, from))
    }

    /// Ends a session, unless a newer one took its place.
    pub fn end(&self, host: &HostId, number: u64) {
        let mut tables = self.tables();
        if tables.by_host.get(host).is_some_and(|session| session.number == number) {
            tables.by_host.remove(host);
            tables.logs.retain(|_, (from, _)| from != host);
        }
        drop(tables);
        self.touch();
    }

    fn with<T>(&self, host: &HostId, number: u64, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut tables = self.tables();
        tables.by_host.get_mut(host).filter(|session| session.number == number).map(act)
    }

    /// A beat arrived. False = the session is over.
    #[must_use]
    pub fn beat(&self, host: &HostId, number: u64, now: Duration) -> bool {
        self.with(host, number, |session| session.beat = now).is_some()
    }

    /// A report arrived.
    pub fn report(&self, host: &HostId, number: u64, report: Report) {
        let known = self.with(host, number, |session| session.report = Some(Arc::new(report)));
        if known.is_some() {
            self.touch();
        }
    }

    /// Sends to a host's agent. False = there is no session, or it is too slow and was ended.
    #[must_use]
    pub fn send(&self, host: &HostId, message: to_agent::Message) -> bool {
        let mut tables = self.tables();
        let Some(session) = tables.by_host.get(host) else { return false };
        if session.to.try_send(ToAgent { message: Some(message) }).is_ok() {
            return true;
        }
        tables.by_host.remove(host);
        drop(tables);
        self.touch();
        false
    }

    /// Notes which plan a host was sent.
    pub fn sent(&self, host: &HostId, generation: Generation) {
        if let Some(session) = self.tables().by_host.get_mut(host) {
            session.sent = generation;
        }
    }

    /// All sessions as they are now.
    #[must_use]
    pub fn views(&self) -> BTreeMap<HostId, SessionView> {
        let view = |session: &Session| SessionView {
            number: session.number,
            boot: session.boot.clone(),
            beat: session.beat,
            sent: session.sent,
            report: session.report.clone(),
        };
        self.tables().by_host.iter().map(|(host, session)| (host.clone(), view(session))).collect()
    }

    /// Asks a host's agent for a member's output. Absent = no session.
    #[must_use]
    pub fn logs(&self, host: &HostId, mut request: LogRequest) -> Option<(u64, mpsc::Receiver<LogChunk>)> {
        let (to, from) = mpsc::channel(LOG_QUEUE);
        let number = {
            let mut tables = self.tables();
            tables.next += 1;
            let number = tables.next;
            tables.logs.insert(number, (host.clone(), to));
            number
        };
        request.request = number;
        if self.send(host, to_agent::Message::Log(request)) {
            return Some((number, from));
        }
        self.tables().logs.remove(&number);
        None
    }

    /// A chunk of output arrived; it goes to its reader, or nowhere if the reader is gone or too slow.
    pub async fn log_chunk(&self, host: &HostId, chunk: LogChunk) {
        let number = chunk.request;
        let reader =
            self.tables().logs.get(&number).filter(|(from, _)| from == host).map(|(_, to)| to.clone());
        let ended = chunk.end;
        let delivered = match reader {
            Some(to) => tokio::time::timeout(Duration::from_secs(2), to.send(chunk))
                .await
                .is_ok_and(|sent| sent.is_ok()),
            None => false,
        };
        if !delivered || ended {
            self.end_logs(number);
        }
    }

    /// The reader of a member's output went away.
    pub fn end_logs(&self, number: u64) {
        let Some((host, _)) = self.tables().logs.remove(&number) else { return };
        let cancel = LogRequest { request: number, cancel: true, ..LogRequest::default() };
        // If the agent is gone, so is its output.
        let _ = self.send(&host, to_agent::Message::Log(cancel));
    }
}

/// JSON for a message's body.
#[must_use]
pub fn json<T: serde::Serialize>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("plain data always has a JSON form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostId {
        HostId::new("0123456789abcdef").unwrap()
    }

    #[test]
    fn only_a_leader_welcomes_sessions_and_a_newer_one_replaces_the_older() {
        let sessions = Sessions::default();
        let boot = || BootId("a".to_owned());
        assert!(sessions.begin(&host(), boot(), Duration::ZERO).is_none());
        sessions.open();
        let (first, mut from_first) = sessions.begin(&host(), boot(), Duration::ZERO).unwrap();
        let (second, _from_second) = sessions.begin(&host(), boot(), Duration::ZERO).unwrap();
        assert!(from_first.try_recv().is_err());
        assert!(!sessions.beat(&host(), first, Duration::ZERO));
        sessions.end(&host(), first);
        assert!(sessions.beat(&host(), second, Duration::ZERO));
        sessions.close(Some("10.0.0.1:7400".to_owned()));
        assert!(!sessions.beat(&host(), second, Duration::ZERO));
    }
}
