//! Answers for a member that is confirmed to have stopped: whoever still talks to its address is refused at once
//! instead of waiting for a host that says nothing. Patroni's next leader asks the old one first, for two seconds.
//!
//! A table of its own, so that the filter's replacement as a whole leaves it alone. Entries expire by themselves.

use std::net::Ipv4Addr;

use super::command::{CommandError, run};

/// Longest time that an address is refused unless it is lifted before, seconds: long enough for an election.
const EXPIRES_S: u32 = 15;

/// In front of everything: an open connection must be refused too.
const TABLE: &str = "table inet muster_gone {
	set gone { type ipv4_addr; flags timeout; }
	chain forward { type filter hook forward priority -20; policy accept; }
}
flush chain inet muster_gone forward
add rule inet muster_gone forward ip daddr @gone meta l4proto tcp reject with tcp reset
";

/// Refuses connections to these addresses from now on.
///
/// # Errors
/// nft failed; nothing is refused then, and peers wait for their own timeouts.
pub async fn refuse(addresses: &[Ipv4Addr]) -> Result<(), CommandError> {
    let mut script = String::from(TABLE);
    for address in addresses {
        script.push_str(&format!("add element inet muster_gone gone {{ {address} timeout {EXPIRES_S}s }}\n"));
    }
    run("nft", &["-f", "-"], &script).await.map(drop)
}

/// Lets connections through again, before the member starts.
///
/// # Errors
/// nft failed; the entries expire by themselves.
pub async fn lift(addresses: &[Ipv4Addr]) -> Result<(), CommandError> {
    let mut script = String::from(TABLE);
    for address in addresses {
        // Deleting what is not there is an error; adding it first is none.
        script.push_str(&format!("add element inet muster_gone gone {{ {address} timeout {EXPIRES_S}s }}\n"));
        script.push_str(&format!("delete element inet muster_gone gone {{ {address} }}\n"));
    }
    run("nft", &["-f", "-"], &script).await.map(drop)
}
