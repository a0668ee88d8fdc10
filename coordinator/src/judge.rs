//! Judges a spec file as a whole: the general rules, each kind's rules, and clashes between services.

use std::collections::BTreeMap;

use muster_core::kinds;
use muster_model::ids::Name;
use muster_model::spec::PlatformSpec;
use muster_model::view::Diagnostic;
use muster_spec::{Parsed, Places, nearest, parse};

/// The spec of a file, or everything that is wrong with it, in the order of the file.
///
/// # Errors
/// At least one diagnostic.
pub fn judge(yaml: &str) -> Result<PlatformSpec, Vec<Diagnostic>> {
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
        return Ok(spec);
    }
    found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
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

/// What only several services together do wrong: ports of the hosts, services that are used but do not exist.
fn clashes(spec: &PlatformSpec, places: &Places, found: &mut Vec<Diagnostic>) {
    let mut ports: BTreeMap<u16, &Name> = BTreeMap::new();
    for (name, service) in &spec.services {
        let Some(kind) = kinds::kind(service.kind.as_str()) else { continue };
        for port in kind.layout(name, service).host_ports {
            if let Some(other) = ports.insert(port, name).filter(|other| *other != name) {
                let message = format!("host port {port} is published by `{other}` already");
                let help = "publish on another port; services share hosts";
                found.push(places.diagnostic(&format!("services.{name}.ports"), message, help));
            }
        }
        for used in kind.uses(service) {
            if !spec.services.contains_key(&used) {
                let help = match nearest(used.as_str(), spec.services.keys().map(Name::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "name a service of this file".to_owned(),
                };
                let message = format!("there is no service `{used}`");
                found.push(places.diagnostic(&format!("services.{name}.uses"), message, help));
            }
        }
    }
}
