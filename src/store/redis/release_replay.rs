//! What was released lately, to be released again after a failover: [`ReleaseReplay`].
//!
//! A master that dies takes along what it had not passed on, releases too: then its successor still holds keys that
//! their holders gave back, for what is left of their TTL, and everybody waits for nobody. So whenever a connection
//! comes up, the last releases are repeated. A release compares the token, so that it can hit nothing newer (R4); a client
//! may have taken the lock with the same token again, through another process, so a repetition compares the fence as well:
//! it spares a lock whose fence is above all that this process had seen at the release.
//! The last few seconds before the connection broke are enough: replicas that lag further are not promoted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use super::Inner;
use super::cleanup::{PendingCleanup, take_back};
use super::keys::KeyNames;
use crate::clock::Moment;
use crate::key::Token;

/// Older ones than the newest by more than this are forgotten.
const SPAN: Duration = Duration::from_secs(5);
/// However many there were in that time.
const MOST: usize = 4096;
/// So many are repeated at a time.
const AT_ONCE: usize = 64;
/// For so long a repetition that is not answered is tried again.
const TRIED_FOR: Duration = Duration::from_secs(3);

/// The last releases of this process.
#[derive(Default)]
pub(super) struct ReleaseReplay(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    order: VecDeque<(Moment, Token, Arc<KeyNames>)>,
    /// The keys that each token has let go: a client may use one token for several.
    names: HashMap<Token, Vec<Released>>,
}

/// A key that a token has let go.
#[derive(Clone)]
struct Released {
    names: Arc<KeyNames>,
    /// Whoever takes it later has a higher one.
    fence: u64,
}

impl Ring {
    fn knows(&self, names: &KeyNames, token: Token) -> bool {
        self.names.get(&token).is_some_and(|keys| keys.iter().any(|key| *key.names == *names))
    }

    fn forget(&mut self, token: Token, names: &KeyNames) {
        if let Some(keys) = self.names.get_mut(&token) {
            keys.retain(|key| *key.names != *names);
            if keys.is_empty() {
                self.names.remove(&token);
            }
        }
    }
}

impl ReleaseReplay {
    /// A token has let go of a lock, of which `fence` is the highest one known.
    pub(super) fn released(&self, names: &KeyNames, token: Token, fence: u64, now: Moment) {
        let ring = &mut *self.0.lock();
        ring.forget(token, names);
        let names = Arc::new(names.clone());
        let released = Released { names: Arc::clone(&names), fence };
        ring.names.entry(token).or_default().push(released);
        ring.order.push_back((now, token, names));
        while ring.order.len() > MOST || ring.order.front().is_some_and(|(at, ..)| now.saturating_since(*at) > SPAN) {
            if let Some((_, old, names)) = ring.order.pop_front() {
                ring.forget(old, &names);
            }
        }
    }

    /// A token is about to hold a lock, perhaps again: what it released of this key before is over. Called before it is
    /// waited for that nothing of the token is being taken back, and once more after that.
    pub(super) fn forget(&self, names: &KeyNames, token: Token) {
        self.0.lock().forget(token, names);
    }

    #[cfg(test)]
    fn knows(&self, names: &KeyNames, token: Token) -> bool {
        self.0.lock().knows(names, token)
    }

    fn all(&self) -> Vec<(Token, Released)> {
        let ring = self.0.lock();
        ring.names.iter().flat_map(|(token, keys)| keys.iter().map(|key| (*token, key.clone()))).collect()
    }

    /// Repeats the last releases whenever a connection comes up, for as long as it is polled.
    pub(super) async fn run(inner: Arc<Inner>) {
        let mut reconnects = inner.servers.reconnects();
        // An error means that there are no connections any more.
        while reconnects.changed().await.is_ok() {
            let all = inner.release_replay.all();
            let each = |(token, released)| repeat(&inner, token, released);
            let repeating = stream::iter(all).for_each_concurrent(AT_ONCE, each);
            tokio::select! {
                () = repeating => {}
                // Begun anew: who came up may be another master yet.
                _ = async { reconnects.clone().changed().await } => {}
            }
        }
    }
}

/// Repeats one, as a clean-up: whoever takes the token up again waits until no late command can hit what it then holds
/// (S5), and one that was taken up before is spared.
async fn repeat(inner: &Arc<Inner>, token: Token, Released { names, fence }: Released) {
    {
        // Held until the clean-up stands: `forget` comes before, or the next try sees the clean-up.
        let ring = inner.release_replay.0.lock();
        if !ring.knows(&names, token) {
            return;
        }
        let debt = PendingCleanup::of_repetition(inner.now().saturating_add(TRIED_FOR), fence);
        take_back(inner, (*names).clone(), token, debt);
    }
    inner.cleaning.wait_for(&names, token).await;
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
        let (release_replay, [old, new]) = (ReleaseReplay::default(), [(); 2].map(|()| Token::random()));
        let at = |millis| Moment::ZERO.saturating_add(Duration::from_millis(millis));
        release_replay.released(&names, old, 1, at(1_000));
        release_replay.released(&names, new, 1, at(6_000));
        assert!(release_replay.knows(&names, old), "time alone forgets nothing: it is the newest that counts");
        release_replay.released(&names, Token::random(), 1, at(6_001));
        assert!(!release_replay.knows(&names, old) && release_replay.knows(&names, new));
        let others = KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new("other").unwrap()).unwrap();
        release_replay.released(&others, new, 1, at(6_001));
        release_replay.forget(&names, new);
        assert!(!release_replay.knows(&names, new) && release_replay.knows(&others, new), "one token, two keys");
        for _ in 0..2 * MOST {
            release_replay.released(&names, Token::random(), 1, at(6_002));
        }
        let ring = release_replay.0.lock();
        assert!(ring.order.len() == MOST && ring.names.len() == MOST);
    }
}
