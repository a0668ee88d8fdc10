//! TLS of an S3 service's clients: it ends at the proxies, and no server is started again for it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use muster_model::ids::MemberId;
use muster_model::network::Audience;
use muster_model::plan::Rendered;

use super::{CONSOLE_PORT, PORT, S3, TLS_PORT};
use crate::kinds::golden::{Scene, compare, name, platform, problems, refused, spec};
use crate::kinds::tls::{self, Tls};
use crate::kinds::{Kind, Peer};

fn written(tls: &str) -> String {
    format!(r#"{{"kind":"s3","tls":"{tls}"}}"#)
}

fn peer(slot: u32, last: u8) -> Peer {
    let addresses = BTreeMap::from([(name("stornet"), Ipv4Addr::new(172, 31, 30, last))]);
    let (member, host) = (MemberId(slot.into()), name(&format!("host-{slot}")));
    Peer { slot, member, host, addresses, tls: true }
}

/// A server of the service, and a proxy in front of it.
fn both(json: &str) -> (Rendered, Rendered) {
    let mut scene = Scene {
        platform: platform(&[("files", json)]),
        service: name("files"),
        spec: spec(json),
        peers: vec![peer(1, 17), peer(2, 33), peer(3, 49)],
        children: BTreeMap::new(),
        owner: None,
        joins_existing: false,
    };
    let server = scene.render(0);
    let child = S3.children(&name("files"), &scene.spec).remove(0);
    scene.owner = Some((name("files"), scene.spec.clone(), scene.peers.clone()));
    (scene.service, scene.spec) = (name("files-proxy"), child.spec);
    (server, scene.render(0))
}

fn audience(rendered: &Rendered, port: u16) -> Option<Audience> {
    rendered.ports.iter().find(|p| p.port == port).map(|p| p.audience)
}

#[test]
fn a_change_reloads_proxies_and_a_must_closes_every_plain_port() {
    let all = ["none", "optional", "required"].map(|tls| both(&written(tls)));
    let hashes = |(server, proxy): &(Rendered, Rendered)| (server.container_hash(), proxy.container_hash());
    assert!(all.iter().all(|one| hashes(one) == hashes(&all[0])));
    let files = |rendered: &Rendered| rendered.files.iter().any(|file| file.path == tls::FILE);
    assert_eq!(
        all.each_ref().map(|(server, proxy)| (files(server), files(proxy))),
        [(false, false), (false, true), (false, true)]
    );
    let (network, members) = (Some(Audience::Network), Some(Audience::Members));
    let proxies = all.each_ref().map(|(_, proxy)| (audience(proxy, PORT), audience(proxy, TLS_PORT)));
    assert_eq!(proxies, [(network, None), (network, network), (None, network)]);
    let servers = all.each_ref().map(|(server, _)| (audience(server, PORT), audience(server, CONSOLE_PORT)));
    assert_eq!(servers, [(network, network), (network, network), (members, members)]);
    compare("s3/proxy-tls-required", &all[2].1);
}

#[test]
fn a_single_server_has_none() {
    assert_eq!(S3.tls(&spec(r#"{"kind":"s3","mode":"single"}"#)), Tls::None);
    assert_eq!(S3.tls(&spec(r#"{"kind":"s3"}"#)), Tls::Optional);
    refused(r#"{"kind":"s3","mode":"single","tls":"optional"}"#, "tls");
    refused(&written("always"), "tls");
    assert_eq!(problems(r#"{"kind":"s3","mode":"single","tls":"none"}"#, &[]), []);
}

#[test]
fn connection_strings_say_tls_once_every_proxy_has_the_certificate() {
    let url = |proxies: Vec<Peer>| {
        let servers = vec![peer(1, 17)];
        let children = BTreeMap::from([(name("proxy"), proxies)]);
        S3.endpoints(&name("files"), &spec(&written("optional")), &servers, &children, None)[0].url.clone()
    };
    let secret = "app:${secret:files/user-app}";
    let found = url(vec![peer(1, 18), peer(2, 34)]);
    assert_eq!(found, format!("https://{secret}@172.31.30.18:9443,172.31.30.34:9443/app?ca_bundle=${{ca}}"));
    let old = Peer { tls: false, ..peer(2, 34) };
    let found = url(vec![peer(1, 18), old]);
    assert_eq!(found, format!("http://{secret}@172.31.30.18:9000,172.31.30.34:9000/app"));
}
