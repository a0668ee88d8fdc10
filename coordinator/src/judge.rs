//! Judges a spec file as a whole: the general rules, each kind's rules, and clashes between services.

use std::collections::BTreeMap;

use muster_core::kinds::{self, Child};
use muster_core::ports;
use muster_model::ids::Name;
use muster_model::spec::PlatformSpec;
use muster_model::view::Diagnostic;
use muster_spec::{Parsed, Places, nearest, parse};

/// Most mistakes that are told at once; the others show when these are corrected.
const MISTAKES_MAX: usize = 100;

/// The spec of a file with the places of its fields, or everything that is wrong with it, in the order of the file.
///
/// # Errors
/// At least one diagnostic.
pub fn judge(yaml: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let Parsed { spec, places } = parse(yaml)?;
    let mut found = Vec::new();
    for (name, service) in &spec.services {
        let path = |below: &str| format!("services.{name}.{below}");
        let Some(kind) = kinds::kind(service.kind.as_str()) else {
            found.push(unknown_kind(name, service.kind.as_str(), &places));
            continue;
        };
        for problem in kind.validate(name, service, &spec) {
            found.push(places.diagnostic(&path(&problem.path), problem.message, problem.help));
        }
    }
    if found.is_empty() {
        clashes(&spec, &places, &mut found);
    }
    if found.is_empty() {
        return Ok(Parsed { spec, places });
    }
    found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    found.truncate(MISTAKES_MAX);
    Err(found)
}

fn unknown_kind(name: &Name, kind: &str, places: &Places) -> Diagnostic {
    let known: Vec<&str> = kinds::ALL.iter().map(|kind| kind.name()).collect();
    let help = match nearest(kind, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known kinds: {}", known.join(", ")),
    };
    places.diagnostic(&format!("services.{name}.kind"), format!("unknown kind `{kind}`"), help)
}

/// What only several services together do wrong: ports of the hosts, names of parts, renamings, and services that are
/// used but do not exist.
fn clashes(spec: &PlatformSpec, places: &Places, found: &mut Vec<Diagnostic>) {
    found.extend(ports::clashes(spec, places));
    let mut renamed: BTreeMap<&Name, &Name> = BTreeMap::new();
    for (name, service) in &spec.services {
        let Some(kind) = kinds::kind(service.kind.as_str()) else { continue };
        for used in kind.uses(service).into_iter().filter(|used| !spec.services.contains_key(used)) {
            let help = match nearest(used.as_str(), spec.services.keys().map(Name::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a service of this file".to_owned(),
            };
            let message = format!("there is no service `{used}`");
            found.push(places.diagnostic(&format!("services.{name}.uses"), message, help));
        }
        parts_of(name, kind.children(name, service), spec, places, found);
        let Some(old) = &service.renamed_from else { continue };
        let path = format!("services.{name}.renamed_from");
        if spec.services.contains_key(old) {
            let message = format!("`{old}` is a service of this file, so nothing was renamed");
            found.push(places.diagnostic(&path, message, format!("remove `{old}`, or this field")));
        }
        if let Some(other) = renamed.insert(old, name) {
            let message = format!("`{other}` was renamed from `{old}` too");
            found.push(places.diagnostic(&path, message, "keep one of the two"));
        }
    }
}

/// The names that a service gives its own parts must be names, and free.
fn parts_of(
    name: &Name,
    parts: Vec<Child>,
    spec: &PlatformSpec,
    places: &Places,
    found: &mut Vec<Diagnostic>,
) {
    for part in parts {
        match Name::new(format!("{name}-{}", part.role)) {
            Ok(part) if spec.services.contains_key(&part) => {
                let message = format!("`{part}` is what `{name}` calls its own part");
                found.push(places.diagnostic(&format!("services.{part}"), message, "choose another name"));
            }
            Ok(_) => {}
            Err(_) => {
                let message = format!("the name is too long: a part would be called `{name}-{}`", part.role);
                found.push(places.diagnostic(&format!("services.{name}"), message, "choose a shorter name"));
            }
        }
    }
}
