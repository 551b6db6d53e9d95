//! Fear: a store in a directory does less than the contract says, or a manager over it less than in memory.

use std::sync::Arc;
use std::time::Duration;

use leasehold::LockManager;
use leasehold::conformance::{manager, store};
use leasehold::store::Store;
use leasehold::store::file::{Durability, FileStore};

use crate::kit::Dir;

const RELAXED: Durability = Durability::Relaxed { every: Duration::from_millis(20) };

fn keeps_the_contract(durability: Durability) {
    let dir = Dir::new();
    let open = FileStore::builder(dir.path()).durability(durability).build().unwrap();
    store::check(|| Arc::new(open.clone()) as Arc<dyn Store>);
}

fn has_managers_that_do_as_in_memory(durability: Durability) {
    let dir = Dir::new();
    let open = FileStore::builder(dir.path()).durability(durability).build().unwrap();
    manager::check(|| LockManager::builder().store(open.clone()));
}

#[test]
fn a_directory_keeps_the_contract() {
    keeps_the_contract(Durability::Synced);
}

#[test]
fn a_relaxed_directory_keeps_the_contract() {
    keeps_the_contract(RELAXED);
}

#[test]
fn managers_over_a_directory_do_as_in_memory() {
    has_managers_that_do_as_in_memory(Durability::Synced);
}

#[test]
fn managers_over_a_relaxed_directory_do_as_in_memory() {
    has_managers_that_do_as_in_memory(RELAXED);
}
