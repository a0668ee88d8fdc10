//! Good JSON with values, keys and elements made wrong; it stays JSON, so that what is behind the syntax is reached.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use serde_json::{Value, json};

#[derive(Debug, Clone)]
enum Edit {
    Set {
        at: Index,
        value: Value,
    },
    Gone {
        at: Index,
    },
    Twice {
        at: Index,
    },
    Key {
        at: Index,
        key: String,
    },
    /// The value of another place.
    Move {
        at: Index,
        from: Index,
    },
}

/// Values at the edges of types.
fn odd() -> impl Strategy<Value = Value> {
    let numbers = [json!(0), json!(-1), json!(255), json!(65_536), json!(u32::MAX), json!(u64::MAX)];
    let others = [json!(i64::MIN), json!(1e308), json!(-0.5), json!(null), json!(true), json!([]), json!({})];
    let texts =
        ["", "a", "-", "../x", "\u{0}", "${secret:x}", "9".repeat(30).as_str(), "\u{1f980}"].map(Value::from);
    let deep = (0..100).fold(json!(1), |value, _| json!([value]));
    let all: Vec<Value> = numbers.into_iter().chain(others).chain(texts).chain([deep]).collect();
    prop_oneof![
        3 => select(all),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<i32>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => ".{0,12}".prop_map(Value::from),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), odd()).prop_map(|(at, value)| Edit::Set { at, value }),
        1 => at().prop_map(|at| Edit::Gone { at }),
        1 => at().prop_map(|at| Edit::Twice { at }),
        1 => (at(), "[a-z_]{0,8}").prop_map(|(at, key)| Edit::Key { at, key }),
        2 => (at(), at()).prop_map(|(at, from)| Edit::Move { at, from }),
    ]
}

/// Every place of a document, as pointers.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| places(item, &format!("{here}/{at}"), found));
        }
        Value::Object(entries) => entries.iter().for_each(|(key, item)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            places(item, &format!("{here}/{key}"), found);
        }),
        _ => {}
    }
}

fn pick(value: &Value, at: &Index) -> String {
    let mut found = Vec::new();
    places(value, "", &mut found);
    found[at.index(found.len())].clone()
}

/// The container of a place, and its key or number there.
fn around<'a>(value: &'a mut Value, pointer: &str) -> Option<(&'a mut Value, String)> {
    let (around, step) = pointer.rsplit_once('/')?;
    Some((value.pointer_mut(around)?, step.replace("~1", "/").replace("~0", "~")))
}

impl Edit {
    fn apply(&self, value: &mut Value) {
        match self {
            Self::Set { at, value: new } => {
                let at = pick(value, at);
                if let Some(place) = value.pointer_mut(&at) {
                    *place = new.clone();
                }
            }
            Self::Move { at, from } => {
                let (at, from) = (pick(value, at), pick(value, from));
                let moved = value.pointer(&from).cloned().unwrap_or_default();
                if let Some(place) = value.pointer_mut(&at).filter(|_| moved.to_string().len() < 4096) {
                    *place = moved;
                }
            }
            Self::Gone { at } => {
                let at = pick(value, at);
                match around(value, &at) {
                    Some((Value::Array(items), step)) => drop(items.remove(step.parse().unwrap_or_default())),
                    Some((Value::Object(entries), step)) => drop(entries.remove(&step)),
                    _ => {}
                }
            }
            Self::Twice { at } => {
                let at = pick(value, at);
                if let Some((Value::Array(items), step)) = around(value, &at) {
                    let item = items[step.parse::<usize>().unwrap_or_default()].clone();
                    items.push(item);
                }
            }
            Self::Key { at, key } => {
                let at = pick(value, at);
                if let Some((Value::Object(entries), step)) = around(value, &at)
                    && let Some(item) = entries.remove(&step)
                {
                    entries.insert(key.clone(), item);
                }
            }
        }
    }
}

/// One of these documents with up to four things wrong, sometimes none.
///
/// # Panics
/// One of them is not JSON, or there is none.
pub fn damaged(seeds: &[Vec<u8>]) -> impl Strategy<Value = Value> + use<> {
    let seeds = seeds.iter().map(|seed| serde_json::from_slice(seed).expect("the corpus holds JSON"));
    (select(seeds.collect::<Vec<Value>>()), vec(edit(), 0..=4)).prop_map(|(mut value, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut value));
        value
    })
}
