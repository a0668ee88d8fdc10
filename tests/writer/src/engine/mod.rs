//! What a writer needs of an engine: connect, write one value, say which are there. One file per engine, one line in [`servers`].

mod mariadb;
mod postgres;
mod s3;

use std::collections::BTreeMap;

use anyhow::bail;
use async_trait::async_trait;

use crate::config::Config;

/// One value to be written: a row, a key or an object, as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number in this run, from 1.
    pub seq: u64,
    /// Its key: the run and the number.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// How a write ended, as far as the writer can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The engine said that it is kept.
    Acked,
    /// Anything else: it may be there or not.
    Unknown(String),
}

/// One server of a service.
#[async_trait(?Send)]
pub trait Engine {
    /// Its address, for the ledger.
    fn label(&self) -> &str;

    /// Connects within a second or so, and makes sure that there is a place to write to, if it can.
    async fn connect(&self) -> Result<Box<dyn Session>, String>;
}

/// An open connection.
#[async_trait(?Send)]
pub trait Session {
    /// Writes one item on its own, within two seconds. After [`Outcome::Unknown`] the connection is of no use.
    async fn write(&mut self, run: &str, item: &Item) -> Outcome;

    /// Number and value of the items of a run that are there. Those of `items` were sent, perhaps not all of them; an
    /// engine that can list a run need not ask for each.
    async fn present(&mut self, run: &str, items: &[Item]) -> Result<BTreeMap<u64, String>, String>;
}

/// The servers that the configuration names, in their order.
///
/// # Errors
/// The engine is unknown, or a connection string is wrong.
pub fn servers(config: &Config) -> anyhow::Result<Vec<Box<dyn Engine>>> {
    match config.engine.as_str() {
        "mariadb" => mariadb::servers(config),
        "postgres" => postgres::servers(config),
        "s3" => s3::servers(config),
        other => bail!("this writer does not know the engine `{other}`"),
    }
}
