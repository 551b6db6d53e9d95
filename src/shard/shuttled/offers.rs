//! Grants that are taken without the mutex, while others look at the table, or end them.

use super::*;

/// Longer than a TTL that is dated exactly, and takes no part in this.
const TTL: Duration = Duration::from_secs(1);

#[test]
fn a_grant_that_expires_while_it_is_taken_is_had_or_lost_and_goes_on() {
    explore(|| {
        let (locks, clock) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let first = spawn({
            let locks = locks.clone();
            async move { locks.lock(KEY).ttl(TTL).wait_forever().await.map(std::mem::forget) }
        });
        let next = spawn(visit(locks.clone()));
        let releases = shuttle::thread::spawn(move || drop(held));
        let time = shuttle::thread::spawn({
            let (locks, clock) = (locks.clone(), clock.clone());
            move || pass(&locks, &clock, TTL)
        });
        releases.join().unwrap();
        time.join().unwrap();
        let answer = block_on(first).unwrap();
        assert!(matches!(answer, Ok(()) | Err(LockError::Lost(Loss::Expired))), "{answer:?}");
        // One that saw its grant forgot it: it holds until its deadline.
        pass(&locks, &clock, TTL);
        block_on(next).unwrap();
        assert_settled(&locks);
    });
}

#[test]
fn a_grant_that_is_taken_while_others_look_is_had_by_one_and_once() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let visits: Vec<_> = (0..2).map(|_| spawn(visit(locks.clone()))).collect();
        let looks = shuttle::thread::spawn({
            let locks = locks.clone();
            move || (0..3).for_each(|_| assert!(locks.stats().active <= 1))
        });
        drop(held);
        block_on(async {
            for visit in visits {
                visit.await.unwrap();
            }
        });
        looks.join().unwrap();
        assert_eq!(assert_settled(&locks).released, 2);
    });
}

#[test]
fn grants_of_two_keys_of_one_shard_are_each_had_by_their_own_waiter() {
    explore(|| {
        let (locks, _) = manager();
        let tasks: Vec<_> = (0..4)
            .map(|at| {
                let locks = locks.clone();
                spawn(async move {
                    let key = if at % 2 == 0 { KEY } else { "order:43" };
                    let lock = locks.lock(key).wait_forever().await.unwrap();
                    yield_now().await;
                    assert_eq!((lock.key().as_str(), lock.is_held()), (key, true));
                })
            })
            .collect();
        block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(assert_settled(&locks).granted, 4);
    });
}

#[test]
fn a_grant_that_is_ended_by_force_while_it_is_taken_is_lost_and_goes_on() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let first = spawn({
            let locks = locks.clone();
            async move { locks.lock(KEY).wait_forever().await.map(|lock| drop(lock)) }
        });
        let forces = shuttle::thread::spawn({
            let locks = locks.clone();
            move || block_on(locks.force_release(KEY).into_future()).map(drop)
        });
        drop(held);
        let answer = block_on(first).unwrap();
        assert!(matches!(answer, Ok(()) | Err(LockError::Lost(Loss::Forced))), "{answer:?}");
        forces.join().unwrap().unwrap();
        assert_settled(&locks);
    });
}
