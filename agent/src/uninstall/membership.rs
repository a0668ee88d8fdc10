//! Whether a platform still counts on this host, by the word of its coordinators.

use std::path::Path;
use std::sync::Arc;

use muster_proto::agents::ImageStateRequest;
use muster_proto::agents::agents_client::AgentsClient;
use muster_runtime::clock::SystemClock;
use muster_runtime::{dial, rpc};
use tonic::{Code, Status};

use crate::identity_dir::IdentityDir;

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// It never joined, or its identity is gone.
    None,
    /// Taken off the platform: its certificate is refused.
    Removed,
    /// No coordinator answers.
    Unknown(String),
    /// A coordinator takes it for one of its hosts.
    Member,
}

/// Asks with a word that changes nothing: that of an image which nobody pushes.
pub async fn membership(state: &Path) -> Membership {
    let dir = IdentityDir::new(state);
    if !dir.exists() {
        return Membership::None;
    }
    let link = match dir.link(SystemClock::shared()) {
        Ok(link) => link,
        Err(error) => return Membership::Unknown(format!("the identity cannot be used: {error:#}")),
    };
    let tls = match link.tls.client_config() {
        Ok(tls) => tls,
        Err(error) => return Membership::Unknown(error.to_string()),
    };
    let mut client = AgentsClient::new(dial::channel(Arc::clone(&link.endpoints), tls));
    let request = ImageStateRequest { sha256: String::new(), state: String::new(), text: String::new() };
    judge(rpc::within(rpc::CALL, client.image_state(request)).await.map(drop))
}

fn judge(answer: Result<(), Status>) -> Membership {
    let Err(status) = answer else { return Membership::Member };
    if let Some(unreachable) = dial::unreachable(&status) {
        return Membership::Unknown(unreachable.to_string());
    }
    match status.code() {
        Code::PermissionDenied => Membership::Removed,
        Code::Unavailable | Code::DeadlineExceeded => Membership::Unknown(status.message().to_owned()),
        _ => Membership::Member,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_certificate_says_that_the_host_was_removed() {
        assert_eq!(judge(Ok(())), Membership::Member);
        assert_eq!(judge(Err(Status::permission_denied("revoked"))), Membership::Removed);
        let unsure = judge(Err(Status::unavailable("nobody")));
        assert!(matches!(unsure, Membership::Unknown(_)));
        for status in [Status::failed_precondition("not leader"), Status::unauthenticated("expired")] {
            assert_eq!(judge(Err(status)), Membership::Member, "what answers is there");
        }
    }

    #[tokio::test]
    async fn a_host_that_never_joined_belongs_to_nobody() {
        assert_eq!(membership(tempfile::tempdir().unwrap().path()).await, Membership::None);
    }
}
