//! Cuts this host's members off, for a drill that loses the host. A table of its own, whose entries expire by themselves:
//! the kernel undoes it even if this agent never comes back.

use muster_model::network::HostNetwork;
use muster_model::time::Millis;

use super::command::{CommandError, run};
use super::names;

/// Nothing passes our networks or the mesh for this long.
///
/// # Errors
/// nft failed; nothing is cut off.
pub async fn cut(plan: &HostNetwork, lasts: Millis) -> Result<(), CommandError> {
    run("nft", &["-f", "-"], &script(plan, lasts)).await.map(drop)
}

/// Everything passes again.
///
/// # Errors
/// nft failed; the entries expire by themselves.
pub async fn lift() -> Result<(), CommandError> {
    run("nft", &["-f", "-"], CLEAR).await.map(drop)
}

/// Declared first, so that deleting it never fails.
const CLEAR: &str = "table inet muster_drill\ndelete table inet muster_drill\n";

fn script(plan: &HostNetwork, lasts: Millis) -> String {
    let bridges = plan.networks.iter().map(|network| names::bridge(&network.name));
    let ours = bridges.chain([names::DEVICE.to_owned()]);
    let seconds = lasts.0.div_ceil(1_000).max(1);
    let elements: Vec<String> = ours.map(|name| format!("\"{name}\" timeout {seconds}s")).collect();
    format!(
        "{CLEAR}table inet muster_drill {{
	set dark {{ type ifname; flags timeout; elements = {{ {} }}; }}
	chain forward {{
		type filter hook forward priority -30; policy accept;
		iifname @dark drop
		oifname @dark drop
	}}
	chain input {{
		type filter hook input priority -30; policy accept;
		iifname @dark drop
	}}
	chain output {{
		type filter hook output priority -30; policy accept;
		oifname @dark drop
	}}
}}
",
        elements.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_ends_by_itself() {
        let text = script(&HostNetwork::default(), Millis(29_500));
        assert!(text.contains("elements = { \"muster0\" timeout 30s };"), "{text}");
    }
}
