//! Fear: a waiter is not woken, is passed, or waits for the dead.
#![cfg(feature = "test-util")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use leasehold::conformance::store::wait;
use leasehold::store::redis::RedisStore;
use leasehold::store::{Denial, Event, Forced, Hint, Released, Watch};
use leasehold::{LockManager, Token};

use crate::kit::{self, Proxy, Server, until};
use crate::redis_store::{self, LONG, ask, denied, is_granted, key, queue, scripts, stores, stores_at, take};

/// Waits for one hint, whatever comes before it.
fn hear(watch: &mut Watch, hint: Hint) {
    while wait(watch.next()).expect("the store runs") != hint {}
}

/// Peer bug 2: keys that vanish without a message leave their waiters waiting.
#[test]
fn foreign_deletes_expiries_and_flushes_are_heard() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    server.ask::<()>("SET lock:k theirs");
    let mut watch = wait(stores.one.watch(&key("k"))).unwrap();
    server.ask::<i64>("DEL lock:k");
    hear(&mut watch, Hint::Free);
    server.ask::<()>("SET lock:k theirs PX 40");
    hear(&mut watch, Hint::Free);
    server.ask::<()>("SET lock:k theirs");
    server.ask::<()>("FLUSHALL");
    hear(&mut watch, Hint::Free);
    server.ask::<()>("SET lock:k theirs");
    server.ask::<()>("RENAME lock:k elsewhere");
    hear(&mut watch, Hint::Free);
}

#[test]
fn a_refresh_wakes_nobody() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    take(&*stores.one, "k", token);
    let mut watch = wait(stores.other.watch(&key("k"))).unwrap();
    for _ in 0..20 {
        server.ask::<i64>("PEXPIRE lock:k 900000");
    }
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    // The subscription's own beginning, then the release: nothing of the refreshes.
    let first = wait(watch.next()).unwrap();
    let heard = if first == Hint::Resumed { wait(watch.next()).unwrap() } else { first };
    assert!(matches!(heard, Hint::Released | Hint::Free), "{heard:?}");
}

#[test]
fn many_watches_share_one_subscription_and_the_last_one_ends_it() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let channels = || server.ask::<Vec<String>>("PUBSUB CHANNELS leasehold:wake:*").len();
    let mut watches: Vec<Watch> = (0..50).map(|_| wait(stores.one.watch(&key("k"))).unwrap()).collect();
    assert_eq!(channels(), 1);
    assert_eq!(server.ask::<(String, i64)>("PUBSUB NUMSUB leasehold:wake:{lock:k}").1, 1);
    take(&*stores.other, "k", Token::random());
    assert_eq!(wait(stores.other.force_release(&key("k"))), Forced::Released);
    watches.iter_mut().for_each(|watch| hear(watch, Hint::Forced));
    watches.truncate(1);
    let more: Vec<Watch> = (0..50).map(|n| wait(stores.one.watch(&key(&format!("k{n}")))).unwrap()).collect();
    assert_eq!(channels(), 51);
    drop((watches, more));
    until("no subscriptions", || channels() == 0);
    drop(wait(stores.one.watch(&key("k"))).unwrap());
}

#[test]
fn a_broken_subscription_comes_back_and_says_that_hints_were_missed() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    let mut watch = wait(stores.one.watch(&key("k"))).unwrap();
    for _ in 0..5 {
        proxy.reset();
        hear(&mut watch, Hint::Resumed);
    }
    let direct = stores_at(&server.url());
    let token = Token::random();
    take(&*direct.one, "k", token);
    assert_eq!(wait(direct.one.release(&key("k"), token)), Released::Released);
    hear(&mut watch, Hint::Released);
}

#[test]
fn a_watch_that_cannot_be_in_force_is_an_error_in_time() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    take(&*stores.one, "warm", Token::random());
    proxy.cut();
    assert!(wait(stores.one.watch(&key("k"))).is_err());
    // Events say themselves when they begin.
    let mut events = wait(stores.one.events()).unwrap();
    proxy.heal();
    assert_eq!(wait(events.next()), Some(Event::Resumed));
    until("a watch", || wait(stores.one.watch(&key("k"))).is_ok());
}

/// Peer bug 24: a fair queue that stands still behind the dead.
#[test]
fn a_process_that_died_holds_the_queue_up_for_a_ticket() {
    let server = Server::start(&[]);
    let dead = stores_at(&server.url());
    let stores = stores_at(&server.url());
    let (held, next) = (Token::random(), Token::random());
    take(&*stores.one, "k", held);
    denied(&queue(&*dead.one, "k", Token::random()));
    denied(&queue(&*stores.one, "k", next));
    drop(dead);
    assert_eq!(wait(stores.one.release(&key("k"), held)), Released::Released);
    let answer = queue(&*stores.one, "k", next);
    assert_eq!(denied(&answer), Denial::Ahead);
    let leasehold::store::Acquired::Denied { retry_in: Some(retry_in), .. } = answer else { panic!() };
    assert!(retry_in <= Duration::from_secs(1), "{retry_in:?}");
    until("its turn", || is_granted(&queue(&*stores.one, "k", next)));
}

#[test]
fn a_place_is_kept_without_polling_and_across_an_outage() {
    let mut server = Server::start(kit::DURABLE);
    let stores = stores_at(&server.url());
    let (held, first) = (Token::random(), Token::random());
    take(&*stores.one, "k", held);
    denied(&queue(&*stores.other, "k", first));
    // Three lives of a ticket that nobody polls for.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(wait(stores.one.release(&key("k"), held)), Released::Released);
    assert_eq!(denied(&ask(&*stores.one, "k", Token::random(), redis_store::LONG)), Denial::Ahead);
    server.kill9();
    server.restart();
    until("its turn", || is_granted(&queue(&*stores.other, "k", first)));
}

#[test]
fn processes_are_granted_in_the_order_in_which_they_came() {
    let server = Server::start(&[]);
    let all: Vec<_> = (0..6).map(|_| stores_at(&server.url())).collect();
    let stores: Vec<_> = all.iter().flat_map(|two| [&two.one, &two.other]).collect();
    let tokens: Vec<Token> = stores.iter().map(|_| Token::random()).collect();
    let held = Token::random();
    take(&*all[0].one, "other", Token::random());
    server.ask::<()>(&format!("SET lock:k {held} PX 600000"));
    for (store, token) in stores.iter().zip(&tokens) {
        denied(&queue(&***store, "k", *token));
    }
    let mut holder = (stores[0], held);
    for turn in 0..stores.len() {
        assert_eq!(wait(holder.0.release(&key("k"), holder.1)), Released::Released);
        // Everybody tries, the last one first; one is granted.
        let granted: Vec<usize> = (0..stores.len())
            .rev()
            .filter(|&n| n >= turn && is_granted(&queue(&**stores[n], "k", tokens[n])))
            .collect();
        assert_eq!(granted, [turn]);
        holder = (stores[turn], tokens[turn]);
    }
}

#[test]
fn one_process_has_one_place_however_often_it_asks() {
    let server = Server::start(&[]);
    let stores = stores(|| RedisStore::builder(&server.url()));
    take(&*stores.other, "k", Token::random());
    for _ in 0..10 {
        denied(&queue(&*stores.one, "k", Token::random()));
    }
    assert_eq!(server.ask::<i64>("ZCARD leasehold:queue:{lock:k}"), 1);
    stores.one.leave(&key("k"));
    until("an empty queue", || server.ask::<i64>("EXISTS leasehold:queue:{lock:k}") == 0);
}

#[test]
fn a_try_passes_the_place_of_its_own_process_and_of_no_other() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let holder = Token::random();
    take(&*stores.one, "k", holder);
    assert_eq!(denied(&queue(&*stores.other, "k", Token::random())), Denial::Held);
    assert_eq!(wait(stores.one.release(&key("k"), holder)), Released::Released);
    assert_eq!(denied(&ask(&*stores.one, "k", Token::random(), LONG)), Denial::Ahead);
    assert!(is_granted(&ask(&*stores.other, "k", Token::random(), LONG)));
}

/// One script for each request in each process: to let go, and to wait for the next turn.
#[tokio::test]
async fn processes_whose_requests_wait_for_each_other_ask_once_for_each_grant() {
    const GRANTS: u64 = 300;
    let server = Server::start(&[]);
    for (processes, most) in [(1, GRANTS + GRANTS / 3), (2, 2 * GRANTS + GRANTS / 2)] {
        let mut managers = Vec::new();
        for _ in 0..processes {
            let store = RedisStore::builder(&server.url()).operation_timeout(Duration::from_secs(20)).build().unwrap();
            managers.push(LockManager::builder().store(store).build_and_connect().await.unwrap());
        }
        let left = Arc::new(AtomicU64::new(GRANTS));
        let before = scripts(&server);
        let work = |locks: LockManager| {
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    let lock = locks.lock("k").wait(LONG).await.unwrap();
                    assert_eq!(lock.unlock().await, leasehold::Release::Released);
                }
            })
        };
        let tasks: Vec<_> = managers.iter().flat_map(|locks| [(); 4].map(|()| work(locks.clone()))).collect();
        futures::future::try_join_all(tasks).await.unwrap();
        let scripts = scripts(&server) - before;
        assert!(scripts <= most, "{scripts} scripts for {GRANTS} grants to {processes} processes");
    }
}

fn ticket(server: &Server) -> String {
    server.ask::<Vec<String>>("ZRANGE leasehold:queue:{lock:k} 0 0").concat()
}

/// Every release woke every process.
#[test]
fn a_release_calls_the_first_process_in_the_queue_alone() {
    let server = Server::start(&[]);
    let all: Vec<_> = (0..4).map(|_| stores_at(&server.url())).collect();
    let (held, tokens) = (Token::random(), [(); 4].map(|()| Token::random()));
    take(&*all[0].other, "k", held);
    let mut turns: Vec<Watch> = Vec::new();
    for (stores, token) in all.iter().zip(tokens) {
        denied(&queue(&*stores.one, "k", token));
        turns.push(stores.one.turn(&key("k")).expect("it can say whose turn it is"));
    }
    until("their channels", || server.ask::<Vec<String>>("PUBSUB CHANNELS leasehold:turn:*").len() >= 4);
    assert_eq!(server.ask::<Vec<String>>("PUBSUB CHANNELS leasehold:wake:*"), Vec::<String>::new(), "none per key");
    assert_eq!(wait(all[0].other.release(&key("k"), held)), Released::Released);
    hear(&mut turns[0], Hint::Released);
    assert!(is_granted(&queue(&*all[0].one, "k", tokens[0])));
    for turn in &mut turns[1..] {
        // Of the beginning of the subscription they were told.
        while let Some(hint) = turn.next().now_or_never() {
            assert_ne!(hint, Some(Hint::Released), "nobody else");
        }
    }
}

#[test]
fn the_next_in_the_queue_is_told_of_a_foreign_delete_and_of_the_holders_end() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    for foreign in ["SET lock:k theirs", "SET lock:k theirs PX 700"] {
        server.ask::<()>(foreign);
        let token = Token::random();
        denied(&queue(&*stores.one, "k", token));
        let mut turn = stores.one.turn(&key("k")).unwrap();
        if !foreign.contains("PX") {
            server.ask::<i64>("DEL lock:k");
        }
        until("its turn", || {
            wait(turn.next());
            is_granted(&queue(&*stores.one, "k", token))
        });
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    }
}

/// One script per ticket and renewal: 129,000 in ten seconds.
#[test]
fn the_tickets_of_a_process_are_renewed_together() {
    const KEYS: usize = 2_000;
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let names: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
    let mut turns = Vec::new();
    for name in &names {
        server.ask::<()>(&format!("SET lock:{name} theirs"));
        denied(&queue(&*stores.one, name, Token::random()));
        turns.push(stores.one.turn(&key(name)).unwrap());
    }
    let before = scripts(&server);
    // The one real sleep: four lives of a ticket.
    std::thread::sleep(Duration::from_secs(4));
    let renewals = scripts(&server) - before;
    assert!((12..=400).contains(&renewals), "{renewals} scripts for {KEYS} places in 4 s");
    let places = names.iter().filter(|name| server.ask::<i64>(&format!("ZCARD leasehold:queue:{{lock:{name}}}")) == 1);
    assert_eq!(places.count(), KEYS, "and none was lost");
}

/// A clock that was set back leaves tickets in the future.
#[test]
fn a_ticket_dated_ahead_is_no_ticket() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let dated = |queue_ahead: i64, lasts_ahead: i64| {
        let now: (i64, i64) = server.ask("TIME");
        let at = |ahead: i64| now.0 * 1_000_000 + now.1 + ahead * 1_000_000;
        server.ask::<i64>(&format!("ZADD leasehold:queue:{{lock:k}} {} ghost:7", at(queue_ahead)));
        server.ask::<i64>(&format!("HSET leasehold:tickets:{{lock:k}} ghost:7 {}", at(lasts_ahead)));
    };
    for (queue_ahead, lasts_ahead) in [(0, 3600), (-3600, 3600), (3600, 1), (3600, 3600)] {
        let token = Token::random();
        dated(queue_ahead, lasts_ahead);
        assert!(is_granted(&ask(&*stores.one, "k", token, LONG)), "{queue_ahead} {lasts_ahead}");
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    }
    // One's own would stand behind all who come: it is taken anew.
    let held = Token::random();
    take(&*stores.one, "k", held);
    denied(&queue(&*stores.other, "k", Token::random()));
    let turn = stores.other.turn(&key("k")).unwrap();
    let (old, now) = (ticket(&server), server.ask::<(i64, i64)>("TIME"));
    server.ask::<i64>(&format!("ZADD leasehold:queue:{{lock:k}} {} {old}", (now.0 + 3600) * 1_000_000));
    until("it is dropped", || server.ask::<i64>("EXISTS leasehold:queue:{lock:k}") == 0);
    drop(turn);
}

/// A place that its process renews for ever, though nobody there waits, outlived even that.
#[test]
fn a_forced_release_ends_the_queue_and_those_who_wait_queue_anew() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let (held, token) = (Token::random(), Token::random());
    take(&*stores.one, "k", held);
    let renew = || {
        let now: (i64, i64) = server.ask("TIME");
        let ends = (now.0 + 1) * 1_000_000 + now.1;
        server.ask::<i64>(&format!("HSET leasehold:tickets:{{lock:k}} ghost:7 {ends}"));
        for set in ["queue", "tickets"] {
            server.ask::<i64>(&format!("PEXPIRE leasehold:{set}:{{lock:k}} 2000"));
        }
    };
    server.ask::<i64>("ZADD leasehold:queue:{lock:k} 1 ghost:7");
    renew();
    denied(&queue(&*stores.other, "k", token));
    let turn = stores.other.turn(&key("k")).unwrap();
    assert_eq!(ticket(&server), "ghost:7");
    assert_eq!(wait(stores.one.force_release(&key("k"))), Forced::Released);
    until("its turn", || {
        if server.ask::<bool>("HEXISTS leasehold:tickets:{lock:k} ghost:7") {
            renew();
        }
        is_granted(&queue(&*stores.other, "k", token))
    });
    drop(turn);
    assert_eq!(wait(stores.other.release(&key("k"), token)), Released::Released);
    // Also of a key that is free.
    server.ask::<i64>("ZADD leasehold:queue:{lock:k} 1 ghost:7");
    renew();
    assert_eq!(denied(&ask(&*stores.one, "k", Token::random(), LONG)), Denial::Ahead);
    assert_eq!(wait(stores.one.force_release(&key("k"))), Forced::WasFree);
    until("the free key", || {
        if server.ask::<bool>("HEXISTS leasehold:tickets:{lock:k} ghost:7") {
            renew();
        }
        is_granted(&ask(&*stores.one, "k", Token::random(), LONG))
    });
}

#[test]
fn a_place_that_nobody_wants_is_given_up_though_nobody_left() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let held = Token::random();
    take(&*stores.one, "k", held);
    denied(&queue(&*stores.other, "k", Token::random()));
    drop(stores.other.turn(&key("k")));
    assert_eq!(wait(stores.one.release(&key("k"), held)), Released::Released);
    until("the key", || is_granted(&ask(&*stores.one, "k", Token::random(), LONG)));
}

#[test]
fn a_release_tells_nobody_where_nobody_waits_or_watches() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let published = || server.ask::<String>("INFO commandstats").contains("cmdstat_publish");
    let token = Token::random();
    take(&*stores.one, "k", token);
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    assert!(!published());
    // And a watch is kept known for as long as it is watched.
    let mut watch = wait(stores.other.watch(&key("k"))).unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    let token = Token::random();
    take(&*stores.one, "k", token);
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    hear(&mut watch, Hint::Released);
    drop(watch);
    until("the end of the mark", || server.ask::<i64>("EXISTS leasehold:tickets:{lock:k}") == 0);
}
