//! Fear: what one Redis keeps of the contract, five of them do not keep together.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use leasehold::conformance::store::{self as conformance, wait};
use leasehold::store::{AcquireRequest, Acquired, Denial, OnHeld, Released, Store};
use leasehold::{Mode, Token};

use crate::kit;
use crate::redis_store::{key, ttl};
use crate::redlock::{self, Nodes};

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
    let script = redis::Script::new(include_str!("../../src/store/redlock/ops/acquire.lua"));
    let mut client = server.client();
    let (seconds, micros): (i64, i64) = server.ask("TIME");
    let now = seconds * 1_000_000 + micros;
    let floor = now - 1_000_000;
    redis::cmd("SET").arg("m").arg(format!("{floor} 60000 run")).exec(&mut client).unwrap();
    let mut ask = |token: &str, fence: i64, max_ttl_ms: i64, turn: i64| {
        let mut asked = script.prepare_invoke();
        asked
            .key("m")
            .key("lock")
            .key("fence")
            .key("leasehold:queue:lock")
            .arg(fence)
            .arg(120_000)
            .arg(max_ttl_ms)
            .arg(turn);
        asked.arg("process").arg(1_500).arg(token).arg(50_000).arg(0).arg(i64::MAX / 1024);
        let answer: String = asked.invoke(&mut client).unwrap();
        let (_, word) = answer.split_once(' ').unwrap();
        word.split(':').map(|number| number.parse().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!(ask("a", floor, 60_000, 1), [4, floor], "at the floor");
    assert_eq!(ask("a", floor + 5, 30_000, 1), [7, 60_000], "another max_ttl");
    assert_eq!(ask("a", floor + 5, 60_000, 1), [1], "for all of its ttl");
    assert_eq!(ask("a", floor + 9, 60_000, 1)[..2], [6, floor + 5], "a retry moves nothing");
    assert_eq!(ask("a", floor + 5, 60_000, 2), [4, floor + 5], "the same one again");
    let denied = ask("b", floor + 9, 60_000, 2);
    assert_eq!((&denied[..2], denied[3]), (&[2, 0][..], floor + 5), "another's, and its fence");
    assert_eq!(ask("a", floor + 9, 60_000, 2)[0], 1, "the second round raises its own");
    assert_eq!(server.ask::<i64>("GET fence"), floor + 9);
    assert!(server.ask::<i64>("PTTL fence") > 110_000);
}

/// One who dates a ticket ahead, or whose ticket has run out, is in nobody's way; who has waited for longer is.
#[test]
fn a_node_votes_for_the_one_who_has_waited_for_longest_and_tells_a_release_to_that_one() {
    let server = kit::Server::start(&[]);
    let acquire = redis::Script::new(include_str!("../../src/store/redlock/ops/acquire.lua"));
    let release = redis::Script::new(concat!(
        include_str!("../../src/store/redlock/ops/queue.lua"),
        include_str!("../../src/store/redlock/ops/release.lua")
    ));
    let mut client = server.client();
    let micros = || {
        let (seconds, micros): (i64, i64) = server.ask("TIME");
        seconds * 1_000_000 + micros
    };
    let floor = micros() - 1_000_000;
    redis::cmd("SET").arg("m").arg(format!("{floor} 60000 run")).exec(&mut client).unwrap();
    let mut fence = micros();
    let mut ask = |process: &str, order: i64| {
        let mut asked = acquire.prepare_invoke();
        fence += 1_000;
        asked.key("m").key("lock").key("fence").key("leasehold:queue:lock").arg(fence).arg(120_000).arg(60_000).arg(1);
        asked.arg(process).arg(1_000_000).arg(process).arg(50_000).arg(order).arg(i64::MAX / 1024);
        let answer: String = asked.invoke(&mut server.client()).unwrap();
        let (_, word) = answer.split_once(' ').unwrap();
        word.split(':').map(|number| number.parse().unwrap()).collect::<Vec<i64>>()[..word.len().min(3) / 2 + 1]
            .to_vec()
    };
    let mut listener = server.client();
    let mut listener = listener.as_pubsub();
    listener.psubscribe("*").unwrap();
    let mut let_go = |token: &str| {
        let mut asked = release.prepare_invoke();
        asked.key("lock").key("leasehold:queue:lock").arg(token).arg("wake").arg(i64::MAX / 1024);
        assert!(asked.invoke::<String>(&mut client).unwrap().ends_with(" 1"));
        let mut channel = || listener.get_message().unwrap().get_channel_name().to_owned();
        let first = channel();
        if first != "wake" {
            assert_eq!(channel(), "wake", "whoever watches is told as well");
        }
        first
    };
    assert_eq!(ask("a", 10), [1]);
    assert_eq!(let_go("a"), "wake", "nobody waits");
    assert_eq!(ask("a", 10), [1]);
    assert_eq!(ask("c", 30), [2, 0]);
    assert_eq!(ask("b", 20), [2, 0]);
    assert_eq!(ask("d", 0), [2, 0], "it does not wait");
    assert_eq!(let_go("a"), "leasehold:turn:b");
    assert_eq!(ask("c", 30), [2, 2], "not its turn");
    assert_eq!(ask("d", 0), [2, 2], "a try does not pass those who wait");
    let dead = format!("5 {}", micros() - 1);
    let ahead = format!("6 {}", micros() + 3_000_000_000_000);
    for (process, place) in [("dead", dead), ("ahead", ahead)] {
        redis::cmd("HSET").arg("leasehold:queue:lock").arg(process).arg(place).exec(&mut server.client()).unwrap();
    }
    assert_eq!(ask("b", 20), [1]);
    assert_eq!(
        server.ask::<Vec<String>>("HKEYS leasehold:queue:lock"),
        ["c"],
        "its place is used up, the dead are gone"
    );
    assert_eq!(let_go("b"), "leasehold:turn:c");
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
        let tries = keys.iter().zip(&tokens).map(|(key, token)| {
            stores.one.acquire(AcquireRequest {
                key,
                token: *token,
                ttl,
                on_held: OnHeld::Fail,
                mode: Mode::Exclusive,
                note: &[],
            })
        });
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

/// A clock that was once far ahead has minted a fence for one key: it is that key's alone.
#[test]
fn a_fence_far_ahead_of_all_clocks_stays_with_its_own_key() {
    let nodes = Nodes::start(3, &[], HOURS);
    let stores = redlock::stores(|| nodes.builder().node_timeout(Duration::from_secs(10)));
    let (far, ttl) = (4_000_000_000_000_000_u64, ttl(Duration::from_secs(50)));
    for server in &nodes.servers {
        server.ask::<String>(&format!("SET leasehold:fence:{{lock:far}} {far} PX 100000000"));
    }
    let fence = |name: &str| {
        let ask = AcquireRequest {
            key: &key(name),
            token: Token::random(),
            ttl,
            on_held: OnHeld::Fail,
            mode: Mode::Exclusive,
            note: &[],
        };
        match wait(stores.one.acquire(ask)) {
            Acquired::Granted { fence: Some(fence), .. } => fence,
            answer => panic!("{answer:?}"),
        }
    };
    let before = fence("a");
    assert!(fence("far") > far);
    assert!((before..far).contains(&fence("b")), "of the clocks, not above the other key's");
}
