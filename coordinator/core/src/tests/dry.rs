//! What an apply is told beforehand.

use muster_model::view::PlanView;
use muster_spec::Places;

use super::*;
use crate::dry_run;

/// A plan of a spec that was made without a file.
fn plan(world: &World, spec: &Arc<PlatformSpec>) -> PlanView {
    dry_run::plan(&world.state, spec, &Places::default(), world.now, &[])
}

fn json(text: &str) -> Arc<PlatformSpec> {
    spec(serde_json::from_str(text).unwrap())
}

#[test]
fn a_first_apply_says_where_members_go_and_what_survives() {
    let world = World::new(3);
    let view = plan(&world, &spec(postgres()));
    assert_eq!(view.refusals, Vec::new());
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
    let image = json(r#"{"pg-main":{"kind":"postgres","image":"muster/postgres:15.9"}}"#);
    let view = plan(&world, &image);
    assert_eq!(
        (view.changes[0].mark.as_str(), view.changes[0].what.as_str()),
        ("+/-", "service pg-main: image")
    );
    let quiet = json(r#"{"pg-main":{"kind":"postgres","replace_after":"1h"}}"#);
    assert_eq!(plan(&world, &quiet).changes[0].mark, "~");
    let major = json(r#"{"pg-main":{"kind":"postgres","image":"muster/postgres:16"}}"#);
    let refused = plan(&world, &major).refusals;
    assert!(refused.len() == 1 && refused[0].message.contains("another major version"), "{refused:?}");
}

#[test]
fn what_a_command_changed_and_the_file_takes_back_is_said_in_words_of_the_file() {
    let mut world = World::with_postgres();
    let file = "muster: 1\nplatform: demo\nservices:\n  pg-main: { kind: postgres, members: 3 }\n";
    let written = json(r#"{"pg-main":{"kind":"postgres","members":3}}"#);
    world.must(What::ApplySpec { spec: Arc::clone(&written), yaml: file.into(), at: None });
    world.join(4);
    let four = r#"{"pg-main":{"kind":"postgres","members":4,"parameters":{"work_mem":"8MB"}}}"#;
    world.must(What::ApplySpec { spec: json(four), yaml: "".into(), at: None });
    let view = plan(&world, &written);
    let said = |text: &str| view.warnings.iter().any(|line| line.contains(text));
    assert!(
        said("`members` was changed to 4 by a command") && said("this file says 3"),
        "{:?}",
        view.warnings
    );
    let same = plan(&world, &json(four));
    assert_eq!(same.warnings, Vec::<String>::new());
    let other = four.replace("8MB", "16MB");
    let view = plan(&world, &json(&other));
    let line =
        view.changes.iter().find(|change| change.what == "service pg-main: parameters.work_mem").unwrap();
    assert_eq!((line.from.as_deref(), line.to.as_deref()), (Some("8MB"), Some("16MB")));
}

#[test]
fn members_on_hosts_that_are_no_longer_allowed_are_named() {
    let world = World::with_postgres();
    let only = json(r#"{"pg-main":{"kind":"postgres","place":{"hosts":["vps-1","vps-2"]}}}"#);
    let view = plan(&world, &only);
    let named = view.warnings.iter().filter(|line| line.contains("vps-3, which is not among `place.hosts`"));
    assert!(named.count() >= 2, "{:?}", view.warnings);
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = World::with_postgres();
    let before = world.state.clone();
    let _ = plan(&world, &spec(postgres()));
    assert_eq!(before, world.state);
}
