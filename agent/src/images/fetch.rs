//! Fetches an archive part by part into a file, from where an earlier attempt stopped.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_model::image::{IMAGE_PART, PushState};
use muster_proto::agents::agents_client::AgentsClient;
use muster_proto::agents::{ImageOffer, ImagePartRequest, ImageStateRequest};
use muster_proto::identity::identity_client::IdentityClient;
use muster_runtime::spool::Spool;
use muster_runtime::{dial, rpc};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::enroll::hello;
use crate::identity_dir::Link;

/// Attempts at one part before it is left to the next offer.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

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
    pub async fn fetch(&mut self, offer: &ImageOffer, spool: &Spool) -> Result<PathBuf, FetchError> {
        let path = spool.path(&offer.sha256);
        let disk = |error: io::Error| FetchError::Failed(format!("{}: {error}", path.display()));
        let mut have = spool.have(&offer.sha256);
        while have < offer.size {
            let data = self.part(&offer.sha256, have).await?;
            if data.is_empty() || data.len() as u64 > offer.size - have {
                return Err(FetchError::Interrupted("the coordinator has another archive".to_owned()));
            }
            have = tokio::task::block_in_place(|| spool.add(&offer.sha256, have, &data)).map_err(disk)?;
        }
        if !tokio::task::block_in_place(|| spool.is_whole(&offer.sha256)).map_err(disk)? {
            spool.remove(&offer.sha256);
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
