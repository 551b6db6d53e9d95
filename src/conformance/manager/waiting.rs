//! In which order and for how long requests wait, and what is left of a request that is dropped.

use std::time::Duration;

use super::{LONG, Make, Managed, begun, fresh, is_done, manager, until, wait};
use crate::error::LockError;
use crate::retry::FixedInterval;
use crate::table::Release;

pub(super) fn those_who_wait_are_served_in_their_order(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let mut holder = wait(locks.lock(key.as_str())).unwrap();
    let mut queue: Vec<_> = (0..5).map(|_| begun(locks.lock(key.as_str()))).collect();
    assert_eq!(locks.stats().waiting, 5);
    while !queue.is_empty() {
        let fence = holder.fencing_token();
        drop(holder);
        assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held, "nobody passes who waits");
        holder = wait(queue.remove(0)).unwrap();
        assert!(holder.fencing_token() > fence || fence.is_none());
        assert!(queue.iter_mut().all(|waiting| !is_done(waiting)), "two hold it, or one was passed");
    }
    assert_eq!(wait(holder.unlock()), Release::Released);
    assert_eq!((locks.stats().active, locks.stats().waiting), (0, 0));
}

pub(super) fn a_wait_that_ends_says_for_how_long_it_was(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let limit = Duration::from_millis(40);
    match wait(locks.lock(key.as_str()).wait(limit)).unwrap_err() {
        LockError::Timeout { waited } => assert!(waited >= limit, "{waited:?}"),
        error => panic!("{error}"),
    }
    let none = wait(locks.lock(key.as_str()).wait(Duration::ZERO)).unwrap_err();
    assert!(matches!(none, LockError::Timeout { .. }), "{none}");
    assert_eq!(locks.stats().waiting, 0);
    assert!(lock.is_held());
}

pub(super) fn a_request_dropped_at_any_point_leaves_nothing(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    for polls in 0..12 {
        let mut request = Box::pin(locks.lock(key.as_str()).into_future());
        for _ in 0..polls {
            if is_done(&mut request) {
                break;
            }
            std::thread::yield_now();
        }
        drop(request);
    }
    // A request that is granted, and never polled again.
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let unseen = begun(locks.lock(key.as_str()));
    drop(lock);
    drop(unseen);
    let next = wait(locks.lock(key.as_str())).unwrap();
    assert_eq!(locks.stats().active, 1);
    assert_eq!(wait(next.unlock()), Release::Released);
    assert_eq!((locks.stats().active, locks.stats().waiting), (0, 0));
}

pub(super) fn who_gives_up_makes_way(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let (first, second) = (begun(locks.lock(key.as_str())), begun(locks.lock(key.as_str())));
    drop(first);
    assert_eq!(locks.stats().waiting, 1);
    drop(lock);
    let second = wait(second).unwrap();
    assert!(second.is_held());
    // The one in front gives up while the lock is handed to it.
    let (first, third) = (begun(locks.lock(key.as_str())), begun(locks.lock(key.as_str())));
    drop(second);
    drop(first);
    assert!(wait(third).unwrap().is_held());
}

/// The waits end together: the one in front, which has asked the store, and those behind it.
pub(super) fn who_waited_in_vain_keeps_no_other_process_out(make: &Make<'_>) {
    let (holders, waiters) = (manager(make), manager(make));
    for turn in 0..10 {
        let key = fresh();
        let lock = wait(holders.lock(key.as_str())).unwrap();
        if wait(waiters.try_lock(key.as_str())).is_ok() {
            // In memory each manager has keys of its own.
            return;
        }
        let limit = Duration::from_millis(60);
        let waits: Vec<_> = (0..2 + 2 * turn).map(|_| begun(waiters.lock(key.as_str()).wait(limit))).collect();
        for waiting in waits {
            assert!(matches!(wait(waiting), Err(LockError::Timeout { .. })));
        }
        assert_eq!(wait(lock.unlock()), Release::Released);
        let again = wait(holders.lock(key.as_str()).wait(Duration::from_secs(10)));
        assert!(again.is_ok(), "the key is free, and nobody gets it: {again:?}");
    }
}

pub(super) fn pollers_try_until_they_are_told_yes_or_are_done(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let every = Duration::from_millis(5);
    let done = wait(locks.lock(key.as_str()).retry(FixedInterval::new(every, 3))).unwrap_err();
    assert!(matches!(done, LockError::Timeout { .. }), "{done}");
    let waiting = begun(locks.lock(key.as_str()).retry(FixedInterval::new(every, 100_000)));
    drop(lock);
    assert!(wait(waiting).unwrap().is_held());
}

pub(super) fn a_full_queue_and_a_full_table_say_so(make: &Make<'_>) {
    let locks = Managed::new(make().ttl(LONG).wait(LONG).shards(1).max_keys(2).max_waiters_per_key(2));
    let key = fresh();
    let lock = wait(locks.lock(key.as_str())).unwrap();
    let waiting = [begun(locks.lock(key.as_str())), begun(locks.lock(key.as_str()))];
    assert_eq!(wait(locks.lock(key.as_str())).unwrap_err(), LockError::QueueFull);
    let _other = wait(locks.lock(fresh())).unwrap();
    assert_eq!(wait(locks.lock(fresh())).unwrap_err(), LockError::TooManyKeys);
    drop((waiting, lock));
    until("room", || wait(locks.try_lock(fresh())).is_ok());
}

pub(super) fn synchronous_callers_wait_like_others(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let lock = locks.blocking_lock(key.as_str()).unwrap();
    assert_eq!(locks.try_lock(key.as_str()).block().unwrap_err(), LockError::Held);
    let timeout = locks.lock(key.as_str()).wait(Duration::from_millis(5)).block().unwrap_err();
    assert!(matches!(timeout, LockError::Timeout { .. }), "{timeout}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| locks.blocking_lock(key.as_str()).map(|lock| lock.is_held()));
        until("the waiting one", || locks.stats().waiting == 1);
        drop(lock);
        assert_eq!(waiting.join().expect("it does not panic"), Ok(true));
    });
}
