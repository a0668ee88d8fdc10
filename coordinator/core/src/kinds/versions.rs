//! Which step from one version of an engine to another an update may take. A version is known from the tag of an image
//! before anything is done, and from the engine's own words once a member runs it.

use super::{Problem, ServiceFacts};

/// The fact of a member that is its engine's version, in the engine's own words.
pub const VERSION: &str = "version";

/// What an update may change of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The engine, for people.
    pub engine: &'static str,
    /// Leading numbers that stay: another one is another major version.
    pub fixed: usize,
    /// An older version is fine, too.
    pub back: bool,
    /// What to do instead.
    pub instead: &'static str,
}

/// The numbers at the beginning of a version: `15.20 (Debian ...)` is 15, 20. Empty = none is written there.
fn numbers(text: &str) -> Vec<u32> {
    let bare = text.strip_prefix('v').unwrap_or(text);
    let end = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
    bare[..end].split('.').map_while(|number| number.parse().ok()).collect()
}

/// The tag of an image; empty = none.
fn tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map_or("", |(_, tag)| tag)
}

/// Whether an image says by its tag that it has this version or a newer one.
pub fn is_at_least(image: &str, least: &[u32]) -> bool {
    numbers(tag(image)).as_slice() >= least
}

impl Line {
    /// Why this step may not be taken; nothing if it may, or if one of the two is not known.
    pub fn refusal(&self, from: &str, to: &str) -> Option<String> {
        let (old, new) = (numbers(from), numbers(to));
        if old.is_empty() || new.is_empty() {
            return None;
        }
        let both = old.iter().zip(&new);
        if both.clone().take(self.fixed).any(|(old, new)| old != new) {
            return Some(format!("{to} is another major version of {} than {from}", self.engine));
        }
        let older = both.clone().find(|(old, new)| old != new).is_some_and(|(old, new)| new < old);
        (older && !self.back)
            .then(|| format!("{to} is older than {from}, whose files it may not be able to read"))
    }

    /// The same for the tags of two images, as a problem of the setting.
    pub fn judge(&self, setting: &str, from: &str, to: &str) -> Result<(), Problem> {
        match self.refusal(tag(from), tag(to)) {
            Some(why) => Err(Problem::new(setting, why, self.instead)),
            None => Ok(()),
        }
    }

    /// Why an update may not go on: a member that runs already what is new runs a version that the others may not become.
    pub fn crossed(&self, service: &ServiceFacts<'_>) -> Option<String> {
        let version = |member: &super::MemberFacts| {
            let seen = member.seen.as_ref()?;
            Some((format!("{}/{}", service.name, member.slot), seen.facts.get(VERSION)?.clone()))
        };
        let (new, old): (Vec<_>, Vec<_>) = service.members.iter().partition(|member| member.current);
        let new: Vec<_> = new.into_iter().filter_map(version).collect();
        old.into_iter().filter_map(version).find_map(|(_, from)| {
            let at = new.iter().find_map(|(slot, to)| Some((slot, self.refusal(&from, to)?)));
            at.map(|(slot, why)| {
                format!("{slot} runs a version that is refused: {why}; no other member becomes it")
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::golden::{facts, member};

    const LINE: Line = Line { engine: "Thing", fixed: 1, back: false, instead: "copy" };

    #[test]
    fn a_minor_step_is_taken_and_a_major_one_is_not() {
        for (from, to) in
            [("15", "15"), ("15.3", "15.4"), ("15", "15.4"), ("7.0-next", "7.2.1"), ("latest", "16")]
        {
            assert_eq!(LINE.refusal(from, to), None, "{from} to {to}");
        }
        assert!(LINE.refusal("15.3", "16.1").unwrap().contains("another major version of Thing than 15.3"));
        assert!(LINE.refusal("v16", "15").unwrap().contains("major"));
        assert!(LINE.refusal("7.2.4", "7.0.15").unwrap().contains("older"));
        assert_eq!(Line { back: true, ..LINE }.refusal("7.2.4", "7.0.15"), None);
        let series = Line { fixed: 2, ..LINE };
        assert!(series.refusal("10.11", "10.12").is_some() && series.refusal("10.11.1", "10.11.2").is_none());
    }

    #[test]
    fn an_image_is_judged_by_its_tag() {
        assert_eq!(tag("registry:5000/a/pg:15.2@sha256:00"), "15.2");
        assert_eq!(tag("registry:5000/a/pg"), "");
        let found = LINE.judge("image", "a/pg:15", "other:5000/pg:16").unwrap_err();
        assert_eq!((found.path.as_str(), found.help.as_str()), ("image", "copy"));
        assert!(LINE.judge("image", "a/pg:15", "a/pg:stable").is_ok());
    }

    #[test]
    fn a_tag_that_says_nothing_is_no_version() {
        let fits = |image: &str| is_at_least(image, &[7, 2]);
        assert!(fits("a/b:7.2") && fits("a/b:7.2.4-x") && fits("a/b:8") && fits("a/b:10.0"));
        assert!(!fits("a/b:7.0.15") && !fits("a/b:7") && !fits("a/b:stable") && !fits("a/b"));
    }

    #[test]
    fn what_a_tag_hides_shows_at_the_first_member() {
        let (service, spec) =
            (crate::tests::name("svc"), serde_json::from_str(r#"{"kind":"redis"}"#).unwrap());
        let mut members = vec![member(1, "", true), member(2, "", true), member(3, "", true)];
        for (at, version) in ["8.0.1", "7.0.15", "7.0.15"].into_iter().enumerate() {
            members[at].current = at == 0;
            members[at].seen.as_mut().unwrap().facts.insert(VERSION.to_owned(), version.to_owned());
        }
        let why = LINE.crossed(&facts(&service, &spec, members.clone())).unwrap();
        assert!(why.starts_with("svc/1 runs") && why.contains("8.0.1"), "{why}");
        members[0].seen.as_mut().unwrap().facts.insert(VERSION.to_owned(), "7.2.1".to_owned());
        assert_eq!(LINE.crossed(&facts(&service, &spec, members)), None);
    }
}
