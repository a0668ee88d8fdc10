//! Every coordinator answers with what any of them acknowledged, and a repeated call has one effect.

use muster_cluster_tests::agent::{Agent, Session, ask_to_join};
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::operator::Operator;
use muster_cluster_tests::wait::{bounded, until};
use muster_model::ids::Generation;
use muster_model::view::{Liveness, Scheduling};
use muster_proto::control::Caller;
use muster_runtime::keys::NodeKey;

async fn hosts(cluster: &Cluster) -> Vec<(Agent, Session)> {
    let mut hosts = Vec::new();
    for name in ["h1", "h2", "h3"] {
        let token = cluster.token("host").await;
        let leader = cluster.nodes[cluster.leader().await].address;
        let agent = Agent::join(leader, &token, name, &cluster.clock()).await.expect("joins");
        let session = agent.session(leader, name).await.expect("the leader takes the session");
        session.report(Generation::default(), Vec::new()).await;
        hosts.push((agent, session));
    }
    hosts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_coordinator_acknowledged_all_of_them_show() {
    bounded(Box::pin(async {
        let cluster = Cluster::three().await;
        let _hosts = hosts(&cluster).await;
        let operators: Vec<Operator> = (0..3).map(|at| cluster.operator(at)).collect();
        for round in 0..8 {
            for writer in 0..3 {
                let cordon = (round + writer) % 2 == 0;
                let (word, wanted) =
                    if cordon { ("cordoned", Scheduling::Cordoned) } else { ("open", Scheduling::Open) };
                let index = operators[writer].schedule(None, "h2", word).await.expect("a change");
                for (reader, operator) in operators.iter().enumerate() {
                    let view = operator.status().await.expect("a read");
                    let host = view.hosts.iter().find(|host| host.name.as_str() == "h2").expect("h2");
                    let which = format!("round {round}, written at {writer}, read at {reader}");
                    assert_eq!(host.scheduling, wanted, "{which}");
                    assert!(view.index.0 >= index, "{which}: {} is before {index}", view.index);
                }
            }
        }
        until("all hosts are ready", async || {
            let view = cluster.status(cluster.leader().await).await;
            let ready = view.hosts.iter().filter(|host| host.liveness == Liveness::Ready).count();
            if ready == 3 { Ok(()) } else { Err(format!("{:?}", view.hosts)) }
        })
        .await;
        for (at, node) in cluster.nodes.iter().enumerate() {
            let memory = node.memory_mib();
            println!("resident memory of coordinator {at} with 3 hosts: {memory} MiB");
            assert!(memory < 80, "{memory} MiB");
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_call_has_one_effect_and_the_same_answer() {
    bounded(Box::pin(async {
        let cluster = Cluster::three().await;
        let _hosts = hosts(&cluster).await;
        let operators: Vec<Operator> = (0..3).map(|at| cluster.operator(at)).collect();
        let call = |serial| Some(Caller { client: "a program".to_owned(), serial });

        let first = operators[0].schedule(call(1), "h1", "cordoned").await.expect("a change");
        operators[1].schedule(call(2), "h1", "open").await.expect("a change");
        let again = operators[2].schedule(call(1), "h1", "cordoned").await.expect("the answer of before");
        assert_eq!(again, first);
        let view = operators[0].status().await.expect("a read");
        let host = view.hosts.iter().find(|host| host.name.as_str() == "h1").expect("h1");
        assert_eq!(host.scheduling, Scheduling::Open);

        let token = operators[0].token_as(call(3), "host", 0).await.expect("a token");
        for operator in &operators {
            let repeated = operator.token_as(call(3), "host", 0).await.expect("the token of before");
            assert!(repeated == token, "another token");
        }
        let made = operators[0].audit().await.expect("the audit log");
        let made = made.iter().filter(|line| line.contains("create a join token")).count();
        // Two for coordinators, three for hosts, and this one.
        assert_eq!(made, 6);
        assert!(operators[1].token_as(call(4), "host", 0).await.expect("a token") != token);
        let at = cluster.nodes[0].address;
        let (one, two) = (NodeKey::generate().expect("a key"), NodeKey::generate().expect("a key"));
        ask_to_join(at, &token, &one, "h4", &cluster.clock()).await.expect("the token is good");
        let refused = ask_to_join(at, &token, &two, "h5", &cluster.clock()).await.expect_err("it was used");
        assert!(refused.message().contains("was used already"), "{refused}");
    }))
    .await;
}
