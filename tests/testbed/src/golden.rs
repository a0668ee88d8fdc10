//! The golden image store: images loaded once, shared by every new host through hard links; never touches an existing host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::command::checked;
use crate::config::Config;
use crate::disk::remove_tree;
use crate::host::Host;

/// The host that loads images; its disk becomes the store.
pub const SCRATCH: &str = "golden.scratch";
pub const SCRATCH_INDEX: u8 = 254;
const LOAD: Duration = Duration::from_secs(600);
const READ: Duration = Duration::from_secs(120);

/// What one archive holds: image names with the digest of their config, which names the content.
type Content = BTreeMap<String, String>;

/// The store below the testbed's folder.
pub struct Golden {
    dir: PathBuf,
}

/// An archive that has something the store lacks.
pub struct Missing {
    archive: PathBuf,
    content: Content,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
}

impl Golden {
    pub fn new(config: &Config) -> Self {
        Self { dir: config.dir.join("golden") }
    }

    /// Those of the archives that hold an image which the store does not have. Errors: not an image archive.
    pub fn missing(&self, archives: &[&Path]) -> Result<Vec<Missing>> {
        let stored = self.content()?;
        let mut missing = Vec::new();
        for archive in archives {
            let content = content_of(archive)?;
            if content.iter().any(|(name, digest)| stored.get(name) != Some(digest)) {
                missing.push(Missing { archive: archive.to_path_buf(), content });
            }
        }
        Ok(missing)
    }

    /// Boots the scratch host, which starts from the present store, and loads the archives into it.
    pub fn build(&self, scratch: &Host, missing: &[Missing]) -> Result<()> {
        scratch.start()?;
        for one in missing {
            scratch.docker(&["load", "-q", "-i", &one.archive.to_string_lossy()], LOAD)?;
        }
        // Images that lost their name to a newer one.
        scratch.docker(&["image", "prune", "-f"], LOAD).map(drop)
    }

    /// Replaces the store by the disk of the scratch host, which must be off.
    pub fn store(&self, scratch: &Host, missing: &[Missing]) -> Result<()> {
        let mut content = self.content()?;
        content.extend(missing.iter().flat_map(|one| one.content.clone()));
        // Safety of this order: the list of contents is removed first and written last, so that an interrupted
        // replacement counts as no store at all.
        self.remove()?;
        fs::create_dir_all(&self.dir)?;
        for part in ["overlay2", "image"] {
            fs::rename(scratch.disk().dir.join("docker").join(part), self.dir.join(part))
                .with_context(|| format!("storing {part}"))?;
        }
        let draft = self.dir.join("content.new");
        fs::write(&draft, serde_json::to_string_pretty(&content)?)?;
        fs::rename(draft, self.content_file()).context("storing the list of contents")
    }

    pub fn remove(&self) -> Result<()> {
        if self.content_file().exists() {
            fs::remove_file(self.content_file())?;
        }
        remove_tree(&self.dir)
    }

    fn content(&self) -> Result<Content> {
        if !self.content_file().exists() {
            return Ok(Content::new());
        }
        let text = fs::read_to_string(self.content_file()).context("reading the golden store's list")?;
        serde_json::from_str(&text).context("the golden store's list is damaged; `down --all` removes it")
    }

    fn content_file(&self) -> PathBuf {
        self.dir.join("content")
    }
}

fn content_of(archive: &Path) -> Result<Content> {
    let mut command = Command::new("tar");
    command.arg("-xOf").arg(archive).arg("manifest.json");
    let manifest = checked(&mut command, "", READ)
        .with_context(|| format!("{}: no image archive", archive.display()))?;
    let content = parse_manifest(&manifest).with_context(|| archive.display().to_string())?;
    ensure!(!content.is_empty(), "{}: no image in it", archive.display());
    Ok(content)
}

fn parse_manifest(text: &str) -> Result<Content> {
    let entries: Vec<ManifestEntry> = serde_json::from_str(text).context("its manifest.json")?;
    let mut content = Content::new();
    for entry in entries {
        let tags = entry.repo_tags.unwrap_or_default();
        if tags.is_empty() {
            content.insert(entry.config.clone(), entry.config.clone());
        }
        content.extend(tags.into_iter().map(|tag| (tag, entry.config.clone())));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_known_by_names_and_config_digests() {
        let text = r#"[{"Config":"aa.json","RepoTags":["x:1","x:2"],"Layers":["l"]},{"Config":"bb.json","RepoTags":null}]"#;
        let content = parse_manifest(text).unwrap();
        assert_eq!(content.len(), 3);
        assert_eq!(content["x:2"], "aa.json");
        assert_eq!(content["bb.json"], "bb.json");
        assert!(parse_manifest("{}").is_err());
    }
}
