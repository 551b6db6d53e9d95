//! Fear: the server, the network or a lock of somebody else's comes between, and a grant stays that nobody received, a
//! release is not carried out, or a waiter hangs.
#![cfg(feature = "test-util")]

use std::net::SocketAddr;

use leasehold::Token;
use leasehold::conformance::store::wait;
use leasehold::store::postgres::PostgresStore;
use leasehold::store::{Acquired, Denial, Extended, Forced, Released, StoreError};

use crate::kit::{Direction, Proxy, until};
use crate::pg::Postgres;
use crate::stores::{LONG, ask, denied, is_granted, key, queue, stores, stores_at, take, ttl};

fn behind_a_proxy(server: &Postgres) -> (Proxy, String) {
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port())));
    let url = server.url().replace(&server.port().to_string(), &proxy.address().port().to_string());
    (proxy, url)
}

#[test]
fn a_grant_whose_answer_was_lost_is_taken_back() {
    let server = Postgres::start();
    server.init();
    let (proxy, url) = behind_a_proxy(&server);
    let (far, near) = (stores_at(&url), stores_at(&server.url()));
    take(&*far.one, "warm", Token::random());
    proxy.black_hole(Direction::ToClient);
    let token = Token::random();
    assert_eq!(ask(&*far.one, "k", token, LONG), Acquired::Unknown(StoreError::Timeout));
    // Of it, or of what has taken it back by now, a row tells that it was carried out.
    assert_eq!(server.ask("SELECT count(*) FROM leasehold_locks WHERE key = 'k'"), "1");
    // Nor is it granted to the same token meanwhile (S5).
    assert!(matches!(ask(&*far.one, "k", token, LONG), Acquired::Unknown(_)));
    proxy.heal();
    until("S5: the key comes free", || is_granted(&ask(&*near.one, "k", Token::random(), LONG)));
}

#[test]
fn a_release_whose_answer_was_lost_is_carried_out() {
    let server = Postgres::start();
    server.init();
    let (proxy, url) = behind_a_proxy(&server);
    let (far, near) = (stores_at(&url), stores_at(&server.url()));
    let token = Token::random();
    take(&*far.one, "k", token);
    proxy.black_hole(Direction::ToServer);
    assert_eq!(wait(far.one.release(&key("k"), token)), Released::Unknown(StoreError::Timeout));
    // A later one is dropped before it is polled.
    let other = Token::random();
    take(&*near.one, "other", other);
    drop(far.one.release(&key("other"), other));
    assert_eq!(denied(&ask(&*near.one, "k", Token::random(), LONG)), Denial::Held);
    proxy.heal();
    for name in ["k", "other"] {
        until("S7: the key comes free", || is_granted(&ask(&*near.one, name, Token::random(), LONG)));
    }
}

#[test]
fn a_statement_that_waited_too_long_for_its_row_grants_nothing() {
    let server = Postgres::start();
    server.init();
    let stores = stores_at(&server.url());
    let token = Token::random();
    take(&*stores.one, "k", token);
    assert_eq!(wait(stores.one.release(&key("k"), token)), Released::Released);
    let sleeper = std::thread::scope(|scope| {
        // Somebody has the row for longer than the operation timeout.
        let busy = scope.spawn(|| {
            server.ask("BEGIN; SELECT 1 FROM leasehold_locks WHERE key = 'k' FOR UPDATE; SELECT pg_sleep(4); COMMIT;")
        });
        until("the row is locked", || {
            server.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
        });
        let token = Token::random();
        let answer = ask(&*stores.one, "k", token, LONG);
        assert!(matches!(answer, Acquired::Unknown(_)), "{answer:?}");
        // Others are served meanwhile, and what waits for the row does not pile up in the server.
        until("another key", || is_granted(&ask(&*stores.one, "free", token, LONG)));
        assert!(!busy.is_finished());
        let mut most = 0;
        while !busy.is_finished() {
            let waiting = server.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
            most = most.max(waiting.parse().unwrap());
        }
        assert!(most <= 2, "{most} processes of the server waited for one row");
        busy.join().unwrap();
        token
    });
    assert_eq!(wait(stores.one.extend(&key("k"), sleeper, ttl(LONG))), Extended::Lost);
    until("the key is free", || is_granted(&ask(&*stores.other, "k", Token::random(), LONG)));
}

#[test]
fn what_comes_after_its_time_is_refused() {
    let server = Postgres::start();
    server.init();
    let (stores, token) = (stores_at(&server.url()), Token::random());
    take(&*stores.one, "held", token);
    for (function, rest) in [
        ("acquire", format!("'k', '{}', 1000000, -1, 1, NULL", Token::random())),
        ("acquire", format!("'k', '{}', 1000000, 0, 1, NULL", Token::random())),
        ("acquire", format!("'held', '{token}', 1000000, -1, 1, NULL")),
        ("release", format!("'held', '{token}'")),
        ("force", "'held', NULL".to_owned()),
    ] {
        let said = server.ask(&format!("SELECT (leasehold_locks_v1_{function}(1, {rest}))[1]"));
        assert_eq!(said, "3", "{function}");
    }
    assert_eq!(server.ask("SELECT count(*) FROM leasehold_locks WHERE tokens IS NOT NULL"), "1");
    assert!(matches!(wait(stores.one.confirm(&key("held"), token)), Extended::Extended { .. }));
    assert_eq!(wait(stores.one.force_release(&key("held"))), Forced::Released);
}

#[test]
fn a_process_that_is_gone_holds_nobody_up_for_long() {
    let server = Postgres::start();
    server.init();
    for listen in [true, false] {
        let stores = stores(|| PostgresStore::builder(&server.url()).listen(listen));
        let [held, first, second] = [(); 3].map(|()| Token::random());
        let name = format!("k{listen}");
        take(&*stores.one, &name, held);
        assert_eq!(denied(&queue(&*stores.other, &name, first)), Denial::Held);
        assert_eq!(denied(&queue(&*stores.one, &name, second)), Denial::Held);
        let mut turn = stores.one.turn(&key(&name)).unwrap();
        // It leaves no queue, and renews nothing any more.
        wait(stores.other.stop());
        assert_eq!(wait(stores.one.release(&key(&name), held)), Released::Released);
        until("the turn of the second", || {
            assert!(wait(turn.next()).is_some());
            is_granted(&queue(&*stores.one, &name, second))
        });
    }
}

#[test]
fn a_store_that_does_not_run_says_so() {
    let server = Postgres::start();
    server.init();
    let store = PostgresStore::new(&server.url()).unwrap();
    assert_eq!(ask(&store, "k", Token::random(), LONG), Acquired::Unknown(StoreError::NotRunning));
    let stores = stores_at(&server.url());
    take(&*stores.one, "k", Token::random());
    wait(stores.one.stop());
    wait(stores.other.stop());
    assert_eq!(ask(&*stores.one, "k", Token::random(), LONG), Acquired::Unknown(StoreError::NotRunning));
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leasehold'";
    until("the connections' end", || server.ask(ours) == "0");
}
