//! Fear: what one Redis keeps of the contract, five of them do not keep together.
#![cfg(all(feature = "redis", feature = "test-util"))]

#[path = "support/redis/mod.rs"]
mod kit;
#[path = "support/redlock.rs"]
mod redlock;
#[path = "support/redis_store.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use leasehold::Token;
use leasehold::store::conformance::{self, wait};
use leasehold::store::{Acquired, Ask, Denial, Intent, Released, Store};
use redlock::Nodes;
use support::{key, ttl};

/// The suite takes locks for two hours.
const HOURS: Duration = Duration::from_hours(3);

#[test]
fn the_contract_holds_over_one_three_and_five_nodes() {
    for count in [1, 3, 5] {
        let nodes = Nodes::start(count, &[], HOURS);
        conformance::check(|| Arc::new(nodes.builder().build().unwrap()) as Arc<dyn Store>);
    }
}

/// The script is the node of the model: this is where it must judge as `Memory` does there.
#[test]
fn a_node_accepts_no_fence_at_or_below_its_memory_or_the_end_of_its_last_quarantine() {
    let server = kit::Server::start(&[]);
    let script = redis::Script::new(include_str!("../src/store/redlock/acquire.lua"));
    let mut client = server.client();
    let (seconds, micros): (i64, i64) = server.ask("TIME");
    let now = seconds * 1_000_000 + micros;
    let floor = now - 1_000_000;
    redis::cmd("SET").arg("m").arg(format!("{floor} 60000 run")).exec(&mut client).unwrap();
    let mut ask = |token: &str, fence: i64, max_ttl_ms: i64, turn: i64| {
        let mut asked = script.prepare_invoke();
        asked.key("m").key("lock").key("fence").arg(fence).arg(120_000).arg(max_ttl_ms).arg(turn);
        let answer: String = asked.arg(token).arg(50_000).arg(i64::MAX / 1024).invoke(&mut client).unwrap();
        let (_, word) = answer.split_once(' ').unwrap();
        word.split(':').map(|number| number.parse().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!(ask("a", floor, 60_000, 1), [4, floor], "at the floor");
    assert_eq!(ask("a", floor + 5, 30_000, 1), [7, 60_000], "another max_ttl");
    assert_eq!(ask("a", floor + 5, 60_000, 1), [1], "for all of its ttl");
    assert_eq!(ask("a", floor + 9, 60_000, 1)[..2], [6, floor + 5], "a retry moves nothing");
    assert_eq!(ask("a", floor + 5, 60_000, 2), [4, floor + 5], "the same one again");
    assert_eq!(ask("b", floor + 9, 60_000, 2)[..2], [2, 0], "another's");
    assert_eq!(ask("a", floor + 9, 60_000, 2)[0], 1, "the second round raises its own");
    assert_eq!(server.ask::<i64>("GET fence"), floor + 9);
    assert!(server.ask::<i64>("PTTL fence") > 110_000);
}

/// While the first is under way the others gather; two want each key, and one key holds a value of another kind.
#[test]
fn calls_that_go_out_together_are_answered_each_by_itself() {
    let nodes = Nodes::start(3, &[], HOURS);
    let stores = redlock::stores(|| nodes.builder().node_timeout(Duration::from_secs(10)));
    for server in &nodes.servers {
        server.ask::<i64>("HSET lock:k7 a b");
    }
    let keys: Vec<_> = (0..100).map(|n| key(&format!("k{}", n / 2))).collect();
    let tokens: Vec<_> = keys.iter().map(|_| Token::random()).collect();
    for _ in 0..10 {
        let ttl = ttl(Duration::from_secs(50));
        let tries = keys
            .iter()
            .zip(&tokens)
            .map(|(key, token)| stores.one.acquire(Ask { key, token: *token, ttl, intent: Intent::Try }));
        let answers = wait(join_all(tries));
        for (of_key, pair) in answers.chunks(2).enumerate() {
            let why = if of_key == 7 { Denial::OtherKind } else { Denial::Held };
            let grants =
                pair.iter().filter(|answer| matches!(answer, Acquired::Granted { fence: Some(_), .. })).count();
            let denials = pair.iter().filter(|answer| matches!(answer, Acquired::Denied { why: of, .. } if *of == why));
            let expected = if of_key == 7 { (0, 2) } else { (1, 1) };
            assert_eq!((grants, denials.count()), expected, "k{of_key}: {pair:?}");
        }
        // Twice each, by those who hold it and those who do not.
        let twice = keys.iter().zip(&tokens).chain(keys.iter().zip(&tokens));
        let released = wait(join_all(twice.map(|(key, token)| stores.one.release(key, *token))));
        let count = |wanted: Released| released.iter().filter(|answer| **answer == wanted).count();
        assert_eq!((count(Released::Released), count(Released::AlreadyGone)), (49, 151), "{released:?}");
    }
    wait(stores.one.stop());
    assert!((0..50).filter(|n| *n != 7).all(|n| nodes.holders(&format!("k{n}")) == 0));
}
