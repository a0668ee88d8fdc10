//! Images on their way to hosts: who has which, whose turn it is, when it is over. In memory of the coordinator that
//! leads; nothing of it is replicated, and a command that is repeated at a new leader begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_model::ids::{HostId, Name};
use muster_model::image::{PushHostView, PushState, PushView};
use muster_proto::agents::ImageOffer;

/// Hosts that fetch at the same time: bounds what the coordinator holds in memory and sends at once.
pub const AT_ONCE: usize = 4;
/// Pushes that are remembered, and those that are under way.
const REMEMBERED: usize = 32;
const UNDER_WAY: usize = 2;
/// A question without an answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A host that fetches, without a word for so long, is told again.
const TELL_AGAIN: Duration = Duration::from_secs(15);
/// The engine takes long to load.
const LOADING: Duration = Duration::from_secs(60);
/// A host without a session is waited for so long: after a change of leader all come back.
const ABSENT: Duration = Duration::from_secs(15);
/// A host that is connected and not busy with another image answers within this: one of an older version never does.
const MUTE: Duration = Duration::from_secs(120);
/// An operator's program that was not heard of for so long is gone.
const IDLE: Duration = Duration::from_secs(120);
/// Results are kept so long.
const RESULTS: Duration = Duration::from_secs(600);

/// What is to be brought where.
#[derive(Debug, Clone)]
pub struct Order {
    /// Digest of the archive.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
    /// What is in it.
    pub names: Vec<String>,
    /// Ids that an engine may give it.
    pub ids: Vec<String>,
    /// Where to.
    pub hosts: Vec<(HostId, Name)>,
    /// Given up after so long.
    pub deadline: Duration,
}

#[derive(Debug)]
struct Progress {
    name: Name,
    state: PushState,
    bytes: u64,
    text: String,
    begun: Duration,
    /// The last word of it, or to it.
    last: Option<Duration>,
}

#[derive(Debug)]
struct Push {
    order: Order,
    /// The whole archive is here, and is what it should be.
    ready: bool,
    gives_up: Duration,
    /// When its operator was last heard of.
    heard: Duration,
    hosts: BTreeMap<HostId, Progress>,
}

/// All of them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pushes(Arc<Mutex<BTreeMap<String, Push>>>);

impl Push {
    fn is_over(&self) -> bool {
        self.hosts.values().all(|host| host.state.is_final())
    }

    fn join(&mut self, order: Order, now: Duration) {
        self.heard = now;
        self.gives_up = now + order.deadline;
        for (id, name) in &order.hosts {
            let host = self.hosts.entry(id.clone()).or_insert_with(|| Progress::new(name, now));
            if host.state == PushState::Failed {
                *host = Progress::new(name, now);
            }
        }
        self.order = order;
    }

    fn fail_all(&mut self, why: &str) {
        for host in self.hosts.values_mut().filter(|host| !host.state.is_final()) {
            host.fail(why);
        }
    }
}

impl Progress {
    fn new(name: &Name, now: Duration) -> Self {
        let state = PushState::Asked;
        Self { name: name.clone(), state, bytes: 0, text: String::new(), begun: now, last: None }
    }

    fn fail(&mut self, why: &str) {
        self.state = PushState::Failed;
        why.clone_into(&mut self.text);
    }

    fn is_mute(&self, now: Duration) -> bool {
        self.state == PushState::Asked && now.saturating_sub(self.begun) >= MUTE
    }

    fn quiet_for(&self, span: Duration, now: Duration) -> bool {
        self.last.is_none_or(|last| now.saturating_sub(last) >= span)
    }
}

impl Pushes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Push>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one, or goes on with it: hosts that failed are asked again.
    ///
    /// # Errors
    /// Too many are under way.
    pub fn begin(&self, order: Order, now: Duration) -> Result<(), String> {
        let mut all = self.all();
        if let Some(push) = all.get_mut(&order.sha256).filter(|push| !push.is_over()) {
            push.join(order, now);
            return Ok(());
        }
        let active = |push: &&Push| !push.is_over() && now.saturating_sub(push.heard) < IDLE;
        let others: Vec<String> =
            all.values().filter(active).map(|push| push.order.names.join(", ")).collect();
        if others.len() >= UNDER_WAY {
            return Err(format!("{} are being pushed: wait until one of them is done", others.join(" and ")));
        }
        if all.len() >= REMEMBERED {
            all.retain(|_, push| !push.is_over());
        }
        let gives_up = now + order.deadline;
        let hosts = order.hosts.iter().map(|(id, name)| (id.clone(), Progress::new(name, now))).collect();
        all.insert(order.sha256.clone(), Push { order, ready: false, gives_up, heard: now, hosts });
        Ok(())
    }

    /// Size of an archive that is expected; absent = none of this digest.
    #[must_use]
    pub fn expected(&self, sha256: &str, now: Duration) -> Option<u64> {
        let mut all = self.all();
        let push = all.get_mut(sha256).filter(|push| !push.is_over() && !push.ready)?;
        push.heard = now;
        Some(push.order.size)
    }

    /// All of an archive is here; `right` = it has its digest.
    pub fn arrived(&self, sha256: &str, right: bool) {
        if let Some(push) = self.all().get_mut(sha256) {
            push.ready = right;
            if !right {
                push.fail_all("what arrived at the coordinator is not what was sent: push it again");
            }
        }
    }

    /// Whether this host may fetch from `offset` on.
    #[must_use]
    pub fn may_fetch(&self, host: &HostId, sha256: &str, offset: u64, now: Duration) -> bool {
        let mut all = self.all();
        let Some(push) = all.get_mut(sha256).filter(|push| push.ready) else { return false };
        let Some(progress) = push.hosts.get_mut(host) else { return false };
        if progress.state != PushState::Receiving {
            return false;
        }
        progress.bytes = offset.min(push.order.size);
        progress.last = Some(now);
        true
    }

    /// What a host says. The last word stays the last.
    pub fn answered(&self, host: &HostId, sha256: &str, state: PushState, text: &str, now: Duration) {
        let mut all = self.all();
        let Some(progress) = all.get_mut(sha256).and_then(|push| push.hosts.get_mut(host)) else { return };
        let asks_only = matches!(state, PushState::Asked | PushState::Receiving);
        // An answer to an older question does not give a turn back.
        let late = state == PushState::Wanted && progress.state != PushState::Asked;
        if progress.state.is_final() || asks_only || late {
            return;
        }
        progress.state = state;
        text.clone_into(&mut progress.text);
        progress.last = Some(now);
    }

    /// What to say to whom now, among the hosts with a session.
    #[must_use]
    pub fn due(&self, connected: &[HostId], now: Duration) -> Vec<(HostId, ImageOffer)> {
        let mut all = self.all();
        let receives = |host: &&Progress| host.state == PushState::Receiving;
        let mut turns = AT_ONCE
            .saturating_sub(all.values().flat_map(|push| push.hosts.values()).filter(receives).count());
        let busy = busy(&all);
        let mut said = Vec::new();
        for push in all.values_mut() {
            if now >= push.gives_up {
                push.fail_all("not done in time: push it again, with a longer --timeout");
            }
            let offer = |ready| ImageOffer {
                sha256: push.order.sha256.clone(),
                size: push.order.size,
                names: push.order.names.clone(),
                ids: push.order.ids.clone(),
                ready,
            };
            for (id, host) in &mut push.hosts {
                let here = connected.contains(id);
                if here && !busy.contains(id) && host.is_mute(now) {
                    host.fail("its agent does not answer: is it older than the coordinator?");
                }
                if let Some(ready) = next_word(host, here, push.ready, turns, now) {
                    turns -= usize::from(host.state == PushState::Wanted);
                    if ready && host.state == PushState::Wanted {
                        host.state = PushState::Receiving;
                    }
                    host.last = Some(now);
                    said.push((id.clone(), offer(ready)));
                }
            }
        }
        said
    }

    /// Forgets what is long over; archives that nobody needs any more.
    #[must_use]
    pub fn over(&self, now: Duration) -> Vec<String> {
        let mut all = self.all();
        all.retain(|_, push| now.saturating_sub(push.heard) < RESULTS || !push.is_over());
        all.values().filter(|push| push.is_over()).map(|push| push.order.sha256.clone()).collect()
    }

    /// Digests of those that are under way.
    #[must_use]
    pub fn under_way(&self) -> Vec<String> {
        self.all().values().filter(|push| !push.is_over()).map(|push| push.order.sha256.clone()).collect()
    }

    /// One of them, for its operator; `received` = bytes that are here.
    #[must_use]
    pub fn view(&self, sha256: &str, received: u64, now: Duration) -> Option<PushView> {
        let mut all = self.all();
        let push = all.get_mut(sha256)?;
        push.heard = now;
        let hosts = push.hosts.values().map(|host| PushHostView {
            host: host.name.clone(),
            state: host.state,
            bytes: host.bytes,
            text: host.text.clone(),
        });
        let mut hosts: Vec<PushHostView> = hosts.collect();
        hosts.sort_by(|a, b| a.host.cmp(&b.host));
        Some(PushView {
            sha256: push.order.sha256.clone(),
            names: push.order.names.clone(),
            bytes: push.order.size,
            received: if push.ready { push.order.size } else { received },
            hosts,
        })
    }
}

/// Hosts that are at work with some image.
fn busy(all: &BTreeMap<String, Push>) -> BTreeSet<HostId> {
    let at_work = |host: &Progress| matches!(host.state, PushState::Receiving | PushState::Loading);
    let hosts = all.values().flat_map(|push| &push.hosts);
    hosts.filter(|(_, host)| at_work(host)).map(|(id, _)| id.clone()).collect()
}

/// What a host is told now: whether it can fetch. Absent = nothing. A host that stays away is given up.
fn next_word(host: &mut Progress, here: bool, ready: bool, turns: usize, now: Duration) -> Option<bool> {
    match host.state {
        PushState::Asked if !here && now.saturating_sub(host.begun) >= ABSENT => {
            host.fail("its agent is not connected: push again when it is back");
            None
        }
        _ if !here => None,
        PushState::Asked => host.quiet_for(ASK_AGAIN, now).then_some(false),
        PushState::Wanted => (ready && turns > 0).then_some(true),
        PushState::Receiving => host.quiet_for(TELL_AGAIN, now).then_some(true),
        PushState::Loading => host.quiet_for(LOADING, now).then_some(true),
        PushState::Had | PushState::Loaded | PushState::Failed => None,
    }
}

#[cfg(test)]
#[path = "pushes_tests.rs"]
mod tests;
