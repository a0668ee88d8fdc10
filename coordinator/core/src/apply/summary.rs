//! One line per command for the audit log. Never a secret.

use crate::command::What;
use crate::state::OperationKind;

pub fn of(what: &What) -> String {
    match what {
        What::Init { name, .. } => format!("init platform {name}"),
        What::RegisterHost(host) => format!("register host {} ({}) at {}", host.name, host.id, host.address),
        What::HostLiveness { host, liveness, .. } => format!("host {host} is {liveness:?}"),
        What::HostFacts { host, .. } => format!("facts of host {host}"),
        What::HostInventory { host, found: None } => format!("inventory of host {host} is settled"),
        What::HostInventory { host, .. } => format!("inventory of host {host}"),
        What::RemoveHost { host } => format!("removal of host {host}"),
        What::SetScheduling { host, scheduling, outage } => {
            let outage = if *outage { ", an outage is accepted" } else { "" };
            format!("scheduling of host {host}: {scheduling:?}{outage}")
        }
        What::RestHost { host, .. } => format!("rest of host {host}"),
        What::ApplySpec { yaml, at, .. } => {
            format!("apply a spec of {} bytes, planned at {}", yaml.len(), at.map_or(0, |i| i.0))
        }
        What::Service { service, acts, .. } => format!("{} steps on service {service}", acts.len()),
        What::Observe(observation) => format!("report of host {}", observation.host),
        What::PublishPlan { host, counter, .. } => format!("publish plan {counter} of host {host}"),
        What::StartOperation { service, kind: OperationKind::Replace { slot, confirm_lost }, .. } => {
            let lost = if *confirm_lost { ", whose member is said to be lost for good" } else { "" };
            format!("replace of {service}/{slot}{lost}")
        }
        What::StartOperation { service, kind: OperationKind::Procedure(procedure), .. } => {
            format!("{} of service {service}: {}", procedure.name, procedure.why)
        }
        What::StartOperation { service, kind, .. } => format!("{} of service {service}", kind.name()),
        What::Advance(advance) => format!("advance operation {}", advance.operation),
        What::SteerOperation { operation, verb } => format!("{verb:?} operation {operation}"),
        What::PutSecret { name, .. } => format!("put secret {name}"),
        What::CreateToken { role, .. } => format!("create a join token for a {role:?}"),
        What::UseToken { role, user, .. } => format!("use a join token for a {role:?}, key {user}"),
        What::RecordCertificate { serial, subject, .. } => format!("certificate {serial} for {subject}"),
        What::RevokeCertificate { serial, why } => format!("revoke certificate {serial}: {why}"),
        What::NameCoordinator { node, name } => format!("coordinator {node} is called {name}"),
        What::RemoveCoordinator { node } => format!("remove coordinator {node}"),
        What::RemoveService { service, destroy } => {
            format!(
                "remove service {service}, {}",
                if *destroy { "destroy its data" } else { "keep its data" }
            )
        }
        What::ReleaseBrake => "release the brake".to_owned(),
        What::Audit { action } => action.chars().take(1_000).collect(),
    }
}
