//! Which release a conversation began with.
//!
//! Kept in memory only and bounded: a conversation that falls out, or a server
//! that starts anew, takes the release that its environment has then. Sessions are
//! named by clients, so only a hash of the name is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base::ProjectId;
use sha2::{Digest as _, Sha256};

/// Conversations at a time.
const MOST: usize = 10_000;
/// Dropped together when there is no room, so that room is made rarely.
const DROPPED: usize = MOST / 10;
/// A conversation that says nothing for so long begins anew.
const IDLE_US: i64 = 24 * 3600 * 1_000_000;

/// A conversation with an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Conversation([u8; 32]);

impl Conversation {
    pub(crate) fn new(project: ProjectId, environment: &str, app: &str, session: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(project.to_string());
        for part in [environment, app, session] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sticky(Mutex<HashMap<Conversation, Place>>);

#[derive(Debug, Clone, Copy)]
struct Place {
    release: i64,
    seen_us: i64,
}

impl Sticky {
    /// The release that a conversation is on, if that one may still be used.
    pub(crate) fn find(
        &self,
        conversation: Conversation,
        now_us: i64,
        may_be_used: impl Fn(i64) -> bool,
    ) -> Option<i64> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.get_mut(&conversation)?;
        if now_us - place.seen_us > IDLE_US || !may_be_used(place.release) {
            places.remove(&conversation);
            return None;
        }
        place.seen_us = now_us;
        Some(place.release)
    }

    /// Puts a conversation on a release.
    pub(crate) fn put(&self, conversation: Conversation, release: i64, now_us: i64) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST && !places.contains_key(&conversation) {
            drop_oldest(&mut places, now_us);
        }
        let place = Place {
            release,
            seen_us: now_us,
        };
        places.insert(conversation, place);
    }
}

fn drop_oldest(places: &mut HashMap<Conversation, Place>, now_us: i64) {
    places.retain(|_, place| now_us - place.seen_us <= IDLE_US);
    if places.len() < MOST {
        return;
    }
    let mut seen: Vec<i64> = places.values().map(|place| place.seen_us).collect();
    let (_, limit, _) = seen.select_nth_unstable(DROPPED);
    let limit = *limit;
    places.retain(|_, place| place.seen_us > limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Id as _;

    #[test]
    fn conversations_stay_are_forgotten_and_never_too_many() {
        let sticky = Sticky::default();
        let project = ProjectId::from_uuid_bytes([1; 16]);
        let named = |name: &str| Conversation::new(project, "prod", "app", name);
        sticky.put(named("a"), 3, 0);
        assert_eq!(sticky.find(named("a"), 1, |_| true), Some(3));
        assert_eq!(sticky.find(named("b"), 1, |_| true), None);
        assert_eq!(sticky.find(named("a"), 2 + IDLE_US, |_| true), None);
        sticky.put(named("a"), 3, 0);
        assert_eq!(sticky.find(named("a"), 1, |release| release != 3), None);
        assert_eq!(
            sticky.find(named("a"), 1, |_| true),
            None,
            "it left for good"
        );
        for at in 0..25_000_i64 {
            sticky.put(named(&at.to_string()), 1, at);
        }
        let kept = sticky.0.lock().unwrap().len();
        assert!((MOST - DROPPED..=MOST).contains(&kept), "{kept}");
        assert_eq!(sticky.find(named("24999"), 25_000, |_| true), Some(1));
        let split = Conversation::new(project, "prod", "ap", "pa");
        assert_ne!(split, Conversation::new(project, "prod", "app", "a"));
    }
}
