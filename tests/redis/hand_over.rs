//! Fear: a key that goes straight to the next process is held twice, for too short, or by nobody.
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::conformance::store::{Stores, wait};
use leasehold::store::{AcquireRequest, Acquired, Hint, OnHeld, Released, Watch};
use leasehold::{Mode, Release, Token};

use crate::kit::{Cluster, Server, until};
use crate::redis_managers::{self, manager};
use crate::redis_store::{LONG, denied, is_granted, key, queue, scripts, stores_at, take, ttl};

/// Asks for the key `k` as the manager does for a guard: it extends what it is given for too short.
fn offer(stores: &Stores, token: Token) -> Acquired {
    let ask = AcquireRequest {
        key: &key("k"),
        token,
        ttl: ttl(LONG),
        on_held: OnHeld::QueueForHandOver,
        mode: Mode::Exclusive,
        note: &[],
    };
    wait(stores.other.acquire(ask))
}

/// Two stores: the first holds `k`, the other waits for it, and hears its turn.
fn waiting(server: &Server, held: Token, next: Token) -> (Stores, Watch) {
    let stores = stores_at(&server.url());
    take(&*stores.one, "k", held);
    denied(&offer(&stores, next));
    let mut turn = stores.other.turn(&key("k")).expect("it can say whose turn it is");
    // Of the beginning of the subscription: what was offered before is over.
    while wait(turn.next()).expect("the store runs") != Hint::Resumed {}
    denied(&offer(&stores, next));
    turn.clear();
    (stores, turn)
}

/// Repeated until the release has handed the key over, which one in eight does not.
fn handed_over(server: &Server, next: Token) -> Stores {
    loop {
        let held = Token::random();
        let (stores, mut turn) = waiting(server, held, next);
        assert_eq!(wait(stores.one.release(&key("k"), held)), Released::Released);
        assert!(wait(turn.next()).is_some(), "it is told");
        if server.ask::<Option<String>>("GET lock:k") == Some(next.to_string()) {
            return stores;
        }
        assert!(is_granted(&offer(&stores, next)));
        assert_eq!(wait(stores.other.release(&key("k"), next)), Released::Released);
    }
}

#[test]
fn the_next_process_has_the_key_without_asking_for_as_long_as_it_is_sure() {
    let server = Server::start(&[]);
    let next = Token::random();
    let stores = handed_over(&server, next);
    let before = scripts(&server);
    let Acquired::Granted { fence: Some(fence), valid_for, .. } = offer(&stores, next) else { panic!("it has it") };
    assert_eq!(scripts(&server), before, "nothing was asked");
    let left = server.ask::<u64>("PTTL lock:k");
    assert!(valid_for <= Duration::from_millis(left + 1), "{valid_for:?} of {left} ms");
    assert_eq!(server.ask::<u64>("GET leasehold:fence:{lock:k}"), fence);
    assert_eq!(
        server.ask::<u64>("EXISTS leasehold:queue:{lock:k} leasehold:tickets:{lock:k}"),
        0,
        "its place is used up"
    );
    assert_eq!(wait(stores.other.release(&key("k"), next)), Released::Released);
    assert!(take(&*stores.one, "k", Token::random()) > fence);
}

#[test]
fn what_was_handed_over_to_a_request_that_has_gone_is_free_again() {
    let server = Server::start(&[]);
    let (next, third) = (Token::random(), Token::random());
    let stores = handed_over(&server, next);
    // It gives up before it has looked.
    stores.other.leave(&key("k"));
    until("a free key", || server.ask::<u64>("EXISTS lock:k") == 0);
    // Another request of its process comes before it has looked.
    let stores = handed_over(&server, next);
    until("its turn", || is_granted(&queue(&*stores.other, "k", third)));
}

#[test]
fn a_process_that_says_nothing_any_more_holds_a_key_up_for_a_second() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let (held, ghost, next) = (Token::random(), Token::random(), Token::random());
    // It receives its messages, and does nothing.
    let connect = || redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let (mut listening, mut writing) = (connect(), connect());
    let mut frozen = listening.as_pubsub();
    frozen.subscribe("leasehold:turn:ghost").unwrap();
    until("the lock in its hands", || {
        take(&*stores.one, "k", held);
        let [seconds, micros] = server.ask::<[u64; 2]>("TIME");
        let now = seconds * 1_000_000 + micros;
        server.ask::<u64>(&format!("ZADD leasehold:queue:{{lock:k}} {now} ghost:1"));
        let worth = format!("{} 1 60000 0 {ghost}", now + 1_000_000);
        let mut set = redis::cmd("HSET");
        set.arg("leasehold:tickets:{lock:k}").arg("ghost:1").arg(worth);
        set.exec(&mut writing).unwrap();
        assert_eq!(wait(stores.one.release(&key("k"), held)), Released::Released);
        let has_it = server.ask::<Option<String>>("GET lock:k") == Some(ghost.to_string());
        server.ask::<u64>("DEL leasehold:queue:{lock:k} leasehold:tickets:{lock:k}");
        has_it
    });
    assert!(server.ask::<u64>("PTTL lock:k") <= 1_000);
    until("its end", || is_granted(&queue(&*stores.other, "k", next)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_was_handed_over_lasts_for_its_ttl_if_it_is_held() {
    let server = Server::start(&[]);
    let (one, other) = (manager(&server).await, manager(&server).await);
    for _ in 0..12 {
        let held = one.lock("k").await.unwrap();
        let waiting = redis_managers::queue(&other, "k");
        until("a waiter", || redis_managers::places(&server) == 1);
        assert_eq!(held.unlock().await, Release::Released);
        let next = waiting.await.unwrap().unwrap();
        until("the whole ttl in the store", || server.ask::<u64>("PTTL lock:k") > 200_000);
        while next.remaining() < LONG / 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(next.unlock().await, Release::Released);
    }
}

/// Under contention between processes the key is never free for long; and a client that only polls must find it so.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_polls_gets_a_key_that_processes_pass_on() {
    let server = Server::start(&[]);
    let mut work = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let locks = manager(&server).await;
        for _ in 0..3 {
            let locks = locks.clone();
            work.spawn(async move {
                loop {
                    let lock = locks.lock("k").wait(LONG).await.unwrap();
                    assert_eq!(lock.unlock().await, Release::Released);
                }
            });
        }
    }
    let polling = tokio::task::spawn_blocking(move || {
        until("the key", || server.ask::<Option<String>>("SET lock:k theirs NX PX 60000").is_some());
    });
    polling.await.unwrap();
    assert!(work.try_join_next().is_none(), "nobody failed");
}

/// The message goes from node to node: who sends it does not know who receives it.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_cluster_a_key_that_was_handed_over_is_held_there_too() {
    let cluster = Cluster::start();
    let url = format!("redis+cluster://{}", cluster.hosts());
    let build = async || redis_managers::builder(&url).build_and_connect().await.unwrap();
    let (locks, other) = (build().await, build().await);
    // On all of its nodes.
    for n in 0..24 {
        let key = format!("k{n}");
        let lock = locks.lock(key.as_str()).await.unwrap();
        let waiter = redis_managers::queue(&other, &key);
        let node = &cluster.nodes[cluster.owner(cluster.slot_of(&format!("lock:{key}")))];
        until("a ticket", || node.ask::<u64>(&format!("ZCARD leasehold:queue:{{lock:{key}}}")) == 1);
        assert_eq!(lock.unlock().await, Release::Released);
        let lock = waiter.await.unwrap().unwrap();
        assert!(redis_managers::exists(node, &format!("lock:{key}")), "{key} is held here, and free in the Cluster");
        assert_eq!(lock.unlock().await, Release::Released, "{key}");
    }
}
