//! The last releases of this process: [`RecentReleases`]. After a failover they are repeated (`release_replay`).
//!
//! The last few seconds before the connection broke are enough: replicas that lag further are not promoted.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::keys::KeyNames;
use crate::clock::Moment;
use crate::key::Token;

/// Releases that are older than the newest by more than this are forgotten.
const SPAN: Duration = Duration::from_secs(5);
/// More than these are forgotten too, oldest first.
const MOST: usize = 4096;
/// The last releases of this process.
#[derive(Default)]
pub(super) struct RecentReleases(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    order: VecDeque<(Moment, Release)>,
    /// The highest fence that was known at each release: a later grant has a higher one.
    fences: HashMap<Release, u64, RandomState>,
}

/// A key, and the token that has released it: a client may use one token for several keys.
type Release = (Token, KeyNames);

impl RecentReleases {
    /// A token has released a lock; `fence` is the highest fence that is known of its slot.
    pub(super) fn released(&self, names: &KeyNames, token: Token, fence: u64, now: Moment) {
        let release = (token, names.clone());
        let ring = &mut *self.0.lock();
        ring.fences.insert(release.clone(), fence);
        ring.order.push_back((now, release));
        while ring.order.len() > MOST || ring.order.front().is_some_and(|(at, _)| now.saturating_since(*at) > SPAN) {
            if let Some((_, old)) = ring.order.pop_front() {
                ring.fences.remove(&old);
            }
        }
    }

    /// A token is about to hold a lock, perhaps again: what it released of this key before must not be repeated. An
    /// acquire calls this before it waits for the clean-ups of the token, and once more after that.
    pub(super) fn forget(&self, names: &KeyNames, token: Token) {
        self.0.lock().fences.remove(&(token, names.clone()));
    }

    /// Calls `act` if the release is still remembered. Until `act` returns, no call can forget it.
    pub(super) fn if_known(&self, names: &KeyNames, token: Token, act: impl FnOnce()) {
        let ring = self.0.lock();
        if ring.fences.contains_key(&(token, names.clone())) {
            act();
        }
    }

    #[cfg(test)]
    fn knows(&self, names: &KeyNames, token: Token) -> bool {
        self.0.lock().fences.contains_key(&(token, names.clone()))
    }

    /// All releases that are remembered.
    pub(super) fn all(&self) -> Vec<(Token, KeyNames, u64)> {
        let ring = self.0.lock();
        ring.fences.iter().map(|((token, names), fence)| (*token, names.clone(), *fence)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::store::KeyTemplate;
    use crate::store::redis::keys::SIDE_KEYS;

    #[test]
    fn only_the_last_seconds_and_so_many_are_remembered() {
        let names = KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new("k").unwrap()).unwrap();
        let (recent, [old, new]) = (RecentReleases::default(), [(); 2].map(|()| Token::random()));
        let at = |millis| Moment::ZERO.saturating_add(Duration::from_millis(millis));
        recent.released(&names, old, 1, at(1_000));
        recent.released(&names, new, 1, at(6_000));
        assert!(recent.knows(&names, old), "time alone forgets nothing: it is the newest that counts");
        recent.released(&names, Token::random(), 1, at(6_001));
        assert!(!recent.knows(&names, old) && recent.knows(&names, new));
        let others = KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new("other").unwrap()).unwrap();
        recent.released(&others, new, 1, at(6_001));
        recent.forget(&names, new);
        assert!(!recent.knows(&names, new) && recent.knows(&others, new), "one token, two keys");
        for _ in 0..2 * MOST {
            recent.released(&names, Token::random(), 1, at(6_002));
        }
        let ring = recent.0.lock();
        assert!(ring.order.len() == MOST && ring.fences.len() == MOST);
    }
}
