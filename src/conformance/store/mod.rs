//! The contract of a [`Store`], as checks that anybody can run over a store of their own: [`check`].
//!
//! Each check is a sentence and cites its rule. All of them run over two instances that keep their keys in one place, as
//! those of two processes do, from threads without any runtime (S13). A check that fails panics.
//!
//! ```no_run
//! # fn my_store() -> std::sync::Arc<dyn leasehold::store::Store> { unreachable!() }
//! use leasehold::conformance::store::check;
//! check(|| my_store());
//! ```

mod board;
mod notes;
mod shares;
mod stores;
mod values;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

pub use board::*;
pub use notes::*;
pub use shares::*;
pub use stores::Stores;
pub use values::*;

use super::{LONG, until};
use crate::key::{Key, Token, Ttl};
use crate::mode::Mode;
use crate::store::{
    AcquireRequest, Acquired, Denial, Event, Extended, Fairness, Fences, Forced, Hint, Hints, Holder, KeyState, Modes,
    OnHeld, Posts, Released, Store, StoreError, drift,
};

/// Runs every check over two instances that `make` makes.
///
/// # Panics
/// If the store breaks its contract.
pub fn check(make: impl Fn() -> Arc<dyn Store>) {
    let stores = Stores::start(&make);
    for check in [
        a_free_key_is_granted_and_a_held_one_denied,
        a_key_runs_out_at_its_end,
        the_same_token_is_granted_again_and_nothing_moves,
        a_grant_whose_future_was_dropped_is_taken_back,
        an_extend_lengthens_and_never_shortens_or_revives,
        a_release_ends_only_what_its_token_holds,
        a_release_is_carried_out_even_if_its_future_is_dropped,
        fences_rise_from_grant_to_grant,
        a_forced_release_ends_any_holder_and_tells,
        a_watch_hears_of_a_release,
        processes_take_turns,
        whose_turn_it_is_is_told,
        an_exchange_is_a_release_and_a_try,
        too_short_a_ttl_is_refused,
        a_key_has_one_spelling,
        a_scan_tells_every_key_that_is_held,
        every_holder_is_listed,
    ] {
        check(&stores);
    }
    if stores.one.capabilities().modes == Modes::All {
        shares::check(&stores);
    }
    if stores.one.capabilities().max_value > 0 {
        values::check(&stores);
    }
    if stores.one.capabilities().posts == Posts::Kept {
        board::check(&stores);
    }
    if stores.one.capabilities().keeps_notes {
        notes::check(&stores);
    }
}

/// Waits for a future in this thread, without any runtime.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A key that no other check has used.
fn fresh() -> Key {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Key::new(format!("conformance:{}:{number}", Token::random())).expect("it has no control characters")
}

fn ttl(ttl: Duration) -> Ttl {
    Ttl::new(ttl).expect("it is within the bounds")
}

fn acquire(store: &dyn Store, key: &Key, token: Token, lasting: Duration, on_held: OnHeld) -> Acquired {
    wait(store.acquire(AcquireRequest { key, token, ttl: ttl(lasting), on_held, mode: Mode::Exclusive, note: &[] }))
}

/// Acquires a free key for long; answers its fence.
#[track_caller]
fn acquire_free(store: &dyn Store, key: &Key, token: Token) -> Option<u64> {
    match acquire(store, key, token, LONG, OnHeld::Fail) {
        Acquired::Granted { fence, .. } => fence,
        answer => panic!("S1: {key:?} is free, and the answer was {answer:?}"),
    }
}

#[track_caller]
fn denied(answer: &Acquired) -> Denial {
    match answer {
        Acquired::Denied { why, .. } => *why,
        answer => panic!("S1: it should be denied, and the answer was {answer:?}"),
    }
}

/// S1, S2, S4: a free key is granted for a little less than was asked; a held one is denied, whoever asks.
pub fn a_free_key_is_granted_and_a_held_one_denied(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    let Acquired::Granted { valid_for, .. } = acquire(&*stores.one, &key, token, LONG, OnHeld::Fail) else {
        panic!("S1: a free key was not granted");
    };
    assert!(valid_for <= LONG - drift(LONG), "S4: {valid_for:?} leaves no allowance for drift");
    for store in [&stores.one, &stores.other] {
        assert_eq!(denied(&acquire(&**store, &key, Token::random(), LONG, OnHeld::Fail)), Denial::Held, "S1");
    }
    assert!(matches!(wait(stores.other.look(&key, Some(token))), Ok(KeyState::Held { by: Holder::Ours, .. })));
    assert!(matches!(wait(stores.other.look(&key, None)), Ok(KeyState::Held { by: Holder::Other, .. })));
    assert_eq!(wait(stores.one.release(&key, token)), Released::Released);
    assert_eq!(wait(stores.other.look(&key, Some(token))), Ok(KeyState::Free));
}

/// S2: a grant has an end, and the key is free after it.
pub fn a_key_runs_out_at_its_end(stores: &Stores) {
    let (key, token, next) = (fresh(), Token::random(), Token::random());
    let mut short = stores.one.capabilities().min_ttl.max(Duration::from_millis(50));
    until("S2: a grant in time", || {
        // On a loaded machine the answer may take longer than the TTL.
        short *= 2;
        matches!(acquire(&*stores.one, &key, token, short, OnHeld::Fail), Acquired::Granted { .. })
    });
    until("S2: the key runs out", || {
        matches!(acquire(&*stores.other, &key, next, LONG, OnHeld::Fail), Acquired::Granted { .. })
    });
    assert_eq!(wait(stores.one.extend(&key, token, ttl(LONG))), Extended::Lost, "S6: it was another's by then");
    assert_eq!(wait(stores.one.release(&key, token)), Released::AlreadyGone, "S7");
    assert_eq!(wait(stores.other.release(&key, next)), Released::Released);
}

/// S3: a token that holds is granted again, with the same fence, and its end stays where it was.
pub fn the_same_token_is_granted_again_and_nothing_moves(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    let fence = acquire_free(&*stores.one, &key, token);
    let Acquired::Granted { fence: again, valid_for, .. } = acquire(&*stores.one, &key, token, LONG * 2, OnHeld::Fail)
    else {
        panic!("S3: its own token was not granted again");
    };
    assert_eq!(again, fence, "S3");
    assert!(valid_for <= LONG, "S3: {valid_for:?} is more than is left");
    let Ok(KeyState::Held { ends_in, .. }) = wait(stores.one.look(&key, Some(token))) else { panic!("S3: it is held") };
    assert!(ends_in <= Some(LONG), "S3: the end moved");
    assert_eq!(wait(stores.one.release(&key, token)), Released::Released);
}

/// S5: however far an acquire got before it was dropped, nothing of it stays.
pub fn a_grant_whose_future_was_dropped_is_taken_back(stores: &Stores) {
    for polls in 0..4 {
        let (key, token) = (fresh(), Token::random());
        {
            let request = AcquireRequest {
                key: &key,
                token,
                ttl: ttl(LONG),
                on_held: OnHeld::Fail,
                mode: Mode::Exclusive,
                note: &[],
            };
            let mut future = stores.one.acquire(request);
            let mut context = Context::from_waker(Waker::noop());
            let mut answered = Poll::Pending;
            for _ in 0..polls {
                if answered.is_pending() {
                    answered = future.as_mut().poll(&mut context);
                }
            }
            if answered.is_ready() {
                // The grant was received after all: then this check has to release it.
                drop(future);
                assert_eq!(wait(stores.one.release(&key, token)), Released::Released);
            }
        }
        let next = Token::random();
        until("S5: the key comes free", || {
            matches!(acquire(&*stores.other, &key, next, LONG, OnHeld::Fail), Acquired::Granted { .. })
        });
        assert!(
            matches!(acquire(&*stores.other, &key, next, LONG, OnHeld::Fail), Acquired::Granted { .. }),
            "S5: the clean-up hit a later holder"
        );
        assert_eq!(wait(stores.other.release(&key, next)), Released::Released);
    }
}

/// S6: extend lengthens; it does not shorten, revive, or touch another's.
pub fn an_extend_lengthens_and_never_shortens_or_revives(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    let left = || match wait(stores.one.look(&key, Some(token))) {
        Ok(KeyState::Held { by: Holder::Ours, ends_in: Some(left), .. }) => left,
        seen => panic!("S6: it should be held, and is {seen:?}"),
    };
    acquire_free(&*stores.one, &key, token);
    assert!(matches!(wait(stores.one.extend(&key, token, ttl(LONG * 2))), Extended::Extended { .. }));
    assert!(left() > LONG, "S6: it did not lengthen");
    let Extended::Extended { valid_for } = wait(stores.one.extend(&key, token, ttl(LONG / 2))) else {
        panic!("S6: it holds, and could not extend");
    };
    assert!(left() > LONG && valid_for > LONG / 2, "S6: it shortened");
    assert_eq!(wait(stores.other.extend(&key, Token::random(), ttl(LONG))), Extended::Lost, "S6: it is another's");
    assert_eq!(wait(stores.one.release(&key, token)), Released::Released);
    assert_eq!(wait(stores.one.extend(&key, token, ttl(LONG))), Extended::Lost);
    assert_eq!(wait(stores.one.look(&key, None)), Ok(KeyState::Free), "S6: it revived");
}

/// S7: a release ends what its token holds, once, and nothing else.
pub fn a_release_ends_only_what_its_token_holds(stores: &Stores) {
    let (key, token, next) = (fresh(), Token::random(), Token::random());
    acquire_free(&*stores.one, &key, token);
    assert_eq!(wait(stores.other.release(&key, next)), Released::AlreadyGone, "S7: it is another's");
    assert_eq!(wait(stores.one.release(&key, token)), Released::Released);
    acquire_free(&*stores.other, &key, next);
    assert_eq!(wait(stores.one.release(&key, token)), Released::AlreadyGone, "S7: the old token");
    assert!(matches!(wait(stores.one.look(&key, Some(next))), Ok(KeyState::Held { by: Holder::Ours, .. })), "S7");
    assert_eq!(wait(stores.other.release(&key, next)), Released::Released);
}

/// S7: a release that was asked for happens.
pub fn a_release_is_carried_out_even_if_its_future_is_dropped(stores: &Stores) {
    for polls in 0..3 {
        let (key, token) = (fresh(), Token::random());
        acquire_free(&*stores.one, &key, token);
        let mut release = stores.one.release(&key, token);
        for _ in 0..polls {
            if release.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                break;
            }
        }
        drop(release);
        until("S7: the key comes free", || wait(stores.other.look(&key, None)) == Ok(KeyState::Free));
    }
}

/// S8: each grant of a key has a higher fence, whoever holds it and however the last one ended.
pub fn fences_rise_from_grant_to_grant(stores: &Stores) {
    if stores.one.capabilities().fences == Fences::None {
        return;
    }
    let (key, mut last) = (fresh(), 0);
    for turn in 0..12 {
        let store = if turn % 2 == 0 { &stores.one } else { &stores.other };
        let token = Token::random();
        let fence = acquire_free(&**store, &key, token).expect("S8: its terms promise fences");
        assert!(fence > last, "S8: {fence} after {last}");
        last = fence;
        if turn % 3 == 2 {
            assert_eq!(wait(store.force_release(&key)), Forced::Released);
        } else {
            assert_eq!(wait(store.release(&key, token)), Released::Released);
        }
    }
}

/// S11: a forced release ends the holder, and its events reach both processes.
pub fn a_forced_release_ends_any_holder_and_tells(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    assert_eq!(wait(stores.one.force_release(&key)), Forced::WasFree);
    acquire_free(&*stores.one, &key, token);
    let mut watch = wait(stores.one.watch(&key)).expect("S10: it can be watched");
    let mut events = [&stores.one, &stores.other].map(|store| wait(store.events()).expect("S11: there are events"));
    assert_eq!(wait(stores.other.force_release(&key)), Forced::Released);
    assert_eq!(wait(stores.one.extend(&key, token, ttl(LONG))), Extended::Lost);
    if stores.one.capabilities().hints == Hints::None {
        return;
    }
    while wait(watch.next()).expect("S10: the store runs") != Hint::Forced {}
    for events in &mut events {
        loop {
            match wait(events.next()).expect("S11: the store runs") {
                Event::Forced(forced) if Ok(&forced) == stores.one.canonical(&key).as_ref() => break,
                _ => {}
            }
        }
    }
}

/// S10: a watch gets the hint of a release by another process.
pub fn a_watch_hears_of_a_release(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    acquire_free(&*stores.one, &key, token);
    let mut watches = [(); 3].map(|()| wait(stores.other.watch(&key)).expect("S10: it can be watched"));
    assert_eq!(wait(stores.one.release(&key, token)), Released::Released);
    if stores.one.capabilities().hints == Hints::Given {
        for watch in &mut watches {
            while wait(watch.next()).expect("S10: the store runs") != Hint::Released {}
        }
    }
}

/// S9: the first to wait is the first to be granted, and the next one is granted after one that leaves.
pub fn processes_take_turns(stores: &Stores) {
    if stores.one.capabilities().fairness == Fairness::None {
        return;
    }
    let (key, [held, first, second, third]) = (fresh(), [(); 4].map(|()| Token::random()));
    acquire_free(&*stores.one, &key, held);
    denied(&acquire(&*stores.other, &key, first, LONG, OnHeld::Queue));
    denied(&acquire(&*stores.one, &key, second, LONG, OnHeld::Queue));
    assert_eq!(wait(stores.one.release(&key, held)), Released::Released);
    assert_eq!(denied(&acquire(&*stores.one, &key, second, LONG, OnHeld::Queue)), Denial::Ahead, "S9: not its turn");
    assert_eq!(denied(&acquire(&*stores.one, &key, third, LONG, OnHeld::Fail)), Denial::Ahead, "S9: a try barged");
    assert!(matches!(acquire(&*stores.other, &key, first, LONG, OnHeld::Queue), Acquired::Granted { .. }), "S9");
    denied(&acquire(&*stores.other, &key, third, LONG, OnHeld::Queue));
    // Now `one` is ahead of `other`, and gives up.
    stores.one.leave(&key);
    assert_eq!(wait(stores.other.release(&key, first)), Released::Released);
    until("S9: who left is not waited for", || {
        matches!(acquire(&*stores.other, &key, third, LONG, OnHeld::Queue), Acquired::Granted { .. })
    });
    assert_eq!(wait(stores.other.release(&key, third)), Released::Released);
}

/// S9, S10: a store that knows whose turn it is gives the first in the queue a hint, also if that one only listens later;
/// and a place can be left once nobody listens any more.
pub fn whose_turn_it_is_is_told(stores: &Stores) {
    let (key, [held, first, second]) = (fresh(), [(); 3].map(|()| Token::random()));
    acquire_free(&*stores.one, &key, held);
    denied(&acquire(&*stores.other, &key, first, LONG, OnHeld::Queue));
    let Some(mut turn) = stores.other.turn(&key) else {
        assert_eq!(wait(stores.one.release(&key, held)), Released::Released);
        stores.other.leave(&key);
        return;
    };
    assert_eq!(wait(stores.one.release(&key, held)), Released::Released);
    until("S9: its turn", || {
        assert!(wait(turn.next()).is_some(), "S10: the store runs");
        matches!(acquire(&*stores.other, &key, first, LONG, OnHeld::Queue), Acquired::Granted { .. })
    });
    drop(turn);
    denied(&acquire(&*stores.one, &key, second, LONG, OnHeld::Queue));
    assert_eq!(wait(stores.other.release(&key, first)), Released::Released);
    let mut turn = stores.one.turn(&key).expect("S10: it could before");
    stores.one.leave(&key);
    assert!(wait(turn.next()).is_some(), "S10: it was its turn before it listened, and it has not left");
    assert!(matches!(acquire(&*stores.one, &key, second, LONG, OnHeld::Queue), Acquired::Granted { .. }), "S9");
    drop(turn);
    assert_eq!(wait(stores.one.release(&key, second)), Released::Released);
}

/// S7, S9: an exchange releases, and then tries in turn, as if each had been asked for by itself.
pub fn an_exchange_is_a_release_and_a_try(stores: &Stores) {
    let (key, [first, second, third, rival]) = (fresh(), [(); 4].map(|()| Token::random()));
    let exchange = |held, token| {
        let next = AcquireRequest {
            key: &key,
            token,
            ttl: ttl(LONG),
            on_held: OnHeld::Queue,
            mode: Mode::Exclusive,
            note: &[],
        };
        wait(stores.one.exchange(held, next))
    };
    let before = acquire_free(&*stores.one, &key, first);
    let (released, acquired) = exchange(first, second);
    assert_eq!(released, Released::Released, "S7");
    let Acquired::Granted { fence, valid_for, .. } = acquired else { panic!("S1: nobody else wants it: {acquired:?}") };
    assert!(valid_for <= LONG - drift(LONG), "S4: {valid_for:?} leaves no allowance for drift");
    assert!(fence > before || stores.one.capabilities().fences == Fences::None, "S8: {before:?}, then {fence:?}");
    assert!(matches!(wait(stores.other.look(&key, Some(second))), Ok(KeyState::Held { by: Holder::Ours, .. })));
    assert_eq!(denied(&acquire(&*stores.other, &key, rival, LONG, OnHeld::Queue)), Denial::Held);
    let (released, acquired) = exchange(first, third);
    assert_eq!((released, denied(&acquired)), (Released::AlreadyGone, Denial::Held), "S7: the second one has it");
    stores.one.leave(&key);
    if stores.one.capabilities().fairness == Fairness::Queue {
        let (released, acquired) = exchange(second, third);
        assert_eq!((released, denied(&acquired)), (Released::Released, Denial::Ahead), "S9: the other one is next");
        assert!(matches!(acquire(&*stores.other, &key, rival, LONG, OnHeld::Queue), Acquired::Granted { .. }), "S9");
        assert_eq!(wait(stores.other.release(&key, rival)), Released::Released);
        let barging = acquire(&*stores.other, &key, first, LONG, OnHeld::Fail);
        assert_eq!(denied(&barging), Denial::Ahead, "S9: the exchange has a place");
        assert!(matches!(acquire(&*stores.one, &key, third, LONG, OnHeld::Queue), Acquired::Granted { .. }), "S9");
    } else {
        assert_eq!(wait(stores.one.release(&key, second)), Released::Released);
        stores.other.leave(&key);
        until("the rival has left", || {
            matches!(acquire(&*stores.one, &key, third, LONG, OnHeld::Queue), Acquired::Granted { .. })
        });
    }
    assert_eq!(wait(stores.one.release(&key, third)), Released::Released);
}

/// A TTL below the store's least is refused, and no key is touched.
pub fn too_short_a_ttl_is_refused(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    let Some(short) = stores.one.capabilities().min_ttl.checked_sub(Duration::from_millis(1)) else { return };
    let Ok(short) = Ttl::new(short) else { return };
    let answer = wait(stores.one.acquire(AcquireRequest {
        key: &key,
        token,
        ttl: short,
        on_held: OnHeld::Fail,
        mode: Mode::Exclusive,
        note: &[],
    }));
    assert_eq!(answer, Acquired::Unknown(StoreError::InvalidTtl));
    acquire_free(&*stores.one, &key, token);
    assert_eq!(wait(stores.one.extend(&key, token, short)), Extended::Unknown(StoreError::InvalidTtl));
    assert_eq!(wait(stores.one.release(&key, token)), Released::Released, "it was not touched");
}

/// A store that can list its keys leaves out none that is held all the time, whoever holds it.
pub fn a_scan_tells_every_key_that_is_held(stores: &Stores) {
    let prefix = format!("conformance:scan:{}:", Token::random());
    let keys: Vec<Key> = (0..250).map(|n| Key::new(format!("{prefix}{n}")).expect("a good key")).collect();
    let tokens: Vec<Token> = keys.iter().map(|_| Token::random()).collect();
    for (key, token) in keys.iter().zip(&tokens) {
        acquire_free(&*stores.other, key, *token);
    }
    let (mut found, mut cursor) = (std::collections::HashSet::new(), None);
    let can_list = loop {
        let page = match wait(stores.one.scan(&prefix, cursor.as_deref(), 20)) {
            Ok(Some(page)) => page,
            Ok(None) => break false,
            Err(why) => panic!("a store that answers can be scanned: {why}"),
        };
        found.extend(page.locks.into_iter().map(|lock| lock.key));
        cursor = page.next;
        if cursor.is_none() {
            break true;
        }
    };
    for (key, token) in keys.iter().zip(tokens) {
        let spelt = stores.one.canonical(key).expect("the store can keep it");
        assert!(!can_list || found.contains(&spelt), "{key} is held, and not listed");
        assert_eq!(wait(stores.other.release(key, token)), Released::Released);
    }
}

/// A key's canonical spelling is its own canonical spelling, and names the same lock.
pub fn a_key_has_one_spelling(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    let canonical = stores.one.canonical(&key).expect("the store can keep it");
    assert_eq!(stores.one.canonical(&canonical).as_ref(), Ok(&canonical));
    acquire_free(&*stores.one, &key, token);
    assert_eq!(denied(&acquire(&*stores.other, &canonical, Token::random(), LONG, OnHeld::Fail)), Denial::Held);
    assert_eq!(wait(stores.other.release(&canonical, token)), Released::Released);
}
