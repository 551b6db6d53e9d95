//! Fear: a manager that was told to go on without its store hands a key out twice here, keeps it against the one who
//! holds it there, or shows its lock as if it were one.

use std::time::Duration;

use leasehold::{FailMode, LockError, LockManager, Loss, Release};
use tokio::task::block_in_place;

use crate::kit::{Proxy, Server, until};
use crate::redis_managers::{self, LONG, builder, exists, manager, queue};

async fn behind(proxy: &Proxy) -> LockManager {
    builder(&proxy.url()).fail_mode(FailMode::Local).build_and_connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_answers_nothing_is_degraded() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = behind(&proxy).await;
    let other = manager(&server).await;
    let lock = locks.try_lock("k").await.unwrap();
    assert!(!lock.is_degraded() && lock.fencing_token().is_some());
    assert_eq!(lock.unlock().await, Release::Released);
    let _theirs = other.try_lock("k").await.unwrap();
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    assert_eq!(locks.stats().degraded, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_degraded_lock_says_so_excludes_here_and_wins_its_key_later() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = behind(&proxy).await;
    proxy.cut();
    let lock = locks.try_lock("k").await.unwrap();
    assert!(lock.is_degraded() && lock.is_held());
    assert_eq!(lock.fencing_token(), None);
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    assert_eq!(locks.stats().degraded, 1);
    let before = lock.remaining();
    lock.refresh_for(LONG * 2).await.unwrap();
    assert!(lock.remaining() > before, "it is extended here");
    proxy.heal();
    until("the key", || !lock.is_degraded());
    assert!(lock.is_held());
    assert_eq!(server.ask::<String>("GET lock:k"), lock.token().to_string());
    let left = Duration::from_millis(server.ask("PTTL lock:k"));
    assert!(left >= lock.remaining(), "no grant outlives its claim: {left:?}");
    let other = manager(&server).await;
    assert_eq!(other.try_lock("k").await.unwrap_err(), LockError::Held);
    assert_eq!(lock.unlock().await, Release::Released);
    assert!(!exists(&server, "lock:k"));
    // And everything is as it was.
    let lock = locks.try_lock("k").await.unwrap();
    assert!(!lock.is_degraded() && lock.fencing_token().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_degraded_lock_is_lost_to_whoever_holds_the_key() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = behind(&proxy).await;
    let theirs = manager(&server).await.try_lock("k").await.unwrap();
    proxy.cut();
    let lock = locks.try_lock("k").await.unwrap();
    assert!(lock.is_degraded());
    proxy.heal();
    assert_eq!(lock.lost().await, Some(Loss::Vanished));
    assert!(!lock.is_degraded() && theirs.is_held());
    assert_eq!(server.ask::<String>("GET lock:k"), theirs.token().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_moves_on_without_the_store() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = behind(&proxy).await;
    let first = locks.lock("k").await.unwrap();
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let waiting = queue(&locks, "k");
            tokio::spawn(async move {
                let lock = waiting.await.unwrap().unwrap();
                assert!(lock.is_degraded());
                assert_eq!(lock.unlock().await, Release::Released);
            })
        })
        .collect();
    until("the waiters", || locks.stats().waiting == 20);
    proxy.cut();
    drop(first);
    for waiter in waiters {
        waiter.await.unwrap();
    }
    proxy.heal();
    until("service by the store", || block_in_place(|| !locks.blocking_lock("k").unwrap().is_degraded()));
    until("an empty server", || !exists(&server, "lock:k"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_told_so_a_manager_refuses() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    proxy.cut();
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable);
    assert_eq!(locks.stats().degraded, 0);
}

/// It was renewed for ever, and kept everybody else out of the free key.
#[tokio::test(flavor = "multi_thread")]
async fn a_degraded_grant_gives_its_place_in_the_queue_up() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let (locks, other) = (behind(&proxy).await, manager(&server).await);
    let theirs = other.lock("k").await.unwrap();
    let waiting = queue(&locks, "k");
    until("its place", || redis_managers::places(&server) == 1);
    proxy.cut();
    let lock = waiting.await.unwrap().unwrap();
    assert!(lock.is_degraded());
    proxy.heal();
    assert_eq!(lock.lost().await, Some(Loss::Vanished));
    assert_eq!(theirs.unlock().await, Release::Released);
    assert!(other.lock("k").wait(Duration::from_secs(4)).await.is_ok(), "the key is free");
}
