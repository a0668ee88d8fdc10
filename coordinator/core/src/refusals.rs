//! What must be decided before a spec is applied, each at its field of the file and with its remedy. Changes nothing.

use muster_model::ids::Name;
use muster_model::spec::{FailureDomain, PlatformSpec, ServiceSpec};
use muster_model::time::Timestamp;
use muster_model::view::Diagnostic;
use muster_spec::{Places, nearest};

use crate::facts::kind_of;
use crate::kinds::Problem;
use crate::scheduler::NoHost;
use crate::state::{Service, State};
use crate::survive;

/// The remedy for a service that no host has room for.
const MORE_HOSTS: &str = "bring another host (`muster token host`), or ask for fewer";

/// What speaks against the spec whatever the hosts are like.
pub fn before(state: &State, spec: &PlatformSpec, places: &Places) -> Vec<Diagnostic> {
    let Some(platform) = &state.platform else {
        let help = "make it with `muster-coordinator init` on the first host";
        return vec![places.diagnostic("platform", "the platform is not initialised", help)];
    };
    let mut found = Vec::new();
    if spec.platform != platform.name {
        let message = format!("the spec is for platform `{}`, this is `{}`", spec.platform, platform.name);
        let help =
            format!("write `platform: {}`, or choose the other platform with --context", platform.name);
        found.push(places.diagnostic("platform", message, help));
    }
    for (name, service) in &state.services {
        match spec.services.get(name) {
            None => found.extend(absent(spec, places, name, service)),
            Some(written) => present(state, places, (name, service), written, &mut found),
        }
    }
    subnets(state, platform.spec.as_ref(), spec, places, &mut found);
    found
}

/// A service that the file does not have any more.
fn absent(spec: &PlatformSpec, places: &Places, name: &Name, service: &Service) -> Option<Diagnostic> {
    if service.parent.is_some() || service.internal.is_some() || service.removing.is_some() {
        return None;
    }
    if let Some((new, _)) = spec.services.iter().find(|(_, s)| s.renamed_from.as_ref() == Some(name)) {
        let message = format!("service `{name}` cannot be renamed to `{new}` while it has members");
        let help =
            format!("keep its name, or say `muster service remove {name} --keep-data|--destroy-data` first");
        return Some(places.diagnostic(&format!("services.{new}.renamed_from"), message, help));
    }
    let message = format!("service `{name}` is not in the spec; absence never deletes");
    let help =
        format!("say `muster service remove {name} --keep-data` or `--destroy-data`, or write it again");
    Some(places.diagnostic("services", message, help))
}

/// A service of the file whose name is known already.
fn present(
    state: &State,
    places: &Places,
    (name, service): (&Name, &Service),
    written: &ServiceSpec,
    found: &mut Vec<Diagnostic>,
) {
    let path = |below: &str| format!("services.{name}.{below}");
    if service.parent.is_some() || service.internal.is_some() {
        let message = format!("the name `{name}` is taken by a service that belongs to another one");
        found.push(places.diagnostic(&format!("services.{name}"), message, "choose another name"));
    } else if service.removing.is_some() {
        let message = format!("service `{name}` is still being removed");
        found.push(places.diagnostic(&format!("services.{name}"), message, "wait, see `muster op ls`"));
    } else if written.kind != service.spec.kind {
        let (old, new) = (&service.spec.kind, &written.kind);
        let message = format!("service `{name}` is of kind `{old}` and cannot become `{new}`");
        let help =
            format!("say `muster service remove {name} --keep-data` first, or choose another name for it");
        found.push(places.diagnostic(&path("kind"), message, help));
    } else {
        if let Some(message) = networks_of(state, name, written) {
            let help = "write them as they were, or remove the service first";
            found.push(places.diagnostic(&path(network_field(written)), message, help));
        }
        if let Some(Problem { path: below, message, help }) = change_of(state, name, service, written) {
            found.push(places.diagnostic(&path(&below), message, help));
        }
    }
}

/// The setting that names a service's networks.
fn network_field(spec: &ServiceSpec) -> &'static str {
    if spec.settings.contains_key("networks") { "networks" } else { "network" }
}

/// A member's addresses are for life: its service cannot join other networks.
fn networks_of(state: &State, name: &Name, written: &ServiceSpec) -> Option<String> {
    let kind = crate::kinds::kind(written.kind.as_str())?;
    let wanted = kind.layout(name, written).networks;
    let members = state.members_of(name);
    let (_, member) = members.values().next()?;
    let present: Vec<&Name> = member.addresses.iter().map(|a| &a.network).collect();
    let same = wanted.len() == present.len() && wanted.iter().all(|network| present.contains(&network));
    (!same).then(|| {
        let list = present.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
        format!("service `{name}` has members in {list} and cannot join other networks")
    })
}

/// What its kind cannot change while there is data.
fn change_of(state: &State, name: &Name, service: &Service, written: &ServiceSpec) -> Option<Problem> {
    let kind = kind_of(service).filter(|_| !state.members_of(name).is_empty())?;
    kind.may_become(name, &service.spec, written).err()
}

fn subnets(
    state: &State,
    old: &PlatformSpec,
    new: &PlatformSpec,
    places: &Places,
    found: &mut Vec<Diagnostic>,
) {
    let subnet = |spec: &PlatformSpec, name: &Name| spec.network(name).map(|network| network.subnet);
    for name in state.blocks.keys().filter(|name| subnet(new, name) != subnet(old, name)) {
        let message = format!("network `{name}` has members: its subnet cannot be changed");
        let help = match subnet(old, name) {
            Some(subnet) => format!("write `subnet: {subnet}`, as it was"),
            None => "write it as it was".to_owned(),
        };
        found.push(places.diagnostic(&format!("networks.{name}.subnet"), message, help));
    }
    if state.hosts.is_empty() {
        return;
    }
    let mesh = [
        ("subnet", old.mesh.subnet.to_string(), new.mesh.subnet.to_string()),
        ("port", old.mesh.port.to_string(), new.mesh.port.to_string()),
        ("mtu", old.mesh.mtu.to_string(), new.mesh.mtu.to_string()),
    ];
    for (key, old, _) in mesh.into_iter().filter(|(_, old, new)| old != new) {
        let message = match key {
            _ if !state.members.is_empty() => format!("the mesh has members: its {key} cannot be changed"),
            "subnet" => "hosts have addresses in the mesh: its subnet cannot be changed".to_owned(),
            _ => continue,
        };
        found.push(places.diagnostic(
            &format!("mesh.{key}"),
            message,
            format!("write `{key}: {old}`, as it was"),
        ));
    }
}

/// A service that cannot be placed whole: at the setting that keeps most hosts away from it, or at its number of members.
pub fn no_host(
    after: &State,
    spec: &PlatformSpec,
    places: &Places,
    service: &Name,
    message: String,
    why: &NoHost,
) -> Vec<Diagnostic> {
    // Parts are placed as their owner's settings say.
    let owner = after.services.get(service).and_then(|row| row.parent.as_ref()).map_or(service, |p| &p.owner);
    let Some(written) = spec.services.get(owner) else { return Vec::new() };
    let field = match why.field() {
        Some("network") => network_field(written),
        Some(field) => field,
        None => count_field(written),
    };
    let joined_just_now = after.hosts.values().any(|host| host.is_up() && host.facts.memory_bytes == 0);
    let help = match field {
        _ if joined_just_now => "a host has not told its size yet: try again in some seconds".to_owned(),
        "place.hosts" | "place.labels" | "place.spread" => {
            format!("{MORE_HOSTS}, or allow other hosts here")
        }
        "resources.memory" | "resources.cpus" => {
            "write less here, free a host, or bring another one (`muster token host`)".to_owned()
        }
        "network" | "networks" => {
            "give that network a larger subnet under `networks:`, or ask for fewer members".to_owned()
        }
        _ => MORE_HOSTS.to_owned(),
    };
    let mut found = strangers(after, owner, written, places);
    found.push(places.diagnostic(&format!("services.{owner}.{field}"), message, help));
    found
}

/// The setting that says how many members there are.
fn count_field(spec: &ServiceSpec) -> &'static str {
    let kind = crate::kinds::kind(spec.kind.as_str());
    let scaled = kind.and_then(|kind| kind.scaled(spec, 3).ok());
    match scaled {
        Some((field, _)) => field,
        None if spec.settings.contains_key("hosts") => "hosts",
        None if spec.settings.contains_key("shards") => "shards",
        None => "kind",
    }
}

/// Names under `place.hosts` that no host has.
pub fn strangers(state: &State, name: &Name, spec: &ServiceSpec, places: &Places) -> Vec<Diagnostic> {
    let known: Vec<&str> = state.hosts.values().map(|host| host.name.as_str()).collect();
    let unknown = spec.place.hosts.iter().enumerate().filter(|(_, host)| !known.contains(&host.as_str()));
    let tell = |(index, host): (usize, &Name)| {
        let help = match nearest(host.as_str(), known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "see `muster host ls`, or let it join: `muster token host`".to_owned(),
        };
        let path = format!("services.{name}.place.hosts.{index}");
        places.diagnostic(&path, format!("no host is called `{host}`"), help)
    };
    unknown.map(tell).collect()
}

/// `survive:` is a demand, not a wish.
pub fn demands(after: &State, spec: &PlatformSpec, places: &Places, now: Timestamp) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, service) in &spec.services {
        let Some(domain) = service.survive else { continue };
        let Some(result) = survive::of_service(after, name, now, domain) else { continue };
        for (host, why) in &result.stops_writes {
            let (lost, more) = match domain {
                FailureDomain::Host => (format!("host {}", after.host_name(host)), "hosts"),
                FailureDomain::Zone => {
                    let zone = after.hosts.get(host).map(|h| h.zone.clone()).unwrap_or_default();
                    (format!("zone {zone}"), "zones")
                }
            };
            let message =
                format!("service `{name}` must survive it, but losing {lost} stops its writes: {why}");
            let help = format!("give it more members on more {more}, or leave `survive` out");
            found.push(places.diagnostic(&format!("services.{name}.survive"), message, help));
        }
    }
    found
}
