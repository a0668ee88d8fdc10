//! TLS of a Redis service's clients: who offers it, on which ports, and that a change restarts nothing.

use muster_model::network::Audience;

use super::{PORT, Redis, TLS_PORT, front};
use crate::kinds::golden::{Scene, child_of, compare, facts, name, owner_of, peer, problems, refused, spec};
use crate::kinds::tls::Tls;
use crate::kinds::{Kind, Peer};

const REPLICATED: &str = r#"{"kind":"redis","network":"dbnet","mode":"replicated"}"#;
const VALKEY: &str = r#"{"kind":"redis","network":"dbnet","mode":"cluster","flavour":"valkey"}"#;

fn with(json: &str, tls: &str) -> String {
    json.replace("\"kind\"", &format!("\"tls\":\"{tls}\",\"kind\""))
}

#[test]
fn a_cluster_of_an_older_redis_has_none_because_its_redirects_know_one_port() {
    let tls = |json: &str| Redis.tls(&spec(json));
    let cluster = r#"{"kind":"redis"}"#;
    assert_eq!(tls(cluster), Tls::None);
    assert_eq!(tls(r#"{"kind":"redis","image":"muster/redis:7.2.4"}"#), Tls::Optional);
    assert_eq!((tls(VALKEY), tls(REPLICATED), tls(r#"{"kind":"redis","mode":"single"}"#)), {
        (Tls::Optional, Tls::Optional, Tls::Optional)
    });
    assert_eq!(tls(&with(REPLICATED, "required")), Tls::Required);
    refused(&with(cluster, "optional"), "tls");
    refused(&with(cluster, "required"), "tls");
    refused(&with(REPLICATED, "maybe"), "tls");
    assert_eq!(problems(&with(cluster, "none"), &[]), []);
    assert_eq!(problems(&with(VALKEY, "required"), &[]), []);
}

fn audiences(scene: &Scene) -> Vec<(u16, Audience)> {
    let ports = scene.render(0).ports;
    ports.into_iter().filter(|p| [PORT, TLS_PORT].contains(&p.port)).map(|p| (p.port, p.audience)).collect()
}

#[test]
fn a_change_is_told_to_the_running_server_and_a_must_closes_the_plain_port() {
    let scenes = ["none", "optional", "required"].map(|tls| owner_of(&with(REPLICATED, tls)));
    let hashes = scenes.each_ref().map(|scene| scene.render(0).container_hash());
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(audiences(&scenes[0]), [(PORT, Audience::Network)]);
    assert_eq!(audiences(&scenes[1]), [(PORT, Audience::Network), (TLS_PORT, Audience::Network)]);
    assert_eq!(audiences(&scenes[2]), [(PORT, Audience::Members), (TLS_PORT, Audience::Network)]);
    compare("redis/tls-required", &scenes[2].render(0));
    compare("redis/tls-none", &scenes[0].render(0));
    let proxies = child_of(&with(REPLICATED, "required"), "proxy").render(0);
    compare("haproxy/redis-tls-required", &proxies);
    let ports: Vec<u16> = proxies.ports.iter().map(|port| port.port).collect();
    assert!(!ports.contains(&PORT) && !ports.contains(&front::READ_PORT), "{ports:?}");
}

fn urls(json: &str, peers: &[Peer], proxies: bool) -> Vec<String> {
    let children = [(name("proxy"), vec![peer(1, 9, 40)])].into_iter().filter(|_| proxies).collect();
    let ends = Redis.endpoints(&name("cache"), &spec(json), peers, &children, None);
    ends.into_iter().map(|end| end.url).collect()
}

#[test]
fn connection_strings_say_tls_once_every_member_has_a_certificate() {
    let mut peers = vec![peer(1, 1, 17), peer(2, 2, 18)];
    let secret = "app:${secret:cache/user-app}";
    let found = urls(REPLICATED, &peers, true);
    let way = |port: u16| format!("rediss://{secret}@172.31.10.40:{port}/0?ssl_ca_certs=${{ca}}");
    assert_eq!(found, [way(TLS_PORT), way(front::READ_TLS_PORT)]);
    let found = urls(VALKEY, &peers, false);
    let all = format!("172.31.10.17:{TLS_PORT},172.31.10.18:{TLS_PORT}");
    assert_eq!(found[0], format!("rediss://{secret}@{all}/0?cluster=true&ssl_ca_certs=${{ca}}"));
    peers[1].tls = false;
    assert_eq!(urls(REPLICATED, &peers, true)[0], format!("redis://{secret}@172.31.10.40:{PORT}/0"));
}

#[test]
fn a_new_certificate_is_no_password() {
    let (service, spec) = (name("cache"), spec(REPLICATED));
    let members = vec![crate::kinds::golden::member(1, "master", true)];
    let facts = facts(&service, &spec, members);
    let (tls, both) = (["cache/tls".to_owned()], ["cache/tls", "cache/admin"].map(str::to_owned));
    for secrets in [Redis.introduce(&facts, &tls), Redis.enforce(&facts, &tls), Redis.confirm(&facts, &tls)] {
        assert_eq!(secrets, []);
    }
    assert_eq!(Redis.introduce(&facts, &both), Redis.introduce(&facts, &both[1..]));
    assert_eq!(Redis.confirm(&facts, &both).len(), 1);
}
