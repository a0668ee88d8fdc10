//! When a stopped member is started again. Pure: it keeps count and time, and touches no engine.

use std::collections::BTreeSet;

use muster_model::observed::Refusal;
use muster_model::time::{Millis, Timestamp};

use crate::release::Episode;

/// Wait before the second restart; it doubles with each further one.
pub const FIRST_DELAY: Millis = Millis(500);
/// Longest wait before a restart.
pub const LONGEST_DELAY: Millis = Millis(30_000);
/// Wait before a guard that did not hold is asked again.
pub const GUARD_AGAIN: Millis = Millis(2_000);
/// A run of this length ends the counting.
pub const HEALTHY_AFTER: Millis = Millis(60_000);

/// What an agent remembers of one member between two looks at the engine. Lost with the agent, on purpose: after a
/// reboot everything is started at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Runs that did not last, and starts that failed, since it last ran for [`HEALTHY_AFTER`].
    pub crashes: u32,
    /// Restarts made by ourselves since the container was created.
    pub restarts: u32,
    /// Times that it handed its leading role over after a stop.
    pub releases: u32,
    /// Not started before this time.
    pub next_start: Timestamp,
    /// A drill holds it back until this time, whatever else is so.
    pub held_until: Option<Timestamp>,
    /// Why the last start failed.
    pub problem: Option<Refusal>,
    /// The guard that did not let it be stopped, and when it is asked again.
    pub refused: Option<(String, Timestamp)>,
    /// What is under way leaves it running: its guard is being asked, its files are read anew, it gets a network.
    pub untouched: bool,
    /// Actions that a changed file asked for and that were not carried out yet.
    pub reloads: BTreeSet<String>,
    /// What it does, as far as we know.
    pub phase: Phase,
}

/// What a member's container does, in the agent's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not seen since this agent began.
    #[default]
    Unseen,
    /// Running; the time is our own, not the engine's, so that a moved clock changes nothing.
    Running {
        /// When we first saw it so.
        since: Timestamp,
    },
    /// We stopped it because the plan says so.
    StoppedByPlan,
    /// It stopped without being told to.
    Crashed(Episode),
}

impl Memory {
    /// Takes in what the engine says. `ran_before` = this member was started at some time, perhaps by an earlier
    /// agent: then finding it stopped for the first time is a crash (a reboot) too.
    pub fn observe(&mut self, now: Timestamp, running: bool, ran_before: bool) {
        match (&self.phase, running) {
            (Phase::Running { since }, true) => {
                if now.since(*since) >= HEALTHY_AFTER {
                    self.crashes = 0;
                }
            }
            (_, true) => {
                self.phase = Phase::Running { since: now };
                self.problem = None;
            }
            (Phase::Running { since }, false) => {
                let since = *since;
                self.crashed(now, since);
            }
            (Phase::Unseen, false) if ran_before => {
                self.crashes = 1;
                self.next_start = now;
                self.phase = Phase::Crashed(Episode::default());
            }
            (Phase::Unseen | Phase::StoppedByPlan | Phase::Crashed(_), false) => {}
        }
    }

    /// The engine confirmed a start.
    pub fn started(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Crashed(_)) {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.problem = None;
        self.phase = Phase::Running { since: now };
    }

    /// A start, or what has to come before it, failed.
    pub fn start_failed(&mut self, now: Timestamp, why: Refusal) {
        self.crashes = self.crashes.saturating_add(1);
        self.next_start = now.after(delay(self.crashes));
        self.problem = Some(why);
    }

    /// We stop it, or stopped it, because the plan says so.
    pub fn stopped_by_plan(&mut self) {
        self.phase = Phase::StoppedByPlan;
        self.crashes = 0;
        self.next_start = Timestamp::default();
    }

    /// Its guard did not hold: it was not stopped after all, and runs.
    pub fn stop_refused(&mut self, now: Timestamp, guard: String) {
        self.refused = Some((guard, now.after(GUARD_AGAIN)));
        self.phase = Phase::Running { since: now };
    }

    /// A new container: it was not restarted yet.
    pub fn created(&mut self) {
        self.restarts = 0;
    }

    /// A drill holds the next start back; the hold ends by itself.
    pub fn hold(&mut self, until: Timestamp) {
        self.held_until = Some(until);
    }

    /// Restarts in place that failed since the first stop of this spell.
    #[must_use]
    pub const fn failed_restarts(&self) -> u32 {
        self.crashes.saturating_sub(1)
    }

    /// Why it is not started now; absent = it may be.
    #[must_use]
    pub fn must_wait(&self, now: Timestamp) -> Option<Refusal> {
        if let Some(until) = self.held_until.filter(|until| *until > now) {
            return Some(Refusal::Held { until });
        }
        if self.next_start > now {
            let back_off = Refusal::BackingOff { until: self.next_start };
            return Some(self.problem.clone().unwrap_or(back_off));
        }
        None
    }

    fn crashed(&mut self, now: Timestamp, since: Timestamp) {
        if now.since(since) >= HEALTHY_AFTER {
            self.crashes = 0;
        }
        self.next_start = now.after(delay(self.crashes));
        self.crashes = self.crashes.saturating_add(1);
        self.phase = Phase::Crashed(Episode::default());
    }
}

/// Wait after `crashes` earlier failures: none at first, then half a second, doubling.
#[must_use]
pub fn delay(crashes: u32) -> Millis {
    let Some(doublings) = crashes.checked_sub(1) else { return Millis(0) };
    let factor = 1_u64.checked_shl(doublings.min(16)).unwrap_or(u64::MAX);
    Millis(FIRST_DELAY.0.saturating_mul(factor).min(LONGEST_DELAY.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_at_once_then_after_half_a_second_doubling_to_thirty() {
        let waits: Vec<u64> = (0..9).map(|n| delay(n).0).collect();
        assert_eq!(waits, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn a_crash_loop_backs_off_and_a_minute_of_health_forgets_it() {
        let mut memory = Memory::default();
        let mut now = Timestamp(1_000);
        memory.started(now);
        for wait in [0, 500, 1000, 2000] {
            memory.observe(now, false, true);
            assert_eq!(memory.next_start.since(now), Millis(wait));
            now = memory.next_start;
            assert_eq!(memory.must_wait(now), None);
            memory.started(now);
        }
        assert_eq!(memory.failed_restarts(), 3);
        assert_eq!(memory.restarts, 4);
        memory.observe(now.after(HEALTHY_AFTER), true, true);
        assert_eq!(memory.failed_restarts(), 0);
        memory.observe(now.after(HEALTHY_AFTER), false, true);
        assert_eq!(memory.next_start, now.after(HEALTHY_AFTER));
    }

    #[test]
    fn a_hold_outlasts_the_back_off_and_ends_by_itself() {
        let mut memory = Memory::default();
        memory.hold(Timestamp(5_000));
        assert_eq!(memory.must_wait(Timestamp(4_999)), Some(Refusal::Held { until: Timestamp(5_000) }));
        assert_eq!(memory.must_wait(Timestamp(5_000)), None);
    }

    #[test]
    fn a_reboot_is_a_crash_of_what_ran_and_no_crash_of_what_never_did() {
        let mut ran = Memory::default();
        ran.observe(Timestamp(7), false, true);
        assert_eq!(ran.phase, Phase::Crashed(Episode::default()));
        assert_eq!(ran.must_wait(Timestamp(7)), None);
        let mut fresh = Memory::default();
        fresh.observe(Timestamp(7), false, false);
        assert_eq!(fresh.phase, Phase::Unseen);
    }

    #[test]
    fn a_planned_stop_is_no_crash() {
        let mut memory = Memory::default();
        memory.started(Timestamp(1));
        memory.stopped_by_plan();
        memory.observe(Timestamp(2), false, true);
        assert_eq!((memory.phase.clone(), memory.crashes), (Phase::StoppedByPlan, 0));
    }
}
