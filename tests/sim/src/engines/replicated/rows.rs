//! Every row that was ever written, as a tree: who has which row has all rows before it. Knows no process.

use muster_model::ids::MemberId;

/// A place in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(usize);

#[derive(Debug)]
struct Written {
    before: Option<Row>,
    number: u64,
    at: u64,
    /// The word that the data carries since this row or an earlier one.
    term: Option<(u64, MemberId)>,
    /// Heartbeats up to this row.
    beats: u64,
}

/// What is written in one row.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    Value,
    Beat,
    Term(u64, MemberId),
}

/// The tree.
#[derive(Debug, Default)]
pub struct Rows(Vec<Written>);

impl Rows {
    /// The next row.
    pub fn write(&mut self, before: Option<Row>, at: u64, content: Content) -> Row {
        let number = before.map_or(0, |row| self.number(row)) + 1;
        let (mut term, mut beats) = (self.term(before), self.beats(before));
        match content {
            Content::Value => {}
            Content::Beat => beats += 1,
            Content::Term(epoch, leads) => term = Some((epoch, leads)),
        }
        self.0.push(Written { before, number, at, term, beats });
        Row(self.0.len() - 1)
    }

    /// Whether whoever has `newer` has `older` too.
    pub fn contains(&self, newer: Option<Row>, older: Row) -> bool {
        let mut at = newer;
        while let Some(row) = at.filter(|row| self.number(*row) > self.number(older)) {
            at = self.before(row);
        }
        at == Some(older)
    }

    /// Rows of `newest` and before it that whoever has `head` does not have, the newest first.
    pub fn lacking(&self, head: Option<Row>, newest: Option<Row>) -> Vec<Row> {
        let (mut lacking, mut at) = (Vec::new(), newest);
        while let Some(row) = at.filter(|row| !self.contains(head, *row)) {
            lacking.push(row);
            at = self.before(row);
        }
        lacking
    }

    pub fn before(&self, row: Row) -> Option<Row> {
        self.0[row.0].before
    }

    /// How many rows there are up to this one.
    pub fn number(&self, row: Row) -> u64 {
        self.0[row.0].number
    }

    /// When it was written.
    pub fn at(&self, row: Row) -> u64 {
        self.0[row.0].at
    }

    /// Heartbeats in the data.
    pub fn beats(&self, head: Option<Row>) -> u64 {
        head.map_or(0, |row| self.0[row.0].beats)
    }

    /// The word that the data carries.
    pub fn term(&self, head: Option<Row>) -> Option<(u64, MemberId)> {
        head.and_then(|row| self.0[row.0].term)
    }
}
