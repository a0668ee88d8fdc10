//! Checks of the Docker Engine, from what it says of itself.

use ipnet::Ipv4Net;

use super::finding::Finding;
use crate::runtime::docker_facts::EngineFacts;

/// Oldest API version that the agent speaks.
const API_MIN: [u32; 2] = [1, 41];

/// Oldest upstream runc without a known way out of the container (CVE-2024-21626).
const RUNC_MIN: [u32; 3] = [1, 1, 12];

/// All checks of the engine; only one if it does not answer.
pub fn checks(facts: &Result<EngineFacts, String>, socket: &str, subnets: &[Ipv4Net]) -> Vec<Finding> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let remedy = "install Docker Engine and `systemctl enable --now docker`; run the doctor as root";
            return vec![Finding::fail("engine", format!("{socket}: {error}"), remedy)];
        }
    };
    vec![
        version(facts),
        package(facts),
        live_restore(facts),
        firewall(facts),
        runc(facts),
        pools(facts, subnets),
    ]
}

fn version(facts: &EngineFacts) -> Finding {
    let text = format!("Docker Engine {}, API {}", facts.version, facts.api);
    if numbers::<2>(&facts.api) >= API_MIN {
        Finding::ok("engine", text)
    } else {
        Finding::fail("engine", text, "upgrade to Docker Engine 20.10 (API 1.41) or newer")
    }
}

fn package(facts: &EngineFacts) -> Finding {
    let check = "package";
    let remedy =
        "install Docker Engine from your distribution (`docker.io`) or from Docker's packages, for root";
    if facts.root.starts_with("/var/snap/") {
        return Finding::fail(
            check,
            "Docker comes from a snap: it sees neither rendered files nor volumes outside its own directories, and \
             restarts whenever the snap is refreshed",
            format!("`snap remove docker`, then {remedy}"),
        );
    }
    if facts.rootless {
        let text = "rootless Docker: its bridges are in a name space where neither mesh nor packet filter reach them";
        return Finding::fail(check, text, remedy);
    }
    Finding::ok(check, format!("for root, data in {}", facts.root))
}

fn live_restore(facts: &EngineFacts) -> Finding {
    if facts.live_restore {
        return Finding::ok("live-restore", "containers go on while Docker restarts");
    }
    Finding::warn(
        "live-restore",
        "off: an upgrade or restart of Docker stops every member of this host",
        r#"put {"live-restore": true} into /etc/docker/daemon.json and `systemctl reload docker`"#,
    )
}

fn firewall(facts: &EngineFacts) -> Finding {
    if facts.firewall.starts_with("nftables") {
        return Finding::fail(
            "firewall backend",
            "Docker's nftables backend has no DOCKER-USER chain",
            r#"remove "firewall-backend" from /etc/docker/daemon.json and `systemctl restart docker`"#,
        );
    }
    Finding::ok("firewall backend", if facts.firewall.is_empty() { "iptables" } else { &facts.firewall })
}

fn runc(facts: &EngineFacts) -> Finding {
    if numbers::<3>(&facts.runc) >= RUNC_MIN {
        return Finding::ok("runc", facts.runc.clone());
    }
    Finding::warn(
        "runc",
        format!("{}: upstream versions before 1.1.12 let a container out (CVE-2024-21626)", facts.runc),
        "upgrade, or check that your distribution patched its package (`apt changelog runc`)",
    )
}

fn pools(facts: &EngineFacts, subnets: &[Ipv4Net]) -> Finding {
    let clash = |pool: &&Ipv4Net| subnets.iter().any(|net| net.contains(*pool) || pool.contains(net));
    match facts.pools.iter().find(clash) {
        None => Finding::ok("address pools", "Docker's own pools do not touch the platform's subnets"),
        Some(pool) => Finding::warn(
            "address pools",
            format!("Docker may give subnets of {pool}, where the platform's are, to other networks"),
            r#"put {"default-address-pools": [{"base": "10.200.0.0/16", "size": 24}]} into /etc/docker/daemon.json"#,
        ),
    }
}

/// The first numbers of a version; what is missing counts as 0.
fn numbers<const N: usize>(version: &str) -> [u32; N] {
    let mut found = version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    std::array::from_fn(|_| found.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn facts() -> EngineFacts {
        EngineFacts {
            version: "20.10.24".into(),
            api: "1.41".into(),
            live_restore: true,
            firewall: String::new(),
            runc: "1.1.12".into(),
            root: "/var/lib/docker".into(),
            rootless: false,
            pools: vec!["10.200.0.0/16".parse().unwrap()],
            networks: Vec::new(),
        }
    }

    fn verdicts(facts: EngineFacts) -> Vec<(&'static str, Verdict)> {
        let subnets = ["172.31.10.0/24".parse().unwrap()];
        let found = checks(&Ok(facts), "s", &subnets).into_iter();
        found
            .filter(|finding| finding.verdict != Verdict::Ok)
            .map(|finding| (finding.check, finding.verdict))
            .collect()
    }

    #[test]
    fn a_good_engine_has_nothing_to_say_and_each_fault_is_named() {
        assert_eq!(verdicts(facts()), []);
        let old = EngineFacts { api: "1.9".into(), runc: "1.1.5+ds1".into(), ..facts() };
        assert_eq!(verdicts(old), [("engine", Verdict::Fail), ("runc", Verdict::Warn)]);
        let nft = EngineFacts { firewall: "nftables+firewalld".into(), live_restore: false, ..facts() };
        assert_eq!(verdicts(nft), [("live-restore", Verdict::Warn), ("firewall backend", Verdict::Fail)]);
        let snap = EngineFacts { root: "/var/snap/docker/common/var-lib-docker".into(), ..facts() };
        assert_eq!(verdicts(snap), [("package", Verdict::Fail)]);
        assert_eq!(verdicts(EngineFacts { rootless: true, ..facts() }), [("package", Verdict::Fail)]);
        let pools = EngineFacts { pools: vec!["172.16.0.0/12".parse().unwrap()], ..facts() };
        assert_eq!(verdicts(pools), [("address pools", Verdict::Warn)]);
        assert_eq!(checks(&Err("no such file".into()), "s", &[])[0].verdict, Verdict::Fail);
    }
}
