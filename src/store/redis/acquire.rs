//! One try to take a lock, and who cleans up after it (S2 to S5).

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::fault::{Ran, odd};
use super::names::Names;
use super::release::Uncertain;
use super::script::{ACQUIRE, Reply};
use super::tickets::TICKET;
use crate::clock::Moment;
use crate::key::{Token, Ttl};
use crate::store::{Acquired, Ask, Denial, Intent, StoreError, drift};

/// A try that was sent: unless it is settled, its lock is taken back when it is dropped (R5).
struct Attempt {
    shared: Arc<Shared>,
    names: Names,
    token: Token,
    intent: Intent,
    /// Until when, in the server's time, it may still be carried out; `None` if it cannot be.
    not_after: Option<i64>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(until) = self.not_after {
            let uncertain = Uncertain { names: self.names.clone(), token: self.token, until };
            self.shared.take_back(uncertain, self.intent);
        }
    }
}

impl Shared {
    pub(super) async fn acquire(self: &Arc<Self>, ask: Ask<'_>) -> Acquired {
        let begun = self.ticks.now();
        let ttl = ask.ttl.as_duration();
        if ttl < self.terms.min_ttl {
            return Acquired::Unknown(StoreError::InvalidTtl);
        }
        let names = match Names::new(&self.settings.template, ask.key) {
            Ok(names) => names,
            Err(error) => return Acquired::Unknown(error),
        };
        if self.marks.has(names.lock(), ask.token) {
            return Acquired::Unknown(StoreError::CleaningUp);
        }
        let process = match ask.intent {
            Intent::Try => "",
            Intent::Wait => {
                self.tickets.keep(&names);
                &self.settings.process
            }
        };
        let mut attempt =
            Attempt { shared: Arc::clone(self), names, token: ask.token, intent: ask.intent, not_after: None };
        let Attempt { names, not_after, .. } = &mut attempt;
        let answer = self
            .call(&ACQUIRE, begun, |command, limit| {
                *not_after = Some(limit);
                command.arg(4).arg(names.lock()).arg(names.fence()).arg(names.queue()).arg(names.alive());
                command.arg(text(ask.token, &mut [0; 36])).arg(millis(ttl + self.settings.lock_delay)).arg(limit);
                command.arg(millis(self.settings.fence_retention)).arg(self.highest_fence());
                command.arg(process).arg(millis(TICKET));
            })
            .await;
        match answer {
            Ok(reply) => self.judge(attempt, &reply, begun, ask.ttl),
            Err(fault) => {
                if fault.ran == Ran::No {
                    attempt.not_after = None;
                }
                match fault.error {
                    StoreError::OutOfMemory => Acquired::Denied { retry_in: None, why: Denial::OutOfMemory },
                    error => Acquired::Unknown(error),
                }
            }
        }
    }

    fn judge(&self, mut attempt: Attempt, reply: &Reply, begun: Moment, ttl: Ttl) -> Acquired {
        match (reply.code(), reply.rest()) {
            (1, &[fence, left]) => {
                let fence = self.saw_fence(fence);
                if attempt.intent == Intent::Wait {
                    self.tickets.forget(attempt.names.lock());
                }
                let valid_for =
                    self.valid_for(left, ttl).min(ttl.as_duration().saturating_sub(drift(ttl.as_duration())));
                if valid_for <= self.ticks.now().saturating_since(begun) {
                    // Dropping the attempt takes it back.
                    return Acquired::Denied { retry_in: None, why: Denial::TooLate };
                }
                attempt.not_after = None;
                Acquired::Granted { fence, valid_for }
            }
            (2, &[why, retry]) => {
                attempt.not_after = None;
                let why = match why {
                    0 => Denial::Held,
                    1 => Denial::OtherKind,
                    _ => Denial::Ahead,
                };
                // A key without an end says nothing about when.
                let retry_in = u64::try_from(retry).ok().map(|ms| Duration::from_millis(ms.max(1)));
                Acquired::Denied { retry_in, why }
            }
            _ => Acquired::Unknown(odd().error),
        }
    }

    /// How long a key that Redis keeps for `left` more milliseconds may be relied on (R8, R27).
    pub(super) fn valid_for(&self, left: i64, ttl: Ttl) -> Duration {
        // Below zero: somebody took its end away.
        let left = u64::try_from(left).map_or(ttl.as_duration() + self.settings.lock_delay, Duration::from_millis);
        let left = left.saturating_sub(self.settings.lock_delay);
        left.saturating_sub(drift(left.max(ttl.as_duration())))
    }
}

/// A token as it stands in Redis.
pub(super) fn text(token: Token, room: &mut [u8; 36]) -> &str {
    token.as_uuid().hyphenated().encode_lower(room)
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
