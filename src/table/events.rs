//! The events of a table, and who has subscribed to them.
//!
//! A table without listeners builds no event. The fast path checks one flag (`slow_path`) for listeners and for shutdown.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::history::End;
use crate::error::{Loss, WaitEdge};
use crate::key::{FencingToken, Key};
use crate::mode::Mode;

/// Something that happened to a lock. It never holds a token.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Rises with every event of the manager; events of one key are in the order of what happened. Listeners may
    /// receive them in another order.
    pub sequence: u64,
    /// To which key.
    pub key: Key,
    /// Who held or holds it, as they said.
    pub owner: Option<Arc<str>>,
    /// The fencing token of the grant; `None` for a refused request.
    pub fencing_token: Option<FencingToken>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a lock.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// It was granted.
    Granted {
        /// How it is held.
        mode: Mode,
        /// Its TTL.
        ttl: Duration,
    },
    /// Its holder let go.
    Released {
        /// For how long it was held.
        held: Duration,
    },
    /// Its deadline passed, or its session's did.
    Expired {
        /// For how long it was held.
        held: Duration,
    },
    /// Its deadline was moved.
    Refreshed {
        /// The time until the new one.
        remaining: Duration,
    },
    /// It was taken from its holder, but not by an operator.
    Lost {
        /// Why.
        why: Loss,
        /// For how long it was held.
        held: Duration,
    },
    /// An operator took it.
    Forced {
        /// For how long it was held.
        held: Duration,
    },
    /// A request was refused, or a holder revoked, to break a deadlock.
    Deadlock {
        /// Who waits for what, in order.
        cycle: Arc<[WaitEdge]>,
    },
}

impl EventKind {
    /// The event of a grant that ended so.
    pub(crate) fn ended(end: End, held: Duration) -> Self {
        match end {
            End::Released | End::ByToken | End::Dropped | End::SessionEnded => Self::Released { held },
            End::Expired => Self::Expired { held },
            End::Forced => Self::Forced { held },
            End::Revoked | End::Vanished | End::ShutDown => Self::Lost { why: end.as_loss(), held },
        }
    }
}

/// Where events go.
pub(crate) trait Sink: Send + Sync {
    /// The next sequence number; asked for under the shard's mutex.
    fn next(&self) -> u64;
    /// Passes an event on; called after the mutex is dropped.
    fn publish(&self, event: Event);
}

/// Who listens to one shard.
#[derive(Default)]
pub(crate) struct Subscriptions {
    sink: Option<Arc<dyn Sink>>,
    everything: u32,
    /// Listeners by their key's hash.
    keys: HashMap<u32, u32, foldhash::fast::RandomState>,
}

/// The events that a listener wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Everything,
    Key { hash: u32 },
}

impl Subscriptions {
    pub(crate) fn open(&mut self, interest: Interest, sink: Arc<dyn Sink>) {
        self.sink = Some(sink);
        match interest {
            Interest::Everything => self.everything += 1,
            Interest::Key { hash } => *self.keys.entry(hash).or_default() += 1,
        }
    }

    pub(crate) fn close(&mut self, interest: Interest) {
        match interest {
            Interest::Everything => self.everything = self.everything.saturating_sub(1),
            Interest::Key { hash } => {
                if let Some(count) = self.keys.get_mut(&hash) {
                    *count -= 1;
                    if *count == 0 {
                        self.keys.remove(&hash);
                    }
                }
            }
        }
        if !self.are_open() {
            self.sink = None;
        }
    }

    pub(crate) fn are_open(&self) -> bool {
        self.everything > 0 || !self.keys.is_empty()
    }

    /// Where an event of this key goes, if anybody wants it.
    pub(crate) fn sink_of(&self, hash: u32) -> Option<&Arc<dyn Sink>> {
        self.sink.as_ref().filter(|_| self.everything > 0 || self.keys.contains_key(&hash))
    }
}

debug_of!(Subscriptions, |it| everything: it.everything, keys: it.keys.len());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::key::Ttl;
    use crate::table::{AcquireRequest, Claim, GrantState, Limits, Table, Terms, TokenOrigin};

    struct Deaf;

    impl Sink for Deaf {
        fn next(&self) -> u64 {
            0
        }

        fn publish(&self, _: Event) {}
    }

    /// Whether the lane would answer now.
    fn lane_is_used(table: &mut Table) -> bool {
        let (key, now) = (Key::new("k").expect("a good key"), Moment::from_nanos(1));
        let terms = Terms { ttl: Ttl::new(Duration::from_secs(1)).expect("a good ttl"), extra: None };
        let (token, origin) = (None, TokenOrigin::Minted);
        let request =
            AcquireRequest { key: &key, hash: 1, terms: &terms, token, origin, grant_state: GrantState::Guard(origin) };
        let Ok(grant) = table.grant_if_free(&request, now) else { return false };
        assert!(table.release_if_alone(&grant, End::Released, now).is_some());
        true
    }

    #[test]
    fn the_lane_is_used_until_the_first_listener_comes_and_again_after_the_last_went() {
        let limits = Limits { keys: 9, members: 9, waiters: 9, waiters_per_key: 9 };
        let mut table = Table::new(limits, Claim::Local, 1, Moment::from_nanos(1));
        assert!(lane_is_used(&mut table));
        let listeners = [Interest::Everything, Interest::Key { hash: 7 }, Interest::Key { hash: 7 }];
        for interest in listeners {
            table.listen(interest, Arc::new(Deaf));
        }
        for interest in listeners {
            assert!(!lane_is_used(&mut table));
            table.stop_listening(interest);
        }
        assert!(lane_is_used(&mut table));
    }
}
