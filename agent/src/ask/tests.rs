//! Tests of `ask` against small servers on loopback.

use std::collections::BTreeMap;

use muster_model::plan::{HttpAsk, Predicate, RespAsk, RespCall, RespKeep};
use muster_runtime::net::Listener;
use muster_runtime::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::runtime::fake::Fake;

/// Answers each request on a connection of its own with the next body; gives back what it was sent.
async fn serve(listener: Listener, bodies: Vec<String>) -> Vec<String> {
    serve_codes(listener, bodies.into_iter().map(|body| (200, body)).collect()).await
}

async fn serve_codes(listener: Listener, answers: Vec<(u16, String)>) -> Vec<String> {
    let mut requests = Vec::new();
    for (code, body) in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 8192];
        let mut filled = 0;
        loop {
            filled += stream.read(&mut request[filled..]).await.unwrap();
            let text = String::from_utf8_lossy(&request[..filled]).into_owned();
            let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if rest.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break;
            }
        }
        requests.push(String::from_utf8_lossy(&request[..filled]).into_owned());
        let head = format!("HTTP/1.1 {code} said\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    }
    requests
}

fn target() -> Target {
    let secrets = BTreeMap::from([("pg/rest".to_owned(), Secret::new(b"hunter2".to_vec()))]);
    Target { address: Some(Ipv4Addr::LOCALHOST), container: None, secrets: Arc::new(secrets) }
}

#[tokio::test]
async fn a_server_that_does_not_know_the_new_password_yet_is_asked_with_the_one_before() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ask = HttpAsk {
        method: "POST".to_owned(),
        port,
        path: "/reload".to_owned(),
        body: None,
        basic_auth: Some(("admin".to_owned(), "pg/rest".to_owned())),
        address: None,
    };
    let probe = Probe { timeout_ms: 5_000, ask: Ask::Http(ask) };
    let fake = Fake::default();
    let mut target = target();
    let old = Secret::new(b"before".to_vec());
    Arc::get_mut(&mut target.secrets).unwrap().insert(previous_secret("pg/rest"), old);
    let answers = vec![(401, String::new()), (200, "done".to_owned())];
    let (answer, requests) = tokio::join!(super::ask(&fake, &target, &probe), serve_codes(listener, answers));
    assert_eq!((answer.ok, answer.body.as_str()), (true, "done"));
    // admin:hunter2, then admin:before
    assert!(requests[0].contains("authorization: Basic YWRtaW46aHVudGVyMg=="), "{}", requests[0]);
    assert!(requests[1].contains("authorization: Basic YWRtaW46YmVmb3Jl"), "{}", requests[1]);
}

#[tokio::test]
async fn http_sends_the_login_and_cuts_the_answer() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ask = HttpAsk {
        method: "POST".to_owned(),
        port,
        path: "/switchover".to_owned(),
        body: Some("{\"p\":\"${secret:pg/rest}\"}".to_owned()),
        basic_auth: Some(("admin".to_owned(), "pg/rest".to_owned())),
        address: None,
    };
    let probe = Probe { timeout_ms: 5_000, ask: Ask::Http(ask) };
    let fake = Fake::default();
    let target = target();
    let (answer, requests) = tokio::join!(
        super::ask(&fake, &target, &probe),
        serve(listener, vec!["x".repeat(3 * ANSWER_LEN_MAX)])
    );
    assert_eq!((answer.ok, answer.code, answer.body.len()), (true, Some(200), ANSWER_LEN_MAX));
    assert!(requests[0].contains("authorization: Basic YWRtaW46aHVudGVyMg=="), "{}", requests[0]);
    assert!(requests[0].ends_with("{\"p\":\"hunter2\"}"));
}

#[tokio::test]
async fn what_redis_refuses_is_no_success() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        for answer in ["+OK\r\n", "-MOVED 1 10.0.0.2:6379\r\n", ":7\r\n"] {
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let call = |name: &str| RespCall {
        name: name.to_owned(),
        words: vec!["DBSIZE".to_owned()],
        address: None,
        keep: RespKeep::Whole,
    };
    let resp = RespAsk {
        port,
        user: "u".to_owned(),
        secret: "pg/rest".to_owned(),
        calls: vec![call("a"), call("b")],
    };
    let probe = Probe { timeout_ms: 5_000, ask: Ask::Resp(resp) };
    let fake = Fake::default();
    let target = target();
    let (answer, ()) = tokio::join!(super::ask(&fake, &target, &probe), server);
    assert!(!answer.ok);
    assert_eq!(answer.body, r#"{"a":{"error":"MOVED 1 10.0.0.2:6379"},"b":7}"#);
}

#[tokio::test]
async fn nobody_and_silence_are_answers_too() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fake = Fake::default();
    let tcp = |port| Probe { timeout_ms: 2_000, ask: Ask::Tcp { port } };
    assert!(super::ask(&fake, &target(), &tcp(port)).await.ok);
    let ask = HttpAsk {
        method: "GET".to_owned(),
        port,
        path: "/".to_owned(),
        body: None,
        basic_auth: None,
        address: None,
    };
    let silent = Probe { timeout_ms: 100, ask: Ask::Http(ask) };
    assert!(super::ask(&fake, &target(), &silent).await.body.contains("no answer"));
    // Port 1, because a free one may be taken by another test meanwhile.
    let nobody = super::ask(&fake, &target(), &tcp(1)).await;
    assert!(!nobody.ok && nobody.code.is_none());
    let guard = Guard { name: "port open".to_owned(), probe: tcp(1), accept: Predicate::Ok };
    assert!(check(&fake, &target(), &guard).await.unwrap_err().starts_with("port open"));
}

#[tokio::test]
async fn etcd_keys_come_without_their_prefix() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    // /service/pg/leader = pg-1, /service/pg/sync = {"leader":"pg-1"}
    let body = r#"{"kvs":[{"key":"L3NlcnZpY2UvcGcvbGVhZGVy","value":"cGctMQ==","mod_revision":"7"},
        {"key":"L3NlcnZpY2UvcGcvc3luYw==","value":"eyJsZWFkZXIiOiJwZy0xIn0="}]}"#;
    let ask = Ask::EtcdRange { endpoints: vec![endpoint], prefix: "/service/pg/".to_owned() };
    let probe = Probe { timeout_ms: 5_000, ask };
    let fake = Fake::default();
    let target = target();
    let (answer, requests) =
        tokio::join!(super::ask(&fake, &target, &probe), serve(listener, vec![body.to_owned()]));
    assert_eq!(answer.body, r#"{"leader":"pg-1","sync":{"leader":"pg-1"}}"#);
    assert!(requests[0].contains("\"range_end\":\"L3NlcnZpY2UvcGcw\""));
}

async fn delete_with(answers: [&str; 3]) -> (Result<(), String>, Vec<String>) {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let endpoints = [listener.local_addr().unwrap()];
    let limit = Duration::from_millis(500);
    let answers = answers.iter().filter(|a| !a.is_empty()).map(|a| (*a).to_owned()).collect();
    tokio::join!(etcd::delete(&endpoints, "leader", "pg-1", limit), serve(listener, answers))
}

#[tokio::test]
async fn a_key_is_deleted_only_with_its_value_and_revision_and_read_back() {
    let there = r#"{"kvs":[{"key":"bGVhZGVy","value":"cGctMQ==","mod_revision":"7"}]}"#;
    let (done, requests) = delete_with([there, r#"{"succeeded":true}"#, "{}"]).await;
    assert_eq!(done, Ok(()));
    assert!(requests[1].contains("\"mod_revision\":\"7\"") && requests[1].contains("\"value\":\"cGctMQ==\""));
    let (done, _) = delete_with([there, "{}", there]).await;
    assert!(done.unwrap_err().contains("still"));
    let (done, _) = delete_with([there, "{}", "{}"]).await;
    assert!(done.unwrap_err().contains("in between"));
    let other = r#"{"kvs":[{"key":"bGVhZGVy","value":"cGctMg==","mod_revision":"7"}]}"#;
    let (done, _) = delete_with([other, "", ""]).await;
    assert!(done.unwrap_err().contains("not `pg-1`"));
}
