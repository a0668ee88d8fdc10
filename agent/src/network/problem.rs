//! What is wrong with a host's network, what it stops, and what to do about it.

use muster_model::ids::Name;
use muster_model::observed::Condition;

/// One thing that is not as the plan wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable short name, for example `net-overlap`.
    pub code: &'static str,
    /// One sentence with the remedy.
    pub text: String,
    /// What must not start while it lasts.
    pub stops: Stops,
}

/// What must not start while a problem lasts. What runs already goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stops {
    /// Nothing: it is only said.
    Nothing,
    /// Members that join this network.
    Network(Name),
    /// Every member: protection is missing.
    Everything,
}

impl Problem {
    /// Something that is only said.
    pub(super) fn note(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), stops: Stops::Nothing }
    }

    /// Something that keeps the members of a network from starting.
    pub(super) fn network(code: &'static str, network: &Name, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), stops: Stops::Network(network.clone()) }
    }

    /// Something that keeps every member from starting.
    pub(super) fn everything(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), stops: Stops::Everything }
    }

    /// Whether a member that joins these networks must not be started.
    #[must_use]
    pub fn stops_member<'a>(&self, mut networks: impl Iterator<Item = &'a Name>) -> bool {
        match &self.stops {
            Stops::Nothing => false,
            Stops::Network(stopped) => networks.any(|network| network == stopped),
            Stops::Everything => networks.next().is_some(),
        }
    }

    /// As it goes to the coordinator.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition { code: self.code.to_owned(), text: self.text.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_stops_only_whom_it_concerns() {
        let (dbnet, proxy) = (Name::new("dbnet").unwrap(), Name::new("proxy").unwrap());
        let one = Problem::network("net-overlap", &dbnet, "x");
        assert!(one.stops_member([&proxy, &dbnet].into_iter()));
        assert!(!one.stops_member([&proxy].into_iter()));
        let all = Problem::everything("net-filter", "x");
        assert!(all.stops_member([&proxy].into_iter()));
        assert!(!all.stops_member(std::iter::empty()), "a member without a network needs no protection");
        assert!(!Problem::note("mesh-device", "x").stops_member([&proxy].into_iter()));
    }
}
