//! What does a lock in PostgreSQL cost over what else one could do with it, and does its table grow with the locks?
//!
//! The first tables are acquire + release, against a real server on this machine: through the manager (`leasehold`), through
//! the store alone, over one connection and over two; and, over one connection with prepared statements, `INSERT` + `DELETE`
//! of a row (no end in time, no fence, no order), and a session's `pg_try_advisory_lock` + `pg_advisory_unlock` (nothing is
//! written; the lock is the session's). The first table waits for the disk at each commit, as a server does unless it is
//! told otherwise; the second does not. Runs alternate, and the medians are shown.
//!
//! The third counts pages after many locks of a thousand keys: 100,000, or as many as the command line says.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/redis/mod.rs"]
mod kit;
#[path = "../tests/support/postgres.rs"]
mod pg;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use figures::keep;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use leasehold::store::postgres::PostgresStore;
use leasehold::store::{AcquireRequest, Acquired, OnHeld, Released, Store};
use leasehold::{Key, LockManager, Mode, Release, Token, Ttl};
use pg::Postgres;
use tokio_postgres::{Client, NoTls};

/// Takes a lock and releases it.
type Pair<'a> = Box<dyn Fn() -> BoxFuture<'a, ()> + 'a>;

const ROUNDS: usize = 5;

async fn through_the_store(store: &PostgresStore, key: &Key) {
    let (token, ttl) = (Token::random(), Ttl::new(Duration::from_secs(30)).unwrap());
    let ask = AcquireRequest { key, token, ttl, on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] };
    let answer = store.acquire(ask).await;
    assert!(matches!(answer, Acquired::Granted { .. }), "{answer:?}");
    assert_eq!(store.release(key, token).await, Released::Released);
}

/// Runs `total` pairs with so many in flight; answers pairs per second.
async fn pairs_per_second(in_flight: usize, total: usize, pair: &Pair<'_>) -> f64 {
    let began = Instant::now();
    let mut running: FuturesUnordered<_> = (0..in_flight).map(|_| pair()).collect();
    let mut started = in_flight;
    while running.next().await.is_some() {
        if started < total {
            running.push(pair());
            started += 1;
        }
    }
    total as f64 / began.elapsed().as_secs_f64()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn store(url: &str, connections: usize) -> PostgresStore {
    let builder = PostgresStore::builder(url).connections(connections).operation_timeout(Duration::from_secs(10));
    let store = builder.build().unwrap();
    store.start().await.unwrap();
    while store.health().await.answer.is_err() {}
    store
}

/// Pairs per second of each way, by its name.
async fn compare(server: &Postgres, in_flight: usize, total: usize) -> Vec<(&'static str, f64)> {
    server.ask("CREATE TABLE IF NOT EXISTS bare (key text PRIMARY KEY)");
    let url = server.url();
    let (single, double) = (store(&url, 1).await, store(&url, 2).await);
    let locks = LockManager::builder().store(store_of_a_manager(&url)).build_and_connect().await.unwrap();
    let client = connect(&url).await;
    let insert = client.prepare("INSERT INTO bare VALUES ($1)").await.unwrap();
    let delete = client.prepare("DELETE FROM bare WHERE key = $1").await.unwrap();
    let lock = client.prepare("SELECT pg_try_advisory_lock($1)").await.unwrap();
    let unlock = client.prepare("SELECT pg_advisory_unlock($1)").await.unwrap();
    let keys: Vec<Key> = (0..512).map(|n| Key::new(format!("bench:{n}")).unwrap()).collect();
    let next = Cell::new(0_usize);
    let turn = || next.replace((next.get() + 1) % keys.len());
    let ways: [(&str, Pair<'_>); 5] = [
        (
            "leasehold",
            Box::new(|| {
                let key = &keys[turn()];
                let locks = &locks;
                Box::pin(async move {
                    assert_eq!(locks.lock(key.as_str()).await.unwrap().unlock().await, Release::Released)
                })
            }),
        ),
        ("store, 2 connections", Box::new(|| Box::pin(through_the_store(&double, &keys[turn()])))),
        ("store, 1 connection", Box::new(|| Box::pin(through_the_store(&single, &keys[turn()])))),
        (
            "INSERT + DELETE",
            Box::new(|| {
                let (key, client, insert, delete) = (keys[turn()].as_str(), &client, &insert, &delete);
                Box::pin(async move {
                    assert_eq!(client.execute(insert, &[&key]).await.unwrap(), 1);
                    assert_eq!(client.execute(delete, &[&key]).await.unwrap(), 1);
                })
            }),
        ),
        (
            "advisory lock + unlock",
            Box::new(|| {
                let (number, client, lock, unlock) = (turn() as i64, &client, &lock, &unlock);
                Box::pin(async move {
                    assert!(client.query_one(lock, &[&number]).await.unwrap().get::<_, bool>(0));
                    assert!(client.query_one(unlock, &[&number]).await.unwrap().get::<_, bool>(0));
                })
            }),
        ),
    ];
    let mut runs = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for (runs, (_, pair)) in runs.iter_mut().zip(&ways) {
            let rate = pairs_per_second(in_flight, total, pair).await;
            // The first round warms up.
            if round > 0 {
                runs.push(rate);
            }
        }
    }
    let median = |mut runs: Vec<f64>| {
        runs.sort_by(f64::total_cmp);
        runs[runs.len() / 2]
    };
    let rates = ways.iter().zip(runs).map(|((name, _), runs)| (*name, median(runs))).collect();
    locks.shutdown(Duration::ZERO).await;
    single.stop().await;
    double.stop().await;
    rates
}

fn store_of_a_manager(url: &str) -> PostgresStore {
    PostgresStore::builder(url).operation_timeout(Duration::from_secs(10)).build().unwrap()
}

/// What the table is like after so many locks of a thousand keys.
async fn growth(server: &Postgres, locks: usize) -> (u64, f64) {
    let store = Arc::new(store(&server.url(), 2).await);
    let keys: Vec<Key> = (0..1000).map(|n| Key::new(format!("growth:{n}")).unwrap()).collect();
    let next = Cell::new(0_usize);
    let pair: Pair<'_> = Box::new(|| {
        let key = &keys[next.replace((next.get() + 1) % keys.len())];
        let store = Arc::clone(&store);
        Box::pin(async move { through_the_store(&store, key).await })
    });
    pairs_per_second(64, locks, &pair).await;
    drop(pair);
    store.stop().await;
    // Each session reports what it has done when it ends, or a second later.
    kit::until("the statistics", || {
        let updates = server.ask("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'leasehold_locks'");
        updates.parse::<usize>().unwrap_or(0) + 2 * keys.len() >= 2 * locks
    });
    let size = server.ask("SELECT pg_total_relation_size('leasehold_locks')").parse().unwrap();
    let hot = "SELECT n_tup_hot_upd::float8 / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'leasehold_locks'";
    (size, server.ask(hot).parse().unwrap())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let is_test = std::env::args().any(|arg| arg == "--test");
    let many = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let mut figures: Vec<(String, f64)> = Vec::new();
    for (settings, title) in
        [(&[][..], "each commit on the disk"), (&["fsync=off"][..], "without waiting for the disk")]
    {
        let server = Postgres::with(settings);
        server.init();
        println!("{title}: acquire + release");
        for in_flight in [1, 64] {
            let total = if is_test {
                64
            } else if in_flight == 1 {
                500
            } else {
                4000
            };
            let rates = runtime.block_on(compare(&server, in_flight, total));
            let bare = rates.iter().find(|(name, _)| *name == "INSERT + DELETE").map_or(1.0, |(_, rate)| *rate);
            for (name, rate) in rates {
                println!(
                    "{in_flight:>3} in flight  {name:<24} {rate:>9.0} /s  {:>5.2} of INSERT + DELETE",
                    rate / bare
                );
                figures.push((format!("{title}, {in_flight}, {name}"), rate));
            }
        }
    }
    let server = Postgres::start();
    server.init();
    let locks = if is_test { 2000 } else { many };
    let (size, hot) = runtime.block_on(growth(&server, locks));
    println!(
        "after {locks} locks of 1000 keys: {} KiB with the index, {:.1}% of updates HOT",
        size / 1024,
        100.0 * hot
    );
    figures.push((format!("KiB after {locks}"), size as f64 / 1024.0));
    figures.push((format!("HOT after {locks}"), hot));
    if !is_test {
        keep("postgres.json", &figures)?;
    }
    Ok(())
}
