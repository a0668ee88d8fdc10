//! MariaDB: single-row inserts, each its own transaction, over the text protocol of the server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::time::timeout;

use super::{Engine, Item, Outcome, Session};
use crate::config::Config;
use crate::secured;

/// Connecting and the questions after it.
const READY_TIMEOUT: Duration = Duration::from_millis(2_500);
const INSERT_TIMEOUT: Duration = Duration::from_millis(2_000);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS muster_drill \
    (run VARCHAR(160), seq BIGINT, id VARCHAR(200) NOT NULL, hash VARCHAR(200) NOT NULL, \
    at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), PRIMARY KEY (run, seq)) ENGINE=InnoDB";
const INSERT: &str = "INSERT INTO muster_drill (run, seq, id, hash) VALUES (?, ?, ?, ?)";
const SELECT: &str = "SELECT seq, hash FROM muster_drill WHERE run = ?";

/// The servers of all connection strings.
pub fn servers(config: &Config) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    let mut servers: Vec<Box<dyn Engine>> = Vec::new();
    for endpoint in &config.endpoints {
        let named = Server::all_of(endpoint).context("a connection string is wrong")?;
        servers.extend(named.into_iter().map(|server| Box::new(server) as Box<dyn Engine>));
    }
    Ok(servers)
}

/// One server.
struct Server {
    label: String,
    options: Opts,
}

impl Server {
    /// The servers that `mysql://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE` names; each is tried on its own. With
    /// `?ssl-mode=VERIFY_IDENTITY&ssl-ca=FILE` each must show a certificate of that CA for its address.
    fn all_of(url: &str) -> anyhow::Result<Vec<Self>> {
        let (url, mode) = secured::take(url, "ssl-mode");
        let (url, ca) = secured::take(&url, "ssl-ca");
        let url = url.trim_end_matches('?');
        let tls = match (mode.as_deref(), ca) {
            (Some("VERIFY_IDENTITY"), Some(ca)) => Some(believing(ca)?),
            (None, None) => None,
            _ => bail!("TLS is spoken with ssl-mode=VERIFY_IDENTITY and ssl-ca, or not at all"),
        };
        let rest = url.strip_prefix("mysql://").context("it does not begin with mysql://")?;
        let (login, rest) = rest.rsplit_once('@').context("it names no user")?;
        let (hosts, database) = rest.split_once('/').context("it names no database")?;
        let servers: Vec<Self> = hosts
            .split(',')
            .map(|host| {
                let options = Opts::from_url(&format!("mysql://{login}@{host}/{database}"))?;
                // One that was closed is of no use, and none is kept for later.
                let options = OptsBuilder::from_opts(options).tcp_nodelay(true).prefer_socket(false);
                let options = options.ssl_opts(tls.clone());
                Ok(Self { label: host.to_owned(), options: options.into() })
            })
            .collect::<anyhow::Result<_>>()?;
        ensure!(!servers.is_empty(), "it names no server");
        Ok(servers)
    }
}

/// Believes the CAs in this file, and nobody else; one without any is refused now, not at each connection.
fn believing(ca: String) -> anyhow::Result<SslOpts> {
    let ca = PathBuf::from(ca);
    secured::believing(&ca)?;
    Ok(SslOpts::default().with_root_certs(vec![ca.into()]).with_disable_built_in_roots(true))
}

#[async_trait(?Send)]
impl Engine for Server {
    fn label(&self) -> &str {
        &self.label
    }

    async fn connect(&self) -> Result<Box<dyn Session>, String> {
        let ready = async {
            let mut connection = Conn::new(self.options.clone()).await.map_err(|error| told(&error))?;
            connection.query_drop(TABLE).await.map_err(|error| told(&error))?;
            Ok(Box::new(MariadbSession { connection }) as Box<dyn Session>)
        };
        match timeout(READY_TIMEOUT, ready).await {
            Ok(result) => result,
            Err(_) => Err(format!("not connected within {READY_TIMEOUT:?}")),
        }
    }
}

/// An open connection.
struct MariadbSession {
    connection: Conn,
}

#[async_trait(?Send)]
impl Session for MariadbSession {
    async fn write(&mut self, run: &str, item: &Item) -> Outcome {
        let insert = self.connection.exec_drop(INSERT, (run, item.seq, &item.key, &item.value));
        match timeout(INSERT_TIMEOUT, insert).await {
            Err(_) => Outcome::Unknown(format!("no answer within {INSERT_TIMEOUT:?}")),
            Ok(Err(error)) => Outcome::Unknown(told(&error)),
            Ok(Ok(())) => match self.connection.affected_rows() {
                1 => Outcome::Acked,
                count => Outcome::Unknown(format!("{count} rows written")),
            },
        }
    }

    async fn present(&mut self, run: &str, _items: &[Item]) -> Result<BTreeMap<u64, String>, String> {
        let query = self.connection.exec::<(u64, String), _, _>(SELECT, (run,));
        let rows =
            timeout(READ_TIMEOUT, query).await.map_err(|_| format!("not read within {READ_TIMEOUT:?}"))?;
        Ok(rows.map_err(|error| told(&error))?.into_iter().collect())
    }
}

/// What went wrong, in one short line.
fn told(error: &mysql_async::Error) -> String {
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_string_can_name_several_servers() {
        let servers = Server::all_of("mysql://u:p%40@10.0.0.1:3306,10.0.0.2:3307/d").unwrap();
        let labels: Vec<&str> = servers.iter().map(|server| server.label.as_str()).collect();
        assert_eq!(labels, ["10.0.0.1:3306", "10.0.0.2:3307"]);
        assert_eq!(servers[1].options.pass(), Some("p@"));
        for wrong in ["postgresql://u@h/d", "mysql://h/d", "mysql://u:p@h:3306", "mysql://u:p@h:x/d"] {
            assert!(Server::all_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tls_is_checked_or_not_spoken() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = dir.path().join("nothing.pem");
        std::fs::write(&nothing, "").unwrap();
        let url = |query: &str| format!("mysql://u:p@10.0.0.1:3306/d?{query}");
        assert!(Server::all_of(&url("")).unwrap().iter().all(|server| server.options.ssl_opts().is_none()));
        for wrong in
            ["ssl-mode=REQUIRED", "ssl-mode=VERIFY_IDENTITY", "ssl-ca=/x", "ssl-mode=VERIFY_CA&ssl-ca=/x"]
        {
            assert!(Server::all_of(&url(wrong)).is_err(), "{wrong}");
        }
        let named = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={}", nothing.display());
        assert!(Server::all_of(&url(&named)).is_err(), "a file without a certificate");
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        std::fs::write(&nothing, ca.pem()).unwrap();
        let server = Server::all_of(&url(&named)).unwrap().remove(0);
        let tls = server.options.ssl_opts().unwrap();
        assert!(tls.disable_built_in_roots() && !tls.accept_invalid_certs() && !tls.skip_domain_validation());
    }
}
