//! Texts of a spec that try to become more than a text where they are rendered: each is refused, or read back as it was.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::golden::{owner_of, postgres_ha, problems};

/// What ends a text, a line, a list or a statement somewhere, or is filled in by a template or an agent.
const FRAGMENTS: &[&str] = &[
    "'",
    "\"",
    "\\",
    "`",
    "#",
    ";",
    "--",
    "/*",
    "*/",
    "\n",
    "\r\n",
    "\u{0}",
    "\t",
    "\u{1b}[31m",
    "\u{85}",
    "\u{2028}",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&x",
    "*x",
    "!!python/object",
    "%",
    "|",
    ">",
    "${secret:other/superuser}",
    "${",
    "$(reboot)",
    "@HBA@",
    "@BOOTSTRAP@",
    "@CLUSTER@",
    "@PARAMETERS@",
    "@TLS@",
    "' OR '1'='1",
    "'; DROP DATABASE app; --",
    "\nhost all all 0.0.0.0/0 trust",
    "\n[mysqld]\nskip-grant-tables",
    "!include /etc/passwd",
];

/// Some five hundred texts.
fn payloads() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for one in FRAGMENTS {
        for text in ["", "x", "x y", "1"] {
            all.extend([format!("{text}{one}"), format!("{one}{text}"), format!("{text}{one}{text}")]);
        }
        all.insert(format!("{one}{one}"));
    }
    all
}

/// What was accepted and what was refused, of all payloads.
fn judged(service: impl Fn(&str) -> String, accepted: impl Fn(&str, &str)) {
    let (mut good, mut refused) = (0, 0);
    for payload in payloads() {
        let service = service(&payload);
        if problems(&service, &[]).is_empty() {
            accepted(&payload, &service);
            good += 1;
        } else {
            refused += 1;
        }
        let asks_for_a_secret = payload.contains("${");
        assert!(!asks_for_a_secret || !problems(&service, &[]).is_empty(), "accepted: {payload:?}");
    }
    assert!(good > 100 && refused > 50, "{good} accepted, {refused} refused");
}

#[test]
fn a_parameter_of_postgres_is_read_back_as_it_was_written() {
    let service = |text: &str| json!({ "kind": "postgres", "parameters": { "my.text": text } }).to_string();
    judged(service, |payload, service| {
        let rendered = postgres_ha(service).render(0);
        let file =
            rendered.files.iter().find(|file| file.content.contains("bootstrap:")).expect("Patroni's file");
        let (read, _) = muster_spec::parse_document::<Value>(&file.content).expect("YAML");
        let found = &read["bootstrap"]["dcs"]["postgresql"]["parameters"]["my.text"];
        assert_eq!(found, payload, "{}", file.content);
    });
}

#[test]
fn a_variable_of_mariadb_stays_one_line() {
    let service = |text: &str| json!({ "kind": "mariadb", "parameters": { "sql_mode": text } }).to_string();
    let lines = |service: &str| {
        let rendered = owner_of(service).render(0);
        let file = rendered.files.into_iter().find(|file| file.content.contains("[mysqld]"));
        file.expect("the server's file").content.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = lines(&service("ANSI"));
    judged(service, |payload, service| {
        let found = lines(service);
        let expected: Vec<String> =
            plain.iter().map(|line| line.replace("sql_mode=ANSI", &format!("sql_mode={payload}"))).collect();
        assert_eq!(found, expected, "{payload:?}");
    });
}
