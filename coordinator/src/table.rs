//! Who may call what: one row for each RPC, default deny. A test compares it with the proto descriptors.

use muster_runtime::access::{AccessTable, DuplicateRow, Rule};
use muster_runtime::identity::Role;

const COORDINATORS: Rule = Rule::roles(&[Role::Coordinator]).even_expired_if_pinned();
const AGENTS: Rule = Rule::roles(&[Role::Agent]);
const READERS: Rule = Rule::roles(&[Role::Viewer, Role::Operator, Role::Admin]);
const OPERATORS: Rule = Rule::roles(&[Role::Operator, Role::Admin]);
const ADMINS: Rule = Rule::roles(&[Role::Admin]);
const HOLDERS: Rule = Rule::roles(&Role::ALL).even_expired();

/// Every RPC with its rule.
pub const ROWS: &[(&str, Rule)] = &[
    ("/muster.identity.v1.Identity/Hello", Rule::anyone()),
    ("/muster.identity.v1.Identity/Join", Rule::anyone()),
    ("/muster.identity.v1.Identity/Renew", HOLDERS),
    ("/muster.agents.v1.Agents/Session", AGENTS),
    ("/muster.agents.v1.Agents/ImagePart", AGENTS),
    ("/muster.agents.v1.Agents/ImageState", AGENTS),
    ("/muster.control.v1.Control/Status", READERS),
    ("/muster.control.v1.Control/Plan", READERS),
    ("/muster.control.v1.Control/Apply", ADMINS),
    ("/muster.control.v1.Control/Events", READERS),
    ("/muster.control.v1.Control/Logs", OPERATORS),
    ("/muster.control.v1.Control/Exec", OPERATORS),
    ("/muster.control.v1.Control/SetScheduling", OPERATORS),
    ("/muster.control.v1.Control/RemoveHost", ADMINS),
    ("/muster.control.v1.Control/StartOperation", OPERATORS),
    ("/muster.control.v1.Control/SteerOperation", OPERATORS),
    ("/muster.control.v1.Control/Operation", READERS),
    ("/muster.control.v1.Control/Operations", READERS),
    ("/muster.control.v1.Control/RemoveService", ADMINS),
    ("/muster.control.v1.Control/Conn", OPERATORS),
    ("/muster.control.v1.Control/Secrets", READERS),
    ("/muster.control.v1.Control/CreateToken", ADMINS),
    ("/muster.control.v1.Control/IssueOperator", ADMINS),
    ("/muster.control.v1.Control/Operators", ADMINS),
    ("/muster.control.v1.Control/Revoke", ADMINS),
    ("/muster.control.v1.Control/Explain", READERS),
    ("/muster.control.v1.Control/WhatIf", READERS),
    ("/muster.control.v1.Control/Coordinators", READERS),
    ("/muster.control.v1.Control/RemoveCoordinator", ADMINS),
    ("/muster.control.v1.Control/SaveSnapshot", ADMINS),
    ("/muster.control.v1.Control/SettleHost", ADMINS),
    ("/muster.control.v1.Control/BeginImage", ADMINS),
    ("/muster.control.v1.Control/SendImage", ADMINS),
    ("/muster.control.v1.Control/ImagePush", ADMINS),
    ("/muster.control.v1.Control/Images", READERS),
    ("/muster.control.v1.Control/Net", READERS),
    ("/muster.control.v1.Control/Audit", ADMINS),
    ("/muster.raft.v1.Raft/Hello", COORDINATORS),
    ("/muster.raft.v1.Raft/Append", COORDINATORS),
    ("/muster.raft.v1.Raft/Vote", COORDINATORS),
    ("/muster.raft.v1.Raft/Snapshot", COORDINATORS),
    ("/muster.raft.v1.Raft/TransferLeader", COORDINATORS),
    ("/muster.raft.v1.Raft/Propose", COORDINATORS),
    ("/muster.raft.v1.Raft/ReadIndex", COORDINATORS),
];

/// The table.
///
/// # Errors
/// A method has two rows.
pub fn table() -> Result<AccessTable, DuplicateRow> {
    AccessTable::new(ROWS)
}
