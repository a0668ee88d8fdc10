//! What engines answer, of any content, over real connections: an answer or an error in bounded time and size, never a
//! panic.

use std::collections::BTreeMap;
use std::time::Instant;

use muster_model::plan::{
    ANSWER_LEN_MAX, HttpAsk, RespAsk, RespCall, RespKeep, S3Ask, S3What, SqlAsk, SqlEngine,
};
use muster_property::{Target as Property, bytes, json};
use muster_runtime::net::Listener;
use muster_runtime::secret::Secret;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use redis::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::runtime::fake::Fake;

/// The deadline of every question here.
const WITHIN: Duration = Duration::from_secs(2);
/// Longest wait of a server for the next word.
const PATIENCE: Duration = Duration::from_millis(20);

fn property(name: &'static str) -> Property {
    Property::new(name, env!("CARGO_MANIFEST_DIR"))
}

/// Answers each thing that is said with the next reply, then closes; a client that says nothing more is left alone.
async fn serve(listener: &Listener, replies: &[Vec<u8>]) {
    let Ok((mut stream, _)) = listener.accept().await else { return };
    let mut said = vec![0; 16 * 1024];
    for reply in replies {
        // A client that waits for the rest of a reply says nothing.
        match tokio::time::timeout(PATIENCE, stream.read(&mut said)).await {
            Ok(Ok(1..)) if stream.write_all(reply).await.is_ok() => {}
            _ => return,
        }
    }
    // Closed in any case; whether the client was still there is its own business.
    drop(stream.shutdown().await);
}

/// One engine that answers what it is told to.
struct Engine {
    runtime: Runtime,
    listener: Listener,
    target: Target,
    port: u16,
}

impl Engine {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(Listener::bind(([127, 0, 0, 1], 0).into())).unwrap();
        let port = listener.local_addr().unwrap().port();
        let secrets = BTreeMap::from([("s".to_owned(), Secret::new(b"hunter2".to_vec()))]);
        let target =
            Target { address: Some(Ipv4Addr::LOCALHOST), container: None, secrets: Arc::new(secrets) };
        Self { runtime, listener, target, port }
    }

    /// Asks while it answers; whatever it says, the answer is bounded.
    fn answer(&self, ask: Ask, replies: &[Vec<u8>]) -> Answer {
        let probe = Probe { timeout_ms: 2_000, ask };
        let began = Instant::now();
        let answer = self.runtime.block_on(async {
            let fake = Fake::default();
            tokio::select! {
                biased;
                answer = super::ask(&fake, &self.target, &probe) => answer,
                () = async { loop { serve(&self.listener, replies).await } } => unreachable!("it serves for ever"),
            }
        });
        assert!(began.elapsed() < WITHIN * 3, "took {:?}", began.elapsed());
        assert!(answer.body.len() <= ANSWER_LEN_MAX, "{} bytes", answer.body.len());
        assert!(
            !answer.body.contains("hunter2") || replies.concat().windows(7).any(|part| part == b"hunter2")
        );
        answer
    }
}

fn http(port: u16) -> Ask {
    let (method, path) = ("GET".to_owned(), "/cluster".to_owned());
    Ask::Http(HttpAsk { method, port, path, body: None, basic_auth: None, address: None })
}

#[test]
fn http_servers_say_what_they_like() {
    let (engine, property) = (Engine::start(), property("http").heavy(4));
    let endpoint = ([127, 0, 0, 1], engine.port).into();
    let all = |reply: &[u8]| {
        engine.answer(http(engine.port), &[reply.to_vec()]);
        engine.answer(
            Ask::EtcdRange { endpoints: vec![endpoint], prefix: "/a/".to_owned() },
            &[reply.to_vec()],
        );
        let s3 = |what| Ask::S3(S3Ask { port: engine.port, user: "u".to_owned(), secret: None, what });
        engine.answer(s3(S3What::Status), &[reply.to_vec()]);
        engine.answer(s3(S3What::Canary { bucket: "b".to_owned() }), &[reply.to_vec()]);
        engine.answer(s3(S3What::Heal { token: None, except: String::new() }), &[reply.to_vec()]);
    };
    property.holds(bytes::damaged(property.seeds()), |reply| all(&reply));
    property.replay(all);
}

/// A whole answer of an HTTP server with this JSON.
fn ok(body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn json_behind_http_has_any_content() {
    let (engine, property) = (Engine::start(), property("http-json").heavy(4));
    let endpoint = ([127, 0, 0, 1], engine.port).into();
    property.holds(json::damaged(&property.seeds()), |body| {
        let reply = [ok(&body)];
        let range = Ask::EtcdRange { endpoints: vec![endpoint], prefix: "/service/pg/".to_owned() };
        let found = engine.answer(range, &reply);
        assert!(!found.ok || found.body.len() == ANSWER_LEN_MAX || found.body.starts_with('{'));
        let s3 = |what| Ask::S3(S3Ask { port: engine.port, user: "u".to_owned(), secret: None, what });
        let told = engine.answer(s3(S3What::Status), &reply);
        assert!(!told.ok || told.body.len() == ANSWER_LEN_MAX || told.body.starts_with('{'));
        let heal = S3What::Heal { token: Some("t".to_owned()), except: "canary".to_owned() };
        engine.answer(s3(heal), &reply);
    });
}

#[test]
fn the_reason_of_an_s3_server_is_short() {
    let code = vec(any::<char>(), 0..2_000).prop_map(String::from_iter);
    property("s3-reason").holds((code, any::<bool>()), |(code, tagged)| {
        let body = if tagged { format!("<Error><Code>{code}</Code></Error>") } else { code };
        assert!(s3_caller::reason(body.as_bytes()).chars().count() <= 300);
    });
}

fn resp(port: u16) -> Ask {
    let call = |name: &str, keep| RespCall {
        name: name.to_owned(),
        words: vec!["INFO".to_owned()],
        address: None,
        keep,
    };
    let columns = RespKeep::Columns { places: vec![0, 2, usize::MAX], rest: 3 };
    let calls = vec![
        call("a", RespKeep::Fields(vec!["role".to_owned()])),
        call("b", RespKeep::Whole),
        call("c", columns),
    ];
    Ask::Resp(RespAsk { port, user: "u".to_owned(), secret: "s".to_owned(), calls })
}

#[test]
fn redis_servers_say_what_they_like() {
    let (engine, property) = (Engine::start(), property("resp").heavy(2));
    let all = |replies: &[Vec<u8>]| {
        let answer = engine.answer(resp(engine.port), replies);
        assert!(!answer.ok || answer.body.len() == ANSWER_LEN_MAX || answer.body.starts_with('{'));
    };
    let login = prop_oneof![4 => Just(b"+OK\r\n".to_vec()), 1 => bytes::damaged(property.seeds())];
    let replies = (login, vec(bytes::damaged(property.seeds()), 0..4));
    property.holds(replies, |(login, rest)| all(&[vec![login], rest].concat()));
    property.replay(|reply| all(&[b"+OK\r\n".to_vec(), reply.to_vec(), reply.to_vec(), reply.to_vec()]));
}

/// A message of PostgreSQL: its letter and its length before it.
fn message(letter: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[letter][..], &length, body].concat()
}

/// What a server says after a good login, and a row of two values with one NULL.
fn postgres() -> [Vec<u8>; 2] {
    let ready = message(b'Z', b"I");
    let login =
        [message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.4\x00"), ready.clone()].concat();
    let column =
        |name: &[u8]| [name, &[0; 7], &[0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]].concat();
    let columns = message(b'T', &[vec![0, 2], column(b"a"), column(b"b")].concat());
    let row = message(b'D', &[0, 2, 0, 0, 0, 1, b'1', 0xff, 0xff, 0xff, 0xff]);
    [login, [columns, row, message(b'C', b"SELECT 1\0"), ready].concat()]
}

fn sql(port: u16) -> Ask {
    let (user, secret, database) = ("u".to_owned(), "s".to_owned(), "d".to_owned());
    Ask::Sql(SqlAsk {
        engine: SqlEngine::Postgres,
        port,
        user,
        secret,
        database,
        statement: "SELECT 1".to_owned(),
    })
}

#[test]
fn postgres_servers_say_what_they_like() {
    let (engine, property) = (Engine::start(), property("sql").heavy(2));
    let [login, rows] = postgres();
    let whole = engine.answer(sql(engine.port), &[login.clone(), rows.clone()]);
    assert_eq!((whole.ok, whole.body.as_str()), (true, r#"["1",null]"#));
    let seeds = [property.seeds(), vec![rows, login.clone()]].concat();
    let greeting = prop_oneof![4 => Just(login.clone()), 1 => bytes::damaged(seeds.clone())];
    let replies = (greeting, vec(bytes::damaged(seeds), 0..3));
    let all = |replies: &[Vec<u8>]| {
        let answer = engine.answer(sql(engine.port), replies);
        let row = || serde_json::from_str::<Vec<Option<String>>>(&answer.body).is_ok();
        assert!(!answer.ok || answer.body.len() == ANSWER_LEN_MAX || row(), "{answer:?}");
    };
    property.holds(replies, |(greeting, rest)| all(&[vec![greeting], rest].concat()));
    property.replay(|reply| all(&[login.clone(), reply.to_vec()]));
}

fn value() -> impl Strategy<Value = Value> {
    let text = "(role|[a-z_]{0,6}|\u{e9})?[:\r\n \t]{0,3}[a-z0-9:]{0,6}\r?\n?";
    let leaf = prop_oneof![
        Just(Value::Nil),
        Just(Value::Okay),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        any::<bool>().prop_map(Value::Boolean),
        text.prop_map(Value::SimpleString),
        vec(any::<u8>(), 0..30).prop_map(Value::BulkString),
        vec(text, 0..6).prop_map(|lines| Value::BulkString(lines.concat().into_bytes())),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec(inner.clone(), 0..5).prop_map(Value::Set),
            vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

#[test]
fn of_any_value_of_redis_only_what_was_asked_for_is_kept() {
    let columns =
        (vec(prop_oneof![0..5_usize, any::<usize>()], 0..4), prop_oneof![0..9_usize, any::<usize>()]);
    property("resp-value").holds((value(), columns), |(value, (places, rest))| {
        let fields = resp::keep(&RespKeep::Fields(vec!["role".to_owned()]), &value);
        assert!(
            fields.as_object().is_some_and(|fields| fields.keys().all(|name| name == "role")),
            "{fields}"
        );
        let kept = resp::keep(&RespKeep::Columns { places, rest }, &value);
        assert!(kept.as_array().is_some_and(|lines| lines.iter().all(serde_json::Value::is_array)), "{kept}");
        drop(resp::keep(&RespKeep::Whole, &value).to_string());
    });
}
