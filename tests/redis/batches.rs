//! Fear: calls that go out together get each other's answers, take each other down, or are sent though nobody wants
//! them any more.
#![cfg(feature = "test-util")]

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use leasehold::conformance::store::{Stores, wait};
use leasehold::store::redis::RedisStore;
use leasehold::store::{AcquireRequest, Acquired, Denial, Extended, OnHeld, Released, Store};
use leasehold::{Mode, Token};

use crate::kit::{Direction, Proxy, Server, until};
use crate::redis_store::{self, LONG, key, stores, take, ttl};

/// More than go ahead by themselves, and more than fit into one batch.
const MANY: usize = 100;

fn patient(url: &str) -> Stores {
    stores(|| RedisStore::builder(url).operation_timeout(Duration::from_secs(20)))
}

fn acquire_all(store: &Arc<dyn Store>, names: &[String], tokens: &[Token]) -> Vec<Acquired> {
    wait(join_all(names.iter().zip(tokens).map(|(name, token)| {
        let store = Arc::clone(store);
        async move {
            store
                .acquire(AcquireRequest {
                    key: &key(name),
                    token: *token,
                    ttl: ttl(LONG),
                    on_held: OnHeld::Fail,
                    mode: Mode::Exclusive,
                    note: &[],
                })
                .await
        }
    })))
}

fn names(what: &str) -> Vec<String> {
    (0..MANY).map(|n| format!("{what}:{n}")).collect()
}

fn tokens() -> Vec<Token> {
    (0..MANY).map(|_| Token::random()).collect()
}

fn scripts_run(server: &Server) -> u64 {
    let stats = server.ask::<String>("INFO commandstats");
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[test]
fn each_gets_its_own_answer() {
    let server = Server::start(&[]);
    let stores = patient(&server.url());
    let (names, tokens) = (names("k"), tokens());
    for (n, name) in names.iter().enumerate() {
        match n % 3 {
            0 => server.ask::<()>(&format!("SET lock:{name} theirs PX {}", 1_000_000 + n)),
            1 => server.ask::<()>(&format!("HSET lock:{name} a b")),
            _ => {}
        }
    }
    let mut fences = Vec::new();
    for (n, answer) in acquire_all(&stores.one, &names, &tokens).into_iter().enumerate() {
        match (n % 3, answer) {
            (0, Acquired::Denied { retry_in: Some(left), why: Denial::Held }) => {
                let most = Duration::from_millis(1_000_000 + n as u64);
                assert!(left <= most && left > Duration::from_secs(900), "{n}: {left:?}");
            }
            (1, Acquired::Denied { why: Denial::OtherKind, .. }) => {}
            (2, Acquired::Granted { fence: Some(fence), .. }) => fences.push(fence),
            (_, answer) => panic!("{n}: {answer:?}"),
        }
    }
    for (n, (name, token)) in names.iter().zip(&tokens).enumerate() {
        let value: Option<String> = if n % 3 == 1 { None } else { server.ask(&format!("GET lock:{name}")) };
        match n % 3 {
            0 => assert_eq!(value.as_deref(), Some("theirs")),
            1 => assert_eq!(server.ask::<i64>(&format!("HLEN lock:{name}")), 1),
            _ => assert_eq!(value, Some(token.to_string())),
        }
    }
    let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
    let extended =
        wait(join_all(keys.iter().zip(&tokens).map(|(key, token)| stores.one.extend(key, *token, ttl(LONG)))));
    for (n, answer) in extended.into_iter().enumerate() {
        assert_eq!(matches!(answer, Extended::Extended { .. }), n % 3 == 2, "{n}: {answer:?}");
    }
    let released = wait(join_all(keys.iter().zip(&tokens).map(|(key, token)| stores.one.release(key, *token))));
    for (n, answer) in released.into_iter().enumerate() {
        assert_eq!(answer, if n % 3 == 2 { Released::Released } else { Released::AlreadyGone }, "{n}");
    }
    // Each fence is the one that the next grant of its key goes on from.
    let again = names
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 3 == 2)
        .map(|(_, name)| take(&*stores.other, name, Token::random()));
    assert!(again.zip(fences).all(|(next, fence)| next > fence));
}

#[test]
fn one_that_fails_does_not_take_the_others_with_it() {
    let server = Server::start(&[]);
    let stores = patient(&server.url());
    let (names, tokens) = (names("k"), tokens());
    // Nobody but us writes such a key: a server gone mad.
    server.ask::<()>("SET leasehold:queue:{lock:k:50} mad");
    let answers = acquire_all(&stores.one, &names, &tokens);
    for (n, answer) in answers.iter().enumerate() {
        match answer {
            Acquired::Unknown(error) => assert!(n == 50 && error.to_string().contains("WRONGTYPE"), "{n}: {error}"),
            answer => assert!(n != 50 && matches!(answer, Acquired::Granted { .. }), "{n}: {answer:?}"),
        }
    }
    assert_eq!(server.ask::<i64>("EXISTS lock:k:50"), 0);
}

#[test]
fn calls_that_wait_for_others_go_out_as_few_commands() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = patient(&proxy.url());
    take(&*stores.one, "warm", Token::random());
    let before = scripts_run(&server);
    // Replies come so late that everybody has asked by then.
    proxy.hold(Direction::ToClient);
    let store = Arc::clone(&stores.one);
    let asking = std::thread::spawn(move || acquire_all(&store, &names("k"), &tokens()));
    until("the first to be there", || scripts_run(&server) > before);
    until("all to have asked", || Arc::strong_count(&stores.one) > MANY);
    proxy.heal();
    let answers = asking.join().unwrap();
    assert!(answers.iter().all(redis_store::is_granted), "{answers:?}");
    let commands = scripts_run(&server) - before;
    // Those that went ahead, and a batch for each of them at most.
    assert!(commands <= 2 * 8, "{commands} commands for {MANY} locks");
}

#[test]
fn a_call_that_is_dropped_while_it_waits_is_not_sent() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = stores(|| RedisStore::builder(&proxy.url()).operation_timeout(Duration::from_secs(2)));
    take(&*stores.one, "warm", Token::random());
    proxy.hold(Direction::ToServer);
    let keys: Vec<_> = names("k").iter().map(|name| key(name)).collect();
    let asks = keys.iter().map(|key| AcquireRequest {
        key,
        token: Token::random(),
        ttl: ttl(LONG),
        on_held: OnHeld::Fail,
        mode: Mode::Exclusive,
        note: &[],
    });
    let mut asking = Box::pin(join_all(asks.map(|ask| stores.one.acquire(ask))));
    assert!(futures::FutureExt::now_or_never(&mut asking).is_none());
    drop(asking);
    proxy.heal();
    // Of those that had gone ahead, each is taken back.
    until("the clean-up", || server.ask::<Vec<String>>("KEYS lock:k:*").is_empty());
    let fences = server.ask::<Vec<String>>("KEYS leasehold:fence:*");
    // One went by itself, and one batch was written.
    assert!(fences.len() <= 1 + 1 + 64, "the others were sent: {fences:?}");
    drop(stores);
    assert_eq!(server.ask::<Vec<String>>("KEYS lock:*"), ["lock:warm"]);
}

#[test]
fn a_batch_that_the_server_does_not_know_is_sent_whole() {
    let server = Server::start(&[]);
    let stores = patient(&server.url());
    for round in 0..5 {
        server.ask::<()>("SCRIPT FLUSH");
        let answers = acquire_all(&stores.one, &names(&format!("round:{round}")), &tokens());
        assert!(answers.iter().all(redis_store::is_granted), "{answers:?}");
    }
}

/// All of a batch are taken by few commands, which must not take one key for two.
#[test]
fn of_two_who_ask_for_one_key_in_one_batch_one_gets_it() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = patient(&proxy.url());
    take(&*stores.one, "warm", Token::random());
    // Each name twice; what waits for the first goes out together.
    let twice: Vec<_> = names("k").into_iter().flat_map(|name| [name.clone(), name]).collect();
    let tokens: Vec<_> = twice.iter().map(|_| Token::random()).collect();
    let answers = held_up(&proxy, || acquire_all(&stores.one, &twice, &tokens));
    let keys: Vec<_> = twice.iter().map(|name| key(name)).collect();
    for (pair, tokens) in answers.chunks(2).zip(tokens.chunks(2)) {
        let granted = pair.iter().filter(|answer| redis_store::is_granted(answer)).count();
        assert_eq!(granted, 1, "{pair:?} {tokens:?}");
    }
    // The same of releases: one of two who release finds it gone.
    let held = keys.iter().zip(&tokens).zip(&answers).filter(|(_, answer)| redis_store::is_granted(answer));
    let held: Vec<_> = held.flat_map(|((key, token), _)| [(key, *token); 2]).collect();
    let release = || wait(join_all(held.iter().map(|(key, token)| stores.one.release(key, *token))));
    for pair in held_up(&proxy, release).chunks(2) {
        let mut pair = [&pair[0], &pair[1]];
        pair.sort_by_key(|answer| **answer == Released::AlreadyGone);
        assert_eq!(pair, [&Released::Released, &Released::AlreadyGone]);
    }
    assert_eq!(server.ask::<Vec<String>>("KEYS lock:k:*"), Vec::<String>::new());
}

/// Runs `calls` while replies are late, so that most of them go out together.
fn held_up<T: Send>(proxy: &Proxy, calls: impl FnOnce() -> T + Send) -> T {
    proxy.delay(Direction::ToClient, Duration::from_millis(100));
    let answer = calls();
    proxy.delay(Direction::ToClient, Duration::ZERO);
    answer
}

#[test]
fn a_fence_that_is_ahead_of_the_clock_lifts_no_other_in_its_batch() {
    const AHEAD: u64 = 9_000_000_000_000_000;
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let stores = patient(&proxy.url());
    take(&*stores.one, "warm", Token::random());
    server.ask::<()>(&format!("SET leasehold:fence:{{lock:k:70}} {AHEAD}"));
    let names = names("k");
    let answers = held_up(&proxy, || acquire_all(&stores.one, &names, &tokens()));
    for (n, answer) in answers.iter().enumerate() {
        let Acquired::Granted { fence: Some(fence), .. } = answer else { panic!("{n}: {answer:?}") };
        assert_eq!(*fence > AHEAD, n == 70, "{n}: {fence}");
    }
}
