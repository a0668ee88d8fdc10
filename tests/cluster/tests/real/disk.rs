//! A disk that is full: changes are refused with the reason, beats and reads go on, space brings all back.

use std::path::{Path, PathBuf};
use std::process::Command;

use muster_cluster_tests::agent::Agent;
use muster_cluster_tests::cluster::Cluster;
use muster_cluster_tests::wait::{bounded, until};
use muster_proto::control as pb;
use tonic::Code;

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "tmpfs cannot be mounted");
        Self(at.to_owned())
    }

    /// Takes all that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).expect("a file");
        let block = vec![1_u8; 64 << 10];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("the filler is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a coordinator that the test left behind may still have files open.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

fn spec(number: usize) -> pb::SpecRequest {
    let filling = "x".repeat(200 << 10);
    let yaml = format!("# {number} {filling}\nmuster: 1\nplatform: shop\nservices: {{}}\n");
    pb::SpecRequest { caller: None, yaml, at: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_changes_keeps_beats_and_resumes() {
    if !rustix::process::geteuid().is_root() {
        println!("\nSKIPPED: a full disk: needs root to mount a small file system");
        return;
    }
    let folder = tempfile::TempDir::with_prefix("muster-disk").expect("a directory");
    let disk = SmallDisk::mount(folder.path());
    bounded(Box::pin(async {
        let cluster = Cluster::single_at(&disk.0).await;
        let at = cluster.nodes[0].address;
        let token = cluster.token("host").await;
        let agent = Agent::join(at, &token, "h1", &cluster.clock()).await.expect("joins");
        let session = agent.session(at, "boot").await.expect("a session");
        let operator = cluster.operator(0);

        disk.fill();
        let mut refused = None;
        for number in 0..200 {
            if let Err(status) = operator.control().apply(spec(number)).await {
                refused = Some(status);
                break;
            }
        }
        let refused = refused.expect("the disk is full at some point");
        println!("full disk: {refused}");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("disk"), "{refused}");

        let before = session.heard().acks;
        until("beats go on", async || {
            let heard = session.heard();
            assert!(heard.ended.is_none(), "{heard:?}");
            if heard.acks > before + 4 { Ok(()) } else { Err(heard.acks) }
        })
        .await;
        let index = operator.status().await.expect("reads go on").index;

        disk.empty();
        until("changes go on", async || operator.control().apply(spec(1_000)).await).await;
        assert!(operator.status().await.expect("a read").index > index);
        assert!(cluster.nodes[0].pid().is_some());
    }))
    .await;
}
