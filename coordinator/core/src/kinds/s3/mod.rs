//! S3 storage: servers that spread objects over the drives of several hosts. The trait's answers, each given by a file
//! of its own. Decides nothing itself.

mod decide;
mod declare;
mod erasure;
mod heal;
#[cfg(test)]
mod heal_tests;
mod metrics;
mod observe;
mod render;
mod settings;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod trial;

use std::collections::BTreeMap;

use muster_model::ids::{MemberId, Name};
use muster_model::observed::{MemberStatus, TaskOutcome};
use muster_model::plan::{Rendered, hash_of};
use muster_model::spec::{PlatformSpec, ServiceSpec};
use muster_model::view::Health;
use serde_json::Value;

use self::settings::{Mode, Settings};
use super::describe::describe;
use super::haproxy::front::{self, Check, Front, Listener, Mode as ProxyMode, Port, Server, Vital, hold};
use super::metrics::Source;
use super::rotate::Rotation;
use super::tls::{self, Tls};
use super::{
    Child, Endpoint, Kind, Layout, Observed, Peer, Problem, Procedure, ProcedureStep, RenderContext,
    SecretNeed, ServiceFacts, Survivability, UpdateStep, Wait, WriterEngine, parts,
};
use crate::command::TaskDraft;

/// Clients and members; also the proxies'.
const PORT: u16 = 9000;
/// The proxies', over TLS.
const TLS_PORT: u16 = 9443;
/// The web console.
const CONSOLE_PORT: u16 = 9001;
/// Where a member says whether it may be given requests.
const GATE_PORT: u16 = 9002;
/// The proxies' listener.
const LISTENER: &str = "s3";
/// A host name has at most 63 characters, the slot's number among them.
const SERVICE_NAME_MAX: usize = 40;
/// Says what of the health of a server is worth asking; never `/ready`, which is 200 also while it serves nothing.
const CHECK: [&str; 7] = [
    "option httpchk",
    "http-check connect",
    "http-check send meth GET uri /minio/health/cluster/read ver HTTP/1.1 hdr Host minio",
    "http-check expect status 200",
    "http-check connect port 9002",
    "http-check send meth GET uri /ready ver HTTP/1.1 hdr Host minio",
    "http-check expect status 200",
];

/// The proxies in front; absent = a single member has none.
fn proxies(children: &BTreeMap<Name, Vec<Peer>>) -> Option<&[Peer]> {
    children.get(&parts::known_name("proxy")).map(Vec::as_slice)
}

/// The kind `s3`.
pub struct S3;

impl Kind for S3 {
    fn name(&self) -> &'static str {
        "s3"
    }

    fn validate(&self, name: &Name, spec: &ServiceSpec, platform: &PlatformSpec) -> Vec<Problem> {
        let mut problems = Settings::read(spec, Some(platform)).1;
        problems.extend(parts::judge_resources(spec, 512 * parts::MIB));
        problems.extend((name.as_str().len() > SERVICE_NAME_MAX).then(|| Problem {
            path: String::new(),
            message: format!("the name of an s3 service has at most {SERVICE_NAME_MAX} characters"),
            help: "take a shorter name".to_owned(),
        }));
        problems
    }

    fn children(&self, _name: &Name, spec: &ServiceSpec) -> Vec<Child> {
        let settings = Settings::of(spec);
        let proxies = (settings.mode == Mode::Distributed)
            .then(|| front::child(spec, &settings.network, settings.proxies, &settings.proxy_image));
        proxies.into_iter().chain(metrics::child(spec, &settings)).collect()
    }

    fn schema(&self) -> Option<Value> {
        Some(describe(|fields| drop(Settings::from_fields(fields, None))))
    }

    fn layout(&self, _name: &Name, spec: &ServiceSpec) -> Layout {
        let settings = Settings::of(spec);
        Layout {
            slots: settings.erasure.hosts,
            numbers: Vec::new(),
            apart: Vec::new(),
            networks: vec![settings.network],
            limits: parts::limits(spec, &render::LIMITS),
            one_per_host: true,
            never_with: Vec::new(),
            host_ports: Vec::new(),
            has_data: true,
            // A silent member that was replaced reaches no quorum: the others know its slot by another address, and
            // let its old one in no more. A single one is the only copy.
            exclusive: settings.mode == Mode::Single,
        }
    }

    fn secrets(&self, name: &Name, spec: &ServiceSpec) -> Vec<SecretNeed> {
        let users = Settings::of(spec).users;
        let users = users.iter().map(|user| format!("user-{}", user.name));
        let all = std::iter::once("root".to_owned()).chain(users);
        all.map(|what| SecretNeed { name: render::secret(name, &what) }).collect()
    }

    fn metrics(&self, _name: &Name, spec: &ServiceSpec, member: &Peer) -> Option<Source> {
        Some(metrics::source(&Settings::of(spec), member))
    }

    fn tls(&self, spec: &ServiceSpec) -> Tls {
        Settings::of(spec).tls
    }

    fn shown_by<'a>(&self, peers: &'a [Peer], children: &'a BTreeMap<Name, Vec<Peer>>) -> &'a [Peer] {
        proxies(children).unwrap_or(peers)
    }

    fn render(&self, context: &RenderContext<'_>) -> Rendered {
        render::render(context)
    }

    /// What the servers compare with each other at their start.
    fn variant(&self, rendered: &Rendered) -> String {
        let compared: BTreeMap<_, _> =
            rendered.env.iter().filter(|(name, _)| name.starts_with("MINIO_")).collect();
        hash_of(&(&rendered.image, &rendered.command, compared))
    }

    fn interpret(&self, _spec: &ServiceSpec, status: &MemberStatus) -> Observed {
        observe::interpret(status)
    }

    fn may_start(&self, service: &ServiceFacts<'_>, _slot: u32) -> Result<(), Wait> {
        decide::may_start(service)
    }

    fn is_formed(&self, service: &ServiceFacts<'_>) -> bool {
        decide::is_formed(service)
    }

    fn health(&self, service: &ServiceFacts<'_>) -> Health {
        decide::health(service, &Settings::of(service.spec))
    }

    fn next_update(&self, service: &ServiceFacts<'_>) -> UpdateStep {
        decide::next_update(service, &Settings::of(service.spec))
    }

    fn settled(&self, service: &ServiceFacts<'_>, member: MemberId) -> bool {
        decide::settled(service, member)
    }

    fn may_stop(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_stop(service, &Settings::of(service.spec), member)
    }

    fn may_replace(&self, service: &ServiceFacts<'_>, member: MemberId) -> Result<(), Wait> {
        decide::may_replace(service, member)
    }

    fn may_become(&self, name: &Name, old: &ServiceSpec, new: &ServiceSpec) -> Result<(), Problem> {
        let (old, new) = (Settings::of(old), Settings::of(new));
        let changed = [
            ("mode", old.mode != new.mode),
            ("hosts", old.erasure.hosts != new.erasure.hosts),
            ("drives", old.erasure.drives != new.erasure.drives),
        ];
        let Some((path, _)) = changed.into_iter().find(|(_, changed)| *changed) else { return Ok(()) };
        let message = format!(
            "service `{name}` was formatted for {} hosts with {} drives each, and its servers can neither grow nor shrink \
             by single members",
            old.erasure.hosts, old.erasure.drives
        );
        let help = "make a second s3 service and copy, or write `mode`, `hosts` and `drives` as they were";
        Err(Problem::new(path, message, help))
    }

    fn rotation(&self, _spec: &ServiceSpec, what: &str) -> Result<Rotation, Wait> {
        Ok(declare::rotation(what))
    }

    fn introduce(&self, service: &ServiceFacts<'_>, secrets: &[String]) -> Vec<(String, TaskDraft)> {
        declare::introduce(service, &Settings::of(service.spec), secrets)
    }

    fn due(&self, service: &ServiceFacts<'_>) -> Option<Procedure> {
        let settings = Settings::of(service.spec);
        let trial = trial::due(service, &settings);
        trial.or_else(|| declare::due(service, &settings)).or_else(|| heal::due(service, &settings))
    }

    fn proceed(
        &self,
        service: &ServiceFacts<'_>,
        procedure: &Procedure,
        answers: &[(String, TaskOutcome)],
    ) -> ProcedureStep {
        let settings = Settings::of(service.spec);
        match procedure.name.as_str() {
            trial::NAME => trial::proceed(service, &settings, answers),
            heal::NAME => heal::proceed(service, answers),
            _ => declare::proceed(service, &settings, answers),
        }
    }

    fn switchover(
        &self,
        _service: &ServiceFacts<'_>,
        _to: Option<u32>,
    ) -> Result<muster_model::plan::Task, Wait> {
        Err(Wait("every member of an s3 service takes writes: there is no leading role to switch".to_owned()))
    }

    fn front(&self, name: &Name, spec: &ServiceSpec, members: &[Peer]) -> Front {
        let Settings { network, erasure, tls, metrics, .. } = Settings::of(spec);
        let server = |peer: &Peer| Server {
            name: format!("{name}-{}-{}", peer.slot, peer.member),
            address: parts::address(peer, &network),
            port: PORT,
            check_port: None,
            options: "",
        };
        let holders = |quorum: u32| quorum.div_ceil(erasure.drives.max(1));
        let mut options = vec![
            "balance leastconn".to_owned(),
            "timeout http-request 10s".to_owned(),
            // What fits the buffer is given to another server; larger bodies are for the client to send again.
            "retry-on conn-failure empty-response 503".to_owned(),
            "acl reads method GET HEAD".to_owned(),
            // Fewer than these cannot serve it: it would hang or fail at whichever it went to.
            hold(LISTENER, holders(erasure.read_quorum()), "reads"),
            hold(LISTENER, holders(erasure.write_quorum()), "!reads"),
        ];
        // They are for the exporters' readers.
        options.extend(metrics.map(|_| metrics::REFUSED.to_owned()));
        let (plain, secured) = (Port::Plain(PORT), Port::Secured(TLS_PORT));
        let ports = match tls {
            Tls::None => vec![plain],
            Tls::Optional => vec![plain, secured],
            Tls::Required => vec![secured],
        };
        if tls != Tls::None {
            // The servers name it in what they answer of themselves.
            options.push("http-request set-header X-Forwarded-Proto https if { ssl_fc }".to_owned());
        }
        let listener = Listener {
            name: LISTENER,
            ports,
            mode: ProxyMode::Http,
            note: "Serves a read by itself, and its entrypoint says that a canary went through it and that it is not stopping.",
            options,
            check: Check::Lines(CHECK.map(str::to_owned).to_vec()),
            servers: members.iter().map(server).collect(),
        };
        let vital = Vital { listener: LISTENER, stands: "servers", fails: "no server" };
        Front { listeners: vec![listener], vital: Some(vital), holds: true }
    }

    fn writer(&self, _spec: &ServiceSpec) -> Option<WriterEngine> {
        Some(WriterEngine::S3)
    }

    fn survivability(&self, service: &ServiceFacts<'_>) -> Survivability {
        decide::survivability(service, &Settings::of(service.spec))
    }

    fn remarks(&self, name: &Name, spec: &ServiceSpec) -> Vec<String> {
        let settings = Settings::of(spec);
        let erasure = settings.erasure;
        let mut remarks = Vec::new();
        if settings.mode == Mode::Distributed {
            remarks.push(format!(
                "{name}: {} hosts x {} drives, parity {}: {} % of them usable; reads need {} drives, writes {}; a lost host \
                 keeps reads and writes",
                erasure.hosts,
                erasure.drives,
                erasure.parity,
                erasure.usable_percent(),
                erasure.read_quorum(),
                erasure.write_quorum()
            ));
            if erasure.total() - 2 * erasure.drives < erasure.write_quorum() {
                remarks.push(format!(
                    "{name}: a new image stops writes for some seconds: a changed server serves only together with a second \
                     one, so the first two are changed back to back"
                ));
            }
        } else {
            remarks.push(format!("{name}: one drive on one host, no redundancy"));
        }
        if erasure.drives > 1 {
            remarks.push(format!(
                "{name}: the {} drives of a host are directories of one disk unless something is mounted there; the loss \
                 of that disk is the loss of the host",
                erasure.drives
            ));
        }
        if settings.image == settings::IMAGE {
            remarks.push(format!(
                "{name}: the upstream of {} is archived, nobody mends it any more; the image is a setting",
                settings.image
            ));
        }
        remarks
    }

    fn endpoints(
        &self,
        name: &Name,
        spec: &ServiceSpec,
        peers: &[Peer],
        children: &BTreeMap<Name, Vec<Peer>>,
        user: Option<&str>,
    ) -> Vec<Endpoint> {
        let settings = Settings::of(spec);
        let known = settings.users.iter().find(|known| user.is_none_or(|user| user == known.name));
        let Some(user) = known else { return Vec::new() };
        let servers = proxies(children).unwrap_or(peers);
        let (scheme, port, options) = match tls::offered(settings.tls, servers) {
            true => ("https", TLS_PORT, format!("?ca_bundle={}", tls::CA)),
            false => ("http", PORT, String::new()),
        };
        let servers: Vec<String> = servers
            .iter()
            .map(|peer| format!("{}:{port}", parts::address(peer, &settings.network)))
            .collect();
        let secret = render::secret(name, &format!("user-{}", user.name));
        let url = format!(
            "{scheme}://{}:${{secret:{secret}}}@{}/{}{options}",
            user.name,
            servers.join(","),
            user.bucket.as_deref().unwrap_or_default()
        );
        ["write", "read"].map(|role| Endpoint { role: role.to_owned(), url: url.clone() }).to_vec()
    }
}
