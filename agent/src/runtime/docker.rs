//! The Docker Engine, API 1.41 and up. The one file that calls it; it decides nothing.
//!
//! bollard sends no version prefix whatever is negotiated, so fields may be missing: everything is read as optional.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, EndpointIpamConfig, EndpointSettings, EventMessage,
    EventMessageTypeEnum, NetworkConnectRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, EventsOptions, InspectContainerOptions, KillContainerOptions,
    ListContainersOptions, ListImagesOptions, LogsOptions, RemoveContainerOptions, StartContainerOptions,
    StopContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use muster_model::ids::{MemberId, Name, Revision, TaskId};
use muster_model::plan::{ANSWER_LEN_MAX, StopSpec};
use muster_model::time::Timestamp;

use super::docker_networks::DockerNetworks;
use super::{Call, Change, ContainerRuntime, EngineError, Exited, LABEL_PLATFORM, NewContainer};
use crate::network::engine::{EngineError as NetworkError, EngineNetwork, NetworkEngine};
use crate::profile::{LABEL_FIRST, LABEL_HASH, LABEL_IMAGE, LABEL_MEMBER, LABEL_RESTARTS, LABEL_REVISION};
use crate::profile::{LABEL_SLOT, LABEL_TASK};
use crate::runtime::docker_body::{body, engine_network};
use crate::seen::{Seen, SeenState};

/// Oldest API that has all we ask for.
const API_MIN: (usize, usize) = (1, 41);
/// For everything that only reads.
const READ: Duration = Duration::from_secs(5);
/// For everything that changes something.
const CHANGE: Duration = Duration::from_secs(30);
/// Events that may change what we must do; health checks and execs would flood the stream.
const EVENTS: [&str; 7] = ["start", "die", "oom", "destroy", "disconnect", "tag", "load"];

/// A connection to the Docker Engine at one socket.
pub struct DockerEngine {
    socket: String,
    // Made at the first call and kept: without the socket file there is no client to make.
    client: tokio::sync::OnceCell<Docker>,
}

impl DockerEngine {
    /// The engine at `socket` (`unix:///path` or a path); connects when first asked something.
    #[must_use]
    pub fn new(socket: &str) -> Arc<Self> {
        let socket = socket.strip_prefix("unix://").unwrap_or(socket).to_owned();
        Arc::new(Self { socket, client: tokio::sync::OnceCell::new() })
    }

    async fn network_client(&self) -> Result<DockerNetworks, NetworkError> {
        let client = self.client().await.map_err(|error| NetworkError(error.to_string()))?;
        Ok(DockerNetworks::new(client.clone()))
    }

    pub(super) async fn client(&self) -> Result<&Docker, EngineError> {
        let connect = async {
            let seconds = CHANGE.as_secs() * 20;
            let client = Docker::connect_with_unix(&self.socket, seconds, API_DEFAULT_VERSION)
                .map_err(|error| EngineError::NotAnswering(error.to_string()))?;
            let client = within(READ, client.negotiate_version()).await?;
            let version = client.client_version();
            if (version.major_version, version.minor_version) < API_MIN {
                return Err(EngineError::Refused(format!(
                    "Docker Engine speaks API {version}, at least {}.{} is needed: install Docker 20.10 or newer",
                    API_MIN.0, API_MIN.1
                )));
            }
            Ok(client)
        };
        self.client.get_or_try_init(|| connect).await
    }

    async fn seen(&self, id: &str) -> Result<Option<Seen>, EngineError> {
        let inspect = self.client().await?.inspect_container(id, None::<InspectContainerOptions>);
        match within(READ, inspect).await {
            Ok(container) => Ok(read_container(container)),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ids of our containers: members', or those of one-shot tasks.
    async fn ids(&self, platform: &str, tasks: bool) -> Result<Vec<String>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(filter("label", [format!("{LABEL_PLATFORM}={platform}")])),
            ..ListContainersOptions::default()
        };
        let all = within(READ, self.client().await?.list_containers(Some(options))).await?;
        let ours = all.into_iter().filter(|container| {
            container.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_TASK)) == tasks
        });
        Ok(ours.filter_map(|container| container.id).collect())
    }

    /// The image reference as the engine understands it.
    async fn resolve(&self, image: &str) -> Result<String, EngineError> {
        if !image.contains('@') || image.contains("@sha256:") {
            return Ok(image.to_owned());
        }
        let options = ListImagesOptions {
            filters: Some(filter("label", [format!("{LABEL_IMAGE}={image}")])),
            ..ListImagesOptions::default()
        };
        let found = within(READ, self.client().await?.list_images(Some(options))).await?;
        let first = found.into_iter().next();
        first.map(|image| image.id).ok_or_else(|| EngineError::Refused(format!("no image {image}")))
    }

    async fn make(&self, container: &NewContainer) -> Result<String, EngineError> {
        let client = self.client().await?;
        let body = body(container, self.resolve(&container.image).await?);
        let options = CreateContainerOptions {
            name: Some(container.name.clone()),
            ..CreateContainerOptions::default()
        };
        let id = within(CHANGE, client.create_container(Some(options), body)).await?.id;
        // API 1.41 takes one network at creation; the others are joined before the start.
        for (network, address) in container.addresses.iter().skip(1) {
            if let Err(error) = self.join(&id, network, *address).await {
                self.take_away(&id, false).await?;
                return Err(error);
            }
        }
        Ok(id)
    }

    async fn join(&self, id: &str, network: &Name, address: Ipv4Addr) -> Result<(), EngineError> {
        let request =
            NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(endpoint(address)) };
        let client = self.client().await?;
        within(CHANGE, client.connect_network(&engine_network(network), request)).await
    }

    async fn take_away(&self, id: &str, force: bool) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { v: true, force, link: false };
        let removed = within(CHANGE, self.client().await?.remove_container(id, Some(options))).await;
        removed.or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
    }

    async fn run(&self, id: &str, deadline: Duration) -> Result<Exited, EngineError> {
        let client = self.client().await?;
        within(CHANGE, client.start_container(id, None::<StartContainerOptions>)).await?;
        let ended = async {
            // The end of the output is the end of the program.
            let output = first_bytes(self.logs(id, u32::MAX, true)).await?;
            loop {
                if let Some(SeenState::Stopped { code }) = self.seen(id).await?.map(|seen| seen.state) {
                    return Ok(Exited { code, output });
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let late = || EngineError::Refused(format!("did not end within {deadline:?}"));
        tokio::time::timeout(deadline, ended).await.map_err(|_| late())?
    }

    async fn exec_inside(&self, id: &str, argv: &[String]) -> Result<Exited, EngineError> {
        let client = self.client().await?;
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            ..CreateExecOptions::default()
        };
        let exec = within(READ, client.create_exec(id, options)).await?.id;
        let started = within(READ, client.start_exec(&exec, None::<StartExecOptions>)).await?;
        let StartExecResults::Attached { output, input: _input } = started else {
            return Err(EngineError::Refused("exec was detached".to_owned()));
        };
        let output = first_bytes(output.map_ok(LogOutput::into_bytes).map_err(refused).boxed()).await?;
        let code = within(READ, client.inspect_exec(&exec)).await?.exit_code.unwrap_or(-1);
        Ok(Exited { code, output })
    }
}

impl ContainerRuntime for DockerEngine {
    fn version(&self) -> Call<'_, String> {
        Box::pin(async {
            let version = within(READ, self.client().await?.version()).await?;
            let text = |part: Option<String>| part.unwrap_or_else(|| "?".to_owned());
            Ok(format!("{} (API {})", text(version.version), text(version.api_version)))
        })
    }

    fn list<'a>(&'a self, platform: &'a str) -> Call<'a, Vec<Seen>> {
        Box::pin(async move {
            let ids = self.ids(platform, false).await?;
            let found = stream::iter(ids).map(|id| async move { self.seen(&id).await });
            found.buffered(8).try_filter_map(|seen| async move { Ok(seen) }).try_collect().await
        })
    }

    fn images(&self) -> Call<'_, Vec<String>> {
        Box::pin(async {
            let client = self.client().await?;
            let images = within(READ, client.list_images(None::<ListImagesOptions>)).await?;
            let names = images
                .into_iter()
                .flat_map(|image| image.repo_tags.into_iter().chain(image.labels.get(LABEL_IMAGE).cloned()));
            Ok(names.collect())
        })
    }

    fn create<'a>(&'a self, container: &'a NewContainer) -> Call<'a, String> {
        Box::pin(self.make(container))
    }

    fn start<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let client = self.client().await?;
            within(CHANGE, client.start_container(id, None::<StartContainerOptions>)).await
        })
    }

    fn stop<'a>(&'a self, id: &'a str, stop: &'a StopSpec) -> Call<'a, ()> {
        Box::pin(async move {
            let seconds = i32::try_from(stop.timeout_ms.div_ceil(1000)).unwrap_or(i32::MAX);
            // The signal was set when the container was made; as a parameter it needs API 1.42.
            let options = StopContainerOptions { signal: None, t: Some(seconds) };
            let deadline = CHANGE + Duration::from_millis(stop.timeout_ms);
            let stopped = within(deadline, self.client().await?.stop_container(id, Some(options))).await;
            stopped.or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
        })
    }

    fn signal<'a>(&'a self, id: &'a str, signal: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let options = KillContainerOptions { signal: signal.to_owned() };
            within(READ, self.client().await?.kill_container(id, Some(options))).await
        })
    }

    fn first_process<'a>(&'a self, id: &'a str) -> Call<'a, u32> {
        Box::pin(async move {
            let inspect = self.client().await?.inspect_container(id, None::<InspectContainerOptions>);
            let pid = within(READ, inspect).await?.state.and_then(|state| state.pid);
            let running = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
            running.ok_or_else(|| EngineError::Gone("it does not run".to_owned()))
        })
    }

    fn remove<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(self.take_away(id, false))
    }

    fn attach<'a>(&'a self, id: &'a str, network: &'a Name, address: Ipv4Addr) -> Call<'a, ()> {
        Box::pin(self.join(id, network, address))
    }

    fn exec<'a>(&'a self, id: &'a str, argv: &'a [String], deadline: Duration) -> Call<'a, Exited> {
        Box::pin(async move {
            let late = |_| EngineError::Refused(format!("did not end within {deadline:?}"));
            tokio::time::timeout(deadline, self.exec_inside(id, argv)).await.map_err(late)?
        })
    }

    fn run_once<'a>(
        &'a self,
        container: &'a NewContainer,
        task: TaskId,
        deadline: Duration,
    ) -> Call<'a, Exited> {
        Box::pin(async move {
            let mut container = container.clone();
            container.labels.insert(LABEL_TASK.to_owned(), task.to_string());
            // One that an earlier task of this member left would have the same name.
            self.take_away(&container.name, true).await?;
            let id = self.make(&container).await?;
            let ended = self.run(&id, deadline).await;
            self.take_away(&id, true).await?;
            ended
        })
    }

    fn sweep<'a>(&'a self, platform: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            for id in self.ids(platform, true).await? {
                self.take_away(&id, true).await?;
            }
            Ok(())
        })
    }

    fn logs<'a>(&'a self, id: &'a str, tail: u32, follow: bool) -> BoxStream<'a, Result<Bytes, EngineError>> {
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            tail: if tail == u32::MAX { "all".to_owned() } else { tail.to_string() },
            ..LogsOptions::default()
        };
        let opened = async move {
            let client = self.client().await?;
            let lines = client.logs(id, Some(options)).map_ok(LogOutput::into_bytes).map_err(refused);
            Ok::<_, EngineError>(lines)
        };
        stream::once(opened).try_flatten().boxed()
    }

    fn changes(&self) -> BoxStream<'_, Change> {
        let opened = async move {
            let client = self.client().await.ok()?;
            let mut filters = filter("type", ["container", "network", "image"].map(str::to_owned));
            filters.extend(filter("event", EVENTS.map(str::to_owned)));
            let options = EventsOptions { filters: Some(filters), ..EventsOptions::default() };
            Some(client.events(Some(options)))
        };
        stream::once(opened)
            .filter_map(|events| async move { events })
            .flatten()
            .take_while(|event| futures::future::ready(event.is_ok()))
            .filter_map(|event| async move { event.ok().map(|event| kind_of(&event)) })
            .boxed()
    }
}

impl NetworkEngine for Arc<DockerEngine> {
    async fn networks(&self) -> Result<Vec<EngineNetwork>, NetworkError> {
        self.network_client().await?.networks().await
    }

    async fn create_network(&self, wanted: &EngineNetwork) -> Result<(), NetworkError> {
        self.network_client().await?.create_network(wanted).await
    }

    async fn remove_network(&self, id: &str) -> Result<(), NetworkError> {
        self.network_client().await?.remove_network(id).await
    }
}

fn kind_of(event: &EventMessage) -> Change {
    let container = event.typ == Some(EventMessageTypeEnum::CONTAINER);
    if let Some(actor) = event.actor.as_ref().filter(|_| container && event.action.as_deref() == Some("die"))
    {
        let code = actor.attributes.as_ref().and_then(|all| all.get("exitCode")?.parse().ok());
        return Change::Died { container: actor.id.clone().unwrap_or_default(), code: code.unwrap_or(-1) };
    }
    let network = event.typ == Some(EventMessageTypeEnum::NETWORK);
    if network && event.action.as_deref() == Some("destroy") { Change::Network } else { Change::Container }
}

/// Endpoint of a fixed address.
pub(super) fn endpoint(address: Ipv4Addr) -> EndpointSettings {
    let ipam =
        EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..EndpointIpamConfig::default() };
    EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() }
}

pub(super) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(refused),
        Err(_) => Err(EngineError::NotAnswering(format!("no answer within {deadline:?}"))),
    }
}

pub(super) fn refused(error: Error) -> EngineError {
    match error {
        // A missing image or network is a 404 too, and no reason to look again at the container.
        Error::DockerResponseServerError { status_code: 404 | 409, message }
            if [MISSING, LEAVING].iter().any(|words| message.contains(words)) =>
        {
            EngineError::Gone(message)
        }
        Error::DockerResponseServerError { message, .. } => EngineError::Refused(message),
        Error::DockerStreamError { error } => EngineError::Refused(error),
        other => EngineError::NotAnswering(other.to_string()),
    }
}

/// Said of a container that is not there.
const MISSING: &str = "No such container";
/// Said of a container that somebody removes while we ask.
const LEAVING: &str = "marked for removal";

const fn gone(error: &EngineError) -> bool {
    matches!(error, EngineError::Gone(_))
}

/// The first bytes of an output; the rest is read and dropped, so that the program is not held up.
async fn first_bytes(mut output: BoxStream<'_, Result<Bytes, EngineError>>) -> Result<Vec<u8>, EngineError> {
    let mut kept = Vec::new();
    while let Some(part) = output.next().await {
        let part = part?;
        let room = ANSWER_LEN_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&part[..part.len().min(room)]);
    }
    Ok(kept)
}

fn filter<const N: usize>(key: &str, values: [String; N]) -> HashMap<String, Vec<String>> {
    HashMap::from([(key.to_owned(), values.to_vec())])
}

/// Absent = its labels are not ours after all: it is left alone.
fn read_container(container: ContainerInspectResponse) -> Option<Seen> {
    let labels = container.config?.labels?;
    let number = |key: &str| labels.get(key)?.parse::<u64>().ok();
    let state = container.state?;
    let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
    let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    Some(Seen {
        id: container.id?,
        name: container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        member: MemberId(number(LABEL_MEMBER)?),
        slot: labels.get(LABEL_SLOT)?.parse().ok()?,
        revision: Revision(number(LABEL_REVISION).unwrap_or_default()),
        hash: labels.get(LABEL_HASH).cloned().unwrap_or_default(),
        restarts: number(LABEL_RESTARTS).unwrap_or_default(),
        first: labels.contains_key(LABEL_FIRST),
        addresses: addresses(networks),
        state: match status {
            ContainerStateStatusEnum::CREATED => SeenState::Created,
            ContainerStateStatusEnum::REMOVING => SeenState::Removing,
            ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD => {
                SeenState::Stopped { code: state.exit_code.unwrap_or(-1) }
            }
            // Paused, restarting, stopping: its processes are there.
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING
            | ContainerStateStatusEnum::EMPTY => {
                SeenState::Running { since: parse_time(state.started_at.as_deref()) }
            }
        },
    })
}

fn addresses(networks: HashMap<String, EndpointSettings>) -> BTreeMap<Name, Ipv4Addr> {
    let entry = |(name, endpoint): (String, EndpointSettings)| {
        let name = Name::new(name.strip_prefix("muster-")?).ok()?;
        let fixed = endpoint.ipam_config.and_then(|ipam| ipam.ipv4_address).filter(|text| !text.is_empty());
        let address = fixed.or(endpoint.ip_address)?.parse().ok()?;
        Some((name, address))
    };
    networks.into_iter().filter_map(entry).collect()
}

fn parse_time(text: Option<&str>) -> Timestamp {
    let format = &time::format_description::well_known::Rfc3339;
    let parsed = text.and_then(|text| time::OffsetDateTime::parse(text, format).ok());
    let ms = parsed.map(|at| at.unix_timestamp_nanos() / 1_000_000);
    Timestamp(ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default())
}
