//! Signed requests to the member's own S3 server: the canary, a short status, single calls. Judges nothing.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use muster_model::observed::Answer;
use muster_model::plan::{S3Ask, S3What};
use muster_runtime::clock::SystemClock;
use serde_json::{Value, json};

use super::s3_caller::Caller;
use super::{Target, s3_heal, s3_users};

/// Names of canaries that one agent uses in turn: what a failed one leaves behind is overwritten, never piled up.
const CANARIES: u8 = 16;

static CANARY: AtomicU8 = AtomicU8::new(0);

/// Asks. A status that is not 2xx is an answer that is not ok.
pub(super) async fn ask(target: &Target, ask: &S3Ask, limit: Duration) -> Result<Answer, String> {
    let caller = Caller::new(target, ask, limit)?;
    let told = |(code, body): (u16, Vec<u8>)| Answer {
        ok: (200..300).contains(&code),
        code: Some(i32::from(code)),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let text = |body: String| Answer { ok: true, code: Some(200), body };
    match &ask.what {
        S3What::Canary { bucket } => canary(&caller, bucket).await.map(text),
        S3What::Status => info(&caller).await.map(|info| text(status(&info).to_string())),
        S3What::DeploymentId => {
            let info = info(&caller).await?;
            info["deploymentID"].as_str().map(|id| text(id.to_owned())).ok_or_else(|| "no id".to_owned())
        }
        S3What::Request { method, path, body } => {
            caller.call(method, path, body.as_bytes().to_vec()).await.map(told)
        }
        S3What::Heal { token: None, .. } => s3_heal::begin(&caller).await.map(text),
        S3What::Heal { token: Some(token), except } => {
            s3_heal::follow(&caller, token, except, limit).await.map(text)
        }
        S3What::ImportUsers(users) => {
            let archive = s3_users::archive(users, &target.secrets)?;
            caller.call("PUT", "/minio/admin/v3/import-iam", archive).await.map(told)
        }
    }
}

async fn info(caller: &Caller) -> Result<Value, String> {
    let body = caller.must("GET", "/minio/admin/v3/info", Vec::new()).await?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

async fn canary(caller: &Caller, bucket: &str) -> Result<String, String> {
    let turn = CANARY.fetch_add(1, Ordering::Relaxed) % CANARIES;
    let path = format!("/{bucket}/{}-{turn}", caller.address.ip());
    let content = format!("{path} {}", SystemClock::shared().now_ms()).into_bytes();
    let mut put = caller.must("PUT", &path, content.clone()).await;
    if put.as_ref().is_err_and(|error| error.contains("NoSuchBucket")) {
        let made = caller.must("PUT", &format!("/{bucket}"), Vec::new()).await;
        if let Err(error) = made
            && !error.contains("BucketAlreadyOwnedByYou")
        {
            return Err(format!("bucket {bucket}: {error}"));
        }
        put = caller.must("PUT", &path, content.clone()).await;
    }
    put?;
    if caller.must("GET", &path, Vec::new()).await? != content {
        return Err("GET: other content than was written".to_owned());
    }
    caller.must("DELETE", &path, Vec::new()).await?;
    // Always the same words: answers are reported when they change.
    Ok("written, read, deleted".to_owned())
}

/// What decisions and operators need of the server's own answer.
fn status(info: &Value) -> Value {
    let servers = info["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let drive = |server: &Value, drive: &Value| {
        let heal = &drive["heal_info"];
        let mut short = json!({
            "server": server["endpoint"],
            "path": drive["path"],
            "state": drive["state"],
        });
        if drive["healing"] == true || heal.is_object() && heal["finished"] != true {
            short["healed"] = heal["items_healed"].clone();
            short["total"] = heal["objects_total_count"].clone();
        }
        short
    };
    let drives = servers.iter().flat_map(|server| {
        server["drives"].as_array().into_iter().flatten().map(move |one| drive(server, one))
    });
    json!({
        "deployment": info["deploymentID"],
        "servers": servers.iter().map(|s| json!([s["endpoint"], s["state"]])).collect::<Vec<_>>(),
        "drives": drives.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use muster_runtime::net::Listener;
    use muster_runtime::secret::Secret;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::s3_caller::reason;
    use super::*;

    #[test]
    fn a_status_is_short_and_says_how_far_healing_is() {
        let info = json!({"deploymentID": "d", "servers": [
            {"endpoint": "s3-1:9000", "state": "online", "drives": [{"path": "/data1", "state": "ok", "uuid": "u"}]},
            {"endpoint": "s3-2:9000", "state": "online", "drives": [{"path": "/data1", "state": "ok", "healing": true,
                "heal_info": {"items_healed": 5, "objects_total_count": 20}}]},
            {"endpoint": "s3-3:9000", "state": "offline"}]});
        assert_eq!(
            status(&info),
            json!({"deployment": "d",
                "servers": [["s3-1:9000", "online"], ["s3-2:9000", "online"], ["s3-3:9000", "offline"]],
                "drives": [{"server": "s3-1:9000", "path": "/data1", "state": "ok"},
                    {"server": "s3-2:9000", "path": "/data1", "state": "ok", "healed": 5, "total": 20}]})
        );
    }

    #[test]
    fn a_reason_is_the_code_of_the_error() {
        assert_eq!(reason(b"<Error><Code>SlowDownWrite</Code></Error>"), "SlowDownWrite");
        assert_eq!(reason(b"plain"), "plain");
    }

    /// Keeps one object, as a server would; `lies` answers with another content.
    async fn serve(listener: Listener, lies: bool, requests: usize) -> Vec<String> {
        let (mut kept, mut heads) = (Vec::new(), Vec::new());
        for _ in 0..requests {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8192];
            let mut filled = 0;
            let (head, body) = loop {
                filled += stream.read(&mut request[filled..]).await.unwrap();
                let text = String::from_utf8_lossy(&request[..filled]).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    break (head.to_owned(), body.to_owned());
                }
            };
            if head.starts_with("PUT") {
                kept = body.into_bytes();
            }
            let answer = if lies { b"other".to_vec() } else { kept.clone() };
            let length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all(&[length.as_bytes(), &answer].concat()).await.unwrap();
            heads.push(head);
        }
        heads
    }

    async fn canary(lies: bool, requests: usize) -> (Result<Answer, String>, Vec<String>) {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let secrets = BTreeMap::from([("s3/root".to_owned(), Secret::new(b"hunter2".to_vec()))]);
        let target =
            Target { address: Some(Ipv4Addr::LOCALHOST), container: None, secrets: Arc::new(secrets) };
        let what = S3What::Canary { bucket: "canary".to_owned() };
        let ask = S3Ask { port, user: "muster".to_owned(), secret: Some("s3/root".to_owned()), what };
        tokio::join!(super::ask(&target, &ask, Duration::from_secs(5)), serve(listener, lies, requests))
    }

    #[tokio::test]
    async fn a_canary_is_written_read_compared_and_deleted_with_signed_requests() {
        let (answer, heads) = canary(false, 3).await;
        assert_eq!(answer.unwrap().body, "written, read, deleted");
        let verbs: Vec<&str> = heads.iter().filter_map(|head| head.split(' ').next()).collect();
        assert_eq!(verbs, ["PUT", "GET", "DELETE"]);
        for head in heads {
            assert!(head.contains("authorization: AWS4-HMAC-SHA256 Credential=muster/"), "{head}");
            assert!(head.contains("x-amz-content-sha256: ") && !head.contains("hunter2"), "{head}");
        }
        let (answer, _) = canary(true, 2).await;
        assert_eq!(answer.unwrap_err(), "GET: other content than was written");
    }
}
