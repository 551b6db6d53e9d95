//! Stores over PostgreSQL that run, and short words for what tests ask of them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use leasehold::conformance::store::{Stores, wait};
use leasehold::store::postgres::{PostgresBuilder, PostgresStore};
use leasehold::store::{AcquireRequest, Acquired, Denial, OnHeld, Store};
use leasehold::{Key, Mode, Token, Ttl};

pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Two stores, as two processes would have them, over whatever `builder` names.
pub(crate) fn stores(builder: impl Fn() -> PostgresBuilder) -> Stores {
    Stores::start(&|| Arc::new(builder().build().unwrap()) as Arc<dyn Store>)
}

pub(crate) fn stores_at(url: &str) -> Stores {
    stores(|| PostgresStore::builder(url))
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn ttl(ttl: Duration) -> Ttl {
    Ttl::new(ttl).unwrap()
}

fn acquire(store: &dyn Store, name: &str, token: Token, lasting: Duration, on_held: OnHeld) -> Acquired {
    let (key, mode) = (key(name), Mode::Exclusive);
    wait(store.acquire(AcquireRequest { key: &key, token, ttl: ttl(lasting), on_held, mode, note: &[] }))
}

pub(crate) fn ask(store: &dyn Store, name: &str, token: Token, lasting: Duration) -> Acquired {
    acquire(store, name, token, lasting, OnHeld::Fail)
}

pub(crate) fn queue(store: &dyn Store, name: &str, token: Token) -> Acquired {
    acquire(store, name, token, LONG, OnHeld::Queue)
}

/// Takes a free lock; answers its fence.
#[track_caller]
pub(crate) fn take(store: &dyn Store, name: &str, token: Token) -> u64 {
    match ask(store, name, token, LONG) {
        Acquired::Granted { fence: Some(fence), .. } => fence,
        answer => panic!("{name} is free, and the answer was {answer:?}"),
    }
}

#[track_caller]
pub(crate) fn denied(answer: &Acquired) -> Denial {
    match answer {
        Acquired::Denied { why, .. } => *why,
        answer => panic!("it should be denied, and the answer was {answer:?}"),
    }
}

pub(crate) fn is_granted(answer: &Acquired) -> bool {
    matches!(answer, Acquired::Granted { .. })
}
