//! Fear: a store that breaks its contract: two holders of a key, a key that nobody holds and nobody frees, an answer
//! that is not true (S1 to S14), against real Redis.
#![cfg(feature = "redis")]

#[path = "support/redis/mod.rs"]
mod kit;

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use kit::{Direction, Proxy, Server, Then, until, until_some};
use leasehold::store::redis::RedisStore;
use leasehold::store::{
    Acquired, Ask, Denial, Event, Extended, Forced, Hint, Holder, Intent, Released, Seen, Store, StoreError, Warning,
    drift,
};
use leasehold::{Key, Token, Ttl};
use tokio::runtime::Runtime;

/// Longer than any test is patient: no lock ends by time.
const TTL: Duration = Duration::from_mins(2);

/// A store and the runtime that drives it. Its futures are polled by the test's own thread, outside of it (S13).
struct Rig {
    store: RedisStore,
    _runtime: Runtime,
}

impl Rig {
    fn new(url: &str) -> Self {
        Self::over(RedisStore::new(url).unwrap())
    }

    fn over(store: RedisStore) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(store.start()).unwrap();
        Self { store, _runtime: runtime }
    }

    fn ask(&self, key: &str, token: Token, ttl: Duration, intent: Intent) -> Acquired {
        let key = key_of(key);
        wait(self.store.acquire(Ask { key: &key, token, ttl: Ttl::new(ttl).unwrap(), intent }))
    }

    fn try_acquire(&self, key: &str, token: Token) -> Acquired {
        self.ask(key, token, TTL, Intent::Try)
    }

    /// The fence of a grant that is to be had.
    #[track_caller]
    fn acquire(&self, key: &str, token: Token) -> u64 {
        granted(self.try_acquire(key, token)).0
    }

    fn release(&self, key: &str, token: Token) -> Released {
        wait(self.store.release(&key_of(key), token))
    }

    fn extend(&self, key: &str, token: Token, ttl: Duration) -> Extended {
        wait(self.store.extend(&key_of(key), token, Ttl::new(ttl).unwrap()))
    }

    fn look(&self, key: &str, token: Option<Token>) -> Result<Seen, StoreError> {
        wait(self.store.look(&key_of(key), token))
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

fn key_of(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[track_caller]
fn granted(answer: Acquired) -> (u64, Duration) {
    match answer {
        Acquired::Granted { fence: Some(fence), valid_for } => (fence, valid_for),
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
fn denied(answer: Acquired) -> (Denial, Option<Duration>) {
    match answer {
        Acquired::Denied { retry_in, why } => (why, retry_in),
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn a_lock_is_a_plain_string_that_ends_by_itself() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    let token = Token::random();
    let (_, valid_for) = granted(rig.try_acquire("k", token));
    assert_eq!(server.ask::<String>("TYPE lock:k"), "string");
    assert_eq!(server.ask::<String>("GET lock:k"), token.to_string());
    let left: u64 = server.ask("PTTL lock:k");
    assert!(left > 0 && Duration::from_millis(left) <= TTL, "{left}");
    assert_eq!(valid_for, TTL - drift(TTL));
    assert_eq!(denied(rig.try_acquire("k", Token::random())).0, Denial::Held);
    assert_eq!(rig.release("k", token), Released::Released);
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 0);
}

#[test]
fn both_spellings_of_a_key_are_one_lock() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    assert_eq!(rig.store.canonical(&key_of("k")).unwrap(), key_of("lock:k"));
    assert_eq!(rig.store.canonical(&key_of("lock:k")).unwrap(), key_of("lock:k"));
    rig.acquire("k", Token::random());
    assert_eq!(denied(rig.try_acquire("lock:k", Token::random())).0, Denial::Held);
}

#[test]
fn a_foreign_lock_excludes_us_and_its_value_is_not_shown() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    server.ask::<()>("SET lock:k foreign-secret NX PX 60000");
    let (why, retry_in) = denied(rig.try_acquire("k", Token::random()));
    assert_eq!(why, Denial::Held);
    assert!(retry_in.is_some_and(|span| span <= Duration::from_mins(1)));
    let seen = rig.look("k", Some(Token::random())).unwrap();
    assert!(matches!(seen, Seen::Held { by: Holder::Other, ends_in: Some(_), fence: None }), "{seen:?}");
    assert!(!format!("{seen:?}").contains("secret"));
    server.ask::<()>("PERSIST lock:k");
    assert_eq!(denied(rig.try_acquire("k", Token::random())), (Denial::Held, None));
    server.ask::<()>("DEL lock:k");
    rig.acquire("k", Token::random());
}

#[test]
fn another_kind_of_value_is_a_held_lock() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    server.ask::<()>("HSET lock:k field 1");
    let token = Token::random();
    assert_eq!(denied(rig.try_acquire("k", token)).0, Denial::OtherKind);
    assert!(matches!(rig.look("k", None).unwrap(), Seen::Held { by: Holder::OtherKind, ends_in: None, .. }));
    assert_eq!(rig.extend("k", token, TTL), Extended::Lost);
    assert_eq!(rig.release("k", token), Released::AlreadyGone);
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 1);
}

#[test]
fn a_token_that_holds_is_granted_again_with_the_time_that_is_left() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    let token = Token::random();
    let fence = rig.acquire("k", token);
    server.ask::<()>("PEXPIRE lock:k 5000");
    let (again, valid_for) = granted(rig.try_acquire("k", token));
    assert_eq!(again, fence);
    assert!(valid_for < Duration::from_secs(5), "{valid_for:?}");
    assert!(server.ask::<i64>("PTTL lock:k") <= 5000);
}

#[test]
fn an_extension_lengthens_what_is_held_and_makes_nothing_anew() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    let token = Token::random();
    rig.acquire("k", token);
    let longer = Duration::from_secs(300);
    assert!(matches!(rig.extend("k", token, longer), Extended::Extended { valid_for } if valid_for > TTL));
    assert!(server.ask::<i64>("PTTL lock:k") > 200_000);
    assert!(matches!(rig.extend("k", token, TTL), Extended::Extended { valid_for } if valid_for > TTL));
    assert!(server.ask::<i64>("PTTL lock:k") > 200_000, "never shortened");
    assert_eq!(rig.extend("k", Token::random(), longer), Extended::Lost);
    server.ask::<()>("DEL lock:k");
    assert_eq!(rig.extend("k", token, TTL), Extended::Lost);
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 0);
}

#[test]
fn a_release_ends_only_what_its_token_holds() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    let token = Token::random();
    rig.acquire("k", token);
    assert_eq!(rig.release("k", Token::random()), Released::AlreadyGone);
    assert!(matches!(rig.look("k", Some(token)).unwrap(), Seen::Held { by: Holder::Ours, .. }));
    assert_eq!(rig.release("k", token), Released::Released);
    assert_eq!(rig.release("k", token), Released::AlreadyGone);
    assert_eq!(rig.look("k", None).unwrap(), Seen::Free);
}

#[test]
fn a_release_is_carried_out_though_its_future_is_dropped_at_once() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    let token = Token::random();
    rig.acquire("k", token);
    drop(rig.store.release(&key_of("k"), token));
    until("the end of the lock", || server.ask::<i64>("EXISTS lock:k") == 0);
}

#[test]
fn a_release_whose_answer_is_lost_is_asked_again() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let rig = Rig::new(&proxy.url());
    let token = Token::random();
    rig.acquire("k", token);
    proxy.black_hole(Direction::ToServer);
    assert!(matches!(rig.release("k", token), Released::Unknown(_)));
    assert_eq!(rig.try_acquire("k", token), Acquired::Unknown(StoreError::CleaningUp));
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 1);
    proxy.heal();
    until("the end of the lock", || server.ask::<i64>("EXISTS lock:k") == 0);
    until("the end of the clean-up", || matches!(rig.try_acquire("k", token), Acquired::Granted { .. }));
}

#[test]
fn a_grant_whose_answer_is_lost_is_taken_back() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let rig = Rig::new(&proxy.url());
    rig.acquire("warm", Token::random());
    for then in [Then::Reset, Then::Silence] {
        let lost = proxy.lost_replies();
        // Its token makes it the acquire.
        let token = Token::random();
        proxy.lose_reply_of(&token.to_string(), then);
        assert!(matches!(rig.try_acquire("k", token), Acquired::Unknown(_)));
        assert_eq!(proxy.lost_replies(), lost + 1);
        assert_eq!(rig.try_acquire("k", token), Acquired::Unknown(StoreError::CleaningUp));
        proxy.heal();
        until("the end of the lock", || server.ask::<i64>("EXISTS lock:k") == 0);
        until("a grant to another", || {
            let other = Token::random();
            let got = matches!(rig.try_acquire("k", other), Acquired::Granted { .. });
            got && rig.release("k", other) == Released::Released
        });
    }
}

#[test]
fn a_command_that_comes_late_is_not_carried_out_or_is_taken_back() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let rig = Rig::new(&proxy.url());
    rig.acquire("warm", Token::random());
    let token = Token::random();
    proxy.hold(Direction::ToServer);
    assert!(matches!(rig.try_acquire("k", token), Acquired::Unknown(_)));
    proxy.heal();
    until("the end of the clean-up", || {
        !matches!(rig.look("k", None), Ok(Seen::Held { .. }) | Err(_))
            && rig.try_acquire("k", token) != Acquired::Unknown(StoreError::CleaningUp)
    });
    assert!(matches!(rig.look("k", Some(token)), Ok(Seen::Held { by: Holder::Ours, .. })), "the last try was granted");
}

#[test]
fn a_dropped_acquire_leaves_no_key() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let rig = Rig::new(&proxy.url());
    let (key, ttl) = (key_of("k"), Ttl::new(TTL).unwrap());
    for intent in [Intent::Try, Intent::Wait] {
        // The server knows the scripts: a reply that is held cannot ask for them.
        let warm = Token::random();
        until("a connection", || matches!(rig.try_acquire("warm", warm), Acquired::Granted { .. }));
        assert_eq!(rig.release("warm", warm), Released::Released);
        proxy.hold(Direction::ToClient);
        {
            let ask = Ask { key: &key, token: Token::random(), ttl, intent };
            let mut acquire = pin!(rig.store.acquire(ask));
            let mut polled = || wait(poll_fn(|cx| Poll::Ready(acquire.as_mut().poll(cx).is_pending())));
            assert!(polled());
            until("the key, as its holder never saw it", || server.ask::<i64>("EXISTS lock:k") == 1);
        }
        if intent == Intent::Wait {
            rig.store.leave(&key);
        }
        until("the end of the key", || server.ask::<i64>("EXISTS lock:k") == 0);
        proxy.heal();
    }
    until("the end of what stood beside it", || server.ask::<i64>("EXISTS leasehold:queue:{lock:k}") == 0);
}

#[test]
fn fences_rise_across_stores_flushes_and_forced_ends() {
    let mut server = Server::start(&[]);
    let (one, two) = (Rig::new(&server.url()), Rig::new(&server.url()));
    let mut last = 0;
    let mut next = |rig: &Rig| {
        let token = Token::random();
        let fence = until_some("a grant", || match rig.try_acquire("k", token) {
            Acquired::Granted { fence, .. } => fence,
            _ => None,
        });
        assert!(fence > last, "{fence} after {last}");
        last = fence;
        assert_eq!(rig.release("k", token), Released::Released);
        fence
    };
    next(&one);
    next(&two);
    server.ask::<()>("FLUSHALL");
    next(&one);
    server.ask::<()>("SCRIPT FLUSH");
    next(&two);
    one.acquire("k", Token::random());
    assert_eq!(wait(one.store.force_release(&key_of("k"))), Forced::Released);
    assert_eq!(wait(one.store.force_release(&key_of("k"))), Forced::WasFree);
    let last = next(&one);
    // A master whose clock lags behind: the stored fence counts.
    let ahead = last + 1_000_000_000;
    server.ask::<()>(&format!("SET leasehold:fence:{{lock:k}} {ahead} PX 60000"));
    next(&two);
    assert!(server.ask::<i64>("PTTL leasehold:fence:{lock:k}") > 0, "no counter without an end");
    server.restart();
    // It has forgotten all; who has seen a fence has not.
    next(&two);
}

#[test]
fn whoever_waits_first_is_granted_first() {
    let server = Server::start(&[]);
    let rigs = [Rig::new(&server.url()), Rig::new(&server.url()), Rig::new(&server.url())];
    let holder = Token::random();
    rigs[0].acquire("k", holder);
    let tokens = [Token::random(), Token::random()];
    for (rig, token) in rigs[1..].iter().zip(tokens) {
        assert_eq!(denied(rig.ask("k", token, TTL, Intent::Wait)).0, Denial::Held);
    }
    // Longer than a ticket lives: it is the renewal that keeps the places.
    let ends = |process: usize| -> Option<f64> {
        let names: Vec<String> = server.ask("ZRANGE leasehold:queue:{lock:k} 0 -1");
        server.ask(&format!("ZSCORE leasehold:alive:{{lock:k}} {}", names.get(process)?))
    };
    let first = ends(0).unwrap();
    until("renewals", || ends(0).is_some_and(|now| now > first + 1_500_000.0));
    assert_eq!(rigs[0].release("k", holder), Released::Released);
    assert_eq!(denied(rigs[0].try_acquire("k", Token::random())).0, Denial::Ahead);
    assert_eq!(denied(rigs[2].ask("k", tokens[1], TTL, Intent::Wait)).0, Denial::Ahead);
    granted(rigs[1].ask("k", tokens[0], TTL, Intent::Wait));
    assert_eq!(rigs[1].release("k", tokens[0]), Released::Released);
    granted(rigs[2].ask("k", tokens[1], TTL, Intent::Wait));
}

#[test]
fn who_leaves_or_dies_holds_nobody_up() {
    let server = Server::start(&[]);
    let (holder, second) = (Rig::new(&server.url()), Rig::new(&server.url()));
    for leaves in [true, false] {
        let first = Rig::new(&server.url());
        let token = Token::random();
        holder.acquire("k", token);
        denied(first.ask("k", Token::random(), TTL, Intent::Wait));
        let waiting = Token::random();
        denied(second.ask("k", waiting, TTL, Intent::Wait));
        assert_eq!(holder.release("k", token), Released::Released);
        assert_eq!(denied(second.ask("k", waiting, TTL, Intent::Wait)).0, Denial::Ahead);
        if leaves {
            first.store.leave(&key_of("k"));
        } else {
            drop(first);
        }
        until("its turn", || matches!(second.ask("k", waiting, TTL, Intent::Wait), Acquired::Granted { .. }));
        assert_eq!(second.release("k", waiting), Released::Released);
    }
}

#[test]
fn a_watch_that_is_in_force_hears_of_the_end() {
    let server = Server::start(&[]);
    let (holder, waiter) = (Rig::new(&server.url()), Rig::new(&server.url()));
    let key = key_of("k");
    let subscribers = || server.ask::<(String, i64)>("PUBSUB NUMSUB leasehold:wake:{lock:k}").1;
    let hears = |watch: &mut leasehold::store::Watch, wanted| while wait(watch.next()).unwrap() != wanted {};
    let (mut one, mut two) = (wait(waiter.store.watch(&key)).unwrap(), wait(waiter.store.watch(&key)).unwrap());
    assert_eq!(subscribers(), 1, "in force, and one for both");
    let token = Token::random();
    holder.acquire("k", token);
    assert_eq!(holder.release("k", token), Released::Released);
    hears(&mut one, Hint::Released);
    hears(&mut two, Hint::Released);
    drop(one);
    holder.acquire("k", token);
    assert_eq!(wait(holder.store.force_release(&key)), Forced::Released);
    hears(&mut two, Hint::Forced);
    drop(two);
    until("the end of the subscription", || subscribers() == 0);
    drop(wait(waiter.store.watch(&key)).unwrap());
}

#[test]
fn after_a_break_everybody_is_told_and_what_is_watched_is_heard() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let (holder, waiter) = (Rig::new(&server.url()), Rig::new(&proxy.url()));
    let mut watch = wait(waiter.store.watch(&key_of("k"))).unwrap();
    let mut events = wait(waiter.store.events()).unwrap();
    proxy.reset();
    while wait(watch.next()).unwrap() != Hint::Resumed {}
    while wait(events.next()).unwrap() != Event::Resumed {}
    // The first of them may be of the first connection: what counts is that it hears again.
    until("ears", || server.ask::<(String, i64)>("PUBSUB NUMSUB leasehold:wake:{lock:k}").1 == 1);
    let token = Token::random();
    holder.acquire("k", token);
    assert_eq!(holder.release("k", token), Released::Released);
    while wait(watch.next()).unwrap() != Hint::Released {}
}

#[test]
fn a_forced_end_is_told_to_every_process() {
    let server = Server::start(&[]);
    let (holder, operator) = (Rig::new(&server.url()), Rig::new(&server.url()));
    let mut events = wait(holder.store.events()).unwrap();
    until("ears", || server.ask::<(String, i64)>("PUBSUB NUMSUB leasehold:forced@0").1 == 2);
    holder.acquire("k", Token::random());
    assert_eq!(wait(operator.store.force_release(&key_of("k"))), Forced::Released);
    let heard = until_some("the event", || match wait(events.next()) {
        Some(Event::Forced(key)) => Some(key),
        _ => None,
    });
    assert_eq!(heard, key_of("lock:k"));
}

#[test]
fn every_call_answers_however_the_server_fares() {
    let server = Server::start(&[]);
    let rig =
        Rig::over(RedisStore::builder(&server.url()).operation_timeout(Duration::from_millis(100)).build().unwrap());
    let token = Token::random();
    rig.acquire("k", token);
    // They would hang here, if they did not answer.
    server.stop();
    assert!(matches!(rig.try_acquire("other", Token::random()), Acquired::Unknown(_)));
    assert!(matches!(rig.extend("k", token, TTL), Extended::Unknown(_)));
    assert!(rig.look("k", None).is_err());
    assert!(matches!(wait(rig.store.force_release(&key_of("free"))), Forced::Unknown(_)));
    assert!(wait(rig.store.watch(&key_of("new"))).is_err());
    assert!(wait(rig.store.health()).answer.is_err());
    assert!(matches!(rig.release("k", token), Released::Unknown(_)));
    server.cont();
    until("the end of the lock", || server.ask::<i64>("EXISTS lock:k") == 0);
    until("the end of what was tried", || server.ask::<i64>("EXISTS lock:other") == 0);
    until("an answer", || wait(rig.store.health()).answer.is_ok());
}

#[test]
fn a_server_that_is_down_is_unreachable_and_serves_again_when_it_is_back() {
    let mut server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    rig.acquire("k", Token::random());
    server.kill9();
    until("the news", || matches!(rig.look("k", None), Err(StoreError::Unreachable(_))));
    let answer = rig.try_acquire("k", Token::random());
    assert!(matches!(answer, Acquired::Unknown(StoreError::Unreachable(_))), "{answer:?}");
    server.restart();
    until("service", || matches!(rig.try_acquire("k", Token::random()), Acquired::Granted { .. }));
}

#[test]
fn a_server_that_was_paused_longer_than_a_lock_lasts_has_no_second_holder() {
    let server = Server::start(&[]);
    let (one, two) = (Rig::new(&server.url()), Rig::new(&server.url()));
    let token = Token::random();
    let short = Duration::from_millis(200);
    let (_, valid_for) = granted(one.ask("k", token, short, Intent::Try));
    assert!(valid_for < short);
    server.stop();
    let begun = std::time::Instant::now();
    until("the end of the lock", || begun.elapsed() > short);
    server.cont();
    until("the next holder", || matches!(two.try_acquire("k", Token::random()), Acquired::Granted { .. }));
    assert_eq!(one.extend("k", token, TTL), Extended::Lost);
}

#[test]
fn a_store_that_was_not_started_or_has_stopped_says_so() {
    let server = Server::start(&[]);
    let key = key_of("k");
    let store = RedisStore::new(&server.url()).unwrap();
    assert_eq!(wait(store.look(&key, None)), Err(StoreError::NotRunning));
    let rig = Rig::over(store);
    let mut watch = wait(rig.store.watch(&key)).unwrap();
    let mut events = wait(rig.store.events()).unwrap();
    let token = Token::random();
    rig.acquire("k", token);
    drop(rig.store.release(&key, token));
    wait(rig.store.stop());
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 0, "what was under way was finished");
    until("the end", || rig.look("k", None) == Err(StoreError::NotRunning));
    assert!(matches!(rig.try_acquire("k", token), Acquired::Unknown(StoreError::NotRunning)));
    while wait(watch.next()).is_some() {}
    while wait(events.next()).is_some() {}
}

#[test]
fn a_full_server_refuses_and_keeps_nothing() {
    let server = Server::start(&[]);
    let rig = Rig::new(&server.url());
    rig.acquire("warm", Token::random());
    server.ask::<()>("CONFIG SET maxmemory 1");
    assert_eq!(denied(rig.try_acquire("k", Token::random())).0, Denial::OutOfMemory);
    server.ask::<()>("CONFIG SET maxmemory 0");
    assert_eq!(server.ask::<i64>("EXISTS lock:k"), 0);
    rig.acquire("k", Token::random());
}

#[test]
fn a_server_that_evicts_is_warned_of() {
    let server = Server::start(&["--maxmemory-policy", "volatile-lru"]);
    let warned = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = std::sync::Arc::clone(&warned);
    let store =
        RedisStore::builder(&server.url()).on_warning(move |warning| hook.lock().unwrap().push(warning.clone()));
    let rig = Rig::over(store.build().unwrap());
    let wanted = vec![Warning::Eviction { policy: "volatile-lru".into() }];
    until("the warning", || *warned.lock().unwrap() == wanted);
    assert_eq!(wait(rig.store.health()).warnings, wanted);
}

#[test]
fn no_password_is_shown() {
    let server = Server::start(&["--requirepass", "right-secret"]);
    let url = |password: &str| format!("redis://:{password}@{}/0", server.address());
    let rig = Rig::new(&url("wrong-secret"));
    let error = until_some("the refusal", || rig.look("k", None).err().filter(|error| *error != StoreError::Timeout));
    assert!(!format!("{error} {error:?} {:?}", rig.store).contains("secret"), "{error:?}");
    let rig = Rig::new(&url("right-secret"));
    rig.acquire("k", Token::random());
    assert!(!format!("{:?}", rig.store).contains("secret"));
}

#[test]
fn keys_and_ttls_that_redis_cannot_keep_are_refused() {
    let server = Server::start(&[]);
    let rig = Rig::over(
        RedisStore::builder(&server.url()).key_template(leasehold::store::KeyTemplate::bare()).build().unwrap(),
    );
    let beside = "leasehold:fence:{k}";
    assert!(matches!(rig.store.canonical(&key_of(beside)), Err(StoreError::InvalidKey { .. })));
    assert!(matches!(rig.try_acquire(beside, Token::random()), Acquired::Unknown(StoreError::InvalidKey { .. })));
    let short = rig.ask("k", Token::random(), Duration::from_millis(9), Intent::Try);
    assert_eq!(short, Acquired::Unknown(StoreError::InvalidTtl));
    assert_eq!(server.ask::<i64>("DBSIZE"), 0);
}

#[test]
fn a_lock_delay_blocks_the_key_for_longer_than_the_holder_is_told() {
    let server = Server::start(&[]);
    let delay = Duration::from_secs(100);
    let rig = Rig::over(RedisStore::builder(&server.url()).lock_delay(delay).build().unwrap());
    let token = Token::random();
    let (_, valid_for) = granted(rig.try_acquire("k", token));
    assert_eq!(valid_for, TTL - drift(TTL));
    assert!(server.ask::<i64>("PTTL lock:k") > 210_000);
    assert!(matches!(rig.extend("k", token, TTL), Extended::Extended { valid_for } if valid_for <= TTL));
    assert_eq!(rig.store.terms().lapsed, leasehold::store::Lapsed::Leave);
}

#[test]
fn many_threads_never_hold_one_key_together() {
    let server = Server::start(&[]);
    let rigs = [Rig::new(&server.url()), Rig::new(&server.url())];
    let inside = std::sync::atomic::AtomicU32::new(0);
    let fences = std::sync::Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (rig, inside, fences) = (&rigs[thread % 2], &inside, &fences);
            scope.spawn(move || {
                for _ in 0..50 {
                    let token = Token::random();
                    let fence = until_some("a grant", || match rig.try_acquire("k", token) {
                        Acquired::Granted { fence, .. } => fence,
                        _ => None,
                    });
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two holders");
                    assert!(fences.lock().unwrap().insert(fence), "a fence twice");
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    assert_eq!(rig.release("k", token), Released::Released);
                }
            });
        }
    });
}
