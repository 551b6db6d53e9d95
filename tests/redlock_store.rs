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

use leasehold::store::Store;
use leasehold::store::conformance;
use redlock::Nodes;

/// The suite takes locks for two hours.
const HOURS: Duration = Duration::from_hours(3);

#[test]
fn the_contract_holds_over_one_three_and_five_nodes() {
    for count in [1, 3, 5] {
        let nodes = Nodes::start(count, &[], HOURS);
        conformance::check(|| Arc::new(nodes.builder().build().unwrap()) as Arc<dyn Store>);
    }
}
