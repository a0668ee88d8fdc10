//! Measures the way through the mesh to every other host: whether it answers, how fast, and how large a packet passes.
//! Judges nothing; the coordinator makes a matrix of what all hosts say.

mod round;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use muster_model::link::Links;
use muster_model::network::Mesh;
use muster_runtime::tasks::TaskGroup;
use tokio::time::{Instant, timeout_at};

use self::round::{Question, Round};
use crate::network::command::run as command;
use crate::network::names::DEVICE;
use crate::reset::echo::Echo;
use crate::shared::Shared;

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(5);
/// Small echoes of one round to each host, and the pause after each.
const SMALL: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for answers, twice in a round.
const ANSWERS: Duration = Duration::from_secs(1);
/// Full packets of one round: one may be lost for other reasons than its size.
const FULL: usize = 2;

/// Measures until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn run(shared: Arc<Shared>, group: TaskGroup) -> Result<(), Infallible> {
    group.token().run_until_cancelled(keep(&shared)).await;
    Ok(())
}

async fn keep(shared: &Shared) {
    loop {
        let mesh = shared.state().host.plan().and_then(|plan| plan.network.mesh.clone());
        if let Some(mesh) = mesh {
            match measure(&mesh).await {
                Ok(round) => tell(shared, &mesh, &round).await,
                // `reset` says so to the operator, with the same kind of socket.
                Err(error) => tracing::debug!(%error, "the mesh cannot be measured"),
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// One round. An answer counts only for the question that it answers.
async fn measure(mesh: &Mesh) -> io::Result<Round> {
    let mut echo = Echo::open()?;
    let mut round = Round::new(mesh.peers.iter().map(|peer| peer.address));
    for _ in 0..SMALL {
        for peer in &mesh.peers {
            let sequence = echo.ask(peer.address).await?;
            round.asked(peer.address, sequence, Question::Small, Instant::now());
        }
        listen(&echo, &mut round, mesh.mtu, PAUSE).await?;
    }
    for _ in 0..FULL {
        for peer in &mesh.peers {
            ask_whole(&mut echo, &mut round, peer.address, mesh.mtu).await?;
        }
    }
    listen(&echo, &mut round, mesh.mtu, ANSWERS).await?;
    let narrow = round.narrow(mesh.mtu);
    for size in sizes_below(mesh.mtu) {
        for address in &narrow {
            ask_whole(&mut echo, &mut round, *address, size).await?;
        }
    }
    if !narrow.is_empty() {
        listen(&echo, &mut round, mesh.mtu, ANSWERS).await?;
    }
    Ok(round)
}

async fn ask_whole(
    echo: &mut Echo,
    round: &mut Round,
    address: std::net::Ipv4Addr,
    size: u16,
) -> io::Result<()> {
    let sequence = echo.ask_whole(address, size).await?;
    round.asked(address, sequence, Question::Whole(size), Instant::now());
    Ok(())
}

/// Until all is answered, or for this long.
async fn listen(echo: &Echo, round: &mut Round, mtu: u16, span: Duration) -> io::Result<()> {
    let until = Instant::now() + span;
    while !round.is_complete(SMALL, mtu) {
        let Ok(answer) = timeout_at(until, echo.answer()).await else { return Ok(()) };
        let (address, sequence) = answer?;
        round.answered(address, sequence, Instant::now());
    }
    Ok(())
}

/// Tried where a full packet does not pass: near the MTU in small steps, as tunnels take a few bytes, then coarsely.
fn sizes_below(mtu: u16) -> Vec<u16> {
    let near = [8, 20, 28, 40, 60, 80, 100, 120].map(|less| mtu.saturating_sub(less));
    let mut sizes: Vec<u16> = near.into_iter().chain([1_280, 1_200, 1_000, 800, 576]).collect();
    sizes.retain(|size| (576..mtu).contains(size));
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

async fn tell(shared: &Shared, mesh: &Mesh, round: &Round) {
    let handshakes = command("wg", &["show", DEVICE, "latest-handshakes"], "").await.unwrap_or_default();
    let now = shared.clock.now();
    let forwards = tokio::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").await;
    let links = Links {
        at: now,
        forwards: forwards.is_ok_and(|text| text.trim() == "1"),
        port: mesh.port,
        mtu: mesh.mtu,
        links: round.links(mesh, &handshakes, now.0 / 1_000),
    };
    let news = {
        let mut state = shared.state();
        let news = state.links.as_ref().is_none_or(|old| old.without_times() != links.without_times());
        state.links = Some(links);
        news
    };
    if news {
        shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_below_the_mtu_and_each_is_tried_once() {
        let sizes = sizes_below(1_300);
        assert_eq!(sizes.first(), Some(&576));
        assert_eq!(sizes.last(), Some(&1_292));
        assert_eq!(sizes.iter().filter(|size| **size == 1_280).count(), 1, "near and coarse meet");
        assert!(sizes_below(576).is_empty());
    }

    #[tokio::test]
    async fn a_host_that_answers_is_measured_and_one_that_is_not_there_is_silent() {
        let peer = |last: u8| muster_model::network::MeshPeer {
            host: muster_model::ids::HostId::new(format!("{last:016x}")).unwrap(),
            public_key: format!("K{last}"),
            endpoint: "192.0.2.1:51820".parse().unwrap(),
            address: [127, 0, 0, last].into(),
            blocks: Vec::new(),
        };
        // 192.0.2.0/24 is for documentation: nobody answers there.
        let mut silent = peer(3);
        silent.address = [192, 0, 2, 3].into();
        let mesh = Mesh {
            address: [127, 0, 0, 1].into(),
            subnet: "127.0.0.0/24".parse().unwrap(),
            port: 51_820,
            mtu: 1_370,
            peers: vec![peer(1), silent],
        };
        if Echo::open().is_err() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        let links = measure(&mesh).await.unwrap().links(&mesh, "K1\t90\n", 100);
        assert_eq!(
            (links[0].answered, links[0].packet, links[0].handshake_s),
            (SMALL, Some(1_370), Some(10))
        );
        assert!(links[0].round_trip_us.is_some());
        assert_eq!((links[1].answered, links[1].packet, links[1].handshake_s), (0, None, None));
    }
}
