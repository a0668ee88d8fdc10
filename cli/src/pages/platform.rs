//! `muster status`: the whole platform on one page.

use muster_model::spec::Size;
use muster_model::time::Timestamp;
use muster_model::view::{
    CoordinatorView, HostView, Liveness, OperationView, PlatformView, Scheduling, ServiceView,
};

use super::{operations, section, tone_of};
use crate::age::{age, utc};
use crate::output::{Paint, Table, Tone, clean};

/// The page.
#[must_use]
pub fn platform(view: &PlatformView, paint: Paint) -> String {
    let mut text = format!(
        "{}   {}   index {}\n",
        paint.tone(Tone::Strong, &format!("platform {}", view.platform)),
        utc(view.at),
        view.index
    );
    text.push_str(&coordinators(&view.coordinators, paint));
    text.push_str(&host_line(&view.hosts, paint));
    text.push('\n');
    if view.services.is_empty() {
        text.push_str("No services yet: `muster init --profile ha` prints a spec to start from.\n");
    } else {
        text.push_str(&services(view).render(paint));
    }
    let bad = view.services.iter().filter(|service| !service.health.reasons.is_empty());
    let reasons = bad.flat_map(|service| {
        let head = format!("{}: ", service.name);
        service.health.reasons.iter().map(move |reason| format!("{head}{}", clean(reason)))
    });
    section(&mut text, paint, "Why", reasons);
    if !view.operations.is_empty() {
        text.push_str(&format!("\n{}\n", paint.tone(Tone::Strong, "Operations")));
        text.push_str(&indent(&operations(&view.operations, view.at, paint)));
        text.push_str(&remedies(&view.operations));
    }
    let notices = view.notices.iter().map(|notice| paint.tone(Tone::Warn, &clean(notice)));
    section(&mut text, paint, "Notices", notices.collect::<Vec<_>>());
    text
}

fn remedies(operations: &[OperationView]) -> String {
    let with = operations.iter().filter_map(|one| Some((one.id, one.remedy.as_ref()?)));
    with.map(|(id, remedy)| format!("  operation {id}: {}\n", clean(remedy))).collect()
}

fn coordinators(all: &[CoordinatorView], paint: Paint) -> String {
    let describe = |one: &CoordinatorView| {
        let mut words = vec![one.endpoint.clone()];
        words.extend(one.leader.then(|| "leads".to_owned()));
        words.extend((!one.voter).then(|| "no vote yet".to_owned()));
        let unreachable = one.reachable == Some(false);
        words.extend(unreachable.then(|| "does not answer".to_owned()));
        paint.tone(if unreachable { Tone::Bad } else { Tone::Plain }, &words.join(" "))
    };
    let list: Vec<String> = all.iter().map(describe).collect();
    format!("coordinators  {}\n", list.join(", "))
}

/// One line while all is well, one more for each host that is not.
fn host_line(all: &[HostView], paint: Paint) -> String {
    let ready = all.iter().filter(|host| host.liveness == Liveness::Ready).count();
    let tone = if ready == all.len() { Tone::Plain } else { Tone::Bad };
    let mut text =
        format!("hosts         {}\n", paint.tone(tone, &format!("{ready} of {} ready", all.len())));
    for host in all {
        let mut words = Vec::new();
        if host.liveness != Liveness::Ready {
            words.push(format!("{} since {}", liveness(host.liveness), utc(host.since)));
        }
        if host.scheduling != Scheduling::Open {
            words.push(scheduling(host.scheduling).to_owned());
        }
        words.extend(host.conditions.iter().map(|condition| clean(&condition.text)));
        if !words.is_empty() {
            text.push_str(&format!("  {}: {}\n", host.name, paint.tone(Tone::Warn, &words.join("; "))));
        }
    }
    text
}

fn services(view: &PlatformView) -> Table {
    let mut table = Table::new(&["NAME", "KIND", "HEALTH", "MEMBERS", "LEADER", "REVISION"]);
    for service in &view.services {
        let indent = if service.owner.is_some() { "  " } else { "" };
        // A member on its way out is listed on the service's page, but fills no slot any more.
        let wanted = || service.members.iter().filter(|member| member.state != "retiring");
        let ready = wanted().filter(|member| member.ready).count();
        table.row(
            tone_of(service.health.word),
            [
                format!("{indent}{}", service.name),
                service.kind.to_string(),
                service.health.word.to_string(),
                format!("{ready}/{}", wanted().count()),
                leader(service),
                service.revision.to_string(),
            ],
        );
    }
    table
}

fn leader(service: &ServiceView) -> String {
    let leads = |role: Option<&str>| role == Some("leader");
    let found = service.members.iter().find(|member| leads(member.role.as_deref()));
    found.map(|member| format!("{} on {}", member.slot, member.host)).unwrap_or_default()
}

const fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Ready => "ready",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
    }
}

const fn scheduling(scheduling: Scheduling) -> &'static str {
    match scheduling {
        Scheduling::Open => "open",
        Scheduling::Cordoned => "cordoned",
        Scheduling::Draining => "draining",
        Scheduling::Maintenance => "maintenance",
    }
}

/// `muster host ls`.
#[must_use]
pub fn hosts(all: &[HostView], now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&[
        "NAME",
        "ADDRESS",
        "ZONE",
        "LIVENESS",
        "SINCE",
        "SCHEDULING",
        "MEMBERS",
        "CPU",
        "MEMORY",
        "DISK FREE",
        "ID",
    ]);
    for host in all {
        let tone = match host.liveness {
            Liveness::Ready if host.conditions.is_empty() => Tone::Plain,
            Liveness::Ready | Liveness::Suspect => Tone::Warn,
            Liveness::Down => Tone::Bad,
        };
        let facts = &host.facts;
        table.row(
            tone,
            [
                host.name.to_string(),
                host.address.clone(),
                host.zone.clone(),
                liveness(host.liveness).to_owned(),
                age(now, host.since),
                scheduling(host.scheduling).to_owned(),
                host.members.to_string(),
                format!("{}", facts.cpu_millis as f64 / 1000.0),
                size(facts.memory_bytes),
                format!("{}%", facts.disk_free_percent),
                host.id.to_string(),
            ],
        );
    }
    table.render(paint)
}

/// In the largest unit that leaves something to read: `3.8GiB`.
fn size(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    match bytes {
        0..1_048_576 => Size(bytes).to_string(),
        1_048_576..1_073_741_824 => format!("{:.0}MiB", bytes as f64 / MIB),
        _ => format!("{:.1}GiB", bytes as f64 / MIB / 1024.0),
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_page_shows_health_reasons_operations_and_notices() {
        let expected = "\
platform shop   2026-11-24 06:28:41   index 812
coordinators  10.0.0.1:7400 leads, 10.0.0.2:7400, 10.0.0.3:7400 does not answer
hosts         2 of 3 ready
  h3: down since 2026-11-24 06:28:29

NAME             KIND       HEALTH     MEMBERS   LEADER            REVISION
pg-main          postgres   degraded   2/3       pg-main/1 on h1   4
  pg-main-etcd   etcd       degraded   2/3       -                 1
web              app        healthy    2/2       -                 7

Why
  pg-main: pg-main/3 on h3: host is down
  pg-main-etcd: 2 of 3 members are healthy

Operations
  ID   KIND     SERVICE   STATE            STARTED   DOING
  9    update   pg-main   needs operator   2m ago    pg-main/2 is not ready after 5m
  operation 9: muster op continue 9, or muster op cancel 9

Notices
  host h3 is down: 1 more loss stops writes of pg-main
";
        assert_eq!(platform(&sample::platform(), Paint::new(false)), expected);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([size(0), size(512 << 20), size(4_080_218_931)], ["0B", "512MiB", "3.8GiB"]);
    }
}
