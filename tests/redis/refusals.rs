//! Fear: Redis refuses, and nobody is told why; or what refuses is asked thousands of times a second; or a panic of
//! somebody else's ends what keeps the store going.
#![cfg(feature = "test-util")]

use std::future::IntoFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leasehold::store::redis::{RedisBuilder, RedisStore};
use leasehold::store::{StoreCause, StoreError, Warning};
use leasehold::{LockError, LockManager, Loss, Readiness, Release};

use crate::kit::{Cluster, Direction, Proxy, Server, until};
use crate::redis_managers::{LONG, exists, places, queue};

/// The rights that the documentation asks for.
const RIGHTS: &str = "~lock:* ~leasehold:* &leasehold:* +@connection +@scripting +@read +@write +@pubsub -@dangerous \
                      +time +info";

fn allow(server: &Server, rights: &str) {
    server.ask::<()>(&format!("ACL SETUSER app reset on >secret {rights}"));
}

fn as_app(server: &Server) -> RedisBuilder {
    RedisStore::builder(&format!("redis://app:secret@{}", server.address()))
}

async fn over(builder: RedisBuilder) -> LockManager {
    let locks = LockManager::builder().ttl(LONG).store(builder.build().unwrap()).build().unwrap();
    wait_for(&locks, READY).await;
    locks
}

fn count(server: &Server, field: &str) -> u64 {
    server.info(field).parse().unwrap()
}

/// What a command was asked for, whether or not it was refused.
fn calls(server: &Server, command: &str) -> u64 {
    let stats = server.info(&format!("cmdstat_{command}"));
    let of = |field: &str| stats.split(',').find_map(|part| part.strip_prefix(field)?.parse::<u64>().ok()).unwrap_or(0);
    of("calls=") + of("rejected_calls=")
}

/// Row by row what a working server does not do, how it begins, and how it ends.
async fn refuses(locks: &LockManager, server: &Server, cause: StoreCause) {
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable, "{cause:?}");
    assert_eq!(locks.last_store_error().map(|why| why.cause()), Some(cause));
    wait_for(locks, Readiness::StoreUnavailable).await;
    assert_eq!(locks.last_store_error().map(|why| why.cause()), Some(cause), "the probe says the same");
    assert!(server.is_running());
}

async fn wait_for(locks: &LockManager, readiness: Readiness) {
    let begun = Instant::now();
    loop {
        let now = locks.readiness().await;
        if std::mem::discriminant(&now) == std::mem::discriminant(&readiness) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{now:?}, and {:?}", locks.last_store_error());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const READY: Readiness = Readiness::Ready { store: None };

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_a_cause_and_the_manager_is_not_ready_while_it_lasts() {
    let server = Server::start(&["--lua-time-limit", "50"]);
    allow(&server, RIGHTS);
    let locks = over(as_app(&server)).await;
    assert!(matches!(locks.readiness().await, Readiness::Ready { store: Some(_) }));

    allow(&server, "~lock:* &leasehold:* +@all");
    refuses(&locks, &server, StoreCause::Denied).await;
    allow(&server, RIGHTS);
    wait_for(&locks, READY).await;

    server.ask::<()>("CONFIG SET min-replicas-to-write 1");
    refuses(&locks, &server, StoreCause::TooFewReplicas).await;
    server.ask::<()>("CONFIG SET min-replicas-to-write 0");
    wait_for(&locks, READY).await;

    server.ask::<()>("CONFIG SET maxmemory 1");
    refuses(&locks, &server, StoreCause::OutOfMemory).await;
    server.ask::<()>("CONFIG SET maxmemory 0");
    wait_for(&locks, READY).await;

    let mut endless = server.client();
    let busy = std::thread::spawn(move || {
        redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut endless).unwrap_err()
    });
    until("a busy server", || server.try_ask::<()>("PING").is_err_and(|error| error.code() == Some("BUSY")));
    refuses(&locks, &server, StoreCause::Busy).await;
    until("the end of the script", || server.try_ask::<()>("SCRIPT KILL").is_ok());
    busy.join().unwrap();
    wait_for(&locks, READY).await;

    assert!(locks.lock("k").await.unwrap().is_held());
    assert_eq!(locks.last_store_error(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_for_everything() {
    for rights in [RIGHTS, "~lock:* ~leasehold:* &leasehold:* +@all -@dangerous"] {
        let server = Server::start(&[]);
        allow(&server, rights);
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&warnings);
        let one = over(as_app(&server).on_warning(move |warning| note.lock().unwrap().push(warning.clone()))).await;
        let two = over(as_app(&server)).await;
        let lock = one.lock("k").await.unwrap();
        lock.refresh().await.unwrap();
        let waiter = queue(&two, "k");
        until("the waiter's place", || places(&server) == 1);
        assert_eq!(lock.unlock().await, Release::Released);
        let next = waiter.await.unwrap().unwrap();
        assert_eq!(one.force_release("k").await, Ok(Release::Released));
        assert_eq!(next.lost().await, Some(Loss::Forced));
        assert!(!one.is_locked("k").await.unwrap());
        wait_for(&two, READY).await;
        assert_eq!(*warnings.lock().unwrap(), [], "{rights}");
        let refused: u64 = ["acl_access_denied_cmd", "acl_access_denied_key", "acl_access_denied_channel"]
            .iter()
            .map(|field| server.info(field).parse().unwrap_or(0))
            .sum();
        let hidden = if rights == RIGHTS { 0 } else { u64::MAX };
        assert!(refused <= hidden, "{rights}: {refused} refusals");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_channels_is_told_so_and_served_all_the_same() {
    let user = ["--user", "app", "on", ">secret", "~*", "resetchannels", "+@all"];
    let mut server = Server::start(&user);
    let warned = Arc::new(AtomicU64::new(0));
    let count_them = Arc::clone(&warned);
    let builder = as_app(&server).on_warning(move |warning| {
        if let Warning::NoChannels { why } = warning {
            assert_eq!(why.cause(), StoreCause::Denied);
            count_them.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (one, two) = (over(builder).await, over(as_app(&server)).await);
    until("the warning", || warned.load(Ordering::SeqCst) > 0);
    let before = count(&server, "total_connections_received");
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Each look at the counter is a connection too.
    let opened = count(&server, "total_connections_received") - before;
    assert!(opened <= 4, "{opened} connections in two seconds");
    assert_eq!(warned.load(Ordering::SeqCst), 1);

    let lock = one.lock("k").await.unwrap();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    assert_eq!(lock.unlock().await, Release::Released);
    let next = waiter.await.unwrap().unwrap();
    assert_eq!(two.force_release("k").await, Ok(Release::Released), "what was done is said");
    assert_eq!(next.lost().await, Some(Loss::Forced));

    // R21: what the server has forgotten is found out, though nobody can be subscribed.
    let kept = one.lock("kept").await.unwrap();
    server.restart();
    let lost = tokio::time::timeout(Duration::from_secs(20), kept.lost()).await;
    assert_eq!(lost, Ok(Some(Loss::Vanished)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_tried_less_and_less_and_told() {
    let server = Server::start(&[]);
    allow(&server, RIGHTS);
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&told);
    let locks = over(as_app(&server).on_warning(move |warning| note.lock().unwrap().push(warning.clone()))).await;
    server.ask::<()>("ACL SETUSER app resetpass >other");
    let before = count(&server, "total_connections_received");
    server.ask::<u64>("CLIENT KILL USER app");
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let opened = count(&server, "total_connections_received") - before;
    assert!(opened <= 12, "{opened} connections in four seconds");
    match &told.lock().unwrap()[..] {
        [Warning::Refused { why: StoreError::Unauthenticated(text), .. }] => {
            assert!(!text.contains("secret"), "{text}")
        }
        other => panic!("{other:?}"),
    }
    // By now the last attempt to connect was refused, and did not only come too early.
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable);
    assert_eq!(locks.last_store_error().map(|why| why.cause()), Some(StoreCause::Unauthenticated));
    server.ask::<()>("ACL SETUSER app >secret");
    assert!(locks.lock("k").wait(LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_map_has_a_hole_is_not_asked_all_the_time() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        node.ask::<()>("CONFIG SET cluster-require-full-coverage no");
    }
    let slot = cluster.slot_of("lock:k");
    let owner = cluster.owner(slot);
    for node in &cluster.nodes {
        node.ask::<()>(&format!("CLUSTER DELSLOTS {slot}"));
    }
    let store = RedisStore::builder(&format!("redis+cluster://{}", cluster.hosts())).build().unwrap();
    let locks = LockManager::builder().ttl(LONG).store(store).build().unwrap();
    let waiter = queue(&locks, "k");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sum = |of: &dyn Fn(&Server) -> u64| cluster.nodes.iter().map(of).sum::<u64>();
    let connections = |node: &Server| count(node, "total_connections_received");
    let maps = |node: &Server| calls(node, "cluster|slots");
    let before = (sum(&connections), sum(&maps));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = (sum(&connections), sum(&maps));
    // Each look at a counter is a connection too.
    assert!(after.0 - before.0 <= 30, "{} connections in three seconds", after.0 - before.0);
    assert!((1..=30).contains(&(after.1 - before.1)), "{} maps in three seconds", after.1 - before.1);
    assert!(!waiter.is_finished());
    cluster.nodes[owner].ask::<()>(&format!("CLUSTER ADDSLOTS {slot}"));
    assert!(waiter.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_panics_ends_nothing_else() {
    let mut server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let hook = |_: &Warning| panic!("the host's log is gone");
    let locks = over(RedisStore::builder(&server.url()).on_warning(hook)).await;
    assert_eq!(locks.lock("k").await.unwrap().unlock().await, Release::Released);
    server.restart();
    assert!(locks.lock("k").wait(LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_half_a_second_away_can_be_locked_over() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.delay(direction, Duration::from_millis(50));
    }
    let near = over(RedisStore::builder(&proxy.url())).await;
    assert!(near.lock("k").await.is_ok(), "a tenth of a second needs no setting");
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.delay(direction, Duration::from_millis(250));
    }
    let patient = RedisStore::builder(&proxy.url());
    let patient = patient.connect_timeout(Duration::from_secs(20)).operation_timeout(Duration::from_secs(3));
    let far = over(patient).await;
    let lock = far.lock("k").wait(LONG).await.unwrap();
    lock.refresh().await.unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_databases_and_side_keys_are_where_they_are_set_to_be() {
    let socket = std::env::temp_dir().join(format!("leasehold-{}.sock", std::process::id()));
    let server = Server::start(&["--unixsocket", socket.to_str().unwrap()]);
    let builder = RedisStore::builder(&format!("unix://{}", socket.display())).database(3).side_key_prefix("app:");
    let locks = over(builder).await;
    let lock = locks.lock("k").await.unwrap();
    assert!(!exists(&server, "lock:k"));
    let mut client = server.client();
    redis::cmd("SELECT").arg(3).exec(&mut client).unwrap();
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    keys.retain(|key| !key.contains("leasehold-probe"));
    keys.sort_unstable();
    assert!(keys.contains(&"lock:k".to_owned()), "{keys:?}");
    assert!(keys.iter().all(|key| key == "lock:k" || key.starts_with("app:")), "{keys:?}");
    let waiter = queue(&locks, "k");
    assert_eq!(lock.unlock().await, Release::Released);
    assert!(waiter.await.unwrap().is_ok());
    let _ = std::fs::remove_file(socket);
}

/// A grant that waits for replicas goes by a connection of its own, which the clean-up does not overtake.
#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_that_was_dropped_while_replicas_were_waited_for_leaves_no_key() {
    let server = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &server.port().to_string()]);
    until("the replica", || replica.info("master_link_status") == "up");
    let proxy = Proxy::start(server.address());
    let locks = over(RedisStore::builder(&proxy.url()).wait_for_replicas(1)).await;
    drop(locks.try_lock("warm").await.unwrap());
    for round in 0..5 {
        proxy.delay(Direction::ToServer, Duration::from_millis(300));
        let mut asking = std::pin::pin!(locks.try_lock(format!("k{round}")).into_future());
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut asking).await.is_err(), "its order is under way");
        // What is sent from now on arrives before that.
        proxy.delay(Direction::ToServer, Duration::ZERO);
    }
    // Longer than any command may take effect late.
    tokio::time::sleep(Duration::from_secs(1)).await;
    until("the end of all keys", || server.ask::<Vec<String>>("KEYS lock:k*").is_empty());
}
