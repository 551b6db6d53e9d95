//! What a holder may do with its lock, and others may not.

use std::future::IntoFuture;
use std::time::Duration;

use super::{LONG, Make, SHORT, fresh, manager, until, wait};
use crate::error::{LockError, Loss};
use crate::key::Token;
use crate::mode::{Mode, ModeConflict};
use crate::table::Release;
use crate::{Held, LockManager};

pub(super) fn one_holds_and_all_others_are_told_so(make: &Make<'_>) {
    let (locks, key, other) = (manager(make), fresh(), fresh());
    let lock = wait(locks.try_lock(key.as_str())).unwrap();
    assert!(lock.is_held() && lock.ensure_held().is_ok());
    assert!(lock.key().as_str().ends_with(&key));
    assert!(lock.remaining() <= LONG && lock.remaining() > LONG / 2);
    for _ in 0..3 {
        assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    }
    let elsewhere = wait(locks.try_lock(other.as_str())).unwrap();
    assert_ne!(elsewhere.token(), lock.token());
    assert_eq!(wait(lock.unlock()), Release::Released);
    let next = wait(locks.try_lock(key.as_str())).unwrap();
    assert!(next.is_held() && elsewhere.is_held());
}

pub(super) fn an_unlock_ends_only_what_its_guard_holds(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let first = wait(locks.lock(key.as_str())).unwrap();
    assert_eq!(wait(locks.force_release(key.as_str())), Ok(Release::Released));
    let second = wait(locks.lock(key.as_str())).unwrap();
    assert_eq!(wait(first.unlock()), Release::AlreadyGone);
    assert!(second.is_held());
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    assert_eq!(second.unlock_now(), Release::Released);
    until("the end of the lock", || wait(locks.try_lock(key.as_str())).is_ok());
}

pub(super) fn a_token_releases_and_refreshes_what_it_holds_and_nothing_else(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let (stranger, never) = (Token::random(), Token::random());
    let ticket = wait(locks.lock(key.as_str()).ticket()).unwrap();
    assert_eq!(wait(locks.release(key.as_str(), stranger)), Err(LockError::NotHeld));
    assert_eq!(wait(locks.refresh(key.as_str(), stranger, None)).unwrap_err(), LockError::NotHeld);
    let refreshed = wait(locks.refresh(key.as_str(), ticket.token(), Some(LONG * 2))).unwrap();
    assert!(refreshed.remaining > LONG);
    assert_eq!(refreshed.count, 1);
    assert_eq!(wait(locks.release(key.as_str(), ticket.token())), Ok(Release::Released));
    assert_eq!(wait(locks.release(key.as_str(), ticket.token())), Ok(Release::AlreadyGone), "and again");
    let lost = wait(locks.refresh(key.as_str(), ticket.token(), None)).unwrap_err();
    assert_eq!(lost, LockError::Lost(Loss::Released));
    assert_eq!(wait(locks.release(key.as_str(), never)), Ok(Release::AlreadyGone), "nobody holds it");
    assert_eq!(wait(locks.refresh(key.as_str(), never, None)).unwrap_err(), LockError::Lost(Loss::Unknown));
    assert!(wait(locks.try_lock(key.as_str())).is_ok());
}

pub(super) fn a_refresh_lengthens_and_never_shortens(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str()).ttl(LONG)).unwrap();
    let first = wait(lock.refresh_for(LONG * 2)).unwrap();
    assert!(first.remaining > LONG && lock.remaining() > LONG);
    let second = wait(lock.refresh()).unwrap();
    assert!(second.deadline >= first.deadline, "it shortened");
    assert!(lock.remaining() > LONG && second.count == 2);
    assert!(matches!(wait(lock.refresh_for(Duration::ZERO)), Err(LockError::InvalidTtl(_))));
    assert!(lock.is_held());
    assert_eq!(wait(locks.force_release(key.as_str())), Ok(Release::Released));
    assert_eq!(wait(lock.refresh()).unwrap_err(), LockError::Lost(Loss::Forced));
    assert_eq!(wait(lock.refresh_for(LONG)).unwrap_err(), LockError::Lost(Loss::Forced), "it was revived");
    assert!(wait(locks.try_lock(key.as_str())).is_ok());
}

/// A lock that is short, and that its holder has seen in time.
fn short(locks: &LockManager, key: &str) -> crate::Lock {
    loop {
        match wait(locks.lock(key).ttl(SHORT)) {
            Ok(lock) if lock.remaining() > SHORT / 2 => return lock,
            // The machine was elsewhere.
            Ok(_) | Err(LockError::Lost(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) fn an_automatic_refresh_keeps_a_lock_until_it_is_stopped(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = short(&locks, &key);
    let refreshing = lock.auto_refresh(SHORT / 10, SHORT / 10).unwrap();
    until("refreshes for longer than its ttl", || {
        assert_eq!(lock.ensure_held(), Ok(()), "it was not kept");
        locks.stats().refreshed > 12
    });
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    let failed = refreshing.failed();
    refreshing.stop();
    assert_eq!(wait(lock.lost()), Some(Loss::Expired));
    assert_eq!(wait(failed), Some(LockError::Lost(Loss::Expired)));
    assert!(wait(locks.lock(key.as_str())).is_ok());
}

pub(super) fn a_cap_ends_what_is_refreshed_for_ever(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str()).ttl(SHORT * 2).max_hold(SHORT * 4)).unwrap();
    let _refreshing = lock.auto_refresh(SHORT / 10, SHORT / 10).unwrap();
    assert_eq!(wait(lock.lost()), Some(Loss::Expired));
    assert!(wait(locks.lock(key.as_str())).is_ok());
}

pub(super) fn fences_rise_however_the_last_lock_ended(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let mut last = None;
    let mut take = || {
        let lock = wait(locks.lock(key.as_str())).unwrap();
        let fence = lock.fencing_token();
        // A store may promise none, but then never any.
        assert!(fence > last || (fence, last) == (None, None), "{fence:?} after {last:?}");
        last = fence;
        lock
    };
    for _ in 0..3 {
        assert_eq!(wait(take().unlock()), Release::Released);
        drop(take());
        let ticket = take().detach();
        assert_eq!(wait(locks.release(key.as_str(), ticket.token())), Ok(Release::Released));
        let forced = take();
        assert_eq!(wait(locks.force_release(key.as_str())), Ok(Release::Released));
        drop(forced);
    }
    drop(take());
}

pub(super) fn a_detached_lock_is_restored_once(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let (token, fence) = (lock.token(), lock.fencing_token());
    let ticket = lock.detach();
    assert_eq!((ticket.token(), ticket.fencing_token()), (token, fence));
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held, "it is still held");
    let lock = locks.restore(&ticket).unwrap();
    assert_eq!((lock.token(), lock.fencing_token()), (token, fence));
    assert_eq!(locks.restore(&ticket).unwrap_err(), LockError::TokenReused);
    assert!(wait(lock.refresh()).is_ok());
    assert_eq!(wait(lock.unlock()), Release::Released);
    assert_eq!(locks.restore(&ticket).unwrap_err(), LockError::Lost(Loss::Released));
    let _next = wait(locks.lock(key.as_str())).unwrap();
    assert_eq!(wait(locks.release(key.as_str(), token)), Ok(Release::AlreadyGone), "an old token ends nothing");
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held);
}

pub(super) fn a_chosen_token_is_one_lock_however_often_it_asks(make: &Make<'_>) {
    let (locks, key, token) = (manager(make), fresh(), Token::random());
    let ask = || wait(locks.lock(key.as_str()).token(token).ticket());
    let first = ask().unwrap();
    assert_eq!(first.token(), token);
    assert_eq!(ask().unwrap(), first, "the same lock, with the same fence");
    let other = wait(locks.lock(key.as_str()).ttl(LONG / 2).token(token).ticket());
    assert_eq!(other, Err(LockError::TokenReused), "other terms");
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    assert_eq!(wait(locks.release(key.as_str(), token)), Ok(Release::Released));
    assert_eq!(ask(), Err(LockError::Lost(Loss::Released)));
    assert!(wait(locks.try_lock(key.as_str())).is_ok());
}

pub(super) fn shares_and_permits_within_the_process_are_counted(make: &Make<'_>) {
    let (locks, key, pool) = (manager(make), fresh(), fresh());
    let read = || wait(locks.try_read(key.as_str()).process_scope());
    let shares = [read().unwrap(), read().unwrap()];
    assert_eq!(wait(locks.try_lock(key.as_str()).process_scope()).unwrap_err(), LockError::Held);
    drop(shares);
    let mut upgraded = read().unwrap();
    assert_eq!(upgraded.upgrade().now(), Ok(()));
    assert_eq!(read().unwrap_err(), LockError::Held);
    drop(upgraded);
    let alone = wait(locks.write(key.as_str()).process_scope()).unwrap();
    assert_eq!(read().unwrap_err(), LockError::Held);
    assert_eq!(wait(alone.downgrade()), Ok(()));
    assert!(read().is_ok());
    let permits = |n| wait(locks.semaphore(pool.as_str(), 3).permits(n).wait(Duration::from_millis(1)).process_scope());
    let two = permits(2).unwrap();
    assert!(matches!(permits(2).unwrap_err(), LockError::Timeout { .. }));
    let one = permits(1).unwrap();
    let held: [&Held; 2] = [&two, &one];
    assert!(held.iter().all(|permit| permit.is_held()));
    drop((two, one));
    assert!(permits(3).is_ok());
}

/// Where the store keeps exclusive locks alone, they are refused instead.
pub(super) fn shares_and_permits_are_counted_in_every_process(make: &Make<'_>) {
    let (one, other, key, pool) = (manager(make), manager(make), fresh(), fresh());
    let first = match wait(one.try_read(key.as_str())) {
        Err(LockError::WrongMode(_)) => return,
        first => first.unwrap(),
    };
    if wait(other.try_lock(key.as_str())).is_ok() {
        // Without a store each manager is for itself.
        return;
    }
    let second = wait(other.try_read(key.as_str())).unwrap();
    assert_ne!(first.fencing_token(), second.fencing_token());
    let seen = wait(one.inspect(key.as_str())).unwrap().expect("it is held");
    assert_eq!((seen.mode, seen.held_by), (Mode::Shared, 2));
    assert!(wait(first.refresh()).is_ok() && second.is_held());
    assert_eq!(wait(first.unlock()), Release::Released);
    assert_eq!(wait(one.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    assert_eq!(wait(second.unlock()), Release::Released);
    let mut alone = wait(one.try_lock(key.as_str())).unwrap();
    assert_eq!((wait(alone.downgrade()), wait(alone.downgrade())), (Ok(()), Ok(())));
    let beside = wait(other.try_read(key.as_str())).unwrap();
    assert!(beside.fencing_token() > alone.fencing_token());
    assert_eq!(wait(alone.upgrade().into_future()), Err(ModeConflict::Upgrade.into()));
    assert_eq!(wait(beside.unlock()), Release::Released);
    assert_eq!(wait(other.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    assert_eq!(wait(alone.unlock()), Release::Released);
    assert!(wait(one.try_lock(key.as_str())).is_ok());
    let permits = |locks: &LockManager, n| wait(locks.semaphore(pool.as_str(), 3).permits(n).wait(SHORT));
    let two = permits(&one, 2).unwrap();
    assert!(matches!(permits(&other, 2).unwrap_err(), LockError::Timeout { .. }));
    let last = permits(&other, 1).unwrap();
    let refused = wait(other.try_read(pool.as_str())).unwrap_err();
    let here = ModeConflict::Semaphore { limit: 3, asked: Mode::Shared };
    assert_eq!(refused, here.into(), "{refused}");
    drop(two);
    assert!(permits(&other, 2).is_ok());
    drop(last);
}
