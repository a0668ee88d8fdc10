//! What the fake server and its entrypoint answer.

use muster_model::ids::MemberId;
use muster_model::plan::{Ask, S3What};
use serde_json::json;

use super::Minio;
use crate::engines::{S3, Said, no, yes};
use crate::host::FakeHost;
use crate::plant::Plant;

impl Minio {
    /// The answer to a question, or to a call that changes something: users and buckets are not kept.
    pub fn ask(&self, hosts: &[FakeHost], member: MemberId, ask: &Ask, now: u64) -> Said {
        let Some(process) = self.processes.get(&member) else { return no("connection refused") };
        let takes = self.takes(hosts, member, now) || self.plant == Some(Plant::CanaryLies);
        let drive = self.drives.get(&member);
        match ask {
            Ask::Http(ask) if ask.path == "/minio/health/live" => yes(""),
            Ask::Http(ask) if ask.path == "/ready" && takes => yes("ready"),
            Ask::Http(ask) if ask.path.ends_with("maintenance=true") => {
                let others = self.reaches(hosts, member, now);
                let heals = others.iter().any(|id| self.drives[id].heals_until.is_some());
                let left = others.iter().filter(|id| **id != member).count();
                if left >= self.write_quorum() && !heals && process.online { yes("") } else { no("412") }
            }
            Ask::S3(ask) if ask.secret.is_none() => no("403"),
            Ask::S3(ask) => match &ask.what {
                S3What::Canary { .. } if takes => yes(""),
                S3What::Status if process.online => {
                    let server = format!("{S3}-{}:9000", process.slot);
                    let mut own = json!({ "server": server, "path": "/data1", "state": "ok" });
                    match drive {
                        None => own["state"] = json!("unformatted"),
                        Some(drive) if drive.heals_until.is_some() => {
                            (own["healed"], own["total"]) = (json!(drive.objects.len()), json!(self.objects));
                        }
                        Some(_) => {}
                    }
                    yes(json!({ "deployment": "d-1", "drives": [own] }).to_string())
                }
                S3What::DeploymentId if process.online && drive.is_some() => yes("d-1"),
                S3What::Heal { token: None, .. } if takes => yes(json!({ "token": "t-1" }).to_string()),
                S3What::Request { .. } | S3What::ImportUsers(_) if takes => yes("200"),
                _ => no("503 SlowDownWrite"),
            },
            _ => no("503"),
        }
    }
}
