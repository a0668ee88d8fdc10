//! The rules that need no knowledge of kinds: format, networks, names, numbers.

use ipnet::Ipv4Net;
use muster_model::ids::Name;
use muster_model::spec::{DEFAULT_NETWORKS, PlatformSpec, SPEC_FORMAT, ServiceSpec, Span};
use muster_model::view::Diagnostic;
use serde_json::Value;

use crate::limits::SERVICES_MAX;
use crate::suggest::nearest;
use crate::tree::Places;

/// Smallest MTU that carries IPv6 and any engine's packets.
const MTU_MIN: u16 = 1_280;
/// Largest MTU that a WireGuard device can carry.
const MTU_MAX: u16 = 8_920;
/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// Most hosts, and most labels, that one service can ask for.
const PLACE_MAX: usize = 100;

pub(crate) fn check(spec: &PlatformSpec, places: &Places) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if spec.muster != SPEC_FORMAT {
        let message = format!("format {} is not known to this version", spec.muster);
        found.push(places.diagnostic("muster", message, format!("write `muster: {SPEC_FORMAT}`")));
    }
    check_mesh(spec, places, &mut found);
    check_networks(spec, places, &mut found);
    if spec.services.len() > SERVICES_MAX {
        let message = format!("{} services, the limit is {SERVICES_MAX}", spec.services.len());
        found.push(places.diagnostic("services", message, "split the platform"));
    }
    for (name, service) in &spec.services {
        check_service(name, service, places, &mut found);
    }
    found
}

/// Fields that are mappings and were written as something else. Serde would read a list as one, field by field.
pub(crate) fn not_mappings(value: &Value, places: &Places) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut judge = |path: String, value: &Value| {
        if !value.is_object() {
            let help = "write `field: value` lines below it, indented, or leave it out";
            found.push(places.diagnostic(&path, "not a mapping", help));
        }
    };
    for key in ["mesh", "networks", "services"] {
        let Some(section) = value.get(key) else { continue };
        judge(key.to_owned(), section);
        for (name, entry) in section.as_object().into_iter().flatten().filter(|_| key != "mesh") {
            judge(format!("{key}.{name}"), entry);
            for below in ["place", "resources", "update"].iter().filter(|_| key == "services") {
                entry.get(below).into_iter().for_each(|v| judge(format!("{key}.{name}.{below}"), v));
            }
        }
    }
    found
}

fn check_mesh(spec: &PlatformSpec, places: &Places, found: &mut Vec<Diagnostic>) {
    if spec.mesh.port == 0 {
        found.push(places.diagnostic(
            "mesh.port",
            "port 0 is not a port",
            "write 1 to 65535, for example 51820",
        ));
    }
    if !(MTU_MIN..=MTU_MAX).contains(&spec.mesh.mtu) {
        let message = format!("an MTU of {} is out of range", spec.mesh.mtu);
        found.push(places.diagnostic(
            "mesh.mtu",
            message,
            format!("write {MTU_MIN} to {MTU_MAX}; 1370 fits most hosts"),
        ));
    }
    if spec.mesh.subnet.prefix_len() > 26 {
        let message = format!("{} is too small for the hosts", spec.mesh.subnet);
        found.push(places.diagnostic(
            "mesh.subnet",
            message,
            "write a subnet of /26 or larger, for example 10.210.0.0/16",
        ));
    }
    if spec.mesh.subnet.trunc() != spec.mesh.subnet {
        found.push(host_bits("mesh.subnet", spec.mesh.subnet, places));
    }
}

fn host_bits(path: &str, subnet: Ipv4Net, places: &Places) -> Diagnostic {
    places.diagnostic(
        path,
        format!("{subnet} is an address, not a subnet"),
        format!("write {}", subnet.trunc()),
    )
}

/// All networks that the file writes or uses, and their overlaps.
fn check_networks(spec: &PlatformSpec, places: &Places, found: &mut Vec<Diagnostic>) {
    let mut seen: Vec<(String, Ipv4Net)> = vec![("the mesh".to_owned(), spec.mesh.subnet)];
    for (name, network) in &spec.networks {
        let path = format!("networks.{name}.subnet");
        if network.subnet.prefix_len() > 26 || network.subnet.prefix_len() < 12 {
            let message = format!("{} cannot be divided among hosts", network.subnet);
            found.push(places.diagnostic(
                &path,
                message,
                "write a subnet of /12 to /26; each host takes blocks of /28",
            ));
        }
        if network.subnet.trunc() != network.subnet {
            found.push(host_bits(&path, network.subnet, places));
        }
        let first = network.subnet.network().octets()[0];
        if matches!(first, 0 | 127 | 224..) || network.subnet.network().octets()[..2] == [169, 254] {
            let message = format!("{} cannot be a private network", network.subnet);
            found.push(places.diagnostic(
                &path,
                message,
                "write a subnet of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
            ));
        }
        if let Some((other, subnet)) = seen.iter().find(|(_, subnet)| overlap(*subnet, network.subnet)) {
            let message = format!("{} overlaps {other} ({subnet})", network.subnet);
            found.push(places.diagnostic(&path, message, "give every network a subnet of its own"));
        }
        seen.push((format!("network {name}"), network.subnet));
    }
    for (name, ..) in DEFAULT_NETWORKS {
        let Some(name) = Name::new(name).ok().filter(|name| !spec.networks.contains_key(name)) else {
            continue;
        };
        let Some(network) = spec.network(&name) else { continue };
        if let Some((other, subnet)) = seen.iter().find(|(_, subnet)| overlap(*subnet, network.subnet)) {
            let path = other
                .strip_prefix("network ")
                .map_or_else(|| "mesh.subnet".to_owned(), |n| format!("networks.{n}.subnet"));
            let message = format!("{subnet} overlaps the default network {name} ({})", network.subnet);
            found.push(places.diagnostic(
                &path,
                message,
                format!("choose another subnet, or write `networks.{name}.subnet` too"),
            ));
        }
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn check_service(name: &Name, service: &ServiceSpec, places: &Places, found: &mut Vec<Diagnostic>) {
    let path = |field: &str| format!("services.{name}.{field}");
    if let Some(cpus) = service.resources.cpus
        && !(cpus.is_finite() && (0.01..=1024.0).contains(&cpus))
    {
        let message = format!("{cpus} is not a number of cores");
        found.push(places.diagnostic(
            &path("resources.cpus"),
            message,
            "write 0.01 to 1024, for example 0.5",
        ));
    }
    if let Some(memory) = service.resources.memory
        && memory.0 < 8 << 20
    {
        let message = format!("{memory} is too little for any container");
        found.push(places.diagnostic(&path("resources.memory"), message, "write at least 8MiB"));
    }
    if let Some(pids) = service.resources.pids
        && !(8..=100_000).contains(&pids)
    {
        let message = format!("{pids} is not a number of processes");
        found.push(places.diagnostic(&path("resources.pids"), message, "write 8 to 100000"));
    }
    let mut span = |field: &str, span: Option<Span>, range: std::ops::RangeInclusive<u64>, help: &str| {
        if let Some(span) = span.filter(|span| !range.contains(&span.0.0)) {
            found.push(places.diagnostic(&path(field), format!("{span} is out of range"), help));
        }
    };
    span("update.deadline", Some(service.update.deadline), 5_000..=DAY, "write 5s to 1d; 5m is usual");
    span("update.soak", Some(service.update.soak), 0..=DAY / 24, "write 0s to 1h; 2s is usual");
    span("replace_after", service.replace_after, 0..=30 * DAY, "write 0s to 30d; 15m is usual");
    if service.renamed_from.as_ref() == Some(name) {
        found.push(places.diagnostic(
            &path("renamed_from"),
            "a service cannot be renamed to its own name",
            "write the old name",
        ));
    }
    check_place(name, service, places, found);
    check_labels(name, service, places, found);
}

fn check_place(name: &Name, service: &ServiceSpec, places: &Places, found: &mut Vec<Diagnostic>) {
    let hosts = &service.place.hosts;
    if hosts.len() > PLACE_MAX {
        let message = format!("{} hosts, the limit is {PLACE_MAX}", hosts.len());
        let help = "give the hosts a label, and write it under `place.labels`";
        found.push(places.diagnostic(&format!("services.{name}.place.hosts"), message, help));
        return;
    }
    for (index, host) in hosts.iter().enumerate().filter(|(index, host)| hosts[..*index].contains(host)) {
        let path = format!("services.{name}.place.hosts.{index}");
        found.push(places.diagnostic(&path, format!("`{host}` is there twice"), "remove one of them"));
    }
    if service.place.labels.len() > PLACE_MAX {
        let message = format!("{} labels, the limit is {PLACE_MAX}", service.place.labels.len());
        found.push(places.diagnostic(&format!("services.{name}.place.labels"), message, "ask for fewer"));
    }
}

fn check_labels(name: &Name, service: &ServiceSpec, places: &Places, found: &mut Vec<Diagnostic>) {
    for (key, value) in &service.place.labels {
        let good =
            |text: &str| !text.is_empty() && text.len() <= 63 && text.chars().all(|c| c.is_ascii_graphic());
        if !good(key) || !good(value) {
            let path = format!("services.{name}.place.labels.{key}");
            found.push(places.diagnostic(
                &path,
                "not a label",
                "write 1 to 63 visible ASCII characters, for example `disk: ssd`",
            ));
        }
    }
    // The names a mistyped common field is most often meant to be; kinds judge all others.
    let common = ["kind", "place", "survive", "resources", "update", "replace_after", "renamed_from"];
    for key in service.settings.keys() {
        if let Some(known) = nearest(key, common).filter(|known| strsim::damerau_levenshtein(known, key) <= 1)
        {
            let path = format!("services.{name}.{key}");
            found.push(places.diagnostic(
                &path,
                format!("unknown field `{key}`"),
                format!("did you mean `{known}`?"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;

    fn errors(body: &str) -> Vec<String> {
        let text = format!("muster: 1\nplatform: p\n{body}");
        parse(&text).map(|_| Vec::new()).unwrap_or_else(|found| {
            found.iter().map(|d| format!("{}:{} {} -- {}", d.line, d.path, d.message, d.help)).collect()
        })
    }

    #[test]
    fn overlapping_subnets_are_refused_where_they_are_written() {
        let found = errors("networks:\n  a: {subnet: 10.1.0.0/24}\n  b: {subnet: 10.1.0.128/26}\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("5:networks.b.subnet"), "{found:?}");
        let found = errors("networks:\n  a: {subnet: 172.31.10.0/24}\n");
        assert!(found[0].contains("default network dbnet"), "{found:?}");
        let found = errors("networks:\n  a: {subnet: 10.210.5.0/24}\n");
        assert!(found[0].contains("the mesh"), "{found:?}");
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for body in [
            "mesh: {mtu: 100}\n",
            "mesh: {port: 0}\n",
            "mesh: {subnet: 10.210.0.1/16}\n",
            "networks:\n  a: {subnet: 10.0.0.0/30}\n",
            "networks:\n  a: {subnet: 127.0.0.0/24}\n",
            "services:\n  a: {kind: app, resources: {cpus: -1}}\n",
            "services:\n  a: {kind: app, resources: {memory: 1KiB}}\n",
            "services:\n  a: {kind: app, update: {deadline: 1ms}}\n",
            "services:\n  a: {kind: app, renamed_from: a}\n",
            "services:\n  a: {kind: app, resource: {}}\n",
        ] {
            assert_eq!(errors(body).len(), 1, "{body}: {:?}", errors(body));
        }
    }
}
