//! Sessions that are found again by their ids, for those whose handles cannot be kept: a client over HTTP brings the
//! id with every request.
//!
//! The registry does not keep a session alive, its heartbeats do. It forgets those that have ended whenever it has
//! doubled, so that keeping costs a constant time each on average; and when it is full, but then not more often than
//! something can have changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use uuid::Uuid;

use crate::account::Account;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::Ttl;
use crate::manager::LockManager;
use crate::session::Session;
use crate::table::{Owner, Reentry};

/// Below this many sessions it is not worth looking for ended ones.
const FEW: usize = 64;
/// How often a full registry is looked through for sessions that ran out.
const FULL_SWEEP_EVERY: Duration = Duration::from_millis(100);

/// What a session is made of, without its manager: the registry belongs to that.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) owner: Arc<Owner>,
    pub(crate) ttl: Ttl,
    pub(crate) reentry: Reentry,
}

/// A kept session, and whose it is.
#[derive(Debug)]
struct Entry {
    kept: Kept,
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
            account.give_session_back();
        }
    }
}

/// The kept sessions of one manager.
pub(crate) struct KeptSessions {
    sessions: DashMap<Uuid, Entry>,
    /// From how many on the ended ones are looked for.
    sweep_at: AtomicUsize,
    /// When it was last done, in nanoseconds.
    swept_at: AtomicU64,
    /// Whether one was ended since.
    has_ended: AtomicBool,
    max: usize,
}

impl KeptSessions {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            sessions: DashMap::new(),
            sweep_at: AtomicUsize::new(FEW),
            swept_at: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            max,
        }
    }

    /// Refused when there are `max` live ones. Keepers that come at the same moment may each find the last place.
    fn keep(&self, id: Uuid, kept: Kept, account: Option<&Account>, now: Moment) -> Result<(), LockError> {
        let len = self.sessions.len();
        let is_full = len >= self.max || account.is_some_and(|account| !account.has_room_for_a_session());
        if len >= self.sweep_at.load(Ordering::Relaxed) || is_full && self.may_have_room(now) {
            self.has_ended.store(false, Ordering::Relaxed);
            self.swept_at.store(now.as_nanos(), Ordering::Relaxed);
            self.sessions.retain(|_, entry| entry.kept.owner.settle(now).is_ok());
            self.sweep_at.store((self.sessions.len() * 2).max(FEW), Ordering::Relaxed);
        }
        if self.sessions.contains_key(&id) {
            return Ok(());
        }
        if self.sessions.len() >= self.max {
            return Err(LockError::TooManySessions);
        }
        if account.is_some_and(|account| !account.take_session()) {
            return Err(LockError::SessionQuota);
        }
        self.sessions.insert(id, Entry { kept, account: account.cloned() });
        Ok(())
    }

    fn may_have_room(&self, now: Moment) -> bool {
        let swept_at = Moment::from_nanos(self.swept_at.load(Ordering::Relaxed));
        self.has_ended.load(Ordering::Relaxed) || now.saturating_since(swept_at) >= FULL_SWEEP_EVERY
    }

    /// Hears that a session, kept or not, was ended by its owner.
    pub(crate) fn hear_end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

impl Session {
    /// Has the manager find this session by its [`id`](Session::id), until some time after it has ended.
    ///
    /// The id is a random UUID, and then a capability: whoever has it asks for locks in the session's name, and ends it.
    ///
    /// # Errors
    /// [`LockError::TooManySessions`] beyond the builder's [`max_sessions`](crate::Builder::max_sessions);
    /// [`LockError::SessionEnded`]; what a setting that made no sense is answered with.
    pub fn keep(&self) -> Result<(), LockError> {
        self.keep_as(None)
    }

    /// The same for one account alone: only who comes with an account of that name [finds](LockManager::find_session_of)
    /// the session, so that a stolen id is of no use to others.
    ///
    /// # Errors
    /// Besides: [`LockError::SessionQuota`] beyond the account's [`max_sessions`](Account::max_sessions).
    pub fn keep_for(&self, account: &Account) -> Result<(), LockError> {
        self.keep_as(Some(account))
    }

    fn keep_as(&self, account: Option<&Account>) -> Result<(), LockError> {
        let kept = self.kept()?;
        let manager = self.manager();
        if !self.is_alive() {
            return Err(LockError::SessionEnded);
        }
        manager.kept_sessions().keep(self.id(), kept, account, manager.now())
    }
}

impl LockManager {
    /// The session that was [kept](Session::keep) under this id; `None` if there was none, or it ended a while ago. One
    /// that ended lately is found, and answers [`LockError::SessionEnded`].
    #[must_use]
    pub fn find_session(&self, id: Uuid) -> Option<Session> {
        let kept = self.kept_sessions().sessions.get(&id)?.kept.clone();
        Some(Session::found(self, id, kept))
    }

    /// How many kept sessions there are that have not ended.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        let now = self.now();
        let is_open = |kept: &Kept| kept.owner.deadline().is_ok_and(|deadline| deadline > now);
        self.kept_sessions().sessions.iter().filter(|entry| is_open(&entry.kept)).count()
    }

    /// The same, if it was kept [for this account](Session::keep_for), or for none if that is `None`: to the wrong one
    /// it is as if there were none.
    #[must_use]
    pub fn find_session_of(&self, account: Option<&Account>, id: Uuid) -> Option<Session> {
        let entry = self.kept_sessions().sessions.get(&id)?;
        let kept = entry.is_of(account).then(|| entry.kept.clone())?;
        drop(entry);
        Some(Session::found(self, id, kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn over(max: usize) -> (ManualClock, LockManager) {
        let clock = ManualClock::new();
        (clock.clone(), LockManager::builder().clock(clock.clock()).max_sessions(max).build().unwrap())
    }

    #[test]
    fn ended_sessions_make_room_and_are_forgotten() {
        let (clock, locks) = over(100);
        let first = locks.session("first");
        first.keep().unwrap();
        (1..100).for_each(|_| locks.session("more").keep().unwrap());
        assert_eq!(locks.session("one too many").keep(), Err(LockError::TooManySessions));
        first.keep().expect("it has its place already");
        clock.advance(Duration::from_secs(30));
        locks.session("new").keep().unwrap();
        assert_eq!(locks.kept_sessions().sessions.len(), 1);
        assert!(locks.find_session(first.id()).is_none());
        assert_eq!(locks.open_sessions(), 1);
    }

    #[actix_rt::test]
    async fn the_end_of_one_makes_room_at_once() {
        let (_, locks) = over(2);
        let [one, two] = ["one", "two"].map(|name| locks.session(name));
        [&one, &two].into_iter().for_each(|session| session.keep().unwrap());
        let three = locks.session("three");
        assert_eq!(three.keep(), Err(LockError::TooManySessions));
        one.end().await;
        three.keep().unwrap();
        assert_eq!(locks.session("four").keep(), Err(LockError::TooManySessions));
        assert!(locks.find_session(two.id()).is_some_and(|found| found.is_alive()));
    }

    #[test]
    fn as_many_as_live_are_kept_however_many_have_ended() {
        let (clock, locks) = over(1000);
        for _ in 0..20 {
            (0..100).for_each(|_| locks.session("short").ttl(Duration::from_secs(1)).keep().unwrap());
            clock.advance(Duration::from_secs(1));
        }
        assert!(locks.kept_sessions().sessions.len() <= 200, "the ended ones are forgotten on the way");
    }

    #[test]
    fn a_kept_session_does_not_keep_its_manager() {
        let (_, locks) = over(100);
        locks.session("s").keep().unwrap();
        let manager = locks.downgrade();
        drop(locks);
        assert!(manager.upgrade().is_none());
    }
}
