//! What a writer needs of an engine: connect, insert one row, read rows back. One implementation per engine.

mod postgres;

use std::collections::BTreeMap;
use std::future::Future;

pub use self::postgres::Server;

/// A row to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number in this run, from 1.
    pub seq: u64,
    /// Its key.
    pub key: String,
    /// Hash of its value; also the value.
    pub hash: String,
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
pub trait Engine {
    /// An open connection to it.
    type Session: Session;

    /// Its address, for the ledger.
    fn label(&self) -> &str;

    /// Connects within a second or so, and makes sure that the table is there if it can.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, String>>;
}

/// An open connection.
pub trait Session {
    /// Writes one row on its own, within two seconds. After [`Outcome::Unknown`] the connection is of no use.
    fn insert(&mut self, run: &str, row: &Row) -> impl Future<Output = Outcome>;

    /// All rows of a run that are there: number and hash.
    fn rows(&mut self, run: &str) -> impl Future<Output = Result<BTreeMap<u64, String>, String>>;
}
