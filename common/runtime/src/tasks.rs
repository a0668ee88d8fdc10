//! The only place that starts tasks: each has a name, a policy for its failure, and an end that is waited for.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// What the failure (error or panic) of a task does to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The whole group is cancelled; [`TaskGroup::drain`] returns the failure.
    Shutdown,
    /// It is logged, everything else goes on.
    Log,
}

/// Why a group ended, or did not end cleanly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskFailure {
    /// A task with [`OnError::Shutdown`] failed.
    #[error("task `{name}` failed: {reason}")]
    Failed {
        /// Name of the task.
        name: &'static str,
        /// Its error, or the text of its panic.
        reason: String,
    },
    /// Tasks did not end in time and were dropped where they stood.
    #[error("tasks did not end within {deadline:?}: {}", names.join(", "))]
    Unfinished {
        /// How long they had.
        deadline: Duration,
        /// Who they are.
        names: Vec<&'static str>,
    },
}

/// Named tasks that live and end together. Cloning gives another handle to the same group.
#[derive(Clone)]
pub struct TaskGroup {
    inner: Arc<Inner>,
}

struct Inner {
    cancelled: CancellationToken,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    running: BTreeMap<u64, (&'static str, Option<AbortHandle>)>,
    failure: Option<TaskFailure>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the task off the list however it ends: returning, panicking or dropped.
struct Entry {
    inner: Arc<Inner>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.inner.state().running.remove(&self.id);
        self.inner.ended.notify_waiters();
    }
}

impl Default for TaskGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskGroup {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                cancelled: CancellationToken::new(),
                state: Mutex::default(),
                ended: Notify::new(),
            }),
        }
    }

    /// Cancelled when the group is to end. Every loop in a task waits on it too.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.inner.cancelled.clone()
    }

    /// Starts a task. It runs to its own end: watch [`Self::token`], or wrap the body in
    /// `token.run_until_cancelled(..)` if it may be dropped at any await.
    pub fn spawn<E: Display>(
        &self,
        name: &'static str,
        on_error: OnError,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let id = {
            let mut state = self.inner.state();
            state.next += 1;
            let id = state.next;
            state.running.insert(id, (name, None));
            id
        };
        let entry = Entry { inner: Arc::clone(&self.inner), id };
        let group = Arc::clone(&self.inner);
        let guarded = async move {
            let _entry = entry;
            let reason = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panicked: {}", panic_text(panic.as_ref())),
            };
            tracing::error!(task = name, reason, "task failed");
            if on_error == OnError::Shutdown {
                group.state().failure.get_or_insert(TaskFailure::Failed { name, reason });
                group.cancelled.cancel();
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let handle = tokio::spawn(guarded).abort_handle();
        if let Some((_, abort)) = self.inner.state().running.get_mut(&id) {
            *abort = Some(handle);
        }
    }

    /// Names of the tasks still running.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        self.inner.state().running.values().map(|(name, _)| *name).collect()
    }

    /// Asks all tasks to end.
    pub fn cancel(&self) {
        self.inner.cancelled.cancel();
    }

    /// Cancels the group and waits for all its tasks, at most `deadline`; then drops what still runs.
    ///
    /// # Errors
    /// The first failure of a task with [`OnError::Shutdown`], else the names of those that were dropped.
    pub async fn drain(&self, deadline: Duration) -> Result<(), TaskFailure> {
        self.cancel();
        let in_time = tokio::time::timeout(deadline, self.all_ended()).await.is_ok();
        let mut state = self.inner.state();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        if in_time {
            return Ok(());
        }
        let names = state.running.values().map(|(name, _)| *name).collect();
        for abort in state.running.values().filter_map(|(_, abort)| abort.as_ref()) {
            abort.abort();
        }
        Err(TaskFailure::Unfinished { deadline, names })
    }

    async fn all_ended(&self) {
        loop {
            let ended = self.inner.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.inner.state().running.is_empty() {
                return;
            }
            ended.await;
        }
    }
}

/// Resolves at SIGTERM or SIGINT, the two polite ways to end a daemon.
///
/// # Errors
/// The handler could not be installed.
pub async fn termination() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn failure_of_a_vital_task_ends_the_group_and_is_told() {
        let group = TaskGroup::new();
        let token = group.token();
        group.spawn("waits", OnError::Log, async move {
            token.cancelled().await;
            Ok::<_, String>(())
        });
        group.spawn("vital", OnError::Shutdown, async { Err("disk on fire") });
        group.token().cancelled().await;
        let failure = group.drain(SOON).await.unwrap_err();
        assert_eq!(failure, TaskFailure::Failed { name: "vital", reason: "disk on fire".into() });
    }

    #[tokio::test]
    async fn panic_of_a_lesser_task_is_survived() {
        let group = TaskGroup::new();
        group.spawn("clumsy", OnError::Log, async {
            if group_is_unlucky() {
                panic!("oops");
            }
            Ok::<_, String>(())
        });
        while !group.running().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!group.token().is_cancelled());
        assert_eq!(group.drain(SOON).await, Ok(()));
    }

    fn group_is_unlucky() -> bool {
        true
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_named_and_dropped() {
        let group = TaskGroup::new();
        group.spawn("deaf", OnError::Log, async {
            std::future::pending::<()>().await;
            Ok::<_, String>(())
        });
        let deadline = Duration::from_millis(20);
        let failure = group.drain(deadline).await.unwrap_err();
        assert_eq!(failure, TaskFailure::Unfinished { deadline, names: vec!["deaf"] });
        group.all_ended().await;
        assert!(group.running().is_empty());
    }
}
