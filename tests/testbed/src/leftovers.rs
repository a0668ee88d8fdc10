//! Finds everything of a testbed that exists on the machine; removes nothing.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::cgroup::Cgroups;
use crate::command::run;
use crate::config::Config;
use crate::host::{HOST_MARK, stat_of};
use crate::wan::Wan;

const LIST: Duration = Duration::from_secs(15);

/// One thing that exists, and the command that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub kind: &'static str,
    pub what: String,
    pub shown_by: String,
}

/// Everything of this testbed: processes, namespaces, mounts, cgroups, nft tables, links, routes. Disks do not count.
pub fn leftovers(config: &Config) -> Result<Vec<Leftover>> {
    let cgroups = Cgroups::detect()?;
    let mut found = Vec::new();
    let mut add = |kind, what: String, shown_by: String| {
        let one = Leftover { kind, what, shown_by };
        // A route has both our link and our addresses.
        if !found.contains(&one) {
            found.push(one);
        }
    };
    for (pid, name) in processes(config, &cgroups) {
        add("process", format!("{pid} {name}"), format!("ps -fp {pid}"));
    }
    for name in namespaces(config) {
        add("namespace", name, "ip netns list".to_owned());
    }
    for point in mounts(config)? {
        add("mount", point, "findmnt -l".to_owned());
    }
    for dir in cgroups.existing(&config.cgroup()) {
        add("cgroup", dir.display().to_string(), format!("ls -d {}", dir.display()));
    }
    for (kind, command, mark) in by_command(config) {
        let words: Vec<&str> = command.split(' ').collect();
        let listed = run(Command::new(words[0]).args(&words[1..]), "", LIST)?.stdout;
        for line in listed.lines().filter(|line| line.split([' ', ':', '@']).any(|word| word == mark)) {
            add(kind, line.trim().to_owned(), command.to_owned());
        }
    }
    Ok(found)
}

/// What a program lists: a line belongs to us if it has our word.
fn by_command(config: &Config) -> [(&'static str, &'static str, String); 4] {
    let link = Wan::new(config).root_link();
    let [a, b] = config.net;
    [
        ("nft table", "nft list tables", config.prefix.clone()),
        ("link", "ip -o link show", link.clone()),
        ("route", "ip -o -4 route show", link),
        ("route", "ip -o -4 route show", format!("{a}.{b}.0.0/16")),
    ]
}

fn processes(config: &Config, cgroups: &Cgroups) -> Vec<(i32, String)> {
    let mark = format!("{HOST_MARK}={}/", config.prefix);
    let marked = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair.starts_with(mark.as_bytes()))
    };
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.retain(|pid| marked(*pid));
    pids.extend(cgroups.processes(&config.cgroup()));
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().filter_map(|pid| Some((pid, stat_of(pid)?.name))).collect()
}

fn namespaces(config: &Config) -> Vec<String> {
    let (hosts, router) = (format!("{}-", config.prefix), Wan::new(config).namespace());
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&hosts) || *name == router).collect()
}

fn mounts(config: &Config) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let (hosts, router) =
        (format!("/run/netns/{}-", config.prefix), format!("/run/netns/{}.wan", config.prefix));
    let ours = |point: &&str| {
        point.starts_with(&hosts) || **point == router || point.starts_with(&*config.dir.to_string_lossy())
    };
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).filter(ours).map(str::to_owned).collect())
}
