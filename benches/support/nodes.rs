//! Fresh nodes of a Redlock.

use leasehold::store::Store;
use leasehold::store::redlock::RedlockStore;

/// Says that nothing is held yet on the nodes.
pub(crate) async fn initialise(store: &RedlockStore) {
    store.start().await.unwrap();
    store.initialise().await.unwrap();
    store.stop().await;
}
