//! What the proxies in front of a replicated service serve: the master, and any member that has its data. Decides nothing.

use muster_model::ids::Name;
use muster_model::spec::ServiceSpec;

use super::settings::{Mode, Settings};
use super::{PORT, render};
use crate::kinds::haproxy::front::{self, Check, Front, Listener, Mode as ProxyMode, Server, Vital};
use crate::kinds::{Child, Peer, parts};

/// The proxies' way to any member that has the master's data.
pub const READ_PORT: u16 = 6_380;
const PROXIES: u32 = 2;

/// The proxies, where the platform says who leads.
pub fn child(owner: &ServiceSpec, settings: &Settings) -> Option<Child> {
    let child = || front::child(owner, &settings.network, PROXIES, &settings.proxy_image);
    (settings.mode == Mode::Replicated).then(child)
}

pub fn front(name: &Name, settings: &Settings, members: &[Peer]) -> Front {
    if settings.mode != Mode::Replicated {
        return Front::default();
    }
    let server = |peer: &Peer| Server {
        name: parts::member_name(name, peer.slot, peer.member),
        address: parts::address(peer, &settings.network),
        port: PORT,
        check_port: None,
        options: "",
    };
    let listener = |name, port, note, balance: &str, expect: &str| Listener {
        name,
        port,
        mode: ProxyMode::Tcp,
        note,
        options: vec![format!("balance {balance}")],
        check: Check::Lines(vec![
            "option tcp-check".to_owned(),
            format!("tcp-check send \"AUTH {} -\\r\\n\"", render::CHECK),
            "tcp-check expect string +OK".to_owned(),
            "tcp-check send \"INFO replication\\r\\n\"".to_owned(),
            format!("tcp-check expect rstring {expect}"),
            "tcp-check send \"QUIT\\r\\n\"".to_owned(),
        ]),
        servers: members.iter().map(server).collect(),
    };
    let write = "The one that says that it takes writes: nobody does unless the platform told it so.";
    let read = "Any member that has the master's data, or is the master.";
    Front {
        listeners: vec![
            listener("write", PORT, write, "first", "role:master"),
            listener("read", READ_PORT, read, "leastconn", "role:master|master_link_status:up"),
        ],
        vital: Some(Vital { listener: "write", stands: "master", fails: "no master" }),
        holds: false,
    }
}
