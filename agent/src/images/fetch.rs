//! Fetches an archive part by part into a file, from where an earlier attempt stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_model::image::{IMAGE_PART, PushState, is_digest};
use muster_proto::agents::agents_client::AgentsClient;
use muster_proto::agents::{ImageOffer, ImagePartRequest, ImageStateRequest};
use muster_proto::identity::identity_client::IdentityClient;
use muster_runtime::state_dir::{PRIVATE, create_private_dir};
use muster_runtime::{dial, rpc};
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::enroll::hello;
use crate::identity_dir::Link;

/// Attempts at one part before it is left to the next offer.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// What an interrupted push left goes after so long.
const KEPT: Duration = Duration::from_secs(3600);
const SUFFIX: &str = ".part";

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It may go on with the next offer.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// It will not.
    #[error("{0}")]
    Failed(String),
}

/// A connection for bulk, never that of the session: whatever fills it delays no beat.
pub struct Line {
    client: AgentsClient<Channel>,
}

impl Line {
    /// To the coordinator that led last.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn open(link: &Link) -> Result<Self, Status> {
        let tls = link.tls.client_config().map_err(|error| Status::internal(error.to_string()))?;
        let channel = dial::channel(Arc::clone(&link.endpoints), tls);
        rpc::within(rpc::CALL, IdentityClient::new(channel.clone()).hello(hello())).await?;
        Ok(Self { client: AgentsClient::new(channel).max_decoding_message_size(4 * IMAGE_PART) })
    }

    /// Says how far this host is.
    ///
    /// # Errors
    /// Nobody took it.
    pub async fn say(&mut self, sha256: &str, state: PushState, text: &str) -> Result<(), Status> {
        let request = ImageStateRequest {
            sha256: sha256.to_owned(),
            state: state.word().to_owned(),
            text: text.to_owned(),
        };
        rpc::within(rpc::CALL, self.client.image_state(request)).await.map(drop)
    }

    /// Fetches what is missing of an archive; its file is then whole and has the right digest.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&mut self, offer: &ImageOffer, spool: &Path) -> Result<PathBuf, FetchError> {
        let path = path(spool, &offer.sha256);
        let disk = |error: io::Error| FetchError::Failed(format!("{}: {error}", path.display()));
        create_private_dir(spool).map_err(|error| FetchError::Failed(error.to_string()))?;
        let mut options = OpenOptions::new();
        let opened = options.create(true).truncate(false).write(true).mode(PRIVATE).open(&path);
        let mut file = opened.map_err(disk)?;
        let mut have = file.seek(SeekFrom::End(0)).map_err(disk)?;
        while have < offer.size {
            let data = self.part(&offer.sha256, have).await?;
            if data.is_empty() || data.len() as u64 > offer.size - have {
                return Err(FetchError::Interrupted("the coordinator has another archive".to_owned()));
            }
            let written = tokio::task::block_in_place(|| file.write_all(&data));
            if let Err(error) = written {
                file.set_len(have).ok();
                return Err(disk(error));
            }
            have += data.len() as u64;
        }
        let right = tokio::task::block_in_place(|| is_whole(&path, &offer.sha256)).map_err(disk)?;
        if !right {
            fs::remove_file(&path).map_err(disk)?;
            return Err(FetchError::Failed("what arrived is not what was sent: push it again".to_owned()));
        }
        Ok(path)
    }

    async fn part(&mut self, sha256: &str, offset: u64) -> Result<bytes::Bytes, FetchError> {
        let mut attempt = 1;
        loop {
            let request = ImagePartRequest { sha256: sha256.to_owned(), offset };
            match rpc::within(rpc::CALL, self.client.image_part(request)).await {
                Ok(reply) => return Ok(reply.into_inner().data),
                Err(status) if status.code() == Code::NotFound || attempt >= ATTEMPTS => {
                    return Err(FetchError::Interrupted(status.message().to_owned()));
                }
                Err(status) => {
                    tracing::debug!(%status, offset, "a part of an image did not come, trying again");
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Where an archive is kept meanwhile.
pub fn path(spool: &Path, sha256: &str) -> PathBuf {
    spool.join(format!("{sha256}{SUFFIX}"))
}

/// Bytes of an archive that are here.
pub fn have(spool: &Path, sha256: &str) -> u64 {
    fs::metadata(path(spool, sha256)).map_or(0, |meta| meta.len())
}

fn is_whole(path: &Path, sha256: &str) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; IMAGE_PART];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize()) == sha256),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// Takes away what interrupted pushes left long ago.
pub fn sweep(spool: &Path) {
    for entry in fs::read_dir(spool).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.strip_suffix(SUFFIX).is_some_and(is_digest);
        let changed = entry.metadata().and_then(|meta| meta.modified());
        if ours && changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT)) {
            fs::remove_file(entry.path()).ok();
        }
    }
}
