//! Images of the Docker Engine: list, load, remove. Decides nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::query_parameters::{
    ImportImageOptions, ListContainersOptions, ListImagesOptions, RemoveImageOptions,
};
use futures::TryStreamExt as _;
use tokio_util::io::ReaderStream;

use super::docker::{DockerEngine, refused, within};
use super::{Call, EngineError};
use crate::images::engine::{EngineImage, ImageEngine};
use crate::profile::LABEL_IMAGE;

const READ: Duration = Duration::from_secs(10);
/// For layers that are deleted on a slow disk.
const REMOVE: Duration = Duration::from_secs(120);
/// For an archive of any size that is allowed.
const LOAD: Duration = Duration::from_secs(1800);
/// Bytes of the archive that are in memory at a time.
const BUFFER: usize = 64 * 1024;

impl ImageEngine for DockerEngine {
    fn all(&self) -> Call<'_, Vec<EngineImage>> {
        Box::pin(async {
            let client = self.client().await?;
            let images = within(READ, client.list_images(None::<ListImagesOptions>)).await?;
            let read = images.into_iter().map(|image| EngineImage {
                id: image.id,
                // An image without a name is listed with this one by some versions.
                tags: image.repo_tags.into_iter().filter(|tag| tag != "<none>:<none>").collect(),
                label: image.labels.get(LABEL_IMAGE).filter(|label| !label.is_empty()).cloned(),
                bytes: u64::try_from(image.size).unwrap_or_default(),
            });
            Ok(read.collect())
        })
    }

    fn in_use(&self) -> Call<'_, BTreeSet<String>> {
        Box::pin(async {
            let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
            let all = within(READ, self.client().await?.list_containers(Some(options))).await?;
            Ok(all.into_iter().filter_map(|container| container.image_id).collect())
        })
    }

    fn load<'a>(&'a self, archive: &'a Path) -> Call<'a, ()> {
        Box::pin(async move {
            let opened = tokio::fs::File::open(archive).await;
            let file = opened.map_err(|error| EngineError::Refused(error.to_string()))?;
            let body = bollard::body_try_stream(ReaderStream::with_capacity(file, BUFFER));
            let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
            let mut said = std::pin::pin!(self.client().await?.import_image(options, body, None));
            let to_its_end = async {
                while let Some(word) = said.try_next().await.map_err(refused)? {
                    if let Some(error) = word.error_detail.and_then(|detail| detail.message) {
                        return Err(EngineError::Refused(error));
                    }
                }
                Ok(())
            };
            let late = |_| EngineError::Refused(format!("the engine did not load it within {LOAD:?}"));
            tokio::time::timeout(LOAD, to_its_end).await.map_err(late)?
        })
    }

    fn take_away<'a>(&'a self, name: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let options = RemoveImageOptions { force: false, ..RemoveImageOptions::default() };
            let client = self.client().await?;
            within(REMOVE, client.remove_image(name, Some(options), None)).await.map(drop)
        })
    }

    fn directory(&self) -> Call<'_, PathBuf> {
        Box::pin(async {
            let info = within(READ, self.client().await?.info()).await?;
            Ok(PathBuf::from(info.docker_root_dir.unwrap_or_else(|| "/var/lib/docker".to_owned())))
        })
    }
}
