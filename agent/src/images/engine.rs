//! What the care for images needs of a container engine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::runtime::Call;

/// An image as the engine has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineImage {
    /// The engine's id.
    pub id: String,
    /// `name:tag`, each.
    pub tags: Vec<String>,
    /// `name@recipe` of our label, if it has one.
    pub label: Option<String>,
    /// Size in bytes.
    pub bytes: u64,
}

impl EngineImage {
    /// All names by which a plan may mean it.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.tags.iter().chain(&self.label)
    }
}

/// The container engine of this host.
pub trait ImageEngine: Send + Sync {
    /// All images.
    fn all(&self) -> Call<'_, Vec<EngineImage>>;
    /// Ids of images that a container is made of, whoever made it, and whether it runs or not.
    fn in_use(&self) -> Call<'_, BTreeSet<String>>;
    /// Takes an archive in.
    fn load<'a>(&'a self, archive: &'a Path) -> Call<'a, ()>;
    /// Takes a name away, and the image with its last one; refused while a container is made of it.
    fn take_away<'a>(&'a self, name: &'a str) -> Call<'a, ()>;
    /// Where it keeps images.
    fn directory(&self) -> Call<'_, PathBuf>;
}
