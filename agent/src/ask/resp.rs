//! Commands in Redis' protocol over a connection of their own; what is kept of the answers, as the plan says. No TLS
//! yet: it never leaves the platform's networks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use muster_model::observed::Answer;
use muster_model::plan::{RespAsk, RespCall, RespKeep};
use muster_runtime::net;
use redis::aio::MultiplexedConnection;
use redis::{RedisConnectionInfo, RedisError, Value};
use serde_json::{Map, json};

use super::Target;
use crate::files::{SecretMap, fill_in};

/// Longest part of a server's error that is kept, in characters.
const ERROR_MAX: usize = 200;

/// Does the commands in their order, each at its address. Every one is tried; all must succeed for an answer that is ok.
pub(super) async fn ask(target: &Target, ask: &RespAsk, limit: Duration) -> Result<Answer, String> {
    let missing = || format!("secret {} has not arrived", ask.secret);
    let password = target.secrets.get(&ask.secret).ok_or_else(missing)?;
    let password = std::str::from_utf8(password.expose()).map_err(|_| "a password is not text".to_owned())?;
    let login =
        RedisConnectionInfo::default().set_username(&ask.user).set_password(password).set_skip_set_lib_name();
    let mut by_address: BTreeMap<SocketAddr, Vec<&RespCall>> = BTreeMap::new();
    for call in &ask.calls {
        by_address.entry(target.at(call.address, ask.port)?).or_default().push(call);
    }
    let mut answers = Map::new();
    let mut ok = true;
    for (address, calls) in by_address {
        let names = calls.iter().map(|call| call.name.clone());
        match talk(address, &login, &target.secrets, &calls, limit).await {
            Ok(answered) => answers.extend(names.zip(answered.into_iter().map(|(good, value)| {
                ok &= good;
                value
            }))),
            Err(why) => {
                ok = false;
                answers.extend(names.map(|name| (name, json!({ "error": format!("{address}: {why}") }))));
            }
        }
    }
    Ok(Answer { ok, code: None, body: serde_json::Value::Object(answers).to_string() })
}

/// All commands for one server: whether each succeeded, and what is kept.
async fn talk(
    address: SocketAddr,
    login: &RedisConnectionInfo,
    secrets: &SecretMap,
    calls: &[&RespCall],
    limit: Duration,
) -> Result<Vec<(bool, serde_json::Value)>, String> {
    let stream = net::connect(&address.to_string(), limit).await.map_err(|error| error.to_string())?;
    let connected = MultiplexedConnection::new(login, stream).await;
    let (mut connection, driver) = connected.map_err(|error| told(&error))?;
    let exchange = pin!(async move {
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            let mut command = redis::Cmd::new();
            let mut missing = None;
            for word in &call.words {
                match fill_in(word, secrets) {
                    Ok(word) => drop(command.arg(word.expose().as_slice())),
                    Err(name) => missing = Some(name),
                }
            }
            if let Some(name) = missing {
                answers.push((false, json!({ "error": format!("secret {name} has not arrived") })));
                continue;
            }
            // What the server refuses comes as a value, not as an error.
            let answer = connection.send_packed_command(&command).await.and_then(Value::extract_error);
            answers.push(match answer {
                Ok(value) => (true, keep(&call.keep, &value)),
                Err(error) => (false, json!({ "error": told(&error) })),
            });
        }
        answers
    });
    let mut exchange = exchange;
    tokio::select! {
        answers = &mut exchange => Ok(answers),
        () = driver => Ok(exchange.await),
    }
}

/// The server's own words, cut.
fn told(error: &RedisError) -> String {
    let text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    };
    text.chars().take(ERROR_MAX).collect()
}

pub(super) fn keep(keep: &RespKeep, value: &Value) -> serde_json::Value {
    match keep {
        RespKeep::Whole => whole(value),
        RespKeep::Fields(names) => {
            let text = text(value);
            let found = text.lines().filter_map(|line| line.trim_end().split_once(':'));
            let kept = found.filter(|(name, _)| names.iter().any(|wanted| wanted == name));
            kept.map(|(name, value)| (name.to_owned(), json!(value))).collect::<Map<_, _>>().into()
        }
        RespKeep::Columns { places, rest } => {
            let line = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let picked = places.iter().filter_map(|place| words.get(*place));
                json!(picked.chain(words.iter().skip(*rest)).collect::<Vec<_>>())
            };
            text(value).lines().map(line).collect::<Vec<_>>().into()
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    }
}

fn whole(value: &Value) -> serde_json::Value {
    match value {
        Value::Nil => serde_json::Value::Null,
        Value::Int(number) => json!(number),
        Value::Double(number) => json!(number),
        Value::Boolean(yes) => json!(yes),
        Value::Okay => json!("OK"),
        Value::Array(values) | Value::Set(values) => values.iter().map(whole).collect::<Vec<_>>().into(),
        Value::Map(pairs) => {
            pairs.iter().map(|(key, value)| (text(key), whole(value))).collect::<Map<_, _>>().into()
        }
        other => json!(text(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_answers_only_what_was_asked_for_is_kept() {
        let info = Value::BulkString(b"# Server\r\nredis_version:7.0.15\r\nrole:master\r\nos:x\r\n".to_vec());
        let fields = RespKeep::Fields(vec!["role".to_owned(), "redis_version".to_owned()]);
        assert_eq!(keep(&fields, &info), json!({"role": "master", "redis_version": "7.0.15"}));
        let nodes = Value::BulkString(
            b"id1 10.0.0.1:6379@16379 myself,master - 0 0 3 connected 0-9 12\nid2 x slave id1\n".to_vec(),
        );
        let columns = RespKeep::Columns { places: vec![0, 2, 3], rest: 8 };
        assert_eq!(
            keep(&columns, &nodes),
            json!([["id1", "myself,master", "-", "0-9", "12"], ["id2", "slave", "id1"]])
        );
    }
}
