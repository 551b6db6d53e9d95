//! Fear: managers over five nodes hold one key together, starve, or stop, while nodes are killed under them.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasehold::store::StoreError;
use leasehold::store::redlock::RedlockStore;
use leasehold::{BuildError, Codec, CodecError, LockError, LockManager, Loss, Mode, ModeConflict, Release};
use parking_lot::Mutex;

use crate::kit::{self, Server, until};
use crate::redlock::{MAX_TTL, Nodes};

const PATIENT: Duration = Duration::from_mins(1);

async fn manager(nodes: &Nodes, ttl: Duration) -> LockManager {
    let store = nodes.builder().build().unwrap();
    LockManager::builder().ttl(ttl).store(store).build_and_connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_exclude_each_other_wake_each_other_and_hand_fences_on() {
    let nodes = Nodes::start(5, &[], PATIENT);
    let (one, two) = (manager(&nodes, PATIENT).await, manager(&nodes, PATIENT).await);
    let lock = one.lock("k").await.unwrap();
    assert_eq!(two.try_lock("k").await.unwrap_err(), LockError::Held);
    assert!(two.is_locked("k").await.unwrap());
    let fence = lock.fencing_token().expect("it is proved");
    let waiting = tokio::spawn(async move { two.lock("k").wait(PATIENT).await });
    until("its places, and that it listens", || {
        nodes.servers.iter().all(|server| {
            let channels = server.ask::<Vec<String>>("PUBSUB CHANNELS leasehold:turn:*");
            !channels.is_empty() && server.ask::<i64>("EXISTS leasehold:queue:{lock:k}") == 1
        })
    });
    assert_eq!(lock.unlock().await, Release::Released);
    let next = waiting.await.unwrap().unwrap();
    assert!(next.fencing_token().unwrap() > fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_and_permits_are_refused_with_the_reason() {
    let nodes = Nodes::start(3, &[], PATIENT);
    let locks = manager(&nodes, PATIENT).await;
    let read = locks.try_read("k").await.unwrap_err();
    let permits = locks.semaphore("k", 3).permits(2).await.unwrap_err();
    for (refused, asked) in [(read, "a share is"), (permits, "2 of 3 permits are")] {
        let LockError::WrongMode(ModeConflict::Store { why: Some(why), .. }) = &refused else { panic!("{refused:?}") };
        let told = format!("{asked} asked for, and the store keeps exclusive locks alone: {why}");
        assert_eq!(refused.to_string(), told);
    }
    let share = locks.read("k").process_scope().await.unwrap();
    let refused = locks.try_lock("k").await.unwrap_err();
    assert_eq!(refused, ModeConflict::WithinProcess.into(), "{refused}");
    assert_eq!(locks.inspect("k").await.unwrap().unwrap().mode, Mode::Shared);
    drop(share);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_above_the_quarantine_is_refused_when_built_or_asked_for() {
    let nodes = Nodes::start(3, &[], MAX_TTL);
    let store = || nodes.builder().build().unwrap();
    let refused = LockManager::builder().ttl(MAX_TTL * 2).store(store()).build();
    assert!(matches!(refused, Err(BuildError::InvalidOption { option: "ttl", .. })), "{refused:?}");
    let locks = manager(&nodes, MAX_TTL).await;
    let refused = locks.try_lock("k").ttl(MAX_TTL * 2).await.unwrap_err();
    assert!(matches!(refused, LockError::InvalidTtl(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_shared_within_the_process_and_to_share_it_with_others_is_refused() {
    struct Byte;
    impl Codec<u8> for Byte {
        fn encode(&self, byte: &u8) -> Result<Vec<u8>, CodecError> {
            Ok(vec![*byte])
        }
        fn decode(&self, bytes: &[u8]) -> Result<u8, CodecError> {
            Ok(bytes[0])
        }
    }
    let nodes = Nodes::start(3, &[], PATIENT);
    let locks = manager(&nodes, PATIENT).await;
    let ask = || locks.singleflight("k", async || 7_u8).wait(PATIENT);
    let refused = ask().across_processes(Byte).await;
    assert!(matches!(refused, Err(LockError::InvalidOption { option: "across_processes", .. })), "{refused:?}");
    assert_eq!(futures::join!(ask().into_future(), ask().into_future()), (Ok(7), Ok(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_server_fail_the_start() {
    let servers: Vec<Server> = (0..2).map(|_| Server::start(&[])).collect();
    let urls = [servers[0].url(), servers[0].url().replace("127.0.0.1", "localhost"), servers[1].url()];
    // However loaded the machine is: who does not answer in time is not found out.
    let patience = Duration::from_secs(10);
    let store = RedlockStore::builder(urls).max_ttl(MAX_TTL).node_timeout(patience).build().unwrap();
    let refused = LockManager::builder().ttl(MAX_TTL).store(store).build_and_connect().await.unwrap_err();
    assert!(
        matches!(&refused, BuildError::Store(StoreError::Config(why)) if why.contains("same server")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_says_how_each_node_is_and_what_it_voted() {
    let mut nodes = Nodes::start(3, &[], PATIENT);
    let locks = manager(&nodes, PATIENT).await;
    for _ in 0..5 {
        drop(locks.lock("k").await.unwrap());
    }
    nodes.servers[1].kill9();
    let health = loop {
        let health = locks.store_health().await.expect("there is a store");
        if health.nodes[1].answer.is_err() {
            break health;
        }
    };
    assert!(health.answer.is_ok(), "a majority answers: {health:?}");
    let names: Vec<String> = nodes.servers.iter().map(|server| server.address().to_string()).collect();
    assert_eq!(health.nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>(), names);
    assert!(health.nodes.iter().all(|node| node.votes.granted + node.votes.unknown > 0), "{health:?}");
    assert!(health.nodes[0].answer.is_ok() && health.nodes[2].answer.is_ok());
    nodes.servers[2].kill9();
    while locks.store_health().await.unwrap().answer.is_ok() {}
    assert!(LockManager::builder().build().unwrap().store_health().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_that_forgets_a_held_lock_is_one_lost_signal() {
    let nodes = Nodes::start(3, &[], PATIENT);
    let locks = manager(&nodes, PATIENT).await;
    let lock = locks.lock("k").await.unwrap();
    until("all three", || nodes.holders("k") == 3);
    nodes.servers[0].ask::<i64>("DEL lock:k");
    lock.refresh().await.expect("a majority holds it");
    until("the repair", || nodes.holders("k") == 3);
    nodes.servers[0].ask::<i64>("DEL lock:k");
    nodes.servers[2].ask::<i64>("DEL lock:k");
    let lost = lock.lost();
    assert!(lock.refresh().await.is_err());
    assert_eq!(lost.await, Some(Loss::Vanished));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_waits_for_is_released_by_force_and_its_holder_hears_so() {
    let nodes = Nodes::start(3, &[], PATIENT);
    let (one, two) = (manager(&nodes, PATIENT).await, manager(&nodes, PATIENT).await);
    let lock = one.lock("k").await.unwrap();
    let waiter = two.clone();
    let waiting = tokio::spawn(async move { waiter.lock("k").wait(PATIENT).await });
    let is_queued = |server: &Server| server.ask::<i64>("EXISTS leasehold:queue:{lock:k}") == 1;
    until("its places", || nodes.servers.iter().all(is_queued));
    let lost = lock.lost();
    assert_eq!(two.force_release("k").await.unwrap(), Release::Released);
    assert_eq!(lost.await, Some(Loss::Forced));
    assert!(waiting.await.unwrap().unwrap().is_held());
}

/// Nothing tells that what is in the way has gone: it is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_value_of_another_kind_to_go_sees_that_it_has_gone() {
    let nodes = Nodes::start(3, &[], PATIENT);
    let locks = manager(&nodes, PATIENT).await;
    nodes.servers.iter().for_each(|server| assert_eq!(server.ask::<i64>("HSET lock:k field value"), 1));
    let before = nodes.scripts();
    let waiting = tokio::spawn(async move { locks.lock("k").wait(PATIENT).await });
    until("a try", || nodes.scripts().iter().zip(&before).all(|(after, before)| after > before));
    tokio::time::sleep(Duration::from_millis(700)).await;
    nodes.servers.iter().for_each(|server| assert_eq!(server.ask::<i64>("DEL lock:k"), 1));
    let granted = tokio::time::timeout(PATIENT / 2, waiting).await.expect("it looks again").unwrap();
    assert!(granted.unwrap().is_held());
}

/// Whoever waits asks the nodes that are free now and then, and gives back what it gets there: that wakes nobody.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_holder_of_a_majority_does_not_ask_the_other_nodes_over_and_over() {
    for (free, waiters) in [(1, 1), (2, 8)] {
        let nodes = Nodes::start(5, &[], PATIENT);
        let holder = manager(&nodes, PATIENT).await;
        let lock = holder.lock("k").await.unwrap();
        until("all five", || nodes.holders("k") == 5);
        for server in &nodes.servers[..free] {
            server.ask::<i64>("DEL lock:k");
        }
        let mut waiting = Vec::new();
        for _ in 0..waiters {
            let locks = manager(&nodes, PATIENT).await;
            waiting.push(tokio::spawn(async move { locks.lock("k").wait(PATIENT).await.unwrap().unlock().await }));
        }
        let before = nodes.scripts();
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Each tries about twice a second, and takes back what it got.
        let most = 3 * 4 * 2 * waiters + 40;
        let asked: Vec<u64> = nodes.scripts().iter().zip(&before).map(|(after, before)| after - before).collect();
        assert!(asked.iter().all(|scripts| *scripts < most), "{asked:?} scripts, {most} at most");
        assert_eq!(lock.unlock().await, Release::Released);
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), Release::Released);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_contended_grant_asks_of_a_node_does_not_grow_with_those_who_wait() {
    let nodes = Nodes::start(5, &[], PATIENT);
    let mut per_grant = Vec::new();
    for managers in [2, 8] {
        let key = format!("k{managers}");
        let (before, grants) = (nodes.scripts(), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..managers {
            let locks = manager(&nodes, PATIENT).await;
            for _ in 0..4 {
                let (locks, key, grants) = (locks.clone(), key.clone(), Arc::clone(&grants));
                tasks.push(tokio::spawn(async move {
                    while grants.load(Ordering::SeqCst) < 300 {
                        drop(locks.lock(key.as_str()).wait(PATIENT).await.unwrap());
                        grants.fetch_add(1, Ordering::SeqCst);
                    }
                }));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        let asked: u64 = nodes.scripts().iter().zip(&before).map(|(after, before)| after - before).sum();
        per_grant.push(asked as f64 / 5.0 / grants.load(Ordering::SeqCst) as f64);
    }
    assert!(per_grant.iter().all(|scripts| *scripts <= 10.0), "{per_grant:?} scripts of a node per grant");
}

/// What happened to the keys, as those see it who hold them.
#[derive(Default)]
struct Watchman {
    /// The last fence of each key, and until when its holder may rely on it.
    held: Mutex<HashMap<u64, (u64, Option<Instant>)>>,
    grants: AtomicU64,
    unavailable: AtomicU64,
    lost: AtomicU64,
    end: AtomicBool,
}

/// Takes a key, holds it for a moment and lets it go, over and over. Nobody else may hold it meanwhile, as far as this
/// one knows that it holds it.
async fn work(locks: LockManager, watchman: Arc<Watchman>) {
    while !watchman.end.load(Ordering::SeqCst) {
        let number = fastrand::u64(0..16);
        let lock = match locks.lock(format!("load:{number}")).wait(Duration::from_secs(5)).await {
            Ok(lock) => lock,
            Err(LockError::StoreUnavailable) => {
                watchman.unavailable.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            Err(LockError::Timeout { .. } | LockError::Held | LockError::Lost { .. }) => continue,
            Err(error) => panic!("{error:?}"),
        };
        let fence = lock.fencing_token().expect("every grant's fence is proved").get();
        {
            let mut held = watchman.held.lock();
            let now = Instant::now();
            let until = now + lock.remaining();
            // Only a lock that is held now says anything: this task may have been away for longer than its TTL.
            if lock.is_held() {
                let (last, other) = held.insert(number, (fence, Some(until))).unwrap_or_default();
                assert!(
                    other.is_none_or(|other| other <= now),
                    "key {number} is held twice: fences {last} and {fence}"
                );
                assert!(fence > last, "key {number}: fence {fence} after {last}");
                watchman.grants.fetch_add(1, Ordering::SeqCst);
            } else {
                watchman.lost.fetch_add(1, Ordering::SeqCst);
                continue;
            }
        }
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3000))).await;
        {
            let mut held = watchman.held.lock();
            // Lost in between: another may have taken it over rightly, and says so itself.
            if let Some(entry) = held.get_mut(&number).filter(|entry| entry.0 == fence) {
                entry.1 = None;
            }
        }
        drop(lock);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_granted_twice_under_load_while_nodes_are_killed_paused_and_emptied() {
    let mut nodes = Nodes::start(5, &[], MAX_TTL);
    let watchman = Arc::new(Watchman::default());
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let locks = manager(&nodes, MAX_TTL).await;
        tasks.extend((0..8).map(|_| tokio::spawn(work(locks.clone(), Arc::clone(&watchman)))));
    }
    let grants = || watchman.grants.load(Ordering::SeqCst);
    let goes_on = |what: &str| {
        let before = grants();
        tokio::task::block_in_place(|| until(what, || grants() > before + 100));
    };
    goes_on("the load");
    nodes.servers[0].kill9();
    goes_on("grants with one killed");
    nodes.servers[1].kill9();
    goes_on("grants with two killed");
    nodes.servers[2].stop();
    tokio::task::block_in_place(|| {
        until("the outage", || watchman.unavailable.load(Ordering::SeqCst) > 0);
    });
    nodes.servers[2].cont();
    goes_on("grants after a pause");
    // Empty, and silent until what they have forgotten has run out.
    tokio::task::block_in_place(|| {
        nodes.servers[0].restart();
        nodes.servers[1].restart();
    });
    nodes.servers[3].kill9();
    // Two vote, two are in quarantine.
    tokio::task::block_in_place(|| nodes.servers[3].restart());
    goes_on("grants after the quarantine");
    nodes.servers[4].ask::<()>("FLUSHALL");
    nodes.servers[1].ask::<()>("FLUSHALL");
    goes_on("grants after two were flushed");
    for server in &nodes.servers {
        server.ask::<()>("SCRIPT FLUSH");
        server.ask::<i64>("CLIENT KILL TYPE normal SKIPME yes");
    }
    goes_on("grants after all connections were lost");
    watchman.end.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("nothing was granted twice, and fences rose");
    }
    assert!(grants() > 600);
}

/// Peer bug 33: a circuit breaker stayed open for ever after an outage.
#[tokio::test(flavor = "multi_thread")]
async fn service_resumes_after_a_long_outage_of_all_nodes() {
    let nodes = Nodes::start(3, kit::DURABLE, PATIENT);
    let mut nodes = nodes;
    let locks = manager(&nodes, PATIENT).await;
    drop(locks.lock("k").await.unwrap());
    nodes.servers.iter_mut().for_each(Server::kill9);
    for _ in 0..20 {
        assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable);
    }
    tokio::task::block_in_place(|| nodes.servers.iter_mut().for_each(Server::restart));
    let lock = locks.lock("k").wait(PATIENT).await.unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
}
