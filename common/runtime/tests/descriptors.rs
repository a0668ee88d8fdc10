//! A server that ran out of file descriptors serves again as soon as there are some. In a process of its own, because
//! it takes all descriptors of the process.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use muster_model::ids::Name;
use muster_runtime::access::{Access, AccessTable, Revocations};
use muster_runtime::audit::LogAudit;
use muster_runtime::ca::{Ca, LEAF_LIFE};
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::clock::SystemClock;
use muster_runtime::dial::{self, Endpoints};
use muster_runtime::identity::{Identity, Role};
use muster_runtime::keys::NodeKey;
use muster_runtime::net::Listener;
use muster_runtime::server::{self, Limits};
use muster_runtime::tasks::TaskGroup;
use muster_runtime::tls::{Credentials, Tls, Trust};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Debug)]
struct NothingRevoked;

impl Revocations for NothingRevoked {
    fn is_revoked(&self, _: &PeerCertificate) -> bool {
        false
    }
}

fn coordinator() -> Tls {
    let clock = SystemClock::shared();
    let platform = Name::new("shop").unwrap();
    let ca = Ca::create(&platform, clock.now_ms()).unwrap();
    let id = Name::new("c1").unwrap();
    let identity =
        Identity { platform: platform.clone(), role: Role::Coordinator, id: id.clone(), name: id.clone() };
    let key = NodeKey::generate().unwrap();
    let issued = ca.issue(&key.csr(&id).unwrap(), &identity, LEAF_LIFE, clock.now_ms()).unwrap();
    let credentials = Credentials::new(&key, &issued.pem, ca.pem()).unwrap();
    let trust = Arc::new(Trust::new(platform, &[ca.pem()]).unwrap());
    Tls::new(Some(credentials), trust, Arc::default(), clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_accept_loop_survives_a_lack_of_file_descriptors() {
    let tls = coordinator();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let access = Access {
        table: AccessTable::new(&[]).unwrap(),
        revocations: Arc::new(NothingRevoked),
        pins: Arc::clone(tls.pins()),
        clock: SystemClock::shared(),
        audit: Arc::new(LogAudit),
    };
    let tasks = TaskGroup::new();
    let config = tls.server_config().unwrap();
    let limits = Limits { handshakes: 1000, handshakes_per_address: 1000, ..Limits::default() };
    server::start(&tasks, listener, config, Arc::new(access), limits, tonic::service::Routes::default());

    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: old.maximum }).unwrap();
    let mut hoard = Vec::new();
    let starved = loop {
        match TcpStream::connect(address) {
            Ok(stream) => hoard.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(starved.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(tasks.running().contains(&"accept"));
    drop(hoard);

    let endpoints = Endpoints::new([address.to_string()]);
    let seen = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match dial::probe(&endpoints, &tls.client_config().unwrap()).await {
                Ok(certificate) => break certificate,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert_eq!(seen.await.unwrap().identity.role, Role::Coordinator);
    tasks.drain(Duration::from_secs(10)).await.unwrap();
}
