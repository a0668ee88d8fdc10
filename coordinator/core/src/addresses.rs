//! Which addresses of a block may be given away. Pure arithmetic; who has which is State's.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Prefix length of a block.
const BLOCK_PREFIX: u8 = 28;
/// Addresses at the end of a block that members never get: Docker hands them to containers that are not ours.
const TAIL: u32 = 4;

/// Prefix length of the blocks of a network.
#[must_use]
pub fn block_prefix(subnet: Ipv4Net) -> u8 {
    BLOCK_PREFIX.max(subnet.prefix_len())
}

/// The blocks of a network, lowest first.
pub fn blocks(subnet: Ipv4Net) -> impl Iterator<Item = Ipv4Net> {
    subnet.subnets(block_prefix(subnet)).into_iter().flatten()
}

fn usable(block: Ipv4Net, subnet: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(block.network());
    let last = u32::from(block.broadcast());
    (first..=last).map(Ipv4Addr::from).filter(move |a| *a != subnet.network() && *a != subnet.broadcast())
}

/// The gateway of a host whose first block this is.
#[must_use]
pub fn gateway(block: Ipv4Net, subnet: Ipv4Net) -> Option<Ipv4Addr> {
    usable(block, subnet).next()
}

/// Addresses of a block that members may get, lowest first.
pub fn for_members(block: Ipv4Net, first: bool, subnet: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let end = u32::from(block.broadcast()).saturating_sub(TAIL);
    usable(block, subnet).skip(usize::from(first)).filter(move |a| u32::from(*a) <= end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_networks_ends_nor_the_gateway_nor_the_tail_go_to_members() {
        let subnet: Ipv4Net = "172.31.10.0/24".parse().unwrap();
        let all: Vec<Ipv4Net> = blocks(subnet).collect();
        assert_eq!(all.len(), 16);
        assert_eq!(gateway(all[0], subnet).unwrap().to_string(), "172.31.10.1");
        assert_eq!(gateway(all[1], subnet).unwrap().to_string(), "172.31.10.16");
        let members: Vec<String> = for_members(all[0], true, subnet).map(|a| a.to_string()).collect();
        assert_eq!(members.first().unwrap(), "172.31.10.2");
        assert_eq!(members.last().unwrap(), "172.31.10.11");
        let last: Vec<Ipv4Addr> = for_members(all[15], false, subnet).collect();
        assert_eq!(last.first().unwrap().to_string(), "172.31.10.240");
        assert!(!last.contains(&"172.31.10.255".parse().unwrap()));
    }

    #[test]
    fn a_network_smaller_than_a_block_is_one_block() {
        let subnet: Ipv4Net = "10.0.0.0/29".parse().unwrap();
        assert_eq!(blocks(subnet).count(), 1);
        assert_eq!(for_members(subnet, true, subnet).count(), 2);
    }
}
