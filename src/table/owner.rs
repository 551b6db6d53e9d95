//! Who asks, where that is more than a name: a session, or the callback of a `run`. One owner may hold and wait for
//! many keys, in many shards.
//!
//! What all shards must agree on is in atomics here, and nothing else is: above all the session's deadline, a single
//! atomic. Expiry sets it to `EXPIRED` before any shard hands on one of the session's keys, a heartbeat fails on that,
//! and the session's locks read it: a heartbeat costs the same however many they are, and cannot revive half of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashSet;
use uuid::Uuid;

use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::{KeyFault, Ttl, check_key};
use crate::quota::Quota;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The longest name of an owner, in bytes.
const MAX_OWNER_BYTES: usize = 128;
/// The state of a session that ran out.
const EXPIRED: u64 = 0;
/// The state of a session that was ended.
const ENDED: u64 = 1;

/// Names an owner, in all shards. To the deadlock check it is one actor, which runs only if all its waits are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnerId(pub(crate) u64);

/// A set of owners.
pub(crate) type OwnerSet = HashSet<OwnerId, foldhash::fast::RandomState>;

#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    name: Option<Arc<str>>,
    kind: OwnerKind,
    /// The id that a session is found by, once it is registered.
    known_as: OnceLock<Uuid>,
    /// From when its beats count.
    made_at: Moment,
    /// Nanoseconds of the session's deadline, or why it has none any more.
    state: AtomicU64,
    /// Nanoseconds of the deadline that it ran out at.
    ran_out_at: AtomicU64,
    /// Locks that it holds or waits for.
    pub(crate) locks: Quota,
    /// Waits that the deadlock check knows of.
    waits: AtomicU32,
    /// Grants that it has, in all shards, and keys that are being taken for it.
    grants: AtomicU32,
    /// Of these, keys that are being taken.
    takings: AtomicU32,
}

/// Whose time an owner's locks run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OwnerKind {
    /// Their own: it is the callback of a `run`.
    Call,
    /// The session's, which lives for its TTL from now, and from each heartbeat.
    Session(Ttl),
}

impl Owner {
    pub(crate) fn new(name: Option<Arc<str>>, kind: OwnerKind, now: Moment, max_locks: u32) -> Self {
        /// Tells owners apart, for as long as the process lives.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let deadline = match kind {
            OwnerKind::Call => Moment::FAR,
            OwnerKind::Session(ttl) => now.after(ttl),
        };
        Self {
            id: OwnerId(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            name,
            kind,
            known_as: OnceLock::new(),
            made_at: now,
            state: AtomicU64::new(deadline.as_nanos()),
            ran_out_at: AtomicU64::new(deadline.as_nanos()),
            locks: Quota::of(max_locks),
            waits: AtomicU32::new(0),
            grants: AtomicU32::new(0),
            takings: AtomicU32::new(0),
        }
    }

    /// What it is called where a name is needed.
    pub(crate) fn label(&self) -> Arc<str> {
        self.name.clone().unwrap_or_else(|| format!("run #{}", self.id.0).into())
    }

    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    pub(crate) fn is_session(&self) -> bool {
        matches!(self.kind, OwnerKind::Session(_))
    }

    /// The id that a registered session is found by.
    pub(crate) fn known_as(&self) -> Option<Uuid> {
        self.known_as.get().copied()
    }

    /// The session is found by this id from now on.
    pub(crate) fn make_known(&self, id: Uuid) {
        // A session that is registered again has the id that it had.
        let _ = self.known_as.set(id);
    }

    /// The session's TTL.
    pub(crate) fn ttl(&self) -> Option<Ttl> {
        match self.kind {
            OwnerKind::Call => None,
            OwnerKind::Session(ttl) => Some(ttl),
        }
    }

    /// The session's deadline; `Err` says how it ended. Ends it if its time is over.
    pub(crate) fn settle(&self, now: Moment) -> Result<Moment, Loss> {
        loop {
            let state = self.state.load(Ordering::Acquire);
            match self.read(state) {
                Ok(deadline) if deadline > now => return Ok(deadline),
                Ok(_) => {
                    // Before the state is `EXPIRED`: whoever finds that reads this.
                    self.ran_out_at.store(state, Ordering::Release);
                    let _ = self.state.compare_exchange(state, EXPIRED, Ordering::AcqRel, Ordering::Acquire);
                }
                Err(loss) => return Err(loss),
            }
        }
    }

    /// The session's deadline, past or not; `Err` says how it ended.
    pub(crate) fn deadline(&self) -> Result<Moment, Loss> {
        self.read(self.state.load(Ordering::Acquire))
    }

    /// The session's deadline, past or not, also after it ran out; `None`: it was ended.
    pub(crate) fn until(&self) -> Option<Moment> {
        match self.deadline() {
            Ok(deadline) => Some(deadline),
            Err(Loss::Expired) => Some(Moment::from_nanos(self.ran_out_at.load(Ordering::Acquire))),
            Err(_) => None,
        }
    }

    /// The first of its beats after `now`: these moments come `every` so often. What its locks ask of a store they ask
    /// on the beat, in whatever shards they are, so that it goes out together.
    pub(crate) fn beat_after(&self, now: Moment, every: Duration) -> Moment {
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1);
        let beats = now.nanos_since(self.made_at) / every;
        self.made_at.saturating_add(Duration::from_nanos(every.saturating_mul(beats.saturating_add(1))))
    }

    /// Moves the deadline to `ttl` from `now`, never back (T6), and never to life again.
    pub(crate) fn heartbeat(&self, ttl: Ttl, now: Moment) -> Result<Moment, Loss> {
        loop {
            let deadline = self.settle(now)?;
            let later = deadline.max(now.after(ttl));
            let (from, to) = (deadline.as_nanos(), later.as_nanos());
            if self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Ok(later);
            }
        }
    }

    /// Ends the session. `Err` says how it had ended before.
    pub(crate) fn end(&self, now: Moment) -> Result<(), Loss> {
        loop {
            let deadline = self.settle(now)?.as_nanos();
            if self.state.compare_exchange(deadline, ENDED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Ok(());
            }
        }
    }

    fn read(&self, state: u64) -> Result<Moment, Loss> {
        match state {
            EXPIRED => Err(Loss::Expired),
            ENDED => Err(Loss::SessionEnded),
            nanos => Ok(Moment::from_nanos(nanos)),
        }
    }

    /// Counts a wait, before anything is looked at for it: a grant that this look did not see will see the count.
    pub(crate) fn add_wait(&self) {
        self.waits.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn drop_wait(&self) {
        self.waits.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn waits(&self) -> u32 {
        self.waits.load(Ordering::SeqCst)
    }

    /// Counts a grant, before the owner's waits are looked at for it: of a wait that begins and a grant that is made
    /// at the same time, at least one sees the other.
    pub(crate) fn add_grant(&self) {
        self.grants.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn drop_grant(&self) {
        self.grants.fetch_sub(1, Ordering::SeqCst);
    }

    /// A key that counts as its grant is being taken from the store for it.
    pub(crate) fn begin_taking(&self) {
        self.takings.fetch_add(1, Ordering::SeqCst);
    }

    /// It is its own now, or not any more.
    pub(crate) fn end_taking(&self) {
        self.takings.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many grants it has that the store, where there is one, has given.
    pub(crate) fn held(&self) -> u32 {
        self.grants.load(Ordering::SeqCst).saturating_sub(self.takings.load(Ordering::SeqCst))
    }

    /// Whether it has a grant that the store, where there is one, has given.
    pub(crate) fn holds_something(&self) -> bool {
        self.held() > 0
    }

    /// Whether it has no grant: nobody waits for it then.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.grants.load(Ordering::SeqCst) == 0
    }
}

/// An owner is itself and nobody else.
impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// Holds the name of an owner to its bounds.
pub(crate) fn check_owner(name: &str) -> Result<(), LockError> {
    let why = match check_key(name, MAX_OWNER_BYTES) {
        Ok(()) => return Ok(()),
        Err(KeyFault::Empty) => "it is empty",
        Err(KeyFault::TooLong { .. }) => "it is longer than 128 bytes",
        Err(_) => "it has a control character",
    };
    Err(LockError::InvalidOption { option: "owner", why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_come_at_the_same_moments_whenever_they_are_asked_for() {
        let (ms, start) = (Duration::from_millis, Moment::from_nanos(1 << 40));
        let owner = Owner::new(None, OwnerKind::Call, start, 1);
        let beats = [0, 1, 9, 10, 11, 25].map(|at| owner.beat_after(start.saturating_add(ms(at)), ms(10)));
        assert_eq!(beats, [10, 10, 10, 20, 20, 30].map(|at| start.saturating_add(ms(at))));
        assert_eq!(owner.beat_after(Moment::ZERO, ms(10)), start.saturating_add(ms(10)));
        assert!(owner.beat_after(start, Duration::MAX) > start && owner.beat_after(start, Duration::ZERO) > start);
    }
}
