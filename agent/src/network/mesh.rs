//! Configures the mesh device through `wg` and `ip`: reads what is there and changes only what differs.
//!
//! An unchanged peer is never written: `wg syncconf` would reset every session, `wg set` of one peer touches only it.
//! The device itself is made elsewhere (`device.rs`), so that a restart of the agent cuts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_model::network::{Mesh, MeshPeer};
use serde::Deserialize;

use super::command::{CommandError, run};
use super::names::DEVICE;

/// Seconds between keep-alives; below the usual 30 s of a NAT's memory.
const KEEPALIVE_S: &str = "25";

/// Age of the last handshake from which an endpoint learned by roaming is given up: three missed renewals and a retry.
const HANDSHAKE_DEAD: Duration = Duration::from_secs(275);

/// What was last written to the device, to tell a moved peer from one that roamed.
#[derive(Debug, Default)]
pub struct Endpoints(BTreeMap<String, SocketAddr>);

/// Brings the device to what the plan says.
///
/// # Errors
/// The first command that failed; the device is missing if `wg show` failed.
pub async fn ensure(mesh: &Mesh, key_file: &Path, written: &mut Endpoints) -> Result<(), CommandError> {
    let device = Device::parse(&run("wg", &["show", DEVICE, "dump"], "").await?);
    let key = tokio::fs::read_to_string(key_file).await.unwrap_or_default();
    let key_path = key_file.to_string_lossy();
    if device.private_key != key.trim() || device.port != mesh.port {
        let port = mesh.port.to_string();
        run("wg", &["set", DEVICE, "listen-port", &port, "private-key", &key_path], "").await?;
    }
    for change in device.changes(&mesh.peers, written, now()) {
        let mut args = vec!["set", DEVICE];
        args.extend(change.iter().map(String::as_str));
        run("wg", &args, "").await?;
    }
    written.0 = mesh.peers.iter().map(|peer| (peer.public_key.clone(), peer.endpoint)).collect();
    ensure_link(mesh).await
}

/// Takes all peers off the device, if there is one.
pub async fn clear(written: &mut Endpoints) -> Result<(), CommandError> {
    let Ok(dump) = run("wg", &["show", DEVICE, "dump"], "").await else { return Ok(()) };
    for change in Device::parse(&dump).changes(&[], written, now()) {
        let mut args = vec!["set", DEVICE];
        args.extend(change.iter().map(String::as_str));
        run("wg", &args, "").await?;
    }
    written.0.clear();
    Ok(())
}

async fn ensure_link(mesh: &Mesh) -> Result<(), CommandError> {
    let listing = run("ip", &["-j", "addr", "show", "dev", DEVICE], "").await?;
    for args in link_changes(&listing, mesh) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run("ip", &args, "").await?;
    }
    Ok(())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The device as `wg show ... dump` prints it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Device {
    private_key: String,
    port: u16,
    peers: BTreeMap<String, Peer>,
}

#[derive(Debug, PartialEq, Eq)]
struct Peer {
    preshared: bool,
    endpoint: Option<SocketAddr>,
    allowed: BTreeSet<String>,
    /// Since 1970; zero = never.
    handshake: Duration,
    keepalive: String,
}

impl Device {
    /// Reads the tab-separated dump; lines that it does not understand count as absent and are written again.
    fn parse(dump: &str) -> Self {
        let mut lines = dump.lines();
        let mut device = Self::default();
        if let Some([key, _, port, _]) = lines.next().and_then(|line| fields(line)) {
            key.clone_into(&mut device.private_key);
            device.port = port.parse().unwrap_or(0);
        }
        for line in lines {
            let Some([key, psk, endpoint, allowed, handshake, _, _, keepalive]) = fields(line) else {
                continue;
            };
            let peer = Peer {
                preshared: psk != "(none)",
                endpoint: endpoint.parse().ok(),
                allowed: allowed.split(',').filter(|net| *net != "(none)").map(str::to_owned).collect(),
                handshake: Duration::from_secs(handshake.parse().unwrap_or(0)),
                keepalive: keepalive.to_owned(),
            };
            device.peers.insert(key.to_owned(), peer);
        }
        device
    }

    /// Arguments of one `wg set` per peer that differs, removals first so that their addresses are free.
    fn changes(&self, wanted: &[MeshPeer], written: &Endpoints, now: Duration) -> Vec<Vec<String>> {
        let keys: BTreeSet<&str> = wanted.iter().map(|peer| peer.public_key.as_str()).collect();
        let gone = self.peers.keys().filter(|key| !keys.contains(key.as_str()));
        let mut changes: Vec<Vec<String>> =
            gone.map(|key| vec!["peer".into(), key.clone(), "remove".into()]).collect();
        for peer in wanted {
            let there = self.peers.get(&peer.public_key);
            let moved = written.0.get(&peer.public_key).is_none_or(|endpoint| *endpoint != peer.endpoint);
            let mut set = Vec::new();
            if there.is_none_or(|there| there.endpoint_is_wrong(peer, moved, now)) {
                set.extend(["endpoint".into(), peer.endpoint.to_string()]);
            }
            let allowed = allowed_ips(peer);
            if there.is_none_or(|there| there.allowed != allowed) {
                let list: Vec<String> = allowed.into_iter().collect();
                set.extend(["allowed-ips".into(), list.join(",")]);
            }
            if there.is_none_or(|there| there.keepalive != KEEPALIVE_S) {
                set.extend(["persistent-keepalive".into(), KEEPALIVE_S.into()]);
            }
            if there.is_some_and(|there| there.preshared) {
                set.extend(["preshared-key".into(), "/dev/null".into()]);
            }
            if !set.is_empty() {
                let mut change = vec!["peer".to_owned(), peer.public_key.clone()];
                change.append(&mut set);
                changes.push(change);
            }
        }
        changes
    }
}

impl Peer {
    /// Whether the endpoint must be written: it differs, and it is not one learned from a peer that answers.
    fn endpoint_is_wrong(&self, wanted: &MeshPeer, moved: bool, now: Duration) -> bool {
        let alive = now.saturating_sub(self.handshake) < HANDSHAKE_DEAD;
        self.endpoint != Some(wanted.endpoint) && (moved || !alive)
    }
}

/// The addresses that only this peer may send from: its own, and its blocks.
fn allowed_ips(peer: &MeshPeer) -> BTreeSet<String> {
    let blocks = peer.blocks.iter().map(|block| block.trunc().to_string());
    blocks.chain([format!("{}/32", peer.address)]).collect()
}

fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split('\t').collect::<Vec<_>>().try_into().ok()
}

#[derive(Deserialize)]
struct Link {
    mtu: Option<u32>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<LinkAddress>,
}

#[derive(Deserialize)]
struct LinkAddress {
    family: String,
    local: String,
    prefixlen: u8,
}

/// Arguments of the `ip` calls that give the device its address and MTU and bring it up.
fn link_changes(listing: &str, mesh: &Mesh) -> Vec<Vec<String>> {
    let links: Vec<Link> = serde_json::from_str(listing).unwrap_or_default();
    let wanted = format!("{}/32", mesh.address);
    let addresses: Vec<String> = links
        .iter()
        .flat_map(|link| &link.addr_info)
        .filter(|address| address.family == "inet")
        .map(|address| format!("{}/{}", address.local, address.prefixlen))
        .collect();
    let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut changes = Vec::new();
    for old in addresses.iter().filter(|address| **address != wanted) {
        changes.push(words(format!("addr del {old} dev {DEVICE}")));
    }
    if !addresses.contains(&wanted) {
        changes.push(words(format!("addr add {wanted} dev {DEVICE}")));
    }
    let ready = |link: &Link| link.mtu == Some(mesh.mtu.into()) && link.flags.iter().any(|flag| flag == "UP");
    if !links.first().is_some_and(ready) {
        changes.push(words(format!("link set {DEVICE} mtu {} up", mesh.mtu)));
    }
    changes
}

#[cfg(test)]
mod tests {
    use muster_model::ids::HostId;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn peer(key: &str, last: u8) -> MeshPeer {
        MeshPeer {
            host: HostId::new("0123456789abcdef").unwrap(),
            public_key: key.into(),
            endpoint: format!("198.19.{last}.2:51820").parse().unwrap(),
            address: [10, 210, 0, last].into(),
            blocks: vec![format!("172.31.10.{}/28", last * 16).parse().unwrap()],
        }
    }

    fn dump(endpoint: &str, handshake: u64) -> Device {
        Device::parse(&format!(
            "priv\tpub\t51820\toff\nB\t(none)\t{endpoint}\t10.210.0.2/32,172.31.10.32/28\t{handshake}\t5\t6\t25\n"
        ))
    }

    fn known() -> Endpoints {
        Endpoints([("B".to_owned(), peer("B", 2).endpoint)].into())
    }

    #[test]
    fn an_unchanged_peer_is_not_written() {
        let device = dump("198.19.2.2:51820", 999_990);
        assert_eq!((device.private_key.as_str(), device.port), ("priv", 51820));
        assert_eq!(device.changes(&[peer("B", 2)], &known(), NOW), Vec::<Vec<String>>::new());
        assert!(device.changes(&[peer("B", 2)], &Endpoints::default(), NOW).is_empty(), "after a restart");
    }

    #[test]
    fn a_new_peer_is_written_whole_and_a_stale_one_removed_first() {
        let changes = dump("198.19.2.2:51820", 0).changes(&[peer("C", 3)], &known(), NOW);
        let lines: Vec<String> = changes.iter().map(|args| args.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "peer B remove",
                "peer C endpoint 198.19.3.2:51820 allowed-ips 10.210.0.3/32,172.31.10.48/28 persistent-keepalive 25"
            ]
        );
    }

    #[test]
    fn a_roamed_endpoint_stays_while_it_answers() {
        let roamed = "203.0.113.9:40000";
        assert!(dump(roamed, 999_900).changes(&[peer("B", 2)], &known(), NOW).is_empty());
        let dead = dump(roamed, 999_000).changes(&[peer("B", 2)], &known(), NOW);
        assert_eq!(dead, [["peer", "B", "endpoint", "198.19.2.2:51820"]]);
        let mut moved = peer("B", 2);
        moved.endpoint = "198.19.7.2:51820".parse().unwrap();
        let told = dump("198.19.2.2:51820", 999_900).changes(&[moved], &known(), NOW);
        assert_eq!(told, [["peer", "B", "endpoint", "198.19.7.2:51820"]]);
    }

    #[test]
    fn a_new_block_and_a_foreign_preshared_key_are_put_right() {
        let mut wider = peer("B", 2);
        wider.blocks.push("172.31.20.32/28".parse().unwrap());
        let device = Device::parse(
            "priv\tpub\t51820\toff\nB\tsecret\t198.19.2.2:51820\t10.210.0.2/32,172.31.10.32/28\t0\t5\t6\t25\n",
        );
        let changes = device.changes(&[wider], &known(), NOW);
        let line = changes[0].join(" ");
        assert_eq!(
            line,
            "peer B allowed-ips 10.210.0.2/32,172.31.10.32/28,172.31.20.32/28 preshared-key /dev/null"
        );
    }

    #[test]
    fn the_link_gets_its_address_mtu_and_is_brought_up_once() {
        let mesh = Mesh {
            address: [10, 210, 0, 1].into(),
            subnet: "10.210.0.0/16".parse().unwrap(),
            port: 51820,
            mtu: 1370,
            peers: Vec::new(),
        };
        let fresh = r#"[{"ifname":"muster0","flags":["POINTOPOINT"],"mtu":1500,"addr_info":[]}]"#;
        let lines: Vec<String> = link_changes(fresh, &mesh).iter().map(|args| args.join(" ")).collect();
        assert_eq!(lines, ["addr add 10.210.0.1/32 dev muster0", "link set muster0 mtu 1370 up"]);
        let done = r#"[{"flags":["UP"],"mtu":1370,"addr_info":[{"family":"inet","local":"10.210.0.1","prefixlen":32}]}]"#;
        assert!(link_changes(done, &mesh).is_empty());
    }
}
