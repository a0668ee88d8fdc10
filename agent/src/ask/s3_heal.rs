//! A heal of everything on an S3 server: begun once, then its results are taken until it ends. What a server has to tell
//! stays in its memory until it is taken, and it pauses at 1,000 results. Judges nothing.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::s3_caller::{Caller, reason};

/// Largest answer that is read: 1,000 results of a set of 16 drives.
const BODY_MAX: usize = 8 << 20;
/// Longest name that is told, in characters.
const NAME_MAX: usize = 200;
/// Between two looks at a heal that runs.
const PAUSE: Duration = Duration::from_millis(500);
/// Kept of the time for the answer's way back.
const MARGIN: Duration = Duration::from_secs(3);
/// A server answers this start for a heal that it does not know, and calls it finished.
const NEVER: &str = "0001-01-01";

#[derive(Deserialize)]
struct Begun {
    #[serde(rename = "clientToken")]
    token: String,
}

#[derive(Deserialize)]
struct Progress {
    #[serde(rename = "Summary")]
    summary: String,
    #[serde(rename = "StartTime")]
    since: String,
    #[serde(rename = "Items")]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    bucket: String,
    #[serde(default)]
    object: String,
    #[serde(default)]
    detail: String,
    before: Drives,
    after: Drives,
}

#[derive(Deserialize)]
struct Drives {
    drives: Option<Vec<Drive>>,
}

#[derive(Deserialize)]
struct Drive {
    state: String,
}

impl Drives {
    fn count(&self, state: impl Fn(&str) -> bool) -> usize {
        self.drives.iter().flatten().filter(|drive| state(&drive.state)).count()
    }
}

impl Item {
    /// An object of a user, not of the servers' own book-keeping.
    fn counts(&self, except: &str) -> bool {
        self.bucket != except && !self.bucket.starts_with('.')
    }

    /// Every drive that is there has its part, or it was deleted meanwhile.
    fn is_whole(&self) -> bool {
        let deleted = self.detail.contains("not found");
        let lacking = || self.after.count(|state| state != "ok" && state != "offline");
        deleted || self.detail.is_empty() && lacking() == 0
    }

    fn was_healed(&self) -> bool {
        let ok = |state: &str| state == "ok";
        self.after.count(ok) > self.before.count(ok)
    }
}

impl Progress {
    /// How it ended, if it did.
    fn end(&self) -> Option<&'static str> {
        match self.summary.as_str() {
            "finished" if self.since.starts_with(NEVER) => Some("gone"),
            "finished" => Some("finished"),
            "stopped" => Some("gone"),
            _ => None,
        }
    }
}

/// What came of a heal so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Objects that lay on fewer drives before.
    healed: u64,
    /// Objects that a drive that is there still lacks.
    failed: u64,
    /// One of these.
    first: String,
}

impl Tally {
    fn add(&mut self, progress: &Progress, except: &str) {
        for item in progress.items.iter().flatten().filter(|item| item.counts(except)) {
            if item.is_whole() {
                self.healed += u64::from(item.was_healed());
                continue;
            }
            self.failed += 1;
            if self.first.is_empty() {
                self.first = format!("{}/{}", item.bucket, item.object).chars().take(NAME_MAX).collect();
            }
        }
    }

    fn told(&self, state: &str) -> String {
        json!({ "state": state, "healed": self.healed, "failed": self.failed, "first": self.first })
            .to_string()
    }
}

/// Begins a heal, in place of one that runs. Answer = JSON with its `token`.
pub(super) async fn begin(caller: &Caller) -> Result<String, String> {
    let options = json!({
        "recursive": true, "dryRun": false, "remove": false, "recreate": false, "scanMode": 1, "updateParity": false,
        "nolock": false,
    });
    let path = "/minio/admin/v3/heal/?forceStart=";
    let body = caller.must("POST", path, options.to_string().into_bytes()).await?;
    let begun: Begun = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(json!({ "token": begun.token }).to_string())
}

/// Takes results until the heal ends or the time is over. Nothing of the bucket `except` counts.
pub(super) async fn follow(
    caller: &Caller,
    token: &str,
    except: &str,
    limit: Duration,
) -> Result<String, String> {
    let end = Instant::now() + limit.saturating_sub(MARGIN);
    let path = format!("/minio/admin/v3/heal/?clientToken={token}");
    let mut tally = Tally::default();
    loop {
        let (code, body) = caller.call_up_to("POST", &path, Vec::new(), BODY_MAX).await?;
        if !(200..300).contains(&code) {
            return Err(format!("heal: {code} {}", reason(&body)));
        }
        let progress: Progress = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        tally.add(&progress, except);
        if let Some(state) = progress.end() {
            return Ok(tally.told(state));
        }
        if Instant::now() >= end {
            return Ok(tally.told("running"));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn item(bucket: &str, object: &str, detail: &str, before: [&str; 3], after: [&str; 3]) -> Value {
        let drives = |states: [&str; 3]| json!({ "drives": states.map(|state| json!({ "state": state })) });
        json!({ "resultId": 1, "type": "object", "bucket": bucket, "object": object, "detail": detail,
            "before": drives(before), "after": drives(after) })
    }

    fn progress(summary: &str, items: &Value) -> Progress {
        let told = json!({ "Summary": summary, "StartTime": "2026-11-30T11:13:02Z", "Settings": {}, "Items": items });
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn what_a_drive_that_is_there_lacks_is_counted_and_nothing_else() {
        let whole = ["ok", "ok", "ok"];
        let short = "Storage resources are insufficient for the read operation photos/b";
        let items = json!([
            item("photos", "a", "", ["ok", "missing", "ok"], whole),
            item("photos", "away", "", ["ok", "ok", "offline"], ["ok", "ok", "offline"]),
            item("photos", "b", short, whole, whole),
            item("photos", "c", "", ["ok", "missing", "ok"], ["ok", "missing", "ok"]),
            item("photos", "gone", "Object not found: photos/gone", whole, ["missing", "missing", "missing"]),
            item("muster-canary", "x", "", ["ok", "missing", "missing"], ["ok", "missing", "missing"]),
            item(".minio.sys", "config/x", "", ["ok", "missing", "ok"], whole),
        ]);
        let mut tally = Tally::default();
        tally.add(&progress("running", &items), "muster-canary");
        tally.add(&progress("running", &Value::Null), "muster-canary");
        assert_eq!(tally, Tally { healed: 1, failed: 2, first: "photos/b".to_owned() });
    }

    #[test]
    fn a_heal_that_the_server_does_not_know_is_not_finished() {
        assert_eq!(progress("running", &Value::Null).end(), None);
        assert_eq!(progress("finished", &Value::Null).end(), Some("finished"));
        let unknown = json!({ "Summary": "finished", "StartTime": "0001-01-01T00:00:00Z", "Items": null });
        let unknown: Progress = serde_json::from_value(unknown).unwrap();
        assert_eq!(unknown.end(), Some("gone"));
    }
}
