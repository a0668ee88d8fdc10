//! From YAML text to a [`PlatformSpec`]: size, syntax, duplicate keys, unknown keys, types, then the general rules.

use muster_model::spec::PlatformSpec;
use muster_model::view::Diagnostic;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::limits::{DEPTH_MAX, NODES_MAX, SPEC_LEN_MAX};
use crate::suggest::{nearest, unknown_word};
use crate::tree::{Places, Tree};
use crate::{check, limits};

/// A spec that follows all rules that need no knowledge of kinds.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The spec.
    pub spec: PlatformSpec,
    /// Where its fields stand, for the kinds' diagnostics.
    pub places: Places,
}

/// Reads and judges a spec file.
///
/// # Errors
/// Every mistake that was found, in the order of the file. Syntax and type errors end the search.
pub fn parse(yaml: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let (value, places) = read(yaml)?;
    let flat = check::not_mappings(&value, &places);
    if !flat.is_empty() {
        return Err(flat);
    }
    let spec = typed::<PlatformSpec>(&value, &places)?;
    let mut found = check::check(&spec, &places);
    if found.is_empty() {
        return Ok(Parsed { spec, places });
    }
    found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    Err(found)
}

/// Reads one YAML document of any type, with the same strictness (also for drill files).
///
/// # Errors
/// The mistake that ended the reading.
pub fn parse_document<T: DeserializeOwned>(yaml: &str) -> Result<(T, Places), Vec<Diagnostic>> {
    let (value, places) = read(yaml)?;
    Ok((typed(&value, &places)?, places))
}

fn typed<T: DeserializeOwned>(value: &Value, places: &Places) -> Result<T, Vec<Diagnostic>> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string().replace('[', ".").replace(']', "");
        let path = if path == "." { String::new() } else { path };
        let message = error.into_inner().to_string();
        vec![mistyped(value, places, &path, &message).unwrap_or_else(|| type_error(places, &path, &message))]
    })
}

/// A missing field may be there under a mistyped name.
fn mistyped(value: &Value, places: &Places, path: &str, message: &str) -> Option<Diagnostic> {
    let missing = message.strip_prefix("missing field `")?.split_once('`')?.0;
    let steps = path.split('.').filter(|step| !step.is_empty());
    let around = steps.into_iter().try_fold(value, |value, step| match value {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    });
    let written = around?.as_object()?.keys().find(|key| nearest(key, [missing]).is_some())?;
    let at = if path.is_empty() { written.clone() } else { format!("{path}.{written}") };
    let help = format!("did you mean `{missing}`?");
    Some(places.diagnostic(&at, format!("unknown field `{written}`"), help))
}

fn read(yaml: &str) -> Result<(Value, Places), Vec<Diagnostic>> {
    let nowhere = Places::default();
    if yaml.len() > SPEC_LEN_MAX {
        let message = format!("the file has {} bytes, the limit is {SPEC_LEN_MAX}", yaml.len());
        return Err(vec![nowhere.diagnostic(
            "",
            message,
            "split the platform, or move large files into images",
        )]);
    }
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        merge_keys: serde_saphyr::MergeKeyPolicy::AsOrdinary,
        reject_unsupported_tags: true,
        underscored_numbers_as_strings: true,
        budget: serde_saphyr::budget! {
            max_events: NODES_MAX,
            max_nodes: NODES_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: limits::SERVICES_MAX,
            max_anchors: limits::SERVICES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: NODES_MAX },
    };
    let tree: Tree =
        serde_saphyr::from_str_with_options(yaml, options).map_err(|error| vec![syntax_error(&error)])?;
    let (value, places, wrong) = tree.into_value();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    if !value.is_object() {
        let message = "the file is empty or not a mapping";
        return Err(vec![nowhere.diagnostic("", message, "begin with `muster: 1`")]);
    }
    Ok((value, places))
}

fn syntax_error(error: &serde_saphyr::Error) -> Diagnostic {
    let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
    let text = error.without_snippet().to_string();
    let message = text.lines().next().unwrap_or("not YAML").chars().take(300).collect::<String>();
    let help = if message.contains("duplicate") {
        "keep one of the two; a later one never replaces an earlier one silently"
    } else if ["budget", "recursi", "limit"].iter().any(|word| message.contains(word)) {
        "write it shorter: a spec needs no deep nesting, no anchors by the hundred, and is never large"
    } else {
        "correct the YAML at this place; indent with spaces, quote texts that contain `: ` or begin with a special sign"
    };
    Diagnostic {
        line: line.max(1),
        column: column.max(1),
        path: String::new(),
        message,
        help: help.to_owned(),
    }
}

fn type_error(places: &Places, path: &str, message: &str) -> Diagnostic {
    let message = message.strip_suffix(" at line 0 column 0").unwrap_or(message);
    if let Some((word, candidates)) = unknown_word(message) {
        let help = match nearest(word, candidates.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known here: {}", candidates.join(", ")),
        };
        let named = path.rsplit('.').next() == Some(word);
        let path = if named || path.is_empty() || !message.starts_with("unknown field") {
            if path.is_empty() { word.to_owned() } else { path.to_owned() }
        } else {
            format!("{path}.{word}")
        };
        return places.diagnostic(&path, message.split(", expected").next().unwrap_or(message), help);
    }
    let help = if message.starts_with("missing field") {
        "add the field"
    } else {
        "correct the value; docs/spec.md lists every field with an example"
    };
    places.diagnostic(path, message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(yaml: &str) -> Diagnostic {
        let mut found = parse(yaml).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    const GOOD: &str =
        "muster: 1\nplatform: shop\nservices:\n  web:\n    kind: app\n    image: demo\n    replicas: 2\n";

    #[test]
    fn a_good_file_is_read_and_settings_stay_with_the_kind() {
        let parsed = parse(GOOD).unwrap();
        let web = parsed.spec.services.values().next().unwrap();
        assert_eq!(web.settings["replicas"], 2);
        let at = parsed.places.diagnostic("services.web.replicas", "", "");
        assert_eq!((at.line, at.column), (7, 5));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_a_suggestion() {
        let found = one("muster: 1\nplatfrom: shop\n");
        assert_eq!((found.line, found.column), (2, 1));
        assert!(found.help.contains("platform"), "{found:?}");
        let found = one("muster: 1\nplatform: p\nmesh:\n  prot: 3\n");
        assert_eq!(found.line, 4, "{found:?}");
        assert!(found.help.contains("`port`"), "{found:?}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let found = one("muster: 1\nplatform: p\nmesh:\n  mtu: big\n");
        assert_eq!((found.line, found.path.as_str()), (4, "mesh.mtu"), "{found:?}");
        let found =
            one("muster: 1\nplatform: p\nservices:\n  a:\n    kind: app\n    update:\n      soak: 30\n");
        assert_eq!(found.line, 7, "{found:?}");
        assert!(found.message.contains("duration"), "{found:?}");
    }

    #[test]
    fn duplicate_keys_are_refused() {
        let found = one("muster: 1\nplatform: a\nplatform: b\n");
        assert_eq!(found.line, 3, "{found:?}");
        assert!(found.help.contains("keep one"), "{found:?}");
    }

    #[test]
    fn bombs_and_huge_files_are_refused_quickly() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
            let refs = vec![format!("*{from}"); 9].join(",");
            bomb.push_str(&format!("{to}: &{to} [{refs}]\n"));
        }
        assert_eq!(parse(&bomb).unwrap_err().len(), 1);
        let huge = "x".repeat(10 << 20);
        assert!(one(&huge).message.contains("limit"));
        let deep = format!("muster: 1\nx: {}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(parse(&deep).unwrap_err().len(), 1);
    }

    #[test]
    fn empty_files_and_lists_are_refused() {
        for text in ["", "---\n", "- a\n", "3\n", "\u{0}", "muster: 1\nplatform: ../etc\n", "muster: [\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
