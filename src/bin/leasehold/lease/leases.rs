//! What `leasehold run` holds: one lock or several, which are held all or not at all, and end together.
//!
//! Several are acquired in the order of their keys, so that two programs that want the same ones cannot wait for each
//! other in a circle. Those that are held already get heartbeats while the next one is waited for.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use leasehold::{Clock, Moment, Token};

use super::progress::Progress;
use crate::exit::Failure;
use crate::lease::{Beat, Lease, LeaseSource, LeaseTerms};

/// The locks.
pub(crate) struct Leases {
    clock: Clock,
    held: Vec<Lease>,
    /// Heartbeats that were under way when the lock that was waited for was granted.
    under_way: Option<Beats>,
}

type Beats = Pin<Box<dyn Future<Output = Vec<Beat>>>>;

/// A heartbeat whose fate is not known is tried again after this share of the TTL, and no later than that.
const AGAIN_SHARE: u32 = 10;
const LATEST_AGAIN: Duration = Duration::from_secs(1);

/// What became of the heartbeats of all.
pub(crate) enum AllBeats {
    /// Every one was answered.
    Done,
    /// Nobody can tell of one; it lasts as long as it would have.
    Unknown(String),
    /// One has ended.
    Gone(String),
}

impl Leases {
    fn none() -> Self {
        Self { clock: Clock::system(), held: Vec::new(), under_way: None }
    }

    /// Acquires a lock on each of these terms before `end`, or none.
    ///
    /// # Errors
    /// One was not granted, or whether it was is not known; [`LeaseSource::give_up`] then sees to what may have come of it.
    pub(crate) async fn acquire(
        source: &LeaseSource,
        all: &mut [LeaseTerms],
        end: Moment,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        'afresh: loop {
            let mut leases = Self::none();
            for terms in all.iter_mut() {
                let ttl = terms.ttl;
                progress.begin(&terms.key);
                let lost = tokio::select! {
                    lease = source.acquire(terms, end, progress) => match lease {
                        Ok(lease) => {
                            leases.held.push(lease);
                            continue;
                        }
                        Err(why) => {
                            leases.give_up().await;
                            return Err(why);
                        }
                    },
                    lost = leases.keep(ttl) => lost,
                };
                leases.give_up().await;
                let why = Failure::NotAcquired(format!("a lock was lost while the next one was waited for: {lost}"));
                if leases_over(end) {
                    return Err(why);
                }
                progress.failing(&terms.key, &why);
                for terms in all.iter_mut() {
                    // What may have been granted under the old ones meanwhile is given back.
                    source.give_back(terms).await;
                    terms.token = Token::random();
                }
                continue 'afresh;
            }
            return Ok(leases);
        }
    }

    /// Sends heartbeats until a lock has ended; answers why. Without locks it never ends.
    async fn keep(&mut self, ttl: Duration) -> String {
        if self.held.is_empty() {
            return std::future::pending().await;
        }
        let mut lost = self.lost();
        let again = again(ttl);
        let mut pause = self.until_beat(ttl);
        loop {
            if self.under_way.is_none() {
                tokio::select! {
                    why = &mut lost => return why,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            // Kept when the next lock is granted meanwhile: what it has extended is not to be missed.
            let beats = self.under_way.take().unwrap_or_else(|| self.beat(ttl / 3));
            let beats = self.under_way.insert(beats).await;
            self.under_way = None;
            pause = match self.note(beats) {
                // At the end of its `max_hold` a lock is not extended any more.
                AllBeats::Done => self.until_beat(ttl).max(again),
                AllBeats::Unknown(_) => again,
                AllBeats::Gone(why) => return why,
            };
            if self.deadline() <= self.now() {
                return "its time ran out".to_owned();
            }
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// When the first of them ends.
    pub(crate) fn deadline(&self) -> Moment {
        self.held.iter().map(|lease| lease.deadline).min().unwrap_or_else(|| self.now())
    }

    /// How long until all must get a heartbeat: when a third of the TTL of the one that ends first is over.
    pub(crate) fn until_beat(&self, ttl: Duration) -> Duration {
        until_beat(self.deadline().saturating_since(self.now()), ttl)
    }

    /// In the order of the keys.
    pub(crate) fn fencing_tokens(&self) -> impl Iterator<Item = Option<u64>> {
        self.held.iter().map(|lease| lease.fencing_token)
    }

    /// A heartbeat for each, of their own: they may go on while the locks are looked at.
    pub(crate) fn beat(&self, within: Duration) -> Beats {
        Box::pin(join_all(self.held.iter().map(|lease| lease.beat(within))))
    }

    /// Takes note of the answers to a [`beat`](Self::beat).
    pub(crate) fn note(&mut self, beats: Vec<Beat>) -> AllBeats {
        let mut all = AllBeats::Done;
        for (lease, beat) in self.held.iter_mut().zip(beats) {
            match beat {
                // Never back (T6).
                Beat::Until(deadline) => lease.deadline = lease.deadline.max(deadline),
                Beat::Unknown(why) => all = AllBeats::Unknown(why),
                Beat::Gone(why) => return AllBeats::Gone(why),
            }
        }
        all
    }

    /// Resolves when the engine of this process learns that a lock has ended. A server says so to heartbeats only.
    pub(crate) fn lost(&self) -> Pin<Box<dyn Future<Output = String>>> {
        let lost: Vec<_> = self.held.iter().map(Lease::lost).collect();
        Box::pin(async { select_all(lost).await.0 })
    }

    /// Releases them all. What cannot be released ends with its TTL.
    ///
    /// # Errors
    /// `Lost` if one had ended before, `Unavailable` if that cannot be told.
    pub(crate) async fn release(self) -> Result<(), Failure> {
        let released = join_all(self.held.into_iter().map(Lease::release)).await;
        let mut unknown = Ok(());
        for one in released {
            match one {
                Err(why @ Failure::Lost(_)) => return Err(why),
                Err(why) => unknown = Err(why),
                Ok(()) => {}
            }
        }
        unknown
    }

    /// Gives back what may be left of locks under which nothing runs any more.
    pub(crate) async fn give_up(&mut self) {
        join_all(self.held.drain(..).map(Lease::give_up)).await;
    }
}

/// How soon a heartbeat whose fate is not known is tried again.
pub(crate) fn again(ttl: Duration) -> Duration {
    (ttl / AGAIN_SHARE).min(LATEST_AGAIN)
}

/// How long a lock that lasts for `left` may go on without a heartbeat.
fn until_beat(left: Duration, ttl: Duration) -> Duration {
    left.saturating_sub(ttl / 3 * 2).min(ttl / 3)
}

fn leases_over(end: Moment) -> bool {
    Clock::system().now() >= end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_waited_for_long_gets_its_heartbeat_at_once() {
        let ms = Duration::from_millis;
        for (left, pause) in [(300, 100), (299, 99), (250, 50), (200, 0), (50, 0), (0, 0), (3000, 100)] {
            assert_eq!(until_beat(ms(left), ms(300)), ms(pause), "{left}");
        }
    }
}
