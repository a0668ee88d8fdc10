//! Asks what a plan's probes and guards ask, within their deadline; the answer is bounded and not interpreted.

pub mod etcd;
pub mod http;
mod resp;
mod s3;
mod s3_caller;
mod s3_heal;
mod s3_users;
mod sql;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_model::observed::Answer;
use muster_model::plan::{ANSWER_LEN_MAX, Ask, Guard, Probe, previous_secret};
use muster_runtime::net;
use muster_runtime::secret::Secret;

use crate::files::SecretMap;
use crate::runtime::ContainerRuntime;

/// Longest deadline that a plan can give.
const LONGEST: Duration = Duration::from_secs(600);

/// Whom a question is about.
#[derive(Clone)]
pub struct Target {
    /// The member's own first address.
    pub address: Option<Ipv4Addr>,
    /// Its container, if there is one.
    pub container: Option<String>,
    /// Secrets that questions refer to.
    pub secrets: Arc<SecretMap>,
}

impl Target {
    fn at(&self, other: Option<Ipv4Addr>, port: u16) -> Result<SocketAddr, String> {
        let address = other.or(self.address).ok_or("the member has no address")?;
        Ok(SocketAddr::new(IpAddr::V4(address), port))
    }

    /// What a secret was before, while a server may not have been given the present one yet.
    fn previous(&self, name: &str) -> Option<&Secret<Vec<u8>>> {
        self.secrets.get(&previous_secret(name))
    }
}

/// Milliseconds of a plan as a deadline.
#[must_use]
pub fn deadline(ms: u64) -> Duration {
    Duration::from_millis(ms).min(LONGEST)
}

/// Asks, and answers in any case: what failed is an answer that is not ok.
pub async fn ask(runtime: &dyn ContainerRuntime, target: &Target, probe: &Probe) -> Answer {
    let answer = ask_whole(runtime, target, probe).await;
    Answer { body: cut(answer.body), ..answer }
}

/// The answer as far as it was read: guards must see more than what is reported.
async fn ask_whole(runtime: &dyn ContainerRuntime, target: &Target, probe: &Probe) -> Answer {
    let limit = deadline(probe.timeout_ms);
    let answered = match tokio::time::timeout(limit, ask_it(runtime, target, &probe.ask, limit)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {limit:?}")),
    };
    answered.unwrap_or_else(|body| Answer { ok: false, code: None, body })
}

/// Asks a guard.
///
/// # Errors
/// It does not hold: which one, and what was seen.
pub async fn check(runtime: &dyn ContainerRuntime, target: &Target, guard: &Guard) -> Result<(), String> {
    let answer = ask_whole(runtime, target, &guard.probe).await;
    if guard.accept.holds(&answer) {
        Ok(())
    } else {
        let seen: String = answer.body.chars().take(300).collect();
        Err(format!("{}: does not hold, saw {} {seen}", guard.name, answer.code.unwrap_or_default()))
    }
}

async fn ask_it(
    runtime: &dyn ContainerRuntime,
    target: &Target,
    ask: &Ask,
    limit: Duration,
) -> Result<Answer, String> {
    match ask {
        Ask::Http(ask) => http::ask(target, ask, limit).await,
        Ask::Tcp { port } => {
            let address = target.at(None, *port)?;
            net::connect(&address.to_string(), limit).await.map_err(|error| error.to_string())?;
            Ok(Answer { ok: true, code: None, body: String::new() })
        }
        Ask::Exec { argv } => {
            let container = target.container.as_deref().ok_or("the member has no container")?;
            let exited = runtime.exec(container, argv, limit).await.map_err(|error| error.to_string())?;
            Ok(Answer {
                ok: exited.code == 0,
                code: i32::try_from(exited.code).ok(),
                body: String::from_utf8_lossy(&exited.output).into_owned(),
            })
        }
        Ask::Sql(ask) => sql::ask(target, ask, limit).await,
        Ask::Resp(ask) => resp::ask(target, ask, limit).await,
        Ask::S3(ask) => s3::ask(target, ask, limit).await,
        Ask::EtcdRange { endpoints, prefix } => etcd::range(endpoints, prefix, limit).await,
    }
}

/// Cuts a text at [`ANSWER_LEN_MAX`] bytes, not inside a character.
#[must_use]
pub fn cut(mut text: String) -> String {
    if text.len() > ANSWER_LEN_MAX {
        let mut end = ANSWER_LEN_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
