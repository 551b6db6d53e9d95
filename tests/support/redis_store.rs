//! A store that runs, and short words for what tests ask of it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use leasehold::conformance::store::{Stores, wait};
use leasehold::store::redis::{RedisBuilder, RedisStore};
use leasehold::store::{AcquireRequest, Acquired, Denial, OnHeld, Store};
use leasehold::{Key, Mode, Token, Ttl};

use crate::kit::Server;

pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Two stores, as two processes would have them, over whatever `builder` names.
pub(crate) fn stores(builder: impl Fn() -> RedisBuilder) -> Stores {
    Stores::start(&|| Arc::new(builder().build().unwrap()) as Arc<dyn Store>)
}

pub(crate) fn stores_at(url: &str) -> Stores {
    stores(|| RedisStore::builder(url))
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn ttl(ttl: Duration) -> Ttl {
    Ttl::new(ttl).unwrap()
}

pub(crate) fn ask(store: &dyn Store, name: &str, token: Token, lasting: Duration) -> Acquired {
    wait(store.acquire(AcquireRequest {
        key: &key(name),
        token,
        ttl: ttl(lasting),
        on_held: OnHeld::Fail,
        mode: Mode::Exclusive,
        note: &[],
    }))
}

pub(crate) fn queue(store: &dyn Store, name: &str, token: Token) -> Acquired {
    wait(store.acquire(AcquireRequest {
        key: &key(name),
        token,
        ttl: ttl(LONG),
        on_held: OnHeld::Queue,
        mode: Mode::Exclusive,
        note: &[],
    }))
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

/// What a server was asked: scripts by EVAL and EVALSHA.
pub(crate) fn scripts(server: &Server) -> u64 {
    let stats: String = server.ask("INFO commandstats");
    let of = |line: &str| line.split(&['=', ','][..]).nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    stats.lines().filter(|line| line.starts_with("cmdstat_eval")).map(of).sum()
}
