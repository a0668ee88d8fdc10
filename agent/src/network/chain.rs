//! Lets our traffic pass Docker's own chains: `MUSTER-FWD`, asked first in `DOCKER-USER`. Accepts only; every drop is
//! in `filter.rs`. Rules of the operator in `DOCKER-USER` are left as they are.

use std::fmt::Write;

use super::command::{CommandError, run};
use super::filter::Segment;
use super::names::DEVICE;
use super::problem::Problem;

const CHAIN: &str = "MUSTER-FWD";
const JUMP: &str = "-A DOCKER-USER -j MUSTER-FWD";
const DOCKER_JUMP: &str = "-A FORWARD -j DOCKER-USER";

/// Compares and repairs; without segments the chain is removed.
pub async fn ensure(segments: &[Segment]) -> Vec<Problem> {
    match repair(segments).await {
        Ok(problem) => problem.into_iter().collect(),
        Err(error) => {
            vec![Problem::note("net-docker-user", format!("traffic between hosts may be dropped: {error}"))]
        }
    }
}

/// Removes our chain and the jump to it.
///
/// # Errors
/// The first command that failed.
pub async fn forget() -> Result<(), CommandError> {
    let saved = run("iptables-save", &["-t", "filter"], "").await?;
    if let Some(input) = changes(&saved, &[]) {
        run("iptables-restore", &["--noflush", "--wait", "5"], &input).await?;
    }
    Ok(())
}

async fn repair(segments: &[Segment]) -> Result<Option<Problem>, CommandError> {
    let saved = run("iptables-save", &["-t", "filter"], "").await?;
    let nat = run("iptables-save", &["-t", "nat"], "").await?;
    if let Some(input) = changes(&saved, segments) {
        run("iptables-restore", &["--noflush", "--wait", "5"], &input).await?;
    }
    Ok((!segments.is_empty() && docker_rules_lost(&saved, &nat)).then(|| {
        Problem::note(
            "net-docker-rules-lost",
            "Docker's own iptables rules were flushed; traffic between members was restored, published ports \
             and connections to the internet need `systemctl restart docker` (with live-restore no container stops)",
        )
    }))
}

/// Every version of Docker jumps from FORWARD to chains of its own beside `DOCKER-USER`, which we put back ourselves, and
/// from PREROUTING to the chain that sends published ports to containers.
fn docker_rules_lost(filter: &str, nat: &str) -> bool {
    let forwards =
        |line: &str| line.starts_with("-A FORWARD ") && line.contains("DOCKER") && line != DOCKER_JUMP;
    let publishes = |line: &str| line.starts_with("-A PREROUTING ") && line.ends_with("-j DOCKER");
    !filter.lines().any(forwards) || !nat.lines().any(publishes)
}

/// Input of `iptables-restore --noflush`, or nothing if all is as it must be.
fn changes(saved: &str, segments: &[Segment]) -> Option<String> {
    let wanted = rules(segments);
    let prefix = format!("-A {CHAIN} ");
    let there: Vec<&str> = saved.lines().filter(|line| line.starts_with(&prefix)).collect();
    let exists = |chain: &str| saved.lines().any(|line| line.starts_with(&format!(":{chain} ")));
    let jumps = saved.lines().filter(|line| *line == JUMP).count();
    let first = saved.lines().find(|line| line.starts_with("-A DOCKER-USER ")) == Some(JUMP);
    if segments.is_empty() {
        return exists(CHAIN).then(|| {
            let delete = "-D DOCKER-USER -j MUSTER-FWD\n".repeat(jumps);
            format!("*filter\n:{CHAIN} - [0:0]\n{delete}-X {CHAIN}\nCOMMIT\n")
        });
    }
    let passes = saved.lines().any(|line| line == DOCKER_JUMP);
    if there == wanted && exists(CHAIN) && jumps == 1 && first && passes {
        return None;
    }
    // Naming a chain empties it under `--noflush`, so only ours and a missing one are named.
    let mut input = format!("*filter\n:{CHAIN} - [0:0]\n");
    if !exists("DOCKER-USER") {
        input.push_str(":DOCKER-USER - [0:0]\n");
    }
    for rule in &wanted {
        // Writing to a string cannot fail.
        let _ = writeln!(input, "{rule}");
    }
    if !(jumps == 1 && first) {
        input.push_str(&"-D DOCKER-USER -j MUSTER-FWD\n".repeat(jumps));
        input.push_str("-I DOCKER-USER 1 -j MUSTER-FWD\n");
    }
    if !passes {
        // What Docker itself inserts when it starts; without it nobody asks DOCKER-USER and FORWARD's policy drops.
        input.push_str("-I FORWARD 1 -j DOCKER-USER\n");
    }
    input.push_str("COMMIT\n");
    Some(input)
}

/// In the words of `iptables-save`, so that they can be compared.
fn rules(segments: &[Segment]) -> Vec<String> {
    let of = |segment: &Segment| {
        let (bridge, net) = (&segment.bridge, segment.subnet.trunc());
        [
            format!("-A {CHAIN} -s {net} -d {net} -i {DEVICE} -o {bridge} -j ACCEPT"),
            format!("-A {CHAIN} -s {net} -d {net} -i {bridge} -o {DEVICE} -j ACCEPT"),
            format!("-A {CHAIN} -s {net} -d {net} -i {bridge} -o {bridge} -j ACCEPT"),
        ]
    };
    segments.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use muster_model::spec::Egress;

    use super::*;

    const DOCKER: &str = "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n";

    const NAT: &str = "*nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n";

    fn segments() -> Vec<Segment> {
        let subnet = "172.31.10.0/24".parse().unwrap();
        vec![Segment { bridge: "mu-dbnet".into(), subnet, egress: Egress::Deny }]
    }

    #[test]
    fn the_chain_is_asked_first_and_the_operators_rules_survive() {
        let saved =
            format!("{DOCKER}-A DOCKER-USER -s 203.0.113.7/32 -j DROP\n-A DOCKER-USER -j RETURN\nCOMMIT\n");
        let input = changes(&saved, &segments()).unwrap();
        assert_eq!(
            input,
            "*filter\n:MUSTER-FWD - [0:0]\n\
             -A MUSTER-FWD -s 172.31.10.0/24 -d 172.31.10.0/24 -i muster0 -o mu-dbnet -j ACCEPT\n\
             -A MUSTER-FWD -s 172.31.10.0/24 -d 172.31.10.0/24 -i mu-dbnet -o muster0 -j ACCEPT\n\
             -A MUSTER-FWD -s 172.31.10.0/24 -d 172.31.10.0/24 -i mu-dbnet -o mu-dbnet -j ACCEPT\n\
             -I DOCKER-USER 1 -j MUSTER-FWD\nCOMMIT\n"
        );
    }

    #[test]
    fn nothing_is_written_when_all_is_there() {
        let rules = rules(&segments()).join("\n");
        let saved =
            format!("{DOCKER}:MUSTER-FWD - [0:0]\n{JUMP}\n-A DOCKER-USER -j RETURN\n{rules}\nCOMMIT\n");
        assert_eq!(changes(&saved, &segments()), None);
        let edited = saved.replace(" -i muster0 -o mu-dbnet", " -o mu-dbnet");
        assert!(changes(&edited, &segments()).is_some());
    }

    #[test]
    fn a_flush_of_all_rules_is_healed_with_the_jump_that_docker_makes() {
        let flushed = "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n:MUSTER-FWD - [0:0]\nCOMMIT\n";
        let input = changes(flushed, &segments()).unwrap();
        assert!(input.contains("-I DOCKER-USER 1 -j MUSTER-FWD\n-I FORWARD 1 -j DOCKER-USER\n"), "{input}");
        assert!(!input.contains(":DOCKER-USER"), "naming it would empty it");
        assert!(docker_rules_lost(flushed, NAT) && docker_rules_lost(DOCKER, NAT));
    }

    #[test]
    fn dockers_own_rules_are_missed_in_either_table() {
        let old = format!("{DOCKER}-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n");
        assert!(!docker_rules_lost(&old, NAT), "20.10");
        assert!(!docker_rules_lost(&format!("{DOCKER}-A FORWARD -j DOCKER-FORWARD\n"), NAT), "28");
        assert!(docker_rules_lost(&old, "*nat\n:DOCKER - [0:0]\n-A DOCKER -i docker0 -j RETURN\nCOMMIT\n"));
    }

    #[test]
    fn without_networks_only_our_chain_is_removed() {
        assert_eq!(changes(DOCKER, &[]), None);
        let saved = format!("{DOCKER}:MUSTER-FWD - [0:0]\n{JUMP}\n-A DOCKER-USER -j RETURN\nCOMMIT\n");
        let input = changes(&saved, &[]).unwrap();
        assert_eq!(
            input,
            "*filter\n:MUSTER-FWD - [0:0]\n-D DOCKER-USER -j MUSTER-FWD\n-X MUSTER-FWD\nCOMMIT\n"
        );
    }
}
