//! Fear: after a failover nothing works, or everything works with what was lost.
#![cfg(feature = "test-util")]

use std::sync::atomic::{AtomicBool, Ordering};

use leasehold::Token;
use leasehold::conformance::store::wait;
use leasehold::store::{Acquired, Event, Extended, Hint, Released};

use crate::kit::sentinel::NAME;
use crate::kit::{self, Sentinels, Server, until};
use crate::redis_store::{LONG, ask, denied, is_granted, key, queue, stores_at, take, ttl};

fn url(sentinels: &Sentinels) -> String {
    format!("redis+sentinel://{}/{NAME}", sentinels.hosts())
}

#[test]
fn a_failover_is_followed_told_of_and_keeps_fences_rising() {
    let mut sentinels = Sentinels::start();
    let stores = stores_at(&url(&sentinels));
    let token = Token::random();
    let mut last = take(&*stores.one, "k", token);
    let mut events = wait(stores.one.events()).unwrap();
    let mut watch = wait(stores.one.watch(&key("k"))).unwrap();
    assert_eq!(wait(events.next()), Some(Event::Resumed));
    for round in 0..2 {
        let dead = sentinels.kill_master();
        assert_eq!(wait(events.next()), Some(Event::Resumed), "round {round}");
        while wait(watch.next()) != Some(Hint::Resumed) {}
        // The lock was passed on to the replica, or it was lost; either way the store can say so.
        until("an answer", || !matches!(wait(stores.one.extend(&key("k"), token, ttl(LONG))), Extended::Unknown(_)));
        let (name, token) = (format!("k{round}"), Token::random());
        until("a grant", || match ask(&*stores.one, &name, token, LONG) {
            Acquired::Granted { fence, .. } => {
                assert!(fence > Some(last));
                last = fence.unwrap();
                true
            }
            _ => false,
        });
        assert_eq!(wait(stores.one.release(&key(&name), token)), Released::Released);
        sentinels.revive(dead);
    }
}

#[test]
fn health_calls_the_master_what_its_sentinels_call_it() {
    let sentinels = Sentinels::start();
    let stores = stores_at(&url(&sentinels));
    until("an answer", || {
        let nodes = wait(stores.one.health()).nodes;
        assert_eq!(nodes.iter().map(|node| &*node.name).collect::<Vec<_>>(), [NAME]);
        nodes[0].answer.is_ok()
    });
}

#[test]
fn those_who_wait_through_a_failover_are_all_granted() {
    let mut sentinels = Sentinels::start();
    let all: Vec<_> = (0..3).map(|_| stores_at(&url(&sentinels))).collect();
    let held = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = all
            .iter()
            .flat_map(|two| [&two.one, &two.other])
            .map(|store| {
                scope.spawn(|| {
                    for _ in 0..3 {
                        let mut token = Token::random();
                        until("a turn", || match queue(&**store, "k", token) {
                            Acquired::Granted { .. } => true,
                            Acquired::Unknown(_) => {
                                token = Token::random();
                                false
                            }
                            _ => false,
                        });
                        held.store(true, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(100));
                        // Carried out by the store, whatever it says now.
                        let _ = wait(store.release(&key("k"), token));
                    }
                    store.leave(&key("k"));
                })
            })
            .collect();
        until("the first", || held.load(Ordering::SeqCst));
        sentinels.kill_master();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

#[test]
fn a_sentinel_that_is_dead_or_knows_nothing_is_passed_over() {
    let mut sentinels = Sentinels::start();
    let clueless = Server::launch(kit::server::Kind::Sentinel, |_| Vec::new());
    let hosts = sentinels.hosts();
    sentinels.sentinels[0].kill9();
    let stores = stores_at(&format!("redis+sentinel://{},{hosts}/{NAME}", clueless.address()));
    until("a grant", || is_granted(&ask(&*stores.one, "k", Token::random(), LONG)));
    denied(&ask(&*stores.other, "k", Token::random(), LONG));
}
