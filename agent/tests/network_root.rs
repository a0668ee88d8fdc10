//! The network of a host for real: kernel namespaces as members, nftables and iptables as they are, only the Docker
//! Engine replaced by one that makes bridges with `ip`. Needs root; says so loudly when it cannot run.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_agent::network::Network;
use muster_agent::network::engine::{EngineError, EngineNetwork, NetworkEngine};
use muster_model::ids::Name;
use muster_model::network::{HostNetwork, NetworkPlan, PortRule, Protocol};
use muster_model::spec::Egress;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const SERVER: Ipv4Addr = Ipv4Addr::new(172, 31, 10, 18);
const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 31, 10, 19);
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 18);

#[test]
fn members_reach_only_what_is_listed_and_a_flush_is_healed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED, NOT TESTED: the network of a host needs root");
        return;
    }
    let inner = std::env::current_exe().unwrap();
    let script =
        "mount -t sysfs sysfs /sys && ip link set lo up && exec \"$0\" --ignored --exact inside --nocapture";
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "timeout", "60", "sh", "-c", script])
        .arg(inner)
        .status()
        .unwrap();
    assert!(status.success(), "see above");
}

#[test]
#[ignore = "run by the other test, in namespaces of its own"]
fn inside() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scenario());
}

async fn scenario() {
    let engine = Bridges::default();
    let mut network = Network::new(engine.clone(), "p1".to_owned(), "/dev/null".into());
    let mut plan = plan();
    assert_eq!(codes(&network.ensure(&plan).await), ["net-docker-rules-lost"], "there is no Docker here");
    let server = Member::new("mu-dbnet", SERVER, Ipv4Addr::new(172, 31, 10, 17));
    let client = Member::new("mu-dbnet", CLIENT, Ipv4Addr::new(172, 31, 10, 17));
    let stranger = Member::new("mu-proxy", STRANGER, Ipv4Addr::new(172, 30, 0, 17));
    let _listening = (server.listen(5432), server.listen(9999));

    let only_what_is_listed = |when: &str| {
        assert!(client.reaches(5432), "{when}: a listed port on the same bridge");
        assert!(!client.reaches(9999), "{when}: a port that is not listed");
        assert!(!stranger.reaches(5432), "{when}: a listed port from another network");
    };
    only_what_is_listed("at first");
    assert!(reaches(9999), "the host itself reaches its members, for probes");

    sh("nft flush ruleset && iptables -F");
    assert!(client.reaches(9999), "without the filter the port answers, so the test can fail");
    assert!(codes(&network.ensure(&plan).await).contains(&"net-filter-changed"));
    only_what_is_listed("after a flush");

    sh("nft insert rule inet muster towards_member accept && nft insert rule bridge muster forward accept");
    assert!(codes(&network.ensure(&plan).await).contains(&"net-filter-changed"));
    only_what_is_listed("after an edit");

    sh("echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables || true");
    only_what_is_listed("by the table of family bridge alone");

    plan.rules.clear();
    assert!(
        !codes(&network.ensure(&plan).await).contains(&"net-filter-changed"),
        "our own change is no alarm"
    );
    assert!(!client.reaches(5432), "nobody may any more");

    sh("ip route add 172.31.20.0/25 dev lo");
    plan.networks.push(net("cachenet", [172, 31, 20, 0]));
    let problems = network.ensure(&plan).await;
    assert!(codes(&problems).contains(&"net-overlap"), "{problems:?}");
    assert_eq!(engine.0.lock().unwrap().len(), 2, "a network that overlaps is not made");

    network.ensure(&HostNetwork::default()).await;
    network.ensure(&HostNetwork::default()).await;
    let left = sh("nft list tables; iptables-save -t filter; ip -o link");
    assert!(!left.to_lowercase().contains("muster") && !left.contains("mu-dbnet"), "left behind: {left}");
}

fn plan() -> HostNetwork {
    let rule = PortRule {
        network: Name::new("dbnet").unwrap(),
        address: SERVER,
        port: 5432,
        protocol: Protocol::Tcp,
        sources: vec!["172.31.10.0/24".parse().unwrap()],
        public: false,
    };
    let networks = vec![net("dbnet", [172, 31, 10, 0]), net("proxy", [172, 30, 0, 0])];
    HostNetwork { mesh: None, networks, rules: vec![rule] }
}

fn net(name: &str, base: [u8; 4]) -> NetworkPlan {
    let [a, b, c, _] = base;
    NetworkPlan {
        name: Name::new(name).unwrap(),
        subnet: ipnet::Ipv4Net::new_assert(base.into(), 24),
        gateway: Ipv4Addr::new(a, b, c, 17),
        blocks: vec![ipnet::Ipv4Net::new_assert([a, b, c, 16].into(), 28)],
        remote: Vec::new(),
        mtu: 1370,
        egress: Egress::Deny,
    }
}

fn codes(problems: &[muster_agent::network::Problem]) -> Vec<&'static str> {
    problems.iter().map(|problem| problem.code).collect()
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn reaches(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((SERVER, port)), Duration::from_millis(400)).is_ok()
}

/// A network namespace with one interface on a bridge.
struct Member(Child);

impl Member {
    fn new(bridge: &str, address: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        let member = Self(Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap());
        let (pid, veth) = (member.0.id(), format!("v{}", member.0.id()));
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        // Until `unshare` has done its work the process is still in our namespace.
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == own {
            std::thread::sleep(Duration::from_millis(5));
        }
        sh(&format!(
            "ip link add {veth} type veth peer name eth0 netns {pid} && ip link set {veth} master {bridge} up && \
             nsenter -t {pid} -n sh -ec 'ip addr add {address}/24 dev eth0; ip link set eth0 up; \
             ip route add default via {gateway}'"
        ));
        member
    }

    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let entered = move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
                .unwrap();
            work()
        };
        std::thread::spawn(entered).join().unwrap()
    }

    fn listen(&self, port: u16) -> TcpListener {
        self.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
    }

    fn reaches(&self, port: u16) -> bool {
        self.inside(move || reaches(port))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It sleeps a minute at most; the namespaces go with the test anyway.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes bridges as Docker does, and remembers them.
#[derive(Clone, Default)]
struct Bridges(Arc<Mutex<BTreeMap<String, EngineNetwork>>>);

impl NetworkEngine for Bridges {
    async fn networks(&self) -> Result<Vec<EngineNetwork>, EngineError> {
        Ok(self.0.lock().unwrap().values().cloned().collect())
    }

    async fn create_network(&self, wanted: &EngineNetwork) -> Result<(), EngineError> {
        let bridge = wanted.bridge().unwrap();
        let (gateway, length) = (wanted.gateway.unwrap(), wanted.subnets[0].prefix_len());
        sh(&format!(
            "ip link add {bridge} type bridge && ip addr add {gateway}/{length} dev {bridge} && ip link set {bridge} up"
        ));
        let made = EngineNetwork { id: wanted.name.clone(), ..wanted.clone() };
        self.0.lock().unwrap().insert(made.id.clone(), made);
        Ok(())
    }

    async fn remove_network(&self, id: &str) -> Result<(), EngineError> {
        if let Some(gone) = self.0.lock().unwrap().remove(id) {
            sh(&format!("ip link del {}", gone.bridge().unwrap()));
        }
        Ok(())
    }
}
