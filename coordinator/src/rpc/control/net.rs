//! The matrix of the mesh, from what every host measured last.

use std::collections::BTreeMap;

use muster_model::ids::{HostId, Name};
use muster_model::link::{CellView, HostWrong, Link, Links, NetView};
use muster_model::observed::Condition;
use muster_proto::control as pb;
use tonic::{Response, Status};

use super::{Controls, view};

/// A tunnel that was not renewed for so long is not up: WireGuard renews it every two minutes.
const HANDSHAKE_OLD_S: u64 = 180;

/// What is known of one host.
struct Known {
    name: Name,
    up: bool,
    conditions: Vec<Condition>,
    links: Option<Links>,
}

impl Controls {
    pub(super) async fn net_of_hosts(&self) -> Result<Response<pb::View>, Status> {
        self.must_lead()?;
        let state = self.read().await?;
        let sessions = self.parts.sessions.views();
        let known = |(id, host): (&HostId, &muster_core::state::Host)| {
            let report = sessions.get(id).and_then(|session| session.report.as_ref());
            let known = Known {
                name: host.name.clone(),
                up: host.is_up(),
                conditions: host.conditions.clone(),
                links: report.and_then(|report| report.links.clone()),
            };
            (id.clone(), known)
        };
        Ok(view(&matrix(&state.hosts.iter().map(known).collect())))
    }
}

/// Every ordered pair of hosts, by name.
fn matrix(hosts: &BTreeMap<HostId, Known>) -> NetView {
    let mut net = NetView::default();
    let mut sorted: Vec<(&HostId, &Known)> = hosts.iter().collect();
    sorted.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    for (_, from) in &sorted {
        net.hosts.extend(of_host(from).into_iter().map(|wrong| HostWrong { host: from.name.clone(), wrong }));
        for (id, to) in sorted.iter().filter(|(_, to)| to.name != from.name) {
            net.cells.push(cell(from, id, to));
        }
    }
    net
}

/// What is wrong with the host itself.
fn of_host(host: &Known) -> Vec<String> {
    if !host.up {
        return vec!["down: its agent is silent; `systemctl status muster-agent` there".to_owned()];
    }
    let concerns = |condition: &&Condition| {
        let code = condition.code.as_str();
        code.starts_with("net-") || code.starts_with("mesh-") || code == "no-echo"
    };
    let said = host.conditions.iter().filter(concerns);
    let mut wrong: Vec<String> = said.map(|condition| condition.text.clone()).collect();
    if host.links.as_ref().is_some_and(|links| !links.forwards) {
        wrong.push(
            "net.ipv4.ip_forward is 0, so its members reach no other host: `sysctl -w net.ipv4.ip_forward=1`, and look \
             for a file in /etc/sysctl.d that sets it back"
                .to_owned(),
        );
    }
    wrong
}

fn cell(from: &Known, to_id: &HostId, to: &Known) -> CellView {
    let link = from.links.as_ref().and_then(|links| links.links.iter().find(|link| link.to == *to_id));
    let fresh = link.filter(|_| from.up);
    let wrong = match (fresh, &from.links) {
        _ if !from.up => "not measured: its own agent is silent".to_owned(),
        (Some(link), Some(links)) => of_link(link, links, to),
        (_, None) => "not measured yet: its agent began just now, or is older than this coordinator".to_owned(),
        (None, Some(_)) => {
            "not in its mesh yet; if that lasts, `muster explain` its name, and look at muster-agent's log there"
                .to_owned()
        }
    };
    CellView {
        from: from.name.clone(),
        to: to.name.clone(),
        round_trip_us: fresh.and_then(|link| link.round_trip_us),
        packet: fresh.and_then(|link| link.packet),
        wrong,
    }
}

fn of_link(link: &Link, links: &Links, to: &Known) -> String {
    let (port, mtu) = (links.port, links.mtu);
    if link.answered == 0 {
        return silent(link, port, to);
    }
    if link.packet != Some(mtu) {
        let most = link.packet.unwrap_or_default();
        return format!(
            "packets of {mtu} bytes do not pass, at most {most} do: large answers hang. Let ICMP `fragmentation needed` \
             through, or raise the MTU on the way to {} bytes",
            mtu + 80
        );
    }
    if link.answered < link.asked {
        let lost = link.asked - link.answered;
        return format!("{lost} of {} echoes lost: look at both hosts' uplinks and load", link.asked);
    }
    String::new()
}

fn silent(link: &Link, port: u16, to: &Known) -> String {
    if !to.up {
        return format!("no answer, and {} is down", to.name);
    }
    match link.handshake_s {
        Some(age) if age < HANDSHAKE_OLD_S => format!(
            "no answer, though the tunnel was renewed {age} s ago: cut just now, or {} drops what comes from muster0",
            to.name
        ),
        _ => format!(
            "no answer and no tunnel: open {port}/udp towards {} in both hosts' and both providers' firewalls, and see \
             that muster-mesh runs on both (`systemctl status muster-mesh`)",
            to.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use muster_model::time::Timestamp;

    use super::*;

    fn id(number: u8) -> HostId {
        HostId::new(format!("{number:016x}")).unwrap()
    }

    fn link(to: u8) -> Link {
        Link {
            to: id(to),
            address: [10, 210, 0, to].into(),
            asked: 5,
            answered: 5,
            round_trip_us: Some(500),
            packet: Some(1_370),
            handshake_s: Some(20),
        }
    }

    fn host(number: u8, links: Vec<Link>) -> (HostId, Known) {
        let links = Links { at: Timestamp(0), forwards: true, port: 51_820, mtu: 1_370, links };
        let name = Name::new(format!("h{number}")).unwrap();
        (id(number), Known { name, up: true, conditions: Vec::new(), links: Some(links) })
    }

    fn pair(change: impl FnOnce(&mut Known, &mut Known)) -> NetView {
        let mut hosts = BTreeMap::from([host(1, vec![link(2)]), host(2, vec![link(1)])]);
        let (mut one, mut two) = (hosts.remove(&id(1)).unwrap(), hosts.remove(&id(2)).unwrap());
        change(&mut one, &mut two);
        matrix(&BTreeMap::from([(id(1), one), (id(2), two)]))
    }

    fn first(known: &mut Known) -> &mut Link {
        &mut known.links.as_mut().unwrap().links[0]
    }

    #[test]
    fn a_whole_mesh_is_good_and_every_pair_is_there() {
        let net = pair(|_, _| {});
        assert!(net.is_good(), "{net:?}");
        let pairs: Vec<String> = net.cells.iter().map(|cell| format!("{} {}", cell.from, cell.to)).collect();
        assert_eq!(pairs, ["h1 h2", "h2 h1"]);
    }

    #[test]
    fn each_fault_is_named_in_its_cell() {
        let wrong = |net: NetView| net.cells[0].wrong.clone();
        let silent = |handshake| {
            pair(move |one, _| {
                let link = first(one);
                (link.answered, link.round_trip_us, link.packet, link.handshake_s) =
                    (0, None, None, handshake);
            })
        };
        assert!(wrong(silent(None)).contains("open 51820/udp towards h2"));
        assert!(wrong(silent(Some(300))).contains("open 51820/udp"));
        assert!(wrong(silent(Some(20))).contains("renewed 20 s ago"));
        let narrow = wrong(pair(|one, _| first(one).packet = Some(1_280)));
        assert!(narrow.contains("1370 bytes do not pass, at most 1280 do"), "{narrow}");
        assert!(wrong(pair(|one, _| first(one).answered = 3)).starts_with("2 of 5 echoes lost"));
        assert!(wrong(pair(|one, _| one.links = None)).contains("not measured yet"));
        assert!(wrong(pair(|one, _| one.links.as_mut().unwrap().links.clear())).contains("not in its mesh"));
    }

    #[test]
    fn a_silent_agents_old_numbers_are_not_shown() {
        let net = pair(|one, _| one.up = false);
        assert_eq!((net.cells[0].round_trip_us, net.cells[0].packet), (None, None));
        assert!(net.cells[0].wrong.contains("silent"));
        assert!(net.hosts[0].wrong.starts_with("down"));
    }

    #[test]
    fn a_host_that_does_not_forward_or_says_so_itself_is_named() {
        let net = pair(|one, two| {
            one.links.as_mut().unwrap().forwards = false;
            let said = |code: &str| Condition { code: code.to_owned(), text: format!("{code} text") };
            two.conditions = vec![said("mesh-device"), said("disk-full")];
        });
        assert_eq!(net.hosts.len(), 2, "{:?}", net.hosts);
        assert!(net.hosts[0].wrong.contains("ip_forward"));
        assert_eq!(net.hosts[1].wrong, "mesh-device text");
    }
}
