//! Fear: a holder that was paused past its lock writes into the database all the same.

use std::time::Duration;

use leasehold::fence::{POSTGRES_GUARD, POSTGRES_GUARD_DDL, PostgresGuard, PostgresGuardError, StaleFence};
use leasehold::store::postgres::PostgresStore;
use leasehold::{FencingToken, LockManager};
use tokio_postgres::{Client, NoTls};

use crate::pg::Postgres;

async fn client(server: &Postgres) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn with_stock() -> Postgres {
    let server = Postgres::start();
    server.init();
    server.ask(&format!(
        "{POSTGRES_GUARD_DDL}; CREATE TABLE stock (id int, amount int); INSERT INTO stock VALUES (7, 0)"
    ));
    server
}

/// Writes as a holder does: the check, then the write, then the commit.
async fn write(client: &mut Client, fence: FencingToken, amount: i32) -> Result<(), PostgresGuardError> {
    let transaction = client.transaction().await?;
    PostgresGuard.check(&transaction, "stock:7", fence).await?;
    transaction.execute("UPDATE stock SET amount = $1 WHERE id = 7", &[&amount]).await?;
    Ok(transaction.commit().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_update_of_a_paused_holder_is_refused() {
    let server = with_stock();
    let locks = || LockManager::builder().store(PostgresStore::new(&server.url()).unwrap()).build_and_connect();
    let (one, two) = (locks().await.unwrap(), locks().await.unwrap());
    let (mut early, mut late) = (client(&server).await, client(&server).await);
    let paused = one.lock("stock:7").ttl(Duration::from_millis(200)).await.unwrap();
    let old = paused.fencing_token().unwrap();
    write(&mut early, old, 1).await.unwrap();
    write(&mut early, old, 2).await.unwrap();
    // It does not look at its clock, and goes on when the next holder has written.
    let next = two.lock("stock:7").wait(Duration::from_secs(60)).await.unwrap().fencing_token().unwrap();
    write(&mut late, next, 41).await.unwrap();
    match write(&mut early, old, 3).await {
        Err(PostgresGuardError::Stale(StaleFence { shown, seen, .. })) => assert_eq!((shown, seen), (old, next)),
        other => panic!("it was not refused: {other:?}"),
    }
    assert_eq!(server.ask("SELECT amount FROM stock"), "41");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_checks_while_a_later_holder_writes_waits_and_is_refused() {
    let server = with_stock();
    let (mut early, mut late) = (client(&server).await, client(&server).await);
    let [old, new] = ["41", "42"].map(|fence| fence.parse::<FencingToken>().unwrap());
    let writing = late.transaction().await.unwrap();
    PostgresGuard.check(&writing, "stock:7", new).await.unwrap();
    let stale = tokio::spawn(async move { write(&mut early, old, 1).await });
    crate::kit::until("it waits", || {
        server.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == "1"
    });
    writing.execute("UPDATE stock SET amount = 2", &[]).await.unwrap();
    writing.commit().await.unwrap();
    assert!(matches!(stale.await.unwrap(), Err(PostgresGuardError::Stale(_))));
    assert_eq!(server.ask("SELECT amount FROM stock"), "2");
    // What was rolled back has raised nothing.
    let writing = late.transaction().await.unwrap();
    PostgresGuard.check(&writing, "stock:7", "99".parse().unwrap()).await.unwrap();
    drop(writing);
    write(&mut late, new, 3).await.unwrap();
    // The statement by itself says the same.
    assert_eq!(late.query(POSTGRES_GUARD, &[&"stock:7", &41_i64]).await.unwrap().len(), 0);
    assert_eq!(late.query(POSTGRES_GUARD, &[&"stock:7", &43_i64]).await.unwrap().len(), 1);
}
