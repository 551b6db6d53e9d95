//! The thread that keeps time: answers those who have waited for too long, and ends what has run out. It never waits for
//! the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::state::Phase;
use crate::store::{Hint, StoreError};

/// Keys that are ended under the mutex at a time.
const SLICE: usize = 256;
/// What ends within this time is ended together.
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);

pub(super) fn run(shared: &Arc<Shared>) {
    let mut state = shared.state.lock();
    while let (Phase::Open, Some(line)) = (&state.phase, &state.line) {
        let (now, now_ms) = (Instant::now(), line.now_ms());
        let late = state.late(now);
        let ended = state.ledger.sweep(now_ms, SLICE);
        if late.is_empty() && ended.is_empty() {
            let end = state.ledger.next_end().map(|end_ms| Duration::from_millis(end_ms.saturating_sub(now_ms)));
            let end = end.map(|left| now + left.max(SHORTEST_SLEEP));
            let until = [end, state.next_deadline()].into_iter().flatten().min();
            state.keeper_sleeps_until = until;
            match until {
                Some(until) => drop(shared.earlier.wait_until(&mut state, until)),
                None => shared.earlier.wait(&mut state),
            }
            continue;
        }
        if !ended.is_empty() {
            state.gathering_since.get_or_insert(now);
        }
        // It commits what ended; and if nobody waits any more, it finds out whether the disk answers again.
        shared.work.notify_one();
        drop(state);
        for waiter in late {
            // Nobody listens any more if the caller has gone.
            let _ = waiter.answer.send(Err(StoreError::Timeout));
        }
        ended.iter().for_each(|key| shared.hint(key, Hint::Free));
        state = shared.state.lock();
    }
}
