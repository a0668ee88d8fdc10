//! What the log says, in memory: every entry that is not purged. Must not touch files.

use std::collections::VecDeque;

use openraft::entry::RaftEntry as _;

use crate::convert;
use crate::history::{Record, WireLogId, WireVote};
use crate::types::{Entry, EntryBody};

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub vote: Option<WireVote>,
    pub committed: Option<WireLogId>,
    pub purged: Option<WireLogId>,
    entries: VecDeque<Entry>,
    /// Payload bytes held.
    bytes: u64,
}

impl Memory {
    /// Without entries: everything up to `last` is in a snapshot.
    pub fn behind(last: WireLogId, vote: WireVote) -> Self {
        Self { vote: Some(vote), committed: Some(last), purged: Some(last), ..Self::default() }
    }

    /// Every entry, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Index of the first entry, if any.
    pub fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.index())
    }

    pub fn last(&self) -> Option<WireLogId> {
        self.entries.back().map(|entry| convert::log_id(&entry.log_id)).or(self.purged)
    }

    /// Payload bytes of the entries after this index.
    pub fn bytes_after(&self, index: u64) -> u64 {
        self.entries.iter().rev().take_while(|entry| entry.index() > index).map(size).sum()
    }

    /// Last of the entries that have to go so that at most `limit` bytes are held.
    pub fn excess(&self, limit: u64) -> Option<u64> {
        let mut left = self.bytes;
        let goes = |entry: &&Entry| {
            let goes = left > limit;
            left -= size(entry);
            goes
        };
        self.entries.iter().take_while(goes).last().map(|entry| entry.index())
    }

    pub fn checkpoint(&self) -> Record {
        Record::Checkpoint { vote: self.vote, committed: self.committed, purged: self.purged }
    }

    pub fn push(&mut self, entry: Entry) {
        self.bytes += size(&entry);
        self.entries.push_back(entry);
    }

    pub fn truncate(&mut self, after: Option<u64>) {
        while self.entries.back().is_some_and(|entry| after.is_none_or(|after| entry.index() > after)) {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| size(&entry));
        }
    }

    pub fn purge(&mut self, upto: WireLogId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        while self.entries.front().is_some_and(|entry| entry.index() <= upto.index) {
            self.bytes -= self.entries.pop_front().map_or(0, |entry| size(&entry));
        }
    }

    /// Entries of `start..end` that are there, up to `limit` payload bytes but at least one.
    pub fn read(&self, start: u64, end: u64, limit: u64) -> Vec<Entry> {
        let Some(first) = self.first() else { return Vec::new() };
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut out = Vec::new();
        for entry in self.entries.iter().skip(skip).take_while(|entry| entry.index() < end) {
            bytes += size(entry);
            if !out.is_empty() && bytes > limit {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    /// Repeats a stored record; an error is a log that contradicts itself.
    pub fn replay(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Checkpoint { vote, committed, purged } => {
                self.vote = vote;
                self.committed = committed;
                if let Some(purged) = purged {
                    self.purge(purged);
                }
            }
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(id) => self.committed = Some(id),
            Record::Truncate { after } => self.truncate(after),
            Record::Purge(id) => self.purge(id),
            Record::Entry(entry) => {
                let index = entry.id.index;
                // Without entries any start is fine: those before it may be in a deleted segment.
                if let Some(last) = self.entries.back()
                    && last.index().checked_add(1) != Some(index)
                {
                    return Err(format!("entry {index} follows entry {}", last.index()));
                }
                self.push(convert::to_entry(entry).map_err(|error| error.to_string())?);
            }
        }
        Ok(())
    }

    /// After everything was replayed: the entries must follow what was purged.
    pub fn check(&self) -> Result<(), String> {
        let expected = self.purged.map_or(0, |purged| purged.index.saturating_add(1));
        match self.first() {
            Some(first) if first != expected => Err(format!("entries {expected} to {first} are missing")),
            _ => Ok(()),
        }
    }
}

fn size(entry: &Entry) -> u64 {
    match &entry.payload {
        EntryBody::Normal(proposal) => 64 + proposal.payload.0.len() as u64,
        EntryBody::Blank | EntryBody::Membership(_) => 64,
    }
}
