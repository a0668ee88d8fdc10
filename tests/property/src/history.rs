//! What clients asked a register and what they were told, in the order of one clock; a library judges it.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use todc_utils::{Action, History as Judged, WGLChecker};

use crate::register::{Call, Operation, Outcome, Register};

/// One call of one client. Its times count from the beginning of the history.
#[derive(Debug, Clone, Copy)]
struct Entry {
    client: usize,
    invoked: Duration,
    /// Its place among all beginnings and ends.
    order: usize,
    call: Call,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    returned: Duration,
    order: usize,
    outcome: Outcome,
}

#[derive(Debug, Clone, Default)]
struct Log {
    entries: Vec<Entry>,
    /// Beginnings and ends so far.
    order: usize,
}

/// The number of an operation, to say later how it ended.
#[derive(Debug, Clone, Copy)]
pub struct Ticket(usize);

/// The calls of several clients.
pub struct History {
    began: Instant,
    log: Mutex<Log>,
}

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), log: Mutex::default() }
    }
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before anything is sent.
    pub fn invoke(&self, client: usize, call: Call) -> Ticket {
        let mut log = self.lock();
        log.order += 1;
        let (invoked, order) = (self.began.elapsed(), log.order);
        log.entries.push(Entry { client, invoked, order, call, end: None });
        Ticket(log.entries.len() - 1)
    }

    /// To be called after the answer has come. A write without this, or with [`Outcome::Open`], stays open; a read
    /// without it says nothing.
    pub fn returned(&self, Ticket(at): Ticket, outcome: Outcome) {
        if outcome == Outcome::Open {
            return;
        }
        let mut log = self.lock();
        log.order += 1;
        let (returned, order) = (self.began.elapsed(), log.order);
        log.entries[at].end = Some(End { returned, order, outcome });
    }

    /// Operations of which the end is known, and writes of which it is not.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let log = self.lock();
        let known = log.entries.iter().filter(|entry| entry.end.is_some()).count();
        let open = |entry: &&Entry| entry.end.is_none() && matches!(entry.call, Call::Write { .. });
        (known, log.entries.iter().filter(open).count())
    }

    /// Whether all of it could have happened one after the other, each at one moment between its call and its end.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        let mut actions = Vec::new();
        for (process, entry) in self.lock().entries.iter().enumerate() {
            let (order, outcome) = match entry.end {
                Some(End { outcome: Outcome::Never, .. }) => continue,
                Some(end) => (end.order, end.outcome),
                None if matches!(entry.call, Call::Write { .. }) => (usize::MAX, Outcome::Open),
                None => continue,
            };
            let operation = Operation { call: entry.call, outcome };
            actions.push((entry.order, process, Action::Call(operation)));
            actions.push((order, process, Action::Response(operation)));
        }
        actions.sort_by_key(|(order, process, _)| (*order, *process));
        if actions.is_empty() {
            return true;
        }
        let actions = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
        WGLChecker::<Register>::is_linearizable(Judged::from_actions(actions))
    }

    /// One line for each operation: client, milliseconds of its call and its end, what, and how it ended.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut out = String::new();
        for entry in &self.lock().entries {
            let end = entry.end.map_or_else(
                || "open".to_owned(),
                |end| format!("{} ms: {:?}", end.returned.as_millis(), end.outcome),
            );
            let begin = entry.invoked.as_millis();
            writeln!(out, "client {} {begin} ms {:?} -> {end}", entry.client, entry.call).expect("memory");
        }
        out
    }

    /// The same history with the last read telling what an earlier one did, that was over before a later value was
    /// written: it must not be taken for linearizable. Absent = there are no such reads.
    #[must_use]
    pub fn with_stale_read(&self) -> Option<Self> {
        let mut log = self.lock().clone();
        let value = |entry: &Entry| match entry.end?.outcome {
            Outcome::Value { value, .. } => Some(value),
            _ => None,
        };
        let last = log.entries.iter().rposition(|entry| value(entry).is_some())?;
        let (now, began) = (value(&log.entries[last])?, log.entries[last].order);
        // Overwritten for certain: another read of another value ended between the two.
        let reads: Vec<(usize, usize, u64, Outcome)> = log
            .entries
            .iter()
            .filter_map(|entry| Some((entry.order, entry.end?.order, value(entry)?, entry.end?.outcome)))
            .collect();
        let old = reads.iter().find(|(_, end, old, _)| {
            let seen_later = |(order, later, value, _): &&(usize, usize, u64, Outcome)| {
                order > end && *later < began && value != old
            };
            *old != now && reads.iter().any(|read| seen_later(&read))
        })?;
        let outcome = old.3;
        log.entries[last].end = log.entries[last].end.map(|end| End { outcome, ..end });
        Some(Self { began: self.began, log: Mutex::new(log) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn write(value: u64) -> Call {
        Call::Write { value, at: None }
    }

    const fn read(value: u64, index: u64) -> Outcome {
        Outcome::Value { value, index: Some(index) }
    }

    /// One operation after the other.
    fn of(steps: &[(Call, Outcome)]) -> History {
        let history = History::default();
        for (client, (call, outcome)) in steps.iter().enumerate() {
            let ticket = history.invoke(client, *call);
            history.returned(ticket, *outcome);
        }
        history
    }

    fn good() -> Vec<(Call, Outcome)> {
        vec![
            (Call::Read, read(0, 1)),
            (write(1), Outcome::Index(5)),
            (Call::Read, read(1, 5)),
            (write(2), Outcome::Index(7)),
            (Call::Read, read(2, 7)),
            (Call::Write { value: 3, at: Some(5) }, Outcome::Refused),
            (Call::Write { value: 3, at: Some(7) }, Outcome::Index(9)),
            (Call::Look, Outcome::Index(9)),
            (Call::Read, read(3, 9)),
        ]
    }

    fn with(at: usize, step: (Call, Outcome)) -> History {
        let mut steps = good();
        steps[at] = step;
        of(&steps)
    }

    #[test]
    fn what_happened_is_accepted_and_each_planted_violation_is_caught() {
        assert!(of(&good()).is_linearizable());
        let wrong = [
            ("a stale read", with(4, (Call::Read, read(1, 5)))),
            ("a stale look", with(7, (Call::Look, Outcome::Index(8)))),
            ("a lost write", with(8, (Call::Read, read(2, 7)))),
            ("a write from nowhere", with(8, (Call::Read, read(4, 9)))),
            ("another place than was told", with(8, (Call::Read, read(3, 10)))),
            ("a place that was given twice", with(3, (write(2), Outcome::Index(5)))),
            (
                "a stale condition that was not refused",
                with(5, (Call::Write { value: 8, at: Some(5) }, Outcome::Index(8))),
            ),
            (
                "a refusal without a reason",
                with(6, (Call::Write { value: 3, at: Some(7) }, Outcome::Refused)),
            ),
        ];
        for (what, history) in wrong {
            assert!(!history.is_linearizable(), "{what}:\n{}", history.lines());
        }
        let mut twice = good();
        // The write of 2 takes effect once more behind the write of 3.
        twice.push((Call::Read, read(2, 12)));
        assert!(!of(&twice).is_linearizable(), "a double apply");
        assert!(!of(&good()).with_stale_read().unwrap().is_linearizable());
    }

    #[test]
    fn what_is_open_may_have_happened_at_any_time_or_never() {
        let seen = |values: &[u64]| {
            let mut steps = vec![(write(1), Outcome::Index(5)), (write(2), Outcome::Open)];
            steps.extend(
                values.iter().map(|value| (Call::Read, Outcome::Value { value: *value, index: None })),
            );
            of(&steps)
        };
        for values in [&[][..], &[1, 1], &[2, 2], &[1, 2]] {
            assert!(seen(values).is_linearizable(), "{values:?}");
        }
        assert!(!seen(&[2, 1]).is_linearizable(), "happened and was lost, or happened twice");
        assert_eq!(seen(&[1]).counts(), (2, 1));
        // What certainly did not happen is not seen later.
        let never = (write(2), Outcome::Never);
        let told = |value| (Call::Read, Outcome::Value { value, index: None });
        assert!(of(&[(write(1), Outcome::Index(5)), never, told(1)]).is_linearizable());
        assert!(!of(&[(write(1), Outcome::Index(5)), never, told(2)]).is_linearizable());
        // Only it can be why this one is refused.
        let refused = (Call::Write { value: 3, at: Some(5) }, Outcome::Refused);
        assert!(of(&[(write(1), Outcome::Index(5)), (write(2), Outcome::Open), refused]).is_linearizable());
        assert!(!of(&[(write(1), Outcome::Index(5)), refused]).is_linearizable());
    }

    #[test]
    fn concurrent_operations_are_taken_in_the_order_that_fits() {
        let history = History::default();
        let (one, two) = (history.invoke(0, write(1)), history.invoke(1, write(2)));
        let early = history.invoke(2, Call::Read);
        history.returned(early, Outcome::Value { value: 2, index: None });
        let late = history.invoke(2, Call::Read);
        history.returned(late, Outcome::Value { value: 1, index: None });
        history.returned(two, Outcome::Index(5));
        history.returned(one, Outcome::Index(6));
        assert!(history.is_linearizable(), "{}", history.lines());
        let after = history.invoke(2, Call::Read);
        history.returned(after, Outcome::Value { value: 2, index: None });
        assert!(!history.is_linearizable(), "{}", history.lines());
    }
}
