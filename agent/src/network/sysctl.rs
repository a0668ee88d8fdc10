//! Kernel settings per bridge, written only where they differ.

use std::path::{Path, PathBuf};

use super::command::run;
use super::problem::Problem;

const BRIDGED: &str = "net/bridge/bridge-nf-call-iptables";

/// Forwarding, and for each bridge: answer ARP for the blocks of other hosts, at once.
///
/// Without `proxy_delay` 0 the kernel waits up to 0.8 s before each answer, longer than many connect timeouts.
pub async fn ensure(bridges: &[String]) -> Vec<Problem> {
    let mut wanted = vec![("net/ipv4/ip_forward".to_owned(), "1")];
    for bridge in bridges {
        wanted.push((format!("net/ipv4/conf/{bridge}/proxy_arp"), "1"));
        wanted.push((format!("net/ipv4/neigh/{bridge}/proxy_delay"), "0"));
    }
    let mut problems = Vec::new();
    for (key, value) in wanted {
        if let Err(error) = set(&key, value).await {
            let name = key.replace('/', ".");
            problems.push(Problem::note("net-sysctl", format!("{name} cannot be set to {value}: {error}")));
        }
    }
    problems
}

/// Whether frames between two members on one bridge pass the `inet` table. Switches it on if that is possible.
pub async fn bridged_packets_are_filtered() -> bool {
    if set(BRIDGED, "1").await.is_ok() {
        return true;
    }
    // The module may be there and not loaded; without it the file does not exist.
    run("modprobe", &["br_netfilter"], "").await.is_ok() && set(BRIDGED, "1").await.is_ok()
}

async fn set(key: &str, value: &str) -> std::io::Result<()> {
    let path: PathBuf = Path::new("/proc/sys").join(key);
    if tokio::fs::read_to_string(&path).await?.trim() == value {
        return Ok(());
    }
    tokio::fs::write(&path, value).await
}
