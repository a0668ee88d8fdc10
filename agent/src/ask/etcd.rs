//! etcd's v3 JSON gateway: keys under a prefix, and the guarded deletion of one key. Keys and values are base64 there.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use muster_model::observed::Answer;
use serde_json::{Map, Value, json};

use super::http::send;

/// Largest answer of a gateway that is read.
const BODY_MAX: usize = 256 * 1024;
/// Longest wait for one endpoint, so that there is time for the next.
const PER_ENDPOINT: Duration = Duration::from_millis(1500);

/// Keys under a prefix.
pub(super) async fn range(endpoints: &[SocketAddr], prefix: &str, limit: Duration) -> Result<Answer, String> {
    let body = json!({ "key": STANDARD.encode(prefix), "range_end": STANDARD.encode(range_end(prefix)) });
    let found = post(endpoints, "/v3/kv/range", &body, limit).await?;
    let mut object = Map::new();
    for kv in found["kvs"].as_array().into_iter().flatten() {
        let key = decode(&kv["key"])?;
        let value = decode(&kv["value"])?;
        let name = key.strip_prefix(prefix).unwrap_or(&key).to_owned();
        let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
        object.insert(name, value);
    }
    Ok(Answer { ok: true, code: Some(200), body: Value::Object(object).to_string() })
}

/// Deletes a key in one transaction if it has this value and was not written since it was read; then reads it back.
///
/// # Errors
/// The key has not this value, the transaction did not go through, or the key is still there afterwards.
pub async fn delete(endpoints: &[SocketAddr], key: &str, value: &str, limit: Duration) -> Result<(), String> {
    let read = json!({ "key": STANDARD.encode(key) });
    let found = post(endpoints, "/v3/kv/range", &read, limit).await?;
    let Some(kv) = found["kvs"].as_array().and_then(|kvs| kvs.first()) else {
        return Err(format!("there is no key {key}"));
    };
    let has = decode(&kv["value"])?;
    if has != value {
        return Err(format!("{key} is `{has}`, not `{value}`"));
    }
    let key64 = STANDARD.encode(key);
    let transaction = json!({
        "compare": [
            { "key": key64, "target": "VALUE", "result": "EQUAL", "value": kv["value"] },
            // Exactly as it was received: the gateway writes 64-bit numbers as texts.
            { "key": key64, "target": "MOD", "result": "EQUAL", "mod_revision": kv["mod_revision"] },
        ],
        "success": [{ "request_delete_range": { "key": key64 } }],
    });
    let done = post(endpoints, "/v3/kv/txn", &transaction, limit).await;
    // Whatever became of the answer, the key itself tells.
    let after = post(endpoints, "/v3/kv/range", &read, limit).await?;
    let after = after["kvs"].as_array().and_then(|kvs| kvs.first());
    let ours = after.is_some_and(|kv| decode(&kv["value"]).is_ok_and(|has| has == value));
    match done {
        _ if ours => Err(format!("{key} is still `{value}`")),
        Ok(answer) if !answer["succeeded"].as_bool().unwrap_or(false) => {
            Err(format!("{key} was written in between; nothing was deleted"))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The first endpoint that answers with 200 wins.
async fn post(endpoints: &[SocketAddr], path: &str, body: &Value, limit: Duration) -> Result<Value, String> {
    let mut last = "no etcd endpoint is known".to_owned();
    for endpoint in endpoints {
        let request = Request::post(path)
            .header("host", endpoint.to_string())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| error.to_string())?;
        let limit = limit.min(PER_ENDPOINT);
        match tokio::time::timeout(limit, send(*endpoint, request, limit, BODY_MAX)).await {
            Ok(Ok((200, answer))) => {
                return serde_json::from_slice(&answer).map_err(|error| format!("{endpoint}: {error}"));
            }
            Ok(Ok((code, answer))) => {
                let text = String::from_utf8_lossy(&answer);
                last = format!("{endpoint}: {code} {}", text.chars().take(200).collect::<String>());
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = format!("{endpoint}: no answer within {limit:?}"),
        }
    }
    Err(last)
}

fn decode(value: &Value) -> Result<String, String> {
    // An empty value is left out by the gateway.
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// The end of the range of all keys with this prefix: the prefix with its last byte that can grow grown by one.
fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Everything.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_next_sibling() {
        assert_eq!(range_end("/service/pg/"), b"/service/pg0");
        assert_eq!(range_end(""), [0]);
    }
}
