//! The internet between hosts: one router namespace, a /24 and a link per host, and its faults; knows nothing of what runs on them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::command::{checked, run};
use crate::config::Config;

/// In a namespace of its own. No word of the run: `all` and others are words of nftables.
const TABLE: &str = "between_hosts";

const STEP: Duration = Duration::from_secs(15);

/// The router and its faults.
pub struct Wan<'a> {
    config: &'a Config,
}

impl<'a> Wan<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// Builds router, rules and the machine's own link; harmless when they exist. Standing faults stay.
    pub fn up(&self) -> Result<()> {
        let ns = self.namespace();
        add_namespace(&ns)?;
        set_forwarding(&ns, true)?;
        self.nft(&self.rules())?;
        let [a, b] = self.config.net;
        let root = self.root_link();
        if !has_link(None, &root)? {
            ip(&["link", "add", &root, "type", "veth", "peer", "name", "root", "netns", &ns])?;
        }
        // A host that is off must be dark. Without the blackhole the router would answer "unreachable" for it at once.
        batch(
            Some(&ns),
            &format!(
                "link set lo up\naddr replace {a}.{b}.0.1/24 dev root\nlink set root up\n\
                 route replace blackhole {a}.{b}.0.0/16\n"
            ),
        )?;
        batch(
            None,
            &format!(
                "addr replace {}/24 dev {root}\nlink set {root} up\nroute replace {a}.{b}.0.0/16 via {a}.{b}.0.1 dev {root}\n",
                self.machine_address()
            ),
        )
    }

    /// Removes router and machine's link.
    pub fn down(&self) -> Result<()> {
        let root = self.root_link();
        delete(&["link", "del", &root], || has_link(None, &root))?;
        delete_namespace(&self.namespace())
    }

    pub fn exists(&self) -> bool {
        namespace_file(&self.namespace()).exists()
    }

    /// A fresh network namespace with a cable to the router. What an earlier boot left is removed first.
    pub fn attach(&self, ns: &str, index: u8) -> Result<()> {
        self.detach(ns, index)?;
        add_namespace(ns)?;
        // A fresh server has forwarding off; the engine turns it on, and only then sets its FORWARD chain to DROP.
        set_forwarding(ns, self.config.forward)?;
        let (wan, link) = (self.namespace(), link_of(index));
        let (host, router) = (self.config.address_of(index), self.config.router_of(index));
        ip(&["link", "add", &link, "netns", &wan, "type", "veth", "peer", "name", "eth0", "netns", ns])?;
        batch(Some(&wan), &format!("addr add {router}/24 dev {link}\nlink set {link} up\n"))?;
        batch(
            Some(ns),
            &format!(
                "link set lo up\naddr add {host}/24 dev eth0\nlink set eth0 up\nroute add default via {router}\n"
            ),
        )
    }

    /// Pulls the cable: from here on not even a reset leaves the host.
    pub fn unplug(&self, index: u8) -> Result<()> {
        let (wan, link) = (self.namespace(), link_of(index));
        delete(&["-n", &wan, "link", "del", &link], || Ok(self.exists() && has_link(Some(&wan), &link)?))
    }

    pub fn detach(&self, ns: &str, index: u8) -> Result<()> {
        self.unplug(index)?;
        delete_namespace(ns)
    }

    /// Drops everything from and to this address.
    pub fn isolate(&self, address: Ipv4Addr) -> Result<()> {
        self.element("add", "isolated", &address.to_string())
    }

    /// Drops what goes from one address to the other, not what comes back.
    pub fn cut(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        self.element("add", "pairs", &format!("{from} . {to}"))
    }

    /// Drops what matches an nftables expression, for example `meta l4proto udp`.
    pub fn filter(&self, expression: &str) -> Result<()> {
        ensure!(!expression.contains([';', '\n']), "{expression}: one expression is wanted");
        self.nft(&format!("add rule inet {TABLE} extra {expression} drop\n"))
    }

    /// Removes all partitions and filters; a stalled host stays stalled.
    pub fn heal(&self) -> Result<()> {
        self.nft(&format!(
            "flush set inet {TABLE} isolated\nflush set inet {TABLE} pairs\nflush chain inet {TABLE} extra\n"
        ))
    }

    /// A stalled machine neither answers nor hears. The kernel under a frozen host would still do both.
    pub fn stall(&self, address: Ipv4Addr, stalled: bool) -> Result<()> {
        if stalled {
            return self.element("add", "stalled", &address.to_string());
        }
        // Deleting an element that is not there is an error; adding it first makes the pair harmless.
        self.element("add", "stalled", &address.to_string())?;
        self.element("delete", "stalled", &address.to_string())
    }

    pub fn mtu(&self, ns: &str, index: u8, mtu: u32) -> Result<()> {
        let mtu = mtu.to_string();
        ip(&["-n", &self.namespace(), "link", "set", &link_of(index), "mtu", &mtu])?;
        ip(&["-n", ns, "link", "set", "eth0", "mtu", &mtu])
    }

    /// Standing faults, one nft line each.
    pub fn faults(&self) -> Result<Vec<String>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        let mut command = self.enter();
        let listed = checked(command.args(["nft", "list", "table", "inet", TABLE]), "", STEP)?;
        let mut set = "";
        let mut faults = Vec::new();
        for line in listed.lines().map(str::trim) {
            if let Some(name) = line.strip_suffix(" {").and_then(|head| head.split(' ').nth(1)) {
                set = name;
            }
            if line.starts_with("elements") || (set == "extra" && line.ends_with("drop")) {
                faults.push(format!("{set}: {line}"));
            }
        }
        Ok(faults)
    }

    /// This machine's own address in the internet of the testbed.
    pub fn machine_address(&self) -> Ipv4Addr {
        self.config.address_of(0)
    }

    pub fn root_link(&self) -> String {
        format!("{}-root", self.config.prefix)
    }

    /// No host can have this name: it has a dot.
    pub fn namespace(&self) -> String {
        format!("{}.wan", self.config.prefix)
    }

    fn element(&self, verb: &str, set: &str, element: &str) -> Result<()> {
        self.nft(&format!("{verb} element inet {TABLE} {set} {{ {element} }}\n"))
    }

    fn rules(&self) -> String {
        format!(
            "table inet {TABLE} {{\n\
               set isolated {{ type ipv4_addr; }}\n\
               set stalled {{ type ipv4_addr; }}\n\
               set pairs {{ type ipv4_addr . ipv4_addr; }}\n\
               chain extra {{ }}\n\
               chain between {{ type filter hook forward priority 0; policy accept; }}\n\
             }}\n\
             flush chain inet {TABLE} between\n\
             add rule inet {TABLE} between ip saddr @isolated drop\n\
             add rule inet {TABLE} between ip daddr @isolated drop\n\
             add rule inet {TABLE} between ip saddr @stalled drop\n\
             add rule inet {TABLE} between ip daddr @stalled drop\n\
             add rule inet {TABLE} between ip saddr . ip daddr @pairs drop\n\
             add rule inet {TABLE} between jump extra\n"
        )
    }

    fn nft(&self, script: &str) -> Result<()> {
        checked(self.enter().args(["nft", "-f", "-"]), script, STEP).map(drop)
    }

    fn enter(&self) -> Command {
        enter_namespace(&self.namespace())
    }
}

/// `ip netns exec` would mount a new /sys and hide the cgroups; `nsenter` changes the network namespace only.
pub fn enter_namespace(ns: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace_file(ns).display())).arg("--");
    command
}

pub fn namespace_file(ns: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(ns)
}

pub fn delete_namespace(ns: &str) -> Result<()> {
    delete(&["netns", "del", ns], || Ok(namespace_file(ns).exists()))
}

fn add_namespace(ns: &str) -> Result<()> {
    let mut command = enter_namespace(ns);
    if namespace_file(ns).exists() {
        if run(command.arg("true"), "", STEP)?.success() {
            return Ok(());
        }
        // An interrupted `ip netns add` leaves a plain file.
        ip(&["netns", "del", ns])?;
    }
    ip(&["netns", "add", ns])
}

fn set_forwarding(ns: &str, on: bool) -> Result<()> {
    let script = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(on));
    checked(enter_namespace(ns).args(["sh", "-c", &script]), "", STEP).map(drop)
}

/// The router's end of a host's cable.
fn link_of(index: u8) -> String {
    format!("v{index}")
}

fn has_link(ns: Option<&str>, link: &str) -> Result<bool> {
    let mut command = Command::new("ip");
    if let Some(ns) = ns {
        command.args(["-n", ns]);
    }
    Ok(run(command.args(["link", "show", "dev", link]), "", STEP)?.success())
}

fn ip(arguments: &[&str]) -> Result<()> {
    checked(Command::new("ip").args(arguments), "", STEP).map(drop)
}

/// Deletes what `exists`. It may go away by itself meanwhile: the kernel takes dead hosts apart in the background.
fn delete(arguments: &[&str], exists: impl Fn() -> Result<bool>) -> Result<()> {
    if !exists()? {
        return Ok(());
    }
    match ip(arguments) {
        Err(error) if exists()? => Err(error),
        _ => Ok(()),
    }
}

fn batch(ns: Option<&str>, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(ns) = ns {
        command.args(["-n", ns]);
    }
    checked(command.args(["-batch", "-"]), script, STEP).map(drop)
}
