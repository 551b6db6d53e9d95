//! Fear: a server dies, and locks that it has granted are given to others, fences fall, or service does not come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leasehold::store::postgres::PostgresStore;
use leasehold::{Builder, LockManager, Release};
use tokio::task::block_in_place;

use crate::kit::until;
use crate::pg::{PgBouncer, Postgres};

/// Longer than any test is patient.
const LONG: Duration = Duration::from_mins(5);

fn builder(url: &str) -> Builder {
    LockManager::builder().ttl(LONG).store(PostgresStore::new(url).unwrap())
}

async fn manager(url: &str) -> LockManager {
    builder(url).build_and_connect().await.unwrap()
}

/// A request that queues while the test does something else.
fn waiting(locks: &LockManager) -> tokio::task::JoinHandle<leasehold::Lock> {
    let locks = locks.clone();
    tokio::spawn(async move { locks.lock("k").wait(LONG).await.unwrap() })
}

async fn until_refreshed(lock: &leasehold::Lock) {
    let began = std::time::Instant::now();
    while lock.refresh().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not refreshed");
        tokio::task::yield_now().await;
    }
}

fn has_waiter(server: &Postgres) -> bool {
    server.ask("SELECT count(*) FROM leasehold_locks WHERE key = 'k' AND cardinality(tickets) = 1") == "1"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_comes_back_with_its_locks() {
    let mut server = Postgres::with(&[]);
    server.init();
    let (one, two) = (manager(&server.url()).await, manager(&server.url()).await);
    for _ in 0..3 {
        let lock = one.lock("k").await.unwrap();
        let (fence, waiter) = (lock.fencing_token(), waiting(&two));
        until("the waiter's place", || has_waiter(&server));
        block_in_place(|| server.restart());
        until_refreshed(&lock).await;
        assert!(lock.is_held() && !waiter.is_finished());
        assert_eq!(lock.unlock().await, Release::Released);
        let next = waiter.await.unwrap();
        assert!(next.fencing_token() > fence);
        assert_eq!(next.unlock().await, Release::Released);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_goes_on_with_what_it_has() {
    let mut primary = Postgres::with(&["wal_level=replica", "hot_standby=on", "max_wal_senders=4"]);
    primary.init();
    let standby = Postgres::standby_of(&primary, &[]);
    // Nothing is answered that the standby has not got.
    primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.ask("SELECT pg_reload_conf()");
    until("replication", || primary.ask("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1");
    let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", primary.port(), standby.port());
    let (one, two) = (manager(&url).await, manager(&url).await);
    let lock = one.lock("k").await.unwrap();
    let (fence, waiter) = (lock.fencing_token(), waiting(&two));
    until("the waiter's place", || has_waiter(&primary));
    primary.kill9();
    assert_eq!(standby.ask("SELECT pg_promote()"), "t");
    until_refreshed(&lock).await;
    assert!(lock.is_held() && !waiter.is_finished(), "it was given to nobody else");
    assert_eq!(lock.unlock().await, Release::Released);
    assert!(waiter.await.unwrap().fencing_token() > fence);
}

/// Tasks of several processes take one key again and again, while the server is killed under them, and the proxy with its
/// connections.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_a_key_twice_while_servers_die() {
    let mut server = Postgres::with(&[]);
    server.init();
    let proxy = PgBouncer::before(&server);
    let managers = [manager(&server.url()).await, manager(&server.url()).await, {
        let store = PostgresStore::builder(&proxy.url()).listen_url(&server.url()).build().unwrap();
        LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap()
    }];
    let (holders, last, turns) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for n in 0..6 {
        let (locks, stop) = (managers[n % 3].clone(), Arc::clone(&stop));
        let (holders, last, turns) = (Arc::clone(&holders), Arc::clone(&last), Arc::clone(&turns));
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let lock = locks.lock("k").wait(LONG).await.unwrap();
                let fence = lock.fencing_token().unwrap().get();
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                assert!(last.swap(fence, Ordering::SeqCst) < fence, "fences fell");
                tokio::task::yield_now().await;
                holders.fetch_sub(1, Ordering::SeqCst);
                turns.fetch_add(1, Ordering::SeqCst);
                let _: Release = lock.unlock().await;
            }
        }));
    }
    for _ in 0..4 {
        let before = turns.load(Ordering::SeqCst);
        until("more turns", || {
            assert!(!tasks.iter().any(tokio::task::JoinHandle::is_finished), "a task has died");
            turns.load(Ordering::SeqCst) > before + 30
        });
        block_in_place(|| server.restart());
    }
    let before = turns.load(Ordering::SeqCst);
    until("turns after the last death", || turns.load(Ordering::SeqCst) > before + 30);
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    until("nothing is left", || server.ask("SELECT count(*) FROM leasehold_locks WHERE tokens IS NOT NULL") == "0");
}
