//! What became of the acknowledged items, and how long there were none: the ledger against what is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::config::Config;
use crate::engine::{self, Item};
use crate::ledger::{self, Entries};
use crate::status::GAP_MS;

/// Lists are cut here: the whole answer must fit into the 4 KiB that an agent passes on.
const LIST_MAX: usize = 20;
/// Items of a sample, in bytes.
const SAMPLES_LEN_MAX: usize = 3_900;
/// Tries to read the items back, half a second apart.
const TRIES: usize = 60;
/// An acknowledged item that is denied is asked for again for so long before it counts as lost: S3 servers that were all
/// killed have denied objects for some seconds that two of three drives had.
const DENIED_MAX: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_secs(3);

/// Reads every item back and compares.
///
/// # Errors
/// The ledger cannot be read, or no server gives the items for half a minute.
pub async fn verify(config: &Config) -> anyhow::Result<Value> {
    // First the ledger, then the items: what is acknowledged here must be there.
    let entries = ledger::read(&config.ledger).context("the ledger")?;
    let items: Vec<Item> = entries.iter().map(|(seq, entry)| entry.item(*seq)).collect();
    let mut present = read_back(config, &items).await?;
    let mut missing = not_kept(&entries, &present);
    let denied = missing.len();
    let begin = Instant::now();
    while !missing.is_empty() && begin.elapsed() < DENIED_MAX {
        tokio::time::sleep(BETWEEN).await;
        let again: Vec<Item> = items.iter().filter(|item| missing.contains(&item.seq)).cloned().collect();
        present.extend(read_back(config, &again).await?);
        missing = not_kept(&entries, &present);
    }
    let mut report = compare(&entries, &present);
    report["denied_at_first"] = json!(denied);
    Ok(report)
}

/// Acknowledged items that are not there as they were written.
fn not_kept(entries: &Entries, present: &BTreeMap<u64, String>) -> Vec<u64> {
    let acked = entries.iter().filter(|(_, entry)| entry.acked_at().is_some());
    acked.filter(|(seq, entry)| present.get(seq) != Some(&entry.value)).map(|(seq, _)| *seq).collect()
}

async fn read_back(config: &Config, items: &[Item]) -> anyhow::Result<BTreeMap<u64, String>> {
    let servers = engine::servers(config)?;
    let mut last = String::new();
    for attempt in 0..TRIES {
        let read = async {
            let mut session = servers[attempt % servers.len()].connect().await?;
            session.present(&config.run, items).await
        };
        match read.await {
            Ok(present) => return Ok(present),
            Err(why) => last = why,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("the items cannot be read back: {last}")
}

fn compare(entries: &Entries, present: &BTreeMap<u64, String>) -> Value {
    let acked = || entries.iter().filter(|(_, entry)| entry.acked_at().is_some());
    let kept = |seq: &u64, value: &String| present.get(seq) == Some(value);
    let lost = not_kept(entries, present);
    let unknown = || entries.iter().filter(|(_, entry)| entry.acked_at().is_none());
    let mut acks: Vec<u64> = acked().filter_map(|(_, entry)| entry.acked_at()).collect();
    acks.sort_unstable();
    let mut gaps: Vec<(u64, u64)> = acks.windows(2).map(|pair| (pair[0], pair[1])).collect();
    gaps.sort_by_key(|(from, to)| std::cmp::Reverse(to - from));
    let longest = gaps.first().map_or(0, |(from, to)| to - from);
    gaps.retain(|(from, to)| to - from > GAP_MS);
    let gap_count = gaps.len();
    gaps.truncate(LIST_MAX);
    gaps.sort_unstable();
    let mut per_endpoint: BTreeMap<&str, u64> = BTreeMap::new();
    acked().for_each(|(_, entry)| *per_endpoint.entry(entry.endpoint.as_str()).or_default() += 1);
    json!({
        "sent": entries.len(),
        "acked": acks.len(),
        "unknown": unknown().count(),
        "lost": lost.len(),
        "acked_lost": lost.iter().take(LIST_MAX).collect::<Vec<_>>(),
        "acked_lost_count": lost.len(),
        "unacknowledged_present": unknown().filter(|(seq, entry)| kept(seq, &entry.value)).count(),
        "gaps": gaps.iter().map(|(from, to)| json!({"from_ms": from, "to_ms": to, "ms": to - from})).collect::<Vec<_>>(),
        "gap_count": gap_count,
        "max_gap_ms": longest,
        "rto_ms": longest,
        "first_ack_ms": acks.first(),
        "last_ack_ms": acks.last(),
        "per_endpoint": per_endpoint.into_iter().take(LIST_MAX).collect::<BTreeMap<_, _>>(),
    })
}

/// Items of the ledger from `from` on: `[seq, sent_ms, answered_ms, unknown_why, endpoint]`; `next` goes on after them.
///
/// # Errors
/// The ledger cannot be read.
pub fn samples(config: &Config, from: u64, count: usize) -> anyhow::Result<Value> {
    Ok(cut(&ledger::read(&config.ledger).context("the ledger")?, from, count))
}

fn cut(entries: &Entries, from: u64, count: usize) -> Value {
    let mut rows = Vec::new();
    let mut length = 0;
    let mut next = None;
    for (seq, entry) in entries.range(from..) {
        let (at, why) = entry.answer.clone().unzip();
        let row = json!([
            seq,
            entry.sent_at,
            at,
            why.unwrap_or_else(|| Some("no answer seen".to_owned())),
            entry.endpoint
        ]);
        length += row.to_string().len() + 1;
        if rows.len() >= count || length > SAMPLES_LEN_MAX {
            next = Some(seq);
            break;
        }
        rows.push(row);
    }
    json!({ "samples": rows, "next": next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Entry;

    fn entry(at: u64, unknown: Option<&str>) -> Entry {
        Entry {
            key: "k".to_owned(),
            value: "h".to_owned(),
            endpoint: "a:5000".to_owned(),
            sent_at: at - 1,
            answer: Some((at, unknown.map(str::to_owned))),
        }
    }

    fn ledger() -> Entries {
        let mut entries: Entries = (1..=100).map(|seq| (seq, entry(1_000 + seq * 20, None))).collect();
        entries.insert(101, entry(3_100, Some("closed")));
        entries.insert(102, entry(3_200, Some("closed")));
        entries.extend((103..=200).map(|seq| (seq, entry(5_000 + (seq - 103) * 20, None))));
        entries
    }

    #[test]
    fn lost_rows_and_gaps_are_found() {
        let mut present: BTreeMap<u64, String> = (1..=200).map(|seq| (seq, "h".to_owned())).collect();
        present.remove(&101);
        let all_there = compare(&ledger(), &present);
        assert_eq!((&all_there["lost"], &all_there["unacknowledged_present"]), (&json!(0), &json!(1)));
        assert_eq!(all_there["gaps"], json!([{"from_ms": 3_000, "to_ms": 5_000, "ms": 2_000}]));
        assert_eq!((&all_there["rto_ms"], &all_there["acked"]), (&json!(2_000), &json!(198)));
        present.remove(&7);
        present.insert(8, "other".to_owned());
        let lost = compare(&ledger(), &present);
        assert_eq!((&lost["lost"], &lost["acked_lost"]), (&json!(2), &json!([7, 8])));
    }

    #[test]
    fn the_answer_fits_into_what_an_agent_passes_on() {
        let mut entries = Entries::new();
        for seq in 1..=2_000 {
            let mut entry = entry(1_000_000_000_000 + seq * 1_000, None);
            entry.endpoint = format!("192.168.100.{}:65535", seq % 250);
            entries.insert(seq, entry);
        }
        assert!(compare(&entries, &BTreeMap::new()).to_string().len() <= 4_096);
        let first = cut(&entries, 1, 10_000);
        assert!(first.to_string().len() <= 4_096);
        let next = first["next"].as_u64().unwrap();
        assert_eq!(cut(&entries, next, 2)["samples"][0][0], json!(next));
        assert_eq!(cut(&entries, 1_999, 10)["next"], Value::Null);
    }
}
