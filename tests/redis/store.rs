//! Fear: the lock in Redis is not the one that other libraries know, or does not do what its rules say.
#![cfg(feature = "test-util")]

use std::sync::{Arc, mpsc};
use std::time::Duration;

use leasehold::conformance::store::{self as conformance, wait};
use leasehold::store::redis::RedisStore;
use leasehold::store::{
    AcquireRequest, Acquired, Denial, Extended, Forced, Holder, KeyState, KeyTemplate, OnExpiry, OnHeld, Released,
    Store, StoreError, Warning,
};
use leasehold::{Mode, Token};

use crate::kit::{Server, until};
use crate::redis_store::{self, LONG, ask, denied, is_granted, key, stores, stores_at, take, ttl};

const RELEASE: &str = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";

#[test]
fn redis_keeps_the_contract() {
    let server = Server::start(&[]);
    conformance::check(|| Arc::new(RedisStore::new(&server.url()).unwrap()) as Arc<dyn Store>);
}

#[test]
fn a_lock_is_a_plain_string_of_its_token_with_a_ttl_in_milliseconds() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    assert!(is_granted(&ask(&*stores.one, "order:42", token, Duration::from_millis(4_567))));
    assert_eq!(server.ask::<String>("GET lock:order:42"), token.to_string());
    let left: i64 = server.ask("PTTL lock:order:42");
    assert!((1..=4_567).contains(&left), "{left}");
    let beside: Vec<String> = server.ask("KEYS *");
    assert!(beside.iter().all(|name| name == "lock:order:42" || name.starts_with("leasehold:")), "{beside:?}");
}

#[test]
fn other_clients_locks_exclude_us_and_ours_exclude_them() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    take(&*stores.one, "a", token);
    assert_eq!(server.ask::<Option<String>>("SET lock:a theirs NX PX 1000"), None);
    let mut client = server.client();
    let eval = |client: &mut redis::Connection, value: &str| {
        redis::cmd("EVAL").arg(RELEASE).arg(1).arg("lock:a").arg(value).query::<i64>(client).unwrap()
    };
    assert_eq!(eval(&mut client, "theirs"), 0);
    // Compare-and-delete with our token is what any of them would do.
    assert_eq!(eval(&mut client, &token.to_string()), 1);
    assert_eq!(wait(stores.one.release(&key("a"), token)), Released::AlreadyGone);

    redis::cmd("SET").arg("lock:a").arg(&[0xff_u8, 0, 0xfe]).exec(&mut client).unwrap();
    let answer = ask(&*stores.one, "a", token, LONG);
    assert_eq!(answer, Acquired::Denied { retry_in: None, why: Denial::Held }, "a value that is no text, without end");
    let seen = wait(stores.one.look(&key("a"), Some(token)));
    assert_eq!(seen, Ok(KeyState::Held { by: Holder::Other, ends_in: None, fence: seen_fence(&server, "a") }));
    assert_eq!(wait(stores.one.release(&key("a"), token)), Released::AlreadyGone);
    assert_eq!(wait(stores.one.extend(&key("a"), token, ttl(LONG))), Extended::Lost);
    assert_eq!(server.ask::<i64>("PTTL lock:a"), -1, "what another keeps for ever stays so");
}

fn seen_fence(server: &Server, name: &str) -> Option<u64> {
    server.ask::<Option<String>>(&format!("GET leasehold:fence:{{lock:{name}}}")).map(|text| text.parse().unwrap())
}

#[test]
fn locks_of_another_kind_are_held_and_not_an_error() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    for make in ["HSET lock:k f v", "ZADD lock:k 1 m", "LPUSH lock:k v"] {
        server.ask::<i64>(make);
        assert_eq!(denied(&ask(&*stores.one, "k", token, LONG)), Denial::OtherKind, "{make}");
        assert!(matches!(
            wait(stores.one.look(&key("k"), Some(token))),
            Ok(KeyState::Held { by: Holder::OtherKind, ends_in: None, .. })
        ));
        assert_eq!(wait(stores.one.extend(&key("k"), token, ttl(LONG))), Extended::Lost);
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::AlreadyGone);
        assert_eq!(wait(stores.one.force_release(&key("k"))), Forced::Released);
    }
}

#[test]
fn a_template_makes_our_locks_theirs() {
    let server = Server::start(&[]);
    let stores = stores(|| RedisStore::builder(&server.url()).key_template(KeyTemplate::mutex()));
    take(&*stores.one, "a", Token::random());
    assert_eq!(server.ask::<i64>("EXISTS mutex:a"), 1);
    assert_eq!(denied(&ask(&*stores.other, "mutex:a", Token::random(), LONG)), Denial::Held, "both spellings are one");
    let bare = redis_store::stores(|| RedisStore::builder(&server.url()).key_template(KeyTemplate::bare()));
    let refused = ask(&*bare.one, "leasehold:fence:{x}", Token::random(), LONG);
    assert!(matches!(refused, Acquired::Unknown(StoreError::InvalidKey { .. })), "{refused:?}");
}

#[test]
fn a_retried_grant_ends_when_the_key_does() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    let fence = take(&*stores.one, "k", token);
    server.ask::<i64>("PEXPIRE lock:k 5000");
    let Acquired::Granted { fence: again, valid_for, .. } = ask(&*stores.one, "k", token, LONG) else { panic!() };
    assert_eq!(again, Some(fence));
    assert!(valid_for < Duration::from_secs(5), "{valid_for:?}");
    assert!(server.ask::<i64>("PTTL lock:k") <= 5000);
}

#[test]
fn ttls_that_redis_would_take_for_an_order_to_delete_are_refused() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    take(&*stores.one, "k", token);
    let short = ttl(Duration::from_millis(9));
    assert_eq!(wait(stores.one.extend(&key("k"), token, short)), Extended::Unknown(StoreError::InvalidTtl));
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 1);
}

#[test]
fn fences_outlive_flushall_eviction_and_a_slower_clock() {
    let server = Server::start(&[]);
    let (stores, name) = (stores_at(&server.url()), "leasehold:fence:{lock:k}");
    let mut last = 0;
    let mut next = |what: &str| {
        let token = Token::random();
        let fence = take(&*stores.one, "k", token);
        assert!(fence > last, "{what}: {fence} after {last}");
        last = fence;
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
        fence
    };
    next("the first");
    server.ask::<()>("FLUSHALL");
    next("after a flush");
    server.ask::<i64>(&format!("DEL {name}"));
    let before = next("after an eviction");
    // A master whose clock runs an hour ahead was here before.
    let ahead = before + 3_600_000_000;
    server.ask::<()>(&format!("SET {name} {ahead} PX 1000000"));
    assert_eq!(next("after a faster clock"), ahead + 1);
    let life: i64 = server.ask(&format!("PTTL {name}"));
    let day_ms = 24 * 3_600_000;
    assert!(life > day_ms + 3_500_000, "it outlives the time by which it is ahead: {life}");
    server.ask::<()>("FLUSHALL");
    assert!(next("what this process has seen counts") > ahead);
}

#[test]
fn nothing_that_a_lock_leaves_behind_lives_for_ever() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    for n in 0..20 {
        let token = Token::random();
        take(&*stores.one, &format!("k{n}"), token);
        denied(&redis_store::queue(&*stores.other, &format!("k{n}"), Token::random()));
        assert_eq!(wait(stores.one.release(&key(&format!("k{n}")), token)), Released::Released);
    }
    let names: Vec<String> = server.ask("KEYS *");
    assert!(names.len() >= 20);
    for name in names {
        assert_ne!(server.ask::<i64>(&format!("PTTL {name}")), -1, "{name}");
    }
}

#[test]
fn a_server_that_forgot_the_scripts_is_taught_them() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    take(&*stores.one, "a", token);
    server.ask::<()>("SCRIPT FLUSH");
    assert!(matches!(wait(stores.one.extend(&key("a"), token, ttl(LONG))), Extended::Extended { .. }));
    server.ask::<()>("SCRIPT FLUSH");
    assert_eq!(wait(stores.one.release(&key("a"), token)), Released::Released);
    server.ask::<()>("SCRIPT FLUSH");
    take(&*stores.one, "a", token);
}

#[test]
fn an_evicting_server_is_warned_about_and_a_full_one_denies() {
    let server = Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"]);
    let (heard, warnings) = mpsc::channel();
    let stores = stores(|| {
        let heard = heard.clone();
        // The test may be over by then.
        RedisStore::builder(&server.url()).on_warning(move |warning| drop(heard.send(warning.clone())))
    });
    let warning = Warning::Eviction { policy: "volatile-lru".into() };
    assert_eq!(warnings.recv().unwrap(), warning);
    let health = wait(stores.one.health());
    assert!(health.answer.is_ok());
    assert_eq!(health.warnings, [warning]);
    server.ask::<()>("CONFIG SET maxmemory-policy noeviction");
    server.ask::<()>("CONFIG SET maxmemory 1");
    assert_eq!(denied(&ask(&*stores.one, "k", Token::random(), LONG)), Denial::OutOfMemory);
    server.ask::<()>("CONFIG SET maxmemory 0");
    take(&*stores.one, "k", Token::random());
}

#[test]
fn no_error_and_no_debug_output_shows_a_password() {
    let server = Server::start(&["--requirepass", "sesame"]);
    let with = |password: &str| server.url().replace("redis://", &format!("redis://:{password}@"));
    let wrong = stores_at(&with("hunter2"));
    let answer = ask(&*wrong.one, "k", Token::random(), LONG);
    assert!(matches!(answer, Acquired::Unknown(StoreError::Unauthenticated(_))), "{answer:?}");
    let said = format!("{answer:?} {:?} {:?}", wrong.one, wait(wrong.one.health()));
    assert!(!said.contains("hunter2"), "{said}");
    let right = stores_at(&with("sesame"));
    take(&*right.one, "k", Token::random());
    assert!(!format!("{:?}", right.one).contains("sesame"));
}

#[test]
fn a_lock_delay_blocks_the_key_after_its_holder_ran_out() {
    let server = Server::start(&[]);
    let delay = Duration::from_secs(60);
    let (stores, token) = (stores(|| RedisStore::builder(&server.url()).lock_delay(delay)), Token::random());
    assert_eq!(stores.one.capabilities().on_expiry, OnExpiry::Leave);
    let second = Duration::from_secs(1);
    let Acquired::Granted { valid_for, .. } = ask(&*stores.one, "k", token, second) else { panic!() };
    assert!(valid_for < second, "the holder is told its own time: {valid_for:?}");
    assert!(server.ask::<i64>("PTTL lock:k") > 60_000, "others see the delay too");
    let Extended::Extended { valid_for } = wait(stores.one.extend(&key("k"), token, ttl(second * 2))) else { panic!() };
    assert!(valid_for > second && valid_for < second * 2, "{valid_for:?}");
    let Acquired::Granted { valid_for, .. } = ask(&*stores.one, "k", token, LONG) else { panic!() };
    assert!(valid_for < second * 2, "a retry is told what is left: {valid_for:?}");
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 0, "a release does not wait");
}

#[test]
fn a_database_is_kept_to() {
    let server = Server::start(&[]);
    let (zero, three) = (stores_at(&server.url()), stores_at(&format!("{}/3", server.url().trim_end_matches('/'))));
    take(&*zero.one, "k", Token::random());
    take(&*three.one, "k", Token::random());
    let mut events = wait(zero.one.events()).unwrap();
    assert_eq!(wait(three.one.force_release(&key("k"))), Forced::Released);
    assert_eq!(wait(zero.one.force_release(&key("other"))), Forced::WasFree);
    take(&*zero.one, "other", Token::random());
    assert_eq!(wait(zero.one.force_release(&key("other"))), Forced::Released);
    loop {
        match wait(events.next()).unwrap() {
            leasehold::store::Event::Forced(forced) => break assert_eq!(forced.as_str(), "other"),
            _ => continue,
        }
    }
}

#[test]
fn a_store_that_does_not_run_says_so() {
    let server = Server::start(&[]);
    let store = RedisStore::new(&server.url()).unwrap();
    assert_eq!(ask(&store, "k", Token::random(), LONG), Acquired::Unknown(StoreError::NotRunning));
    let stores = stores_at(&server.url());
    take(&*stores.one, "k", Token::random());
    wait(stores.one.stop());
    assert_eq!(ask(&*stores.one, "k", Token::random(), LONG), Acquired::Unknown(StoreError::NotRunning));
    until("the connections' end", || server.info("connected_clients") == "2");
}

/// What a process had once seen pushed the fences of all its later locks, and with them how long each is remembered.
#[test]
fn a_fence_from_a_clock_that_was_far_ahead_lifts_those_of_no_other_lock() {
    const AHEAD: u64 = 9_000_000_000_000_000;
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    server.ask::<()>(&format!("SET leasehold:fence:{{lock:ahead}} {AHEAD}"));
    let token = Token::random();
    assert!(take(&*stores.one, "ahead", token) > AHEAD);
    let other = take(&*stores.one, "other", Token::random());
    assert!(other < AHEAD / 2, "{other}");
    assert!(server.ask::<u64>("PTTL leasehold:fence:{lock:other}") < 48 * 3_600_000, "it is kept for a day");
    // Of its own lock it is remembered, also where the server has forgotten it.
    assert_eq!(wait(stores.one.release(&key("ahead"), token)), Released::Released);
    server.ask::<()>("FLUSHALL");
    assert!(take(&*stores.one, "ahead", Token::random()) > AHEAD);
}

/// A process that gives a key on among its own requests hands fences out that the server has never seen.
#[test]
fn fences_rise_above_the_last_one_that_was_given_out_under_a_claim() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let take_and_end = |name: &str, above: u64| {
        let token = Token::random();
        let last = take(&*stores.one, name, token) + above;
        assert_eq!(wait(stores.one.release_claim(&key(name), token, last)), Released::Released);
        last
    };
    // So far ahead that the clock is not past it: the number itself has to be kept.
    let last = take_and_end("k", 3_600_000_000);
    assert!(take(&*stores.other, "k", Token::random()) > last);
    assert!(server.ask::<u64>("PTTL leasehold:fence:{lock:k}") > 24 * 3_600_000, "as long as it is ahead, and a day");
    let last = take_and_end("past", 0);
    assert!(take(&*stores.other, "past", Token::random()) > last);
    // The fence of another holder stays what it is.
    let (before, after) = (Token::random(), Token::random());
    take(&*stores.one, "lost", before);
    server.ask::<()>("DEL lock:lost");
    let fence = take(&*stores.other, "lost", after);
    assert_eq!(wait(stores.one.release_claim(&key("lost"), before, fence + 9)), Released::AlreadyGone);
    assert_eq!(seen_fence(&server, "lost"), Some(fence));
    // It calls who waits as a release does.
    let mut turn = stores.other.turn(&key("k2")).unwrap();
    let token = Token::random();
    let last = take(&*stores.one, "k2", token);
    assert_eq!(denied(&redis_store::queue(&*stores.other, "k2", Token::random())), Denial::Held);
    turn.clear();
    assert_eq!(wait(stores.one.release_claim(&key("k2"), token, last)), Released::Released);
    assert!(wait(turn.next()).is_some());
}

/// R12, by walks: whatever two processes do, alone and together, and whatever a server forgets, fences of a key rise.
#[test]
fn fences_of_a_key_rise_through_flushes_batches_claims_and_clocks_that_were_ahead() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    let mut last = [0_u64; 6];
    for step in 0..1_500 {
        let store = if fastrand::bool() { &stores.one } else { &stores.other };
        let some: Vec<usize> = (0..last.len()).filter(|_| fastrand::bool()).collect();
        match fastrand::u32(0..20) {
            // What the processes have seen is not ahead of the clock then.
            0 if last.iter().all(|fence| *fence < micros_now()) => server.ask::<()>("FLUSHALL"),
            1 => {
                let (n, ahead) =
                    (fastrand::usize(0..last.len()), last.iter().max().unwrap() + fastrand::u64(0..20_000));
                server.ask::<()>(&format!("SET leasehold:fence:{{lock:{n}}} {ahead}"));
                last[n] = ahead;
            }
            _ => {
                let names: Vec<_> = some.iter().map(|n| key(&n.to_string())).collect();
                let tokens: Vec<_> = names.iter().map(|_| Token::random()).collect();
                let asks = names.iter().zip(&tokens).map(|(key, token)| {
                    store.acquire(AcquireRequest {
                        key,
                        token: *token,
                        ttl: ttl(LONG),
                        on_held: OnHeld::Fail,
                        mode: Mode::Exclusive,
                        note: &[],
                    })
                });
                let answers = wait(futures::future::join_all(asks));
                for ((n, answer), (name, token)) in some.iter().zip(answers).zip(names.iter().zip(&tokens)) {
                    let Acquired::Granted { fence: Some(fence), .. } = answer else { panic!("{step}: {answer:?}") };
                    assert!(fence > last[*n], "step {step}: {fence} after {}", last[*n]);
                    last[*n] = fence + if fastrand::bool() { 0 } else { fastrand::u64(0..3) };
                    let ended = if last[*n] == fence {
                        wait(store.release(name, *token))
                    } else {
                        wait(store.release_claim(name, *token, last[*n]))
                    };
                    assert_eq!(ended, Released::Released);
                }
            }
        }
    }
}

fn micros_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}
