//! Every row that was ever written, as a tree: who has which row has all rows before it. Knows no process.

use muster_model::ids::MemberId;

/// A place in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row(usize);

#[derive(Debug)]
struct Written {
    before: Option<Row>,
    seqno: i64,
    history: u32,
    writer: MemberId,
}

/// The tree.
#[derive(Debug, Default)]
pub struct Rows(Vec<Written>);

impl Rows {
    fn put(&mut self, row: Written) -> Row {
        self.0.push(row);
        Row(self.0.len() - 1)
    }

    /// The first row of a new history.
    pub fn begin(&mut self, history: u32, writer: MemberId) -> Row {
        self.put(Written { before: None, seqno: 0, history, writer })
    }

    /// The next row; it says who writes from now on.
    pub fn write(&mut self, after: Row, writer: MemberId) -> Row {
        let (seqno, history) = (self.seqno(after) + 1, self.history(after));
        self.put(Written { before: Some(after), seqno, history, writer })
    }

    /// Whether whoever has `newer` has `older` too.
    pub fn contains(&self, newer: Row, older: Row) -> bool {
        let mut at = Some(newer);
        while let Some(row) = at.filter(|row| self.seqno(*row) > self.seqno(older)) {
            at = self.0[row.0].before;
        }
        at == Some(older)
    }

    pub fn seqno(&self, row: Row) -> i64 {
        self.0[row.0].seqno
    }

    pub fn history(&self, row: Row) -> u32 {
        self.0[row.0].history
    }

    /// The name in the row that Galera replicates.
    pub fn writer(&self, row: Row) -> MemberId {
        self.0[row.0].writer
    }
}
