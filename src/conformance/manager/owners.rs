//! Owners of more than one lock, and callers that share one: sessions, callbacks, flights, sets of keys.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::{LONG, Make, TIMEOUT, begun, fresh, manager, until, wait};
use crate::LockManager;
use crate::error::{LockError, Loss};
use crate::run::Outcome;
use crate::session::Session;
use crate::singleflight::{Codec, CodecError};
use crate::store::Posts;
use crate::table::Release;

pub(super) fn a_session_holds_and_ends_as_one(make: &Make<'_>) {
    let (locks, keys) = (manager(make), [fresh(), fresh()]);
    let session = locks.session("worker").ttl(LONG);
    let held = keys.each_ref().map(|key| wait(session.lock(key.as_str())).unwrap());
    assert_eq!(session.locks(), 2);
    assert!(wait(session.heartbeat()).is_ok());
    assert!(matches!(wait(session.lock(keys[0].as_str())).unwrap_err(), LockError::Deadlock { .. }));
    assert_eq!(wait(locks.try_lock(keys[0].as_str())).unwrap_err(), LockError::Held);
    assert_eq!(wait(session.end()), Release::Released);
    for lock in &held {
        assert_eq!(wait(lock.lost()), Some(Loss::SessionEnded));
    }
    assert_eq!(wait(session.lock(keys[0].as_str())).unwrap_err(), LockError::SessionEnded);
    for key in &keys {
        assert!(wait(locks.try_lock(key.as_str())).is_ok(), "free when the end has answered");
    }
}

pub(super) fn a_session_reenters_what_it_holds(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let session = locks.session("worker").ttl(LONG).reentrant();
    let outer = wait(session.lock(key.as_str())).unwrap();
    let inner = wait(session.try_lock(key.as_str())).unwrap();
    assert_eq!((inner.token(), inner.fencing_token()), (outer.token(), outer.fencing_token()));
    assert_eq!(wait(inner.unlock()), Release::Released);
    assert!(outer.is_held());
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    assert_eq!(wait(outer.unlock()), Release::Released);
    assert!(wait(locks.try_lock(key.as_str())).is_ok());
}

pub(super) fn a_cycle_of_waits_is_refused(make: &Make<'_>) {
    let (locks, one, other) = (manager(make), fresh(), fresh());
    let (me, you) = (locks.session("me").ttl(LONG), locks.session("you").ttl(LONG));
    let mine = wait(me.lock(one.as_str())).unwrap();
    let yours = wait(you.lock(other.as_str())).unwrap();
    let waiting = begun(me.lock(other.as_str()));
    match wait(you.lock(one.as_str())).unwrap_err() {
        LockError::Deadlock { cycle } => {
            let owners: Vec<&str> = cycle.iter().map(|edge| &*edge.owner).collect();
            assert_eq!(owners, ["you", "me"]);
            assert!(cycle[0].key.as_str().ends_with(&one) && cycle[1].key.as_str().ends_with(&other));
        }
        error => panic!("{error}"),
    }
    assert!(mine.is_held() && yours.is_held());
    drop(yours);
    assert!(wait(waiting).unwrap().is_held());
}

/// Where the store has a board; elsewhere no process knows of the other's waits.
pub(super) fn a_cycle_through_two_processes_is_refused_once(make: &Make<'_>) {
    let store = make().store;
    if store.is_none_or(|store| store.capabilities().posts == Posts::None) {
        return;
    }
    let (here, there, one, other) = (manager(make), manager(make), fresh(), fresh());
    let (me, you) = (here.session("me").ttl(LONG), there.session("you").ttl(LONG));
    let mine = wait(me.lock(one.as_str())).unwrap();
    let yours = wait(you.lock(other.as_str())).unwrap();
    let ask = |session: &Session, key: &str| session.lock(key).wait(TIMEOUT).owned().into_future();
    let both = select(ask(&me, &other), ask(&you, &one));
    let (refused, its_own, rest, names) = match wait(both) {
        Either::Left((answer, rest)) => (answer, mine, rest, ["me", "you"]),
        Either::Right((answer, rest)) => (answer, yours, rest, ["you", "me"]),
    };
    let LockError::Deadlock { cycle } = refused.unwrap_err() else { panic!("it is a deadlock") };
    let owners: Vec<&str> = cycle.iter().map(|edge| &*edge.owner).collect();
    assert_eq!(owners, names);
    assert_eq!(wait(its_own.unlock()), Release::Released);
    assert!(wait(rest).unwrap().is_held(), "one is enough");
}

pub(super) fn a_callback_runs_under_its_lock(make: &Make<'_>) {
    let (locks, key) = (manager(make), fresh());
    let ran = wait(locks.run(key.as_str(), async |held| {
        assert_eq!(locks.try_lock(key.as_str()).await.unwrap_err(), LockError::Held);
        assert!(matches!(locks.try_run(key.as_str(), async |_| ()).await, Ok(Outcome::Busy)));
        held.fencing_token()
    }));
    assert_eq!(ran.unwrap().release, Release::Released);
    let lost = wait(locks.run(key.as_str(), async |held| {
        locks.force_release(key.as_str()).await.unwrap();
        held.lost().await
    }));
    let lost = lost.unwrap();
    assert_eq!((lost.value, lost.release), (Some(Loss::Forced), Release::AlreadyGone));
    match wait(locks.try_run(key.as_str(), async |_| 7)).unwrap() {
        Outcome::Ran(ran) => assert_eq!((ran.value, ran.release), (7, Release::Released)),
        Outcome::Busy => panic!("nobody holds it"),
    }
    let dropped = begun(locks.run(key.as_str(), async |_| std::future::pending::<()>().await));
    drop(dropped);
    assert!(wait(locks.lock(key.as_str())).is_ok());
}

pub(super) fn those_who_ask_together_share_one_flight(make: &Make<'_>) {
    let (locks, key, calls) = (manager(make), fresh(), AtomicU32::new(0));
    let holder = wait(locks.lock(key.as_str())).unwrap();
    let (first, second) = (begun(locks.singleflight_lock(key.as_str())), begun(locks.singleflight_lock(key.as_str())));
    drop(holder);
    let (first, second) = (wait(first).unwrap(), wait(second).unwrap());
    assert_eq!(first.fencing_token(), second.fencing_token());
    assert_eq!(wait(first.unlock()), Release::Released);
    assert!(second.is_held());
    assert_eq!(wait(locks.try_lock(key.as_str())).unwrap_err(), LockError::Held);
    assert_eq!(wait(second.unlock()), Release::Released);
    until("the end of the lock", || wait(locks.try_lock(key.as_str())).is_ok());
    let value = wait(locks.singleflight(key.as_str(), async || calls.fetch_add(1, Ordering::SeqCst) + 41));
    assert_eq!(value, Ok(41));
}

/// Where the store keeps no values, it is refused instead.
pub(super) fn processes_that_ask_together_call_once(make: &Make<'_>) {
    struct Byte;
    impl Codec<u8> for Byte {
        fn encode(&self, byte: &u8) -> Result<Vec<u8>, CodecError> {
            Ok(vec![*byte])
        }
        fn decode(&self, bytes: &[u8]) -> Result<u8, CodecError> {
            bytes.first().copied().ok_or_else(|| "there is none".into())
        }
    }
    let (one, other, key) = (manager(make), manager(make), fresh());
    match wait(one.singleflight(key.as_str(), async || 7_u8).across_processes(Byte)) {
        Err(LockError::InvalidOption { option: "across_processes", .. }) => return,
        answer => assert_eq!(answer, Ok(7)),
    }
    until("the end of the lock", || wait(one.try_lock(key.as_str())).is_ok());
    if are_apart(&one, &other) {
        // Without a store each manager is for itself.
        return;
    }
    let (calls, (end, ended)) = (AtomicU32::new(0), oneshot::channel::<()>());
    let call = |value| {
        calls.fetch_add(1, Ordering::SeqCst);
        value
    };
    std::thread::scope(|threads| {
        let first = async || {
            let value = call(8);
            let _ = ended.await;
            value
        };
        let calling = threads.spawn(|| wait(one.singleflight(key.as_str(), first).across_processes(Byte)));
        until("the call", || calls.load(Ordering::SeqCst) == 1);
        let waiting = begun(other.singleflight(key.as_str(), async || call(9)).across_processes(Byte));
        // Its own question went before.
        assert_eq!(wait(other.is_locked(key.as_str())), Ok(true));
        assert_eq!(end.send(()), Ok(()));
        assert_eq!((calling.join().unwrap(), wait(waiting)), (Ok(8), Ok(8)));
    });
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Whether two managers do not keep each other out.
fn are_apart(one: &LockManager, other: &LockManager) -> bool {
    let key = fresh();
    let _held = wait(one.try_lock(key.as_str())).unwrap();
    wait(other.try_lock(key.as_str())).is_ok()
}

pub(super) fn many_keys_are_locked_together_or_not_at_all(make: &Make<'_>) {
    let (locks, [a, b, c]) = (manager(make), [(); 3].map(|()| fresh()));
    let asked = [b.as_str(), a.as_str(), c.as_str(), a.as_str()];
    let many = wait(locks.lock_many(asked)).unwrap();
    assert_eq!(many.len(), 3);
    assert!(many.is_held() && many.locks().is_sorted_by_key(|lock| lock.key().clone()));
    assert!(wait(many.refresh()).is_ok());
    assert_eq!(wait(locks.try_lock(b.as_str())).unwrap_err(), LockError::Held);
    assert_eq!(wait(many.unlock()), Release::Released);
    let _held = wait(locks.lock(b.as_str())).unwrap();
    let refused = wait(locks.lock_many(asked).wait(Duration::from_millis(20))).unwrap_err();
    assert!(matches!(refused, LockError::Timeout { .. }), "{refused}");
    for free in [&a, &c] {
        assert!(wait(locks.lock(free.as_str())).is_ok());
    }
    assert_eq!(locks.stats().active, 1);
}
