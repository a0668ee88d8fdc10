//! What our device, bridges and networks are called on a host. Names only; nothing is made here.

use muster_model::ids::Name;
use sha2::{Digest, Sha256};

/// The mesh device.
pub const DEVICE: &str = "muster0";

/// Longest name of a network interface, in bytes (`IFNAMSIZ` without the closing zero).
const INTERFACE_LEN_MAX: usize = 15;

/// Bytes of a long network name that stay readable in the name of its bridge.
const PREFIX_LEN: usize = 7;

/// The bridge of a network: `mu-<network>`, shortened with a hash where the kernel would not take it.
#[must_use]
pub fn bridge(network: &Name) -> String {
    let plain = format!("mu-{network}");
    if plain.len() <= INTERFACE_LEN_MAX {
        return plain;
    }
    let hash = hex::encode(&Sha256::digest(network.as_str())[..2]);
    format!("mu-{}-{hash}", &network.as_str()[..PREFIX_LEN])
}

/// The network as the Docker Engine knows it.
#[must_use]
pub fn engine_network(network: &Name) -> String {
    format!("muster-{network}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_name_fits_the_kernel_and_stays_different() {
        let name = |text: &str| Name::new(text).unwrap();
        assert_eq!(bridge(&name("dbnet")), "mu-dbnet");
        assert_eq!(bridge(&name("keycloaknets")), "mu-keycloaknets");
        let (one, two) = (bridge(&name("observability-a")), bridge(&name("observability-b")));
        assert!(one.len() <= INTERFACE_LEN_MAX && two.len() <= INTERFACE_LEN_MAX);
        assert!(one.starts_with("mu-observa-"), "{one}");
        assert_ne!(one, two);
    }
}
