//! What the proxies in front of a replicated service serve: the master, and any member that has its data. Decides nothing.

use muster_model::ids::Name;
use muster_model::spec::ServiceSpec;

use super::settings::{Mode, Settings};
use super::{PORT, TLS_PORT, render};
use crate::kinds::haproxy::front::{self, Check, Front, Listener, Mode as ProxyMode, Port, Server, Vital};
use crate::kinds::tls::Tls;
use crate::kinds::{Child, Peer, parts};

/// The proxies' way to any member that has the master's data.
pub const READ_PORT: u16 = 6_380;
/// The same over TLS.
pub const READ_TLS_PORT: u16 = 6_382;
const PROXIES: u32 = 2;
/// A role that moved shows in two checks of these: nobody else tells the proxies.
const SOON: &str = "inter 200ms fastinter 100ms downinter 100ms";

/// The proxies, where the platform says who leads.
pub fn child(owner: &ServiceSpec, settings: &Settings) -> Option<Child> {
    let child = || front::child(owner, &settings.network, PROXIES, &settings.proxy_image);
    (settings.mode == Mode::Replicated).then(child)
}

pub fn front(name: &Name, settings: &Settings, members: &[Peer]) -> Front {
    if settings.mode != Mode::Replicated {
        return Front::default();
    }
    // Bytes are passed on as they are: the members have the certificate, and are asked without TLS how they are.
    let server = |peer: &Peer, port: u16, asked: bool, options| Server {
        name: parts::member_name(name, peer.slot, peer.member),
        address: parts::address(peer, &settings.network),
        port,
        check_port: (asked && port != PORT).then_some(PORT),
        options: if asked { options } else { "" },
    };
    let check = |expect: &str| {
        Check::Lines(vec![
            "option tcp-check".to_owned(),
            format!("tcp-check send \"AUTH {} -\\r\\n\"", render::CHECK),
            "tcp-check expect string +OK".to_owned(),
            // The end of the connection is the end of the answer: without it, one that is wrong is waited out.
            "tcp-check send \"INFO replication\\r\\nQUIT\\r\\n\"".to_owned(),
            format!("tcp-check expect rstring {expect}"),
        ])
    };
    let listener = |name, port, to: u16, note, check: Check, balance: &str, options| Listener {
        name,
        ports: vec![Port::Plain(port)],
        mode: ProxyMode::Tcp,
        note,
        options: vec![format!("balance {balance}")],
        servers: members.iter().map(|p| server(p, to, !matches!(check, Check::As(_)), options)).collect(),
        check,
    };
    let write = "The one that says that it takes writes: nobody does unless the platform told it so.";
    let read = "Any member that has the master's data, or is the master.";
    let masters = || check("role:master");
    let readable = || check("role:master|master_link_status:up");
    let mut listeners = Vec::new();
    if settings.tls != Tls::Required {
        listeners.push(listener("write", PORT, PORT, write, masters(), "first", SOON));
        listeners.push(listener("read", READ_PORT, PORT, read, readable(), "leastconn", ""));
    }
    if settings.tls != Tls::None {
        let both = settings.tls == Tls::Optional;
        let (masters, readable) =
            if both { (Check::As("write"), Check::As("read")) } else { (masters(), readable()) };
        listeners.push(listener("write-tls", TLS_PORT, TLS_PORT, write, masters, "first", SOON));
        listeners.push(listener("read-tls", READ_TLS_PORT, TLS_PORT, read, readable, "leastconn", ""));
    }
    let vital = if settings.tls == Tls::Required { "write-tls" } else { "write" };
    Front {
        listeners,
        vital: Some(Vital { listener: vital, stands: "master", fails: "no master" }),
        holds: false,
    }
}
