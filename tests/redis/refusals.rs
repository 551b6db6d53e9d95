//! Fear: Redis refuses, and nobody is told why; or what refuses is asked thousands of times a second; or a panic of
//! somebody else's ends what keeps the store going.
#![cfg(feature = "test-util")]

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

/// How many scripts a server was asked for, whether or not it ran them.
fn scripts(server: &Server) -> u64 {
    calls(server, "evalsha") + calls(server, "eval")
}

/// By how much a counter rises in three seconds, after one in which a loop comes to its longest pauses.
async fn in_three_seconds(counter: impl Fn() -> u64) -> u64 {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = counter();
    tokio::time::sleep(Duration::from_secs(3)).await;
    counter() - before
}

/// A server that takes no writes: it refuses for now, and may serve soon.
fn refuse_writes(server: &Server) {
    server.ask::<()>("CONFIG SET min-replicas-to-write 1");
}

fn take_writes(server: &Server) {
    server.ask::<()>("CONFIG SET min-replicas-to-write 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_key_asks_less_and_less_while_the_server_refuses() {
    let server = Server::start(&[]);
    let locks = over(RedisStore::builder(&server.url())).await;
    refuse_writes(&server);
    let waiter = queue(&locks, "k");
    let asked = in_three_seconds(|| scripts(&server)).await;
    assert!((3..=20).contains(&asked), "{asked} scripts in three seconds");
    take_writes(&server);
    assert!(waiter.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_extended_less_and_less_often_while_the_server_refuses() {
    let server = Server::start(&[]);
    let locks = over(RedisStore::builder(&server.url())).await;
    let lock = locks.lock("k").await.unwrap();
    // One extension after the other comes due while the first one is not answered.
    let _refreshing = lock.auto_refresh(Duration::from_millis(100), Duration::from_secs(1)).unwrap();
    until("an extension", || locks.stats().refreshed > 0);
    refuse_writes(&server);
    // They move a deadline, which is a write.
    let asked = in_three_seconds(|| scripts(&server)).await;
    assert!((3..=20).contains(&asked), "{asked} scripts in three seconds");
    take_writes(&server);
    let before = locks.stats().refreshed;
    until("the next extensions", || locks.stats().refreshed > before + 2);
    assert!(lock.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_verified_less_and_less_often_while_the_server_refuses() {
    let server = Server::start(&[]);
    allow(&server, RIGHTS);
    let locks = over(as_app(&server)).await;
    let held = locks.lock("k").await.unwrap();
    server.ask::<()>("ACL SETUSER app -@scripting");
    server.ask::<u64>("CLIENT KILL USER app");
    let asked = in_three_seconds(|| scripts(&server)).await;
    assert!((1..=20).contains(&asked), "{asked} scripts in three seconds");
    assert!(held.is_held());
    server.ask::<()>("ACL SETUSER app +@scripting");
    assert_eq!(held.unlock().await, Release::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_received_is_taken_back_less_and_less_often_while_the_server_refuses() {
    let server = Server::start(&[]);
    allow(&server, RIGHTS);
    let locks = over(as_app(&server)).await;
    for (refuse, serve, most) in [
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", 30),
        // Nothing helps before somebody has changed the rights.
        ("ACL SETUSER app -@scripting", "ACL SETUSER app +@scripting", 6),
    ] {
        let lock = locks.lock("k").await.unwrap();
        server.ask::<()>(refuse);
        assert_eq!(lock.unlock().await, Release::Unknown);
        let asked = in_three_seconds(|| scripts(&server)).await;
        assert!((1..=most).contains(&asked), "{refuse}: {asked} scripts in three seconds");
        server.ask::<()>(serve);
        until("the end of the key", || !exists(&server, "lock:k"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_not_be_written_to_is_connected_to_less_and_less_often() {
    let server = Server::start(&[]);
    let locks = over(RedisStore::builder(&server.url())).await;
    // Nobody is there: a replica of nothing.
    server.ask::<()>("REPLICAOF 127.0.0.1 1");
    let waiter = queue(&locks, "k");
    let opened = in_three_seconds(|| count(&server, "total_connections_received")).await;
    assert!((3..=25).contains(&opened), "{opened} connections in three seconds");
    server.ask::<()>("REPLICAOF NO ONE");
    assert!(waiter.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listening_connection_that_is_not_to_be_had_is_asked_for_less_and_less_often() {
    let server = Server::start(&[]);
    let mut watching = server.client();
    let locks = over(RedisStore::builder(&server.url())).await;
    until("the listening connection", || !server.ask::<String>("CLIENT LIST TYPE pubsub").is_empty());
    let clients = |watching: &mut redis::Connection| {
        redis::cmd("CLIENT").arg("LIST").query::<String>(watching).unwrap().lines().count()
    };
    until("the end of all others", || clients(&mut watching) == 3);
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(2).exec(&mut watching).unwrap();
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut watching).unwrap();
    let refused = |watching: &mut redis::Connection| -> u64 {
        let stats: String = redis::cmd("INFO").arg("stats").query(watching).unwrap();
        stats.lines().find_map(|line| line.strip_prefix("rejected_connections:")?.trim().parse().ok()).unwrap()
    };
    let watching = Mutex::new(watching);
    let opened = in_three_seconds(|| refused(&mut watching.lock().unwrap())).await;
    assert!((3..=25).contains(&opened), "{opened} connections in three seconds");
    assert_eq!(locks.lock("k").await.unwrap().unlock().await, Release::Released, "it is a convenience");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_passed_round_in_circles_is_followed_four_times() {
    let cluster = Cluster::start();
    let store = RedisStore::builder(&format!("redis+cluster://{}", cluster.hosts())).build().unwrap();
    let locks = LockManager::builder().ttl(LONG).store(store).build().unwrap();
    assert_eq!(locks.lock("k").wait(LONG).await.unwrap().unlock().await, Release::Released);
    let slot = cluster.slot_of("lock:k");
    let (from, to) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    // The one says that the other is taking the slot over, and the other that it is not.
    cluster.begin_move(slot, to);
    cluster.nodes[from].ask::<u64>("DEL leasehold:fence:{lock:k}");
    cluster.nodes[to].ask::<()>(&format!("CLUSTER SETSLOT {slot} STABLE"));
    let asked = || cluster.nodes.iter().map(scripts).sum::<u64>();
    let before = asked();
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable);
    assert_eq!(asked() - before, 4);
    let waiter = queue(&locks, "k");
    let asked = in_three_seconds(asked).await;
    assert!((4..=100).contains(&asked), "{asked} scripts in three seconds");
    cluster.nodes[from].ask::<()>(&format!("CLUSTER SETSLOT {slot} STABLE"));
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
