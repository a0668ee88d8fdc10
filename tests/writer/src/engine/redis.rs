//! Redis and Valkey: every item is one key in each sixteenth of a cluster's hash slots, so that it is acknowledged only
//! while every shard takes writes. One key for a server without cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use futures::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, TlsCertificates, Value};
use tokio::time::timeout;

use super::{Engine, Item, Outcome, Session};
use crate::config::Config;
use crate::secured;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Connecting, with the question for the hash slots.
const READY_TIMEOUT: Duration = Duration::from_millis(2_000);
const WRITE_TIMEOUT: Duration = Duration::from_millis(1_000);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Keys of one question.
const CHUNK: usize = 500;
/// Keys are gone after a day: a drill leaves nothing behind for good.
const LIFE_S: u32 = 86_400;
/// Tags whose hash slots lie in the middle of each sixteenth of all.
const TAGS: [&str; 16] =
    ["18", "249", "72", "223", "19", "2", "64", "222", "265", "34", "404", "155", "264", "22", "219", "48"];

/// One for each connection string: a client that knows clusters asks whichever member answers.
pub fn servers(config: &Config) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    let mut servers: Vec<Box<dyn Engine>> = Vec::new();
    for endpoint in &config.endpoints {
        let clients = Servers::read(endpoint).context("a connection string is wrong")?;
        servers.extend(clients.into_iter().map(|server| Box::new(server) as Box<dyn Engine>));
    }
    Ok(servers)
}

/// A cluster by some of its members, or a single server.
struct Servers {
    label: String,
    urls: Vec<String>,
    cluster: bool,
    /// The CA's certificate as PEM; absent = without TLS.
    ca: Option<Vec<u8>>,
}

impl Servers {
    /// `redis://USER:PASSWORD@HOST:PORT[,HOST:PORT...]/0[?cluster=true]`, or `rediss://` with `ssl_ca_certs=FILE`.
    fn read(url: &str) -> anyhow::Result<Vec<Self>> {
        let (url, ca) = secured::take(url, "ssl_ca_certs");
        let (scheme, rest) = url.split_once("://").context("it is no URL")?;
        let ca = match (scheme, ca) {
            ("redis", None) => None,
            ("rediss", Some(path)) => Some(secured::read(Path::new(&path))?),
            _ => bail!("TLS is spoken with rediss:// and ssl_ca_certs, or not at all"),
        };
        let (login, rest) = rest.split_once('@').context("it has no login")?;
        let (hosts, options) = rest.split_once('/').context("it names no database")?;
        let urls: Vec<String> = hosts.split(',').map(|host| format!("{scheme}://{login}@{host}/0")).collect();
        for url in &urls {
            Client::open(url.as_str())?;
        }
        if options.contains("cluster=true") {
            return Ok(vec![Self { label: hosts.to_owned(), urls, cluster: true, ca }]);
        }
        ensure!(!urls.is_empty(), "it names no server");
        let single = |(label, url): (&str, String)| Self {
            label: label.to_owned(),
            urls: vec![url],
            cluster: false,
            ca: ca.clone(),
        };
        Ok(hosts.split(',').zip(urls).map(single).collect())
    }

    /// Believes the CA that is named, and nobody else.
    fn certificates(&self) -> Option<TlsCertificates> {
        self.ca.clone().map(|ca| TlsCertificates { client_tls: None, root_cert: Some(ca) })
    }
}

#[async_trait(?Send)]
impl Engine for Servers {
    fn label(&self) -> &str {
        &self.label
    }

    async fn connect(&self) -> Result<Box<dyn Session>, String> {
        let ready = async {
            if self.cluster {
                let client = ClusterClientBuilder::new(self.urls.iter().map(String::as_str));
                let client = match self.certificates() {
                    Some(certificates) => client.certs(certificates),
                    None => client,
                };
                let client = client
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(WRITE_TIMEOUT)
                    .retries(2)
                    .min_retry_wait(10)
                    .max_retry_wait(50)
                    .build()?;
                let connection = client.get_async_connection().await?;
                return Ok(Box::new(Keys { connection, tags: &TAGS }) as Box<dyn Session>);
            }
            let url = self.urls.first().map_or("", String::as_str);
            let client = match self.certificates() {
                Some(certificates) => Client::build_with_tls(url, certificates)?,
                None => Client::open(url)?,
            };
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(WRITE_TIMEOUT));
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            Ok(Box::new(Keys { connection, tags: &TAGS[..1] }) as Box<dyn Session>)
        };
        match timeout(READY_TIMEOUT, Box::pin(ready)).await {
            Ok(result) => result.map_err(|error: RedisError| told(&error)),
            Err(_) => Err(format!("not connected within {READY_TIMEOUT:?}")),
        }
    }
}

/// An open connection, and the tags of the keys that make one item.
struct Keys<C> {
    connection: C,
    tags: &'static [&'static str],
}

/// What both kinds of connection can do: several commands at once.
trait Ask: ConnectionLike + Clone {}
impl Ask for ClusterConnection {}
impl Ask for MultiplexedConnection {}

fn key(tag: &str, item: &Item) -> String {
    format!("{{{tag}}}/{}", item.key)
}

impl<C: Ask> Keys<C> {
    async fn all(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, RedisError> {
        let ask = |command: Cmd| {
            let mut connection = self.connection.clone();
            // What the server refuses comes as a value, not as an error.
            async move { connection.req_packed_command(&command).await.and_then(Value::extract_error) }
        };
        try_join_all(commands.into_iter().map(ask)).await
    }
}

#[async_trait(?Send)]
impl<C: Ask> Session for Keys<C> {
    async fn write(&mut self, _run: &str, item: &Item) -> Outcome {
        let set = |tag: &&str| {
            let mut command = redis::cmd("SET");
            command.arg(key(tag, item)).arg(&item.value).arg("EX").arg(LIFE_S);
            command
        };
        match timeout(WRITE_TIMEOUT, self.all(self.tags.iter().map(set).collect())).await {
            Err(_) => Outcome::Unknown(format!("no answer within {WRITE_TIMEOUT:?}")),
            Ok(Err(error)) => Outcome::Unknown(told(&error)),
            Ok(Ok(answers)) if answers.iter().all(|answer| *answer == Value::Okay) => Outcome::Acked,
            Ok(Ok(answers)) => Outcome::Unknown(format!("{answers:?}").chars().take(200).collect()),
        }
    }

    /// An item is there with the value that all of its keys have.
    async fn present(&mut self, _run: &str, items: &[Item]) -> Result<BTreeMap<u64, String>, String> {
        let mut there: BTreeMap<u64, String> =
            items.iter().map(|item| (item.seq, item.value.clone())).collect();
        for chunk in items.chunks(CHUNK) {
            let get = |tag: &&str| {
                let mut command = redis::cmd("MGET");
                chunk.iter().for_each(|item| {
                    command.arg(key(tag, item));
                });
                command
            };
            let asked = timeout(READ_TIMEOUT, self.all(self.tags.iter().map(get).collect())).await;
            let late = |_| format!("not read within {READ_TIMEOUT:?}");
            let answers = asked.map_err(late)?.map_err(|error| told(&error))?;
            for answer in answers {
                let values: Vec<Option<String>> =
                    redis::from_redis_value(answer).map_err(|e| e.to_string())?;
                let wrong =
                    chunk.iter().zip(values).filter(|(item, value)| value.as_ref() != Some(&item.value));
                wrong.for_each(|(item, _)| {
                    there.remove(&item.seq);
                });
            }
        }
        Ok(there)
    }
}

/// An error with what the server said, in one short line.
fn told(error: &RedisError) -> String {
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_one_server_and_others_are_tried_in_turn() {
        let read =
            |url: &str| Servers::read(url).map(|all| all.iter().map(|s| s.urls.len()).collect::<Vec<_>>());
        assert_eq!(read("redis://u:p@10.0.0.1:6379,10.0.0.2:6379/0?cluster=true").unwrap(), [2]);
        assert_eq!(read("redis://u:p@10.0.0.1:6379,10.0.0.2:6379/0").unwrap(), [1, 1]);
        for wrong in ["http://u:p@a/0", "redis://10.0.0.1/0", "redis://u:p@a:x/0", "rediss://u:p@a:1/0"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tls_needs_a_file_that_names_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let read = |scheme: &str| {
            let url = format!("{scheme}://u:p@a:1,b:1/0?cluster=true&ssl_ca_certs={}", ca.display());
            Servers::read(&url)
        };
        assert!(read("rediss").is_err());
        std::fs::write(&ca, "PEM").unwrap();
        let servers = read("rediss").unwrap();
        assert!(servers[0].cluster && servers[0].urls[1] == "rediss://u:p@b:1/0");
        assert_eq!(servers[0].certificates().unwrap().root_cert.as_deref(), Some(&b"PEM"[..]));
        assert!(read("redis").is_err());
    }
}
