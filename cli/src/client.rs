//! Talks to the coordinators: any that answers, the leader where it must be, until the answer is there or time is up.
//! Knows no command.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_model::ids::OperationId;
use muster_model::view::OperationView;
use muster_model::view::PlatformView;
use muster_proto::control::control_client::ControlClient;
use muster_proto::control::{Caller, OperationRequest, StatusRequest, View};
use muster_proto::identity::identity_client::IdentityClient;
use muster_proto::identity::{HelloRequest, RenewRequest};
use muster_proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use muster_runtime::clock::{SharedClock, SystemClock};
use muster_runtime::context::Context;
use muster_runtime::dial::{self, Endpoints};
use muster_runtime::keys::NodeKey;
use muster_runtime::rpc;
use muster_runtime::secret::Secret;
use muster_runtime::state_dir::write_atomic;
use muster_runtime::tls::{Credentials, Tls};
use serde::de::DeserializeOwned;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::exit::{Exit, Failure};

/// How long a call is tried again while no coordinator can answer it.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The same for something that is being watched, for example across a change of leader with a lost host.
pub const WATCHING: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);
const HINT: &str = "muster-leader";

/// A connection to a platform, made when needed and made again when broken.
pub struct Client {
    path: PathBuf,
    clock: SharedClock,
    tls: Tls,
    endpoints: Arc<Endpoints>,
    context: Mutex<Context>,
    channel: Mutex<Option<Channel>>,
    id: String,
    serial: AtomicU64,
}

impl Client {
    /// As the operator of a context file. Connects to nobody yet.
    ///
    /// # Errors
    /// The context cannot be used.
    pub fn open(path: &Path) -> Result<Self> {
        let context = Context::load(path).with_context(|| format!("context {}", path.display()))?;
        let clock = SystemClock::shared();
        let tls = context.tls(Arc::clone(&clock)).with_context(|| format!("context {}", path.display()))?;
        let random = Secret::random().context("no randomness")?;
        Ok(Self {
            path: path.to_owned(),
            clock,
            tls,
            endpoints: Endpoints::new(context.endpoints.iter().cloned()),
            context: Mutex::new(context),
            channel: Mutex::new(None),
            id: hex::encode(&random.expose()[..16]),
            serial: AtomicU64::new(0),
        })
    }

    /// Names one change: however often a call with it is repeated, it has one effect.
    #[must_use]
    pub fn caller(&self) -> Option<Caller> {
        Some(Caller { client: self.id.clone(), serial: self.serial.fetch_add(1, Ordering::Relaxed) + 1 })
    }

    /// A file with the CA's certificate, beside the context: written where it is missing or another one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn ca_file(&self) -> Result<PathBuf> {
        let path = std::path::absolute(self.path.with_extension("ca.pem"))?;
        let pem = self.context().ca_pem;
        if std::fs::read(&path).ok().as_deref() != Some(pem.as_bytes()) {
            let failed = || "`--ca FILE` names a file that you keep yourself, from `muster ca`";
            write_atomic(&path, pem.as_bytes(), 0o644).with_context(failed)?;
        }
        Ok(path)
    }

    /// The context with everything that is in it now.
    #[must_use]
    pub fn context(&self) -> Context {
        lock(&self.context).clone()
    }

    /// Milliseconds since 1970, by this machine's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Makes one call. While no coordinator can answer it is made again, by other ways, for `patience`.
    ///
    /// # Errors
    /// The last answer.
    pub async fn call<T>(
        &self,
        patience: Duration,
        call: impl AsyncFn(ControlClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let give_up = Instant::now() + patience;
        loop {
            let status = match self.attempt(&call).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if !is_passing(&status) || Instant::now() >= give_up {
                return Err(status);
            }
            self.turn(&status).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt<T>(
        &self,
        call: &impl AsyncFn(ControlClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let channel = self.connected().await?;
        let client = ControlClient::new(channel)
            .max_decoding_message_size(rpc::MESSAGE_MAX)
            .max_encoding_message_size(rpc::MESSAGE_MAX);
        rpc::within(rpc::CALL, call(client)).await.map(tonic::Response::into_inner)
    }

    /// A channel on which both sides have said hello.
    async fn connected(&self) -> Result<Channel, Status> {
        if let Some(channel) = lock(&self.channel).clone() {
            return Ok(channel);
        }
        let channel = self.dial()?;
        let hello = HelloRequest {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: Vec::new(),
            program: concat!("muster ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let said = rpc::within(rpc::CALL, IdentityClient::new(channel.clone()).hello(hello)).await;
        said.map_err(|status| match status.code() {
            // Not a safety gate: the versions do not fit.
            Code::FailedPrecondition => Status::failed_hello(&status),
            _ => status,
        })?;
        *lock(&self.channel) = Some(channel.clone());
        self.renew_if_due(&channel).await;
        Ok(lock(&self.channel).clone().unwrap_or(channel))
    }

    fn dial(&self) -> Result<Channel, Status> {
        let config = self.tls.client_config().map_err(|error| Status::internal(error.to_string()))?;
        Ok(dial::channel(Arc::clone(&self.endpoints), config))
    }

    /// Takes another way next time: to the leader if we were told where it is.
    async fn turn(&self, status: &Status) {
        let hint = status.metadata().get(HINT).and_then(|hint| hint.to_str().ok());
        if let Some(leader) = hint {
            let channel = lock(&self.channel).clone();
            let known = self.endpoints.list().iter().any(|known| known == leader);
            if let Some(channel) = channel.filter(|_| !known) {
                self.renew(&channel).await.ok();
            }
            self.endpoints.prefer(leader);
        } else if dial::unreachable(status).is_none() {
            // It answers, or did: perhaps it is cut off from the others.
            let mut list = self.endpoints.list().to_vec();
            if !list.is_empty() {
                list.rotate_left(1);
            }
            self.endpoints.replace(list);
        }
        *lock(&self.channel) = None;
    }

    async fn renew_if_due(&self, channel: &Channel) {
        let due = self.tls.credentials().is_some_and(|own| own.certificate().renew_at_ms() <= self.now_ms());
        if due {
            // If it fails, the certificate we have still serves until it expires; then the calls say so.
            self.renew(channel).await.ok();
        }
    }

    /// A new certificate for the same key, and all coordinators with their keys; both go into the context file.
    async fn renew(&self, channel: &Channel) -> Result<()> {
        let own = self.tls.credentials().context("no certificate")?;
        let mut context = lock(&self.context).clone();
        let key = NodeKey::from_pem(context.key_pem.expose())?;
        let request = RenewRequest { csr_pem: key.csr(&own.certificate().identity.name)? };
        let mut client = IdentityClient::new(channel.clone());
        let reply = rpc::within(rpc::CALL, client.renew(request)).await?.into_inner();
        let credentials = Credentials::new(&key, &reply.certificate_pem, &reply.ca_pem)?;
        context.certificate_pem = reply.certificate_pem;
        context.ca_pem = reply.ca_pem;
        if !reply.coordinators.is_empty() {
            context.pins = reply.coordinators.iter().filter_map(|one| one.key_digest.parse().ok()).collect();
            context.endpoints = reply.coordinators.into_iter().map(|one| one.address).collect();
        }
        context.store(&self.path)?;
        self.tls.trust().replace(&[&context.ca_pem])?;
        self.tls.pins().replace(context.pins.iter().cloned());
        self.tls.rotate(credentials);
        self.endpoints.replace(context.endpoints.iter().cloned());
        *lock(&self.context) = context;
        // The old connection still shows the old certificate.
        *lock(&self.channel) = None;
        *lock(&self.channel) = Some(self.dial()?);
        Ok(())
    }

    /// The whole platform.
    ///
    /// # Errors
    /// No coordinator answered, or with something unreadable.
    pub async fn status(&self, patience: Duration) -> Result<PlatformView> {
        let view = self
            .call(patience, async |mut client| client.status(StatusRequest { service: String::new() }).await)
            .await?;
        let view: PlatformView = decode(&view)?;
        self.learn(&view).await;
        Ok(view)
    }

    /// A context made on the first coordinator knows only that one: learns the others, so that its loss is no loss.
    async fn learn(&self, view: &PlatformView) {
        let unknown = {
            let context = lock(&self.context);
            view.coordinators.iter().any(|one| one.voter && !context.endpoints.contains(&one.endpoint))
        };
        let channel = lock(&self.channel).clone();
        if let Some(channel) = channel.filter(|_| unknown) {
            // Only convenience: the next call with a view tries again.
            self.renew(&channel).await.ok();
        }
    }

    /// One operation, also an ended one.
    ///
    /// # Errors
    /// There is none of this number, or no coordinator answered.
    pub async fn operation(&self, id: OperationId, patience: Duration) -> Result<OperationView> {
        let request = OperationRequest { operation: id.0 };
        let view = self.call(patience, async |mut client| client.operation(request).await).await?;
        decode(&view)
    }
}

trait FailedHello {
    fn failed_hello(answer: &Self) -> Self;
}

impl FailedHello for Status {
    fn failed_hello(answer: &Self) -> Self {
        Self::unimplemented(format!(
            "this `muster` and the coordinator do not understand each other: {}",
            answer.message()
        ))
    }
}

/// Whether the same call may succeed a moment later, or elsewhere.
#[must_use]
pub fn is_passing(status: &Status) -> bool {
    // A status with a source was made here, by the transport: the connection broke.
    let broke = std::error::Error::source(status).is_some() && status.code() != Code::DeadlineExceeded;
    status.code() == Code::Unavailable || broke
}

/// Reads a view.
///
/// # Errors
/// It is of another shape: the coordinator is of another version.
pub fn decode<T: DeserializeOwned>(view: &View) -> Result<T> {
    decode_json(&view.json)
}

/// Reads the JSON of a view.
///
/// # Errors
/// As [`decode`].
pub fn decode_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        Failure::new(Exit::Error, format!("the coordinator's answer cannot be read: {error}"))
            .hint("use a `muster` of the coordinators' version")
            .into()
    })
}

/// All messages of a stream that ends by itself.
///
/// # Errors
/// It broke, or a message did not come in time.
pub async fn collect<T>(stream: &mut Streaming<T>) -> Result<Vec<T>, Status> {
    let mut all = Vec::new();
    while let Some(message) = rpc::within(rpc::CALL, stream.message()).await? {
        all.push(message);
    }
    Ok(all)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
