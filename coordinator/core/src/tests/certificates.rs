//! Certificates of services: when one is due, for whom, and what connection strings say of it.

use std::collections::BTreeSet;

use muster_model::time::Timestamp;
use muster_model::view::OperationState;
use serde_json::json;

use super::{World, name, spec};
use crate::certificates::{CertificateNeed, is_certificate, needed_certificates};
use crate::command::What;
use crate::secrets::rotation_of;
use crate::state::CertificateNote;
use crate::view::endpoints;

const TLS: &str = "pg-main/tls";

fn due(world: &World) -> Vec<CertificateNeed> {
    needed_certificates(&world.state, world.now)
}

/// Makes what is due, as the leading coordinator does; to be renewed in an hour.
fn make(world: &mut World) {
    for need in due(world) {
        let renew = Timestamp(world.now.0 + 3_600_000);
        let note = CertificateNote { names: need.names, renew, expires: renew };
        let (name, replaces) = (need.secret, need.replaces);
        world.must(What::PutSecret { name, sealed: "made".to_owned(), replaces, certificate: Some(note) });
    }
    assert_eq!(due(world), []);
}

#[test]
fn it_names_members_and_proxies_and_is_made_anew_when_they_change_or_its_time_comes() {
    let mut world = World::with_postgres();
    let need = due(&world).pop().unwrap();
    let addresses = |of: &[&str]| -> BTreeSet<String> {
        let members = world.state.members.values().filter(|m| of.contains(&m.slot.service.as_str()));
        members.flat_map(|m| &m.addresses).map(|at| at.address.to_string()).collect()
    };
    let mut names = addresses(&["pg-main", "pg-main-proxy"]);
    assert_eq!(names.len(), 5);
    let words = ["pg-main", "pg-main-1", "pg-main-2", "pg-main-3", "pg-main-proxy-1", "pg-main-proxy-2"];
    names.extend(words.map(str::to_owned));
    assert_eq!((need.names, need.secret.as_str(), need.replaces), (names, TLS, 1));
    assert!(is_certificate(&world.state, TLS) && is_certificate(&world.state, "pg-main/tls@next"));
    assert!(!is_certificate(&world.state, "pg-main/probe"));
    make(&mut world);
    let later = Timestamp(world.now.0 + 3_600_000);
    assert_eq!(needed_certificates(&world.state, later)[0].replaces, 2);
    // Another member, another address.
    let (id, _) = world.state.members_of(&name("pg-main-proxy"))[&1];
    world.state.members.get_mut(&id).unwrap().addresses[0].address = [172, 31, 10, 250].into();
    let need = due(&world).pop().unwrap();
    assert!(need.names.contains("172.31.10.250") && need.replaces == 2);
}

#[test]
fn an_operator_can_have_a_new_one_and_nothing_is_restarted_for_it() {
    let mut world = World::with_postgres();
    make(&mut world);
    let restarts = world.restarts.len();
    let kind = rotation_of(&world.state, &name("pg-main"), "tls").unwrap();
    let started = What::StartOperation { service: name("pg-main"), kind, seen: None };
    let id = world.must(started).operation.unwrap().0;
    let need = due(&world).pop().unwrap();
    assert_eq!((need.secret.as_str(), need.replaces), ("pg-main/tls@next", 0));
    make(&mut world);
    assert_eq!(world.await_end(id), OperationState::Done);
    let row = &world.state.secrets[TLS];
    assert_eq!((row.sealed.as_str(), row.version), ("made", 3));
    assert_eq!(row.certificate.as_ref().map(|note| note.names.len()), Some(11));
    assert_eq!(world.restarts.len(), restarts);
}

#[test]
fn connection_strings_say_what_members_have_and_files_of_today_are_not_changed_by_an_upgrade() {
    let mut world = World::with_postgres();
    let url = |world: &World| endpoints(&world.state, &name("pg-main"), None)[0].url.clone();
    assert!(url(&world).ends_with("&sslmode=verify-full&sslrootcert=${ca}"));
    // A member of a coordinator before TLS.
    let members: Vec<_> = world.state.members_of(&name("pg-main")).values().map(|(id, _)| *id).collect();
    for id in members {
        let rendering = world.state.members.get_mut(&id).unwrap().rendering.as_mut().unwrap();
        let mut rendered = (*rendering.rendered).clone();
        rendered.files.retain(|file| !file.path.ends_with("tls.pem"));
        rendering.rendered = rendered.into();
    }
    assert!(!url(&world).contains("ssl"));
    let restarts = world.restarts.len();
    world.run_for(muster_model::time::Millis::seconds(5));
    assert!(!url(&world).contains("ssl"), "rendered anew although nothing it depends on changed");
    // The word in the spec is a change; it is a reload.
    world.apply_spec(&spec(json!({ "pg-main": { "kind": "postgres", "tls": "required" } })));
    world.run_for(muster_model::time::Millis::seconds(5));
    assert!(url(&world).contains("sslmode=verify-full"));
    assert_eq!(world.restarts.len(), restarts);
}
