//! What was sent and what was answered, on disk before the writer goes on. One JSON object per line; nothing is changed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::{Item, Outcome};

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sent { seq: u64, key: String, value: String, endpoint: String, at: u64 },
    Answer { seq: u64, at: u64, unknown: Option<String> },
}

/// One item as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    pub endpoint: String,
    /// Milliseconds since 1970.
    pub sent_at: u64,
    /// When the answer came, and why it is no acknowledgement, if it is none. Absent = the writer never saw one.
    pub answer: Option<(u64, Option<String>)>,
}

impl Entry {
    /// What was sent.
    pub fn item(&self, seq: u64) -> Item {
        Item { seq, key: self.key.clone(), value: self.value.clone() }
    }

    /// When it was acknowledged.
    pub fn acked_at(&self) -> Option<u64> {
        self.answer.as_ref().filter(|(_, unknown)| unknown.is_none()).map(|(at, _)| *at)
    }
}

/// The items of a ledger by number.
pub type Entries = BTreeMap<u64, Entry>;

/// Reads a ledger; a torn last line (the writer was killed in it) does not count.
///
/// # Errors
/// The file cannot be read, or a line before the last is damaged.
pub fn read(path: &Path) -> io::Result<Entries> {
    Ok(parse(&std::fs::read_to_string(path)?)?.0)
}

/// The items, and the length of the part that is good.
fn parse(text: &str) -> io::Result<(Entries, usize)> {
    let mut entries = Entries::new();
    let mut good = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let Some(whole) = line.strip_suffix('\n') else { break };
        match serde_json::from_str(whole) {
            Ok(Line::Sent { seq, key, value, endpoint, at }) => {
                entries.insert(seq, Entry { key, value, endpoint, sent_at: at, answer: None });
            }
            Ok(Line::Answer { seq, at, unknown }) => {
                if let Some(entry) = entries.get_mut(&seq) {
                    entry.answer = Some((at, unknown));
                }
            }
            Err(error) => {
                let text = format!("line {} of the ledger is damaged: {error}", number + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        good += line.len();
    }
    Ok((entries, good))
}

/// A ledger that is written to.
pub struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens or makes it, and says which item was the last.
    pub fn open(path: &Path) -> io::Result<(Self, u64)> {
        let (entries, good) = match std::fs::read_to_string(path) {
            Ok(text) => parse(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Entries::new(), 0),
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(good as u64)?;
        Ok((Self { file }, entries.keys().next_back().copied().unwrap_or(0)))
    }

    /// Notes an item that is about to be sent.
    pub fn sent(&mut self, item: &Item, endpoint: &str, at: u64) -> io::Result<()> {
        let Item { seq, key, value } = item.clone();
        self.append(&Line::Sent { seq, key, value, endpoint: endpoint.to_owned(), at })
    }

    /// Notes an answer; on disk when this returns.
    pub fn answered(&mut self, seq: u64, outcome: &Outcome, at: u64) -> io::Result<()> {
        let unknown = match outcome {
            Outcome::Acked => None,
            Outcome::Unknown(why) => Some(why.clone()),
        };
        self.append(&Line::Answer { seq, at, unknown })?;
        self.file.sync_data()
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(seq: u64) -> Item {
        Item { seq, key: format!("r/{seq}"), value: format!("h{seq}") }
    }

    #[test]
    fn answers_survive_a_torn_last_line_and_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut ledger, last) = Ledger::open(&path).unwrap();
        assert_eq!(last, 0);
        for seq in 1..=3 {
            ledger.sent(&item(seq), "a:1", 10 * seq).unwrap();
        }
        ledger.answered(1, &Outcome::Acked, 12).unwrap();
        ledger.answered(2, &Outcome::Unknown("closed".to_owned()), 25).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"sent\":{\"se").unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries[&1].acked_at(), Some(12));
        assert_eq!(
            (entries[&2].acked_at(), entries[&2].answer.clone()),
            (None, Some((25, Some("closed".to_owned()))))
        );
        assert_eq!(entries[&3].answer, None);
        let (mut ledger, last) = Ledger::open(&path).unwrap();
        assert_eq!(last, 3);
        ledger.sent(&item(4), "b:1", 50).unwrap();
        assert_eq!(read(&path).unwrap().len(), 4);
    }

    #[test]
    fn damage_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, "nonsense\n{}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
    }
}
