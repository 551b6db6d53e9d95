//! The ends of a lock that is not unlocked: its TTL, a drop, a forced release, a shutdown.

use std::time::Duration;

use super::{LONG, Make, SHORT, begun, fresh, is_done, manager, until, wait};
use crate::error::{LockError, Loss};
use crate::table::Release;

pub(super) fn a_lock_that_ran_out_is_lost_and_the_next_one_is_served(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str()).ttl(SHORT)).unwrap();
    let (held, lost) = (lock.held(), lock.lost());
    let next = begun(locks.lock(key.as_str()).ttl(LONG));
    assert_eq!(wait(lost), Some(Loss::Expired));
    assert!(!lock.is_held() && lock.deadline().is_none() && lock.remaining() == Duration::ZERO);
    assert_eq!(lock.ensure_held(), Err(LockError::Lost(Loss::Expired)));
    assert_eq!(wait(lock.refresh()).unwrap_err(), LockError::Lost(Loss::Expired));
    let fence = lock.fencing_token();
    let next = wait(next).unwrap();
    assert!(next.is_held() && (next.fencing_token() > fence || fence.is_none()));
    assert_eq!(wait(lock.unlock()), Release::AlreadyGone);
    assert_eq!(wait(held.lost()), Some(Loss::Expired), "however late it is asked");
    assert!(next.is_held());
    assert_eq!(locks.stats().expired, 1);
}

pub(super) fn a_dropped_lock_is_free(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    for _ in 0..10 {
        let lock = wait(locks.lock(key.as_str())).unwrap();
        let lost = lock.lost();
        drop(lock);
        assert_eq!(wait(lost), None, "a drop is no loss");
    }
    until("the end of the last", || wait(locks.try_lock(key.as_str())).is_ok());
    assert_eq!(locks.stats().active, 0);
}

pub(super) fn a_forced_lock_is_lost_and_free(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    assert_eq!(wait(locks.force_release(key.as_str())), Ok(Release::AlreadyGone));
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let next = begun(locks.lock(key.as_str()));
    assert_eq!(wait(locks.force_release(key.as_str())), Ok(Release::Released));
    assert_eq!(wait(lock.lost()), Some(Loss::Forced));
    let next = wait(next).unwrap();
    assert_eq!(wait(lock.unlock()), Release::AlreadyGone);
    assert!(next.is_held());
    assert_eq!(locks.stats().forced, 1);
}

pub(super) fn a_shutdown_refuses_who_waits_and_tells_who_holds(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let waiting = begun(locks.lock(key.as_str()));
    assert_eq!(wait(locks.shutdown(Duration::ZERO)), 1);
    assert_eq!(wait(waiting).unwrap_err(), LockError::ShuttingDown);
    assert_eq!(wait(lock.lost()), Some(Loss::ShutDown));
    assert_eq!(wait(lock.refresh()).unwrap_err(), LockError::Lost(Loss::ShutDown));
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::ShuttingDown);
    assert_eq!(wait(lock.unlock()), Release::AlreadyGone);
    assert_eq!(wait(locks.shutdown(Duration::ZERO)), 0, "again is harmless");
}

pub(super) fn a_shutdown_waits_for_who_releases_in_time(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let mut shutdown = begun(locks.shutdown(LONG));
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::ShuttingDown);
    assert!(!is_done(&mut shutdown) && lock.is_held() && wait(lock.refresh()).is_ok(), "who holds goes on holding");
    assert_eq!(wait(lock.unlock()), Release::Released);
    assert_eq!(wait(shutdown), 0);
}
