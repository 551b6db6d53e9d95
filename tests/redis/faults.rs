//! Fear: an answer is lost, a server dies or stalls, and a key stays behind, a lock is given twice, or service ends.
#![cfg(feature = "test-util")]

use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use leasehold::conformance::store::wait;
use leasehold::store::redis::RedisStore;
use leasehold::store::{AcquireRequest, Acquired, Denial, Event, Extended, Forced, OnHeld, Released, StoreError};
use leasehold::{Mode, Token, Ttl};

use crate::kit::{self, Direction, Proxy, Server, Then, until};
use crate::redis_store::{LONG, ask, denied, is_granted, key, stores, stores_at, take, ttl};

fn exists(server: &Server, name: &str) -> bool {
    server.ask::<i64>(&format!("EXISTS lock:{name}")) == 1
}

#[test]
fn a_grant_whose_reply_was_lost_is_unknown_and_taken_back() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    take(&*stores.one, "warm", Token::random());
    for then in [Then::Reset, Then::Silence] {
        proxy.lose_reply_of("lock:k", then);
        let answer = ask(&*stores.one, "k", Token::random(), LONG);
        assert!(matches!(answer, Acquired::Unknown(StoreError::Io(_) | StoreError::Timeout)), "{answer:?}");
        until("the clean-up", || !exists(&server, "k"));
        proxy.heal();
    }
    // And it is done with it: a later lock stays.
    let token = Token::random();
    until("a grant", || is_granted(&ask(&*stores.one, "k", token, LONG)));
    wait(stores.one.stop());
    assert!(exists(&server, "k"));
}

/// Peer bug 14: blocked by one's own earlier attempt.
#[test]
fn a_lost_grant_can_be_asked_for_again_by_its_token() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    take(&*stores.one, "warm", Token::random());
    let token = Token::random();
    proxy.lose_reply_of("lock:k", Then::Reset);
    assert!(matches!(ask(&*stores.one, "k", token, LONG), Acquired::Unknown(_)));
    until("a grant", || match ask(&*stores.one, "k", token, LONG) {
        Acquired::Granted { .. } => true,
        Acquired::Unknown(_) => false,
        answer => panic!("blocked by its own earlier try: {answer:?}"),
    });
    // No clean-up of the first try hits the second: everything that was under way is over when `stop` returns.
    wait(stores.one.stop());
    assert_eq!(server.ask::<Option<String>>("GET lock:k"), Some(token.to_string()));
}

/// Both of its tokens are owed: the one that held, and the one that may hold now.
#[test]
fn an_exchange_that_is_not_answered_or_is_dropped_leaves_nothing() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let timeout = Duration::from_millis(200);
    let stores = stores(|| RedisStore::builder(&proxy.url()).operation_timeout(timeout));
    let k = key("k");
    let next = || AcquireRequest {
        key: &k,
        token: Token::random(),
        ttl: ttl(LONG),
        on_held: OnHeld::Queue,
        mode: Mode::Exclusive,
        note: &[],
    };
    let hold = || {
        let held = Token::random();
        until("a grant", || is_granted(&ask(&*stores.one, "k", held, LONG)));
        held
    };
    let lost: [&dyn Fn(); 3] =
        [&|| proxy.lose_reply_of("lock:k", Then::Reset), &|| proxy.lose_reply_of("lock:k", Then::Silence), &|| {
            proxy.hold(Direction::ToServer)
        }];
    // The server knows the script from here on.
    let (held, taken) = (hold(), next());
    assert!(matches!(wait(stores.one.exchange(held, taken)), (Released::Released, Acquired::Granted { .. })));
    assert_eq!(wait(stores.one.release(&k, taken.token)), Released::Released);
    for lose in lost {
        let held = hold();
        lose();
        let answer = wait(stores.one.exchange(held, next()));
        assert!(matches!(answer, (Released::Unknown(_), Acquired::Unknown(_))), "{answer:?}");
        proxy.heal();
        until("the clean-up", || !exists(&server, "k"));
    }
    let held = hold();
    let mut exchange = stores.one.exchange(held, next());
    assert!(exchange.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(exchange);
    until("the clean-up", || !exists(&server, "k"));
    // And it is done with it: a later lock stays.
    let held = hold();
    wait(stores.one.stop());
    assert_eq!(server.ask::<Option<String>>("GET lock:k"), Some(held.to_string()));
}

#[test]
fn a_command_that_arrives_after_its_clean_up_has_no_effect() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let timeout = Duration::from_millis(100);
    let stores = stores(|| RedisStore::builder(&proxy.url()).operation_timeout(timeout));
    take(&*stores.one, "warm", Token::random());
    // What is sent now stays on its way, until long after everybody gave up.
    proxy.hold(Direction::ToServer);
    let answer = ask(&*stores.one, "k", Token::random(), LONG);
    assert_eq!(answer, Acquired::Unknown(StoreError::Timeout));
    std::thread::sleep(timeout * 3);
    let before: u64 = server.info("total_commands_processed").parse().unwrap();
    proxy.heal();
    until("the late command", || server.info("total_commands_processed").parse::<u64>().unwrap() > before + 20);
    assert!(!exists(&server, "k"));
    wait(stores.one.stop());
    assert!(!exists(&server, "k"));
}

#[test]
fn a_release_whose_reply_was_lost_or_that_found_nobody_is_carried_out() {
    let mut server = Server::start(kit::DURABLE);
    let stores = stores_at(&server.url());
    let token = Token::random();
    take(&*stores.one, "k", token);
    server.kill9();
    let answer = wait(stores.one.release(&key("k"), token));
    assert!(matches!(answer, Released::Unknown(_)), "{answer:?}");
    server.restart();
    until("the release", || !exists(&server, "k"));
}

#[test]
fn a_release_that_a_dying_master_took_along_is_repeated() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    let (token, again) = (Token::random(), Token::random());
    for (name, token) in [("k", token), ("again", again)] {
        take(&*stores.one, name, token);
        assert_eq!(wait(stores.one.release(&key(name), token)), Released::Released);
    }
    take(&*stores.one, "again", again);
    // As its successor has it, that heard of the grant and not of the release.
    server.ask::<()>(&format!("SET lock:k {token} PX 600000"));
    proxy.reset();
    until("the release", || !exists(&server, "k"));
    // What was taken again meanwhile is held.
    wait(stores.one.stop());
    assert!(exists(&server, "again"));
}

/// The client asks another process, which the first knows nothing of.
#[test]
fn a_token_that_was_taken_up_again_elsewhere_is_spared_when_its_release_is_repeated() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let (stores, elsewhere) = (stores_at(&proxy.url()), stores_at(&server.url()));
    let (token, lost) = (Token::random(), Token::random());
    for (name, token) in [("k", token), ("lost", lost)] {
        take(&*stores.one, name, token);
        assert_eq!(wait(stores.one.release(&key(name), token)), Released::Released);
    }
    take(&*elsewhere.one, "k", token);
    server.ask::<()>(&format!("SET lock:lost {lost} PX 600000"));
    proxy.reset();
    until("the repetition", || !exists(&server, "lost"));
    wait(stores.one.stop());
    assert!(exists(&server, "k"));
}

/// Peer bug 4: a late retry of a release ends the newer lock.
#[test]
fn a_release_that_was_tried_twice_spares_the_next_holder() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    let (token, next) = (Token::random(), Token::random());
    // The server knows the script: else the lost reply would be that it does not.
    assert_eq!(wait(stores.one.release(&key("warm"), token)), Released::AlreadyGone);
    take(&*stores.one, "k", token);
    proxy.lose_reply_of("lock:k", Then::Reset);
    assert!(matches!(wait(stores.one.release(&key("k"), token)), Released::Unknown(_)));
    let direct = stores_at(&server.url());
    take(&*direct.one, "k", next);
    wait(stores.one.stop());
    assert_eq!(server.ask::<String>("GET lock:k"), next.to_string());
}

/// Peer bug 11: a cancelled command has every later reply answer another request.
#[test]
fn thousands_of_dropped_acquires_leave_nothing_and_mix_no_replies() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    take(&*stores.one, "warm", Token::random());
    let mut context = Context::from_waker(Waker::noop());
    for round in 0..10_000_u32 {
        let name = key(&format!("k{}", round % 50));
        let ask = AcquireRequest {
            key: &name,
            token: Token::random(),
            ttl: ttl(LONG),
            on_held: OnHeld::Fail,
            mode: Mode::Exclusive,
            note: &[],
        };
        let mut future = stores.one.acquire(ask);
        let began = Instant::now();
        // Dropped somewhere between the first poll and the answer.
        let mut answered = future.as_mut().poll(&mut context).is_ready();
        while !answered && began.elapsed() < Duration::from_micros(u64::from(round % 100)) {
            answered = future.as_mut().poll(&mut context).is_ready();
        }
        drop(future);
        if answered {
            drop(stores.one.release(&name, ask.token));
        }
        if round % 100 == 0 {
            let (name, token) = (format!("own{round}"), Token::random());
            take(&*stores.one, &name, token);
            assert_eq!(wait(stores.one.release(&key(&name), token)), Released::Released);
        }
    }
    wait(stores.one.stop());
    assert_eq!(server.ask::<Vec<String>>("KEYS lock:k*"), Vec::<String>::new());
}

/// Peer bug 33: a circuit breaker that stays open after the outage.
#[test]
fn a_server_that_is_down_is_unknown_in_time_and_service_resumes() {
    let mut server = Server::start(&[]);
    let stores = stores_at(&server.url());
    take(&*stores.one, "a", Token::random());
    server.kill9();
    let limit = stores.one.capabilities().operation_timeout;
    for _ in 0..3 {
        let began = Instant::now();
        let answer = ask(&*stores.one, "b", Token::random(), LONG);
        assert!(matches!(answer, Acquired::Unknown(_)), "{answer:?}");
        // Generous, for a loaded machine; without a bound it would hang for ever.
        assert!(began.elapsed() < limit * 10);
        assert!(wait(stores.one.health()).answer.is_err());
    }
    server.restart();
    until("service", || is_granted(&ask(&*stores.one, "b", Token::random(), LONG)));
    assert!(wait(stores.one.health()).answer.is_ok());
}

#[test]
fn a_server_that_lost_its_memory_is_told_of_by_an_event_and_revives_nothing() {
    let mut server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let token = Token::random();
    take(&*stores.one, "k", token);
    let mut events = wait(stores.one.events()).unwrap();
    // The first tells of the connection that hears.
    assert_eq!(wait(events.next()), Some(Event::Resumed));
    server.kill9();
    server.restart();
    assert_eq!(wait(events.next()), Some(Event::Resumed));
    until("an answer", || match wait(stores.one.extend(&key("k"), token, ttl(LONG))) {
        Extended::Lost => true,
        Extended::Unknown(_) => false,
        answer => panic!("{answer:?}"),
    });
    assert!(!exists(&server, "k"));
}

#[test]
fn a_server_that_stalls_for_longer_than_a_ttl_gives_no_lock_twice() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let (token, short) = (Token::random(), Duration::from_millis(300));
    assert!(is_granted(&ask(&*stores.one, "k", token, short)));
    server.stop();
    assert!(matches!(ask(&*stores.one, "other", Token::random(), LONG), Acquired::Unknown(_)));
    assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(short))), Extended::Unknown(_)));
    std::thread::sleep(short);
    server.cont();
    let next = Token::random();
    until("a grant", || is_granted(&ask(&*stores.other, "k", next, LONG)));
    assert_eq!(wait(stores.one.extend(&key("k"), token, ttl(LONG))), Extended::Lost);
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::AlreadyGone);
    assert_eq!(server.ask::<String>("GET lock:k"), next.to_string());
    until("the clean-up of the unknown", || !exists(&server, "other"));
}

/// Peer bug 13: granted when the validity is already over.
#[test]
fn a_grant_that_comes_after_its_own_end_is_denied_and_taken_back() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    take(&*stores.one, "warm", Token::random());
    proxy.delay(Direction::ToClient, Duration::from_millis(150));
    let answer = ask(&*stores.one, "k", Token::random(), Duration::from_millis(100));
    assert_eq!(denied(&answer), Denial::TooLate);
    proxy.heal();
    until("the clean-up", || !exists(&server, "k"));
}

#[test]
fn a_replica_is_not_written_to() {
    let (master, replica) = (Server::start(&[]), Server::start(&[]));
    let stores = stores_at(&replica.url());
    take(&*stores.one, "a", Token::random());
    replica.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
    let answer = ask(&*stores.one, "b", Token::random(), LONG);
    assert_eq!(answer, Acquired::Unknown(StoreError::ReadOnly));
    replica.ask::<()>("REPLICAOF NO ONE");
    until("service", || is_granted(&ask(&*stores.one, "c", Token::random(), LONG)));
}

#[test]
fn fewer_replicas_than_asked_deny_and_take_back() {
    let (master, replica) = (Server::start(&[]), Server::start(&[]));
    replica.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
    until("a replica", || replica.info("master_link_status") == "up");
    let stores = stores(|| RedisStore::builder(&master.url()).wait_for_replicas(1));
    let token = Token::random();
    until("a confirmed grant", || is_granted(&ask(&*stores.one, "k", token, LONG)));
    assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG * 2))), Extended::Extended { .. }));
    replica.stop();
    assert_eq!(denied(&ask(&*stores.one, "b", Token::random(), LONG)), Denial::Unreplicated);
    assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG * 3))), Extended::Unknown(_)));
    until("the clean-up", || !exists(&master, "b"));
    replica.cont();
    until("a confirmed grant", || is_granted(&ask(&*stores.one, "b", Token::random(), LONG)));
}

/// A try that waits for replicas goes by a connection of its own, which the clean-up overtakes (R5, R24).
#[test]
fn an_acquire_that_was_dropped_while_replicas_were_waited_for_leaves_no_key() {
    let server = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &server.port().to_string()]);
    until("the replica", || replica.info("master_link_status") == "up");
    let proxy = Proxy::start(server.address());
    // So long that the late command comes before its not-after: it is carried out.
    let store = || RedisStore::builder(&proxy.url()).wait_for_replicas(1).operation_timeout(Duration::from_secs(3));
    let stores = stores(store);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..3 {
        let name = format!("k{round}");
        let k = key(&name);
        // It finds its connection open.
        take(&*stores.one, &format!("warm{round}"), Token::random());
        proxy.delay(Direction::ToServer, Duration::from_millis(300));
        let ask = AcquireRequest {
            key: &k,
            token: Token::random(),
            ttl: ttl(LONG),
            on_held: OnHeld::Fail,
            mode: Mode::Exclusive,
            note: &[],
        };
        let asking = async { tokio::time::timeout(Duration::from_millis(50), stores.one.acquire(ask)).await };
        assert!(runtime.block_on(asking).is_err(), "its order is under way");
        // What is sent from now on arrives before that.
        proxy.delay(Direction::ToServer, Duration::ZERO);
        let fence = format!("EXISTS leasehold:fence:{{lock:{name}}}");
        until("the late command", || server.ask::<i64>(&fence) == 1);
        until("its undoing", || !exists(&server, &name));
    }
}

#[test]
fn a_forced_release_is_not_tried_again() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    assert_eq!(wait(stores.one.force_release(&key("warm"))), Forced::WasFree);
    take(&*stores.one, "k", Token::random());
    proxy.lose_reply_of("lock:k", Then::Reset);
    assert!(matches!(wait(stores.one.force_release(&key("k"))), Forced::Unknown(_)));
    let (direct, next) = (stores_at(&server.url()), Token::random());
    take(&*direct.one, "k", next);
    until("another connection", || wait(stores.one.health()).answer.is_ok());
    wait(stores.one.stop());
    assert_eq!(server.ask::<String>("GET lock:k"), next.to_string());
}

#[test]
fn the_longest_ttl_overflows_nothing() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let token = Token::random();
    assert!(is_granted(&ask(&*stores.one, "k", token, Ttl::MAX)));
    assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(Ttl::MAX))), Extended::Extended { .. }));
}

/// The last fence that was given out under a claim reaches the server with the clean-up, too.
#[test]
fn a_claim_whose_release_was_lost_is_taken_back_with_its_last_fence() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores_at(&proxy.url());
    let token = Token::random();
    let last = take(&*stores.one, "k", token) + 3_600_000_000;
    proxy.hold(Direction::ToServer);
    drop(stores.one.release_claim(&key("k"), token, last));
    proxy.heal();
    until("the clean-up", || !exists(&server, "k"));
    let direct = stores_at(&server.url());
    assert!(take(&*direct.one, "k", Token::random()) > last);
}
