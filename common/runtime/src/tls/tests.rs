//! Handshakes on loopback between honest and dishonest ends.

use std::sync::Arc;

use muster_model::ids::Name;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::ca::{Ca, LEAF_LIFE};
use crate::clock::ManualClock;
use crate::identity::{Identity, Role};
use crate::keys::NodeKey;

const NOW: u64 = 1_790_000_000_000;
const DAY: u64 = 24 * 3600 * 1000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn identity(role: Role) -> Identity {
    Identity { platform: name("shop"), role, id: name("x1"), name: name("x1") }
}

fn credentials(ca: &Ca, role: Role) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let issued = ca.issue(&key.csr(&name("x1")).unwrap(), &identity(role), LEAF_LIFE, NOW).unwrap();
    Credentials::new(&key, &issued.pem, ca.pem()).unwrap()
}

struct World {
    ca: Ca,
    clock: Arc<ManualClock>,
    server: Tls,
}

impl World {
    fn new() -> Self {
        let ca = Ca::create(&name("shop"), NOW).unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let server = Self::tls(&ca, &clock, Some(credentials(&ca, Role::Coordinator)));
        Self { ca, clock, server }
    }

    fn tls(ca: &Ca, clock: &Arc<ManualClock>, credentials: Option<Credentials>) -> Tls {
        let trust = Arc::new(Trust::new(name("shop"), &[ca.pem()]).unwrap());
        Tls::new(credentials, trust, Arc::default(), Arc::clone(clock) as SharedClock)
    }

    fn client(&self, credentials: Option<Credentials>) -> Tls {
        Self::tls(&self.ca, &self.clock, credentials)
    }

    async fn meet(&self, client: &Tls) -> (Result<bool, String>, Result<(), String>) {
        handshake(&self.server, client.client_config().unwrap()).await
    }
}

/// What the server (whether it saw a certificate) and the client say after a handshake and one byte.
async fn handshake(server: &Tls, client: Arc<ClientConfig>) -> (Result<bool, String>, Result<(), String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(server.server_config().unwrap());
    let serve = async {
        let mut tls = acceptor.accept(far).await.map_err(|e| e.to_string())?;
        tls.write_all(b"x").await.map_err(|e| e.to_string())?;
        tls.flush().await.map_err(|e| e.to_string())?;
        Ok(tls.get_ref().1.peer_certificates().is_some())
    };
    let dial = async {
        let name = ServerName::try_from("any.name").unwrap();
        let mut tls = TlsConnector::from(client).connect(name, near).await.map_err(|e| e.to_string())?;
        tls.read_u8().await.map(drop).map_err(|e| e.to_string())
    };
    tokio::join!(serve, dial)
}

/// Shows any certificate, sound or not, as an attacker would.
fn forge(key: &NodeKey, chain: &[&str]) -> Credentials {
    let chain = chain.iter().map(|pem| crate::certificate::der_from_pem(pem).unwrap()).collect();
    let certified = Arc::new(CertifiedKey::new(chain, key.tls_key().unwrap()));
    let own = Ca::create(&name("any"), NOW).unwrap();
    Credentials { certified, ..credentials(&own, Role::Agent) }
}

/// What an honest agent's leaf says.
fn leaf_params() -> CertificateParams {
    let seconds =
        |offset: i64| time::OffsetDateTime::from_unix_timestamp((NOW / 1000) as i64 + offset).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "x1");
    params.subject_alt_names = vec![uri(&identity(Role::Agent).uri())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (seconds(-60), seconds(60));
    params
}

/// A leaf of our own CA that the CA would never sign by itself.
fn odd_leaf(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let mut params = leaf_params();
    change(&mut params);
    let ca_key = KeyPair::from_pem(ca.key_pem().expose()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(ca.pem(), ca_key).unwrap();
    let pair = KeyPair::from_pem(key.pem().expose()).unwrap();
    let pem = params.signed_by(&pair, &issuer).unwrap().pem();
    forge(&key, &[&pem])
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[tokio::test]
async fn every_role_and_nobody_get_through_the_handshake() {
    let world = World::new();
    for role in Role::ALL {
        let client = world.client(Some(credentials(&world.ca, role)));
        assert_eq!(world.meet(&client).await, (Ok(true), Ok(())), "{role}");
    }
    assert_eq!(world.meet(&world.client(None)).await, (Ok(false), Ok(())));
}

#[tokio::test]
async fn another_ca_of_the_same_name_is_refused_on_both_sides() {
    let world = World::new();
    let other = Ca::create(&name("shop"), NOW).unwrap();
    let stranger = world.client(Some(credentials(&other, Role::Admin)));
    let (server, client) = world.meet(&stranger).await;
    assert!(server.unwrap_err().contains("BadSignature") && client.is_err());
    let misled = World::tls(&other, &world.clock, None);
    assert!(world.meet(&misled).await.1.unwrap_err().contains("BadSignature"));
}

#[tokio::test]
async fn another_platform_is_refused_even_with_our_ca() {
    let world = World::new();
    let leaf = odd_leaf(&world.ca, |p| p.subject_alt_names = vec![uri("muster://shop2/agent/x1")]);
    let server = world.meet(&world.client(Some(leaf))).await.0;
    assert!(server.unwrap_err().contains("platform shop2 instead of shop"));
}

#[tokio::test]
async fn leaves_with_any_other_fault_are_refused() {
    let world = World::new();
    let sound = odd_leaf(&world.ca, |_| ());
    assert_eq!(world.meet(&world.client(Some(sound))).await.0, Ok(true));
    let agent = || uri(&identity(Role::Agent).uri());
    let admin = || uri(&identity(Role::Admin).uri());
    type Change = Box<dyn FnOnce(&mut CertificateParams)>;
    let faults: Vec<(&str, Change)> = vec![
        ("2 alternative names", Box::new(move |p| p.subject_alt_names = vec![agent(), admin()])),
        (
            "2 alternative names",
            Box::new(move |p| p.subject_alt_names.push(SanType::DnsName("h".try_into().unwrap()))),
        ),
        ("names no identity", Box::new(|p| p.subject_alt_names.clear())),
        (
            "names no identity",
            Box::new(|p| p.subject_alt_names = vec![SanType::DnsName("h".try_into().unwrap())]),
        ),
        ("is not a role", Box::new(|p| p.subject_alt_names = vec![uri("muster://shop/root/x1")])),
        ("CaUsedAsEndEntity", Box::new(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("what it is for", Box::new(|p| p.extended_key_usages.clear())),
        (
            "extended key usage for client",
            Box::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("not valid yet", Box::new(|p| p.not_before = p.not_after - time::Duration::seconds(1))),
    ];
    for (reason, change) in faults {
        let leaf = odd_leaf(&world.ca, change);
        let error = world.meet(&world.client(Some(leaf))).await.0.unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[tokio::test]
async fn self_signed_and_signed_by_a_leaf_are_refused() {
    let world = World::new();
    let key = NodeKey::generate().unwrap();
    let pair = KeyPair::from_pem(key.pem().expose()).unwrap();
    let own = forge(&key, &[&leaf_params().self_signed(&pair).unwrap().pem()]);
    let error = world.meet(&world.client(Some(own))).await.0.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");

    // An agent plays CA: its leaf, sent along as intermediate, signs an admin.
    let agent_key = NodeKey::generate().unwrap();
    let agent =
        world.ca.issue(&agent_key.csr(&name("x1")).unwrap(), &identity(Role::Agent), LEAF_LIFE, NOW).unwrap();
    let false_ca = Ca::from_pem(&agent.pem, &agent_key.pem()).unwrap();
    let error = world.meet(&world.client(Some(credentials(&false_ca, Role::Admin)))).await.0.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn only_a_coordinator_may_be_a_server() {
    let world = World::new();
    for role in [Role::Agent, Role::Admin] {
        let server = world.client(Some(credentials(&world.ca, role)));
        let (_, client) = handshake(&server, world.client(None).client_config().unwrap()).await;
        assert!(client.unwrap_err().contains("not a coordinator"));
    }
}

#[tokio::test]
async fn an_expired_client_is_let_in_an_expired_server_only_if_pinned() {
    let world = World::new();
    let client = world.client(Some(credentials(&world.ca, Role::Agent)));
    world.clock.set_wall_ms(NOW + 90 * DAY);
    assert!(world.meet(&client).await.1.unwrap_err().contains("expired"));
    client.pins().replace([world.server.credentials().unwrap().certificate().key.clone()]);
    assert_eq!(world.meet(&client).await, (Ok(true), Ok(())));
    client.pins().replace([client.credentials().unwrap().certificate().key.clone()]);
    assert!(world.meet(&client).await.1.is_err());
}

#[tokio::test]
async fn a_pin_does_not_replace_the_ca() {
    let world = World::new();
    let other = Ca::create(&name("shop"), NOW).unwrap();
    let client = World::tls(&other, &world.clock, None);
    client.pins().replace([world.server.credentials().unwrap().certificate().key.clone()]);
    assert!(world.meet(&client).await.1.unwrap_err().contains("BadSignature"));
}

#[tokio::test]
async fn a_joiner_believes_the_pinned_ca_only() {
    let world = World::new();
    let clock = || Arc::clone(&world.clock) as SharedClock;
    let right = join_config(world.ca.digest().clone(), clock()).unwrap();
    assert_eq!(handshake(&world.server, right.clone()).await, (Ok(false), Ok(())));

    let other = Ca::create(&name("shop"), NOW).unwrap();
    let wrong = join_config(other.digest().clone(), clock()).unwrap();
    assert!(handshake(&world.server, wrong).await.1.unwrap_err().contains("another platform"));

    // The right CA certificate, copied into the chain of a leaf that it did not sign.
    let key = NodeKey::generate().unwrap();
    let csr = key.csr(&name("x1")).unwrap();
    let forged = other.issue(&csr, &identity(Role::Coordinator), LEAF_LIFE, NOW).unwrap();
    for chain in [vec![&*forged.pem, world.ca.pem()], vec![&*forged.pem, other.pem(), world.ca.pem()]] {
        let liar = world.client(Some(forge(&key, &chain)));
        assert!(handshake(&liar, right.clone()).await.1.unwrap_err().contains("BadSignature"));
    }

    let agent = world.client(Some(credentials(&world.ca, Role::Agent)));
    assert!(handshake(&agent, right).await.1.unwrap_err().contains("not a coordinator"));
}

#[tokio::test]
async fn the_ca_may_be_changed_with_an_overlap() {
    let world = World::new();
    let next = Ca::create(&name("shop"), NOW).unwrap();
    let client = world.client(Some(credentials(&next, Role::Agent)));
    assert!(world.meet(&client).await.0.is_err());
    world.server.trust().replace(&[world.ca.pem(), next.pem()]).unwrap();
    assert_eq!(world.meet(&client).await.0, Ok(true));
    assert!(world.server.trust().replace(&["garbage"]).is_err());
    assert!(world.server.trust().replace::<&str>(&[]).is_err());
    assert_eq!(world.meet(&client).await.0, Ok(true));
    world.server.trust().replace(&[next.pem()]).unwrap();
    let old = world.client(Some(credentials(&world.ca, Role::Agent)));
    assert!(world.meet(&old).await.0.is_err());
}

#[test]
fn a_certificate_for_another_key_is_not_ours() {
    let ca = Ca::create(&name("shop"), NOW).unwrap();
    let key = NodeKey::generate().unwrap();
    let csr = key.csr(&name("x1")).unwrap();
    let issued = ca.issue(&csr, &identity(Role::Agent), LEAF_LIFE, NOW).unwrap();
    let other = NodeKey::generate().unwrap();
    assert!(matches!(Credentials::new(&other, &issued.pem, ca.pem()), Err(CredentialsError::OtherKey(_))));
}
