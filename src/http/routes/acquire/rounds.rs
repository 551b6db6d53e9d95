//! Waits that a client makes of several requests, one after the other: each names the same key and token, and waits for a
//! short time only.
//!
//! Each that times out is counted as a timeout, since nobody knows whether another follows. One that does follow says
//! that it was no failure, and is counted as that: the ratio of successes leaves both out. A client that lets the server
//! mint its tokens cannot be known again, nor one that asks another server; nor one whose requests overlap, as those of
//! `leasehold run` do: they are one waiter, which times out once at most.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{Key, LockManager, Token};

/// How soon the next request has to come.
const GRACE: Duration = Duration::from_secs(10);
/// How many waits that have timed out are remembered at once; of more, those after which another request comes count as
/// failures.
const MOST: usize = 4096;

/// The waits that have timed out lately, and until when another request may take them up.
#[derive(Default)]
pub(in crate::http) struct Rounds(Mutex<HashMap<(Key, Token), Instant>>);

impl Rounds {
    /// Whether a request takes up a wait that has timed out.
    fn take(&self, name: &(Key, Token), now: Instant) -> bool {
        self.0.lock().remove(name).is_some_and(|until| now < until)
    }

    fn remember(&self, name: (Key, Token), now: Instant) {
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.retain(|_, until| now < *until);
        }
        if all.len() < MOST {
            all.insert(name, now + GRACE);
        }
    }
}

/// Begins a request under a token that its client chose: if it takes up a wait that has timed out, that is counted.
pub(super) fn take_up(locks: &LockManager, key: &str, token: Token) {
    let rounds = locks.attached::<Rounds>();
    // Where none has timed out lately, as is usual, its name need not be made.
    if rounds.0.lock().is_empty() {
        return;
    }
    let Ok(key) = Key::new(key) else { return };
    let name = (key, token);
    if rounds.take(&name, Instant::now()) {
        locks.count_continued(&name.0);
    }
}

/// Notes that a wait under a token that its client chose has timed out: another request may take it up.
pub(super) fn remember(locks: &LockManager, key: &str, token: Token) {
    if let Ok(key) = Key::new(key) {
        locks.attached::<Rounds>().remember((key, token), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(at: u128) -> (Key, Token) {
        (Key::new("k").unwrap(), Token::from(uuid::Uuid::from_u128(at)))
    }

    #[test]
    fn a_wait_is_taken_up_once_by_its_own_name_and_in_time() {
        let (rounds, now) = (Rounds::default(), Instant::now());
        rounds.remember(name(1), now);
        assert!(!rounds.take(&name(2), now));
        assert!(rounds.take(&name(1), now + GRACE - Duration::from_millis(1)));
        assert!(!rounds.take(&name(1), now), "it has been taken up");
        rounds.remember(name(1), now);
        assert!(!rounds.take(&name(1), now + GRACE));
    }

    #[test]
    fn a_bounded_number_is_remembered_and_what_is_over_makes_room() {
        let (rounds, now) = (Rounds::default(), Instant::now());
        (0..2 * MOST as u128).for_each(|at| rounds.remember(name(at), now));
        assert_eq!(rounds.0.lock().len(), MOST);
        rounds.remember(name(u128::MAX), now + GRACE);
        assert_eq!(rounds.0.lock().len(), 1);
    }
}
