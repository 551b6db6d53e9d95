//! What a store promises that outlives its process (S20), as checks.

use super::{Stores, fresh, ttl, wait};
use crate::conformance::LONG;
use crate::key::{Key, Token};
use crate::mode::{Mode, Modes};
use crate::store::{AcquireRequest, Acquired, Extended, KeptHold, OnHeld, Released, Store};

/// All of these checks.
pub(super) fn check(stores: &Stores) {
    what_is_held_is_told_with_its_note_as_long_as_it_is_held(stores);
}

fn kept(store: &dyn Store, key: &Key) -> Vec<KeptHold> {
    let kept = wait(store.kept_holds()).expect("S20: the store runs");
    kept.into_iter().filter(|hold| hold.key == *key).collect()
}

/// S20: every hold is told with all that it was acquired with, and no longer once it has ended.
pub fn what_is_held_is_told_with_its_note_as_long_as_it_is_held(stores: &Stores) {
    let store = &*stores.one;
    let modes: &[Mode] = match store.capabilities().modes {
        Modes::All => &[Mode::Exclusive, Mode::Shared, Mode::Permits { limit: 3, permits: 2 }],
        Modes::Exclusive => &[Mode::Exclusive],
    };
    for mode in modes.iter().copied() {
        let (key, token, note) = (fresh(), Token::random(), [0, 0xff, b'"', b'\n']);
        let request = AcquireRequest { key: &key, token, ttl: ttl(LONG), on_held: OnHeld::Fail, mode, note: &note };
        let Acquired::Granted { fence: Some(fence), .. } = wait(store.acquire(request)) else {
            panic!("S20: a free key is granted with a fence");
        };
        let told = kept(store, &key);
        let [hold] = &told[..] else { panic!("S20: of one hold this is told: {told:?}") };
        assert_eq!((hold.token, hold.mode, hold.fence, &*hold.note), (token, mode, fence, &note[..]), "S20");
        assert!(hold.ends_in <= LONG && !hold.ends_in.is_zero(), "S20: {:?}", hold.ends_in);
        let longer = wait(store.extend(&key, token, ttl(LONG * 2)));
        assert!(matches!(longer, Extended::Extended { .. }), "S6: {longer:?}");
        let told = kept(store, &key);
        assert!(told.iter().all(|hold| *hold.note == note && hold.ends_in > LONG), "S20: it is kept: {told:?}");
        assert_eq!(wait(store.release(&key, token)), Released::Released);
        assert_eq!(kept(store, &key), [], "S20: it has ended");
    }
}
