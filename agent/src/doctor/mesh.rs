//! Checks of what the mesh needs: a WireGuard device, `wg`, a free UDP port.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::network::bridges::interface_exists;
use crate::network::command::run;
use crate::network::{device, names::DEVICE};

/// A device of this name is made and removed at once, to learn whether the kernel can.
const PROBE: &str = "mu-doctor";

/// All checks of the mesh.
pub async fn checks(port: u16, gotatun: Option<PathBuf>) -> Vec<Finding> {
    vec![wireguard(gotatun).await, tool().await, udp_port(port).await]
}

async fn wireguard(gotatun: Option<PathBuf>) -> Finding {
    if interface_exists(DEVICE) {
        return Finding::ok("wireguard", format!("device {DEVICE} is there"));
    }
    if run("ip", &["link", "add", PROBE, "type", "wireguard"], "").await.is_ok() {
        // It was made a moment ago and nobody uses it; failing to remove it leaves an idle device.
        let _ = run("ip", &["link", "del", PROBE], "").await;
        return Finding::ok("wireguard", "in the kernel");
    }
    let tun = Path::new("/dev/net/tun").exists();
    match (gotatun.or_else(device::find), tun) {
        (Some(program), true) => Finding::ok("wireguard", format!("userspace: {}", program.display())),
        (Some(_), false) => Finding::fail(
            "wireguard",
            "not in the kernel, and /dev/net/tun is missing",
            "`modprobe tun`; on a container VPS ask the provider for TUN",
        ),
        (None, _) => Finding::fail(
            "wireguard",
            "not in the kernel, and gotatun is not installed",
            "`modprobe wireguard`, or put gotatun into PATH or /usr/local/lib/muster (one host alone needs neither)",
        ),
    }
}

async fn tool() -> Finding {
    match run("wg", &["--version"], "").await {
        Ok(version) => Finding::ok("wg", version.split(" - ").next().unwrap_or_default().to_owned()),
        Err(error) => Finding::fail("wg", error.to_string(), "install the package wireguard-tools"),
    }
}

async fn udp_port(port: u16) -> Finding {
    let check = "mesh port";
    if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
        return Finding::ok(check, format!("{port}/udp is free; it must be open in the provider's firewall"));
    }
    let ours = interface_exists(DEVICE)
        && run("wg", &["show", DEVICE, "listen-port"], "")
            .await
            .is_ok_and(|text| text.trim() == port.to_string());
    if ours {
        return Finding::ok(check, format!("{port}/udp is used by {DEVICE}"));
    }
    let remedy = format!("find it with `ss -lunp sport = :{port}`, or set another mesh port in the spec");
    Finding::fail(check, format!("{port}/udp is used by another program"), remedy)
}
