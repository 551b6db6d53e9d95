//! Fear: in a Cluster a lock is looked for in the wrong place, or lost while its slot moves.
#![cfg(feature = "test-util")]

use std::sync::Arc;
use std::time::Duration;

use leasehold::conformance::store::{self as conformance, wait};
use leasehold::store::redis::RedisStore;
use leasehold::store::{AcquireRequest, Acquired, Denial, Extended, Forced, Holder, KeyState, OnHeld, Released, Store};
use leasehold::{Mode, Token};

use crate::kit::{Cluster, until};
use crate::redis_store::{LONG, ask, denied, is_granted, key, queue, stores, stores_at, take, ttl};

fn url(cluster: &Cluster) -> String {
    format!("redis+cluster://{}", cluster.hosts())
}

#[test]
fn a_cluster_keeps_the_contract() {
    let cluster = Cluster::start();
    conformance::check(|| Arc::new(RedisStore::new(&url(&cluster)).unwrap()) as Arc<dyn Store>);
}

#[test]
fn keys_with_braces_lock_like_any_other() {
    let cluster = Cluster::start();
    let stores = stores_at(&url(&cluster));
    for name in ["foo}bar", "{user}:1", "{}x", "a{b", "a{b}c}", "}{", "plain"] {
        let (held, next) = (Token::random(), Token::random());
        take(&*stores.one, name, held);
        denied(&queue(&*stores.other, name, next));
        assert!(matches!(wait(stores.one.extend(&key(name), held, ttl(LONG))), Extended::Extended { .. }));
        assert_eq!(wait(stores.one.release(&key(name), held)), Released::Released, "{name}");
        assert!(is_granted(&queue(&*stores.other, name, next)), "{name}");
        assert_eq!(wait(stores.other.release(&key(name), next)), Released::Released);
    }
}

#[test]
fn health_names_every_master() {
    let cluster = Cluster::start();
    let stores = stores_at(&url(&cluster));
    let mut masters: Vec<_> = cluster.nodes.iter().map(|node| node.address().to_string()).collect();
    masters.sort();
    until("all masters", || {
        let nodes = wait(stores.one.health()).nodes;
        nodes.iter().map(|node| node.name.to_string()).eq(masters.iter().cloned())
            && nodes.iter().all(|node| node.answer.is_ok())
    });
}

#[test]
fn a_moving_slot_is_followed() {
    let cluster = Cluster::start();
    let stores = stores_at(&url(&cluster));
    let (token, other) = (Token::random(), Token::random());
    take(&*stores.one, "k", token);
    let slot = cluster.slot_of("lock:k");
    let to = (cluster.owner(slot) + 1) % 3;
    cluster.begin_move(slot, to);
    // A key of the same slot that is not there yet is made where the slot goes.
    take(&*stores.one, "{lock:k}:new", Token::random());
    cluster.finish_move(slot, to);
    assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG))), Extended::Extended { .. }));
    denied(&ask(&*stores.other, "k", other, LONG));
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    take(&*stores.other, "k", other);
}

/// A slot that stays half-moved, and what its lock is in: the names beside it may be on the other node.
struct Moving {
    cluster: Cluster,
    slot: u16,
    from: usize,
    to: usize,
}

impl Moving {
    /// Begins to move the slot of this lock, after `before`.
    fn begin(name: &str, before: impl FnOnce(&Cluster)) -> Self {
        let cluster = Cluster::start();
        let slot = cluster.slot_of(&format!("lock:{name}"));
        let from = cluster.owner(slot);
        before(&cluster);
        let to = (from + 1) % 3;
        cluster.begin_move(slot, to);
        Self { cluster, slot, from, to }
    }

    /// Moves one key, if the old node has it.
    fn take_along(&self, key: &str) {
        let mut moving = redis::cmd("MIGRATE");
        moving.arg("127.0.0.1").arg(self.cluster.nodes[self.to].port()).arg(key).arg(0).arg(5000);
        moving.exec(&mut self.cluster.nodes[self.from].client()).unwrap();
    }

    fn is_on(&self, node: usize, key: &str) -> bool {
        let keys: Vec<String> = self.cluster.nodes[node].ask(&format!("CLUSTER GETKEYSINSLOT {} 100", self.slot));
        keys.iter().any(|one| one == key)
    }
}

#[test]
fn a_free_lock_is_taken_while_its_slot_moves() {
    let moving = Moving::begin("k", |_| {});
    let stores = stores_at(&url(&moving.cluster));
    let mut last = 0;
    for round in 0..3 {
        let (token, other) = (Token::random(), Token::random());
        let fence = take(&*stores.one, "k", token);
        assert!(fence > last, "round {round}: {fence} after {last}");
        last = fence;
        assert!(moving.is_on(moving.to, "lock:k"));
        let again = ask(&*stores.other, "k", token, LONG);
        assert!(matches!(again, Acquired::Granted { fence: Some(same), .. } if same == fence), "{again:?}");
        denied(&ask(&*stores.other, "k", other, LONG));
        denied(&queue(&*stores.other, "k", other));
        assert!(matches!(wait(stores.one.look(&key("k"), Some(token))), Ok(KeyState::Held { by: Holder::Ours, .. })));
        assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG * 2))), Extended::Extended { .. }));
        assert_eq!(wait(stores.other.release(&key("k"), other)), Released::AlreadyGone);
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
        assert_eq!(wait(stores.one.look(&key("k"), None)), Ok(KeyState::Free));
    }
    moving.cluster.finish_move(moving.slot, moving.to);
    assert!(take(&*stores.other, "k", Token::random()) > last);
}

#[test]
fn a_held_lock_is_extended_and_released_wherever_its_names_are_while_its_slot_moves() {
    let fence_key = "leasehold:fence:{lock:k}";
    for along in [&[][..], &["lock:k"], &[fence_key], &["lock:k", fence_key]] {
        let (mut held, mut last) = (None, 0);
        let moving = Moving::begin("k", |cluster| {
            let (stores, token) = (stores_at(&url(cluster)), Token::random());
            last = take(&*stores.one, "k", token);
            held = Some((stores, token));
        });
        along.iter().for_each(|name| moving.take_along(name));
        let (stores, token) = held.unwrap();
        let next = Token::random();
        denied(&queue(&*stores.other, "k", next));
        let again = ask(&*stores.other, "k", token, LONG);
        assert!(matches!(again, Acquired::Granted { fence: Some(same), .. } if same == last), "{along:?}: {again:?}");
        assert!(matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG * 2))), Extended::Extended { .. }));
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released, "{along:?}");
        for store in [&stores.other, &stores.one] {
            let token = Token::random();
            let fence = take(&**store, "k", token);
            assert!(fence > last, "{along:?}: {fence} after {last}");
            last = fence;
            assert_eq!(wait(store.release(&key("k"), token)), Released::Released);
        }
        let forced = Token::random();
        let before = take(&*stores.one, "k", forced);
        assert_eq!(wait(stores.other.force_release(&key("k"))), Forced::Released);
        assert_eq!(wait(stores.other.force_release(&key("k"))), Forced::WasFree);
        assert_eq!(wait(stores.one.extend(&key("k"), forced, ttl(LONG))), Extended::Lost);
        assert!(take(&*stores.one, "k", Token::random()) > before + 1, "the fence was raised by force, too");
    }
}

#[test]
fn who_waits_while_a_slot_moves_is_served_before_the_move_ends() {
    let mut held = None;
    let moving = Moving::begin("k", |cluster| {
        let (stores, token) = (stores_at(&url(cluster)), Token::random());
        take(&*stores.one, "k", token);
        // A place in the queue, on the old node.
        denied(&queue(&*stores.other, "k", Token::random()));
        held = Some((stores, token));
    });
    let (stores, token) = held.unwrap();
    assert!(moving.is_on(moving.from, "leasehold:queue:{lock:k}"));
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    assert_eq!(denied(&ask(&*stores.one, "k", Token::random(), LONG)), Denial::Ahead, "it is the other's turn");
    until("the turn of who waits", || is_granted(&queue(&*stores.other, "k", Token::random())));
    assert!(moving.is_on(moving.to, "lock:k"));
}

#[test]
fn what_was_reserved_by_a_try_that_was_dropped_is_taken_back_while_the_slot_moves() {
    let moving = Moving::begin("k", |_| {});
    // So long that a reservation does not run out by itself while the test is patient.
    let patient = || RedisStore::builder(&url(&moving.cluster)).operation_timeout(Duration::from_secs(16));
    let stores = stores(patient);
    let warm = Token::random();
    take(&*stores.one, "k", warm);
    assert_eq!(wait(stores.one.release(&key("k"), warm)), Released::Released);
    let k = key("k");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for micros in (0..6_000).step_by(150) {
        let ask = AcquireRequest {
            key: &k,
            token: Token::random(),
            ttl: ttl(LONG),
            on_held: OnHeld::Fail,
            mode: Mode::Exclusive,
            note: &[],
        };
        let asking = async { tokio::time::timeout(Duration::from_micros(micros), stores.one.acquire(ask)).await };
        if let Ok(answer) = runtime.block_on(asking) {
            assert!(is_granted(&answer), "{answer:?}");
            assert_eq!(wait(stores.one.force_release(&k)), Forced::Released);
        }
        until("the end of what it left", || !moving.is_on(moving.to, "lock:k"));
    }
}

#[test]
fn replicas_confirm_what_is_taken_and_extended_while_its_slot_moves() {
    let cluster = Cluster::with_replicas(1);
    let slot = cluster.slot_of("lock:k");
    cluster.begin_move(slot, (cluster.owner(slot) + 1) % 3);
    let stores = stores(|| RedisStore::builder(&url(&cluster)).wait_for_replicas(1));
    let mut token = Token::random();
    // However loaded the machine is, the replicas answer in time once.
    until("a confirmed grant", || {
        token = Token::random();
        is_granted(&ask(&*stores.one, "k", token, LONG))
    });
    let extend = || wait(stores.one.extend(&key("k"), token, ttl(LONG * 2)));
    until("a confirmed extension", || matches!(extend(), Extended::Extended { .. }));
}

#[test]
fn a_master_that_died_is_replaced() {
    let mut cluster = Cluster::with_replicas(1);
    let stores = stores_at(&url(&cluster));
    let token = Token::random();
    take(&*stores.one, "k", token);
    cluster.kill_owner(cluster.slot_of("lock:k"));
    let mut token = Token::random();
    until("service", || match ask(&*stores.one, "k2", token, LONG) {
        Acquired::Granted { .. } => true,
        _ => {
            token = Token::random();
            false
        }
    });
    until("an answer for the lost node's key", || wait(stores.one.look(&key("k"), None)).is_ok());
}

#[test]
fn a_failover_by_hand_loses_no_lock() {
    let cluster = Cluster::with_replicas(1);
    let stores = stores_at(&url(&cluster));
    let token = Token::random();
    take(&*stores.one, "k", token);
    cluster.failover(cluster.slot_of("lock:k"));
    until("an extend", || match wait(stores.one.extend(&key("k"), token, ttl(LONG))) {
        Extended::Extended { .. } => true,
        Extended::Unknown(_) => false,
        answer => panic!("{answer:?}"),
    });
    denied(&ask(&*stores.other, "k", Token::random(), LONG));
}
