//! An image archive as `docker save` writes it: where it is, what is in it, its digest.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use muster_model::image::{IMAGE_MAX, IMAGE_NAMES_MAX, IMAGE_PART};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::exit::{Exit, Failure};

/// Largest table of contents in an archive, in bytes.
const CONTENTS_MAX: u64 = 1 << 20;

/// An archive that was looked into.
#[derive(Debug)]
pub struct Archive {
    file: File,
    /// SHA-256, hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// `name:tag` of what is in it.
    pub names: Vec<String>,
    /// Ids that an engine may give it: digests of its config, and of its manifest where it has one.
    pub ids: Vec<String>,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// `index.json` of newer archives.
#[derive(Default, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
struct Manifest {
    digest: String,
}

impl Archive {
    /// A file, standard input for `-`, or else an image of the Docker Engine of this machine.
    ///
    /// # Errors
    /// There is no such thing, or it is no image archive.
    pub fn open(what: &str) -> Result<Self> {
        if what == "-" {
            return Self::of_stream(&mut io::stdin().lock());
        }
        let path = Path::new(what);
        if path.is_file() {
            let file = File::open(path).with_context(|| what.to_owned())?;
            return Self::of_file(file).with_context(|| what.to_owned());
        }
        if what.starts_with('-') {
            return Err(Failure::new(Exit::Usage, format!("`{what}` is neither a file nor an image")).into());
        }
        Self::saved(what)
    }

    /// Has the engine write it: `docker` knows which engine is meant.
    fn saved(name: &str) -> Result<Self> {
        let mut docker = Command::new("docker");
        docker.args(["save", name]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let hint = "name a file as `docker save` writes it, or an image of the Docker Engine here";
        let no_docker = |error: io::Error| {
            Failure::new(
                Exit::Error,
                format!("there is no file {name}, and `docker save` cannot be run: {error}"),
            )
            .hint(hint)
        };
        let mut child = docker.spawn().map_err(no_docker)?;
        let mut output = child.stdout.take().context("no output of docker save")?;
        let read = copied(&mut output);
        // Not read to its end: it must not wait for us.
        drop(output);
        let ended = child.wait_with_output()?;
        if !ended.status.success() && read.is_ok() {
            let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            let message = format!("there is no file {name}, and `docker save {name}` failed: {said}");
            return Err(Failure::new(Exit::Error, message).hint(hint).into());
        }
        Self::of_file(read?).with_context(|| format!("docker save {name}"))
    }

    fn of_stream(input: &mut impl Read) -> Result<Self> {
        Self::of_file(copied(input)?).context("standard input")
    }

    fn of_file(mut file: File) -> Result<Self> {
        let size = file.metadata()?.len();
        if size > IMAGE_MAX {
            return Err(too_large());
        }
        let (names, ids) = contents(&mut file)?;
        file.rewind()?;
        let sha256 = digest(&mut file)?;
        Ok(Self { file, sha256, size, names, ids })
    }

    /// The part at `offset`.
    ///
    /// # Errors
    /// It cannot be read, or the file has changed.
    pub fn part(&self, offset: u64) -> Result<Vec<u8>> {
        let left = self.size.saturating_sub(offset).min(IMAGE_PART as u64);
        let mut data = vec![0; usize::try_from(left)?];
        self.file.read_exact_at(&mut data, offset).context("the archive changed while it was sent")?;
        Ok(data)
    }
}

fn too_large() -> anyhow::Error {
    let message = format!("the archive has more than {} GiB", IMAGE_MAX >> 30);
    Failure::new(Exit::Error, message).hint("push its images one by one, or make them smaller").into()
}

/// A file without a name, gone with the program: a push reads it more than once.
fn copied(input: &mut impl Read) -> Result<File> {
    let mut file = tempfile::tempfile().context("a place for the archive; TMPDIR names another one")?;
    let written = io::copy(&mut input.take(IMAGE_MAX + 1), &mut file)
        .context("keeping the archive; TMPDIR names another place")?;
    if written > IMAGE_MAX {
        return Err(too_large());
    }
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

fn digest(file: &mut File) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; IMAGE_PART];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

fn no_archive(why: impl std::fmt::Display) -> anyhow::Error {
    Failure::new(Exit::Error, format!("this is no image archive: {why}"))
        .hint("`docker save NAME > FILE` writes one; unpack a compressed one first: `zcat FILE | muster image push -`")
        .into()
}

/// Names and ids of what is in an archive.
fn contents(file: &mut File) -> Result<(Vec<String>, Vec<String>)> {
    let (mut listed, mut index) = (None, Index::default());
    let mut archive = tar::Archive::new(&mut *file);
    for entry in archive.entries().map_err(no_archive)? {
        let mut entry = entry.map_err(no_archive)?;
        let path = entry.path().map_err(no_archive)?.into_owned();
        let mut text = Vec::new();
        if path == Path::new("manifest.json") {
            entry.by_ref().take(CONTENTS_MAX).read_to_end(&mut text).map_err(no_archive)?;
            let read: Vec<Listed> = serde_json::from_slice(&text).map_err(no_archive)?;
            listed = Some(read);
        } else if path == Path::new("index.json") {
            entry.by_ref().take(CONTENTS_MAX).read_to_end(&mut text).map_err(no_archive)?;
            index = serde_json::from_slice(&text).map_err(no_archive)?;
        }
    }
    let listed = listed.ok_or_else(|| no_archive("it has no manifest.json"))?;
    let configs = listed.iter().filter_map(|image| config_id(&image.config));
    let ids = configs.chain(index.manifests.into_iter().map(|manifest| manifest.digest)).collect();
    let names: Vec<String> =
        listed.into_iter().flat_map(|image| image.repo_tags.unwrap_or_default()).collect();
    if names.is_empty() || names.len() > IMAGE_NAMES_MAX {
        let message =
            format!("the archive names {} images; 1 to {IMAGE_NAMES_MAX} can be pushed", names.len());
        return Err(Failure::new(Exit::Error, message).hint("save it by its name, not by its id").into());
    }
    Ok((names, ids))
}

/// `blobs/sha256/<digest>` or `<digest>.json`.
fn config_id(path: &str) -> Option<String> {
    let digest = path.rsplit('/').next()?.trim_end_matches(".json");
    muster_model::image::is_digest(digest).then(|| format!("sha256:{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let mut file = builder.into_inner().unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn names_and_ids_are_read_from_both_forms() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let old = format!(r#"[{{"Config":"{one}.json","RepoTags":["app:1","app:2"],"Layers":[]}}]"#);
        let found = Archive::of_file(archive(&[("a/layer.tar", "x"), ("manifest.json", &old)])).unwrap();
        assert_eq!((found.names.len(), found.ids), (2, vec![format!("sha256:{one}")]));
        let new = format!(r#"[{{"Config":"blobs/sha256/{one}","RepoTags":["app:1"],"Layers":[]}}]"#);
        let index = format!(r#"{{"manifests":[{{"digest":"sha256:{two}"}}]}}"#);
        let found = Archive::of_file(archive(&[("manifest.json", &new), ("index.json", &index)])).unwrap();
        assert_eq!(found.ids, [format!("sha256:{one}"), format!("sha256:{two}")]);
        assert_eq!(found.part(0).unwrap().len() as u64, found.size);
        assert!(found.part(found.size).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_archive_is_refused_before_anything_is_sent() {
        let mut text = tempfile::tempfile().unwrap();
        text.write_all(&[0x1f; 2000]).unwrap();
        text.rewind().unwrap();
        assert!(Archive::of_file(text).unwrap_err().to_string().contains("no image archive"));
        let other = Archive::of_file(archive(&[("x", "y")])).unwrap_err();
        assert!(other.to_string().contains("manifest.json"), "{other}");
        let unnamed = format!(r#"[{{"Config":"{}.json","RepoTags":null}}]"#, "1".repeat(64));
        let error = Archive::of_file(archive(&[("manifest.json", &unnamed)])).unwrap_err();
        assert!(error.to_string().contains("names 0 images"), "{error}");
    }
}
