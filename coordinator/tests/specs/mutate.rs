//! Every way in which one field of a valid file is made wrong, generated from the tree of the file.

use super::document::{Node, Path, text};

/// A file with one field made wrong.
pub struct Mutation {
    pub class: &'static str,
    /// The field in words.
    pub path: String,
    /// What was done to it.
    pub how: String,
    pub yaml: String,
    /// Where a mistake must be told: the first and last line of the field; for another key also the line around it, where
    /// it is missing now.
    pub lines: Vec<u64>,
    /// What the remedy must suggest.
    pub suggest: Option<String>,
}

enum Edit {
    /// Another value.
    Value(Node),
    /// Another key.
    Key(String),
    /// One more entry with this key and the same value.
    Beside(String),
    /// The same entry again.
    Twice,
    Gone,
}

struct Change {
    class: &'static str,
    how: String,
    edit: Edit,
    suggest: Option<String>,
}

/// All mutations of a document.
pub fn all(root: &Node) -> Vec<Mutation> {
    let paths = root.paths();
    paths.iter().flat_map(|path| changes(root, path).into_iter().map(|c| make(root, path, c))).collect()
}

fn make(root: &Node, path: &Path, change: Change) -> Mutation {
    let mut document = root.clone();
    let (step, around) = path.split_last().expect("no change of the root");
    let parent = document.at_mut(around);
    let mut marked = path.clone();
    let renamed = matches!(change.edit, Edit::Key(_));
    match (change.edit, parent) {
        (Edit::Value(value), _) => *document.at_mut(path) = value,
        (Edit::Key(key), Node::Map(entries)) => entries[*step].0 = key,
        (Edit::Beside(key), Node::Map(entries)) => {
            entries.push((key, entries[*step].1.clone()));
            marked = [around, &[entries.len() - 1]].concat();
        }
        (Edit::Twice, Node::Map(entries)) => {
            entries.insert(step + 1, entries[*step].clone());
            marked = [around, &[step + 1]].concat();
        }
        (Edit::Gone, Node::Map(entries)) => {
            entries.remove(*step);
            marked = around.to_vec();
        }
        _ => unreachable!("this change is made of entries only"),
    }
    let (yaml, lines) = document.write();
    let (class, how, suggest) = (change.class, change.how, change.suggest);
    let mut told = vec![lines[&marked]];
    if ["huge", "wrong type"].contains(&class) {
        told.extend(lines.iter().filter(|(path, _)| path.starts_with(&marked)).map(|(_, line)| *line));
    }
    if yaml.len() > muster_spec::SPEC_LEN_MAX {
        told.push(1);
    }
    if renamed && suggest.is_none() {
        told.push(lines[around]);
    }
    Mutation { class, path: root.words(path), how, yaml, lines: told, suggest }
}

fn changes(root: &Node, path: &Path) -> Vec<Change> {
    let mut found = Vec::new();
    let node = root.at(path);
    let mut value = |class, how: &str, value: Node| {
        found.push(Change { class, how: how.to_owned(), edit: Edit::Value(value), suggest: None });
    };
    for (how, other) in wrong_types(node) {
        value("wrong type", how, other);
    }
    let scalar = |text: &str| Node::Scalar(text.to_owned());
    for (how, other) in
        [("nothing", ""), ("null", "null"), ("text", "\"\""), ("list", "[]"), ("mapping", "{}")]
    {
        if *node != scalar(other) {
            value("empty", how, scalar(other));
        }
    }
    for (class, how, other) in scalars(node) {
        value(class, &how, Node::Scalar(other));
    }
    value("huge", "5000 bytes", Node::Scalar(text(&"x".repeat(5_000))));
    if let Node::List(items) = node {
        value("huge", "1000 elements", Node::List(vec![items[0].clone(); 1_000]));
    }
    if let Node::Map(entries) = node {
        let many = (0..1_000).map(|n| (format!("{}{n}", entries[0].0), entries[0].1.clone()));
        value("huge", "1000 keys", Node::Map(many.collect()));
    }
    if let Some((step, around)) = path.split_last()
        && let Node::Map(entries) = root.at(around)
    {
        let words = root.words(path);
        let is_name = path.len() == 2 || [".env.", ".labels."].iter().any(|part| words.contains(part));
        let named = !is_name || words.starts_with("mesh.");
        found.extend(keys(&entries[*step].0, named));
    }
    found
}

fn wrong_types(node: &Node) -> Vec<(&'static str, Node)> {
    let scalar = |text: &str| Node::Scalar(text.to_owned());
    let all = [
        ("number", scalar("7")),
        ("fraction", scalar("7.5")),
        ("truth", scalar("true")),
        ("word", scalar("word")),
        ("list", Node::List(vec![scalar("word")])),
        ("list of mappings", Node::List(vec![Node::Map(vec![("word".to_owned(), scalar("7"))])])),
        ("mapping", Node::Map(vec![("word".to_owned(), scalar("7"))])),
    ];
    let same = |other: &Node| match (node, other) {
        (Node::Scalar(a), Node::Scalar(b)) => sort(a) == sort(b),
        (Node::List(a), Node::List(b)) => {
            matches!((&a[0], &b[0]), (Node::Map(_), Node::Map(_)) | (Node::Scalar(_), Node::Scalar(_)))
        }
        (Node::Map(_), Node::Map(_)) => true,
        _ => false,
    };
    all.into_iter().filter(|(_, other)| !same(other)).collect()
}

fn sort(scalar: &str) -> &'static str {
    match scalar {
        "true" | "false" => "truth",
        _ if scalar.parse::<i64>().is_ok() => "number",
        _ if scalar.parse::<f64>().is_ok() => "fraction",
        _ => "text",
    }
}

/// Wrong scalars for a scalar: (class, how, text).
fn scalars(node: &Node) -> Vec<(&'static str, String, String)> {
    let Node::Scalar(scalar) = node else { return Vec::new() };
    let mut found = Vec::new();
    let mut add = |class, other: &str| found.push((class, other.to_owned(), other.to_owned()));
    if sort(scalar) != "text" {
        for other in
            ["-1", "0", "4294967297", "99999999999999999999999", "1e30", "1e999", ".nan", ".inf", "-0.5"]
        {
            if sort(scalar) != "truth" {
                add("out of range", other);
            }
        }
        for other in ["7s", "7 MiB", "0x", "1_000", "\"7\""] {
            add("wrong unit", other);
        }
        return found;
    }
    let plain = scalar.trim_matches('"');
    let quantity = plain.starts_with(|c: char| c.is_ascii_digit())
        && plain.chars().all(|c| c.is_ascii_alphanumeric())
        && plain.ends_with(|c: char| c.is_ascii_alphabetic());
    if quantity {
        for other in ["5 parsecs", "5", "-5s", "1.5x", "5GIB", "5min", "s", "MiB", "1h30m", "0x10s"] {
            add("wrong unit", other);
        }
        for other in ["0s", "0MiB", "99999999999d", "99999999999TiB", "18446744073709551615s", "20000d"] {
            add("out of range", other);
        }
    }
    for other in ["../etc", "..", "/etc/passwd", "a/../../b", "/muster/../x", "C:\\x", "~/x", "a//b"] {
        found.push(("path as name", other.to_owned(), text(other)));
    }
    for (how, other) in odd(plain) {
        found.push(("odd text", how.to_owned(), other));
    }
    found
}

/// A text with something in it that looks like nothing, or like something else.
fn odd(plain: &str) -> Vec<(&'static str, String)> {
    let quoted = |text: String| serde_json::Value::from(text).to_string();
    let escaped = |code: &str| format!("\"{}{code}\"", plain.replace('\\', "\\\\").replace('"', "\\\""));
    vec![
        ("NUL", escaped("\\0")),
        ("line end", escaped("\\n")),
        ("escape", escaped("\\e[2J")),
        ("Cyrillic", quoted(format!("\u{430}{plain}"))),
        ("full width", quoted(format!("{plain}\u{ff41}"))),
        ("zero width", quoted(format!("{plain}\u{200b}"))),
        ("right to left", quoted(format!("\u{202e}{plain}"))),
        ("space after", quoted(format!("{plain} "))),
        ("space before", quoted(format!(" {plain}"))),
        ("capitals", quoted(format!("X{}", plain.to_uppercase()))),
        ("emoji", quoted(format!("{plain}\u{1f980}"))),
    ]
}

/// `known`: the key is a word of the format, so a remedy must name it; otherwise it is the operator's own name.
fn keys(key: &str, known: bool) -> Vec<Change> {
    let plain = key.trim_matches('"');
    let suggest = known.then(|| plain.to_owned());
    let mut found = vec![
        Change { class: "duplicate", how: "again".into(), edit: Edit::Twice, suggest: None },
        Change { class: "missing", how: "removed".into(), edit: Edit::Gone, suggest: None },
    ];
    for typo in typos(plain) {
        let how = |what: &str| format!("{what} {typo}");
        let (renamed, beside) = (Edit::Key(text(&typo)), Edit::Beside(text(&typo)));
        found.push(Change {
            class: "unknown key",
            how: how("renamed"),
            edit: renamed,
            suggest: suggest.clone(),
        });
        found.push(Change {
            class: "unknown key",
            how: how("beside"),
            edit: beside,
            suggest: suggest.clone(),
        });
    }
    let far = "zzzzqqqq".to_owned();
    found.push(Change {
        class: "unknown key",
        how: "beside far".into(),
        edit: Edit::Beside(far),
        suggest: None,
    });
    for other in ["../etc", "..", "/etc/passwd", "a/../../b", "", "a.b", "-x"] {
        let edit = Edit::Key(serde_json::Value::from(other).to_string());
        found.push(Change { class: "path as key", how: other.to_owned(), edit, suggest: None });
    }
    for (how, other) in odd(plain) {
        found.push(Change { class: "odd key", how: how.to_owned(), edit: Edit::Key(other), suggest: None });
    }
    let long = Edit::Key("x".repeat(64));
    found.push(Change { class: "huge", how: "key of 64".into(), edit: long, suggest: None });
    let long = Edit::Key("x".repeat(900));
    found.push(Change { class: "huge", how: "key of 900".into(), edit: long, suggest: None });
    found
}

/// The key with two letters exchanged, with one too many, in capitals, and with the other dash.
fn typos(key: &str) -> Vec<String> {
    let letters: Vec<char> = key.chars().collect();
    let mut swapped = letters.clone();
    if let Some(at) = (1..letters.len().saturating_sub(1)).find(|at| letters[*at] != letters[at + 1]) {
        swapped.swap(at, at + 1);
    }
    let mut first = key.to_owned();
    first[..1].make_ascii_uppercase();
    let all = [swapped.into_iter().collect(), format!("{key}s"), first, key.replace('_', "-")];
    let mut typos: Vec<String> = all.into_iter().filter(|typo: &String| typo != key).collect();
    typos.dedup();
    typos
}
