//! Sessions that are found again by their ids: [`Session::register`], [`LockManager::find_session`].

use uuid::Uuid;

use super::Session;
use crate::account::Account;
use crate::engine::LockManager;
use crate::error::LockError;

impl Session {
    /// Has the manager find this session by its [`id`](Session::id), until some time after it has ended.
    ///
    /// The id is a random UUID, and then a capability: whoever has it asks for locks in the session's name, and ends
    /// it.
    ///
    /// # Errors
    /// [`LockError::TooManySessions`] beyond the builder's [`max_sessions`](crate::Builder::max_sessions);
    /// [`LockError::SessionEnded`]; what a setting that made no sense is answered with.
    pub fn register(&self) -> Result<(), LockError> {
        self.register_as(None)
    }

    /// The same for one account alone: only who comes with an account of that name
    /// [finds](LockManager::find_session_of) the session, so that a stolen id is of no use to others.
    ///
    /// # Errors
    /// Besides: [`LockError::SessionQuota`] beyond the account's [`max_sessions`](Account::max_sessions).
    pub fn register_for(&self, account: &Account) -> Result<(), LockError> {
        self.register_as(Some(account))
    }

    fn register_as(&self, account: Option<&Account>) -> Result<(), LockError> {
        let parts = self.parts()?;
        let manager = self.manager();
        if !self.is_alive() {
            return Err(LockError::SessionEnded);
        }
        parts.owner.make_known(self.id());
        manager.sessions().register(self.id(), parts, account, manager.now())
    }
}

impl LockManager {
    /// The session that was [registered](Session::register) under this id; `None` if there was none, or it ended a
    /// while ago. One that ended lately is found, and answers [`LockError::SessionEnded`].
    #[must_use]
    pub fn find_session(&self, id: Uuid) -> Option<Session> {
        let parts = self.sessions().find(id)?;
        Some(Session::from_parts(self, id, parts, None))
    }

    /// How many registered sessions have not ended.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.sessions().open(self.now())
    }

    /// The same, if it was registered [for this account](Session::register_for), or for none if that is `None`: to the
    /// wrong one it is as if there were none.
    #[must_use]
    pub fn find_session_of(&self, account: Option<&Account>, id: Uuid) -> Option<Session> {
        let parts = self.sessions().find_of(account, id)?;
        Some(Session::from_parts(self, id, parts, None))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        first.register().unwrap();
        (1..100).for_each(|_| locks.session("more").register().unwrap());
        assert_eq!(locks.session("one too many").register(), Err(LockError::TooManySessions));
        first.register().expect("it has its place already");
        clock.advance(Duration::from_secs(30));
        locks.session("new").register().unwrap();
        assert_eq!(locks.sessions().len(), 1);
        assert!(locks.find_session(first.id()).is_none());
        assert_eq!(locks.open_sessions(), 1);
    }

    #[actix_rt::test]
    async fn the_end_of_one_makes_room_at_once() {
        let (_, locks) = over(2);
        let [one, two] = ["one", "two"].map(|name| locks.session(name));
        [&one, &two].into_iter().for_each(|session| session.register().unwrap());
        let three = locks.session("three");
        assert_eq!(three.register(), Err(LockError::TooManySessions));
        one.end().await;
        three.register().unwrap();
        assert_eq!(locks.session("four").register(), Err(LockError::TooManySessions));
        assert!(locks.find_session(two.id()).is_some_and(|found| found.is_alive()));
    }

    #[test]
    fn as_many_as_live_are_registered_however_many_have_ended() {
        let (clock, locks) = over(1000);
        for _ in 0..20 {
            (0..100).for_each(|_| locks.session("short").ttl(Duration::from_secs(1)).register().unwrap());
            clock.advance(Duration::from_secs(1));
        }
        assert!(locks.sessions().len() <= 200, "the ended ones are forgotten on the way");
    }

    #[test]
    fn a_registered_session_does_not_keep_its_manager() {
        let (_, locks) = over(100);
        locks.session("s").register().unwrap();
        let manager = locks.downgrade();
        drop(locks);
        assert!(manager.upgrade().is_none());
    }
}
