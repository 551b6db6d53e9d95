//! What a store promises that keeps what releases leave (S19), as checks.

use std::time::Duration;

use super::{Stores, acquire, acquire_free, denied, fresh, wait};
use crate::conformance::{LONG, until};
use crate::key::{Key, Token};
use crate::store::{Acquired, Forced, OnHeld, Released, Store, ValueToLeave};

/// All of these checks.
pub(super) fn check(stores: &Stores) {
    for check in [
        who_waits_gets_what_the_release_leaves,
        only_what_holds_the_key_leaves_a_value,
        a_value_has_an_end_and_an_age,
        the_longest_value_is_kept_whole,
    ] {
        check(stores);
    }
}

fn leaving(bytes: &[u8], life: Duration) -> ValueToLeave {
    ValueToLeave { bytes: bytes.to_vec().into(), life }
}

fn left(store: &dyn Store, key: &Key, within: Duration) -> Option<Vec<u8>> {
    let left = wait(store.value(key, within)).expect("S19: the store runs")?;
    assert!(left.age <= within, "S19: {:?} is longer ago than {within:?}", left.age);
    Some(left.bytes.to_vec())
}

/// Takes a key, and has the other store wait for it.
fn held_and_wanted(stores: &Stores) -> (Key, Token) {
    let (key, token) = (fresh(), Token::random());
    acquire_free(&*stores.one, &key, token);
    denied(&acquire(&*stores.other, &key, Token::random(), LONG, OnHeld::Queue));
    (key, token)
}

fn take_in_turn(store: &dyn Store, key: &Key, token: Token) {
    until("S9: its turn", || matches!(acquire(store, key, token, LONG, OnHeld::Queue), Acquired::Granted { .. }));
}

/// S19: a value, of whatever bytes, is there for who waited, and the next one takes its place.
pub fn who_waits_gets_what_the_release_leaves(stores: &Stores) {
    let (key, token) = held_and_wanted(stores);
    assert_eq!(left(&*stores.other, &key, LONG), None, "S19: nothing was left yet");
    let bytes = [0, 0xff, b' ', b'\r', b'\n', 0x80, b'"'];
    assert_eq!(wait(stores.one.release_with_value(&key, token, leaving(&bytes, LONG))), Released::Released);
    assert_eq!(left(&*stores.other, &key, LONG).as_deref(), Some(&bytes[..]));
    let next = Token::random();
    take_in_turn(&*stores.other, &key, next);
    denied(&acquire(&*stores.one, &key, Token::random(), LONG, OnHeld::Queue));
    assert_eq!(wait(stores.other.release_with_value(&key, next, leaving(b"", LONG))), Released::Released);
    assert_eq!(left(&*stores.one, &key, LONG).as_deref(), Some(&b""[..]), "S19: the later one counts");
    stores.one.leave(&key);
}

/// S19: what was lost, or is another's, leaves nothing.
pub fn only_what_holds_the_key_leaves_a_value(stores: &Stores) {
    let (key, token) = held_and_wanted(stores);
    let stranger = leaving(b"stranger", LONG);
    assert_eq!(wait(stores.other.release_with_value(&key, Token::random(), stranger)), Released::AlreadyGone, "S7");
    assert_eq!(wait(stores.other.force_release(&key)), Forced::Released);
    // Another holds it by then, and somebody waits for it.
    take_in_turn(&*stores.other, &key, Token::random());
    denied(&acquire(&*stores.one, &key, Token::random(), LONG, OnHeld::Queue));
    assert_eq!(wait(stores.one.release_with_value(&key, token, leaving(b"late", LONG))), Released::AlreadyGone);
    assert_eq!(left(&*stores.other, &key, LONG), None, "S19");
    stores.one.leave(&key);
}

/// S19: a value grows older, and is gone at the end of its life.
pub fn a_value_has_an_end_and_an_age(stores: &Stores) {
    let (key, token) = held_and_wanted(stores);
    assert_eq!(wait(stores.one.release_with_value(&key, token, leaving(b"v", LONG))), Released::Released);
    until("S19: it is older than that", || left(&*stores.other, &key, Duration::from_millis(10)).is_none());
    assert_eq!(left(&*stores.other, &key, LONG).as_deref(), Some(&b"v"[..]), "S19: it still lives");
    stores.other.leave(&key);
    let (key, token) = held_and_wanted(stores);
    let short = leaving(b"v", Duration::from_millis(100));
    assert_eq!(wait(stores.one.release_with_value(&key, token, short)), Released::Released);
    until("S19: its life ends", || left(&*stores.other, &key, LONG).is_none());
    stores.other.leave(&key);
}

/// S19: as long as the store says that it may be.
pub fn the_longest_value_is_kept_whole(stores: &Stores) {
    let (key, token) = held_and_wanted(stores);
    let bytes: Vec<u8> = (0..stores.one.capabilities().max_value).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(wait(stores.one.release_with_value(&key, token, leaving(&bytes, LONG))), Released::Released);
    assert!(left(&*stores.other, &key, LONG) == Some(bytes), "S19: it is not what was left");
    stores.other.leave(&key);
}
