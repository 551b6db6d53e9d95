//! The scenes with sessions: what several threads do to the same owner, and owners to each other.

use std::sync::Arc;

use shuttle::future::{block_on, spawn};

use super::{KEY, TICK, assert_settled, explore, manager, manager_of, pass, visit};
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::key::Key;
use crate::lock::Lock;
use crate::session::Session;
use crate::table::Release;

/// Two keys that belong to two shards.
fn keys_apart(locks: &LockManager) -> [Key; 2] {
    let keys = (0..).map(|n| Key::new(format!("key {n}")).unwrap());
    let mut keys = keys.skip_while(|key| locks.place(key).0 == 0);
    let one = keys.next().unwrap();
    let other = keys.find(|key| locks.place(key).0 == 0).unwrap();
    [one, other]
}

#[test]
fn two_sessions_that_close_a_cycle_at_once_have_one_victim() {
    explore(|| {
        let (locks, _) = manager_of(2);
        let [a, b] = keys_apart(&locks);
        let hold = |name: &str, key: &Key| {
            let session = locks.session(name);
            let own = session.try_lock(key.clone()).now().unwrap();
            (session, own)
        };
        let (me, you) = (hold("me", &a), hold("you", &b));
        let close = |(session, own): (Session, Lock), other: Key| {
            spawn(async move {
                // The victim lets go as well, so that the other one gets its key.
                let _own = own;
                session.lock(other).wait_forever().await.map(drop)
            })
        };
        // A missed deadlock shows as one: nobody would ever wake them.
        let answers = [close(me, b), close(you, a)].map(|task| block_on(task).unwrap());
        let victims = answers.iter().filter(|answer| matches!(answer, Err(LockError::Deadlock { .. }))).count();
        assert_eq!((victims, answers.iter().filter(|answer| answer.is_ok()).count()), (1, 1), "{answers:?}");
        assert_eq!(assert_settled(&locks).deadlocked, 1);
    });
}

#[test]
fn a_grant_that_closes_a_cycle_while_the_other_begins_to_wait_leaves_nobody_stuck() {
    explore(|| {
        let (locks, _) = manager_of(2);
        let [x, y] = keys_apart(&locks);
        let (me, you) = (locks.session("me"), locks.session("you"));
        let held = locks.try_lock_now(x.clone()).unwrap();
        let yours = you.try_lock(y.clone()).now().unwrap();
        let ask = |session: &Session, key: &Key, own: Option<Lock>| {
            let (session, key) = (session.clone(), key.clone());
            spawn(async move {
                let _own = own;
                session.lock(key).wait_forever().await.map(drop)
            })
        };
        // I wait for both; being handed `x` makes me the one that you wait for, whenever you begin to.
        let tasks = [ask(&me, &x, None), ask(&me, &y, None), ask(&you, &x, Some(yours))];
        let releases = shuttle::thread::spawn(move || drop(held));
        for task in tasks {
            let answer = block_on(task).unwrap();
            assert!(matches!(answer, Ok(()) | Err(LockError::Deadlock { .. })), "{answer:?}");
        }
        releases.join().unwrap();
        assert_settled(&locks);
    });
}

#[test]
fn a_session_that_ends_while_a_key_is_handed_to_it_keeps_nothing() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let session = locks.session("me");
        let first = spawn({
            let session = session.clone();
            async move { session.lock(KEY).wait_forever().await }
        });
        let next = spawn(visit(locks.clone()));
        let releases = shuttle::thread::spawn(move || drop(held));
        let ends = spawn({
            let session = session.clone();
            async move { session.end().await }
        });
        assert_eq!(block_on(ends).unwrap(), Release::Released);
        match block_on(first).unwrap() {
            Ok(lock) => assert!(!lock.is_held(), "the dead hold nothing"),
            Err(LockError::SessionEnded | LockError::Lost(Loss::SessionEnded)) => {}
            Err(other) => panic!("{other}"),
        }
        block_on(next).unwrap();
        releases.join().unwrap();
        assert_eq!(session.locks(), 0);
        assert_settled(&locks);
    });
}

#[test]
fn a_heartbeat_that_races_with_the_deadline_keeps_all_locks_of_the_session_or_none() {
    explore(|| {
        let (locks, clock) = manager_of(2);
        let session = locks.session("me").ttl(TICK);
        let held = keys_apart(&locks).map(|key| Arc::new(session.try_lock(key).now().unwrap()));
        pass(&locks, &clock, TICK / 2);
        let beats = spawn({
            let session = session.clone();
            async move { session.heartbeat().await }
        });
        let time = shuttle::thread::spawn({
            let locks = locks.clone();
            move || pass(&locks, &clock, TICK / 2)
        });
        let looks = shuttle::thread::spawn({
            let held = held.clone();
            move || {
                let [one, other] = held.map(|lock| lock.is_held());
                assert!(one || !other, "one was lost, and the other was held after that");
            }
        });
        let kept = block_on(beats).unwrap();
        time.join().unwrap();
        looks.join().unwrap();
        assert_eq!(held.each_ref().map(|lock| lock.is_held()), [kept.is_ok(); 2], "{kept:?}");
        drop(held);
        assert_eq!(session.locks(), 0);
        let stats = assert_settled(&locks);
        assert_eq!((stats.dropped, stats.expired), if kept.is_ok() { (2, 0) } else { (0, 2) });
    });
}
