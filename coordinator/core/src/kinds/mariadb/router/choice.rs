//! Which program stands in front of a `mariadb` service, as the spec says. Renders nothing.

use schemars::JsonSchema;
use serde::Deserialize;

/// The program that clients connect to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Router {
    /// Passes bytes on to the member that the members themselves say takes writes.
    #[default]
    Haproxy,
    /// Speaks the protocol; chooses the writer itself.
    Proxysql,
    /// The same, under a licence of its own.
    Maxscale,
}

impl Router {
    /// The kind of the child, and what operators write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Proxysql => "proxysql",
            Self::Maxscale => "maxscale",
        }
    }

    /// What an operator must know before it is used.
    pub fn remark(self) -> Option<String> {
        let own = "it chooses the member that takes writes itself (`service switchover` is refused), clients get no TLS, and \
                   nobody has run it with this platform yet";
        match self {
            Self::Haproxy => None,
            Self::Proxysql => Some(format!("router `proxysql` (GPL 3, your own image): {own}")),
            Self::Maxscale => Some(format!(
                "router `maxscale` (your own image): its licence is the Business Source License 1.1 of MariaDB; by the text \
                 for 24.08, production use is free only with fewer than three server instances, so three members need a paid \
                 one; read the licence of your image; {own}"
            )),
        }
    }
}
