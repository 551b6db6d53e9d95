//! Accounts: whom locks and sessions are charged to, and how many of each that one may have at once.
//!
//! A lock is charged from the moment it is granted or queued for until it has ended or was given up, a session for as
//! long as it is registered. Several processes that share a store do not share accounts. Called by requests and
//! sessions, counted in `table`.

use std::sync::Arc;

use crate::quota::Quota;

/// Whom locks and sessions are charged to: one of several users of a manager, none of whom is to take everything.
///
/// ```
/// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use leasehold::{Account, LockError};
/// # let locks = leasehold::LockManager::builder().build()?;
/// let tenant = Account::new("tenant-7").max_locks(1);
/// let _one = locks.lock("a").account(&tenant).await?;
/// assert_eq!(locks.lock("b").account(&tenant).await.unwrap_err(), LockError::LockQuota);
/// assert_eq!(tenant.locks(), 1);
/// # Ok(()) }
/// ```
///
/// Cheap to clone; every clone is the same account. Without bounds it only counts.
#[derive(Clone)]
#[must_use]
pub struct Account(Arc<Charges>);

struct Charges {
    name: Box<str>,
    locks: Quota,
    sessions: Quota,
}

impl Account {
    /// An account without bounds. The name is whom a [registered session](crate::Session::register_for) belongs to.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self(Arc::new(Charges { name: name.into(), locks: Quota::of(u32::MAX), sessions: Quota::of(u32::MAX) }))
    }

    /// How many locks it may hold and wait for together, from now on; beyond it,
    /// [`LockError::LockQuota`](crate::LockError::LockQuota).
    pub fn max_locks(self, max: u32) -> Self {
        self.0.locks.set_max(max);
        self
    }

    /// How many sessions may be registered for it, from now on; beyond it,
    /// [`LockError::SessionQuota`](crate::LockError::SessionQuota).
    pub fn max_sessions(self, max: u32) -> Self {
        self.0.sessions.set_max(max);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many locks it holds and waits for.
    #[must_use]
    pub fn locks(&self) -> u32 {
        self.0.locks.taken()
    }

    /// How many sessions are registered for it, with those that have ended a while ago at most.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.0.sessions.taken()
    }

    pub(crate) fn lock_quota(&self) -> &Quota {
        &self.0.locks
    }

    pub(crate) fn session_quota(&self) -> &Quota {
        &self.0.sessions
    }
}

/// An account is itself and nobody else.
impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

debug_of!(Account, |it| name: it.name(), locks: it.locks(), sessions: it.sessions());

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{LockError, LockManager, ManualClock};

    fn stopped() -> (ManualClock, LockManager) {
        let clock = ManualClock::new();
        (clock.clone(), LockManager::builder().clock(clock.clock()).build().unwrap())
    }

    #[actix_rt::test]
    async fn whatever_ends_a_lock_or_a_wait_gives_its_place_back() {
        let (clock, locks) = stopped();
        let account = Account::new("a").max_locks(2);
        let ask = |key: &'static str| locks.lock(key).account(&account).wait_forever();
        let one = ask("1").await.unwrap();
        let other = locks.lock("2").await.unwrap();
        let mut waits = Box::pin(ask("2").into_future());
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert_eq!((account.locks(), ask("3").await.unwrap_err()), (2, LockError::LockQuota));
        drop(waits);
        assert_eq!(account.locks(), 1);
        let mut waits = Box::pin(ask("2").into_future());
        assert!(futures_util::poll!(&mut waits).is_pending());
        other.unlock().await;
        let two = waits.await.unwrap();
        assert_eq!(account.locks(), 2, "a place is handed on with the lock");
        assert_eq!(locks.try_lock("2").account(&account).await.unwrap_err(), LockError::Held);
        one.unlock().await;
        drop(two);
        assert_eq!(account.locks(), 0);
        let ticket = ask("1").ttl(Duration::from_secs(1)).ticket().await.unwrap();
        locks.release(ticket.key(), ticket.token()).await.unwrap();
        let _expires = ask("1").ttl(Duration::from_secs(1)).ticket().await.unwrap();
        clock.advance(Duration::from_secs(1));
        let forced = ask("1").await.unwrap();
        locks.force_release("1").await.unwrap();
        assert!(!forced.is_held() && account.locks() == 0);
        let session = locks.session("s");
        let _shared = session.read("r").account(&account).await.unwrap();
        let _permit = locks.semaphore("p", 3).permits(1).account(&account).await.unwrap();
        assert_eq!(session.read("q").account(&account).await.unwrap_err(), LockError::LockQuota);
        session.end().await;
        assert_eq!(account.locks(), 1);
    }

    #[actix_rt::test]
    async fn a_request_that_is_made_again_by_its_token_is_charged_once() {
        let (_clock, locks) = stopped();
        let account = Account::new("a").max_locks(1);
        let ask = || locks.lock("k").account(&account).token(uuid::Uuid::from_u128(7)).ticket();
        let first = ask().await.unwrap();
        assert_eq!(ask().await.unwrap().fencing_token(), first.fencing_token());
        assert_eq!(account.locks(), 1);
    }

    #[actix_rt::test]
    async fn a_registered_session_is_its_accounts_alone() {
        let (clock, locks) = stopped();
        let [mine, other] = ["mine", "other"].map(|name| Account::new(name).max_sessions(2));
        let [one, two, three] = ["one", "two", "three"].map(|name| locks.session(name));
        [&one, &two].into_iter().for_each(|session| session.register_for(&mine).unwrap());
        one.register_for(&mine).expect("it has its place already");
        assert_eq!((three.register_for(&mine), mine.sessions()), (Err(LockError::SessionQuota), 2));
        three.register_for(&other).unwrap();
        assert!(locks.find_session_of(Some(&mine), one.id()).is_some());
        assert!(locks.find_session_of(Some(&Account::new("mine")), one.id()).is_some(), "it goes by the name");
        for stranger in [Some(&other), None] {
            assert!(locks.find_session_of(stranger, one.id()).is_none());
        }
        two.end().await;
        let four = locks.session("four");
        four.register_for(&mine).expect("the end of one makes room");
        clock.advance(Duration::from_secs(31));
        let five = locks.session("five");
        five.register_for(&mine).expect("those that ran out make room");
        assert_eq!(mine.sessions(), 1);
    }
}
