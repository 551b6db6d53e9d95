//! Fear: locks in PostgreSQL are not what a store promises, and a manager over it.
#![cfg(feature = "test-util")]

use std::sync::Arc;

use leasehold::store::Store;
use leasehold::store::postgres::{PostgresBuilder, PostgresStore};
use leasehold::{LockManager, conformance};

use crate::pg::{PgBouncer, Postgres};

fn keeps_the_contract(builder: impl Fn() -> PostgresBuilder) {
    conformance::store::check(|| Arc::new(builder().build().unwrap()) as Arc<dyn Store>);
}

#[test]
fn postgres_keeps_the_contract() {
    let server = Postgres::start();
    server.init();
    keeps_the_contract(|| PostgresStore::builder(&server.url()));
}

#[test]
fn postgres_keeps_the_contract_without_listening() {
    let server = Postgres::start();
    server.init();
    keeps_the_contract(|| PostgresStore::builder(&server.url()).listen(false));
}

#[test]
fn postgres_keeps_the_contract_behind_a_proxy_that_pools_transactions() {
    let server = Postgres::start();
    server.init();
    let proxy = PgBouncer::before(&server);
    keeps_the_contract(|| PostgresStore::builder(&proxy.url()).listen_url(&server.url()));
    keeps_the_contract(|| PostgresStore::builder(&proxy.url()).listen(false));
}

#[test]
fn a_manager_over_postgres_does_what_managers_do() {
    let server = Postgres::start();
    server.init();
    conformance::manager::check(|| LockManager::builder().store(PostgresStore::new(&server.url()).unwrap()));
}

#[test]
fn a_manager_over_postgres_does_so_without_listening() {
    let server = Postgres::start();
    server.init();
    conformance::manager::check(|| {
        LockManager::builder().store(PostgresStore::builder(&server.url()).listen(false).build().unwrap())
    });
}
