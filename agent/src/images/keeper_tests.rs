//! What counts as having an image.

use super::*;

fn offer(names: &[&str]) -> ImageOffer {
    ImageOffer {
        sha256: "a0".repeat(32),
        size: 5,
        names: names.iter().map(ToString::to_string).collect(),
        ids: vec!["sha256:1".to_owned(), "sha256:2".to_owned()],
        ready: false,
    }
}

fn image(id: &str, tags: &[&str]) -> EngineImage {
    let tags = tags.iter().map(ToString::to_string).collect();
    EngineImage { id: id.to_owned(), tags, ..EngineImage::default() }
}

#[test]
fn a_host_has_an_image_only_if_each_name_stands_for_what_is_pushed() {
    let here = [image("sha256:1", &["app:1", "app:latest"]), image("sha256:9", &["app:2"])];
    assert!(has(&here, &offer(&["app:1"])));
    assert!(has(&here, &offer(&["app:1", "app:latest"])));
    assert!(!has(&here, &offer(&["app:2"])), "the same name, another image");
    assert!(!has(&here, &offer(&["app:1", "app:3"])));
}

#[test]
fn an_engine_that_does_not_answer_ends_no_push() {
    assert!(matches!(failed(EngineError::NotAnswering("x".to_owned())), FetchError::Interrupted(_)));
    assert!(matches!(failed(EngineError::Refused("x".to_owned())), FetchError::Failed(_)));
}

#[test]
fn a_removal_is_said_with_its_size() {
    let idle = Idle { names: vec!["app:1".to_owned(), "app:2".to_owned()], bytes: 5 << 20 };
    let said = removal(&[idle]);
    assert_eq!((said.code.as_str(), said.text.contains("app:1, app:2")), ("images-removed", true));
    assert!(said.text.ends_with("5 MiB"), "{}", said.text);
}
