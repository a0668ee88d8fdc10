//! The settings of an `app`: reading, judging, defaults. What a container must not have is refused here with a remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use muster_model::ids::Name;
use muster_model::network::{Audience, Protocol};
use muster_model::plan::{PortSpec, StopSpec};
use muster_model::spec::{PlatformSpec, ServiceSpec, Span};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::kinds::settings::Fields;
use crate::kinds::{Problem, parts};

const REPLICAS_MAX: u64 = 100;
const LIST_MAX: usize = 64;
const ARGUMENTS_MAX: usize = 256;
const ENV_MAX: usize = 256;
const CONTENT_LEN_MAX: usize = 256 * 1024;
const DEFAULT_NETWORK: &str = "proxy";
const DEFAULT_USER: u64 = 10_001;

/// A file of the application.
#[derive(Debug, Clone)]
pub struct AppFile {
    pub path: String,
    pub content: String,
    pub mode: u32,
}

/// A data directory.
#[derive(Debug, Clone)]
pub struct AppVolume {
    pub name: Name,
    pub path: String,
}

/// How its readiness is asked for.
#[derive(Debug, Clone)]
pub enum AppProbe {
    Http { port: u16, path: String },
    Tcp { port: u16 },
    Exec { argv: Vec<String> },
}

/// A service that it connects to, as a user of it.
#[derive(Debug, Clone)]
pub struct Use {
    pub service: Name,
    pub user: Option<String>,
}

/// The settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub image: String,
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub files: Vec<AppFile>,
    pub ports: Vec<PortSpec>,
    pub networks: Vec<Name>,
    pub volumes: Vec<AppVolume>,
    pub replicas: u32,
    pub user: u32,
    pub probe: Option<(AppProbe, u64, u64)>,
    pub uses: Vec<Use>,
    pub stop: StopSpec,
}

impl Settings {
    /// The settings of a spec that was accepted.
    pub fn of(spec: &ServiceSpec) -> Self {
        Self::read(spec, None).0
    }

    /// Reads and judges.
    pub fn read(spec: &ServiceSpec, platform: Option<&PlatformSpec>) -> (Self, Vec<Problem>) {
        let mut fields = Fields::new(&spec.settings);
        let settings = Self::from_fields(&mut fields, platform);
        (settings, fields.finish())
    }

    /// Asks for every setting that there is.
    pub fn from_fields(fields: &mut Fields<'_>, platform: Option<&PlatformSpec>) -> Self {
        let image = read_image(fields);
        let command: Vec<String> = fields.get("command", ARGV_HELP).unwrap_or_default();
        judge_argv(fields, "command", &command);
        let env = read_env(fields);
        let networks = read_networks(fields, platform);
        let mut paths = BTreeSet::new();
        Self {
            image,
            command,
            env,
            files: read_files(fields, &mut paths),
            volumes: read_volumes(fields, &mut paths),
            ports: read_ports(fields),
            replicas: fields.number("replicas", 1, REPLICAS_MAX).unwrap_or(1) as u32,
            user: fields.number("user", 1, 65_535).unwrap_or(DEFAULT_USER) as u32,
            probe: read_probe(fields),
            uses: read_uses(fields, platform, &networks),
            stop: read_stop(fields),
            networks,
        }
    }
}

fn read_image(fields: &mut Fields<'_>) -> String {
    let help = "write name:tag of an image that the hosts have";
    let image: String = fields.required("image", help).unwrap_or_default();
    if fields.has("image") && !parts::image_is_good(&image) {
        fields.problem("image", "not the name of an image", help);
    }
    image
}

const ARGV_HELP: &str = "write a list of program and arguments";

fn program_is_good(program: &str) -> bool {
    (1..=255).contains(&program.len()) && !program.chars().any(char::is_control)
}

/// What no program can be started with.
fn judge_argv(fields: &mut Fields<'_>, key: &str, argv: &[String]) {
    if argv.len() > ARGUMENTS_MAX {
        fields.problem(key, format!("more than {ARGUMENTS_MAX} arguments"), ARGV_HELP);
        return;
    }
    if argv.first().is_some_and(|program| !program_is_good(program)) {
        fields.problem(&format!("{key}.0"), "not a program", "write its name or path, for example /bin/true");
    }
    for (index, word) in argv.iter().enumerate().skip(1) {
        if word.contains('\0') || word.len() > 32 * 1024 {
            let help = "write a text without NUL, at most 32 KiB";
            fields.problem(&format!("{key}.{index}"), "not an argument", help);
        }
    }
}

fn read_env(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let help = "write a mapping of names to texts; quote numbers and true/false";
    let env: BTreeMap<String, String> = fields.get("env", help).unwrap_or_default();
    if env.len() > ENV_MAX {
        fields.problem("env", format!("more than {ENV_MAX} variables"), "write a file instead");
        return BTreeMap::new();
    }
    for (name, value) in &env {
        let short: String = name.chars().take(80).collect();
        let path = format!("env.{short}");
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || name.len() > 128
            || !name.chars().all(word)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            fields.problem(&path, "not the name of a variable", "use A-Z, 0-9 and `_`");
        } else if holds_secret(name) && !value.is_empty() {
            fields.problem(
                &path,
                "the environment shows in `docker inspect`, so no secret may be in it",
                "take the connection string from the files that `uses:` makes, and name the file here (..._FILE)",
            );
        }
        if value.len() > 32 * 1024 || value.contains('\0') || value.contains("${secret:") {
            fields.problem(&path, "not a plain text", "write a text without `${secret:`, at most 32 KiB");
        }
    }
    env
}

/// Whether a variable of this name is there to hold a secret itself (`..._FILE` names a file with it).
fn holds_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "PRIVATE_KEY", "API_KEY", "ACCESS_KEY", "SECRET_KEY"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

fn read_networks(fields: &mut Fields<'_>, platform: Option<&PlatformSpec>) -> Vec<Name> {
    let help = "write a list of networks, for example [proxy, dbnet]";
    let written: Option<Vec<Name>> = fields.get("networks", help);
    let networks = written.unwrap_or_else(|| vec![parts::known_name(DEFAULT_NETWORK)]);
    if networks.is_empty() || networks.len() > 16 {
        fields.problem("networks", "between 1 and 16 networks", help);
    }
    for (index, name) in networks.iter().enumerate() {
        let path = format!("networks.{index}");
        if platform.is_some_and(|platform| platform.network(name).is_none()) {
            fields.problem(
                &path,
                format!("there is no network `{name}`"),
                "write it under `networks:` first",
            );
        }
        if networks[..index].contains(name) {
            fields.problem(&path, format!("`{name}` is there twice"), "remove one of them");
        }
    }
    networks
}

/// What is wrong with a path in the container, if anything.
fn path_problem(path: &str, taken: &mut BTreeSet<String>) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/+@".contains(c);
    let step = |part: &str| part.is_empty() || part == "." || part == "..";
    if !path.starts_with('/') || path.len() > 255 || path.len() < 2 {
        return Some("not an absolute path".to_owned());
    }
    if path[1..].split('/').any(step) {
        return Some("a path without `..`, `.` and empty parts is needed".to_owned());
    }
    if !path.chars().all(plain) {
        return Some("a character that no path may have here".to_owned());
    }
    let below = |dir: &&str| path == *dir || path.starts_with(&format!("{dir}/"));
    if ["/proc", "/sys", "/dev"].iter().any(below) {
        return Some("belongs to the system".to_owned());
    }
    if below(&"/muster") {
        return Some("belongs to the platform".to_owned());
    }
    (!taken.insert(path.to_owned())).then(|| "is there twice".to_owned())
}

const PATH_HELP: &str = "write an absolute path of a-z, 0-9, `.`, `_`, `-`, for example /etc/app/app.conf";

fn read_files(fields: &mut Fields<'_>, taken: &mut BTreeSet<String>) -> Vec<AppFile> {
    fields.list("files", LIST_MAX, "write a list of {path, content, mode}", |file| {
        let path: String = file.required("path", PATH_HELP)?;
        if let Some(wrong) = path_problem(&path, taken) {
            file.problem("path", wrong, PATH_HELP);
        }
        let content: String = file.required("content", "write the file's text").unwrap_or_default();
        if content.len() > CONTENT_LEN_MAX {
            file.problem("content", "longer than 256 KiB", "put it into the image or a volume");
        }
        if content.contains("${secret:") {
            file.problem(
                "content",
                "a file may not take a secret by itself",
                "use `uses:`, which makes its own files",
            );
        }
        let help = "write octal digits in quotes, for example \"0644\"";
        let digits: Option<String> = file.get("mode", help);
        let mode = match digits.as_deref().map(|digits| u32::from_str_radix(digits, 8)) {
            None => 0o444,
            Some(Ok(mode)) if mode <= 0o777 => mode,
            Some(_) => {
                file.problem("mode", "not a file mode", help);
                0o444
            }
        };
        Some(AppFile { path, content, mode })
    })
}

fn read_volumes(fields: &mut Fields<'_>, taken: &mut BTreeSet<String>) -> Vec<AppVolume> {
    let mut names = BTreeSet::new();
    fields.list("volumes", 16, "write a list of {name, path}", |volume| {
        let name: Name = volume.required("name", "write a name, for example data")?;
        let path: String = volume.required("path", PATH_HELP)?;
        if let Some(wrong) = path_problem(&path, taken) {
            volume.problem("path", wrong, PATH_HELP);
        }
        if !names.insert(name.clone()) {
            volume.problem("name", format!("`{name}` is there twice"), "remove one of them");
        }
        Some(AppVolume { name, path })
    })
}

fn read_ports(fields: &mut Fields<'_>) -> Vec<PortSpec> {
    let (mut seen, mut published) = (BTreeSet::new(), BTreeSet::new());
    fields.list("ports", LIST_MAX, "write a list of {port, audience}", |entry| {
        let port = entry.required_number("port", 1, 65_535);
        let protocol: Protocol = entry.get("protocol", "write tcp or udp").unwrap_or_default();
        let audience: Option<Audience> = entry.get("audience", "write network, members or public");
        let help = "write address:port of the host, for example 0.0.0.0:8080";
        let publish: Option<SocketAddr> = entry.get("publish", help);
        let audience = audience.unwrap_or(Audience::Network);
        match (audience, publish) {
            (Audience::Public, None) => entry.problem("publish", "a public port needs an address", help),
            (Audience::Members | Audience::Network, Some(_)) => {
                entry.problem(
                    "publish",
                    "only a public port is published",
                    "write audience: public, or leave publish out",
                );
            }
            (_, Some(address)) if address.port() == 0 => entry.problem("publish", "port 0 is no port", help),
            (_, Some(address)) if !published.insert((address.port(), protocol)) => {
                let message = format!("host port {} is there twice", address.port());
                entry.problem("publish", message, "publish on another port");
            }
            _ => {}
        }
        let port = port? as u16;
        if !seen.insert((port, protocol)) {
            entry.problem("port", format!("{port} is there twice"), "remove one of them");
        }
        Some(PortSpec { port, protocol, audience, publish, only: None })
    })
}

fn read_probe(fields: &mut Fields<'_>) -> Option<(AppProbe, u64, u64)> {
    fields
        .section("probe", "write {http: {port, path}}, {tcp: {port}} or {exec: {argv}}", |probe| {
            let http = probe.section("http", "write {port, path}", |http| {
                let port = http.required_number("port", 1, 65_535)? as u16;
                let path: String =
                    http.get("path", "write a path, for example /healthz").unwrap_or_else(|| "/".to_owned());
                if !path.starts_with('/') || !path.chars().all(|c| c.is_ascii_graphic()) {
                    http.problem("path", "not the path of a request", "write for example /healthz");
                }
                Some(AppProbe::Http { port, path })
            });
            let tcp = probe.section("tcp", "write {port}", |tcp| {
                Some(AppProbe::Tcp { port: tcp.required_number("port", 1, 65_535)? as u16 })
            });
            let exec = probe.section("exec", "write {argv: [PROGRAM, ...]}", |exec| {
                let argv: Vec<String> = exec.required("argv", ARGV_HELP)?;
                if argv.is_empty() {
                    exec.problem("argv", "no program", ARGV_HELP);
                }
                judge_argv(exec, "argv", &argv);
                Some(AppProbe::Exec { argv })
            });
            let every = span(probe, "every", 2_000);
            let timeout = span(probe, "timeout", 1_000);
            let mut given: Vec<AppProbe> = [http, tcp, exec].into_iter().flatten().collect();
            if given.len() > 1 {
                probe.problem("http", "more than one question", "keep one of http, tcp and exec");
            }
            if given.is_empty() && !["http", "tcp", "exec"].iter().any(|key| probe.has(key)) {
                probe.problem("", "asks nothing", "write one of http, tcp and exec");
            }
            Some((given.pop(), every, timeout))
        })
        .and_then(|(probe, every, timeout)| Some((probe?, every, timeout)))
}

/// A span between 100 ms and an hour, in milliseconds.
fn span(fields: &mut Fields<'_>, key: &'static str, default: u64) -> u64 {
    let help = "write a duration, for example 2s";
    let Some(span) = fields.get::<Span>(key, help) else { return default };
    if (100..=3_600_000).contains(&span.0.0) {
        return span.0.0;
    }
    fields.problem(key, format!("{span} is out of range"), "write 100ms to 1h");
    default
}

fn read_uses(fields: &mut Fields<'_>, platform: Option<&PlatformSpec>, networks: &[Name]) -> Vec<Use> {
    let mut seen = BTreeSet::new();
    fields.list("uses", 16, "write a list of {service, user}", |entry| {
        let service: Name = entry.required("service", "write the name of a service of this file")?;
        let user: Option<String> = entry.get("user", "write the name of one of the service's users");
        if let Some(platform) = platform {
            match platform.services.get(&service) {
                None => entry.problem(
                    "service",
                    format!("there is no service `{service}`"),
                    "name one of this file",
                ),
                Some(used) => judge_use(entry, &service, used, user.as_deref(), networks),
            }
        }
        if !seen.insert(service.clone()) {
            entry.problem("service", format!("`{service}` is there twice"), "remove one of them");
        }
        Some(Use { service, user })
    })
}

fn judge_use(
    fields: &mut Fields<'_>,
    name: &Name,
    used: &ServiceSpec,
    user: Option<&str>,
    networks: &[Name],
) {
    let kind = super::super::kind(used.kind.as_str());
    // With no members placed a kind that can be connected to still names its endpoints.
    let endpoints =
        kind.map(|kind| kind.endpoints(name, used, &[], &BTreeMap::new(), None)).unwrap_or_default();
    let Some(kind) = kind.filter(|_| !endpoints.is_empty()) else {
        fields.problem(
            "service",
            format!("`{name}` gives nothing to connect to"),
            "name for example a postgres service",
        );
        return;
    };
    if kind.endpoints(name, used, &[], &BTreeMap::new(), user).is_empty() {
        fields.problem(
            "user",
            format!("`{name}` has no such user"),
            format!("add it to services.{name}.users"),
        );
    }
    let reachable = kind.layout(name, used).networks;
    if !reachable.iter().any(|network| networks.contains(network)) {
        let list: Vec<&str> = reachable.iter().map(Name::as_str).collect();
        fields.problem(
            "service",
            format!("`{name}` is in none of this service's networks"),
            format!("add {} to `networks:`", list.join(" or ")),
        );
    }
}

#[derive(Deserialize, JsonSchema)]
enum Signal {
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGUSR1")]
    Usr1,
    #[serde(rename = "SIGHUP")]
    Hup,
}

fn read_stop(fields: &mut Fields<'_>) -> StopSpec {
    let read = fields.section("stop", "write {signal, timeout}", |stop| {
        let signal = stop.get("signal", "write SIGTERM, SIGINT, SIGQUIT, SIGUSR1 or SIGHUP");
        Some((signal, span(stop, "timeout", 10_000)))
    });
    let (signal, timeout_ms) = read.unwrap_or((None, 10_000));
    let signal = match signal {
        None | Some(Signal::Term) => "SIGTERM",
        Some(Signal::Int) => "SIGINT",
        Some(Signal::Quit) => "SIGQUIT",
        Some(Signal::Usr1) => "SIGUSR1",
        Some(Signal::Hup) => "SIGHUP",
    };
    StopSpec { signal: signal.to_owned(), timeout_ms }
}
