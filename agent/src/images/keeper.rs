//! The task that cares for images: one thing at a time, so that memory stays bounded.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_model::image::PushState;
use muster_model::observed::Condition;
use muster_model::plan::HostPlan;
use muster_model::time::Millis;
use muster_proto::agents::ImageOffer;
use muster_runtime::spool::Spool;
use muster_runtime::tasks::TaskGroup;

use super::book::{Book, Idle};
use super::engine::{EngineImage, ImageEngine};
use super::fetch::{FetchError, Line};
use super::room::room;
use crate::identity_dir::Link;
use crate::runtime::EngineError;
use crate::shared::{Shared, pause};

/// Between two looks at what is here.
const PERIOD: Duration = Duration::from_secs(15);
/// How long an operator is told what was removed.
const TOLD: Duration = Duration::from_secs(600);

/// What it needs.
pub struct ImageKeeper {
    /// All that is known.
    pub shared: Arc<Shared>,
    /// The way to the coordinators.
    pub link: Arc<Link>,
    /// The engine.
    pub engine: Arc<dyn ImageEngine>,
    /// The agent's state directory.
    pub state: PathBuf,
    /// An image that was not needed for so long goes; zero = none ever does.
    pub grace: Millis,
}

/// Runs until the group is cancelled.
///
/// # Errors
/// Never.
pub async fn run(keeper: ImageKeeper, group: TaskGroup) -> Result<(), Infallible> {
    let token = group.token();
    let mut book = Book::load(&keeper.state);
    let mut told: Option<Instant> = None;
    let period = PERIOD.min(Duration::from_millis(keeper.grace.0 / 2).max(Duration::from_secs(1)));
    let mut due = Instant::now();
    while !token.is_cancelled() {
        let act = async {
            keeper.see(&mut book);
            while let Some(offer) = keeper.shared.images.next() {
                keeper.answer(&offer, &mut book).await;
                due = Instant::now();
            }
            if Instant::now() >= due {
                due = Instant::now() + period;
                match keeper.look(&mut book).await {
                    Ok(removed) if !removed.is_empty() => {
                        told = Some(Instant::now());
                        keeper.shared.say("images", vec![removal(&removed)]);
                    }
                    Ok(_) if told.is_some_and(|at| at.elapsed() > TOLD) => {
                        told = None;
                        keeper.shared.say("images", Vec::new());
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "images could not be looked at"),
                }
            }
            pause(due.saturating_duration_since(Instant::now()), &keeper.shared.images.bell).await;
        };
        token.run_until_cancelled(act).await;
    }
    Ok(())
}

impl ImageKeeper {
    fn spool(&self) -> Spool {
        Spool::new(&self.state.join("images"))
    }

    /// Whatever comes of it, the coordinator asks again until it has heard the last word.
    async fn answer(&self, offer: &ImageOffer, book: &mut Book) {
        let mut line = match Line::open(&self.link).await {
            Ok(line) => line,
            Err(status) => return tracing::debug!(%status, "no connection for an image"),
        };
        let (state, text) = match self.get(offer, book, &mut line).await {
            Ok(state) => (state, String::new()),
            Err(FetchError::Interrupted(why)) => {
                return tracing::info!(why, names = ?offer.names, "an image was not fetched to its end");
            }
            Err(FetchError::Failed(why)) => (PushState::Failed, why),
        };
        if state.is_final() {
            tracing::info!(%state, text, names = ?offer.names, "an image that was pushed");
        }
        if let Err(status) = line.say(&offer.sha256, state, &text).await {
            tracing::debug!(%status, "nobody heard about an image");
        }
    }

    async fn get(
        &self,
        offer: &ImageOffer,
        book: &mut Book,
        line: &mut Line,
    ) -> Result<PushState, FetchError> {
        if has(&self.all().await?, offer) {
            self.note_pushed(offer, book);
            self.spool().remove(&offer.sha256);
            return Ok(PushState::Had);
        }
        let spool = self.spool();
        let left = offer.size.saturating_sub(spool.have(&offer.sha256));
        let directory = self.engine.directory().await.map_err(failed)?;
        room(&self.state, &directory, left, offer.size).map_err(FetchError::Failed)?;
        if !offer.ready {
            return Ok(PushState::Wanted);
        }
        let archive = line.fetch(offer, &spool).await?;
        line.say(&offer.sha256, PushState::Loading, "").await.ok();
        let loaded = self.engine.load(&archive).await;
        spool.remove(&offer.sha256);
        loaded.map_err(failed)?;
        let all = self.all().await?;
        let missing = offer.names.iter().find(|name| !all.iter().any(|image| image.tags.contains(name)));
        if let Some(missing) = missing {
            return Err(FetchError::Failed(format!("the engine took the archive, and has no {missing}")));
        }
        self.note_pushed(offer, book);
        self.shared.wake.notify_one();
        Ok(PushState::Loaded)
    }

    async fn all(&self) -> Result<Vec<EngineImage>, FetchError> {
        self.engine.all().await.map_err(failed)
    }

    fn note_pushed(&self, offer: &ImageOffer, book: &mut Book) {
        book.pushed(&offer.names, self.shared.clock.now());
        self.store(book);
    }

    fn store(&self, book: &Book) {
        if let Err(error) = book.store(&self.state) {
            tracing::warn!(%error, "which images are ours cannot be written down");
        }
    }

    /// Notes what the plan needs: with each plan, so that no revision is missed.
    fn see(&self, book: &mut Book) -> Option<HostPlan> {
        let plan = self.shared.state().host.plan().cloned()?;
        let before = book.clone();
        book.see(&plan, self.shared.clock.now());
        if book.changed_since(&before) {
            self.store(book);
        }
        Some(plan)
    }

    /// Notes what is here and needed, and takes away what is not; what went.
    async fn look(&self, book: &mut Book) -> Result<Vec<Idle>, EngineError> {
        self.spool().sweep(&[]);
        let now = self.shared.clock.now();
        let plan = self.see(book);
        let images = self.engine.all().await?;
        let generation = plan.as_ref().map(|plan| plan.generation);
        let may = plan.is_some_and(|plan| !plan.additive_only && plan.platform == self.shared.platform);
        let mut removed = Vec::new();
        if may && self.grace.0 > 0 && self.is_settled() {
            let in_use = self.engine.in_use().await?;
            for idle in book.idle(&images, &in_use, self.grace, now) {
                // A plan that came meanwhile may need it.
                if self.shared.generation() == generation.unwrap_or_default() && self.remove(&idle).await {
                    removed.push(idle);
                }
            }
        }
        let images = if removed.is_empty() { images } else { self.engine.all().await? };
        if !removed.is_empty() {
            book.forget_gone(&images);
            self.store(book);
        }
        if self.shared.images.hold(book.held(&images)) {
            self.shared.changed.notify_one();
        }
        Ok(removed)
    }

    /// No operation runs, and nothing is under way here.
    fn is_settled(&self) -> bool {
        let state = self.shared.state();
        let idle = state.host.busy.is_empty() && state.steps.is_empty() && state.tasks_under_way.is_empty();
        drop(state);
        idle && self.shared.images.is_quiet()
    }

    async fn remove(&self, idle: &Idle) -> bool {
        for name in &idle.names {
            if let Err(error) = self.engine.take_away(name).await {
                tracing::info!(%error, name, "an image stays");
                return false;
            }
        }
        tracing::info!(names = ?idle.names, bytes = idle.bytes, "an image was removed");
        true
    }
}

fn failed(error: EngineError) -> FetchError {
    match error {
        EngineError::NotAnswering(_) => FetchError::Interrupted(error.to_string()),
        EngineError::Refused(_) | EngineError::Gone(_) => FetchError::Failed(error.to_string()),
    }
}

/// Every name is here, and stands for one of the images that are in the archive.
fn has(images: &[EngineImage], offer: &ImageOffer) -> bool {
    let of = |name: &String| images.iter().find(|image| image.tags.contains(name));
    offer.names.iter().all(|name| of(name).is_some_and(|image| offer.ids.contains(&image.id)))
}

fn removal(removed: &[Idle]) -> Condition {
    let names: Vec<&str> = removed.iter().flat_map(|idle| &idle.names).map(String::as_str).collect();
    let bytes: u64 = removed.iter().map(|idle| idle.bytes).sum();
    let text = format!("{}: needed by no member here any more, {} MiB", names.join(", "), bytes >> 20);
    Condition { code: "images-removed".to_owned(), text }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
