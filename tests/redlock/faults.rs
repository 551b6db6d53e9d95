//! Fear: a node dies, stalls or forgets, and a key is granted twice, stays behind, or service ends with a minority.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold::Token;
use leasehold::conformance::store::{Stores, wait};
use leasehold::store::redlock::{RedlockBuilder, RedlockStore};
use leasehold::store::{
    Acquired, Denial, Event, Extended, Fairness, Forced, Holder, KeyState, Released, Store, StoreError,
};

use crate::kit::{self, Direction, Proxy, Server, Then, until, until_some};
use crate::redis_store::{ask, denied, is_granted, key, ttl};
use crate::redlock::{self, MAX_TTL, Nodes, stores};

/// A TTL that outlasts a test's steps.
const WHILE: Duration = Duration::from_millis(2_900);

fn through(proxies: &[Proxy], max_ttl: Duration) -> RedlockBuilder {
    RedlockStore::builder(proxies.iter().map(Proxy::url)).max_ttl(max_ttl)
}

/// Takes a lock that must be free, however loaded the machine is; answers its fence.
#[track_caller]
fn take(store: &dyn Store, name: &str, token: Token, lasting: Duration) -> u64 {
    until_some(&format!("a grant of {name}"), || match ask(store, name, token, lasting) {
        Acquired::Granted { fence, .. } => Some(fence.expect("every grant has a proved fence")),
        Acquired::Unknown(_) | Acquired::Denied { why: Denial::TooLate, .. } => None,
        answer => panic!("{name} is free, and the answer was {answer:?}"),
    })
}

#[test]
fn two_of_five_may_die_and_a_third_stops_service_until_one_is_back() {
    let mut nodes = Nodes::start(5, &[], MAX_TTL);
    let stores = nodes.stores();
    let long = MAX_TTL;
    let before = Token::random();
    take(&*stores.one, "before", before, long);
    nodes.servers[0].kill9();
    nodes.servers[3].kill9();
    let (token, other) = (Token::random(), Token::random());
    let fence = take(&*stores.one, "k", token, long);
    assert_eq!(denied(&ask(&*stores.other, "k", other, long)), Denial::Held);
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    assert!(take(&*stores.other, "k", other, long) > fence);

    nodes.servers[1].stop();
    let answer = ask(&*stores.one, "more", Token::random(), long);
    let Acquired::Unknown(StoreError::NoQuorum { answered, needed: 3, nodes: 5, why }) = &answer else {
        panic!("two of five decided: {answer:?}");
    };
    assert!(*answered == 2 && why.contains(&nodes.servers[0].address().to_string()), "{answer:?}");
    let answer = wait(stores.one.extend(&key("before"), before, ttl(long)));
    let Extended::Unknown(StoreError::NoQuorum { answered: 2, why, .. }) = &answer else {
        panic!("two of five decided: {answer:?}");
    };
    assert_eq!(why.split("; ").count(), 3, "each node once: {why}");
    // The paused one has forgotten nothing: it votes as soon as it goes on.
    nodes.servers[1].cont();
    take(&*stores.one, "more", Token::random(), long);
    assert_eq!(wait(stores.other.release(&key("k"), other)), Released::Released);
}

#[test]
fn a_durable_node_votes_as_soon_as_it_is_back() {
    let hours = Duration::from_hours(3);
    let mut nodes = Nodes::start(3, kit::DURABLE, hours);
    let stores = nodes.stores();
    let token = Token::random();
    take(&*stores.one, "held", token, hours / 2);
    // A majority is enough for the grant; here those that are left must be one.
    until("all three", || nodes.with_value("held", &token.to_string()) == 3);
    nodes.servers[0].kill9();
    nodes.servers[1].kill9();
    assert!(matches!(ask(&*stores.one, "k", Token::random(), hours), Acquired::Unknown(_)));
    nodes.servers[0].restart();
    take(&*stores.one, "k", Token::random(), hours);
    let why = until_some("an answer", || match ask(&*stores.other, "held", Token::random(), hours) {
        Acquired::Unknown(_) => None,
        answer => Some(denied(&answer)),
    });
    assert_eq!(why, Denial::Held, "and has forgotten nothing");
}

#[test]
fn nothing_is_granted_twice_after_nodes_came_back_empty_and_they_vote_again_later() {
    let mut nodes = Nodes::start(3, &[], MAX_TTL);
    let stores = nodes.stores();
    // Two nodes hold it; the third was away.
    nodes.servers[2].kill9();
    let (token, other) = (Token::random(), Token::random());
    let fence = take(&*stores.one, "k", token, WHILE);
    let granted = Instant::now();
    nodes.servers[2].restart();
    nodes.servers[1].restart();
    let next = until_some("the end of the quarantine", || match ask(&*stores.other, "k", other, WHILE) {
        Acquired::Granted { fence, .. } => fence,
        Acquired::Unknown(StoreError::NoQuorum { .. }) | Acquired::Denied { .. } => None,
        answer => panic!("{answer:?}"),
    });
    assert!(granted.elapsed() > WHILE, "granted while it was held: {:?}", granted.elapsed());
    assert!(next > fence, "{next} after {fence}");
    assert_eq!(wait(stores.one.extend(&key("k"), token, ttl(WHILE))), Extended::Lost);
}

/// The reason for the quarantine: the same history without it.
#[test]
fn without_the_quarantine_the_same_key_is_granted_twice() {
    let mut nodes = Nodes::start(3, &[], MAX_TTL);
    let builder = || nodes_of(&nodes).without_quarantine();
    redlock::initialise(&builder());
    let stores = stores(builder);
    nodes.servers[2].kill9();
    let (token, other) = (Token::random(), Token::random());
    let Acquired::Granted { valid_for, .. } = ask(&*stores.one, "k", token, WHILE) else { panic!("it is free") };
    let granted = Instant::now();
    nodes.servers[2].restart();
    nodes.servers[1].restart();
    until("the second grant", || is_granted(&ask(&*stores.other, "k", other, WHILE)));
    assert!(granted.elapsed() < valid_for, "the machine is too slow to show it");
}

fn nodes_of(nodes: &Nodes) -> RedlockBuilder {
    RedlockStore::builder(nodes.urls()).max_ttl(MAX_TTL)
}

#[test]
fn a_flushed_node_keeps_silent_until_what_it_forgot_has_run_out() {
    let nodes = Nodes::start(3, &[], MAX_TTL);
    let stores = nodes.stores();
    let (token, other) = (Token::random(), Token::random());
    take(&*stores.one, "k", token, WHILE);
    let granted = Instant::now();
    nodes.servers[0].ask::<()>("FLUSHALL");
    nodes.servers[1].ask::<()>("FLUSHALL");
    until("the end of the quarantine", || is_granted(&ask(&*stores.other, "k", other, WHILE)));
    assert!(granted.elapsed() > WHILE, "granted while it was held: {:?}", granted.elapsed());
}

#[test]
fn a_new_deployment_is_silent_once_for_the_longest_ttl() {
    let servers: Vec<Server> = (0..3).map(|_| Server::start(&[])).collect();
    let second = Duration::from_secs(1);
    let stores = leasehold::conformance::store::Stores::start(&|| {
        let urls = servers.iter().map(Server::url);
        std::sync::Arc::new(RedlockStore::builder(urls).max_ttl(second).build().unwrap()) as std::sync::Arc<dyn Store>
    });
    until("an answer", || {
        let health = wait(stores.one.health());
        let silent = |node: &leasehold::store::NodeHealth| matches!(node.answer, Err(StoreError::Quarantined { .. }));
        health.nodes.iter().all(silent) && health.answer.is_ok()
    });
    until("a grant", || is_granted(&ask(&*stores.one, "k", Token::random(), second)));
}

#[test]
fn processes_that_disagree_on_the_longest_ttl_are_told() {
    let nodes = Nodes::start(3, &[], MAX_TTL);
    let _stores = nodes.stores();
    let other = leasehold::conformance::store::Stores::start(&|| {
        let store = nodes.builder().max_ttl(MAX_TTL * 2).build().unwrap();
        std::sync::Arc::new(store) as std::sync::Arc<dyn Store>
    });
    let answer = until_some("an answer", || match ask(&*other.one, "k", Token::random(), MAX_TTL) {
        Acquired::Unknown(StoreError::Config(why)) => Some(why),
        Acquired::Unknown(_) => None,
        answer => panic!("{answer:?}"),
    });
    assert!(answer.contains("3000 ms") && answer.contains("6000 ms"), "{answer}");
}

#[test]
fn ttls_above_the_longest_are_refused() {
    let nodes = Nodes::start(3, &[], MAX_TTL);
    let stores = nodes.stores();
    assert_eq!(stores.one.capabilities().max_ttl, MAX_TTL);
    assert_eq!(stores.one.capabilities().fairness, Fairness::None);
    let answer = ask(&*stores.one, "k", Token::random(), MAX_TTL + Duration::from_millis(1));
    assert_eq!(answer, Acquired::Unknown(StoreError::InvalidTtl));
    assert_eq!(nodes.holders("k"), 0);
}

#[test]
fn two_names_of_one_server_have_one_vote() {
    let servers: Vec<Server> = (0..2).map(|_| Server::start(&[])).collect();
    let urls = [servers[0].url(), servers[1].url(), servers[1].url().replace("127.0.0.1", "localhost")];
    let make = || RedlockStore::builder(&urls).max_ttl(MAX_TTL).build().unwrap();
    let stores =
        leasehold::conformance::store::Stores::start(&|| std::sync::Arc::new(make()) as std::sync::Arc<dyn Store>);
    let why = until_some("the refusal", || match wait(stores.one.health()).answer {
        Err(StoreError::Config(why)) => Some(why),
        _ => None,
    });
    assert!(why.contains("same server") && why.contains("localhost"), "{why}");
}

/// Both are being admitted at once: the second name has looked round before the first one says who it is.
#[test]
fn two_names_of_one_server_have_one_vote_when_they_come_at_once() {
    let server = Server::start(&[]);
    let (first, second) = (Proxy::start(server.address()), Proxy::start(server.address()));
    let (elsewhere, patience) = (Server::start(&[]), Duration::from_secs(10));
    first.hold(Direction::ToClient);
    second.delay(Direction::ToClient, Duration::from_millis(100));
    let urls = [first.url(), second.url(), elsewhere.url()];
    let make = || RedlockStore::builder(&urls).max_ttl(MAX_TTL).node_timeout(patience).build().unwrap();
    let stores =
        leasehold::conformance::store::Stores::start(&|| std::sync::Arc::new(make()) as std::sync::Arc<dyn Store>);
    until("the second name's first script", || server.ask::<String>("INFO commandstats").contains("script|load"));
    first.heal();
    let why = until_some("the refusal", || match wait(stores.one.health()).answer {
        Err(StoreError::Config(why)) => Some(why),
        _ => None,
    });
    assert!(why.contains("same server"), "{why}");
}

#[test]
fn a_lost_minority_is_given_the_lock_back_by_the_next_extend() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    let token = Token::random();
    take(&*stores.one, "k", token, Duration::from_secs(50));
    until("all three", || nodes.with_value("k", &token.to_string()) == 3);
    nodes.servers[1].ask::<i64>("DEL lock:k");
    let answer = wait(stores.one.extend(&key("k"), token, ttl(Duration::from_secs(55))));
    assert!(matches!(answer, Extended::Extended { .. }), "{answer:?}");
    until("the repair", || nodes.with_value("k", &token.to_string()) == 3);
    let life: i64 = nodes.servers[1].ask("PTTL lock:k");
    assert!(life > 0 && life <= 55_000, "never longer than the others: {life}");
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    nodes.until_free("k");
    // A majority is gone: nothing is given back, nothing revived.
    let token = Token::random();
    take(&*stores.one, "k", token, Duration::from_secs(50));
    until("all three", || nodes.with_value("k", &token.to_string()) == 3);
    nodes.servers[0].ask::<i64>("DEL lock:k");
    nodes.servers[1].ask::<i64>("DEL lock:k");
    assert_eq!(wait(stores.one.extend(&key("k"), token, ttl(Duration::from_secs(55)))), Extended::Lost);
    assert_eq!(nodes.with_value("k", &token.to_string()), 1);
}

#[test]
fn anothers_lock_on_a_minority_is_not_repaired_over() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    let token = Token::random();
    take(&*stores.one, "k", token, Duration::from_secs(50));
    until("all three", || nodes.with_value("k", &token.to_string()) == 3);
    nodes.servers[1].ask::<()>("SET lock:k theirs PX 50000");
    assert!(matches!(
        wait(stores.one.extend(&key("k"), token, ttl(Duration::from_secs(55)))),
        Extended::Extended { .. }
    ));
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    wait(stores.one.stop());
    assert_eq!(nodes.with_value("k", "theirs"), 1);
}

#[test]
fn a_split_vote_is_denied_soon_and_leaves_nothing() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    nodes.servers[0].ask::<()>("SET lock:k a PX 50000");
    nodes.servers[1].ask::<()>("SET lock:k b PX 50000");
    let token = Token::random();
    let answer = ask(&*stores.one, "k", token, Duration::from_secs(50));
    let Acquired::Denied { why: Denial::Held, retry_in: Some(_) } = answer else { panic!("{answer:?}") };
    until("the clean-up", || nodes.with_value("k", &token.to_string()) == 0);
    let seen = wait(stores.one.look(&key("k"), None));
    assert!(matches!(seen, Ok(KeyState::Held { by: Holder::Other, ends_in: Some(_), .. })), "{seen:?}");
}

/// Peer bug 13: a quorum was reached when its validity was over.
#[test]
fn grants_that_come_after_their_own_end_are_denied_and_released_everywhere() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let proxies = nodes.proxies();
    let stores = stores(|| through(&proxies, nodes.max_ttl).node_timeout(Duration::from_secs(2)));
    let (lasting, token) = (Duration::from_millis(150), Token::random());
    for proxy in &proxies {
        proxy.delay(Direction::ToClient, lasting + Duration::from_millis(100));
    }
    let answer = ask(&*stores.one, "k", token, lasting);
    assert!(matches!(answer, Acquired::Denied { retry_in: Some(_), why: Denial::TooLate }), "{answer:?}");
    for proxy in &proxies {
        proxy.heal();
    }
    // Also where it would last.
    for proxy in &proxies {
        proxy.delay(Direction::ToClient, Duration::from_millis(600));
    }
    let answer = ask(&*stores.one, "k", token, Duration::from_millis(500));
    assert_eq!(denied(&answer), Denial::TooLate);
    nodes.until_free("k");
}

#[test]
fn grants_whose_replies_were_lost_are_unknown_and_taken_back_everywhere() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let proxies = nodes.proxies();
    let stores = stores(|| through(&proxies, nodes.max_ttl));
    for then in [Then::Reset, Then::Silence] {
        proxies[0].lose_reply_of("lock:k", then);
        proxies[2].lose_reply_of("lock:k", then);
        let answer = ask(&*stores.one, "k", Token::random(), Duration::from_secs(50));
        assert!(matches!(answer, Acquired::Unknown(StoreError::NoQuorum { answered: 1, .. })), "{answer:?}");
        nodes.until_free("k");
        for proxy in &proxies {
            proxy.heal();
        }
        until("the nodes", || wait(stores.one.health()).nodes.iter().all(|node| node.answer.is_ok()));
    }
    let token = Token::random();
    take(&*stores.one, "k", token, Duration::from_secs(50));
    wait(stores.one.stop());
    assert!(nodes.with_value("k", &token.to_string()) >= 2, "no clean-up hits a later lock");
}

/// The answers to the first try come while the second one is under way, and are taken back: not from the second one.
#[test]
fn what_an_earlier_try_of_the_token_left_under_way_takes_nothing_from_the_next_one() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let proxies = nodes.proxies();
    let stores = stores(|| through(&proxies, nodes.max_ttl).node_timeout(Duration::from_secs(2)));
    let (token, lasting) = (Token::random(), Duration::from_secs(50));
    proxies[..2].iter().for_each(|proxy| proxy.hold(Direction::ToClient));
    let answer = ask(&*stores.one, "k", token, lasting);
    assert!(matches!(answer, Acquired::Unknown(StoreError::NoQuorum { answered: 1, .. })), "{answer:?}");
    let held_by_third = || nodes.servers[2].ask::<i64>("EXISTS lock:k") == 1;
    until("the third to give it up", || !held_by_third());
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| take(&*stores.one, "k", token, lasting));
        until("the second try", held_by_third);
        proxies[..2].iter().for_each(Proxy::heal);
        taking.join().unwrap();
    });
    wait(stores.one.stop());
    assert!(nodes.with_value("k", &token.to_string()) >= 2, "a majority holds what was granted");
}

#[test]
fn what_reaches_a_node_after_the_release_leaves_nothing_there() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let proxies = nodes.proxies();
    let stores = stores(|| through(&proxies, nodes.max_ttl));
    for round in 0..5 {
        let (name, token) = (format!("k{round}"), Token::random());
        // One node hears everything late: the acquire is still on its way when the others are released.
        proxies[1].hold(Direction::ToServer);
        take(&*stores.one, &name, token, Duration::from_secs(50));
        assert_eq!(wait(stores.one.release(&key(&name), token)), Released::Released);
        if round % 2 == 1 {
            proxies[1].reset();
        }
        proxies[1].heal();
        until("the node", || wait(stores.one.health()).nodes.iter().all(|node| node.answer.is_ok()));
        wait_idle(&nodes, &name);
    }
    wait(stores.one.stop());
    for round in 0..5 {
        assert_eq!(nodes.holders(&format!("k{round}")), 0);
    }
}

/// A lock is gone everywhere, and stays so.
#[track_caller]
fn wait_idle(nodes: &Nodes, name: &str) {
    nodes.until_free(name);
}

#[test]
fn a_paused_node_is_not_waited_for_and_gets_its_releases_later() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    let token = Token::random();
    take(&*stores.one, "k", token, Duration::from_secs(50));
    until("all three", || nodes.holders("k") == 3);
    nodes.servers[2].stop();
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    for _ in 0..20 {
        let token = Token::random();
        take(&*stores.one, "k", token, Duration::from_secs(50));
        assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    }
    nodes.servers[2].cont();
    nodes.until_free("k");
}

#[test]
fn fences_rise_while_nodes_restart_empty_and_flush() {
    let mut nodes = Nodes::start(3, &[], Duration::from_millis(500));
    let stores = nodes.stores();
    let mut last = 0;
    for round in 0..12 {
        match round % 4 {
            1 => nodes.servers[round % 3].restart(),
            3 => nodes.servers[round % 3].ask::<()>("FLUSHALL"),
            _ => {}
        }
        let store = if round % 2 == 0 { &stores.one } else { &stores.other };
        let token = Token::random();
        let fence = until_some("a grant", || match ask(&**store, "k", token, Duration::from_millis(400)) {
            Acquired::Granted { fence, .. } => fence,
            _ => None,
        });
        assert!(fence > last, "round {round}: {fence} after {last}");
        last = fence;
        let _ = wait(store.release(&key("k"), token));
    }
}

#[test]
fn a_fence_that_others_have_passed_is_proposed_again_within_the_same_try() {
    let nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    let ahead = until_some("a fence", || match ask(&*stores.one, "k", Token::random(), Duration::from_millis(200)) {
        Acquired::Granted { fence, .. } => fence,
        _ => None,
    }) + 3_600_000_000;
    nodes.until_free("k");
    for server in &nodes.servers {
        // A process whose clock runs an hour ahead was here.
        server.ask::<()>(&format!("SET leasehold:fence:{{lock:k}} {ahead} PX 10000000"));
    }
    let token = Token::random();
    assert_eq!(take(&*stores.other, "k", token, Duration::from_secs(50)), ahead + 1);
    assert!(wait(stores.other.health()).nodes.iter().any(|node| node.votes.refused > 0));
    // A retry by its token hears the same.
    until("all three", || nodes.with_value("k", &token.to_string()) == 3);
    let again = ask(&*stores.other, "k", token, Duration::from_secs(50));
    assert!(matches!(again, Acquired::Granted { fence: Some(fence), .. } if fence == ahead + 1), "{again:?}");
}

#[test]
fn a_forced_release_over_a_minority_that_is_away_is_heard() {
    let mut nodes = Nodes::start(3, &[], Duration::from_secs(60));
    let stores = nodes.stores();
    let token = Token::random();
    take(&*stores.one, "k", token, Duration::from_secs(50));
    let mut events = wait(stores.one.events()).unwrap();
    nodes.servers[0].kill9();
    until("the force", || wait(stores.other.force_release(&key("k"))) == Forced::Released);
    while wait(events.next()).unwrap() != Event::Forced(key("k")) {}
    assert_eq!(wait(stores.one.extend(&key("k"), token, ttl(Duration::from_secs(50)))), Extended::Lost);
}

#[test]
fn a_node_that_may_not_vote_is_asked_less_and_less_often() {
    let nodes = Nodes::start(3, &[], MAX_TTL);
    // Its processes do not agree with those that marked the nodes.
    let _stores = Stores::start(&|| Arc::new(nodes.builder().max_ttl(MAX_TTL * 2).build().unwrap()) as Arc<dyn Store>);
    let loads = || {
        let stats = nodes.servers[0].info("cmdstat_script|load");
        stats.split(&['=', ','][..]).nth(1).map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    std::thread::sleep(Duration::from_secs(1));
    let before = loads();
    std::thread::sleep(Duration::from_secs(3));
    let loaded = loads() - before;
    // Two stores, and five scripts each time.
    assert!((10..=100).contains(&loaded), "{loaded} in three seconds");
}
