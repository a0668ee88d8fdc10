//! What the session and the care for images tell each other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use muster_model::image::{HeldImage, IMAGE_MAX, IMAGE_NAMES_MAX, is_digest, is_image_name};
use muster_proto::agents::ImageOffer;
use tokio::sync::Notify;

/// Offers that wait; others are made again by the coordinator.
const OFFERS_MAX: usize = 16;
/// So old the leader's word may be: it says it with each beat.
const QUIET: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Papers {
    offers: BTreeMap<String, ImageOffer>,
    quiet: Option<Instant>,
    held: Option<Vec<HeldImage>>,
}

/// The desk.
#[derive(Default)]
pub struct ImageDesk {
    papers: Mutex<Papers>,
    /// Rung when there is an offer.
    pub bell: Notify,
}

impl ImageDesk {
    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader offers an image. One that is beyond the limits is not believed.
    pub fn offer(&self, offer: ImageOffer) {
        let within = is_digest(&offer.sha256)
            && (1..=IMAGE_MAX).contains(&offer.size)
            && (1..=IMAGE_NAMES_MAX).contains(&offer.names.len())
            && offer.ids.len() <= 2 * IMAGE_NAMES_MAX
            && offer.names.iter().chain(&offer.ids).all(|text| is_image_name(text));
        let mut papers = self.papers();
        if !within || papers.offers.len() >= OFFERS_MAX {
            return;
        }
        papers.offers.insert(offer.sha256.clone(), offer);
        drop(papers);
        self.bell.notify_one();
    }

    /// The next offer.
    #[must_use]
    pub fn next(&self) -> Option<ImageOffer> {
        self.papers().offers.pop_first().map(|(_, offer)| offer)
    }

    /// The leader says whether an operation runs.
    pub fn leader_says(&self, quiet: bool) {
        self.papers().quiet = quiet.then(Instant::now);
    }

    /// The leader said a moment ago that no operation runs.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.papers().quiet.is_some_and(|at| at.elapsed() < QUIET)
    }

    /// Notes which images are here; whether that is news.
    #[must_use]
    pub fn hold(&self, held: Vec<HeldImage>) -> bool {
        let mut papers = self.papers();
        let news = papers.held.as_ref() != Some(&held);
        papers.held = Some(held);
        news
    }

    /// Which images are here.
    #[must_use]
    pub fn held(&self) -> Option<Vec<HeldImage>> {
        self.papers().held.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sha256: &str) -> ImageOffer {
        let names = vec!["app:1".to_owned()];
        ImageOffer { sha256: sha256.to_owned(), size: 5, names, ids: Vec::new(), ready: true }
    }

    #[test]
    fn an_offer_beyond_the_limits_is_not_believed() {
        let (desk, digest) = (ImageDesk::default(), "a0".repeat(32));
        desk.offer(offer("../../etc/passwd"));
        desk.offer(ImageOffer { size: IMAGE_MAX + 1, ..offer(&digest) });
        desk.offer(ImageOffer { names: vec!["../../containers".to_owned()], ..offer(&digest) });
        desk.offer(ImageOffer { names: Vec::new(), ..offer(&digest) });
        assert!(desk.next().is_none());
        desk.offer(offer(&digest));
        desk.offer(ImageOffer { ready: false, ..offer(&digest) });
        assert!(!desk.next().unwrap().ready, "the newest word counts");
        assert!(desk.next().is_none());
    }

    #[test]
    fn without_a_word_of_the_leader_it_is_not_quiet() {
        let desk = ImageDesk::default();
        assert!(!desk.is_quiet());
        desk.leader_says(true);
        assert!(desk.is_quiet());
        desk.leader_says(false);
        assert!(!desk.is_quiet());
    }
}
