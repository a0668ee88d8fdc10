//! `muster image`: brings images to hosts, lists them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_model::image::{HostImagesView, PushHostView, PushState, PushView};
use muster_model::time::Timestamp;
use muster_proto::control::{BeginImageRequest, ImagePushRequest, ImagesRequest, SendImageRequest};
use tonic::{Code, Status};

use crate::app::App;
use crate::archive::Archive;
use crate::args::{ImageCommand, PushArgs};
use crate::client::{Client, PATIENCE, WATCHING, decode};
use crate::exit::Exit;
use crate::output::{Table, Tone};
use crate::progress::Progress;

/// Between two looks at how far the hosts are.
const LOOK: Duration = Duration::from_millis(500);
/// Hosts have so long to say whether they have it already, before it is sent.
const ANSWERS: Duration = Duration::from_secs(5);
/// How long the coordinator's own deadline may be waited for beyond ours.
const BEYOND: Duration = Duration::from_secs(30);

pub async fn run(app: &App, command: ImageCommand) -> Result<Exit> {
    match command {
        ImageCommand::Push(args) => push(app, args).await,
        ImageCommand::Ls => list(app).await,
    }
}

async fn push(app: &App, args: PushArgs) -> Result<Exit> {
    let what = args.image.clone();
    let opened = tokio::task::spawn_blocking(move || Archive::open(&what)).await;
    let archive = opened.context("reading the archive")??;
    let client = app.client()?;
    let mut run =
        Run { client: &client, archive: &archive, args: &args, progress: Progress::new(&app.console) };
    let view = run.carry_out().await?;
    drop(run);
    shown(app, &view)?;
    let failed = view.hosts.iter().any(|host| host.state == PushState::Failed);
    Ok(if failed { Exit::Error } else { Exit::Ok })
}

/// One push.
struct Run<'a> {
    client: &'a Client,
    archive: &'a Archive,
    args: &'a PushArgs,
    progress: Progress,
}

impl Run<'_> {
    /// Again from where it stopped if the coordinator went away or another one leads.
    async fn carry_out(&mut self) -> Result<PushView> {
        let give_up = Instant::now() + Duration::from_millis(self.args.timeout.0.0) + BEYOND;
        loop {
            match self.attempt(give_up).await {
                Ok(view) => return Ok(view),
                Err(status) if status.code() == Code::Aborted && Instant::now() < give_up => {
                    self.say("coordinator", Tone::Warn, "another one leads: going on there")?;
                    tokio::time::sleep(LOOK).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn attempt(&mut self, give_up: Instant) -> Result<PushView, Status> {
        let have = self.begin().await?;
        let answers = Instant::now() + ANSWERS;
        let mut view = self.look().await?;
        while view.hosts.iter().any(|host| host.state == PushState::Asked) && Instant::now() < answers {
            tokio::time::sleep(LOOK).await;
            view = self.look().await?;
        }
        if view.hosts.iter().any(|host| !host.state.is_final()) {
            self.send(have).await?;
        }
        loop {
            let view = self.look().await?;
            if view.hosts.iter().all(|host| host.state.is_final()) {
                return Ok(view);
            }
            if Instant::now() >= give_up {
                return Err(Status::deadline_exceeded("the coordinator did not end it in time"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn begin(&self) -> Result<u64, Status> {
        let seconds = self.args.timeout.0.0.div_ceil(1000);
        let request = BeginImageRequest {
            sha256: self.archive.sha256.clone(),
            size: self.archive.size,
            names: self.archive.names.clone(),
            ids: self.archive.ids.clone(),
            hosts: self.args.hosts.iter().map(ToString::to_string).collect(),
            deadline_s: u32::try_from(seconds).unwrap_or(u32::MAX),
        };
        let begun = self.client.call(WATCHING, async |mut c| c.begin_image(request.clone()).await).await?;
        Ok(begun.have)
    }

    /// Sends what the coordinator does not have.
    async fn send(&mut self, mut have: u64) -> Result<(), Status> {
        if have > 0 && have < self.archive.size {
            let text = format!("going on after {} MiB", have >> 20);
            self.say("coordinator", Tone::Plain, &text)
                .map_err(|error| Status::internal(error.to_string()))?;
        }
        let mut told = Instant::now();
        while have < self.archive.size {
            let data = self.archive.part(have).map_err(|error| Status::internal(format!("{error:#}")))?;
            let sha256 = self.archive.sha256.clone();
            let request = SendImageRequest { sha256, offset: have, data: data.into() };
            let taken = self.client.call(PATIENCE, async |mut c| c.send_image(request.clone()).await).await?;
            have = taken.have;
            if told.elapsed() >= LOOK * 4 {
                told = Instant::now();
                self.look().await?;
            }
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<PushView, Status> {
        let request = ImagePushRequest { sha256: self.archive.sha256.clone() };
        let reply = self.client.call(WATCHING, async |mut c| c.image_push(request.clone()).await).await?;
        let view: PushView = decode(&reply).map_err(|error| Status::internal(error.to_string()))?;
        self.show(&view).map_err(|error| Status::internal(error.to_string()))?;
        Ok(view)
    }

    fn show(&mut self, view: &PushView) -> Result<()> {
        let waited_for = view.hosts.iter().any(|host| !host.state.is_final());
        if view.received > 0 && waited_for {
            let text = if view.received < view.bytes {
                format!("{} % of {} MiB sent", percent(view.received, view.bytes), view.bytes >> 20)
            } else {
                format!("has all of it ({} MiB)", view.bytes >> 20)
            };
            self.say("coordinator", Tone::Plain, &text)?;
        }
        for host in &view.hosts {
            let (tone, text) = said(host, view.bytes);
            self.say(host.host.as_str(), tone, &text)?;
        }
        Ok(())
    }

    fn say(&mut self, about: &str, tone: Tone, text: &str) -> Result<()> {
        self.progress.show(Timestamp(self.client.now_ms()), about, tone, text)
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100) / whole.max(1)
}

fn said(host: &PushHostView, bytes: u64) -> (Tone, String) {
    match host.state {
        PushState::Asked => (Tone::Plain, "asked".to_owned()),
        PushState::Wanted => (Tone::Plain, "does not have it, waits".to_owned()),
        PushState::Receiving => {
            (Tone::Plain, format!("receives, {} %", percent(host.bytes, bytes) / 10 * 10))
        }
        PushState::Loading => (Tone::Plain, "its engine loads it".to_owned()),
        PushState::Had => (Tone::Good, "had it already".to_owned()),
        PushState::Loaded => (Tone::Good, "loaded".to_owned()),
        PushState::Failed => (Tone::Bad, format!("failed: {}", host.text)),
    }
}

fn shown(app: &App, view: &PushView) -> Result<()> {
    if app.console.is_json() {
        return app.console.json(view);
    }
    let mut table = Table::new(&["HOST", "IMAGE", "RESULT"]);
    for host in &view.hosts {
        let (tone, text) = said(host, view.bytes);
        table.row(tone, [host.host.as_str(), &view.names.join(", "), &text]);
    }
    app.console.raw(table.render(app.console.paint).as_bytes())
}

async fn list(app: &App) -> Result<Exit> {
    let client = app.client()?;
    let reply = client.call(PATIENCE, async |mut c| c.images(ImagesRequest {}).await).await?;
    let all: Vec<HostImagesView> = decode(&reply)?;
    if app.console.is_json() {
        app.console.json(&all)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["HOST", "IMAGE", "SIZE", "NEEDED"]);
    for host in &all {
        let name = host.host.as_str();
        match &host.images {
            None => table.row(Tone::Warn, [name, "not known: its agent has not said", "", ""]),
            Some(images) => {
                for image in images {
                    let size = format!("{} MiB", image.bytes >> 20);
                    let needed = if image.needed { "yes" } else { "no" };
                    table.row(Tone::Plain, [name, &image.name, &size, needed]);
                }
            }
        }
    }
    app.console.raw(table.render(app.console.paint).as_bytes())?;
    Ok(Exit::Ok)
}
