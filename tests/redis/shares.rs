//! Fear: what several hold at once in Redis is held beside somebody who has it for himself, or by more than there are
//! permits; or it outlives its marker.
#![cfg(feature = "test-util")]

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold::conformance::store::wait;
use leasehold::store::{AcquireRequest, Acquired, Denial, Extended, Forced, Holder, KeyState, OnHeld, Released, Store};
use leasehold::{Mode, Token};

use crate::kit::{Server, until};
use crate::redis_store::{LONG, ask, denied, is_granted, key, stores_at, take, ttl};

const ENDS: &str = "leasehold:ends:{lock:k}";
const HOLDS: &str = "leasehold:holds:{lock:k}";

fn share_for(store: &dyn Store, token: Token, mode: Mode, lasting: Duration) -> Acquired {
    let (key, on_held) = (key("k"), OnHeld::Fail);
    wait(store.acquire(AcquireRequest { key: &key, token, ttl: ttl(lasting), on_held, mode, note: &[] }))
}

fn share(store: &dyn Store, token: Token, mode: Mode) -> Acquired {
    share_for(store, token, mode, LONG)
}

fn permits(permits: u32, limit: u32) -> Mode {
    Mode::Permits { limit, permits }
}

#[test]
fn a_shared_lock_is_a_string_with_an_end_that_no_other_client_takes() {
    let server = Server::start(&[]);
    let (stores, [one, two]) = (stores_at(&server.url()), [(); 2].map(|()| Token::random()));
    let Acquired::Granted { fence: Some(fence), .. } = share(&*stores.one, one, Mode::Shared) else { panic!() };
    assert_eq!(server.ask::<String>("GET lock:k"), format!("leasehold-share:0:{fence}:1:{one}"));
    assert_eq!(server.ask::<Option<String>>("SET lock:k theirs NX PX 1000"), None);
    assert_eq!(server.ask::<i64>(&format!("EXISTS {ENDS} {HOLDS}")), 0, "one that is alone needs no more");
    assert!(is_granted(&share_for(&*stores.other, two, Mode::Shared, LONG * 2)));
    assert_eq!(server.ask::<String>("GET lock:k"), format!("leasehold-share:0:{fence}"));
    assert_eq!(server.ask::<Option<String>>("SET lock:k theirs NX PX 1000"), None);
    assert_eq!(server.ask::<i64>("SETNX lock:k theirs"), 0);
    let (short, long) = (LONG.as_millis() as i64, 2 * LONG.as_millis() as i64);
    let left: i64 = server.ask("PTTL lock:k");
    assert!((short + 1..=long + 1).contains(&left), "{left}: until the last share ends");
    assert_eq!(wait(stores.other.release(&key("k"), two)), Released::Released);
    let left: i64 = server.ask("PTTL lock:k");
    assert!((1..=short + 1).contains(&left), "{left}: the last one has gone");
    for name in [ENDS, HOLDS] {
        let beside: i64 = server.ask(&format!("PTTL {name}"));
        assert!(beside > left, "{name} is missed before the lock is over: {beside} and {left}");
    }
    assert_eq!(wait(stores.one.release(&key("k"), one)), Released::Released);
    let names: Vec<String> = server.ask("KEYS *");
    assert_eq!(names, ["leasehold:fence:{lock:k}"], "nothing of it stays");
}

#[test]
fn what_another_client_keeps_there_is_held_and_stays() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    server.ask::<()>("SET lock:k theirs PX 100000");
    assert_eq!(denied(&share(&*stores.one, token, Mode::Shared)), Denial::Held);
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::AlreadyGone);
    assert_eq!(server.ask::<String>("GET lock:k"), "theirs");
    server.ask::<i64>("DEL lock:k");
    for make in ["HSET lock:k f v", "ZADD lock:k 1 m"] {
        server.ask::<i64>(make);
        assert_eq!(denied(&share(&*stores.one, token, permits(1, 2))), Denial::OtherKind, "{make}");
        assert_eq!(wait(stores.one.extend(&key("k"), token, ttl(LONG))), Extended::Lost);
        server.ask::<i64>("DEL lock:k");
    }
}

#[test]
fn a_process_that_does_not_know_that_a_token_shares_does_with_it_what_it_is_asked() {
    let server = Server::start(&[]);
    let (stores, token) = (stores_at(&server.url()), Token::random());
    assert!(is_granted(&share(&*stores.one, token, permits(2, 2))));
    assert!(matches!(wait(stores.other.extend(&key("k"), token, ttl(LONG * 2))), Extended::Extended { .. }));
    assert_eq!(wait(stores.other.release(&key("k"), token)), Released::Released);
    // The other way round: the process that shared by this token once does not know that it has the lock for itself.
    take(&*stores.other, "k", token);
    assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG * 2))), Extended::Extended { .. }));
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    // Also where the release goes along with the next try.
    assert!(is_granted(&share(&*stores.one, token, Mode::Shared)));
    let (k, next) = (key("k"), Token::random());
    let request = AcquireRequest {
        key: &k,
        token: next,
        ttl: ttl(LONG),
        on_held: OnHeld::Queue,
        mode: Mode::Exclusive,
        note: &[],
    };
    let (released, acquired) = wait(stores.other.exchange(token, request));
    assert_eq!(released, Released::Released);
    assert!(is_granted(&acquired), "{acquired:?}");
}

#[test]
fn a_share_that_ran_out_leaves_the_queue_moving() {
    let server = Server::start(&[]);
    let (stores, [reader, writer]) = (stores_at(&server.url()), [(); 2].map(|()| Token::random()));
    let mut lasting = Duration::from_millis(100);
    until("a share in time", || {
        lasting *= 2;
        is_granted(&share_for(&*stores.one, reader, Mode::Shared, lasting))
    });
    let mut turn = stores.other.turn(&key("k")).expect("it knows whose turn it is");
    until("the dead reader's end", || {
        let asked = crate::redis_store::queue(&*stores.other, "k", writer);
        is_granted(&asked) || wait(turn.next()).is_none()
    });
    assert_eq!(server.ask::<String>("GET lock:k"), writer.to_string());
}

#[test]
fn a_single_try_for_a_share_passes_others_who_wait_for_shares() {
    let server = Server::start(&[]);
    let (stores, [holder, waiter]) = (stores_at(&server.url()), [(); 2].map(|()| Token::random()));
    take(&*stores.one, "k", holder);
    let k = key("k");
    let (on_held, mode) = (OnHeld::Queue, Mode::Shared);
    denied(&wait(stores.other.acquire(AcquireRequest {
        key: &k,
        token: waiter,
        ttl: ttl(LONG),
        on_held,
        mode,
        note: &[],
    })));
    assert_eq!(wait(stores.one.release(&k, holder)), Released::Released);
    assert!(is_granted(&share(&*stores.one, Token::random(), Mode::Shared)));
    assert!(is_granted(&share(&*stores.other, waiter, Mode::Shared)));
}

/// What holds a key, as the rules say it.
#[derive(Debug, PartialEq)]
enum State {
    Free,
    Alone(usize),
    /// The limit, and the permits of each.
    Shared(u32, BTreeMap<usize, u32>),
    /// A marker whose shares are gone.
    Marker,
    Foreign,
}

impl State {
    fn holds(&self, who: usize) -> bool {
        match self {
            Self::Alone(holder) => *holder == who,
            Self::Shared(_, shares) => shares.contains_key(&who),
            _ => false,
        }
    }

    /// What an operation that knows of shares makes of it first.
    fn looked_at(&mut self) {
        if *self == Self::Marker {
            *self = Self::Free;
        }
    }

    /// What a try is answered, and what becomes of the key. `Ok` has whether it is a new grant.
    fn take(&mut self, who: usize, mode: Mode) -> Result<bool, Denial> {
        let (limit, permits) = match mode {
            Mode::Exclusive => match self {
                Self::Free => {
                    *self = Self::Alone(who);
                    return Ok(true);
                }
                Self::Alone(holder) if *holder == who => return Ok(false),
                _ => return Err(Denial::Held),
            },
            Mode::Shared => (0, 1),
            Mode::Permits { limit, permits } => (limit, permits),
        };
        self.looked_at();
        match self {
            Self::Free => {
                *self = Self::Shared(limit, BTreeMap::from([(who, permits)]));
                Ok(true)
            }
            Self::Shared(other, _) if *other != limit => Err(Denial::OtherMode),
            Self::Shared(_, shares) if shares.contains_key(&who) => {
                if shares[&who] == permits {
                    Ok(false)
                } else {
                    Err(Denial::OtherMode)
                }
            }
            Self::Shared(_, shares) if limit > 0 && shares.values().sum::<u32>() + permits > limit => Err(Denial::Held),
            Self::Shared(_, shares) => {
                shares.insert(who, permits);
                Ok(true)
            }
            _ => Err(Denial::Held),
        }
    }

    fn end(&mut self, who: usize) -> bool {
        self.looked_at();
        let held = self.holds(who);
        match self {
            Self::Shared(_, shares) if held && shares.len() > 1 => drop(shares.remove(&who)),
            _ if held => *self = Self::Free,
            _ => {}
        }
        held
    }
}

const TOKENS: usize = 4;

fn step(
    random: &mut fastrand::Rng,
    server: &Server,
    store: &dyn Store,
    tokens: &[Token],
    state: &mut State,
    last: &mut u64,
) {
    let (who, k) = (random.usize(..TOKENS), key("k"));
    let token = tokens[who];
    let was = format!("{state:?}, {who}");
    match random.u32(..100) {
        0..55 => {
            let modes = [Mode::Exclusive, Mode::Shared, Mode::Shared, permits(1, 3), permits(2, 3), permits(1, 2)];
            let mode = modes[random.usize(..modes.len())];
            match (share(store, token, mode), state.take(who, mode)) {
                (Acquired::Granted { fence: Some(fence), .. }, Ok(is_new)) => {
                    assert!(!is_new || fence > *last, "{was}: {fence} after {last}");
                    *last = fence.max(*last);
                }
                (answer, expected) => assert_eq!(denied(&answer), expected.expect_err(&was), "{was}: {mode}"),
            }
        }
        55..75 => {
            let answer = wait(store.release(&k, token));
            assert_eq!(answer == Released::Released, state.end(who), "{was}: {answer:?}");
        }
        75..80 => {
            let answer = wait(store.extend(&k, token, ttl(LONG)));
            state.looked_at();
            assert_eq!(matches!(answer, Extended::Extended { .. }), state.holds(who), "{was}: {answer:?}");
        }
        80..85 => {
            let answer = wait(store.downgrade(&k, token));
            state.looked_at();
            let may = matches!(state, State::Alone(_) | State::Shared(0, _)) && state.holds(who);
            assert_eq!(matches!(answer, Extended::Extended { .. }), may, "{was}: {answer:?}");
            if *state == State::Alone(who) {
                *state = State::Shared(0, BTreeMap::from([(who, 1)]));
            }
        }
        85..93 => {
            state.looked_at();
            let answer = wait(store.look(&k, Some(token)));
            let holder = if let Ok(KeyState::Held { by, .. }) = answer { Some(by) } else { None };
            let expected = match state {
                State::Free => None,
                _ if state.holds(who) => Some(Holder::Ours),
                State::Shared(..) => Some(Holder::Sharing),
                _ => Some(Holder::Other),
            };
            assert_eq!(holder, expected, "{was}");
            let holders = wait(store.holders(&k, Some(token))).unwrap();
            let expected = match state {
                State::Free => 0,
                State::Shared(_, shares) => shares.len(),
                _ => 1,
            };
            assert_eq!(holders.len(), expected, "{was}");
        }
        93..95 => {
            let answer = wait(store.force_release(&k));
            assert_eq!(answer == Forced::Released, *state != State::Free, "{was}: {answer:?}");
            *state = State::Free;
        }
        95..97 => {
            server.ask::<i64>("DEL lock:k");
            *state = State::Free;
        }
        97..99 => {
            // One that nobody ever shared with another keeps all in its value.
            let value: Option<String> = server.ask("GET lock:k");
            let is_beside = value.is_some_and(|value| value.matches(':').count() == 2);
            server.ask::<i64>(&format!("DEL {}", if random.bool() { ENDS } else { HOLDS }));
            if matches!(state, State::Shared(..)) && is_beside {
                *state = State::Marker;
            }
        }
        _ => {
            server.ask::<()>("SET lock:k theirs");
            *state = State::Foreign;
        }
    }
}

#[test]
fn whatever_is_asked_in_whatever_order_is_answered_as_the_rules_say() {
    let server = Server::start(&[]);
    let stores = stores_at(&server.url());
    for seed in 0..20 {
        server.ask::<()>("FLUSHALL");
        let (mut random, mut state, mut last) = (fastrand::Rng::with_seed(seed), State::Free, 0);
        let tokens = [(); TOKENS].map(|()| Token::random());
        for _ in 0..400 {
            let store = if random.bool() { &stores.one } else { &stores.other };
            step(&mut random, &server, &**store, &tokens, &mut state, &mut last);
        }
        let _ = ask(&*stores.one, "k", tokens[0], LONG);
    }
}
