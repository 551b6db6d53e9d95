//! Fear: a session of many locks asks the server for each of them by itself, or its end leaves some behind.

use std::time::Duration;

use futures::future::join_all;
use leasehold::{EventKind, Events, Heard, Lock, LockManager, Release, Session};

use crate::kit::{Server, until};
use crate::redis_managers::{LONG, builder, exists, manager};

const MANY: usize = 50;
/// A beat goes out as what is sent at once and what has come until that is written; and its shards may wake in two turns.
const MOST: u64 = 4;

fn scripts_run(server: &Server) -> u64 {
    let stats = server.ask::<String>("INFO commandstats");
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// Locks of a session, in all shards, taken at different times.
async fn locks_of(session: &Session, name: &str) -> Vec<Lock> {
    let mut held = Vec::new();
    for n in 0..MANY {
        held.push(session.lock(format!("{name}:{n}")).wait(LONG).await.unwrap());
    }
    held
}

/// Waits until so many locks were refreshed.
async fn refreshed(events: &mut Events, mut count: usize) {
    while count > 0 {
        match events.next().await {
            Some(Heard::Event(event)) if matches!(event.kind, EventKind::Refreshed { .. }) => count -= 1,
            Some(Heard::Event(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn session(locks: &LockManager, name: &str, ttl: Duration) -> Session {
    let session = locks.session(name).ttl(ttl);
    session.auto_heartbeat(ttl / 3).unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_session_are_extended_by_few_commands_whenever_they_were_taken() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let me = session(&locks, "me", Duration::from_millis(1_500));
    let held = locks_of(&me, "k").await;
    let mut events = locks.events();
    // The beat that was on its way, if there was one, and a whole one.
    refreshed(&mut events, MANY).await;
    let ends: Vec<_> = held.iter().map(|lock| lock.deadline().unwrap()).collect();
    let before = scripts_run(&server);
    refreshed(&mut events, 3 * MANY).await;
    let commands = scripts_run(&server) - before;
    assert!(commands <= 3 * MOST, "{commands} commands for three beats of {MANY} locks");
    assert!(held.iter().zip(ends).all(|(lock, end)| lock.deadline().unwrap() > end));
    // One of another time to live has beats of its own, and none of them misses its own.
    let other = session(&locks, "other", Duration::from_millis(900));
    let more = locks_of(&other, "o").await;
    refreshed(&mut events, 10 * MANY).await;
    assert!(held.iter().chain(&more).all(|lock| lock.is_held()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_releases_all_of_its_locks_by_few_commands() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let me = session(&locks, "me", LONG);
    let held = locks_of(&me, "k").await;
    let before = scripts_run(&server);
    assert_eq!(me.end().await, Release::Released);
    let commands = scripts_run(&server) - before;
    assert!(commands <= MOST, "{commands} commands for {MANY} locks");
    assert!(!held.iter().any(|lock| lock.is_held()));
    assert!(!(0..MANY).any(|n| exists(&server, &format!("lock:k:{n}"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_the_server_does_not_answer_says_so_and_its_locks_go_later() {
    let server = Server::start(&[]);
    let locks = builder(&server.url()).build_and_connect().await.unwrap();
    let me = session(&locks, "me", LONG);
    let held = locks_of(&me, "k").await;
    server.stop();
    // What is under way for a lock is waited for before it is released, and that is no reason to wait for longer.
    let refreshes = join_all(held.iter().take(5).map(|lock| lock.refresh()));
    let (found, refreshes) = futures::future::join(me.end(), refreshes).await;
    assert_eq!(found, Release::Unknown);
    assert!(refreshes.iter().all(Result::is_err) && !held.iter().any(|lock| lock.is_held()));
    server.cont();
    until("all to be free", || !(0..MANY).any(|n| exists(&server, &format!("lock:k:{n}"))));
}
