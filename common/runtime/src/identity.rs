//! Who somebody is: exactly one URI in a certificate says it, and it is compared as a whole, never by prefix.

use std::fmt;
use std::str::FromStr;

use muster_model::ids::Name;
use serde::{Deserialize, Serialize};

const SCHEME: &str = "muster://";

/// What somebody may be. What each may do is the access table's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A member of the coordinator cluster.
    Coordinator,
    /// The agent of one host.
    Agent,
    /// A person who may do everything.
    Admin,
    /// A person who may run services, but not change hosts or grants.
    Operator,
    /// A person who may look.
    Viewer,
}

impl Role {
    /// All roles, for tests of every cell.
    pub const ALL: [Self; 5] = [Self::Coordinator, Self::Agent, Self::Admin, Self::Operator, Self::Viewer];

    /// The word in the URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Agent => "agent",
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdentityError::Role(text.chars().take(80).collect()))
    }
}

/// Why a certificate says nothing about who its owner is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No URI of ours.
    #[error("certificate names no identity (muster://platform/role/id)")]
    Missing,
    /// More than one name: it could be read either way, so it is neither.
    #[error("certificate has {0} alternative names instead of exactly one")]
    NotOne(usize),
    /// The URI is not of our form.
    #[error("`{0}` is not of the form muster://platform/role/id")]
    Form(String),
    /// The role does not exist.
    #[error("`{0}` is not a role: coordinator, agent, admin, operator or viewer")]
    Role(String),
    /// A part is not a name.
    #[error(transparent)]
    Name(#[from] muster_model::ids::NameError),
}

/// Somebody who proved who they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The platform whose CA says so.
    pub platform: Name,
    /// What they are.
    pub role: Role,
    /// Who they are: for a host its `HostId`, for a coordinator its node id, for a person their name.
    pub id: Name,
    /// What people call them. For messages only: never decides anything.
    pub name: Name,
}

impl Identity {
    /// The URI that goes into the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.platform, self.role, self.id)
    }

    /// Reads the URI of a certificate; `name` is its common name.
    ///
    /// # Errors
    /// It is not exactly `muster://platform/role/id`.
    pub fn from_uri(uri: &str, name: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(uri.chars().take(200).collect());
        let mut parts = uri.strip_prefix(SCHEME).ok_or_else(form)?.split('/');
        let (Some(platform), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        Ok(Self {
            platform: Name::new(platform)?,
            role: role.parse()?,
            id: Name::new(id)?,
            name: Name::new(name)?,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.id {
            write!(f, "{} {}", self.role, self.id)
        } else {
            write!(f, "{} {} ({})", self.role, self.name, self.id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_round_trip_for_every_role() {
        for role in Role::ALL {
            let identity = Identity {
                platform: Name::new("shop").unwrap(),
                role,
                id: Name::new("0123456789abcdef").unwrap(),
                name: Name::new("h1").unwrap(),
            };
            assert_eq!(Identity::from_uri(&identity.uri(), "h1"), Ok(identity));
        }
    }

    #[test]
    fn nothing_but_the_exact_form_is_read() {
        for uri in [
            "",
            "muster://",
            "muster://shop/agent",
            "muster://shop/agent/",
            "muster://shop/agent/h1/",
            "muster://shop/agent/h1/h2",
            "muster://shop/Agent/h1",
            "muster://shop/agents/h1",
            "muster://shop/agent/../h1",
            "muster://shop/agent/H1",
            "muster://shop/agent/h1?x",
            "muster://shop/agent/h1%00",
            "muster:///agent/h1",
            "Muster://shop/agent/h1",
            "spiffe://shop/agent/h1",
        ] {
            assert!(Identity::from_uri(uri, "h1").is_err(), "{uri}");
        }
    }
}
