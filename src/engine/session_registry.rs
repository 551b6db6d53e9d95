//! Sessions that are found again by their ids, for those whose handles cannot be kept: a client over HTTP brings the
//! id with every request.
//!
//! The registry does not keep a session alive, its heartbeats do. It forgets those that have ended whenever it has
//! doubled, so that registering costs a constant time each on average; and when it is full, but then not more often
//! than something can have changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use uuid::Uuid;

use crate::account::Account;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::Ttl;
use crate::table::{Owner, Reentry};

/// Below this many sessions it is not worth looking for ended ones.
const FEW: usize = 64;
/// How often a full registry is looked through for sessions that ran out.
const FULL_SWEEP_EVERY: Duration = Duration::from_millis(100);

/// What a session is made of, without its manager: the registry is part of that.
#[derive(Clone, Debug)]
pub(crate) struct SessionParts {
    pub(crate) owner: Arc<Owner>,
    pub(crate) ttl: Ttl,
    /// What its locks are asked for with.
    pub(crate) lock_ttl: Ttl,
    pub(crate) reentry: Reentry,
}

/// A registered session, and the account that it is charged to.
#[derive(Debug)]
struct Entry {
    session: SessionParts,
    account: Option<Account>,
}

impl Entry {
    fn is_of(&self, account: Option<&Account>) -> bool {
        self.account.as_ref().map(Account::name) == account.map(Account::name)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(account) = &self.account {
            account.session_quota().give_back();
        }
    }
}

/// The registered sessions of one manager.
pub(crate) struct SessionRegistry {
    sessions: DashMap<Uuid, Entry>,
    /// From how many on the ended ones are looked for.
    sweep_at: AtomicUsize,
    /// When it was last done, in nanoseconds.
    swept_at: AtomicU64,
    /// Whether one was ended since.
    has_ended: AtomicBool,
    max: usize,
}

impl SessionRegistry {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            sessions: DashMap::new(),
            sweep_at: AtomicUsize::new(FEW),
            swept_at: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            max,
        }
    }

    /// Refused when there are `max` live ones. Calls at the same moment may each take the last place.
    pub(crate) fn register(
        &self,
        id: Uuid,
        session: SessionParts,
        account: Option<&Account>,
        now: Moment,
    ) -> Result<(), LockError> {
        let len = self.sessions.len();
        let is_full = len >= self.max || account.is_some_and(|account| !account.session_quota().has_room());
        if len >= self.sweep_at.load(Ordering::Relaxed) || is_full && self.may_have_room(now) {
            self.sweep(now);
        }
        if self.sessions.contains_key(&id) {
            return Ok(());
        }
        if self.sessions.len() >= self.max {
            return Err(LockError::TooManySessions);
        }
        if account.is_some_and(|account| !account.session_quota().take()) {
            return Err(LockError::SessionQuota);
        }
        self.sessions.insert(id, Entry { session, account: account.cloned() });
        Ok(())
    }

    /// Forgets the sessions that have ended.
    fn sweep(&self, now: Moment) {
        // Before the look at them: one that ends meanwhile is for the next sweep.
        self.has_ended.store(false, Ordering::Relaxed);
        self.swept_at.store(now.as_nanos(), Ordering::Relaxed);
        self.sessions.retain(|_, entry| entry.session.owner.settle(now).is_ok());
        self.sweep_at.store((self.sessions.len() * 2).max(FEW), Ordering::Relaxed);
    }

    /// The session under this id, if there is one that has not been forgotten.
    pub(crate) fn find(&self, id: Uuid) -> Option<SessionParts> {
        Some(self.sessions.get(&id)?.session.clone())
    }

    /// The same, if it is registered for this account, or for none if that is `None`.
    pub(crate) fn find_of(&self, account: Option<&Account>, id: Uuid) -> Option<SessionParts> {
        let entry = self.sessions.get(&id)?;
        entry.is_of(account).then(|| entry.session.clone())
    }

    /// How many have not ended.
    pub(crate) fn open(&self, now: Moment) -> usize {
        let is_open = |session: &SessionParts| session.owner.deadline().is_ok_and(|deadline| deadline > now);
        self.sessions.iter().filter(|entry| is_open(&entry.session)).count()
    }

    /// What is to be told of each, with the account that it is charged to.
    pub(crate) fn list<T>(&self, tell: impl Fn(&SessionParts, Option<&Account>) -> Option<T>) -> Vec<T> {
        self.sessions.iter().filter_map(|entry| tell(&entry.session, entry.account.as_ref())).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn may_have_room(&self, now: Moment) -> bool {
        let swept_at = Moment::from_nanos(self.swept_at.load(Ordering::Relaxed));
        self.has_ended.load(Ordering::Relaxed) || now.saturating_since(swept_at) >= FULL_SWEEP_EVERY
    }

    /// Notes that a session, registered or not, was ended by its owner: there may be room again.
    pub(crate) fn note_end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}
