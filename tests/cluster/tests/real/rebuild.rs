//! All coordinators and their disks lost: a new first one out of what a host's agent was given.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_cluster_tests::agent::{Agent, Heard};
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::node::Ended;
use muster_cluster_tests::wait::{bounded, until};
use muster_model::view::Scheduling;
use muster_runtime::host_bundle::HostBundle;
use muster_runtime::keys::NodeKey;

const SPEC: &str = "
muster: 1
platform: shop
services:
  pg-main: { kind: postgres, mode: single }
";

/// As `muster-agent bundle` writes it, whose own test is `agent/src/bundle.rs`.
fn bundle(agent: &Agent, heard: &Heard) -> HostBundle {
    let plan = heard.plan.clone().expect("a plan");
    HostBundle {
        host: plan.host.clone(),
        name: agent.name.clone(),
        platform_id: agent.joined.platform_id.clone(),
        platform: "shop".parse().expect("a name"),
        ca_pem: agent.joined.ca_pem.clone(),
        kept: heard.kept.clone(),
        plan: Some(plan),
        secrets: heard.secrets.iter().map(|(name, value)| (name.clone(), STANDARD.encode(value))).collect(),
    }
}

fn write(bundle: &HostBundle, to: PathBuf) -> String {
    std::fs::write(&to, bundle.encode().expose()).expect("a file");
    to.display().to_string()
}

async fn rebuild(cluster: &Cluster, from: &[&str], more: &[&str]) -> Ended {
    let own = cluster.nodes[0].address.to_string();
    let context = cluster.context.display().to_string();
    let mut words = vec!["rebuild", "--advertise", &own, "--context", &context, "--name", "reborn"];
    from.iter().for_each(|file| words.extend(["--from", file]));
    words.extend(more);
    cluster.nodes[0].once(&words).await
}

fn lose(directory: &Path) {
    std::fs::remove_dir_all(directory).expect("a directory that is there");
}

/// What an agent with a member of the database was given, until nothing is missing of it.
async fn given(cluster: &Cluster, agent: &Agent) -> Heard {
    let leader = cluster.nodes[cluster.leader().await].address;
    let session = until("a session", async || agent.session(leader, "boot").await).await;
    until("the host's size is known", async || {
        session.report(Default::default(), Vec::new()).await;
        let view = cluster.status(0).await;
        if view.hosts[0].facts.memory_bytes > 0 { Ok(()) } else { Err("not yet") }
    })
    .await;
    until("the spec", async || cluster.operator(0).apply(None, SPEC.to_owned(), 0).await).await;
    until("a member is planned", async || {
        let plan = session.heard().plan.ok_or("none")?;
        if plan.members.is_empty() { Err("empty") } else { Ok(()) }
    })
    .await;
    until("a host is cordoned", async || cluster.operator(0).schedule(None, "h1", "cordoned").await).await;
    let heard = until("all of it is at the agent", async || {
        let heard = session.heard();
        let kept = heard
            .kept
            .as_ref()
            .is_some_and(|kept| kept.body.contains("pg-main") && kept.body.contains("cordoned"));
        let told = heard.plan.as_ref().is_some_and(|plan| !plan.members.is_empty());
        if kept && told { Ok(heard) } else { Err(format!("{:?}", heard.kept)) }
    })
    .await;
    assert!(!heard.secrets.is_empty());
    let kept = heard.kept.clone().expect("kept");
    for secret in heard.secrets.values() {
        let text = String::from_utf8_lossy(secret);
        assert!(
            text.contains("BEGIN CERTIFICATE") || !kept.body.contains(&*text),
            "a secret is kept in the clear"
        );
    }
    heard
}

async fn refuses(cluster: &Cluster, agent: &Agent, heard: &Heard, whole: &str) {
    let empty = HostBundle { kept: None, ..bundle(agent, heard) };
    let empty = write(&empty, cluster.path().join("empty.bundle"));
    let nothing = rebuild(cluster, &[&empty], &[]).await;
    assert!(!nothing.ok && nothing.err.contains("none of these hosts kept anything"), "{nothing:?}");
    let twice = rebuild(cluster, &[whole, whole], &[]).await;
    assert!(!twice.ok && twice.err.contains("given twice"), "{twice:?}");
    let both = rebuild(cluster, &[whole], &["--without", "h1"]).await;
    assert!(!both.ok && both.err.contains("which one is it"), "{both:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_without_any_coordinator_is_rebuilt_from_what_its_agents_kept() {
    bounded(Box::pin(async {
        let mut cluster = Cluster::three().await;
        let key = NodeKey::generate().expect("a key");
        let pem = key.pem();
        let token = cluster.token("host").await;
        let at = cluster.nodes[0].address;
        let agent = Agent::join_with(key, at, &token, "h1", &cluster.clock()).await.expect("joins");
        let heard = given(&cluster, &agent).await;
        for node in &mut cluster.nodes {
            node.kill().await;
            lose(&node.dir);
        }

        let whole = write(&bundle(&agent, &heard), cluster.path().join("h1.bundle"));
        refuses(&cluster, &agent, &heard, &whole).await;
        let done = rebuild(&cluster, &[&whole], &[]).await;
        assert!(done.ok, "{done:?}");
        println!("{}", done.out);
        assert!(done.out.contains("incarnation 2 of platform shop"), "{done:?}");
        let again = rebuild(&cluster, &[&whole], &[]).await;
        assert!(!again.ok && again.err.contains("belongs to coordinator"), "{again:?}");

        cluster.nodes.truncate(1);
        cluster.nodes[0].start();
        let view = cluster.status(0).await;
        assert_eq!(view.hosts[0].scheduling, Scheduling::Cordoned);
        assert!(
            view.services.iter().any(|service| service.name.as_str() == "pg-main"),
            "{:?}",
            view.services
        );
        assert!(
            view.notices.iter().any(|notice| notice.contains("inventory is awaited")),
            "{:?}",
            view.notices
        );
        // The identity before is of the CA that is lost: refused by both sides.
        assert!(agent.session(at, "boot").await.is_err());
        let token = cluster.token("host").await;
        let key = NodeKey::from_pem(pem.expose()).expect("the same key");
        let agent = Agent::join_with(key, at, &token, "h1", &cluster.clock()).await.expect("joins again");
        let session = until("a session", async || agent.session(at, "boot-2").await).await;
        let now = until("a plan of the new incarnation", async || session.heard().plan.ok_or("none")).await;
        let before = heard.plan.expect("a plan");
        assert!(now.additive_only && now.generation.incarnation == 2 && now.platform == before.platform);
        assert_eq!(now.members, before.members, "something would be started again");
        let secrets = session.heard().secrets;
        for (name, value) in heard.secrets.iter().filter(|(name, _)| name.as_str() != "/ca") {
            assert_eq!(secrets.get(name), Some(value), "{name}");
        }
        session.report(now.generation, Vec::new()).await;
        until("the inventory is taken", async || {
            let told = session.heard().plan.ok_or("none")?;
            if told.additive_only { Err("still only adding") } else { Ok(()) }
        })
        .await;
        for name in ["fourth", "fifth"] {
            cluster.join(name).await;
        }
        cluster.voters(3).await;
        until("a change", async || cluster.operator(0).schedule(None, "h1", "open").await).await;
    }))
    .await;
}
