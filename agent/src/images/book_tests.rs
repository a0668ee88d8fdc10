//! What may go, and above all what may not.

use super::*;
use crate::fixtures;

const GRACE: Millis = Millis::seconds(60);

fn image(id: &str, tags: &[&str]) -> EngineImage {
    let tags = tags.iter().map(ToString::to_string).collect();
    EngineImage { id: id.to_owned(), tags, label: None, bytes: 7 }
}

fn plan(images: &[&str]) -> HostPlan {
    let numbered = images.iter().zip(1..);
    let members = numbered.map(|(image, number)| {
        let mut member = fixtures::member(number);
        member.rendered.image = (*image).to_owned();
        member
    });
    fixtures::plan(1, members.collect())
}

const fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn gone(book: &Book, images: &[EngineImage], now: u64) -> Vec<String> {
    let idle = book.idle(images, &BTreeSet::new(), GRACE, at(now));
    idle.into_iter().flat_map(|idle| idle.names).collect()
}

/// Updated from 1 to 2 to 3, at 0, 10 and 20 s.
fn updated() -> (Book, Vec<EngineImage>) {
    let mut book = Book { format: FORMAT, ..Book::default() };
    for (version, seconds) in [("app:1", 0), ("app:2", 10), ("app:3", 20)] {
        book.see(&plan(&[version]), at(seconds));
    }
    let all = ["app:1", "app:2", "app:3", "other:1"].iter().zip(1..);
    (book, all.map(|(tag, id)| image(&format!("sha256:{id}"), &[*tag])).collect())
}

#[test]
fn only_what_neither_the_running_nor_the_previous_revision_needs_goes_and_not_before_its_time() {
    let (book, images) = updated();
    assert!(gone(&book, &images, 69).is_empty(), "app:1 was needed until 10 s");
    assert_eq!(gone(&book, &images, 70), ["app:1"]);
    assert_eq!(gone(&book, &images, 1_000_000), ["app:1"], "app:2 is for a rollback, other:1 is not ours");
}

#[test]
fn a_rollback_keeps_what_it_came_from() {
    let (mut book, images) = updated();
    book.see(&plan(&["app:2"]), at(30));
    assert_eq!(gone(&book, &images, 1_000), ["app:1"]);
}

#[test]
fn nothing_goes_that_a_container_is_made_of_or_that_has_a_name_of_somebody_else() {
    let (book, mut images) = updated();
    let used: BTreeSet<String> = ["sha256:1".to_owned()].into();
    assert!(book.idle(&images, &used, GRACE, at(1_000)).is_empty());
    images[0].tags.push("mine:latest".to_owned());
    assert!(gone(&book, &images, 1_000).is_empty());
}

#[test]
fn one_slot_of_two_is_enough_to_keep_an_image() {
    let mut book = Book::default();
    book.see(&plan(&["app:1", "app:1"]), at(0));
    book.see(&plan(&["app:2", "app:1"]), at(10));
    book.see(&plan(&["app:3", "app:1"]), at(20));
    assert!(gone(&book, &[image("a", &["app:1"])], 1_000).is_empty());
    book.see(&plan(&["app:3"]), at(30));
    assert_eq!(gone(&book, &[image("a", &["app:1"])], 1_000), ["app:1"]);
}

#[test]
fn a_pushed_image_waits_for_its_use_and_one_with_our_label_alone_goes_by_its_id() {
    let mut book = Book::default();
    book.pushed(&["app:9".to_owned()], at(100));
    assert!(gone(&book, &[image("a", &["app:9"])], 159).is_empty());
    assert_eq!(gone(&book, &[image("a", &["app:9"])], 160), ["app:9"]);
    book.pushed(&["muster/x@abc".to_owned()], at(0));
    let labelled = EngineImage { label: Some("muster/x@abc".to_owned()), ..image("sha256:5", &[]) };
    assert_eq!(gone(&book, &[labelled], 160), ["sha256:5"]);
    assert!(gone(&book, &[image("sha256:6", &[])], 160).is_empty(), "without a name it is nobody's we know");
    let inherited =
        EngineImage { label: Some("muster/base@def".to_owned()), ..image("sha256:7", &["app:9"]) };
    assert_eq!(gone(&book, &[inherited], 160), ["app:9"]);
}

#[test]
fn it_is_kept_over_a_restart_and_a_damaged_one_owns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut book, images) = updated();
    book.store(dir.path()).unwrap();
    assert_eq!(Book::load(dir.path()), book);
    let before = book.clone();
    book.see(&plan(&["app:3"]), at(40));
    assert!(!book.changed_since(&before), "only the time moved on");
    book.forget_gone(&images[1..]);
    assert!(book.changed_since(&before) && gone(&book, &images, 1_000).is_empty());
    std::fs::write(dir.path().join("images.json"), "{").unwrap();
    assert!(gone(&Book::load(dir.path()), &images, 1_000).is_empty());
}
