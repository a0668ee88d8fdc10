//! PostgreSQL: single-row inserts, each its own transaction. Drives its connection itself, so it sees every warning.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Engine, Item, Outcome, Session};
use crate::config::Config;
use crate::secured;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Connecting and the questions after it.
const READY_TIMEOUT: Duration = Duration::from_millis(2_500);
const INSERT_TIMEOUT: Duration = Duration::from_millis(2_000);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS muster_drill \
    (run text, seq bigint, key text NOT NULL, hash text NOT NULL, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (run, seq))";
const INSERT: &str = "INSERT INTO muster_drill (run, seq, key, hash) VALUES ($1, $2, $3, $4)";
const SELECT: &str = "SELECT seq, hash FROM muster_drill WHERE run = $1";

/// The server says this when a wait for the standby was cut off: then the row is on one host only, and a failover
/// loses it. The statement itself ends as if all were well.
const NOT_REPLICATED: &str = "might not have been replicated";

/// The servers of all connection strings.
pub fn servers(config: &Config) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    let mut servers: Vec<Box<dyn Engine>> = Vec::new();
    for endpoint in &config.endpoints {
        let named = Server::all_of(endpoint, config.any_server).context("a connection string is wrong")?;
        servers.extend(named.into_iter().map(|server| Box::new(server) as Box<dyn Engine>));
    }
    Ok(servers)
}

/// One server.
#[derive(Debug, Clone)]
struct Server {
    label: String,
    config: tokio_postgres::Config,
    /// Absent = without TLS.
    tls: Option<rustls::ClientConfig>,
}

impl Server {
    /// The servers that a connection string names; each is tried on its own, with short timeouts.
    fn all_of(url: &str, any: bool) -> anyhow::Result<Vec<Self>> {
        let (url, mode) = secured::take(url, "sslmode");
        let (url, ca) = secured::take(&url, "sslrootcert");
        let tls = match (mode.as_deref(), ca) {
            (Some("verify-full"), Some(ca)) => Some(secured::believing(Path::new(&ca))?),
            (None, None) => None,
            _ => anyhow::bail!("TLS is spoken with sslmode=verify-full and sslrootcert, or not at all"),
        };
        let all: tokio_postgres::Config = url.parse()?;
        let (hosts, ports) = (all.get_hosts(), all.get_ports());
        let mut servers = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
            let mut config = tokio_postgres::Config::new();
            config.port(port).connect_timeout(CONNECT_TIMEOUT).application_name("muster-writer");
            config.tcp_user_timeout(INSERT_TIMEOUT).keepalives_idle(Duration::from_secs(2));
            config.target_session_attrs(if any {
                TargetSessionAttrs::Any
            } else {
                all.get_target_session_attrs()
            });
            all.get_user().map(|user| config.user(user));
            all.get_password().map(|password| config.password(password));
            all.get_dbname().map(|name| config.dbname(name));
            config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
            let label = match host {
                Host::Tcp(name) => {
                    config.host(name);
                    format!("{name}:{port}")
                }
                Host::Unix(path) => {
                    config.host_path(path);
                    format!("{}:{port}", path.display())
                }
            };
            servers.push(Self { label, config, tls: tls.clone() });
        }
        Ok(servers)
    }
}

#[async_trait(?Send)]
impl Engine for Server {
    fn label(&self) -> &str {
        &self.label
    }

    async fn connect(&self) -> Result<Box<dyn Session>, String> {
        let ready = async {
            let (client, connection) = self.dial().await.map_err(|error| told(&error))?;
            let mut wire = Wire { connection, warned: false };
            // Fails on a replica; there an insert fails too, and says why.
            let _ = wire.drive(client.batch_execute(TABLE)).await;
            let insert = wire.drive(client.prepare(INSERT)).await?;
            Ok(Box::new(PostgresSession { client, wire, insert }) as Box<dyn Session>)
        };
        match timeout(READY_TIMEOUT, ready).await {
            Ok(result) => result,
            Err(_) => Err(format!("not connected within {READY_TIMEOUT:?}")),
        }
    }
}

impl Server {
    async fn dial(&self) -> Result<(Client, Box<dyn Messages>), tokio_postgres::Error> {
        Ok(match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                (client, Box::new(connection))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(MakeRustlsConnect::new(tls.clone())).await?;
                (client, Box::new(connection))
            }
        })
    }
}

/// A connection, over TLS or not.
trait Messages {
    fn poll(
        &mut self,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Messages for Connection<Socket, S> {
    fn poll(
        &mut self,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> {
        self.poll_message(context)
    }
}

/// The bytes of a connection, moved only while something is waited for.
struct Wire {
    connection: Box<dyn Messages>,
    /// A row may not have been replicated.
    warned: bool,
}

impl Wire {
    /// Waits for a request while moving the connection's bytes; the server's warnings come before its answer.
    async fn drive<T>(
        &mut self,
        request: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, String> {
        let mut request = pin!(request);
        loop {
            tokio::select! {
                biased;
                message = poll_fn(|context| self.connection.poll(context)) => match message {
                    Some(Ok(AsyncMessage::Notice(notice))) => self.warned |= notice.message().contains(NOT_REPLICATED),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(told(&error)),
                    None => return Err("the connection was closed".to_owned()),
                },
                answer = &mut request => return answer.map_err(|error| told(&error)),
            }
        }
    }
}

/// An open connection.
struct PostgresSession {
    client: Client,
    wire: Wire,
    insert: Statement,
}

#[async_trait(?Send)]
impl Session for PostgresSession {
    async fn write(&mut self, run: &str, item: &Item) -> Outcome {
        let seq = item.seq as i64;
        self.wire.warned = false;
        let insert = async {
            let values: [&(dyn ToSql + Sync); 4] = [&run, &seq, &item.key, &item.value];
            self.wire.drive(self.client.execute(&self.insert, &values)).await
        };
        match timeout(INSERT_TIMEOUT, insert).await {
            Err(_) => Outcome::Unknown(format!("no answer within {INSERT_TIMEOUT:?}")),
            Ok(Err(why)) => Outcome::Unknown(why),
            Ok(Ok(_)) if self.wire.warned => Outcome::Unknown("committed locally, not replicated".to_owned()),
            Ok(Ok(1)) => Outcome::Acked,
            Ok(Ok(count)) => Outcome::Unknown(format!("{count} rows written")),
        }
    }

    async fn present(&mut self, run: &str, _items: &[Item]) -> Result<BTreeMap<u64, String>, String> {
        let values: [&(dyn ToSql + Sync); 1] = [&run];
        let query = self.wire.drive(self.client.query(SELECT, &values));
        let rows =
            timeout(READ_TIMEOUT, query).await.map_err(|_| format!("not read within {READ_TIMEOUT:?}"))??;
        let row = |row: &tokio_postgres::Row| Ok((row.try_get::<_, i64>(0)? as u64, row.try_get(1)?));
        rows.iter().map(row).collect::<Result<_, tokio_postgres::Error>>().map_err(|error| told(&error))
    }
}

/// An error with what the server said, in one short line.
fn told(error: &tokio_postgres::Error) -> String {
    let text = match error.as_db_error() {
        Some(said) => format!("{}: {}", said.code().code(), said.message()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
