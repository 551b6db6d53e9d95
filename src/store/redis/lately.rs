//! What was released lately, to be released again after a failover: [`Lately`].
//!
//! A master that dies takes along what it had not passed on, releases too: then its successor still holds keys that
//! their holders gave back, for what is left of their TTL, and everybody waits for nobody. So whenever a connection
//! comes up, the last releases are repeated. A release compares the token, so that it can hit nothing newer (R4).
//! The last few seconds before the connection broke are enough: replicas that lag further are not promoted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use super::Inner;
use super::cleanup::Debt;
use super::names::Names;
use super::release;
use crate::clock::Moment;
use crate::key::Token;

/// Older ones than the newest by more than this are forgotten.
const SPAN: Duration = Duration::from_secs(5);
/// However many there were in that time.
const MOST: usize = 4096;
/// So many are repeated at a time.
const AT_ONCE: usize = 64;
/// A repetition that is not answered is tried again so often, with a pause between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The last releases of this process.
#[derive(Default)]
pub(super) struct Lately(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    order: VecDeque<(Moment, Token)>,
    names: HashMap<Token, Names>,
}

impl Lately {
    /// A token has let go of a lock.
    pub(super) fn released(&self, names: &Names, token: Token, now: Moment) {
        let ring = &mut *self.0.lock();
        ring.names.insert(token, names.clone());
        ring.order.push_back((now, token));
        while ring.order.len() > MOST || ring.order.front().is_some_and(|(at, _)| now.saturating_since(*at) > SPAN) {
            if let Some((_, old)) = ring.order.pop_front() {
                ring.names.remove(&old);
            }
        }
    }

    /// A token is about to hold a lock, perhaps again: what it released before is over.
    pub(super) fn forget(&self, token: Token) {
        self.0.lock().names.remove(&token);
    }

    fn names_of(&self, token: Token) -> Option<Names> {
        self.0.lock().names.get(&token).cloned()
    }

    /// Repeats the last releases whenever a connection comes up, for as long as it is polled.
    pub(super) async fn run(inner: Arc<Inner>) {
        let mut ups = inner.servers.ups();
        // An error means that there are no connections any more.
        while ups.changed().await.is_ok() {
            let tokens: Vec<Token> = inner.lately.0.lock().names.keys().copied().collect();
            let repeating = stream::iter(tokens).for_each_concurrent(AT_ONCE, |token| repeat(&inner, token));
            tokio::select! {
                () = repeating => {}
                // Begun anew: who came up may be another master yet.
                _ = async { ups.clone().changed().await } => {}
            }
        }
    }
}

async fn repeat(inner: &Inner, token: Token) {
    for _ in 0..TRIES {
        // Looked for each time: the token may have been taken up again.
        let Some(names) = inner.lately.names_of(token) else { return };
        if release::once(inner, &names, token, &mut Debt::new(Moment::ZERO)).await.is_ok() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::store::KeyTemplate;

    #[test]
    fn only_the_last_seconds_and_so_many_are_remembered() {
        let names = Names::new(&KeyTemplate::default(), &Key::new("k").unwrap()).unwrap();
        let (lately, [old, new]) = (Lately::default(), [(); 2].map(|()| Token::random()));
        let at = |millis| Moment::ZERO.saturating_add(Duration::from_millis(millis));
        lately.released(&names, old, at(1_000));
        lately.released(&names, new, at(6_000));
        assert!(lately.names_of(old).is_some(), "time alone forgets nothing: it is the newest that counts");
        lately.released(&names, Token::random(), at(6_001));
        assert!(lately.names_of(old).is_none() && lately.names_of(new).is_some());
        lately.forget(new);
        assert!(lately.names_of(new).is_none());
        for _ in 0..2 * MOST {
            lately.released(&names, Token::random(), at(6_002));
        }
        let ring = lately.0.lock();
        assert!(ring.order.len() == MOST && ring.names.len() == MOST);
    }
}
