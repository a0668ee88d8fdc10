//! What stands in front of a service, as the service's own kind says it: listeners, their servers and checks. Plain data.

use std::net::Ipv4Addr;

use muster_model::ids::Name;
use muster_model::spec::ServiceSpec;
use serde_json::json;

use crate::kinds::{Child, ChildOrder, parts};

/// Everything that the proxies of one service serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Front {
    /// The addresses that clients use.
    pub listeners: Vec<Listener>,
    /// What the proxy answers for its owner's write path.
    pub vital: Option<Vital>,
    /// Listeners may hold requests, by [`hold`].
    pub holds: bool,
}

impl Front {
    /// Some listener needs the owner's certificate.
    pub fn ends_tls(&self) -> bool {
        self.listeners
            .iter()
            .flat_map(|listener| &listener.ports)
            .any(|port| matches!(port, Port::Secured(_)))
    }
}

/// The proxies of a service, as its child: where it may be placed they may be too.
pub fn child(owner: &ServiceSpec, network: &Name, replicas: u32, image: &str) -> Child {
    let own = json!({ "network": network, "replicas": replicas, "image": image });
    let spec = ServiceSpec {
        kind: parts::known_name("haproxy"),
        place: owner.place.clone(),
        survive: None,
        resources: Default::default(),
        update: owner.update.clone(),
        replace_after: None,
        renamed_from: None,
        settings: own.as_object().cloned().unwrap_or_default(),
    };
    Child { role: parts::known_name("proxy"), spec, order: ChildOrder::AfterOwner }
}

/// The line by which a listener holds requests that fulfil `condition` while it has fewer than `need` servers; they go on as
/// soon as it has, or after a few seconds as they are.
pub fn hold(listener: &str, need: u32, condition: &str) -> String {
    format!("http-request lua.hold {listener} {need} if {condition} {{ nbsrv({listener}) lt {need} }}")
}

/// The write path as seen from a proxy: it stands while `listener` has a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vital {
    /// Name of the listener.
    pub listener: &'static str,
    /// Answer while it has a server.
    pub stands: &'static str,
    /// Answer while it has none; shown to operators as `sees ...`.
    pub fails: &'static str,
}

/// One address that clients use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, unique in the front.
    pub name: &'static str,
    /// Its ports; none of them twice in a front.
    pub ports: Vec<Port>,
    /// What it understands of the traffic.
    pub mode: Mode,
    /// Why it is as it is, for whoever reads the file; one line.
    pub note: &'static str,
    /// Lines of the proxy's own language, before the check.
    pub options: Vec<String>,
    /// How a server is asked whether it serves here.
    pub check: Check,
    /// The servers, in order.
    pub servers: Vec<Server>,
}

/// A port of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Traffic as it is, whatever it is.
    Plain(u16),
    /// TLS ends here, with the owner's certificate.
    Secured(u16),
}

impl Port {
    /// Its number.
    pub const fn number(self) -> u16 {
        match self {
            Self::Plain(number) | Self::Secured(number) => number,
        }
    }
}

/// What a listener understands of its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes.
    Tcp,
    /// HTTP requests.
    Http,
}

/// The question that decides whether a server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// An HTTP request, answered with 200.
    Http {
        /// `GET`, `OPTIONS`, ...
        method: &'static str,
        /// Path and query.
        uri: &'static str,
    },
    /// Lines of the proxy's own language, for example `option tcp-check` and its steps.
    Lines(Vec<String>),
    /// Not at all: what another listener, with servers of the same names, finds out holds here too.
    As(&'static str),
}

/// One server of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name: contains the member's number, so that a replacement is never taken for what it replaces.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Where clients' traffic goes.
    pub port: u16,
    /// Where the check asks; absent = the same port.
    pub check_port: Option<u16>,
    /// More words at the end of its line, for example `backup`.
    pub options: &'static str,
}
