//! Fear: those who ride on a share of their process hold it after it has gone, or keep others out who wait (K7).

use std::time::Duration;

use leasehold::store::redis::RedisStore;
use leasehold::store::{ClaimReuse, KeyTemplate};
use leasehold::{Lock, LockManager, Loss, Release};

use crate::kit::{Server, until};
use crate::redis_managers::{exists, queue};

/// Longer than any test is patient.
const LONG: Duration = Duration::from_mins(5);

async fn manager(server: &Server) -> LockManager {
    let store = RedisStore::builder(&server.url()).claim_reuse(ClaimReuse::hand_off());
    let store = store.key_template(KeyTemplate::bare()).build().unwrap();
    let listening = listeners(server);
    let locks = LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap();
    // Until then it hears of nobody who waits, and what it took may be in doubt.
    until("its listening connection", || listeners(server) > listening);
    locks
}

fn listeners(server: &Server) -> usize {
    server.ask::<Vec<String>>("PUBSUB CHANNELS leasehold:claims:*").len()
}

/// How many shares the server keeps of a key.
fn shares(server: &Server, key: &str) -> u64 {
    // One that is alone is all in the key.
    server.ask::<u64>(&format!("ZCARD leasehold:ends:{{{key}}}")).max(u64::from(exists(server, key)))
}

async fn share(locks: &LockManager, key: &str) -> Lock {
    locks.read(key).wait(LONG).await.unwrap()
}

/// Readers of `k` that ride on one share. The word that the connection has just come up puts the first one in doubt.
async fn on_one_share(server: &Server, locks: &LockManager) -> [Lock; 3] {
    loop {
        let riders = [share(locks, "k").await, share(locks, "k").await, share(locks, "k").await];
        if shares(server, "k") == 1 {
            return riders;
        }
        drop(riders);
        until("the end of the shares", || !exists(server, "k"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_readers_of_a_process_are_one_share_which_the_last_of_them_ends() {
    let server = Server::start(&[]);
    let (locks, other) = (manager(&server).await, manager(&server).await);
    let first = share(&locks, "k").await;
    let mut riders = Vec::new();
    for _ in 0..100 {
        riders.push(locks.try_read("k").await.unwrap());
    }
    let fence = first.fencing_token();
    assert!(fence.is_some() && riders.iter().all(|rider| rider.fencing_token() == fence));
    assert_eq!(first.unlock().await, Release::Released);
    assert!(other.try_lock("k").await.is_err(), "the others hold it still");
    assert!(other.try_read("k").await.is_ok());
    // One a second, to see who waits.
    assert!(shares(&server, "k") <= 3, "{} shares", shares(&server, "k"));
    for rider in riders {
        assert!(rider.is_held() && exists(&server, "k"));
        assert_eq!(rider.unlock().await, Release::Released);
    }
    until("the end of the share", || !exists(&server, "k"));
    assert!(other.lock("k").wait(LONG).await.unwrap().fencing_token() > fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_another_process_is_not_passed_by_readers_who_come_later() {
    let server = Server::start(&[]);
    let (locks, other) = (manager(&server).await, manager(&server).await);
    let mut held = vec![share(&locks, "k").await];
    let writer = queue(&other, "k");
    until("the writer's place", || server.ask::<u64>("ZCARD leasehold:queue:{k}") > 0);
    // Those who come before the message has come may ride; then one is refused, and all who come after that.
    while let Ok(rider) = locks.try_read("k").await {
        held.push(rider);
    }
    assert!(locks.try_read("k").await.is_err());
    let late = {
        let locks = locks.clone();
        tokio::spawn(async move { share(&locks, "k").await })
    };
    drop(held);
    let lock = writer.await.unwrap().unwrap();
    assert!(!late.is_finished());
    let fence = lock.fencing_token();
    drop(lock);
    assert!(late.await.unwrap().fencing_token() > fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_share_is_lost_for_all_who_ride_on_it() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let riders = on_one_share(&server, &locks).await;
    server.ask::<i64>("DEL k");
    // The one that asks, and those that do not.
    assert!(riders[0].refresh_for(LONG * 2).await.is_err());
    for rider in riders {
        assert_eq!(rider.lost().await, Some(Loss::Vanished));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_key_is_lost_for_all_who_ride_on_it() {
    let server = Server::start(&[]);
    let (locks, other) = (manager(&server).await, manager(&server).await);
    let riders = on_one_share(&server, &locks).await;
    other.force_release("k").await.unwrap();
    for rider in riders {
        assert_eq!(rider.lost().await, Some(Loss::Forced));
    }
    assert!(other.try_lock("k").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rider_with_little_time_is_extended_with_its_share_and_ends_by_its_own_time() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let short = locks.read("k").ttl(Duration::from_millis(400)).await.unwrap();
    let long = share(&locks, "k").await;
    until("the extension of the share", || server.ask::<i64>("PTTL k") > 1_000);
    assert_eq!(short.lost().await, Some(Loss::Expired));
    assert!(long.is_held() && exists(&server, "k"));
    assert_eq!(long.unlock().await, Release::Released);
    until("the end of the share", || !exists(&server, "k"));
}
