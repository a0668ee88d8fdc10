//! Refuses connections to members of hosts that are dark, and destroys those that are open. Who is dark is decided in
//! `reset`.
//!
//! A table of its own, so that the filter's replacement as a whole leaves it alone. Entries expire by themselves.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::command::{CommandError, run};

/// Longest time that an address is refused unless that is renewed, seconds.
const EXPIRES_S: u32 = 60;

/// Refuses connections to these addresses from now on, and to no others.
///
/// # Errors
/// nft failed; what was refused before still is, and expires by itself.
pub async fn refuse(addresses: &BTreeSet<Ipv4Addr>) -> Result<(), CommandError> {
    run("nft", &["-f", "-"], &script(addresses)).await.map(drop)
}

/// In front of everything: an open connection must be refused too.
fn script(addresses: &BTreeSet<Ipv4Addr>) -> String {
    let mut script = "table inet muster_dead\ndelete table inet muster_dead\n".to_owned();
    if addresses.is_empty() {
        return script;
    }
    let elements: Vec<String> =
        addresses.iter().map(|address| format!("{address} timeout {EXPIRES_S}s")).collect();
    script.push_str(&format!(
        "table inet muster_dead {{
	set dead {{ type ipv4_addr; flags timeout; elements = {{ {} }}; }}
	chain forward {{
		type filter hook forward priority -20; policy accept;
		ip daddr @dead meta l4proto tcp reject with tcp reset
	}}
}}
",
        elements.join(", ")
    ));
    script
}

/// Destroys open and half-open TCP connections to these addresses in the network of one process.
///
/// # Errors
/// The process is gone, or the kernel cannot destroy connections.
pub async fn destroy(process: u32, addresses: &[Ipv4Addr]) -> Result<(), CommandError> {
    let process = process.to_string();
    let filter = addresses.iter().map(|address| format!("dst {address}")).collect::<Vec<_>>().join(" or ");
    let mut args = vec!["-t", &process, "-n", "ss", "-K", "-tnH", "state", "all"];
    args.extend(filter.split(' '));
    run("nsenter", &args, "").await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_addresses_only_the_table_is_taken_away() {
        assert!(!script(&BTreeSet::new()).contains("chain"));
        let text = script(&[Ipv4Addr::new(172, 31, 10, 18), Ipv4Addr::new(172, 31, 20, 18)].into());
        assert!(
            text.contains("elements = { 172.31.10.18 timeout 60s, 172.31.20.18 timeout 60s };"),
            "{text}"
        );
        assert!(text.starts_with("table inet muster_dead\ndelete table inet muster_dead\n"), "never fails");
    }
}
