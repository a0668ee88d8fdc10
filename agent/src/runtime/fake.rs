//! A container engine in memory, for tests: every call can be made to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use muster_model::ids::{MemberId, Name, Revision, TaskId};
use muster_model::plan::StopSpec;
use muster_model::time::Timestamp;

use super::{Call, Change, ContainerRuntime, EngineError, Exited, NewContainer};
use crate::profile::{LABEL_FIRST, LABEL_HASH, LABEL_MEMBER, LABEL_RESTARTS, LABEL_REVISION, LABEL_SLOT};
use crate::seen::{Seen, SeenState};

/// The engine.
#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<String, (NewContainer, SeenState)>,
    images: BTreeSet<String>,
    calls: Vec<String>,
    /// Fails the n-th changing call from now.
    fail_at: Option<usize>,
    frozen: bool,
    made: u64,
}

impl Fake {
    /// With this image on the host.
    pub fn with_image(image: &str) -> Self {
        let fake = Self::default();
        fake.state().images.insert(image.to_owned());
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the `nth` changing call from now fail (0 = the next).
    pub fn fail_at(&self, nth: usize) {
        self.state().fail_at = Some(nth);
    }

    /// No call is answered.
    pub fn freeze(&self, frozen: bool) {
        self.state().frozen = frozen;
    }

    /// `docker rm -f`.
    pub fn remove_by_force(&self, id: &str) {
        self.state().containers.remove(id);
    }

    /// The first process ends.
    pub fn exit(&self, id: &str, code: i64) {
        self.state().containers.get_mut(id).unwrap().1 = SeenState::Stopped { code };
    }

    /// Changing calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Containers and what they do.
    pub fn containers(&self) -> BTreeMap<String, (NewContainer, SeenState)> {
        self.state().containers.clone()
    }

    fn changing<'a, T: Send + 'a>(
        &'a self,
        call: String,
        change: impl FnOnce(&mut State) -> Result<T, EngineError> + Send + 'a,
    ) -> Call<'a, T> {
        Box::pin(async move {
            let mut state = self.state();
            if state.frozen {
                return Err(EngineError::NotAnswering("frozen".to_owned()));
            }
            state.calls.push(call);
            match state.fail_at {
                Some(0) => {
                    state.fail_at = None;
                    return Err(EngineError::Refused("injected".to_owned()));
                }
                Some(more) => state.fail_at = Some(more - 1),
                None => {}
            }
            change(&mut state)
        })
    }

    fn reading<'a, T: Send + 'a>(&'a self, read: impl FnOnce(&State) -> T + Send + 'a) -> Call<'a, T> {
        Box::pin(async move {
            let state = self.state();
            if state.frozen { Err(EngineError::NotAnswering("frozen".to_owned())) } else { Ok(read(&state)) }
        })
    }
}

impl ContainerRuntime for Fake {
    fn version(&self) -> Call<'_, String> {
        self.reading(|_| "fake".to_owned())
    }

    fn list<'a>(&'a self, _: &'a str) -> Call<'a, Vec<Seen>> {
        self.reading(|state| state.containers.iter().map(|(id, (made, now))| seen(id, made, now)).collect())
    }

    fn images(&self) -> Call<'_, Vec<String>> {
        self.reading(|state| state.images.iter().cloned().collect())
    }

    fn create<'a>(&'a self, container: &'a NewContainer) -> Call<'a, String> {
        self.changing(format!("create {}", container.name), |state| {
            if state.containers.values().any(|(other, _)| other.name == container.name) {
                return Err(EngineError::Refused("name is taken".to_owned()));
            }
            state.made += 1;
            let id = format!("c{}", state.made);
            state.containers.insert(id.clone(), (container.clone(), SeenState::Created));
            Ok(id)
        })
    }

    fn start<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        self.changing(format!("start {id}"), move |state| {
            let found =
                state.containers.get_mut(id).ok_or_else(|| EngineError::Refused("gone".to_owned()))?;
            found.1 = SeenState::Running { since: Timestamp(1) };
            Ok(())
        })
    }

    fn stop<'a>(&'a self, id: &'a str, _: &'a StopSpec) -> Call<'a, ()> {
        self.changing(format!("stop {id}"), move |state| {
            if let Some(found) = state.containers.get_mut(id) {
                found.1 = SeenState::Stopped { code: 0 };
            }
            Ok(())
        })
    }

    fn signal<'a>(&'a self, id: &'a str, signal: &'a str) -> Call<'a, ()> {
        self.changing(format!("signal {id} {signal}"), move |state| {
            if let (Some(found), "SIGKILL") = (state.containers.get_mut(id), signal) {
                found.1 = SeenState::Stopped { code: 137 };
            }
            Ok(())
        })
    }

    fn first_process<'a>(&'a self, _: &'a str) -> Call<'a, u32> {
        self.reading(|_| 1)
    }

    fn remove<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        self.changing(format!("remove {id}"), move |state| {
            let running =
                state.containers.get(id).is_some_and(|found| matches!(found.1, SeenState::Running { .. }));
            if running {
                return Err(EngineError::Refused("it runs".to_owned()));
            }
            state.containers.remove(id);
            Ok(())
        })
    }

    fn attach<'a>(&'a self, id: &'a str, network: &'a Name, address: Ipv4Addr) -> Call<'a, ()> {
        self.changing(format!("attach {id} {network}"), move |state| {
            if let Some(found) = state.containers.get_mut(id) {
                found.0.addresses.push((network.clone(), address));
            }
            Ok(())
        })
    }

    fn exec<'a>(&'a self, id: &'a str, argv: &'a [String], _: Duration) -> Call<'a, Exited> {
        self.changing(format!("exec {id} {}", argv.join(" ")), |_| {
            Ok(Exited { code: 0, output: b"out".to_vec() })
        })
    }

    fn run_once<'a>(&'a self, container: &'a NewContainer, task: TaskId, _: Duration) -> Call<'a, Exited> {
        self.changing(format!("run-once {} {task}", container.name), |_| {
            Ok(Exited { code: 0, output: b"once".to_vec() })
        })
    }

    fn sweep<'a>(&'a self, _: &'a str) -> Call<'a, ()> {
        self.reading(|_| ())
    }

    fn logs<'a>(&'a self, _: &'a str, _: u32, _: bool) -> BoxStream<'a, Result<Bytes, EngineError>> {
        stream::iter([Ok(Bytes::from_static(b"line\n"))]).boxed()
    }

    fn changes(&self) -> BoxStream<'_, Change> {
        stream::pending().boxed()
    }
}

fn seen(id: &str, made: &NewContainer, state: &SeenState) -> Seen {
    let number = |key: &str| made.labels[key].parse().unwrap();
    Seen {
        id: id.to_owned(),
        name: made.name.clone(),
        member: MemberId(number(LABEL_MEMBER)),
        slot: made.labels[LABEL_SLOT].parse().unwrap(),
        revision: Revision(number(LABEL_REVISION)),
        hash: made.labels[LABEL_HASH].clone(),
        restarts: number(LABEL_RESTARTS),
        first: made.labels.contains_key(LABEL_FIRST),
        addresses: made.addresses.iter().cloned().collect(),
        state: state.clone(),
    }
}
