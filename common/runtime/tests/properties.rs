//! What strangers and operators hand in: join tokens, certificates and their identities, saved snapshots, configuration.
//! Any input is an error or a value; a value is the same when it is printed and read again.

use muster_model::ids::Name;
use muster_property::{Target, bytes, text};
use muster_runtime::ca::Ca;
use muster_runtime::certificate::PeerCertificate;
use muster_runtime::identity::{Identity, Role};
use muster_runtime::keys::Sha256Hex;
use muster_runtime::seal::SealKey;
use muster_runtime::secret::Secret;
use muster_runtime::snapshot_file::{self, Head};
use muster_runtime::token::{JoinToken, TokenKind};
use proptest::array::uniform32;
use proptest::prelude::{Strategy, any, prop_oneof};

fn target(name: &'static str) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"))
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|text| Name::new(text).expect("a name"))
}

fn shop() -> Name {
    Name::new("shop").expect("a name")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Only one spelling is a token; nothing of a refused one is told.
fn read_token(text: &str) {
    match text.parse::<JoinToken>() {
        Ok(token) => assert_eq!(token.reveal().expose(), text.trim()),
        Err(error) => assert!(text.len() < 20 || !error.to_string().contains(text), "{error}"),
    }
}

#[test]
fn join_tokens_have_one_spelling() {
    let good = (any::<bool>(), uniform32(any::<u8>()), uniform32(any::<u8>()));
    target("join-token-printed").holds(good, |(host, ca, secret)| {
        let kind = if host { TokenKind::Host } else { TokenKind::Coordinator };
        let token = JoinToken::with_secret(kind, Sha256Hex::of(&ca), Secret::new(secret));
        let text = token.reveal().expose().clone();
        let read: JoinToken = text.parse().expect("what was printed can be read");
        assert_eq!((read.kind(), read.ca(), read.hash()), (token.kind(), token.ca(), token.hash()));
        read_token(&text);
    });
    let target = target("join-token");
    let words = ["mt1", ".", "c", "h", "0", "f", " ", "\n", "A", "\u{e9}"];
    let texts = prop_oneof![text::damaged(target.seeds(), &words), text::noise(&words, 160)];
    target.holds(texts, |text| read_token(&text));
    target.replay(|input| read_token(&lossy(input)));
}

#[test]
fn an_identity_is_exactly_one_form() {
    let role = proptest::sample::select(Role::ALL.to_vec());
    target("identity-printed").holds((name(), role, name(), name()), |(platform, role, id, name)| {
        let identity = Identity { platform, role, id, name };
        assert_eq!(Identity::from_uri(&identity.uri(), identity.name.as_str()), Ok(identity));
    });
    let seeds = vec![b"muster://shop/agent/0123456789abcdef".to_vec(), b"muster://shop/admin/ada".to_vec()];
    let words = ["muster://", "/", "..", "%2f", "admin", "viewer", "?", "#", "@", "shop", "\u{0}"];
    target("identity").holds((text::damaged(seeds, &words), ".{0,8}"), |(uri, name)| {
        if let Ok(identity) = Identity::from_uri(&uri, &name) {
            assert_eq!((identity.uri(), identity.name.to_string()), (uri, name));
        }
    });
}

/// As TLS hands it over, and as an operator's file holds it.
fn read_certificate(der: &[u8]) {
    if let Ok(read) = PeerCertificate::from_der(der) {
        assert!(!read.serial.is_empty());
        let identity = &read.identity;
        assert_eq!(Identity::from_uri(&identity.uri(), identity.name.as_str()).as_ref(), Ok(identity));
        assert!(read.renew_at_ms() >= read.not_before);
    }
}

#[test]
fn certificates_of_strangers_are_an_error_or_name_somebody() {
    let target = target("certificate");
    target.holds(bytes::any_of(target.seeds()), |der| read_certificate(&der));
    target.replay(read_certificate);
}

#[test]
fn signing_requests_of_strangers_are_refused_or_signed_for_the_identity_that_was_told() {
    let (target, ca) =
        (target("signing-request").heavy(2), Ca::create(&shop(), 1_790_000_000_000).expect("a CA"));
    let identity = Identity {
        platform: shop(),
        role: Role::Agent,
        id: Name::new("0123456789abcdef").expect("a name"),
        name: Name::new("h1").expect("a name"),
    };
    let read = |pem: &str| {
        let key = muster_runtime::ca::request_key(pem);
        let day = std::time::Duration::from_secs(86_400);
        if let Ok(issued) = ca.issue(pem, &identity, day, 1_790_000_000_000) {
            assert_eq!(issued.certificate.identity, identity);
            assert_eq!(Some(issued.certificate.key), key.ok());
        }
    };
    let words = [
        "-----BEGIN CERTIFICATE REQUEST-----\n",
        "-----END CERTIFICATE REQUEST-----\n",
        "MII",
        "A",
        "\n",
        "=",
    ];
    target.holds(text::damaged(target.seeds(), &words), |pem| {
        read(&pem);
        drop(PeerCertificate::from_pem(&pem));
    });
    target.replay(|pem| read(&lossy(pem)));
}

fn head() -> Head {
    Head {
        muster_snapshot: 1,
        platform_id: "0123456789abcdef".to_owned(),
        platform: shop(),
        incarnation: 1,
        index: 811,
        term: 3,
        at_ms: 5,
        program: "test".to_owned(),
        length: 0,
        sha256: String::new(),
    }
}

#[test]
fn saved_snapshots_survive_the_way_out_and_back_and_damaged_ones_are_refused() {
    let whole = snapshot_file::encode(head(), b"{\"format\":1}");
    let read = |file: &[u8]| match snapshot_file::decode(file) {
        Ok((head, body)) => {
            let written = snapshot_file::encode(head.clone(), body);
            assert_eq!(snapshot_file::decode(&written), Ok((head, body)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    };
    target("saved-snapshot").holds(bytes::any_of(vec![whole.clone()]), |file| {
        read(&file);
        // Blanks in the first line change nothing that is read.
        let found = snapshot_file::decode(&file).ok();
        assert!(
            found.is_none_or(|found| Ok(found) == snapshot_file::decode(&whole)),
            "a changed file was taken"
        );
    });
    target("saved-snapshot").replay(read);
    let any = (any::<[u64; 4]>(), "\\PC{0,20}", bytes::noise(200));
    target("saved-snapshot-printed").holds(any, |([index, term, at_ms, incarnation], program, body)| {
        let file = snapshot_file::encode(Head { index, term, at_ms, incarnation, program, ..head() }, &body);
        let (read, found) = snapshot_file::decode(&file).expect("what was written can be read");
        assert_eq!((read.index, read.term, read.at_ms, found), (index, term, at_ms, &body[..]));
    });
}

#[test]
fn only_what_was_sealed_opens() {
    let key = SealKey::from_secret(Secret::new([7; 32]));
    let sealed = key.seal(b"hunter2", b"h1").expect("randomness");
    target("sealed").holds(bytes::any_of(vec![sealed.clone()]), |other| {
        assert!(other == sealed || key.open(&other, b"h1").is_err(), "something else was opened");
    });
    target("sealed-printed").holds((bytes::noise(300), bytes::noise(40)), |(plain, place)| {
        let sealed = key.seal(&plain, &place).expect("randomness");
        assert_eq!(key.open(&sealed, &place).expect("ours").expose(), &plain);
    });
}

#[test]
fn configuration_is_refused_with_a_reason_or_read() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("muster.toml");
    let seeds =
        vec![b"listen = \"0.0.0.0:7400\"\npeers = [\"a:1\", \"b:2\"]\nkeep = 7\nquiet = true\n".to_vec()];
    let words =
        ["=", "[", "]", "[[x]]\n", "\"", "'''", "#", "\\u", "inf", "1979-05-27", "{a=1}", ".", "\n", "keep"];
    target("configuration").heavy(2).holds(text::damaged(seeds, &words), |text| {
        std::fs::write(&path, text).expect("a file");
        let read =
            muster_runtime::config::Config::load(&path, "MUSTER_TEST_PROPERTY").and_then(|mut config| {
                let (listen, peers) = (config.or("listen", String::new()), config.list::<String>("peers"));
                let (keep, quiet) = (config.or("keep", 0_u32), config.or("quiet", false));
                config.finish(|| Some((listen?, peers?, keep?, quiet?)))
            });
        if let Err(error) = read {
            assert!(!error.to_string().is_empty());
        }
    });
}
