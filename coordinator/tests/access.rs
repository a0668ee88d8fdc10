//! Every cell of role x RPC, from the proto descriptors: what the table says is what a caller gets.

#![allow(clippy::unwrap_used, reason = "helpers of a test program")]

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_coordinator::table::table;
use muster_model::ids::Name;
use muster_runtime::access::{Access, Denied, Revocations};
use muster_runtime::access_complete::{assert_complete, methods};
use muster_runtime::audit::LogAudit;
use muster_runtime::certificate::{PeerCertificate, Usage};
use muster_runtime::clock::ManualClock;
use muster_runtime::identity::{Identity, Role};
use muster_runtime::keys::Sha256Hex;
use muster_runtime::tls::PinnedKeys;

const NOW_MS: u64 = 1_790_000_000_000;

#[derive(Debug)]
struct Revoked(&'static str);

impl Revocations for Revoked {
    fn is_revoked(&self, certificate: &PeerCertificate) -> bool {
        certificate.serial == self.0
    }
}

fn access(pinned: &[Sha256Hex]) -> Access {
    Access {
        table: table().unwrap(),
        revocations: Arc::new(Revoked("bad")),
        pins: Arc::new(PinnedKeys::new(pinned.iter().cloned())),
        clock: Arc::new(ManualClock::new(NOW_MS)),
        audit: Arc::new(LogAudit),
    }
}

fn certificate(role: Role, serial: &str, expired: bool) -> PeerCertificate {
    let name = Name::new("one").unwrap();
    let end = NOW_MS / 1000;
    PeerCertificate {
        identity: Identity { platform: name.clone(), role, id: name.clone(), name },
        serial: serial.to_owned(),
        key: Sha256Hex::of(b"key"),
        not_before: end - 7_200,
        not_after: if expired { end - 60 } else { end + 60 },
        usage: Usage { server: role == Role::Coordinator, client: true },
    }
}

/// Written again here, by service and verb, so that a slip in the table is seen.
fn expected(method: &str) -> Vec<Role> {
    use Role::{Admin, Agent, Coordinator, Operator, Viewer};
    let (service, verb) = method.trim_start_matches('/').split_once('/').unwrap();
    match (service, verb) {
        ("muster.identity.v1.Identity", _) => Role::ALL.to_vec(),
        ("muster.agents.v1.Agents", _) => vec![Agent],
        ("muster.raft.v1.Raft", _) => vec![Coordinator],
        (
            "muster.control.v1.Control",
            "Status" | "Plan" | "Events" | "Operation" | "Operations" | "Explain" | "WhatIf" | "Secrets"
            | "Coordinators" | "Images" | "Net",
        ) => vec![Viewer, Operator, Admin],
        (
            "muster.control.v1.Control",
            "Logs" | "Exec" | "SetScheduling" | "StartOperation" | "SteerOperation" | "Conn",
        ) => vec![Operator, Admin],
        (
            "muster.control.v1.Control",
            "Apply" | "RemoveService" | "RemoveHost" | "CreateToken" | "IssueOperator" | "Operators"
            | "Revoke" | "RemoveCoordinator" | "SaveSnapshot" | "SettleHost" | "Audit" | "BeginImage"
            | "SendImage" | "ImagePush",
        ) => {
            vec![Admin]
        }
        other => panic!("{other:?}: write down who may call it"),
    }
}

#[test]
fn the_table_has_a_row_for_every_rpc_and_none_besides() {
    assert_complete(&table().unwrap(), muster_proto::DESCRIPTORS).unwrap();
}

#[test]
fn every_cell_of_role_and_rpc_is_as_written() {
    let access = access(&[]);
    let mut cells = BTreeMap::new();
    for method in methods(muster_proto::DESCRIPTORS).unwrap() {
        for role in Role::ALL {
            let got = access.decide(&method, Some(&certificate(role, "good", false)));
            let welcome = expected(&method).contains(&role);
            assert_eq!(got.is_ok(), welcome, "{role} calling {method}: {got:?}");
            cells.insert((method.clone(), role), welcome);
        }
    }
    assert!(cells.len() >= 26 * 5, "only {} cells", cells.len());
}

#[test]
fn without_certificate_only_hello_and_join_are_open() {
    let access = access(&[]);
    for method in methods(muster_proto::DESCRIPTORS).unwrap() {
        let open = method.ends_with("Identity/Hello") || method.ends_with("Identity/Join");
        assert_eq!(access.decide(&method, None).is_ok(), open, "{method}");
    }
}

#[test]
fn an_expired_certificate_may_only_be_renewed_and_a_pinned_one_may_vote() {
    let (plain, pinned) = (access(&[]), access(&[Sha256Hex::of(b"key")]));
    for method in methods(muster_proto::DESCRIPTORS).unwrap() {
        for role in Role::ALL {
            let old = certificate(role, "good", true);
            let renew = method.ends_with("Identity/Renew");
            let anonymous = method.ends_with("Identity/Hello") || method.ends_with("Identity/Join");
            assert_eq!(plain.decide(&method, Some(&old)).is_ok(), renew || anonymous, "{role} {method}");
            let votes = role == Role::Coordinator && method.starts_with("/muster.raft.v1.");
            assert_eq!(
                pinned.decide(&method, Some(&old)).is_ok(),
                renew || anonymous || votes,
                "{role} {method}"
            );
        }
    }
}

#[test]
fn a_revoked_certificate_may_nothing() {
    let access = access(&[]);
    for method in methods(muster_proto::DESCRIPTORS).unwrap() {
        for role in Role::ALL {
            let got = access.decide(&method, Some(&certificate(role, "bad", false)));
            assert!(matches!(got, Err(Denied::Revoked(_))), "{role} {method}: {got:?}");
        }
    }
}
