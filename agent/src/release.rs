//! Whether a stopped member hands over before it is started again. Pure; decides the order, carries nothing out.
//!
//! Called only once the engine has confirmed the stop: that is the caller's duty, and `diff` keeps it.

use muster_model::plan::ReleaseSpec;

/// What was done about one stop of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Episode {
    /// The guard was asked.
    pub asked: bool,
    /// It was released without the guard, because restarts in place were hopeless.
    pub forced: bool,
    /// The release took effect.
    pub released: bool,
}

/// What comes next for a stopped member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Ask the guard; if it holds, release.
    AskGuard,
    /// Release although the guard does not hold.
    ReleaseAnyway,
    /// Start it again in place.
    Restart,
}

/// Decides after a confirmed stop; `failed_restarts` = restarts in place that failed since the first stop.
#[must_use]
pub const fn decide(spec: Option<&ReleaseSpec>, episode: Episode, failed_restarts: u32) -> Decision {
    let Some(spec) = spec else { return Decision::Restart };
    if !episode.asked {
        return Decision::AskGuard;
    }
    if !episode.released && !episode.forced && failed_restarts >= spec.hopeless_after {
        return Decision::ReleaseAnyway;
    }
    Decision::Restart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::release as spec;

    #[test]
    fn the_guard_is_asked_once_per_stop() {
        let spec = spec();
        assert_eq!(decide(Some(&spec), Episode::default(), 0), Decision::AskGuard);
        let asked = Episode { asked: true, ..Episode::default() };
        assert_eq!(decide(Some(&spec), asked, 0), Decision::Restart);
        assert_eq!(decide(None, Episode::default(), 9), Decision::Restart);
    }

    #[test]
    fn without_the_guard_only_hopeless_restarts_release_and_only_once() {
        let spec = spec();
        let asked = Episode { asked: true, ..Episode::default() };
        assert_eq!(decide(Some(&spec), asked, 2), Decision::Restart);
        assert_eq!(decide(Some(&spec), asked, 3), Decision::ReleaseAnyway);
        assert_eq!(decide(Some(&spec), Episode { forced: true, ..asked }, 9), Decision::Restart);
        assert_eq!(decide(Some(&spec), Episode { released: true, ..asked }, 9), Decision::Restart);
    }
}
