//! Which images are ours, and since when each is no longer needed: what members here run or ran, and what was pushed.
//! Decides what may go; does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use muster_model::image::HeldImage;
use muster_model::plan::{HostPlan, TaskKind};
use muster_model::time::{Millis, Timestamp};
use muster_runtime::state_dir::{self, PRIVATE, StateError};
use serde::{Deserialize, Serialize};

use super::engine::EngineImage;

const FORMAT: u32 = 1;
/// Names that are remembered; images beyond them are not ours to remove.
const KNOWN_MAX: usize = 1_000;

/// What a slot runs, and ran before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Slotted {
    now: String,
    before: Option<String>,
}

/// The book.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    format: u32,
    slots: BTreeMap<String, Slotted>,
    /// By name: when it was needed last.
    known: BTreeMap<String, Timestamp>,
}

/// An image that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// What to take away: its tags, or its id where it has none.
    pub names: Vec<String>,
    /// Size in bytes.
    pub bytes: u64,
}

impl Book {
    fn path(state: &Path) -> PathBuf {
        state.join("images.json")
    }

    /// Reads it. One that is damaged or of a later version is begun anew: then nothing is ours until it is seen again.
    #[must_use]
    pub fn load(state: &Path) -> Self {
        let text = state_dir::read_text(&Self::path(state)).unwrap_or_default();
        let read: Option<Self> = serde_json::from_str(&text).ok();
        let fresh = || Self { format: FORMAT, ..Self::default() };
        read.filter(|book| book.format == FORMAT).unwrap_or_else(fresh)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn store(&self, state: &Path) -> Result<(), StateError> {
        let path = Self::path(state);
        let text = serde_json::to_vec(self).map_err(|error| StateError::invalid(&path, error))?;
        state_dir::write_atomic(&path, &text, PRIVATE)
    }

    /// Whether it must be written: how long ago something was needed counts only once it is no longer.
    #[must_use]
    pub fn changed_since(&self, before: &Self) -> bool {
        self.slots != before.slots || !self.known.keys().eq(before.known.keys())
    }

    /// Takes in what the plan needs now.
    pub fn see(&mut self, plan: &HostPlan, now: Timestamp) {
        let wanted: BTreeMap<String, &String> =
            plan.members.iter().map(|m| (m.slot.to_string(), &m.rendered.image)).collect();
        self.slots.retain(|slot, _| wanted.contains_key(slot));
        for (slot, image) in wanted {
            let entry = self.slots.entry(slot);
            let slotted = entry.or_insert_with(|| Slotted { now: image.clone(), before: None });
            if slotted.now != *image {
                slotted.before = Some(std::mem::replace(&mut slotted.now, image.clone()));
            }
        }
        let mut needed: Vec<String> = self.needed().into_iter().cloned().collect();
        for task in &plan.tasks {
            if let TaskKind::OneShot { image: Some(image), .. } = &task.what {
                needed.push(image.clone());
            }
        }
        for name in needed {
            self.note(name, now);
        }
    }

    /// An image was pushed here.
    pub fn pushed(&mut self, names: &[String], now: Timestamp) {
        for name in names {
            self.note(name.clone(), now);
        }
    }

    fn note(&mut self, name: String, now: Timestamp) {
        if self.known.len() < KNOWN_MAX || self.known.contains_key(&name) {
            self.known.insert(name, now);
        }
    }

    /// What a slot here runs, or ran before.
    fn needed(&self) -> BTreeSet<&String> {
        self.slots.values().flat_map(|slotted| std::iter::once(&slotted.now).chain(&slotted.before)).collect()
    }

    /// Images of ours that no slot here needs, and has not for `grace`, and that nothing is made of. An image that has a
    /// name besides which is not ours is somebody else's too.
    #[must_use]
    pub fn idle(
        &self,
        images: &[EngineImage],
        in_use: &BTreeSet<String>,
        grace: Millis,
        now: Timestamp,
    ) -> Vec<Idle> {
        let needed = self.needed();
        let may_go = |name: &String| {
            !needed.contains(name) && self.known.get(name).is_some_and(|last| now.since(*last) >= grace)
        };
        // Whoever builds on an image of ours takes its label over: beside tags it says nothing unless a plan meant it.
        let label_goes = |image: &EngineImage| match &image.label {
            Some(label) if self.known.contains_key(label) => may_go(label),
            _ => !image.tags.is_empty(),
        };
        let goes = |image: &&EngineImage| {
            label_goes(image) && image.tags.iter().all(may_go) && !in_use.contains(&image.id)
        };
        let idle = |image: &EngineImage| Idle {
            names: if image.tags.is_empty() { vec![image.id.clone()] } else { image.tags.clone() },
            bytes: image.bytes,
        };
        images.iter().filter(goes).map(idle).collect()
    }

    /// Forgets names that are neither needed nor here.
    pub fn forget_gone(&mut self, images: &[EngineImage]) {
        let here: BTreeSet<&String> = images.iter().flat_map(EngineImage::names).collect();
        let needed: BTreeSet<String> = self.needed().into_iter().cloned().collect();
        self.known.retain(|name, _| here.contains(name) || needed.contains(name));
    }

    /// Images of ours that are here, for the report.
    #[must_use]
    pub fn held(&self, images: &[EngineImage]) -> Vec<HeldImage> {
        let needed = self.needed();
        let ours = |image: &EngineImage| {
            let names: Vec<&String> = image.names().filter(|name| self.known.contains_key(*name)).collect();
            names
                .into_iter()
                .map(|name| HeldImage {
                    name: name.clone(),
                    id: image.id.clone(),
                    bytes: image.bytes,
                    needed: needed.contains(name),
                })
                .collect::<Vec<_>>()
        };
        let mut held: Vec<HeldImage> = images.iter().flat_map(ours).collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        held.truncate(KNOWN_MAX / 5);
        held
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
