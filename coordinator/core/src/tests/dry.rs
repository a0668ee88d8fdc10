//! What an apply is told beforehand.

use super::*;
use crate::dry_run;

fn json(text: &str) -> Arc<PlatformSpec> {
    spec(serde_json::from_str(text).unwrap())
}

#[test]
fn a_first_apply_says_where_members_go_and_what_survives() {
    let world = World::new(3);
    let view = dry_run::plan(&world.state, &spec(postgres()), world.now, &[]);
    assert_eq!(view.refusals, Vec::<String>::new());
    assert_eq!(view.placement.len(), 8, "{:?}", view.placement);
    assert_eq!(view.changes[0].mark, "+");
    assert!(
        view.survivability.iter().any(|line| line == "pg-main survives the loss of any one host"),
        "{view:?}"
    );
}

#[test]
fn a_changed_image_re_creates_members_and_another_field_does_not() {
    let world = World::with_postgres();
    let image = json(r#"{"pg-main":{"kind":"postgres","image":"muster/postgres:16"}}"#);
    let view = dry_run::plan(&world.state, &image, world.now, &[]);
    assert_eq!(
        (view.changes[0].mark.as_str(), view.changes[0].what.as_str()),
        ("+/-", "service pg-main: image")
    );
    let quiet = json(r#"{"pg-main":{"kind":"postgres","replace_after":"1h"}}"#);
    assert_eq!(dry_run::plan(&world.state, &quiet, world.now, &[]).changes[0].mark, "~");
}

#[test]
fn what_must_be_decided_first_is_refused_with_the_command() {
    let world = World::with_postgres();
    let refused = |text: &str| {
        let view = dry_run::plan(&world.state, &json(text), world.now, &[]);
        view.refusals.join("\n")
    };
    let missing = refused("{}");
    assert!(missing.contains("muster service remove pg-main --keep-data"), "{missing}");
    let kind = refused(r#"{"pg-main":{"kind":"app","image":"demo/web:1"}}"#);
    assert!(kind.contains("cannot become `app`"), "{kind}");
    let child = refused(r#"{"pg-main":{"kind":"postgres"},"pg-main-etcd":{"kind":"app","image":"x"}}"#);
    assert!(child.contains("pg-main-etcd"), "{child}");
}

#[test]
fn an_impossible_placement_and_an_unsatisfiable_demand_are_refused() {
    let world = World::new(2);
    let view = dry_run::plan(&world.state, &spec(postgres()), world.now, &[]);
    assert!(view.refusals.iter().any(|line| line.contains("2 of 3 members can be placed")), "{view:?}");
    let one = World::new(1);
    let demand = json(r#"{"pg-main":{"kind":"postgres","mode":"single","survive":"host"}}"#);
    let view = dry_run::plan(&one.state, &demand, one.now, &[]);
    assert!(view.refusals.iter().any(|line| line.contains("must survive it")), "{view:?}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = World::with_postgres();
    let before = world.state.clone();
    let _ = dry_run::plan(&world.state, &spec(postgres()), world.now, &[]);
    assert_eq!(before, world.state);
}
